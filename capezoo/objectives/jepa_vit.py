"""Predict the teacher's view of blocks of tokens that the student was not given: joint embedding prediction, by dropping.

Source: Weimann and Conrad's ECG-JEPA (kweimann/ECG-JEPA), after I-JEPA, arXiv 2301.08243. Where objective `jepa` puts a
learned token in place of what is hidden, as encoders of convolutions and state spaces need it, here hidden tokens never
enter the student, which sees 15 to 25 % of a window. A transformer half as wide predicts the rest; the loss is the mean
absolute difference.
"""

from math import ceil
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders import TokenEncoder
from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._heads import GapPredictor
from capezoo.objectives._masks import at, gaps
from capezoo.objectives._schedules import linear
from capezoo.objectives._teacher import Teacher
from capezoo.specs.base import MAX_LAYERS, Channels, Share, Spec, Taps


class Config(Spec):
    """Teacher, dropping, predictor."""

    teacher: Literal["moving", "frozen"] = Field(
        default="moving",
        description="follows the student (the source), or stays what it was before the first step (ours)",
    )
    momentum: tuple[Share, Share] = Field(
        default=(0.998, 0.9995),
        description="of a moving teacher, at the first step and, along a line, at the last; the source, in 100,000 steps",
    )
    kept_share: tuple[Share, Share] = Field(
        default=(0.15, 0.25), description="of tokens the student is given, from and to, drawn once a batch; the source"
    )
    shortest: Taps = Field(default=10, description="tokens of a dropped block at least; the source")
    width: Channels | None = Field(default=None, description="of the predictor; none: half the encoder's (the source)")
    depth: int | None = Field(
        default=None, gt=0, le=MAX_LAYERS, description="of the predictor; none: the encoder's stages (the source)"
    )
    heads: Channels = Field(default=6, description="attention heads of the predictor; the source")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 0 < self.kept_share[0] <= self.kept_share[1] < 1:
            raise ValueError(f"kept_share {self.kept_share}: give shares from small to large between 0 and 1")
        return self


class Objective(_contract.Objective):
    """The target is the teacher's last output after its norm. Only its slowness keeps features from collapsing."""

    needs = Needs(views=1, pairing=("record",), tokens=True, drops_tokens=True)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.teacher = Teacher(encoder)
        given = int(encoder.num_features)  # type: ignore[arg-type]
        depth = config.depth or len(encoder.feature_info)  # type: ignore[arg-type]
        self.predictor = GapPredictor(
            given, given, config.width or given // 2, depth, config.heads, bias=False, order="interleaved"
        )

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal, student = batch.signal[:, 0], cast("TokenEncoder", encoder)
        tokens = student.tokens(signal)
        rows, n = tokens.shape[:2]
        # One number for all rows, so that they stack.
        low, high = self.config.kept_share
        share = low + (high - low) * torch.rand(1, generator=batch.generator).item()
        drawn = gaps(rows, n, min(ceil(share * n), n - 1), self.config.shortest, batch.generator)
        kept, dropped = (places.to(signal.device, non_blocking=True) for places in drawn)
        predicted = self.predictor(student.contextualise(tokens, kept)[-1], kept, dropped)
        wanted = at(dropped, self._wanted(signal))
        exact = torch.promote_types(wanted.dtype, torch.float32)
        return Losses((predicted.to(exact) - wanted.to(exact)).abs().mean())

    @torch.no_grad()
    def _wanted(self, signal: Tensor) -> Tensor:
        wise = cast("TokenEncoder", self.teacher.network)
        # No LayerNorm on top, as in the source: the encoder's last norm is one already.
        return wise.contextualise(wise.tokens(signal))[-1]

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        # The source moves its teacher when the next step begins, with the momentum of that step.
        if self.config.teacher == "moving":
            self.teacher.follow(encoder, linear(*self.config.momentum, step + 1, total_steps))

    def least_tokens(self) -> int:
        return 2
