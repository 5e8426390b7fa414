"""Batches as torch tensors: int16 as stored, in pinned memory if there is a GPU to copy them to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Batch, Loader
from ecgcohorts.recording import MISSING
from ecgcohorts.samplers import BatchPlan


@dataclass(frozen=True, eq=False)
class TorchBatch:
    """signal: int16 [batch, view, lead, time], one step = lsb_uv microvolts, -32768 = no sample. valid: int32 [batch, view]."""

    signal: torch.Tensor
    lsb_uv: float
    valid: torch.Tensor
    plan: BatchPlan

    def to(self, device: torch.device | str) -> Self:
        """The batch on a device; the copy runs beside the computation if the memory is pinned."""
        signal, valid = (tensor.to(device, non_blocking=True) for tensor in (self.signal, self.valid))
        return type(self)(signal, self.lsb_uv, valid, self.plan)

    def millivolts(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The signal in mV on its device, 0 where there is no sample."""
        return self.signal.masked_fill(self.signal == MISSING, 0).to(dtype) * (self.lsb_uv / 1000)


def pinned(shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Memory that a GPU fetches from by itself, as a Loader's `memory`; torch keeps it for reuse until a copy is done."""
    array: NDArray[np.int16] = torch.empty(shape, dtype=torch.int16, pin_memory=True).numpy()
    return array


def as_tensors(batch: Batch) -> TorchBatch:
    """The same memory as tensors."""
    return TorchBatch(torch.from_numpy(batch.signal), batch.lsb_uv, torch.from_numpy(batch.valid), batch.plan)


class TorchBatches(IterableDataset[TorchBatch]):
    """A Loader's batches; iterate it as it stands, or pass it to `DataLoader(..., batch_size=None)`.

    pin: batches are made in pinned memory; by default, if there is a GPU. Worker processes are refused: the loader reads in
    threads, which is several times faster than handing batches between processes. Has the state of its sampler, under the
    names by which Lightning and torchdata look for it.
    """

    def __init__(self, loader: Loader, pin: bool | None = None) -> None:
        super().__init__()
        self.loader = loader
        if torch.cuda.is_available() if pin is None else pin:
            loader.memory = pinned

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[TorchBatch]:
        if get_worker_info() is not None:
            raise SpecError(
                "found a DataLoader with worker processes, expected none: each would read every batch. Set num_workers=0."
            )
        for batch in self.loader:
            yield as_tensors(batch)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's: behind the last batch handed out."""
        return self.loader.sampler.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where a run stopped. Raises StateMismatch for the state of another index, seed or option."""
        self.loader.sampler.load_state_dict(saved)
