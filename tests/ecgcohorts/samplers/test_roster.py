"""Rosters from plain arrays against the simple way to make them: a dictionary of people, sorted."""

import json

import numpy as np
import pytest

from ecgcohorts.errors import StateMismatch
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler
from ecgcohorts.samplers.roster import Roster, _stable_order

# Of the table in the last test, as version 0.1 wrote it.
PAIRS, RECORDS = "81a9bfcf31519da45e122d0c28015e1e", "5e662d63edd6ca8d7af648d9d2e4f31f"


def simply(patients, cohorts, days, identities, join) -> list[tuple[int, int, list[int]]]:
    """Units as (cohort, first record's patient, records), in the order of a roster; integers everywhere."""
    units: dict[tuple[int, int], list[int]] = {}
    for place in range(len(patients)):
        person = int((patients if identities is None else identities)[place])
        key = (0, person) if join and identities is not None else (int(cohorts[place]), person)
        units.setdefault(key, []).append(place)
    made = []
    for key in sorted(units):
        when = [0.0 if days is None else days[place] for place in units[key]]
        records = [units[key][k] for k in sorted(range(len(when)), key=lambda k: (np.isnan(when[k]), when[k], k))]
        made.append((int(cohorts[records[0]]), int(patients[records[0]]), records))
    return made


@pytest.mark.parametrize("seed", range(60))
def test_a_roster_is_what_the_simple_way_makes(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    people = int(rng.integers(1, n + 1))
    patients = rng.integers(0, people, n) * int(rng.choice([1, 1, 7, 10**9])) - int(rng.choice([0, 0, 5, 10**6]))
    kinds = int(rng.integers(1, 5))
    # A patient in one cohort, mostly; cohorts in the order of patients, or not.
    cohorts = [patients * kinds // (patients.max() + 1), patients % kinds, rng.integers(0, kinds, n)][
        int(rng.integers(3))
    ]
    days = None
    if rng.random() < 0.6:
        days = np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 50, n) / 4)
        days = days[np.lexsort((days, patients))] if rng.random() < 0.3 else days
        days = days + (rng.integers(0, 9, n) / 1e6 if rng.random() < 0.3 else 0)  # parts of a second
        days = days * (1e6 if rng.random() < 0.2 else 1)  # too far apart for whole seconds
    identities = rng.integers(0, people, n) if rng.random() < 0.3 else None
    join = bool(rng.random() < 0.5)
    roster = Roster.from_arrays(patients, cohorts, days, identities, join)
    expected = simply(patients, cohorts, days, identities, join)
    assert [roster.rows[a:b].tolist() for a, b in zip(roster.ptr, roster.ptr[1:], strict=False)] == [
        u[2] for u in expected
    ]
    assert [int(roster.cohorts[code]) for code in roster.cohort] == [unit[0] for unit in expected]
    assert roster.patient_of(np.arange(len(roster))).tolist() == [unit[1] for unit in expected]
    if days is not None:
        np.testing.assert_array_equal(roster.days, days[roster.rows])


@pytest.mark.parametrize("size", [1, 2, 250, 2**16, 2**16 + 1, 2**21, 2**30, 2**32, 2**40, 2**62])
def test_the_order_of_keys_is_that_of_a_stable_sort(size):
    rng = np.random.default_rng(0)
    for keys in (
        rng.integers(0, size, 3000),
        rng.integers(0, size, 50)[rng.integers(0, 50, 3000)],
        np.array([size - 1]),
    ):
        assert np.array_equal(_stable_order(keys, size), np.argsort(keys, kind="stable"))


def test_a_fingerprint_is_of_values_and_not_of_their_types():
    patients, cohorts, days = np.array([3, 3, 9, 9, 70]), np.array([1, 1, 0, 0, 1]), np.arange(5.0)
    prints = {Roster.from_arrays(p, c, days).fingerprint for p in (patients, patients.astype(np.uint8), patients.tolist())
              for c in (cohorts, cohorts.astype(str), cohorts.astype(np.int8))}  # fmt: skip
    assert len(prints) == 1
    changed = [(patients + 1, cohorts, days), (patients, cohorts + 1, days), (patients, cohorts, days + 1),
               (patients, cohorts, None), (patients[::-1], cohorts[::-1], days), (patients - 2**40, cohorts, days)]  # fmt: skip
    assert len({Roster.from_arrays(*one).fingerprint for one in changed} | prints) == len(changed) + 1


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler, RandomBatchSampler])
def test_states_of_arrays_from_before_still_load(sampler_class):
    """Their fingerprint hashed every column in eight bytes."""
    ids = np.repeat(np.arange(20), 3)
    singles = sampler_class is RandomBatchSampler

    def build(seed=0, ids=ids):
        return sampler_class.from_arrays(
            patients=ids, cohorts=ids % 2, seed=seed, **{"batch_size" if singles else "pairs": 4}
        )

    sampler = build()
    list(zip(range(2), sampler, strict=False))
    state = sampler.state_dict()
    assert state["index"].startswith("a2.")
    assert len(state["index"]) == 32
    saved = json.loads(json.dumps(state)) | {"index": RECORDS if singles else PAIRS}
    resumed = build()
    resumed.load_state_dict(saved)
    assert resumed.state_dict() == state  # and is saved in the new way
    for other in (build(ids=ids[::-1].copy()), build(seed=1)):
        with pytest.raises(StateMismatch):
            other.load_state_dict(saved)
    with pytest.raises(StateMismatch, match="index"):
        build().load_state_dict(state | {"index": PAIRS[::-1]})
