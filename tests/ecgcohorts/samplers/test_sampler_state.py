"""Stopping and going on: bitwise at every step, on any number of ranks, with other `pairs`, and never on the wrong run."""

import json
from collections import Counter

import numpy as np
import pytest

from ecgcohorts.errors import StateMismatch
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, permutation, schedule
from ecgcohorts.samplers.permutation import permute

BOTH = [PatientPairSampler, InDistributionBatchSampler]


def build(index, sampler_class, **options):
    return sampler_class(index, **({"pairs": 8, "seed": 0} | options))


def through_json(state: dict) -> dict:
    text = json.dumps(state)
    assert len(text) < 1024
    return json.loads(text)


@pytest.mark.parametrize(
    ("sampler_class", "options"),
    [
        (PatientPairSampler, {}),
        (InDistributionBatchSampler, {}),
        (InDistributionBatchSampler, {"temperature": 0.3, "singles": "self"}),
        (InDistributionBatchSampler, {"weights": {"a": 1, "b": 2, "c": 0.5}, "last": "wrap"}),
    ],
)
def test_resumes_bitwise_at_every_step_of_three_epochs(index, sampler_class, options):
    sampler = build(index, sampler_class, **options)
    states, batches = [sampler.state_dict()], []
    for _ in range(3):
        for rows in sampler:
            batches.append(rows)
            states.append(sampler.state_dict())
    assert len(batches) == 3 * len(sampler)
    for consumed, state in enumerate(states[:-1]):
        resumed = build(index, sampler_class, **options)
        resumed.load_state_dict(through_json(state))
        assert np.array_equal(next(iter(resumed)), batches[consumed])
    resumed = build(index, sampler_class, **options)
    resumed.load_state_dict(states[5])
    rest = [rows for _ in range(3) for rows in resumed][: len(batches) - 5]
    assert all(np.array_equal(*pair) for pair in zip(rest, batches[5:], strict=True))


@pytest.mark.parametrize("sampler_class", BOTH)
def test_resumes_on_another_number_of_ranks(index, sampler_class):
    sampler = build(index, sampler_class).on_rank(1, 2)
    iterator = iter(sampler)
    for _ in range(4):
        next(iterator)
    resumed = build(index, sampler_class)
    resumed.load_state_dict(sampler.state_dict())
    whole, half = next(iter(resumed)), next(iterator)
    assert np.array_equal(whole[8:], half)


def test_epochs_advance_by_themselves(index):
    sampler = build(index, PatientPairSampler)
    first = [rows.tolist() for rows in sampler]
    assert sampler.position == (1, 0)
    assert [rows.tolist() for rows in sampler] != first
    assert sampler.position == (2, 0)


def test_set_epoch_goes_to_the_start_of_any_epoch(index):
    sampler = build(index, PatientPairSampler)
    for epoch in (4, 4, 2, np.int64(3)):
        sampler.set_epoch(epoch)
        assert sampler.position == (epoch, 0)
        assert np.array_equal(next(iter(sampler)), sampler.plan(epoch, 0).rows.ravel())
        assert sampler.position == (epoch, 1)
    with pytest.raises(IndexError):
        sampler.set_epoch(-1)
    with pytest.raises(TypeError):
        sampler.set_epoch(1.0)


def test_stopping_and_iterating_again_goes_on(index):
    sampler = build(index, PatientPairSampler)
    for number, _ in enumerate(sampler):
        if number == 3:
            break
    assert sampler.position == (0, 4)
    assert len(list(sampler)) == len(sampler) - 4


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("ahead", [0, 4, 99])
def test_a_loop_says_how_many_batches_it_used_however_many_were_fetched_ahead(index, sampler_class, ahead):
    """As with worker processes: the sampler has handed out `ahead` batches more than the loop has seen, or all."""
    expected = list(build(index, sampler_class))
    sampler = build(index, sampler_class)
    for _ in zip(range(5 + ahead), sampler, strict=False):
        pass
    for used in range(6):
        resumed = build(index, sampler_class)
        resumed.load_state_dict(through_json(sampler.state_dict(consumed=used)))
        if used == 0 and ahead == 99:  # once the epoch's iteration has ended, none is used of the next one
            assert resumed.position == (1, 0)
            continue
        assert resumed.position == (0, used)
        assert all(np.array_equal(*pair) for pair in zip(resumed, expected[used:], strict=True))


