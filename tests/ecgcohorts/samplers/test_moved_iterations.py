"""A sampler that is moved while somebody iterates over it: the iteration goes on from the new place, whoever moved it."""

from itertools import islice

import numpy as np
import pytest

from ecgcohorts.samplers import InDistributionBatchSampler, MicroBatchSampler, PatientPairSampler


def in_distribution(index):
    return InDistributionBatchSampler(index, pairs=8, seed=0)


def pairs(index):
    return PatientPairSampler(index, pairs=8, seed=0)


def micro_batches(index):
    return MicroBatchSampler(InDistributionBatchSampler(index, pairs=16, seed=0), 2)


PLANNERS = [in_distribution, pairs, micro_batches]


def at(sampler, epoch, step):
    return sampler.plan(epoch, step).rows.ravel()


def loaded(sampler, build, index):
    other = build(index)
    other.mark_consumed(2, 3)
    sampler.load_state_dict(other.state_dict())


MOVES = {
    "restart": (lambda sampler, *_: sampler.restart(), (0, 0)),
    "the same epoch": (lambda sampler, *_: sampler.set_epoch(0), (0, 0)),
    "another epoch": (lambda sampler, *_: sampler.set_epoch(5), (5, 0)),
    "a state": (loaded, (2, 4)),
    "a batch skipped": (lambda sampler, *_: sampler.mark_consumed(0, 3), (0, 4)),
}


@pytest.mark.parametrize("build", PLANNERS)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("iterate", [iter, lambda sampler: sampler.endless()], ids=["epoch", "endless"])
def test_a_running_iteration_goes_on_from_the_new_place(index, build, move, iterate):
    sampler, (moved, (epoch, step)) = build(index), MOVES[move]
    batches = iterate(sampler)
    list(islice(batches, 3))
    moved(sampler, build, index)
    assert sampler.position == (epoch, step)
    for later in range(2):
        assert np.array_equal(next(batches), at(sampler, epoch, step + later))
        assert sampler.position == (epoch, step + later + 1)
        assert sampler.state_dict(consumed=later + 1) == sampler.state_dict()  # counted from the new place


@pytest.mark.parametrize("build", PLANNERS)
def test_an_iteration_ends_with_the_epoch_it_was_moved_to(index, build):
    sampler = build(index)
    batches = iter(sampler)
    next(batches)
    sampler.set_epoch(3)
    assert len(list(batches)) == sampler.steps(3)
    assert sampler.position == (4, 0)


def test_a_move_behind_the_last_batch_counts_too(index):
    """A loss that blows up in the last batch of an epoch: the loop goes on from the state it loads."""
    sampler = pairs(index)
    saved, steps = sampler.state_dict(), sampler.steps(0)
    batches = iter(sampler)
    list(islice(batches, steps))
    sampler.load_state_dict(saved)
    assert len(list(batches)) == steps
    assert next(batches, None) is None


def test_other_pairs_loaded_within_an_iteration(index):
    """The epoch has another length from there on."""
    saved = PatientPairSampler(index, pairs=4, seed=0)
    list(islice(saved, 9))
    sampler, again = pairs(index), pairs(index)
    batches = iter(sampler)
    next(batches)
    for one in (sampler, again):
        one.load_state_dict(saved.state_dict())
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in again]


def test_a_state_loaded_within_an_iteration_and_its_epoch_set_after(index):
    """Directly after loading, `set_epoch` does not begin the epoch again; after one batch it does."""
    sampler = pairs(index)
    batches = iter(sampler)
    next(batches)
    loaded(sampler, pairs, index)
    sampler.set_epoch(2)
    assert np.array_equal(next(batches), at(sampler, 2, 4))
    sampler.set_epoch(2)
    assert np.array_equal(next(batches), at(sampler, 2, 0))


@pytest.mark.parametrize("build", PLANNERS)
def test_none_used_between_two_epochs_is_here(index, build):
    sampler = build(index)
    for epoch in range(2):
        for used, _ in enumerate(sampler):
            state = sampler.state_dict(consumed=used)  # before the batch is used
            assert (state["epoch"], state["step"]) == (epoch, used)
        assert sampler.state_dict(consumed=0) == sampler.state_dict()
        assert sampler.position == (epoch + 1, 0)
    last = sampler.state_dict(consumed=sampler.steps(1) - 1)  # but workers may still hold what was handed out
    assert (last["epoch"], last["step"]) == (1, sampler.steps(1) - 1)
    with pytest.raises(ValueError, match="consumed=-1"):
        sampler.state_dict(consumed=-1)
