"""Before anything is decoded: which recordings there are, whose they are, and which row each will have."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ecgcohorts.cohorts.files import Found, scan_files
from ecgcohorts.cohorts.schema import Layout, Mains
from ecgcohorts.cohorts.spec import CohortSpec, Description, describe
from ecgcohorts.cohorts.tables import load_tables
from ecgcohorts.errors import SpecError
from ecgcohorts.ingest.plan_table import SECONDS_PER_DAY, UNKNOWN_TIME, Gathered, as_keys, row_schema
from ecgcohorts.preprocess.recipes import Recipe
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES, PseudonymKey
from ecgcohorts.sources.address import path_of
from ecgcohorts.store.signals.chunks import Codec
from ecgcohorts.store.upkeep.lookup import REMOVED

DUPLICATE_ID = "recording_id_twice"
_BLOCK = 1 << 16  # rows compared at a time


@dataclass(frozen=True, slots=True)
class Refusal:
    """One input without a row in the index: refused, or a copy of another recording."""

    cohort: str
    recording_id: bytes
    stage: str  # plan, read, recipe, or commit
    reason: str
    error: str  # class name
    duplicate_of: bytes = b""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Frozen):
    """What is asked for: from where, into which snapshot of which store, and how."""

    source: str  # the address of a source: an absolute file URI, which holds any name, or the URL of a bucket
    store: str
    spec: CohortSpec
    recipe: Recipe
    shard_records: Annotated[int, Field(gt=0)]
    codec: Codec = "lz4"
    quality: bool
    on_error: Literal["quarantine", "raise"]
    key_fingerprint: str
    generation: Annotated[int, Field(gt=0)]  # of the snapshot to come
    base: str  # SHA-256 of the manifest it extends; empty for a new store
    versions: dict[str, str]  # of the libraries that decide bytes

    @property
    def folder(self) -> Path:
        return path_of(self.store)


class PlannedCohort(_Frozen):
    """How much one run adds to one cohort."""

    name: str
    rows: Annotated[int, Field(ge=0)]
    refused: Annotated[int, Field(ge=0)]

    @property
    def inputs(self) -> int:
        return self.rows + self.refused


class PlanHeader(Target):
    """All of a plan but its rows. Equal inputs, description, recipe, options and key give an equal digest."""

    layout: Layout  # of all files
    cohorts: tuple[PlannedCohort, ...]
    known: int  # inputs that the store has, or has refused, already
    sites: tuple[str, ...]
    devices: tuple[str, ...]
    mains: tuple[Mains, ...]
    labels: tuple[str, ...]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

    @property
    def n_rows(self) -> int:
        return sum(cohort.rows for cohort in self.cohorts)

    @property
    def n_inputs(self) -> int:
        return sum(cohort.inputs for cohort in self.cohorts)

    @cached_property
    def parts(self) -> tuple["Part", ...]:
        """The partitions, in the order of their numbers."""
        parts: list[Part] = []
        before = 0
        for cohort in self.cohorts:
            for shard, first in enumerate(range(0, cohort.rows, self.shard_records)):
                rows = min(self.shard_records, cohort.rows - first)
                parts.append(Part(len(parts), cohort.name, shard, before + first, rows))
            before += cohort.rows
        return tuple(parts)

    def parts_of(self, cohort: str) -> list["Part"]:
        return [part for part in self.parts if part.cohort == cohort]


@dataclass(frozen=True)
class Part:
    """One partition: one shard of one cohort, with one owner."""

    number: int
    cohort: str
    shard: int  # its number in the cohort's array
    first: int  # row of the plan
    rows: int


class AnyPlan(Protocol):
    """A plan in memory or in a file: its header, and the rows on demand."""

    @property
    def header(self) -> PlanHeader: ...

    def rows(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one partition, with the columns of `row_schema`, or some of them."""

    def refused(self, cohort: str) -> tuple[Refusal, ...]: ...


