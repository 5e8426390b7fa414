"""vit1d: the parameters by hand, positions written out, and timm's own VisionTransformer with the same weights."""

import hashlib
from functools import partial
from math import cos, sin
from typing import Any

import pytest
import torch
from torch import nn

from capezoo.encoders import build
from capezoo.encoders._timm import timm
from capezoo.encoders.vit1d import positions
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = {"in_leads": 3, "embedding_dim": 32, "head_dim": 16, "depth": 3, "patch": 20}
WEIMANN: dict[str, Any] = {"bias": False, "registers": 1, "positions": "interleaved"}


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="vit1d", config=config), seed=1)


@pytest.mark.parametrize(("leads", "dim", "depth"), [(8, 192, 12), (12, 192, 12), (8, 256, 4)])
def test_parameters_equal_the_sum(leads: int, dim: int, depth: int) -> None:
    """Linear layers with bias: d to 3d, d to d, d to 4d, 4d to d; two norms a block and one at the end."""
    block = (dim * 3 * dim + 3 * dim) + (dim * dim + dim) + (dim * 4 * dim + 4 * dim) + (4 * dim * dim + dim) + 4 * dim
    patches = 50 * leads * dim + dim
    model = made(in_leads=leads, embedding_dim=dim, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == patches + depth * block + 2 * dim
    if (leads, dim) == (8, 192):
        assert patches + depth * block + 2 * dim == 5_415_744


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"embedding_dim": 192}, 5_396_544),
        ({"embedding_dim": 384}, 21_409_920),
        ({"embedding_dim": 768}, 85_287_168),
        # Weimann and Conrad's S, XS and B, as their configuration files state them.
        ({"embedding_dim": 384, "depth": 8} | WEIMANN, 14_277_888),
        ({"embedding_dim": 192, "depth": 8} | WEIMANN, 3_600_000),
        ({"embedding_dim": 768, "depth": 12} | WEIMANN, 85_185_024),
    ],
)
def test_sizes_have_the_parameters_of_their_sources(settings: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = made(in_leads=12, patch=25, **settings)
    d, k = settings["embedding_dim"], settings.get("depth", 12)
    whole = 300 * d + d + k * (12 * d * d + 13 * d) + 2 * d
    spare = 300 * d + d + k * (12 * d * d + 2 * d) + d
    assert sum(p.numel() for p in model.parameters()) == count == (spare if "bias" in settings else whole)


def test_the_defaults_are_the_network_they_were_under_its_former_name() -> None:
    """Recorded of `ecg_vit`, seed 0: a hash of all weights, and features of noise."""
    model = build(EncoderSpec(name="vit1d"), seed=0).eval()
    state = b"".join(key.encode() + value.numpy().tobytes() for key, value in sorted(model.state_dict().items()))
    assert hashlib.sha256(state).hexdigest() == "6df8762559d4870d063d6a1a0391ab5ee9632374e057e217c45742a443c29bd2"
    x = torch.randn(2, 8, 2800, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model(x)
    expected = torch.tensor([[-0.47036046, -0.16832951, -0.16533958], [-0.32279068, -0.20387769, -0.36013070]])
    torch.testing.assert_close(features[:, :3], expected, rtol=1e-4, atol=1e-5)
    assert features.square().sum().item() == pytest.approx(103.183977, rel=1e-4)


@pytest.mark.parametrize("kind", ["halves", "interleaved"])
def test_positions_equal_the_sum_written_out(kind: Any) -> None:
    got = positions(7, 6, torch.device("cpu"), kind)
    for token in range(7):
        for i in range(3):
            angle = token / 10_000 ** (i / 3)
            sine, cosine = (i, 3 + i) if kind == "halves" else (2 * i, 2 * i + 1)
            assert got[token, sine].item() == pytest.approx(sin(angle), abs=1e-6)
            assert got[token, cosine].item() == pytest.approx(cos(angle), abs=1e-6)


def test_everything_equals_timms_transformer_with_the_same_weights() -> None:
    theirs = timm("models.vision_transformer").VisionTransformer(
        img_size=(1, 300), patch_size=(1, 20), in_chans=3, embed_dim=32, depth=3, num_heads=2, class_token=False,
        global_pool="avg", fc_norm=False, num_classes=5,
    ).eval()  # fmt: skip
    ours = build(EncoderSpec(name="vit1d", config=SMALL), seed=1, num_classes=5).eval()
    state = {key.replace("classifier", "head"): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict(state | {"pos_embed": positions(15, 32, torch.device("cpu"))[None]})
    x = torch.randn(2, 3, 300, generator=torch.Generator().manual_seed(0))
    image = x.unsqueeze(2)
    torch.testing.assert_close(ours(x), theirs(image))
    torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(image).transpose(1, 2))
    for norm in (False, True):
        got = ours.forward_intermediates(x, indices=[0, 2], norm=norm, output_fmt="NLC", intermediates_only=True)
        want = theirs.forward_intermediates(image, indices=[0, 2], norm=norm, output_fmt="NLC", intermediates_only=True)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_registers_and_layers_without_bias_equal_timms() -> None:
    theirs = timm("models.vision_transformer").VisionTransformer(
        img_size=(1, 300), patch_size=(1, 20), in_chans=3, embed_dim=32, depth=3, num_heads=2, class_token=False,
        global_pool="avg", fc_norm=False, num_classes=0, reg_tokens=2, no_embed_class=True, qkv_bias=False,
        proj_bias=False, norm_layer=partial(nn.LayerNorm, eps=1e-6, bias=False),
        embed_layer=partial(timm("layers").PatchEmbed, bias=False),
    ).eval()  # fmt: skip
    ours = made(**SMALL, **WEIMANN | {"registers": 2}).eval()
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith("registers")}
    assert not any(key.endswith("bias") for key in state)
    state |= {"reg_token": torch.stack([*ours.registers])[None], "patch_embed.proj.bias": torch.zeros(32)}
    theirs.load_state_dict(state | {"pos_embed": positions(15, 32, torch.device("cpu"), "interleaved")[None]})
    x = torch.randn(2, 3, 300, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x.unsqueeze(2)))
    stages = ours.contextualise(ours.tokens(x))
    for mine, other in zip(
        stages[:-1], theirs.forward_intermediates(x.unsqueeze(2), output_fmt="NLC")[1], strict=False
    ):
        torch.testing.assert_close(mine, other)
    ours(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


def test_kept_tokens_attend_to_kept_tokens_alone() -> None:
    """With the positions of all 15 added, 4 of them go through timm's blocks as if there had never been others."""
    model = made(**SMALL, registers=1).eval()
    x = torch.randn(2, 3, 300, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[0, 3, 4, 14], [2, 5, 9, 10]])
    table = positions(15, 32, torch.device("cpu"))
    for row, places in enumerate(keep.tolist()):
        alone = torch.stack([model.tokens(x)[row, place] + table[place] for place in places])
        context = torch.cat([model.registers[0][None], alone])[None]
        for block in model.blocks:
            context = block(context)
        kept = model.contextualise(model.tokens(x), keep)[-1]
        torch.testing.assert_close(kept[row], model.norm(context)[0, 1:])


