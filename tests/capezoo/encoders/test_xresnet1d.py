"""xresnet1d: the benchmark's layer table, and timm's ResNet-D on images one pixel high."""

import pytest
import torch
from torch import nn

from capezoo.encoders import build
from capezoo.encoders._timm import timm
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="xresnet1d", config=config), seed=1)


@pytest.mark.parametrize(("leads", "depth"), [(8, 18), (12, 34), (8, 50), (12, 101), (8, 101), (8, 152)])
def test_parameters_equal_the_table(leads: int, depth: int) -> None:
    """Kernel 5 and 64 filters throughout, so a 1x1 in a skip path only where the first bottleneck widens 64 to 256."""
    stem = 5 * (leads * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64)
    n = sum(BLOCKS[depth])
    if depth < 50:
        body = n * (2 * 5 * 64 * 64 + 2 * 2 * 64)
    else:
        norms = 2 * (64 + 64 + 256)
        body = n * (256 * 64 + 5 * 64 * 64 + 64 * 256 + norms)
        body += (64 - 256) * 64 + (64 * 256 + 2 * 256)  # the first block has 64 inputs, and the only 1x1
    model = made(in_leads=leads, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == stem + body
    assert model.num_features == (64 if depth < 50 else 256)
    assert [len(stage) for stage in model.stages] == list(BLOCKS[depth])


def test_lengths_in_the_benchmark_and_at_cape() -> None:
    model = made(depth=18).eval()
    for length, wanted in {250: [63, 32, 16, 8], 2800: [700, 350, 175, 88]}.items():
        stages = model.forward_intermediates(torch.zeros(1, 8, length), intermediates_only=True)
        assert [tuple(stage.shape[1:]) for stage in stages] == [(64, n) for n in wanted]


@pytest.mark.parametrize("length", [704, 701])
@pytest.mark.parametrize(("depth", "block", "expansion"), [(18, "BasicBlock", 1), (50, "Bottleneck", 4)])
def test_forward_equals_timms_resnet_d_on_an_image_one_pixel_high(image_of, depth, block, expansion, length) -> None:
    resnet = timm("models.resnet")
    widths = (4, 6, 8, 10)  # all different: where they are equal, timm has a 1x1 in the skip path and the source none
    theirs = resnet.ResNet(
        getattr(resnet, block), BLOCKS[depth], in_chans=3, num_classes=0, channels=widths, stem_type="deep",
        stem_width=2, avg_down=True,
    )  # fmt: skip
    ours = made(in_leads=3, depth=depth, widths=list(widths), stem_widths=[2, 2, 4], kernel=3).eval()
    theirs = image_of(theirs, ours)
    x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours_says = ours.double()(x)
    assert ours_says.shape == (2, 10 * expansion)
    torch.testing.assert_close(ours_says, theirs(x.unsqueeze(2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_block_starts_as_its_skip_path(depth: int) -> None:
    model = made(depth=depth).eval()
    block = model.stages[1][1]
    x = torch.randn(2, model.num_features, 1, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x.relu())
    other = made(depth=depth, zero_last_norm=False).eval().stages[1][1]
    assert not torch.equal(other(x), x.relu())


def test_initial_weights_have_he_et_als_variance() -> None:
    weight = made(depth=18).stages[2][0].main[0].conv.weight
    assert weight.std().item() == pytest.approx((2 / (5 * 64)) ** 0.5, rel=0.03)


def test_a_depth_without_a_table_is_refused() -> None:
    with pytest.raises(SpecError, match=r"found 20 for 'depth', expected: .*18, 34, 50, 101 or 152"):
        made(depth=20)


def test_even_kernels_are_refused() -> None:
    """Padded on both sides they make a sample more than the skip path beside them."""
    for name in ("kernel",):
        with pytest.raises(SpecError, match=rf"found 4 for '{name}', expected: .*an odd number of taps"):
            made(**{name: 4})
