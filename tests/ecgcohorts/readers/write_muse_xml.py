"""Write MUSE files with known samples: median and rhythm, any leads, any fields left out or bent."""

import base64
import re
import textwrap
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DOCTYPE = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">'
PATIENT = {
    "PatientID": "4711",
    "PatientAge": "63",
    "AgeUnits": "YEARS",
    "Gender": "FEMALE",
    "PatientLastName": "Canary",
}
TEST = {
    "Site": "7",
    "SiteName": "North",
    "AcquisitionDevice": "MAC55",
    "AcquisitionTime": "14:05:59",
    "AcquisitionDate": "03-31-2019",
}


def elements(values: Mapping[str, str | None]) -> str:
    """One element per value; None leaves it out."""
    return "\n".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items() if value is not None)


def lead_xml(name: str, samples: NDArray[np.integer], **changes: str | None) -> str:
    data = samples.astype("<i2").tobytes()
    text = "\n   ".join(textwrap.wrap(base64.b64encode(data).decode(), 72))
    values: dict[str, str | None] = {
        "LeadByteCountTotal": str(len(data)),
        "LeadTimeOffset": "0",
        "LeadSampleCountTotal": str(len(samples)),
        "LeadAmplitudeUnitsPerBit": "4.88",
        "LeadAmplitudeUnits": "MICROVOLTS",
        "LeadHighLimit": "2147483647",
        "LeadLowLimit": "268435456",
        "LeadID": name,
        "LeadOffsetFirstSample": "0",
        "FirstSampleBaseline": "0",
        "LeadSampleSize": "2",
        "LeadOff": "FALSE",
        "LeadDataCRC32": str(zlib.crc32(data)),
        "WaveFormData": f"\n   {text}\n   ",
    }
    return f"<LeadData>\n{elements(values | changes)}\n</LeadData>"


def waveform_xml(
    samples: NDArray[np.integer],
    kind: str | None = "Rhythm",
    leads: Sequence[str] = LEADS,
    rate: str = "500",
    **changes: Any,
) -> str:
    """A Waveform element of samples (lead, time). `lead=` changes every lead, other keywords the waveform itself."""
    per_lead = changes.pop("lead", {})
    head: dict[str, str | None] = {
        "WaveformType": kind,
        "NumberofLeads": str(len(leads)),
        "SampleType": "CONTINUOUS_SAMPLES",
        "SampleBase": rate,
        "SampleExponent": "0",
        "HighPassFilter": "5",
        "LowPassFilter": "150",
        "ACFilter": "60",
    }
    body = "\n".join(lead_xml(lead, row, **per_lead) for lead, row in zip(leads, samples, strict=True))
    return f"<Waveform>\n{elements(head | changes)}\n{body}\n</Waveform>"


def document(
    *waveforms: str,
    patient: Mapping[str, str | None] = PATIENT,
    test: Mapping[str, str | None] = TEST,
    declaration: str = '<?xml version="1.0" encoding="ISO-8859-1"?>',
    doctype: str = DOCTYPE,
) -> str:
    sections = f"<PatientDemographics>{elements(patient)}</PatientDemographics>" if patient else ""
    sections += f"<TestDemographics>{elements(test)}</TestDemographics>" if test else ""
    body = "\n".join(waveforms)
    muse = "<MuseInfo><MuseVersion>9.0.7</MuseVersion></MuseInfo>"
    return f"{declaration}\n{doctype}\n<RestingECG>\n{muse}\n{sections}\n{body}\n</RestingECG>\n"


def median_xml(n_leads: int = 8) -> str:
    """600 samples of a beat that must never be read, in front of the rhythm as MUSE writes it."""
    return waveform_xml(np.full((n_leads, 600), 9999), "Median", [f"L{place}" for place in range(n_leads)])


def known_samples(n_leads: int = 8, n_samples: int = 1250, seed: int = 5) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-900, 900, (n_leads, n_samples))


CANARIES = (
    *("KANARIENVOGEL-MUSE-8120377", "Quillfeather-Muse", "Zebediah-Muse", "02-29-1916", "KANARIENVOGEL-ORDER-5590"),
    *("Doctor-Marchbanks-Muse", "Technician-Ottoline-Muse", "asleep beside the harpsichord of Muse"),
)
PRIVATE_PATIENT = PATIENT | {
    "PatientID": CANARIES[0],
    "PatientAge": "94",
    "DateofBirth": CANARIES[3],
    "PatientLastName": CANARIES[1],
    "PatientFirstName": CANARIES[2],
}
PRIVATE_TEST = TEST | {"OverreaderLastName": CANARIES[5], "AcquisitionTechLastName": CANARIES[6]}
PRIVATE_SECTIONS = (
    f"<Order><OrderNumber>{CANARIES[4]}</OrderNumber></Order>",
    f"<Diagnosis><DiagnosisStatement><StmtText>{CANARIES[7]}</StmtText></DiagnosisStatement></Diagnosis>",
)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    if seconds is None:
        leads, digital = LEADS[:2], known_samples(2, 60)
        median = ""
    else:
        leads, digital = LEADS, beats(len(LEADS), round(seconds * 500))
        median = median_xml()
    path = folder / "muse.xml"
    rhythm = waveform_xml(digital, leads=leads)
    text = document(*PRIVATE_SECTIONS, median, rhythm, patient=PRIVATE_PATIENT, test=PRIVATE_TEST)
    path.write_text(text, "iso-8859-1")
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": digital * 4.88e-3}]


def beats(n_leads: int, n_samples: int) -> NDArray[np.int64]:
    """(lead, time) at 500 Hz and 4.88 uV a step: one spike a second of 0.5 to 1.5 mV over a little noise."""
    rng = np.random.default_rng(6)
    time = (np.arange(n_samples) % 500 - 250) / 500
    noise_mv = rng.normal(0, 0.02, (n_leads, n_samples))
    return np.rint((rng.uniform(0.5, 1.5, (n_leads, 1)) * np.exp(-((time / 0.02) ** 2)) + noise_mv) / 4.88e-3).astype(
        int
    )


def _untyped(folder: Path) -> Path:
    """No waveform type and no CRC-32, as some exports have it: the only long waveform is the rhythm."""
    path = folder / "untyped.xml"
    short = waveform_xml(known_samples(1, 30), None, ("I",), rate="20")
    long = waveform_xml(known_samples(1, 60), None, ("I",), rate="20", lead={"LeadDataCRC32": None})
    path.write_text(document(short, long, declaration="", doctype=""), "utf-16")
    return path


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {"untyped": _untyped}


def _checked(folder: Path) -> tuple[Path, Path, NDArray[np.int64]]:
    """A file with a CRC-32 in every lead; it covers all bits of the base64 text, since 60 samples need no padding."""
    path = folder / "checked.xml"
    data = document(waveform_xml(known_samples(2, 60), leads=LEADS[:2])).encode("iso-8859-1")
    path.write_bytes(data)
    payloads = [match.span(1) for match in re.finditer(rb"<WaveFormData>(.*?)</WaveFormData>", data, re.DOTALL)]
    covered = [place for span in payloads for place in range(*span) if not data[place : place + 1].isspace()]
    return path, path, (8 * np.array(covered)[:, None] + np.arange(8)).ravel()


CHECKED = {"CRC-32": _checked}
