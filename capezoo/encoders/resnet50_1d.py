"""ResNet-50 with one-dimensional convolutions, the network of OpenECG's SimCLR and BYOL.

Source: OpenECG, arXiv 2503.00711, which says ResNet-50 for (12, 1000) signals and no more: kernels, widths and strides
are those of He et al., arXiv 1512.03385, in one dimension, with the stride in the middle convolution of a block.
"""

from pydantic import Field, field_validator
from torch import nn

from capezoo.encoders._conv import Conv, ConvNorm, OddTaps, Residual, bottleneck
from capezoo.encoders._staged import StagedEncoder
from capezoo.specs import Spec
from capezoo.specs.base import Channels

BLOCKS = (3, 4, 6, 3)  # He et al., 50 layers
EXPANSION = 4  # output channels of a block per channel of its middle convolution
DIVISOR = 32  # the features are 32 times the filters of the stem: four stages that double, widened four times


class Config(Spec):
    """Shape of the network. The defaults have 15,957,376 parameters."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; OpenECG 12")
    embedding_dim: Channels = Field(
        default=2048, description="features, a multiple of 32; the stem has a 32nd of it; He et al."
    )
    kernel: OddTaps = Field(
        default=3, description="taps of the middle convolutions, odd; OpenECG unstated: our default, He et al."
    )
    stem_kernel: OddTaps = Field(default=7, description="odd; OpenECG unstated: our default, He et al.")

    @field_validator("embedding_dim")
    @classmethod
    def _divides(cls, embedding_dim: int) -> int:
        if embedding_dim % DIVISOR:
            raise ValueError(f"a multiple of {DIVISOR}")
        return embedding_dim


class Encoder(StagedEncoder):
    """(batch, lead, time) in mV -> (batch, num_features), after the last ReLU and a mean over time."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        stem = config.embedding_dim // DIVISOR
        widths = [stem * 2**i for i in range(4)]
        outs = [width * EXPANSION for width in widths]
        self.stem = ConvNorm(config.in_leads, stem, config.stem_kernel, stride=2)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                # He et al.: the first stage keeps its length, since the maximum after the stem has halved it.
                _block(before if place == 0 else outs[i], widths[i], 2 if i and place == 0 else 1, config.kernel)
                for place in range(BLOCKS[i])
            )
            for i, before in enumerate((stem, *outs[:-1]))
        )
        for module in self.modules():
            if isinstance(module, Conv):  # He et al.'s normal by the number of outputs, as torchvision has it
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.token_dim = stem
        self.complete_stages(outs, num_classes)


def _block(channels: int, width: int, stride: int, kernel: int) -> Residual:
    out = width * EXPANSION
    skip = ConvNorm(channels, out, 1, stride, act=False) if channels != out else nn.Identity()
    return Residual(bottleneck(channels, width, out, kernel, stride), skip)
