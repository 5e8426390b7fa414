"""Where a run is computed and how: processes, precision, BatchNorm across processes, batches on their way to the GPU."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from numpy.typing import NDArray
from torch import Tensor, nn

from capezoo import views
from capezoo.devices import _float32_products
from capezoo.specs import ComputeSpec, InputSpec, derive_seed
from capezoo.training.data import TrainingData
from capezoo.views import Drawn, Statistics, View
from ecgcohorts.errors import SpecError
from ecgcohorts.loading.torch import pinned

if TYPE_CHECKING:
    from ecgcohorts.loading.loader import Batch, Memory
    from ecgcohorts.samplers import BatchPlan


def start(spec: ComputeSpec, stall_s: float = 600.0) -> Fabric:
    """One process, or those that torchrun started, on any number of nodes; GPUs if there are any."""
    # Set by torchrun, absent without it.
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    # Longer than our own watch, which names the process that stands still: torch's end says only that one does.
    limit = timedelta(seconds=2 * stall_s + 60)
    strategy = DDPStrategy(timeout=limit) if world > 1 else "auto"
    # Named, not "auto": that takes Apple's GPUs, which have no float64, and to which no batch would be brought.
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(
        accelerator=kind, strategy=strategy, devices=local, num_nodes=world // local, precision=spec.precision
    )
    # Joins the process group; with one process it does nothing.
    fabric.launch()
    return fabric


@contextmanager
def _computing(spec: ComputeSpec, device: torch.device) -> Iterator[None]:
    """Let a GPU round products as `spec` says and choose the fastest convolutions; what was set before comes back."""
    before = torch.backends.cudnn.benchmark
    # Each shape is timed once, and the shapes of a run are fixed.
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        with _float32_products(spec.tf32, device):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


def _share_norms(model: nn.Module, spec: ComputeSpec, device: torch.device, world_size: int) -> None:
    """Let BatchNorm layers use the statistics of all processes' batches, if asked to.

    Raises SpecError where that is impossible: torch synchronises them on GPUs only, and compiles none that it does. Raises
    it, too, where statistics per cohort are asked for and cannot be had.
    """
    # The private base class is what torch itself asks for when it converts them.
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if spec.batch_norm == "per_cohort":
        _require_separable(spec, bool(norms))
        return
    if world_size == 1 or spec.batch_norm == "local" or not norms:
        return
    if device.type != "cuda":
        raise SpecError(
            f"found compute.batch_norm='sync' with {world_size} processes on a {device.type}, expected GPUs. Set "
            "compute.batch_norm=local (statistics of each process's share of a batch), or use one process."
        )
    # torch leaves its compiled code at each of these layers and fails at some: pytorch/pytorch 161302, 107372.
    if spec.compile:
        raise SpecError(
            f"found compute.compile=true with compute.batch_norm='sync' and {world_size} processes, expected one or the "
            "other: torch does not compile BatchNorm across processes. Set compute.compile=false, or "
            "compute.batch_norm=local (statistics of each process's share of a batch)."
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place, for all but the outermost module


def _require_separable(spec: ComputeSpec, has_norms: bool) -> None:
    """Raise SpecError if statistics per cohort would change nothing, or be lost in compiled code."""
    if not has_norms:
        raise SpecError(
            "found compute.batch_norm='per_cohort' and a network without BatchNorm, expected one with it. Drop the "
            "setting: nothing here looks at the other ECGs of a batch."
        )
    # Compiled for the layers as they are without groups, and again for every number of cohorts in a batch.
    if spec.compile:
        raise SpecError(
            "found compute.compile=true with compute.batch_norm='per_cohort', expected one or the other. Set "
            "compute.compile=false."
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global generators start from `seed` inside, for layers such as dropout that know no other, and go back after."""
    on_gpu = device.type == "cuda"
    # Dropout reads the global generator; this is the only place that touches it, and it is put back.
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A batch on the device, as stored, with what is to be done to it there."""

    plan: "BatchPlan"
    signal: Tensor  # int16 (group, view, lead, time), this rank's share
    valid: Tensor  # int32 (group, view), samples present
    group: Tensor  # int64 (group,), whose they are
    lsb_uv: float
    statistics: Statistics | None  # of each lead, (group, view, lead), for scalings that need them
    of: InputSpec
    views: Sequence[View]
    drawn: list[Drawn]
    number: int  # the step, or which held-out batch it is
    generator: torch.Generator  # for what the objective draws
    sampler: dict[str, Any]  # state of the sampler once this batch is used

    def fields(self, total_steps: int) -> dict[str, Any]:
        """Return the fields of an objective's ViewBatch."""
        steps = {"step": self.number, "total_steps": total_steps}
        whose = {"valid": self.valid, "group": self.group, "cohort": self.plan.cohort}
        return {"signal": self.perturbed(), "generator": self.generator, **whose, **steps}

    def scaled(self) -> Tensor:
        """float32 (group, view, lead, time), before any view."""
        return self.of.scaled(self.signal, self.lsb_uv, self.statistics)

    def perturbed(self) -> Tensor:
        """float32 (group, view, lead, time), scaled and perturbed: computed where the signal is."""
        return views.apply(self.views, self.scaled(), self.drawn)


