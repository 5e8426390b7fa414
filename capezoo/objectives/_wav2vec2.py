"""wav2vec 2.0: find, where tokens are hidden, the code of what was there among codes of other hidden places."""

from dataclasses import dataclass
from math import log
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from capezoo.encoders import TokenEncoder
from capezoo.objectives import _contract
from capezoo.objectives._codes import Chosen, GumbelCodes
from capezoo.objectives._contract import ViewBatch
from capezoo.objectives._masks import equal_spans, mean_where, others
from capezoo.objectives._perceptron import _affordable
from capezoo.objectives._schedules import exponential
from capezoo.specs.base import Channels, Share, Spec, Taps

_Above0 = Annotated[float, Field(gt=0)]
TERMS = ("contrast", "accuracy", "code_perplexity", "penalty")


class HiddenCodesConfig(Spec):
    """Masks, codes, negatives, and the weights of what is added to the contrast."""

    mask_share: Share = Field(default=0.65, description="of tokens, if spans did not meet; wav2vec 2.0, ECG-FM")
    span: Taps = Field(default=10, description="tokens hidden together; wav2vec 2.0, ECG-FM")
    thin: bool = Field(
        default=True,
        description="rows lose hidden tokens at random until all of a batch have as many, so that the share hidden depends "
        "on the batch: 0.50 of one row of 156 tokens, 0.36 of 128; the public code. False: 0.50 whatever the batch, and rows count by their tokens",
    )
    groups: int = Field(default=2, gt=0, le=64, description="of codes, one chosen from each; wav2vec 2.0, ECG-FM")
    codes: Channels = Field(default=320, description="in a group; wav2vec 2.0, ECG-FM")
    projection: Channels = Field(
        default=256, description="features of codes, side by side, and of predictions; wav2vec 2.0, ECG-FM"
    )
    gumbel_temperature: tuple[_Above0, _Above0] = Field(
        default=(2.0, 0.5), description="first and last; wav2vec 2.0, ECG-FM"
    )
    gumbel_factor: Share = Field(default=0.999995, gt=0, description="on it at every step; wav2vec 2.0, ECG-FM")
    negatives: Taps = Field(default=100, description="of the same row, with replacement; wav2vec 2.0, ECG-FM")
    contrast_temperature: float = Field(
        default=0.1, gt=0, description="divides cosine similarity with codes; wav2vec 2.0, ECG-FM"
    )
    diversity_weight: float = Field(
        default=0.1, ge=0, description="of the share of codes not in use; wav2vec 2.0, ECG-FM"
    )
    penalty_weight: float = Field(
        default=10.0,
        ge=0,
        description="of the mean square of features before their norm, which would hide that they grow; fairseq, ECG-FM",
    )
    dropout: Share = Field(default=0.1, lt=1, description="of features before codes are chosen; ECG-FM")

    @field_validator("gumbel_temperature")
    @classmethod
    def _falls(cls, temperature: tuple[float, float]) -> tuple[float, float]:
        # The factor is at most 1: a temperature that is to rise would silently be the last from the first step on.
        if temperature[0] < temperature[1]:
            raise ValueError("a first temperature that is not below the last")
        return temperature


@dataclass(frozen=True, eq=False)
class Parts:
    """What a batch gives, before it is weighed."""

    contrast: Tensor
    diversity: Tensor
    penalty: Tensor
    accuracy: Tensor
    chosen: Chosen
    tokens: Tensor  # (row, token, token_dim), none hidden
    context: Tensor  # (row, token, num_features), of the pass with hidden ones

    def terms(self) -> dict[str, Tensor]:
        """Return what metrics.csv is told."""
        told = (self.contrast, self.accuracy, self.chosen.code_perplexity, self.penalty)
        return {name: value.detach() for name, value in zip(TERMS, told, strict=True)}


