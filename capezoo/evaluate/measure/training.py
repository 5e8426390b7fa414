"""Training networks on recordings of a store: their windows, features on one scale, and a loop that keeps the best state."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from capezoo.embedding.adapt import Adaptation
from capezoo.embedding.adapt import window_starts as central_starts
from capezoo.embedding.from_store import _windows, estimate_norms
from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.specs.base import derive_seed
from capezoo.specs.input import InputSpec
from capezoo.training.device import seeded
from capezoo.zoo.forward import BATCH
from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import read_ahead
from ecgcohorts.samplers import window_starts

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

_AHEAD = 2  # batches read while one is computed
Entries = NDArray[np.int64]
Inputs = tuple[Tensor, Entries]  # windows or features, and the entries of the index they are of


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a store's recordings, as weights of `spec` see them."""

    store: "AnyStore"
    spec: InputSpec

    @cached_property
    def plan(self) -> Adaptation:
        """How the store is made to fit. Raises RecipeMismatch if it does not."""
        return Adaptation.of_recipe(self.spec, self.store.recipe, str(self.store.path))

    def at(self, batches: Sequence[Entries], offsets: NDArray[np.float64] | None = None) -> Iterator[NDArray]:
        """Yield windows (record, lead, time) of entries of the index. offsets: of each entry, in [0, 1); None: the centre."""
        index, length = self.store.index, self.spec.length
        starts = central_starts(index["valid_start"], index["valid_stop"], length)
        if offsets is not None:
            starts = window_starts(offsets, index["valid_start"], index["valid_stop"], length)
        yield from self._read(batches, starts)

    def segments(self, entries: Entries) -> Iterator[tuple[NDArray, Entries]]:
        """Yield the windows that a recording holds without overlap, all of each entry, in blocks, and whose they are.

        They lie together in the middle of the recording: one alone is the central window.
        """
        index, length = self.store.index, self.spec.length
        first, stop = (index[name].astype(np.int64) for name in ("valid_start", "valid_stop"))
        central_starts(first[entries], stop[entries], length)  # refuses what is too short
        count = (stop - first) // length
        first += (stop - first - count * length) // 2
        for place in range(int(count[entries].max(initial=0))):
            parts = blocks(entries[count[entries] > place])
            yield from zip(self._read(parts, first + place * length), parts, strict=True)

    def begun(self, model: nn.Module, entries: Entries | None, device: str | None = None) -> nn.Module:
        """Return a copy of a model to train on, with the BatchNorm statistics of some entries, or those it has."""
        begun = copy.deepcopy(model)
        # Divided by 1, the features of a random network leave every range that heads can learn from.
        return begun if entries is None else estimate_norms(begun, self.store, self.plan, entries, device)

    def _read(self, batches: Sequence[Entries], starts: NDArray[np.int64]) -> Iterator[NDArray]:
        made = _windows(self.store, self.spec, self.plan, starts, batches)
        with closing(read_ahead(made, _AHEAD, self.store.refuse_removed)) as ahead:
            yield from ahead


class Scaled(nn.Module):
    """Features (..., unit) on the scale of a training part."""

    mean: Tensor
    inverse: Tensor

    def __init__(self, features: Features) -> None:
        """features: (record, unit) of the training part, to which a guarded scaler is fitted."""
        super().__init__()
        scaler = fit_scaler(features, "guarded")
        self.clip = scaler.clip
        self.register_buffer("mean", torch.from_numpy(scaler.mean).float())
        self.register_buffer("inverse", torch.from_numpy(scaler.inverse).float())

    def forward(self, features: Tensor) -> Tensor:
        return ((features - self.mean) * self.inverse).clamp(-self.clip, self.clip)


@dataclass(frozen=True, eq=False)
class Fit:
    """One training that ends early, or keeps the best of all its epochs: what is trained, on what, and how it is judged."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    batches: Callable[[int], Iterator[Inputs]]  # of an epoch
    loss: Callable[[Tensor, Entries], Tensor]  # of what the network says of entries
    score: Callable[[], float]  # on the validation part, in evaluation mode; lower is better
    device: torch.device
    still: Sequence[nn.Module] = ()  # kept in evaluation mode
    remedy: str = "Lower lr."

    def run(self, max_epochs: int, patience: int, seed: int) -> int:
        """Train, keep the state of the lowest validation score, and return the epochs made.

        Raises SpecError if the score was never a number.
        """
        lowest, best, waited, made = inf, copy.deepcopy(self.network.state_dict()), 0, 0
        while made < max_epochs and waited < patience:
            self.network.train()
            for layer in self.still:
                layer.eval()
            # Dropout draws from the global generators.
            with seeded(derive_seed(seed, "dropout", made), self.device):
                for inputs, entries in self.batches(made):
                    self.optimiser.zero_grad(set_to_none=True)
                    self.loss(self.network(inputs.to(self.device)), entries).backward()
                    self.optimiser.step()
            made += 1
            self.network.eval()
            with torch.no_grad():
                score = self.score()
            waited += 1
            if score < lowest:
                lowest, best, waited = score, copy.deepcopy(self.network.state_dict()), 0
        if not isfinite(lowest):
            raise SpecError(
                f"found a validation score that is no number in every epoch, expected numbers. {self.remedy}"
            )
        self.network.load_state_dict(best)
        self.network.eval()
        return made


def blocks(entries: Entries, size: int = BATCH) -> list[Entries]:
    """Return entries in pieces of at most `size`."""
    return [entries[first : first + size] for first in range(0, len(entries), size)]


def order(entries: Entries, size: int, seed: int) -> list[Entries]:
    """Return entries in batches, in an order drawn by `seed`."""
    draws = np.random.Generator(np.random.PCG64(seed))
    return blocks(entries[draws.permutation(len(entries))], size)


def offsets(count: int, seed: int) -> NDArray[np.float64]:
    """Draw where each window begins, in [0, 1)."""
    return np.random.Generator(np.random.PCG64(seed)).random(count)
