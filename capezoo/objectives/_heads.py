"""Small networks on top of an embedding or of tokens. They are thrown away after training."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.encoders.s4 import StateSpace
from capezoo.encoders.vit1d import INITIAL_STD, Positions, positions, transformer
from ecgcohorts.errors import SpecError

_MOST_WEIGHTS = 1 << 30  # as many as an encoder may have; each width may be harmless where a product is not


def _affordable(*widths: int) -> None:
    """Raise SpecError, before anything is allocated, for linear layers of these widths that have too many weights."""
    count = sum(before * after for before, after in pairwise(widths))
    if count > _MOST_WEIGHTS:
        raise SpecError(
            f"found layers of {' x '.join(map(str, widths))}, which are {count:,} weights, expected at most "
            f"{_MOST_WEIGHTS:,}. Make the objective's layers, or the encoder's embedding, narrower."
        )


def perceptron(*widths: int, norm: bool = False, keras: bool = False) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them, after a BatchNorm if `norm`.

    keras: initial weights as Keras's Dense has them, uniform by inputs and outputs; else torch's. Raises SpecError for
    more than 2**30 weights.
    """
    _affordable(*widths)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        if layers:
            layers += [nn.BatchNorm1d(before), nn.ReLU()] if norm else [nn.ReLU()]
        # With a bias before a norm too, which takes it away again: BYOL's projector has 9,449,728 parameters with it.
        layers.append(nn.Linear(before, after))
    if keras:
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


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
                f"found a predictor of width {width} with {heads} heads, expected an even multiple of heads."
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
        tokens = torch.cat([self.embed(context) + table[kept], self.mask_token + table[dropped]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        predicted: Tensor = self.out(self.norm(tokens[:, kept.shape[1] :]))
        return predicted