class HiddenCodesObjective(_contract.Objective):
    """Has `mask_token`, `quantiser`, and two linear maps to where codes and contexts are compared."""

    def __init__(self, config: HiddenCodesConfig, encoder: nn.Module) -> None:
        super().__init__()
        self.settings = config
        dim, width = int(encoder.feature_dim), -(-config.projection // config.groups)  # type: ignore[arg-type]
        # Between 0 and 1, as fairseq has it, and not small as the tokens of vision transformers.
        self.mask_token = nn.Parameter(torch.rand(int(encoder.token_dim)))  # type: ignore[arg-type]
        # Before any of them is made: each bounds a product that no single setting bounds.
        for widths in ((config.groups * width, config.projection), (int(encoder.num_features), config.projection)):  # type: ignore[arg-type]
            _affordable(*widths)
        self.quantiser = GumbelCodes(dim, config.groups, config.codes, width)
        self.project_codes = nn.Linear(config.groups * width, config.projection)
        self.project_context = nn.Linear(int(encoder.num_features), config.projection)  # type: ignore[arg-type]

    def parts(self, encoder: nn.Module, signal: Tensor, batch: ViewBatch) -> Parts:
        """Hide tokens of a signal (row, lead, time), run the encoder, and compare. batch: whose draws and step count."""
        config, student = self.settings, cast("TokenEncoder", encoder)
        raw, features, tokens = student.features_and_tokens(signal)
        # All places are drawn on the CPU, where how many there are is known without waiting for the device.
        drawn = _Drawn.draw(len(tokens), tokens.shape[1], config, batch.generator).to(signal.device)
        hidden = torch.where(drawn.hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        context = student.contextualise(hidden)[-1]
        temperature = exponential(*config.gumbel_temperature, config.gumbel_factor, batch.step)
        # Of the pass without hidden tokens: what is to be found is what was there.
        wanted = _at(F.dropout(features, config.dropout, self.training), drawn.places)
        chosen = self.quantiser(wanted, drawn.present, temperature, batch.generator)
        score = self._scores(_at(context, drawn.places), chosen, drawn.among)
        each = F.cross_entropy(score.transpose(1, 2), torch.zeros_like(drawn.places), reduction="none")
        # By argmax equal scores would count as right: the own code stands first.
        right = (score[..., :1] > score[..., 1:]).all(-1)
        return Parts(
            contrast=mean_where(each, drawn.present),
            diversity=1 - chosen.perplexity / self.quantiser.number,
            penalty=each.new_zeros(()) if raw is None else raw.to(each.dtype).square().mean(),
            accuracy=mean_where(right.to(each.dtype), drawn.present),
            chosen=chosen,
            tokens=tokens,
            context=context,
        )

    def weighed(self, parts: Parts) -> Tensor:
        """Contrast, diversity and penalty, summed."""
        config = self.settings
        return parts.contrast + config.diversity_weight * parts.diversity + config.penalty_weight * parts.penalty

    def _scores(self, context: Tensor, chosen: Chosen, among: Tensor) -> Tensor:
        """Cosines by temperature of predictions with their own code, first, and with others: (row, place, 1 + negatives).

        A negative of the same codes is left out. All pairs of a row are made and the wanted ones picked.
        """
        with torch.autocast(context.device.type, enabled=False):
            predicted = F.normalize(self.project_context(context.to(chosen.vectors.dtype)), dim=-1)
            codes = F.normalize(self.project_codes(chosen.vectors), dim=-1)
            pairs = predicted @ codes.transpose(1, 2) / self.settings.contrast_temperature
            # Told by places and not by values, which may differ in their last bit.
            alike = (chosen.places[:, :, None] == chosen.places[:, None]).all(-1)
            # Taken before the others are left out: a place has the same codes as itself.
            own = torch.diagonal(pairs, dim1=1, dim2=2)[..., None]
            return torch.cat([own, pairs.masked_fill(alike, -torch.inf).gather(2, among)], dim=-1)

    def untrained(self, groups: int, tokens: int) -> float | None:
        """ln(1 + negatives), of scores that are all alike; diversity and penalty come on top."""
        return log(1 + self.settings.negatives)

    def least_tokens(self) -> int:
        return self.settings.span + 2  # for two spans


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Which tokens are hidden, bool (row, n); their places, (row, most), and which of these are; negatives among them."""

    hidden: Tensor
    places: Tensor
    present: Tensor
    among: Tensor

    @classmethod
    def draw(cls, rows: int, n: int, config: HiddenCodesConfig, generator: torch.Generator) -> "_Drawn":
        hidden = equal_spans(rows, n, config.mask_share, config.span, generator, thin=config.thin)
        counts = hidden.sum(1)
        # As many places in each row as the fullest has; those too many are padding, which `present` leaves out.
        most = int(counts.max())
        # Hidden ones first, in their order.
        places = (~hidden).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        present = torch.arange(most) < counts[:, None]
        return cls(hidden, places, present, others(counts, most, config.negatives, generator))

    def to(self, device: torch.device) -> "_Drawn":
        sent = (self.hidden, self.places, self.present, self.among)
        return _Drawn(*(tensor.to(device, non_blocking=True) for tensor in sent))


def _at(tokens: Tensor, places: Tensor) -> Tensor:
    """Pick (row, place, channel) from (row, token, channel)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
