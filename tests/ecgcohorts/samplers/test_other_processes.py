"""A run goes on in another process: sampler and state are pickled, or the state alone travels, and the batches are the same."""

import hashlib
import json
import multiprocessing
import subprocess
import sys
from itertools import islice
from operator import methodcaller

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.ingest import ingest
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler

GO_ON = """
import hashlib, json, sys
import ecgcohorts as ec
store = ec.open(sys.argv[1])
sampler = ec.InDistributionBatchSampler(store.index, pairs=2, seed=3, singles="self")
sampler.load_state_dict(json.loads(sys.argv[2]))
for _ in range(2):
    for batch in ec.Loader(store, sampler, window=2800):
        print(batch.plan.epoch, batch.plan.step, hashlib.sha256(batch.signal.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def spawned():
    """A process started afresh, which knows nothing but what is pickled and sent to it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler, RandomBatchSampler])
def test_a_pickled_sampler_goes_on_in_a_spawned_process(index, sampler_class, spawned):
    sampler = sampler_class(index, 8, 5).on_rank(1, 2)
    list(islice(sampler, 4))
    there = spawned.apply(list, (sampler,))  # the rest of the epoch
    plan = spawned.apply(methodcaller("plan", 7, 2, 3, 4), (sampler,))
    state = spawned.apply(methodcaller("state_dict"), (sampler,))
    assert state == sampler.state_dict()
    assert len(json.dumps(state)) < 1024
    here = list(sampler)
    assert [rows.tobytes() for rows in there] == [rows.tobytes() for rows in here]
    assert len(here) == sampler.steps(0) - 4
    expected = sampler.plan(7, 2, 3, 4)
    assert plan.cohort == expected.cohort
    np.testing.assert_array_equal(plan.rows, expected.rows)
    np.testing.assert_array_equal(plan.offsets, expected.offsets)


def test_a_loader_goes_on_in_a_new_process_from_the_state_alone(make_cohort, tmp_path):
    """Signals and all: the rest of the epoch and the next one, though batches had been read ahead."""
    for seed, name in enumerate(("north", "south")):
        raw = make_cohort(name, patients=6, seed=seed)
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    store = ec.open(tmp_path / "s.zarr")
    sampler = ec.InDistributionBatchSampler(store.index, pairs=2, seed=3, singles="self")
    loader = ec.Loader(store, sampler, window=2800, prefetch=3)
    for _ in islice(loader, 2):
        pass
    command = [sys.executable, "-c", GO_ON, str(store.path), json.dumps(sampler.state_dict())]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split("\n")[:-1]
    here = [
        f"{batch.plan.epoch} {batch.plan.step} {hashlib.sha256(batch.signal.tobytes()).hexdigest()}"
        for _ in range(2)
        for batch in loader
    ]
    assert there == here
    assert [line.split()[:2] for line in here] == [["0", str(k)] for k in range(2, 6)] + [
        ["1", str(k)] for k in range(6)
    ]