def test_used_batches_count_from_where_the_iteration_began(index):
    """A loop that resumes counts its batches from 0 again, as enumerate does."""
    run = build(index, PatientPairSampler)  # 16 batches an epoch
    list(zip(range(7), run, strict=False))
    resumed = build(index, PatientPairSampler)
    resumed.load_state_dict(run.state_dict())
    assert resumed.state_dict(consumed=0) == run.state_dict()
    with pytest.raises(ValueError, match="found consumed=1, expected 0 to the number of batches handed out"):
        resumed.state_dict(consumed=1)
    iterator = iter(resumed)
    for used in range(1, 5):
        next(iterator)
        assert resumed.state_dict(consumed=np.int64(used))["step"] == 7 + used
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=f"consumed={wrong}"):
            resumed.state_dict(consumed=wrong)
    list(iterator)
    assert resumed.position == (1, 0)
    assert [resumed.state_dict(consumed=9)[key] for key in ("epoch", "step")] == [1, 0]
    assert [resumed.state_dict(consumed=8)[key] for key in ("epoch", "step")] == [0, 15]


def test_endless_batches_are_those_of_the_epochs(index):
    sampler, plain = build(index, InDistributionBatchSampler), build(index, InDistributionBatchSampler)
    next(iter(sampler))
    expected = [rows.tolist() for _ in range(3) for rows in plain][1:]
    endless = sampler.endless()
    assert [next(endless).tolist() for _ in range(40)] == expected[:40]
    assert sampler.position == (2, 11)
    for used in (0, 13, 14, 15, 39):  # over the ends of epochs: 15 batches each
        resumed = build(index, InDistributionBatchSampler)
        resumed.load_state_dict(sampler.state_dict(consumed=used))
        assert resumed.position == divmod(1 + used, 15)
        assert next(resumed.endless()).tolist() == expected[used]


def test_a_look_at_a_batch_does_not_cost_an_epoch(index):
    """Peeking, then training: set_epoch and restart begin the epoch again."""
    sampler = build(index, PatientPairSampler)
    for again in (sampler.restart, lambda: sampler.set_epoch(0)):
        list(zip(range(5), sampler, strict=False))
        assert sampler.position == (0, 5)
        again()
        assert sampler.position == (0, 0)
    assert len(list(sampler)) == len(sampler)
    next(iter(sampler))
    sampler.restart()
    assert sampler.position == (1, 0)


@pytest.mark.parametrize("sampler_class", BOTH)
def test_a_loop_that_sets_every_epoch_resumes_in_the_middle_of_one(index, sampler_class):
    run = build(index, sampler_class)
    expected = [rows.tolist() for _ in range(3) for rows in run]
    saved = build(index, sampler_class)
    saved.set_epoch(1)
    list(zip(range(4), saved, strict=False))
    resumed = build(index, sampler_class)
    resumed.load_state_dict(saved.state_dict())
    resumed.set_epoch(1)  # a trainer's hook and the loop: both, before the first batch
    rest = []
    for epoch in (1, 2):
        resumed.set_epoch(epoch)
        rest += [rows.tolist() for rows in resumed]
    assert rest == expected[len(run) + 4 :]
    resumed.set_epoch(1)
    next(iter(resumed))
    resumed.set_epoch(1)  # no longer directly after loading
    assert resumed.position == (1, 0)


# --- other pairs ---


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("consumed", [0, 1, 7, 14])
@pytest.mark.parametrize("pairs", [2, 4, 16, 20])
def test_with_other_pairs_nobody_comes_twice_in_the_pass(index, sampler_class, consumed, pairs):
    before = build(index, sampler_class)
    iterator = iter(before)
    seen = [next(iterator) for _ in range(consumed)]
    after = build(index, sampler_class, pairs=pairs)
    after.load_state_dict(through_json(before.state_dict()))
    epoch = after.position[0]
    rest = list(after) if epoch == 0 else []
    patient_of_row = np.zeros(len(index), int)
    patient_of_row[index["row"]] = index["patient"]
    patients = patient_of_row[np.concatenate([np.zeros(0, int), *(rows[::2] for rows in seen + rest)])]
    assert len(set(patients.tolist())) == len(patients)
    eligible = Counter(index.patient_cohort[np.diff(index.patient_ptr) >= 2].tolist())
    groups = [[0, 1, 2]] if sampler_class is PatientPairSampler else [[0], [1], [2]]
    for group in groups:
        missed = sum(eligible[code] for code in group) - np.isin(index.patient_cohort[patients], group).sum()
        assert missed < max(pairs, 8)  # what does not fill a batch waits
    for epoch in (1, 2):  # later epochs are whole again, and plain
        plain = build(index, sampler_class, pairs=pairs)
        assert after.position == (epoch, 0)
        assert all(np.array_equal(rows, plain.plan(epoch, k).rows.ravel()) for k, rows in enumerate(after))


