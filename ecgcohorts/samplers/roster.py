"""The roster: who can be drawn, and to which group and class each belongs.

One unit is a (cohort, patient) with its records side by side, or a single record. No signals, and no dates needed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError

if TYPE_CHECKING:  # the index loads pandas, which a project that brings its own arrays of integers can do without
    from ecgcohorts.index.cohort_index import CohortIndex

COHORT = "cohort"
UNKNOWN = -1
LABEL = "label_"
MANY_GROUPS = 10_000  # our choice; a column of measurements would give each record a group of its own
By = str | Sequence[str]
DENSE_SPAN = 8  # integers spread over up to this many times their number are counted, others sorted
SORTED_TEXTS = 10_000  # cohorts are few, patients many


Classes = tuple[NDArray[np.int64], tuple[str, ...]]  # of each unit, and their names


@dataclass(frozen=True, eq=False)
class Roster:
    """Units in CSR form. rows: int64 [record], by unit. ptr: int64 [unit + 1]. cohort: int32 [unit], place in `cohorts`.

    patient: int64 [unit], the number that a plan reports; None if that is the unit itself. days: [record], or None.
    by_record: every record is a unit of its own.
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
        """Make the units of a store. identities: one person id per patient of the index; see `from_arrays`.

        by: what a group is, see `_group_records`. A patient with records in two groups is a unit of each.
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
        group, names = _group_records(index, by)
        # A patient seen in two groups must not be a pair across them: records of one batch would come from two distributions.
        key = person if join_cohorts else group * np.int64(index.n_patients) + person
        return _by_key(key, index["row"], index["patient"], group, names, index["days"])

    @classmethod
    def of_records(cls, index: "CohortIndex", by: By) -> "Roster":
        """Make every record of a store a unit of its own."""
        group, names = _group_records(index, by)
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
        """Make the units of any table, with one entry per record in every array, in any order; rows are its positions.

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
        """Make every record of any table a unit of its own."""
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
            codes, names = _group_records(index, balance)
            rows = index["row"]
        else:
            values = np.asarray(balance)
            if values.shape != self.rows.shape:
                raise SpecError(
                    f"found balance of shape {values.shape}, expected one value per record: {self.rows.shape}."
                )
            distinct, codes = np.unique(values, return_inverse=True)
            names = tuple(str(value) for value in distinct.tolist())
            rows = np.arange(len(values)) if index is None else index["row"]
        # The index is in its own order and the roster in another; rows are what both know.
        by_row = np.full(int(rows.max()) + 1, -1, np.int64)
        by_row[rows] = codes
        of_record = by_row[self.rows]
        # A unit has one class if all its records agree with its first.
        first = of_record[self.ptr[:-1]]
        differing = of_record != np.repeat(first, self.counts)
        if differing.any():
            units = len(np.unique(np.repeat(np.arange(len(self)), self.counts)[differing]))
            raise SpecError(
                f"found {units} patients whose records differ in balance, expected one class each. Give an array with "
                "one value for all records of a patient, or balance records: RandomBatchSampler."
            )
        return first, names

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that plans depend on."""
        if self.index is not None:
            return self.index.fingerprint
        digest = hashlib.sha256("\0".join(self.cohorts).encode())
        # Little-endian and of one width, so that a state saved on one machine is recognised on any other.
        for column in (self.rows, self.ptr, self.cohort, self.patient, self.days):
            plain = np.zeros(0) if column is None else column
            kind = "<f8" if plain.dtype.kind == "f" else "<i8"
            # Lengths too: without them, columns could trade elements and keep the digest.
            digest.update(len(plain).to_bytes(8, "little") + np.ascontiguousarray(plain, kind).tobytes())
        return digest.hexdigest()


def _groups(cohorts: ArrayLike | tuple[ArrayLike, ...] | None, n: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    # Without cohorts all records are of one: the samplers know no other case.
    columns = (np.zeros(n, np.int8),) if cohorts is None else cohorts if isinstance(cohorts, tuple) else (cohorts,)
    coded = [_codes(column, "cohorts") for column in columns]
    if len({len(codes) for codes, _ in coded}) > 1:
        lengths = ", ".join(str(len(codes)) for codes, _ in coded)
        raise SpecError(f"found columns of cohorts of unequal length {lengths}, expected one entry per record in each.")
    return _joined([(codes, [str(name) for name in names]) for codes, names in coded])


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
        # Dense ids are numbered in linear time; for sparse ones the table of what is there would be too large.
        span = high - low + 1
        if span > max(DENSE_SPAN * len(array), DENSE_SPAN):
            distinct, codes = np.unique(array, return_inverse=True)
            return codes.astype(np.int64), distinct
        shifted = array.astype(np.int64) - low
        seen = np.zeros(span, bool)
        seen[shifted] = True
        return (np.cumsum(seen) - 1)[shifted], np.flatnonzero(seen) + low
    import pandas as pd  # hashing: sorting five million texts takes ten times as long

    # object first: pandas takes NaN, None and NaT for missing there, and str(None) would be a patient of that name.
    numbers, found = pd.factorize(array.astype(object))
    unknown = int((numbers < 0).sum())
    if unknown:
        raise SpecError(
            f"found {unknown} missing values in {name}, expected an id in every entry. "
            "Give each unknown patient an id of its own, or leave these records out."
        )
    if len(found) > SORTED_TEXTS:
        return numbers.astype(np.int64), found
    # Sorted names make the numbering independent of the order of the table, and with it the order of cohorts.
    order = np.argsort(found.astype(str), kind="stable")
    return np.argsort(order)[numbers].astype(np.int64), found[order]


def _stable_order(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return argsort(key, kind="stable"), several times faster where key and place fit into one number."""
    # The place in the low bits makes any sort a stable one.
    bits = len(key).bit_length()
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


