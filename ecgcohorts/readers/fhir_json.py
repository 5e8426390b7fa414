"""HL7 FHIR: Observations with SampledData for each lead, as JSON, alone or in a Bundle with their patients.

Sources: FHIR R4 and R5, SampledData and Observation; HL7's example of an ECG; ISO/IEEE 11073-10101 for the codes of leads.
No real file was at hand.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.leads import canonical
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.json_text import Json
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context, age_of, sex_of
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".json",)
VARIANTS = (
    "Observation of R4 or R5 with a component of SampledData for each lead, or one lead (unconfirmed on real files)",
    "Bundle of such Observations, with Patient and Device",
)
JOINED = "parts of each lead joined in the order of the file"
OUT_OF_RANGE = "samples beyond the limits of detection marked missing"
OTHERS = "sampled data of other signals left out"

_FIRST_MDC = 131_328  # MDC_ECG_ELEC_POTL; a lead is so many after it as SCP-ECG numbers it
_LEADS = {1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6"}
_LEADS |= {61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
_MDC = ("urn:oid:2.16.840.1.113883.6.24", "urn:iso:std:iso:11073:10101", "urn:iso:std:iso:11073:10101:2019")
_MDC_NAME = re.compile(r"^MDC_ECG_(?:ELEC_POTL|LEAD)_")
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_RESOURCE = re.compile(rb'"resourceType"\s*:\s*"(?:Observation|Bundle)"')
_MS = {"ms": 1.0, "s": 1000.0, "us": 1e-3}
_DECIMAL = re.compile(r"[.e]|[0-9]E")
_NOT_OF_NUMBERS = re.compile(r"[^0-9eELU+.\s-]")
_MARKS = frozenset("ELU")  # error, below and above the limits of detection
_WITHDRAWN = ("entered-in-error", "cancelled")
MAX_SAMPLES = (
    2_000_000  # over all leads, each an object of Python while it is parsed; our default: five minutes of twelve
)
_LONGEST_NUMBER = 32  # characters; our default
_INT32 = np.iinfo(np.int32)
_NAME_LENGTH = 40  # our default


class _Item(NamedTuple):
    """One Observation, and the resources it may refer to."""

    observation: dict[str, Any]
    entry: str
    others: dict[str, dict[str, Any]]  # resources by fullUrl, `Type/id` and `#id`
    notes: tuple[str, ...]


class _Lead(NamedTuple):
    """The samples of one lead as text, with what they mean."""

    name: str
    period_ms: float
    factor: float
    origin: float
    unit: str
    parts: tuple[str, ...]


def sniff(head: bytes) -> bool:
    """Tell whether a JSON object begins there that is an Observation or a Bundle."""
    return bool(_BEGINS.match(head)) and _RESOURCE.search(head) is not None


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the recordings of a file. The entry of a lone Observation is empty; in a Bundle it is its id, or its number.

    digital: (lead, time) int32, the numbers as written; analog_mv where any has a point. Raises UnreadableRecording.
    """
    items = _items(path)
    if entries is not None:
        by_entry = {item.entry: item for item in items}
        for entry in entries:
            if entry not in by_entry:
                Json.refuse(Reason.MISSING_FILE, "no such recording", "an Observation of that id", str(path))
        items = [by_entry[entry] for entry in entries]
    for item in items:
        leads, notes = _leads(item, str(path))
        decoded, more = _decoded(leads, str(path))
        yield _recording(path, item, leads, (*notes, *more), **decoded)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recordings without samples; numbers are counted, not read."""
    for item in _items(path):
        leads, notes = _leads(item, str(path))
        yield _recording(path, item, leads, notes, analog_mv=np.zeros((len(leads), 0)))


def _items(path: Path) -> list[_Item]:
    """List the Observations of a file that hold sampled data. Raises UnreadableRecording if there is none."""
    content, notes = Json.read(path)
    kind = Json.text(content, "resourceType")
    if kind not in ("Observation", "Bundle"):
        Json.refuse(Reason.FORMAT, "another resource", "an Observation or a Bundle", str(path))
    if kind == "Observation":
        found = [_Item(content, "", _by_reference([], content), notes)] if _sampled(content) else []
    else:
        resources = [(Json.text(one, "fullUrl"), Json.at(one, "resource")) for one in Json.items(content, "entry")]
        found = [
            _Item(one, Json.text(one, "id") or str(number), _by_reference(resources, one), notes)
            for number, (_, one) in enumerate(resources)
            if Json.text(one, "resourceType") == "Observation" and _sampled(one)
        ]
    if not found:
        Json.refuse(Reason.EMPTY, "no Observation with sampled data", "one with valueSampledData", str(path))
    if len({item.entry for item in found}) < len(found):
        Json.refuse(Reason.HEADER, "one id for two Observations", "an id of its own for each", str(path))
    return found


def _by_reference(resources: list[tuple[str, Any]], observation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for url, one in resources:
        if isinstance(one, dict) and Json.text(one, "resourceType") in ("Patient", "Device"):
            found |= {url: one, f"{Json.text(one, 'resourceType')}/{Json.text(one, 'id')}": one}
    return found | {
        f"#{Json.text(one, 'id')}": one for one in Json.items(observation, "contained") if isinstance(one, dict)
    }


def _sampled(observation: dict[str, Any]) -> list[dict[str, Any]]:
    """List the parts that hold sampled data: components, or the Observation itself where it is one lead."""
    parts = [observation, *Json.items(observation, "component")]
    return [part for part in parts if isinstance(Json.at(part, "valueSampledData"), dict)]


def _leads(item: _Item, where: str) -> tuple[list[_Lead], tuple[str, ...]]:
    """Return the leads of an Observation, the parts of each together, and notes. No number is parsed."""
    # Servers keep what was entered by mistake, under this status.
    if Json.text(item.observation, "status") in _WITHDRAWN:
        Json.refuse(Reason.UNSUPPORTED, "an Observation that was withdrawn", "a valid one", where)
    found: dict[str, _Lead] = {}
    others = False
    for part in _sampled(item.observation):
        name = _lead_name(part, where)
        if canonical(name) is None:
            others = True
            continue
        lead = _lead(name, Json.at(part, "valueSampledData"), where)
        known = found.get(name)
        if known is not None:
            # HL7's own example gives each lead in two chunks, one after the other; nothing but their order tells which is
            # first, so nothing but the parts may differ.
            if known._replace(parts=lead.parts) != lead:
                Json.refuse(Reason.UNSUPPORTED, f"two kinds of lead {name}", "parts of one rate and step", where)
            lead = lead._replace(parts=known.parts + lead.parts)
        found[name] = lead
    # A cut export would otherwise end in leads of unequal length.
    leads = list(found.values())
    if len({(lead.period_ms, tuple(_count(part) for part in lead.parts)) for lead in leads}) > 1:
        Json.refuse(Reason.TRUNCATED, "leads of unequal length or rate", "equal ones", where)
    if not leads:
        Json.refuse(Reason.EMPTY, "no lead of an ECG", "components with codes of leads", where)
    check_shape(len(leads), _length(leads), 1000 / leads[0].period_ms, where)
    if len(leads) * _length(leads) > MAX_SAMPLES:
        Json.refuse(Reason.LIMIT, f"{len(leads)} leads of {_length(leads)} samples", f"{MAX_SAMPLES} in all", where)
    notes = (JOINED,) if len(leads[0].parts) > 1 else ()
    return leads, (*item.notes, *notes, *([OTHERS] if others else []))


def _lead_name(part: dict[str, Any], where: str) -> str:
    """Return the lead that the code of a component means: by its MDC number, else by a name. Raises if the two differ."""
    numbered = named = None
    texts = [Json.text(part, "code", "text")]
    for coding in Json.items(part, "code", "coding"):
        code, display = Json.text(coding, "code"), Json.text(coding, "display")
        if Json.text(coding, "system") in _MDC and re.fullmatch(r"[0-9]{6}", code):
            numbered = _LEADS.get(int(code) - _FIRST_MDC, f"MDC {code}")
        texts += [code, display]
    for text in texts:
        named = named or canonical(_MDC_NAME.sub("", text))
    if numbered and named and canonical(numbered) != named:
        Json.refuse(Reason.HEADER, f"a component coded as {numbered}, but called {named}", "one lead", where)
    return numbered or named or next((text[:_NAME_LENGTH] for text in texts if text), "other")


def _lead(name: str, data: dict[str, Any], where: str) -> _Lead:
    """Parse the header of SampledData: value = origin + factor * number, in the unit of the origin."""
    # R5 renamed the period, and gave it a unit.
    period = Json.number(data, "period")  # ms, in R4; R5 has an interval with a unit
    if period is None and (scale := _MS.get(Json.text(data, "intervalUnit"))):
        interval = Json.number(data, "interval")
        period = None if interval is None else interval * scale
    if period is None or not 1e-3 <= period <= 1e3 or "offsets" in data:
        Json.refuse(Reason.HEADER, "no usable period", "ms from sample to sample", where)
    if Json.at(data, "dimensions") != 1:
        Json.refuse(Reason.UNSUPPORTED, "several dimensions, or none stated", "one", where)
    factor = 1.0 if "factor" not in data else Json.number(data, "factor")
    origin = Json.number(data, "origin", "value")
    # The code is of UCUM; the unit is any text for people.
    unit = Json.text(data, "origin", "code") or Json.text(data, "origin", "unit")
    if not factor or origin is None or not abs(origin / factor) < 1e15:
        Json.refuse(Reason.UNIT, f"no origin, or no factor, for lead {name}", "numbers", where)
    text = Json.at(data, "data")
    if not isinstance(text, str):
        Json.refuse(Reason.EMPTY, f"no samples of lead {name}", "a text of numbers", where)
    steps_per_mv(1 / factor, unit, name, where)  # HL7's example has no unit: it is refused here
    return _Lead(name, period, factor, origin, unit, (text,))


def _count(text: str) -> int:
    """Count the numbers in a text without a copy of each."""
    is_blank = np.frombuffer(b" " + text.encode("ascii", "replace"), np.uint8) <= ord(" ")
    return int(np.count_nonzero(is_blank[:-1] & ~is_blank[1:]))


def _length(leads: list[_Lead]) -> int:
    return sum(map(_count, leads[0].parts))


def _decoded(leads: list[_Lead], where: str) -> tuple[dict[str, NDArray | None], tuple[str, ...]]:
    """Return samples as arguments of Recording, and notes."""
    tokens = [[token for part in lead.parts for token in _tokens(part, where)] for lead in leads]
    marks = {mark for mark in _MARKS for lead in tokens if mark in lead}
    missing = None
    if marks:
        missing = np.array([[token in _MARKS for token in lead] for lead in tokens])
        tokens = [["0" if token in _MARKS else token for token in lead] for lead in tokens]
    per_mv = np.array([steps_per_mv(1 / lead.factor, lead.unit, lead.name, where) for lead in leads])
    baseline = np.array([-lead.origin / lead.factor + 0.0 for lead in leads])  # no negative zero
    notes = (OUT_OF_RANGE,) if marks & {"L", "U"} else ()
    is_float = any(_DECIMAL.search(part) for lead in leads for part in lead.parts)
    try:
        values = np.array(tokens, np.float64 if is_float else np.int64)
    except (ValueError, OverflowError):
        Json.refuse(Reason.HEADER, "a sample that is no number", "numbers, E, L or U", where)
    if is_float:
        if not np.isfinite(values).all():
            Json.refuse(Reason.HEADER, "a number beyond all floats", "numbers", where)
        analog_mv = (values - baseline[:, None]) / per_mv[:, None]
        if missing is not None:
            analog_mv[missing] = np.nan
        return {"analog_mv": analog_mv}, notes
    if values.min() < _INT32.min or values.max() > _INT32.max:
        Json.refuse(Reason.UNSUPPORTED, "integers of more than 32 bits", "32 bits or fewer", where)
    digital = values.astype(np.int32)
    return {"digital": digital, "gain_per_mv": per_mv, "baseline": baseline, "missing": missing}, notes


def _tokens(text: str, where: str) -> list[str]:
    # numpy would read nan, inf, 1_000 and digits of other scripts.
    if _NOT_OF_NUMBERS.search(text) or not text.isascii():
        Json.refuse(Reason.HEADER, "a sample that is no number", "numbers, E, L or U", where)
    tokens = text.split()
    if max(map(len, tokens), default=0) > _LONGEST_NUMBER:
        Json.refuse(Reason.HEADER, "a sample of many digits", f"{_LONGEST_NUMBER} characters at most", where)
    return tokens


def _recording(
    path: Path, item: _Item, leads: list[_Lead], notes: tuple[str, ...], **samples: NDArray | None
) -> Recording:
    return Recording(
        recording_id=item.entry or path.stem,
        leads=tuple(lead.name for lead in leads),
        rate_hz=1000 / leads[0].period_ms,
        n_samples=_length(leads),
        source=Origin("fhir_json", path, item.entry),
        **_context(item).facts(*notes),
        **samples,  # type: ignore[arg-type]
    )


def _context(item: _Item) -> Context:
    """Collect patient, time and device. Names, addresses, displays and narratives are never read."""
    observation = item.observation
    reference = Json.text(observation, "subject", "reference")
    patient = item.others.get(reference) or item.others.get("/".join(reference.split("/")[-2:])) or {}
    start = ("effectiveDateTime", "effectiveInstant")
    texts = [Json.text(observation, key) for key in start] + [Json.text(observation, "effectivePeriod", "start")]
    acquired_at = next((when for text in texts if (when := _moment(text)) is not None), None)
    device = item.others.get(Json.text(observation, "device", "reference"), {})
    age, notes = age_of(None, _moment(Json.text(patient, "birthDate")), acquired_at)
    found = {
        "ObservationID": Json.text(observation, "id"),
        "Subject": reference,
        "Status": Json.text(observation, "status"),
    }
    return Context(
        patient_id=_patient_id(observation, reference, patient),
        age_years=age,
        sex=sex_of(Json.text(patient, "gender")),
        acquired_at=acquired_at,
        # The display of a device may be "Anna's watch".
        device=Json.text(device, "modelNumber")[:64] or None,
        site=None,
        mains_hz=None,
        fields={name: text for name, text in found.items() if text},
        notes=notes,
    )


def _patient_id(observation: dict[str, Any], reference: str, patient: dict[str, Any]) -> str | None:
    """Return an id that is the same in another file: that of a Patient on a server, else an identifier in its system."""
    kind, slash, own = reference.rpartition("/")
    if slash and kind.endswith("Patient") and not is_placeholder(own):
        return own
    # `urn:uuid:...` and `#p` name a patient inside this one file only.
    identifiers = [Json.at(observation, "subject", "identifier"), *Json.items(patient, "identifier")]
    values = {(Json.text(one, "system"), Json.text(one, "value")) for one in identifiers if Json.text(one, "value")}
    if len(values) != 1:
        return None
    ((system, value),) = values
    if is_placeholder(value):
        return None
    return f"{system}/{value}" if system else value


def _moment(text: str) -> datetime | None:
    """Parse a date, or a time, of at least a day; the clock as written, the zone is dropped."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None) if len(text) >= len("2015-02-19") else None
    except ValueError:
        return None
