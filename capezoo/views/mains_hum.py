"""A hum of the mains. Source: the perturbations of Oh et al., arXiv 2203.06889, in their public code."""

from math import pi
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._draws import Range, uniform
from capezoo.views._leads import mixing, require_millivolts
from ecgcohorts.errors import SpecError


class Config(Spec):
    """How strong, and how fast."""

    amplitude_mv: Range = Field(
        default=(0.0, 0.5), description="lowest and highest, in mV, drawn evenly for a view; the public code"
    )
    hz: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(50.0, 60.0), min_length=1, max_length=8, description="one of these for a view; the public code"
    )


class View:
    """One phase on all leads, a share between -1 and 1 on each (ours); the other limb leads follow from I and II."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        require_millivolts(of, "mains_hum")
        # A faster hum would come out as a slower wave, and at 100 Hz one of 50 Hz may vanish with its phase.
        if max(config.hz) >= of.rate_hz / 2:
            raise SpecError(f"view mains_hum: found a hum of {max(config.hz):g} Hz, expected less than half the rate of the "
                            f"window, {of.rate_hz / 2:g} Hz. Leave the view out, or set its hz.")  # fmt: skip
        self.amplitude, self.mixing, self.rate_hz = config.amplitude_mv, mixing(of), of.rate_hz
        self.hz = torch.tensor(config.hz)

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """height: (batch, view, lead), in mV; hz, phase: (batch, view)."""
        amplitude = uniform(self.amplitude, shape[:2], generator)[..., None]
        # Both signs: a lead is a difference of electrodes, and the one that hums more decides.
        share = uniform((-1.0, 1.0), (*shape[:2], self.mixing.shape[1]), generator)
        return {
            "height": (amplitude * share) @ self.mixing.T,
            "hz": self.hz[torch.randint(len(self.hz), shape[:2], generator=generator)],
            "phase": uniform((0.0, 2 * pi), shape[:2], generator),
        }

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        seconds = torch.arange(signal.shape[-1], device=signal.device) / self.rate_hz
        wave = (2 * pi * drawn["hz"][..., None] * seconds + drawn["phase"][..., None]).cos()
        return signal + drawn["height"][..., None] * wave[:, :, None]
