"""In-distribution batches of neighbourhoods: patients near in age, sex or embedding meet, as hard negatives of each other."""

import hashlib
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.samplers._groups import COHORT, By
from ecgcohorts.samplers.base import Group, Sampler
from ecgcohorts.samplers.nearness import Near, line_of, read_features
from ecgcohorts.samplers.options import Draw, Last, Options, Singles, SmallGroups, Unknown, _integer
from ecgcohorts.samplers.permutation import key_of, permuted_range
from ecgcohorts.samplers.roster import Roster

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

_LINES = 2  # passes take turns: whom one line cuts apart may be neighbours on the other


class _Options(TypedDict, total=False):
    """Keywords of this sampler, as `from_arrays` takes them."""

    neighbourhood: int
    views: int
    singles: Singles
    small_groups: SmallGroups
    last: Last
    min_gap_days: float | None
    max_gap_days: float | None
    draw: Draw
    identities: ArrayLike | None
    exclude: ArrayLike | None
    unknown: Unknown


class HardNegativeSampler(Sampler):
    """Plan batches of one cohort that are made of neighbourhoods: `neighbourhood` patients each who are near each other.

    near: an array or a `.npy` file with a number or an embedding for each record, in the order of the index or the arrays;
    or columns of the index, such as ("age", "sex"). neighbourhood: divides `pairs`; at 1 batches are random, at `pairs` a
    batch is one neighbourhood. Which patients make one changes from pass to pass, and which meet in a batch is random.
    A patient comes once an epoch. A neighbourhood is side by side in a batch: a rank that gets whole ones keeps them.
    by, views and further options: as in InDistributionBatchSampler and `samplers.options.Options`.
    """

    def __init__(
        self,
        index: "CohortIndex | Roster",
        pairs: int,
        seed: int,
        near: Near,
        *,
        neighbourhood: int = 8,
        by: By = COHORT,
        views: int = 2,
        singles: Singles = "drop",
        small_groups: SmallGroups = "raise",
        last: Last = "drop",
        min_gap_days: float | None = None,
        max_gap_days: float | None = None,
        draw: Draw = "uniform",
        identities: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        unknown: Unknown = "raise",
    ) -> None:
        neighbourhood = _integer("neighbourhood", neighbourhood, 1)
        options = Options(views, singles, small_groups, last, min_gap_days, max_gap_days, draw)
        if isinstance(index, Roster):
            roster = index
        else:
            roster = Roster.from_index(index, identities, False, by, unknown, exclude=exclude)
        features = read_features(near, roster, None if isinstance(index, Roster) else index)
        # A state resumed with other features would go on to other batches.
        digest = hashlib.sha256(features.astype("<i4").tobytes()).hexdigest()[:16]
        parameters = {"by": by if isinstance(by, str) else list(by), "neighbourhood": neighbourhood, "near": digest}
        super().__init__(roster, pairs, seed, options, True, parameters)
        if self.pairs % neighbourhood:
            raise PlanImpossible(
                f"found pairs={self.pairs} for neighbourhoods of {neighbourhood}, expected a multiple."
            )
        self.neighbourhood = neighbourhood
        self._lines = {
            group.name: [
                line_of(features[group.units], key_of(self.seed, "line", group.name, number)).astype(roster.unit_dtype)
                for number in range(_LINES)
            ]
            for group in self._groups
        }

    @classmethod
    def from_arrays(
        cls,
        *,
        patients: ArrayLike,
        cohorts: ArrayLike | tuple[ArrayLike, ...],
        pairs: int,
        seed: int,
        near: Near,
        days: ArrayLike | None = None,
        **options: Unpack[_Options],
    ) -> Self:
        """Plan for any table of records, one entry each: plans hold positions in these arrays. As for the other samplers."""
        identities, exclude = options.pop("identities", None), options.pop("exclude", None)
        unknown = options.pop("unknown", "raise")
        roster = Roster.from_arrays(patients, cohorts, days, identities, unknown=unknown, exclude=exclude)
        return cls(roster, pairs, seed, near, **options)

    def _weights(self, groups: list[Group]) -> None:
        return None

    def _order(self, group: Group, pass_: int, low: int, high: int) -> NDArray[np.int64]:
        size, length = len(group.units), self.neighbourhood
        line = self._lines[group.name][pass_ % _LINES]
        whole = size // length
        blocks = np.arange(low // length, -(-high // length))
        # What does not fill a neighbourhood stands last, and is someone else in each pass, as the line begins elsewhere.
        known = int(np.clip(whole - blocks[0], 0, len(blocks)))
        if known:
            key = key_of(self.seed, "order", group.name, pass_)
            blocks[:known] = permuted_range(int(blocks[0]), int(blocks[0]) + known, whole, key)
        places = (blocks[:, None] * length + np.arange(length)).ravel()[low % length :][: high - low]
        start = key_of(self.seed, "start", group.name, pass_) % size
        return line[(places + start) % size].astype(np.int64)
