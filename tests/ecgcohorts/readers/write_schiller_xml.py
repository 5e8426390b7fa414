"""Write Schiller SEMA files with known samples. Layout from one published file of SEMA 2.64."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
NEVER_READ = 9999  # every sample of the averages

CANARIES = (
    *("KANARI-SCHILLER-51", "Quillfeather-Schiller", "Barnabina-Schiller", "User-Oddlethorpe-Schiller"),
    *("Station-of-the-Schiller-Newt", "CASE-SCHILLER-7719", "ORDER-SCHILLER-8820", "remark on a Schiller walnut"),
)
PID, FAMILY, GIVEN, USER, PLACE, CASE, ORDER, REMARK = CANARIES

PATIENT = f"""<patdata><id>{PID}</id><lastname>{FAMILY}</lastname><firstname>{GIVEN}</firstname>
<birthdate>19460502</birthdate><gender>FEMALE</gender><ethnic>ETHNIC_UNDEFINED</ethnic>
<weight><value>85.0</value><unit>kg</unit></weight><height><value>180.0</value><unit>cm</unit></height>
<pacemaker><value>OFF</value></pacemaker></patdata>"""
EXAM = f"""<examdescript><startdatetime><date>20060502</date><time>140610000</time></startdatetime>
<rectype>RESTING_ECG</rectype><job_id>{ORDER}</job_id><user_id>{USER}</user_id><case_id>{CASE}</case_id>
<idu><aquiring_user><id>{USER}</id><name>{USER}</name></aquiring_user>
<aquiring_department><id>NFS</id><name>{PLACE}</name></aquiring_department>
<aquiring_institute><id>002</id><name>{PLACE}</name></aquiring_institute></idu>
<aquiringdevice><hardware><vendor>Schiller</vendor><type>AT-110</type><model>AT-110</model></hardware>
<software><vendor>Schiller</vendor><model>SEMA</model><version>2.64.0</version></software></aquiringdevice></examdescript>"""
FILTERS = (("MAINS", "50"), ("SMOOTHING", "OFF"), ("HIGHPASS_CUTOFF_FREQ", "0.05"), ("LOWPASS_CUTOFF_FREQ", "150"))


def channel_xml(name: str, samples: Sequence[int] | str, count: int | str | None = None, coding: str = "") -> str:
    text = samples if isinstance(samples, str) else ",".join(map(str, samples))
    declared = text.count(",") + 1 if count is None else count
    noise = "<annotation_lead><name>R_AMPL</name><value>0.77</value></annotation_lead>"
    tail = f"<datastype>{coding or 'COMMASEPARATE'}</datastype><samplecount>{declared}</samplecount>"
    return f"<channel>{noise}<name>{name}</name><data>{text}</data>{tail}</channel>"


def waves_xml(
    *channels: str,
    kind: str = "ECG_RHYTHMS",
    rate: str = "500",
    exponent: str = "1",
    step: str = "1.0",
    unit: str = "UV",
) -> str:
    sampled = f"<samplerate><exponent>{exponent}</exponent><value>{rate}</value></samplerate>"
    stepped = f"<yres><unitperbit>{step}</unitperbit><units>{unit}</units></yres>"
    head = f"<type>{kind}</type><resolution>{sampled}{stepped}</resolution>"
    return f"<wavedata>{head}<channelconfiguration>ECG_STANDARD</channelconfiguration>{''.join(channels)}</wavedata>"


def rhythm_xml(digital: NDArray[np.integer], leads: Sequence[str] = LEADS, **how: str) -> str:
    return waves_xml(*(channel_xml(lead, row) for lead, row in zip(leads, digital.tolist(), strict=True)), **how)


def averages_xml(leads: Sequence[str] = LEADS) -> str:
    return waves_xml(*(channel_xml(lead, [NEVER_READ] * 24) for lead in leads), kind="ECG_AVERAGES")


def document(
    *waves: str,
    patient: str = PATIENT,
    exam: str = EXAM,
    filters: Sequence[tuple[str, str]] = FILTERS,
    root: str = "com.xiriuz.sema.xml.schillerEDI.SchillerEDI",
) -> str:
    """A whole file; as in the one that was published, the rhythm follows the averages."""
    rows = "".join(f"<filter><name>{name}</name><value>{value}</value></filter>" for name, value in filters)
    remark = f"<textdata><type>REMARK_6</type><textdata>{REMARK}</textdata></textdata>"
    measured = "<annotation_global><name>HR</name><value>59</value></annotation_global>"
    after = f"{measured}<filters_data>{rows}</filters_data>{remark}"
    event = f"<event><offset>0</offset><reason>END_RECORD</reason>{''.join(waves)}{after}</event>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{patient}{exam}<eventdata>{event}</eventdata></{root}>\n'


def known_samples(n_leads: int = 12, n_samples: int = 60, seed: int = 21) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-1500, 1500, (n_leads, n_samples))


def beats(n_samples: int, rate: int = 500) -> NDArray[np.int64]:
    """(12, time) in the order of LEADS, 1 uV a step: a spike a second over noise, limb leads consistent."""
    rng = np.random.default_rng(22)
    phase_s = (np.arange(n_samples) % rate - rate // 2) / rate
    spike_uv = rng.uniform(400, 1400, (8, 1)) * np.exp(-((phase_s / 0.03) ** 2))
    eight = np.rint(spike_uv + rng.normal(0, 20, (8, n_samples))).astype(np.int64)
    one, two = eight[:2]
    return np.stack([one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2, *eight[2:]])


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    digital = known_samples(2) if seconds is None else beats(round(seconds * 500))
    leads = LEADS[: len(digital)]
    path = folder / "sema.xml"
    text = document(averages_xml(leads[:1]), rhythm_xml(digital, leads))
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # as published: a byte order mark
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": digital * 1e-3}]


def write_millivolts(folder: Path) -> Path:
    """Two leads in steps of 0.005 mV."""
    path = folder / "sema.xml"
    path.write_text(document(rhythm_xml(known_samples(2), LEADS[:2], step="0.005", unit="MV")), "utf-8")
    return path


VARIANT_FIXTURES = {"millivolts": write_millivolts}
