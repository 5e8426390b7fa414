"""Two recordings of one patient attract, all other recordings of the batch repel: CAPE equations 1 to 3.

Source: arXiv 2509.10369; the loss is NT-Xent (arXiv 2002.05709) and half of PCLR's.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.distributed import gather, rank
from capezoo.objectives import Needs, ViewBatch
from capezoo.specs import Spec


class Config(Spec):
    """Temperature and projection. CAPE states that the projection is non-linear, not its size."""

    temperature: float = Field(default=0.1, gt=0, description="divides cosine similarity; PCLR, CMSC; unstated in CAPE")
    head_width: int | None = Field(
        default=None, gt=0, description="of both layers; None: as wide as the embedding; PCLR's rule, unstated in CAPE"
    )


class Objective(nn.Module):
    """Dense, ReLU, Dense on the embedding, then `info_nce`. The head is thrown away after training."""

    needs = Needs(views=2)

    def __init__(self, config: Config, encoder_dim: int) -> None:
        super().__init__()
        self.temperature = config.temperature
        width = config.head_width or encoder_dim
        self.head = nn.Sequential(nn.Linear(encoder_dim, width), nn.ReLU(), nn.Linear(width, width))
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)  # Keras Dense
                nn.init.zeros_(layer.bias)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Tensor:
        projected = self.head(encoder(batch.signal.flatten(0, 1)))  # (pair * view, dim)
        first, second = projected.unflatten(0, (-1, 2)).unbind(1)
        return info_nce(first, second, self.temperature)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over the 2N anchors of -log(exp(s(anchor, other view)/t) / sum over the 2N-1 others of exp(s(anchor, k)/t)).

    first, second: (pair, dim), the two views of this rank's patients; s is cosine similarity. With several processes
    the N pairs are those of all ranks and the mean is over this rank's anchors. Computed in float32 or better.
    """
    local = torch.cat([first, second])
    with torch.autocast(local.device.type, enabled=False):
        local = F.normalize(local.to(torch.promote_types(local.dtype, torch.float32)), dim=-1)
        everyone = gather(local)  # (2N, dim): the views of rank 0, then of rank 1, ...
        similarity = local @ everyone.T / temperature
        place = torch.arange(len(local), device=local.device) + rank() * len(local)
        itself = F.one_hot(place, len(everyone)).bool()
        other_view = place.roll(len(first))
        return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), other_view)
