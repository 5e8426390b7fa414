"""Compare what a source says with what a store took from it, and take it over.

With `--update` a cohort is laid out anew, in the order in which a first ingest would put it, into a segment that replaces its
earlier ones. Signals of unchanged files are copied as they are encoded.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import LABEL, UNKNOWN, CohortIndex
from ecgcohorts.ingest._changes import _Changes
from ecgcohorts.ingest._gathered import SECONDS_PER_DAY, UNKNOWN_TIME, _Gathered
from ecgcohorts.ingest._ids import _places_of, as_keys, ids_of
from ecgcohorts.ingest._seen import _Hashes, _Seen
from ecgcohorts.ingest.plan import DUPLICATE, DUPLICATE_ID, AnyPlan, PlanHeader, Refusal
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES
from ecgcohorts.store.reader import Store
from ecgcohorts.store.upkeep.lookup import REMOVED

# Stored as float32, days of ten years have steps of 20 s. A correction below two minutes changes no order we rely on.
_DAYS_ALIKE = 0.0015
_DAY_US = SECONDS_PER_DAY * 1_000_000
_COMPARED = ("patient_id", "age", "sex", "days")


def _refuse_another_description(before: Store | None, header: PlanHeader) -> None:
    # Two hospitals under one name: patient 17 of each would get one pseudonym and become one person.
    mine = header.spec.sha256
    # Also where nothing is new: a corrected description would otherwise be answered with "nothing new", and change nothing.
    names = {*header.spec.cohort_names, *(cohort.name for cohort in header.cohorts)}
    for segment in before.segments if before else ():
        if segment.cohort in names and segment.spec_sha256 != mine:
            raise SpecError(
                f"cohort {segment.cohort!r}: the store's cohort of this name has another description: {header.changes}. If "
                "you corrected it, take all of this over: --update. If this is another cohort, give it a name of its own."
            )


def _ids(hexadecimal: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8).reshape(-1, PSEUDONYM_BYTES)


def _compared(
    found: _Gathered, unusable: Sequence[Refusal], store: Store, memory: tuple[_Seen, _Hashes]
) -> tuple[_Changes, NDArray[np.int64]]:
    """Compare recordings with what a store has of them: their facts, and the state of their files as far as remembered.

    Return counts, and of each recording the entry in the store's index if its file is the same, else -1.
    """
    index = store.index
    entry = _places_of(found.recording_ids, index["recording_id"])
    # Of recordings with one id, the store has the first.
    _, first = np.unique(as_keys(found.recording_ids), return_index=True)
    rows = first[entry[first] >= 0]
    at = entry[rows]
    differs = {
        name: column[rows] != index[name][at] for name, column in (("patient_known", found.known), ("sex", found.sex))
    }
    differs["patient"] = (found.patient_ids[rows] != index["patient_id"][at]).any(axis=1) | differs.pop("patient_known")
    differs["age"] = _unlike(found.age[rows], index["age"][at])
    for name, codes, own, names in (
        ("site", found.site, found.sites.values, index.sites),
        ("device", found.device, found.devices.values, index.devices),
    ):
        known = {text: code for code, text in enumerate(names)}
        code = np.array([*(known.get(text, UNKNOWN - 1) for text in own), UNKNOWN], np.int32)
        differs[name] = code[codes[rows]] != index[name][at]
    for number, name in enumerate(found.labels):
        before = index.columns.get(LABEL + name)
        old = np.full(len(at), np.nan, np.float32) if before is None else before[at]
        differs[name] = _unlike(found.label[rows, number], old)
    differs["date"] = _other_times(found.time[rows], at, index)
    anywhere = np.zeros(len(rows), bool)
    for column in differs.values():
        anywhere |= column
    seen, hashes = memory
    marks = found.mark
    place = seen.places(found.recording_ids[rows])
    now = [
        hashes.content(mark, one.tobytes())
        for mark, one in zip(marks[rows].tolist(), index["waveform_digest"][at], strict=True)
    ]
    then = seen.contents(place)
    is_same = np.array(now, np.uint64) == then
    same = np.full(len(found), -1)
    same[rows[is_same]] = at[is_same]
    refused, mended = _refused(found, unusable, store, memory)
    changes = _Changes(
        recordings=int(anywhere.sum()),
        facts={name: int(column.sum()) for name, column in sorted(differs.items()) if column.any()},
        files=int(((then != 0) & ~is_same).sum()),
        mended=mended,
        refused=refused,
    )
    return changes, same


def _refused(
    found: _Gathered, unusable: Sequence[Refusal], store: Store, memory: tuple[_Seen, _Hashes]
) -> tuple[int, int]:
    """Count what a store refused for itself and the source still shows, and of these the files that are others now."""
    rejects = store.rejects()
    could = _ids(rejects["recording_id"][~rejects["reason"].isin([REMOVED, DUPLICATE, DUPLICATE_ID])].tolist())
    others = np.frombuffer(b"".join(one.recording_id for one in unusable), np.uint8).reshape(-1, PSEUDONYM_BYTES)
    ids = np.concatenate([found.recording_ids, others])
    marks = [*found.mark.tolist(), *(one.state for one in unusable)]
    rows = np.flatnonzero(np.isin(as_keys(ids), as_keys(could)))
    seen, hashes = memory
    then = seen.contents(seen.places(ids[rows]))
    mended = sum(hashes.content(marks[rows[at]]) != int(then[at]) for at in np.flatnonzero(then).tolist())
    return len(rows), mended


def _unnoted(
    found: _Gathered, unusable: Sequence[Refusal], met: NDArray[np.uint8], memory: tuple[_Seen, _Hashes]
) -> _Seen:
    """Return files of recordings that a store has met, and that nothing is remembered of. met: ids of recordings."""
    seen, hashes = memory
    if not len(met):  # a new store: no copy of what was found
        return _Seen()
    others = np.frombuffer(b"".join(one.recording_id for one in unusable), np.uint8).reshape(-1, PSEUDONYM_BYTES)
    ids = np.concatenate([found.recording_ids, others])
    marks = np.concatenate([found.mark, np.array([one.state for one in unusable], np.uint64)])
    rows = np.flatnonzero((seen.places(ids) < 0) & np.isin(as_keys(ids), as_keys(met)) & (marks != 0))
    # What is in the file now need not be what was read once: only that it was met is known.
    unknown = np.zeros(len(rows), np.uint64)
    return _Seen(ids[rows], np.array([hashes.file(mark) for mark in marks[rows].tolist()], np.uint64), unknown, unknown)


def _copied(found: _Gathered, same: NDArray[np.int64], memory: tuple[_Seen, _Hashes]) -> NDArray[np.int64]:
    """Return the entries whose signals a run would decode to the same bytes; -1 for the others."""
    seen, hashes = memory
    rules = np.array([hashes.rules(name) for name in found.cohorts.values], np.uint64)
    rows = np.flatnonzero(same >= 0)
    place = seen.places(found.recording_ids[rows])
    other = rows[seen.rules[place] != rules[found.cohort[rows]]]
    copied = same.copy()
    copied[other] = -1
    return copied


def _unlike(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.bool_]:
    return (one != other) & ~(np.isnan(one) & np.isnan(other))


def _other_times(time: NDArray[np.int64], at: NDArray[np.int64], index: CohortIndex) -> NDArray[np.bool_]:
    """Mark recordings, given their times and entries, whose time since others of their patient is not what a store says."""
    days, number = index["days"][at], index["patient"][at]
    dated, timed = np.isfinite(days), time != UNKNOWN_TIME
    both = dated & timed
    since = np.zeros(len(time))
    for values, mine in ((np.where(timed, time, 0) / _DAY_US, 1), (np.where(dated, days, 0).astype(np.float64), -1)):
        # Counted from the first that both know: a store's days begin with a recording that may be refused or elsewhere.
        first = np.full(index.n_patients, np.inf)
        np.minimum.at(first, number[both], values[both])
        since[both] += mine * (values[both] - first[number[both]])
    # A first run gives days to all that have a time; later ones to none of a patient who was known.
    any_dated = np.zeros(index.n_patients, bool)
    any_dated[index["patient"][np.isfinite(index["days"])]] = True
    return (np.abs(since) > _DAYS_ALIKE) | (dated & ~timed) | (timed & ~any_dated[number])


class _Renewal:
    """The cohorts of a store that a source speaks of, all of whose recordings are laid out anew.

    What was removed stays out: recordings of removed patients by id, whatever patient they have now, and all others of
    that patient; likewise copies of them, which were refused as duplicates. Recordings that the source does not show are
    added to those found, with the facts that the store has.
    """

    def __init__(
        self, found: _Gathered, unusable: Sequence[Refusal], store: Store, spec: CohortSpec, same: NDArray[np.int64]
    ) -> None:
        """same: of each recording found, the entry of the store that has its signal, or -1."""
        self._found, self._store = found, store
        index = store.index
        names = {*found.cohorts.values, *(one.cohort for one in unusable)}
        self._missing = {one.cohort for one in store.segments if one.cohort in spec.cohort_names} - names
        self._another = any(
            one.spec_sha256 != spec.sha256 for one in store.segments if one.cohort in {*names, *spec.cohort_names}
        )
        rejects = store.rejects()
        self._rejects = rejects[rejects["cohort"].isin(names)]
        # Of all cohorts: what is removed from one may have a copy in another.
        self._copies = _copies_of_removed(rejects)
        gone = self._rejects["recording_id"][self._rejects["reason"] == REMOVED].tolist()
        others = np.frombuffer(b"".join(one.recording_id for one in unusable), np.uint8)
        self._shown = as_keys(np.concatenate([found.recording_ids.ravel(), others]))
        met = np.concatenate([index["recording_id"], _ids(self._rejects["recording_id"].tolist())])
        self._new = int((~np.isin(as_keys(found.recording_ids), as_keys(met))).sum())
        mine = np.isin(index["cohort"], [code for code, name in enumerate(index.cohorts) if name in names])
        self._unseen = np.flatnonzero(mine & ~np.isin(as_keys(index["recording_id"]), self._shown))
        self._check(gone)
        self.stored = same
        self._whole_days = np.full(len(found), np.float32(-1))
        if not self._another:
            self._add_unseen()
        self._gone = {bytes.fromhex(one) for one in gone}
        self._is_gone = np.isin(as_keys(found.recording_ids), as_keys(_ids(gone)))
        self._patients = np.concatenate([_ids(store.manifest.removed), found.patient_ids[self._is_gone]])

    def _check(self, gone: Sequence[str]) -> None:
        """Raise SpecError if another description cannot be taken over. gone: recordings of removed patients."""
        lost, where = len(self._unseen), self._store.path
        if self._another and (self._missing or lost > self._new):
            what = f"cohort {min(self._missing)!r}" if self._missing else f"{lost:,} recordings of the store"
            raise SpecError(
                f"{where}: {what} cannot be found in this source by this description, so that facts of the one before would "
                "stay. Name the source of the whole cohort, or ingest into a new store."
            )
        # Removed recordings are known by their ids alone: under other ids they would come back unnoticed.
        out = [*gone, *(name for name in self._rejects["recording_id"] if name in self._copies)]
        if self._another and self._new and not np.isin(as_keys(_ids(out)), self._shown).all():
            raise SpecError(
                f"{where}: recordings of removed patients cannot be told from {self._new:,} that the store never met. First "
                "ingest those with the description of the store, then correct it; or ingest into a new store."
            )

    def _add_unseen(self) -> None:
        found, index = self._found, self._store.index
        entries = self._unseen
        entry = _places_of(found.recording_ids, index["recording_id"])
        # A patient's recordings of one run have days from one first day; one of them that is seen tells its date.
        dated = np.flatnonzero((entry >= 0) & (found.time != UNKNOWN_TIME) & np.isfinite(index["days"][entry]))
        first_us = {
            found.patient_ids[row].tobytes(): int(found.time[row]) - round(float(index["days"][entry[row]]) * _DAY_US)
            for row in dated.tolist()
        }
        alone = ~np.isin(as_keys(index["patient_id"][entries]), as_keys(found.patient_ids))
        labels = [index.columns.get(LABEL + name) for name in found.labels]
        for place, one in enumerate(entries.tolist()):
            began = 0 if alone[place] else first_us.get(index["patient_id"][one].tobytes())
            days = float(index["days"][one])
            time = UNKNOWN_TIME if began is None or not np.isfinite(days) else began + round(days * _DAY_US)
            found.append_stored(index, one, time, [np.nan if column is None else column[one] for column in labels])
        self.stored = np.concatenate([self.stored, entries])
        kept = np.where(alone, index["days"][entries], np.float32(-1))
        self._whole_days = np.concatenate([self._whole_days, kept])

    @property
    def removed(self) -> tuple[str, ...]:
        """All patients who stay out, in hexadecimal."""
        return tuple(sorted({one.tobytes().hex() for one in self._patients}))

    def days(self, order: NDArray[np.integer], days: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return days since each patient's first recording, as stored for patients of whom the source shows none."""
        stored = self._whole_days[order]
        return np.where(stored == -1, days, stored)

    def refuse(self, unusable: Sequence[Refusal]) -> tuple[list[Refusal], NDArray[np.bool_]]:
        """Return what is refused before it is read, and which of the recordings found are."""
        found = self._found
        removed = self._is_gone | np.isin(as_keys(found.patient_ids), as_keys(self._patients))
        copies = np.isin(as_keys(found.recording_ids), as_keys(_ids([*self._copies]))) & ~removed
        refused = [
            replace(one, stage="plan", reason=REMOVED, error="") if one.recording_id in self._gone else one
            for one in unusable
        ]
        # Further recordings of one id are refused for that.
        first = np.unique(as_keys(found.recording_ids), return_index=True)[1]
        for row in np.intersect1d(first, np.flatnonzero(removed | copies)).tolist():
            cohort, name = found.cohorts.values[found.cohort[row]], found.recording_ids[row].tobytes()
            if removed[row]:
                refused.append(Refusal(cohort, name, "plan", REMOVED, ""))
            else:
                like = bytes.fromhex(self._copies[name.hex()])
                refused.append(Refusal(cohort, name, "commit", DUPLICATE, "", like))
        return refused, removed | copies

    def refused_before(self, twice: Sequence[Refusal]) -> list[Refusal]:
        """Return what the store refused and the source does not show. twice: refused now because an id came again."""
        now = {one.recording_id.hex() for one in twice}
        shown = np.isin(as_keys(_ids(self._rejects["recording_id"].tolist())), self._shown)
        # By another description, what was refused for itself has other ids or is gone; what was removed stays so, copies too.
        return [
            Refusal(cohort, bytes.fromhex(name), stage, reason, error, bytes.fromhex(like))
            for cohort, name, stage, reason, error, like in self._rejects[~shown].itertuples(index=False)
            if name not in now and (not self._another or reason == REMOVED or name in self._copies)
        ]


