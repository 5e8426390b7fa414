"""A span of the window set to 0 on all leads. CAPE (arXiv 2509.10369) masks its views and says neither how long nor how often."""

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from capezoo.specs.base import Share, Spec
from capezoo.specs.input import MAX_LENGTH, InputSpec
from capezoo.views import Drawn, Shape, _draws
from ecgcohorts.errors import SpecError

DEFAULT_S = (0.35, 1.4)


_Samples = Annotated[int, Field(le=MAX_LENGTH)]


class Config(Spec):
    """How often, and how long."""

    probability: Share = Field(default=0.5, description="chance that a view is masked; unstated: our default")
    samples: tuple[_Samples, _Samples] | None = Field(
        default=None,
        description="length of the span, both ends included; none: 0.35 to 1.4 s, 5-20 % of CAPE's 7 s; unstated: our "
        "default",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.samples is not None and not 0 < self.samples[0] <= self.samples[1]:
            raise ValueError(f"samples {self.samples}: give 0 < shortest <= longest")
        return self


class View:
    """Lengths are uniform over `samples`, starts over all places where the span fits."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.probability = config.probability
        # In seconds, so that it hides as much of a beat at every rate; at 400 Hz these are 140 and 560 samples.
        shortest, longest = (max(1, round(seconds * of.rate_hz)) for seconds in DEFAULT_S)
        self.samples = config.samples or (shortest, longest)
        if config.probability > 0 and self.samples[1] > of.length:
            raise SpecError(f"view zero_span: found a span of {self.samples[1]} samples in a window of {of.length}, "
                            "expected a shorter one. Set its samples.")  # fmt: skip

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """start, stop: int64 (batch, view), first sample of the span and one past the last; equal: no span."""
        return _draws.spans(shape[:2], shape[-1], self.samples, self.probability, generator)

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        start, stop = (drawn[edge][..., None, None] for edge in ("start", "stop"))
        time = torch.arange(signal.shape[-1], device=signal.device)
        return signal.masked_fill((time >= start) & (time < stop), 0.0)
