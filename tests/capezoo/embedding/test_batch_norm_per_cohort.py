"""Embeddings with BatchNorm statistics of each cohort's own recordings."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from capezoo import encoders
from capezoo.embedding.embed import adaptation, embed
from capezoo.embedding.folder import embed_store
from capezoo.embedding.from_store import estimate_norms
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe


def make_model(**config):
    model = encoders.build(EncoderSpec(config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8, **config}), 0).eval()
    model.spec = InputSpec(length=512)
    return model


@dataclass(frozen=True, eq=False)
class Strips:
    """A store in memory, of noise."""

    index: CohortIndex
    signals: np.ndarray
    recipe: Recipe = CAPE_V1
    fingerprint: str = "f" * 64
    path: str = "memory"

    def read(self, rows):
        return self.signals[rows]

    def refuse_removed(self):
        pass


def make_store(*patients, gains=(1, 10)):
    """Cohorts a and b, their recordings by turns in the index as far as both last; those of b are ten times as large."""
    code = np.repeat(np.arange(len(patients)), patients)
    code = code[np.argsort(np.concatenate([np.arange(n) for n in patients]), kind="stable")]
    columns = {name: np.zeros(len(code), dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: np.zeros((len(code), 16), np.uint8) for name in BYTE_COLUMNS}
    columns |= {"row": np.arange(len(code)), "patient": np.arange(len(code)), "cohort": code.astype(np.int32)}
    columns["valid_stop"] = np.full(len(code), 600, np.int32)
    noise = np.random.default_rng(0).normal(0, 100, (len(code), 8, 600)) * np.array(gains)[code][:, None, None]
    return Strips(CohortIndex(columns, ("a", "b")), np.rint(noise).astype(np.int16))


@pytest.fixture
def two():
    return make_store(24, 24)


def test_each_cohort_is_embedded_with_its_own_statistics_and_the_model_stays_as_it_was(two):
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    found = embed(model, two, batch_norm="per_cohort")
    plan = adaptation(model, two)
    for code in range(2):
        entries = np.flatnonzero(two.index["cohort"] == code)
        alone = estimate_norms(copy.deepcopy(model), two, plan, entries)
        np.testing.assert_allclose(found[entries], embed(alone, two)[entries], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    # Ten times the voltage is all that the second differs in, and its own deviation takes that out.
    first, second = (found[two.index["cohort"] == code] for code in range(2))
    np.testing.assert_allclose(first.mean(0), second.mean(0), rtol=0.5, atol=0.1)
    running = embed(model, two)
    assert np.abs(running[1::2].mean(0)).sum() > 5 * np.abs(running[::2].mean(0)).sum()


RAW = {"rate_hz": 500.0, "leads": CAPE_V1.leads, "unit": "mV", "mains_hz": 50}


def raw(records):
    return np.random.default_rng(0).normal(0, 0.2, (records, 8, 5000))


def test_an_array_is_one_cohort():
    model, signal = make_model(), raw(6)
    own = embed(model, signal, batch_norm="per_cohort", **RAW)
    assert not np.allclose(own, embed(model, signal, **RAW), rtol=0.05)
    # The gain is no longer seen, but for eps.
    np.testing.assert_allclose(own, embed(model, 3 * signal, batch_norm="per_cohort", **RAW), rtol=0.1, atol=0.02)


def test_the_folder_says_whose_statistics_it_was_made_with(two, tmp_path):
    model = make_model()
    made = embed_store(model, two, tmp_path / "own", batch_norm="per_cohort")
    assert made.info.batch_norm == "per_cohort"
    np.testing.assert_array_equal(made.embedding, embed(model, two, batch_norm="per_cohort"))
    assert embed_store(model, two, tmp_path / "kept").info.batch_norm == "running"


def test_few_recordings_are_pointed_out_and_weights_without_batch_norm_refused(caplog):
    store = make_store(24, 3)
    embed(make_model(), store, batch_norm="per_cohort")
    assert [record.getMessage() for record in caplog.records] == [
        "BatchNorm statistics of cohort b: estimated on 3 recordings alone"
    ]
    for source, given in ((store, {}), (raw(2), RAW)):
        with pytest.raises(SpecError, match="found batch_norm=per_cohort and weights without BatchNorm"):
            embed(make_model(norm="group", norm_groups=2), source, batch_norm="per_cohort", **given)
