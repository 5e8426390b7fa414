"""Embeddings of stores and arrays: the same window, the same numbers, and refusals where something differs."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import capezoo
from capezoo import encoders
from capezoo.embed import embed_store, open_embeddings, weights_digest, window_starts
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import RecipeMismatch, RejectedRecording, SpecError, StoreError
from ecgcohorts.index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS
from ecgcohorts.preprocess import make_strip
from ecgcohorts.recipes import CAPE_V1, Recipe
from ecgcohorts.recording import Recording

TINY = EncoderSpec(name="cape_resnet", config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8})


@dataclass
class FakeStore:
    """What embedding reads of a store."""

    index: CohortIndex
    strips: np.ndarray
    recipe: Recipe = CAPE_V1
    path: Path = Path("fake.zarr")
    fingerprint: str = "f" * 64

    def read(self, rows):
        return self.strips[rows]


def ecg(seed, seconds=10.0, rate_hz=500):
    """(12, time) mV: spikes with weights of their own, exact limb-lead identities, no drift."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = sum(np.exp(-(((t - c) / 0.02) ** 2)) for c in np.arange(0.4, seconds, rng.uniform(0.7, 1.0)))
    one, two = rng.uniform(0.5, 1.5, 2)
    weights = np.array([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *rng.uniform(0.5, 2, 6)])
    return weights[:, None] * wave


def make_index(strips):
    n = len(strips)
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: np.zeros((n, 16), np.uint8) for name in BYTE_COLUMNS}
    columns |= {"row": np.arange(n)[::-1].copy(), "patient": np.arange(n), "label_af": np.arange(n, dtype="f4")}
    columns["valid_start"] = np.array([s.valid_start for s in strips], "i4")[::-1]
    columns["valid_stop"] = np.array([s.valid_stop for s in strips], "i4")[::-1]
    return CohortIndex(columns, ("north",), ("ward",), ("cart",))


@pytest.fixture(scope="module")
def signals():
    return [ecg(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def store(signals):
    """Rows stand in reverse order of the index."""
    strips = [make_strip(Recording("r", TWELVE_LEADS, 500.0, analog_mv=s), CAPE_V1, "auto") for s in signals]
    return FakeStore(make_index(strips), np.stack([s.samples for s in strips]))


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


def test_limb_leads_are_derived_and_chest_leads_are_not(model, signals):
    raw = np.stack(signals[:1])
    kept = [i for i, name in enumerate(TWELVE_LEADS) if name not in ("I", "aVR")]
    derived = capezoo.embed(model, raw[:, kept], rate_hz=500, leads=[TWELVE_LEADS[i] for i in kept], unit="mV")
    whole = capezoo.embed(model, raw, rate_hz=500, leads=TWELVE_LEADS, unit="mV")
    np.testing.assert_allclose(derived, whole, rtol=1e-3, atol=1e-5)
    with pytest.raises(RejectedRecording, match=r"record 0: found no V6"):
        capezoo.embed(model, raw[:, :11], rate_hz=500, leads=TWELVE_LEADS[:11], unit="mV")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "mmHg"}, "found unit 'mmHg', expected one of V, mV, uV"),
        ({"unit": None}, "without rate_hz, leads or unit"),
        ({"rate_hz": None}, "without rate_hz, leads or unit"),
        ({"leads": EIGHT_LEADS}, r"found an array of shape \(1, 12, 5000\), expected \(record, 8 leads, time\)"),
    ],
)
def test_arrays_that_are_not_described_are_refused(model, signals, change, message):
    arguments = {"rate_hz": 500, "leads": TWELVE_LEADS, "unit": "mV"} | change
    with pytest.raises(SpecError, match=message):
        capezoo.embed(model, np.stack(signals[:1]), **arguments)


def test_signals_the_recipe_refuses_name_the_record(model, signals):
    short = np.stack(signals[:2])[:, :, :3000]
    with pytest.raises(RejectedRecording, match=r"record 0: found 6.000 s after trimming, expected at least 7 s"):
        capezoo.embed(model, short, rate_hz=500, leads=TWELVE_LEADS, unit="mV")


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"name": "cape-ref-1"}, "recipe 'cape-ref-1'", "expected 'cape-v1'"),
        ({"rate_hz": 500.0}, "rate_hz 500", "expected 400"),
        ({"leads": EIGHT_LEADS[::-1]}, "leads V6 V5", "expected I II"),
        ({"strip_s": 5.0}, "strips of 2000 samples", "at least 2800"),
    ],
)
def test_a_store_of_another_kind_is_refused(model, store, change, found, expected):
    other = FakeStore(store.index, store.strips, CAPE_V1.model_copy(update=change))
    with pytest.raises(RecipeMismatch) as caught:
        capezoo.embed(model, other)
    message = str(caught.value)
    assert found in message
    assert expected in message
    assert "Ingest again with recipe 'cape-v1', or use weights made for" in message


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
        capezoo.embed(model, FakeStore(store.index, strips))


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
    empty = FakeStore(store.index.take(np.zeros(5, bool)), store.strips)
    assert capezoo.embed(model, empty).shape == (0, 6)


def test_the_function_is_not_hidden_by_the_module():
    script = "import capezoo.embed; import capezoo; capezoo.embed(None, None)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "found a model without `spec`" in run.stderr
