"""cape_resnet: the layer table, padding as TensorFlow's, and the unit's two paths written out again in NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from capezoo.encoders import build, cape_resnet
from capezoo.encoders._conv import SameConv, same_padding
from capezoo.encoders.cape_resnet import Config, Encoder
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = EncoderSpec(config={"in_leads": 3, "widths": [4, 6, 6], "embedding_dim": 8})


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({"in_leads": 12, "embedding_dim": 320}, 6_391_184),
        ({"in_leads": 8, "embedding_dim": 320}, 6_387_088),
        ({"in_leads": 12, "embedding_dim": 256}, 5_457_040),
        ({}, 5_452_944),
    ],
)
def test_parameters_equal_the_table(config: dict[str, int], parameters: int) -> None:
    model = build(EncoderSpec(config=dict(config)), seed=0)
    assert count(model) == parameters
    running = sum(b.numel() for name, b in model.named_buffers() if "running" in name)
    assert running == 2 * sum(b.numel() for name, b in model.named_buffers() if "running_mean" in name)


def test_running_statistics_of_the_published_trunk() -> None:
    model = build(EncoderSpec(config={"in_leads": 12, "embedding_dim": 320}), seed=0)
    assert sum(b.numel() for name, b in model.named_buffers() if "running" in name) == 3_728


def test_lengths_and_features_at_seven_seconds() -> None:
    model = build(EncoderSpec(config={"widths": [4, 4, 4, 4], "embedding_dim": 5}), seed=0).eval()
    features, units = model.forward_intermediates(torch.zeros(2, 8, 2800))
    assert [tuple(unit.shape) for unit in units] == [(2, 4, 700), (2, 4, 175), (2, 4, 44), (2, 5, 11)]
    assert features.shape == model.forward_features(torch.zeros(2, 8, 2800)).shape == (2, 5, 11)
    assert [info["num_chs"] for info in model.feature_info] == [4, 4, 4, 5]
    assert [info["reduction"] for info in model.feature_info] == [4, 16, 64, 256]
    assert all(model.get_submodule(info["module"]) is model.units[i] for i, info in enumerate(model.feature_info))


def same_conv(x: NDArray, weight: NDArray, stride: int) -> NDArray:
    """TensorFlow "same" by its definition: total = max((ceil(L/s)-1)s + k - L, 0), floor(total/2) of it in front."""
    kernel, length = weight.shape[-1], x.shape[-1]
    n = -(-length // stride)
    total = max((n - 1) * stride + kernel - length, 0)
    padded = np.pad(x, ((0, 0), (0, 0), (total // 2, total - total // 2)))
    windows = np.stack([padded[..., i * stride : i * stride + kernel] for i in range(n)], axis=2)
    return np.einsum("bilk,oik->bol", windows, weight)


@pytest.mark.parametrize("length", [11, 44, 173, 174, 175, 176])
@pytest.mark.parametrize(("kernel", "stride"), [(16, 1), (16, 4), (16, 3), (7, 1), (7, 2), (1, 1), (4, 4)])
def test_convolution_pads_as_tensorflow(length: int, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    conv = SameConv(3, 5, kernel, stride, bias=False).double()
    got = conv(x.unsqueeze(2)).squeeze(2).detach().numpy()
    np.testing.assert_allclose(got, same_conv(x.numpy(), conv.weight.detach().numpy(), stride), atol=1e-12)


def test_the_published_paddings() -> None:
    """Even kernel 16: 7 and 8 at stride 1; 6 and 6 at stride 4 of a multiple of 4; 6 and 7 from 175 to 44."""
    totals = {(2800, 1): 15, (2800, 4): 12, (700, 4): 12, (175, 4): 13, (44, 4): 12}
    assert {key: same_padding(key[0], 16, key[1]) for key in totals} == totals


def same_pool(x: NDArray, size: int) -> NDArray:
    length = x.shape[-1]
    total = -length % size
    padded = np.pad(x, ((0, 0), (0, 0), (total // 2, total - total // 2)), constant_values=-np.inf)
    return padded.reshape(*x.shape[:2], -1, size).max(axis=-1)


def norm(x: NDArray, layer: torch.nn.Module, eps: float = 1e-3) -> NDArray:
    mean, var, weight, bias = (
        getattr(layer, name).detach().numpy()[:, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def by_hand(model: torch.nn.Module, x: NDArray) -> NDArray:
    """The published network in NumPy: main path x, skip path y = the sum before its activation."""

    def weight(conv: torch.nn.Module) -> NDArray:
        return conv.weight.detach().numpy()

    x = y = np.maximum(norm(same_conv(x, weight(model.stem), 1), model.stem_norm), 0)
    for unit in model.units:
        main = np.maximum(norm(same_conv(x, weight(unit.conv1), 1), unit.norm1), 0)
        main = same_conv(main, weight(unit.conv2), 4)
        y = same_pool(y, 4)
        if hasattr(unit.skip, "weight"):
            y = same_conv(y, weight(unit.skip), 1)
        y = main + y
        x = np.maximum(norm(y, unit.norm2), 0)
    return x.mean(axis=-1)


@pytest.mark.parametrize("length", [2800, 1024, 701, 703])
def test_forward_equals_the_network_written_out(length: int) -> None:
    model = build(SMALL, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_buffers():  # statistics other than 0 and 1, so that a wrong norm shows
        if "running" in name:
            value.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5)
    x = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    got = model.eval()(x).detach().numpy()
    np.testing.assert_allclose(got, by_hand(model, x.numpy()), rtol=1e-10, atol=1e-12)


def test_he_normal_has_its_variance_and_is_cut_at_two_deviations() -> None:
    model = build(EncoderSpec(), seed=0)
    weight = model.units[2].conv2.weight
    std = (2 / (256 * 16)) ** 0.5
    assert weight.std().item() == pytest.approx(std, rel=0.01)
    assert weight.abs().max().item() <= 2 * std / cape_resnet.TRUNCATED_STD + 1e-7


def test_weights_follow_from_spec_and_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build(SMALL, seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.stem.weight, other.stem.weight)


def test_keras_norm_numbers() -> None:
    norms = [m for m in build(EncoderSpec(), 0).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 9
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


def test_group_norm_looks_at_no_other_ecg_and_keeps_names_and_first_weights() -> None:
    config = {"widths": [4, 8], "embedding_dim": 12, "norm_groups": 4}
    batch, group = (build(EncoderSpec(config={**config, "norm": norm}), 0) for norm in ("batch", "group"))
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in group.modules())
    ours, theirs = (dict(model.named_parameters()) for model in (group, batch))
    assert ours.keys() == theirs.keys() == group.state_dict().keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    x = torch.randn(6, 8, 400, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None, None]
    group.train()
    torch.testing.assert_close(group(x)[2:4], group(x[2:4]))
    torch.testing.assert_close(group(x), group.eval()(x))
    # A gain of the recorder leaves no trace but through eps.
    torch.testing.assert_close(group.double()(100.0 * x.double()), group(10000.0 * x.double()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [{"widths": [4, 6]}, {"embedding_dim": 6}, {"norm_groups": 3}])
def test_group_norm_needs_channels_that_its_groups_share(config) -> None:
    values = {"widths": [4, 8], "embedding_dim": 8, "norm_groups": 4, **config}
    with pytest.raises(SpecError, match=r"multiples of norm_groups=\d in widths and embedding_dim, found"):
        build(EncoderSpec(config={**values, "norm": "group"}), 0)
    build(EncoderSpec(config=values), 0)  # of BatchNorm nothing is asked


def test_dropout_acts_in_training_only() -> None:
    model = Encoder(Config(in_leads=2, widths=(4,), embedding_dim=4, dropout=0.5))
    x = torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_stem_stride_shortens_and_scales_the_reductions() -> None:
    model = Encoder(Config(in_leads=2, widths=(4, 4), embedding_dim=4, stem_stride=4)).eval()
    assert model.forward_features(torch.zeros(1, 2, 2800)).shape[-1] == 44  # 2800 -> 700 -> 175 -> 44
    assert [info["reduction"] for info in model.feature_info] == [16, 64]


def test_pooling_is_the_mean_over_time() -> None:
    model = build(SMALL, 0)
    features = F.relu(torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(model.forward_head(features), features.mean(-1))
