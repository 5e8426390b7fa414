"""Balanced batches: every class has the same share of a batch. Each class is permuted by itself, rare ones more often."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.samplers._values import Classes
from ecgcohorts.samplers.permutation import key_of, permute, permuted_range


@dataclass(frozen=True, eq=False)
class Strata:
    """The classes of one group. units: places in the roster, for each class. share: how many units of each fill a batch."""

    names: tuple[str, ...]
    units: tuple[NDArray[np.integer], ...]
    share: tuple[int, ...]

    @classmethod
    def of(
        cls, name: str, units: NDArray[np.integer], classes: Classes, pairs: int, everyone: NDArray[np.integer]
    ) -> Self:
        """Cut the units of a group into classes and divide `pairs` equally. Raises PlanImpossible if that does not work out.

        everyone: units of the group, also those that cannot be drawn.
        """
        of_unit, names = classes
        # A class whose patients all have too few records would leave every batch without a word.
        lost = [names[code] for code in np.setdiff1d(of_unit[everyone], of_unit[units]).tolist()]
        if lost:
            raise PlanImpossible(
                f"{name}: found nobody with enough records in classes {', '.join(lost)}, expected some in each. "
                "Pass singles='self', leave these classes out (`exclude=`), or balance records: RandomBatchSampler."
            )
        present = np.unique(of_unit[units]).tolist()
        # Rounding would make one class systematically more frequent, which is what balancing is meant to prevent.
        if pairs % len(present):
            raise PlanImpossible(
                f"{name}: found pairs={pairs} for {len(present)} classes, expected a multiple. Set pairs so that every class gets the same number."
            )
        share = pairs // len(present)
        parts = tuple(units[of_unit[units] == code] for code in present)
        small = [
            f"{names[code]} has {len(part)}" for code, part in zip(present, parts, strict=True) if len(part) < share
        ]
        if small:
            raise PlanImpossible(
                f"{name}: found too few of a class ({', '.join(small)}), expected {share} or more of each. Lower pairs."
            )
        return cls(tuple(names[code] for code in present), parts, (share,) * len(present))

    def batch(self, number: int, seed: int, group: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the units of the batch with this running number, in random order, and the pass of its class each is in."""
        units, passes = [], []
        for name, members, share in zip(self.names, self.units, self.share, strict=True):
            # A class is cut into batches of its own, so a rare one begins its next pass while a frequent one is still in
            # its first: no place in a batch is left empty, and no unit comes twice within a pass.
            pass_, place = divmod(number, len(members) // share)
            key = key_of(seed, "order", group, "class", name, pass_)
            units.append(members[permuted_range(place * share, (place + 1) * share, len(members), key)])
            passes.append(np.full(share, pass_, np.int64))
        order = self.order(number, seed, group)
        return np.concatenate(units).astype(np.int64)[order], np.concatenate(passes)[order]

    def order(self, number: int, seed: int, group: str) -> NDArray[np.int64]:
        """Return the order in which a batch holds what stands class by class."""
        # Losses that compare neighbours in a batch, or ranks that take slices of it, must not see the classes in blocks.
        total = sum(self.share)
        return permute(np.arange(total), total, key_of(seed, "mix", group, number))
