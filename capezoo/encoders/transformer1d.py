"""A transformer after a stem of convolutions: what the scaling study compares its state spaces with.

Source: arXiv 2605.12241 and its public code, which has the layer (norm first, 512 channels, 8 heads, feed-forward 2048) and
no configuration: depth and kind of positions are ours, the stem is that of the study's `s4`. Rotary positions: Su et al.,
arXiv 2104.09864; sines: Vaswani et al., arXiv 1706.03762.
"""

from math import log, prod
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders._conv import stem_of, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels, Taps

LONGEST_PERIOD = 10_000  # tokens, of the slowest wave over 2 pi; both sources
INITIAL_STD = 0.02  # of the normal of linear layers; BERT, arXiv 1810.04805


class Config(Spec):
    """Shape of the network. With 12 leads it has 13,419,520 parameters."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; the scaling study 12")
    width: Channels = Field(default=512, description="channels of stem and layers; the scaling study")
    heads: Channels = Field(default=8, description="the scaling study")
    feed_forward: Channels = Field(default=2048, description="channels between a layer's last two; the scaling study")
    depth: int = Field(
        default=4, gt=0, le=MAX_LAYERS, description="unstated: our default, as many layers as the study's s4"
    )
    positions: Literal["sines", "rotary"] = Field(
        default="sines", description="added to the tokens, or turning queries and keys; the public code has both: ours"
    )
    causal: bool = Field(default=False, description="a token attends to no later one, as CPC asks")
    kernels: tuple[Taps, ...] = Field(
        default=(3, 1, 1, 1), min_length=1, max_length=MAX_LAYERS, description="of the stem; the study's s4"
    )
    strides: tuple[Taps, ...] = Field(
        default=(2, 1, 1, 1), min_length=1, max_length=MAX_LAYERS, description="of the stem; the study's s4"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"as many kernels as strides, found {len(self.kernels)} and {len(self.strides)}")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width}: give an even number of channels for each of {self.heads} heads")
        return self


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, 512): tokens of 8.3 ms at 240 Hz, the mean over them after a LayerNorm."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        channels = (config.in_leads, *(config.width for _ in config.kernels))
        self.stem = stem_of(channels, config.kernels, config.strides)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)
        self.token_dim, self.causal, self.can_drop = config.width, config.causal, True
        stride = prod(config.strides)
        self.complete([Stage(config.width, stride, f"layers.{i}") for i in range(config.depth)], num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Stem."""
        return to_tokens(self.stem(as_rows(x)))

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first layers, on the tokens of `keep` at the places they had."""
        # One row of places for all: a table for each row would cost as much as the tokens, and tie an ONNX file to one batch.
        place = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if keep is not None:
            tokens, place = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2])), keep
        # Places are those before any token was dropped.
        angle = None
        if self.config.positions == "rotary":
            angle = _angles(place, self.config.width // self.config.heads)[:, None]
        else:
            sines = _angles(place, self.config.width)
            tokens = tokens + torch.cat([sines.sin(), sines.cos()], dim=-1).to(tokens.dtype)
        # True where a query may look, as torch has it: (batch, 1, token, token).
        seen = (place[:, :, None] >= place[:, None])[:, None] if self.causal else None
        found = []
        for layer in self.layers[:n_stages]:
            tokens = self.run_block(layer, tokens, angle=angle, seen=seen)
            found.append(tokens)
        return found

    def final_norm(self, x: Tensor) -> Tensor:
        """Layer norm over the channels of each token."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        last = (99999,)  # timm's way to say: in one group with the classifier
        return {"stem": r"^stem", "blocks": [(r"^layers\.(\d+)", None), (r"^norm", last)]}


class _Layer(nn.Module):
    """Attention, then a perceptron of each token, each added to what it was given after a LayerNorm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.feed_forward), nn.Linear(config.feed_forward, width)

    def forward(self, tokens: Tensor, angle: Tensor | None, seen: Tensor | None) -> Tensor:
        # (batch, token, 3 * head * channel) -> three of (batch, head, token, channel)
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if angle is not None:
            query, key = _turned(query, angle), _turned(key, angle)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        tokens = tokens + self.proj(read.transpose(1, 2).flatten(2))
        after: Tensor = tokens + self.down(F.gelu(self.up(self.norm2(tokens))))
        return after


def _angles(place: Tensor, channels: int) -> Tensor:
    """(batch, token) -> (batch, token, channels / 2): radians, of periods from 2 pi to 2 pi LONGEST_PERIOD tokens."""
    rate = torch.exp(torch.arange(channels // 2, device=place.device) * (-log(LONGEST_PERIOD) / (channels // 2)))
    return place[..., None] * rate


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Turn each pair of channels, one of the first half and one of the second, by its angle: products know distances."""
    first, second = x.chunk(2, dim=-1)
    # Angles stay float32 until here: in bfloat16 a place beyond 256 is not told from the next.
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
