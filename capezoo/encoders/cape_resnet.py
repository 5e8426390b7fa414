"""The residual network of Ribeiro et al. as used by PCLR and CAPE: a stem and four units, each a quarter as long.

Source: antonior92/automatic-ecg-diagnosis (MIT) and PCLR, layer by layer; CAPE names this network and 256 features.
"""

from math import erf, sqrt
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders._conv import SameConv, channels_last, from_tokens, same_padding, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels, Taps

# Standard deviation of a unit normal cut at two deviations: Keras divides by it so that he_normal keeps its variance.
TRUNCATED_STD = 0.87962566103423978


class Config(Spec):
    """Shape of the network. The defaults have 5,452,944 parameters; `embedding_dim=320` is PCLR's trunk."""

    in_leads: Channels = Field(default=8, description="CAPE; PCLR 12")
    embedding_dim: Channels = Field(
        default=256,
        description="filters of the last unit; CAPE says 256 features, where from is unstated; PCLR 320",
    )
    widths: tuple[Channels, ...] = Field(
        default=(64, 128, 196, 256),
        min_length=1,
        max_length=MAX_LAYERS,
        description="filters of the stem and of each unit but the last; Ribeiro",
    )
    kernel: Taps = Field(default=16, description="taps of every convolution but the 1x1; Ribeiro")
    stem_stride: Taps = Field(default=1, description="Ribeiro; more is faster and loses resolution")
    unit_stride: Taps = Field(default=4, description="Ribeiro at 4096 samples; at CAPE's 2800 unstated: our default")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="PCLR 0; Ribeiro 0.2")
    norm_eps: float = Field(default=1e-3, gt=0, description="Keras")
    norm_momentum: float = Field(default=0.01, gt=0, le=1, description="share of the new batch; Keras 0.99 of the old")
    norm: Literal["batch", "group"] = Field(
        default="batch",
        description="normalised over the batch (Ribeiro), or each ECG by itself in groups of channels: no batch "
        "statistics at all (GroupNorm, arXiv 1803.08494)",
    )
    norm_groups: Channels = Field(
        default=4, description="of channels, for norm=group; the most that share all published widths: our default"
    )

    @model_validator(mode="after")
    def _shares_channels(self) -> Self:
        odd = [width for width in (*self.widths, self.embedding_dim) if width % self.norm_groups]
        if self.norm == "group" and odd:
            raise ValueError(f"multiples of norm_groups={self.norm_groups} in widths and embedding_dim, found {odd[0]}")
        return self


class _KerasConv(SameConv):
    """Convolution without bias that starts as Keras has it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)

    def reset_parameters(self) -> None:
        """Keras he_normal: a normal cut at two deviations, by inversion (ten times as fast as trunc_normal_)."""
        std = sqrt(2.0 / (self.in_channels * self.kernel_size[0])) / TRUNCATED_STD
        edge = erf(2 / sqrt(2))
        with torch.no_grad():
            # Clamped, because rounding may carry erfinv a little beyond the cut.
            self.weight.uniform_(-edge, edge).erfinv_().mul_(sqrt(2) * std).clamp_(-2 * std, 2 * std)


class _Unit(nn.Module):
    """Two convolutions, the second with stride, and a skip path that carries the sum before its activation."""

    def __init__(self, channels: int, filters: int, config: Config) -> None:
        super().__init__()
        self.stride = config.unit_stride
        self.conv1 = _KerasConv(channels, filters, config.kernel)
        self.norm1 = _norm(filters, config)
        self.conv2 = _KerasConv(filters, filters, config.kernel, config.unit_stride)
        self.skip = _KerasConv(channels, filters, 1) if channels != filters else nn.Identity()
        self.norm2 = _norm(filters, config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x: (batch, channel, 1, time), activated; y: the same before activation. Returns both, time / stride long."""
        x = self.dropout(F.relu(self.norm1(self.conv1(x)), inplace=True))
        # Pooled before it is widened, as in the source: the 1x1 then runs over a quarter of the samples.
        y = self.conv2(x) + self.skip(self._pool(y))
        return self.dropout(F.relu(self.norm2(y))), y

    def _pool(self, y: Tensor) -> Tensor:
        """Maximum over `stride` samples with "same" padding. ceil_mode adds the right side's share, and only that."""
        if self.stride == 1:
            return y
        left = same_padding(y.shape[-1], self.stride, self.stride) // 2
        return F.max_pool2d(y, (1, self.stride), padding=(0, left), ceil_mode=True)


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, num_features), after the last ReLU and a mean over time."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        stem, *middle = config.widths
        filters = (*middle, config.embedding_dim)
        self.stem = _KerasConv(config.in_leads, stem, config.kernel, config.stem_stride)
        self.stem_norm = _norm(stem, config)
        self.units = nn.ModuleList(
            _Unit(before, after, config) for before, after in zip((stem, *middle), filters, strict=True)
        )
        self.token_dim = stem
        reduction = [config.stem_stride * config.unit_stride ** (i + 1) for i in range(len(filters))]
        self.complete([Stage(filters[i], reduction[i], f"units.{i}") for i in range(len(filters))], num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Run the stem: a token every `stem_stride` samples."""
        return to_tokens(F.relu(self.stem_norm(self.stem(channels_last(as_rows(x)))), inplace=True))

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


def _norm(channels: int, config: Config) -> nn.BatchNorm2d | nn.GroupNorm:
    # Weight and bias have the same names and shapes in both; running statistics are in the first alone.
    if config.norm == "group":
        return nn.GroupNorm(config.norm_groups, channels, eps=config.norm_eps)
    return nn.BatchNorm2d(channels, eps=config.norm_eps, momentum=config.norm_momentum)
