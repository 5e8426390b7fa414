"""Samplers and loader inside PyTorch's own DataLoader."""

import gc

import numpy as np
import pytest

from ecgcohorts.errors import SpecError, StateMismatch
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("ecgcohorts.loading.torch")


class Strips(torch.utils.data.Dataset):
    """Someone else's data set: knows nothing of samplers."""

    def __init__(self, strips: np.ndarray) -> None:
        self.strips = strips

    def __len__(self) -> int:
        return len(self.strips)

    def __getitem__(self, row) -> tuple[int, np.ndarray]:
        return int(row), self.strips[row]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sampler_is_a_batch_sampler_as_it_stands(store, sampler, workers):
    loader = torch.utils.data.DataLoader(Strips(store.strips), batch_sampler=sampler, num_workers=workers)
    plans = [sampler.plan(0, step) for step in range(len(sampler))]
    assert len(loader) == len(plans) == 8
    for (rows, strips), plan in zip(loader, plans, strict=True):
        assert rows.tolist() == plan.rows.ravel().tolist()
        assert np.array_equal(strips.numpy(), store.strips[plan.rows.ravel()])
    assert sampler.position == (1, 0)


def test_batches_equal_the_loader(store, sampler):
    loader = Loader(store, sampler, window=200)
    batches = adapter.TorchBatches(loader)
    assert len(batches) == 8
    data_loader = torch.utils.data.DataLoader(batches, batch_size=None)
    for step, batch in enumerate(data_loader):
        expected = loader.load(0, step)
        assert batch.signal.dtype == torch.int16
        assert batch.signal.shape == (5, 2, 8, 200)
        assert np.array_equal(batch.signal.numpy(), expected.signal)
        assert np.array_equal(batch.valid.numpy(), expected.valid)
        assert (batch.lsb_uv, batch.plan.cohort) == (2.0, expected.plan.cohort)


def test_tensors_kept_are_not_written_over(store, sampler):
    """The loader uses its memory again; a slice of a tensor must keep it."""
    batches = adapter.TorchBatches(Loader(store, sampler, window=200, prefetch=1))
    kept = [batch.signal[1:, 0] for batch in batches]
    gc.collect()
    list(batches)
    for step, signal in enumerate(kept):
        assert np.array_equal(signal.numpy(), Loader(store, sampler, window=200).load(0, step).signal[1:, 0])


def test_worker_processes_are_refused(store, sampler):
    batches = adapter.TorchBatches(Loader(store, sampler, window=200))
    with pytest.raises(SpecError, match="num_workers=0"):
        next(iter(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1)))


def test_the_state_is_that_of_what_was_handed_out(store, sampler, build_sampler):
    """However many batches are read ahead; and DataLoader takes none from it."""
    batches = adapter.TorchBatches(Loader(store, sampler, window=200, prefetch=3))
    iterator = iter(torch.utils.data.DataLoader(batches, batch_size=None))
    for _ in range(3):
        next(iterator)
    again = adapter.TorchBatches(Loader(store, build_sampler(), window=200))
    again.load_state_dict(batches.state_dict())
    rest = [batch.plan.step for batch in again]
    assert rest == [batch.plan.step for batch in iterator] == [3, 4, 5, 6, 7]
    with pytest.raises(StateMismatch, match="seed 0, expected 1"):
        adapter.TorchBatches(Loader(store, build_sampler(seed=1))).load_state_dict(batches.state_dict())


def test_moves_to_a_device(store, sampler):
    batch = next(iter(adapter.TorchBatches(Loader(store, sampler, window=200))))
    moved = batch.to("cpu")
    assert torch.equal(moved.signal, batch.signal)
    assert moved.plan is batch.plan
    assert batch.to("meta").valid.is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_pinned_where_there_is_a_gpu(store, sampler):
    batch = next(iter(adapter.TorchBatches(Loader(store, sampler, window=200))))
    assert batch.signal.is_pinned()
    assert torch.equal(batch.to("cuda").signal.cpu(), batch.signal)


def test_batches_are_made_in_the_memory_asked_for(store, sampler, monkeypatch):
    made = []

    def memory(shape):
        made.append(np.empty(shape, np.int16))
        return made[-1]

    monkeypatch.setattr(adapter, "pinned", memory)
    batches = list(adapter.TorchBatches(Loader(store, sampler, window=200), pin=True))
    expected = [Loader(store, sampler, window=200).load(0, step) for step in range(len(batches))]
    assert len(made) == len(batches) > 1
    for batch, same, array in zip(batches, expected, made, strict=True):
        assert batch.signal.data_ptr() == array.ctypes.data
        np.testing.assert_array_equal(batch.signal.numpy(), same.signal)


def test_millivolts_with_nothing_where_there_is_no_sample(store, sampler):
    store.strips[:, :, -50:] = MISSING
    batch = next(iter(adapter.TorchBatches(Loader(store, sampler, window=400))))
    signal = batch.signal.numpy()
    expected = np.where(signal == MISSING, 0, signal * 0.002)
    np.testing.assert_allclose(batch.millivolts().numpy(), expected, rtol=1e-6)
    assert batch.millivolts(torch.bfloat16).dtype == torch.bfloat16
