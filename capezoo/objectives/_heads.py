"""Small networks on top of tokens. They are thrown away after training."""

import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.encoders.s4 import StateSpace
from capezoo.objectives._perceptron import _affordable


class StatePredictor(nn.Module):
    """One layer of state spaces that see both ways, and a linear map: (batch, token, width) -> (batch, token, out).

    Source: the scaling study, with 64 states and dropout of single numbers, where its encoder has 8 and drops channels.
    """

    def __init__(self, width: int, out: int, dropout: float, state: int = 64) -> None:
        super().__init__()
        _affordable(width, 2 * width)
        _affordable(width, out)
        self.convolution = StateSpace(width, state, causal=False, steps=(0.001, 0.1))
        self.mix = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.dropout(F.gelu(self.convolution(tokens)))
        added = self.dropout(F.glu(self.mix(seen), dim=-1))
        predicted: Tensor = self.out(self.norm(tokens + added))
        return predicted
