"""How many batches each cohort gets, and where each of its batches begins."""

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.samplers import InDistributionBatchSampler
from ecgcohorts.samplers.roster import Roster
from ecgcohorts.samplers.schedule import Course, Stream, _largest_remainder

BCSV = {"BIDMC": 127_041, "CODE": 424_577, "SHZS": 420_956, "VUMC": 252_306}  # patients, Table 1 of arXiv 2509.10369
TAU = {  # temperature: batches of 512 patients an epoch
    1.0: [248, 829, 822, 492],
    0.75: [315, 777, 773, 526],
    0.5: [395, 722, 718, 556],
    0.25: [489, 661, 660, 581],
    0.0: [598, 598, 598, 597],
}


def roster(patients: dict[str, int]) -> Roster:
    """Two records of each patient; rows stand patient by patient."""
    cohort = np.repeat(np.arange(len(patients)), list(patients.values()))
    ptr = 2 * np.arange(len(cohort) + 1)
    return Roster(np.arange(2 * len(cohort)), ptr, cohort, tuple(patients))


@pytest.fixture(scope="module")
def bcsv() -> Roster:
    return roster(BCSV)


@pytest.mark.parametrize("temperature", TAU)
def test_bcsv_at_512_pairs(bcsv, temperature):
    sampler = InDistributionBatchSampler(bcsv, pairs=512, seed=0, temperature=temperature)
    groups = sampler.describe()["groups"]
    assert [groups[name]["batches_per_epoch"] for name in BCSV] == TAU[temperature]
    assert len(sampler) == 2391
    drawn = Course((), TAU[temperature]).schedule(2, seed=0)[0]
    for step in range(0, 2391, 40):
        assert sampler.plan(2, step).cohort == list(BCSV)[drawn[step]]
    assert np.bincount(drawn).tolist() == TAU[temperature]


def test_passes_per_epoch_of_bcsv(bcsv):
    passes = [
        [group["passes_per_epoch"] for group in sampler.describe()["groups"].values()]
        for sampler in (InDistributionBatchSampler(bcsv, 512, 0, temperature=tau) for tau in TAU)
    ]
    expected = [
        [1, 1, 1, 1],
        [1.27, 0.94, 0.94, 1.07],
        [1.59, 0.87, 0.87, 1.13],
        [1.97, 0.80, 0.80, 1.18],
        [2.41, 0.72, 0.73, 1.21],
    ]
    np.testing.assert_allclose(passes, expected, atol=0.005)


def test_at_temperature_1_whole_passes_win_over_the_largest_remainder():
    """Five cohorts just below two batches: their remainders would take batches from the large one, repeating people."""
    sizes = {f"c{i}": 1023 for i in range(5)} | {"large": 5120}
    sampler = InDistributionBatchSampler(roster(sizes), pairs=512, seed=0)
    assert [group["batches_per_epoch"] for group in sampler.describe()["groups"].values()] == [1, 1, 1, 1, 1, 10]
    assert _largest_remainder(list(sizes.values()), 15) == [2, 2, 1, 1, 1, 8]


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([1, 1, 1], 2, [1, 1, 0]),
        ([0.1, 0.1, 0.1], 2, [1, 1, 0]),
        ([1, 3], 1, [0, 1]),
        ([2, 1, 1], 10, [5, 3, 2]),
        ([0, 1, 0], 7, [0, 7, 0]),
        ([0.1 + 0.2, 0.3], 3, [2, 1]),  # equal but for rounding: the lower place wins
        ([0.3, 0.1 + 0.2], 3, [2, 1]),
    ],
)
def test_largest_remainder(weights, total, expected):
    assert _largest_remainder(weights, total) == expected


def test_weights_share_out_the_same_number_of_steps(bcsv):
    weights = {"BIDMC": 1, "CODE": 1, "SHZS": 2, "VUMC": 0}
    groups = InDistributionBatchSampler(bcsv, 512, 0, weights=weights).describe()["groups"]
    assert [groups[name]["batches_per_epoch"] for name in BCSV] == [598, 598, 1195, 0]


def test_weight_0_for_all_that_can_be_drawn(bcsv):
    sizes = roster({"large": 100, "small": 3})
    with pytest.raises(PlanImpossible, match="weight 0 for every cohort"):
        InDistributionBatchSampler(sizes, 10, 0, small_groups="drop", weights={"large": 0, "small": 1})


@pytest.mark.parametrize("last", ["drop", "pad", "wrap"])
@pytest.mark.parametrize(("patients", "cursor"), [(10, 0), (12, 0), (10, 4), (10, 8), (3, 0)])
def test_a_stream_is_its_passes_written_out(last, patients, cursor):
    stream = Stream(patients, 3, last, pass_=5, cursor=cursor)
    written_out, begin = [], cursor
    for pass_ in range(5, 9):
        while begin + 3 <= patients or (last != "drop" and begin < patients):
            written_out.append((pass_, begin))
            begin += 3
        begin = 0
    assert [stream.locate(number) for number in range(len(written_out))] == written_out
    for consumed in range(1, len(written_out) - 1):
        pass_, begin = stream.after(consumed)
        assert written_out[consumed] == (pass_, begin)


def test_every_epoch_has_exactly_its_counts_in_a_new_order():
    counts = [3, 0, 50, 7]
    orders = [Course((), counts).schedule(epoch, seed=4) for epoch in range(3)]
    for group, turn in orders:
        assert np.bincount(group, minlength=4).tolist() == counts
        for number, count in enumerate(counts):
            assert turn[group == number].tolist() == list(range(count))
    assert not np.array_equal(orders[0][0], orders[1][0])


def test_an_epoch_of_no_steps():
    group, turn = Course((), (0, 0)).schedule(0, seed=0)
    assert len(group) == len(turn) == 0
