"""All leads upside down. Source: the negation of Sarkar and Etemad, arXiv 2002.03898, on one lead.

In twelve leads a flipped heart axis is a finding, so the view suits methods that should not see it.
"""

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Share, Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape


class Config(Spec):
    """How often."""

    probability: Share = Field(default=0.5, description="chance that a view is flipped; our default")


class View:
    """Each view by itself."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.probability = config.probability

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """sign: float32 (batch, view), -1 or 1."""
        return {"sign": 1 - 2 * (torch.rand(shape[:2], generator=generator) < self.probability).float()}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return signal * drawn["sign"][..., None, None]
