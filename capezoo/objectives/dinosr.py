"""Name, where tokens are hidden, the code of the teacher's output: clusters found while training.

Source: DinoSR, arXiv 2305.10005, in the form of the scaling study (arXiv 2605.12241), read from its public code: one
codebook, on the teacher's last output.
"""

from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.objectives._clusters import DecayingCodes
from capezoo.objectives._contract import Losses, ViewBatch
from capezoo.objectives._heads import StatePredictor
from capezoo.objectives._masked import SpanConfig, SpanObjective
from capezoo.objectives._masks import mean_where
from capezoo.specs.base import Channels, Share


class Config(SpanConfig):
    """Teacher, masks, codes, predictor."""

    codes: Channels = Field(default=256, description="the scaling study")
    decay: Share = Field(default=0.9, description="of a code's sum and count at every step; the scaling study")
    norm_over: Literal["features", "time"] = Field(
        default="features",
        description="the second norm before codes are assigned: of each token (the study's public code, which calls it "
        "an instance norm), or of each feature over the tokens of a recording (DinoSR)",
    )
    dropout: Share = Field(default=0.2, lt=1, description="of the predictor; the scaling study")


class Objective(SpanObjective):
    """Codes follow all tokens of the teacher, the loss is of hidden ones. The predictor's outputs are logits."""

    terms = ("code_perplexity",)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        self.norm_over = config.norm_over
        width = int(encoder.num_features)  # type: ignore[arg-type]
        # The study's has as many outputs as features, of which the first 256 are used.
        self.predictor = StatePredictor(width, config.codes, config.dropout)
        self.codebook = DecayingCodes(config.codes, width, config.decay)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal = batch.signal[:, 0]
        seen = self._seen(signal)
        code = self.codebook(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        hidden = self.hidden(batch, seen.shape[1])
        logits = self.predictor(self.understood(encoder, signal, hidden))
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(exact.transpose(1, 2), code, reduction="none")
        # How many codes are in use, as if all were used alike: 1 if the teacher has collapsed.
        share = self.codebook.hits(code.flatten()) / code.numel()
        return Losses(mean_where(loss, hidden), {"code_perplexity": torch.special.entr(share).sum().exp()})

    @torch.no_grad()
    def _seen(self, signal: Tensor) -> Tensor:
        last = self.wise.contextualise(self.wise.tokens(signal))[-1]
        exact = last.to(torch.promote_types(last.dtype, torch.float32))
        normed = F.layer_norm(exact, exact.shape[-1:])
        # A second LayerNorm would change nothing but an epsilon.
        return normed if self.norm_over == "features" else F.instance_norm(normed.transpose(1, 2)).transpose(1, 2)

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        super().after_step(encoder, step, total_steps)
        self.codebook.move()

    def untrained(self, groups: int, tokens: int) -> float:
        """ln(codes)."""
        return log(len(self.codebook.counts))
