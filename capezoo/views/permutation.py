"""The window cut into parts, which change places. Source: Um et al., arXiv 1706.00527; Sarkar and Etemad, arXiv 2002.03898."""

import torch
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Share, Spec
from capezoo.specs.input import InputSpec
from capezoo.views import Drawn, Shape


class Config(Spec):
    """How often, and into how many parts."""

    probability: Share = Field(default=0.5, description="chance that a view is cut; our default")
    parts: int = Field(default=4, ge=2, le=64, description="of equal length but for a sample; Um et al.")


class View:
    """All leads alike. Beats at the cuts are torn, and the order of intervals is lost."""

    def __init__(self, config: Config, of: InputSpec) -> None:
        self.config = config

    def draw(self, shape: Shape, generator: torch.Generator) -> Drawn:
        """source: int64 (batch, view, time), the sample that stands at each place."""
        part = torch.arange(shape[-1]) * self.config.parts // shape[-1]
        cut = torch.rand(shape[:2], generator=generator) < self.config.probability
        place = torch.rand((*shape[:2], self.config.parts), generator=generator).argsort(-1)
        # Where nothing is cut the parts keep their order, and so does every sample.
        place = torch.where(cut[..., None], place, torch.arange(self.config.parts))
        # Stable, so that samples of a part stay in order.
        return {"source": place[..., part].argsort(dim=-1, stable=True)}

    def apply(self, signal: Tensor, drawn: Drawn) -> Tensor:
        return signal.gather(-1, drawn["source"][:, :, None].expand(-1, -1, signal.shape[2], -1))
