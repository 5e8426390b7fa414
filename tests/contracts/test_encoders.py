"""What every encoder keeps to, collected from the registry: timm's method protocol and the specs."""

import pytest
import torch
from torch import nn

from capezoo import encoders
from capezoo.specs import EncoderSpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

NAMES = plugins.names("capezoo.encoders")
LENGTH = 800  # samples; any length an encoder meets


def built(name: str, num_classes: int = 0) -> nn.Module:
    return encoders.build(EncoderSpec(name=name), seed=0, num_classes=num_classes)


def signal(model: nn.Module, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 8, LENGTH, generator=torch.Generator().manual_seed(1))


def test_there_are_encoders() -> None:
    assert "cape_resnet" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_config_goes_to_json_and_back(name: str) -> None:
    kind = plugins.load("capezoo.encoders", name).Config
    assert kind.model_validate_json(kind().model_dump_json()) == kind()
    assert kind.model_config["frozen"] is True
    assert kind.model_config["extra"] == "forbid"
    for key, field in kind.model_fields.items():
        assert field.description, f"{name}.Config.{key} does not say where its default comes from"


@pytest.mark.parametrize("name", NAMES)
def test_unknown_setting_is_one_line_that_names_the_known_ones(name: str) -> None:
    with pytest.raises(SpecError, match=r"unknown key 'nonsense', expected one of .*in_leads") as error:
        encoders.build(EncoderSpec(name=name, config={"nonsense": 1}), seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_timm_protocol(name: str) -> None:
    model = built(name).eval()
    x = signal(model)
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        assert torch.equal(model(x), pooled)
        assert model.num_classes == 0
        assert pooled.shape == (3, model.num_features)
        assert pooled.dtype == torch.float32
        assert features.shape[1] == model.feature_info[-1]["num_chs"] == model.num_features
        final, every = model.forward_intermediates(x)
        assert torch.equal(final, features)
        assert len(every) == len(model.feature_info)
        last = model.forward_intermediates(x, indices=1, intermediates_only=True)
        assert torch.equal(last[0], every[-1])
        early = model.forward_intermediates(x, indices=[0], stop_early=True, output_fmt="NLC", intermediates_only=True)
        assert torch.equal(early[0], every[0].transpose(1, 2))
        model.reset_classifier(5)
        assert model.num_classes == 5
        assert model(x).shape == (3, 5)
        assert torch.equal(model.forward_head(model.forward_features(x), pre_logits=True), pooled)
        assert isinstance(model.get_classifier(), nn.Linear)
    assert isinstance(model.no_weight_decay(), set)
    model.set_grad_checkpointing(True)
    model.set_grad_checkpointing(False)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_layer_group(name: str) -> None:
    import re

    model = built(name)
    patterns = [p for p in model.group_matcher(coarse=False).values() if isinstance(p, str)]
    for parameter, _ in model.named_parameters():
        assert sum(bool(re.match(pattern, parameter)) for pattern in patterns) == 1, parameter


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_the_signal(name: str) -> None:
    model = built(name)
    x = signal(model).requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_records_do_not_influence_each_other_in_evaluation(name: str) -> None:
    model = built(name).eval()
    x = signal(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x[1:2]), model(x)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_from_the_seed_and_touch_no_global_generator(name: str) -> None:
    before = torch.get_rng_state()
    first, again = built(name, 2), built(name, 2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
