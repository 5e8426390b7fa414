"""The reader of this format; what is said about it stands in the package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared import units as _units
from ecgcohorts.readers._shared.limits import MAX_LEADS, check_shape
from ecgcohorts.readers._xml.digits import count_integers, integers
from ecgcohorts.readers._xml.document import read_xml, root_name
from ecgcohorts.readers._xml.values import attribute_of, integer_of, number_of, refuse, text_of
from ecgcohorts.readers.cardiosoft_xml.context import read_context
from ecgcohorts.recording import Recording, Source

SUFFIXES = (".xml",)
VARIANTS = (
    "resting: StripData with one list per lead, in uVperLsb (layout unconfirmed on real files)",
    "stress: FullDisclosure in one-second blocks per lead, where StripData holds segments only; segments are not read",
)
UNIT = "uVperLsb"
NUMBERED = {"1": "I", "2": "II", "3": "III"}  # stress files
# Of the two orders described for full disclosure the blocks are read. A list in the other order (all leads of the
# first sample, then of the second ...) changes this many times more from one number to the next than from one to the
# next of its lead; our default.
ROUGHER = 2.0


class Strip(NamedTuple):
    """What is to be read; samples stay text."""

    leads: tuple[str, ...]
    rate_hz: float
    per_mv: tuple[float, ...]
    n_samples: int  # per lead, as declared; in full disclosure as counted
    lists: tuple[str, ...]  # one per lead; in full disclosure one for all


def sniff(head: bytes) -> bool:
    """Whether the first element is `CardiologyXML`."""
    return root_name(head) == "CardiologyXML"


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a CardioSoft file. `entries` is ignored, a file has none.

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


def _recording(path: Path, root: Element, strip: Strip, digital: NDArray[np.int32]) -> Recording:
    context = read_context(root)
    return Recording(
        recording_id=path.stem,
        leads=strip.leads,
        rate_hz=strip.rate_hz,
        digital=digital,
        gain_per_mv=np.array(strip.per_mv),
        baseline=np.zeros(len(strip.leads)),
        n_samples=strip.n_samples,
        patient_id=context.patient_id,
        age_years=context.age_years,
        sex=context.sex,
        acquired_at=context.acquired_at,
        device=context.device,
        site=context.site,
        mains_hz=context.mains_hz,
        fields=context.fields,
        source=Source("cardiosoft_xml", path),
        notes=context.notes,
    )


def _strip(root: Element, where: str) -> Strip:
    """The resting strip; without one, full disclosure. Median beats and stress segments are never taken."""
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


def _resting(data: Element, where: str) -> Strip:
    waveforms = data.findall("WaveformData")
    count = integer_of(data, "ChannelSampleCountTotal", where)
    if integer_of(data, "NumberOfLeads", where) not in (None, len(waveforms)):
        refuse(Reason.HEADER, f"{len(waveforms)} leads", "as many as NumberOfLeads", where)
    if count is None:
        refuse(Reason.HEADER, "no ChannelSampleCountTotal", "the number of samples per lead", where)
    names = tuple(_name(waveform.get("lead"), where) for waveform in waveforms)
    rate_hz = _rate_hz(data, where)
    check_shape(len(names), count, rate_hz, where)
    return Strip(names, rate_hz, _per_mv(data, names, where), count, tuple(each.text or "" for each in waveforms))


def _full_disclosure(full: Element, where: str) -> Strip:
    """One list of all leads, second by second: rate samples of the first lead, then of the second ..."""
    names = tuple(_name(name, where) for name in text_of(full, "LeadOrder").split(",", MAX_LEADS))
    if integer_of(full, "NumberOfChannels", where) not in (None, len(names)):
        refuse(Reason.HEADER, f"{len(names)} leads in LeadOrder", "as many as NumberOfChannels", where)
    rate_hz = _rate_hz(full, where)
    text = _disclosed_text(full)
    count = count_integers(text, commas=True)
    check_shape(len(names), -(-count // len(names)), rate_hz, where)
    if rate_hz != int(rate_hz) or count % (int(rate_hz) * len(names)):
        refuse(Reason.TRUNCATED, f"{count} samples of {len(names)} leads", "whole seconds of every lead", where)
    declared = integer_of(full, "FullDisclosureData/SampleCountTotal", where)
    if declared not in (None, 0, count, count // len(names)):
        refuse(Reason.TRUNCATED, f"{count} samples", f"{declared} as declared", where)
    return Strip(names, rate_hz, _per_mv(full, names, where), count // len(names), (text,))


def _disclosed_text(full: Element) -> str:
    """The list of FullDisclosureData: its own text, without that of elements inside it."""
    datas = full.findall("FullDisclosureData")
    return "".join(part or "" for data in datas for part in (data.text, *(inner.tail for inner in data))).strip()


def _samples(strip: Strip, where: str) -> NDArray[np.int32]:
    if len(strip.lists) < len(strip.leads):
        return _unblocked(strip, where)
    counts = {count_integers(text, commas=True) for text in strip.lists}
    if counts != {strip.n_samples}:
        refuse(Reason.TRUNCATED, "lists of another length", f"{strip.n_samples} samples as declared", where)
    return np.stack([integers(text, strip.n_samples, where, commas=True) for text in strip.lists])


def _unblocked(strip: Strip, where: str) -> NDArray[np.int32]:
    """(lead, time) from one-second blocks of one lead after another.

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
    rate_hz = number_of(element, "SampleRate", where)
    if not rate_hz or attribute_of(element, "SampleRate", "units") not in ("", "Hz"):
        refuse(Reason.HEADER, "no usable sampling rate", "SampleRate in Hz", where)
    return rate_hz


def _per_mv(element: Element, names: tuple[str, ...], where: str) -> tuple[float, ...]:
    """Steps per mV of each lead."""
    uv_per_step = number_of(element, "Resolution", where)
    if not uv_per_step or attribute_of(element, "Resolution", "units") != UNIT:
        refuse(Reason.UNIT, "no resolution, or one in another unit", f"Resolution in {UNIT}", where)
    return tuple(_units.steps_per_mv(1.0 / uv_per_step, "uV", name, where) for name in names)


def _name(text: str | None, where: str) -> str:
    name = (text or "").strip()
    if not name:
        refuse(Reason.HEADER, "a lead without name", "a name for every lead", where)
    return NUMBERED.get(name, name)