def _group_records(index: "CohortIndex", by: By) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the code of each record's group and the names of the groups. by: a column, or several taken together.

    Columns: cohort, site, device, sex, a label, or any other with few values. Raises SpecError if a record has
    no value, if there is no such column, or if it has too many values.
    """
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise SpecError("found no column to group by, expected one or more, such as device.")
    return _joined([_column(index, name) for name in names])


def _joined(columns: Sequence[tuple[NDArray[np.int64], Sequence[str]]]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number the combinations that occur, in the order of their codes, and join their names by a slash."""
    if len(columns) == 1:
        return columns[0][0], tuple(columns[0][1])
    # Mixed radix: the last column varies fastest, as in the joined names.
    mixed = np.zeros(len(columns[0][0]), np.int64)
    for codes, names in columns:
        mixed = mixed * len(names) + codes
    present, codes = np.unique(mixed, return_inverse=True)
    texts = []
    for code in present.tolist():
        parts = []
        for _, names in reversed(columns):
            code, place = divmod(code, len(names))
            parts.append(names[place])
        texts.append(" / ".join(reversed(parts)))
    return codes.astype(np.int64), tuple(texts)


def _column(index: "CohortIndex", name: str) -> tuple[NDArray[np.int64], Sequence[str]]:
    named: dict[str, Sequence[str]] = {
        "cohort": index.cohorts,
        "site": index.sites,
        "device": index.devices,
        "sex": ("male", "female"),
    }
    if name in named:
        codes: NDArray[np.int64] = index[name].astype(np.int64)
        names = named[name]
    else:
        codes, names = _values(index[name if name in index.columns else f"{LABEL}{name}"], name)
    unknown = int((codes == UNKNOWN).sum())
    if unknown:
        raise SpecError(
            f"found {unknown} of {len(codes)} records without {name}, expected one in each. Leave them out "
            "(`index.take`), or group by another column."
        )
    return codes, names


def _values(column: NDArray, name: str) -> tuple[NDArray[np.int64], list[str]]:
    if column.ndim != 1:
        raise SpecError(f"found {name} of shape {column.shape}, expected a column with one value a record.")
    known = np.isfinite(column) if column.dtype.kind == "f" else np.ones(len(column), bool)
    distinct, numbers = np.unique(column[known], return_inverse=True)
    # Said here, before a sampler answers that thousands of groups are too small for a batch.
    if len(distinct) > MANY_GROUPS:
        raise SpecError(f"found {len(distinct)} values of {name}, expected at most {MANY_GROUPS} groups.")
    codes = np.full(len(column), UNKNOWN, np.int64)
    codes[known] = numbers
    return codes, [f"{value:g}" if column.dtype.kind == "f" else str(value) for value in distinct.tolist()]
