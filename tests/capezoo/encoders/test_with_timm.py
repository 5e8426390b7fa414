"""timm's own functions on every encoder: optimiser, schedule, averaging, checkpoints, features, registry."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import capezoo
from capezoo.encoders import build
from capezoo.encoders._timm import timm
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

# Small forms of every encoder; a new one without an entry here fails below.
SMALL = {
    "cape_resnet": {"widths": [4, 6, 6], "embedding_dim": 8},
    "net1d": {"stem_width": 4, "widths": [4, 8, 8], "blocks": [1, 2, 1], "group_width": 4},
    "resnet18_1d": {"embedding_dim": 32},
    "vit1d": {"embedding_dim": 32, "head_dim": 16, "depth": 3},
    "resnet50_1d": {"embedding_dim": 64},
    "ribeiro_resnet": {"widths": [4, 4, 6], "embedding_dim": 8},
    "s4": {"width": 8, "depth": 3, "dropout": 0.0},
    "transformer1d": {"width": 16, "heads": 2, "feed_forward": 32, "depth": 3},
    "wav2vec2": {
        "stem_width": 8,
        "embedding_dim": 16,
        "head_dim": 8,
        "depth": 3,
        "position_kernel": 4,
        "position_groups": 2,
    },
    "xresnet1d": {"depth": 18, "widths": [4, 4, 4, 4]},
}
BLOCKS = {
    "cape_resnet": 3,
    "net1d": 4,
    "resnet18_1d": 8,
    "resnet50_1d": 16,
    "ribeiro_resnet": 3,
    "s4": 3,
    "transformer1d": 3,
    "vit1d": 3,
    "wav2vec2": 3,
    "xresnet1d": 8,
}
# Layer groups from input to output: the stem, every unit or block, the classifier with a transformer's last norm.
GROUPS = {name: 1 + blocks + 1 for name, blocks in BLOCKS.items()}
NAMES = capezoo.list_models()


def small(name: str, num_classes: int = 3) -> nn.Module:
    return build(EncoderSpec(name=name, config=SMALL[name]), seed=0, num_classes=num_classes)


def signal() -> torch.Tensor:
    return torch.randn(4, 8, 400, generator=torch.Generator().manual_seed(0))


def optimiser_of(model: nn.Module) -> torch.optim.Optimizer:
    return timm("optim").create_optimizer_v2(model, opt="adamw", lr=0.01, weight_decay=0.05, layer_decay=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_layer_decay_from_the_classifier_down_to_the_stem(name: str) -> None:
    model = small(name)
    groups = optimiser_of(model).param_groups
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    assert scale[id(model.classifier.weight)] == 1.0
    order = [scale[id(p)] for p in model.parameters()]
    assert order == sorted(order)
    assert sorted(set(order)) == [0.5**place for place in reversed(range(GROUPS[name]))]
    without = {p.ndim for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert without == {1}  # norms and biases
    assert {p.ndim for group in groups if group["weight_decay"] > 0 for p in group["params"]}.isdisjoint({1})


@pytest.mark.parametrize("name", NAMES)
def test_cosine_schedule_keeps_the_scale_of_each_layer(name: str) -> None:
    optimiser = optimiser_of(small(name))
    schedule = timm("scheduler").CosineLRScheduler(
        optimiser, t_initial=100, warmup_t=10, warmup_lr_init=0.0, t_in_epochs=False
    )
    for step, wanted in {5: 0.005, 10: 0.01 * 0.5 * (1 + 0.9510565162951535), 50: 0.005, 99: 2.467e-6}.items():
        schedule.step_update(step)
        for group in optimiser.param_groups:
            assert group["lr"] == pytest.approx(wanted * group["lr_scale"], rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_average_follows_the_model_that_an_optimiser_moves(name: str) -> None:
    model = small(name)
    optimiser, average = optimiser_of(model), timm("utils").ModelEmaV3(model, decay=0.9)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(signal()).square().sum().backward()
    optimiser.step()
    average.update(model)
    for key, value in model.state_dict().items():
        if value.dtype == torch.float32:
            torch.testing.assert_close(average.module.state_dict()[key], 0.9 * before[key] + 0.1 * value)
    assert not torch.equal(model.classifier.weight, before["classifier.weight"])


@pytest.mark.parametrize("form", ["safetensors", "pth", "averaged"])
@pytest.mark.parametrize("name", NAMES)
def test_timm_loads_our_tensors(name: str, form: str, tmp_path) -> None:
    from safetensors.torch import save_file

    model, other = small(name).eval(), build(EncoderSpec(name=name, config=SMALL[name]), seed=1, num_classes=3).eval()
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pth")
    if form == "safetensors":
        save_file(model.state_dict(), path)
    elif form == "pth":
        torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, path)
    else:
        torch.save({"state_dict": other.state_dict(), "state_dict_ema": model.state_dict()}, path)
    assert not torch.equal(model(signal()), other(signal()))
    timm("models").load_checkpoint(other, str(path), strict=True, weights_only=True)
    assert torch.equal(model(signal()), other(signal()))


@pytest.mark.parametrize("name", NAMES)
def test_feature_getter_and_recomputing(name: str) -> None:
    model = small(name, num_classes=0).eval()
    getter = timm("models._features").FeatureGetterNet(model, out_indices=[0, -1], output_fmt="NLC", norm=True)
    first, last = getter(signal())
    assert torch.equal(last.transpose(1, 2), model.forward_features(signal()))
    assert [first.shape[2], last.shape[2]] == getter.feature_info.channels()
    calls = []
    blocks = next(model.get_submodule(info["module"]) for info in model.feature_info)
    blocks = blocks if type(blocks) is not nn.ModuleList else blocks[0]
    blocks.register_forward_pre_hook(lambda *_: calls.append(1))
    for enable, wanted in ((False, 1), (True, 2)):
        calls.clear()
        model.set_grad_checkpointing(enable)
        model(signal()).sum().backward()
        assert len(calls) == wanted


def test_registered_models_are_made_by_timm_and_shadow_none_of_its_own() -> None:
    registry = timm("models")
    before = set(registry.list_models())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # timm warns of names that clash
        names = capezoo.register_with_timm()
        assert capezoo.register_with_timm() == names == [f"capezoo_{name}" for name in NAMES]
    assert set(registry.list_models()) == before | set(names)


@pytest.mark.parametrize("name", NAMES)
def test_timm_makes_the_same_model(name: str) -> None:
    capezoo.register_with_timm()
    library = timm()
    model = library.create_model(f"capezoo_{name}", num_classes=3).eval()
    ours = capezoo.create_model(name, num_classes=3).eval()
    data = timm("data").resolve_model_data_config(model)
    assert data["input_size"] == (8, 1, 2800)
    assert (set(data["mean"]), set(data["std"])) == ({0.0}, {1.0})
    assert model.spec == ours.spec
    x = torch.randn(1, *data["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x), ours(x.squeeze(2)))


def test_timm_arguments_that_work_and_that_do_not() -> None:
    capezoo.register_with_timm()
    library = timm()
    twelve = library.create_model("capezoo_cape_resnet", in_chans=12, embedding_dim=8)
    assert (twelve.num_features, twelve.pretrained_cfg["input_size"]) == (8, (12, 1, 2800))
    stages = library.create_model("capezoo_cape_resnet", features_only=True, embedding_dim=8)
    assert stages.feature_info.channels() == [128, 196, 256, 8]
    with pytest.raises(SpecError, match="found in_leads=3, expected 8, 12"):
        library.create_model("capezoo_cape_resnet", in_chans=3)
    with pytest.raises(TypeError, match="drop_path_rate"):
        library.create_model("capezoo_cape_resnet", drop_path_rate=0.1)
    with pytest.raises(SpecError, match="found 0 weight sets of 'vit1d'"):
        library.create_model("capezoo_vit1d", pretrained=True)


def test_importing_everything_registers_nothing() -> None:
    """Without timm nothing can be entered in its registry."""
    script = "import capezoo, capezoo.interop.timm, capezoo.interop.onnx, capezoo.encoders.vit1d, sys; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "False", done.stderr
