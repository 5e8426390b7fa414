"""Predict, where tokens are hidden, what the layers of a slow teacher make of the whole signal.

Source: data2vec, arXiv 2202.03555, in the form of the scaling study (arXiv 2605.12241), read from its public code.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.objectives._contract import Losses, ViewBatch
from capezoo.objectives._heads import StatePredictor
from capezoo.objectives._masked import SpanConfig, SpanObjective
from capezoo.objectives._masks import mean_where
from capezoo.specs.base import MAX_LAYERS, Share
from ecgcohorts.errors import SpecError


class Config(SpanConfig):
    """Teacher, masks, targets, predictor."""

    layers: int = Field(
        default=2,
        gt=0,
        le=MAX_LAYERS,
        description="the last ones, whose mean is the target; the scaling study: 3 and 4",
    )
    beta: float = Field(default=1.0, gt=0, description="error at which smooth L1 turns linear; the scaling study")
    dropout: Share = Field(default=0.2, lt=1, description="of the predictor; the scaling study")


class Objective(SpanObjective):
    """The target is the mean of the LayerNorm-ed inner outputs of the teacher's last layers.

    Inner outputs are what a layer adds to its input, before dropout and sum, where an encoder tells them (s4); else the
    outputs of its stages.
    """

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        self.layers, self.beta = config.layers, config.beta
        stages = encoder.feature_info[-config.layers :]  # type: ignore[index]
        shapes = {(stage["num_chs"], stage["reduction"]) for stage in stages}
        if len(stages) < config.layers or len(shapes) > 1:
            raise SpecError(
                f"objective data2vec: found layers={config.layers}, expected at most as many stages of one shape as the "
                "encoder ends with. Set layers=1."
            )
        width = int(encoder.num_features)  # type: ignore[arg-type]
        self.predictor = StatePredictor(width, width, config.dropout)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal = batch.signal[:, 0]
        wanted = self._wanted(signal)
        hidden = self.hidden(batch, wanted.shape[1])
        predicted = self.predictor(self.understood(encoder, signal, hidden))
        error = F.smooth_l1_loss(predicted.to(wanted.dtype), wanted, reduction="none", beta=self.beta)
        return Losses(mean_where(error.sum(-1) / sqrt(error.shape[-1]), hidden))

    @torch.no_grad()
    def _wanted(self, signal: Tensor) -> Tensor:
        inner = self.wise.inner_outputs(self.wise.tokens(signal))[-self.layers :]
        # In float32 or better whatever the teacher computed in: small differences are what is learnt.
        exact = [one.to(torch.promote_types(one.dtype, torch.float32)) for one in inner]
        return torch.stack([F.layer_norm(one, one.shape[-1:]) for one in exact]).mean(0)
