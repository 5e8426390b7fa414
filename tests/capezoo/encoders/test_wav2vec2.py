"""wav2vec2: the study's counts, torch's own transformer and weight norm with the same weights, and where gradients go."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from capezoo import encoders
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = {"stem_width": 8, "embedding_dim": 16, "head_dim": 4, "depth": 2, "position_kernel": 6, "position_groups": 4}


def built(**config: Any) -> Any:
    return encoders.build(EncoderSpec(name="wav2vec2", config=SMALL | config), seed=0)


def count(*parts: Any) -> int:
    return sum(p.numel() for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters()))


def test_parameters_are_those_of_ecg_fm() -> None:
    with torch.device("meta"):
        model: Any = encoders.build(EncoderSpec(name="wav2vec2", config={"in_leads": 12}), seed=0)
        assert model.tokens(torch.zeros(1, 12, 2500)).shape == (1, 156, 768)
    assert count(model) == 90_373_248
    assert count(*(block[0] for block in model.stem)) == 399_360
    assert count(*(block[1] for block in model.stem)) == count(model.feature_norm) == 512
    assert (count(model.project), count(model.positions), count(model.layers[0])) == (197_376, 4_719_488, 7_087_872)


def test_layers_are_torchs_with_norms_after_the_sums() -> None:
    model = built().eval()
    theirs = nn.TransformerEncoderLayer(16, 4, 64, activation="gelu", batch_first=True).eval()
    layer = model.layers[1]
    names = {"self_attn.in_proj_": layer.qkv, "self_attn.out_proj.": layer.out, "linear1.": layer.widen}
    names |= {"linear2.": layer.narrow, "norm1.": layer.attention_norm, "norm2.": layer.norm}
    theirs.load_state_dict(
        {key + kind: getattr(own, kind) for key, own in names.items() for kind in ("weight", "bias")}
    )
    tokens = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(0))
    # With gradients: without them torch takes a path of its own.
    torch.testing.assert_close(layer(tokens), theirs(tokens))


@pytest.mark.parametrize("kernel", [6, 7])
def test_positions_are_torchs_weight_norm_over_the_kernel(kernel: int) -> None:
    model = built(position_kernel=kernel).eval()
    with torch.no_grad():
        model.positions.gain.mul_(1.5)
    own = model.positions
    plain = nn.Conv1d(16, 16, kernel, padding=kernel // 2, groups=4)
    theirs = nn.utils.parametrizations.weight_norm(plain, dim=2)
    pair = {"original0": own.gain, "original1": own.direction}
    theirs.load_state_dict({"bias": own.bias} | {f"parametrizations.weight.{key}": pair[key] for key in pair})
    tokens = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(0))
    expected = F.gelu(theirs(tokens.transpose(1, 2))[..., :9]).transpose(1, 2)
    torch.testing.assert_close(own(tokens), expected)
    found = model.context(tokens, 1)[0]
    torch.testing.assert_close(found, model.layers[0](model.norm(tokens + expected)))


def test_stem_by_hand() -> None:
    model = built(token_dropout=0.0).double()
    x = torch.randn(2, 8, 101, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x
    for i, block in enumerate(model.stem):
        weight = block[0].weight
        pairs = y[..., : y.shape[-1] // 2 * 2].unflatten(-1, (-1, 2))  # an odd sample at the end is left out
        y = torch.einsum("oik,bitk->bot", weight, pairs)
        if i == 0:
            y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        y = F.gelu(y)
    raw, features, tokens = model.features_and_tokens(x)
    torch.testing.assert_close(raw, y.transpose(1, 2))
    torch.testing.assert_close(features, F.layer_norm(raw, (8,)))
    torch.testing.assert_close(tokens, model.project(features))
    assert raw.shape == (2, 6, model.feature_dim)


@pytest.mark.parametrize("factor", [0.1, 0.0])
def test_a_tenth_of_the_gradient_reaches_the_stem_and_all_of_it_the_rest(factor: float) -> None:
    x, found = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(1)), []
    for stem_gradient in (1.0, factor):
        model = built(stem_gradient=stem_gradient).eval()
        embedding = model(x)
        embedding.square().sum().backward()
        found.append((embedding.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (before, whole), (after, part) = found
    assert torch.equal(before, after)
    for name, gradient in part.items():
        share = factor if name.startswith("stem.") else 1.0
        torch.testing.assert_close(gradient, share * whole[name], rtol=1e-4, atol=1e-7)


def test_dropouts_are_where_the_study_has_them() -> None:
    tokens = torch.randn(4, 50, 16, generator=torch.Generator().manual_seed(0))
    model = built(dropout=0.0, attention_dropout=0.0, token_dropout=0.5).train()
    x = torch.randn(2, 8, 640, generator=torch.Generator().manual_seed(1))
    assert (model.tokens(x) == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(model.contextualise(tokens)[-1], model.eval().contextualise(tokens)[-1])
    for name in ("dropout", "attention_dropout"):
        model = built(**({"dropout": 0.0, "attention_dropout": 0.0} | {name: 0.5})).train()
        assert not torch.equal(model.contextualise(tokens)[-1], model.contextualise(tokens)[-1])
        layer = model.layers[0]
        seen = []
        layer.widen.register_forward_hook(lambda module, given, made, seen=seen: seen.append(made))
        layer.narrow.register_forward_hook(lambda module, given, made, seen=seen: seen.append(given[0]))
        layer(tokens)
        assert torch.equal(F.gelu(seen[0]), seen[1])  # none between the two linear layers


def test_weights_start_as_the_study_says() -> None:
    model = built(embedding_dim=64, stem_width=64)
    for layer in (model.layers[0].qkv, model.layers[0].narrow):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()
    assert model.positions.direction.std().item() == pytest.approx((4 / (6 * 64)) ** 0.5, rel=0.05)
    assert model.stem[1][0].weight.std().item() == pytest.approx((2 / (64 * 2)) ** 0.5, rel=0.05)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for config, words in (
        ({"embedding_dim": 18}, "embedding_dim 18: give a multiple of head_dim 4"),
        ({"position_groups": 3}, "embedding_dim 16: give a multiple of position_groups 3"),
        ({"kernels": [2, 2]}, "as many kernels as strides, found 2 and 4"),
    ):
        with pytest.raises(SpecError, match=words):
            built(**config)


def test_a_window_shorter_than_a_token_is_refused_and_one_as_long_is_not() -> None:
    for config, shortest in (({}, 16), ({"kernels": [10, 3], "strides": [5, 2]}, 20)):
        model = built(**config).eval()
        assert model.tokens(torch.randn(2, 8, shortest)).shape[1] == 1
        with pytest.raises(SpecError, match=rf"found a window of {shortest - 1} samples, expected {shortest} or more"):
            model(torch.randn(2, 8, shortest - 1))
