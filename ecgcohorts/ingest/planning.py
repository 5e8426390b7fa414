"""Make a plan: list the recordings of a source, their patients and their rows, before decoding any signal."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.cohorts.account import CellAccount, TableAccount
from ecgcohorts.cohorts.files import Found
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.cohorts.tables import Tables
from ecgcohorts.ingest._gathered import BLOCK, SECONDS_PER_DAY, UNKNOWN_TIME, _begins, _Gathered, _mark, _taken
from ecgcohorts.ingest._ids import as_keys
from ecgcohorts.ingest._scanning import _scanned
from ecgcohorts.ingest._seen import _Hashes, _Seen
from ecgcohorts.ingest._update import _compared, _copied, _Renewal, _unnoted
from ecgcohorts.ingest.plan import Plan, PlanHeader, PlannedCohort, Refusal, Request
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES, PseudonymKey
from ecgcohorts.store.reader import Store
from ecgcohorts.store.upkeep.lookup import REMOVED


def _no_ids() -> NDArray[np.uint8]:
    return np.zeros((0, PSEUDONYM_BYTES), np.uint8)


@dataclass(frozen=True, eq=False)
class Known:
    """Pseudonyms, (id, 16) uint8, that the store has met in earlier runs, refused recordings included."""

    recordings: NDArray[np.uint8] = field(default_factory=_no_ids)
    patients: NDArray[np.uint8] = field(default_factory=_no_ids)
    removed: NDArray[np.uint8] = field(default_factory=_no_ids)  # patients whose new recordings are refused too
    store: Store | None = None
    seen: _Seen = field(default_factory=_Seen)

    @classmethod
    def of(cls, store: Store | None, memory: Path | None = None) -> Self:
        """Return the recordings that a store has met, stored or refused, its patients, and those removed from it.

        memory: file that tells of which files they are.
        """
        if store is None:
            return cls()
        refused = np.frombuffer(bytes.fromhex("".join(store.rejects()["recording_id"])), np.uint8)
        recordings = np.concatenate([store.index["recording_id"], refused.reshape(-1, PSEUDONYM_BYTES)])
        removed = np.frombuffer(bytes.fromhex("".join(store.manifest.removed)), np.uint8).reshape(-1, PSEUDONYM_BYTES)
        seen = _Seen() if memory is None else _Seen.load(memory)
        return cls(recordings, store.index.patient_ids, removed, store, seen)


class _Look(NamedTuple):
    """Which files of a source to look at."""

    limit: int | None = None  # inputs, for a trial
    only: tuple[str, ...] | None = None  # these paths
    unmet: bool = False  # those that no earlier run met as they are now
    workers: int = 1  # processes to read headers in

    @property
    def is_partial(self) -> bool:
        return self._replace(workers=1) != _Look()


_ALL = _Look()


def make_plan(request: Request, files: Found, key: PseudonymKey, known: Known, look: _Look = _ALL) -> Plan:
    """Scan the headers and tables of a source and lay out the rows of every cohort in it.

    look: which files to look at. Raises SourceError if there is nothing to read, SpecError for an input that
    nothing names. Days since a patient's first recording are unknown for patients whom the store already knows, because
    that first recording is not read again.
    """
    memory_key = key.derived("seen")
    memory = known.seen, _Hashes(memory_key, request.spec.sha256, request.rules(files.layout))
    skip = _MetFiles(memory, known) if look.unmet else None
    found, unusable, (accounts, cells) = _scan(request.spec, files, key, known, (look, skip))
    noted = _unnoted(found, unusable, known.recordings, memory)
    changes, renewal, out = None, None, np.zeros(0, bool)
    if known.store is not None:
        changes, same = _compared(found, unusable, known.store, memory)
    if request.update and known.store is not None:
        renewal = _Renewal(found, unusable, known.store, request.spec, _copied(found, same, memory))
        unusable, out = renewal.refuse(unusable)
        known = Known()  # all that the store has of these cohorts is laid out again
    refused, n_known = _not_known(unusable, known)
    rows, twice, met = _new_rows(found, out, known, key)
    refused += twice
    order, days = _order(found, rows, key, known)
    if renewal is not None:
        refused += renewal.refused_before(twice)
        days = renewal.days(order, days)
    counts = dict(zip(found.cohorts.values, np.bincount(found.cohort[order]).tolist(), strict=False))
    del rows
    patients = found.check(order)
    table, digest = found.lay_out(order, days, renewal.stored if renewal else None)
    n_refused = Counter(one.cohort for one in refused)
    # The digest names the staging folder. Where the data stand and what happens on errors change no staged byte, so a
    # run resumes even if those change.
    asked = request.model_dump_json(
        exclude={"source": True, "store": True, "beside": True, "on_error": True, "spec": {"max_contradictions"}}
    )
    header = PlanHeader(
        **dict(request),
        layout=files.layout,
        cohorts=tuple(
            PlannedCohort(name=name, rows=counts.get(name, 0), refused=n_refused[name])
            for name in sorted({name for name in counts if counts[name]} | set(n_refused))
        ),
        known=n_known + met + (skip.recordings if skip else 0),
        changes=changes,
        memory_key=memory_key.hex(),
        removed=renewal.removed if renewal else (),
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
    return Plan(header, found.files.column(), table, tuple(refused), noted)


class _MetFiles:
    """Tells of a file whether all its recordings were met, as it is now; counts the recordings of those that were."""

    def __init__(self, memory: tuple[_Seen, _Hashes], known: Known) -> None:
        seen, self._hashes = memory
        self._files, self._counts = seen.known_files(known.recordings)
        self.recordings = 0

    def __call__(self, path: str, state: str) -> bool:
        wanted = np.uint64(self._hashes.file(_mark(path, state)))
        at = int(np.searchsorted(self._files, wanted))
        is_met = at < len(self._files) and self._files[at] == wanted
        self.recordings += int(self._counts[at]) if is_met else 0
        return bool(is_met)


def _scan(
    spec: CohortSpec, files: Found, key: PseudonymKey, known: Known, looks: "tuple[_Look, _MetFiles | None]"
) -> tuple[_Gathered, list[Refusal], tuple[tuple[TableAccount, ...], tuple[CellAccount, ...]]]:
    """Describe every recording of a source; apart from these, those refused, and what tables said."""
    tables = Tables.load(files)
    found = _Gathered(files.layout)
    unusable: list[Refusal] = []
    removed = {one.tobytes() for one in known.removed}
    goes_by_row = any(table.match == "row" for table in files.layout.tables)
    entries: Counter[str] = Counter()  # recordings by file, for tables that go by row
    look, skip = looks
    for item in islice(_scanned(files, look.only, skip, look.workers), look.limit):
        if goes_by_row:
            entries[item.path] += item.error is None
        about = spec.describe(tables, item)
        recording = key.pseudonym(about.cohort, "recording", about.recording_id)
        patient = about.patient_pseudonym(key)
        # A patient who was removed from the store stays out of it.
        state = _mark(item.path, item.state)
        if patient in removed:
            unusable.append(Refusal(about.cohort, recording, "plan", REMOVED, "", state=state))
        elif item.error is not None:
            reason, error = str(item.error.reason), type(item.error).__name__
            unusable.append(Refusal(about.cohort, recording, "plan", reason, error, state=state))
        else:
            found.append(item, about, recording, patient)
    if look.limit is None:
        tables.check_rows(entries)
    # Tables are as large as the plan, and not needed again: only what they account for stays.
    return found, unusable, (tables.accounts(), tables.not_understood())


def _not_known(refused: list[Refusal], known: Known) -> tuple[list[Refusal], int]:
    """Return the refusals that the store has not met, and the number of those it has."""
    # A refusal is remembered as well as a recording, so that ingesting the same source again finds nothing to do.
    ids = np.frombuffer(b"".join(one.recording_id for one in refused), np.uint8)
    met = np.isin(as_keys(ids), as_keys(known.recordings))
    return [one for one, old in zip(refused, met, strict=True) if not old], int(met.sum())


def _new_rows(
    found: _Gathered, out: NDArray[np.bool_], known: Known, key: PseudonymKey
) -> tuple[NDArray[np.int32], list[Refusal], int]:
    """Return the rows to lay out, a refusal for each repetition of an id, and the number of known recordings.

    out: rows that are refused already; empty if none is.
    """
    keys = as_keys(found.recording_ids)
    new = np.flatnonzero(~np.isin(keys, as_keys(known.recordings)))
    # Of equal ids the first is kept, in the order of the scan, which is the same for every kind of source.
    order, is_new = _grouped(keys if len(new) == len(keys) else keys[new])
    first = np.zeros(len(new), bool)
    first[order[is_new]] = True
    del order, is_new
    twice = []
    marks = found.mark if not first.all() else first
    for row in new[~first].tolist():
        cohort = found.cohorts.values[found.cohort[row]]
        again = Refusal.of_repetition(cohort, found.name(row), *found.source(row), key)
        twice.append(replace(again, state=int(marks[row])))
    refused, n_known = _not_known(twice, known)
    n_known += len(keys) - len(new)
    return _narrow(new[first & ~out[new]] if len(out) else new[first]), refused, n_known


def _narrow(rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return numbers of rows in half the memory; the columns that number them hold 32 bits as well."""
    return rows.astype(np.int32)


