"""Clusters found while training: assignments in balance, codes that decay, first centres. Sums are over all ranks.

What changes is in buffers, so that a resumed run has the same clusters.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist

from capezoo.distributed import gather, world_size

_FEWEST = 1e-8  # a code's count at least, so that one that is never hit can be divided; the scaling study's public code


@torch.no_grad()
def sinkhorn(logits: Tensor, rounds: int, shift: Literal["row", "column"] = "row") -> Tensor:
    """(token, cluster) -> soft assignments: rows sum to 1, columns are in balance but for the last row step.

    Source: Sinkhorn and Knopp 1967, a few rounds as in SwAV, arXiv 2006.09882. shift: what is taken off before exp, the
    largest logit of a row (the public code of the scaling study), or of a column (CAPI). In the limit both are one; after
    three rounds they are not.
    """
    most = logits.amax(1, keepdim=True) if shift == "row" else _over_ranks(logits.amax(0, keepdim=True), "MAX")
    share, least = (logits - most).exp(), torch.finfo(logits.dtype).tiny
    for _ in range(rounds):
        share = share / _over_ranks(share.sum(0, keepdim=True)).clamp(min=least)
        share = share / share.sum(1, keepdim=True).clamp(min=least)
    return share


@torch.no_grad()
def far_apart(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose centres (count, dim) among the rows of all ranks: k-means++, Arthur and Vassilvitskii 2007.

    Each is drawn with a probability in proportion to its squared distance from the nearest of those before.
    """
    everyone = gather(rows)
    place = torch.randint(len(everyone), (1,), generator=generator)
    chosen, nearest = [everyone[int(place)]], torch.full((), torch.inf, device=rows.device, dtype=rows.dtype)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (everyone - chosen[-1]).square().sum(1))
        # A little for every row: of rows that are all alike none could be drawn.
        weight = nearest.cpu() + torch.finfo(rows.dtype).tiny
        chosen.append(everyone[int(torch.multinomial(weight, 1, generator=generator))])
    centres = torch.stack(chosen)
    # Generators differ from rank to rank, and centres must not.
    if world_size() > 1:
        dist.broadcast(centres, 0)
    return centres


class DecayingCodes(nn.Module):
    """Codes that are decaying means of the vectors nearest to them. Source: DinoSR, arXiv 2305.10005.

    Sums and counts decay at every step, also those of codes that were not hit. Such a code stays where it is until its
    count is below 1e-8, after 175 steps, and then shrinks towards 0, where vectors find it again.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, count: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("sums", F.layer_norm(torch.randn(count, dim), (dim,)))
        self.register_buffer("counts", torch.ones(count))
        self._seen: tuple[Tensor, Tensor] | None = None

    @property
    def codes(self) -> Tensor:
        """(code, dim)."""
        return self.sums / self.counts.clamp(min=_FEWEST)[:, None]

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """(token, dim) -> place of the nearest code, int64 (token,). In training the vectors are kept for `move`."""
        codes = self.codes
        nearest = (codes.square().sum(1) - 2 * vectors @ codes.T).argmin(1)
        if self.training:
            sums = torch.zeros_like(self.sums).index_add_(0, nearest, vectors.to(self.sums.dtype))
            self._seen = sums, self.hits(nearest)
        return nearest

    def hits(self, nearest: Tensor) -> Tensor:
        """Return how many of these places each code has, (code,)."""
        # Not by bincount, which waits for a GPU.
        ones = torch.ones_like(nearest, dtype=self.counts.dtype)
        return torch.zeros_like(self.counts).index_add_(0, nearest, ones)

    @torch.no_grad()
    def move(self) -> None:
        """Let sums and counts decay, and add what was seen last, on all ranks."""
        if self._seen is not None:
            for mine, seen in zip((self.sums, self.counts), self._seen, strict=True):
                mine.mul_(self.decay).add_(_over_ranks(seen), alpha=1 - self.decay)
        self._seen = None


class Prototypes(nn.Module):
    """Directions that follow the features assigned to them."""

    directions: Tensor

    def __init__(self, count: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("directions", F.normalize(torch.randn(count, dim), dim=1))
        self._seen: Tensor | None = None

    def start(self, features: Tensor, generator: torch.Generator) -> None:
        """Begin anew at some of these features (token, dim)."""
        self.directions.copy_(F.normalize(far_apart(features, len(self.directions), generator), dim=1))

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """(token, dim) of length 1 -> cosines (token, prototype)."""
        return features @ self.directions.T

    @torch.no_grad()
    def see(self, assigned: Tensor, features: Tensor) -> None:
        """Keep features (token, dim), as they are assigned (token, prototype), for `move`."""
        self._seen = assigned.T @ features

    @torch.no_grad()
    def move(self) -> None:
        """Go a little towards the features that were seen last, on all ranks."""
        if self._seen is not None:
            wanted = F.normalize(_over_ranks(self._seen), dim=1)
            self.directions.copy_(
                F.normalize(self.directions.lerp(wanted.to(self.directions.dtype), 1 - self.momentum), dim=1)
            )
        self._seen = None


def _over_ranks(mine: Tensor, how: Literal["SUM", "MAX"] = "SUM") -> Tensor:
    """Reduce over all ranks; in place if there are several."""
    if world_size() > 1:
        dist.all_reduce(mine, getattr(dist.ReduceOp, how))
    return mine
