"""Runs in which `pairs` changed or cohorts joined: small states, exact resumes, and states of the first version."""

import json
from collections import Counter

import numpy as np
import pytest

from ecgcohorts.errors import SpecError, StateMismatch
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.samplers import (
    HardNegativeSampler,
    InDistributionBatchSampler,
    MicroBatchSampler,
    PatientPairSampler,
    RandomBatchSampler,
)

BOTH = [PatientPairSampler, InDistributionBatchSampler]
WEIGHTS = {"a": 1, "b": 2, "c": 0.5}


def through_json(state: dict) -> dict:
    text = json.dumps(state)
    assert len(text) <= 1024
    return json.loads(text)


@pytest.mark.parametrize(
    ("cohorts", "options"),
    [(60, {}), (60, {"temperature": 0.5}), (60, {"small_groups": "drop"}), (3000, {}), (1000, {"temperature": 0.5})],
)
def test_a_state_is_small_with_any_number_of_cohorts(cohorts, options):
    ids = np.repeat(np.arange(10 * cohorts), 2)
    names = np.array([f"a hospital with quite a long name, number {number:04d}" for number in range(cohorts)])[
        ids // 10
    ]

    def build(pairs: int) -> InDistributionBatchSampler:
        return InDistributionBatchSampler.from_arrays(
            patients=ids, cohorts=names, pairs=pairs, seed=2**63 - 1, **options
        )

    state = None
    for pairs in (2, 1, 4, 3, 2, 5, 1) if cohorts == 60 else (2, 3, 1):
        sampler = build(pairs)
        if state is not None:
            sampler.load_state_dict(through_json(state))
        for _ in zip(range(7), sampler, strict=False):
            pass
        state = sampler.state_dict()
    again = build(1)
    again.load_state_dict(through_json(state))
    assert np.array_equal(next(iter(again)), next(iter(sampler)))
    assert len(json.dumps(state)) <= 1024


def test_long_names_are_cut_in_a_state():
    ids = np.repeat(np.arange(40), 2)
    names = np.where(ids < 20, "large", np.char.add("ä" * 300, (ids // 2).astype(str)))
    sampler = InDistributionBatchSampler.from_arrays(patients=ids, cohorts=names, pairs=4, seed=0, small_groups="drop")
    assert len(json.dumps(sampler.state_dict(), ensure_ascii=False).encode()) <= 1024
    assert all(len(name) <= 40 for name in sampler.state_dict()["left_out"])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3}, {"weights": WEIGHTS}, {"last": "wrap"}, {"last": "pad"}])
@pytest.mark.parametrize("sampler_class", BOTH)
def test_a_run_changed_again_and_again_resumes_at_every_step(index, sampler_class, options):
    if sampler_class is PatientPairSampler:
        options = {key: value for key, value in options.items() if key == "last"}
    state, states, batches = None, [], []
    for pairs, steps in ((8, 5), (4, 9), (8, 0), (2, 30), (5, 4), (16, 30)):
        sampler = sampler_class(index, pairs, 3, **options)
        if state is not None:
            sampler.load_state_dict(through_json(state))
        endless = sampler.endless()
        for _ in range(steps):
            states.append((pairs, sampler.state_dict()))
            batches.append(next(endless))
        state = sampler.state_dict()
    for (pairs, saved), expected in zip(states, batches, strict=True):
        resumed = sampler_class(index, pairs, 3, **options)
        resumed.load_state_dict(through_json(saved))
        assert np.array_equal(next(resumed.endless()), expected)
        assert {**resumed.state_dict(consumed=0)} == saved
    if not options.keys() & {"temperature", "weights"}:  # in the next epoch all is plain again
        list(sampler)
        assert "changes" not in sampler.state_dict()
        plain = sampler_class(index, 16, 3, **options)
        plain.load_state_dict(sampler.state_dict())
        assert np.array_equal(plain.plan(*plain.position).rows, sampler.plan(*sampler.position).rows)


