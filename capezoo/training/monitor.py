"""Is it learning, and has it collapsed: loss and geometry of embeddings on held-out patients.

Batches are of one cohort each, also when training mixes cohorts: there the cohort alone lowers the loss by ln K.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.distributed import gather


@dataclass(frozen=True)
class HeldOut:
    """Measured on held-out patients; losses in nats."""

    loss: float  # mean over pairs of all cohorts
    bound: float  # ln(2N-1), what equal embeddings cost in the same batches
    loss_per_cohort: Mapping[str, float]
    alignment: float  # mean squared distance of the two views on the unit sphere; arXiv 2005.10242
    uniformity: float  # log mean exp(-2 d^2) over pairs of a batch on the unit sphere; same source
    effective_rank: float  # exp of the entropy of the singular values; arXiv 2210.02885
    dead_units: int  # features that are 0 for every held-out ECG


@dataclass(frozen=True, eq=False)
class ViewedBatch:
    """One held-out batch as the encoder sees it: signal float32 (pair, view, lead, time) in mV, this rank's share."""

    cohort: str
    signal: Tensor


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, nothing compiled (shapes vary here); modes are put back."""
    before = [module.training for module in modules]
    loaded = "torch._dynamo" in sys.modules  # else nothing is compiled, and to ask would take seconds
    with torch.no_grad(), torch.compiler.set_stance("force_eager") if loaded else nullcontext():
        try:
            for module in modules:
                module.eval()
            yield
        finally:
            for module, training in zip(modules, before, strict=True):
                module.train(training)


def measure(encoder: nn.Module, objective: nn.Module, batches: Iterable[ViewedBatch]) -> HeldOut | None:
    """Run the held-out batches in evaluation mode; None if there are none."""
    from capezoo.objectives import ViewBatch

    embeddings: list[Tensor] = []
    losses: dict[str, list[tuple[float, int]]] = {}
    hook = encoder.register_forward_hook(lambda module, given, output: embeddings.append(gather(output.float()).cpu()))
    try:
        with evaluating(encoder, objective):
            for batch in batches:
                loss = gather(objective(encoder, ViewBatch(batch.signal)).reshape(1)).mean().item()
                losses.setdefault(batch.cohort, []).append((loss, len(embeddings[-1]) // 2))
    finally:
        hook.remove()
    if not embeddings:
        return None
    every = [pair for pairs in losses.values() for pair in pairs]
    sizes = [len(part) for part in embeddings]
    together = torch.cat(embeddings)
    return HeldOut(
        loss=_mean(every),
        bound=_mean([(log(2 * pairs - 1), pairs) for _, pairs in every]),
        loss_per_cohort={cohort: _mean(pairs) for cohort, pairs in losses.items()},
        alignment=_mean([(alignment(part), n) for part, n in zip(embeddings, sizes, strict=True)]),
        uniformity=_mean([(uniformity(part), n) for part, n in zip(embeddings, sizes, strict=True)]),
        effective_rank=effective_rank(together),
        dead_units=int((together == 0).all(dim=0).sum()),
    )


def alignment(embeddings: Tensor) -> float:
    """(pair * view, dim), the two views of a pair in a row -> mean squared distance on the unit sphere, 0 to 4."""
    first, second = F.normalize(embeddings, dim=-1).unflatten(0, (-1, 2)).unbind(1)
    return (first - second).square().sum(-1).mean().item()


def uniformity(embeddings: Tensor) -> float:
    """(n, dim) -> log of the mean Gaussian potential exp(-2 d^2) on the unit sphere; 0 at collapse, lower is better."""
    distances = torch.pdist(F.normalize(embeddings, dim=-1))
    return distances.square().mul(-2).exp().mean().log().item()


def effective_rank(embeddings: Tensor) -> float:
    """(n, dim) -> exp of the entropy of the normalised singular values: 1 to min(n, dim); 0 for nothing but zeros."""
    singular = torch.linalg.svdvals(embeddings)
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp().item()


def _mean(pairs: list[tuple[float, int]]) -> float:
    """Mean of values with weights."""
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
