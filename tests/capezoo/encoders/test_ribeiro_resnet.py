"""ribeiro_resnet: the source's layer table, and the network written out with PyTorch's own functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.encoders import build
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = {"in_leads": 3, "widths": [4, 4, 6], "embedding_dim": 8}


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="ribeiro_resnet", config=config), seed=1)


@pytest.mark.parametrize("leads", [8, 12])
def test_parameters_equal_the_table(leads: int) -> None:
    """Kernel 17 without bias, norms of two numbers a channel, a 1x1 where the channels change."""
    stem = 17 * leads * 64 + 2 * 64
    units = 0
    for before, after in [(64, 64), (64, 128), (128, 196), (196, 256), (256, 320)]:
        units += 17 * before * after + 17 * after * after + 2 * 2 * after
        units += before * after if before != after else 0
    trunk = sum(p.numel() for p in made(in_leads=leads).parameters())
    assert trunk == stem + units
    if leads == 12:  # the source in all: 16 x 320 flattened outputs and their bias to one age
        assert trunk + 16 * 320 + 1 == 6_924_705


def test_lengths_of_the_source_and_at_seven_seconds() -> None:
    model = made(**SMALL, unit_stride=4).eval()
    for length, wanted in {4096: [4096, 1024, 256], 2800: [2800, 700, 175]}.items():
        stages = model.forward_intermediates(torch.zeros(1, 3, length), intermediates_only=True)
        assert [stage.shape[-1] for stage in stages] == wanted
    assert made().eval().forward_features(torch.zeros(1, 8, 2800)).shape == (1, 320, 11)  # 2800, 700, 175, 44, 11


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-5)


def written_out(model: nn.Module, x: Tensor) -> Tensor:
    """No ReLU after the stem; padding 8 at stride 1 and 7 at stride 4; the sum before norm and ReLU goes on as y."""
    x = y = norm(F.conv1d(x, model.stem.weight, padding=8), model.stem_norm)
    for place, unit in enumerate(model.units):
        stride, padding = (1, 8) if place == 0 else (4, 7)
        x = F.relu(norm(F.conv1d(x, unit.conv1.weight, padding=8), unit.norm1))
        x = F.conv1d(x, unit.conv2.weight, stride=stride, padding=padding)
        y = F.max_pool1d(y, stride)
        if hasattr(unit.skip, "weight"):
            y = F.conv1d(y, unit.skip.weight)
        y = x + y
        x = F.relu(norm(y, unit.norm2))
    return x.mean(-1)


def test_forward_equals_the_network_written_out() -> None:
    model = made(**SMALL).double().eval()
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_buffers():  # statistics other than 0 and 1, so that a wrong norm shows
        if "running" in name:
            value.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5)
    x = torch.randn(2, 3, 1024, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(model(x), written_out(model, x), rtol=1e-10, atol=1e-12)


def test_any_remainder_of_the_stride_fits_both_paths() -> None:
    model = made(**SMALL).eval()
    for length in range(160, 176):
        assert model(torch.ones(1, 3, length)).isfinite().all()


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(SpecError, match=r"found 16 for 'kernel', expected: .*odd number of taps"):
        made(kernel=16)


def test_dropout_acts_in_training_only() -> None:
    model, x = made(**SMALL, dropout=0.5), torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
