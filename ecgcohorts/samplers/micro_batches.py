"""Consecutive micro-batches of one draw, for gradient accumulation and for contrastive losses with cached gradients."""

from dataclasses import replace

from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.samplers.options import _integer
from ecgcohorts.samplers.plan import BatchPlan
from ecgcohorts.samplers.planner import BatchPlanner
from ecgcohorts.samplers.wrapper import Wrapper


class MicroBatchSampler(Wrapper[BatchPlanner]):
    """Cut every batch of a sampler into `repeat` micro-batches, handed out in `repeat` steps in a row.

    They have the batch's cohort, and their patients are all different. sampler: plans as many patients as an update of
    the weights, or a contrast, is to see: `pairs` here is its `pairs / repeat`. Classes that `balance` or shares give their
    part of a batch have it over the `repeat` micro-batches together. Raises PlanImpossible if `repeat` does not divide it.
    """

    def __init__(self, sampler: BatchPlanner, repeat: int) -> None:
        repeat = _integer("repeat", repeat, 1)
        if not isinstance(sampler, BatchPlanner) or (isinstance(sampler, Wrapper) and not sampler.in_one_piece):
            raise SpecError(
                f"found {type(sampler).__name__} to cut into micro-batches, expected a sampler it could wrap."
            )
        if sampler.pairs % repeat:
            raise PlanImpossible(
                f"found pairs={sampler.pairs} for repeat={repeat} micro-batches, expected a multiple. "
                f"Set pairs to {sampler.pairs // repeat * repeat or repeat}."
            )
        self.repeat = repeat
        super().__init__(sampler, sampler.pairs // repeat, repeat=repeat)

    def steps(self, epoch: int) -> int:
        """Return the number of micro-batches in an epoch, equal on all ranks."""
        return self.sampler.steps(epoch) * self.repeat

    def plan(self, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> BatchPlan:
        """Return a rank's slice of the micro-batch at (epoch, step). Steps n * repeat to (n + 1) * repeat - 1 belong together."""
        epoch, step, rank, world_size = self._place(epoch, step, rank, world_size)
        batch, part = divmod(step, self.repeat)
        # A micro-batch on a rank is a slice of the batch, as if there were `repeat` times as many ranks.
        plan = self.sampler.plan(epoch, batch, part * world_size + rank, self.repeat * world_size)
        return replace(plan, step=step)