def test_with_other_pairs_and_temperature_passes_go_on_where_they_were(index):
    options = {"temperature": 0.0, "seed": 2}
    before = build(index, InDistributionBatchSampler, **options)
    iterator = iter(before)
    drawn: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for step in range(6):
        next(iterator)
        plan = before.plan(0, step)
        drawn[plan.cohort] += plan.patients.tolist()
    assert {name: len(patients) for name, patients in drawn.items()} == {"a": 24, "b": 16, "c": 8}  # no pass is over
    after = build(index, InDistributionBatchSampler, pairs=4, **options)
    after.load_state_dict(through_json(before.state_dict()))
    left = {name: 5 * 8 - len(patients) for name, patients in drawn.items()}  # 5 batches each in the epoch
    assert len(after) == sum(left.values()) // 4
    for _ in range(3):
        for step in range(len(after)):
            plan = after.plan(after.position[0], step)
            drawn[plan.cohort] += plan.patients.tolist()
        list(after)
    for name, eligible in (("a", 80), ("b", 30), ("c", 20)):
        patients = drawn[name]
        first_pass = patients[: eligible // 4 * 4]
        assert len(set(first_pass)) == len(first_pass)
        second_pass = patients[eligible // 4 * 4 :][: eligible // 4 * 4]
        assert len(set(second_pass)) == len(second_pass)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_pairs_changed_twice_and_a_resume_in_between(index, temperature):
    """Three lives of one run: every life ends in the middle of an epoch."""
    seen = []
    state = None
    for pairs in (4, 8, 2):
        sampler = build(index, InDistributionBatchSampler, pairs=pairs, temperature=temperature)
        if state is not None:
            sampler.load_state_dict(through_json(state))
            twin = build(index, InDistributionBatchSampler, pairs=pairs, temperature=temperature)
            twin.load_state_dict(through_json(sampler.state_dict()))  # saved before anything was consumed
            assert np.array_equal(next(iter(twin)), sampler.plan(*sampler.position).rows.ravel())
            again = build(index, InDistributionBatchSampler, pairs=pairs, temperature=temperature)
            again.load_state_dict(twin.state_dict())  # and after one batch
            assert twin.position == again.position
            assert np.array_equal(next(iter(again)), twin.plan(*twin.position).rows.ravel())
        iterator = iter(sampler)
        for _ in range(7):
            epoch, step = sampler.position
            plan = sampler.plan(epoch, step)
            next(iterator)
            seen += [(plan.cohort, patient) for patient in plan.patients.tolist()]
        state = sampler.state_dict()
    assert len(seen) == 7 * (4 + 8 + 2)
    if temperature == 1:  # still the first epoch of 130 patients
        assert max(Counter(seen).values()) == 1


def test_a_cohort_too_small_before_joins_with_its_first_pass(index):
    before = build(index, InDistributionBatchSampler, pairs=25, small_groups="drop")
    next(iter(before))
    assert before.state_dict()["left_out"] == ["c"]
    after = build(index, InDistributionBatchSampler, pairs=5, small_groups="drop")
    after.load_state_dict(before.state_dict())
    plans = [after.plan(0, step) for step in range(len(after))]
    assert len({p for plan in plans if plan.cohort == "c" for p in plan.patients.tolist()}) == 20


def test_an_epoch_with_nothing_left_for_larger_batches_ends(index):
    before = build(index, PatientPairSampler)
    iterator = iter(before)
    for _ in range(15):  # 120 of 130 patients
        next(iterator)
    after = build(index, PatientPairSampler, pairs=64)
    after.load_state_dict(before.state_dict())
    assert after.position == (1, 0)
    plain = build(index, PatientPairSampler, pairs=64)
    assert np.array_equal(next(iter(after)), plain.plan(1, 0).rows.ravel())
    with pytest.raises(IndexError, match="epoch 0, expected 1 or later"):
        after.plan(0, 0)


def test_state_stays_small_with_many_cohorts(build_index):
    names = [f"a_cohort_with_a_long_name_{number:02d}" for number in range(12)]
    index = build_index({name: [2] * 40 for name in names})
    before = InDistributionBatchSampler(
        index, 8, 2**63 - 1, weights=dict.fromkeys(names, 0.123456789), max_gap_days=1e9
    )
    next(iter(before))
    after = InDistributionBatchSampler(index, 4, 2**63 - 1, weights=dict.fromkeys(names, 0.123456789), max_gap_days=1e9)
    after.load_state_dict(before.state_dict())
    through_json(after.state_dict())


def test_state_stays_small_with_many_groups_left_out(build_index, caplog):
    """Sites that cannot fill a batch may be hundreds: the state names some, plans name all."""
    index = build_index({"large": [2] * 40} | {f"a_small_site_{number:03d}": [2] * 3 for number in range(300)})
    sampler = InDistributionBatchSampler(index, 8, 0, small_groups="drop")
    state = through_json(sampler.state_dict())
    assert state["left_out"][:2] == ["a_small_site_000", "a_small_site_001"]
    assert state["left_out"][-1] == "and 292 more"
    assert len(sampler.plan(0, 0).left_out) == 300
    assert len(caplog.text) < 1000
    again = InDistributionBatchSampler(index, 8, 0, small_groups="drop")
    again.load_state_dict(state)
    assert again.left_out == sampler.left_out


@pytest.mark.parametrize("sampler_class", BOTH)
def test_resuming_costs_no_more_after_a_million_epochs(index, sampler_class, monkeypatch):
    """Nothing is replayed: the next batch takes one schedule and one permutation, however long the run was."""
    asked = []
    for module in (permutation, schedule):
        monkeypatch.setattr(
            module, "permute", lambda places, *rest: asked.append(len(places)) or permute(places, *rest)
        )
    for epoch in (0, 1_000_000):
        permutation._block.cache_clear()
        asked.clear()
        resumed = build(index, sampler_class)
        resumed.load_state_dict(resumed.state_dict() | {"epoch": epoch, "step": 5})
        next(iter(resumed))
        assert len(asked) == 2
        assert sum(asked) <= 130 + len(resumed)  # at most all eligible patients, and the steps of an epoch


@pytest.mark.parametrize("sampler_class", BOTH)
def test_a_run_may_change_its_number_of_ranks_again_and_again(index, sampler_class):
    """Two steps on each of 1, 8, 2, 4 ranks, resumed from a state in between: the global batches of one rank."""
    plain = iter(build(index, sampler_class))
    state = build(index, sampler_class).state_dict()
    for world_size in (1, 8, 2, 4):
        ranks = [build(index, sampler_class).on_rank(rank, world_size) for rank in range(world_size)]
        for rank in ranks:
            rank.load_state_dict(through_json(state))
            assert len(rank) == len(ranks[0])
        for _, *parts in zip(range(2), *map(iter, ranks), strict=False):
            assert np.concatenate(parts).tobytes() == next(plain).tobytes()
        (state,) = {json.dumps(rank.state_dict()) for rank in ranks}
        state = json.loads(state)
    assert state["step"] == 8


# --- the wrong run ---


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, ["seed 0, expected 1"]),
        ({"singles": "self", "views": 3}, ["singles 'drop', expected 'self'", "views 2, expected 3"]),
        ({"last": "wrap"}, ["last 'drop'"]),
        ({"max_gap_days": 3000}, ["max_gap_days None, expected 3000"]),
        ({"small_groups": "drop"}, ["small_groups"]),
    ],
)
def test_other_parameters_are_named(index, sampler_class, options, named):
    state = build(index, sampler_class).state_dict()
    with pytest.raises(StateMismatch) as caught:
        build(index, sampler_class, **options).load_state_dict(state)
    assert all(part in str(caught.value) for part in named)


