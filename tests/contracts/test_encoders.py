"""What every encoder keeps to, collected from the registry: timm's method protocol and the specs."""

import pytest
import torch
from torch import nn

from capezoo import encoders
from capezoo.encoders._protocol import TokenEncoder
from capezoo.specs import EncoderSpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

NAMES = plugins.names("capezoo.encoders")
LENGTH = 800  # samples; any length an encoder meets
# Of networks whose published size would take most of the time here: narrower ones of the same build.
NARROWER = {
    "transformer1d": {"width": 32, "heads": 2, "feed_forward": 64},
    "net1d": {"stem_width": 16, "widths": [16, 32, 32, 48, 48, 64, 64]},
    "resnet18_1d": {"embedding_dim": 128},
    "wav2vec2": {
        "stem_width": 16,
        "embedding_dim": 32,
        "head_dim": 16,
        "depth": 3,
        "position_kernel": 8,
        "position_groups": 4,
    },
}


def built(name: str, num_classes: int = 0, **config) -> nn.Module:
    spec = EncoderSpec(name=name, config=NARROWER.get(name, {}) | config)
    return encoders.build(spec, seed=0, num_classes=num_classes)


def signal(model: nn.Module, n: int = 3) -> torch.Tensor:
    return torch.randn(n, 8, LENGTH, generator=torch.Generator().manual_seed(1))


def test_there_are_encoders() -> None:
    assert {"cape_resnet", "resnet50_1d", "ribeiro_resnet", "vit1d", "xresnet1d"} <= set(NAMES)


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


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_layer_group(name: str, coarse: bool) -> None:
    import re

    with torch.device("meta"):  # names are enough
        model = built(name)
    rules = model.group_matcher(coarse=coarse).values()  # a pattern, or a list of (pattern, place)
    patterns = [p for rule in rules for p in ([rule] if isinstance(rule, str) else [pattern for pattern, _ in rule])]
    for parameter, _ in model.named_parameters():
        assert sum(bool(re.match(pattern, parameter)) for pattern in patterns) == 1, parameter


@pytest.mark.parametrize("name", NAMES)
def test_feature_info_tells_channels_length_and_module_of_every_stage(name: str) -> None:
    model = built(name).eval()
    length = 4 * model.feature_info[-1]["reduction"]
    with torch.no_grad():
        stages = model.forward_intermediates(torch.zeros(1, 8, length), intermediates_only=True)
    for info, stage in zip(model.feature_info, stages, strict=True):
        assert stage.shape == (1, info["num_chs"], length // info["reduction"])
        assert sum(p.numel() for p in model.get_submodule(info["module"]).parameters()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_stages_that_do_not_exist_and_other_axes_are_refused(name: str) -> None:
    model, x = built(name).eval(), torch.zeros(1, 8, LENGTH)
    n = len(model.feature_info)
    for indices in (n + 1, [n], [-n - 1], []):
        with pytest.raises(IndexError, match=rf"expected up to {n} stages"):
            model.forward_intermediates(x, indices=indices)
    with pytest.raises(ValueError, match="found output_fmt='NCHW', expected 'NCL' or 'NLC'"):
        model.forward_intermediates(x, output_fmt="NCHW")
    with pytest.raises(ValueError, match="expected 'avg'"):
        model.reset_classifier(2, global_pool="max")


@pytest.mark.parametrize(("leads", "length"), [(8, 2800), (12, 1000), (1, 777)])
@pytest.mark.parametrize("name", NAMES)
def test_any_leads_and_any_length(name: str, leads: int, length: int) -> None:
    model = built(name, in_leads=leads).eval()
    x = torch.randn(2, leads, length, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = model(x)
        assert embedding.shape == (2, model.num_features)
        assert embedding.isfinite().all()
        assert not torch.equal(embedding[0], embedding[1])
        assert torch.equal(model(x.unsqueeze(2)), embedding)  # timm's form: an image one pixel high


@pytest.mark.parametrize("name", NAMES)
def test_recomputing_changes_neither_gradients_nor_running_statistics(name: str) -> None:
    found = []
    for enable in (False, True):
        model = built(name)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)  # for dropout
        model(signal(model)).square().sum().backward()
        statistics = [buffer.double().flatten() for buffer in model.buffers()]
        found.append(
            (torch.cat([p.grad.flatten() for p in model.parameters()]), torch.cat([*statistics, torch.ones(1)]))
        )
    torch.testing.assert_close(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_changes_no_other_weight(name: str) -> None:
    plain, with_head = built(name).state_dict(), built(name, num_classes=3).state_dict()
    assert set(with_head) - set(plain) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, with_head[key]) for key, value in plain.items())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_the_signal(name: str) -> None:
    model = built(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # norms that start at 0 hold back the gradient of what is before them, at first
                parameter.fill_(0.1)
    x = signal(model).requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(-1) > 0).all()  # of every record and lead
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


@pytest.mark.parametrize("name", NAMES)
def test_tokens_in_context_are_the_features(name: str) -> None:
    model = built(name).eval()
    assert isinstance(model, TokenEncoder)
    x = signal(model)
    with torch.no_grad():
        tokens = model.tokens(x)
        assert tokens.shape[::2] == (3, model.token_dim)
        assert torch.equal(tokens, model.tokens(x.unsqueeze(2)))
        stages = model.contextualise(tokens)
        assert [stage.shape[2] for stage in stages] == [info["num_chs"] for info in model.feature_info]
        assert torch.equal(stages[-1].transpose(1, 2), model.forward_features(x))
        for stage, output in zip(stages[:-1], model.forward_intermediates(x, intermediates_only=True), strict=False):
            assert torch.equal(stage.transpose(1, 2), output)


@pytest.mark.parametrize("name", NAMES)
def test_dropped_tokens_change_nothing_or_are_refused_by_name(name: str) -> None:
    model = built(name).eval()
    with torch.no_grad():
        tokens = model.tokens(signal(model))
        keep = torch.tensor([0, 3, 4]).expand(3, -1)
        if not model.can_drop:
            with pytest.raises(SpecError, match=f"encoder {name} cannot drop tokens"):
                model.contextualise(tokens, keep)
            return
        kept = model.contextualise(tokens, keep)[-1]
        other = tokens.clone()
        other[:, [1, 2, 5]] = 7.0
        assert torch.equal(model.contextualise(other, keep)[-1], kept)
        assert kept.shape[1] == 3
        every = torch.arange(tokens.shape[1]).expand(3, -1)
        torch.testing.assert_close(model.contextualise(tokens, every)[-1], model.contextualise(tokens)[-1])


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_says_causal_looks_at_no_later_token(name: str) -> None:
    model = built(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # a block whose last norm starts at 0 is its skip path, and looks at nothing
                parameter.fill_(0.1)
    tokens = model.tokens(signal(model)).detach()
    middle = tokens.shape[1] // 2
    later = tokens.clone()
    later[:, middle:] += torch.randn(later[:, middle:].shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (model.contextualise(one)[-1] for one in (tokens, later))
    past = middle * before.shape[1] // tokens.shape[1]
    assert torch.equal(before[:, :past], after[:, :past]) == model.causal
