"""GE MUSE XML (`RestingECG`): the rhythm waveform, never the median beat that comes before it.

Sources: `restecg.dtd` and decoded exports of MUSE 7.1 and 9.0; every lead may carry a CRC-32 of its samples.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import NO_CLOCK, Context, age_of, known, moment, sex_of, stated_age
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers._xml.document import Root, read_xml, root_name
from ecgcohorts.readers._xml.values import base64_bytes, integer, number, refuse, text_of
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".xml",)
VARIANTS = (
    "MUSE 7 to 9, with and without waveform types, CRC-32 and demographics",
    "any rate, 8, 11 or 12 leads, any unit per lead",
)
MISSING = -(1 << 15)  # the least 16-bit value
SAMPLE_BYTES = 2
# A median beat is 1.2 s long, a rhythm strip 10 s: what lies between is our default.
SHORTEST_RHYTHM_S = 2.0
MAX_WAVEFORMS = 64  # our default; MUSE writes two
UNTYPED = "waveform type absent, the only long one taken"
NO_CRC = "no CRC-32, samples not verified"
LEAD_IN = "invalid lead-in marked missing"
LEAD_COUNT = "another number of leads than declared"

# ACFilter may be NONE, and may repeat.
MAINS_HZ = {"50": 50.0, "60": 60.0}

# Section -> elements kept as Recording.fields for cohort rules: an allow-list without names of people, clinicians or
# free text.
KEPT = {
    "MuseInfo": ("MuseVersion",),
    "PatientDemographics": (
        *("PatientID", "PatientAge", "AgeUnits", "DateofBirth", "Gender", "Race"),
        *("HeightIN", "HeightCM", "WeightLBS", "WeightKG"),
    ),
    "TestDemographics": (
        *("DataType", "Site", "SiteName", "Location", "LocationName", "Status", "Priority", "CartNumber"),
        *("AcquisitionDevice", "AcquisitionSoftwareVersion", "AnalysisSoftwareVersion"),
        *("AcquisitionDate", "AcquisitionTime"),
    ),
}
FILTERS = ("HighPassFilter", "LowPassFilter", "ACFilter")

_DATE = re.compile(r"([0-9]{1,2})[-/]([0-9]{1,2})[-/]([0-9]{4})")  # month first, as MUSE writes it
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")


class _Lead(NamedTuple):
    """One LeadData element; its samples stay encoded."""

    name: str
    encoded: str  # base64, white space removed
    n_samples: int  # as declared, else as encoded
    declared_bytes: int | None
    crc: int | None
    per_mv: float
    baseline: float
    first_valid: int


class _Rhythm(NamedTuple):
    """One waveform as declared."""

    waveform: Element
    rate_hz: float
    leads: tuple[_Lead, ...]
    untyped: bool  # the writer declared no waveform type


def sniff(head: bytes) -> bool:
    """Tell whether the first element is `RestingECG`."""
    return root_name(head) == "RestingECG"


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a MUSE file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers; -32768 is missing. Raises UnreadableRecording.
    """
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    digital = np.stack([_samples(lead, str(path)) for lead in rhythm.leads])
    first_valid = np.array([lead.first_valid for lead in rhythm.leads])
    missing = (digital == MISSING) | (np.arange(digital.shape[1]) < first_valid[:, None])
    yield _recording(path, root, rhythm, digital, missing if missing.any() else None)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; no payload is decoded."""
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    yield _recording(path, root, rhythm, np.zeros((len(rhythm.leads), 0), np.int32))


def _recording(
    path: Path, root: Root, rhythm: _Rhythm, digital: NDArray[np.int32], missing: NDArray[np.bool_] | None = None
) -> Recording:
    leads = rhythm.leads
    quirks = {
        UNTYPED: rhythm.untyped,
        NO_CRC: any(lead.crc is None for lead in leads),
        LEAD_IN: any(lead.first_valid for lead in leads),
        LEAD_COUNT: text_of(rhythm.waveform, "NumberofLeads") not in ("", str(len(leads))),
    }
    return Recording(
        recording_id=path.stem,
        leads=tuple(lead.name for lead in leads),
        rate_hz=rhythm.rate_hz,
        digital=digital,
        gain_per_mv=np.array([lead.per_mv for lead in leads]),
        baseline=np.array([lead.baseline for lead in leads]),
        missing=missing,
        n_samples=leads[0].n_samples,
        source=Origin("muse_xml", path),
        **_context(root, rhythm.waveform).facts(*root.notes, *(name for name, met in quirks.items() if met)),
    )


def _rhythm(root: Element, where: str) -> _Rhythm:
    """Find the rhythm by its declared type; by its length only where the writer declared no type."""
    if root.tag != "RestingECG":
        refuse(Reason.FORMAT, "another root element", "RestingECG", where)
    waveforms = root.findall("Waveform")
    if len(waveforms) > MAX_WAVEFORMS:
        refuse(Reason.LIMIT, f"{len(waveforms)} waveforms", f"at most {MAX_WAVEFORMS}", where)
    # The median comes first in the file, so the first waveform is the wrong one.
    typed = [waveform for waveform in waveforms if text_of(waveform, "WaveformType").casefold() == "rhythm"]
    if len(typed) > 1:
        refuse(Reason.UNSUPPORTED, f"{len(typed)} rhythm waveforms", "one", where)
    if typed:
        return _parse(typed[0], False, where)
    untyped = [_parse(waveform, True, where) for waveform in waveforms if not text_of(waveform, "WaveformType")]
    long = [rhythm for rhythm in untyped if rhythm.leads[0].n_samples / rhythm.rate_hz >= SHORTEST_RHYTHM_S]
    if len(long) != 1:
        refuse(Reason.EMPTY, f"{len(long)} rhythms among {len(waveforms)} waveforms", "one of type Rhythm", where)
    return long[0]


def _rate_hz(waveform: Element, where: str) -> float:
    """Return the sampling rate: SampleBase times ten to the SampleExponent."""
    # Rates other than 500 Hz exist: 8 leads of 2,500 samples at 250 Hz in MUSE 7.1.
    base = number(waveform, "SampleBase", where)
    exponent = integer(waveform, "SampleExponent", where) or 0
    if base is None or base <= 0 or abs(exponent) > 6:
        refuse(Reason.HEADER, "no usable sampling rate", "SampleBase and SampleExponent", where)
    return base * 10.0**exponent


def _parse(waveform: Element, untyped: bool, where: str) -> _Rhythm:
    """Parse the leads of one waveform as declared, and check them against each other and the limits."""
    elements = waveform.findall("LeadData")
    if not elements:
        refuse(Reason.EMPTY, "a waveform without leads", "at least one", where)
    if text_of(waveform, "SampleType") not in ("", "CONTINUOUS_SAMPLES"):
        refuse(Reason.UNSUPPORTED, "another sample type", "CONTINUOUS_SAMPLES", where)
    rate_hz = _rate_hz(waveform, where)
    leads = tuple(_lead(element, where) for element in elements)
    if len({lead.n_samples for lead in leads}) > 1:
        refuse(Reason.UNSUPPORTED, "leads of unequal length", "equal ones", where)
    if len({number(element, "LeadTimeOffset", where) or 0.0 for element in elements}) > 1:
        refuse(Reason.UNSUPPORTED, "leads that start at different times", "simultaneous ones", where)
    check_shape(len(leads), leads[0].n_samples, rate_hz, where)
    return _Rhythm(waveform, rate_hz, leads, untyped)


def _lead(element: Element, where: str) -> _Lead:
    """Parse a LeadData element. A missing gain or unit is an error: 4.88 uV is usual, but not certain."""
    name = text_of(element, "LeadID")
    if integer(element, "LeadSampleSize", where) not in (None, SAMPLE_BYTES):
        refuse(Reason.UNSUPPORTED, "samples of another size", f"{SAMPLE_BYTES} bytes", where)
    per_bit, unit = number(element, "LeadAmplitudeUnitsPerBit", where), text_of(element, "LeadAmplitudeUnits")
    # -10 uV a step is met: a negative gain is allowed, and 0 is not.
    if not per_bit or not unit:
        refuse(Reason.UNIT, "no amplitude per bit, or no unit", "both, for every lead", where)
    encoded = "".join((element.findtext("WaveFormData") or "").split())
    crc = integer(element, "LeadDataCRC32", where)
    count = integer(element, "LeadSampleCountTotal", where)
    first_valid = integer(element, "LeadOffsetFirstSample", where) or 0
    if first_valid < 0:
        refuse(Reason.HEADER, "a negative LeadOffsetFirstSample", "a number of samples", where)
    return _Lead(
        name,
        encoded,
        len(encoded.rstrip("=")) * 3 // 4 // SAMPLE_BYTES if count is None else count,
        integer(element, "LeadByteCountTotal", where),
        None if crc is None else crc & 0xFFFFFFFF,
        steps_per_mv(1.0 / per_bit, unit, name, where),
        # It is to be added to the stored integers, so 0 mV lies that many steps below 0.
        -(number(element, "FirstSampleBaseline", where) or 0.0),
        first_valid,
    )


def _samples(lead: _Lead, where: str) -> NDArray[np.int32]:
    """Decode one lead, and verify it against declared counts and CRC-32."""
    if not lead.encoded:
        refuse(Reason.EMPTY, "a lead without samples", "base64 in every WaveFormData", where)
    data = base64_bytes(lead.encoded, where)
    declared = (lead.n_samples * SAMPLE_BYTES, lead.declared_bytes if lead.declared_bytes is not None else len(data))
    if declared != (len(data), len(data)):
        refuse(Reason.TRUNCATED, f"{len(data)} bytes in a lead", f"{declared[0]} as declared", where)
    # A plain CRC-32 of the bytes; it held for all 64 leads of the four files it was tried on.
    if lead.crc is not None and zlib.crc32(data) != lead.crc:
        refuse(Reason.CHECKSUM, "another CRC-32", "the declared one in every lead", where)
    return np.frombuffer(data, "<i2").astype(np.int32)


def _context(root: Element, waveform: Element) -> Context:
    """Collect patient, test, device and filters. Whole sections may be missing: de-identified files drop them."""
    fields: dict[str, str] = {}
    for section, tags in KEPT.items():
        element = root.find(section)
        fields |= {tag: text for tag in tags if (text := text_of(element, tag))}
    filters = {tag: [text for each in waveform.findall(tag) if (text := (each.text or "").strip())] for tag in FILTERS}
    spikes = [text for each in waveform.findall("PaceSpikes") for part in each.itertext() for text in part.split()]
    fields |= {tag: " ".join(texts) for tag, texts in filters.items() if texts}
    if spikes:
        fields["PaceSpikes"] = " ".join(spikes)
    acquired_at = _moment(fields.get("AcquisitionDate", ""), fields.get("AcquisitionTime", ""))
    time = fields.get("AcquisitionTime")
    clock = (NO_CLOCK,) if acquired_at is not None and time and not _TIME.fullmatch(time) else ()
    stated = stated_age(fields.get("PatientAge", ""), fields.get("AgeUnits", ""))
    age_years, doubts = age_of(stated, _moment(fields.get("DateofBirth", ""), ""), acquired_at)
    off = sum(text_of(lead, "LeadOff") == "TRUE" for lead in waveform.findall("LeadData"))
    counts = [f"{what}: {count}" for what, count in (("pace spikes", len(spikes)), ("lead off", off)) if count]
    mains = {MAINS_HZ[text] for text in filters["ACFilter"] if text in MAINS_HZ}
    return Context(
        patient_id=known(fields.get("PatientID")),
        age_years=age_years,
        sex=sex_of(fields.get("Gender", "")),
        acquired_at=acquired_at,
        device=fields.get("AcquisitionDevice"),
        site=fields.get("Site") or fields.get("SiteName"),
        mains_hz=mains.pop() if len(mains) == 1 else None,
        fields=fields,
        notes=(*_filter_notes(filters), *counts, *doubts, *clock),
    )


def _moment(date: str, time: str) -> datetime | None:
    found = _DATE.fullmatch(date)
    if found is None:
        return None
    month, day, year = (int(part) for part in found.groups())
    clock = _TIME.fullmatch(time)
    return moment(year, month, day, *(clock.groups() if clock else ()))


def _filter_notes(filters: dict[str, list[str]]) -> list[str]:
    """Tell the filters in Hz. HighPassFilter is written in hundredths of a Hz: 16 means 0.16 Hz."""
    notes = []
    for tag, scale, what in (("HighPassFilter", 0.01, "high-pass"), ("LowPassFilter", 1.0, "low-pass")):
        if filters[tag] and re.fullmatch(r"[0-9]{1,6}", filters[tag][0]):
            notes.append(f"{what} {int(filters[tag][0]) * scale:g} Hz")
    known = [text for text in dict.fromkeys(filters["ACFilter"]) if text in MAINS_HZ]
    return [*notes, f"AC filter {' and '.join(known)} Hz"] if known else notes
