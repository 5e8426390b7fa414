"""Name the clusters of the teacher's outputs, softly and in balance; hidden tokens count most: HuBERT without two phases.

Source: the scaling study (arXiv 2605.12241), which calls it HuBERT++, read from its public code. There prototypes and
temperatures are lost when a run is resumed; here prototypes are buffers, and temperatures follow from the step.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.objectives._clusters import Prototypes, sinkhorn
from capezoo.objectives._contract import Losses, ViewBatch
from capezoo.objectives._masked import SpanConfig, SpanObjective
from capezoo.objectives._masks import mean_where
from capezoo.objectives._perceptron import perceptron
from capezoo.objectives._schedules import half_cosine
from capezoo.specs.base import MAX_LAYERS, Channels, Share

_Temperatures = tuple[float, float]


class Config(SpanConfig):
    """Teacher, masks, prototypes, temperatures."""

    prototypes: tuple[Channels, ...] = Field(
        default=(128, 256), min_length=1, max_length=MAX_LAYERS, description="of each codebook; the scaling study"
    )
    prototype_momentum: Share = Field(default=0.99, description="the scaling study")
    rounds: int = Field(default=3, gt=0, le=1000, description="of Sinkhorn and Knopp; the scaling study")
    shift: Literal["row", "column"] = Field(
        default="row",
        description="what is taken off logits before exp: the largest of a token (the scaling study's public code), or of "
        "a prototype (CAPI)",
    )
    teacher_temperature: _Temperatures = Field(default=(0.15, 0.07), description="first and last; the scaling study")
    student_temperature: _Temperatures = Field(default=(0.5, 0.1), description="first and last; the scaling study")
    temperature_steps: int = Field(
        default=200, gt=0, description="from first to last along half a cosine; the scaling study"
    )
    hidden_weight: Share = Field(default=0.75, description="of hidden tokens, the rest of others; the scaling study")
    entropy_weight: float = Field(default=0.001, ge=0, description="of the predictions' entropy; the scaling study")


class Objective(SpanObjective):
    """Two linear layers give logits of all codebooks; there is no predictor that mixes tokens."""

    terms = ("entropy",)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        self.config = config
        width = int(encoder.num_features)  # type: ignore[arg-type]
        self.head = perceptron(width, width, sum(config.prototypes))
        self.codebooks = nn.ModuleList(Prototypes(n, width, config.prototype_momentum) for n in config.prototypes)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal, config = batch.signal[:, 0], self.config
        features = self._features(signal)
        hidden = self.hidden(batch, features.shape[1])
        logits = self.head(self.understood(encoder, signal, hidden)).flatten(0, 1)
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        by = min(batch.step, config.temperature_steps)
        warm, cool = (
            half_cosine(*ends, by, config.temperature_steps)
            for ends in (config.student_temperature, config.teacher_temperature)
        )
        flat, among, total, entropies = features.flatten(0, 1), hidden.flatten(), exact.new_zeros(()), []
        for codebook, score in zip(self.codebooks, exact.split(config.prototypes, dim=1), strict=True):
            # Step 0 and not a flag, which would have to be read back from a GPU.
            if self.training and batch.step == 0:
                codebook.start(flat, batch.generator)  # type: ignore[operator]
            wanted = sinkhorn(codebook(flat) / cool, config.rounds, config.shift)
            if self.training:
                codebook.see(wanted, flat)  # type: ignore[operator]
            known = F.log_softmax(score / warm, dim=1)
            divergence = (torch.xlogy(wanted, wanted) - wanted * known).sum(1)
            entropy = torch.special.entr(F.softmax(score, dim=1)).sum(1).mean()
            total = total + config.hidden_weight * mean_where(divergence, among)
            total = total + (1 - config.hidden_weight) * mean_where(divergence, ~among)
            total = total + config.entropy_weight * entropy
            entropies.append(entropy)
        return Losses(total, {"entropy": torch.stack(entropies).sum().detach()})

    @torch.no_grad()
    def _features(self, signal: Tensor) -> Tensor:
        last = self.wise.contextualise(self.wise.tokens(signal))[-1]
        return F.normalize(last.to(torch.promote_types(last.dtype, torch.float32)), dim=-1)

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        super().after_step(encoder, step, total_steps)
        for codebook in self.codebooks:
            codebook.move()  # type: ignore[operator]
