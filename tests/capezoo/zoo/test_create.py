"""One line from a name to an encoder that knows its input; refusals that say what was found."""

import json

import numpy as np
import pytest
import torch

import capezoo
from capezoo.specs import InputSpec
from capezoo.zoo import files, listing
from capezoo.zoo.files import CONFIG, WEIGHTS, read_header
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
    assert capezoo.list_models() == ["cape_resnet", "ecg_vit", "resnet50_1d", "ribeiro_resnet", "xresnet1d"]
    assert capezoo.list_models(pretrained=True) == []
    with pytest.raises(SpecError, match=r"found 0 weight sets of 'cape_resnet' \(none\)"):
        capezoo.create_model("cape_resnet", pretrained=True)
    folder.rename(cache / "cape_resnet.tiny")
    assert capezoo.list_models("cape*", pretrained=True) == ["cape_resnet.tiny"]
    assert capezoo.list_models("vit*", pretrained=True) == []
    for arguments in (("cape_resnet", True), ("cape_resnet.tiny", True), ("cape_resnet", "cape_resnet.tiny")):
        assert capezoo.create_model(*arguments).num_features == 6
    with pytest.raises(
        SpecError, match=r"found no weights 'cape_resnet.tiney', expected one of cape_resnet.tiny, or hf"
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
        ({"embedding_dim": 256}, "found 6 features, expected 256"),
        ({"name": "vit"}, "found weights of 'cape_resnet', expected 'vit'"),
    ],
)
def test_other_shapes_than_the_weights_have_are_refused(folder, arguments, message):
    with pytest.raises(SpecError, match=message):
        capezoo.create_model(**({"name": "cape_resnet", "pretrained": folder} | arguments))


@pytest.mark.parametrize("address", ["hf-hub:org/repo", "hf-hub:org/repo@", "hf-hub:repo@main", "hf-hub:a/b/c@main"])
def test_a_hub_address_needs_a_revision(address):
    with pytest.raises(SpecError, match="expected hf-hub:ORG/REPO@REVISION"):
        capezoo.load(address)


def test_a_hub_that_does_not_answer_gives_one_line(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("offline\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceError, match=r"hf-hub:org/repo@main: found nothing to fetch \(offline\)\. Check"):
        capezoo.load("hf-hub:org/repo@main")


def test_hub_weights_load_from_the_folder_the_hub_gives(folder, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda r, revision: asked.append((r, revision)) or folder)
    assert capezoo.create_model("cape_resnet", pretrained="hf-hub:org/repo@abc123").num_features == 6
    assert asked == [("org/repo", "abc123")]


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
    with pytest.raises(SourceError, match=r"another architecture in model.safetensors than in config.json"):
        capezoo.load(folder)


def test_config_with_an_unknown_key_is_refused(folder):
    config = json.loads((folder / CONFIG).read_text()) | {"hook": "os.system"}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(SpecError, match="unknown key 'hook'"):
        capezoo.load(folder)


def test_the_header_holds_the_resolved_config(folder):
    header = read_header(folder / WEIGHTS)
    assert header.architecture.encoder.config["norm_eps"] == 1e-3  # a default, written out
    assert header.tensors["stem.weight"] == ("F32", (4, 8, 8))
    assert files.resolved(header.architecture.encoder) == header.architecture.encoder
