"""From mixed to in-distribution batches over training: the share of in-distribution batches is a function of the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers.base import Sampler
from ecgcohorts.samplers.options import _number
from ecgcohorts.samplers.permutation import key_of, permute, permuted_range
from ecgcohorts.samplers.plan import BatchPlan
from ecgcohorts.samplers.planner import BatchPlanner
from ecgcohorts.samplers.wrapper import Wrapper

_EXACT = 6  # decimals of a batch: rounding error must not make 2.9999999 batches 2


@dataclass(frozen=True, eq=False)
class _Epoch:
    """The batches of an epoch. before: [step + 1], in-distribution batches before each step. own: steps of the wrapped sampler
    that plans them. used: [cohort], patients in them."""

    epoch: int
    before: NDArray[np.int64]
    own: NDArray[np.int64]
    used: NDArray[np.int64]


class RampSampler(Wrapper[Sampler]):
    """Plan some batches from one cohort each and the others from all cohorts, in shares that change over training.

    share: (epoch, share of in-distribution batches) in the order of epochs, joined by straight lines; epochs may be
    fractions, and two shares at one epoch are a step. `[(0, 0), (10, 1)]` rises over ten epochs, `[(0, 0), (5, 0), (5, 1)]`
    steps up after five. Counts are exact: up to any step, in-distribution batches differ from their share by less than one.
    In an epoch every patient comes at most once, in a batch of either kind. sampler: each cohort as often as it has patients
    (no weights, no balance, last="drop").
    """

    in_one_piece = True

    def __init__(self, sampler: BatchPlanner, share: Sequence[tuple[float, float]]) -> None:
        self.share = _knots(share)
        self._kept: _Epoch | None = None
        super().__init__(
            _proportional(Sampler.of_one_cohort_each(sampler, type(self).__name__)), sampler.pairs, share=self.share
        )

    def steps(self, epoch: int) -> int:
        """Return the number of batches in an epoch, equal on all ranks and for any share."""
        return self.sampler.steps(epoch)

    def plan(self, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> BatchPlan:
        """Return a rank's slice of the global batch at (epoch, step): of one cohort, or mixed with `cohort` None."""
        epoch, step, rank, world_size = self._place(epoch, step, rank, world_size)
        share = self.pairs // world_size
        kept = self._kept
        if kept is None or kept.epoch != epoch:
            kept = self._kept = self._epoch(epoch)  # one assignment: another thread sees the old one or the new one
        before = int(kept.before[step])
        if kept.before[step + 1] > before:
            plan = self.sampler.plan(epoch, int(kept.own[before]), rank, world_size)
            return replace(plan, step=step)
        first = (step - before) * self.pairs + rank * share
        units = self._mixed(epoch, kept.used, first, first + share)
        rows, is_self, offsets = self.sampler._draw(units, epoch)
        adjacent = self.sampler.adjacent
        if adjacent:
            offsets = np.repeat(offsets[:, :1], self.options.views, axis=1)
        patients = self.sampler._roster.patient_of(units)
        return BatchPlan(None, rows, patients, is_self, offsets, epoch, step, self.left_out, adjacent, units)

    def _epoch(self, epoch: int) -> _Epoch:
        steps = self.steps(epoch)
        due = _area(self.share, epoch + np.arange(steps + 1) / max(steps, 1)) * steps
        # From the start of training, not of the epoch: what an epoch cannot give in whole batches goes to the next.
        whole = np.floor(np.round(due - np.floor(due[0]), _EXACT)).astype(np.int64)
        before = whole - whole[0]
        groups, turns = self.sampler._schedule_of(epoch)
        ends = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=len(self.sampler._groups)))])
        # Each cohort's part of the in-distribution batches, rounded up or down at random: a fixed rounding would give the
        # smallest cohorts none in any epoch.
        chance = key_of(self.seed, "ramp", epoch) % max(steps, 1)
        quota = np.diff((ends * before[-1] + chance) // max(steps, 1))
        return _Epoch(epoch, before, np.flatnonzero(turns < quota[groups]), quota * self.pairs)

    def _mixed(self, epoch: int, used: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
        """Return units start .. stop - 1 of all those that the in-distribution batches of an epoch leave."""
        groups = self.sampler._groups
        left = np.array([len(group.units) for group in groups]) - used
        ends = np.cumsum(left)
        places = permuted_range(start, stop, int(ends[-1]), key_of(self.seed, "mixed", epoch))
        at = np.searchsorted(ends, places, side="right")
        within = places - (ends - left)[at] + used[at]
        units = np.empty(len(places), np.int64)
        for number in np.unique(at).tolist():
            group, mine = groups[number], at == number
            # The order in which the cohort's own batches take its patients: theirs come first, these behind them.
            key = key_of(self.seed, "order", group.name, epoch)
            units[mine] = group.units[permute(within[mine], len(group.units), key)]
        return units


def _proportional(sampler: Sampler) -> Sampler:
    if not sampler.is_plain or type(sampler)._order is not Sampler._order:
        raise SpecError(
            f"found {type(sampler).__name__} with weights, temperature, balance, neighbours or last other than 'drop', "
            "expected one without: each of its epochs must be one pass of every cohort in random order."
        )
    sampler.check_people()
    return sampler


def _knots(share: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    try:
        knots = tuple((_number("share", epoch), _number("share", value)) for epoch, value in share)
    except (TypeError, ValueError, SpecError):
        knots = ()
    epochs = [epoch for epoch, _ in knots]
    in_range = all(0 <= epoch < np.inf and 0 <= value <= 1 for epoch, value in knots)
    if not knots or not in_range or epochs != sorted(epochs):
        raise SpecError(
            f"found share={share!r}, expected pairs (epoch, share from 0 to 1) in the order of epochs, "
            "such as [(0, 0), (10, 1)]."
        )
    return knots


def _area(knots: Sequence[tuple[float, float]], epochs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the share from epoch 0: the in-distribution epochs that are due."""
    when, value = (np.array(column) for column in zip((0.0, knots[0][1]), *knots, strict=True))
    before = np.concatenate([[0.0], np.cumsum(np.diff(when) * (value[1:] + value[:-1]) / 2)])
    # The last knot at or before an epoch: at a step up or down, the second of the two.
    at = np.searchsorted(when, epochs, side="right") - 1
    width = np.diff(when, append=when[-1] + 1)
    slope = np.diff(value, append=value[-1]) / np.where(width > 0, width, 1)
    past = epochs - when[at]
    area: NDArray[np.float64] = before[at] + past * (value[at] + slope[at] * past / 2)
    return area
