"""Planners that hand out the batches of another sampler: micro-batches, a cohort for each rank, a ramp to one cohort a batch."""

import json
import multiprocessing
import pickle
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible, SpecError, StateMismatch
from ecgcohorts.samplers import (
    CohortPerRankSampler,
    InDistributionBatchSampler,
    MicroBatchSampler,
    PatientPairSampler,
    RampSampler,
    RandomBatchSampler,
)

SUITE, ALL = range(40), range(40, 2_040)
SHARES = [
    [(0, 0), (4, 1)],
    [(0, 0), (2, 0), (2, 1)],
    [(0, 1)],
    [(0, 0.0)],
    [(1, 0.25), (2.5, 0.7), (3, 0.1)],
]


def in_distribution(world, pairs, **options):
    given = {"patients": world.patients, "cohorts": world.cohorts, "seed": world.seed, "small_groups": "drop"}
    return InDistributionBatchSampler.from_arrays(pairs=pairs, **given | options)


def check_micro_batches(worlds, number):
    world = worlds.World.of(number)
    repeat = int(world.rng.choice([1, 2, 3]))
    last, drawing = str(world.rng.choice(["drop", "wrap"])), world.drawing()
    temperature = float(world.rng.choice([1, 1, 0.5]))

    def build():
        sampler = in_distribution(world, world.pairs * repeat, last=last, temperature=temperature, **drawing)
        return MicroBatchSampler(sampler, repeat)

    if worlds.possible(build) is None:
        return
    planner = worlds.check_planner(build, world)
    plans = worlds.epoch_of(planner, 1)
    seen = []
    for first in range(0, len(plans), repeat):
        together = plans[first : first + repeat]
        patients = np.concatenate([plan.patients for plan in together])
        assert len({plan.cohort for plan in together}) == 1
        assert len(set(patients.tolist())) == repeat * world.pairs
        seen += patients.tolist()
    if last == "drop" and temperature == 1:
        assert max(Counter(seen).values()) == 1
        sizes = {name: len(ids) // (world.pairs * repeat) for name, ids in world.eligible(**drawing).items()}
        assert Counter(plan.cohort for plan in plans) == {name: n * repeat for name, n in sizes.items() if n}


def check_cohort_per_rank(worlds, number):
    world = worlds.World.of(number)
    ranks, sizes = [(2, (1, 2)), (3, (1, 3)), (4, (1, 2, 4)), (8, (1, 2, 4, 8))][world.rng.integers(4)]

    drawing = world.drawing()
    weights = {name: float(world.rng.integers(1, 5)) for name in set(world.cohorts.tolist())}
    weights = weights if world.rng.integers(3) == 0 else None

    def build():
        return CohortPerRankSampler(in_distribution(world, 4, weights=weights, **drawing), ranks)

    if worlds.possible(build) is None:
        return
    planner = worlds.check_planner(build, world, sizes)
    batches = {name: len(ids) // 4 for name, ids in world.eligible(**drawing).items() if len(ids) >= 4}
    steps = sum(batches.values()) // ranks
    for epoch in (0, 3):
        assert planner.steps(epoch) == steps
        dealt = [[planner.plan(epoch, step, rank, ranks) for rank in range(ranks)] for step in range(steps)]
        seen = Counter(np.concatenate([plan.patients for plans in dealt for plan in plans]).tolist())
        assert max(seen.values()) == 1 or weights
        total = Counter(plan.cohort for plans in dealt for plan in plans)
        assert sum(batches.values()) - sum(total.values()) < ranks
        for name in total:
            # By the pigeonhole principle no dealing does better.
            most = max(sum(plan.cohort == name for plan in plans) for plans in dealt)
            assert most == -(-total[name] // steps)
            by_rank = [sum(plans[rank].cohort == name for plans in dealt) for rank in range(ranks)]
            assert max(by_rank) - min(by_rank) <= most + 1


def due(share, epoch):
    """Area under the share from epoch 0, by exact fractions."""
    knots = [(Fraction(0), Fraction(share[0][1])), *((Fraction(at), Fraction(value)) for at, value in share)]
    area, epoch = Fraction(0), Fraction(epoch)
    for (start, low), (stop, high) in zip(
        knots, [*knots[1:], (max(epoch, knots[-1][0]) + 1, knots[-1][1])], strict=True
    ):
        until = min(stop, epoch)
        if until > start:
            area += (until - start) * (low + (low + (high - low) * (until - start) / (stop - start))) / 2
    return area


def check_ramp(worlds, number):
    world = worlds.World.of(number)
    share, drawing = SHARES[world.rng.integers(len(SHARES))], world.drawing()

    def build():
        return RampSampler(in_distribution(world, world.pairs, **drawing), share)

    if worlds.possible(build) is None:
        return
    planner = worlds.check_planner(build, world)
    plain = in_distribution(world, world.pairs, **drawing)
    own, per_epoch = 0, plain.steps(0)
    for epoch in range(4):
        plans = worlds.epoch_of(planner, epoch)
        assert len(plans) == per_epoch
        patients = np.concatenate([plan.patients for plan in plans])
        assert len(set(patients.tolist())) == len(patients)
        for plan in plans:
            own += plan.cohort is not None
            assert abs(own - per_epoch * due(share, epoch + Fraction(plan.step + 1, per_epoch))) < 1 + 1e-6
        if share == [(0, 1)]:
            assert all(worlds.same(a, b) for a, b in zip(plans, worlds.epoch_of(plain, epoch), strict=True))
        if share == [(0, 0.0)]:
            assert not any(plan.cohort for plan in plans)


CHECKS = [check_micro_batches, check_cohort_per_rank, check_ramp]


@pytest.mark.parametrize("check", CHECKS)
def test_promises_hold_in_random_worlds(worlds, check):
    for number in SUITE:
        check(worlds, number)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_promises_hold_in_thousands_of_random_worlds(worlds, check):
    for number in ALL:
        check(worlds, number)


def test_mixed_batches_of_a_ramp_hold_cohorts_as_they_come(build_index):
    """Half of the patients that no batch of their own cohort has are of `a`, where half of all are."""
    index = build_index({"a": [2] * 2000, "b": [2] * 1000, "c": [2] * 1000})
    planner = RampSampler(InDistributionBatchSampler(index, pairs=100, seed=0), [(0, 0.5)])
    mixed = [
        plan for epoch in range(4) for plan in (planner.plan(epoch, step) for step in range(40)) if not plan.cohort
    ]
    assert len(mixed) == 80
    of_a = np.concatenate([index.patient_cohort[plan.patients] == 0 for plan in mixed])
    # Drawn without replacement from 4 x 4,000 patients, of which the epoch's own batches take half: +-4 sigma of binomial.
    assert abs(of_a.mean() - 0.5) < 4 * np.sqrt(0.25 / len(of_a))
    # And not stratified: as many of `a` in each batch as chance gives.
    counts = [np.sum(index.patient_cohort[plan.patients] == 0) for plan in mixed]
    assert 0.5 < np.var(counts) / 25 < 1.6


def test_a_ramp_gives_the_smallest_cohort_its_turn(build_index):
    """Half a batch an epoch is due to `b`: a fixed rounding would give it none, or one, in every epoch."""
    index = build_index({"a": [2] * 150, "b": [2] * 10})
    planner = RampSampler(InDistributionBatchSampler(index, pairs=10, seed=0), [(0, 0.5)])
    own = [sum(planner.plan(epoch, step).cohort == "b" for step in range(16)) for epoch in range(50)]
    assert set(own) == {0, 1}
    assert abs(sum(own) - 25) < 4 * 3.6  # four standard deviations of 50 throws of a coin


def planners(index):
    sampler = InDistributionBatchSampler(index, pairs=8, seed=5)
    return [MicroBatchSampler(sampler, 2), CohortPerRankSampler(sampler, 2), RampSampler(sampler, [(0, 0), (3, 1)])]


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_they_go_on_in_another_process(index, kind, method):
    planner = planners(index)[kind].on_rank(1, 2)
    for _ in zip(range(3), planner, strict=False):
        pass
    assert list(map(bytes, pickle.loads(pickle.dumps(planner)))) == list(
        map(bytes, pickle.loads(pickle.dumps(planner)))
    )
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.apply(list, (planner,))
    here = list(planner)
    assert [rows.tobytes() for rows in there] == [rows.tobytes() for rows in here]
    assert here


@pytest.mark.parametrize("kind", range(3))
def test_a_state_of_another_planner_is_refused_by_name(index, kind):
    saved = planners(index)[kind].state_dict()
    sampler = InDistributionBatchSampler(index, pairs=8, seed=5)
    others = [
        sampler,
        MicroBatchSampler(sampler, 4),
        CohortPerRankSampler(sampler, 3),
        RampSampler(sampler, [(0, 0), (4, 1)]),
        planners(index)[(kind + 1) % 3],
    ]
    for other in others:
        with pytest.raises(StateMismatch, match=r"found a state of sampler '(MicroBatch|CohortPerRank|Ramp)Sampler\("):
            other.load_state_dict(saved)
    planners(index)[kind].load_state_dict(saved)


def test_states_that_cannot_be_carried_over_are_refused(index):
    planner = MicroBatchSampler(InDistributionBatchSampler(index, pairs=8, seed=5), 2)
    with pytest.raises(StateMismatch, match="pairs=8, expected one of 4 that never changed"):
        planner.load_state_dict(planner.state_dict() | {"pairs": 8})
    with pytest.raises(StateMismatch, match="step 30 of epoch 0, expected one in range"):
        planner.load_state_dict(planner.state_dict() | {"step": 30})
    long = [(n / 100, 0.5) for n in range(400)]
    ramp = RampSampler(InDistributionBatchSampler(index, pairs=8, seed=5), long)
    assert len(json.dumps(ramp.state_dict())) < 1024


def test_a_sampler_under_way_is_not_wrapped(index):
    sampler = InDistributionBatchSampler(index, pairs=8, seed=5)
    next(iter(sampler))
    with pytest.raises(SpecError, match="step 1 of epoch 0, expected one that has not begun"):
        MicroBatchSampler(sampler, 2)


def test_the_wrapped_sampler_is_the_callers_own(index, worlds):
    sampler = InDistributionBatchSampler(index, pairs=8, seed=5)
    planner = MicroBatchSampler(sampler, 2)
    plan = planner.plan(0, 3)
    other = InDistributionBatchSampler(index, pairs=10, seed=5)
    other.mark_consumed(0, 2)
    sampler.load_state_dict(other.state_dict())  # its batches are others from here on
    assert worlds.same(planner.plan(0, 3), plan)
    sampler = InDistributionBatchSampler(index, pairs=8, seed=5)
    planner = MicroBatchSampler(sampler, 2)
    list(planner)
    assert planner.position == (1, 0)
    assert sampler.position == (0, 0)
    assert planner.describe()["wraps"] == "InDistributionBatchSampler"
    assert planner.describe()["steps_per_epoch"] == len(planner) == 2 * len(sampler)


@pytest.mark.parametrize("views", [1, 3])
def test_batches_of_single_records_are_wrapped_too(index, views):
    sampler = RandomBatchSampler(index, 8, 0, by="cohort", views=views, adjacent=views > 1)
    plans = [MicroBatchSampler(sampler, 2).plan(0, 3), RampSampler(sampler, [(0, 0)]).plan(0, 3)]
    assert [plan.rows.shape for plan in plans] == [(4, views), (8, views)]
    assert all(plan.adjacent == (views > 1) for plan in plans)
    if views > 1:
        assert all((plan.offsets == plan.offsets[:, :1]).all() for plan in plans)


def test_micro_batches_of_a_ramp(index):
    ramp = RampSampler(InDistributionBatchSampler(index, pairs=8, seed=5), [(0, 0.5)])
    planner = MicroBatchSampler(ramp, 4)
    for step in range(planner.steps(0)):
        whole, part = ramp.plan(0, step // 4), planner.plan(0, step)
        np.testing.assert_array_equal(part.patients, whole.patients[step % 4 * 2 :][:2])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda s, m: MicroBatchSampler(s, 0), SpecError, "repeat=0, expected an integer of 1"),
        (lambda s, m: MicroBatchSampler(s, True), SpecError, "repeat=True"),
        (lambda s, m: MicroBatchSampler(InDistributionBatchSampler, 2), SpecError, "found ABCMeta to cut"),
        (lambda s, m: MicroBatchSampler(s, 3), PlanImpossible, "expected a multiple. Set pairs to 6"),
        (lambda s, m: MicroBatchSampler(CohortPerRankSampler(s, 2), 2), SpecError, "CohortPerRankSampler to cut"),
        (lambda s, m: CohortPerRankSampler(s, 1), SpecError, "ranks=1, expected an integer of 2"),
        (lambda s, m: CohortPerRankSampler(s, 40), PlanImpossible, "for 40 ranks"),
        (lambda s, m: CohortPerRankSampler(m, 2), SpecError, "found PatientPairSampler for CohortPerRankSampler"),
        (lambda s, m: RampSampler(m, [(0, 1)]), SpecError, "one cohort each"),
        (lambda s, m: RampSampler(s, []), SpecError, "expected pairs"),
        (lambda s, m: RampSampler(s, [(0, 2)]), SpecError, "share from 0 to 1"),
        (lambda s, m: RampSampler(s, [(2, 0), (1, 1)]), SpecError, "in the order of epochs"),
        (lambda s, m: RampSampler(s, 0.5), SpecError, "found share=0.5"),
        (lambda s, m: RampSampler(s, [("0", "0.5")]), SpecError, "expected pairs .epoch, share from 0 to 1"),
    ],
)
def test_what_cannot_be_is_said(index, build, error, message):
    samplers = InDistributionBatchSampler(index, pairs=8, seed=5), PatientPairSampler(index, pairs=8, seed=5)
    with pytest.raises(error, match=message):
        build(*samplers)


def test_only_whole_cohorts_go_to_a_rank(index):
    planner = CohortPerRankSampler(InDistributionBatchSampler(index, pairs=8, seed=5), 2)
    with pytest.raises(PlanImpossible, match="ranks=2 for 4 processes"):
        planner.on_rank(0, 4)


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"last": "wrap"}])
def test_a_ramp_needs_epochs_that_are_passes(index, options):
    with pytest.raises(SpecError, match="one pass of every cohort"):
        RampSampler(InDistributionBatchSampler(index, pairs=8, seed=5, **options), [(0, 1)])


