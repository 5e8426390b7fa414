"""Predict the teacher's view of some blocks of tokens from another block: joint embedding prediction.

Source: I-JEPA, arXiv 2301.08243, in the form of the scaling study (arXiv 2605.12241), read from its public code: hidden
tokens are replaced by a learned one, not dropped, so that an encoder of convolutions or state spaces will do.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.objectives._contract import Losses, ViewBatch
from capezoo.objectives._heads import StatePredictor
from capezoo.objectives._masked import MaskedObjective, TeacherConfig
from capezoo.objectives._masks import blocks, mean_where
from capezoo.specs.base import MAX_LAYERS, Share, Taps


class Config(TeacherConfig):
    """Teacher, blocks, predictor."""

    targets: int = Field(default=4, gt=0, le=MAX_LAYERS, description="blocks to predict; the scaling study")
    target_share: tuple[Share, Share] = Field(
        default=(0.15, 0.2), description="of all tokens, from and to, in a target; the scaling study"
    )
    context_share: tuple[Share, Share] = Field(
        default=(0.85, 1.0), description="of all tokens, from and to, in the context; the scaling study"
    )
    shortest: Taps = Field(
        default=64,
        description="tokens of a target and of the context at least, so that of 300 a target has 64 and not 45 to 60; the "
        "scaling study's public code",
    )
    beta: float = Field(default=1.0, gt=0, description="error at which smooth L1 turns linear; the scaling study")
    dropout: Share = Field(default=0.2, lt=1, description="of the predictor; the scaling study")


class Objective(MaskedObjective):
    """A token that several targets hold counts as often. The target is the teacher's last output, LayerNorm-ed."""

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        self.config = config
        width = int(encoder.num_features)  # type: ignore[arg-type]
        self.predictor = StatePredictor(width, width, config.dropout)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal, config = batch.signal[:, 0], self.config
        wanted = self._wanted(signal)
        counts, context = blocks(
            wanted.shape[0],
            wanted.shape[1],
            batch.generator,
            targets=config.targets,
            shares=(config.target_share, config.context_share),
            shortest=config.shortest,
        )
        counts, context = (drawn.to(signal.device, non_blocking=True) for drawn in (counts, context))
        predicted = self.predictor(self.understood(encoder, signal, ~context))
        error = F.smooth_l1_loss(predicted.to(wanted.dtype), wanted, reduction="none", beta=config.beta)
        return Losses(mean_where(error.mean(-1), counts))

    @torch.no_grad()
    def _wanted(self, signal: Tensor) -> Tensor:
        last = self.wise.contextualise(self.wise.tokens(signal))[-1]
        # The study does this twice, which changes nothing but an epsilon.
        return F.layer_norm(last.to(torch.promote_types(last.dtype, torch.float32)), last.shape[-1:])

    def least_tokens(self) -> int:
        return self.config.shortest + 1
