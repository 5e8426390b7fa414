"""The schedule: the group of each step and its place in that group. Counts are exact in every epoch; nothing is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.samplers.options import Last
from ecgcohorts.samplers.permutation import key_of, permute

_TIE = 9  # decimals: remainders closer than rounding error are equal, so that ties go to the lower cohort index


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


@dataclass(frozen=True)
class Course:
    """The batches of all groups over all epochs: `quota` of each in every epoch, `first_quota` in the first one.

    The first epoch is a shorter one where `pairs` was changed within it.
    """

    streams: tuple[Stream, ...]
    quota: tuple[int, ...]
    first_epoch: int = 0
    first_quota: tuple[int, ...] = ()

    @classmethod
    def of(cls, streams: Sequence[Stream], weights: Sequence[float] | None) -> Self:
        """Plan one pass of each group an epoch. With weights, the same number of batches is divided by them."""
        per_pass = [stream.per_pass for stream in streams]
        quota = per_pass if weights is None else _largest_remainder(weights, sum(per_pass))
        return cls(tuple(streams), tuple(quota))

    def counts(self, epoch: int) -> tuple[int, ...]:
        """Return the number of batches of each group in an epoch."""
        if epoch < self.first_epoch:
            raise IndexError(f"found epoch {epoch}, expected {self.first_epoch} or later.")
        return self.first_quota if epoch == self.first_epoch and self.first_quota else self.quota

    def steps(self, epoch: int) -> int:
        return sum(self.counts(epoch))

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

    def since(self, names: Sequence[str]) -> dict[str, Any] | None:
        """Return the last change of `pairs` as JSON; None if there was none."""
        if self.first_epoch == 0 and not self.first_quota:
            return None
        quota = self.counts(self.first_epoch)
        groups = {
            name: [stream.pass_, stream.cursor, left]
            for name, stream, left in zip(names, self.streams, quota, strict=True)
        }
        return {"epoch": self.first_epoch, "groups": groups}

    def _before(self, epoch: int, group: int) -> int:
        # Nothing was consumed before the course begins; cursors carry what came before it.
        if epoch == self.first_epoch:
            return 0
        return self.counts(self.first_epoch)[group] + (epoch - self.first_epoch - 1) * self.quota[group]


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