@dataclass(frozen=True, eq=False)
class Plan:
    """What one run will do, in memory: rows in store order, patients contiguous, their records in time order."""

    header: PlanHeader
    _files: pa.Array = field(repr=False)
    _rows: pa.Table = field(repr=False)
    _refused: tuple[Refusal, ...] = field(repr=False)

    def rows(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        wanted = row_schema(self.header.labels)
        if columns is not None:
            wanted = pa.schema([wanted.field(name) for name in columns])
        rows = self._rows.slice(part.first, part.rows)
        if "path" in wanted.names:
            rows = rows.append_column("path", self._files.take(rows["file"].combine_chunks()))
        return rows.select(wanted.names).cast(wanted)

    def refused(self, cohort: str) -> tuple[Refusal, ...]:
        return tuple(one for one in self._refused if one.cohort == cohort)


def _no_ids() -> NDArray[np.uint8]:
    return np.zeros((0, PSEUDONYM_BYTES), np.uint8)


@dataclass(frozen=True, eq=False)
class Known:
    """Pseudonyms, (id, 16) uint8, that the store has met in earlier runs, refused recordings included."""

    recordings: NDArray[np.uint8] = field(default_factory=_no_ids)
    patients: NDArray[np.uint8] = field(default_factory=_no_ids)
    removed: NDArray[np.uint8] = field(default_factory=_no_ids)  # patients whose new recordings are refused too


def make_plan(target: Target, files: Found, key: PseudonymKey, known: Known, limit: int | None = None) -> Plan:
    """Scan headers and tables of the source and lay out the rows of every cohort found there.

    limit: inputs, for a trial. Days since a patient's first recording are unknown for patients the store knows: their
    first is not read again. Raises SourceError if there is nothing to read, SpecError for an input nobody can name.
    """
    spec, tables = target.spec, load_tables(files)
    found = Gathered(files.layout)
    unusable: list[Refusal] = []
    removed = {one.tobytes() for one in known.removed}
    for item in islice(scan_files(files), limit):
        about = describe(spec, tables, item)
        recording = key.pseudonym(about.cohort, "recording", about.recording_id)
        patient = _patient(about, key)
        if patient in removed:
            unusable.append(Refusal(about.cohort, recording, "plan", REMOVED, ""))
        elif item.error is not None:
            reason, error = str(item.error.reason), type(item.error).__name__
            unusable.append(Refusal(about.cohort, recording, "plan", reason, error))
        else:
            found.append(item, about, recording, patient)
    del tables  # as large as the plan, and not wanted again
    refused, n_known = _not_known(unusable, known)
    rows, twice, met = _new_rows(found, known, key)
    refused += twice
    order, days = _order(found, rows, key, known)
    counts = dict(zip(found.cohorts.values, np.bincount(found.cohort[order]).tolist(), strict=False))
    del rows
    table, digest = found.lay_out(order, days)
    n_refused = Counter(one.cohort for one in refused)
    header = PlanHeader(
        **dict(target),
        layout=files.layout,
        cohorts=tuple(
            PlannedCohort(name=name, rows=counts.get(name, 0), refused=n_refused[name])
            for name in sorted({name for name in counts if counts[name]} | set(n_refused))
        ),
        known=n_known + met,
        sites=found.sites.values,
        devices=found.devices.values,
        mains=found.mains.values,
        labels=found.labels,
        digest=_digest(target, digest),
    )
    return Plan(header, found.files.column(), table, tuple(refused))


def _patient(about: Description, key: PseudonymKey) -> bytes:
    # A record without a patient id is a patient of its own: placeholders hashed alike would become one person.
    patient = f"\0alone\0{about.recording_id}" if about.patient_id is None else about.patient_id
    return key.pseudonym(about.cohort, "patient", patient)


def _not_known(refused: list[Refusal], known: Known) -> tuple[list[Refusal], int]:
    """Those the store has not met, and how many it has."""
    ids = np.frombuffer(b"".join(one.recording_id for one in refused), np.uint8)
    met = np.isin(as_keys(ids), as_keys(known.recordings))
    return [one for one, old in zip(refused, met, strict=True) if not old], int(met.sum())


def _new_rows(found: Gathered, known: Known, key: PseudonymKey) -> tuple[NDArray[np.int64], list[Refusal], int]:
    """Rows to lay out; refusals for ids that come twice, of which the first is kept; and how many are known."""
    keys = as_keys(found.recording_ids)
    new = np.flatnonzero(~np.isin(keys, as_keys(known.recordings)))
    order, is_new = _grouped(keys if len(new) == len(keys) else keys[new])
    first = np.zeros(len(new), bool)
    first[order[is_new]] = True
    del order, is_new
    twice = []
    for row in new[~first].tolist():
        cohort = found.cohorts.values[found.cohort[row]]
        path, entry = found.source(row)
        again = key.pseudonym(cohort, "recording", f"{found.name(row)}\0{path}\0{entry}")
        twice.append(Refusal(cohort, again, "plan", DUPLICATE_ID, "SourceError"))
    refused, n_known = _not_known(twice, known)
    return new[first], refused, n_known + len(keys) - len(new)


def _order(
    found: Gathered, rows: NDArray[np.int64], key: PseudonymKey, known: Known
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows in store order, and days since the patient's first.

    Cohorts by name; patients in the order of a keyed digest, so that no reader sees site or date drift; their records
    by time, then by name.
    """
    orders, days = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    names = found.cohorts.values
    for cohort in sorted(names):
        mine = rows if len(names) == 1 else rows[found.cohort[rows] == names.index(cohort)]
        is_all = len(mine) == len(found)  # then a copy of all ids, 16 bytes each, can be spared
        patients, place = _places(found.patient_ids if is_all else found.patient_ids[mine], cohort, key)
        time = found.time[mine]
        order = np.lexsort((time, place))
        mine = mine[order]  # one by one: each takes the place of the one before
        time = time[order]
        place = place[order]
        del order
        _sort_ties_by_name(found, mine, time, place)
        orders.append(mine)
        old = np.isin(as_keys(patients), as_keys(known.patients))
        days.append(_days(time, place, old))
    return np.concatenate(orders), np.concatenate(days)


def _places(ids: NDArray[np.uint8], cohort: str, key: PseudonymKey) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The patients in store order, (patient, 16) uint8; and for every row the place of its patient among them."""
    order, is_new = _grouped(as_keys(ids))
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(is_new, dtype=np.int32) - 1
    patients = ids[order[is_new]]
    del order, is_new
    order = key.store_order(cohort, patients)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return patients[order], place[number]


def _grouped(keys: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """An order that brings equal keys together, the first of them first; and where in it another key begins."""
    order = np.argsort(keys, kind="stable")
    is_new = np.ones(len(keys), bool)
    for start in range(1, len(keys), _BLOCK):  # not all at once: a sorted copy would be as large as the keys
        block = keys[order[start - 1 : start + _BLOCK]]
        is_new[start : start + _BLOCK] = block[1:] != block[:-1]
    return order, is_new


def _sort_ties_by_name(
    found: Gathered, rows: NDArray[np.int64], time: NDArray[np.int64], place: NDArray[np.int32]
) -> None:
    """Order, in place, the rows of one patient at one time by name."""
    tied = (place[1:] == place[:-1]) & (time[1:] == time[:-1])
    edges = np.diff(np.concatenate([[False], tied, [False]]).astype(np.int8))
    for start, last in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
        rows[start : last + 1] = sorted(rows[start : last + 1].tolist(), key=found.name)


def _days(time: NDArray[np.int64], place: NDArray[np.int32], old: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Days since the first of the patient, rows in order; NaN without a time, and for patients met in an earlier run."""
    began = time[np.flatnonzero(np.diff(place, prepend=np.int32(-1)))]
    days = np.empty(len(time), np.float32)
    for start in range(0, len(time), _BLOCK):
        rows = slice(start, start + _BLOCK)
        unknown = (time[rows] == UNKNOWN_TIME) | old[place[rows]]
        since_us = np.where(unknown, 0, time[rows] - began[place[rows]])
        days[rows] = np.where(unknown, np.nan, since_us / 1_000_000 / SECONDS_PER_DAY)
    return days


def _digest(target: Target, rows: str) -> str:
    """What a run under way must share with a later one for its finished shards to be kept."""
    parts = target.model_dump_json(exclude={"source", "store", "on_error"})
    return hashlib.sha256(f"{parts}\0{rows}".encode()).hexdigest()[:32]


def count_reasons(refused: Iterable[Refusal]) -> dict[str, int]:
    return dict(sorted(Counter(one.reason for one in refused).items()))


def part_named(header: PlanHeader, number: int) -> Part:
    """A partition by number. Raises SpecError, saying how many there are."""
    if not 0 <= number < len(header.parts):
        raise SpecError(
            f"found partition {number}, expected 0 to {len(header.parts) - 1}: this plan has {len(header.parts)}."
            if header.parts
            else f"found partition {number}, expected none: this plan has nothing to encode, commit it."
        )
    return header.parts[number]
