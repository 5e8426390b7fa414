"""What every plan must hold: who is in it, which records, on which rank, and that nothing else decides it."""

import json
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.samplers import BatchPlan, InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler

BOTH = [PatientPairSampler, InDistributionBatchSampler]


def epoch_of(sampler, epoch: int) -> list[BatchPlan]:
    return [sampler.plan(epoch, step) for step in range(sampler.steps(epoch))]


def same(a: BatchPlan, b: BatchPlan) -> bool:
    arrays = ("rows", "patients", "is_self", "offsets")
    return a.cohort == b.cohort and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)


def owner(index) -> np.ndarray:
    """Patient of each store row."""
    patients = np.full(int(index["row"].max()) + 1, -1)
    patients[index["row"]] = index["patient"]
    return patients


# --- who ---


@pytest.mark.parametrize("sampler_class", BOTH)
def test_rows_are_different_records_of_the_patient(index, sampler_class):
    patient_of_row = owner(index)
    for plan in epoch_of(sampler_class(index, pairs=8, seed=1), 4):
        assert plan.rows.shape == (8, 2)
        assert plan.rows.dtype == plan.patients.dtype == np.int64
        assert (patient_of_row[plan.rows] == plan.patients[:, None]).all()
        assert (plan.rows[:, 0] != plan.rows[:, 1]).all()
        assert not plan.is_self.any()
        assert len(set(plan.patients.tolist())) == 8
        assert ((plan.offsets >= 0) & (plan.offsets < 1)).all()


def test_mixed_epoch_shows_every_eligible_patient_once(index):
    sampler = PatientPairSampler(index, pairs=13, seed=0)  # 130 eligible patients
    for epoch in range(3):
        patients = np.concatenate([plan.patients for plan in epoch_of(sampler, epoch)])
        assert np.array_equal(np.sort(patients), np.flatnonzero(np.diff(index.patient_ptr) >= 2))


def test_in_distribution_epoch_shows_whole_batches_of_each_cohort_once(index):
    sampler = InDistributionBatchSampler(index, pairs=8, seed=0)
    left_out = []
    for epoch in range(4):
        plans = epoch_of(sampler, epoch)
        assert Counter(plan.cohort for plan in plans) == {"a": 10, "b": 3, "c": 2}
        patients = np.concatenate([plan.patients for plan in plans])
        assert len(set(patients.tolist())) == len(patients) == 15 * 8
        left_out.append(frozenset(np.flatnonzero(np.diff(index.patient_ptr) >= 2)) - set(patients.tolist()))
    assert [len(out) for out in left_out] == [10] * 4  # 6 of b, 4 of c
    assert len(set(left_out)) == 4  # others each epoch


def test_in_distribution_batches_hold_one_cohort(index):
    for plan in epoch_of(InDistributionBatchSampler(index, pairs=8, seed=0, temperature=0.5), 1):
        assert {index.cohorts[code] for code in index.patient_cohort[plan.patients]} == {plan.cohort}


@pytest.mark.parametrize("sampler_class", BOTH)
def test_epochs_come_in_different_order(index, sampler_class):
    sampler = sampler_class(index, pairs=8, seed=0)
    assert not np.array_equal(sampler.plan(0, 0).patients, sampler.plan(1, 0).patients)
    other = sampler_class(index, pairs=8, seed=1)
    assert not np.array_equal(sampler.plan(0, 0).patients, other.plan(0, 0).patients)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 2.0])
def test_each_pass_shows_a_patient_at_most_once_across_epochs(index, temperature):
    """Away from temperature 1 passes and epochs part ways; passes stay whole, in order, on batch boundaries."""
    sampler = InDistributionBatchSampler(index, pairs=8, seed=3, temperature=temperature)
    per_pass = {"a": 10, "b": 3, "c": 2}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in per_pass}
    for epoch in range(7):
        for plan in epoch_of(sampler, epoch):
            drawn[plan.cohort].append(plan.patients)
    for name, batches in drawn.items():
        for begin in range(0, len(batches), per_pass[name]):
            patients = np.concatenate(batches[begin : begin + per_pass[name]])
            assert len(set(patients.tolist())) == len(patients)


