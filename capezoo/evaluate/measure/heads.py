"""Small heads on frozen features, many trained at once by batched products instead of one network after another.

_Heads share nothing. Head (group, run) gives the same numbers alone as among others; groups differ in their input
(another scaler), runs in initial weights, batch order and dropout. Run r draws alike in every group, so groups pair.
Source of shapes and rates: the CAPE paper and its public notebooks; what neither states is marked `our default`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn
from torch import Tensor
from torch.nn import functional as F

# Adam as in Keras.
_BETAS, _EPSILON = (0.9, 0.999), 1e-7
# Records at once without gradients; bounds memory only.
_EVALUATION_BATCH = 8192


class HeadConfig(BaseModel):
    """A head of dense layers, and its training. Without hidden layers it is a linear probe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...]
    # mse and bce are of sigmoid(output), linear is the squared error of the output itself, softmax the cross-entropy.
    loss: Literal["mse", "bce", "linear", "softmax"]
    outputs: int = 1
    dropout: float = 0.2
    lr: float = 1e-4
    max_epochs: int = 100
    batch: int = 64
    min_delta: float = 1e-4  # of early stopping and of the plateau rule
    patience: int = 30
    plateau_factor: float = 0.1
    plateau_patience: int = 10

    def parameters(self, units: int) -> int:
        """Number of weights of one head on `units` features."""
        widths = (units, *self.hidden, self.outputs)
        return sum((a + 1) * b for a, b in pairwise(widths))

    def train(
        self,
        train: "Examples",
        validation: "Examples",
        seeds: Sequence[int],
        on_epoch: Callable[[int], None] | None = None,
    ) -> "_Heads":
        """Train one head per (group, seed) with early stopping and a plateau rule each; keep the best on validation.

        on_epoch is called with the number of heads still training. Raises ValueError if a part has no records.
        """
        if not len(train.target) or not len(validation.target):
            raise ValueError("There is no record to train on, or none to validate on.")
        with one_thread():
            return _train(train, validation, self, seeds, on_epoch)


AGE = HeadConfig(hidden=(256, 128), loss="mse")
SEX = HeadConfig(hidden=(256, 256), loss="bce")


@dataclass(frozen=True, eq=False)
class Examples:
    """Scaled features and what is to be answered.

    inputs: (group, record, unit). target: (record,), or (record, output) of heads with several outputs; in 0..1, except for the
    loss `linear`. weight: (record,) with mean near 1.
    """

    inputs: Tensor
    target: Tensor
    weight: Tensor

    @classmethod
    def of(cls, inputs: Sequence[NDArray[np.float32]], target: NDArray, weight: NDArray | None = None) -> Self:
        """Stack one (record, unit) array per group. Without `weight` all records weigh the same."""
        ones = np.ones(len(target)) if weight is None else weight
        return cls(
            torch.from_numpy(np.stack(inputs)),
            torch.from_numpy(np.asarray(target, np.float32)),
            torch.from_numpy(np.asarray(ones, np.float32)),
        )


@dataclass(frozen=True, eq=False)
class _Heads:
    """Trained heads at their best validation loss. params: (group * run, in, out) and (group * run, 1, out)."""

    params: list[Tensor] = field(repr=False)
    groups: int
    runs: int
    loss: str
    epochs: NDArray[np.int64]  # (group, run) trained
    best_loss: NDArray[np.float64]  # (group, run) on the validation part

    @torch.no_grad()
    def predict(self, inputs: NDArray[np.float32], group: int = 0) -> NDArray[np.float64]:
        """Return the answers of one group's heads, (run, record), to scaled features (record, unit).

        Heads with several outputs answer (run, record, output). Answers are in 0..1, except for the loss `linear`.
        """
        mine = [p[group * self.runs : (group + 1) * self.runs] for p in self.params]
        blocks = torch.from_numpy(inputs).split(_EVALUATION_BATCH)
        parts = [_answer(_forward(mine, block.expand(self.runs, *block.shape)), self.loss) for block in blocks]
        return torch.cat(parts, dim=1).double().numpy()


