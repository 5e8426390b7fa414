"""ecg_vit: the parameters by hand, _positions written out, and timm's own VisionTransformer with the same weights."""

from math import cos, sin

import pytest
import torch
from torch import nn

from capezoo.encoders import build
from capezoo.encoders._timm import timm
from capezoo.encoders.ecg_vit import _positions
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = {"in_leads": 3, "embedding_dim": 32, "head_dim": 16, "depth": 3, "patch": 20}


def made(**config) -> nn.Module:
    return build(EncoderSpec(name="ecg_vit", config=config), seed=1)


@pytest.mark.parametrize(("leads", "dim", "depth"), [(8, 192, 12), (12, 192, 12), (8, 256, 4)])
def test_parameters_equal_the_sum(leads: int, dim: int, depth: int) -> None:
    """Linear layers with bias: d to 3d, d to d, d to 4d, 4d to d; two norms a block and one at the end."""
    block = (dim * 3 * dim + 3 * dim) + (dim * dim + dim) + (dim * 4 * dim + 4 * dim) + (4 * dim * dim + dim) + 4 * dim
    patches = 50 * leads * dim + dim
    model = made(in_leads=leads, embedding_dim=dim, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == patches + depth * block + 2 * dim
    if (leads, dim) == (8, 192):
        assert patches + depth * block + 2 * dim == 5_415_744


def test_positions_equal_the_sum_written_out() -> None:
    got = _positions(7, 6, torch.device("cpu"))
    for token in range(7):
        for i in range(3):
            angle = token / 10_000 ** (i / 3)
            assert got[token, i].item() == pytest.approx(sin(angle), abs=1e-6)
            assert got[token, 3 + i].item() == pytest.approx(cos(angle), abs=1e-6)


def test_everything_equals_timms_transformer_with_the_same_weights() -> None:
    theirs = timm("models.vision_transformer").VisionTransformer(
        img_size=(1, 300), patch_size=(1, 20), in_chans=3, embed_dim=32, depth=3, num_heads=2, class_token=False,
        global_pool="avg", fc_norm=False, num_classes=5,
    ).eval()  # fmt: skip
    ours = build(EncoderSpec(name="ecg_vit", config=SMALL), seed=1, num_classes=5).eval()
    state = {key.replace("classifier", "head"): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict(state | {"pos_embed": _positions(15, 32, torch.device("cpu"))[None]})
    x = torch.randn(2, 3, 300, generator=torch.Generator().manual_seed(0))
    image = x.unsqueeze(2)
    torch.testing.assert_close(ours(x), theirs(image))
    torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(image).transpose(1, 2))
    for norm in (False, True):
        got = ours.forward_intermediates(x, indices=[0, 2], norm=norm, output_fmt="NLC", intermediates_only=True)
        want = theirs.forward_intermediates(image, indices=[0, 2], norm=norm, output_fmt="NLC", intermediates_only=True)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_a_patch_that_is_not_full_is_filled_with_zeros() -> None:
    model = made(**SMALL).eval()
    x = torch.randn(1, 3, 110, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), model(torch.nn.functional.pad(x, (0, 10))))
    assert model.forward_features(x).shape == (1, 32, 6)


def test_order_in_time_matters() -> None:
    """Without _positions a mean over tokens would be the same for any order of the patches."""
    model = made(**SMALL).eval()
    x = torch.randn(1, 3, 100, generator=torch.Generator().manual_seed(0))
    swapped = torch.cat([x[..., 60:], x[..., :60]], dim=-1)
    assert not torch.allclose(model(x), model(swapped), atol=1e-4)


@pytest.mark.parametrize("config", [{"embedding_dim": 100}, {"embedding_dim": 15, "head_dim": 5}])
def test_a_width_that_does_not_divide_is_refused(config: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"embedding_dim \d+: give an even multiple of head_dim"):
        made(**config)


def test_causal_attention_sees_no_later_sample_and_has_the_same_weights() -> None:
    model, plain = (made(**SMALL, causal=causal).eval() for causal in (True, False))
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
