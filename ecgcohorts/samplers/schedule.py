"""The schedule: the group of each step and its place in that group. Counts are exact in every epoch; nothing is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.samplers.options import Last
from ecgcohorts.samplers.permutation import key_of, permute

_TIE = 9  # decimals: remainders closer than rounding error are equal, so that ties go to the lower cohort index
_DIGITS = (
    12  # of a weight: 0.1 + 0.2 is 0.3, and the last bits of a power, which machines round differently, do not count
)
_UNIT = 1 << 52  # of a carried share, where the exact fraction has a larger denominator: sums of two fit into 64 bits
_KEPT = 64  # epochs between two places from which carried shares are counted on


@dataclass(frozen=True)
class Stream:
    """The batches of one group, one after another, pass after pass. A pass is one permutation of its patients.

    It begins at patient `cursor` of pass `pass_`: 0 of 0, unless `pairs` was changed in a run under way. A new pass
    starts on a batch boundary, so no batch holds a patient twice.
    """

    patients: int
    pairs: int
    last: Last
    pass_: int = 0
    cursor: int = 0

    def batches(self, patients: int) -> int:
        """Return the number of batches that some patients make."""
        return patients // self.pairs if self.last == "drop" else -(-patients // self.pairs)

    @property
    def per_pass(self) -> int:
        return self.batches(self.patients)

    @property
    def in_first_pass(self) -> int:
        return self.batches(self.patients - self.cursor)

    def locate(self, number: int) -> tuple[int, int]:
        """Return pass and first patient of the batch with this running number."""
        if number < self.in_first_pass:
            return self.pass_, self.cursor + number * self.pairs
        # Closed form: resuming at step 40,000 replays nothing, and any step of any epoch can be planned on its own.
        later, place = divmod(number - self.in_first_pass, self.per_pass)
        return self.pass_ + 1 + later, place * self.pairs

    def after(self, batches: int) -> tuple[int, int]:
        """Return the pass and the first patient left in it after this many batches."""
        if batches == 0:
            return self.pass_, self.cursor
        pass_, start = self.locate(batches - 1)
        # With last="drop" the patients that do not fill a batch wait for the next pass, which has another order.
        left = self.patients - start - self.pairs
        return (pass_, start + self.pairs) if left > 0 and self.batches(left) else (pass_ + 1, 0)


class _Shares:
    """Batches of each group in every epoch by weight, and remainders carried over: after any number of epochs, each group
    has had its exact share of all batches, rounded down or up.

    Every batch of a group has an epoch before which it would be early and one after which it would be late. An epoch gives
    its last places to the groups whose next batch is late soonest, which keeps all in time (earliest deadline first: on
    equal machines that is optimal for jobs of unit length). The largest remainder of each epoch alone never draws a group
    whose remainder is always the smallest; the largest remainder of the sum would take batches back.
    """

    def __init__(self, weights: Sequence[float], total: int) -> None:
        exact = [Fraction(f"{weight:.{_DIGITS}g}") for weight in weights]
        scale = lcm(*(one.denominator for one in exact))
        numbers = [int(one * scale) for one in exact]
        unit = sum(numbers)
        self.total = total
        self.whole = np.array([total * one // unit for one in numbers], np.int64)  # in every epoch
        rest = [total * one % unit for one in numbers]
        self.places = total - int(self.whole.sum())  # left in an epoch, for the groups in turn
        if unit > _UNIT:
            rest = [one * _UNIT // unit for one in rest]
            # What rounding loses, so that the carried shares still add up to the places.
            rest[int(np.argmax(rest))] += self.places * _UNIT - sum(rest)
            unit = _UNIT
        self.unit, self.rest = unit, np.array(rest, np.int64)
        self.period = unit // gcd(unit, *rest)  # epochs after which nothing is carried
        self._known = {0: (np.zeros(len(rest), np.int64), np.zeros(len(rest), np.int64))}
        self._asked: dict[int, NDArray[np.int64]] = {}

    def before(self, epoch: int) -> NDArray[np.int64]:
        """Return each group's number of batches in all epochs before this one."""
        # Every plan asks for the same two epochs.
        if (known := self._asked.get(epoch)) is not None:
            return known
        rounds, left = divmod(epoch, self.period)
        given = np.array([rounds * (self.period * int(one) // self.unit) for one in self.rest], np.int64)
        asked = epoch * self.whole + given + self._carried(left)
        # A new dictionary instead of a smaller one: plans are made in several threads.
        self._asked = {**(self._asked if len(self._asked) < _KEPT else {}), epoch: asked}
        return asked

    def counts(self, epoch: int) -> NDArray[np.int64]:
        return self.before(epoch + 1) - self.before(epoch)

    @property
    def rarely(self) -> NDArray[np.int64]:
        """Epochs in which each group surely has a batch; 1 where every epoch has one, 0 for a share of nothing."""
        late = -(-self.unit // np.maximum(self.rest, 1))
        return np.where(self.whole > 0, 1, np.where(self.rest > 0, late, 0))

    def _carried(self, epochs: int) -> NDArray[np.int64]:
        """Return how many of the places each group had after some epochs of a period."""
        start = epochs - epochs % _KEPT
        while start not in self._known:
            start -= _KEPT
        due, given = self._known[start]
        for epoch in range(start, epochs):
            if epoch % _KEPT == 0:
                self._known[epoch] = due, given
            due = due + self.rest
            late = due >= self.unit
            due = due - late * self.unit
            given = given + late
            # Early batches are not given; of the others, those that would be late soonest, and then those owed most.
            deadline = np.where(due > 0, -(-(self.unit - due) // np.maximum(self.rest, 1)), np.iinfo(np.int64).max)
            chosen = np.lexsort((-due, deadline))[: self.places - int(late.sum())]
            due[chosen] -= self.unit
            given[chosen] += 1
        return given


@dataclass(frozen=True)
class Course:
    """The batches of all groups over all epochs: `quota` of each in every epoch, `first_quota` in the first one.

    The first epoch is a shorter one where `pairs` was changed within it. shares: batches by weight, of which `quota` are
    those of epoch 0.
    """

    streams: tuple[Stream, ...]
    quota: tuple[int, ...]
    first_epoch: int = 0
    first_quota: tuple[int, ...] = ()
    shares: _Shares | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, streams: Sequence[Stream], weights: Sequence[float] | None, carry: bool = True) -> Self:
        """Plan one pass of each group an epoch. With weights, the same number of batches is divided by them.

        carry: remainders go from epoch to epoch; False: every epoch has the same, as in the first version.
        """
        per_pass = [stream.per_pass for stream in streams]
        if weights is None:
            return cls(tuple(streams), tuple(per_pass))
        if not carry:
            return cls(tuple(streams), tuple(_largest_remainder(weights, sum(per_pass))))
        shares = _Shares(weights, sum(per_pass))
        return cls(tuple(streams), tuple(shares.counts(0).tolist()), shares=shares)

    def counts(self, epoch: int) -> tuple[int, ...]:
        """Return the number of batches of each group in an epoch."""
        if epoch < self.first_epoch:
            raise IndexError(f"found epoch {epoch}, expected {self.first_epoch} or later.")
        if epoch == self.first_epoch and self.first_quota:
            return self.first_quota
        return self.quota if self.shares is None else tuple(self.shares.counts(epoch).tolist())

    def steps(self, epoch: int) -> int:
        plain = epoch > self.first_epoch or not self.first_quota
        # Carried or not, weights never change the number of batches.
        return self.shares.total if self.shares and plain and epoch >= self.first_epoch else sum(self.counts(epoch))

    def locate(self, epoch: int, group: int, turn: int) -> tuple[int, int]:
        """Return pass and first patient of the batch that is the `turn`-th of a group in an epoch."""
        return self.streams[group].locate(self._before(epoch, group) + turn)

    def cursor(self, epoch: int, group: int, turns: int) -> tuple[int, int]:
        """Return the pass and the first patient left in it after the first `turns` batches of a group in an epoch."""
        return self.streams[group].after(self._before(epoch, group) + turns)

    def schedule(self, epoch: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the group of every step, and the number of earlier steps of that group in the epoch: two arrays [step]."""
        counts = self.counts(epoch)
        # A permuted multiset: proportions are exact in every epoch. Drawing the group of each step would keep them only on
        # average, and some epochs would miss a small cohort.
        steps = sum(counts)
        labels = np.repeat(np.arange(len(counts)), counts)
        if steps == 0:
            return labels, labels
        group = labels[permute(np.arange(steps), steps, key_of(seed, "schedule", epoch))]
        turn = np.empty_like(group)
        turn[np.argsort(group, kind="stable")] = np.arange(steps) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
        return group, turn

    def _before(self, epoch: int, group: int) -> int:
        # Nothing was consumed before the course begins; cursors carry what came before it.
        if epoch == self.first_epoch:
            return 0
        first = self.first_quota[group] if self.first_quota else self.quota[group]
        if self.shares is not None:
            begin = self.first_epoch + 1 if self.first_quota else self.first_epoch
            since = self.shares.before(epoch)[group] - self.shares.before(begin)[group]
            return int(since) + (first if self.first_quota else 0)
        return first + (epoch - self.first_epoch - 1) * self.quota[group]


def _largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Split `total` in proportion to weights, in whole numbers; ties in the remainder go to the lower place."""
    # Largest remainder (Hamilton): exact counts that sum to the total, and within one of the ideal.
    shares = np.asarray(weights, np.float64) / np.sum(weights) * total
    # Rounded before the floor, or 2.9999999999999996 batches would be 2.
    shares = np.round(shares, _TIE)
    counts = np.floor(shares).astype(np.int64)
    # Stable, so that equal remainders go to the lower place on every platform.
    order = np.argsort(-np.round(shares - counts, _TIE), kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts.tolist()