def _train(
    train: Examples,
    validation: Examples,
    config: HeadConfig,
    seeds: Sequence[int],
    on_epoch: Callable[[int], None] | None,
) -> _Heads:
    n_groups, runs = len(train.inputs), len(seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = [_initial(train.inputs.shape[-1], config, generator) for generator in generators]
    stacked = [torch.stack(tensors).repeat(n_groups, 1, 1) for tensors in zip(*drawn, strict=True)]
    best = [tensor.clone() for tensor in stacked]
    optimiser = _Adam(stacked)
    watch = _Watch(n_groups * runs, config)
    while len(watch.active):
        # Heads lie group by group, so that place // runs is the group and the rest is the run.
        group, run = watch.active // runs, watch.active % runs
        _one_epoch(train, config, optimiser, watch.lr, (group, run), generators)
        loss = _loss_on(validation, config, optimiser.params, group)
        improved, kept = watch.update(loss)
        for whole, now in zip(best, optimiser.params, strict=True):
            whole[watch.active[improved]] = now.detach()[improved]
        watch.drop(kept)
        optimiser.keep(kept)
        if on_epoch:
            on_epoch(len(watch.active))
    shape = (n_groups, runs)
    epochs, losses = watch.epochs.reshape(shape).numpy(), watch.best.reshape(shape).double().numpy()
    return _Heads(best, n_groups, runs, config.loss, epochs, losses)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch and BLAS to one thread, and restore their numbers of threads afterwards: sums are the same anywhere then."""
    # Products this small gain a third from a second thread, and lose a factor of ten where other programs want the core
    # as well (measured: 2 s against 31 s).
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _initial(units: int, config: HeadConfig, generator: torch.Generator) -> list[Tensor]:
    """Draw Glorot uniform weights and zero biases: Keras's default, unstated in the paper."""
    widths = (units, *config.hidden, config.outputs)
    params = []
    for fan_in, fan_out in pairwise(widths):
        # Source: Glorot and Bengio 2010, equation 16.
        limit = (6 / (fan_in + fan_out)) ** 0.5
        params += [(torch.rand(fan_in, fan_out, generator=generator) * 2 - 1) * limit, torch.zeros(1, fan_out)]
    return params


def _forward(params: Sequence[Tensor], x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
    """Return logits (head, record), or (head, record, output) if several, for x (head, record, unit).

    masks: dropout factors per hidden layer.
    """
    for layer in range(len(params) // 2 - 1):
        x = torch.relu(torch.baddbmm(params[2 * layer + 1], x, params[2 * layer]))
        if masks is not None:
            x = x * masks[layer]
    return torch.baddbmm(params[-1], x, params[-2]).squeeze(-1)


def _answer(logit: Tensor, loss: str) -> Tensor:
    return logit if loss == "linear" else logit.softmax(-1) if loss == "softmax" else logit.sigmoid()


def _losses(logit: Tensor, target: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Return the weighted loss of each record, (head, record)."""
    if kind == "softmax":
        return -weight * (target * logit.log_softmax(-1)).sum(-1)
    if kind == "bce":
        found = F.binary_cross_entropy_with_logits(logit, target.expand_as(logit), reduction="none")
    else:
        found = (_answer(logit, kind) - target) ** 2
    # Keras's losses are means over the outputs.
    return weight * (found.mean(-1) if target.ndim > weight.ndim else found)


@torch.no_grad()
def _loss_on(part: Examples, config: HeadConfig, params: Sequence[Tensor], group: Tensor) -> Tensor:
    """Return the mean loss over a part, (head,), weighted as in training (our default)."""
    total = torch.zeros(len(group))
    for start in range(0, len(part.target), _EVALUATION_BATCH):
        cut = slice(start, start + _EVALUATION_BATCH)
        logit = _forward(params, part.inputs[group, cut])
        total += _losses(logit, part.target[cut], part.weight[cut], config.loss).sum(dim=1)
    return total / len(part.target)


def _one_epoch(
    train: Examples,
    config: HeadConfig,
    optimiser: "_Adam",
    lr: Tensor,
    heads: tuple[Tensor, Tensor],
    generators: Sequence[torch.Generator],
) -> None:
    """Show every run all records once, in its own order; the last batch may be short, as in Keras."""
    group, run = heads
    runs = sorted(set(run.tolist()))  # a run with no head left draws nothing more
    slot = torch.tensor([runs.index(r) for r in run.tolist()])
    n = len(train.target)
    order = torch.stack([torch.randperm(n, generator=generators[r]) for r in runs])
    for start in range(0, n, config.batch):
        rows = order[:, start : start + config.batch]  # (run, record)
        uniform = torch.stack([torch.rand(rows.shape[1], sum(config.hidden), generator=generators[r]) for r in runs])
        # Scaled up now, so that prediction needs no factor (inverted dropout, as in Keras).
        factor = (uniform >= config.dropout).float() / (1 - config.dropout)
        chosen = rows[slot]  # (head, record)
        logit = _forward(
            optimiser.params, train.inputs[group[:, None], chosen], factor[slot].split(config.hidden, dim=-1)
        )
        loss = _losses(logit, train.target[chosen], train.weight[chosen], config.loss).mean(dim=1)
        # _Heads share no weight, so the gradient of the sum is that of each head's own loss.
        optimiser.step(torch.autograd.grad(loss.sum(), optimiser.params), lr)


class _Adam:
    """torch's Adam over stacked heads, one parameter group a head, so that each has its learning rate.

    The groups hold views into the stacked tensors: one product multiplies them, one backward pass differentiates them.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = [p.requires_grad_() for p in params]
        groups = [{"params": [p.detach()[head] for p in self.params]} for head in range(len(params[0]))]
        # Fused takes a quarter of the time.
        self.optimiser = torch.optim.Adam(groups, betas=_BETAS, eps=_EPSILON, fused=True)

    def step(self, gradients: Sequence[Tensor], lr: Tensor) -> None:
        """gradients: like params. lr: (head,)."""
        for head, group in enumerate(self.optimiser.param_groups):
            group["lr"] = float(lr[head])
            for view, gradient in zip(group["params"], gradients, strict=True):
                view.grad = gradient[head]
        self.optimiser.step()

    def keep(self, chosen: Tensor) -> None:
        """Drop all heads but the chosen ones, with the optimiser's state; keep all if none is chosen."""
        # Rebuilding copies every tensor; most epochs end no head.
        if chosen.all() or not chosen.any():
            return
        places, before = chosen.nonzero().flatten().tolist(), self.optimiser
        self.__init__([p.detach()[chosen] for p in self.params])  # type: ignore[misc]
        for new, old in zip(self.optimiser.param_groups, (before.param_groups[i] for i in places), strict=True):
            for view, earlier in zip(new["params"], old["params"], strict=True):
                self.optimiser.state[view] = before.state[earlier]


class _Watch:
    """Early stopping, plateau rule and best epoch of many heads, each as its Keras callback has it."""

    def __init__(self, heads: int, config: HeadConfig) -> None:
        self.config = config
        self.active = torch.arange(heads)
        self.best = torch.full((heads,), torch.inf)  # strictly best, for the kept weights
        self.epochs = torch.zeros(heads, dtype=torch.int64)
        self.lr = torch.full((heads,), config.lr)  # of the active heads, like the next three
        self.mark = torch.full((heads,), torch.inf)  # last loss that was better by min_delta
        self.waited = torch.zeros(heads, dtype=torch.int64)
        self.plateau = torch.zeros(heads, dtype=torch.int64)

    def update(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Return two masks over the active heads: better than ever before, and still to be trained."""
        if not loss.isfinite().all():
            raise ValueError("The validation loss is not finite. Are all features finite?")
        improved = loss < self.best[self.active]
        self.best[self.active[improved]] = loss[improved]
        self.epochs[self.active] += 1
        better = loss < self.mark - self.config.min_delta
        self.mark = torch.where(better, loss, self.mark)
        self.waited = torch.where(better, 0, self.waited + 1)
        self.plateau = torch.where(better, 0, self.plateau + 1)
        lower = self.plateau >= self.config.plateau_patience
        self.lr = torch.where(lower, self.lr * self.config.plateau_factor, self.lr)
        self.plateau = torch.where(lower, 0, self.plateau)
        return improved, (self.waited < self.config.patience) & (self.epochs[self.active] < self.config.max_epochs)

    def drop(self, kept: Tensor) -> None:
        self.active, self.lr, self.mark = self.active[kept], self.lr[kept], self.mark[kept]
        self.waited, self.plateau = self.waited[kept], self.plateau[kept]
