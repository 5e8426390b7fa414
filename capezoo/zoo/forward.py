"""Run an encoder over windows to get features. Only this module switches modes and devices."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

BATCH = 256  # windows at once; 23 MB of input, some 1.5 GB of activations in cape_resnet


def features(model: "nn.Module", windows: NDArray[np.float32] | Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Embed (window, lead, time), scaled, as (window, num_features), in evaluation mode, before any classifier.

    windows: all at once, or blocks of them, which are taken as they come: of a whole store only results are kept.
    """
    if isinstance(windows, np.ndarray):
        windows = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
    found = list(_features(model, windows))
    width = int(model.num_features)  # type: ignore[arg-type]
    return np.concatenate(found) if found else np.zeros((0, width), np.float32)


def _features(model: "nn.Module", blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Embed windows block by block, on the model's device."""
    import torch

    device = next(model.parameters()).device
    with _evaluation(model):
        for block in blocks:
            # Entered anew for each block: a generator that waits inside it would switch the mode of its caller too.
            with torch.inference_mode():
                x = torch.from_numpy(np.ascontiguousarray(block, np.float32)).to(device)
                # timm's name for `without the classifier`; the model may have one.
                pooled = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
                yield pooled.float().cpu().numpy()


@contextmanager
def _evaluation(model: "nn.Module") -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
