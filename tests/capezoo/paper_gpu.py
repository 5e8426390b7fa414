"""A GPU of paper: what is asked of a GPU is noted and done on the CPU, so that its path runs where there is none."""

from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class PaperGpu(TorchFunctionMode):
    """Inside it, tensors sent to `cuda` stay where they are. `asked` counts what a real one would have been asked."""

    def __init__(self, gpus: int = 1) -> None:
        super().__init__()
        self.gpus, self.asked = gpus, Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if kwargs.pop("pin_memory", False):
            self.asked["page-locked"] += 1
        if name == "pin_memory":
            self.asked["pinned"] += 1
            return args[0]
        if name in ("to", "copy_") and kwargs.get("non_blocking"):
            self.asked["copies that do not wait"] += 1
        args = [_on_cpu(one) for one in args]
        return func(*args, **{key: _on_cpu(value) for key, value in kwargs.items()})

    def install(self, monkeypatch) -> None:
        """Let torch.cuda tell of this GPU. Threads do not see a mode, so page-locked batches are made by numpy."""
        event = lambda *args, **kwargs: SimpleNamespace(record=self._note("events"), synchronize=self._note("waits"))  # noqa: E731
        stream = lambda *args, **kwargs: SimpleNamespace(wait_stream=self._note("streams that wait"))  # noqa: E731
        stands_in = {
            "is_available": lambda: True,
            "device_count": lambda: self.gpus,
            "get_device_name": lambda *args: "paper",
            "manual_seed": lambda seed: None,
            "get_rng_state": lambda *args: torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": lambda *args: None,
            "current_stream": stream,
            "Stream": stream,
            "Event": event,
            "stream": lambda one: nullcontext(),
        }
        for name, value in stands_in.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.Tensor, "record_stream", self._note("memory kept for a stream"))

    def pinned(self, shape):
        """Stand in for ecgcohorts.loading.torch.pinned."""
        self.asked["page-locked batches"] += 1
        return np.empty(shape, np.int16)

    def _note(self, what):
        return lambda *args: self.asked.update([what])


def _on_cpu(value):
    is_gpu = isinstance(value, torch.device) and value.type == "cuda"
    return CPU if is_gpu or (isinstance(value, str) and value.startswith("cuda")) else value
