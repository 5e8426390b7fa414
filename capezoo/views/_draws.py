"""Numbers that views draw: between two ends, and spans of a window."""

from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

_HIGHEST = 1e6  # of seconds, mV, Hz or factors: far above any that perturbs an ECG


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    # Beyond it float32 has infinities, which no later check tells from a signal's.
    if not 0 <= ends[0] <= ends[1] <= _HIGHEST:
        raise ValueError(f"range {ends}: give 0 <= lowest <= highest <= {_HIGHEST:g}")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


def uniform(ends: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw evenly between two ends."""
    return ends[0] + (ends[1] - ends[0]) * torch.rand(shape, generator=generator)


def spans(
    each: tuple[int, ...], length: int, samples: tuple[int, int], probability: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw start and stop, int64 of shape `each`: a span's first sample and one past its last; equal: no span.

    samples: shortest and longest span, both included. Starts are uniform over all places where the span fits.
    """
    masked = torch.rand(each, generator=generator) < probability
    span = torch.randint(samples[0], samples[1] + 1, each, generator=generator)
    # float64: with float32 the last start of a long window would come up less often than the others
    place = torch.rand(each, generator=generator, dtype=torch.float64)
    start = (place * (length - span + 1)).long()
    return {"start": start, "stop": torch.where(masked, start + span, start)}
