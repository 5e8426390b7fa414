"""Predict the direction of the next token in context. Made up for tests/test_adding_things.py."""

import torch.nn.functional as F
from torch import nn

from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.specs.base import Spec


class Config(Spec):
    """Nothing to set."""


class Objective(_contract.Objective):
    """A linear map predicts; tokens ahead are targets and take no gradient."""

    needs = Needs(views=1, pairing=("record",), tokens=True)
    terms = ("cosine",)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        width = int(encoder.num_features)  # type: ignore[arg-type]
        self.predictor = nn.Linear(width, width)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        context = encoder.contextualise(encoder.tokens(batch.signal[:, 0]))[-1]  # type: ignore[operator]
        cosine = F.cosine_similarity(self.predictor(context[:, :-1]), context[:, 1:].detach(), dim=-1).mean()
        return Losses(1 - cosine, {"cosine": cosine.detach()})

    def least_tokens(self) -> int:
        return 2
