"""Neighbouring windows of one recording attract across the two views: contrastive multi-segment coding, CMSC.

Source: Kiyasseh et al., CLOCS, arXiv 2005.13249, in the form of ECG-FM (arXiv 2408.05178), read from its public code. The
mean over tokens of each first window is compared by cosine, over 0.1, with that of every second window of the batch, and
the other way round. Unlike `info_nce` there is no projection, and no window is compared with others of its own view. Rows of
one patient count as positives of each other. The loss of equal embeddings is ln N.

As in the public code the lengths of embeddings take no gradient (`normalise_gradient` changes that), and negatives are those
of one process: of several processes each has a task of its own, easier by its smaller N.
"""

from math import log

from torch import nn

from capezoo.distributed import world_size
from capezoo.objectives import _contract
from capezoo.objectives._cmsc import CmscConfig, across_views
from capezoo.objectives._contract import Losses, Needs, ViewBatch


class Config(CmscConfig):
    """Temperature and gradient."""


class Objective(_contract.Objective):
    """It has no weights: what attracts are the embeddings themselves."""

    # Not crops of one recording: where they overlap the same samples would have to be found again.
    needs = Needs(views=2, pairing=("adjacent", "patient"))

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        # Windows of a pair in succession, as ViewBatch asks: batch norms per cohort rely on the order.
        first, second = encoder(batch.signal.flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        return Losses(across_views(first, second, batch.group, self.config))

    def untrained(self, groups: int, tokens: int) -> float:
        """Return ln N, the loss of equal embeddings, N of one process."""
        return log(groups / world_size())
