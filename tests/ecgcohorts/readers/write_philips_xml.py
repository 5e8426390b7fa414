"""Write Philips files with known samples: an XLI encoder, both generations of attributes, any field left out or bent."""

import base64
import struct
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
NAMESPACE = "http://www3.medical.philips.com"
UV_PER_STEP = 5
PULSE_STEPS = 1000 // UV_PER_STEP  # 1 mV
END_CODE = 1023

Changes = Mapping[str, str | None]


# The encoder.


def lzw_codes(data: bytes) -> list[int]:
    """Greedy: the longest string known, then one string more, until the table holds 1023."""
    table = {bytes([value]): value for value in range(256)}
    codes, place = [], 0
    while place < len(data):
        length = 1
        while place + length < len(data) and data[place : place + length + 1] in table:
            length += 1
        codes.append(table[data[place : place + length]])
        if len(table) < 1023 and place + length < len(data):
            table[data[place : place + length + 1]] = len(table)
        place += length
    return codes


def pack(codes: list[int]) -> bytes:
    """Ten bits a code, most significant first; the last byte is filled with zeros."""
    bits = "".join(f"{code:010b}" for code in codes)
    return bytes(int(bits[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(bits), 8))


def deltas(samples: NDArray[np.integer]) -> tuple[list[int], int]:
    """What is stored for one lead, and its start: two samples, then 64 minus second differences, modulo 2^16."""
    x = [int(value) for value in samples]
    second = [x[i] - 2 * x[i - 1] + x[i - 2] for i in range(2, len(x))]
    stored = x[:2] + [64 - value for value in second[1:]] + [0]
    start = -second[0] if second else 0
    return [value % 65536 for value in stored][: len(x)], (start + 32768) % 65536 - 32768


def planes(stored: list[int]) -> bytes:
    return bytes(value >> 8 for value in stored) + bytes(value & 255 for value in stored)


def chunk(packed: bytes, start: int, size: int | None = None, kind: int = 1) -> bytes:
    return struct.pack("<iHh", len(packed) if size is None else size, kind, start) + packed


def lead_chunk(samples: NDArray[np.integer], end: bool = True) -> bytes:
    stored, start = deltas(samples)
    return chunk(pack(lzw_codes(planes(stored)) + [END_CODE] * end), start)


def residuals(leads: NDArray[np.integer]) -> NDArray[np.integer]:
    """Rows 2 to 5, III aVR aVL aVF, become what differs from the sums of I, II and III, rounded down."""
    wide = leads.astype(np.int64)
    out = wide.copy()
    i, ii, iii, avr, avl, avf = wide[:6]
    out[2] = ii - i - iii
    out[3] = -avr - np.floor((i + ii) / 2).astype(np.int64)
    out[4] = np.floor((i - iii) / 2).astype(np.int64) - avl
    out[5] = np.floor((ii + iii) / 2).astype(np.int64) - avf
    return out


def xli(leads: NDArray[np.integer], spare: int = 4, end: bool = True) -> bytes:
    """Chunks of all leads, and of `spare` channels of zeros such as machines add up to sixteen."""
    flat = np.zeros((spare, leads.shape[1]), int)
    return b"".join(lead_chunk(row, end) for row in [*residuals(leads), *flat])


# The document.


def calibrated(ecg: NDArray[np.integer], rate_hz: int) -> NDArray[np.integer]:
    """One second more, as machines write it: the trace goes on for 0.6 s, then 0, 1 mV and 0 in every lead."""
    tenth = rate_hz // 10
    on, flat = ecg[:, : 6 * tenth], np.zeros((len(ecg), tenth), int)
    return np.hstack([ecg, on, flat, flat + PULSE_STEPS, flat + PULSE_STEPS, flat])


def elements(values: Changes) -> str:
    return "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items() if value is not None)


def attributes(values: Changes) -> str:
    return "".join(f' {name}="{value}"' for name, value in values.items() if value is not None)


def payload(leads: NDArray[np.integer], encoding: str, compressed: bool) -> str:
    """All leads as text, in lines: plain integers, or base64 of XLI or of int16."""
    if encoding == "Plain":
        return "\n".join(textwrap.wrap(" ".join(str(int(value)) for value in leads.ravel()), 100))
    data = xli(leads) if compressed else leads.astype("<i2").tobytes()
    return "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 76))


def parsed_attributes(shape: tuple[int, int], version: str, encoding: str, compressed: bool, rate_hz: float) -> Changes:
    duration = f"{shape[1] / rate_hz * 1000:g}"
    if version == "1.03":
        return {
            "compressflag": str(compressed),
            "compressmethod": "XLI",
            "filterflag": "True",
            "dataencoding": encoding,
            "durationperchannel": duration,
            "nbitspersample": "16",
        }
    return {
        "dataencoding": encoding,
        "compression": "XLI" if compressed else None,
        "numberofleads": str(shape[0]),
        "leadlabels": " ".join(LEADS[: shape[0]]),
        "durationperchannel": duration,
        "samplespersecond": f"{rate_hz:g}",
        "resolution": str(UV_PER_STEP),
        "signaloffset": "0",
        "signalsigned": "True",
        "bitspersample": "16",
        "hipass": "0.05",
        "lowpass": "150",
        "notchfiltered": "False",
        "notchfilterfreqs": "0",
    }


def signal_elements(n_leads: int, version: str, rate_hz: float) -> Changes:
    old = version == "1.03"
    return {
        "samplingrate": f"{rate_hz:g}",
        "signalresolution" if old else "resolution": str(UV_PER_STEP),
        "signalbandwidth": "0.05-150" if old else None,
        "acsetting": None if old else "60",
        "acquisitiontype": "STD-12" if old else "10-WIRE",
        "bitspersample": "16",
        "signaloffset": "0",
        "signalsigned": "True",
        "numberchannelsallocated": str(n_leads),
        "numberchannelsvalid": str(n_leads),
    }


PATIENT = {"patientid": "4711", "sex": "Female", "pacestatus": "Unknown"}
AGE = "<age defaultage='50'><dateofbirth>1951-01-01</dateofbirth></age>"
ACQUIRED = "date='2020-05-18' time='15:48:11'"
ACQUIRER = {"departmentid": "70", "institutionid": "1", "institutionname": "North", "facilityid": "00"}
MEDIAN = (
    "<repbeats dataencoding='Base64' samplespersec='1000' resolution='1.0'>"
    "<repbeat leadname='I' duration='3'>DyePDyeP</repbeat></repbeats>"
)


def document(leads: NDArray[np.integer], version: str = "1.04", **options: Any) -> str:
    """A whole file of leads (lead, time) in steps.

    encoding, compressed, rate_hz, namespace: how to write. parsed, signal, patient, acquirer: attributes or elements to
    change, None leaves them out. text, age, kind, machine, acquisition, extra: replace or add XML.
    """
    rate_hz, encoding = options.get("rate_hz", 500), options.get("encoding", "Base64")
    compressed = options.get("compressed", encoding == "Base64")
    text = options["text"] if "text" in options else payload(leads, encoding, compressed)
    parsed = {**parsed_attributes(leads.shape, version, encoding, compressed, rate_hz), **options.get("parsed", {})}
    signal = {**signal_elements(len(leads), version, rate_hz), **options.get("signal", {})}
    kind = options.get("kind", "SierraECG" if version == "1.03" else "PhilipsECG")
    machine = options.get(
        "machine", "<machine machineid='X1' detaildescription='Philips:860315:A.07'>PageWriter TC</machine>"
    )
    sections = (
        f"<documentinfo>{elements({'documenttype': kind, 'documentversion': version})}</documentinfo>",
        options.get("extra", ""),
        "<reportinfo date='1999-12-31' time='00:00:00'><reportbandwidth><highpassfiltersetting>0.15"
        "</highpassfiltersetting><lowpassfiltersetting>40</lowpassfiltersetting></reportbandwidth></reportinfo>",
        f"<dataacquisition {options.get('acquisition', ACQUIRED)}>{machine}"
        f"<acquirer>{elements({**ACQUIRER, **options.get('acquirer', {})})}</acquirer>"
        f"<signalcharacteristics>{elements(signal)}</signalcharacteristics></dataacquisition>",
        f"<patient><generalpatientdata>{elements({**PATIENT, **options.get('patient', {})})}"
        f"{options.get('age', AGE)}</generalpatientdata></patient>",
        f"<waveforms><parsedwaveforms{attributes(parsed)}>{text}</parsedwaveforms>{MEDIAN}</waveforms>",
    )
    namespace = f' xmlns="{NAMESPACE}"' if options.get("namespace", True) else ""
    body = "\n".join(section for section in sections if section)
    return f'<restingecgdata{namespace} status="New" lang="en">\n{body}\n</restingecgdata>\n'


def save(path: Path, text: str, codec: str = "utf-8") -> Path:
    """utf-16 is written with a byte order mark, as machines from 1.04 on do."""
    path.write_bytes(f'<?xml version="1.0" encoding="{codec}"?>\n{text}'.encode(codec))
    return path


def known_samples(n_leads: int = 12, n_samples: int = 60, seed: int = 5, size: int = 900) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-size, size, (n_leads, n_samples))


