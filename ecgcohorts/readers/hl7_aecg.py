"""HL7 annotated ECG (`AnnotatedECG`): the rhythm series, never the representative beats nested inside it.

Sources: HL7 aECG implementation guide (2005) and decoded exports of Mortara, AMPS CalECG, Mindray and Philips.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.leads import canonical
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.lead_groups import TOGETHER, LeadGroup, Placement
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context, age_between, age_in_years, known, moment, sex_of
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers._xml.document import read_xml, root_name
from ecgcohorts.readers._xml.values import (
    NUMBER,
    count_integers,
    integers,
    number,
    refuse,
    text_of,
)
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".xml",)
VARIANTS = (
    "rhythm series of one sequence set, or of several that follow each other; absolute or relative time, increments in s, ms or us",
    "origin and scale per lead in nV, uV, mV or V; any number and order of leads",
    "writers seen: Mortara, CalECG, Mindray, Philips converters, the HL7 example and its shortest forms",
)
TIME_CODES = ("TIME_ABSOLUTE", "TIME_RELATIVE")
LISTS = ("SLIST_PQ", "SLIST_INT")
# Increments of 0.002, 0.0010000 and 0.01 s are met; some writers count in ms or us.
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "µs": 1e6}  # with the micro sign; some write the Greek letter
PER_SECOND["\u03bcs"] = 1e6

SUBJECT = "componentOf/timepointEvent/componentOf/subjectAssignment/subject/trialSubject"
PERSON = f"{SUBJECT}/subjectDemographicPerson"
TRIAL = "componentOf/timepointEvent/componentOf/subjectAssignment/componentOf/clinicalTrial"
DEVICE = "author/seriesAuthor/manufacturedSeriesDevice"
REPORTED_AGE = "21612-7"  # LOINC

# Field -> path below the root, kept as Recording.fields for cohort rules: an allow-list without
# names of people or free text.
# Writers leave out what they do not know, or leave it empty: a sex without code (CalECG), an empty birth time, an id in
# an element of its own (LIRYC).
KEPT = {
    "SubjectRoot": f"{SUBJECT}/id/@root",
    "SubjectID": f"{SUBJECT}/id/@extension",
    "GenderCode": f"{PERSON}/administrativeGenderCode/@code",
    "BirthTime": f"{PERSON}/birthTime/@value",
    "RaceCode": f"{PERSON}/raceCode/@code",
    "TrialID": f"{TRIAL}/id/@extension",
    "TrialSiteID": f"{TRIAL}/location/trialSite/id/@extension",
    "TestingSiteID": "location/testingSite/id/@extension",
    "TimepointCode": "componentOf/timepointEvent/code/@code",
    "RelativeTimepointCode": "definition/relativeTimepoint/code/@code",
}
# When the series began, where the time sequence only counts from zero: the series itself, then the whole document.
BEGINS = ("effectiveTime/low/@value", "effectiveTime/center/@value")

FILTER = "MDC_ECG_CTL_VBL_ATTR_FILTER_"
FILTERS = {"LOW_PASS": "CUTOFF_FREQ", "HIGH_PASS": "CUTOFF_FREQ", "NOTCH": "NOTCH_FREQ"}
MAINS_HZ = (50.0, 60.0)
AGES_DIFFER = "age by birth date differs from reported age"
APART_YEARS = 1.5  # a reported age is whole years; half a year of rounding beside that is our default

_TIME = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:[.]([0-9]{1,6})[0-9]*)?)?)?)?"
    r"(?:[+-][0-9]{2}:?[0-9]{2}|Z)?"
)


class _Lead(NamedTuple):
    """One sequence of samples, which are still text."""

    name: str
    digits: str
    n_samples: int
    per_mv: float
    baseline: float


class _Set(NamedTuple):
    """One sequence set: leads of equal length, and when they begin."""

    rate_hz: float
    leads: tuple[_Lead, ...]
    absolute: str  # time of the first sample as written; empty if the file only counts from zero
    relative_s: float | None

    @property
    def n_samples(self) -> int:
        return self.leads[0].n_samples


class _Rhythm(NamedTuple):
    """The rhythm series as declared: one set, or several with a place for each."""

    series: Element
    sets: tuple[_Set, ...]
    placement: Placement | None

    @property
    def starts(self) -> str:
        return min(one.absolute for one in self.sets)

    @property
    def leads(self) -> list[_Lead]:
        groups = [one.leads for one in self.sets]
        return self.placement.put(groups) if self.placement else list(groups[0])

    @property
    def n_samples(self) -> int:
        return self.placement.n_samples if self.placement else self.sets[0].n_samples

    def read(self, where: str) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None]:
        """Return (lead, time) of the digits, and what no set holds; None if there is one set."""
        groups = [np.stack([integers(lead.digits, lead.n_samples, where) for lead in one.leads]) for one in self.sets]
        return self.placement.joined([(group, None) for group in groups]) if self.placement else (groups[0], None)


def sniff(head: bytes) -> bool:
    """Tell whether the first element is `AnnotatedECG`; comments may precede it, and a declaration may be missing."""
    return root_name(head) == "AnnotatedECG"


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of an aECG file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the digits as written. Raises UnreadableRecording.
    """
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    digital, missing = rhythm.read(str(path))
    yield _recording(path, root, rhythm, digital, missing)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; digits are counted, not read."""
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    yield _recording(path, root, rhythm, np.zeros((len(rhythm.leads), 0), np.int32))


def _recording(
    path: Path, root: Element, rhythm: _Rhythm, digital: NDArray[np.int32], missing: NDArray[np.bool_] | None = None
) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=tuple(lead.name for lead in rhythm.leads),
        rate_hz=rhythm.sets[0].rate_hz,
        digital=digital,
        gain_per_mv=np.array([lead.per_mv for lead in rhythm.leads]),
        baseline=np.array([lead.baseline for lead in rhythm.leads]),
        missing=missing,
        n_samples=rhythm.n_samples,
        source=Origin("hl7_aecg", path),
        **_context(root, rhythm.series, rhythm.starts).facts(*([TOGETHER] if rhythm.placement else [])),
    )


def _rhythm(root: Element, where: str) -> _Rhythm:
    """Find the rhythm by its code, among direct children only: derived series repeat every lead code further down."""
    if root.tag != "AnnotatedECG":
        refuse(Reason.FORMAT, "another root element", "AnnotatedECG", where)
    all_series = root.findall("component/series")
    # A search among all descendants finds the derived beats last: 599 samples instead of 5,000, under the same lead
    # codes.
    rhythms = [series for series in all_series if _code(series) == "RHYTHM"]
    if len(rhythms) != 1:
        reason = Reason.UNSUPPORTED if rhythms else Reason.EMPTY
        refuse(reason, f"{len(rhythms)} rhythm series among {len(all_series)} series", "one", where)
    sets = rhythms[0].findall("component/sequenceSet")
    if not sets:
        refuse(Reason.EMPTY, "0 sequence sets in the rhythm series", "one of simultaneous leads", where)
    found = tuple(_set(one, where) for one in sets)
    return _Rhythm(rhythms[0], found, _placement(found, where) if len(found) > 1 else None)


def _placement(sets: tuple[_Set, ...], where: str) -> Placement:
    """Place several sets by the times they state. Without such times nothing says that they follow each other."""
    absolute, relative = [_instant(one.absolute) for one in sets], [one.relative_s for one in sets]
    if None not in absolute:
        first = min(when for when in absolute if when is not None)
        seconds = [(when - first).total_seconds() for when in absolute if when is not None]
    else:
        seconds = [second for second in relative if second is not None]
    rate_hz = sets[0].rate_hz
    if len(seconds) < len(sets) or any(one.rate_hz != rate_hz for one in sets):
        refuse(
            Reason.UNSUPPORTED, f"{len(sets)} sequence sets in the rhythm series", "one of simultaneous leads", where
        )
    pairs = zip(sets, seconds, strict=True)
    groups = [
        LeadGroup(tuple(lead.name for lead in one.leads), round(start * rate_hz), one.n_samples) for one, start in pairs
    ]
    placement = Placement.of(groups, where)
    check_shape(sum(map(len, placement.rows)), placement.n_samples, rate_hz, where)
    return placement


def _set(one: Element, where: str) -> _Set:
    """Parse one sequence set; its digits are only counted."""
    sequences = one.findall("component/sequence")
    times = [sequence for sequence in sequences if _code(sequence) in TIME_CODES]
    leads = tuple(_lead(sequence, where) for sequence in sequences if _code(sequence) not in TIME_CODES)
    rate_hz = _rate_hz(times, where)
    if len({lead.n_samples for lead in leads}) > 1:
        refuse(Reason.UNSUPPORTED, "leads of unequal length", "equal ones", where)
    check_shape(len(leads), leads[0].n_samples if leads else 0, rate_hz, where)
    heads = {_code(time): time for time in reversed(times)}
    relative, relative_s = heads.get("TIME_RELATIVE"), None
    per_second = PER_SECOND.get(text_of(relative, "value/head/@unit"))
    # Read only where several sets need it: a strange head of a single set has never mattered.
    if per_second and NUMBER.fullmatch(text := text_of(relative, "value/head/@value")):
        relative_s = float(text.replace(",", ".")) / per_second
    return _Set(rate_hz, leads, text_of(heads.get("TIME_ABSOLUTE"), "value/head/@value"), relative_s)


def _rate_hz(times: list[Element], where: str) -> float:
    """Return the sampling rate, from the increment of the time sequences."""
    rates = set()
    for time in times:
        increment = number(time, "value/increment/@value", where)
        per_second = PER_SECOND.get(text_of(time, "value/increment/@unit"))
        if per_second is None or not increment or increment < 0:
            refuse(Reason.HEADER, "no usable increment of time", "a positive one in s, ms or us", where)
        rates.add(per_second / increment)
    if len(rates) != 1:
        refuse(Reason.HEADER, f"{len(rates)} sampling rates", "one, from TIME_ABSOLUTE or TIME_RELATIVE", where)
    return rates.pop()


def _lead(sequence: Element, where: str) -> _Lead:
    """Parse a sequence of samples: mV = origin + scale * digit, where origin and scale each have a unit."""
    name, value = _code(sequence), sequence.find("value")
    if not name or value is None or value.get("type") not in LISTS:
        refuse(Reason.UNSUPPORTED, "a sequence without code, or of another type", f"a lead as {LISTS[0]}", where)
    if value.find("digits/*") is not None:
        refuse(Reason.HEADER, "elements among the samples", "digits and blanks", where)
    per_mv, baseline = _step(value, name, where)
    digits = text_of(value, "digits")
    return _Lead(name, digits, count_integers(digits), per_mv, baseline)


def _step(value: Element, name: str, where: str) -> tuple[float, float]:
    """Return the steps per mV, and the step that is 0 mV.

    SLIST_INT has no scale. Without scale, origin and units, one of the twelve leads is refused; another signal is
    kept and its mV are unknown.
    """
    scale = number(value, "scale/@value", where)
    origin = number(value, "origin/@value", where)
    scale_unit, origin_unit = (text_of(value, f"{path}/@unit") for path in ("scale", "origin"))
    if value.get("type") == "SLIST_INT" or not scale or origin is None:
        if canonical(name) is None:
            return float("nan"), 0.0
        refuse(Reason.UNIT, f"no scale or origin for lead {canonical(name)}", "SLIST_PQ with both", where)
    per_mv = steps_per_mv(1.0 / scale, scale_unit, name, where)
    # A division of the numbers as written keeps the baseline exact where the units agree.
    if scale_unit == origin_unit:
        return per_mv, -origin / scale + 0.0  # no negative zero
    if not origin:
        return per_mv, 0.0
    return per_mv, -origin / steps_per_mv(1.0, origin_unit, name, where) * per_mv


def _code(element: Element) -> str:
    return text_of(element, "code/@code")


def _context(root: Element, series: Element, starts: str) -> Context:
    """Collect subject, trial, device, site and filters. starts: absolute time of the first sample, or empty."""
    fields = {field: text for field, place in KEPT.items() if (text := text_of(root, place))}
    # The Mindray writer has no subject id, but an element of its own.
    found = {
        "PatientID": text_of(root, f"{PERSON}/PatientID"),
        "DeviceModel": text_of(series, f"{DEVICE}/manufacturerModelName"),
        "DeviceSoftware": text_of(series, f"{DEVICE}/softwareName"),
    }
    fields |= {field: text for field, text in found.items() if text}
    age, unit = _reported_age(root)
    if age:
        fields |= {"ReportedAge": age, "ReportedAgeUnit": unit}
    filters = _filters(series)
    fields |= {f"{kind}_FILTER": text for kind, text in filters.items()}
    begins = [starts, *(text_of(place, path) for place in (series, root) for path in BEGINS)]
    acquired_at = next((when for text in begins if (when := _instant(text)) is not None), None)
    age_years, notes = _age_years(fields, acquired_at)
    mains = float(filters.get("NOTCH", "nan"))
    return Context(
        patient_id=_patient_id(fields),
        age_years=age_years,
        sex=sex_of(fields.get("GenderCode", "")),
        acquired_at=acquired_at,
        device=fields.get("DeviceModel"),
        site=fields.get("TestingSiteID") or fields.get("TrialSiteID"),
        mains_hz=mains if mains in MAINS_HZ else None,
        fields=fields,
        notes=(*_filter_notes(filters), *notes),
    )


def _patient_id(fields: dict[str, str]) -> str | None:
    """Return the subject id within its scope: its root, which makes it unique by HL7's rules; without one, the trial.

    None for placeholders, and for a root alone, which is a scope without an id.
    """
    # The trial is left out where there is a root: some writers make up a trial id per recording, and every recording
    # would become a patient.
    extension, own = fields.get("SubjectID"), fields.get("PatientID")
    if is_placeholder(extension):
        return known(own)
    scope = fields.get("SubjectRoot") or fields.get("TrialID")
    return f"{scope}/{extension}" if scope else extension


def _instant(text: str) -> datetime | None:
    """Parse an HL7 time stamp of at least a day, clock as written. A zone is dropped, since most formats have none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    *clock, fraction = match.groups()
    return moment(*clock, (fraction or "").ljust(6, "0"))


