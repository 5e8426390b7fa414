"""Which records of a patient are drawn, and where their windows start: by hand, from arrays, within time bounds."""

import numpy as np
import pytest
from scipy import stats

from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler, window_starts
from ecgcohorts.samplers.pairs import OFFSET_STREAM
from ecgcohorts.samplers.permutation import GOLDEN, key_of

BOTH = [PatientPairSampler, InDistributionBatchSampler]
WORD = 2**64 - 1


def owner(index) -> np.ndarray:
    """Patient of each store row."""
    patients = np.full(int(index["row"].max()) + 1, -1)
    patients[index["row"]] = index["patient"]
    return patients


def by_hand(seed: int, pass_: int, cohort: str, patient: int, records: list[int]) -> tuple[list[int], list[float]]:
    """The pair of one patient in Python integers: depends on no batch."""

    def mix(word: int) -> int:
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & WORD
        return word ^ word >> 31

    key = mix((patient * GOLDEN + key_of(seed, "cohort", cohort)) & WORD)
    key = mix((key + key_of(seed, "pass", pass_)) & WORD)
    words = [mix((key + k * GOLDEN) & WORD) for k in (1, 2, 1 + OFFSET_STREAM, 2 + OFFSET_STREAM)]
    first = (words[0] >> 32) * len(records) >> 32
    second = (words[1] >> 32) * (len(records) - 1) >> 32
    return [records[first], records[second + (second >= first)]], [(word >> 11) / 2**53 for word in words[2:]]


@pytest.mark.parametrize("sampler_class", BOTH)
@pytest.mark.parametrize("pairs", [5, 20])
def test_a_pair_depends_on_seed_cohort_pass_and_patient_only(index, sampler_class, pairs):
    sampler = sampler_class(index, pairs=pairs, seed=9)
    for plan in (sampler.plan(2, step) for step in range(len(sampler))):
        for patient, rows, offsets in zip(plan.patients.tolist(), plan.rows, plan.offsets, strict=True):
            cohort = index.cohorts[index.patient_cohort[patient]]
            expected = by_hand(9, 2, cohort, patient, index.rows_of(patient).tolist())
            assert (rows.tolist(), offsets.tolist()) == expected


def test_pairs_differ_from_pass_to_pass(index):
    sampler = PatientPairSampler(index, pairs=130, seed=0)
    by_patient = [sampler.plan(epoch, 0) for epoch in range(2)]
    rows = [plan.rows[np.argsort(plan.patients)] for plan in by_patient]
    more_than_two = np.diff(index.patient_ptr)[np.sort(by_patient[0].patients)] > 3
    changed = (np.sort(rows[0], 1) != np.sort(rows[1], 1)).any(1)
    assert changed[more_than_two].mean() > 0.7  # a patient with four records keeps its pair in one pass of six


def test_from_arrays_plans_what_an_index_plans(index):
    """Positions in any order of the table; the numbers of patients and names of cohorts are the keys."""
    shuffle = np.random.default_rng(0).permutation(len(index))
    names = np.array(index.cohorts)[index["cohort"]]
    sampler = InDistributionBatchSampler.from_arrays(
        patients=index["patient"][shuffle], cohorts=names[shuffle], days=index["days"][shuffle], pairs=8, seed=0
    )
    reference = InDistributionBatchSampler(index, pairs=8, seed=0)
    for step in range(len(reference)):
        plan, expected = sampler.plan(1, step), reference.plan(1, step)
        assert np.array_equal(plan.patients, expected.patients)
        assert np.array_equal(index["row"][shuffle][plan.rows], expected.rows)


def test_texts_serve_as_ids():
    patients, cohorts = ["ann", "bob", "ann", "bob", "cy", "cy"], ["x", "x", "x", "x", "y", "y"]
    sampler = InDistributionBatchSampler.from_arrays(
        patients=patients, cohorts=cohorts, pairs=2, seed=0, small_groups="drop"
    )
    assert sorted(map(tuple, np.sort(sampler.plan(0, 0).rows, 1).tolist())) == [(0, 2), (1, 3)]
    assert sampler.left_out == ("y",)


def test_integers_far_apart_serve_as_ids():
    patients = [10**15, 3, 10**15, 3, -(10**12), -(10**12)]
    sampler = PatientPairSampler.from_arrays(patients=patients, pairs=3, seed=0)
    assert sorted(sampler.plan(0, 0).patients.tolist()) == [-(10**12), 3, 10**15]