# After five batches of 8 pairs and two of 4, as the first version saved it; and the first rows of its next batch.
OLD = [
    (PatientPairSampler, {}, {"all cohorts": [0, 40, 22]}, [441, 405, 151, 172]),
    (InDistributionBatchSampler, {}, {"a": [0, 40, 10], "b": [0, 0, 7], "c": [0, 0, 5]}, [206, 437, 8, 499]),
    (
        InDistributionBatchSampler,
        {"weights": WEIGHTS},
        {"a": [0, 24, 2], "b": [0, 16, 14], "c": [0, 0, 4]},
        [281, 355, 326, 316],
    ),
]


@pytest.mark.parametrize(("sampler_class", "options", "groups", "rows"), OLD)
def test_a_changed_run_of_the_first_version_goes_on(index, sampler_class, options, groups, rows):
    def build(pairs=4):
        return sampler_class(index, pairs, 0, **options)

    saved = build().state_dict() | {"version": 1, "pairs": 4, "step": 2, "since": {"epoch": 0, "groups": groups}}
    sampler = build()
    sampler.load_state_dict(through_json(saved))
    assert next(iter(sampler))[:4].tolist() == rows
    twin = build()
    twin.load_state_dict(through_json(sampler.state_dict()))
    other = build(8)  # changed once more, and resumed
    other.load_state_dict(through_json(sampler.state_dict()))
    next(iter(other))
    last = build(8)
    last.load_state_dict(through_json(other.state_dict()))
    for one, two in ((sampler, twin), (other, last)):
        for _ in range(2):
            assert [batch.tolist() for batch in one] == [batch.tolist() for batch in two]
    if not options:  # the same run, in the words of today
        before = build(8)
        list(zip(range(5), before, strict=False))
        now = build()
        now.load_state_dict(before.state_dict())
        assert [batch.tolist() for batch in now][2][:4] == rows


@pytest.mark.parametrize(
    "change",
    [
        {"changes": 5},
        {"changes": [[8, 0]]},
        {"changes": [[8, 0, -1]]},
        {"changes": [[8, 0, True]]},
        {"changes": [[8, 0, 1, "a"]]},
        {"changes": [[8, 0, 1, [3]]]},
        {"changes": [[8, 0, 1, [], []]]},
        {"changes": [[8, 0, 10**6]]},
        {"changes": [[10**6, 0, 1]]},
        {"changes": [[8, 5, 1]]},  # later than the state
    ],
)
def test_broken_changes_are_refused_and_change_nothing(index, change):
    sampler = InDistributionBatchSampler(index, 8, 0)
    state = sampler.state_dict()
    with pytest.raises(StateMismatch, match="expected"):
        sampler.load_state_dict(state | change)
    assert sampler.state_dict() == state


# --- cohorts that join ---


def part(index: CohortIndex, names: tuple[str, ...]) -> CohortIndex:
    """The index as it was when only these cohorts were in the store: the first ones."""
    return CohortIndex(dict(index.where(cohort=names).columns), names)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3}, {"weights": WEIGHTS}])
@pytest.mark.parametrize("consumed", [0, 1, 6, 12])
def test_a_cohort_joins_the_epoch_under_way(index, options, consumed):
    """Of the others, nobody comes twice in the pass; the new one comes with all its patients."""
    then = options | ({"weights": {"a": 1, "b": 2}} if "weights" in options else {})
    before = InDistributionBatchSampler(part(index, ("a", "b")), 8, 5, **then)  # 13 batches an epoch
    seen = [before.plan(0, step).patients for step in range(consumed)]
    list(zip(range(consumed), before, strict=False))
    after = InDistributionBatchSampler(index, 8, 5, **options)
    state = through_json(before.state_dict())
    with pytest.raises(StateMismatch, match="index"):
        after.load_state_dict(state)
    after.load_state_dict(state, appended="c")
    epoch, first = after.position
    assert (epoch, first) == (0, 0)
    rest = [after.plan(0, step) for step in range(after.steps(0))]
    drawn = Counter(np.concatenate([*seen, *(plan.patients for plan in rest)]).tolist())
    assert {plan.cohort for plan in rest} >= {"c"}
    if not options:
        assert max(drawn.values()) == 1
        assert sum(plan.cohort == "c" for plan in rest) == 2
        assert len(rest) == 15 - consumed
    next(iter(after))
    resumed = InDistributionBatchSampler(index, 8, 5, **options)
    resumed.load_state_dict(through_json(after.state_dict()))
    for _ in range(3):
        assert [rows.tolist() for rows in resumed] == [rows.tolist() for rows in after]


