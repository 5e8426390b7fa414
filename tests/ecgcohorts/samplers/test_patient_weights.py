"""Patients drawn in proportion to weights: nobody twice in a batch, everybody as often as it should be."""

import json
from collections import Counter

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler

BOTH = [PatientPairSampler, InDistributionBatchSampler]
IDS = np.repeat(np.arange(120), 3)
COHORTS = np.array(["a", "b"])[IDS % 2]
WEIGHTS = np.random.default_rng(0).random(120) ** 2 + 0.02


def build(sampler_class, weights=WEIGHTS, pairs=8, **options):
    arrays = {"patients": IDS, "cohorts": COHORTS, "seed": 3, "patient_weights": np.asarray(weights)[IDS]}
    return sampler_class.from_arrays(**arrays, pairs=pairs, **options)


@pytest.mark.parametrize("sampler_class", BOTH)
def test_patients_come_in_proportion_to_their_weights(sampler_class):
    """Far closer than independent draws, whose deviation would be the root of the count."""
    sampler = build(sampler_class)
    drawn, batches = Counter(), Counter()
    for epoch in range(50):
        for step in range(sampler.steps(epoch)):
            plan = sampler.plan(epoch, step)
            assert len(set(plan.patients.tolist())) == 8
            assert (IDS[plan.rows] == plan.patients[:, None]).all()
            assert (plan.rows[:, 0] != plan.rows[:, 1]).all()
            drawn.update(plan.patients.tolist())
            batches[plan.cohort] += 1
    for name in batches:
        mine = np.arange(120) if name is None else np.flatnonzero(np.arange(120) % 2 == "ab".index(name))
        expected = 8 * batches[name] * WEIGHTS[mine] / WEIGHTS[mine].sum()
        found = np.array([drawn[patient] for patient in mine.tolist()])
        off = (found - expected) / np.sqrt(expected)
        assert np.sqrt((off**2).mean()) < 0.5
        assert np.abs(found - expected).max() < 12


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("weights", [np.ones(120), np.where(np.arange(120) < 4, 0, 1), np.arange(120) % 3 + 1.0])
def test_equal_weights_show_everybody_once_and_no_weight_nobody(sampler_class, weights):
    sampler = build(sampler_class, weights, pairs=4)
    drawn = Counter()
    for epoch in range(6):
        for step in range(sampler.steps(epoch)):
            drawn.update(sampler.plan(epoch, step).patients.tolist())
    assert set(drawn) == set(np.flatnonzero(weights).tolist())
    if (weights == 1).all():
        assert set(drawn.values()) == {6}


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_ranks_share_a_batch_and_a_run_resumes(sampler_class, world_size):
    sampler = build(sampler_class)
    endless = sampler.endless()
    batches = [next(endless) for _ in range(40)]
    for number in (0, 1, 13, 27):
        parts = [sampler.plan(*divmod(number, len(sampler)), rank, world_size).rows for rank in range(world_size)]
        assert np.array_equal(np.concatenate(parts).ravel(), batches[number])
        resumed = build(sampler_class)
        resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict(consumed=number))))
        assert np.array_equal(next(resumed.endless()), batches[number])
    with pytest.raises(StateMismatch, match="patient_weights"):
        build(sampler_class, WEIGHTS + 1).load_state_dict(sampler.state_dict())
    with pytest.raises(StateMismatch, match="or drawn by weight"):
        build(sampler_class, pairs=4).load_state_dict(sampler.state_dict())


def test_pairs_meet_anew_and_patients_meet_others():
    """Every block of passes has another order: as many meet as would in independent draws, but for a tenth."""
    weights = np.where(np.arange(120) % 2, 1.0, 0.1)
    sampler = build(PatientPairSampler, weights, pairs=8)
    met = set()
    batches = [sampler.plan(epoch, step) for epoch in range(60) for step in range(sampler.steps(epoch))]
    for patients in (plan.patients.tolist() for plan in batches):
        met |= {(a, b) for a in patients for b in patients if a < b}
    chance = 8 * weights / weights.sum()
    meetings = len(batches) * np.triu(np.outer(chance, chance), 1)
    assert len(met) > 0.9 * (1 - np.exp(-meetings)).sum()


def test_a_column_of_the_index_is_a_weight(index):
    weighted = CohortIndex(dict(index.columns) | {"label_w": (index["patient"] % 2).astype(np.float32)}, index.cohorts)
    for name in ("w", "label_w", weighted["label_w"]):
        sampler = PatientPairSampler(weighted, 8, 0, patient_weights=name)
        assert all((sampler.plan(0, step).patients % 2 == 1).all() for step in range(len(sampler)))


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            np.where(np.arange(120) == 7, 1e6, 1),
            PlanImpossible,
            r"a patient with 99.9\d% of all weights, expected at most 12.50%",
        ),
        (np.zeros(120), PlanImpossible, "found weight 0 for every patient, expected some above 0"),
        (np.full(120, 1e308), SpecError, "an infinite sum"),
        (np.where(np.arange(120) == 7, -1, 1), SpecError, "below 0 or without a value"),
        (np.where(np.arange(120) == 7, np.nan, 1), SpecError, "below 0 or without a value"),
        (np.where(np.arange(120) == 7, np.inf, 1), SpecError, "below 0 or without a value"),
        (np.full(120, "1"), SpecError, "patient_weights of <U1"),
    ],
)
def test_weights_that_cannot_be_are_refused(sampler_class, weights, error, message):
    with pytest.raises(error, match=message):
        build(sampler_class, weights)


@pytest.mark.parametrize("lost", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("record", range(3))
def test_weights_of_all_records_are_checked(lost, record):
    """Of any record of a patient, and of none that is excluded."""
    weights = WEIGHTS[IDS].astype(float)
    at = np.flatnonzero(IDS == 7)[record]
    weights[at] = lost
    arrays = {"patients": IDS, "pairs": 8, "seed": 0}
    with pytest.raises(SpecError, match="below 0 or without a value"):
        PatientPairSampler.from_arrays(patient_weights=weights, **arrays)
    masked = np.ma.array(weights, mask=np.arange(len(IDS)) == at)
    with pytest.raises(SpecError, match="masked values in patient_weights"):
        PatientPairSampler.from_arrays(patient_weights=masked, **arrays)
    left = [PatientPairSampler.from_arrays(patient_weights=w, exclude=[at], **arrays) for w in (weights, masked)]
    assert left[0].plan(2, 1).rows.tobytes() == left[1].plan(2, 1).rows.tobytes()


def test_weights_of_records_of_balance_and_of_padding_are_refused():
    differing = np.arange(len(IDS), dtype=float)
    arrays = {"patients": IDS, "pairs": 8, "seed": 0}
    for options, message in (
        (
            {"patient_weights": differing},
            "120 patients whose records differ in patient_weights, expected one weight each",
        ),
        ({"patient_weights": WEIGHTS}, "expected a number per record"),
        ({"patient_weights": "af"}, "without an index"),
        ({"patient_weights": WEIGHTS[IDS], "balance": IDS % 2}, "no balance"),
        ({"patient_weights": WEIGHTS[IDS], "last": "pad"}, "last='drop'"),
    ):
        with pytest.raises(SpecError, match=message):
            PatientPairSampler.from_arrays(**arrays, **options)
