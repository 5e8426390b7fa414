"""From a finished run to weights on their own: the same encoder, and a card that says what the run knows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import capezoo
from capezoo.cli import program as cli
from capezoo.embedding.folder import weights_digest
from capezoo.training.checkpoint import trained
from capezoo.zoo import publish, verify
from capezoo.zoo.files import DIGESTS, README, read_card
from capezoo.zoo.publish import About, licences_of
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.store import open_store


def test_a_run_becomes_weights_with_a_card(run_folder, simulated, tmp_path):
    store = open_store(simulated / "store.zarr")
    about = About(version="2", summary="A test.", data_licences=licences_of(store))
    folder = publish(run_folder, tmp_path / "weights", about, digests="plain")
    assert verify(folder).ok
    model, config, _ = trained(run_folder)
    loaded = capezoo.load(folder)
    assert weights_digest(loaded) == weights_digest(model)
    card = read_card(folder)
    assert (card.name, card.version, card.embedding_dim) == ("tiny_x", "2", 12)
    assert card.training.run == config
    assert card.training.steps == 4
    assert card.training.store_fingerprint == store.fingerprint
    assert {use.name for use in card.training.cohorts} == {"north", "river"}
    assert all(use.licence == card.data_licences[use.name] != "unknown" for use in card.training.cohorts)
    assert card.training.record_digests == sha256_of(folder / DIGESTS)
    digests = np.fromfile(folder / DIGESTS, np.uint8).reshape(-1, 16)
    known = {bytes(row) for row in store.index["waveform_digest"]}
    assert 0 < len(digests) < len(known)  # some patients were held out
    assert {bytes(row) for row in digests} <= known
    assert card.training.versions["numpy"] == np.__version__
    assert card.encoder.config["norm_eps"] == 1e-3


def test_another_name_may_be_given(run_folder, tmp_path):
    assert read_card(publish(run_folder, tmp_path / "w", name="cape_test", digests="plain")).name == "cape_test"
    assert {use.licence for use in read_card(tmp_path / "w").training.cohorts} == {"unknown"}


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"found no config.yaml, expected the folder of a run"):
        publish(tmp_path, tmp_path / "weights", digests="plain")
    assert not (tmp_path / "weights").exists()


def test_a_collapsed_run_is_published_only_by_force_and_its_card_says_so(run_folder, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    status = json.loads((run / "status.json").read_text()) | {"state": "collapsed"}
    (run / "status.json").write_text(json.dumps(status))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["publish", "run", "w", "--digests", "plain"])
    assert stop.value.code == 2
    assert "run: The run collapsed: all held-out recordings have the same features. Train again. To publish it with " \
           "this in its card: --force." in capsys.readouterr().err  # fmt: skip
    assert not Path("w").exists()
    cli.main(["publish", "run", "w", "--digests", "plain", "--force"])
    assert read_card(Path("w")).known_failures[0].startswith("The run collapsed")
    assert "- The run collapsed: all held-out recordings have the same features." in Path("w", README).read_text()


@pytest.mark.parametrize(
    ("factor", "words"), [(0.0, "all golden signals the same features"), (np.nan, "no finite numbers")]
)
def test_weights_that_tell_nothing_apart_are_published_only_by_force(run_folder, tmp_path, monkeypatch, factor, words):
    model, config, state = trained(run_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.ndim > 1 else 1.0)
    monkeypatch.setattr("capezoo.training.checkpoint.trained", lambda folder: (model, config, state))
    with pytest.raises(SpecError, match=f"The weights give .*{words}.*--force"):
        publish(run_folder, tmp_path / "w", digests="plain")
    assert not (tmp_path / "w").exists()
    publish(run_folder, tmp_path / "w", About(known_failures=("paced rhythm",)), digests="plain", force=True)
    first, second = read_card(tmp_path / "w").known_failures
    assert words in first
    assert second == "paced rhythm"
    assert words in (tmp_path / "w" / README).read_text()
    if factor != 0:
        assert not verify(tmp_path / "w").ok
        with pytest.raises(SourceError, match="found NaN or infinity"):
            capezoo.load(tmp_path / "w")


def test_a_card_without_licences_is_said_when_it_is_made(run_folder, simulated, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["publish", str(run_folder), "w", "--digests", "none"])
    assert (
        "nothing of the licence of the data of north, river. Name the store it was trained on, with --store"
        in caplog.text
    )
    caplog.clear()
    cli.main(["publish", str(run_folder), "w2", "--digests", "none", "--store", str(simulated / "store.zarr")])
    assert not caplog.text
    capsys.readouterr()
    source = simulated / "raw" / "north"
    description = (source / "cohort.yaml").read_text().replace("name: north", "name: south")
    (tmp_path / "cohort.yaml").write_text(description)
    ingest(source, "other.zarr", "cohort.yaml", IngestOptions(key_file=simulated / "key"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["publish", str(run_folder), "w3", "--digests", "none", "--store", "other.zarr"])
    assert stop.value.code == 2
    assert "other.zarr: found no cohort north, river, expected the store that" in capsys.readouterr().err
    assert not Path("w3").exists()


def test_the_choice_of_digests_has_no_default(run_folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["publish", str(run_folder), str(tmp_path / "w")])
    assert "found no --digests, expected --digests KIND|KEYFILE" in capsys.readouterr().err
    with pytest.raises(TypeError, match="digests"):
        publish(run_folder, tmp_path / "w")
