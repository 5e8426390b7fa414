"""Batches with as many units of every class: each class has permutations of its own, rare ones more of them an epoch."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.samplers.permutation import key_of, permute, permuted_range
from ecgcohorts.samplers.roster import Classes


@dataclass(frozen=True, eq=False)
class Strata:
    """The classes of one group. units: of each class, places in the roster. share: of each class in a batch."""

    names: tuple[str, ...]
    units: tuple[NDArray[np.integer], ...]
    share: tuple[int, ...]

    @classmethod
    def of(cls, name: str, units: NDArray[np.integer], classes: Classes, pairs: int) -> Self:
        """Cut the units of a group into its classes, `pairs` divided equally. Raises PlanImpossible for what cannot be."""
        of_unit, names = classes
        present = np.unique(of_unit[units]).tolist()
        if pairs % len(present):
            raise PlanImpossible(
                f"{name}: found pairs={pairs} for {len(present)} classes, expected a multiple, so that all are equally often."
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
        """Units of a group's batch with this running number, and which pass of its class each is in; in random order."""
        units, passes = [], []
        for name, members, share in zip(self.names, self.units, self.share, strict=True):
            pass_, place = divmod(number, len(members) // share)
            key = key_of(seed, "order", group, "class", name, pass_)
            units.append(members[permuted_range(place * share, (place + 1) * share, len(members), key)])
            passes.append(np.full(share, pass_, np.int64))
        total = sum(self.share)
        order = permute(np.arange(total), total, key_of(seed, "mix", group, number))
        return np.concatenate(units).astype(np.int64)[order], np.concatenate(passes)[order]
