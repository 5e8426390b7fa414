"""Batches that hold a fixed number of patients of each source: three quarters of one cohort, say, and one of all others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.samplers.balance import Strata
from ecgcohorts.samplers.base import Group, Sampler
from ecgcohorts.samplers.options import Draw, Options, Singles, _numbers
from ecgcohorts.samplers.permutation import GOLDEN, key_of, mix64
from ecgcohorts.samplers.roster import Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

OTHERS = "*"  # the source of all cohorts that are not named
_DENOMINATOR = 10_000  # shares are fractions with this or a smaller one; 1/3 may be written as 0.3333333


class _Options(TypedDict, total=False):
    """Keywords of this sampler, as `from_arrays` takes them."""

    views: int
    singles: Singles
    min_gap_days: float | None
    max_gap_days: float | None
    draw: Draw
    identities: ArrayLike | None
    exclude: ArrayLike | None


@dataclass(frozen=True, eq=False)
class _Sources(Strata):
    """The sources of a batch, cut into equal blocks of the same shares, as many as there can be."""

    def order(self, number: int, seed: int, group: str) -> NDArray[np.int64]:
        """Return a random order within each block: a rank that has whole blocks has the exact shares, too."""
        blocks = math.gcd(*self.share)
        ends = np.cumsum(self.share)
        parts = [np.arange(end - share, end).reshape(blocks, -1) for end, share in zip(ends, self.share, strict=True)]
        places = np.concatenate(parts, axis=1)
        counters = np.arange(1, places.size + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        words = mix64(counters + np.uint64(key_of(seed, "mix", group, number))).reshape(places.shape)
        return np.take_along_axis(places, np.argsort(words, axis=1, kind="stable"), axis=1).ravel()


class FixedShareSampler(Sampler):
    """Plan batches of `pairs` different patients of which each source has its share, in exact numbers.

    shares: parts of a batch by cohort, which sum to 1; "*" stands for all cohorts not named, mixed as they come. Each source
    is permuted by itself: its patients all come once before one comes again, however often that is in an epoch, which is
    as many batches as all patients fill. `describe` says how many passes of each source that makes. The numbers
    are exact in a global batch, and on each rank where they can be divided by their number. With `identities`,
    a person with records of two sources counts for that of the earliest, and the others are not drawn.
    Other options: `samplers.options.Options`. Raises PlanImpossible if shares make no whole numbers of patients, or a source
    has fewer patients than its share.
    """

    def __init__(
        self,
        index: "CohortIndex | Roster",
        pairs: int,
        seed: int,
        shares: Mapping[str, float],
        *,
        views: int = 2,
        singles: Singles = "drop",
        min_gap_days: float | None = None,
        max_gap_days: float | None = None,
        draw: Draw = "uniform",
        identities: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
    ) -> None:
        options = Options(views, singles, "raise", "drop", min_gap_days, max_gap_days, draw)
        if isinstance(index, Roster):
            roster = index
        else:
            roster = Roster.from_index(index, identities, join_cohorts=True, exclude=exclude)
        parameters: dict[str, Any] = {}
        if identities is not None and not isinstance(index, Roster):
            apart, whole = Roster.from_index(index, identities, join_cohorts=False, exclude=exclude), len(roster.rows)
            roster = _of_one_source(roster, apart, shares)
            # A state saved when records of another source were drawn belongs to other plans.
            parameters |= {"sources": "of one each"} if len(roster.rows) < whole else {}
        self.shares = _checked(shares, roster)
        parameters["shares"] = dict(sorted(self.shares.items()))
        super().__init__(roster, pairs, seed, options, False, parameters)
        group = self._groups[0]
        self._sources = self._cut(group)
        self._groups = [replace(group, strata=self._sources)]

    @classmethod
    def from_arrays(
        cls,
        *,
        patients: ArrayLike,
        cohorts: ArrayLike | tuple[ArrayLike, ...],
        pairs: int,
        seed: int,
        shares: Mapping[str, float],
        days: ArrayLike | None = None,
        **options: Unpack[_Options],
    ) -> Self:
        """Plan for any table of records, one entry each: plans hold positions in these arrays. As for the other samplers."""
        identities, exclude = options.pop("identities", None), options.pop("exclude", None)
        roster = Roster.from_arrays(patients, cohorts, days, identities, join_cohorts=True, exclude=exclude)
        if identities is not None:
            apart = Roster.from_arrays(patients, cohorts, days, identities, join_cohorts=False, exclude=exclude)
            roster = _of_one_source(roster, apart, shares)
        return cls(roster, pairs, seed, shares, **options)

    def describe(self) -> dict[str, Any]:
        """Return what an epoch consists of, in numbers, for logs and results."""
        steps = self.steps(0)
        sources = {
            name: {
                "patients": len(units),
                "in_every_batch": share,
                "passes_per_epoch": round(steps / (len(units) // share), 4),
            }
            for name, units, share in zip(self._sources.names, self._sources.units, self._sources.share, strict=True)
        }
        return super().describe() | {"shares": self.shares, "sources": sources}

    def _weights(self, groups: list[Group]) -> None:
        return None

    def _cut(self, group: Group) -> _Sources:
        parts = [_fraction(share) for share in self.shares.values()]
        unit = math.lcm(*(part.denominator for part in parts))
        if self.pairs % unit:
            found = ", ".join(
                f"{float(part * self.pairs):g} of {name}" for name, part in zip(self.shares, parts, strict=True)
            )
            raise PlanImpossible(
                f"found shares that make {found} in pairs={self.pairs}, expected whole numbers. Set pairs to a multiple of "
                f"{unit}, or choose other shares."
            )
        source = _source_of(self.shares, self._roster.cohorts)[self._roster.cohort[group.units]]
        units = tuple(group.units[source == number] for number in range(len(self.shares)))
        share = tuple(int(part * self.pairs) for part in parts)
        small = [
            f"{name} has {len(of_it)}, its share is {need}"
            for name, of_it, need in zip(self.shares, units, share, strict=True)
            if len(of_it) < need
        ]
        if small:
            raise PlanImpossible(
                f"found too few patients ({'; '.join(small)}), expected enough for a batch. Lower pairs."
            )
        return _Sources(tuple(self.shares), units, share)


def _fraction(share: float) -> Fraction:
    return Fraction(share).limit_denominator(_DENOMINATOR)


def _source_of(shares: Mapping[str, float], cohorts: Sequence[str]) -> NDArray[np.int64]:
    place = {name: number for number, name in enumerate(shares)}
    return np.array([place.get(name, place.get(OTHERS, -1)) for name in cohorts], np.int64)


def _of_one_source(roster: Roster, apart: Roster, shares: Mapping[str, float]) -> Roster:
    """Return the roster with those records of each unit that are of the unit's source.

    apart: the roster in which a person is a unit of each cohort.
    """
    source = _source_of(_checked(shares, apart), apart.cohorts)
    of_row = np.empty(int(apart.rows.max()) + 1, np.int64)
    of_row[apart.rows] = np.repeat(source[apart.cohort], apart.counts)
    return roster._of_records(of_row[roster.rows] == np.repeat(source[roster.cohort], roster.counts))


def _checked(shares: Mapping[str, float], roster: Roster) -> dict[str, float]:
    cohorts = [roster.cohorts[code] for code in np.unique(roster.cohort)]
    numbers = _numbers("shares", shares)
    missing = [] if OTHERS in numbers else [name for name in cohorts if name not in numbers]
    strange = [name for name in numbers if name not in cohorts and name != OTHERS]
    # A cohort without a share could mean none or as it comes: nobody should have to guess which.
    if missing or strange or (OTHERS in numbers and set(cohorts) <= set(numbers)):
        raise SpecError(
            f"found shares of {', '.join(sorted(numbers))}, expected one for each of {', '.join(cohorts)}, "
            f"or {OTHERS!r} for those not named."
        )
    parts = [_fraction(share) if 0 < share <= 1 else 0 for share in numbers.values()]
    # One that is rounded to nothing counts as none: a batch could not hold a part of a patient.
    if not all(parts) or sum(parts) != 1:
        raise SpecError(
            f"found shares {numbers}, expected numbers above 0 (1/{_DENOMINATOR} or more) that sum to 1. Leave a cohort "
            "without one out (`exclude=`)."
        )
    return numbers
