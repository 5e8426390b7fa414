"""Groups other than cohorts, batches of single records, the most recent pair, and balanced classes."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler


def with_columns(index: CohortIndex, devices: tuple[str, ...] = (), **columns: np.ndarray) -> CohortIndex:
    return CohortIndex(dict(index.columns) | columns, index.cohorts, index.sites, devices or index.devices)


@pytest.fixture
def devices(index) -> CohortIndex:
    """Two recorders in every cohort: which one made a record depends on the patient and the visit."""
    visit = np.arange(len(index)) - index.patient_ptr[index["patient"]]
    code = (index["patient"] // 3 + (visit > 2)) % 2
    return with_columns(index, ("old", "new"), device=code.astype(np.int32))


def of_row(index: CohortIndex, name: str) -> np.ndarray:
    values = np.zeros(int(index["row"].max()) + 1, index[name].dtype)
    values[index["row"]] = index[name]
    return values


# --- groups ---


def test_batches_of_one_device_hold_records_of_that_device_only(devices):
    sampler = InDistributionBatchSampler(devices, pairs=8, seed=0, by="device")
    device = of_row(devices, "device")
    met = Counter()
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        assert (device[plan.rows] == ("old", "new").index(plan.cohort)).all()
        assert len(set(plan.patients.tolist())) == 8
        met[plan.cohort] += 1
    assert set(met) == {"old", "new"}
    assert sampler.describe()["groups"]["old"]["patients"] == eligible(devices, device=0)


def eligible(index: CohortIndex, **values: int) -> int:
    """Patients with two records that have these values."""
    mine = np.all([index[name] == value for name, value in values.items()], axis=0)
    return sum(count >= 2 for count in Counter(index["patient"][mine].tolist()).values())


def test_columns_together_make_a_group(devices):
    sampler = InDistributionBatchSampler(devices, pairs=4, seed=0, by=("cohort", "device"))
    cohort, device = of_row(devices, "cohort"), of_row(devices, "device")
    names = set()
    for step in range(len(sampler)):
        plan = sampler.plan(3, step)
        name = f"{devices.cohorts[cohort[plan.rows[0, 0]]]} / {('old', 'new')[device[plan.rows[0, 0]]]}"
        assert plan.cohort == name
        assert len(set(zip(cohort[plan.rows].ravel(), device[plan.rows].ravel(), strict=True))) == 1
        names.add(name)
    assert names == {f"{cohort} / {device}" for cohort in "abc" for device in ("old", "new")}


def test_a_label_is_a_group_too(index):
    labelled = with_columns(index, label_af=(index["patient"] % 2).astype(np.float32))
    sampler = InDistributionBatchSampler(labelled, pairs=8, seed=0, by="af")
    assert set(sampler.describe()["groups"]) == {"0", "1"}
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        assert (plan.patients % 2 == int(plan.cohort)).all()


def test_grouping_by_cohort_is_the_default_whichever_way_it_is_said(index):
    plain = InDistributionBatchSampler(index, pairs=8, seed=5)
    one, two = (InDistributionBatchSampler(index, pairs=8, seed=5, by=by) for by in ("cohort", ["cohort"]))
    for step in range(len(plain)):
        for other in (one, two):
            np.testing.assert_array_equal(plain.plan(1, step).rows, other.plan(1, step).rows)


def test_arrays_may_bring_several_columns(devices):
    arrays = {"patients": devices["patient"], "pairs": 4, "seed": 0}
    names = (np.array(devices.cohorts)[devices["cohort"]], np.array(("old", "new"))[devices["device"]])
    sampler = InDistributionBatchSampler.from_arrays(cohorts=names, **arrays)
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        assert {f"{names[0][row]} / {names[1][row]}" for row in plan.rows.ravel()} == {plan.cohort}


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("device", "found 20 of .* records without device"),
        ("recorder", "found no index column 'label_recorder'"),
        ((), "found no column to group by"),
        ("days", "values of days, expected at most"),
        ("recording_id", "expected a column with one value a record"),
    ],
)
def test_what_makes_no_groups_is_refused(index, by, message, monkeypatch):
    monkeypatch.setattr("ecgcohorts.samplers._groups.MANY_GROUPS", 100)
    device = np.zeros(len(index), np.int32)
    device[:20] = -1
    with pytest.raises(SpecError, match=message):
        InDistributionBatchSampler(with_columns(index, ("old",), device=device), pairs=4, seed=0, by=by)


def test_a_state_of_another_grouping_is_refused(devices):
    state = InDistributionBatchSampler(devices, pairs=4, seed=0, by="device").state_dict()
    with pytest.raises(StateMismatch, match="by 'device', expected 'cohort'"):
        InDistributionBatchSampler(devices, pairs=4, seed=0).load_state_dict(state)


# --- single records ---


def test_every_record_comes_once_an_epoch(index):
    sampler = RandomBatchSampler(index, batch_size=1, seed=3)
    for epoch in range(2):
        plans = [sampler.plan(epoch, step) for step in range(len(sampler))]
        rows = np.concatenate([plan.rows for plan in plans])
        assert rows.shape == (len(index), 1)
        assert np.array_equal(np.sort(rows.ravel()), np.sort(index["row"]))
        owners = of_row(index, "patient")[rows.ravel()]
        assert np.array_equal(np.concatenate([plan.patients for plan in plans]), owners)
        assert all(plan.cohort is None for plan in plans)


def test_single_records_of_one_distribution(devices):
    sampler = RandomBatchSampler(devices, batch_size=16, seed=0, by=("cohort", "device"))
    device = of_row(devices, "device")
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        assert (device[plan.rows] == device[plan.rows[0, 0]]).all()
        assert plan.cohort.endswith(("old", "new")[device[plan.rows[0, 0]]])


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_the_same_batches_of_records(index, world_size):
    sampler = RandomBatchSampler(index, batch_size=16, seed=0)
    for step in range(len(sampler)):
        whole = sampler.plan(0, step)
        parts = [sampler.plan(0, step, rank, world_size) for rank in range(world_size)]
        np.testing.assert_array_equal(whole.rows, np.concatenate([part.rows for part in parts]))
        np.testing.assert_array_equal(whole.offsets, np.concatenate([part.offsets for part in parts]))


def test_windows_of_two_records_of_a_patient_are_independent(index):
    sampler = RandomBatchSampler(index, batch_size=len(index), seed=0)
    plan = sampler.plan(0, 0)
    assert len(np.unique(plan.offsets)) == len(index)


def test_records_from_arrays(index):
    n = len(index)
    plain = RandomBatchSampler.from_arrays(records=n, batch_size=8, seed=0)
    assert set(np.concatenate(list(plain))) <= set(range(n))
    grouped = RandomBatchSampler.from_arrays(cohorts=index["cohort"], patients=index["patient"], batch_size=8, seed=0)
    for step in range(len(grouped)):
        plan = grouped.plan(0, step)
        assert (index["cohort"][plan.rows] == int(plan.cohort)).all()
        np.testing.assert_array_equal(index["patient"][plan.rows[:, 0]], plan.patients)
    with pytest.raises(SpecError, match=r"found neither records, patients nor cohorts.*Pass records=NUMBER"):
        RandomBatchSampler.from_arrays(batch_size=8, seed=0)


@pytest.mark.parametrize(
    ("arrays", "found", "remedy"),
    [
        ({"records": 10}, "too few records (all cohorts has 10)", "lower pairs to 10"),
        ({"cohorts": ["a"] * 30 + ["b"] * 5}, "too few records (b has 5)", "small_groups='drop'"),
    ],
)
def test_too_few_records_for_a_batch_are_an_error_when_built(arrays, found, remedy):
    with pytest.raises(PlanImpossible) as caught:
        RandomBatchSampler.from_arrays(batch_size=20, seed=0, **arrays)
    assert found in str(caught.value)
    assert remedy in str(caught.value)
    assert "singles" not in str(caught.value)  # which it does not take


def test_a_run_of_single_records_resumes_exactly(index):
    sampler = RandomBatchSampler(index, batch_size=16, seed=0)
    rows = [batch.tolist() for _ in range(2) for batch in sampler]
    for stop in (0, 1, len(rows) // 2, len(rows) - 1):
        run = RandomBatchSampler(index, batch_size=16, seed=0)
        taken = []
        while len(taken) < stop:
            taken += [batch.tolist() for _, batch in zip(range(stop - len(taken)), run, strict=False)]
        again = pickle.loads(pickle.dumps(RandomBatchSampler(index, batch_size=16, seed=0)))
        again.load_state_dict(json.loads(json.dumps(run.state_dict())))
        rest = [batch.tolist() for batch in again]
        assert rest == rows[len(taken) : len(taken) + len(rest)]


# --- the most recent pair ---


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler])
def test_the_most_recent_pair(index, sampler_class):
    sampler = sampler_class(index, pairs=8, seed=0, draw="latest")
    days, orders = of_row(index, "days"), Counter()
    for epoch in range(4):
        for step in range(len(sampler)):
            plan = sampler.plan(epoch, step)
            for patient, pair in zip(plan.patients.tolist(), plan.rows, strict=True):
                latest = np.sort(index["days"][index.patient_ptr[patient] : index.patient_ptr[patient + 1]])[-2:]
                np.testing.assert_array_equal(np.sort(days[pair]), latest)
                orders[bool(days[pair[0]] > days[pair[1]])] += 1
    assert min(orders.values()) / sum(orders.values()) > 0.45


def test_the_latest_record_of_a_patient_with_one_is_seen_twice(index):
    sampler = PatientPairSampler(index, pairs=8, seed=0, draw="latest", views=3, singles="self")
    for step in range(len(sampler)):
        plan = sampler.plan(0, step)
        counts = np.diff(index.patient_ptr)[plan.patients]
        assert [len(set(rows)) for rows in plan.rows.tolist()] == np.minimum(counts, 3).tolist()


def test_latest_and_gap_bounds_exclude_each_other(index):
    with pytest.raises(SpecError, match="expected only one of them"):
        PatientPairSampler(index, pairs=8, seed=0, draw="latest", max_gap_days=30)


# --- balanced classes ---


@pytest.fixture
def rare(index) -> CohortIndex:
    """One patient in five has AF."""
    return with_columns(index, label_af=(index["patient"] % 5 == 0).astype(np.float32))


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler])
def test_every_batch_holds_as_many_of_each_class(rare, sampler_class):
    sampler = sampler_class(rare, pairs=8, seed=0, balance="af", small_groups="drop")
    seen = Counter()
    for epoch in range(6):
        for step in range(len(sampler)):
            plan = sampler.plan(epoch, step)
            assert (plan.patients % 5 == 0).sum() == 4
            assert len(set(plan.patients.tolist())) == 8
            seen.update(plan.patients.tolist())
    if sampler_class is PatientPairSampler:  # each class goes through its patients before it begins again
        batches = 6 * len(sampler)
        for has_af, patients in ((True, 26), (False, 104)):
            counts = [count for patient, count in seen.items() if (patient % 5 == 0) == has_af]
            passes = -(-batches // (patients // 4))
            assert len(counts) == patients
            assert max(counts) <= passes


def test_balanced_records(rare):
    af = of_row(rare, "label_af")
    sampler = RandomBatchSampler(rare, batch_size=10, seed=0, balance="af")
    for step in range(len(sampler)):
        assert af[sampler.plan(0, step).rows].sum() == 5


def test_classes_are_mixed_within_a_batch_and_shared_by_ranks(rare):
    sampler = PatientPairSampler(rare, pairs=8, seed=0, balance="af")
    firsts = Counter()
    for step in range(len(sampler)):
        whole = sampler.plan(2, step)
        parts = [sampler.plan(2, step, rank, 4) for rank in range(4)]
        np.testing.assert_array_equal(whole.rows, np.concatenate([part.rows for part in parts]))
        np.testing.assert_array_equal(whole.offsets, np.concatenate([part.offsets for part in parts]))
        firsts[bool(whole.patients[0] % 5 == 0)] += 1
    assert len(firsts) == 2


def test_a_rare_patient_gets_another_pair_in_each_pass(build_index):
    index = build_index({"a": [6] * 40})
    index = with_columns(index, label_af=(index["patient"] < 4).astype(np.float32))
    sampler = PatientPairSampler(index, pairs=8, seed=0, balance="af")
    pairs = [tuple(sorted(rows)) for step in range(5) for rows in sampler.plan(0, step).rows.tolist()]
    of_rare = [pair for pair in pairs if of_row(index, "patient")[pair[0]] < 4]
    assert len(of_rare) == 20  # five passes of the four
    assert len(set(of_rare)) > 10


def test_classes_given_as_an_array(index):
    sampler = PatientPairSampler.from_arrays(
        patients=index["patient"], pairs=8, seed=0, balance=np.array(["low", "high"])[index["patient"] % 2]
    )
    for step in range(len(sampler)):
        assert (sampler.plan(0, step).patients % 2).sum() == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"balance": "days"}, SpecError, "patients whose records differ in balance"),
        ({"balance": "af", "pairs": 7}, PlanImpossible, "found pairs=7 for 2 classes, expected a multiple"),
        ({"balance": "af", "pairs": 60}, PlanImpossible, "found too few of a class .1 has 4., expected 30"),
        ({"balance": "af", "last": "pad"}, SpecError, "expected last='drop'"),
        ({"balance": [1, 2]}, SpecError, "found balance of shape"),
    ],
)
def test_classes_that_cannot_be_balanced_are_refused(rare, options, error, message):
    few = with_columns(rare, label_af=(rare["patient"] % 40 == 0).astype(np.float32)) if "60" in str(options) else rare
    with pytest.raises(error, match=message):
        PatientPairSampler(few, **{"pairs": 8, "seed": 0} | options)


def test_a_balanced_run_resumes_exactly_and_only_with_its_own_classes(rare):
    whole = list(PatientPairSampler(rare, pairs=8, seed=0, balance="af"))
    run = PatientPairSampler(rare, pairs=8, seed=0, balance="af")
    taken = [rows for _, rows in zip(range(5), run, strict=False)]
    state = json.loads(json.dumps(run.state_dict()))
    assert len(json.dumps(state)) < 1000
    again = PatientPairSampler(rare, pairs=8, seed=0, balance="af")
    again.load_state_dict(state)
    np.testing.assert_array_equal(np.stack(list(again)), np.stack(whole[len(taken) :]))
    with pytest.raises(StateMismatch, match="classes"):
        PatientPairSampler(rare, pairs=8, seed=0, balance="sex").load_state_dict(state)
    with pytest.raises(StateMismatch, match="batches are balanced"):
        PatientPairSampler(rare, pairs=4, seed=0, balance="af").load_state_dict(state)


@pytest.mark.parametrize("by", [None, "cohort"])
def test_several_windows_of_each_record_are_drawn_apart(index, by):
    sampler, single = (RandomBatchSampler(index, batch_size=16, seed=3, by=by, views=views) for views in (3, 1))
    plans = [sampler.plan(0, step) for step in range(len(sampler))]
    assert [plan.rows[:, 0].tolist() for plan in plans] == [
        single.plan(0, step).rows[:, 0].tolist() for step in range(len(single))
    ]
    assert all((plan.rows == plan.rows[:, :1]).all() and plan.is_self.all() for plan in plans)
    offsets = np.concatenate([plan.offsets for plan in plans])
    assert len(np.unique(offsets)) == offsets.size
    assert abs(np.corrcoef(offsets[:, 0], offsets[:, 1])[0, 1]) < 4 / np.sqrt(len(offsets))


def test_neighbouring_windows_share_one_draw_and_old_states_still_load(index):
    sampler = RandomBatchSampler(index, batch_size=16, seed=3, views=2, adjacent=True)
    plan = sampler.plan(0, 2)
    assert plan.adjacent
    assert (plan.offsets == plan.offsets[:, :1]).all()
    assert not RandomBatchSampler(index, batch_size=16, seed=3, views=2).plan(0, 2).adjacent
    with pytest.raises(StateMismatch):
        RandomBatchSampler(index, batch_size=16, seed=3, views=2).load_state_dict(sampler.state_dict())
    assert "adjacent" not in RandomBatchSampler(index, batch_size=16, seed=3).state_dict()
    with pytest.raises(SpecError, match="expected 2 or more windows"):
        RandomBatchSampler(index, batch_size=16, seed=3, adjacent=True)
