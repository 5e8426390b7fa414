"""Batches with fixed shares of sources, and batches of patients who are near each other."""

import json
import multiprocessing
from collections import Counter
from math import gcd

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.samplers import FixedShareSampler, HardNegativeSampler, InDistributionBatchSampler, RampSampler

SUITE, ALL = range(40), range(40, 2_040)


def check_fixed_shares(worlds, number):
    world = worlds.World.of(number)
    names = sorted(set(world.cohorts.tolist()))
    pairs = int(world.rng.choice([8, 16]))
    cuts = np.sort(world.rng.choice(np.arange(1, pairs), len(names) - 1, replace=False))
    counts = dict(zip(names, np.diff([0, *cuts.tolist(), pairs]).tolist(), strict=True))
    if len(names) > 2 and world.rng.integers(2):
        named = names[: world.rng.integers(1, len(names) - 1)]
        counts = {name: counts[name] for name in named} | {"*": pairs - sum(counts[name] for name in named)}
    shares, drawing = {name: count / pairs for name, count in counts.items()}, world.drawing()

    def build():
        return FixedShareSampler.from_arrays(
            patients=world.patients, cohorts=world.cohorts, pairs=pairs, seed=number, shares=shares, **drawing
        )

    if worlds.possible(build) is None:
        return
    planner = worlds.check_planner(build, world)
    cohort_of = dict(zip(world.patients.tolist(), world.cohorts.tolist(), strict=True))

    def sources(plan):
        return Counter(cohort_of[one] if cohort_of[one] in counts else "*" for one in plan.patients.tolist())

    plans = [plan for epoch in range(3) for plan in worlds.epoch_of(planner, epoch)]
    size = max(size for size in (1, 2, 4, 8) if gcd(*counts.values()) % size == 0)
    for plan in plans:
        assert sources(plan) == counts
        for rank in range(size):
            part = planner.plan(plan.epoch, plan.step, rank, size)
            assert sources(part) == {name: count // size for name, count in counts.items()}
    eligible = world.eligible(**drawing)
    for name, count in counts.items():
        members = [
            one
            for cohort, ids in eligible.items()
            if cohort == name or (name == "*" and cohort not in counts)
            for one in ids
        ]
        batches = len(members) // count
        for first in range(0, len(plans) - batches + 1, batches):
            drawn = np.concatenate([plan.patients for plan in plans[first : first + batches]])
            drawn = drawn[np.isin(drawn, members)].tolist()
            assert len(set(drawn)) == len(drawn) == batches * count


def check_hard_negatives(worlds, number):
    world = worlds.World.of(number)
    length = int(world.rng.choice([1, 2, 4, 8]))
    value = world.rng.permutation(world.patients.max() + 1)  # of each patient; no two alike
    drawing = world.drawing()

    def build():
        return HardNegativeSampler.from_arrays(
            patients=world.patients,
            cohorts=world.cohorts,
            pairs=world.pairs,
            seed=number,
            near=value[world.patients],
            neighbourhood=length,
            small_groups="drop",
            **drawing,
        )

    if worlds.possible(build) is None:
        return
    planner = worlds.check_planner(build, world)
    eligible = {name: ids for name, ids in world.eligible(**drawing).items() if len(ids) >= world.pairs}
    for epoch in range(3):
        plans = worlds.epoch_of(planner, epoch)
        patients = np.concatenate([plan.patients for plan in plans])
        assert len(set(patients.tolist())) == len(patients)
        assert Counter(plan.cohort for plan in plans) == {
            name: len(ids) // world.pairs for name, ids in eligible.items()
        }
        for plan in plans:
            ids = eligible[plan.cohort]
            rank = dict(zip(ids[np.argsort(value[ids])].tolist(), range(len(ids)), strict=True))
            for group in plan.patients.reshape(-1, length).tolist():
                places = np.array([rank[one] for one in group])
                # Neighbours in the order of their values, which closes to a ring.
                assert ((places - places[0]) % len(ids) == np.arange(length)).all()


CHECKS = [check_fixed_shares, check_hard_negatives]


@pytest.mark.parametrize("check", CHECKS)
def test_promises_hold_in_random_worlds(worlds, check):
    for number in SUITE:
        check(worlds, number)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_promises_hold_in_thousands_of_random_worlds(worlds, check):
    for number in ALL:
        check(worlds, number)


def shares(index, **options):
    return FixedShareSampler(index, **{"pairs": 8, "seed": 5, "shares": {"a": 0.75, "*": 0.25}} | options)


def neighbours(index, **options):
    near = np.arange(len(index), dtype=float)
    return HardNegativeSampler(index, **{"pairs": 8, "seed": 5, "near": near, "neighbourhood": 4} | options)


@pytest.mark.parametrize("build", [shares, neighbours])
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_they_go_on_in_another_process(index, build, method):
    planner = build(index).on_rank(1, 2)
    for _ in zip(range(3), planner, strict=False):
        pass
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.apply(list, (planner,))
    here = list(planner)
    assert [rows.tobytes() for rows in there] == [rows.tobytes() for rows in here]
    assert here


@pytest.mark.parametrize("build", [shares, neighbours])
@pytest.mark.parametrize("whole", [np.int64, np.uint8])
def test_numpy_integers_are_integers(index, build, whole):
    plain, numpy = build(index), build(index, pairs=whole(8), seed=whole(5), views=whole(2))
    assert plain.plan(1, 2).rows.tobytes() == numpy.plan(whole(1), whole(2)).rows.tobytes()
    assert json.dumps(plain.state_dict()) == json.dumps(numpy.state_dict())


def test_a_state_of_other_settings_is_refused_by_name(index):
    saved = shares(index).state_dict()
    shares(index).load_state_dict(saved)
    with pytest.raises(StateMismatch, match="found a state of shares"):
        shares(index, shares={"a": 0.5, "*": 0.5}).load_state_dict(saved)
    saved = neighbours(index).state_dict()
    neighbours(index).load_state_dict(saved)
    with pytest.raises(StateMismatch, match="neighbourhood 4, expected 2"):
        neighbours(index, neighbourhood=2).load_state_dict(saved)
    with pytest.raises(StateMismatch, match="found a state of near"):
        neighbours(index, near=np.arange(len(index))[::-1]).load_state_dict(saved)
    with pytest.raises(StateMismatch, match="neighbourhood"):
        InDistributionBatchSampler(index, 8, 5).load_state_dict(saved)


def test_neighbourhoods_go_on_with_other_batches(index):
    """`pairs` was doubled in mid-epoch: nobody comes twice, and neighbourhoods stay whole."""
    first, again = neighbours(index), neighbours(index, pairs=16)
    seen = [plan.patients for plan in (first.plan(0, step) for step in range(6))]
    first.mark_consumed(0, 5)
    again.load_state_dict(first.state_dict())
    seen += [again.plan(0, step).patients for step in range(again.steps(0))]
    patients = np.concatenate(seen)
    assert len(seen) > 8
    assert len(set(patients.tolist())) == len(patients)
    assert {len(set(index.patient_cohort[group].tolist())) for group in patients.reshape(-1, 4)} == {1}
    with pytest.raises(StateMismatch, match="pairs=8, expected 16: batches are balanced"):
        shares(index, pairs=16).load_state_dict(shares(index).state_dict())


def test_records_left_out_are_in_no_batch(index):
    out = index["patient"] % 3 == 0
    for planner in (shares(index, exclude=out), neighbours(index, exclude=index["row"][out])):
        rows = np.concatenate([planner.plan(0, step).rows for step in range(planner.steps(0))])
        assert len(rows)
        assert not np.isin(rows, index["row"][out]).any()
    # A row of the file for every record of the index, those left out included.
    near = np.random.default_rng(0).normal(size=len(index))
    moved = near.copy()
    moved[out] = np.nan
    one, other = (neighbours(index, near=values, exclude=out) for values in (near, moved))
    assert one.plan(0, 2).rows.tobytes() == other.plan(0, 2).rows.tobytes()
    other.load_state_dict(one.state_dict())
    with pytest.raises(SpecError, match=r"near: found .* rows with NaN"):
        neighbours(index, near=moved)
    with pytest.raises(SpecError, match="near: found masked values"):
        neighbours(index, near=np.ma.array(near, mask=out))


def test_neighbours_by_device_keep_the_unknown_apart(index):
    device = np.where(index["patient"] % 3 == 0, -1, index["patient"] % 3 - 1)
    index = type(index)(dict(index.columns) | {"device": device}, index.cohorts, (), ("x", "y"))
    planner = neighbours(index, by="device", unknown="group", small_groups="drop")
    for step in range(planner.steps(0)):
        plan = planner.plan(0, step)
        assert len(set((plan.patients % 3).tolist())) == 1


def test_passes_of_each_source_are_said(index):
    """80 eligible patients of `a`, 50 of the others: 16 batches an epoch, of 6 and 2."""
    assert shares(index).describe()["sources"] == {
        "a": {"patients": 80, "in_every_batch": 6, "passes_per_epoch": round(16 / 13, 4)},
        "*": {"patients": 50, "in_every_batch": 2, "passes_per_epoch": 0.64},
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shares": {"a": 0.7, "*": 0.3}}, PlanImpossible, "5.6 of a, 2.4 of [*] in pairs=8.*multiple of 10"),
        ({"shares": {"a": 1 / 3, "*": 0.6666667}}, PlanImpossible, "Set pairs to a multiple of 3"),
        ({"shares": {"a": 0.75, "*": 0.5}}, SpecError, "sum to 1"),
        ({"shares": {"a": 1.5, "*": -0.5}}, SpecError, "above 0"),
        ({"shares": {"a": 0.75, "*": float("nan")}}, SpecError, "above 0"),
        ({"shares": [0.75, 0.25]}, SpecError, "a number for each cohort"),
        ({"shares": {"a": "most", "*": 0.25}}, SpecError, "a number for each cohort"),
        ({"shares": {"a": "0.75", "*": "0.25"}}, SpecError, "a number for each cohort"),
        ({"shares": {"a": None, "*": 0.25}}, SpecError, "a number for each cohort"),
        ({"shares": {"a": 1e-5, "*": 0.99999}}, SpecError, "1/10000 or more"),
        ({"shares": {"a": 0.75, "b": 0.25}}, SpecError, "one for each of a, b, c, or '[*]'"),
        ({"shares": {"a": 0.75, "d": 0.25}}, SpecError, "shares of a, d"),
        ({"shares": {"a": 0.5, "b": 0.25, "c": 0.125, "*": 0.125}}, SpecError, "expected one for each"),
        ({"pairs": 96, "shares": {"a": 0.25, "*": 0.75}}, PlanImpossible, "[*] has 50, its share is 72"),
    ],
)
def test_shares_that_cannot_be_are_refused(index, options, error, message):
    with pytest.raises(error, match=message):
        FixedShareSampler(index, **{"pairs": 8, "seed": 0} | options)


