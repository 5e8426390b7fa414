"""White noise, as muscles and amplifiers add it. Source: Mehari and Strodthoff, arXiv 2103.12676, and its public code."""

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._draws import Range, uniform
from capezoo.views._leads import mixing, require_millivolts


class Config(Spec):
    """How strong."""

    std_mv: Range = Field(
        default=(0.01, 0.01), description="lowest and highest deviation in mV, drawn evenly for a view; the public code"
    )


class View:
    """Independent in I, II and the chest leads; the other limb leads follow from I and II."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        require_millivolts(of, "gaussian_noise")
        self.std, self.mixing = config.std_mv, mixing(of)

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """noise: float32 (batch, view, lead, time), in mV."""
        std = uniform(self.std, shape[:2], generator)[..., None, None]
        white = torch.randn((*shape[:2], self.mixing.shape[1], shape[-1]), generator=generator)
        # Mixed here and not in `apply`, which would have to copy the matrix to the device at each step.
        return {"noise": self.mixing @ (std * white)}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return signal + drawn["noise"]
