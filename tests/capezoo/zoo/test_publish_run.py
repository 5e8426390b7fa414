"""From a finished run to weights on their own: the same encoder, and a card that says what the run knows."""

import numpy as np
import pytest

import capezoo
from capezoo.embedding.folder import weights_digest
from capezoo.training.checkpoint import trained
from capezoo.zoo import publish, verify
from capezoo.zoo.files import DIGESTS, read_card
from capezoo.zoo.publish import About, licences_of
from ecgcohorts.errors import SourceError
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.store import open_store


def test_a_run_becomes_weights_with_a_card(run_folder, simulated, tmp_path):
    store = open_store(simulated / "store.zarr")
    about = About(version="2", summary="A test.", data_licences=licences_of(store))
    folder = publish(run_folder, tmp_path / "weights", about)
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
    assert read_card(publish(run_folder, tmp_path / "w", name="cape_test")).name == "cape_test"
    assert {use.licence for use in read_card(tmp_path / "w").training.cohorts} == {"unknown"}


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"found no config.yaml, expected the folder of a run"):
        publish(tmp_path, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
