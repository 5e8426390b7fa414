"""Two views of a row attract, all other rows of the batch repel: the loss of CAPE and SimCLR, and the objective around it."""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.distributed import gather, rank
from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, ViewBatch


class Contrastive(_contract.Objective):
    """Projects the embeddings of two views by `head`, then `info_nce`."""

    ranks_as_one = True

    def __init__(self, head: nn.Module, temperature: float) -> None:
        super().__init__()
        self.head, self.temperature = head, temperature

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        # Both views at once, as SimCLR: a BatchNorm of the encoder sees the whole batch.
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
