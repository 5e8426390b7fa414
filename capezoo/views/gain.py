"""A factor on the leads of a view: electrodes and bodies differ in how much of the heart's voltage they let through."""

from math import log
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._draws import _HIGHEST


class Config(Spec):
    """Between which factors."""

    range: tuple[float, float] = Field(default=(0.8, 1.25), description="lowest and highest factor; our default")
    per_lead: bool = Field(
        default=False,
        description="a factor for each lead, not one for all: our default; Mehari and Strodthoff, arXiv 2103.12676, have "
        "one for each lead, between 0.33 and 3",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.range[0] <= self.range[1] <= _HIGHEST:
            raise ValueError(f"range {self.range}: give 0 < lowest <= highest <= {_HIGHEST:g}")
        return self


class View:
    """Factors are log-uniform, so that halving is as likely as doubling."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.low, self.high = (log(factor) for factor in config.range)
        self.axes = 3 if config.per_lead else 2

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """gain: float32 (batch, view), or (batch, view, lead)."""
        uniform = torch.rand(shape[: self.axes], generator=generator)
        return {"gain": (self.low + (self.high - self.low) * uniform).exp()}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return signal * drawn["gain"][(..., *[None] * (4 - self.axes))]
