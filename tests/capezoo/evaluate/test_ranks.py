"""Rank tests against recorded runs, enumeration in plain loops, SciPy, and their own promise under the null."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from capezoo.evaluate.measure.ranks import kruskal_wallis, q_values, rank_sum, signed_ranks

# Ten recorded heads of two encoders on the same external records: age error in years (CODE-15, PTB-XL).
X_CODE = [15.6116, 20.1596, 15.8508, 29.3555, 31.6461, 29.1054, 38.4405, 22.5271, 16.9614, 26.5772]
Z_CODE = [8.7611, 8.7193, 8.6132, 8.4714, 8.6664, 8.3510, 8.6678, 8.6210, 8.6745, 8.4715]
X_PTB = [7.5754, 7.5782, 7.5954, 7.6371, 7.6857, 7.5520, 7.6063, 7.6135, 7.6228, 7.6896]
Z_PTB = [7.4875, 7.5217, 7.4908, 7.4910, 7.4951, 7.5587, 7.5438, 7.5005, 7.5671, 7.5481]


def sign_flips(difference):
    """p of every assignment of signs, in plain loops."""
    difference = difference[difference != 0]
    rank = stats.rankdata(abs(difference))
    flips = np.array([np.dot(rank, signs) for signs in product((0, 1), repeat=len(rank))])
    observed = rank[difference > 0].sum()
    return min(1.0, 2 * min((flips >= observed).mean(), (flips <= observed).mean()))


def partitions(first, second):
    """p of every way to deal the values out, in plain loops."""
    rank = stats.rankdata([*first, *second])
    dealt = np.array([rank[list(one)].sum() for one in combinations(range(len(rank)), len(first))])
    observed = rank[: len(first)].sum()
    return min(1.0, 2 * min((dealt >= observed).mean(), (dealt <= observed).mean()))


def test_wilcoxon_of_the_recorded_runs_is_exact():
    code, ptb = signed_ranks(X_CODE, Z_CODE), signed_ranks(X_PTB, Z_PTB)
    assert round(code.p, 6) == 0.001953
    assert round(ptb.p, 6) == 0.003906
    assert code.effect == 1.0
    assert ptb.effect == pytest.approx((55 - 2 * 1) / 55)  # run 6 alone goes the other way, by the least difference
    assert signed_ranks(Z_PTB, X_PTB).effect == -ptb.effect
    assert (signed_ranks(X_PTB, X_PTB).p, signed_ranks(X_PTB, X_PTB).effect) == (1.0, 0.0)


def test_ten_pairs_give_the_published_values_of_p_and_none_below():
    found = []
    for loser in range(4):  # none of the runs goes the other way, or that with the difference of this rank
        difference = np.arange(1.0, 11.0)
        difference[difference == loser] *= -1
        found.append(round(signed_ranks(difference, np.zeros(10)).p, 6))
    assert found == [0.001953, 0.003906, 0.005859, 0.009766]


@pytest.mark.parametrize("values", [[0.5, 0.5, -1, 2, 3], [1, 1, 1, -1, 0, 0, 2], [-3, -3, -3, -3], [1, -1]])
def test_wilcoxon_with_ties_and_zeros_equals_all_sign_flips(values):
    difference = np.array(values, float)
    assert signed_ranks(difference, np.zeros(len(values))).p == pytest.approx(sign_flips(difference), rel=1e-12)


@pytest.mark.parametrize("pairs", [14, 16])
def test_wilcoxon_stays_exact_where_ties_defeat_scipy(pairs):
    """From 14 pairs on SciPy approximates when ranks are tied."""
    difference = np.round(np.random.default_rng(pairs).normal(0.4, 1, pairs), 0) + 0.5
    exact = signed_ranks(difference, np.zeros(pairs)).p
    assert exact == pytest.approx(sign_flips(difference), rel=1e-12)
    assert exact != pytest.approx(stats.wilcoxon(difference).pvalue, rel=1e-3)


@pytest.mark.parametrize("pairs", [3, 10, 25, 50])
def test_wilcoxon_without_ties_equals_scipy(pairs):
    a, b = np.random.default_rng(pairs).normal(size=(2, pairs))
    assert signed_ranks(a, b).p == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue, rel=1e-9)


def test_many_pairs_are_approximated():
    a, b = np.random.default_rng(1).normal(size=(2, 400))
    assert signed_ranks(a, b).p == pytest.approx(stats.wilcoxon(a, b, method="asymptotic").pvalue)
    assert rank_sum(a, b).p == pytest.approx(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)


def test_equal_differences_of_printed_numbers_are_ties():
    """0.3 - 0.2 and 0.2 - 0.1 differ in the last bit."""
    first, second = [0.3, 0.2, 0.7, 0.9], [0.2, 0.1, 0.9, 0.6]
    assert signed_ranks(first, second).p == sign_flips(np.array([1.0, 1.0, -2.0, 3.0]))


@pytest.mark.parametrize("seed", range(3))
def test_rank_sum_equals_every_partition_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 5, 5).astype(float), rng.integers(1, 7, 6).astype(float)
    found = rank_sum(first, second)
    assert found.p == pytest.approx(partitions(first, second), rel=1e-12)
    assert found.effect == pytest.approx(np.mean([np.sign(a - b) for a in first for b in second]))
    distinct = rng.normal(size=(2, 6))
    assert rank_sum(*distinct).p == pytest.approx(stats.mannwhitneyu(*distinct, method="exact").pvalue, rel=1e-9)
    assert rank_sum(first, first).p == 1.0
    assert rank_sum([2.0, 2.0], [2.0, 2.0, 2.0]).p == 1.0


def test_six_runs_against_six_never_fall_below_two_of_924():
    found = rank_sum(np.arange(6.0), np.arange(6.0) + 10)
    assert (found.p, found.effect) == (pytest.approx(2 / 924), -1.0)


def test_kruskal_wallis_equals_the_formula_written_out():
    rng = np.random.default_rng(4)
    samples = [rng.integers(0, 9, 6) + shift for shift in (0, 2, 5)]
    rank, n = stats.rankdata(np.concatenate(samples)), 18
    between = sum(6 * (part.mean() - (n + 1) / 2) ** 2 for part in np.split(rank, 3))
    h = between / (rank.var(ddof=1) * (n - 1) / n) * (n - 1) / n  # ties lower the variance of the ranks
    found = kruskal_wallis(samples)
    assert found.p == pytest.approx(stats.chi2.sf(h, 2))
    assert found.effect == pytest.approx(h / (n - 1))
    assert (kruskal_wallis([[1.0, 1.0], [1.0, 1.0]]).p, kruskal_wallis([[1.0], [1.0]]).effect) == (1.0, 0.0)


def test_false_discovery_control_by_hand():
    """Benjamini and Hochberg: p times tests over rank, and never more than the next larger one's."""
    assert q_values([0.01, None, 0.04, 0.03, 0.5]) == [pytest.approx(0.04), None, *([pytest.approx(0.16 / 3)] * 2), 0.5]
    assert q_values([None]) == [None]
    assert q_values([]) == []


