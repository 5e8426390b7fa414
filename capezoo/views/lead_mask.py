"""Random lead masking: whole leads set to 0, each by itself. Source: Oh et al., arXiv 2203.06889, and ECG-FM."""

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Share, Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape


class Config(Spec):
    """How often."""

    probability: Share = Field(default=0.5, description="chance that a lead is masked; the source")


class View:
    """As in the source a window may lose all its leads; with 12 leads and 0.5 that is one in 4,096."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.config = config

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """masked: bool (batch, view, lead)."""
        return {"masked": torch.rand(shape[:3], generator=generator) < self.config.probability}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        # 0 is what a missing sample is, too, so that a masked lead looks like one that was never recorded.
        return signal.masked_fill(drawn["masked"][..., None], 0.0)
