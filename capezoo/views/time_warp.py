"""Time runs faster here and slower there. Source: Um et al., arXiv 1706.00527, which warps signals of worn sensors so."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._places import at_places
from ecgcohorts.errors import SpecError

_FEWEST = 2  # one has no time to run


class Config(Spec):
    """How strongly, and how often it changes."""

    strength: float = Field(
        default=0.2, ge=0, le=2, description="deviation of the logarithm of the speed; Um et al., of the speed itself"
    )
    knots: int = Field(
        default=6, ge=2, le=64, description="places where a speed is drawn; Um et al., both ends counted"
    )


class View:
    """Between knots the logarithm of the speed is a line (Um et al.: a cubic spline); both ends stay where they are."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        if of.length < _FEWEST:
            raise SpecError(
                f"view time_warp: found a window of {of.length} sample, expected {_FEWEST} or more. Leave it out."
            )
        self.config = config

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """places: (batch, view, time), where in the window each sample is read."""
        drawn = torch.randn((*shape[:2], self.config.knots), generator=generator, dtype=torch.float64)
        # Logarithms: a normal number around 1 may be negative, and time would run back.
        speed = (self.config.strength * F.interpolate(drawn, shape[-1], mode="linear", align_corners=True)).exp()
        gone = speed.cumsum(-1) - speed[..., :1]
        return {"places": (gone / gone[..., -1:] * (shape[-1] - 1)).float()}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return at_places(signal, drawn["places"])
