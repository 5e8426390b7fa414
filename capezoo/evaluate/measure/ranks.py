"""Rank tests for a handful of runs, exact with ties, their effect sizes, and the false-discovery rate over many tests.

They treat runs as the cases. Runs that share their test records differ in initial weights and batch order only: a small
p then says that two encoders differ beyond the luck of training a head, and nothing about other patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

# Cases up to which every arrangement is counted; beyond, the normal approximation is good. SciPy's limit without ties.
_MOST_EXACT = 50
# Share of the largest value: two differences of printed decimals that are equal differ by rounding after the subtraction.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class _Test:
    """Two-sided p, and an effect size: -1 to 1 for two samples, above 0 where `first` is larger; 0 to 1 for several."""

    p: float
    effect: float


def signed_ranks(first: ArrayLike, second: ArrayLike) -> _Test:
    """Wilcoxon's test of paired runs, exact to 50 pairs, also with ties; equal pairs are left out, and p is 1 if all are.

    n pairs never give a p below 2 / 2**n: ten runs no less than 0.00195. Effect: rank-biserial correlation, the signed
    ranks' sum over the sum of all ranks.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    difference = _without_rounding(a - b, max(np.abs(a).max(), np.abs(b).max()))
    difference = difference[difference != 0]
    if not len(difference):
        return _Test(1.0, 0.0)
    rank = stats.rankdata(np.abs(difference))
    effect = float((rank * np.sign(difference)).sum() / rank.sum())
    if len(difference) > _MOST_EXACT:
        return _Test(float(stats.wilcoxon(difference, method="approx").pvalue), effect)
    # SciPy counts sign flips up to 13 pairs with ties, and approximates from 14 on; a count by sums has no such limit.
    return _Test(_two_sided(_sums(_doubled(rank)).sum(axis=0), _doubled(rank[difference > 0])), effect)


def rank_sum(first: ArrayLike, second: ArrayLike) -> _Test:
    """Mann and Whitney's test of unpaired runs, exact to 50 in all, also with ties.

    Effect: Cliff's delta, the share of pairs in which `first` is larger minus the share in which it is smaller.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    pooled = _without_rounding(np.concatenate([a, b]), max(np.abs(a).max(), np.abs(b).max()))
    rank = stats.rankdata(pooled)
    beaten = rank[: len(a)].sum() - len(a) * (len(a) + 1) / 2
    effect = float(2 * beaten / (len(a) * len(b)) - 1)
    if len(pooled) > _MOST_EXACT:
        p = stats.mannwhitneyu(pooled[: len(a)], pooled[len(a) :], method="asymptotic").pvalue
        return _Test(float(p), effect)
    return _Test(_two_sided(_sums(_doubled(rank))[len(a)], _doubled(rank[: len(a)])), effect)


def kruskal_wallis(samples: Sequence[ArrayLike]) -> _Test:
    """Kruskal and Wallis's test of several unpaired samples by the chi-square approximation; p is 1 if all values are equal.

    Effect: epsilon squared, H / (n - 1) of n values in all.
    """
    arrays = [np.asarray(sample, float) for sample in samples]
    pooled = np.concatenate(arrays)
    pooled = _without_rounding(pooled, np.abs(pooled).max())
    if not np.ptp(pooled):
        return _Test(1.0, 0.0)
    found = stats.kruskal(*np.split(pooled, np.cumsum([len(array) for array in arrays])[:-1]))
    return _Test(float(found.pvalue), float(found.statistic / (len(pooled) - 1)))


def q_values(p: Sequence[float | None]) -> list[float | None]:
    """Adjust the p of one family of tests by Benjamini and Hochberg: calling all with q < 0.05 true, 5 % are false on average.

    A test without p stays without q and does not count.
    """
    known = [value for value in p if value is not None]
    adjusted = iter(stats.false_discovery_control(known).tolist() if known else ())
    return [None if value is None else next(adjusted) for value in p]


def _without_rounding(values: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """Make values equal that differ by the rounding of numbers as large as `largest` only."""
    return np.round(values / (largest * _ROUNDING)) if largest > 0 else values


def _doubled(rank: NDArray[np.float64]) -> NDArray[np.int64]:
    # Ties share a mean rank, which is a whole or a half number.
    return np.rint(2 * rank).astype(np.int64)


def _sums(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Count the subsets of all ranks by size and sum: (size, sum), 0 to everything on both axes."""
    counts = np.zeros((len(ranks) + 1, int(ranks.sum()) + 1))
    counts[0, 0] = 1
    for rank in ranks:
        # With or without this one; numpy reads the right side before it writes.
        counts[1:, rank:] += counts[:-1, :-rank]
    return counts


def _two_sided(counts: NDArray[np.float64], observed: NDArray[np.int64]) -> float:
    """Return twice the smaller tail, at most 1. counts: of each sum; observed: the ranks that were drawn."""
    at = int(observed.sum())
    tail = min(counts[: at + 1].sum(), counts[at:].sum())
    return min(1.0, 2 * float(tail / counts.sum()))
