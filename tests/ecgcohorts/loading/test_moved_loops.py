"""Loops over loaders whose sampler is moved, and what their states say: used batches count wherever they come from."""

from itertools import islice

import numpy as np
import pytest

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader, _Buffers
from ecgcohorts.samplers import InDistributionBatchSampler

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("ecgcohorts.loading.torch")

PATIENTS = np.repeat(np.arange(80), 2)  # 20 batches an epoch
OPTIONS = [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 5}]


class Rows(torch.utils.data.Dataset):
    """Someone's data set, whose signal is the number of its row."""

    def __getitem__(self, row: int) -> int:
        return row

    def __len__(self) -> int:
        return len(PATIENTS)


def planned() -> InDistributionBatchSampler:
    return InDistributionBatchSampler.from_arrays(patients=PATIENTS, cohorts=PATIENTS % 2, pairs=4, seed=0)


def bare(**options):
    batches = adapter.BatchSampler(planned())
    return batches, torch.utils.data.DataLoader(Rows(), batch_sampler=batches, **options)


def counted(**options):
    return adapter.StatefulLoader(bare(**options)[1])


def rows(epoch: int, start: int = 0, stop: int = 20) -> list[list[int]]:
    return [planned().plan(epoch, step).rows.ravel().tolist() for step in range(start, stop)]


def state_at(epoch: int, step: int) -> dict:
    sampler = planned()
    sampler.mark_consumed(epoch, step - 1)
    return sampler.state_dict()


MOVES = {
    "restart": (lambda batches: batches.restart(), 0, 0),
    "the same epoch": (lambda batches: batches.set_epoch(0), 0, 0),
    "another epoch": (lambda batches: batches.set_epoch(4), 4, 0),
    "a state": (lambda batches: batches.load_state_dict(state_at(2, 7)), 2, 7),
}


# --- batches from a store ---


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("handed_out", [1, 3, 8])
@pytest.mark.parametrize("through", ["loader", "tensors"])
def test_a_loop_over_a_store_goes_on_from_the_new_place(store, sampler, build_sampler, prefetch, handed_out, through):
    """Eight batches an epoch; whatever the thread has made ahead."""
    loader = Loader(store, sampler, window=200, prefetch=prefetch)
    batches = iter(loader if through == "loader" else adapter.TorchBatches(loader))
    other = build_sampler()
    other.mark_consumed(6, 1)
    list(islice(batches, handed_out))
    for move, place in (
        (sampler.restart, (sampler.position[0], 0)),
        (lambda: sampler.set_epoch(4), (4, 0)),
        (lambda: sampler.load_state_dict(other.state_dict()), (6, 2)),
    ):
        move()
        batch = next(batches)
        assert (batch.plan.epoch, batch.plan.step) == place
        np.testing.assert_array_equal(np.asarray(batch.signal), loader.load(*place).signal)
        assert sampler.position == (place[0], place[1] + 1)
    assert [batch.plan.step for batch in batches] == [3, 4, 5, 6, 7]
    assert sampler.position == (7, 0)


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("peek", [False, True])
def test_used_batches_of_a_store_are_counted(store, sampler, prefetch, peek):
    loader = Loader(store, sampler, window=200, prefetch=prefetch)
    if peek:
        next(iter(sampler))
    for batches in (iter(loader), iter(adapter.TorchBatches(loader)), loader.endless()):
        begun = sampler.position[1]
        list(islice(batches, 2))
        for used in range(3):
            assert sampler.state_dict(consumed=used)["step"] == begun + used
        with pytest.raises(ValueError, match="consumed=3"):
            sampler.state_dict(consumed=3)
        batches.close()


def test_used_batches_of_several_epochs_count_from_the_first(store, sampler):
    """As tf.data has them: one iteration for several epochs, and a state counts over their ends."""
    batches = Loader(store, sampler, window=200)._of_epochs(3)
    list(islice(batches, 19))
    assert [sampler.state_dict(consumed=used)["step"] for used in (0, 7, 8, 17)] == [0, 7, 0, 1]
    sampler.set_epoch(10)
    assert [batch.plan.epoch for batch in batches] == [10] * 8  # in the third epoch already
    assert sampler.state_dict(consumed=0) == sampler.state_dict()


def test_the_last_spare_memory_may_go_to_another_thread():
    buffers = _Buffers(spare=1)

    class Taken(list):
        """One that is empty by the time somebody takes from it."""

        def __len__(self) -> int:
            return 1

    buffers._free = Taken()
    assert buffers.take((2, 3)).shape == (2, 3)


# --- a DataLoader ---


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("move", MOVES)
def test_a_counted_loop_goes_on_from_the_new_place_and_drops_what_workers_made(options, move):
    batches, (moved, epoch, step) = counted(**options), MOVES[move]
    seen = []
    for batch in batches:
        seen.append(batch.tolist())
        if len(seen) == 3:
            moved(batches)
            assert batches.position == (epoch, step)
        if len(seen) > 3:
            assert batches.position == divmod(epoch * 20 + step + len(seen) - 3, 20)
    assert seen == rows(0, 0, 3) + rows(epoch, step)


def test_a_counted_loop_may_be_moved_from_its_last_batch():
    batches, seen = counted(num_workers=2), []
    for batch in batches:
        seen.append(batch.tolist())
        if len(seen) == 20:
            batches.set_epoch(3)
    assert seen == rows(0) + rows(3)


@pytest.mark.parametrize("options", OPTIONS[:2])
def test_an_older_loop_ends_by_name_when_a_newer_has_begun(options):
    batches = counted(**options)
    older, newer = iter(batches), iter(batches)
    assert next(older).tolist() == rows(0)[0]
    assert next(newer).tolist() == rows(0)[1]
    with pytest.raises(SpecError, match="after a newer one has begun, expected one at a time"):
        next(older)
    assert [batch.tolist() for batch in newer] == rows(0, 2)


@pytest.mark.parametrize("move", ["restart", "another epoch", "a state"])
def test_a_bare_data_loader_goes_on_from_the_new_place(move):
    (batches, loader), (moved, epoch, step) = bare(), MOVES[move]
    iterator = iter(loader)
    list(islice(iterator, 3))
    moved(batches)
    for used in range(1, 4):
        assert next(iterator).tolist() == rows(epoch, step + used - 1, step + used)[0]
        assert batches.position == (epoch, step + used)
        assert batches.state_dict(consumed=used) == batches.state_dict()


@pytest.mark.parametrize("options", OPTIONS)
def test_the_epoch_may_be_set_behind_the_back_of_workers(options):
    """As Lightning does in its first epoch: no batch comes twice, and the next iteration begins at the beginning."""
    batches, loader = bare(**options)
    iterator = iter(loader)
    batches.sampler.set_epoch(0)
    assert [batch.tolist() for batch in iterator] == rows(0)
    batches.set_epoch(1)
    next(iter(loader))
    batches.set_epoch(1)
    assert [batch.tolist() for batch in loader] == rows(1)


@pytest.mark.parametrize("options", OPTIONS)
def test_between_epochs_none_of_the_next_is_used(options):
    batches, loader = bare(**options)
    for epoch in range(2):
        assert len(list(loader)) == 20
        state = batches.state_dict(consumed=0)
        assert (state["epoch"], state["step"]) == batches.position == (epoch + 1, 0)
