"""Two perturbed views of one recording attract, all others of the batch repel. Source: SimCLR, arXiv 2002.05709.

OpenECG (arXiv 2503.00711) uses it on ECGs and states neither head nor temperature. The loss is that of `info_nce`; what
differs is the head, which narrows to 128 numbers, and that the views are made from one recording.
"""

from pydantic import Field
from torch import nn

from capezoo.objectives._contract import Needs
from capezoo.objectives._contrastive import Contrastive
from capezoo.objectives._perceptron import perceptron
from capezoo.specs.base import Channels, Spec


class Config(Spec):
    """Temperature and projection."""

    temperature: float = Field(
        default=0.1, gt=0, description="divides cosine similarity; SimCLR, its best with large batches"
    )
    head_width: Channels | None = Field(
        default=None, description="of the first layer; None: as wide as the embedding; SimCLR"
    )
    head_out: Channels = Field(default=128, description="of the second layer; SimCLR")


class Objective(Contrastive):
    """Linear, ReLU, linear on the embedding, then the loss. With ResNet-50 the head has 4,458,624 parameters."""

    needs = Needs(views=2, pairing=("record",))

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        dim = int(encoder.num_features)  # type: ignore[arg-type]
        super().__init__(perceptron(dim, config.head_width or dim, config.head_out), config.temperature)
