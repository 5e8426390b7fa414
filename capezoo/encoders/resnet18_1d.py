"""ResNet-18 with one-dimensional convolutions and no maximum after the stem: MERL's encoder of signals.

Source: cheliu-computation/MERL-ICML2024 (MIT), arXiv 2403.06659, layer by layer; its embedding goes on through a projection and
attention of its text model, here features are the mean over time. 12 leads at 500 Hz, 10 s.
"""

from pydantic import Field, field_validator
from torch import nn

from capezoo.encoders._conv import Conv, ConvNorm, OddTaps, Residual
from capezoo.encoders._staged import StagedEncoder
from capezoo.specs import Spec
from capezoo.specs.base import Channels

_BLOCKS = 2  # of each of the four stages
_DIVISOR = 8  # the features are eight times the filters of the stem: four stages, of which three double


class Config(Spec):
    """Shape of the network. With 12 leads it has 3,848,832 parameters."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; MERL 12")
    embedding_dim: Channels = Field(default=512, description="features, a multiple of 8; the stem has an eighth; MERL")
    kernel: OddTaps = Field(default=3, description="taps of the blocks, odd; MERL")
    stem_kernel: OddTaps = Field(default=7, description="odd; MERL")

    @field_validator("embedding_dim")
    @classmethod
    def _divides(cls, embedding_dim: int) -> int:
        if embedding_dim % _DIVISOR:
            raise ValueError(f"a multiple of {_DIVISOR}")
        return embedding_dim


class Encoder(StagedEncoder):
    """(batch, lead, time) in mV -> (batch, num_features), after the last ReLU and a mean over time."""

    # torchvision's pools here, and so does resnet50_1d; MERL's tokens are twice as many.
    pools = False

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        widths = [config.embedding_dim // _DIVISOR * 2**i for i in range(4)]
        self.stem = ConvNorm(config.in_leads, widths[0], config.stem_kernel, stride=2)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                _block(width if place else before, width, 2 if i and place == 0 else 1, config.kernel)
                for place in range(_BLOCKS)
            )
            for i, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        for module in self.modules():
            if isinstance(module, Conv):  # MERL leaves PyTorch's numbers; ours is He et al.'s, as in resnet50_1d
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.token_dim = widths[0]
        self.complete_stages(widths, num_classes)


def _block(channels: int, width: int, stride: int, kernel: int) -> Residual:
    main = nn.Sequential(ConvNorm(channels, width, kernel, stride), ConvNorm(width, width, kernel, act=False))
    skip = ConvNorm(channels, width, 1, stride, act=False) if stride > 1 or channels != width else nn.Identity()
    return Residual(main, skip)
