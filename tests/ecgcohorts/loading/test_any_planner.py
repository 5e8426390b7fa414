"""Loaders and tensors take whatever plans batches: a sampler that draws, or one that rearranges another's batches."""

import json

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.loading.loader import Loader
from ecgcohorts.samplers import (
    CohortPerRankSampler,
    FixedShareSampler,
    HardNegativeSampler,
    InDistributionBatchSampler,
    MicroBatchSampler,
    RampSampler,
)

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("ecgcohorts.loading.torch")


def micro_batches(index):
    return MicroBatchSampler(InDistributionBatchSampler(index, pairs=8, seed=0), 2)


def cohort_per_rank(index):
    return CohortPerRankSampler(InDistributionBatchSampler(index, pairs=2, seed=0), 2)


def ramp(index):
    return RampSampler(InDistributionBatchSampler(index, pairs=4, seed=0), [(0, 0), (1, 1)])


def fixed_shares(index):
    return FixedShareSampler(index, 4, 0, {"a": 0.75, "b": 0.25})


def hard_negatives(index):
    return HardNegativeSampler(index, 4, 0, np.arange(len(index)), neighbourhood=2)


PLANNERS = [micro_batches, cohort_per_rank, ramp, fixed_shares, hard_negatives]


@pytest.mark.parametrize("build", PLANNERS)
def test_a_loader_reads_what_is_planned_and_goes_on_in_mid_epoch(store, build):
    loader = Loader(store, build(store.index).on_rank(1, 2))
    batches = iter(loader)
    first = [next(batches) for _ in range(3)]
    for step, batch in enumerate(first):
        assert (batch.plan.epoch, batch.plan.step) == (0, step)
        assert batch.signal.shape[:2] == batch.plan.rows.shape == (2, 2)
        np.testing.assert_array_equal(batch.plan.rows, build(store.index).plan(0, step, 1, 2).rows)
    saved = json.loads(json.dumps(loader.sampler.state_dict()))
    again = Loader(store, build(store.index).on_rank(1, 2))
    again.sampler.load_state_dict(saved)
    rest = list(batches)
    assert [batch.signal.tobytes() for batch in again] == [batch.signal.tobytes() for batch in rest]
    assert len(rest) == len(loader) - 3


@pytest.mark.parametrize("build", PLANNERS)
def test_tensors_of_any_planner(store, build):

    batches = adapter.TorchBatches(Loader(store, build(store.index)))
    shapes = {tuple(batch.signal.shape[:2]) for batch in torch.utils.data.DataLoader(batches, batch_size=None)}
    assert shapes == {(4, 2)}
    assert batches.state_dict()["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("build", PLANNERS)
def test_a_data_loader_takes_any_planner_on_any_rank_and_goes_on_in_mid_epoch(store, build, workers):
    def loader():
        batches = adapter.BatchSampler(build(store.index), rank=1, world_size=2)
        assert batches.batch_size == 4
        rows = torch.arange(len(store.index))  # a data set whose items are the numbers of its rows
        return adapter.StatefulLoader(torch.utils.data.DataLoader(rows, batch_sampler=batches, num_workers=workers))

    sampler = build(store.index)
    planned = [sampler.plan(0, step, 1, 2).rows.ravel().tolist() for step in range(len(sampler))]
    first = loader()
    for _, rows in zip(planned[:3], first, strict=False):
        assert rows.tolist() in planned[:3]
    again = loader()
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [rows.tolist() for rows in again] == planned[3:]


def test_a_loader_refuses_ranks_that_a_planner_cannot_serve(store):
    with pytest.raises(PlanImpossible, match="ranks=2 for 4 processes"):
        Loader(store, cohort_per_rank(store.index), rank=0, world_size=4)


@pytest.mark.parametrize("build", PLANNERS)
def test_plans_reach_torchs_own_loader(store, build):
    planner = build(store.index)
    sampler = adapter.BatchSampler(planner, 1, 2)
    loader = torch.utils.data.DataLoader(np.arange(len(store.index)), batch_sampler=sampler)
    rows = [planner.plan(0, step, 1, 2).rows.ravel().tolist() for step in range(planner.steps(0))]
    assert [batch.tolist() for batch in loader] == rows
    assert (sampler.batch_size, sampler.drop_last) == (4, True)
