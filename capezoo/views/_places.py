"""A window read at other places than it was sampled at."""

import torch
from torch import Tensor


def at_places(signal: Tensor, places: Tensor) -> Tensor:
    """Interpolate (batch, view, lead, time) linearly at places (batch, view, time'), counted in samples from 0."""
    last = signal.shape[-1] - 1
    # At most the last but one, so that the last sample is read from its left with the whole share.
    before = places.floor().clamp(0, max(last - 1, 0))
    share = (places - before).clamp(0, 1)[:, :, None]
    first = before.long()[:, :, None].expand(-1, -1, signal.shape[2], -1)
    after = (first + 1).clamp(max=last)
    return torch.lerp(signal.gather(-1, first), signal.gather(-1, after), share)