def test_singles_are_dropped_or_seen_twice(index):
    singles = set(np.flatnonzero(np.diff(index.patient_ptr) == 1).tolist())
    dropped = np.concatenate([plan.patients for plan in epoch_of(PatientPairSampler(index, 13, 0), 0)])
    assert singles.isdisjoint(dropped.tolist())
    sampler = PatientPairSampler(index, pairs=2, seed=0, singles="self")
    assert len(sampler) == 83  # 166 patients
    plans = epoch_of(sampler, 0)
    is_self = np.concatenate([plan.is_self for plan in plans])
    rows = np.concatenate([plan.rows for plan in plans])
    offsets = np.concatenate([plan.offsets for plan in plans])
    assert set(np.concatenate([plan.patients for plan in plans])[is_self].tolist()) == singles
    assert np.array_equal(rows[:, 0] == rows[:, 1], is_self)
    assert (offsets[is_self, 0] != offsets[is_self, 1]).all()  # cut at two places
    assert sampler.describe()["groups"]["all cohorts"]["of_which_repeat_a_record"] == 36


@pytest.mark.parametrize("views", [3, 4])
def test_more_views(index, views):
    plan = PatientPairSampler(index, pairs=20, seed=0, views=views).plan(0, 0)
    assert plan.rows.shape == plan.offsets.shape == (20, views)
    assert all(len(set(rows)) == views for rows in plan.rows.tolist())
    assert (np.diff(index.patient_ptr)[plan.patients] >= views).all()
    every = PatientPairSampler(index, pairs=166, seed=0, views=views, singles="self").plan(0, 0)
    records = np.diff(index.patient_ptr)[every.patients]
    assert [len(set(rows)) for rows in every.rows.tolist()] == np.minimum(records, views).tolist()
    assert np.array_equal(every.is_self, records < views)


def test_the_same_id_in_two_cohorts_is_two_people_unless_told():
    patients, cohorts = [7, 7, 7, 7, 8, 8, 8, 8], ["x", "x", "y", "y", "x", "x", "y", "y"]
    two = PatientPairSampler.from_arrays(patients=patients, cohorts=cohorts, pairs=4, seed=0)
    assert sorted(two.plan(0, 0).patients.tolist()) == [7, 7, 8, 8]
    assert all(cohorts[a] == cohorts[b] for a, b in two.plan(0, 0).rows.tolist())
    one = PatientPairSampler.from_arrays(patients=patients, cohorts=cohorts, pairs=2, seed=0, identities=patients)
    assert sorted(one.plan(0, 0).patients.tolist()) == [7, 8]
    with pytest.raises(PlanImpossible, match="all cohorts has 2"):
        PatientPairSampler.from_arrays(patients=patients, cohorts=cohorts, pairs=3, seed=0, identities=patients)


def test_one_person_of_several_patients_comes_once_in_a_batch(build_index):
    index = build_index({"a": [2] * 10, "b": [2] * 10})
    person = np.concatenate([np.arange(10), np.arange(10)])  # everyone is in both cohorts
    person[1] = 0  # and two patients of cohort a are one person
    mixed = PatientPairSampler(index, pairs=9, seed=0, identities=person)
    patient_of_row = owner(index)
    for epoch in range(5):
        rows = mixed.plan(epoch, 0).rows
        people = person[patient_of_row[rows]]
        assert (people[:, 0] == people[:, 1]).all()
        assert len(set(people[:, 0].tolist())) == 9
    one_cohort = InDistributionBatchSampler(index, pairs=9, seed=0, identities=person)
    for plan in epoch_of(one_cohort, 0):
        assert len(set(person[plan.patients].tolist())) == 9
        assert len(set(index.patient_cohort[patient_of_row[plan.rows]].ravel().tolist())) == 1


# --- small groups, impossible plans ---


def test_small_groups_raise_with_numbers_and_remedies(index):
    with pytest.raises(PlanImpossible) as caught:
        InDistributionBatchSampler(index, pairs=25, seed=0)
    text = str(caught.value)
    for part in ("c has 20", "pairs=25", "lower pairs to 20", "small_groups='drop'", "singles='self'"):
        assert part in text


def test_small_groups_are_left_out_and_named(index, caplog):
    sampler = InDistributionBatchSampler(index, pairs=25, seed=0, small_groups="drop")
    assert {plan.cohort for plan in epoch_of(sampler, 0)} == {"a", "b"}
    assert sampler.plan(0, 0).left_out == sampler.left_out == ("c",)
    assert sampler.describe()["left_out"] == {"c": 20}
    assert "c has 20" in caplog.text