def beats(n_samples: int, rate_hz: int = 500) -> NDArray[np.int64]:
    """(12, time) of 5 uV: one spike a second of up to 1.5 mV over a little noise, Einthoven and Goldberger kept."""
    rng = np.random.default_rng(6)
    time_s = (np.arange(n_samples) % rate_hz) / rate_hz - 0.5
    height_mv = rng.uniform(0.5, 1.5, (8, 1))
    ecg_mv = height_mv * np.exp(-((time_s / 0.02) ** 2)) + rng.normal(0, 0.02, (8, n_samples))
    i, ii, *chest = np.rint(ecg_mv * 1000 / UV_PER_STEP).astype(int)
    return np.stack([i, ii, ii - i, -((i + ii) // 2), i - ii // 2, ii - i // 2, *chest])


# What the tests of all readers ask for.

CANARIES = (
    *("KANARIENVOGEL-PHILIPS-3391", "KANARIENVOGEL-MRN-7720", "KANARIENVOGEL-UNIQUE-1804", "Quillfeather-Philips"),
    *("Zebediah-Philips", "Ottoline-Philips", "1917-03-09", "KANARIENVOGEL-ORDER-6613", "Doctor-Marchbanks-Philips"),
    *("Technician-Peregrine-Philips", "SERIAL-KANARIENVOGEL-0042", "asleep beside the bassoon of Philips"),
    *("KANARIENVOGEL-DOCUMENT-9115", "KANARIENVOGEL-USERDEFINE-2", "Editor-Thistlewood-Philips"),
)
PRIVATE_PATIENT = {
    "patientid": CANARIES[0],
    "uniquepatientid": CANARIES[2],
    "MRN": CANARIES[1],
    "name": f"<lastname>{CANARIES[3]}</lastname><firstname>{CANARIES[4]}</firstname><middlename>{CANARIES[5]}</middlename>",
}
PRIVATE_AGE = f"<age defaultage='50'><dateofbirth>{CANARIES[6]}</dateofbirth></age>"
PRIVATE_ACQUIRER = {"operator": CANARIES[9], "orderingclinician": CANARIES[8], "attendingclinician": CANARIES[8]}
PRIVATE_MACHINE = f"<machine machineid='{CANARIES[10]}' detaildescription='Philips:860315:A.07'>PageWriter TC</machine>"
PRIVATE_SECTIONS = (
    f"<userdefines><userdefine index='1'><label>FIN</label><value>{CANARIES[13]}</value></userdefine></userdefines>"
    f"<orderinfo priority=''><ordernumber>{CANARIES[7]}</ordernumber><orderremarks>{CANARIES[11]}</orderremarks></orderinfo>"
    f"<interpretations><interpretation><comment>{CANARIES[11]}</comment></interpretation></interpretations>"
)


def private(text: str) -> str:
    """A document with names in `documentinfo` as well."""
    more = {"documentname": f"{CANARIES[12]}.xml", "editor": CANARIES[14], "comments": CANARIES[11]}
    return text.replace("</documentinfo>", f"{elements(more)}</documentinfo>")


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it, the calibration second cut."""
    rate_hz = 20 if seconds is None else 500
    ecg = beats(round((1.0 if seconds is None else seconds) * rate_hz), rate_hz)
    options = {"patient": PRIVATE_PATIENT, "age": PRIVATE_AGE, "acquirer": PRIVATE_ACQUIRER, "machine": PRIVATE_MACHINE}
    text = document(calibrated(ecg, rate_hz), rate_hz=rate_hz, extra=PRIVATE_SECTIONS, **options)
    path = save(folder / "philips.xml", private(text), "utf-8" if seconds is None else "utf-16")
    return path, [{"entry": "", "leads": LEADS, "rate_hz": float(rate_hz), "signal_mv": ecg * UV_PER_STEP * 1e-3}]


def _old(folder: Path) -> Path:
    return save(folder / "old.xml", document(known_samples(n_samples=40), "1.03", rate_hz=20, namespace=False))


def _plain(folder: Path) -> Path:
    return save(folder / "plain.xml", document(known_samples(2, 40), encoding="Plain", rate_hz=20), "utf-16")


def _uncompressed(folder: Path) -> Path:
    return save(folder / "raw.xml", document(known_samples(2, 40), compressed=False, rate_hz=20))


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {"1.03": _old, "plain": _plain, "uncompressed": _uncompressed}
