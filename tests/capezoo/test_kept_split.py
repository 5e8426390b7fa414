"""One split, kept in the store, that pretraining and evaluation share: nobody is tested on whom pretraining has met."""

import numpy as np
import pytest

import ecgcohorts as ec
from capezoo import runs
from capezoo.evaluate.measure.parts import unseen_people
from capezoo.evaluate.questions import grid, ood
from capezoo.specs import RunConfig
from capezoo.training.data import TrainingData
from ecgcohorts.index.splits import by_patient
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import simulate
from ecgcohorts.store.splits import load_split

SHARES = {"train": 0.5, "val": 0.2, "test": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(place / "config"))
        simulate(place / "raw", patients_per_cohort=20, seed=0)
        for name in ("north", "coast"):
            raw = place / "raw" / name
            ingest(raw, place / "s.zarr", str(raw / "cohort.yaml"), IngestOptions(quality=False))
    store = ec.open(place / "s.zarr")
    ec.save_split(place / "s.zarr", by_patient(store.index, SHARES, "study-1"))
    ec.save_split(place / "s.zarr", by_patient(store.index.where(cohort="north"), SHARES, "north-only").on(store.index))
    ec.save_split(place / "s.zarr", by_patient(store.index, {"a": 0.5, "b": 0.5}, "halves"))
    return place / "s.zarr"


def prepared(store, split):
    config = runs.get("smoke", seed=0).model_dump()
    config["held_out"]["split"] = split
    config["sampler"] |= {"groups": 4, "singles": "self", "small_groups": "drop"}
    return TrainingData.prepare(store, RunConfig.model_validate(config))


def persons(index):
    return {one.tobytes() for one in index["patient_id"]}


def test_nobody_is_tested_whom_pretraining_has_met(folder):
    store = ec.open(folder)
    data = prepared(store, "study-1")
    assert data.held_out is not None
    met = persons(data.train) | persons(data.held_out)
    parts = ood.Config(train_cohort="north", split="study-1").parts(store.index, 0, store)
    assert set(parts.tests) == {"north", "coast"}
    tested = persons(store.index.take(np.concatenate(list(parts.tests.values()))))
    assert tested
    assert not tested & met
    assert persons(store.index.take(parts.train)) <= persons(data.train)
    assert persons(store.index.take(parts.validation)) <= persons(data.held_out)
    assert len(tested | met) == store.index.n_patients


def test_a_cohort_that_the_split_does_not_divide_is_tested_whole(folder):
    store = ec.open(folder)
    parts = ood.Config(train_cohort="north", split="north-only").parts(store.index, 0, store)
    assert len(parts.tests["coast"]) == len(store.index.where(cohort="coast"))
    assert len(parts.tests["north"]) < len(store.index.where(cohort="north"))


def test_splits_without_the_parts_that_are_needed_are_refused(folder):
    store = ec.open(folder)
    with pytest.raises(ec.SpecError, match="found parts a, b, expected train, val, test"):
        ood.Config(train_cohort="north", split="halves").parts(store.index, 0, store)
    with pytest.raises(ec.SpecError, match="found parts a, b in 'halves', expected train"):
        prepared(store, "halves")
    with pytest.raises(ec.SpecError, match="found no split 'study1'"):
        prepared(store, "study1")


def test_people_of_part_test_whom_pretraining_has_met_are_refused(folder):
    store = ec.open(folder)
    met = persons(prepared(store, "study-1").train)
    mine = np.array([one.tobytes() in met for one in store.index["patient_id"]])
    digests = store.index["waveform_digest"][mine]
    entries, left_out = unseen_people(store.index, {"w": digests}, "study-1", store)
    assert left_out == 0
    assert set(load_split(store, "study-1").names(store.index)[entries]) == {"test"}
    entries, left_out = unseen_people(store.index, {"w": digests})
    assert left_out == len(met)
    assert not persons(store.index.take(entries)) & met
    with pytest.raises(ec.SpecError, match=rf"w: found {in_test(store)} people of part test of split 'study-1'"):
        unseen_people(store.index, {"w": store.index["waveform_digest"]}, "study-1", store)
    with pytest.raises(ec.SpecError, match="found parts a, b, expected test"):
        unseen_people(store.index, {}, "halves", store)


def in_test(store):
    return len(persons(store.index.take(load_split(store, "study-1").names(store.index) == "test")))


def test_every_cohort_of_a_grid_is_divided_as_the_split_says(folder):
    store = ec.open(folder)
    data = prepared(store, "study-1")
    parts = grid.Config(split="study-1").parts(store.index, 0, store)
    assert set(parts.tests) == {"north", "coast"}
    tested = persons(store.index.take(np.concatenate(list(parts.tests.values()))))
    assert tested
    assert not tested & (persons(data.train) | persons(data.held_out))
    assert persons(store.index.take(parts.train)) == persons(data.train)
    # Who may have been met in pretraining is unknown where the split says nothing.
    assert set(grid.Config(split="north-only").parts(store.index, 0, store).tests) == {"north"}
    with pytest.raises(ec.SpecError, match="found parts a, b, expected train, val, test"):
        grid.Config(split="halves").parts(store.index, 0, store)
