"""Patients drawn in proportion to weights, without one in a batch twice, and without a random number that is kept."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.samplers.permutation import key_of, permute, permuted_range

_GOLDEN_RATIO = (5**0.5 - 1) / 2
_BLOCK = 32  # passes that share one order of patients: neighbours in it seldom meet, so it must not last


@dataclass(frozen=True, eq=False)
class _Weighted:
    """The patients of one group in passes of `batches` whole batches, each patient in its share of the passes.

    units: places in the roster. shares: of the passes, at most 1, for each unit.
    """

    units: NDArray[np.integer]
    shares: NDArray[np.float64]
    pairs: int
    batches: int
    _kept: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, name: str, units: NDArray[np.integer], weights: NDArray[np.float64], pairs: int) -> Self:
        """Make passes as long as the heaviest patient allows. Raises PlanImpossible if one is due more than once a batch."""
        mine = weights[units]
        if not mine.max() > 0:
            raise PlanImpossible(
                f"{name}: found weight 0 for every patient, expected some above 0. Leave them out (`exclude=`)."
            )
        passes_of_all = float(mine.sum() / mine.max())
        # A tolerance: equal weights must not lose a batch to rounding.
        batches = int(passes_of_all * (1 + 1e-9)) // pairs
        if not batches:
            raise PlanImpossible(
                f"{name}: found a patient with {1 / passes_of_all:.2%} of all weights, expected at most "
                f"{1 / pairs:.2%}, once in each batch. Lower pairs to {int(passes_of_all)}, or the largest weights."
            )
        return cls(units, np.minimum(mine / mine.sum() * batches * pairs, 1.0), pairs, batches)

    def batch(self, number: int, seed: int, group: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the units of the batch with this running number, in random order, and the pass it is in."""
        pass_, place = divmod(number, self.batches)
        chosen = self._kept.get(pass_)
        if chosen is None:
            chosen = self._chosen(pass_, seed, group)
            self._kept.clear()
            self._kept[pass_] = chosen
        key = key_of(seed, "order", group, "weighted", pass_)
        places = permuted_range(place * self.pairs, (place + 1) * self.pairs, len(chosen), key)
        return self.units[chosen[places]].astype(np.int64), np.full(self.pairs, pass_, np.int64)

    def _chosen(self, pass_: int, seed: int, group: str) -> NDArray[np.int64]:
        """Return which units are in a pass: systematic sampling of exactly as many as fill its batches."""
        # Shares are laid on a line in random order, and marks at distance 1; whoever has a mark is in. No share exceeds 1,
        # so nobody has two. Marks move on by the golden ratio: over passes, they fall on a share as often as it is long,
        # within a draw or two, where independent draws would be off by the root of their number.
        block, turn = divmod(pass_, _BLOCK)
        order = permute(np.arange(len(self.units)), len(self.units), key_of(seed, "weighted", group, block))
        start = (key_of(seed, "mark", group, block) / 2.0**64 + turn * _GOLDEN_RATIO) % 1
        total = self.batches * self.pairs
        ends = np.cumsum(self.shares[order])
        # The sum of a million shares is off by rounding, and the last mark has to be there.
        marks = np.floor(ends / ends[-1] * total + start).astype(np.int64)
        marks[-1] = total
        has = np.diff(marks, prepend=0) > 0
        # Rounding may put two marks on one share of 1: the place is filled by somebody without a mark.
        spare = np.flatnonzero(~has & (self.shares[order] > 0))[: total - int(has.sum())]
        has[spare] = True
        return order[has]