def test_other_weights_temperature_sampler_and_index_are_named(index, build_index):
    state = build(index, InDistributionBatchSampler).state_dict()
    for other, named in (
        (build(index, InDistributionBatchSampler, temperature=0.5), "temperature 1.0, expected 0.5"),
        (build(index, InDistributionBatchSampler, weights={"a": 1, "b": 1, "c": 1}), "weights None"),
        (build(index.take(np.arange(len(index) - 1)), InDistributionBatchSampler), "index '"),
    ):
        with pytest.raises(StateMismatch, match=named):
            other.load_state_dict(state)
    with pytest.raises(StateMismatch, match="temperature"):  # keys that a mixed sampler does not have
        build(index, PatientPairSampler).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"step": -1},
        {"step": 10**9},
        {"step": True},
        {"epoch": 1.5},
        {"epoch": None},
        {"pairs": 0},
        {"pairs": 10**6},
        {"pairs": "8"},
        {"surprise": 1},
        {"since": 5},
        {"since": {"epoch": 0, "groups": {"a": [0, 0, 1]}}},
        {"since": {"epoch": 0, "groups": {"a": [0], "b": [0], "c": [0]}}},
        {"since": {"epoch": 9, "groups": {"a": [0, 0, 1], "b": [0, 0, 1], "c": [0, 0, 1]}}},
    ],
)
def test_broken_states_are_refused_and_change_nothing(index, change):
    sampler = build(index, InDistributionBatchSampler)
    state = sampler.state_dict()
    expected = sampler.plan(0, 0).rows
    with pytest.raises(StateMismatch, match="expected"):
        sampler.load_state_dict(state | change)
    assert sampler.position == (0, 0)
    assert np.array_equal(sampler.plan(0, 0).rows, expected)


@pytest.mark.parametrize("state", [{}, {"epoch": 1}, None, []])
def test_what_is_no_state_is_refused(index, state):
    with pytest.raises(StateMismatch, match="found a state of"):
        build(index, PatientPairSampler).load_state_dict(state)