def _order(
    found: _Gathered, rows: NDArray[np.int32], key: PseudonymKey, known: Known
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the rows in store order, and the days since each patient's first recording.

    Cohorts are ordered by name, patients by a keyed digest, so that no reader sees site or date drift, and the recordings
    of a patient by time, then by name.
    """
    orders, days = [], []
    names = found.cohorts.values
    for cohort in sorted(names):
        mine = rows if len(names) == 1 else rows[found.cohort[rows] == names.index(cohort)]
        # Most sources have one cohort: then no copy of all ids, 16 bytes each, is needed.
        is_all = len(mine) == len(found)
        patients, patient = _numbered(found.patient_ids if is_all else found.patient_ids[mine], cohort, key)
        time = _taken(found.time, mine)
        order = _narrow(np.lexsort((time, patient)))
        # One by one, so that each array frees the one it replaces.
        mine = _taken(mine, order)
        time = _taken(time, order)
        patient = _taken(patient, order)
        del order
        _sort_ties_by_name(found, mine, time, patient)
        orders.append(mine)
        old = np.isin(as_keys(patients), as_keys(known.patients))
        days.append(_days(time, patient, old))
    return _joined(orders, np.int32), _joined(days, np.float32)


def _joined(parts: list[NDArray], dtype: type[np.generic]) -> NDArray:
    # Most sources have one cohort, and nothing to copy.
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, dtype), *parts])


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


def _sort_ties_by_name(
    found: _Gathered, rows: NDArray[np.int32], time: NDArray[np.int64], patient: NDArray[np.int32]
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
    for start in range(0, len(time), BLOCK):
        rows = slice(start, start + BLOCK)
        unknown = (time[rows] == UNKNOWN_TIME) | old[patient[rows]]
        since_us = np.where(unknown, 0, time[rows] - began[patient[rows]])
        days[rows] = np.where(unknown, np.nan, since_us / 1_000_000 / SECONDS_PER_DAY)
    return days