def test_cohorts_join_at_two_times_and_pairs_change_in_between(index):
    build = InDistributionBatchSampler
    one = build(part(index, ("a",)), 8, 5, temperature=0.5)
    list(zip(range(3), one, strict=False))
    two = build(part(index, ("a", "b")), 8, 5, temperature=0.5)
    two.load_state_dict(one.state_dict(), appended=["b"])
    list(zip(range(3), two, strict=False))
    smaller = build(part(index, ("a", "b")), 4, 5, temperature=0.5)
    smaller.load_state_dict(through_json(two.state_dict()))
    list(zip(range(3), smaller, strict=False))
    three = build(index, 4, 5, temperature=0.5)
    three.load_state_dict(through_json(smaller.state_dict()), appended=["c"])
    list(zip(range(3), three, strict=False))
    resumed = build(index, 4, 5, temperature=0.5)
    resumed.load_state_dict(through_json(three.state_dict()))
    for _ in range(3):
        assert [rows.tolist() for rows in resumed] == [rows.tolist() for rows in three]


def test_mixed_batches_take_a_cohort_between_epochs(index):
    before, after = PatientPairSampler(part(index, ("a", "b")), 8, 5), PatientPairSampler(index, 8, 5)
    list(before)
    after.load_state_dict(before.state_dict(), appended=["c"])
    assert after.position == (1, 0)
    plain = PatientPairSampler(index, 8, 5)
    assert np.array_equal(after.plan(1, 3).rows, plain.plan(1, 3).rows)
    next(iter(before))
    with pytest.raises(StateMismatch, match=r"step 1 of epoch 1, expected the start of an epoch.*Finish the epoch"):
        after.load_state_dict(before.state_dict(), appended=["c"])


