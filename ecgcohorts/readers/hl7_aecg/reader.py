"""The reader of this format; what is said about it stands in the package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared import units as _units
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._xml.digits import count_integers, integers
from ecgcohorts.readers._xml.document import read_xml, root_name
from ecgcohorts.readers._xml.values import attribute_of, number, refuse, text_of
from ecgcohorts.readers.hl7_aecg.context import read_context
from ecgcohorts.recording import Recording, Source

SUFFIXES = (".xml",)
VARIANTS = (
    "rhythm series of one sequence set; absolute or relative time, increments in s, ms or us",
    "origin and scale per lead in nV, uV, mV or V; any number and order of leads",
    "writers seen: Mortara, CalECG, Mindray, Philips converters, the HL7 example and its shortest forms",
)
TIME_CODES = ("TIME_ABSOLUTE", "TIME_RELATIVE")
LISTS = ("SLIST_PQ", "SLIST_INT")
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "µs": 1e6}  # with the micro sign; some write the Greek letter
PER_SECOND["\u03bcs"] = 1e6


class Lead(NamedTuple):
    """One sequence of samples, still as text."""

    name: str
    digits: str
    n_samples: int
    per_mv: float
    baseline: float


class Rhythm(NamedTuple):
    series: Element
    rate_hz: float
    starts: str  # absolute time of the first sample as written; empty if the file only counts from zero
    leads: tuple[Lead, ...]


def sniff(head: bytes) -> bool:
    """Whether the first element is `AnnotatedECG`; a declaration may be missing and comments may precede it."""
    return root_name(head) == "AnnotatedECG"


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of an aECG file. `entries` is ignored, a file has none.

    digital: (lead, time) int32, the digits as written. Raises UnreadableRecording.
    """
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    digital = np.stack([integers(lead.digits, lead.n_samples, str(path)) for lead in rhythm.leads])
    yield _recording(path, root, rhythm, digital)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; digits are counted, not read."""
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    yield _recording(path, root, rhythm, np.zeros((len(rhythm.leads), 0), np.int32))


def _recording(path: Path, root: Element, rhythm: Rhythm, digital: NDArray[np.int32]) -> Recording:
    context = read_context(root, rhythm.series, rhythm.starts)
    return Recording(
        recording_id=path.stem,
        leads=tuple(lead.name for lead in rhythm.leads),
        rate_hz=rhythm.rate_hz,
        digital=digital,
        gain_per_mv=np.array([lead.per_mv for lead in rhythm.leads]),
        baseline=np.array([lead.baseline for lead in rhythm.leads]),
        n_samples=rhythm.leads[0].n_samples,
        patient_id=context.patient_id,
        age_years=context.age_years,
        sex=context.sex,
        acquired_at=context.acquired_at,
        device=context.device,
        site=context.site,
        mains_hz=context.mains_hz,
        fields=context.fields,
        source=Source("hl7_aecg", path),
        notes=context.notes,
    )


def _rhythm(root: Element, where: str) -> Rhythm:
    """The rhythm by its code, through direct children only: derived series repeat every lead code further down."""
    if root.tag != "AnnotatedECG":
        refuse(Reason.FORMAT, "another root element", "AnnotatedECG", where)
    all_series = root.findall("component/series")
    rhythms = [series for series in all_series if _code(series) == "RHYTHM"]
    if len(rhythms) != 1:
        reason = Reason.UNSUPPORTED if rhythms else Reason.EMPTY
        refuse(reason, f"{len(rhythms)} rhythm series among {len(all_series)} series", "one", where)
    sets = rhythms[0].findall("component/sequenceSet")
    if len(sets) != 1:
        reason = Reason.UNSUPPORTED if sets else Reason.EMPTY
        refuse(reason, f"{len(sets)} sequence sets in the rhythm series", "one of simultaneous leads", where)
    sequences = sets[0].findall("component/sequence")
    times = [sequence for sequence in sequences if _code(sequence) in TIME_CODES]
    leads = tuple(_lead(sequence, where) for sequence in sequences if _code(sequence) not in TIME_CODES)
    rate_hz = _rate_hz(times, where)
    if len({lead.n_samples for lead in leads}) > 1:
        refuse(Reason.UNSUPPORTED, "leads of unequal length", "equal ones", where)
    check_shape(len(leads), leads[0].n_samples if leads else 0, rate_hz, where)
    starts = [attribute_of(time, "value/head", "value") for time in times if _code(time) == "TIME_ABSOLUTE"]
    return Rhythm(rhythms[0], rate_hz, starts[0] if starts else "", leads)


def _rate_hz(times: list[Element], where: str) -> float:
    """Samples a second, from the increment of the time sequences."""
    rates = set()
    for time in times:
        increment = number(attribute_of(time, "value/increment", "value"), "increment", where)
        per_second = PER_SECOND.get(attribute_of(time, "value/increment", "unit"))
        if per_second is None or not increment or increment < 0:
            refuse(Reason.HEADER, "no usable increment of time", "a positive one in s, ms or us", where)
        rates.add(per_second / increment)
    if len(rates) != 1:
        refuse(Reason.HEADER, f"{len(rates)} sampling rates", "one, from TIME_ABSOLUTE or TIME_RELATIVE", where)
    return rates.pop()


def _lead(sequence: Element, where: str) -> Lead:
    """Parse a sequence of samples: mV = origin + scale * digit, each with a unit of its own."""
    name, value = _code(sequence), sequence.find("value")
    if not name or value is None or value.get("type") not in LISTS:
        refuse(Reason.UNSUPPORTED, "a sequence without code, or of another type", f"a lead as {LISTS[0]}", where)
    if value.find("digits/*") is not None:
        refuse(Reason.HEADER, "elements among the samples", "digits and blanks", where)
    per_mv, baseline = _step(value, name, where)
    digits = text_of(value, "digits")
    return Lead(name, digits, count_integers(digits), per_mv, baseline)


def _step(value: Element, name: str, where: str) -> tuple[float, float]:
    """Steps per mV and the step that is 0 mV.

    SLIST_INT has no scale. Without scale, origin and units, one of the twelve leads is refused; another signal is
    kept and its mV are unknown.
    """
    scale = number(attribute_of(value, "scale", "value"), "scale", where)
    origin = number(attribute_of(value, "origin", "value"), "origin", where)
    scale_unit, origin_unit = (attribute_of(value, path, "unit") for path in ("scale", "origin"))
    if value.get("type") == "SLIST_INT" or not scale or origin is None:
        if canonical(name) is None:
            return float("nan"), 0.0
        refuse(Reason.UNIT, f"no scale or origin for lead {canonical(name)}", "SLIST_PQ with both", where)
    per_mv = _units.steps_per_mv(1.0 / scale, scale_unit, name, where)
    if scale_unit == origin_unit:
        return per_mv, -origin / scale + 0.0  # no negative zero
    if not origin:
        return per_mv, 0.0
    return per_mv, -origin / _units.steps_per_mv(1.0, origin_unit, name, where) * per_mv


def _code(element: Element) -> str:
    return attribute_of(element, "code", "code")
