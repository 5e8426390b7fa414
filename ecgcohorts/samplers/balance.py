"""Batches with as many units of every class: each class has permutations of its own, rare ones more of them an epoch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.samplers.grouping import group_records
from ecgcohorts.samplers.permutation import key_of, permute, permuted_range
from ecgcohorts.samplers.roster import Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex


@dataclass(frozen=True, eq=False)
class Strata:
    """The classes of one group. units: of each class, places in the roster. share: of each class in a batch."""

    names: tuple[str, ...]
    units: tuple[NDArray[np.integer], ...]
    share: tuple[int, ...]

    def batch(self, number: int, seed: int, group: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Units of a group's batch with this running number, and which pass of its class each is in; in random order."""
        units, passes = [], []
        for name, members, share in zip(self.names, self.units, self.share, strict=True):
            # A rare class is through sooner and starts its next pass: nobody of it is left out of an epoch for being rare.
            pass_, place = divmod(number, len(members) // share)
            key = key_of(seed, "order", group, "class", name, pass_)
            units.append(members[permuted_range(place * share, (place + 1) * share, len(members), key)])
            passes.append(np.full(share, pass_, np.int64))
        total = sum(self.share)
        # Mixed, so that the slice of a rank does not hold one class alone.
        order = permute(np.arange(total), total, key_of(seed, "mix", group, number))
        return np.concatenate(units).astype(np.int64)[order], np.concatenate(passes)[order]


def classes_of(
    roster: Roster, balance: ArrayLike | str, index: "CohortIndex | None"
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class of each unit of a roster, and the names of the classes.

    balance: a column of the index, or an array with one value for each record, in its order. Raises SpecError where the
    records of one unit have different classes: nobody here can say which of them the patient has.
    """
    if isinstance(balance, str):
        if index is None:
            raise SpecError(f"found balance={balance!r} without an index, expected an array with a value per record.")
        codes, names = group_records(index, balance)
        rows = index["row"]
    else:
        values = np.asarray(balance)
        if values.shape != roster.rows.shape:
            raise SpecError(
                f"found balance of shape {values.shape}, expected one value per record: {roster.rows.shape}."
            )
        distinct, codes = np.unique(values, return_inverse=True)
        names = tuple(str(value) for value in distinct.tolist())
        rows = np.arange(len(values)) if index is None else index["row"]
    # The index is in its own order and the roster in another; rows are what both know.
    by_row = np.full(int(rows.max()) + 1, -1, np.int64)
    by_row[rows] = codes
    of_record = by_row[roster.rows]
    # A unit has one class if all its records agree with its first.
    first = of_record[roster.ptr[:-1]]
    differing = of_record != np.repeat(first, roster.counts)
    if differing.any():
        units = len(np.unique(np.repeat(np.arange(len(roster)), roster.counts)[differing]))
        raise SpecError(
            f"found {units} patients whose records differ in balance, expected one class each. Give an array with "
            "one value for all records of a patient, or balance records: RandomBatchSampler."
        )
    return first, names


def stratify(
    name: str, units: NDArray[np.integer], classes: NDArray[np.int64], names: tuple[str, ...], pairs: int
) -> Strata:
    """Cut the units of a group into its classes, `pairs` divided equally. Raises PlanImpossible for what cannot be."""
    present = np.unique(classes[units]).tolist()
    if pairs % len(present):
        raise PlanImpossible(
            f"{name}: found pairs={pairs} for {len(present)} classes, expected a multiple, so that all are equally often."
        )
    share = pairs // len(present)
    parts = tuple(units[classes[units] == code] for code in present)
    small = [f"{names[code]} has {len(part)}" for code, part in zip(present, parts, strict=True) if len(part) < share]
    if small:
        raise PlanImpossible(
            f"{name}: found too few of a class ({', '.join(small)}), expected {share} or more of each. Lower pairs."
        )
    return Strata(tuple(names[code] for code in present), parts, (share,) * len(present))
