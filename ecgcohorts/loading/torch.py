"""Batches as torch tensors, and samplers inside torch's DataLoader, on every rank and with exact resume."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import BatchSampler as TorchBatchSampler
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING, Unit
from ecgcohorts.samplers import BatchPlan

if TYPE_CHECKING:
    from ecgcohorts.samplers.planner import BatchPlanner


@dataclass(frozen=True, eq=False)
class TorchBatch:
    """A batch as tensors.

    signal: int16 [batch, view, lead, time], one step = lsb_uv microvolts, -32768 = no sample. valid: int32 [batch, view].
    Where `unit` is none, a step is lsb_uv thousandths of a number without a unit.
    """

    signal: torch.Tensor
    lsb_uv: float
    valid: torch.Tensor
    plan: BatchPlan
    unit: Unit = "mV"

    def to(self, device: torch.device | str) -> Self:
        """Copy the batch to a device. From pinned memory the copy runs in parallel with the computation."""
        signal, valid = (tensor.to(device, non_blocking=True) for tensor in (self.signal, self.valid))
        return type(self)(signal, self.lsb_uv, valid, self.plan, self.unit)

    def millivolts(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return the signal in mV on its device, 0 where there is no sample. Raises SpecError if it has no unit."""
        if self.unit != "mV":
            raise SpecError(
                "found a batch of numbers without a unit, expected voltages. Take values(), and scale them."
            )
        return self.values(dtype)

    def values(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return the signal in its `unit` on its device, 0 where there is no sample."""
        return self.signal.masked_fill(self.signal == MISSING, 0).to(dtype) * (self.lsb_uv / 1000)


def pinned(shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Make pinned memory, from which a GPU copies by itself. Pass this to a Loader as `memory`."""
    # torch's own allocator gives pinned memory back for reuse only once the copies from it are done.
    array: NDArray[np.int16] = torch.empty(shape, dtype=torch.int16, pin_memory=True).numpy()
    return array


class TorchBatches(IterableDataset[TorchBatch]):
    """A Loader's batches as tensors. Iterate over it, or pass it to `DataLoader(..., batch_size=None)`.

    pin: make batches in pinned memory; by default, if there is a GPU. Worker processes are refused: the loader reads in
    threads, which is several times faster than passing batches between processes. `state_dict` and `load_state_dict` are
    those of the sampler, under the names that Lightning and torchdata look for. Where torch.distributed has several
    ranks, the loader must have been given its own: accelerate and Ray do not cut these batches.
    """

    def __init__(self, loader: Loader, pin: bool | None = None) -> None:
        super().__init__()
        self.loader = loader
        if torch.cuda.is_available() if pin is None else pin:
            loader.memory = pinned

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[TorchBatch]:
        # Not in __init__: a DataLoader makes its workers only when it is iterated.
        if get_worker_info() is not None:
            raise SpecError("Each worker process of this DataLoader would read every batch. Set num_workers=0.")
        rank, world_size = _process()
        if world_size > 1 and self.loader.world_size == 1:
            raise SpecError(
                f"found a loader of whole batches on rank {rank} of {world_size}, expected one of each rank's share. "
                "Pass rank=torch.distributed.get_rank(), world_size=torch.distributed.get_world_size() to ec.Loader. Give "
                "accelerate the TorchBatches themselves: it would join the batches of a DataLoader."
            )
        for batch in self.loader:
            signal, valid = torch.from_numpy(batch.signal), torch.from_numpy(batch.valid)  # the same memory
            yield TorchBatch(signal, batch.lsb_uv, valid, batch.plan, batch.unit)

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state after the last batch handed out."""
        return self.loader.sampler.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a run stopped. Raises StateMismatch for the state of another index, seed or option."""
        self.loader.sampler.load_state_dict(saved)


class BatchSampler(TorchBatchSampler):
    """A sampler's batches on this rank, as the subclass of torch's that trainers look for: lists of row numbers.

    Pass it to `DataLoader(dataset, batch_sampler=...)`. rank, world_size: by default those of torch.distributed once that
    is initialised, else the sampler's. Give world_size=1 where a framework cuts batches itself (accelerate with
    split_batches=True). batch_size is the number of rows of this rank. Epochs advance by themselves. The sampler given is
    copied, so that position and state are those of this object: move this one, not that. Moved within an iteration, it goes
    on from the new place, but what worker processes have made ahead comes first; a StatefulLoader drops that. Raises
    PlanImpossible if the ranks cannot share batches.
    """

    # `others`: what torch's class takes and a trainer gives that tries to build ours anew around a sampler of its own.
    def __init__(
        self, sampler: "BatchPlanner", rank: int | None = None, world_size: int | None = None, **others: Any
    ) -> None:
        if others or not hasattr(sampler, "plan"):
            raise SpecError(
                f"found {', '.join([type(sampler).__name__, *others])}, expected a sampler of ecgcohorts alone. If a trainer "
                "puts in its own, wrap the DataLoader in StatefulLoader, or set use_distributed_sampler=False in Lightning."
            )
        if (rank is None) != (world_size is None) and world_size != 1:
            raise SpecError(f"found rank={rank} with world_size={world_size}, expected both or neither.")
        given = (rank or 0, world_size) if world_size is not None else (sampler.rank, sampler.world_size)
        self._given = None if given == (0, 1) and world_size is None else given
        self._plans = sampler.on_rank(*given)
        self._counted = False  # by a StatefulLoader
        self._used = (
            -1,
            0,
        )  # batches that the loop has had, where they are counted, and since which move of the sampler
        self._cut()

    def _cut(self) -> None:
        """Take the rank's share. Again at every iteration: Lightning starts its processes after loaders are built."""
        self._plans.rank, self._plans.world_size = rank, world_size = self._given or _process()
        self._plans.check_rank(rank, world_size)
        self.batch_size, self.drop_last = self._plans.batch_size, self._plans.drop_last

    @property
    def sampler(self) -> Self | None:  # type: ignore[override]
        """This object, because Lightning and accelerate call `batch_sampler.sampler.set_epoch`; None in a StatefulLoader."""
        # A checkpoint that Lightning makes after max_steps counts the epoch it broke off as done: what is left of it would
        # be skipped.
        return None if self._counted else self

    def __len__(self) -> int:
        """Return the number of batches in the current epoch, equal on all ranks."""
        return len(self._plans)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of the batches left in the epoch, view fastest, as iteration over the sampler does."""
        self._cut()
        for rows in self._plans:
            yield rows.tolist()

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and step of the next batch: behind the last handed out, or, in a StatefulLoader, the last that the loop had."""
        saved = self.state_dict()
        return saved["epoch"], saved["step"]

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, as the sampler's `set_epoch` does.

        An iteration that began at the start of this epoch just goes on, where no StatefulLoader counts.
        """
        begun, moves = self._plans._begun, self._plans._moves
        self._plans.set_epoch(epoch)
        # Lightning sets its first epoch after it has made the iterator, whose workers have taken batches: none comes twice.
        if begun == self._plans.position and not self._counted:
            self._plans._begun, self._plans._moves = begun, moves

    def restart(self) -> None:
        """Go back to the first batch of the current epoch."""
        self._plans._move((self.position[0], 0))

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Return the state after so many batches of the iteration in progress; by default, after the last handed out.

        Worker processes are handed batches ahead of the training loop: there, the loop has to say how many it used, or
        StatefulLoader does. 0 after an iteration that has ended is none of the next one. Raises ValueError for more than were
        handed out.
        """
        moves, used = self._used
        if consumed is None and moves == self._plans._moves:
            return self._plans._state_at(self._plans._after(used))
        return self._plans.state_dict(consumed)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a run stopped. Raises StateMismatch for the state of another index, seed or option."""
        self._plans.load_state_dict(saved)


class StatefulLoader:
    """A DataLoader that knows how many batches the training loop has had, however many its workers read ahead.

    loader: a DataLoader, or a subclass, with `batch_sampler=BatchSampler(...)`. `state_dict` is the state behind the last
    batch handed to the loop. Where `load_state_dict`, `set_epoch` or `restart` moves it within a loop, the loop goes on from
    there, and what workers have made ahead is dropped. One iteration at a time: a newer one ends the older. It is no DataLoader, so that accelerate and Lightning leave it as it is instead of putting in
    a sampler of theirs; what else they ask for is looked up in the DataLoader.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        batch_sampler = getattr(loader, "batch_sampler", None)
        if not isinstance(batch_sampler, BatchSampler):
            raise SpecError(
                f"found a loader whose batch_sampler is {type(batch_sampler).__name__}, expected "
                "ecgcohorts.loading.torch.BatchSampler. Wrap the DataLoader you built, and do not let a framework prepare it."
            )
        self.loader, self._batches = loader, batch_sampler
        batch_sampler._counted = True
        self._newest = object()  # what the latest iteration is known by

    def __getattr__(self, name: str) -> Any:
        # Before __init__, as when it is copied, there is no loader to ask.
        if name.startswith("__") or "loader" not in self.__dict__:
            raise AttributeError(name)
        # Ray Train reads these two when it builds a loader anew, and would do so without our sampler and without a word.
        if name in ("batch_size", "drop_last"):
            raise AttributeError(
                f"found a request for the {name} of a StatefulLoader, whose batches are cut already. Leave out what makes "
                "another loader of it, such as prepare_data_loader of Ray Train."
            )
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches left in the epoch. After a loop that broke off, go on behind the last batch it had.

        Raises SpecError in an iteration that goes on after a newer one has begun.
        """
        this = self._newest = object()
        while True:
            yield from self._until_moved(this)
            moves, _ = self._batches._used
            if moves == self._batches._plans._moves:
                return

    def _until_moved(self, this: object) -> Iterator[Any]:
        """Yield batches to the end of the epoch, or until somebody moves the sampler."""
        batches, plans = self._batches, self._batches._plans
        plans._move(batches.position)
        moves = plans._moves
        batches._used = (moves, 0)
        for used, batch in enumerate(self.loader, start=1):
            # Before the hand-over: code after a yield does not run until the next batch is asked for.
            batches._used = (moves, used)
            yield batch
            if self._newest is not this:
                raise SpecError(
                    "found an iteration of a StatefulLoader that goes on after a newer one has begun, expected one at a "
                    "time. Make a StatefulLoader, with a BatchSampler of its own, for each."
                )
            if plans._moves != moves:
                return

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, as the sampler's `set_epoch` does."""
        self._batches.set_epoch(epoch)

    def restart(self) -> None:
        """Go back to the first batch of the epoch that the loop is in."""
        self._batches.restart()

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and step of the batch that the loop has next."""
        return self._batches.position

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last batch handed to the training loop: plain JSON."""
        return self._batches.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a run stopped. Raises StateMismatch for the state of another index, seed or option."""
        self._batches.load_state_dict(saved)


def _process() -> tuple[int, int]:
    """Return rank and number of processes of torch.distributed; (0, 1) where it is not initialised."""
    there = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if there else (0, 1)
