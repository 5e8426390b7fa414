"""Simple measures of signals whose measures are known."""

import numpy as np
import pytest
import torch

from capezoo.evaluate.measure.measurements import Measurements
from capezoo.specs import InputSpec

RATE, LENGTH = 400.0, 2800


@pytest.fixture
def measured():
    """measured(signal of one lead): the 19 measures of it, among seven other leads."""
    model = Measurements(InputSpec()).eval()
    assert model.num_features == 152

    def measure(signal):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, 8, LENGTH)).astype(np.float32)
        x[1, 3] = signal
        found = model.forward_head(model.forward_features(torch.from_numpy(x)), pre_logits=True).numpy()
        assert found.shape == (2, 152)
        return found[1, 3 * 19 : 4 * 19]

    return measure


def test_percentiles_and_deviation_are_numpys(measured):
    x = np.random.default_rng(1).gamma(2, size=LENGTH).astype(np.float32)
    found = measured(x)
    np.testing.assert_allclose(found[:7], np.percentile(x, [1, 5, 25, 50, 75, 95, 99]), rtol=1e-5)
    assert found[7] == pytest.approx(x.std(), rel=1e-5)
    assert found[8] == pytest.approx(np.sqrt(np.mean((np.diff(x) * RATE) ** 2)), rel=1e-5)


@pytest.mark.parametrize(("hz", "band"), [(1.0, 0), (2.0, 1), (10.0, 4), (12.0, 5), (35.0, 8), (99.0, 9)])
def test_a_tone_has_its_power_in_its_band(measured, hz, band):
    tone = 0.3 * np.sin(2 * np.pi * hz * np.arange(LENGTH) / RATE)
    found = measured(tone + 7)[9:]
    assert found.argmax() == band
    assert 10 ** found[band] == pytest.approx(0.3**2 / 2, rel=1e-3)
    assert np.delete(found, band).max() < found[band] - 4
    steepness = measured(tone)[8]
    assert steepness == pytest.approx(2 * np.pi * hz * 0.3 / np.sqrt(2), rel=0.11)  # a difference flattens 99 Hz


def test_a_silent_lead_and_bands_above_half_the_rate_give_numbers(measured):
    assert np.isfinite(measured(0.0)).all()
    assert measured(0.0)[9:].tolist() == [-12.0] * 10
    slow = InputSpec(recipe="plain-100", leads=("I", "II"), rate_hz=100, length=700)
    model = Measurements(slow)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 700)).astype(np.float32))
    found = model.forward_features(x).numpy().reshape(3, 2, 19)
    assert found.shape == (3, 2, 19)
    # White noise: bands of all the spectrum but the first half hertz hold its variance, those above 50 Hz nothing.
    np.testing.assert_allclose((10 ** found[..., 9:]).sum(axis=-1), found[..., 7] ** 2, rtol=0.05)


def test_measures_do_not_depend_on_the_batch_and_take_any_number_of_leads():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 8, LENGTH)).astype(np.float32))
    model = Measurements(InputSpec())
    np.testing.assert_allclose(model.forward_features(x)[2:3], model.forward_features(x[2:3]), rtol=1e-4)
