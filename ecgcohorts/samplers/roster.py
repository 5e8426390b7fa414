"""The roster: who can be drawn, and to which group and class each belongs.

One unit is a (cohort, patient) with its records side by side, or a single record. No signals, and no dates needed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers._groups import COHORT, LABEL, By, _group_records, _groups
from ecgcohorts.samplers._values import Classes, _classes_of, _coded, _days, _excluded, _known, _part, _shaped
from ecgcohorts.samplers.options import Unknown

if TYPE_CHECKING:  # the index loads pandas, which a project that brings its own arrays of integers can do without
    from ecgcohorts.index.cohort_index import CohortIndex

MARK = "a2."  # begins the fingerprint of arrays: second version


@dataclass(frozen=True, eq=False)
class Roster:
    """Units in CSR form. rows: int64 [record], by unit. ptr: int64 [unit + 1]. cohort: int32 [unit], place in `cohorts`.

    patient: int64 [unit], the number that a plan reports; None if that is the unit itself. days: [record], or None.
    by_record: every record is a unit of its own. entries: records of the table or index, excluded ones too.
    """

    rows: NDArray[np.int64] = field(repr=False)
    ptr: NDArray[np.int64] = field(repr=False)
    cohort: NDArray[np.integer] = field(repr=False)
    cohorts: tuple[str, ...]
    patient: NDArray[np.int64] | None = field(default=None, repr=False)
    days: NDArray[np.floating] | None = field(default=None, repr=False)
    index: "CohortIndex | None" = field(default=None, repr=False)  # its fingerprint is this roster's
    by_record: bool = False
    entries: int = 0
    excluded: str = ""  # digest of the rows that are left out
    person: NDArray[np.integer] | None = field(default=None, repr=False)  # [unit]; None if all are different people

    @classmethod
    def from_index(
        cls,
        index: "CohortIndex",
        identities: ArrayLike | None,
        join_cohorts: bool,
        by: By = COHORT,
        unknown: Unknown = "raise",
        *,
        exclude: ArrayLike | None = None,
    ) -> "Roster":
        """Make the units of a store. identities: one person id per patient of the index; see `from_arrays`.

        by: what a group is, see `_group_records`. A patient with records in two groups is a unit of each.
        """
        out = None if exclude is None else _excluded(exclude, index["row"])
        if identities is None and by == COHORT:
            # A store keeps patients contiguous: its own pointers serve, and nothing is sorted or copied.
            ptr, cohort = index.patient_ptr, index.patient_cohort
            whole = cls(index["row"], ptr, cohort, index.cohorts, days=index["days"], index=index, entries=len(index))
            return whole._without(out, index)
        person = index["patient"]
        if identities is not None:
            persons = _coded(identities, "identities")[0]
            if len(persons) != index.n_patients:
                raise SpecError(f"found {len(persons)} identities, expected one per patient: {index.n_patients}.")
            person = persons[person]
        group, names = _group_records(index, by, unknown, out)
        # A patient seen in two groups must not be a pair across them: records of one batch would come from two distributions.
        key = person if join_cohorts else group.astype(np.int64) * index.n_patients + person
        whole = _by_key(key, index["row"], index["patient"], group, names, index["days"])
        if not join_cohorts:
            whole = replace(whole, person=whole.patient if identities is None else persons[whole.patient])
        return whole._without(out, index)

    @classmethod
    def of_records(
        cls, index: "CohortIndex", by: By, unknown: Unknown = "raise", exclude: ArrayLike | None = None
    ) -> "Roster":
        """Make every record of a store a unit of its own."""
        out = None if exclude is None else _excluded(exclude, index["row"])
        group, names = _group_records(index, by, unknown, out)
        ptr = np.arange(len(index) + 1, dtype=np.int64)
        of_group = group.astype(np.int32)
        whole = cls(index["row"], ptr, of_group, names, index["patient"], by_record=True, entries=len(index))
        return whole._without(out, index)

    @classmethod
    def from_arrays(
        cls,
        patients: ArrayLike,
        cohorts: ArrayLike | tuple[ArrayLike, ...] | None,
        days: ArrayLike | None = None,
        identities: ArrayLike | None = None,
        join_cohorts: bool = False,
        unknown: Unknown = "raise",
        *,
        exclude: ArrayLike | None = None,
    ) -> "Roster":
        """Make the units of any table, with one entry per record in every array, in any order; rows are its positions.

        A unit is a (cohort, patient): the same id in two cohorts is two people. `identities`, one person id per record,
        says otherwise: records of one person in one cohort (with `join_cohorts` in any) are one unit. cohorts: several
        columns, in a tuple, make a group together.
        """
        if exclude is not None:
            kept = ~_excluded(exclude, np.arange(len(_shaped(patients, "patients"))))
            where = _parts(cohorts, kept)
            when, persons = _part(days, kept, "days"), _part(identities, kept, "identities")
            part = cls.from_arrays(_part(patients, kept, "patients"), where, when, persons, join_cohorts, unknown)
            return _placed(part, kept)
        patient, ids = _coded(patients, "patients")
        group, names = _groups(cohorts, len(patient), unknown)
        person, people = (patient, ids) if identities is None else _coded(identities, "identities")
        when = None if days is None else _days(days)
        lengths = {"patients": len(patient), "cohorts": len(group), "identities": len(person)}
        if when is not None:
            lengths["days"] = len(when)
        if len(set(lengths.values())) > 1:
            raise SpecError(f"found arrays of unequal length {lengths}, expected one entry per record in each.")
        number: NDArray[np.int64] = ids.astype(np.int64) if ids.dtype.kind in "iub" else np.arange(len(ids))
        roster = None
        if identities is None:
            roster = _of_dense(patient, number, group, names, when)
        if roster is None:
            joined = join_cohorts and identities is not None
            key = person if joined else group.astype(np.int64) * len(people) + person
            roster = _by_key(key, np.arange(len(patient)), number[patient], group, names, when)
            if identities is not None and not join_cohorts:
                roster = replace(roster, person=person[roster.rows[roster.ptr[:-1]]])
        # While the table is being read anyway, and not when a run that resumes waits for its first batch.
        _ = roster.fingerprint
        return roster

    @classmethod
    def of_table(
        cls,
        patients: ArrayLike,
        cohorts: ArrayLike | tuple[ArrayLike, ...] | None,
        unknown: Unknown = "raise",
        exclude: ArrayLike | None = None,
    ) -> "Roster":
        """Make every record of any table a unit of its own."""
        if exclude is not None:
            kept = ~_excluded(exclude, np.arange(len(_shaped(patients, "patients"))))
            part = cls.of_table(_part(patients, kept, "patients"), _parts(cohorts, kept), unknown)
            return _placed(part, kept)
        patient, ids = _coded(patients, "patients")
        group, names = _groups(cohorts, len(patient), unknown)
        if len(group) != len(patient):
            raise SpecError(f"found {len(patient)} patients and {len(group)} cohorts, expected one entry per record.")
        number = ids[patient].astype(np.int64) if ids.dtype.kind in "iub" else patient.astype(np.int64)
        rows = np.arange(len(patient), dtype=np.int64)
        ptr = np.arange(len(patient) + 1, dtype=np.int64)
        return cls(rows, ptr, group.astype(np.int32), names, number, by_record=True, entries=len(rows))

    def before(self, appended: Sequence[str]) -> "Roster":
        """Return the roster as it was without some cohorts. Raises SpecError for names that are none."""
        unknown = sorted(set(appended) - set(self.cohorts))
        if unknown:
            raise SpecError(f"found no cohort {', '.join(unknown)}, expected one of {', '.join(self.cohorts)}.")
        if not appended:
            return self
        left = [code for code, name in enumerate(self.cohorts) if name not in appended]
        code_of = np.full(len(self.cohorts), -1, np.int32)
        code_of[left] = np.arange(len(left))
        names = tuple(self.cohorts[code] for code in left)
        index = self.index
        if index is not None:
            index = index.take(code_of[index["cohort"]] >= 0)
            columns = dict(index.columns) | {"cohort": code_of[index["cohort"]]}
            index = replace(index, columns=columns, cohorts=names)
        units = code_of[self.cohort] >= 0
        records = np.repeat(units, self.counts)
        return replace(
            self,
            rows=self.rows[records],
            ptr=np.concatenate([[0], np.cumsum(self.counts[units])]),
            cohort=code_of[self.cohort[units]],
            cohorts=names,
            patient=None if self.patient is None else self.patient[units],
            days=None if self.days is None else self.days[records],
            index=index,
        )

    def _without(self, out: NDArray[np.bool_] | None, index: "CohortIndex") -> "Roster":
        """Return the roster without the entries of an index that are marked. Patients keep their numbers and pairs."""
        if out is None or not out.any():
            return self
        rows = index["row"][out]
        return replace(self._of_records(~np.isin(self.rows, rows)), excluded=_digest(rows))

    def _of_records(self, kept: NDArray[np.bool_]) -> "Roster":
        """Return the roster of some of its records. Patients keep their numbers."""
        if kept.all():
            return self
        counts = np.add.reduceat(kept, self.ptr[:-1], dtype=np.int64)
        units = np.flatnonzero(counts)
        return replace(
            self,
            rows=self.rows[kept],
            ptr=np.concatenate([[0], np.cumsum(counts[units])]),
            cohort=self.cohort[units],
            patient=self.patient_of(units),
            person=None if self.person is None else self.person[units],
            days=None if self.days is None else self.days[kept],
        )

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @property
    def unit_dtype(self) -> type[np.integer]:
        """The type of unit numbers: four bytes where that is enough."""
        return np.int32 if len(self) < 2**31 else np.int64

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of records of each unit."""
        return np.diff(self.ptr)

    def patient_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        return units if self.patient is None else self.patient[units]

    def classes(self, balance: ArrayLike | str, index: "CohortIndex | None") -> Classes:
        """Return the class of each unit, and the names of the classes.

        balance: a column of the index, or an array with one value for each record, in its order. Raises SpecError where the
        records of one unit have different classes: nobody here can say which of them the patient has.
        """
        if isinstance(balance, str):
            if index is None:
                raise SpecError(
                    f"found balance={balance!r} without an index, expected an array with a value per record."
                )
            rows = index["row"]
            codes, names = _group_records(index, balance, "raise", ~np.isin(rows, self.rows) if self.excluded else None)
        else:
            rows = np.arange(self.entries) if index is None else index["row"]
            codes, names = _classes_of(balance, np.isin(rows, self.rows) if self.excluded else np.ones(len(rows), bool))
        return self._of_units(codes, rows, "balance", "class"), names

    def weights(self, weights: ArrayLike | str, index: "CohortIndex | None") -> NDArray[np.float64]:
        """Return the weight of each unit. weights: a column of the index, or an array with one value for each record."""
        rows = np.arange(self.entries) if index is None else index["row"]
        if isinstance(weights, str):
            if index is None:
                raise SpecError(f"found patient_weights={weights!r} without an index, expected a value per record.")
            weights = index[weights if weights in index.columns else f"{LABEL}{weights}"]
        kept = np.isin(rows, self.rows) if self.excluded else np.ones(len(rows), bool)
        array = _known(weights, kept, "patient_weights", "a number")
        if array.dtype.kind not in "iuf":
            raise SpecError(f"found patient_weights of {array.dtype}, expected a number per record.")
        values = np.zeros(len(rows))
        values[kept] = array
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise SpecError("found patient_weights below 0 or without a value, expected 0 or more for every record.")
        of_unit = self._of_units(values, rows, "patient_weights", "weight")
        with np.errstate(over="ignore"):
            total = of_unit.sum()
        if total == np.inf:
            raise SpecError("found patient_weights with an infinite sum, expected smaller numbers. Divide them.")
        return of_unit

    def _of_units(self, values: NDArray, rows: NDArray[np.int64], name: str, what: str) -> NDArray:
        """Return each unit's value, of one for each row. Raises SpecError where the records of a unit differ."""
        # The index is in its own order and the roster in another; rows are what both know.
        by_row = np.zeros(int(rows.max()) + 1, values.dtype)
        by_row[rows] = values
        of_record = by_row[self.rows]
        # A unit has one value if all its records agree with its first.
        first = of_record[self.ptr[:-1]]
        repeated = np.repeat(first, self.counts)
        differing = of_record != repeated
        if differing.any():
            units = len(np.unique(np.repeat(np.arange(len(self)), self.counts)[differing]))
            raise SpecError(
                f"found {units} patients whose records differ in {name}, expected one {what} each. Give an array with "
                "one value for all records of a patient, or balance records: RandomBatchSampler."
            )
        return first

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that plans depend on."""
        if self.index is not None:
            return self.index.fingerprint
        digest = hashlib.sha256(json.dumps(self.cohorts).encode())
        for column in (self.rows, self.counts, self.cohort, self.patient, self.days):
            plain = np.zeros(0) if column is None else column
            kind = "<f8" if plain.dtype.kind == "f" else "<i8"
            # Four bytes where all values fit, whatever type they came in: half as much is hashed.
            if kind == "<i8" and plain.min(initial=0) >= 0 and plain.max(initial=0) < 2**32:
                kind = "<u4"
            # Lengths too: without them, columns could trade elements and keep the digest.
            digest.update(f"{kind}{len(plain)} ".encode())
            digest.update(np.ascontiguousarray(plain, kind).data.cast("B"))
        # Marked, so that the state of an earlier version is compared with what that version wrote.
        return f"{MARK}{digest.hexdigest()}"

    @cached_property
    def fingerprint_before(self) -> str:
        """What earlier versions saved as the fingerprint of a roster made from arrays."""
        if self.index is not None:
            return self.index.fingerprint
        digest = hashlib.sha256("\0".join(self.cohorts).encode())
        for column in (self.rows, self.ptr, self.cohort, self.patient, self.days):
            plain = np.zeros(0) if column is None else column
            kind = "<f8" if plain.dtype.kind == "f" else "<i8"
            digest.update(len(plain).to_bytes(8, "little") + np.ascontiguousarray(plain, kind).tobytes())
        return digest.hexdigest()


def _parts(cohorts: Any, kept: NDArray[np.bool_]) -> Any:
    """Return the kept entries of a column of cohorts, or of each of several in a tuple."""
    if isinstance(cohorts, tuple):
        return tuple(_part(column, kept, "cohorts") for column in cohorts)
    return _part(cohorts, kept, "cohorts")


def _placed(part: Roster, kept: NDArray[np.bool_]) -> Roster:
    """Return the roster of a part of a table with the places of the whole."""
    out = np.flatnonzero(~kept)
    excluded = _digest(out) if len(out) else ""
    made = replace(part, rows=np.flatnonzero(kept)[part.rows], entries=len(kept), excluded=excluded)
    _ = made.fingerprint  # see from_arrays
    return made


def _digest(rows: NDArray[np.integer]) -> str:
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()[:16]


def _stable_order(key: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """Return argsort(key, kind="stable") of keys 0 .. size - 1, several times faster where they are below 2**32."""
    # numpy sorts 16 bits in linear time: the lower digit first, then the upper one, as cards were once sorted. The lower
    # digit is the short one, so that the second look-up walks along a few runs and stays in the cache.
    bits = (size - 1).bit_length()
    if bits <= 16:
        return np.argsort(key.astype(np.uint16), kind="stable")
    if bits <= 32:
        low = bits - 16
        lower = (key & ((1 << low) - 1)).astype(np.uint8 if low <= 8 else np.uint16)
        order = np.argsort(lower, kind="stable")
        upper = (key >> low).astype(np.uint16)
        return order[np.argsort(upper[order], kind="stable")]
    bits = len(key).bit_length()
    if size.bit_length() + bits > 63:
        return np.argsort(key, kind="stable")
    # The place in the low bits makes any sort a stable one.
    both = key << bits
    both |= np.arange(len(key))
    both.sort()
    both &= (1 << bits) - 1
    return both


def _in_time(order: NDArray[np.int64], ptr: NDArray[np.int64], days: NDArray[np.floating]) -> NDArray[np.int64]:
    """Put each unit's records in the order of time, unknown dates last; records of one time stay in theirs."""
    when = days[order]
    # Tables are mostly in the order of time: only units that are not are sorted.
    late = (when[1:] < when[:-1]) | (np.isnan(when[:-1]) & ~np.isnan(when[1:]))
    late[ptr[1:-1] - 1] = False
    if not late.any():
        return order
    unit = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    wrong = np.zeros(len(ptr) - 1, bool)
    wrong[unit[1:][late]] = True
    places = np.flatnonzero(wrong[unit])
    order[places] = order[places[np.lexsort((when[places], unit[places]))]]
    return order


