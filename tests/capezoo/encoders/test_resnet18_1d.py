"""resnet18_1d: MERL's counts and lengths; its forward pass is written out in tests/contracts/importers/merl_resnet18.py."""

import pytest
import torch
from torch import nn

from capezoo.encoders import build
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="resnet18_1d", config=config), seed=1)


def by_hand(leads: int, stem: int) -> int:
    """conv (7, stem), then four stages of two blocks of two convolutions of 3 taps; a 1x1 where channels change."""
    total, before = 7 * leads * stem + 2 * stem, stem
    for width in (stem, 2 * stem, 4 * stem, 8 * stem):
        total += 3 * before * width + 3 * 3 * width * width + 4 * 2 * width
        total += before * width + 2 * width if before != width else 0
        before = width
    return total


@pytest.mark.parametrize(("leads", "features"), [(12, 512), (8, 64)])
def test_parameters_equal_the_table(leads: int, features: int) -> None:
    with torch.device("meta"):
        model = made(in_leads=leads, embedding_dim=features)
    assert sum(p.numel() for p in model.parameters()) == by_hand(leads, features // 8)
    assert model.num_features == features
    assert by_hand(12, 64) == 3_848_832


def test_lengths_of_ten_seconds_at_500_hz() -> None:
    model = made(in_leads=12, embedding_dim=32).eval()
    stages = model.forward_intermediates(torch.zeros(1, 12, 5000), intermediates_only=True)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(4, 2500), (8, 1250), (16, 625), (32, 313)]
    assert model.tokens(torch.zeros(1, 12, 5000)).shape == (1, 2500, 4)


def test_features_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match=r"found 100 for 'embedding_dim', expected: .*multiple of 8"):
        made(embedding_dim=100)


@pytest.mark.parametrize("name", ["kernel", "stem_kernel"])
def test_even_kernels_are_refused(name: str) -> None:
    """Padded on both sides they make a sample more than the skip path beside them."""
    with pytest.raises(SpecError, match=rf"found 4 for '{name}', expected: .*an odd number of taps"):
        made(**{name: 4})