def test_a_ramp_never_shows_a_person_twice_in_a_batch(index):
    """Where identities say that a patient of `a` is one of `b`, or where patients have records of several devices."""
    person = np.arange(index.n_patients)
    # Counts of records repeat 2, 3, 4, 6 in `a` from patient 20 on, and 2, 5, 3 in `b` from its 11th on: both can be drawn.
    person[100 + 11 + 5] = 20 + 2
    with pytest.raises(PlanImpossible, match="found 1 people in several groups"):
        RampSampler(InDistributionBatchSampler(index, 8, 5, identities=person), [(0, 0.5)])
    devices = type(index)(dict(index.columns) | {"device": np.arange(len(index)) % 2}, index.cohorts, (), ("x", "y"))
    with pytest.raises(PlanImpossible, match="group by cohort"):
        RampSampler(InDistributionBatchSampler(devices, 8, 5, by="device"), [(0, 0.5)])
    seen_twice = np.flatnonzero(index["patient"] == 22)
    sampler = InDistributionBatchSampler(index, 8, 5, identities=person, exclude=index["row"][seen_twice])
    assert RampSampler(sampler, [(0, 0.5)]).steps(0) == 9 + 3 + 2  # 79, 30 and 20 patients in eights


def test_a_ramp_takes_one_id_in_two_cohorts_for_two_people():
    """Hospitals number their patients from 0: only `identities` says that an id is one person."""
    patients, cohorts = np.tile(np.repeat(np.arange(40), 2), 2), np.repeat(["a", "b"], 80)
    given = {"patients": patients, "cohorts": cohorts, "pairs": 8, "seed": 0}
    assert RampSampler(InDistributionBatchSampler.from_arrays(**given), [(0, 0)]).steps(0) == 10
    with pytest.raises(PlanImpossible, match="found 40 people"):
        RampSampler(InDistributionBatchSampler.from_arrays(**given, identities=patients), [(0, 0)])


