"""Before anything is decoded: which recordings there are, whose they are, and which row each will have."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from ecgcohorts.cohort_schema import Layout, Mains
from ecgcohorts.cohort_spec import CohortSpec, Description, SourceItem, describe
from ecgcohorts.cohort_values import AGE_CAP_YEARS
from ecgcohorts.errors import RecordingError
from ecgcohorts.pseudonyms import PseudonymKey
from ecgcohorts.recipes import Recipe

DUPLICATE_ID = "recording_id_twice"


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """One row to come. `path` and `entry` lead back to the input and are never written to the store."""

    path: str = field(repr=False)
    entry: str = field(repr=False)
    mains_hz: Mains
    recording_id: bytes
    patient_id: bytes
    patient_known: bool
    age: float
    sex: str | None
    days: float
    site: str | None
    device: str | None
    labels: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One input without a row in the index: refused, or a copy of another recording."""

    cohort: str
    recording_id: bytes
    stage: str  # plan, read, recipe, or commit
    reason: str
    error: str  # class name
    duplicate_of: bytes = b""


@dataclass(frozen=True)
class CohortPlan:
    """The rows one run adds to one cohort, in store order: patients contiguous, their records in time order."""

    cohort: str
    records: tuple[PlannedRecord, ...]
    refused: tuple[Refusal, ...]

    @property
    def n_inputs(self) -> int:
        return len(self.records) + len(self.refused)


@dataclass(frozen=True)
class Plan:
    """What one ingest run will do. Equal inputs, description, recipe and key give an equal digest."""

    cohorts: tuple[CohortPlan, ...]
    layout: Layout  # of all files
    n_known: int  # inputs that the store has, or has refused, already
    digest: str

    @property
    def n_rows(self) -> int:
        return sum(len(cohort.records) for cohort in self.cohorts)

    @property
    def n_inputs(self) -> int:
        return sum(cohort.n_inputs for cohort in self.cohorts)


@dataclass(frozen=True)
class Known:
    """Pseudonyms that the store has met in earlier runs, refused recordings included."""

    recordings: frozenset[bytes] = frozenset()
    patients: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class _Found:
    """One input with its ids replaced."""

    record: PlannedRecord
    cohort: str
    time: datetime
    name: str


def make_plan(root: Path, spec: CohortSpec, recipe: Recipe, key: PseudonymKey, known: Known, limit: int | None) -> Plan:
    """Scan headers and tables below `root` and lay out the rows of every cohort found there.

    Days since a patient's first recording are unknown for patients the store knows: their first is not read again.
    Raises SourceError if there is nothing to read.
    """
    tables = spec.load_tables(root)
    found: dict[bytes, _Found] = {}
    refused: list[Refusal] = []
    n_known = 0
    for item in islice(spec.scan(root), limit):
        description = describe(spec, tables, item)
        recording_id = key.pseudonym(description.cohort, "recording", description.recording_id)
        if recording_id in known.recordings:
            n_known += 1
        elif item.error is not None:
            refused.append(_refusal(description.cohort, recording_id, item.error))
        elif recording_id in found:
            again = key.pseudonym(
                description.cohort, "recording", f"{description.recording_id}\0{item.path}\0{item.entry}"
            )
            if again in known.recordings:
                n_known += 1
            else:
                refused.append(Refusal(description.cohort, again, "plan", DUPLICATE_ID, "SourceError"))
        else:
            found[recording_id] = _pseudonymise(item, description, recording_id, key)
    cohorts = tuple(
        _lay_out(name, found.values(), refused, key, known) for name in _cohort_names(found.values(), refused)
    )
    return Plan(cohorts, tables.layout, n_known, _digest(root, cohorts, spec, recipe, key))


def _pseudonymise(item: SourceItem, description: Description, recording_id: bytes, key: PseudonymKey) -> _Found:
    known = description.patient_id is not None
    # A record without a patient id is a patient of its own: placeholders hashed alike would become one person.
    patient = description.patient_id if known else f"\0alone\0{description.recording_id}"
    assert patient is not None
    age = description.age_years
    record = PlannedRecord(
        path=item.path,
        entry=item.entry,
        mains_hz=description.mains_hz,
        recording_id=recording_id,
        patient_id=key.pseudonym(description.cohort, "patient", patient),
        patient_known=known,
        age=min(age, AGE_CAP_YEARS) if math.isfinite(age) else math.nan,
        sex=description.sex,
        days=math.nan,
        site=description.site,
        device=description.device,
        labels=tuple(sorted(description.labels.items())),
    )
    # One clock per recording is all there is: a zone, where a file states one, is dropped rather than mixed with none.
    time = (description.acquired_at or datetime.max).replace(tzinfo=None)
    return _Found(record, description.cohort, time, description.recording_id)


def _refusal(cohort: str, recording_id: bytes, error: RecordingError) -> Refusal:
    return Refusal(cohort, recording_id, "plan", str(error.reason), type(error).__name__)


def _cohort_names(found: Iterable[_Found], refused: Iterable[Refusal]) -> list[str]:
    return sorted({one.cohort for one in found} | {one.cohort for one in refused})


def _lay_out(
    cohort: str, found: Iterable[_Found], refused: list[Refusal], key: PseudonymKey, known: Known
) -> CohortPlan:
    """Patients in the order of a keyed digest, so that no reader sees site or date drift; records by time."""
    mine = [one for one in found if one.cohort == cohort]
    first = _first_times(mine)
    mine.sort(key=lambda one: (_place(one.record, cohort, key), one.record.patient_id, one.time, one.name))
    records = tuple(one.record if one.record.patient_id in known.patients else _with_days(one, first) for one in mine)
    return CohortPlan(cohort, records, tuple(one for one in refused if one.cohort == cohort))


def _place(record: PlannedRecord, cohort: str, key: PseudonymKey) -> bytes:
    return key.pseudonym(cohort, "order", record.patient_id.hex())


def _first_times(found: Iterable[_Found]) -> dict[bytes, datetime]:
    first: dict[bytes, datetime] = {}
    for one in found:
        patient = one.record.patient_id
        first[patient] = min(first.get(patient, datetime.max), one.time)
    return first


def _with_days(one: _Found, first: dict[bytes, datetime]) -> PlannedRecord:
    if one.time == datetime.max:
        return one.record
    days = (one.time - first[one.record.patient_id]).total_seconds() / 86_400
    values = {name: getattr(one.record, name) for name in PlannedRecord.__slots__}
    return PlannedRecord(**{**values, "days": days})


def _digest(root: Path, cohorts: tuple[CohortPlan, ...], spec: CohortSpec, recipe: Recipe, key: PseudonymKey) -> str:
    """What a run under way must share with a later one for its finished shards to be kept."""
    digest = hashlib.sha256()
    for part in (spec.model_dump_json(), recipe.model_dump_json(), key.fingerprint):
        digest.update(hashlib.sha256(part.encode()).digest())
    for cohort in cohorts:
        for record in cohort.records:
            row = [cohort.cohort, record.path, record.entry, record.recording_id.hex(), record.patient_id.hex()]
            digest.update(json.dumps([*row, record.days, record.age, record.sex, record.labels]).encode())
            digest.update(_state(root, record.path))
    return digest.hexdigest()


def _state(root: Path, path: str) -> bytes:
    """Size and time of change of an input file: another content must not resume on shards of the first."""
    status = (root / path).stat()
    return f"{status.st_size} {status.st_mtime_ns}".encode()


def count_reasons(refused: Iterable[Refusal]) -> dict[str, int]:
    return dict(sorted(Counter(one.reason for one in refused).items()))
