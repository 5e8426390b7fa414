"""Batches of single records, for methods that need no pairs: masked autoencoders, predictive coding, supervised heads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers._groups import COHORT, By
from ecgcohorts.samplers._values import _shaped
from ecgcohorts.samplers.base import Group, Sampler
from ecgcohorts.samplers.options import Last, Options, Singles, SmallGroups, Unknown, _integer
from ecgcohorts.samplers.roster import Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex


@dataclass(frozen=True)
class _RecordOptions(Options):
    """Options of batches of single records: one window of each, or several."""

    least_views: ClassVar[int] = 1
    views: int = 1


class RandomBatchSampler(Sampler):
    """Plan batches of `batch_size` different records; an epoch shows every record once.

    views: windows of each record, drawn apart, or side by side in time with `adjacent`. A patient's records may meet in a
    batch: a loss that takes others in the batch for negatives must leave those out (`BatchPlan.patients` says whose they
    are), or use the pair samplers.
    exclude: rows that are never drawn, or a boolean for each record.
    by: None mixes all; a column of the index, or several, such as "cohort" or ("cohort", "device"), gives
    in-distribution batches. unknown: records without a value of `by` are an error ("raise"), or a group of their own in
    each cohort ("group"). balance: a column, or an array with a value per record: every batch has
    the same number of records of each class, so rare ones come more often. Raises PlanImpossible if a group has fewer records than `batch_size`.
    """

    def __init__(
        self,
        index: "CohortIndex | Roster",
        batch_size: int,
        seed: int,
        *,
        views: int = 1,
        adjacent: bool = False,
        by: By | None = None,
        small_groups: SmallGroups = "raise",
        last: Last = "drop",
        balance: ArrayLike | str | None = None,
        exclude: ArrayLike | None = None,
        unknown: Unknown = "raise",
    ) -> None:
        # A record has as many windows as are asked for: with "drop", one record would be too few for two views.
        views = _integer("views", views, 1)
        singles: Singles = "drop" if views == 1 else "self"
        options = _RecordOptions(views, singles, small_groups, last)
        if adjacent and views < 2:
            raise SpecError(f"found adjacent=True with views={views}, expected 2 or more windows of a record.")
        if isinstance(index, Roster):
            roster = index
        else:
            roster = Roster.of_records(index, COHORT if by is None else by, unknown, exclude)
        # States saved before there were neighbouring windows have no such key, and still load.
        also = {"by": by if by is None or isinstance(by, str) else list(by)} | ({"adjacent": True} if adjacent else {})
        super().__init__(roster, batch_size, seed, options, by is not None, also, self._classes(index, roster, balance))
        self.adjacent = adjacent

    @classmethod
    def from_arrays(
        cls,
        *,
        batch_size: int,
        seed: int,
        records: int | None = None,
        patients: ArrayLike | None = None,
        cohorts: ArrayLike | tuple[ArrayLike, ...] | None = None,
        views: int = 1,
        adjacent: bool = False,
        small_groups: SmallGroups = "raise",
        last: Last = "drop",
        balance: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        unknown: Unknown = "raise",
    ) -> Self:
        """Plan for any table of records: plans hold positions in these arrays.

        records: their number, if neither patients nor cohorts are given. patients: ids that plans report. cohorts: given
        these, each batch comes from one cohort.
        """
        columns = [patients, *(cohorts if isinstance(cohorts, tuple) else (cohorts,))]
        n = next((len(_shaped(one, "patients or cohorts")) for one in columns if one is not None), None)
        if records is not None:
            records = _integer("records", records, 1)
            if n not in (None, records):
                raise SpecError(f"found records={records} and arrays of {n}, expected one number. Leave records out.")
            n = records
        if n is None:
            raise SpecError("found neither records, patients nor cohorts, expected one of them. Pass records=NUMBER.")
        who = np.arange(n) if patients is None else patients
        roster = Roster.of_table(who, cohorts, unknown, exclude)
        return cls(
            roster,
            batch_size,
            seed,
            views=views,
            adjacent=adjacent,
            by=None if cohorts is None else COHORT,
            small_groups=small_groups,
            last=last,
            balance=balance,
        )

    def _weights(self, groups: list[Group]) -> None:
        return None
