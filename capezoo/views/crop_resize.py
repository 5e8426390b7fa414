"""A part of the window, stretched to its whole length. Source: Mehari and Strodthoff, arXiv 2103.12676, and its public code.

Intervals and heart rate become up to twice as long: a view for methods whose features may forget them. The public code
puts the part's samples at random places in order; here the stretch is even.
"""

import torch
from pydantic import Field, field_validator
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._draws import Range, uniform
from capezoo.views._places import at_places


class Config(Spec):
    """How much is kept."""

    share: Range = Field(
        default=(0.5, 1.0), description="smallest and largest part of the window, drawn evenly; the public code"
    )

    @field_validator("share")
    @classmethod
    def _part(cls, share: tuple[float, float]) -> tuple[float, float]:
        if not 0 < share[0] <= share[1] <= 1:
            raise ValueError("parts above 0, and at most 1")
        return share


class View:
    """The first and the last sample of the part are those of the view."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.share = config.share

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """first, step: (batch, view), place of the first sample, and samples between two of the view."""
        share = uniform(self.share, shape[:2], generator)
        # In gaps between samples, one fewer than samples, so that a share of 1 is the window itself.
        first = torch.rand(shape[:2], generator=generator) * (1 - share) * (shape[-1] - 1)
        return {"first": first, "step": share}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        time = torch.arange(signal.shape[-1], device=signal.device)
        return at_places(signal, drawn["first"][..., None] + drawn["step"][..., None] * time)
