"""Batches that mix patients of all cohorts, as in CAPE-X, arXiv 2509.10369."""

from typing import TYPE_CHECKING, Self, Unpack

from numpy.typing import ArrayLike

from ecgcohorts.samplers.base import Group, Sampler
from ecgcohorts.samplers.options import Draw, Last, Options, PairOptions, Singles, SmallGroups
from ecgcohorts.samplers.roster import Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex


class PatientPairSampler(Sampler):
    """Plan batches of `pairs` different patients of any cohort and `views` different records of each.

    One epoch shows every patient with enough records once. Options: `samplers.options.Options`. identities: one person
    id per patient of the index, where one person is several patients; such a person is drawn as one, across cohorts.
    exclude: rows that are never drawn, or a boolean for each record.
    patient_weights: a column or an array with a number per record, the same for all records of a patient: how often each
    patient comes; in a batch nobody comes twice.
    balance: a column of the index or an array with a value per record, the same for all records of a patient:
    every batch has the same number of patients of each class, so those of rare classes come more often. Raises PlanImpossible if there are
    fewer patients than `pairs`.
    """

    def __init__(
        self,
        index: "CohortIndex | Roster",
        pairs: int,
        seed: int,
        *,
        views: int = 2,
        singles: Singles = "drop",
        small_groups: SmallGroups = "raise",
        last: Last = "drop",
        min_gap_days: float | None = None,
        max_gap_days: float | None = None,
        draw: Draw = "uniform",
        balance: ArrayLike | str | None = None,
        identities: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        patient_weights: ArrayLike | str | None = None,
    ) -> None:
        options = Options(views, singles, small_groups, last, min_gap_days, max_gap_days, draw)
        if isinstance(index, Roster):
            roster = index
        else:
            roster = Roster.from_index(index, identities, join_cohorts=True, exclude=exclude)
        classes = self._classes(index, roster, balance)
        weights = self._unit_weights(index, roster, patient_weights)
        super().__init__(roster, pairs, seed, options, False, {}, classes, weights)

    @classmethod
    def from_arrays(
        cls,
        *,
        patients: ArrayLike,
        pairs: int,
        seed: int,
        cohorts: ArrayLike | None = None,
        days: ArrayLike | None = None,
        **options: Unpack[PairOptions],
    ) -> Self:
        """Plan for any table of records, one entry each: plans hold positions in these arrays.

        patients: ids. cohorts: the same id in two cohorts is two people (default: one cohort). days: dates in days, for
        bounds on the time gap. options: as in the constructor, but `identities` has an entry per record.
        """
        identities, exclude = options.pop("identities", None), options.pop("exclude", None)
        roster = Roster.from_arrays(patients, cohorts, days, identities, join_cohorts=True, exclude=exclude)
        return cls(roster, pairs, seed, **options)

    def _weights(self, groups: list[Group]) -> None:
        return None
