"""Is it learning, and has it collapsed: loss and geometry of embeddings on held-out patients.

Batches are of one cohort each, also when training mixes cohorts: there the cohort alone lowers the loss by ln K.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.distributed import gather
from capezoo.objectives import Objective, ViewBatch

# Of `spread`, below which embeddings count as equal. Untrained encoders of ours have 6e-3 to 0.3 for golden signals,
# features that are equal but for rounding 1e-12.
COLLAPSED = 1e-4


@dataclass(frozen=True)
class HeldOut:
    """Measured on held-out patients; embeddings by plain calls of the encoder, one for each view."""

    loss: float  # mean over groups of all cohorts
    untrained: float | None  # what a network that knows nothing has in the same batches, if the objective knows that
    loss_per_cohort: Mapping[str, float]
    terms: Mapping[str, float]  # the objective's further losses
    alignment: float | None  # of two views: their mean squared distance on the unit sphere; arXiv 2005.10242
    uniformity: float  # log mean exp(-2 d^2) over pairs of a batch on the unit sphere; same source
    effective_rank: float  # exp of the entropy of the singular values; arXiv 2210.02885
    dead_units: int  # features that are 0 for every held-out ECG
    spread: float  # of embeddings, see `spread`

    @property
    def collapsed(self) -> bool:
        """Whether all held-out ECGs have the same features."""
        return self.spread < COLLAPSED

    @classmethod
    def measure(
        cls,
        encoder: nn.Module,
        objective: Objective,
        batches: Iterable[ViewBatch],
        tokens: int = 0,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Self | None:
        """Run held-out batches of one cohort each, this rank's share of them, in evaluation mode; None if there are none.

        tokens: of a window, for `Objective.untrained`. precision: context in which the network computes; all that is
        computed of its features is float32 or wider, on the device.
        """
        with _evaluating(encoder, objective):
            begun = [_measured(encoder, objective, batch, precision) for batch in batches]
        if not begun:
            return None
        # Waited for once: a number read after each batch would leave a GPU idle until the next one is launched.
        measured = [one.read(objective.untrained(one.groups, tokens)) for one in begun]

        def mean(name: str, cohort: str | None = None) -> float | None:
            """Over groups, of those batches that have the number."""
            of = [one for one in measured if name in one.numbers and cohort in (None, one.cohort)]
            return sum(one.numbers[name] * one.groups for one in of) / sum(one.groups for one in of) if of else None

        # Rank and dead units over all cohorts: within one batch a rank cannot exceed the number of its rows.
        together = torch.cat([one.embeddings for one in measured])
        return cls(
            loss=mean("loss") or 0.0,
            untrained=mean("untrained"),
            loss_per_cohort={one.cohort: mean("loss", one.cohort) or 0.0 for one in measured if one.cohort},
            terms={name: mean(name) or 0.0 for name in objective.terms},
            alignment=mean("alignment"),
            uniformity=mean("uniformity") or 0.0,
            effective_rank=_effective_rank(together),
            dead_units=int((together == 0).all(dim=0).sum()),
            spread=spread(together),
        )

    def row(self) -> dict[str, float | None]:
        """Return its columns of metrics.csv."""
        row = {"val_loss": self.loss, "val_untrained": self.untrained, "alignment": self.alignment}
        row |= {"uniformity": self.uniformity, "effective_rank": self.effective_rank, "dead_units": self.dead_units}
        row |= {f"val_{name}": value for name, value in self.terms.items()}
        return row | {f"val_loss_{cohort}": loss for cohort, loss in self.loss_per_cohort.items()}


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, nothing compiled (shapes vary here); modes are put back."""
    # A teacher is in evaluation mode while the rest trains: each module gets its own mode back.
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


@dataclass(frozen=True, eq=False)
class _Begun:
    """One held-out batch of all ranks, whose numbers the device may still be computing."""

    cohort: str | None
    groups: int
    names: Sequence[str]
    values: Tensor  # (name,)
    embeddings: Tensor  # (view * group, dim)

    def read(self, untrained: float | None) -> "_Measured":
        """Wait for the numbers. untrained: that of a network that knows nothing, if it has one."""
        numbers = dict(zip(self.names, self.values.tolist(), strict=True))
        if untrained is not None:
            numbers["untrained"] = untrained
        return _Measured(self.cohort, self.groups, numbers, self.embeddings)


@dataclass(frozen=True, eq=False)
class _Measured:
    cohort: str | None
    groups: int
    numbers: Mapping[str, float]  # loss, untrained, alignment, uniformity, terms; those there are
    embeddings: Tensor


def _measured(
    encoder: nn.Module, objective: Objective, batch: ViewBatch, precision: Callable[[], AbstractContextManager[Any]]
) -> _Begun:
    with precision():
        losses = objective(encoder, batch)
        # By itself, and not from what the objective happens to call: a method on tokens never calls the encoder whole.
        views = [gather(encoder(view).float()) for view in batch.signal.unbind(1)]
    values = torch.stack([losses.total.float(), *(losses.terms[name].float() for name in objective.terms)])
    numbers = dict(zip(("loss", *objective.terms), gather(values[None]).mean(0), strict=True))
    if len(views) == 2:
        numbers["alignment"] = _alignment(*views)
    embeddings = torch.cat(views)
    numbers["uniformity"] = _uniformity(embeddings)
    return _Begun(batch.cohort, len(views[0]), tuple(numbers), torch.stack([*numbers.values()]), embeddings)


def _alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of two views, each (row, dim), on the unit sphere: 0 to 4."""
    return (F.normalize(first, dim=-1) - F.normalize(second, dim=-1)).square().sum(-1).mean()


def _uniformity(embeddings: Tensor) -> Tensor:
    """(n, dim) -> log of the mean Gaussian potential exp(-2 d^2) on the unit sphere; 0 at collapse, lower is better."""
    distances = torch.pdist(F.normalize(embeddings, dim=-1))
    return distances.square().mul(-2).exp().mean().log()


def spread(embeddings: Tensor) -> float:
    """(n, dim) -> share of the mean squared length that is not that of the mean: 0 if all rows are equal, at most 1."""
    wide = embeddings.double()
    length = wide.square().sum(-1).mean()
    return ((wide - wide.mean(0)).square().sum(-1).mean() / length).item() if length > 0 else 0.0


def _effective_rank(embeddings: Tensor) -> float:
    """(n, dim) -> exp of the entropy of the normalised singular values: 1 to min(n, dim); 0 for nothing but zeros."""
    # Of the small square matrix, in float64: a tenth of the time of all rows, and no less exact than float32.
    wide = embeddings.double()
    singular = torch.linalg.eigvalsh(wide.T @ wide).clamp(min=0).sqrt()
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp().item()
