"""net1d: the counts and lengths of ECGFounder, and its forward pass written out with plain convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.encoders import build
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

# ECGFounder's file has as many numbers of batch norms that its network never calls: those of the stem, and three a block.
UNUSED = 2 * 64 + sum(
    2 * (before + 2 * width) + (blocks - 1) * 6 * width
    for before, width, blocks in zip(
        (64, 64, 160, 160, 400, 400, 1024), (64, 160, 160, 400, 400, 1024, 1024), (2, 2, 2, 3, 3, 4, 4), strict=True
    )
)
SMALL = {"in_leads": 3, "stem_width": 4, "widths": [4, 8, 12], "blocks": [1, 2, 1], "group_width": 4}


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="net1d", config=config), seed=1)


@pytest.mark.parametrize(("leads", "published"), [(12, 30_665_264), (1, 30_807_750 - 153_750)])
def test_parameters_are_the_published_ones_without_the_norms_that_are_never_called(leads: int, published: int) -> None:
    assert UNUSED == 66_368
    with torch.device("meta"):
        model = made(in_leads=leads)
    assert sum(p.numel() for p in model.parameters()) == published - UNUSED
    assert model.num_features == 1024


def test_lengths_of_ten_seconds_at_500_hz() -> None:
    with torch.device("meta"):
        model, x = made(in_leads=12), torch.zeros(1, 12, 5000)
        stages = model.forward_intermediates(x, intermediates_only=True)
    assert model.tokens(x).shape == (1, 2500, 64)
    assert [stage.shape[2] for stage in stages] == [1250, 625, 313, 157, 79, 40, 20]
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32, 64, 128, 256]


def test_the_comparison_of_the_scaling_study_begins_with_stride_1() -> None:
    with torch.device("meta"):
        model = made(in_leads=12, stem_stride=1)
    assert model.tokens(torch.zeros(1, 12, 600, device="meta")).shape == (1, 600, 64)
    assert sum(p.numel() for p in model.parameters()) == 30_598_896
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv1d | nn.Linear))


def same(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """Convolve (batch, channel, time) with zeros around it: of an odd number the greater half behind."""
    (stride,), (kernel,) = layer.stride, layer.kernel_size
    total = max(0, (-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1])
    return F.conv1d(F.pad(x, (total // 2, total - total // 2)), layer.weight, layer.bias, stride, groups=layer.groups)


def by_hand(model: nn.Module, x: Tensor, stride: int) -> Tensor:
    """Features (batch, channel, time) of a model without norms."""
    x = same(x, model.stem)
    x = x * x.sigmoid()
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage):
            y = x if i == j == 0 else x * x.sigmoid()
            for layer in (block.conv1, block.conv2):
                y = same(y, layer)
                y = y * y.sigmoid()
            y = same(y, block.conv3)
            narrow = y.mean(-1) @ block.weigh[0].weight.T + block.weigh[0].bias
            weight = ((narrow * narrow.sigmoid()) @ block.weigh[2].weight.T + block.weigh[2].bias).sigmoid()
            if j == 0:
                x = F.max_pool1d(F.pad(x, ((stride - 1) // 2, stride - 1 - (stride - 1) // 2)), stride)
            zeros = x.new_zeros(x.shape[0], y.shape[1] - x.shape[1], x.shape[2])
            half = zeros.shape[1] // 2
            x = y * weight[..., None] + torch.cat([zeros[:, :half], x, zeros[:, half:]], dim=1)
    return x


@pytest.mark.parametrize("changes", [{}, {"stem_stride": 1, "kernel": 7}, {"stride": 3}, {"stride": 4, "squeeze": 4}])
def test_forward_equals_the_network_written_out(changes: dict) -> None:
    model = made(**SMALL, **changes).double().eval()
    for length in (320, 317, 97):  # of which some leave a last sample without a neighbour
        x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
        with torch.no_grad():
            wanted = by_hand(model, x, changes.get("stride", 2))
            torch.testing.assert_close(model.forward_features(x), wanted, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(model(x), wanted.mean(-1), rtol=1e-10, atol=1e-10)


def test_a_last_sample_without_a_neighbour_is_cut_at_0_in_the_skip_path() -> None:
    """The source pads with 0 before the maximum, where a pooling layer would pad with minus infinity."""
    block = made(**SMALL).stages[0][0]
    skipped = block._skip(torch.tensor([1.0, -3.0, -2.0]).expand(1, 4, 1, 3))
    assert skipped[0, 0, 0].tolist() == [1.0, 0.0]


def test_norms_come_before_activations_where_they_are_asked_for() -> None:
    model = made(**SMALL, norm="batch")
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 1 + 3 * 4 - 1  # of the stem, three a block, none before what the stem has activated
    seen = []
    for layer in norms:
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.mean((0, 2, 3)).abs().max()))
    model.train()(torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(0)))
    assert len(seen) == len(norms)
    assert max(seen) < 1e-5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widths": [4, 8], "blocks": [1]}, "as many widths as blocks, found 2 and 1"),
        ({"widths": [8, 4], "blocks": [1, 1]}, "widths that do not fall"),
        ({"widths": [8, 10], "blocks": [1, 1]}, "multiples of group_width=4 in widths, found 10"),
        ({"widths": [4, 8], "blocks": [40, 40]}, "at most 64 blocks in all, found 80"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        made(**(SMALL | changes))
