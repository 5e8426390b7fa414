"""What several processes need of each other: one gather that carries gradients. One process needs no set-up."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from ecgcohorts.errors import SpecError


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    # `is_initialized` is there only where torch was built with distributed.
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _join() -> tuple[int, int, Callable[[], object]]:
    """Join the processes that torchrun started, if it did. Returns this one's rank, their number, and what waits for all."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, lambda: None
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    # A group of its own: whoever is done early waits for the others, longer than the minutes of the caller's group.
    patient = dist.new_group(timeout=timedelta(days=7), backend="gloo")
    return rank(), world_size(), lambda: dist.barrier(patient)  # type: ignore[arg-type]


def _require_alone(what: str, instead: str) -> None:
    """Raise SpecError if torchrun started several of this process."""
    if (number := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise SpecError(f"{what}: found {number} processes of torchrun, expected one. {instead}")


def leave() -> None:
    """End the process group, if there is one: the last thing a process that trained does."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gather(local: Tensor) -> Tensor:
    """Rows of all ranks in rank order, (rows, ...) -> (world_size * rows, ...), with gradient to every rank.

    Each rank computes its own loss from everybody's rows; backward sums those losses' gradients for the local rows.
    Averaging parameter gradients over ranks, as DDP does, then gives the gradient of the mean loss exactly.
    """
    if world_size() == 1:
        return local
    rows: Tensor = _Gather.apply(local)
    return rows


class _Gather(torch.autograd.Function):
    """torch.distributed.all_gather has no gradient; the one in torch.distributed.nn is deprecated for some backends."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        everyone = [torch.empty_like(local) for _ in range(world_size())]
        # all_gather asks for as many rows on every rank: a batch that does not divide is refused before.
        dist.all_gather(everyone, local.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # A copy, because all_reduce writes into its argument and the gradient is autograd's.
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]