def _by_key(
    key: NDArray[np.integer],
    rows: NDArray[np.int64],
    patients: NDArray[np.int64],
    group: NDArray[np.integer],
    cohorts: tuple[str, ...],
    days: NDArray[np.floating] | None,
) -> Roster:
    """Sort records by key, within a key by time (unknown dates last), and cut into units."""
    order = _stable_order(key, int(key.max()) + 1)
    ordered = key[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    first = order[starts]
    ptr = np.append(starts, len(key)).astype(np.int64)
    if days is not None:
        order = _in_time(order, ptr, days)
        first, days = order[starts], days[order]
    of_unit = group[first].astype(np.int32)
    return Roster(rows[order], ptr, of_unit, cohorts, patient=patients[first], days=days, entries=len(key))


def _of_dense(
    person: NDArray[np.integer],
    number: NDArray[np.int64],
    group: NDArray[np.integer],
    cohorts: tuple[str, ...],
    days: NDArray[np.floating] | None,
) -> Roster | None:
    """Do what `_by_key` does, for people numbered from 0 and in one group each; None if somebody is in several.

    number: what plans report of each. Units are counted and ordered before records are sorted, and no array of records is
    looked up where one of units will do.
    """
    people = len(number)
    counts = np.bincount(person, minlength=people)
    small = group.astype(np.min_scalar_type(len(cohorts)))
    of_person = np.zeros(people, small.dtype)
    if len(cohorts) > 1:
        of_person[person] = small
        if not (of_person[person] == small).all():
            return None
    key, units = person, np.arange(people)
    if (of_person[1:] < of_person[:-1]).any():
        units = np.argsort(of_person, kind="stable")
        unit_of = np.empty(people, np.int32 if people < 2**31 else np.int64)
        unit_of[units] = np.arange(people)
        key = unit_of[person]
    ptr = np.concatenate([[0], np.cumsum(counts[units])])
    order = _stable_order(key, people)
    if days is not None:
        order = _in_time(order, ptr, days)
        days = days[order]
    of_unit = of_person[units].astype(np.int32)
    return Roster(order, ptr, of_unit, cohorts, patient=number[units], days=days, entries=len(order))
