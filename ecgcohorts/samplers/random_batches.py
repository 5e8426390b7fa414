"""Batches of single records, for methods that need no pairs: masked autoencoders, predictive coding, supervised heads."""

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers.base import Group, Sampler
from ecgcohorts.samplers.grouping import By
from ecgcohorts.samplers.options import Last, RecordOptions, SmallGroups
from ecgcohorts.samplers.roster import COHORT, Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex


class RandomBatchSampler(Sampler):
    """Per step, `batch_size` different records; every record once an epoch. Plans have one view.

    A patient's records may meet in a batch: for losses that take others in the batch for negatives, use the pair samplers.
    by: None mixes all; a column of the index, or several, such as "cohort" or ("cohort", "device"), gives
    in-distribution batches. balance: a column, or an array with a value per record: as many records of each class in
    every batch, rare ones more often an epoch. Raises PlanImpossible if a group has fewer records than `batch_size`.
    """

    def __init__(
        self,
        index: "CohortIndex | Roster",
        batch_size: int,
        seed: int,
        *,
        by: By | None = None,
        small_groups: SmallGroups = "raise",
        last: Last = "drop",
        balance: ArrayLike | str | None = None,
    ) -> None:
        options = RecordOptions(small_groups=small_groups, last=last)
        roster = index if isinstance(index, Roster) else Roster.of_records(index, COHORT if by is None else by)
        in_groups = {"by": by if by is None or isinstance(by, str) else list(by)}
        super().__init__(
            roster, batch_size, seed, options, by is not None, in_groups, self._classes(index, roster, balance)
        )

    @property
    def batch_size(self) -> int:
        """Records in the global batch."""
        return self.pairs

    @classmethod
    def from_arrays(
        cls,
        *,
        batch_size: int,
        seed: int,
        records: int | None = None,
        patients: ArrayLike | None = None,
        cohorts: ArrayLike | tuple[ArrayLike, ...] | None = None,
        small_groups: SmallGroups = "raise",
        last: Last = "drop",
        balance: ArrayLike | None = None,
    ) -> Self:
        """Plan for any table of records: plans hold positions in these arrays.

        records: how many there are, if neither patients nor cohorts say so. patients: what plans report. cohorts: with
        them batches are of one cohort each.
        """
        given = [one for one in (patients, cohorts[0] if isinstance(cohorts, tuple) else cohorts) if one is not None]
        n = records if not given else len(np.asarray(given[0]))
        if n is None:
            raise SpecError("found neither records, patients nor cohorts, expected one: how many records are there?")
        who = np.arange(n) if patients is None else patients
        roster = Roster.of_table(who, cohorts)
        return cls(
            roster,
            batch_size,
            seed,
            by=None if cohorts is None else COHORT,
            small_groups=small_groups,
            last=last,
            balance=balance,
        )

    def _weights(self, groups: list[Group]) -> None:
        return None