@pytest.mark.parametrize("test", ["signed ranks", "rank sum", "Kruskal-Wallis"])
def test_no_more_than_a_twentieth_is_called_different_where_nothing_is(test):
    """Six runs an encoder, all alike: the share of p below .05, over 1,000 studies."""
    rng = np.random.default_rng(7)
    draw = {
        "signed ranks": lambda: signed_ranks(*rng.normal(size=(2, 6))).p,
        "rank sum": lambda: rank_sum(*rng.normal(size=(2, 6))).p,
        "Kruskal-Wallis": lambda: kruskal_wallis(rng.normal(size=(5, 6))).p,
    }[test]
    share = np.mean([draw() < 0.05 for _ in range(1000)])
    assert share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
    # A test that never speaks would pass as well.
    assert share > 0.01


def test_false_discovery_control_keeps_its_promise():
    """80 tests of nothing and 20 of a shift by four: of what is called different, 5 % are false at most, on average."""
    rng = np.random.default_rng(8)
    false, found = [], []
    for _ in range(200):
        z = rng.normal(size=100) + np.r_[np.zeros(80), np.full(20, 4.0)]
        called = np.array(q_values((2 * stats.norm.sf(abs(z))).tolist())) < 0.05
        false.append(called[:80].sum() / max(1, called.sum()))
        found.append(called[80:].mean())
    assert np.mean(false) < 0.05
    assert np.mean(found) > 0.8