def test_a_person_in_two_cohorts_is_one_in_a_batch(index):
    """The first patients of `a` and `b` are the same people: a batch must never hold one of them twice."""
    person = np.arange(index.n_patients)
    person[np.flatnonzero(index.patient_cohort == 1)] = np.arange(41)
    planner = FixedShareSampler(index, 16, 0, {"a": 0.5, "*": 0.5}, identities=person)
    for step in range(planner.steps(0)):
        rows = planner.plan(0, step).rows
        owner = np.empty(int(index["row"].max()) + 1, int)
        owner[index["row"]] = person[index["patient"]]
        assert len(set(owner[rows[:, 0]].tolist())) == 16


def test_a_person_in_two_cohorts_counts_for_one_source():
    """Half of the people of `b` are people of `a`: only their records in `a`, which are earlier, are drawn."""
    patients = np.repeat(np.arange(300), 2)
    cohorts = np.array(["a", "b", "c"])[patients // 100]
    person = np.where((patients >= 100) & (patients < 150), patients - 100, patients)
    arrays = {"patients": patients, "cohorts": cohorts, "pairs": 16, "seed": 0, "identities": person}
    days = np.arange(600.0)
    for given in ({}, {"days": days}, {"exclude": [598, 599]}):
        planner = FixedShareSampler.from_arrays(shares={"a": 0.5, "b": 0.25, "c": 0.25}, **arrays, **given)
        for plan in (planner.plan(1, step) for step in range(planner.steps(1))):
            for view in plan.rows.T:
                assert [int((cohorts[view] == name).sum()) for name in "abc"] == [8, 4, 4]
            assert len(set(person[plan.rows[:, 0]].tolist())) == 16
    assert planner.describe()["sources"]["a"]["patients"] == 100
    # Both are of all others: such a person is one unit, of all records.
    planner = FixedShareSampler.from_arrays(shares={"c": 0.25, "*": 0.75}, **arrays)
    rows = np.concatenate([planner.plan(epoch, step).rows for epoch in range(3) for step in range(planner.steps(0))])
    assert (cohorts[rows[:, 0]] != cohorts[rows[:, 1]]).any()


def test_a_person_in_two_cohorts_of_an_index_counts_for_one_source(index):
    person = np.arange(index.n_patients)
    person[np.flatnonzero(index.patient_cohort == 1)] = np.arange(41)
    planner = FixedShareSampler(index, 16, 0, {"a": 0.5, "*": 0.5}, identities=person)
    cohort = np.empty(int(index["row"].max()) + 1, int)
    cohort[index["row"]] = index["cohort"]
    for plan in (planner.plan(0, step) for step in range(planner.steps(0))):
        assert ((cohort[plan.rows] == 0).sum(axis=0) == 8).all()
    saved = planner.state_dict()
    assert saved["sources"] == "of one each"
    assert "sources" not in FixedShareSampler(index, 16, 0, {"a": 0.5, "*": 0.5}).state_dict()


# --- near ---


def test_embeddings_from_a_file_or_an_array_give_the_same_plans(index, tmp_path):
    near = np.random.default_rng(0).normal(size=(len(index), 5)).astype(np.float32)
    np.save(tmp_path / "e.npy", near)
    plans = [neighbours(index, near=one).plan(2, 3) for one in (near, tmp_path / "e.npy", str(tmp_path / "e.npy"))]
    assert plans[0].rows.tobytes() == plans[1].rows.tobytes() == plans[2].rows.tobytes()


def test_rows_of_the_file_belong_to_entries_of_the_index(build_index):
    """Rows of the store are shuffled: a file read by row instead of by entry would group others."""
    index = build_index({"a": [2] * 64})
    cluster = np.arange(64) % 8  # of a patient
    near = np.eye(8)[cluster[index["patient"]]]
    planner = HardNegativeSampler(index, 16, 0, near, neighbourhood=2)
    pairs = np.concatenate([cluster[planner.plan(e, s).patients].reshape(-1, 2) for e in range(20) for s in range(4)])
    # Clusters of 8 on a line: a pair lies across two only where a cluster begins at the second, in half of the passes.
    assert np.mean(pairs[:, 0] == pairs[:, 1]) > 0.8


def test_near_embeddings_meet(build_index):
    """16 clouds in 32 dimensions, far apart: chance puts 1 in 16 of another patient's batch into its cloud."""
    index = build_index({"a": [2] * 1024})
    rng = np.random.default_rng(1)
    cloud = rng.integers(16, size=1024)
    near = (rng.normal(size=(16, 32))[cloud] * 3 + rng.normal(size=(1024, 32)))[index["patient"]]
    planner = HardNegativeSampler(index, 64, 0, near, neighbourhood=8)
    blocks = cloud[np.concatenate([planner.plan(0, step).patients for step in range(16)])].reshape(-1, 8)
    same = np.mean([(block == block[:1]).mean() for block in blocks])
    assert same > 0.7
    assert len({tuple(block) for block in blocks}) > 16


def test_ages_and_sexes_meet(build_index):
    index = build_index({"a": [2] * 1024})
    rng = np.random.default_rng(2)
    age, sex = rng.uniform(20, 90, 1024).astype(np.float32), rng.integers(-1, 2, 1024).astype(np.int8)
    age[:64] = np.nan
    columns = dict(index.columns) | {"age": age[index["patient"]], "sex": sex[index["patient"]]}
    index = type(index)(columns, index.cohorts)
    planner = HardNegativeSampler(index, 64, 0, ("age", "sex"), neighbourhood=8)
    blocks = np.concatenate([planner.plan(0, step).patients for step in range(16)]).reshape(-1, 8)
    assert np.mean([len(set(sex[block].tolist())) == 1 for block in blocks]) > 0.9
    assert np.mean([np.isnan(age[block]).all() or not np.isnan(age[block]).any() for block in blocks]) > 0.9
    spread = [np.ptp(age[block]) for block in blocks if not np.isnan(age[block]).any()]
    assert (
        np.median(spread) < 5
    )  # 960 known over 70 years in three sexes: 8 of them in a row span 1.5 years, by chance 54
    one = HardNegativeSampler(index, 64, 0, "age", neighbourhood=8)
    assert one.plan(0, 0).rows.tobytes() != planner.plan(0, 0).rows.tobytes()


def test_neighbourhoods_differ_from_pass_to_pass(index):
    planner = neighbours(index)
    met = [
        {
            frozenset(group)
            for step in range(planner.steps(0))
            for group in planner.plan(e, step).patients.reshape(-1, 4).tolist()
        }
        for e in range(4)
    ]
    assert len(met[0] & met[2]) < len(met[0])
    assert len(set.union(*met)) > 2 * len(met[0])


@pytest.mark.parametrize(
    ("near", "message"),
    [
        ("missing.npy", "missing.npy: found no file"),
        ("text.npy", "text.npy: found no array in it"),
        ("pickled.npy", "pickled.npy: found no array in it"),
        ("many.npy", "many.npy: found no array in it"),
        ("promise.npy", "promise.npy: found no array in it"),
        ("short.npy", "short.npy: found 3 rows, expected one for each of"),
        ("holes.npy", "holes.npy: found 2 rows with NaN or infinity"),
        ("cube.npy", r"cube.npy: found float64 of shape \(2, 2, 2\)"),
        ("empty.npy", "empty.npy: found 0 features"),
        ("weight", "found no column weight, expected one of"),
        ("patient_id", "found patient_id of shape"),
        ("row", "values of row, expected 64 at most"),
    ],
)
def test_what_cannot_be_near_is_refused_where_it_is_read(index, tmp_path, monkeypatch, near, message):
    monkeypatch.chdir(tmp_path)
    holes = np.zeros((len(index), 2))
    holes[3, 1], holes[7, 0] = np.nan, np.inf
    (tmp_path / "text.npy").write_text("0.1 0.2")
    np.save("pickled.npy", np.array([{}], object), allow_pickle=True)
    with (tmp_path / "many.npy").open("wb") as file:
        np.savez(file, np.zeros((len(index), 2)))
    with (tmp_path / "promise.npy").open("wb") as file:  # a terabyte in 128 bytes
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (len(index), 10**9)}
        )
    np.save("short.npy", np.zeros((3, 2)))
    np.save("holes.npy", holes)
    np.save("cube.npy", np.zeros((2, 2, 2)))
    np.save("empty.npy", np.zeros((len(index), 0)))
    with pytest.raises(SpecError, match=message):
        neighbours(index, near=near)


def test_numbers_that_are_too_far_apart_are_refused(index):
    """Their distance would be infinite, and everybody near everybody."""
    near = np.where(np.arange(len(index)) % 2, 1e308, -1e308)
    with pytest.raises(SpecError, match="near: found numbers too far apart"):
        neighbours(index, near=near)
    neighbours(index, near=near / 2.5)


def test_columns_need_an_index(worlds):
    world = worlds.World.of(0)
    with pytest.raises(SpecError, match="columns age, age, age, age, age, age, age, age, and 12 more without an index"):
        HardNegativeSampler.from_arrays(
            patients=world.patients, cohorts=world.cohorts, pairs=8, seed=0, near=["age"] * 20
        )


def test_sizes_of_neighbourhoods_are_checked(index):
    with pytest.raises(PlanImpossible, match="pairs=8 for neighbourhoods of 3"):
        neighbours(index, neighbourhood=3)
    with pytest.raises(SpecError, match="neighbourhood=0"):
        neighbours(index, neighbourhood=0)
    with pytest.raises(SpecError, match="neighbours"):
        RampSampler(neighbours(index), [(0, 1)])
