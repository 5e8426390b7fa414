"""A span of each lead set to 0, each at a place of its own. Source: the temporal mask of OpenECG, arXiv 2503.00711.

OpenECG masks 100 of 1000 points in time, and as "lead mask" 100 points on all leads at once, which is `zero_span`. That
the places of its temporal mask differ between leads is our reading.
"""

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Share, Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape, _draws
from capezoo.views._draws import Range
from ecgcohorts.errors import SpecError


class Config(Spec):
    """How often, and how long."""

    probability: Share = Field(default=0.5, description="chance that a lead has a span; OpenECG unstated: our default")
    seconds: Range = Field(
        default=(1.0, 1.0), description="shortest and longest span; OpenECG, 100 points, at its presumed 100 Hz"
    )


class View:
    """Lengths are uniform, starts over all places where the span fits."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        # Seconds, for the beat that a span hides; at least a sample, where a rate is low.
        shortest, longest = (max(1, round(seconds * of.rate_hz)) for seconds in config.seconds)
        self.probability, self.samples = config.probability, (shortest, longest)
        if longest > of.length:
            raise SpecError(f"view lead_spans: found a span of {longest} samples in a window of {of.length}, expected a "
                            "shorter one. Set its seconds.")  # fmt: skip

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """start, stop: int64 (batch, view, lead); equal: no span."""
        # A chance for each lead by itself: with 12 leads and 0.5 half of them have a span at a time.
        return _draws.spans(shape[:3], shape[-1], self.samples, self.probability, generator)

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        start, stop = (drawn[edge][..., None] for edge in ("start", "stop"))
        time = torch.arange(signal.shape[-1], device=signal.device)
        return signal.masked_fill((time >= start) & (time < stop), 0.0)