def test_a_cohort_without_records_is_not_a_small_group(index):
    """An index cut down by `where` still lists all cohort names."""
    sampler = InDistributionBatchSampler(index.where(cohort="b"), pairs=30, seed=0)
    assert (len(sampler), sampler.left_out) == (1, ())


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("small_groups", ["raise", "drop"])
def test_nothing_left_is_an_error(index, sampler_class, small_groups):
    with pytest.raises(PlanImpossible, match="expected pairs=1000"):
        sampler_class(index, pairs=1000, seed=0, small_groups=small_groups)


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"views": 1}, "views=1"),
        ({"singles": "keep"}, "singles='keep'"),
        ({"small_groups": None}, "small_groups=None"),
        ({"last": "repeat"}, "last='repeat'"),
        ({"min_gap_days": 5, "max_gap_days": 2}, "gaps of 5 to 2"),
        ({"min_gap_days": -1}, "gaps of -1"),
        ({"max_gap_days": float("nan")}, "gaps of None to nan"),
        ({"max_gap_days": 9, "views": 3}, "views=3"),
        ({"pairs": 0}, "pairs=0"),
        ({"pairs": 2.0}, r"pairs=2\.0"),
        ({"pairs": True}, "pairs=True"),
        ({"pairs": np.bool_(True)}, "pairs="),
        ({"views": 2.0}, r"views=2\.0"),
        ({"max_gap_days": "30"}, "max_gap_days='30', expected a number of days"),
        ({"max_gap_days": np.timedelta64(30, "D")}, "expected a number of days"),
        ({"max_gap_days": np.str_("30")}, "expected a number of days"),
        ({"max_gap_days": np.datetime64("2020-01-01", "ns")}, "expected a number of days"),
        ({"seed": None}, "seed=None"),
        ({"seed": -1}, "seed=-1"),
        ({"identities": [1]}, "1 identities"),
    ],
)
def test_wrong_options_are_refused_when_built(index, sampler_class, options, named):
    with pytest.raises(SpecError, match=named):
        sampler_class(index, **({"pairs": 8, "seed": 0} | options))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"temperature": 0.5, "weights": {"a": 1, "b": 1, "c": 1}}, "expected only one of them"),
        ({"weights": {"a": 1}}, "one for each of a, b, c"),
        ({"weights": {"a": 1, "b": 1, "c": -1}}, "not all 0"),
        ({"weights": {"a": 0, "b": 0, "c": 0}}, "not all 0"),
        ({"weights": {"a": 1, "b": None, "c": 1}}, "'b': None.*, expected a number for each cohort"),
        ({"weights": {"a": "1", "b": "1", "c": "1"}}, "expected a number for each cohort"),
        ({"weights": [1, 2, 3]}, r"weights=\[1, 2, 3\], expected a number for each cohort"),
        ({"weights": {"a": 10**400, "b": 1, "c": 1}}, "expected a number for each cohort"),
        ({"temperature": None}, "temperature=None, expected a number"),
        ({"temperature": "0.5"}, "temperature='0.5', expected a number"),
        ({"temperature": [0.5, 1]}, "expected a number"),
    ],
)
def test_wrong_shares_are_refused_when_built(index, options, named):
    with pytest.raises(SpecError, match=named):
        InDistributionBatchSampler(index, pairs=8, seed=0, **options)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"patients": ["p", None], "cohorts": ["x", "x"]}, "1 missing values in patients"),
        ({"patients": [1, 2], "cohorts": ["x"]}, "unequal length"),
        ({"patients": [1, 2], "cohorts": ()}, r"no column in cohorts=\(\)"),
        ({"patients": [[1, 2]], "cohorts": ["x"]}, "shape"),
        ({"patients": [], "cohorts": []}, "shape"),
        ({"patients": [1, 1], "cohorts": ["x", "x"], "max_gap_days": 3}, "no dates"),
        ({"patients": np.array([2**63], np.uint64), "cohorts": ["x"]}, "below 2"),
    ],
)
def test_wrong_arrays_are_refused(arrays, named):
    with pytest.raises(SpecError, match=named):
        InDistributionBatchSampler.from_arrays(pairs=1, seed=0, **arrays)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"records": 12, "patients": np.arange(24)}, "records=12 and arrays of 24"),
        ({"records": 12, "cohorts": (["x"] * 24, ["y"] * 24)}, "records=12 and arrays of 24"),
        ({"records": "24"}, "records='24', expected an integer"),
        ({"records": 0}, "records=0, expected an integer of 1 or more"),
        ({"cohorts": ()}, "neither records, patients nor cohorts"),
        ({"records": 24, "cohorts": ()}, "no column in cohorts"),
        ({"patients": 24}, r"shape \(\)"),
    ],
)
def test_numbers_of_records_that_cannot_be_are_refused(arrays, named):
    with pytest.raises(SpecError, match=named):
        RandomBatchSampler.from_arrays(batch_size=4, seed=0, **arrays)
    RandomBatchSampler.from_arrays(batch_size=4, seed=0, records=np.int64(24), patients=np.arange(24))


