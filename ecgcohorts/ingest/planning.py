"""Make a plan: list the recordings of a source, their patients and their rows, before decoding any signal.

Rows are gathered as columns: as a Python object, a row takes a kilobyte; as columns, 5 million rows fit in 1 GB.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ecgcohorts.cohorts.account import CellAccount, TableAccount
from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.schema import Layout, Mains
from ecgcohorts.cohorts.spec import CohortSpec, Description
from ecgcohorts.cohorts.tables import Tables
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, UNKNOWN
from ecgcohorts.index.contradictions import PatientCheck
from ecgcohorts.ingest.plan import (
    PSEUDONYM,
    AnyPlan,
    Plan,
    PlanHeader,
    PlannedCohort,
    Refusal,
    Request,
    as_keys,
    ids_of,
)
from ecgcohorts.io.texts import Texts, encoded
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES, PseudonymKey
from ecgcohorts.store.reader import Store
from ecgcohorts.store.upkeep.lookup import REMOVED

_BLOCK = 1 << 16  # rows compared at a time
_UNKNOWN_TIME = np.iinfo(np.int64).max  # sorts behind every known one
_SECONDS_PER_DAY = 86_400
_MICROSECOND = timedelta(microseconds=1)

V = TypeVar("V", bound=Hashable)


def _no_ids() -> NDArray[np.uint8]:
    return np.zeros((0, PSEUDONYM_BYTES), np.uint8)


@dataclass(frozen=True, eq=False)
class Known:
    """Pseudonyms, (id, 16) uint8, that the store has met in earlier runs, refused recordings included."""

    recordings: NDArray[np.uint8] = field(default_factory=_no_ids)
    patients: NDArray[np.uint8] = field(default_factory=_no_ids)
    removed: NDArray[np.uint8] = field(default_factory=_no_ids)  # patients whose new recordings are refused too

    @classmethod
    def of(cls, store: Store | None) -> Self:
        """Return the recordings that a store has met, stored or refused, its patients, and those removed from it."""
        if store is None:
            return cls()
        refused = np.frombuffer(bytes.fromhex("".join(store.rejects()["recording_id"])), np.uint8)
        recordings = np.concatenate([store.index["recording_id"], refused.reshape(-1, PSEUDONYM_BYTES)])
        removed = np.frombuffer(bytes.fromhex("".join(store.manifest.removed)), np.uint8).reshape(-1, PSEUDONYM_BYTES)
        return cls(recordings, store.index.patient_ids, removed)

    def covers(self, plan: AnyPlan) -> bool:
        """Tell whether every input of a plan was met, stored or refused."""
        met = as_keys(self.recordings)
        for partition in plan.header.partitions:
            if not np.isin(as_keys(ids_of(plan.rows(partition, ["recording_id"])["recording_id"])), met).all():
                return False
        refused = b"".join(one.recording_id for cohort in plan.header.cohorts for one in plan.refused(cohort.name))
        return bool(np.isin(as_keys(np.frombuffer(refused, np.uint8)), met).all())


def make_plan(request: Request, files: Found, key: PseudonymKey, known: Known, limit: int | None = None) -> Plan:
    """Scan the headers and tables of a source and lay out the rows of every cohort in it.

    limit: number of inputs, for a trial. Raises SourceError if there is nothing to read, SpecError for an input that
    nothing names. Days since a patient's first recording are unknown for patients whom the store already knows, because
    that first recording is not read again.
    """
    found, unusable, (accounts, cells) = _scan(request.spec, files, key, known, limit)
    refused, n_known = _not_known(unusable, known)
    rows, twice, met = _new_rows(found, known, key)
    refused += twice
    order, days = _order(found, rows, key, known)
    counts = dict(zip(found.cohorts.values, np.bincount(found.cohort[order]).tolist(), strict=False))
    del rows
    patients = found.check(order)
    table, digest = found.lay_out(order, days)
    n_refused = Counter(one.cohort for one in refused)
    # The digest names the staging folder. Where the data stand and what happens on errors change no staged byte, so a
    # run resumes even if those change.
    asked = request.model_dump_json(
        exclude={"source": True, "store": True, "on_error": True, "spec": {"max_contradictions"}}
    )
    header = PlanHeader(
        **dict(request),
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
        patients=patients,
        tables=accounts,
        not_understood=cells,
        left_out=files.source.left_out,
        digest=hashlib.sha256(f"{asked}\0{digest}".encode()).hexdigest()[:32],
    )
    return Plan(header, found.files.column(), table, tuple(refused))


def _scan(
    spec: CohortSpec, files: Found, key: PseudonymKey, known: Known, limit: int | None
) -> tuple["_Gathered", list[Refusal], tuple[tuple[TableAccount, ...], tuple[CellAccount, ...]]]:
    """Describe every recording of a source; apart from these, those refused, and what tables said."""
    tables = Tables.load(files)
    found = _Gathered(files.layout)
    unusable: list[Refusal] = []
    removed = {one.tobytes() for one in known.removed}
    goes_by_row = any(table.match == "row" for table in files.layout.tables)
    entries: Counter[str] = Counter()  # recordings by file, for tables that go by row
    for item in islice(files.scan(), limit):
        if goes_by_row:
            entries[item.path] += item.error is None
        about = spec.describe(tables, item)
        recording = key.pseudonym(about.cohort, "recording", about.recording_id)
        patient = about.patient_pseudonym(key)
        # A patient who was removed from the store stays out of it.
        if patient in removed:
            unusable.append(Refusal(about.cohort, recording, "plan", REMOVED, ""))
        elif item.error is not None:
            reason, error = str(item.error.reason), type(item.error).__name__
            unusable.append(Refusal(about.cohort, recording, "plan", reason, error))
        else:
            found.append(item, about, recording, patient)
    if limit is None:
        tables.check_rows(entries)
    # Tables are as large as the plan, and not needed again: only what they account for stays.
    return found, unusable, (tables.accounts(), tables.not_understood())


def _not_known(refused: list[Refusal], known: Known) -> tuple[list[Refusal], int]:
    """Return the refusals that the store has not met, and the number of those it has."""
    # A refusal is remembered as well as a recording, so that ingesting the same source again finds nothing to do.
    ids = np.frombuffer(b"".join(one.recording_id for one in refused), np.uint8)
    met = np.isin(as_keys(ids), as_keys(known.recordings))
    return [one for one, old in zip(refused, met, strict=True) if not old], int(met.sum())


def _new_rows(found: "_Gathered", known: Known, key: PseudonymKey) -> tuple[NDArray[np.int64], list[Refusal], int]:
    """Return the rows to lay out, a refusal for each repetition of an id, and the number of known recordings."""
    keys = as_keys(found.recording_ids)
    new = np.flatnonzero(~np.isin(keys, as_keys(known.recordings)))
    # Of equal ids the first is kept, in the order of the scan, which is the same for every kind of source.
    order, is_new = _grouped(keys if len(new) == len(keys) else keys[new])
    first = np.zeros(len(new), bool)
    first[order[is_new]] = True
    del order, is_new
    twice = []
    for row in new[~first].tolist():
        cohort = found.cohorts.values[found.cohort[row]]
        twice.append(Refusal.of_repetition(cohort, found.name(row), *found.source(row), key))
    refused, n_known = _not_known(twice, known)
    return new[first], refused, n_known + len(keys) - len(new)


def _order(
    found: "_Gathered", rows: NDArray[np.int64], key: PseudonymKey, known: Known
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows in store order, and the days since each patient's first recording.

    Cohorts are ordered by name, patients by a keyed digest, so that no reader sees site or date drift, and the recordings
    of a patient by time, then by name.
    """
    orders, days = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    names = found.cohorts.values
    for cohort in sorted(names):
        mine = rows if len(names) == 1 else rows[found.cohort[rows] == names.index(cohort)]
        # Most sources have one cohort: then no copy of all ids, 16 bytes each, is needed.
        is_all = len(mine) == len(found)
        patients, patient = _numbered(found.patient_ids if is_all else found.patient_ids[mine], cohort, key)
        time = found.time[mine]
        order = np.lexsort((time, patient))
        # One by one, so that each array frees the one it replaces.
        mine = mine[order]
        time = time[order]
        patient = patient[order]
        del order
        _sort_ties_by_name(found, mine, time, patient)
        orders.append(mine)
        old = np.isin(as_keys(patients), as_keys(known.patients))
        days.append(_days(time, patient, old))
    return np.concatenate(orders), np.concatenate(days)


