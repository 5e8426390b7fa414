"""Predict a slow copy's projection of the other view; nothing repels. Source: BYOL, arXiv 2006.07733.

OpenECG (arXiv 2503.00711) uses it on two views of one recording. The loss here is the mean over both directions of
2 - 2 cos, half of the original's sum.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._perceptron import perceptron
from capezoo.objectives._schedules import half_cosine
from capezoo.objectives._teacher import Teacher
from capezoo.specs.base import Channels, Share, Spec


class Config(Spec):
    """Heads and teacher; OpenECG states none of these, so they are the original's."""

    hidden: Channels = Field(default=4096, description="of projector and predictor; BYOL")
    projection: Channels = Field(default=256, description="BYOL")
    momentum: Share = Field(
        default=0.996, description="of the teacher at the start; it goes to 1 along half a cosine; BYOL"
    )
    teacher_norms: Literal["running", "as_student"] = Field(
        default="running",
        description="the teacher's BatchNorm layers use running statistics, copied from the student: our default; or "
        "those of the batch, as in BYOL",
    )


class Objective(_contract.Objective):
    """The student is encoder, projector and predictor; the teacher a copy of the first two."""

    needs = Needs(views=2, pairing=("record", "patient", "adjacent"))

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.momentum = config.momentum
        self.projector = perceptron(int(encoder.num_features), config.hidden, config.projection, norm=True)  # type: ignore[arg-type]
        # On the student alone: without it the two sides are alike, and the paper's ablation collapses.
        self.predictor = perceptron(config.projection, config.hidden, config.projection, norm=True)
        self.teacher = Teacher(nn.Sequential(encoder, self.projector), config.teacher_norms)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        views = batch.signal.unbind(1)
        # View by view, as the original: a BatchNorm must not see both at once.
        predicted = [self.predictor(self.projector(encoder(view))) for view in views]
        wanted = [self.teacher(view) for view in views]
        return Losses((_distance(predicted[0], wanted[1]) + _distance(predicted[1], wanted[0])) / 2)

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        momentum = half_cosine(self.momentum, 1.0, step, total_steps)
        self.teacher.follow(nn.Sequential(encoder, self.projector), momentum)

    def untrained(self, groups: int, tokens: int) -> float:
        """2, for directions that know nothing of each other. A collapsed network has 0: look at the rank."""
        return 2.0


def _distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean over rows of 2 - 2 cos, the squared distance on the unit sphere: 0 to 4. Computed in float32 or better."""
    # Autocast would leave a cosine in bfloat16 on a CPU, where all above 0.998 are 1 and the loss is 0.
    with torch.autocast(predicted.device.type, enabled=False):
        exact = torch.promote_types(predicted.dtype, torch.float32)
        return 2 - 2 * F.cosine_similarity(predicted.to(exact), wanted.to(exact), dim=-1).mean()
