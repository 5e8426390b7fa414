"""A run on a share of the training patients: each share contains the smaller ones, and held-out patients are in none."""

import shutil
from itertools import pairwise

import numpy as np
import pytest

import ecgcohorts as ec
from capezoo.specs import RunConfig, SamplerSpec
from capezoo.specs.run import HeldOutSpec
from capezoo.specs.settings import changed
from capezoo.training.data import TrainingData
from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.index import splits

SHARES = (10.0, 25.0, 50.0, 75.0, 100.0)


def prepared(store, percent, **held_out):
    sampler = SamplerSpec(name="patient_pairs", groups=2, singles="self")
    config = RunConfig(name="x", seed=0, sampler=sampler, held_out=HeldOutSpec(train_percent=percent, **held_out))
    return TrainingData.prepare(store, config)


def people(index):
    return {one.tobytes() for one in index.patient_ids}


def test_shares_of_patients_are_nested_and_hold_nobody_out_twice(simulated):
    store = ec.open(simulated / "store.zarr")
    made = [prepared(store, percent) for percent in SHARES]
    assert all(people(small.train) < people(large.train) for small, large in pairwise(made))
    # Who is held out depends on no share, and a patient is taken whole.
    assert all(people(one.held_out) == people(made[-1].held_out) for one in made)
    assert not any(people(one.train) & people(one.held_out) for one in made)
    ids, everyone = made[1].train.patient_ids, store.index
    of_them = np.isin(everyone["patient_id"].view("V16"), ids.view("V16")).sum()
    assert len(made[1].train) == of_them
    assert 0.1 < made[1].train.n_patients / made[-1].train.n_patients < 0.45
    # Another salt draws another share: several curves tell the luck of the draw.
    assert people(prepared(store, 25.0, salt="other").train) != people(made[1].train)


def test_a_share_is_that_of_the_rule_nested_within_a_kept_split_s_part_train(simulated, tmp_path):
    # A copy: keeping a split gives a store another fingerprint.
    path = shutil.copytree(simulated / "store.zarr", tmp_path / "store.zarr")
    index = ec.open(path).index
    kept = splits.by_patient(index, {"train": 0.6, "val": 0.2, "test": 0.2}, "study")
    ec.save_split(path, kept)
    parts = kept.of(index)
    made = prepared(ec.open(path), 25.0, split="study", salt="curve")
    assert people(made.train) == people(splits.nested(parts["train"], "curve", (25, 100)).of(parts["train"])["25%"])
    assert people(made.held_out) == people(parts["val"])


def test_a_share_too_small_for_a_batch_and_no_share_are_refused(simulated):
    store = ec.open(simulated / "store.zarr")
    with pytest.raises(PlanImpossible, match=r"sampler\.groups"):
        prepared(store, 1.0)
    config = RunConfig(name="x", seed=0)
    for value in ("0", "100.5"):
        with pytest.raises(SpecError, match=r"held_out\.train_percent"):
            changed(config, [f"held_out.train_percent={value}"])
