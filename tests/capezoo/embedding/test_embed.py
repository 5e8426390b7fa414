"""Embeddings of stores and arrays: the same window, the same numbers, and refusals where something differs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import capezoo
from capezoo import encoders
from capezoo.embedding.adapt import window_starts
from capezoo.embedding.folder import embed_store, open_embeddings, weights_digest
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.leads import TWELVE_LEADS

TINY = EncoderSpec(name="cape_resnet", config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8})


@pytest.fixture(scope="module")
def model():
    encoder = encoders.build(TINY, seed=0)
    encoder.spec = InputSpec()
    return encoder


def test_a_store_gives_the_central_window_in_index_order(model, store):
    got = capezoo.embed(model, store)
    start = window_starts(store.index["valid_start"], store.index["valid_stop"], 2800)
    assert len(set(start.tolist())) > 1  # columns of zeros at the ends are not valid
    windows = np.stack([strip[:, at : at + 2800] for strip, at in zip(store.strips[::-1], start, strict=True)])
    x = torch.from_numpy(windows * np.float32(0.001))
    with torch.no_grad():
        np.testing.assert_allclose(got, model.eval()(x), rtol=1e-5, atol=1e-7)
    assert len(np.unique(got.round(6), axis=0)) == 5


def test_raw_arrays_give_what_the_store_gives(model, store, signals):
    """500 Hz, twelve leads in another order, microvolts: the recipe makes the same strips of it."""
    order = np.random.default_rng(0).permutation(12)
    raw = np.stack(signals)[:, order] * 1000
    names = [f"Lead {TWELVE_LEADS[i]}".upper() for i in order]
    got = capezoo.embed(model, raw, rate_hz=500, leads=names, unit="uV")
    np.testing.assert_allclose(got, capezoo.embed(model, store)[::-1], rtol=1e-4, atol=1e-6)


def test_a_store_takes_no_description(model, store):
    with pytest.raises(SpecError, match="beside a store, expected none"):
        capezoo.embed(model, store, rate_hz=400)


def test_a_model_without_contract_is_refused(store):
    with pytest.raises(SpecError, match="found a model without `spec`"):
        capezoo.embed(encoders.build(TINY, seed=0), store)


def test_missing_samples_in_a_valid_part_are_refused(model, store):
    strips = store.strips.copy()
    strips[2, 3, 1000] = -32768
    with pytest.raises(StoreError, match="missing samples inside a valid part"):
        capezoo.embed(model, replace(store, strips=strips))


def test_weights_that_give_no_numbers_are_refused(store):
    broken = encoders.build(TINY, seed=0)
    broken.spec = InputSpec()
    torch.nn.init.constant_(broken.stem.weight, float("nan"))
    with pytest.raises(SpecError, match=r"no finite numbers.*capezoo verify"):
        capezoo.embed(broken, store)


def test_window_starts():
    assert window_starts(np.array([0, 0, 100]), np.array([4000, 2801, 2900]), 2800).tolist() == [600, 0, 100]
    with pytest.raises(StoreError, match="found 2799 valid samples in entry 1, expected at least 2800"):
        window_starts(np.array([0, 1]), np.array([4000, 2800]), 2800)


def test_the_mode_of_the_model_is_put_back(model, store):
    model.train()
    before = weights_digest(model)
    capezoo.embed(model, store)
    assert model.training
    assert weights_digest(model) == before  # running statistics included


def test_embeddings_on_disk_come_back(model, store, tmp_path):
    told = []
    made = embed_store(model, store, tmp_path / "emb", "tiny", "c" * 64, lambda done, total: told.append((done, total)))
    back = open_embeddings(tmp_path / "emb")
    assert told == [(5, 5)]
    assert back.info == made.info
    assert (back.info.name, back.info.card, back.info.store_fingerprint) == ("tiny", "c" * 64, "f" * 64)
    np.testing.assert_array_equal(back.embedding, capezoo.embed(model, store))
    assert back.index.cohorts == ("north",)
    assert back.index.labels == ["af"]
    for name, column in store.index.columns.items():
        np.testing.assert_array_equal(back.index[name], column)
        assert back.index[name].dtype == column.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["emb"]
    with pytest.raises(SpecError, match="found something there"):
        embed_store(model, store, tmp_path / "emb")


def test_embedding_twice_gives_the_same_bytes(model, store, tmp_path):
    for name in ("a", "b"):
        embed_store(model, store, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_damage_to_embeddings_is_found(model, store, tmp_path):
    made = embed_store(model, store, tmp_path / "emb").path
    rng = np.random.default_rng(0)
    found = 0
    for path in sorted(made.rglob("*")):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[int(rng.integers(len(broken)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(broken))
        if path.parts[-2] == "c" or "c" in path.parts[-3:]:  # data, not metadata text
            with pytest.raises(StoreError, match="emb"):
                open_embeddings(made)
            found += 1
        path.write_bytes(whole)
    assert found >= len(store.index.columns)
    open_embeddings(made)
    (made / "embedding" / "c" / "0" / "0").unlink()  # a missing chunk must not read as numbers
    with pytest.raises(StoreError, match="found other numbers than were written"):
        open_embeddings(made)


def test_what_is_no_embeddings_folder_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"found no embeddings.*capezoo embed WEIGHTS STORE"):
        open_embeddings(tmp_path)


def test_an_empty_store_gives_no_embeddings(model, store):
    empty = replace(store, index=store.index.take(np.zeros(5, bool)))
    assert capezoo.embed(model, empty).shape == (0, 6)


def test_the_function_is_not_hidden_by_the_module():
    script = "import capezoo.embedding.embed; import capezoo; capezoo.embed(None, None)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "found a model without `spec`" in run.stderr