@pytest.mark.parametrize("wrapper", [MicroBatchSampler, CohortPerRankSampler])
def test_parts_are_never_empty(index, wrapper):
    with pytest.raises(SpecError, match="last='pad'"):
        wrapper(InDistributionBatchSampler(index, pairs=8, seed=5, last="pad"), 2)


@pytest.mark.parametrize("options", [{"weights": {"a": 8, "b": 1, "c": 1}}, {"last": "wrap"}, {"balance": "sex"}])
def test_no_patient_is_on_two_ranks_at_once(index, options):
    """Two batches of `a` in a step may be of two passes, or one may be filled up with patients of the other."""
    with pytest.raises(PlanImpossible, match=r"a: found .* two of them may share patients"):
        CohortPerRankSampler(InDistributionBatchSampler(index, pairs=4, seed=0, **options), 4)
    person = np.arange(index.n_patients)
    person[100 + 11 + 5] = 20 + 2  # see the ramp above
    with pytest.raises(PlanImpossible, match="found 1 people in several groups"):
        CohortPerRankSampler(InDistributionBatchSampler(index, 4, 0, identities=person), 2)
    even = InDistributionBatchSampler(index, pairs=4, seed=0, temperature=0)
    planner = CohortPerRankSampler(even, 2)
    for step in range(planner.steps(0)):
        plan = planner.plan(0, step)
        assert len(set(plan.patients.tolist())) == 8


