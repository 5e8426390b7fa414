"""A whole epoch against random sampling: batch means, their order, who meets whom, and the mix of cohorts."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler

PATIENTS, PAIRS, EPOCHS = 60_000, 64, 8


@pytest.fixture(scope="module", params=["mixed", "in-distribution"])
def batches(request: pytest.FixtureRequest) -> np.ndarray:
    """Patients of every batch, [epoch, step, patient]; index order carries a drift, as recording dates would.

    In-distribution: the batches of the first of two cohorts, which has as many patients.
    """
    if request.param == "mixed":
        sampler = PatientPairSampler.from_arrays(patients=np.arange(2 * PATIENTS) // 2, pairs=PAIRS, seed=11)
    else:
        ids = np.arange(2 * PATIENTS + 20 * PAIRS) // 2
        cohorts = (ids >= PATIENTS).astype(int)
        sampler = InDistributionBatchSampler.from_arrays(patients=ids, cohorts=cohorts, pairs=PAIRS, seed=11)
    plans = [[sampler.plan(epoch, step) for step in range(len(sampler))] for epoch in range(EPOCHS)]
    return np.stack([[plan.patients for plan in epoch if plan.cohort in (None, "0")] for epoch in plans])


def test_batch_means_vary_as_those_of_random_samples(batches):
    """Design effect: variance of batch means over that of sampling without replacement; then their lag-1 correlation."""
    drift = np.arange(PATIENTS) / PATIENTS + (np.arange(PATIENTS) // 500 % 7 == 0)  # slow drift and blocks of sites
    means = drift[batches].mean(2) - drift.mean()
    chance = drift.var(ddof=1) / PAIRS * (1 - PAIRS / PATIENTS)
    assert 0.95 < (means**2).mean() / chance < 1.05
    lag_1 = np.mean([np.corrcoef(one[:-1], one[1:])[0, 1] for one in means])
    assert abs(lag_1) < 0.05


def test_patients_who_met_meet_again_by_chance_only(batches):
    ratios = []
    for one, next_one in pairwise(batches):
        batch_of = np.full((2, PATIENTS), -1)
        for row, epoch in zip(batch_of, (one, next_one), strict=True):
            row[epoch.ravel()] = np.repeat(np.arange(len(epoch)), PAIRS)
        both = (batch_of >= 0).all(0)
        cells = np.unique(batch_of[0, both] * len(one) + batch_of[1, both], return_counts=True)[1]
        again = (cells * (cells - 1)).sum() / 2
        met = len(one) * PAIRS * (PAIRS - 1) / 2
        ratios.append(again / (met * (PAIRS - 1) / (PATIENTS - 1)))
    assert 0.95 < np.mean(ratios) < 1.05


def test_order_of_an_epoch_is_unrelated_to_the_index_and_to_other_epochs(batches):
    flat = batches.reshape(EPOCHS, -1)
    limit = 4.5 / np.sqrt(flat.shape[1])
    for number, epoch in enumerate(flat):
        assert abs(stats.spearmanr(epoch, np.arange(len(epoch))).statistic) < limit
        assert abs(np.corrcoef(epoch[:-1], epoch[1:])[0, 1]) < limit
        if number:
            assert abs(np.corrcoef(epoch, flat[number - 1])[0, 1]) < limit


def test_every_batch_is_equally_likely_for_every_patient(batches):
    """Chi-square over batches of the first 1,000 patients in the index, all epochs."""
    steps = batches.shape[1]
    early = (batches < 1000).sum(2).sum(0)
    spread = stats.chisquare(early).statistic / stats.chi2.isf(1e-4, steps - 1)
    assert spread < 1


def test_mixed_batches_hold_cohorts_as_random_samples_do():
    """Counts of the first cohort in a batch follow the hypergeometric distribution."""
    sizes = (3000, 1500, 500)
    cohort = np.repeat(np.arange(3), sizes)
    patients = np.repeat(np.arange(5000), 2)
    sampler = PatientPairSampler.from_arrays(patients=patients, cohorts=np.repeat(cohort, 2), pairs=50, seed=2)
    counts = np.array(
        [
            np.bincount(cohort[sampler.plan(epoch, step).patients], minlength=3)
            for epoch in range(30)
            for step in range(100)
        ]
    )
    for number, size in enumerate(sizes):
        law = stats.hypergeom(5000, size, 50)
        low, high = int(law.ppf(0.02)), int(law.ppf(0.98))
        edges = np.arange(low, high + 1)
        expected = np.array([law.cdf(low), *law.pmf(edges[1:-1]), law.sf(high - 1)]) * len(counts)
        clipped = np.clip(counts[:, number], low, high)
        observed = np.bincount(clipped - low, minlength=len(edges))
        # every epoch uses each patient once, so counts are a little more even than independent draws: one-sided
        assert stats.chisquare(observed, expected * len(counts) / expected.sum()).pvalue > 1e-4


def test_cohorts_follow_each_other_without_pattern():
    """Runs of one cohort are as long as in a shuffled list: the share of equal neighbours is the chance one."""
    cohort = np.repeat([0, 1, 2], [5000, 3000, 2000])
    sampler = InDistributionBatchSampler.from_arrays(
        patients=np.arange(20_000) // 2, cohorts=np.repeat(cohort, 2), pairs=10, seed=4
    )
    names = np.array([[int(sampler.plan(epoch, step).cohort) for step in range(1000)] for epoch in range(4)])
    equal = (names[:, 1:] == names[:, :-1]).mean()
    chance = (500 * 499 + 300 * 299 + 200 * 199) / (1000 * 999)
    assert abs(equal - chance) < 4 * np.sqrt(chance * (1 - chance) / names[:, 1:].size)