def _age_years(fields: dict[str, str], acquired_at: datetime | None) -> tuple[float | None, list[str]]:
    """Return the age by the birth date, without one as reported; and a note if the two differ."""
    text = fields.get("ReportedAge", "")
    reported = None
    if NUMBER.fullmatch(text):
        reported = age_in_years(float(text.replace(",", ".")), fields["ReportedAgeUnit"])
    exact = age_between(_instant(fields.get("BirthTime", "")), acquired_at)
    apart = exact is not None and reported is not None and abs(exact - reported) > APART_YEARS
    return (exact if exact is not None else reported), [AGES_DIFFER] if apart else []


def _reported_age(root: Element) -> tuple[str, str]:
    for observation in root.findall("controlVariable/relatedObservation"):
        if _code(observation) == REPORTED_AGE:
            return text_of(observation, "value/@value"), text_of(observation, "value/@unit")
    return "", ""


def _filters(series: Element) -> dict[str, str]:
    """Map each kind of filter that gives a frequency to it, in Hz as written."""
    found = {}
    for variable in series.findall("controlVariable/controlVariable"):
        kind = _code(variable).removeprefix(FILTER)
        for part in variable.findall("component/controlVariable"):
            text = text_of(part, "value/@value")
            wanted = _code(part) == f"{FILTER}{FILTERS.get(kind, '')}"
            if wanted and text_of(part, "value/@unit") == "Hz" and re.fullmatch(r"[0-9]{1,6}([.][0-9]{1,6})?", text):
                found[kind] = text
    return found


def _filter_notes(filters: dict[str, str]) -> list[str]:
    names = (("HIGH_PASS", "high-pass"), ("LOW_PASS", "low-pass"), ("NOTCH", "AC filter"))
    return [f"{name} {float(filters[kind]):g} Hz" for kind, name in names if kind in filters]
