"""Small networks on top of tokens. They are thrown away after training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.encoders.s4 import StateSpace
from capezoo.encoders.vit1d import INITIAL_STD, Positions, positions, transformer
from capezoo.objectives._perceptron import _affordable
from ecgcohorts.errors import SpecError


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


class GapPredictor(nn.Module):
    """A transformer that says what stands where tokens were dropped: (batch, kept, given) -> (batch, dropped, out).

    A learned token with the position of each gap joins the kept ones. Source: the decoder of MAE, arXiv 2111.06377, and
    the predictor of I-JEPA, arXiv 2301.08243, which differ in sizes alone.
    """

    def __init__(
        self,
        given: int,
        out: int,
        width: int,
        depth: int,
        heads: int,
        *,
        bias: bool = True,
        order: Positions = "halves",
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise SpecError(
                f"found a predictor of width {width} with {heads} heads, expected an even multiple. "
                "Set the objective's width or heads."
            )
        for widths in ((given, width), (12 * depth * width, width), (width, out)):
            _affordable(*widths)
        self.order = order
        self.embed = nn.Linear(given, width, bias=bias)
        self.mask_token = nn.Parameter(INITIAL_STD * torch.randn(width))
        self.blocks = transformer(width, depth, heads, bias=bias)
        self.norm = nn.LayerNorm(width, 1e-6, bias=bias)
        self.out = nn.Linear(width, out, bias=bias)
        for layer in (self.embed, self.out):
            nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
            if bias:
                nn.init.zeros_(layer.bias)

    def forward(self, context: Tensor, kept: Tensor, dropped: Tensor) -> Tensor:
        """kept, dropped: int64, places of tokens; together all of a row's."""
        n = kept.shape[1] + dropped.shape[1]
        table = positions(n, len(self.mask_token), context.device, self.order)
        # Kept tokens first, gaps after them: attention does not mind the order, so nothing has to be put back in place.
        tokens = torch.cat([self.embed(context) + table[kept], self.mask_token + table[dropped]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        predicted: Tensor = self.out(self.norm(tokens[:, kept.shape[1] :]))
        return predicted
