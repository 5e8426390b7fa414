"""Weights that give a group less than a batch an epoch: nothing is lost between epochs, and what is rare is named."""

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from ecgcohorts.errors import StateMismatch
from ecgcohorts.samplers import InDistributionBatchSampler
from ecgcohorts.samplers.schedule import _largest_remainder, _Shares

RARE = {"a": 0.7, "b": 0.2, "c": 0.1}


def small(pairs=40, **options):
    """40 patients in each of three cohorts: three batches an epoch."""
    ids = np.repeat(np.arange(120), 2)
    options = {"weights": RARE} | options
    return InDistributionBatchSampler.from_arrays(
        patients=ids, cohorts=np.array(list("abc"))[ids // 40], pairs=pairs, seed=0, **options
    )


def weights_of(rng) -> list[float]:
    """Plain, of few digits, very unequal, whole, or with a 0; at least one is above it."""
    count = int(rng.integers(1, 10))
    drawn = [rng.random(count), np.round(rng.random(count), 1), rng.random(count) ** 8, rng.integers(0, 4, count)]
    weights = drawn[int(rng.integers(4))].astype(float)
    weights[0] += weights.sum() == 0
    return weights.tolist()


@pytest.mark.parametrize("seed", range(15))
def test_every_group_has_its_share_after_any_number_of_epochs(seed):
    rng = np.random.default_rng(seed)
    weights, total = weights_of(rng), int(rng.integers(1, 12))
    shares = _Shares(weights, total)
    exact = [Fraction(weight) for weight in weights]
    taken = np.zeros(len(weights), int)
    for epoch in range(80):
        counts = shares.counts(epoch)
        assert counts.sum() == total
        assert (counts >= 0).all()
        taken += counts
        # Within one batch of the share of all batches; 1e-9: weights count to twelve digits.
        ideal = np.array([float((epoch + 1) * total * one / sum(exact)) for one in exact])
        assert (np.abs(taken - ideal) < 1 + 1e-9).all()
        assert (counts[ideal == 0] == 0).all()
        within = shares.rarely
        assert (taken[(within > 0) & (within <= epoch + 1)] > 0).all()
    assert shares.counts(0).tolist() == _largest_remainder(weights, total)
    again = _Shares(weights, total)  # in any order, from far away
    for epoch in (10**4, 63, 64, 65, 0, 79):
        assert again.counts(epoch).sum() == total
    assert np.array_equal(again.before(80), taken)


def test_a_round_of_plain_weights_is_exact_and_closed():
    """.7, .2 and .1 of three batches an epoch: 21, 6 and 3 in ten, for ever, at no cost."""
    shares = _Shares(list(RARE.values()), 3)
    assert [shares.before(10 * n).tolist() for n in (1, 7, 10**9)] == [[21 * n, 6 * n, 3 * n] for n in (1, 7, 10**9)]
    assert shares.rarely.tolist() == [1, 2, 4]
    assert np.array_equal(shares.counts(3), shares.counts(10**9 * 10 + 3))


@pytest.mark.parametrize("weights", [RARE, {"a": 1, "b": 5e-3, "c": 5e-3}])
def test_a_rare_cohort_is_drawn_and_named(weights, caplog):
    sampler = small(weights=weights)
    within = sampler.describe()["not_in_every_epoch"]
    share = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    assert within == {name: int(np.ceil(1 / (3 * one) - 1e-12)) for name, one in share.items() if 3 * one < 1}
    assert "groups with less than one batch an epoch" in caplog.text
    assert all(f"{name} (one in {epochs} epochs)" in caplog.text for name, epochs in within.items())
    epochs = max(within.values())
    seen = Counter(sampler.plan(epoch, step).cohort for epoch in range(epochs) for step in range(3))
    assert set(seen) == set(weights)
    assert all(abs(seen[name] - 3 * epochs * one) < 1 for name, one in share.items())
    json.dumps(sampler.describe())


def test_nothing_is_named_where_every_epoch_has_all(caplog):
    for options in ({"weights": dict.fromkeys("abc", 1)}, {"weights": None}, {"weights": None, "temperature": 0.5}):
        assert small(**options).describe()["not_in_every_epoch"] == {}
    assert not caplog.text
    never = small(weights={"a": 1, "b": 1, "c": 0})
    assert never.describe()["not_in_every_epoch"] == {"c": 0}
    assert "c (never)" in caplog.text


def test_a_run_with_weights_resumes_at_every_step_of_five_epochs():
    sampler = small(pairs=8)
    states, batches = [], []
    for _ in range(5):
        states.append(sampler.state_dict())
        for rows in sampler:
            batches.append(rows)
            states.append(sampler.state_dict())
        states.pop()
    for number, state in enumerate(states):
        resumed = small(pairs=8)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert np.array_equal(next(resumed.endless()), batches[number])
    drawn = [rows[::2] // 2 for rows in batches]
    of_a = np.concatenate([batch for batch in drawn if batch[0] < 40])
    for begin in range(0, len(of_a) - 39, 40):  # passes stay whole, whatever the epochs do
        assert len(set(of_a[begin : begin + 40].tolist())) == 40


def test_a_state_from_before_goes_on_by_the_old_rule_and_says_who_is_never_drawn(caplog):
    old = small()
    state = old.state_dict() | {"version": 1}
    caplog.clear()
    old.load_state_dict(state | {"epoch": 3, "step": 2})
    assert "c (never)" in caplog.text
    assert {old.plan(epoch, step).cohort for epoch in range(20) for step in range(3)} == {"a", "b"}
    assert old.describe()["not_in_every_epoch"] == {"c": 0}
    again = small()
    again.load_state_dict(json.loads(json.dumps(old.state_dict())))  # and is saved as what it is
    assert again.describe()["not_in_every_epoch"] == {"c": 0}
    assert again.state_dict() == old.state_dict()
    with pytest.raises(StateMismatch, match="version 3, expected 2"):
        old.load_state_dict(state | {"version": 3})
    with pytest.raises(StateMismatch, match="version 2, expected 1"):
        small(weights=None).load_state_dict(small(weights=None).state_dict() | {"version": 2})


@pytest.mark.parametrize("consumed", [0, 4, 16])
def test_weights_go_on_after_a_change_of_pairs(consumed):
    before = small(pairs=8)
    iterator = before.endless()
    for _ in range(consumed):
        next(iterator)
    after = small(pairs=4)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    list(after)
    first = after.position[0]
    steps = after.steps(first)
    assert steps == 30
    seen = Counter(after.plan(first + e, step).cohort for e in range(10) for step in range(steps))
    assert all(abs(seen[name] - 10 * steps * share) < 2 for name, share in RARE.items())