@pytest.mark.parametrize("bounds", [(0, 300), (100, None), (50, 400), (None, 60)])
@pytest.mark.parametrize("singles", ["drop", "self"])
def test_time_gap_bounds_hold(index, bounds, singles):
    low, high = bounds
    days = np.round(index["days"].astype(np.float64), 3)
    days[::7] = np.nan  # unknown dates
    index.columns["days"] = days.astype(np.float32)  # type: ignore[index]
    when = np.full(len(days), np.nan)
    when[index["row"]] = index["days"]
    allowed = set()
    for patient in range(index.n_patients):
        rows = index.rows_of(patient).tolist()
        gaps = [abs(when[a] - when[b]) for a in rows for b in rows if a < b]
        if any((low or 0) <= gap <= (np.inf if high is None else high) for gap in gaps):
            allowed.add(patient)
    pairs = len(allowed) if singles == "drop" else index.n_patients
    sampler = PatientPairSampler(index, pairs, 0, singles=singles, min_gap_days=low, max_gap_days=high)
    assert len(allowed) > 2
    for epoch in range(5):
        plan = sampler.plan(epoch, 0)
        assert set(plan.patients[~plan.is_self].tolist()) == allowed
        gap = np.abs(np.diff(when[plan.rows[~plan.is_self]], axis=1))
        assert (gap >= (low or 0)).all()
        assert (gap <= (np.inf if high is None else high)).all()
        assert (owner(index)[plan.rows] == plan.patients[:, None]).all()


def test_windows_start_anywhere_in_the_valid_range():
    starts = window_starts(np.array([0.0, 0.5, 1 - 2**-53]), np.array([10, 10, 10]), np.array([3000, 3000, 3000]), 2800)
    assert starts.tolist() == [10, 105, 200]
    short = window_starts(np.array([0.99]), np.array([100]), np.array([500]), 2800)
    assert short.tolist() == [100]
    widest = window_starts(np.full(5000, 1 - 2**-53), np.zeros(5000, int), np.arange(2800, 7800), 2800)
    assert np.array_equal(widest, np.arange(5000))


# --- uniformity ---


def test_every_pair_of_records_is_equally_likely_in_either_order(build_index):
    """Chi-square over the ordered pairs of patients with 2, 3, 5 and 8 records, 5 samplers' worth of passes."""
    index = build_index({"a": [2] * 30 + [3] * 30 + [5] * 30 + [8] * 30})
    sampler = PatientPairSampler(index, pairs=120, seed=17)
    plans = [sampler.plan(epoch, 0) for epoch in range(300)]
    patients = np.concatenate([plan.patients for plan in plans])
    place = np.zeros(len(index), int)
    place[index["row"]] = np.arange(len(index)) - index.patient_ptr[index["patient"]]
    places = place[np.concatenate([plan.rows for plan in plans])]
    for records, first in ((2, 0), (3, 30), (5, 60), (8, 90)):
        chosen = places[(patients >= first) & (patients < first + 30)]
        counts = np.bincount(chosen[:, 0] * records + chosen[:, 1], minlength=records**2).reshape(records, records)
        assert np.trace(counts) == 0
        assert stats.chisquare(counts[~np.eye(records, dtype=bool)]).pvalue > 1e-4


def test_every_set_of_three_records_is_equally_likely_in_any_order(build_index):
    index = build_index({"a": [5] * 100})
    sampler = PatientPairSampler(index, pairs=100, seed=3, views=3)
    rows = np.concatenate([sampler.plan(epoch, 0).rows for epoch in range(120)])
    place = np.zeros(len(index), int)
    place[index["row"]] = np.arange(len(index)) % 5
    codes = place[rows] @ [25, 5, 1]
    seen = np.bincount(codes, minlength=125)
    assert np.count_nonzero(seen) == 60
    assert stats.chisquare(seen[seen > 0]).pvalue > 1e-4


def test_every_pair_within_the_time_bounds_is_equally_likely():
    days = [0, 10, 20, 100, 105, float("nan"), 300]
    allowed = {(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (1, 4), (2, 4), (0, 3)}  # 10 to 100 days apart
    sampler = PatientPairSampler.from_arrays(
        patients=np.repeat(np.arange(200), 7), days=days * 200, pairs=200, seed=5, min_gap_days=10, max_gap_days=100
    )
    rows = np.concatenate([sampler.plan(epoch, 0).rows for epoch in range(40)]) % 7
    seen = np.bincount(rows[:, 0] * 7 + rows[:, 1], minlength=49).reshape(7, 7)
    assert {tuple(sorted(pair)) for pair in np.argwhere(seen).tolist()} == allowed
    assert stats.chisquare(seen[seen > 0]).pvalue > 1e-4
    assert np.count_nonzero(seen) == 2 * len(allowed)


def test_window_offsets_are_uniform_and_independent(build_index):
    index = build_index({"a": [2] * 2000})
    sampler = PatientPairSampler(index, pairs=2000, seed=1)
    passes = [sampler.plan(epoch, 0) for epoch in range(3)]
    offsets = np.stack([plan.offsets[np.argsort(plan.patients)] for plan in passes])  # (pass, patient, view)
    assert stats.kstest(offsets.ravel(), "uniform").pvalue > 1e-4
    columns = offsets.transpose(1, 0, 2).reshape(2000, 6)
    correlation = np.corrcoef(columns.T)[~np.eye(6, dtype=bool)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(2000)
    assert np.abs(stats.spearmanr(columns[:, 0], np.arange(2000)).statistic) < 4 / np.sqrt(2000)
