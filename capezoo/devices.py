"""Devices: which one a word names, how exact its float32 products are, and numbers on their way back to the host."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ecgcohorts.errors import SpecError


def _device_named(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:N` names; auto: a GPU if there is one, else the CPU.

    Of several processes that torchrun started, each gets the GPU of its own. Raises SpecError for another word, or a GPU
    that is not there.
    """
    # Apple's GPUs are never taken: they have no float64, and nothing here was tried on one.
    on_gpu = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not on_gpu):
        return torch.device("cpu")
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cuda") or (colon and (kind == "auto" or not number.isdecimal())):
        raise SpecError(f"found device {name!r}, expected auto, cpu, cuda or cuda:N.")
    if not on_gpu:
        raise SpecError(f"found device {name!r} and no GPU that torch can use. Take cpu, or install torch for this machine's CUDA.")  # fmt: skip
    place, count = int(number or os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise SpecError(
            f"found device {name!r} for GPU {place}, expected one of {count}. Name another, or start fewer processes."
        )
    return torch.device("cuda", place)


@contextmanager
def _float32_products(tf32: bool, device: torch.device) -> Iterator[None]:
    """TF32 or full float32 for matrix products and convolutions on a GPU; what was set before comes back."""
    if device.type != "cuda":
        yield
        return
    # All of it is global to the process: whoever called us keeps what they had set.
    backends = torch.backends
    new = [(one, "fp32_precision") for one in _operators()]
    old: list[tuple[Any, str]] = [(backends.cudnn, "allow_tf32")]
    # The older switches raise where the caller has used the newer ones; those may be read in any case.
    before = [(owner, name, _readable(owner, name)) for owner, name in (*old, *new)]
    products = _asked(torch.get_float32_matmul_precision)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    backends.cudnn.allow_tf32 = tf32
    # After the older ones, which do not reach a backend that the newer ones have set.
    for owner, name in new:
        setattr(owner, name, "tf32" if tf32 else "ieee")
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for owner, name, value in before:
            if value is not None:
                setattr(owner, name, value)


def _operators() -> list[Any]:
    """Where torch 2.9 and newer keep a precision for each kind of product; nothing in an older torch."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # mkldnn too: the older switch sets its products along with those of a GPU.
    found = [cuda, *(getattr(cudnn, name, None) for name in ("conv", "rnn")), getattr(torch.backends.mkldnn, "matmul", None)]  # fmt: skip
    return [one for one in found if one is not None and _readable(one, "fp32_precision") is not None]


def _readable(owner: Any, name: str) -> Any:
    return _asked(lambda: getattr(owner, name))


def _asked(ask: Callable[[], Any]) -> Any:
    """Return an answer of torch, or None where it refuses to give one."""
    try:
        return ask()
    # AttributeError: an older torch. RuntimeError: older and newer switches contradict each other.
    except (AttributeError, RuntimeError):
        return None


class _Arriving:
    """A tensor on its way to the host: it is waited for when it is asked for, and later work on the device is not."""

    def __init__(self, tensor: Tensor, device: torch.device) -> None:
        """device: where the tensor is."""
        self._here, self._arrived = tensor, None
        if device.type == "cuda":
            # Into page-locked memory, or the copy would wait; `tolist` alone would wait for all that is queued behind it.
            self._here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._here.copy_(tensor, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(device))

    def wait(self) -> Tensor:
        """Return the tensor on the host."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._here
