"""At each step another cohort on every rank, on purpose: batches stay in-distribution only where ranks never meet."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.samplers.base import Sampler
from ecgcohorts.samplers.options import _integer
from ecgcohorts.samplers.permutation import key_of, permute
from ecgcohorts.samplers.plan import BatchPlan
from ecgcohorts.samplers.planner import BatchPlanner
from ecgcohorts.samplers.wrapper import Wrapper


class CohortPerRankSampler(Wrapper[Sampler]):
    """Deal the batches of an in-distribution sampler out to ranks: `ranks` batches a step, of different cohorts if possible.

    sampler: its `pairs` are the patients of one rank, and `pairs` here is `ranks` times as many. A cohort is twice in a step
    only if it has more batches than an epoch has steps, and over an epoch it comes to every rank about equally often.
    Up to ranks - 1 batches of an epoch are left out, others in each. Any number of processes that divides `ranks` sees
    the same global batches, as parts of one cohort each, one after another.
    """

    def __init__(self, sampler: BatchPlanner, ranks: int) -> None:
        self.ranks = ranks = _integer("ranks", ranks, 2)
        self._dealt: tuple[int, NDArray[np.int64]] | None = None
        super().__init__(Sampler.of_one_cohort_each(sampler, type(self).__name__), sampler.pairs * ranks, ranks=ranks)
        if not self.steps(0):
            raise PlanImpossible(
                f"found {sampler.steps(0)} batches an epoch for {ranks} ranks, expected as many or more. Lower pairs."
            )
        self._check_patients()

    def _check_patients(self) -> None:
        """Raise PlanImpossible if one patient could be on two ranks at once."""
        self.sampler.check_people()
        if self.sampler.is_plain:  # two batches of a cohort are of one pass, and have nobody in common
            return
        groups, steps = self.sampler._groups, self.steps(0)
        weights = np.array(self.sampler._weights(groups) or self.sampler._course.quota, np.float64)
        most = weights / weights.sum() * self.sampler.steps(0)
        if most.max() > steps:
            name = groups[int(most.argmax())].name
            raise PlanImpossible(
                f"{name}: found {most.max():.1f} batches an epoch for {steps} steps of {self.ranks} ranks, expected one a step "
                "or fewer: with weights, temperature, balance or last='wrap', two of them may share patients. Use fewer "
                "ranks, or none of these."
            )

    def check_rank(self, rank: int, world_size: int) -> int:
        """Return the number of patients per rank. Raises PlanImpossible if ranks cannot have whole cohorts."""
        if world_size < 1 or self.ranks % world_size:
            raise PlanImpossible(
                f"found ranks={self.ranks} for {world_size} processes, expected a multiple. Set ranks to the number of "
                "processes that train."
            )
        return super().check_rank(rank, world_size)

    def steps(self, epoch: int) -> int:
        """Return the number of steps in an epoch, equal on all ranks."""
        return self.sampler.steps(epoch) // self.ranks

    def plan(self, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> BatchPlan:
        """Return the batches of a rank at (epoch, step); its cohort is None where several processes' worth are joined."""
        epoch, step, rank, world_size = self._place(epoch, step, rank, world_size)
        each = self.ranks // world_size
        mine = self._deal(epoch)[step, rank * each : (rank + 1) * each]
        parts = [self.sampler.plan(epoch, int(number)) for number in mine]
        return replace(
            parts[0],
            cohort=parts[0].cohort if len({part.cohort for part in parts}) == 1 else None,
            rows=np.concatenate([part.rows for part in parts]),
            patients=np.concatenate([part.patients for part in parts]),
            is_self=np.concatenate([part.is_self for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            units=np.concatenate([part.units for part in parts]),
            step=step,
        )

    def _deal(self, epoch: int) -> NDArray[np.int64]:
        """Return which of the wrapped sampler's steps each rank has at each step: [step, rank]."""
        kept = self._dealt
        if kept is None or kept[0] != epoch:
            kept = (epoch, self._dealt_anew(epoch))
            self._dealt = kept  # one assignment: another thread sees the old one or the new one
        return kept[1]

    def _dealt_anew(self, epoch: int) -> NDArray[np.int64]:
        steps, seed = self.steps(epoch), self.seed
        # The wrapped schedule is a random order, so those beyond the last whole step are others in each epoch.
        groups = self.sampler._schedule_of(epoch)[0][: steps * self.ranks]
        count = int(groups.max()) + 1
        place = permute(np.arange(count), count, key_of(seed, "deal cohorts", epoch))
        # Cohort after cohort, dealt like cards: one with no more batches than there are steps never comes twice in a step.
        columns = np.argsort(place[groups], kind="stable").reshape(self.ranks, steps)
        # Along a column the ranks take turns, so a cohort that fills one comes to every rank equally often.
        step = np.arange(steps)
        dealt = np.empty((steps, self.ranks), np.int64)
        first = key_of(seed, "deal ranks", epoch) % self.ranks
        for number, column in enumerate(columns):
            dealt[step, (step + number + first) % self.ranks] = column
        # Cohorts stand in blocks of steps: the order in time is a permutation again.
        return dealt[permute(step, steps, key_of(seed, "deal steps", epoch))]
