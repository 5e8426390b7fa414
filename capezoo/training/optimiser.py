"""Adam, and its learning rate as a function of the step: there is no scheduler whose state could be lost."""

from collections.abc import Iterable
from math import cos, pi

import torch
from torch import nn

from capezoo.specs import OptimiserSpec


def build(parameters: Iterable[nn.Parameter], spec: OptimiserSpec, device: torch.device) -> torch.optim.Optimizer:
    """Adam; on a GPU all parameters are updated by one kernel."""
    return torch.optim.Adam(
        parameters,
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        fused=True if device.type == "cuda" else None,
    )


def half_cosine(step: int, total: int, spec: OptimiserSpec) -> float:
    """Learning rate of step 0 .. total - 1: lr/2 (1 + cos(pi t/T)), after a linear rise over warmup_steps if any."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    share = (step - spec.warmup_steps) / (total - spec.warmup_steps)
    return spec.lr / 2 * (1 + cos(pi * share))