def _copies_of_removed(rejects: pd.DataFrame) -> dict[str, str]:
    """Return what was refused as a copy of a removed recording, or of a copy of one, and of what each is the copy."""
    gone = set(rejects["recording_id"][rejects["reason"] == REMOVED])
    like = {one: other for one, other in zip(rejects["recording_id"], rejects["duplicate_of"], strict=True) if other}
    found = {}
    for one in like:
        met, at = {one}, like[one]
        while at not in gone and at in like and at not in met:
            met.add(at)
            at = like[at]
        if at in gone:
            found[one] = like[one]
    return found


def _is_committed(plan: AnyPlan, store: Store) -> bool:
    """Tell whether a store has every input of a plan, stored or refused, and of an update also its facts."""
    index, header = store.index, plan.header
    refused = _ids(store.rejects()["recording_id"].tolist())
    met = as_keys(np.concatenate([index["recording_id"], refused]))
    new = {(one.cohort, one.spec_sha256) for one in store.segments if one.name == f"{header.generation:06d}"}
    if header.update and not {(one.name, header.spec.sha256) for one in header.cohorts} <= new:
        return False
    for partition in header.partitions:
        rows = plan.rows(partition, ["recording_id", *_COMPARED])
        ids = ids_of(rows["recording_id"])
        if not np.isin(as_keys(ids), met).all():
            return False
        entry = _places_of(ids, index["recording_id"])
        here = entry >= 0
        for name in _COMPARED if header.update else ():
            planned = ids_of(rows[name]) if name == "patient_id" else rows[name].to_numpy()
            same = np.array_equal(planned[here], index[name][entry[here]], equal_nan=planned.dtype.kind == "f")
            if not same:
                return False
    names = b"".join(one.recording_id for cohort in header.cohorts for one in plan.refused(cohort.name))
    return bool(np.isin(as_keys(np.frombuffer(names, np.uint8)), met).all())
