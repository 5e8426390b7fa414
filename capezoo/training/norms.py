"""BatchNorm whose statistics are those of each group of a mixed batch: of a cohort, a device, a site.

With statistics of the whole batch a layer tells every row how far it lies from rows of other recorders; with those of
its own group it cannot. Where a batch is of one group, nothing is changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import prod

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ecgcohorts.errors import SpecError

# Rows of `codes` below which a group has no statistics of its own: one patient would be normalised to himself.
_SMALLEST_PART = 2


@contextmanager
def normalised_per_group(network: nn.Module, codes: ArrayLike | None) -> Iterator[None]:
    """While training inside, each row of a batch is normalised with the mean and variance of its group's rows alone.

    codes: integers (batch,), the group of each row, or None for plain BatchNorm. A layer may see every row several
    times in succession, as views or tokens (`signal.flatten(0, 1)`), or one view of each row at a time. Every BatchNorm
    in `network` is meant, heads too. A group with a single row shares the statistics of the whole batch. Running
    statistics follow the mixture of all groups, mean and variance of the whole batch. Layers in evaluation mode use
    them, as always. Of several processes each has the statistics of its own rows.

    Call backward inside as well if blocks are recomputed there. Raises SpecError in a layer whose rows are no multiple
    of the batch's.
    """
    groups = np.zeros(0, np.int64) if codes is None else np.asarray(codes)
    if len(np.unique(groups)) < 2:
        yield
        return
    shared = _Groups(groups)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        vars(norm)["forward"] = partial(_normalise, norm, shared)  # found before that of its class
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


class _Groups:
    """Whose statistics each row of a layer takes, for any number of times that it sees a batch."""

    def __init__(self, codes: np.ndarray) -> None:
        _, place, sizes = np.unique(codes, return_inverse=True, return_counts=True)
        large = np.flatnonzero(sizes >= _SMALLEST_PART)
        self.member = place.reshape(1, -1) == large[:, None]  # (group, row); a row of a small one is in none
        self.has_rest = len(large) < len(sizes)
        self._made: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def matrices(self, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (set, row), which takes means within sets, and (row, set), which hands them back. float64.

        As products of matrices they have a fixed order of summation on a GPU, which indexing has not, and in float64
        neither autocast nor TF32 rounds them.
        """
        if (rows, device) not in self._made:
            each, left = divmod(rows, self.member.shape[1])
            if left or not each:
                raise SpecError(
                    f"found a BatchNorm with {rows} rows in a batch of {self.member.shape[1]}, expected a multiple. Groups "
                    "of a batch need a network that keeps the order of rows."
                )
            member = np.repeat(self.member, each, axis=1).astype(float)
            takes = np.vstack([member, 1 - member.sum(0)]) if self.has_rest else member
            both = member / member.sum(1, keepdims=True), takes.T
            share, back = (torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in both)
            self._made[rows, device] = share, back
        return self._made[rows, device]


def _normalise(norm: _BatchNorm, groups: _Groups, x: Tensor) -> Tensor:
    """Normalise (row, channel, ...) in two passes: a difference of squares would lose what a large mean hides."""
    if not norm.training:
        return type(norm).forward(norm, x)
    share, back = groups.matrices(len(x), x.device)
    over, shape = tuple(range(2, x.ndim)), (*x.shape[:2], *(1,) * (x.ndim - 2))
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    per_row = (wide.mean(over) if over else wide).double()
    mean, whole = share @ per_row, per_row.mean(0)
    if groups.has_rest:
        mean = torch.cat([mean, whole[None]])
    own = back @ mean
    centred = wide - own.to(wide.dtype).view(shape)
    squares = (centred.square().mean(over) if over else centred.square()).double()
    variance = share @ squares
    # Within groups and between them; rows of the rest are centred on the whole already.
    total = (squares + (own - whole).square()).mean(0)
    if groups.has_rest:
        variance = torch.cat([variance, total[None]])
    scale = (back @ (variance + norm.eps).rsqrt()).to(wide.dtype)
    if norm.weight is not None:
        scale = scale * norm.weight
    y = centred * scale.view(shape)
    if norm.bias is not None:
        y = y + norm.bias.view(shape[1:])
    _follow(norm, whole.detach(), total.detach(), len(x) * prod(x.shape[2:]))
    return y.to(x.dtype)


@torch.no_grad()
def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor, n: int) -> None:
    """Move the running statistics as torch does: by the momentum, or as a plain mean over batches if there is none."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    step = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if step is None:
            step = 1.0 / float(norm.num_batches_tracked)
    # A recomputed block has a momentum of 0 and no count, and moves nothing.
    for running, new in ((norm.running_mean, mean), (norm.running_var, variance * n / max(n - 1, 1))):
        running.lerp_(new.to(running.dtype), step or 0.0)
