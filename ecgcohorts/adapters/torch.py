"""Batches as torch tensors: int16 as stored, in pinned memory if there is a GPU to copy them to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.utils.data import IterableDataset, get_worker_info

from ecgcohorts.errors import SpecError
from ecgcohorts.loader import MISSING, Batch, Loader
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


def as_tensors(batch: Batch, pin: bool = False) -> TorchBatch:
    """The same memory as tensors, or with `pin` a copy that a GPU can fetch by itself."""
    signal, valid = torch.from_numpy(batch.signal), torch.from_numpy(batch.valid)
    if pin:
        signal, valid = signal.pin_memory(), valid.pin_memory()
    return TorchBatch(signal, batch.lsb_uv, valid, batch.plan)


class TorchBatches(IterableDataset[TorchBatch]):
    """A Loader's batches; iterate it as it stands, or pass it to `DataLoader(..., batch_size=None)`.

    pin: by default, if there is a GPU. Worker processes are refused: the loader reads in threads, which is several times
    faster than handing batches between processes. Has the state of its sampler, under the names by which Lightning and
    torchdata look for it.
    """

    def __init__(self, loader: Loader, pin: bool | None = None) -> None:
        super().__init__()
        self.loader = loader
        self.pin = torch.cuda.is_available() if pin is None else pin

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[TorchBatch]:
        if get_worker_info() is not None:
            raise SpecError(
                "found a DataLoader with worker processes, expected none: each would read every batch. Set num_workers=0."
            )
        for batch in self.loader:
            yield as_tensors(batch, self.pin)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's: behind the last batch handed out."""
        return self.loader.sampler.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on where a run stopped. Raises StateMismatch for the state of another index, seed or option."""
        self.loader.sampler.load_state_dict(saved)
