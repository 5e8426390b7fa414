"""Convolutions over time for the residual networks, with symmetric padding as PyTorch's.

Signals are (batch, channel, 1, time) in channels-last memory: on a CPU two to three times as fast as Conv1d.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator
from torch import Tensor, nn

from capezoo.specs.base import Taps


def _odd(kernel: int) -> int:
    # Half of an even one on both sides makes a sample more than the skip path beside it has.
    if kernel % 2 == 0:
        raise ValueError("an odd number of taps, as symmetric padding needs")
    return kernel


OddTaps = Annotated[Taps, AfterValidator(_odd)]  # of a kernel


class Conv(nn.Conv1d):
    """Convolution without bias, padded by `(kernel - stride + 1) // 2` zeros on both sides unless told otherwise.

    Weights have the shape of Conv1d, (out, in, kernel), so that those of published 1-D networks fit.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int | None = None
    ) -> None:
        padding = max(0, (kernel - stride + 1) // 2) if padding is None else padding
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.unsqueeze(2), stride=(1, self.stride[0]), padding=(0, int(self.padding[0])))


class SameConv(nn.Conv1d):
    """Convolution whose output has ceil(time / stride) samples, padded as TensorFlow's "same".

    TensorFlow puts the odd sample of an even kernel's padding on the right. Padding one side copies the signal, so
    an odd total is made even by one zero tap in front of the kernel instead: the sums are the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        total = same_padding(x.shape[-1], self.kernel_size[0], self.stride[0])
        weight = F.pad(self.weight, (1, 0)) if total % 2 else self.weight
        stride, padding = (1, self.stride[0]), (0, (total + 1) // 2)
        return F.conv2d(x, weight.unsqueeze(2), self.bias, stride, padding, groups=self.groups)


def same_padding(length: int, kernel: int, stride: int) -> int:
    """Zeros TensorFlow adds in all, half of them (rounded down) in front."""
    return max((ceil(length / stride) - 1) * stride + kernel - length, 0)


class ConvNorm(nn.Module):
    """Convolution padded by half its kernel, batch norm, and ReLU if `act`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = Conv(in_channels, out_channels, kernel, stride, padding=kernel // 2)
        # 2d, for the axis of one pixel that the signal keeps; tensors have the shapes and names of the 1-D norm.
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.act else x


class Residual(nn.Module):
    """ReLU of the sum of two paths."""

    def __init__(self, main: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.main, self.skip = main, skip

    def forward(self, x: Tensor) -> Tensor:
        # In place: the gradient of a sum needs neither the sum nor its terms.
        return F.relu(self.main(x) + self.skip(x), inplace=True)


def bottleneck(in_channels: int, width: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """Main path of a deep residual block: narrow, filter over time, widen."""
    return nn.Sequential(
        ConvNorm(in_channels, width, 1),
        ConvNorm(width, width, kernel, stride),
        ConvNorm(width, out_channels, 1, act=False),
    )


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# In channels-last memory a row of tokens lies as (token, channel) already: neither of these two copies anything.
def to_tokens(x: Tensor) -> Tensor:
    """Turn (batch, channel, 1, time) into (batch, token, channel)."""
    return x.squeeze(2).transpose(1, 2)


def from_tokens(tokens: Tensor) -> Tensor:
    """Turn (batch, token, channel) into (batch, channel, 1, time)."""
    return tokens.transpose(1, 2).unsqueeze(2)


def stem_of(channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """Return convolutions from each number of channels to the next, each with its norm and ReLU."""
    return nn.Sequential(
        *(ConvNorm(*ends, k, s) for ends, k, s in zip(pairwise(channels), kernels, strides, strict=True))
    )
