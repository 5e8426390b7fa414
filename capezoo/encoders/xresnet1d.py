"""The residual networks of the PTB-XL benchmark: three stem convolutions, averages in the skip paths, 64 filters.

Source: Strodthoff et al., "Deep Learning for ECG Analysis", arXiv 2004.13701, and the layer table in its public code.
The benchmark classifies with mean and maximum over time and two layers; here the embedding is the mean alone.
"""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.encoders._conv import Conv, ConvNorm, OddTaps, Residual, bottleneck, stem_of
from capezoo.encoders._staged import StagedEncoder
from capezoo.specs import Spec
from capezoo.specs.base import Channels

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECK_FROM = 50  # depth from which blocks have three convolutions and widen four times
EXPANSION = 4


class Config(Spec):
    """Shape of the network; the defaults are the benchmark's xresnet1d101."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; the benchmark 12")
    depth: Literal[18, 34, 50, 101, 152] = Field(default=101, description="the benchmark's best on most tasks")
    widths: tuple[Channels, Channels, Channels, Channels] = Field(
        default=(64, 64, 64, 64), description="filters of the four stages, before a bottleneck widens; the benchmark"
    )
    stem_widths: tuple[Channels, Channels, Channels] = Field(default=(32, 32, 64), description="the benchmark")
    kernel: OddTaps = Field(default=5, description="taps of every convolution but the 1x1, odd; the benchmark")
    zero_last_norm: bool = Field(default=True, description="every block starts as its skip path; the benchmark")


class Encoder(StagedEncoder):
    """(batch, lead, time) in mV -> (batch, num_features): 64 features up to depth 34, 256 from 50 on."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        stem = (config.in_leads, *config.stem_widths)
        self.stem = stem_of(stem, (config.kernel,) * 3, (2, 1, 1))
        expansion = EXPANSION if config.depth >= BOTTLENECK_FROM else 1
        outs = [width * expansion for width in config.widths]
        self.stages = nn.ModuleList(
            nn.ModuleList(
                _block(before if place == 0 else outs[i], outs[i], 2 if i and place == 0 else 1, config)
                for place in range(BLOCKS[config.depth][i])
            )
            for i, before in enumerate((stem[-1], *outs[:-1]))
        )
        _initialise(self, config.zero_last_norm)
        self.token_dim = stem[-1]
        self.complete_stages(outs, num_classes)


class _HalveByMean(nn.Module):
    """Mean of two samples; of the last one alone where their number is odd."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, (1, 2), ceil_mode=True)


def _block(channels: int, out: int, stride: int, config: Config) -> Residual:
    if config.depth >= BOTTLENECK_FROM:
        main = bottleneck(channels, out // EXPANSION, out, config.kernel, stride)
    else:
        main = nn.Sequential(
            ConvNorm(channels, out, config.kernel, stride), ConvNorm(out, out, config.kernel, act=False)
        )
    # A 1x1 with stride would drop every other sample: ResNet-D takes means first (arXiv 1812.01187).
    skip: list[nn.Module] = [_HalveByMean()] if stride > 1 else []
    # Only where widths differ, as in the benchmark's code; timm's ResNet-D has a 1x1 at every change of stride, too.
    if channels != out:
        skip.append(ConvNorm(channels, out, 1, act=False))
    return Residual(main, nn.Sequential(*skip))


def _initialise(model: nn.Module, zero_last_norm: bool) -> None:
    """He et al.'s normal by the number of inputs; the last norm of each block at 0."""
    for module in model.modules():
        if isinstance(module, Conv):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, Residual) and zero_last_norm:
            nn.init.zeros_(module.main[-1].norm.weight)  # type: ignore[index]
