"""GE CardioSoft XML (`CardiologyXML`), as UK Biobank gives it out: resting strips, and full disclosure of stress tests.

Sources: layouts published with readers of UK Biobank fields 20205 and 6025 (BRAVEHEART, ml4h); the
example of the ecgprocess package 1.2.0, a resting strip.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.limits import MAX_LEADS, check_shape
from ecgcohorts.readers._shared.people import Context, age_of, known, moment, sex_of, stated_age
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers._xml.document import Root, read_xml, root_name
from ecgcohorts.readers._xml.values import (
    count_integers,
    integer,
    integers,
    number,
    refuse,
    text_of,
)
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".xml",)
VARIANTS = (
    "resting: StripData with one list per lead, in uVperLsb",
    "stress: FullDisclosure in one-second blocks per lead, where StripData holds segments only; segments are not read; unconfirmed on real files",
)
# No other unit was described, so no other is converted.
UNIT = "uVperLsb"
# Names are spelt as the file spells them otherwise: AVR beside aVL.
NUMBERED = {"1": "I", "2": "II", "3": "III"}  # stress files
# Two orders of samples are described for full disclosure, and only blocks are read. A list in the other order (all leads
# of the first sample, then of the second ...) changes this many times more from one number to the next than from one to
# the next of its lead; our default.
ROUGHER = 2.0

DATE = ("Year", "Month", "Day")
CLOCK = ("Hour", "Minute", "Second")
# Field -> element below the root, kept as Recording.fields for cohort rules: an allow-list without names of people,
# clinicians or free text.
KEPT = {
    "PID": "PatientInfo/PID",
    "Gender": "PatientInfo/Gender",
    "Race": "PatientInfo/Race",
    "Age": "PatientInfo/Age",
    "Height": "PatientInfo/Height",
    "Weight": "PatientInfo/Weight",
    "PaceMaker": "PatientInfo/PaceMaker",
    "ObservationType": "ObservationType",
    "LocationNumber": "PatientVisit/AssignedPatientLocation/LocationNumber",
    "Device": "ClinicalInfo/DeviceInfo/Desc",
    "SoftwareVer": "ClinicalInfo/DeviceInfo/SoftwareVer",
    "AnalysisVer": "ClinicalInfo/DeviceInfo/AnalysisVer",
    "Filter50Hz": "FilterSetting/Filter50Hz",
    "Filter60Hz": "FilterSetting/Filter60Hz",
    "CubicSpline": "FilterSetting/CubicSpline",
    "HighPass": "FilterSetting/HighPass",
    "LowPass": "FilterSetting/LowPass",
}
UNITS = ("Age", "Height", "Weight", "HighPass", "LowPass")  # elements with an attribute `units`
ON = ("yes", "on", "true", "1")  # how a filter says that it was on; our reading


class _Strip(NamedTuple):
    """The rhythm as declared; its samples stay text."""

    leads: tuple[str, ...]
    rate_hz: float
    per_mv: tuple[float, ...]
    n_samples: int  # per lead, as declared; in full disclosure as counted
    lists: tuple[str, ...]  # one per lead; in full disclosure one for all


def sniff(head: bytes) -> bool:
    """Tell whether the first element is `CardiologyXML`."""
    return root_name(head) == "CardiologyXML"


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a CardioSoft file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the integers as written. Raises UnreadableRecording.
    """
    root = read_xml(path)
    strip = _strip(root, str(path))
    yield _recording(path, root, strip, _samples(strip, str(path)))


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; lists are at most counted."""
    root = read_xml(path)
    strip = _strip(root, str(path))
    yield _recording(path, root, strip, np.zeros((len(strip.leads), 0), np.int32))


def _recording(path: Path, root: Root, strip: _Strip, digital: NDArray[np.int32]) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=strip.leads,
        rate_hz=strip.rate_hz,
        digital=digital,
        gain_per_mv=np.array(strip.per_mv),
        baseline=np.zeros(len(strip.leads)),
        n_samples=strip.n_samples,
        source=Origin("cardiosoft_xml", path),
        **_context(root).facts(*root.notes),
    )


def _strip(root: Element, where: str) -> _Strip:
    """Return the resting strip; without one, full disclosure. Median beats and stress segments are never taken."""
    if root.tag != "CardiologyXML":
        refuse(Reason.FORMAT, "another root element", "CardiologyXML", where)
    resting = [data for data in root.findall("StripData") if data.find("WaveformData") is not None]
    disclosed = [full for full in root.findall("FullDisclosure") if _disclosed_text(full)]
    if not resting and not disclosed and root.find("StripData/Strip") is not None:
        refuse(Reason.UNSUPPORTED, "a stress test of segments only", "full disclosure, or a resting strip", where)
    if len(resting or disclosed) != 1:
        reason = Reason.UNSUPPORTED if resting or disclosed else Reason.EMPTY
        refuse(reason, f"{len(resting)} resting strips and {len(disclosed)} full disclosures", "one of them", where)
    return _resting(resting[0], where) if resting else _full_disclosure(disclosed[0], where)


def _resting(data: Element, where: str) -> _Strip:
    waveforms = data.findall("WaveformData")
    count = integer(data, "ChannelSampleCountTotal", where)
    if integer(data, "NumberOfLeads", where) not in (None, len(waveforms)):
        refuse(Reason.HEADER, f"{len(waveforms)} leads", "as many as NumberOfLeads", where)
    if count is None:
        refuse(Reason.HEADER, "no ChannelSampleCountTotal", "the number of samples per lead", where)
    names = tuple(_name(waveform.get("lead"), where) for waveform in waveforms)
    rate_hz = _rate_hz(data, where)
    check_shape(len(names), count, rate_hz, where)
    return _Strip(names, rate_hz, _per_mv(data, names, where), count, tuple(each.text or "" for each in waveforms))


def _full_disclosure(full: Element, where: str) -> _Strip:
    """Parse one list of all leads, second by second: rate samples of the first lead, then of the second ..."""
    names = tuple(_name(name, where) for name in text_of(full, "LeadOrder").split(",", MAX_LEADS))
    if integer(full, "NumberOfChannels", where) not in (None, len(names)):
        refuse(Reason.HEADER, f"{len(names)} leads in LeadOrder", "as many as NumberOfChannels", where)
    rate_hz = _rate_hz(full, where)
    text = _disclosed_text(full)
    count = count_integers(text, commas=True)
    check_shape(len(names), -(-count // len(names)), rate_hz, where)
    if rate_hz != int(rate_hz) or count % (int(rate_hz) * len(names)):
        refuse(Reason.TRUNCATED, f"{count} samples of {len(names)} leads", "whole seconds of every lead", where)
    declared = integer(full, "FullDisclosureData/SampleCountTotal", where)
    if declared not in (None, 0, count, count // len(names)):
        refuse(Reason.TRUNCATED, f"{count} samples", f"{declared} as declared", where)
    return _Strip(names, rate_hz, _per_mv(full, names, where), count // len(names), (text,))


def _disclosed_text(full: Element) -> str:
    """Return the list of FullDisclosureData: its own text, without that of elements inside it."""
    datas = full.findall("FullDisclosureData")
    return "".join(part or "" for data in datas for part in (data.text, *(inner.tail for inner in data))).strip()


def _samples(strip: _Strip, where: str) -> NDArray[np.int32]:
    if len(strip.lists) < len(strip.leads):
        return _unblocked(strip, where)
    counts = {count_integers(text, commas=True) for text in strip.lists}
    # Lists hold tabs and newlines between samples, so only counting tells their length.
    if counts != {strip.n_samples}:
        refuse(Reason.TRUNCATED, "lists of another length", f"{strip.n_samples} samples as declared", where)
    return np.stack([integers(text, strip.n_samples, where, commas=True) for text in strip.lists])


def _unblocked(strip: _Strip, where: str) -> NDArray[np.int32]:
    """Reorder one-second blocks of one lead after another to (lead, time).

    A list that reads much smoother sample by sample is refused: the manual describes that order, files hold blocks.
    """
    n_leads = len(strip.leads)
    flat = integers(strip.lists[0], strip.n_samples * n_leads, where, commas=True)
    blocks = flat.reshape(-1, n_leads, int(strip.rate_hz))
    if n_leads > 1 and blocks.shape[2] > 1:
        in_blocks = np.abs(np.diff(blocks.astype(np.float64))).mean()
        by_sample = np.abs(flat[n_leads:] - flat[:-n_leads].astype(np.float64)).mean()
        if in_blocks > ROUGHER * by_sample:
            refuse(Reason.UNSUPPORTED, "full disclosure sample by sample", "one-second blocks per lead", where)
    return np.ascontiguousarray(blocks.transpose(1, 0, 2)).reshape(n_leads, strip.n_samples)


def _rate_hz(element: Element, where: str) -> float:
    rate_hz = number(element, "SampleRate", where)
    if not rate_hz or text_of(element, "SampleRate/@units") not in ("", "Hz"):
        refuse(Reason.HEADER, "no usable sampling rate", "SampleRate in Hz", where)
    return rate_hz


def _per_mv(element: Element, names: tuple[str, ...], where: str) -> tuple[float, ...]:
    """Return the steps per mV of each lead."""
    uv_per_step = number(element, "Resolution", where)
    if not uv_per_step or text_of(element, "Resolution/@units") != UNIT:
        refuse(Reason.UNIT, "no resolution, or one in another unit", f"Resolution in {UNIT}", where)
    return tuple(steps_per_mv(1.0 / uv_per_step, "uV", name, where) for name in names)


def _name(text: str | None, where: str) -> str:
    name = (text or "").strip()
    if not name:
        refuse(Reason.HEADER, "a lead without name", "a name for every lead", where)
    return NUMBERED.get(name, name)


def _context(root: Element) -> Context:
    """Collect patient, test, device and filters. Whole sections may be missing."""
    fields = {field: text for field, path in KEPT.items() if (text := text_of(root, path))}
    fields |= {f"{field}Units": unit for field in UNITS if (unit := text_of(root, f"{KEPT[field]}/@units"))}
    born, observed = root.find("PatientInfo/BirthDateTime"), root.find("ObservationDateTime")
    acquired_at = moment(*_parts(observed, DATE + CLOCK))
    for field, parts in (("BirthDate", _parts(born, DATE)), ("ObservationDate", _parts(observed, DATE))):
        fields |= {field: "-".join(parts)} if any(parts) else {}
    # Both filters on, or none, tell nothing about the mains.
    mains = [hz for hz in (50, 60) if fields.get(f"Filter{hz}Hz", "").casefold() in ON]
    stated = stated_age(fields.get("Age", ""), fields.get("AgeUnits", ""))
    age_years, doubts = age_of(stated, moment(*_parts(born, DATE)), acquired_at)
    return Context(
        patient_id=known(fields.get("PID")),
        age_years=age_years,
        sex=sex_of(fields.get("Gender", "")),
        acquired_at=acquired_at,
        device=fields.get("Device"),
        site=fields.get("LocationNumber"),
        mains_hz=float(mains[0]) if len(mains) == 1 else None,
        fields=fields,
        notes=(*_pass_notes(fields), *(f"AC filter {hz} Hz" for hz in mains), *doubts),
    )


def _parts(element: Element | None, names: tuple[str, ...]) -> list[str]:
    return [text_of(element, name) for name in names]


def _pass_notes(fields: dict[str, str]) -> list[str]:
    notes = []
    for field, name in (("HighPass", "high-pass"), ("LowPass", "low-pass")):
        text = fields.get(field, "")
        # Without its unit a number says nothing: other makers write hundredths of a Hz.
        if fields.get(f"{field}Units") == "Hz" and re.fullmatch(r"[0-9]{1,6}([.][0-9]{1,6})?", text):
            notes.append(f"{name} {float(text):g} Hz")
    return notes
