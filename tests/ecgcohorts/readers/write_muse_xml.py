"""Write MUSE files with known samples: median and rhythm, any leads, any fields left out or bent."""

import base64
import textwrap
import zlib
from collections.abc import Mapping, Sequence
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


def write(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    digital = known_samples()
    path = folder / "muse.xml"
    path.write_text(document(median_xml(), waveform_xml(digital)), "iso-8859-1")
    return path, [{"entry": "", "leads": LEADS, "rate_hz": 500.0, "signal_mv": digital * 4.88e-3}]