def test_a_patch_that_is_not_full_is_filled_with_zeros() -> None:
    model = made(**SMALL).eval()
    x = torch.randn(1, 3, 110, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), model(torch.nn.functional.pad(x, (0, 10))))
    assert model.forward_features(x).shape == (1, 32, 6)


def test_order_in_time_matters() -> None:
    """Without positions a mean over tokens would be the same for any order of the patches."""
    model = made(**SMALL).eval()
    x = torch.randn(1, 3, 100, generator=torch.Generator().manual_seed(0))
    swapped = torch.cat([x[..., 60:], x[..., :60]], dim=-1)
    assert not torch.allclose(model(x), model(swapped), atol=1e-4)


@pytest.mark.parametrize("config", [{"embedding_dim": 100}, {"embedding_dim": 15, "head_dim": 5}])
def test_a_width_that_does_not_divide_is_refused(config: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"embedding_dim \d+: give an even multiple of head_dim"):
        made(**config)


@pytest.mark.parametrize("registers", [0, 2])
def test_causal_attention_sees_no_later_sample_and_has_the_same_weights(registers: int) -> None:
    model, plain = (made(**SMALL, registers=registers, causal=causal).eval() for causal in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
    x = torch.randn(2, 3, 300, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for token in (0, 6, 14):
        (gradient,) = torch.autograd.grad(model.contextualise(model.tokens(x))[-1][:, token, 0].sum(), x)
        assert gradient[..., 20 * (token + 1) :].abs().sum() == 0
        assert (gradient[..., : 20 * (token + 1)].abs().sum((0, 1)) > 0).all()
    keep = torch.tensor([[2, 0, 5], [1, 3, 4]])  # in any order: places decide, not the order they are listed in
    kept = model.contextualise(model.tokens(x), keep)[-1]
    (gradient,) = torch.autograd.grad(kept[0, 1, 0], x)
    assert gradient[0, :, 20:].abs().sum() == 0