class Courier:
    """Brings batches to the device. On a GPU copies run beside computing: page-locked memory, a stream of their own."""

    def __init__(self, data: TrainingData, fabric: Fabric) -> None:
        config = data.config
        self._data, self._config, self._device = data, config, fabric.device
        self._views = views.build(config.views, config.input)
        data.lead_statistics(data.sampler.rows[:1])  # now, if the store has none of what the scaling needs
        self._rank, self._world = fabric.global_rank, fabric.world_size
        self._stream = torch.cuda.Stream(fabric.device) if fabric.device.type == "cuda" else None

    @property
    def memory(self) -> "Memory | None":
        """What the loader should make batches in: page-locked memory, which a GPU fetches from by itself."""
        return pinned if self._stream is not None else None

    def send(self, batch: "Batch", use: str, number: int, sampler: dict[str, Any] | None = None) -> _Loaded:
        """Begin to copy a batch. use, number: key of the seed of its views, which are drawn for the batch of all ranks."""
        rows, n_views, leads, length = batch.signal.shape
        # Views are drawn for the whole batch, so that any number of ranks sees the same; an objective draws for its rows.
        drawing, own = (
            torch.Generator().manual_seed(derive_seed(self._config.seed, use, number, *key))
            for key in ((), (self._rank,))
        )
        drawn = views.draw(self._views, (rows * self._world, n_views, leads, length), drawing)
        drawn = views.part(drawn, self._rank, self._world)
        known = self._data.lead_statistics(batch.plan.rows) or ()
        tensors = [torch.from_numpy(array) for array in (batch.signal, batch.valid, batch.plan.patients, *known)]
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                tensors, drawn = [self._copy(tensor) for tensor in tensors], views.mapped(self._copy, drawn)
        signal, valid, group, *both = tensors
        statistics = (both[0], both[1]) if both else None
        return _Loaded(
            batch.plan,
            signal,
            valid,
            group,
            batch.lsb_uv,
            statistics,
            self._config.input,
            self._views,
            drawn,
            number,
            own,
            sampler or {},
        )

    def refuse_removed(self) -> None:
        """Raise StoreError if a patient was removed from the store since the run opened it."""
        self._data.store.refuse_removed()

    def windows(self, rows: NDArray[np.int64], signal: NDArray[np.int16]) -> Tensor:
        """Bring windows (record, lead, time) of some rows to the device, scaled and unaltered."""
        known = self._data.lead_statistics(rows) or ()
        stored, *both = (torch.from_numpy(array).to(self._device) for array in (signal, *known))
        statistics = (both[0], both[1]) if both else None
        return self._config.input.scaled(stored, self._data.store.recipe.lsb_uv, statistics)

    def arrived(self, loaded: _Loaded) -> _Loaded:
        """Make the device wait for the copy; the host does not."""
        if self._stream is not None:
            here = torch.cuda.current_stream(self._device)
            # A wait in the queue of the device: Python goes on.
            here.wait_stream(self._stream)
            drawn = [tensor for one in loaded.drawn for tensor in one.values()]
            for tensor in (loaded.signal, loaded.valid, loaded.group, *(loaded.statistics or ()), *drawn):
                tensor.record_stream(here)  # its memory is not given away while computing needs it
        return loaded

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self._device, non_blocking=True)  # nothing to pin where the loader did


class Feed:
    """Training batches on the device, the next one fetched while the device computes."""

    def __init__(self, batches: Generator["Batch", None, None], courier: Courier, state: Callable[[], dict[str, Any]]):
        """state: of the sampler, which counts a batch as used when the loader hands it out."""
        self._batches, self._courier, self._state = batches, courier, state
        self._next: _Loaded | None = None
        self.waited_s = 0.0  # for the loader, in all

    def fetch(self, step: int) -> None:
        """Wait for the loader's next batch, that of `step`, and send it."""
        # What the loader takes longer than the device is the share that faster reading could win.
        asked = time.perf_counter()
        batch = next(self._batches)
        self.waited_s += time.perf_counter() - asked
        self._next = self._courier.send(batch, "views", step, self._state())

    def take(self, step: int) -> _Loaded:
        """The batch of `step`, which is the one fetched last; fetched now if none was."""
        if self._next is None:
            self.fetch(step)
        assert self._next is not None
        self._courier.refuse_removed()  # it was fetched a step ago
        loaded, self._next = self._courier.arrived(self._next), None
        return loaded
