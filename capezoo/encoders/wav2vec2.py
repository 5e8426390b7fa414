"""A stem of convolutions and a transformer: wav2vec 2.0 as ECG-FM has it for 12 leads.

Source: Baevski et al., arXiv 2006.11477, in the form of ECG-FM (arXiv 2408.05178), read from its public code. Four
convolutions take every sixteenth sample at 500 Hz, so that a token is 32 ms; a wide convolution over tokens tells a token
where it is; twelve layers with their norms after the sums follow. The embedding is the mean over tokens.

The study's weights fit tensor by tensor, but that query, key and value stand in one matrix here, in this order, and that
the wide convolution's `gain` and `direction` are its weight norm's.
"""

from math import prod, sqrt
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders._conv import Conv, channels_last, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels, Share, Taps
from ecgcohorts.errors import SpecError

_INITIAL_STD = 0.02  # of the linear layers of the transformer; BERT, wav2vec 2.0


class Config(Spec):
    """Shape of the network. With 12 leads it has 90,373,248 parameters, ECG-FM's without the mask token."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; ECG-FM 12")
    stem_width: Channels = Field(default=256, description="channels of the convolutions; ECG-FM")
    kernels: tuple[Taps, ...] = Field(
        default=(2, 2, 2, 2), min_length=1, max_length=MAX_LAYERS, description="of the stem; ECG-FM"
    )
    strides: tuple[Taps, ...] = Field(
        default=(2, 2, 2, 2), min_length=1, max_length=MAX_LAYERS, description="of the stem; ECG-FM"
    )
    embedding_dim: Channels = Field(default=768, description="channels of a token; ECG-FM")
    depth: int = Field(default=12, gt=0, le=MAX_LAYERS, description="ECG-FM")
    head_dim: Channels = Field(default=64, description="features per attention head; ECG-FM: 12 heads")
    mlp_ratio: float = Field(default=4.0, gt=0, le=64, description="ECG-FM")
    position_kernel: Taps = Field(default=128, description="tokens that the convolution of positions sees; ECG-FM")
    position_groups: Channels = Field(default=16, description="of that convolution's channels; ECG-FM")
    dropout: Share = Field(default=0.1, lt=1, description="before the layers, and on what each adds; ECG-FM")
    attention_dropout: Share = Field(default=0.1, lt=1, description="of attention weights; ECG-FM")
    token_dropout: Share = Field(default=0.1, lt=1, description="of tokens before anything is hidden; ECG-FM")
    stem_gradient: Share = Field(
        default=0.1, description="factor on the gradient that reaches the stem; 0: the stem is frozen; ECG-FM"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"as many kernels as strides, found {len(self.kernels)} and {len(self.strides)}")
        for name in ("head_dim", "position_groups"):
            if self.embedding_dim % getattr(self, name):
                raise ValueError(f"embedding_dim {self.embedding_dim}: give a multiple of {name} {getattr(self, name)}")
        return self

    def shortest(self) -> int:
        """Return how many samples make one token: 16 at ECG-FM's kernels."""
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, embedding_dim). ECG-FM feeds the z-score of each lead of the recording."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        dim, stem = config.embedding_dim, config.stem_width
        self.stem = nn.Sequential()
        for i, (kernel, stride) in enumerate(zip(config.kernels, config.strides, strict=True)):
            # No padding: a last sample without its pair is left out, and 2,500 samples make 156 tokens.
            convolution = Conv(stem if i else config.in_leads, stem, kernel, stride, padding=0)
            nn.init.kaiming_normal_(convolution.weight)
            # The first alone is normed, each channel over time: the source's "default" mode.
            norm = nn.Identity() if i else nn.GroupNorm(stem, stem)
            self.stem.append(nn.Sequential(convolution, norm, nn.GELU()))
        # Codes are chosen for what comes out of it: tokens are projected from the same.
        self.feature_norm = nn.LayerNorm(stem)
        self.project = nn.Linear(stem, dim)
        self.token_dropout, self.dropout = nn.Dropout(config.token_dropout), nn.Dropout(config.dropout)
        self.positions = _Positions(dim, config.position_kernel, config.position_groups)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.token_dim = dim
        reduction = prod(config.strides)
        self.complete([Stage(dim, reduction, f"layers.{i}") for i in range(config.depth)], num_classes)

    @property
    def feature_dim(self) -> int:
        return self.config.stem_width

    def features_and_tokens(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return what the stem makes of a signal, its LayerNorm, and the tokens projected from that.

        Raises SpecError for a signal that makes no token.
        """
        # Unlike the other encoders' stems this one has no padding, and torch would speak of kernels and channels.
        if x.shape[-1] < (shortest := self.config.shortest()):
            raise SpecError(
                f"encoder wav2vec2: found a window of {x.shape[-1]} samples, expected {shortest} or more, which make one "
                "token. Use a longer window, or shorter kernels and strides."
            )
        raw = to_tokens(self.stem(channels_last(as_rows(x))))
        if raw.requires_grad:
            # Its value with a part of its gradient: between two equal tensors only the second has one.
            raw = raw.detach().lerp(raw, self.config.stem_gradient)
        features = self.feature_norm(raw)
        return raw, features, self.token_dropout(self.project(features))

    def tokens(self, x: Tensor) -> Tensor:
        """Stem, norm, projection."""
        return self.features_and_tokens(x)[-1]

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Add positions, and run the first layers."""
        # Here and not in `tokens`: positions are made of what is not hidden.
        tokens = self.dropout(self.norm(tokens + self.positions(tokens)))
        found = []
        for layer in self.layers[:n_stages]:
            tokens = self.run_block(layer, tokens)
            found.append(tokens)
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^(?:stem|feature_norm|project|positions|norm)\b", "blocks": r"^layers\.(\d+)"}


class _Positions(nn.Module):
    """A convolution over tokens, its weight normed for each place of its kernel, and GELU: (batch, token, dim) -> same."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        nn.init.normal_(self.direction, std=sqrt(4 / (kernel * dim)))
        # At the start the weight is `direction` itself. Shapes alone have no length: to ask would load 400 modules.
        length = torch.ones(1, 1, kernel) if self.direction.is_meta else _length(self.direction.detach())
        self.gain = nn.Parameter(length)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        kernel = self.direction.shape[-1]
        weight = self.direction * (self.gain / _length(self.direction))
        x = F.conv1d(tokens.transpose(1, 2), weight, self.bias, padding=kernel // 2, groups=self.groups)
        # An even kernel padded on both sides makes one output too many.
        return F.gelu(x[..., : tokens.shape[1]]).transpose(1, 2)


def _length(weight: Tensor) -> Tensor:
    """Euclidean length for each place of a kernel: (out, in, kernel) -> (1, 1, kernel)."""
    return weight.square().sum((0, 1), keepdim=True).sqrt()


class _Layer(nn.Module):
    """Attention and two linear layers, each added to its input and then normed."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, hidden = config.embedding_dim, round(config.mlp_ratio * config.embedding_dim)
        self.head_dim, self.attention_dropout = config.head_dim, config.attention_dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.qkv, self.out, self.widen, self.narrow):
            nn.init.normal_(layer.weight, std=_INITIAL_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        # One product in place of three small ones.
        query, key, value = self.qkv(tokens).unflatten(-1, (3, -1, self.head_dim)).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        # Norms after the sums: with them first, as most later transformers have them, ECG-FM's weights would not fit.
        tokens = self.attention_norm(tokens + self.dropout(self.out(seen.transpose(1, 2).flatten(2))))
        normed: Tensor = self.norm(tokens + self.dropout(self.narrow(F.gelu(self.widen(tokens)))))
        return normed
