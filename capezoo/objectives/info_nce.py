"""Two views of one patient or recording attract, all others of the batch repel: CAPE equations 1 to 3, and SimCLR.

Source: arXiv 2509.10369; the loss is NT-Xent (SimCLR, arXiv 2002.05709) and half of PCLR's. With sampler.pairing=patient
it is CAPE's method, with pairing=record SimCLR's.
"""

from math import log

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.distributed import gather, rank
from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._heads import perceptron
from capezoo.specs.base import Channels, Spec


class Config(Spec):
    """Temperature and projection. CAPE states that the projection is non-linear, not its size."""

    temperature: float = Field(default=0.1, gt=0, description="divides cosine similarity; PCLR, CMSC; unstated in CAPE")
    head_width: Channels | None = Field(
        default=None, description="of the first layer; None: as wide as the embedding; PCLR's rule, SimCLR"
    )
    head_out: Channels | None = Field(
        default=None,
        description="of the second layer; None: as the first, PCLR's rule, unstated in CAPE; SimCLR 128",
    )


class Objective(_contract.Objective):
    """Dense, ReLU, Dense on the embedding, then `info_nce`."""

    needs = Needs(views=2)
    ranks_as_one = True

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.temperature = config.temperature
        dim = int(encoder.num_features)  # type: ignore[arg-type]
        width = config.head_width or dim
        self.head = perceptron(dim, width, config.head_out or width, keras=True)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        projected = self.head(encoder(batch.signal.flatten(0, 1)))  # (group * view, dim)
        first, second = projected.unflatten(0, (-1, 2)).unbind(1)
        return Losses(info_nce(first, second, self.temperature, batch.group))

    def untrained(self, groups: int, tokens: int) -> float:
        """ln(2N-1), the loss of equal embeddings."""
        return log(2 * groups - 1)


def info_nce(first: Tensor, second: Tensor, temperature: float, group: Tensor | None = None) -> Tensor:
    """Mean over the 2N anchors of -log(exp(s(anchor, other view)/t) / sum over the 2N-1 others of exp(s(anchor, k)/t)).

    first, second: (row, dim), the two views of this rank's rows; s is cosine similarity. group: int64 (row,); views of
    other rows of the anchor's group are left out of the sum. With several processes the N rows are those of all ranks
    and the mean is over this rank's anchors. Computed in float32 or better.
    """
    local = torch.cat([first, second])
    with torch.autocast(local.device.type, enabled=False):
        local = F.normalize(local.to(torch.promote_types(local.dtype, torch.float32)), dim=-1)
        everyone = gather(local)  # (2N, dim): the views of rank 0, then of rank 1, ...
        similarity = local @ everyone.T / temperature
        place = torch.arange(len(local), device=local.device) + rank() * len(local)
        # First views and then second ones: half a turn leads from a row to its partner.
        other_view = place.roll(len(first))
        left_out = F.one_hot(place, len(everyone)).bool()
        # With random batches two recordings of a patient may meet: pushing them apart would unlearn the patient.
        if group is not None:
            mine = torch.cat([group, group])
            left_out = (mine[:, None] == gather(mine)) & ~F.one_hot(other_view, len(everyone)).bool()
        return F.cross_entropy(similarity.masked_fill(left_out, -torch.inf), other_view)
