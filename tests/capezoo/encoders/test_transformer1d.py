"""The transformer of the scaling study against torch's layer, closed forms, and what rotary positions mean."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from capezoo import encoders, runs
from capezoo.encoders.transformer1d import _angles, _turned
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = {"width": 16, "heads": 2, "feed_forward": 32, "depth": 2}


def built(**config: object) -> nn.Module:
    return encoders.build(EncoderSpec(name="transformer1d", config=config), seed=0).eval()


@pytest.mark.parametrize(("depth", "layers"), [(4, 12_610_560), (6, 18_915_328)])
def test_parameters_are_those_of_the_public_layer(depth: int, layers: int) -> None:
    with torch.device("meta"):
        model = built(in_leads=12, depth=depth)
    assert sum(p.numel() for p in model.layers[0].parameters()) == 3_152_384
    assert sum(p.numel() for p in (*model.layers.parameters(), *model.norm.parameters())) == layers
    assert sum(p.numel() for p in model.stem.parameters()) == 808_960


@pytest.mark.parametrize("causal", [False, True])
def test_a_layer_is_torchs(causal: bool) -> None:
    ours = built(**SMALL, causal=causal).layers[0].double()
    theirs = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    theirs = theirs.double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        pairs = (
            (theirs.self_attn.in_proj_weight, ours.qkv.weight), (theirs.self_attn.in_proj_bias, ours.qkv.bias),
            (theirs.self_attn.out_proj.weight, ours.proj.weight), (theirs.self_attn.out_proj.bias, ours.proj.bias),
            (theirs.linear1.weight, ours.up.weight), (theirs.linear1.bias, ours.up.bias),
            (theirs.linear2.weight, ours.down.weight), (theirs.linear2.bias, ours.down.bias),
            (theirs.norm1.weight, ours.norm1.weight), (theirs.norm1.bias, ours.norm1.bias),
            (theirs.norm2.weight, ours.norm2.weight), (theirs.norm2.bias, ours.norm2.bias),
        )  # fmt: skip
        for place, value in pairs:
            place.copy_(value)
        tokens = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        hidden = torch.ones(9, 9, dtype=torch.bool).triu(1) if causal else None
        seen = ~hidden if hidden is not None else None
        torch.testing.assert_close(ours(tokens, None, seen), theirs(tokens, src_mask=hidden), rtol=1e-10, atol=1e-10)


def test_rotary_positions_are_turns_in_the_complex_plane() -> None:
    """Su et al., equation 12: products of queries and keys depend on the distance of their places alone."""
    x = torch.randn(1, 1, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    place = torch.tensor([[0, 3, 7, 8, 200]])
    found = _turned(x, _angles(place, 8)[:, None]).numpy()[0, 0]
    first, second = np.split(x.numpy()[0, 0], 2, axis=-1)
    rate = 10_000.0 ** (-np.arange(4) / 4)
    turned = (first + 1j * second) * np.exp(1j * place.numpy()[0][:, None] * rate)
    np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], axis=-1), rtol=0, atol=1e-4)
    far = _turned(x, _angles(place + 1000, 8)[:, None])[0, 0]
    near = torch.from_numpy(found)
    torch.testing.assert_close(far @ far.T, near @ near.T, rtol=0, atol=1e-3)


@pytest.mark.parametrize("positions", ["sines", "rotary"])
def test_order_matters_and_a_kept_token_knows_where_it_was(positions: str) -> None:
    model = built(**SMALL, positions=positions)
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        tokens = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
        keep = torch.tensor([[0, 4, 9], [2, 3, 11]])
        kept = model.contextualise(tokens, keep)[-1]
        moved = model.contextualise(tokens.gather(1, keep[..., None].expand(-1, -1, 16)))[-1]
        assert not torch.allclose(kept, moved, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("transformer1d", {"width": 16, "heads": 2, "feed_forward": 16, "depth": 1, "causal": True}),
        ("vit1d", {"embedding_dim": 16, "head_dim": 8, "depth": 1, "registers": 1}),
    ],
)
def test_an_exported_network_takes_any_batch(name: str, config: dict[str, Any]) -> None:
    """Of torch's exporter, which ONNX files begin with: one batch size in the graph would be refused here."""
    model = encoders.build(EncoderSpec(name=name, config=config), 0).eval()
    with torch.no_grad():
        shapes = ({0: torch.export.Dim("batch")},)
        graph = torch.export.export(model, (torch.zeros(2, 8, 100),), dynamic_shapes=shapes).module()
        x = torch.randn(5, 8, 100, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(graph(x), model(x))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(SpecError, match="give an even number of channels for each of 3 heads"):
        built(heads=3)
    with pytest.raises(SpecError, match="as many kernels as strides, found 2 and 4"):
        built(kernels=(3, 1))


def test_runs_of_the_study_differ_in_the_encoder_alone() -> None:
    for name in ("cpc", "jepa"):
        ours, theirs = runs.get(f"scaling_{name}", 0), runs.get(f"scaling_{name}_transformer", 0)
        assert theirs.encoder.name == "transformer1d"
        assert theirs.encoder.config == ours.encoder.config
        same = {"name": ours.name, "encoder": ours.encoder}
        assert theirs.model_copy(update=same) == ours
