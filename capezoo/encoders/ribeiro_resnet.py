"""The PyTorch form of the network of Ribeiro et al.: odd kernels, a stem and five units, the first without stride.

Source: antonior92/ecg-age-prediction (MIT), layer by layer. It differs from `cape_resnet` in kernel 17 with symmetric
padding, one unit more, no ReLU after the stem, and PyTorch's initial weights and batch norms. The published network
flattens 16 x 320 outputs of 4096 samples; here they are averaged, so that any length will do and features number 320.
"""

from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.encoders._conv import Conv, OddTaps, channels_last, from_tokens, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels, Taps


class Config(Spec):
    """Shape of the network. With 12 leads it has the 6,919,584 parameters of the source's trunk."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; the source 8 or 12")
    embedding_dim: Channels = Field(default=320, description="filters of the last unit; the source")
    widths: tuple[Channels, ...] = Field(
        default=(64, 64, 128, 196, 256),
        min_length=1,
        max_length=MAX_LAYERS,
        description="filters of the stem and of each unit but the last; the source",
    )
    kernel: OddTaps = Field(default=17, description="taps of every convolution but the 1x1, odd; the source")
    unit_stride: Taps = Field(default=4, description="of every unit but the first, which has 1; the source")
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="our default, as in PCLR. Ribeiro 0.2; the source gives 0.8, the share kept, as the share dropped",
    )


class _Unit(nn.Module):
    """Two convolutions, the second with stride, and a skip path that carries the sum before its norm and ReLU."""

    def __init__(self, channels: int, filters: int, stride: int, config: Config) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = Conv(channels, filters, config.kernel)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = Conv(filters, filters, config.kernel, stride)
        self.skip = Conv(channels, filters, 1) if channels != filters else nn.Identity()
        self.norm2 = nn.BatchNorm2d(filters)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x: (batch, channel, 1, time), activated; y: the same before norm and ReLU. Returns both, shortened."""
        x = self.dropout(F.relu(self.norm1(self.conv1(x)), inplace=True))
        x = self.conv2(x)
        # The source asks for lengths that divide; elsewhere the last samples of the skip path are padded or cut to fit.
        y = F.max_pool2d(y, (1, self.stride), ceil_mode=True)[..., : x.shape[-1]] if self.stride > 1 else y
        y = x + self.skip(y)
        return self.dropout(F.relu(self.norm2(y))), y


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, num_features), after the last ReLU and a mean over time."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        stem, *middle = config.widths
        filters = (*middle, config.embedding_dim)
        strides = (1, *[config.unit_stride] * (len(filters) - 1))
        self.stem = Conv(config.in_leads, stem, config.kernel)
        self.stem_norm = nn.BatchNorm2d(stem)
        self.units = nn.ModuleList(
            _Unit(before, after, stride, config)
            for before, after, stride in zip((stem, *middle), filters, strides, strict=True)
        )
        self.token_dim = stem
        stages = [Stage(after, config.unit_stride**i, f"units.{i}") for i, after in enumerate(filters)]
        self.complete(stages, num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Run the stem: a token every sample."""
        return to_tokens(self.stem_norm(self.stem(channels_last(as_rows(x)))))

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first units, each after its ReLU."""
        x = y = from_tokens(tokens)
        found = []
        for unit in self.units[:n_stages]:
            x, y = self.run_block(unit, x, y)
            found.append(to_tokens(x))
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem", "blocks": r"^units\.(\d+)"}
