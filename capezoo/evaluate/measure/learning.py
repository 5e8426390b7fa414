"""A head learns some outputs of recordings, on a frozen encoder or together with it, as tables of encoders have it.

linear       encoder frozen; features averaged over time, one linear layer
frozen       encoder frozen; tokens pooled by attention with one learnable query, one linear layer
fine_tuned   encoder and one linear layer on averaged features trained together, the encoder at lower rates

Source: the benchmark of foundation models (arXiv 2509.25095) and its public code; `parts.Learning` says what is ours. Heads
see features on the scale of the training part, which is ours: raw ones of networks differ by orders of magnitude.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import gcd
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from capezoo.devices import _device_named
from capezoo.evaluate.measure.parts import Learning
from capezoo.evaluate.measure.statistics import auroc
from capezoo.evaluate.measure.training import Entries, Fit, Inputs, Scaled, Windows, blocks, offsets, order
from capezoo.specs.base import derive_seed
from capezoo.specs.input import InputSpec
from capezoo.training.device import seeded
from capezoo.zoo.forward import _features

Mode = Literal["linear", "frozen", "fine_tuned"]
# Features of a frozen encoder are kept in memory up to this, and beyond it computed anew for each epoch: 17,000 recordings of
# 300 tokens of 512 channels are 10 GB a crop.
_HELD_BYTES = 1 << 30
_SCALED_ON = 512  # recordings whose features say on which scale heads see them


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is to be learned: outputs of entries of the index, NaN unknown, and who is trained on."""

    kind: Literal["number", "labels", "classes"]
    truth: NDArray[np.float64]  # (entry of the index, output)
    train: Entries
    validation: Entries

    @cached_property
    def scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of a number in the training part; 0 and 1 of anything else."""
        if self.kind != "number":
            return np.zeros(self.truth.shape[1]), np.ones(self.truth.shape[1])
        known = self.truth[self.train]
        deviation = np.nanstd(known, axis=0)
        return np.nanmean(known, axis=0), np.where(deviation > 0, deviation, 1.0)

    @cached_property
    def targets(self) -> tuple[Tensor, Tensor]:
        """Truth on that scale, 0 where unknown, and 1 where it is known."""
        known = np.isfinite(self.truth)
        scaled = np.where(known, (self.truth - self.scale[0]) / self.scale[1], 0.0)
        return torch.from_numpy(scaled).float(), torch.from_numpy(known).float()

    def loss(self, output: Tensor, entries: Entries) -> Tensor:
        """Mean over what is known of a batch: cross-entropy, binary or of exclusive classes, or absolute error of a number."""
        target, known = (one[torch.from_numpy(entries)].to(output.device) for one in self.targets)
        if self.kind == "classes":
            each, known = -(target * output.log_softmax(dim=1)).sum(dim=1), known.amin(dim=1)
        elif self.kind == "labels":
            each = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        else:
            each = (output - target).abs()
        return (each * known).sum() / known.sum().clamp_min(1)

    def said(self, output: Tensor) -> NDArray[np.float64]:
        """Return outputs as probabilities, or as numbers in their unit."""
        found = output.double()
        if self.kind == "number":
            return found.numpy() * self.scale[1] + self.scale[0]
        return (found.softmax(dim=1) if self.kind == "classes" else found.sigmoid()).numpy()

    def score(self, answers: NDArray[np.float64]) -> float:
        """Judge answers for the validation part, lower is better: minus macro AUROC, or the mean absolute error in deviations."""
        truth = self.truth[self.validation]
        if not np.isfinite(answers).all():
            return float("nan")
        if self.kind == "number":
            return float(np.nanmean(np.abs(answers - truth) / self.scale[1]))
        known = np.isfinite(truth)
        areas = [auroc(t[k] == 1, a[k])[0] for t, k, a in zip(truth.T, known.T, answers.T, strict=True)]
        return -float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")

    @property
    def entries(self) -> Entries:
        """Entries of the training part of which anything is known."""
        return self.train[np.isfinite(self.truth[self.train]).any(axis=1)]


@dataclass(frozen=True, eq=False)
class Taught:
    """A network that has learned: answers for the validation part and for any entries (record, output)."""

    validation: NDArray[np.float64]
    answers: Callable[[Entries], NDArray[np.float64]]


class Attention(nn.Module):
    """Tokens (batch, channel, token) -> (batch, output): one learnable query, keys, values, projection and answer without bias.

    Keys and values are never made: with a single query, attention is a weighted mean of tokens before its projections.
    """

    def __init__(self, scaled: Scaled, width: int, outputs: int, heads: int) -> None:
        super().__init__()
        self.scaled, self.heads = scaled, gcd(heads, width)
        self.query = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.key, self.value, self.mix = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.answer = nn.Linear(width, outputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.scaled(features.transpose(1, 2))
        query = self.query.view(self.heads, -1)
        key, value = (layer.weight.view(self.heads, query.shape[1], -1) for layer in (self.key, self.value))
        towards = torch.einsum("hc,hcd->hd", query, key) / query.shape[1] ** 0.5
        share = (tokens @ towards.T).softmax(dim=1)
        pooled = torch.einsum("bth,btd,hcd->bhc", share, tokens, value)
        return self.answer(self.mix(pooled.flatten(1)))


class _Linear(nn.Module):
    """Averaged features (batch, unit) -> (batch, output)."""

    def __init__(self, scaled: Scaled, width: int, outputs: int) -> None:
        super().__init__()
        self.scaled, self.answer = scaled, nn.Linear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.answer(self.scaled(features))


class _Whole(nn.Module):
    """Encoder and head: (batch, lead, time) -> (batch, output)."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, windows: Tensor) -> Tensor:
        return self.head(self.encoder.forward_head(self.encoder.forward_features(windows), pre_logits=True))  # type: ignore[operator]


