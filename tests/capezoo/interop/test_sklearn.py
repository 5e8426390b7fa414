"""The transformer for scikit-learn gives what `embed` gives, and can be cloned, set and put into a pipeline."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import capezoo
from capezoo import encoders
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import RejectedRecording, SpecError
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.recording import Recording

GIVEN = {"rate_hz": 500, "leads": list(TWELVE_LEADS), "unit": "mV"}


@pytest.fixture(scope="module")
def model():
    config = {"widths": [4, 4], "embedding_dim": 6, "kernel": 8}
    encoder = encoders.build(EncoderSpec(name="cape_resnet", config=config), seed=0)
    encoder.spec = InputSpec()
    return encoder


def test_features_are_those_of_embed(model, signals):
    x = np.stack(signals)
    embedder = capezoo.EcgEmbedder(model, **GIVEN)
    with pytest.raises(NotFittedError):
        embedder.transform(x)
    found = embedder.set_output(transform="pandas").fit_transform(x)
    np.testing.assert_array_equal(found, capezoo.embed(model, x, **GIVEN))
    assert list(found) == [f"feature_{number}" for number in range(6)]
    copy = clone(embedder).set_params(on_error="nan")
    assert (copy.rate_hz, copy.on_error, embedder.on_error) == (500, "nan", "raise")


def test_recordings_and_errors(model, signals):
    good = Recording("one", TWELVE_LEADS, 500.0, analog_mv=signals[0])
    flat = Recording("two", TWELVE_LEADS, 500.0, analog_mv=np.zeros((12, 5000)))
    with pytest.raises(RejectedRecording, match="record 1"):
        capezoo.EcgEmbedder(model).fit_transform([good, flat])
    found = capezoo.EcgEmbedder(model, on_error="nan").fit_transform([good, flat])
    assert np.isnan(found).any(axis=1).tolist() == [False, True]


def test_in_a_pipeline_and_in_cross_validation(model, signals):
    x, y = np.stack(signals * 4), np.arange(20) % 2
    pipeline = make_pipeline(capezoo.EcgEmbedder(model, **GIVEN), LogisticRegression())
    assert cross_val_score(pipeline, x, y, cv=2).shape == (2,)


def test_a_column_of_paths(model, simulated):
    files = sorted((simulated / "raw" / "river").rglob("*.*"))[:2]
    found = capezoo.EcgEmbedder(model).fit_transform(pd.Series([str(file) for file in files]))
    np.testing.assert_array_equal(found, capezoo.embed(model, files))


def test_a_file_of_several_recordings_is_no_row(model, signals, monkeypatch):
    """Its rows would move all others away from their answers."""
    one = Recording("one", TWELVE_LEADS, 500.0, analog_mv=signals[0])
    monkeypatch.setattr("capezoo.embedding.embed.read", lambda path: [one, one])
    with pytest.raises(SpecError, match="found 4 recordings in 2 files, expected one in each"):
        capezoo.EcgEmbedder(model).fit_transform(["a.h5", "b.h5"])