def _numbered(ids: NDArray[np.uint8], cohort: str, key: PseudonymKey) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the patients in store order, (patient, 16) uint8, and for every row the number of its patient in it."""
    order, is_new = _grouped(as_keys(ids))
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(is_new, dtype=np.int32) - 1
    patients = ids[order[is_new]]
    del order, is_new
    order = key.store_order(cohort, patients)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return patients[order], rank[number]


def _grouped(keys: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return an order that brings equal keys together, the first of them first, and where in it a new key begins."""
    order = np.argsort(keys, kind="stable")
    return order, _begins(keys, order)


def _begins(keys: NDArray[np.bytes_], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell where in an order that brings equal keys together a new key begins."""
    is_new = np.ones(len(order), bool)
    # In blocks, because a sorted copy would be as large as the keys.
    for start in range(1, len(order), _BLOCK):
        block = keys[order[start - 1 : start + _BLOCK]]
        is_new[start : start + _BLOCK] = block[1:] != block[:-1]
    return is_new


def _sort_ties_by_name(
    found: "_Gathered", rows: NDArray[np.int64], time: NDArray[np.int64], patient: NDArray[np.int32]
) -> None:
    """Sort, in place, rows of one patient and one time by name."""
    tied = (patient[1:] == patient[:-1]) & (time[1:] == time[:-1])
    edges = np.diff(np.concatenate([[False], tied, [False]]).astype(np.int8))
    for start, last in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
        rows[start : last + 1] = sorted(rows[start : last + 1].tolist(), key=found.name)


def _days(time: NDArray[np.int64], patient: NDArray[np.int32], old: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return days since each patient's first row; NaN without a time, and for patients met in an earlier run."""
    began = time[np.flatnonzero(np.diff(patient, prepend=np.int32(-1)))]
    days = np.empty(len(time), np.float32)
    for start in range(0, len(time), _BLOCK):
        rows = slice(start, start + _BLOCK)
        unknown = (time[rows] == _UNKNOWN_TIME) | old[patient[rows]]
        since_us = np.where(unknown, 0, time[rows] - began[patient[rows]])
        days[rows] = np.where(unknown, np.nan, since_us / 1_000_000 / _SECONDS_PER_DAY)
    return days


class _Codes(Generic[V]):
    """Numbers for the few different values of a column, in the order they are met; None may be one of them."""

    def __init__(self) -> None:
        self._codes: dict[V, int] = {}

    def code(self, value: V) -> int:
        return self._codes.setdefault(value, len(self._codes))

    @property
    def values(self) -> tuple[V, ...]:
        return tuple(self._codes)


class _Gathered:
    """What the scan has found: one row per recording, in the order of the scan, with ids already replaced."""

    def __init__(self, layout: Layout) -> None:
        self.labels = tuple(sorted(layout.labels))
        self._named_by_path = not layout.recording
        self.cohorts, self.mains = _Codes[str](), _Codes[Mains]()
        self.sites, self.devices = _Codes[str](), _Codes[str]()
        self.files, self._entries, self._names = Texts(), Texts(), Texts()
        # One path and state per file, not per recording: an HDF5 file may hold thousands.
        self._last_path: str | None = None
        self._recording, self._patient = bytearray(), bytearray()
        self._cohort, self._file, self._site, self._device = (array("i") for _ in range(4))
        self._known, self._sex, self._mains = (array("b") for _ in range(3))
        self._age, self._label = array("f"), array("f")
        self._time = array("q")
        self._state = array("Q")

    def __len__(self) -> int:
        return len(self._time)

    def append(self, item: SourceItem, about: Description, recording: bytes, patient: bytes) -> None:
        """Add a recording, under the pseudonyms `recording` and `patient`."""
        if item.path != self._last_path:
            self.files.append(item.path)
            # The state of the input is part of the plan's digest: changed content must not resume on old shards.
            state = encoded(f"{item.path}\0{item.state}" if item.state else item.path)
            self._state.append(int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "little"))
            self._last_path = item.path
        self._file.append(len(self.files) - 1)
        self._entries.append(item.entry)
        # An id that follows from the path is not kept twice.
        self._names.append("" if self._named_by_path else about.recording_id)
        self._recording += recording
        self._patient += patient
        self._known.append(about.patient_id is not None)
        self._cohort.append(self.cohorts.code(about.cohort))
        self._age.append(about.stored_age)
        self._sex.append(SEX_CODES.get(about.sex or "", UNKNOWN))
        self._time.append(_microseconds(about.acquired_at))
        self._site.append(UNKNOWN if about.site is None else self.sites.code(about.site))
        self._device.append(UNKNOWN if about.device is None else self.devices.code(about.device))
        self._mains.append(self.mains.code(about.mains_hz))
        self._label.extend([about.labels[name] for name in self.labels])

    @property
    def recording_ids(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._recording, np.uint8).reshape(-1, PSEUDONYM_BYTES)

    @property
    def patient_ids(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._patient, np.uint8).reshape(-1, PSEUDONYM_BYTES)

    @property
    def cohort(self) -> NDArray[np.int32]:
        return np.frombuffer(self._cohort, np.int32)

    @property
    def time(self) -> NDArray[np.int64]:
        """Microseconds since year 1 by the file's own clock; _UNKNOWN_TIME where a file states no time."""
        return np.frombuffer(self._time, np.int64)

    def source(self, row: int) -> tuple[str, str]:
        """Return path and entry."""
        return self.files[self._file[row]], self._entries[row]

    def name(self, row: int) -> str:
        """Return the recording's own id. It is never stored, and asked for only where two ids or two times are equal."""
        return SourceItem(*self.source(row)).stem if self._named_by_path else self._names[row]

    def check(self, order: NDArray[np.int64]) -> PatientCheck:
        """Look for contradictions between the recordings of each patient, in the order of `_order`."""
        is_new = _begins(as_keys(self.patient_ids), order)
        time = self.time[order]
        days = np.where(time == _UNKNOWN_TIME, np.nan, time / 1_000_000 / _SECONDS_PER_DAY)
        sex, age = np.frombuffer(self._sex, np.int8)[order], np.frombuffer(self._age, np.float32)[order]
        return PatientCheck.of_columns(np.flatnonzero(is_new), sex, age, days)

    def lay_out(self, order: NDArray[np.int64], days: NDArray[np.float32]) -> tuple[pa.Table, str]:
        """Return the rows in another order, with their `days`, and a digest of them and of the state of their files.

        The columns are those of a partition, but with `file` (a number in `files`) in place of `path`. Gathered columns
        are dropped one by one as they are taken, because holding both would double the memory; `files` and codes remain.
        """
        file = self._take("_file", np.int32)[order]
        digest = hashlib.sha256(self._take("_state", np.uint64)[file].astype("<u8").tobytes())
        columns: dict[str, pa.Array] = {"file": pa.array(file), "days": pa.array(days)}
        columns["entry"] = self._entries.column().take(pa.array(order))
        for name, attribute in (("recording_id", "_recording"), ("patient_id", "_patient")):
            ids = np.ascontiguousarray(self._take(attribute, np.uint8).reshape(-1, PSEUDONYM_BYTES)[order])
            columns[name] = pa.FixedSizeBinaryArray.from_buffers(PSEUDONYM, len(ids), [None, pa.py_buffer(ids)])
            del ids
        columns["patient_known"] = pa.array(self._take("_known", np.int8)[order].astype(bool))
        for name, dtype in (("age", np.float32), ("sex", np.int8), ("site", np.int32), ("device", np.int32)):
            columns[name] = pa.array(self._take(f"_{name}", dtype)[order])
        columns["mains"] = pa.array(self._take("_mains", np.int8)[order])
        label = self._take("_label", np.float32).reshape(-1, len(self.labels)) if self.labels else np.zeros((0, 0))
        columns |= {LABEL + name: pa.array(label[order, number]) for number, name in enumerate(self.labels)}
        # `file` numbers the files of one scan; the states above stand for them in the digest.
        for name in sorted(set(columns) - {"file"}):
            digest.update(name.encode())
            for buffer in columns[name].buffers()[1:]:
                digest.update(b"" if buffer is None else buffer)
        return pa.table(columns), digest.hexdigest()

    def _take(self, attribute: str, dtype: type[np.generic]) -> NDArray:
        """Return a gathered column as an array and forget it here."""
        return np.frombuffer(vars(self).pop(attribute), dtype)


def _microseconds(time: datetime | None) -> int:
    # Most files state no zone. Where one does, it is dropped: mixed clocks would order a patient's recordings wrongly.
    return _UNKNOWN_TIME if time is None else (time.replace(tzinfo=None) - datetime.min) // _MICROSECOND
