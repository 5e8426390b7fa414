"""Two views of one patient or recording attract, all others of the batch repel: CAPE equations 1 to 3.

Source: arXiv 2509.10369; the loss is NT-Xent (SimCLR, arXiv 2002.05709) and half of PCLR's. With sampler.pairing=patient
it is CAPE's method; SimCLR, the same loss on two views of one recording, has a file and a head of its own.
"""

from pydantic import Field
from torch import nn

from capezoo.objectives._contract import Needs
from capezoo.objectives._contrastive import Contrastive
from capezoo.objectives._perceptron import perceptron
from capezoo.specs.base import Channels, Spec


class Config(Spec):
    """Temperature and projection. CAPE states that the projection is non-linear, not its size."""

    temperature: float = Field(default=0.1, gt=0, description="divides cosine similarity; PCLR, CMSC; unstated in CAPE")
    head_width: Channels | None = Field(
        default=None, description="of the first layer; None: as wide as the embedding; PCLR's rule"
    )
    head_out: Channels | None = Field(
        default=None,
        description="of the second layer; None: as the first, PCLR's rule, unstated in CAPE",
    )


class Objective(Contrastive):
    """Dense, ReLU, Dense on the embedding, then the loss."""

    needs = Needs(views=2)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        dim = int(encoder.num_features)  # type: ignore[arg-type]
        width = config.head_width or dim
        super().__init__(perceptron(dim, width, config.head_out or width, keras=True), config.temperature)
