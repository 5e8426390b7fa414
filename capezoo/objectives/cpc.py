"""Predict a token some steps ahead among others of the same recording: contrastive predictive coding on any tokens.

Source: arXiv 1807.03748 in the form of ECG-CPC and the scaling study of AI4HealthUOL: one horizon, negatives from the
same sequence, dot products without temperature. Targets are the tokens before context, and they are trained too.
"""

from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._perceptron import _affordable
from capezoo.specs.base import Spec, Taps


class Config(Spec):
    """Horizon and negatives. The source's 14 tokens of 8.3 ms are 117 ms ahead."""

    ahead: Taps = Field(default=14, description="tokens from context to target; the source")
    negatives: Taps = Field(
        default=128, description="per position, uniform over the other tokens of the recording; the source"
    )
    reduction: Literal["sum", "mean"] = Field(
        default="sum", description="over positions: the sum (the source), or the mean. The mean over recordings follows"
    )


class Objective(_contract.Objective):
    """A linear map without bias predicts; it is thrown away after training.

    An encoder that shortens the signal after its tokens, as a staged CNN does, gives fewer contexts than tokens: then a
    target is the mean of the tokens that one context covers. That is ours. Only with a causal encoder is the prediction one;
    another has seen the target's neighbours.
    """

    needs = Needs(views=1, pairing=("record",), tokens=True)
    terms = ("accuracy",)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        _affordable(int(encoder.num_features), int(encoder.token_dim))  # type: ignore[arg-type]
        self.predictor = nn.Linear(encoder.num_features, encoder.token_dim, bias=False)  # type: ignore[arg-type]

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        tokens = encoder.tokens(batch.signal[:, 0])  # type: ignore[operator]
        context = encoder.contextualise(tokens)[-1]  # type: ignore[operator]
        n = context.shape[1]
        targets = tokens if tokens.shape[1] == n else F.adaptive_avg_pool1d(tokens.transpose(1, 2), n).transpose(1, 2)
        predicted = self.predictor(context[:, : -self.config.ahead])
        # Drawn on the CPU and sent: the same places on any device.
        among = _candidates(len(tokens), n, self.config.ahead, self.config.negatives, batch.generator)
        score = _scores(predicted, targets, among.to(targets.device))
        wanted = score.new_zeros(score.shape[:2], dtype=torch.long)
        per_position = F.cross_entropy(score.transpose(1, 2), wanted, reduction="none")  # (batch, position)
        per_recording = per_position.sum(1) if self.config.reduction == "sum" else per_position.mean(1)
        # By argmax equal scores would count as right: the target stands first.
        right = (score[..., :1] > score[..., 1:]).all(-1)
        return Losses(per_recording.mean(), {"accuracy": right.float().mean().detach()})

    def untrained(self, groups: int, tokens: int) -> float:
        """Return ln(1 + negatives) for each position: the loss of equal scores.

        Scores are plain dot products, so a fresh network whose tokens are large can begin far above it.
        """
        each = log(1 + self.config.negatives)
        return each * (tokens - self.config.ahead) if self.config.reduction == "sum" else each

    def least_tokens(self) -> int:
        return self.config.ahead + 1


def _candidates(batch: int, n: int, ahead: int, negatives: int, generator: torch.Generator) -> Tensor:
    """Draw places of the target, first, and of its negatives: int64 (batch, n - ahead, 1 + negatives) in 0 .. n - 1.

    Negatives are drawn with replacement from the n - 1 other places, past and future.
    """
    target = torch.arange(ahead, n).expand(batch, -1).unsqueeze(-1)
    # Of n - 1 places, moved up by one from the target on: uniform over the others, and no draw is rejected.
    others = torch.randint(n - 1, (batch, n - ahead, negatives), generator=generator)
    return torch.cat([target, others + (others >= target)], dim=-1)


def _scores(predicted: Tensor, targets: Tensor, among: Tensor) -> Tensor:
    """Dot products of predictions (batch, position, dim) with targets (batch, n, dim) at the places of `among`.

    Computed in float32 or better. All products are made and the wanted ones picked: 300 by 300 numbers a recording, where
    gathering the targets themselves would take 129 vectors for each position.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        exact = torch.promote_types(predicted.dtype, torch.float32)
        return (predicted.to(exact) @ targets.to(exact).transpose(1, 2)).gather(2, among)