@pytest.mark.parametrize("sampler_class", [InDistributionBatchSampler, RandomBatchSampler])
def test_cohorts_join_a_table_at_its_end(sampler_class):
    ids = np.repeat(np.arange(60), 2)
    names = np.array(["x", "z", "y"])[ids // 20]  # the new one is between the others by name
    singles = sampler_class is RandomBatchSampler

    def build(n):
        return sampler_class.from_arrays(
            patients=ids[:n], cohorts=names[:n], seed=1, **{"batch_size" if singles else "pairs": 4}
        )

    before, after = build(80), build(120)
    list(zip(range(3), before, strict=False))
    after.load_state_dict(through_json(before.state_dict()), appended=("y",))
    rest = Counter(after.plan(0, step).cohort for step in range(len(after)))
    assert rest["y"] == (10 if singles else 5)
    assert rest["x"] + rest["z"] + 3 == len(build(80))
    with pytest.raises(StateMismatch, match="index"):
        build(120).load_state_dict(build(100).state_dict(), appended=("y",))  # half of y was there
    with pytest.raises(SpecError, match="found no cohort w, expected one of x, y, z"):
        after.load_state_dict(before.state_dict(), appended=("w",))


def test_cohorts_that_are_numbers_join_and_stay_joined():
    """Named by number or by text, at every restart; a state that has them says so by its index."""
    ids = np.repeat(np.arange(90), 2)

    def build(n, **options):
        arrays = {"patients": ids[:n], "cohorts": ids[:n] // 20}
        return InDistributionBatchSampler.from_arrays(**arrays, pairs=4, seed=1, small_groups="drop", **options)

    before = build(80)
    list(zip(range(3), before, strict=False))
    runs = []
    for names in ([2, 3, 4], ["2", "3", "4"], np.array([2, 3, 4]), (2, "3", 4)):
        after = build(180)
        after.load_state_dict(through_json(before.state_dict()), appended=names)
        list(zip(range(4), after, strict=False))
        again, plain = build(180), build(180)
        again.load_state_dict(through_json(after.state_dict()), appended=names)
        plain.load_state_dict(through_json(after.state_dict()))
        runs += [[rows.tolist() for rows in sampler] for sampler in (after, again, plain)]
    assert all(run == runs[0] for run in runs)
    with pytest.raises(SpecError, match="found no cohort 9"):
        build(180).load_state_dict(after.state_dict(), appended=9)
    one = build(120)
    one.load_state_dict(before.state_dict(), appended=2)
    with pytest.raises(StateMismatch, match="index"):
        build(180).load_state_dict(one.state_dict(), appended=[2, 3, 4])  # 2 was there


@pytest.mark.parametrize(("prefix", "joins"), [("q", True), ("a", False)])
def test_new_patients_that_are_texts_must_sort_behind_the_others(prefix, joins):
    ids = np.array([f"p{number:03d}" for number in range(40)] + [f"{prefix}{number:03d}" for number in range(20)])
    ids, cohorts = np.repeat(ids, 2), np.repeat(np.array(["x", "y", "new"]), 40)

    def build(n, exclude):
        arrays = {"patients": ids[:n], "cohorts": cohorts[:n], "pairs": 4, "seed": 1, "exclude": exclude}
        return InDistributionBatchSampler.from_arrays(**arrays)

    before, after = build(80, [3]), build(120, [3])
    list(zip(range(3), before, strict=False))
    if joins:
        after.load_state_dict(before.state_dict(), appended="new")
        assert after.steps(0) == before.steps(0) - 3 + 5
        with pytest.raises(StateMismatch, match="exclude"):
            build(120, [3, 100]).load_state_dict(before.state_dict(), appended="new")
    else:
        with pytest.raises(StateMismatch, match="index"):
            after.load_state_dict(before.state_dict(), appended="new")


def test_mixed_batches_stay_joined(index):
    before, after = PatientPairSampler(part(index, ("a", "b")), 8, 5), PatientPairSampler(index, 8, 5)
    after.load_state_dict(before.state_dict(), appended=["c"])
    next(iter(after))
    again = PatientPairSampler(index, 8, 5)
    again.load_state_dict(after.state_dict(), appended=["c"])  # in mid-epoch, and not new
    assert again.position == (0, 1)


def test_where_cohorts_cannot_join_is_said(index):
    """By the option that depends on everybody, and by the name of the planner."""
    old, near = part(index, ("a", "b")), np.arange(len(index), dtype=float)
    builds = {
        "with balance": lambda one: InDistributionBatchSampler(one, 8, 5, balance=one["patient"] % 2),
        "with patient_weights": lambda one: PatientPairSampler(one, 8, 5, patient_weights=one["patient"] % 2),
        "with near": lambda one: HardNegativeSampler(one, 8, 5, near[: len(one)]),
        "for MicroBatchSampler": lambda one: MicroBatchSampler(InDistributionBatchSampler(one, 8, 5), 2),
    }
    for message, build in builds.items():
        before, after = build(old), build(index)
        with pytest.raises(StateMismatch, match=rf"found appended=\['c'\] .*{message[5:]}.*Start a new run"):
            after.load_state_dict(before.state_dict(), appended=["c"])
        for nothing in ((), [], np.array([])):
            after.load_state_dict(build(index).state_dict(), appended=nothing)
