"""Batches of one cohort each: the in-distribution batches (IDB) of CAPE-Z, arXiv 2509.10369."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self, Unpack

import numpy as np
from numpy.typing import ArrayLike

from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.samplers._groups import COHORT, By
from ecgcohorts.samplers.base import Group, Sampler
from ecgcohorts.samplers.options import (
    Draw,
    Last,
    Options,
    PairOptions,
    Singles,
    SmallGroups,
    Unknown,
    _number,
    _numbers,
)
from ecgcohorts.samplers.roster import Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex


class _BalanceOptions(PairOptions, total=False):
    """Keywords of this sampler, as `from_arrays` takes them."""

    temperature: float
    weights: Mapping[str, float] | None
    unknown: Unknown


class InDistributionBatchSampler(Sampler):
    """Plan batches of one cohort each: `pairs` different patients of it and `views` different records of each.

    The cohort of a step depends on (seed, epoch, step) alone, so all ranks agree without communication. Order and
    proportions are unstated in the paper; our default is a permuted multiset with counts proportional to eligible
    patients.

    by: the column that separates distributions: the cohort, or any other column of the index (device, site, a label
    ...), or several in a tuple; below, "cohort" means such a group. temperature: cohorts share an epoch's batches as
    patients ** temperature; at 1 every patient comes once an epoch, at 0 all cohorts have the same number of batches,
    small ones by several passes. weights: shares by cohort name instead.
    unknown: records without a value of `by` are an error ("raise"), or a group of their own in each cohort ("group").
    exclude: rows that are never drawn, or a boolean for each record.
    patient_weights: a column or an array with a number per record, the same for all records of a patient: how often each
    patient of a cohort comes; in a batch nobody comes twice.
    Other options: `samplers.options.Options`. identities: one person id per patient of the index; within a cohort such
    a person is drawn as one. Raises PlanImpossible if a cohort has fewer patients than `pairs`.
    """

    def __init__(
        self,
        index: "CohortIndex | Roster",
        pairs: int,
        seed: int,
        *,
        by: By = COHORT,
        views: int = 2,
        singles: Singles = "drop",
        small_groups: SmallGroups = "raise",
        temperature: float = 1.0,
        weights: Mapping[str, float] | None = None,
        last: Last = "drop",
        min_gap_days: float | None = None,
        max_gap_days: float | None = None,
        draw: Draw = "uniform",
        balance: ArrayLike | str | None = None,
        identities: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        unknown: Unknown = "raise",
        patient_weights: ArrayLike | str | None = None,
    ) -> None:
        options = Options(views, singles, small_groups, last, min_gap_days, max_gap_days, draw)
        if isinstance(index, Roster):
            roster = index
        else:
            roster = Roster.from_index(index, identities, False, by, unknown, exclude=exclude)
        self.temperature = _number("temperature", temperature)
        self.weights = None if weights is None else _numbers("weights", weights)
        _check_shares(self.temperature, self.weights, roster)
        parameters = {
            "by": by if isinstance(by, str) else list(by),
            "temperature": self.temperature,
            "weights": self.weights,
        }
        classes = self._classes(index, roster, balance)
        of_unit = self._unit_weights(index, roster, patient_weights)
        super().__init__(roster, pairs, seed, options, True, parameters, classes, of_unit)

    @classmethod
    def from_arrays(
        cls,
        *,
        patients: ArrayLike,
        cohorts: ArrayLike | tuple[ArrayLike, ...],
        pairs: int,
        seed: int,
        days: ArrayLike | None = None,
        **options: Unpack[_BalanceOptions],
    ) -> Self:
        """Plan for any table of records, one entry each: plans hold positions in these arrays.

        patients: ids. cohorts: names or numbers, or several columns in a tuple, such as (hospital, device). The same id
        in two cohorts is two people. days: dates in days, for bounds on the time gap. options: as in the constructor, but `identities` has an entry per record.
        """
        identities, exclude = options.pop("identities", None), options.pop("exclude", None)
        unknown = options.pop("unknown", "raise")
        roster = Roster.from_arrays(patients, cohorts, days, identities, unknown=unknown, exclude=exclude)
        return cls(roster, pairs, seed, **options)

    def _weights(self, groups: list[Group]) -> list[float] | None:
        if self.weights is not None:
            weights = [self.weights[group.name] for group in groups]
            if not any(weights):
                raise PlanImpossible("found weight 0 for every cohort that can fill a batch, expected one above 0.")
            return weights
        # Whole passes at 1. Largest remainder usually gives the same counts, but not always: five cohorts of 1,023
        # patients and one of 5,120 would get 2 2 1 1 1 8 batches of 512 instead of 1 1 1 1 1 10.
        if self.temperature == 1:
            return None
        return [len(group.units) ** self.temperature for group in groups]


def _check_shares(temperature: float, weights: Mapping[str, float] | None, roster: Roster) -> None:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise SpecError(f"found temperature={temperature}, expected 0 or more.")
    if weights is None:
        return
    if temperature != 1:
        raise SpecError(f"found temperature={temperature} and weights, expected only one of them.")
    names = [roster.cohorts[code] for code in np.unique(roster.cohort)]
    # A cohort without a weight could mean 0 or 1: nobody should have to guess which.
    if set(weights) != set(names):
        raise SpecError(f"found weights of {', '.join(sorted(weights))}, expected one for each of {', '.join(names)}.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or not sum(weights.values()):
        raise SpecError(f"found weights {dict(weights)}, expected 0 or more, not all 0.")
