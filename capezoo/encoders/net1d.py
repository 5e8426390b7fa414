"""Net1D, the network of ECGFounder: grouped convolutions without norms, each block weighing its channels by their means.

Source: Hong et al., arXiv 2004.13319 (the design space) and PKUDigitalHealth/ECGFounder (MIT), arXiv 2410.04133, for the
numbers. ECGFounder takes 12 leads, or one, at 500 Hz, 10 s.
"""

from math import ceil
from typing import Literal, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders._conv import SameConv, channels_last, to_tokens
from capezoo.encoders._protocol import Stage, as_rows
from capezoo.encoders._staged import StagedEncoder
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels, Taps


class Config(Spec):
    """Shape of the network. With 12 leads it has 30,598,896 parameters: ECGFounder's but for the norms it never calls."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; ECGFounder 12 or 1")
    stem_width: Channels = Field(default=64, description="ECGFounder")
    stem_stride: Taps = Field(default=2, description="ECGFounder; 1 in the scaling study's comparison")
    widths: tuple[Channels, ...] = Field(
        default=(64, 160, 160, 400, 400, 1024, 1024),
        min_length=1,
        max_length=MAX_LAYERS,
        description="channels of each stage, none narrower than the one before; ECGFounder, elsewhere unstated",
    )
    blocks: tuple[Taps, ...] = Field(
        default=(2, 2, 2, 3, 3, 4, 4), min_length=1, max_length=MAX_LAYERS, description="of each stage; ECGFounder"
    )
    kernel: Taps = Field(default=16, description="taps of the stem and of each block's middle convolution; ECGFounder")
    stride: Taps = Field(default=2, description="of the first block of each stage; ECGFounder")
    group_width: Channels = Field(default=16, description="channels that a middle convolution mixes; ECGFounder")
    squeeze: Channels = Field(default=2, description="channels per unit that weighs them; ECGFounder")
    norm: Literal["none", "batch"] = Field(
        default="none", description="before each activation; ECGFounder builds batch norms and calls none"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="before each convolution of a block; ECGFounder 0")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"as many widths as blocks, found {len(self.widths)} and {len(self.blocks)}")
        if sum(self.blocks) > MAX_LAYERS:
            raise ValueError(f"at most {MAX_LAYERS} blocks in all, found {sum(self.blocks)}")
        every = (self.stem_width, *self.widths)
        if list(every) != sorted(every):
            raise ValueError("widths that do not fall: a skip path can fill channels up with zeros, and drop none")
        if odd := [width for width in self.widths if width % self.group_width]:
            raise ValueError(f"multiples of group_width={self.group_width} in widths, found {odd[0]}")
        return self


class Encoder(StagedEncoder):
    """(batch, lead, time) in mV -> (batch, num_features), the mean over time."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        self.stem = SameConv(config.in_leads, config.stem_width, config.kernel, config.stem_stride, bias=True)
        self.stem_norm = _norm(config.stem_width, config)
        # As the source counts: a block that opens a stage takes the channels of the stage before.
        befores = (config.stem_width, *config.widths)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                _Block(width if place else befores[i], width, config, opens=place == 0, is_first=not (i or place))
                for place in range(config.blocks[i])
            )
            for i, width in enumerate(config.widths)
        )
        self.token_dim = config.stem_width
        reduction = [config.stem_stride * config.stride ** (i + 1) for i in range(len(config.widths))]
        stages = [Stage(width, reduction[i], f"stages.{i}") for i, width in enumerate(config.widths)]
        self.complete(stages, num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Run the stem: a token every `stem_stride` samples."""
        return to_tokens(F.silu(self.stem_norm(self.stem(channels_last(as_rows(x)))), inplace=True))


class _Block(nn.Module):
    """Norm and activation before each of three convolutions, channels weighed by their means, and a skip path.

    opens: the first of its stage, which shortens the signal. is_first: of all; the stem has activated its input already.
    """

    def __init__(self, channels: int, width: int, config: Config, *, opens: bool, is_first: bool) -> None:
        super().__init__()
        self.stride, self.widening, self.is_first = config.stride if opens else 1, width - channels, is_first
        self.norm1 = nn.Identity() if is_first else _norm(channels, config)
        self.conv1 = SameConv(channels, width, 1, bias=True)
        self.norm2 = _norm(width, config)
        groups = width // config.group_width
        self.conv2 = SameConv(width, width, config.kernel, self.stride, groups=groups, bias=True)
        self.norm3 = _norm(width, config)
        self.conv3 = SameConv(width, width, 1, bias=True)
        self.dropout = nn.Dropout(config.dropout)
        # Of a block narrower than `squeeze` none would be left, and it would weigh by biases alone.
        units = max(1, width // config.squeeze)
        self.weigh = nn.Sequential(nn.Linear(width, units), nn.SiLU(), nn.Linear(units, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, 1, time) -> the same, wider or shorter where a stage begins."""
        # Not in place: the skip path takes the input as it came.
        y = x if self.is_first else self.dropout(F.silu(self.norm1(x)))
        y = self.conv2(self.dropout(F.silu(self.norm2(self.conv1(y)), inplace=True)))
        y = self.conv3(self.dropout(F.silu(self.norm3(y), inplace=True)))
        # Squeeze-and-excitation, arXiv 1709.01507, on the block's own share of the sum.
        return y * self.weigh(y.mean((2, 3)))[..., None, None] + self._skip(x)

    def _skip(self, x: Tensor) -> Tensor:
        """Shorten by maxima, widen by zeros on both sides."""
        if self.stride > 1:
            left = (self.stride - 1) // 2
            # With zeros, as in the source: a last sample without a neighbour is cut at 0, where other networks keep it.
            right = ceil(x.shape[-1] / self.stride) * self.stride - x.shape[-1]
            x = F.max_pool2d(F.pad(x, (left, max(0, right - left))), (1, self.stride))
        if self.widening:
            x = F.pad(x, (0, 0, 0, 0, self.widening // 2, self.widening - self.widening // 2))
        return x


def _norm(channels: int, config: Config) -> nn.Module:
    return nn.BatchNorm2d(channels) if config.norm == "batch" else nn.Identity()
