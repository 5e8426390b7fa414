"""Batches inside Grain, and on a JAX device. `make test-frameworks` runs this in an environment that has both."""

import numpy as np
import pytest

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING

REASON = "Grain and JAX are not installed: make test-frameworks"
grain = pytest.importorskip("grain", reason=REASON)
jax = pytest.importorskip("jax", reason=REASON)


def test_a_dataset_of_whole_batches_over_two_epochs(store, sampler):
    from ecgcohorts.loading.grain import batches

    loader = Loader(store, sampler, window=200)
    made = batches(loader, epochs=2)
    assert len(made) == 16
    for number, item in enumerate(made.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))):
        expected = loader.load(*divmod(number, 8))
        np.testing.assert_array_equal(item["signal"], expected.signal)
        np.testing.assert_array_equal(item["rows"], expected.plan.rows)
        np.testing.assert_array_equal(item["valid"], expected.valid)
    assert sampler.position == (0, 0)


def test_grains_own_state_resumes_in_the_middle(store, sampler):
    from ecgcohorts.loading.grain import batches

    run = iter(batches(Loader(store, sampler, window=200)).to_iter_dataset())
    for _ in range(3):
        next(run)
    state, rest = run.get_state(), [item["rows"] for item in run]
    again = iter(batches(Loader(store, sampler, window=200)).to_iter_dataset())
    again.set_state(state)
    np.testing.assert_array_equal(rest, [item["rows"] for item in again])


def test_millivolts_on_a_device(store, sampler):
    from ecgcohorts.loading.grain import batches, millivolts

    store.strips[:, :, -50:] = MISSING
    item = batches(Loader(store, sampler, window=400))[0]
    signal_mv = millivolts(jax.device_put(item["signal"]), store.lsb_uv)
    expected = np.where(item["signal"] == MISSING, 0, item["signal"] * 0.002)
    np.testing.assert_allclose(signal_mv, expected, rtol=1e-6)


@pytest.mark.parametrize("place", [-1, 8])
def test_a_batch_outside_the_run_is_refused(store, sampler, place):
    """By the source; a MapDataset of Grain 0.2.18 never asks for one, as it counts on from the start."""
    from ecgcohorts.loading.grain import _PlannedBatches

    with pytest.raises(IndexError, match="expected 0 to 7"):
        _PlannedBatches(Loader(store, sampler, window=200))[place]


def test_no_epochs_are_refused(store, sampler):
    from ecgcohorts.loading.grain import batches

    with pytest.raises(SpecError, match="found epochs=0"):
        batches(Loader(store, sampler, window=200), epochs=0)
