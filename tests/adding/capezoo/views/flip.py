"""All leads of a view upside down, sometimes. Made up for tests/test_adding_things.py."""

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Share, Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape


class Config(Spec):
    """How often."""

    probability: Share = Field(default=0.5, description="of a flip; our default")


class View:
    """Every view of a batch by itself."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.probability = config.probability

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """flip: bool (batch, view)."""
        return {"flip": torch.rand(shape[:2], generator=generator) < self.probability}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return torch.where(drawn["flip"][..., None, None], -signal, signal)