@pytest.mark.parametrize("sampler_class", BOTH)
def test_steps_outside_raise(index, sampler_class):
    sampler = sampler_class(index, pairs=8, seed=0)
    for epoch, step in ((0, len(sampler)), (0, -1), (-1, 0), (3, 10**6)):
        with pytest.raises(IndexError, match="expected"):
            sampler.plan(epoch, step)


# --- ranks ---


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_global_batches_do_not_depend_on_the_number_of_ranks(index, sampler_class, world_size):
    sampler = sampler_class(index, pairs=16, seed=5, singles="self")
    for step in range(len(sampler)):
        whole = sampler.plan(2, step)
        parts = [sampler.plan(2, step, rank, world_size) for rank in range(world_size)]
        assert {part.cohort for part in parts} == {whole.cohort}
        for name in ("rows", "patients", "is_self", "offsets"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert joined.tobytes() == getattr(whole, name).tobytes()


def test_ranks_must_share_equally(index):
    sampler = PatientPairSampler(index, pairs=16, seed=0)
    with pytest.raises(PlanImpossible, match="pairs=16 for 3 ranks"):
        sampler.plan(0, 0, rank=0, world_size=3)
    with pytest.raises(PlanImpossible, match="for 0 ranks"):
        sampler.on_rank(0, 0)
    with pytest.raises(ValueError, match="rank 2"):
        sampler.plan(0, 0, rank=2, world_size=2)


def test_iteration_on_a_rank(index):
    sampler = InDistributionBatchSampler(index, pairs=16, seed=0, singles="self")
    ranks = [sampler.on_rank(rank, 2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [len(sampler)] * 2
    for whole, *parts in zip(sampler, *ranks, strict=True):
        assert np.array_equal(whole, np.concatenate(parts))


# --- the last patients of a pass ---


def test_wrap_fills_up_from_the_same_pass(index):
    sampler = InDistributionBatchSampler(index, pairs=8, seed=0, last="wrap")
    plans = epoch_of(sampler, 1)
    assert Counter(plan.cohort for plan in plans) == {"a": 10, "b": 4, "c": 3}  # of 80, 30 and 20 patients
    for name, eligible in (("a", 80), ("b", 30), ("c", 20)):
        batches = [plan.patients for plan in plans if plan.cohort == name]
        assert all(len(set(batch.tolist())) == 8 for batch in batches)
        together = np.concatenate(batches)
        assert len(set(together[:eligible].tolist())) == eligible
        assert np.array_equal(together[eligible:], together[: len(together) - eligible])


def test_wrap_with_barely_a_batch(index):
    sampler = PatientPairSampler(index, pairs=129, seed=0, last="wrap")  # of 130
    for plan in epoch_of(sampler, 0):
        assert len(set(plan.patients.tolist())) == 129


@pytest.mark.parametrize("world_size", [1, 4])
def test_pad_marks_empty_places(index, world_size):
    sampler = PatientPairSampler(index, pairs=40, seed=0, last="pad")  # of 130: 4 batches, 30 empty places
    last = [sampler.plan(0, 3, rank, world_size) for rank in range(world_size)]
    patients, rows = (np.concatenate([getattr(plan, name) for plan in last]) for name in ("patients", "rows"))
    assert (patients[:10] >= 0).all()
    assert (patients[10:] == -1).all()
    assert (rows[10:] == -1).all()
    assert len(np.unique(np.concatenate([plan.patients for plan in epoch_of(sampler, 0)]))) == 131
    assert [len(rows) for rows in sampler] == [80, 80, 80, 20]  # never row -1 to a foreign data set


@pytest.mark.parametrize("patients", [33, 34, 37, 63, 64])
@pytest.mark.parametrize("sampler_class", BOTH)
def test_every_rank_gets_a_part_of_a_padded_batch(sampler_class, patients):
    """An empty list ends a DataLoader's epoch on one rank while the others train on."""
    ids = np.repeat(np.arange(patients), 2)
    sampler = sampler_class.from_arrays(patients=ids, cohorts=ids * 0, pairs=32, seed=0, last="pad")
    whole = list(sampler.on_rank(0, 1))
    for world_size in (1, 2, 4, 8, 32):
        parts = [list(sampler.on_rank(rank, world_size)) for rank in range(world_size)]
        for step, rows in enumerate(whole):
            at = [part[step].reshape(-1, 2) for part in parts]
            together = np.concatenate(at)
            sizes = [len(one) for one in at]
            assert min(sizes) >= 1
            assert max(sizes) - min(sizes) <= 1
            assert {tuple(pair) for pair in together.tolist()} == {tuple(pair) for pair in rows.reshape(-1, 2).tolist()}
            assert len(together) == max(len(rows) // 2, world_size)  # nobody twice but where ranks outnumber patients


@pytest.mark.parametrize("whole", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("sampler_class", BOTH)
def test_numpy_integers_are_integers(index, sampler_class, whole):
    plain = sampler_class(index, pairs=8, seed=3, views=2, max_gap_days=900.0)
    sampler = sampler_class(index, pairs=whole(8), seed=whole(3), views=whole(2), max_gap_days=np.float32(900))
    assert same(sampler.plan(whole(1), whole(2), whole(0), whole(2)), plain.plan(1, 2, 0, 2))
    json.dumps(sampler.describe())
    assert json.dumps(sampler.on_rank(whole(0), whole(2)).state_dict()) == json.dumps(plain.state_dict())
    sampler.set_epoch(whole(2))
    assert np.array_equal(next(iter(sampler)), plain.plan(2, 0).rows.ravel())


# --- nothing else decides ---


@pytest.mark.parametrize("sampler_class", BOTH)
def test_plans_do_not_depend_on_what_was_asked_before_or_by_whom(index, sampler_class):
    """In any order, from several threads, on a sampler that is being iterated: as on a fresh one."""
    sampler = sampler_class(index, pairs=8, seed=0)
    places = [(epoch, step) for epoch in range(3) for step in range(len(sampler))]
    fresh = {place: sampler_class(index, pairs=8, seed=0).plan(*place) for place in places}
    shuffled = [places[k] for k in np.random.default_rng(0).permutation(len(places))]
    with ThreadPoolExecutor(4) as pool:
        plans = pool.map(lambda place: sampler.plan(*place), shuffled)
        iterated = list(sampler)
        assert all(same(plan, fresh[place]) for place, plan in zip(shuffled, plans, strict=True))
    assert [rows.tolist() for rows in iterated] == [fresh[0, k].rows.ravel().tolist() for k in range(len(iterated))]


def test_global_random_state_is_neither_read_nor_set(index):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = PatientPairSampler(index, pairs=8, seed=0).plan(0, 0)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    np.random.seed(99)  # noqa: NPY002
    assert same(first, PatientPairSampler(index, pairs=8, seed=0).plan(0, 0))


@pytest.mark.parametrize("sampler_class", BOTH)
def test_a_pickled_sampler_plans_the_same(index, sampler_class):
    sampler = sampler_class(index, pairs=8, seed=0)
    assert same(pickle.loads(pickle.dumps(sampler)).plan(3, 5), sampler.plan(3, 5))


def test_plans_need_neither_torch_nor_zarr():
    code = (
        "import sys; from ecgcohorts.samplers import InDistributionBatchSampler as S; "
        "S.from_arrays(patients=[1, 1], cohorts=[0, 0], pairs=1, seed=0).plan(0, 0); "
        "print([m for m in ('torch', 'zarr', 'pandas', 'scipy') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