class Learner:
    """Teaches heads on one encoder in one mode; what a frozen encoder says of recordings is computed once for all lessons."""

    def __init__(
        self, encoder: nn.Module, windows: Windows, config: Learning, mode: Mode, *,
        scratch: bool = False, device: str | None = None,
    ) -> None:  # fmt: skip
        """encoder: as training begins. scratch: it was never trained, so all layers have the rate of the head."""
        self._encoder, self._windows, self._config, self._mode = encoder, windows, config, mode
        self._scratch, self._device = scratch, device
        self._there = torch.device("cpu") if device is None or mode != "fine_tuned" else _device_named(device)
        self._held: dict[tuple[int, bytes], list[Inputs]] = {}
        self._bytes = 0

    def taught(self, lesson: Lesson, seed: int) -> Taught:
        """Teach a head, and in mode fine_tuned a copy of the encoder with it. Raises SpecError if the loss is never a number."""
        config, whole = self._config, self._mode == "fine_tuned"
        with seeded(derive_seed(seed, "heads"), torch.device("cpu")):
            network = self._network(lesson).to(self._there)
        if whole:
            for layer in network.modules():
                if isinstance(layer, _BatchNorm):
                    layer.momentum = config.norm_momentum
        optimiser = torch.optim.AdamW(self._rates(network), lr=config.lr, weight_decay=config.weight_decay)
        answers = partial(self._answers, network, lesson)
        fit = Fit(
            network,
            optimiser,
            lambda epoch: self._batches(lesson, seed, epoch),
            lesson.loss,
            lambda: lesson.score(answers(lesson.validation)),
            self._there,
        )
        epochs = config.epochs if whole else config.head_epochs
        fit.run(epochs, epochs, seed)
        return Taught(answers(lesson.validation), answers)

    def _network(self, lesson: Lesson) -> nn.Module:
        at = np.sort(lesson.entries)
        chosen = at[np.linspace(0, len(at) - 1, min(len(at), _SCALED_ON)).round().astype(np.int64)]
        features = np.concatenate(list(self._computed(self._windows.at(blocks(chosen)))))
        tokens = self._mode == "frozen"
        scaled = Scaled(np.moveaxis(features, 1, -1).reshape(-1, features.shape[1]) if tokens else features)
        width, outputs = features.shape[1], lesson.truth.shape[1]
        if tokens:
            return Attention(scaled, width, outputs, self._config.heads)
        head = _Linear(scaled, width, outputs)
        if self._mode == "linear":
            return head
        return _Whole(self._windows.begun(self._encoder, None), head)

    def _rates(self, network: nn.Module) -> list[dict[str, object]]:
        """Parameters of head, blocks and stem, each with their rate."""
        config = self._config
        if not isinstance(network, _Whole):
            return [{"params": list(network.parameters()), "lr": config.lr}]
        upper, lower = (1.0, 1.0) if self._scratch else (config.upper, config.lower)
        groups = [{"params": list(network.head.parameters()), "lr": config.lr}]
        named = dict(network.encoder.named_parameters())
        # timm's layers from input to output; the first of an encoder here is its stem.
        layers = group_parameters(network.encoder, network.encoder.group_matcher(coarse=False))  # type: ignore[operator]
        for layer, names in layers.items():
            share = lower if layer == min(layers) else upper
            groups.append({"params": [named[name] for name in names], "lr": config.lr * share})
        return groups

    def _batches(self, lesson: Lesson, seed: int, epoch: int) -> Iterator[Inputs]:
        """Yield random crops of what is trained on, in the order of an epoch: the same for all encoders."""
        batches = order(lesson.entries, self._config.batch, derive_seed(seed, "order", epoch))
        count = len(self._windows.store.index)
        if self._mode == "fine_tuned":
            drawn = offsets(count, derive_seed(seed, "windows", epoch))
            yield from zip(map(torch.from_numpy, self._windows.at(batches, drawn)), batches, strict=True)
            return
        crop = epoch % self._config.crops
        drawn = offsets(count, derive_seed(0, "crops", crop))

        def made(parts: Sequence[Entries]) -> Iterator[Inputs]:
            yield from zip(map(torch.from_numpy, self._computed(self._windows.at(parts, drawn))), parts, strict=True)

        held = self._kept(crop, np.sort(lesson.train), lambda at: made(blocks(at)))
        if not held:
            yield from made(batches)
            return
        if len(held) > 1:
            # One tensor, so that a batch is drawn from it at once.
            held[:] = [(torch.cat([one for one, _ in held]), np.concatenate([one for _, one in held]))]
        [(features, at)] = held
        for batch in batches:
            yield features[torch.from_numpy(np.searchsorted(at, batch))], batch

    def _segments(self, entries: Entries) -> Iterator[Inputs]:
        """Yield what a network is shown of all segments of entries."""
        if self._mode == "fine_tuned":
            yield from ((torch.from_numpy(x), at) for x, at in self._windows.segments(entries))
            return

        def made(wanted: Entries) -> Iterator[Inputs]:
            for x, at in self._windows.segments(wanted):
                yield torch.from_numpy(next(self._computed([x]))), at

        yield from self._kept(-1, entries, made) or made(entries)

    def _kept(self, what: int, entries: Entries, made: Callable[[Entries], Iterator[Inputs]]) -> list[Inputs]:
        """Return what a frozen encoder says of entries, kept for the next lesson; nothing if that would fill the memory."""
        key = (what, entries.tobytes())
        if key not in self._held:
            needed = sum(one.nbytes for one, _ in made(entries[:1])) * len(entries)
            if self._bytes + needed > _HELD_BYTES:
                return []
            self._bytes += needed
            self._held[key] = list(made(entries))
        return self._held[key]

    def _computed(self, windows: "Iterator[NDArray] | list[NDArray]") -> Iterator[NDArray[np.float32]]:
        """Features or tokens of windows, of the encoder as it is."""
        return _features(self._encoder, windows, self._device, pooled=self._mode != "frozen")

    def _answers(self, network: nn.Module, lesson: Lesson, entries: Entries) -> NDArray[np.float64]:
        """(record, output), of several segments as the settings say."""
        network.eval()
        how = "mean" if lesson.kind == "number" else self._config.segments
        at = np.sort(entries)
        found = np.full((len(at), lesson.truth.shape[1]), {"mean": 0.0, "max": -np.inf, "min": np.inf}[how])
        count = np.zeros(len(at))
        join = {"mean": np.add, "max": np.maximum, "min": np.minimum}[how]
        with torch.no_grad():
            for inputs, mine in self._segments(at):
                places = np.searchsorted(at, mine)
                # A block holds one segment of each recording, so no place comes twice in it.
                found[places] = join(found[places], lesson.said(network(inputs.to(self._there)).cpu()))
                count[places] += 1
        return (found / count[:, None] if how == "mean" else found)[np.searchsorted(at, entries)]


def has_tokens(encoder: nn.Module) -> bool:
    """Tell whether an encoder gives (record, channel, token) before its pooling."""
    spec = InputSpec.of_model(encoder)
    blank = np.zeros((1, len(spec.leads), spec.length), np.float32)
    return next(_features(encoder, [blank], pooled=False)).ndim == 3
