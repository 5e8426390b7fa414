"""Predict a slow copy's embedding of the other view. Made up for tests/test_adding_things.py; BYOL without its projector."""

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._teacher import Teacher
from capezoo.specs.base import Share, Spec


class Config(Spec):
    """The teacher."""

    momentum: Share = Field(default=0.9, description="of the teacher; our default")


class Objective(_contract.Objective):
    """Student, predictor and teacher."""

    needs = Needs(views=2)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.momentum = config.momentum
        width = int(encoder.num_features)  # type: ignore[arg-type]
        self.predictor = nn.Linear(width, width)
        self.teacher = Teacher(encoder)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        one, other = batch.signal.unbind(1)
        return Losses(1 - F.cosine_similarity(self.predictor(encoder(one)), self.teacher(other)).mean())

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        self.teacher.follow(encoder, self.momentum)
