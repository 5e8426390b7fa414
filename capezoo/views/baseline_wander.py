"""Slow waves from breathing and electrodes. Source: the perturbations of Oh et al., arXiv 2203.06889, in their public code."""

from math import pi

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._draws import Range, uniform
from capezoo.views._leads import mixing, require_millivolts


class Config(Spec):
    """How high, how slow, how many."""

    amplitude_mv: Range = Field(
        default=(0.0, 0.5), description="lowest and highest of one wave, in mV, drawn evenly; the public code"
    )
    hz: Range = Field(default=(0.01, 0.2), description="slowest and fastest wave; the public code")
    waves: int = Field(default=3, gt=0, le=64, description="in sum; the public code")
    lead_deviation: float = Field(
        default=0.5, ge=0, le=10, description="of the factor on each lead, a normal number around 1; the public code"
    )


class View:
    """One sum of cosines, stronger in some leads; the other limb leads follow from I and II."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        require_millivolts(of, "baseline_wander")
        self.config, self.mixing, self.rate_hz = config, mixing(of), of.rate_hz

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """amplitude in mV, hz, phase: (batch, view, wave); factor: (batch, view, lead)."""
        each = (*shape[:2], self.config.waves)
        # Drawn for the leads that are measured; of the derived ones a factor of their own would break II - I = III.
        factor = 1 + self.config.lead_deviation * torch.randn((*shape[:2], self.mixing.shape[1]), generator=generator)
        return {
            "amplitude": uniform(self.config.amplitude_mv, each, generator),
            "hz": uniform(self.config.hz, each, generator),
            "phase": uniform((0.0, 2 * pi), each, generator),
            "factor": factor @ self.mixing.T,
        }

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        # Waves are made where the signal is: three numbers a wave travel to the device, not one a sample.
        seconds = torch.arange(signal.shape[-1], device=signal.device) / self.rate_hz
        angle = 2 * pi * drawn["hz"][..., None] * seconds + drawn["phase"][..., None]
        wander = (drawn["amplitude"][..., None] * angle.cos()).sum(2)
        return signal + drawn["factor"][..., None] * wander[:, :, None]