@pytest.mark.parametrize("kind", range(3))
def test_runs_without_end_and_counts_of_batches_used(index, kind):
    """What iteration offers for other people's loops holds here, too."""
    planner, again = planners(index)[kind], planners(index)[kind]
    batches = planner.endless()
    steps = planner.steps(0)
    handed_out = [next(batches) for _ in range(steps + 5)]  # five of them read ahead by workers
    assert planner.position == (1, 5)
    again.load_state_dict(planner.state_dict(consumed=steps))
    assert again.position == (1, 0)
    assert next(iter(again)).tobytes() == handed_out[steps].tobytes()
    planner.restart()
    assert next(iter(planner)).tobytes() == handed_out[steps].tobytes()


@pytest.mark.parametrize("whole", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: MicroBatchSampler(s, 2),
        lambda s: CohortPerRankSampler(s, 2),
        lambda s: RampSampler(s, [(0, 0), (3, 1)]),
    ],
)
def test_numpy_integers_are_integers_and_floats_are_none(index, wrap, whole):
    planner = wrap(InDistributionBatchSampler(index, 8, 5))
    plan, numpy = planner.plan(2, 3, 1, 2), planner.plan(whole(2), whole(3), whole(1), whole(2))
    assert plan.rows.tobytes() == numpy.rows.tobytes()
    assert {type(number) for number in (numpy.epoch, numpy.step)} == {int}
    json.dumps(planner.on_rank(whole(0), whole(2)).state_dict())
    for place in ((0.5, 0), (0, 1.0), (0, 0, 0.0, 1), ("0", 0)):
        with pytest.raises(TypeError, match="as an integer"):
            planner.plan(*place)
