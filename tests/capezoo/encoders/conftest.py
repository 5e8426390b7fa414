"""A 2-D network of timm's as the independent form of a 1-D one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def image_of() -> Callable[[nn.Module, nn.Module], nn.Module]:
    """fill(theirs, ours): give a 2-D network the weights of a 1-D one, layer after layer, and return it.

    On an image one pixel high every square kernel meets padding above and below its middle row: that row is all.
    """

    def fill(theirs: nn.Module, ours: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for name, value in ours.named_buffers():
            if "running" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        with torch.no_grad():
            for parameter in ours.parameters():
                if parameter.ndim == 1:
                    parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
        state = theirs.state_dict()
        for (name, place), value in zip(state.items(), ours.state_dict().values(), strict=True):
            state[name] = middle_row(value, place) if value.ndim == 3 else value
        theirs.load_state_dict(state)
        return theirs.double().eval()

    return fill


def middle_row(weight: Tensor, like: Tensor) -> Tensor:
    square = torch.randn(like.shape, generator=torch.Generator().manual_seed(1))  # the other rows may be anything
    square[:, :, like.shape[2] // 2] = weight
    return square
