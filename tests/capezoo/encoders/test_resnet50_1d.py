"""resnet50_1d: He et al.'s layer table in one dimension, and timm's ResNet-50 on images one pixel high."""

import pytest
import torch
from torch import nn

from capezoo.encoders import build
from capezoo.encoders._timm import timm
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="resnet50_1d", config=config), seed=1)


def by_hand(leads: int, stem: int) -> int:
    """conv (7, stem), then 3, 4, 6, 3 blocks of 1x1, 3, 1x1 taps; a 1x1 in the skip path of each stage's first."""
    total, before = 7 * leads * stem + 2 * stem, stem
    for blocks, width in zip((3, 4, 6, 3), (stem, 2 * stem, 4 * stem, 8 * stem), strict=True):
        out = 4 * width
        for place in range(blocks):
            total += before * width + 2 * width  # 1x1 and norm
            total += 3 * width * width + 2 * width
            total += width * out + 2 * out
            total += before * out + 2 * out if place == 0 else 0
            before = out
    return total


@pytest.mark.parametrize(("leads", "features"), [(8, 2048), (12, 2048), (8, 256)])
def test_parameters_equal_the_table(leads: int, features: int) -> None:
    model = made(in_leads=leads, embedding_dim=features)
    assert sum(p.numel() for p in model.parameters()) == by_hand(leads, features // 32)
    assert model.num_features == features
    if (leads, features) == (8, 2048):
        assert by_hand(8, 64) == 15_957_376


def test_lengths_at_openecg_and_at_cape() -> None:
    model = made(embedding_dim=32).eval()
    for length, wanted in {1000: [250, 125, 63, 32], 2800: [700, 350, 175, 88]}.items():
        stages = model.forward_intermediates(torch.zeros(1, 8, length), intermediates_only=True)
        assert [tuple(stage.shape[1:]) for stage in stages] == list(zip([4, 8, 16, 32], wanted, strict=True))


def test_forward_equals_timms_resnet50_on_an_image_one_pixel_high(image_of) -> None:
    resnet = timm("models.resnet")
    ours = made(in_leads=3).eval()
    theirs = image_of(resnet.ResNet(resnet.Bottleneck, (3, 4, 6, 3), in_chans=3, num_classes=0), ours)
    ours = ours.double()
    for length in (320, 317):
        x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        torch.testing.assert_close(ours(x), theirs(x.unsqueeze(2)), rtol=1e-9, atol=1e-9)


def test_features_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match=r"found 100 for 'embedding_dim', expected: .*multiple of 32"):
        made(embedding_dim=100)


def test_even_kernels_are_refused() -> None:
    """Padded on both sides they make a sample more than the skip path beside them."""
    for name in ("kernel", "stem_kernel"):
        with pytest.raises(SpecError, match=rf"found 4 for '{name}', expected: .*an odd number of taps"):
            made(**{name: 4})
