"""Batches inside tf.data. `make test-frameworks` runs this in an environment that has TensorFlow."""

import numpy as np
import pytest

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-frameworks")


def test_a_dataset_of_whole_batches_over_two_epochs(store, sampler):
    from ecgcohorts.loading.tensorflow import batches

    loader = Loader(store, sampler, window=200)
    made = batches(loader, epochs=2)
    assert made.element_spec["signal"].shape == (5, 2, 8, 200)
    count = 0
    for number, item in enumerate(made):
        expected = loader.load(*divmod(number, 8))
        np.testing.assert_array_equal(item["signal"], expected.signal)
        np.testing.assert_array_equal(item["rows"], expected.plan.rows)
        np.testing.assert_array_equal(item["valid"], expected.valid)
        count += 1
    assert count == 16
    assert sampler.position == (2, 0)


def test_used_batches_count_over_the_ends_of_epochs(store, sampler):
    from ecgcohorts.loading.tensorflow import batches

    for used, _ in enumerate(batches(Loader(store, sampler, window=200), epochs=2), start=1):
        state = sampler.state_dict(consumed=used)
        assert (state["epoch"], state["step"]) == divmod(used, 8)


def test_millivolts(store, sampler):
    from ecgcohorts.loading.tensorflow import batches, millivolts

    store.strips[:, :, -50:] = MISSING
    item = next(iter(batches(Loader(store, sampler, window=400))))
    signal = item["signal"].numpy()
    expected = np.where(signal == MISSING, 0, signal * 0.002)
    np.testing.assert_allclose(millivolts(item["signal"], store.lsb_uv), expected, rtol=1e-6)


def test_no_epochs_are_refused(store, sampler):
    from ecgcohorts.loading.tensorflow import batches

    with pytest.raises(SpecError, match="found epochs=0"):
        batches(Loader(store, sampler, window=200), epochs=0)
