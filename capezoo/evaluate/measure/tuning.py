"""Networks tuned on one cohort: heads on the features of a frozen encoder, or encoder and heads as one network.

Both have the same heads, loss, order of records, and early stopping on validation patients; both see other windows of
a recording in other epochs. A fine-tuned network starts where the frozen one does.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from capezoo.devices import _device_named
from capezoo.evaluate.measure.heads import AGE, SEX
from capezoo.evaluate.measure.parts import Parts, Task, Tuning
from capezoo.evaluate.measure.tasks import targets
from capezoo.evaluate.measure.training import Fit, Inputs, Scaled, Windows, blocks, offsets, order
from capezoo.specs.base import derive_seed
from capezoo.specs.input import InputSpec
from capezoo.training.device import seeded
from capezoo.zoo.forward import _features

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

_HEADS = {"age": AGE, "sex": SEX}
_CROPS = 8  # of each recording, on whose features heads of a frozen encoder are trained in turn; our default


@dataclass(frozen=True, eq=False)
class Material:
    """What networks are tuned and tested on: signals of a store, who is in which part, and the truth of some tasks."""

    store: "AnyStore"
    parts: Parts
    tasks: tuple[Task, ...]
    spec: InputSpec

    @cached_property
    def windows(self) -> Windows:
        """Windows of the signals, as the encoder sees them."""
        return Windows(self.store, self.spec)

    @cached_property
    def truth(self) -> tuple[Tensor, Tensor]:
        """Age in deviations of the training part or 1 for female, and what it weighs: each (entry of the index, task)."""
        index = self.store.index
        value, weight = (np.zeros((len(index), len(self.tasks)), np.float32) for _ in range(2))
        for place, task in enumerate(self.tasks):
            truth, known = targets(index, np.arange(len(index)), task)
            mean, deviation = self.age if task == "age" else (0.0, 1.0)
            value[known, place], weight[known, place] = (truth[known] - mean) / deviation, 1.0
            if task == "sex":
                # Balanced over the training part, as the heads of `ood` are.
                share = truth[self.parts.train][known[self.parts.train]].mean()
                weight[known, place] = np.where(truth[known] == 1, 0.5 / share, 0.5 / (1 - share))
        return torch.from_numpy(value), torch.from_numpy(weight)

    @cached_property
    def age(self) -> tuple[float, float]:
        """Mean and deviation of the age in years in the training part."""
        age, known = targets(self.store.index, self.parts.train, "age")
        return float(age[known].mean()), float(age[known].std()) or 1.0


class _Heads(nn.Module):
    """A head for each task on features scaled by the training part: (record, unit) -> (record, task)."""

    def __init__(self, features: NDArray[np.float32], tasks: Sequence[Task]) -> None:
        super().__init__()
        self.scaled = Scaled(features)
        self.heads = nn.ModuleList(_head(features.shape[1], task) for task in tasks)

    def forward(self, features: Tensor) -> Tensor:
        scaled = self.scaled(features)
        return torch.cat([head(scaled) for head in self.heads], dim=1)


class _Whole(nn.Module):
    """Encoder and heads: (record, lead, time) -> (record, task)."""

    def __init__(self, encoder: nn.Module, heads: _Heads) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads

    def forward(self, windows: Tensor) -> Tensor:
        pooled = self.encoder.forward_head(self.encoder.forward_features(windows), pre_logits=True)  # type: ignore[operator]
        return self.heads(pooled)


def _head(units: int, task: Task) -> nn.Sequential:
    config = _HEADS[task]
    layers: list[nn.Module] = []
    for before, after in pairwise((units, *config.hidden)):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
    layers.append(nn.Linear(config.hidden[-1], 1))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class Tuner:
    """Tunes one encoder, frozen or not, and answers for the test records of every cohort."""

    def __init__(
        self,
        encoder: nn.Module,
        material: Material,
        config: Tuning,
        *,
        per_cohort: bool = False,
        device: str | None = None,
    ) -> None:
        """per_cohort: BatchNorm statistics of each cohort's own recordings, at home and elsewhere, where it is not training."""
        self._material, self._config, self._per_cohort, self._device = material, config, per_cohort, device
        self._encoder = encoder
        self._there = torch.device("cpu") if device is None else _device_named(device)

    def frozen(self, seed: int) -> "Tuned":
        """Train heads on the features of the encoder as it is."""
        parts, config = self._material.parts, self._config
        crops, validation, home = self._crops, torch.from_numpy(self._home[1]), parts.train
        with seeded(derive_seed(seed, "heads"), torch.device("cpu")):
            heads = _Heads(self._home[0], self._material.tasks)

        def batches(epoch: int) -> Iterator[Inputs]:
            features = crops[epoch % len(crops)]
            for places in self._batches(seed, epoch):
                yield torch.from_numpy(features[places]), home[places]

        optimiser = torch.optim.Adam(heads.parameters(), lr=config.lr)
        how = self._fit(heads, optimiser, batches, lambda: [(validation, parts.validation)], torch.device("cpu"))
        epochs = how.run(config.head_epochs, config.patience, seed)
        return self._answered(self._untuned, heads, epochs)

    def whole(self, seed: int) -> "Tuned":
        """Train encoder and heads as one network."""
        material, config, parts = self._material, self._config, self._material.parts
        with seeded(derive_seed(seed, "heads"), torch.device("cpu")):
            heads = _Heads(self._home[0], material.tasks)
        network = _Whole(copy.deepcopy(self._encoder), heads).to(self._there)
        still = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
        for layer in still:
            layer.momentum = config.norm_momentum
        optimiser = torch.optim.Adam(
            [*_rates(network.encoder, config), {"params": list(heads.parameters()), "lr": config.lr}]
        )

        def batches(epoch: int) -> Iterator[Inputs]:
            drawn = offsets(len(material.store.index), derive_seed(seed, "windows", epoch))
            entries = [parts.train[places] for places in self._batches(seed, epoch)]
            yield from zip(map(torch.from_numpy, material.windows.at(entries, drawn)), entries, strict=True)

        def validation() -> Iterator[Inputs]:
            entries = blocks(parts.validation)
            yield from zip(map(torch.from_numpy, material.windows.at(entries)), entries, strict=True)

        how = self._fit(network, optimiser, batches, validation, self._there, still if config.norms == "frozen" else ())
        epochs = how.run(config.max_epochs, config.patience, seed)
        network.cpu()
        return self._answered(self._tests(network.encoder), heads, epochs)

    def _fit(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        batches: Callable[[int], Iterator[Inputs]],
        validation: "Callable[[], Iterator[Inputs] | list[Inputs]]",
        device: torch.device,
        still: Sequence[nn.Module] = (),
    ) -> Fit:
        losses = partial(_losses, self._material)

        def loss(output: Tensor, entries: NDArray[np.int64]) -> Tensor:
            return losses(output, entries).mean(dim=0).sum()

        def score() -> float:
            found = [losses(network(inputs.to(device)), entries) for inputs, entries in validation()]
            return float(torch.cat(found).mean(dim=0).sum())

        return Fit(network, optimiser, batches, loss, score, device, still, "Lower lr and encoder_lr.")

    def _batches(self, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Places in the training part, in the order of an epoch: the same whatever is tuned."""
        places = np.arange(len(self._material.parts.train))
        return order(places, self._config.batch, derive_seed(seed, "order", epoch))

    def _answered(self, tests: Mapping[str, NDArray[np.float32]], heads: _Heads, epochs: int) -> "Tuned":
        with torch.no_grad():
            answers = {name: heads(torch.from_numpy(x)) for name, x in tests.items()}
        return Tuned(epochs, {name: self._in_words(answer) for name, answer in answers.items()})

    def _in_words(self, answer: Tensor) -> NDArray[np.float64]:
        """(record, task) outputs -> years, or the probability of female: (task, record)."""
        found = answer.double()
        mean, deviation = self._material.age if "age" in self._material.tasks else (0.0, 1.0)
        return np.stack(
            [
                (found[:, place] * deviation + mean if task == "age" else found[:, place].sigmoid()).numpy()
                for place, task in enumerate(self._material.tasks)
            ]
        )

    @cached_property
    def _home(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of the central windows of training and validation part, of the encoder as it is."""
        parts = self._material.parts
        return self._of(self._at_home, parts.train), self._of(self._at_home, parts.validation)

    @cached_property
    def _crops(self) -> list[NDArray[np.float32]]:
        """Features of random windows of the training part, some of each recording, after the central ones."""
        draws = np.random.Generator(np.random.PCG64(derive_seed(0, "crops")))
        count, train = len(self._material.store.index), self._material.parts.train
        random = [self._of(self._at_home, train, draws.random(count)) for _ in range(_CROPS - 1)]
        return [self._home[0], *random]

    @cached_property
    def _at_home(self) -> nn.Module:
        return self._own(self._encoder, self._material.store.index["cohort"][self._material.parts.train[0]])

    def _own(self, encoder: nn.Module, cohort: int) -> nn.Module:
        """Return the encoder, or a copy with the BatchNorm statistics of this cohort's recordings."""
        if not self._per_cohort:
            return encoder
        material = self._material
        entries = np.flatnonzero(material.store.index["cohort"] == cohort)
        return material.windows.begun(encoder, entries, self._device)

    @cached_property
    def _untuned(self) -> dict[str, NDArray[np.float32]]:
        return self._tests(self._encoder)

    def _tests(self, encoder: nn.Module) -> dict[str, NDArray[np.float32]]:
        """Features of the test records of every cohort."""
        index = self._material.store.index
        return {
            name: self._of(self._own(encoder, int(index["cohort"][entries[0]])), entries)
            for name, entries in self._material.parts.tests.items()
        }

    def _of(
        self, encoder: nn.Module, entries: NDArray[np.int64], offsets: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        windows = self._material.windows.at(blocks(entries), offsets)
        return np.concatenate(list(_features(encoder, windows, self._device)))


@dataclass(frozen=True, eq=False)
class Tuned:
    """What became of a network: epochs trained, and cohort -> (task, record), years or the probability of female."""

    epochs: int
    answers: Mapping[str, NDArray[np.float64]]


def _losses(material: Material, output: Tensor, entries: NDArray[np.int64]) -> Tensor:
    """Weighted loss of each record and task (record, task), 0 where the truth is not known."""
    value, weight = (one[torch.from_numpy(entries)].to(output.device) for one in material.truth)
    each = [
        (output[:, place] - value[:, place]).square()
        if task == "age"
        else F.binary_cross_entropy_with_logits(output[:, place], value[:, place], reduction="none")
        for place, task in enumerate(material.tasks)
    ]
    return torch.stack(each, dim=1) * weight


def _rates(encoder: nn.Module, config: Tuning) -> list[dict[str, object]]:
    """Group parameters by stage: those of the last have the full rate, those before less, by `layer_decay` each."""
    stages = [f"{info['module']}." for info in encoder.feature_info]  # type: ignore[union-attr]
    layers: list[list[nn.Parameter]] = [[] for _ in range(len(stages) + 1)]
    layer = 0
    for name, parameter in encoder.named_parameters():
        # A stem comes before the first stage, a last norm behind the last: what is no stage belongs to the one before it.
        layer = next((place + 1 for place, stage in enumerate(stages) if name.startswith(stage)), layer)
        layers[layer].append(parameter)
    return [
        {"params": params, "lr": config.encoder_lr * config.layer_decay ** (len(stages) - layer)}
        for layer, params in enumerate(layers)
        if params
    ]
