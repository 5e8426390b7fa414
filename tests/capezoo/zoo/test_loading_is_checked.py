"""Loading holds a folder against its checksums: damage, swapped files and NaN are refused before anything is computed."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

import capezoo
from capezoo.cli import program as cli
from capezoo.embedding.folder import open_embeddings
from capezoo.evaluate.study import study
from capezoo.specs import InputSpec
from capezoo.zoo import pull, write_weights
from capezoo.zoo.files import CARD, CONFIG, DIGESTS, GOLDEN, README, REQUIRED, SUMS, WEIGHTS, read_card, read_header
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.store import open_store


@pytest.mark.parametrize("name", [*REQUIRED, DIGESTS])
def test_a_flipped_bit_in_any_file_is_refused_on_loading(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 64
    (folder / name).write_bytes(bytes(data))
    for load in (capezoo.load, lambda path: capezoo.create_model("cape_resnet", pretrained=path)):
        with pytest.raises(SourceError, match=r"weights: found damaged weights, expected whole ones"):
            load(folder)
    assert not capezoo.verify(folder).ok


@pytest.mark.parametrize("name", [name for name in REQUIRED if name != CONFIG])
def test_a_missing_file_is_refused_on_loading(folder, name):
    (folder / name).unlink()
    with pytest.raises(SourceError, match=f"found damaged weights.*{name}"):
        capezoo.load(folder)


def test_a_flipped_bit_loads_when_asked_for(folder, tiny):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(SourceError, match=r"model.safetensors: sha256 differs.*--unchecked, in Python check=False"):
        capezoo.create_model("cape_resnet", pretrained=folder)
    model = capezoo.create_model("cape_resnet", pretrained=folder, check=False)
    assert model.state_dict().keys() == tiny.state_dict().keys()


def test_swapped_cards_are_refused_even_with_new_sums(folder, tiny, tmp_path):
    other = tmp_path / "other"
    with torch.no_grad():
        tiny.stem.weight.mul_(2)
    write_weights(other, tiny, read_card(folder).model_copy(update={"sha256": {}, "golden": None, "name": "other"}))
    for name in (CARD, README):
        shutil.copy(other / name, folder / name)
    with pytest.raises(SourceError, match=r"(README.md|card.json): sha256 differs"):
        capezoo.load(folder)
    sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != SUMS)
    (folder / SUMS).write_text(sums)
    with pytest.raises(
        SourceError, match=r"card.json: sha256 of '(golden.npz|model.safetensors)' differs from the file"
    ):
        capezoo.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_whatever_the_sums_say(folder, resign, value):
    header = read_header(folder / WEIGHTS)
    data = bytearray((folder / WEIGHTS).read_bytes())
    last = max(header.tensors)  # stands last: tensors of one type are sorted by name
    data[-4:] = np.float32(value).tobytes()
    (folder / WEIGHTS).write_bytes(bytes(data))
    resign(folder, WEIGHTS)
    with pytest.raises(SourceError, match=r"model.safetensors: found NaN or infinity in tensor 'units"):
        capezoo.load(folder)
    assert last.startswith("units")
    assert not np.isfinite(sum(t.sum().item() for t in capezoo.load(folder, check=False).state_dict().values()))


def test_files_beside_those_of_the_weights_do_not_matter_for_loading(folder):
    (folder / "notes.txt").write_text("mine")
    assert capezoo.load(folder).num_features == 6
    assert capezoo.verify(folder).problems == ("notes.txt: unexpected file, and never read. Remove it.",)


@pytest.mark.parametrize("name", [*REQUIRED, DIGESTS])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_are_never_followed(folder, tmp_path, name, kind):
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    os.symlink(outside, folder / name) if kind == "link" else os.mkfifo(folder / name)
    problems = capezoo.verify(folder).problems if name != CONFIG or kind == "link" else ("pipe or device",)
    assert "a symbolic link" in problems[0] if kind == "link" else "pipe or device" in problems[0]
    for call in (
        capezoo.load,
        lambda path: pull(path, tmp_path / "copy"),
        lambda path: capezoo.load(path, check=False),
    ):
        if name in (WEIGHTS, CONFIG):
            with pytest.raises((SourceError, SpecError)):
                call(folder)
    with pytest.raises((SourceError, SpecError)):
        pull(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / ".copy.part").exists()


@pytest.fixture
def published(run_folder, tmp_path):
    return capezoo.publish(run_folder, tmp_path / "published", digests="plain")


def test_embed_and_evaluate_check_too(published, simulated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = bytearray((published / GOLDEN).read_bytes())
    data[-200] ^= 1
    (published / GOLDEN).write_bytes(bytes(data))
    store = str(simulated / "store.zarr")
    for arguments in (
        ("embed", "published", store, "-o", "e"),
        ("evaluate", "separability", "--weights", "published", "--store", store, "--seed", "0", "-o", "s"),
        ("onnx", "published", "-o", "w.onnx"),
        ("overlap", "published", store),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert (stop.value.code, "golden.npz: sha256 differs from SHA256SUMS" in capsys.readouterr().err) == (2, True)
    assert {path.name for path in tmp_path.iterdir()} == {"published"}
    cli.main(("embed", "published", store, "-o", "e", "--unchecked"))
    assert open_embeddings("e").info.origin is None


def test_what_unchecked_weights_say_of_their_training_is_not_believed(published, simulated, tmp_path):
    """Digests of nobody, with a card and sums that agree, are for the publisher to answer for; unchecked, nobody does."""
    store = open_store(simulated / "store.zarr")
    asked = {"ood": {"train_cohort": "north"}}
    with pytest.raises(SpecError, match="found test patients it was pretrained on"):
        study([str(published)], store, tmp_path / "out", 1, asked)
    with pytest.raises(SpecError, match="found no list of its training recordings"):
        study([str(published)], store, tmp_path / "out", 1, asked, check=False)
    (published / DIGESTS).write_bytes(bytes(16))
    card = json.loads((published / CARD).read_text())
    card["training"]["record_digests"] = sha256_of(published / DIGESTS)
    (published / CARD).write_text(json.dumps(card))
    with pytest.raises(SourceError, match="found damaged weights"):
        study([str(published)], store, tmp_path / "out", 1, asked)


def test_a_hub_name_without_revision_is_its_main_branch_and_the_commit_is_recorded(hub, folder, simulated, tmp_path):
    commit = hub.add("org/tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
    model = capezoo.create_model("cape_resnet", pretrained="hf-hub:org/tiny")
    assert (model.origin, model.spec) == (f"hf-hub:org/tiny@{commit}", InputSpec(length=400))
    assert capezoo.load(folder).origin is None
    refs = json.loads((tmp_path / "cache" / "hub" / "org--tiny" / "refs.json").read_text())
    assert refs == {"main": commit}
    later = hub.add("org/tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert later != commit
    assert capezoo.load("hf-hub:org/tiny").origin == f"hf-hub:org/tiny@{later}"
    assert capezoo.load(f"hf-hub:org/tiny@{commit}").origin == f"hf-hub:org/tiny@{commit}"


def test_embeddings_and_cards_name_the_commit(hub, published, simulated, tmp_path, capsys):
    commit = hub.add("org/tiny", {path.name: path.read_bytes() for path in published.iterdir()})
    cli.main(("embed", "hf-hub:org/tiny", str(simulated / "store.zarr"), "-o", str(tmp_path / "e")))
    assert f"(hf-hub:org/tiny@{commit})" in capsys.readouterr().out
    assert open_embeddings(tmp_path / "e").info.origin == f"hf-hub:org/tiny@{commit}"
    cli.main(("info", "hf-hub:org/tiny"))
    assert f'pretrained="hf-hub:org/tiny@{commit}"' in capsys.readouterr().out


def test_a_licence_without_commercial_use_is_told_on_loading(folder, resign, caplog):
    capezoo.load(folder)
    assert not caplog.messages
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"weights_licence": "CC-BY-NC-4.0"}))
    resign(folder)
    capezoo.load(folder)
    assert caplog.messages == [f"{folder}: licence CC-BY-NC-4.0 allows no commercial use."]
