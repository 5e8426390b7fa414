"""Run an encoder over windows, to get features or what its BatchNorm layers need. Only this module switches modes and devices."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 256  # windows at once; 23 MB of input, some 1.5 GB of activations in cape_resnet


def features(model: "nn.Module", windows: NDArray[np.float32], device: str | None = None) -> NDArray[np.float32]:
    """Embed (window, lead, time), scaled, as (window, num_features), in evaluation mode, before any classifier.

    device: as in `_features`.
    """
    found = np.empty((len(windows), int(model.num_features)), np.float32)  # type: ignore[arg-type]
    blocks = (windows[first : first + BATCH] for first in range(0, len(windows), BATCH))
    for place, block in enumerate(_features(model, blocks, device)):
        found[place * BATCH : place * BATCH + len(block)] = block
    return found


def estimate_batch_norm(
    model: "nn.Module", blocks: Iterable[NDArray[np.float32]], device: str | None = None
) -> "nn.Module":
    """Set the running statistics of all BatchNorm layers to those of these windows, in place; return the model.

    blocks: (window, lead, time), scaled; each counts by its windows. One pass without labels or gradients and without
    dropout: the same blocks give the same statistics. A model without such layers is left as it is, and no block is read.
    device: as in `_features`. Raises SpecError if there are no windows.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from capezoo.devices import _device_named, _float32_products

    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not norms:
        return model
    home, momenta, seen = next(model.parameters()).device, [layer.momentum for layer in norms], 0
    there = home if device is None else _device_named(device)
    with _placed(model, home, there), _evaluation(model):
        for layer in norms:
            layer.reset_running_stats()
            layer.train()
        try:
            for block in blocks:
                seen += len(block)
                for layer in norms:
                    # The mean of all blocks so far. With momentum=None a short last block would count as much as a whole one.
                    layer.momentum = len(block) / seen
                with torch.inference_mode(), _float32_products(False, there):
                    x = torch.from_numpy(np.ascontiguousarray(block, np.float32)).to(there)
                    model.forward_features(x)  # type: ignore[operator]
        finally:
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum
    if not seen:
        raise SpecError("found no window to estimate BatchNorm statistics on, expected some. Give recordings.")
    return model


def _has_batch_norm(model: "nn.Module") -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(layer, _BatchNorm) and layer.track_running_stats for layer in model.modules())


def _features(
    model: "nn.Module", blocks: Iterable[NDArray[np.float32]], device: str | None = None, pooled: bool = True
) -> Iterator[NDArray[np.float32]]:
    """Embed windows block by block, in float32 without TF32. On a GPU a block is on its way while the next is computed.

    pooled: features (window, unit), or what stands before the pooling, of an encoder (window, channel, token). device: auto, cpu, cuda or cuda:N; the model comes back from there. None: where the model is. Mode and device are
    the model's own again while a block is handed out.
    """
    import torch

    from capezoo.devices import _Arriving, _device_named, _float32_products

    home = next(model.parameters()).device
    there = home if device is None else _device_named(device)
    on_gpu = there.type == "cuda"
    before: _Arriving | None = None
    with _placed(model, home, there):
        for block in blocks:
            x = torch.from_numpy(np.ascontiguousarray(block, np.float32))
            # Entered anew for each block: a generator that waits inside would switch the mode of its caller too.
            with torch.inference_mode(), _float32_products(False, there), _evaluation(model):
                x = x.pin_memory().to(there, non_blocking=True) if on_gpu else x.to(there)
                found = model.forward_features(x)  # type: ignore[operator]
                if pooled:
                    # timm's name for `without the classifier`; the model may have one.
                    found = model.forward_head(found, pre_logits=True)  # type: ignore[operator]
                now = _Arriving(found.float(), there)
            if before is not None:
                yield before.wait().numpy()
            before = now
        if before is not None:
            yield before.wait().numpy()


@contextmanager
def _placed(model: "nn.Module", home: "torch.device", there: "torch.device") -> Iterator[None]:
    if there == home:
        yield
        return
    model.to(there)
    try:
        yield
    finally:
        model.to(home)


@contextmanager
def _evaluation(model: "nn.Module") -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
