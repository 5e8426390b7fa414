"""Roster: who can be drawn. One unit per (cohort, patient), its records side by side; no signals, no dates needed."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers.grouping import By, group_records, joined

if TYPE_CHECKING:  # the index loads pandas, which a project that brings its own arrays of integers can do without
    from ecgcohorts.index.cohort_index import CohortIndex


COHORT = "cohort"
DENSE_SPAN = 8  # integers spread over up to this many times their number are counted, others sorted
SORTED_TEXTS = 10_000  # cohorts are few, patients many


@dataclass(frozen=True, eq=False)
class Roster:
    """rows: int64 [record], by unit; ptr: int64 [unit + 1], CSR; cohort: int32 [unit], place in `cohorts`.

    patient: int64 [unit], the number a plan reports, None where it is the unit itself. days: [record] or None.
    by_record: a unit is one record, whoever's it is.
    """

    rows: NDArray[np.int64] = field(repr=False)
    ptr: NDArray[np.int64] = field(repr=False)
    cohort: NDArray[np.integer] = field(repr=False)
    cohorts: tuple[str, ...]
    patient: NDArray[np.int64] | None = field(default=None, repr=False)
    days: NDArray[np.floating] | None = field(default=None, repr=False)
    index: "CohortIndex | None" = field(default=None, repr=False)  # its fingerprint is this roster's
    by_record: bool = False

    @classmethod
    def from_index(
        cls, index: "CohortIndex", identities: ArrayLike | None, join_cohorts: bool, by: By = COHORT
    ) -> "Roster":
        """Units of a store. identities: one person id per patient of the index; see `from_arrays`.

        by: what a group is, see `grouping.group_records`. A patient with records in two groups is a unit of each.
        """
        if identities is None and by == COHORT:
            # A store keeps patients contiguous: its own pointers serve, and nothing is sorted or copied.
            ptr, cohort = index.patient_ptr, index.patient_cohort
            return cls(index["row"], ptr, cohort, index.cohorts, days=index["days"], index=index)
        person = index["patient"]
        if identities is not None:
            persons = np.asarray(identities)
            if len(persons) != index.n_patients:
                raise SpecError(f"found {len(persons)} identities, expected one per patient: {index.n_patients}.")
            person = _codes(persons, "identities")[0][person]
        group, names = group_records(index, by)
        # One number for (cohort, person), so that one sort groups both; int64 holds it for any real store.
        key = person if join_cohorts else group * np.int64(index.n_patients) + person
        return _by_key(key, index["row"], index["patient"], group, names, index["days"])

    @classmethod
    def of_records(cls, index: "CohortIndex", by: By) -> "Roster":
        """Every record of a store a unit of its own."""
        group, names = group_records(index, by)
        ptr = np.arange(len(index) + 1, dtype=np.int64)
        return cls(index["row"], ptr, group.astype(np.int32), names, index["patient"], by_record=True)

    @classmethod
    def from_arrays(
        cls,
        patients: ArrayLike,
        cohorts: ArrayLike | tuple[ArrayLike, ...] | None,
        days: ArrayLike | None = None,
        identities: ArrayLike | None = None,
        join_cohorts: bool = False,
    ) -> "Roster":
        """Units of a project's own table: one entry per record in every array, in any order; rows are its positions.

        A unit is a (cohort, patient): the same id in two cohorts is two people. `identities`, one person id per record,
        says otherwise: records of one person in one cohort (with `join_cohorts` in any) are one unit. cohorts: several
        columns, in a tuple, make a group together.
        """
        patient, ids = _codes(patients, "patients")
        group, names = _groups(cohorts, len(patient))
        person, people = (patient, ids) if identities is None else _codes(identities, "identities")
        when = None if days is None else np.asarray(days, np.float64)
        lengths = {"patients": len(patient), "cohorts": len(group), "identities": len(person)}
        if when is not None:
            lengths["days"] = len(when)
        if len(set(lengths.values())) > 1:
            raise SpecError(f"found arrays of unequal length {lengths}, expected one entry per record in each.")
        joined = join_cohorts and identities is not None
        key = person if joined else group * np.int64(len(people)) + person
        number = ids[patient].astype(np.int64) if ids.dtype.kind in "iu" else patient
        return _by_key(key, np.arange(len(patient)), number, group, names, when)

    @classmethod
    def of_table(cls, patients: ArrayLike, cohorts: ArrayLike | tuple[ArrayLike, ...] | None) -> "Roster":
        """Every record of a project's own table a unit of its own."""
        patient, ids = _codes(patients, "patients")
        group, names = _groups(cohorts, len(patient))
        if len(group) != len(patient):
            raise SpecError(f"found {len(patient)} patients and {len(group)} cohorts, expected one entry per record.")
        number = ids[patient].astype(np.int64) if ids.dtype.kind in "iu" else patient
        rows = np.arange(len(patient), dtype=np.int64)
        ptr = np.arange(len(patient) + 1, dtype=np.int64)
        return cls(rows, ptr, group.astype(np.int32), names, number, by_record=True)

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @property
    def unit_dtype(self) -> type[np.integer]:
        """Four bytes a patient where that is enough."""
        return np.int32 if len(self) < 2**31 else np.int64

    @property
    def counts(self) -> NDArray[np.int64]:
        """Records of each unit."""
        return np.diff(self.ptr)

    def patient_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        return units if self.patient is None else self.patient[units]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that plans depend on."""
        # The index knows its digest already: its rows need not be hashed again.
        if self.index is not None:
            return self.index.fingerprint
        digest = hashlib.sha256("\0".join(self.cohorts).encode())
        for column in (self.rows, self.ptr, self.cohort, self.patient, self.days):
            plain = np.zeros(0) if column is None else column
            kind = "<f8" if plain.dtype.kind == "f" else "<i8"
            # Lengths too: without them, columns could trade elements and keep the digest.
            digest.update(len(plain).to_bytes(8, "little") + np.ascontiguousarray(plain, kind).tobytes())
        return digest.hexdigest()


def _groups(cohorts: ArrayLike | tuple[ArrayLike, ...] | None, n: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    columns = (np.zeros(n, np.int8),) if cohorts is None else cohorts if isinstance(cohorts, tuple) else (cohorts,)
    coded = [_codes(column, "cohorts") for column in columns]
    if len({len(codes) for codes, _ in coded}) > 1:
        lengths = ", ".join(str(len(codes)) for codes, _ in coded)
        raise SpecError(f"found columns of cohorts of unequal length {lengths}, expected one entry per record in each.")
    return joined([(codes, [str(name) for name in names]) for codes, names in coded])


def _codes(values: ArrayLike, name: str) -> tuple[NDArray[np.int64], NDArray]:
    """Number the distinct values: integers and few values in sorted order, many texts as they first appear."""
    array = np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise SpecError(f"found {name} of shape {array.shape}, expected one entry per record.")
    if array.dtype.kind in "iub":
        low, high = int(array.min()), int(array.max())
        # Unsigned ids above this would wrap to negative ones and merge two people.
        if high >= 2**63:
            raise SpecError(f"found {high} in {name}, expected integers below 2**63, or text.")
        # Ids that lie close together are counted instead of sorted.
        span = high - low + 1
        if span > max(DENSE_SPAN * len(array), DENSE_SPAN):
            distinct, codes = np.unique(array, return_inverse=True)
            return codes.astype(np.int64), distinct
        shifted = array.astype(np.int64) - low
        seen = np.zeros(span, bool)
        seen[shifted] = True
        return (np.cumsum(seen) - 1)[shifted], np.flatnonzero(seen) + low
    import pandas as pd  # hashing: sorting five million texts takes ten times as long

    numbers, found = pd.factorize(array.astype(object))
    unknown = int((numbers < 0).sum())
    if unknown:
        raise SpecError(
            f"found {unknown} missing values in {name}, expected an id in every entry. "
            "Give each unknown patient an id of its own, or leave these records out."
        )
    # Sorting names of cohorts gives them an order that does not depend on the table; patients need none.
    if len(found) > SORTED_TEXTS:
        return numbers.astype(np.int64), found
    order = np.argsort(found.astype(str), kind="stable")
    return np.argsort(order)[numbers].astype(np.int64), found[order]


def _stable_order(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """argsort(key, kind="stable"); by sorting key and place as one number, several times faster, where they fit."""
    bits = len(key).bit_length()
    # The packed number must fit into 63 bits.
    if key.min() < 0 or int(key.max()).bit_length() + bits > 63:
        return np.argsort(key, kind="stable")
    both = key << bits
    both |= np.arange(len(key))
    both.sort()
    both &= (1 << bits) - 1
    return both


def _by_key(
    key: NDArray[np.int64],
    rows: NDArray[np.int64],
    patients: NDArray[np.int64],
    group: NDArray[np.integer],
    cohorts: tuple[str, ...],
    days: NDArray[np.floating] | None,
) -> Roster:
    """Sort records by key, within a key by time (unknown dates last), and cut into units."""
    # lexsort takes its last key first: by unit, then by time; NaN sorts last.
    order = _stable_order(key) if days is None else np.lexsort((days, key))
    ordered = key[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    first = order[starts]
    ptr = np.append(starts, len(key)).astype(np.int64)
    return Roster(
        rows[order],
        ptr,
        group[first].astype(np.int32),
        cohorts,
        patient=patients[first],
        days=None if days is None else days[order],
    )
