"""One line from a name to an encoder that knows its input; refusals that say what was found."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import capezoo
from capezoo import encoders
from capezoo.specs import InputSpec
from capezoo.zoo import listing
from capezoo.zoo.files import CONFIG, WEIGHTS, read_header
from capezoo.zoo.publish import _resolved
from ecgcohorts.errors import EcgError, SourceError, SpecError
from ecgcohorts.leads import TWELVE_LEADS


def test_random_weights_depend_on_the_seed_and_on_nothing_else():
    torch.random.default_generator.manual_seed(1)
    before = torch.random.get_rng_state()
    one = capezoo.create_model("cape_resnet")
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.spec == InputSpec()
    assert sum(p.numel() for p in one.parameters()) == 5_452_944
    again, other = capezoo.create_model("cape_resnet"), capezoo.create_model("cape_resnet", seed=1)
    assert torch.equal(one.stem.weight, again.stem.weight)
    assert not torch.equal(one.stem.weight, other.stem.weight)


def test_leads_by_number_or_name():
    twelve = capezoo.create_model(in_leads=12, embedding_dim=32, num_classes=5)
    assert twelve.spec.leads == TWELVE_LEADS
    assert twelve(torch.zeros(2, 12, 256)).shape == (2, 5)
    assert capezoo.create_model(in_leads=["II", "V5"], embedding_dim=8).spec.leads == ("II", "V5")
    with pytest.raises(SpecError, match="found in_leads=3, expected 8, 12, or the names"):
        capezoo.create_model(in_leads=3)


def test_settings_of_the_encoder_by_name():
    model = capezoo.create_model("xresnet1d", in_leads=12, config={"depth": 18})
    assert (model.num_features, model.spec.leads) == (64, TWELVE_LEADS)
    with pytest.raises(SpecError, match="unknown key 'nonsense', expected one of in_leads, depth"):
        capezoo.create_model("xresnet1d", config={"nonsense": 1})
    with pytest.raises(SpecError, match="unknown key 'embedding_dim', expected one of in_leads, depth, widths"):
        capezoo.create_model("xresnet1d", embedding_dim=64)


@pytest.mark.parametrize("name", capezoo.list_models())
def test_features_only_gives_every_stage_and_what_it_is(name):
    whole, stages = capezoo.create_model(name), capezoo.create_model(name, features_only=True)
    assert stages.spec == InputSpec()
    x = torch.randn(2, 8, 1024, generator=torch.Generator().manual_seed(0))
    found = stages.eval()(x)
    wanted = whole.eval().forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert [y.shape[1] for y in found] == stages.feature_info.channels()
    assert [-(-1024 // reduction) for reduction in stages.feature_info.reduction()] == [y.shape[2] for y in found]


def test_features_only_from_published_weights_and_never_with_a_classifier(folder, tiny):
    x = torch.randn(3, 8, 400, generator=torch.Generator().manual_seed(0))
    stages = capezoo.create_model("cape_resnet", pretrained=folder, features_only=True)
    assert torch.equal(stages(x)[-1], tiny.eval().forward_features(x))
    assert stages.spec == InputSpec(length=400)
    with pytest.raises(SpecError, match="num_classes=2 and features_only exclude each other"):
        capezoo.create_model(features_only=True, num_classes=2)


def test_a_torchvision_of_another_torch_is_one_sentence(monkeypatch):
    from capezoo.encoders import _timm

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(_timm, "import_module", broken)
    for arguments in ({"name": "vit1d"}, {"features_only": True}):
        with pytest.raises(ImportError, match=r"^your torchvision does not match torch [^\n]* torch torchvision$"):
            capezoo.create_model(**arguments)
    assert capezoo.create_model().num_features == 256  # needs nothing of timm's


def test_published_weights_come_back_exactly(folder, tiny):
    x = torch.randn(3, 8, 400, generator=torch.Generator().manual_seed(0))
    want = tiny.eval()(x)
    model = capezoo.create_model("cape_resnet", pretrained=folder)
    assert torch.equal(model(x), want)
    assert model.spec == InputSpec(length=400)
    assert not model.training
    with_head = capezoo.create_model("cape_resnet", pretrained=str(folder), num_classes=3)
    assert with_head(x).shape == (3, 3)
    assert torch.equal(with_head.forward_head(with_head.forward_features(x), pre_logits=True), want)
    assert next(with_head.parameters()).requires_grad


def test_weights_by_name_and_by_only_weight_set(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("CAPEZOO_CACHE", str(cache))
    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "nothing")
    modules = Path(encoders.__file__).parent.glob("[!_]*.py")
    assert capezoo.list_models() == sorted(module.stem for module in modules)
    assert capezoo.list_models(pretrained=True) == []
    with pytest.raises(SpecError, match=r"found 0 weight sets of 'cape_resnet' \(none\)"):
        capezoo.create_model("cape_resnet", pretrained=True)
    folder.rename(cache / "cape_resnet.tiny")
    assert capezoo.list_models("cape*", pretrained=True) == ["cape_resnet.tiny"]
    assert capezoo.list_models("vit*", pretrained=True) == []
    for arguments in (("cape_resnet", True), ("cape_resnet.tiny", True), ("cape_resnet", "cape_resnet.tiny")):
        assert capezoo.create_model(*arguments).num_features == 6
    with pytest.raises(
        SpecError,
        match=r"found no weights 'cape_resnet.tiney', expected one of cape_resnet.tiny, a folder of weights, or hf",
    ):
        capezoo.load("cape_resnet.tiney")


def test_bundled_weights_win_over_cached_ones(folder, tmp_path, monkeypatch):
    import shutil

    for root in ("cache", "bundled"):
        shutil.copytree(folder, tmp_path / root / "cape_resnet.tiny")
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "bundled")
    assert listing.locate("cape_resnet.tiny") == tmp_path / "bundled" / "cape_resnet.tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_leads": 12}, "found weights for leads I II V1 .* expected I II III"),
        ({"embedding_dim": 256}, "found weights with embedding_dim=6, expected 256. Leave embedding_dim out"),
        ({"config": {"widths": (4, 8)}}, r"found weights with widths=\[4, 4\], expected \[4, 8\]"),
        ({"config": {"nonsense": 1}}, "found weights with nonsense=None, expected 1"),
        ({"name": "vit"}, "found weights of 'cape_resnet', expected 'vit'"),
    ],
)
def test_other_shapes_than_the_weights_have_are_refused(folder, arguments, message):
    with pytest.raises(SpecError, match=message):
        capezoo.create_model(**({"name": "cape_resnet", "pretrained": folder} | arguments))


def test_a_folder_that_holds_no_weights(tmp_path):
    with pytest.raises(SpecError, match=r"found a folder without config.json.*capezoo publish"):
        capezoo.load(tmp_path)


def rewrite_header(path, change):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def swap(header):
    first, second = [name for name in header if name.endswith("conv1.weight")]
    header[first]["data_offsets"], header[second]["data_offsets"] = [0, 8], [4, 12]


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(lambda h: h["stem.weight"].update(shape=[10**13]), id="shape of ten trillion"),
        pytest.param(lambda h: h["stem.weight"].update(shape=[-1, 8, 8]), id="negative shape"),
        pytest.param(lambda h: h["stem.weight"].update(shape="x"), id="shape of text"),
        pytest.param(lambda h: h["stem.weight"].update(dtype="OBJECT"), id="object dtype"),
        pytest.param(lambda h: h["stem.weight"].update(data_offsets=[0, 10**12]), id="offset beyond the end"),
        pytest.param(lambda h: h["stem.weight"].pop("data_offsets"), id="no offsets"),
        pytest.param(swap, id="overlapping tensors"),
        pytest.param(lambda h: h.update(__metadata__={"x": "y"}), id="foreign metadata"),
        pytest.param(lambda h: h.update(pad=["a" * (2 << 20)]), id="header over the limit"),
        pytest.param(lambda h: h["stem.weight"].update(shape=[8, 4, 8]), id="same bytes, other shape"),
        pytest.param(lambda h: h.update({"extra": h.pop("stem.weight")}), id="renamed tensor"),
    ],
)
def test_hostile_weight_files_are_refused_by_name(folder, attack):
    rewrite_header(folder / WEIGHTS, attack)
    with pytest.raises((SourceError, SpecError), match=r"model.safetensors"):
        capezoo.load(folder)


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_truncated_weights_are_refused(folder, cut):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:cut])
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        capezoo.load(folder)


def test_random_damage_to_the_header_never_gives_another_error(folder):
    """Flips anywhere in the header: refused, or harmless (in a tensor's own text that is checked later)."""
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, 8 + length, 200):
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        (folder / WEIGHTS).write_bytes(bytes(broken))
        try:
            capezoo.load(folder)
        except EcgError:
            refused += 1
    assert refused > 190


def test_config_and_header_must_agree(folder):
    config = json.loads((folder / CONFIG).read_text())
    config["input"]["rate_hz"] = 500.0
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"model.safetensors and config.json name different architectures"):
        capezoo.load(folder, check=False)
    with pytest.raises(SourceError, match=r"config.json: sha256 differs from SHA256SUMS.*--unchecked"):
        capezoo.load(folder)


def test_config_with_an_unknown_key_is_refused(folder):
    config = json.loads((folder / CONFIG).read_text()) | {"hook": "os.system"}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(SpecError, match="unknown key 'hook'"):
        capezoo.load(folder, check=False)


def test_the_header_holds_the_resolved_config(folder):
    header = read_header(folder / WEIGHTS)
    assert header.architecture.encoder.config["norm_eps"] == 1e-3  # a default, written out
    assert header.tensors["stem.weight"] == ("F32", (4, 8, 8))
    assert _resolved(header.architecture.encoder) == header.architecture.encoder
