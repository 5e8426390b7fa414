"""Batches as torch tensors: int16 as stored, in pinned memory if there is a GPU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING, Unit
from ecgcohorts.samplers import BatchPlan


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
    those of the sampler, under the names that Lightning and torchdata look for.
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
        for batch in self.loader:
            signal, valid = torch.from_numpy(batch.signal), torch.from_numpy(batch.valid)  # the same memory
            yield TorchBatch(signal, batch.lsb_uv, valid, batch.plan, batch.unit)

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state after the last batch handed out."""
        return self.loader.sampler.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a run stopped. Raises StateMismatch for the state of another index, seed or option."""
        self.loader.sampler.load_state_dict(saved)
