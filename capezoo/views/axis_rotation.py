"""The heart turned in the chest: leads become three axes, are rotated and scaled there, and become leads again.

Source: 3KG, Gopal et al., arXiv 2106.04452, with the inverse Dower matrix of Edenbrandt and Pahlm, J Electrocardiol 1988.
3KG returns what three axes can tell; here only the difference is added, so that the rest of a lead stays.
"""

from math import radians

import torch
from pydantic import Field, field_validator
from torch import Tensor

from capezoo.specs.base import Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape
from capezoo.views._draws import Range, uniform
from capezoo.views._leads import mixing
from ecgcohorts.errors import SpecError
from ecgcohorts.leads import EIGHT_LEADS

# Left, down and backwards, each of I, II, V1 to V6.
_INVERSE_DOWER = torch.tensor(
    [
        [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
        [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
        [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
    ],
    dtype=torch.float64,
)


class Config(Spec):
    """How far, and how much larger."""

    degrees: float = Field(
        default=45.0, ge=0, le=180, description="largest turn about each axis, either way, drawn evenly; 3KG"
    )
    scale: Range = Field(default=(1.0, 1.5), description="lowest and highest factor on each axis, drawn evenly; 3KG")

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] <= 0:
            raise ValueError("factors above 0")
        return scale


class View:
    """A linear map of the leads, constant over the window, which keeps III = II - I and its like."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        missing = [lead for lead in EIGHT_LEADS if lead not in of.leads]
        # Scaled lead by lead, III is no longer II - I, and three axes cannot be found again.
        if missing or of.normalisation not in ("none", "window_z"):
            found = f"no {', '.join(missing)}" if missing else f"normalisation {of.normalisation}, each lead by itself"
            raise SpecError(f"view axis_rotation needs I, II and V1 to V6 on one scale: found {found}. Leave it out.")
        self.config, self.mixing = config, mixing(of).double()
        self.eight = [of.leads.index(lead) for lead in EIGHT_LEADS]

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """change: float32 (batch, view, lead, lead), what is added to each lead of every other."""
        each, largest = (*shape[:2], 3), radians(self.config.degrees)
        turn = _rotation(uniform((-largest, largest), each, generator).double())
        # In double until the end: a turn of nearly nothing is a small difference of large numbers.
        scale = uniform(self.config.scale, each, generator).double()
        difference = turn * scale[..., None, :] - torch.eye(3, dtype=torch.float64)
        # The pseudo-inverse, and not Dower's own table: rounded to three digits, the two do not undo each other.
        of_eight = self.mixing @ torch.linalg.pinv(_INVERSE_DOWER) @ difference @ _INVERSE_DOWER
        change = torch.zeros((*shape[:2], len(self.mixing), len(self.mixing)))
        change[..., self.eight] = of_eight.float()
        return {"change": change}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return signal + drawn["change"] @ signal


def _rotation(angle: Tensor) -> Tensor:
    """(..., 3) radians about the three axes, one after the other -> (..., 3, 3)."""
    turned = torch.eye(3, dtype=angle.dtype)
    for axis, (one, two) in enumerate(((1, 2), (2, 0), (0, 1))):
        about = torch.eye(3, dtype=angle.dtype).expand(*angle.shape[:-1], 3, 3).clone()
        about[..., one, one] = about[..., two, two] = angle[..., axis].cos()
        about[..., two, one] = angle[..., axis].sin()
        about[..., one, two] = -angle[..., axis].sin()
        turned = about @ turned
    return turned
