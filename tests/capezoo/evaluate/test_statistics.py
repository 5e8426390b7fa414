"""Intervals and tests against published numbers, sums written out, and scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from capezoo.evaluate.measure import statistics as st

# Ten recorded heads on the same external records: age error in years, X on CODE-15 and Z on PTB-XL.
X_CODE = [15.6116, 20.1596, 15.8508, 29.3555, 31.6461, 29.1054, 38.4405, 22.5271, 16.9614, 26.5772]
Z_PTB = [7.4875, 7.5217, 7.4908, 7.4910, 7.4951, 7.5587, 7.5438, 7.5005, 7.5671, 7.5481]

# The worked example of the pauc package: AUC 0.708, interval 0.378 to 1.
PAUC_LABEL = [0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1]
PAUC_SCORE = [0.1, 0.35, 0.24, 0.8, 0.2, 0.85, 0.13, 0.85, 0.74, 0.58, 0.71, 0.25]


def delong_by_hand(label, a, b):
    """z and p from every pair of a positive and a negative, in plain loops."""
    up, down = [i for i, y in enumerate(label) if y], [i for i, y in enumerate(label) if not y]

    def psi(s, i, j):
        return 1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0

    v10 = [[np.mean([psi(s, i, j) for j in down]) for i in up] for s in (a, b)]
    v01 = [[np.mean([psi(s, i, j) for i in up]) for j in down] for s in (a, b)]
    cov = np.cov(v10) / len(up) + np.cov(v01) / len(down)
    z = (np.mean(v10[0]) - np.mean(v10[1])) / np.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    return z, 2 * stats.norm.sf(abs(z))


def test_t_interval_of_the_recorded_runs():
    interval = st.t_interval(X_CODE)
    assert interval.value == pytest.approx(24.6235, abs=1e-4)
    errors = [(one.high - one.value) / stats.t.ppf(0.975, 9) for one in (interval, st.t_interval(Z_PTB))]
    assert errors[0] == pytest.approx(2.4215, abs=1e-4)
    assert errors[1] == pytest.approx(0.0099, abs=5e-5)
    assert interval.high - interval.value == pytest.approx(2.2622 * 2.4215, rel=1e-3)
    assert np.isnan(st.t_interval([3.0]).low)


def test_auroc_equals_scikit_learn_with_ties_and_weights():
    rng = np.random.default_rng(3)
    label, score = rng.random(200) < 0.3, rng.integers(0, 12, 200)
    weights = rng.integers(0, 4, (5, 200)).astype(float)
    want = [roc_auc_score(label, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(st.auroc(label, score, weights), want, rtol=1e-12)
    assert st.auroc(label, score)[0] == pytest.approx(roc_auc_score(label, score))
    assert np.isnan(st.auroc(np.ones(4, bool), np.arange(4.0))[0])


def area_by_delong(label, score):
    """Area and standard error of one score: against a constant, whose area is 0.5 without variance."""
    paired = st.delong_test(label, score, np.zeros(len(score)))
    return 0.5 + paired.difference, 0.0 if np.isnan(paired.z) else paired.difference / paired.z


def test_delong_gives_the_published_example():
    value, se = area_by_delong(PAUC_LABEL, PAUC_SCORE)
    low, high = value - 1.959964 * se, min(1.0, value + 1.959964 * se)
    assert (round(value, 3), round(low, 3), round(high, 3)) == (0.708, 0.378, 1.0)


def test_delong_test_equals_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    label = rng.random(60) < 0.4
    a = np.round(rng.normal(label, 1), 1)  # many ties
    b = np.round(0.5 * a + rng.normal(label * 0.5, 1), 1)
    paired = st.delong_test(label, a, b)
    assert (paired.z, paired.p) == pytest.approx(delong_by_hand(label, a, b), rel=1e-10)
    assert st.delong_test(label, b, a).z == pytest.approx(-paired.z)


def test_delong_test_of_equal_rankings_is_one_and_never_zero():
    label = np.array(PAUC_LABEL, bool)
    score = np.array(PAUC_SCORE)
    for other in (score, score * 2 + 1, np.exp(score)):
        assert st.delong_test(label, score, other) == st._Paired(0.0, 0.0, 1.0)
    perfect = label.astype(float)
    assert st.delong_test(label, perfect, perfect * 3).p == 1.0
    assert np.isnan(st.delong_test(label, perfect, -perfect).p)


def test_delong_refuses_one_class():
    with pytest.raises(ValueError, match="found 0 positives of 5, expected two of each class"):
        st.delong_test(np.zeros(5), np.arange(5.0), np.arange(5.0))


@pytest.mark.shared
def test_delong_on_the_ribeiro_test_set(shared: Path):
    """827 tracings, six diagnoses: areas, standard errors and p of two models, computed twice by others' code."""
    folder = shared / "oracles" / "code_test"
    gold = np.loadtxt(folder / "gold_standard.csv", delimiter=",", skiprows=1)
    model, seed_1 = (np.load(folder / name, allow_pickle=False) for name in ("model.npy", "model_1.npy"))
    assert gold.sum(axis=0).tolist() == [28, 34, 30, 16, 13, 37]
    both = [area_by_delong(gold[:, k], model[:, k]) for k in range(6)]
    np.testing.assert_allclose([b[0] for b in both], [0.994234, 0.999073, 1.0, 0.997457, 0.997448, 0.998563], atol=6e-7)
    np.testing.assert_allclose([b[1] for b in both], [0.003713, 0.000676, 0, 0.0015, 0.00199, 0.000911], atol=6e-7)
    p = [st.delong_test(gold[:, k], model[:, k], seed_1[:, k]).p for k in range(6)]
    np.testing.assert_allclose(p, [0.5567, 0.7540, 1.0, 0.3067, 0.7231, 0.8958], atol=6e-5)  # 1.0: equal areas


def test_patient_bootstrap_draws_patients_not_records():
    """Ten equal records of each patient carry no more than one: the interval must not shrink."""
    values = np.random.default_rng(1).normal(size=40)
    single = st.patient_bootstrap(np.arange(40), st.weighted_mean(values), seed=5)
    repeated = st.patient_bootstrap(np.repeat(np.arange(40), 10), st.weighted_mean(np.repeat(values, 10)), seed=5)
    np.testing.assert_allclose(
        [repeated.value, repeated.low, repeated.high], [single.value, single.low, single.high], rtol=1e-12
    )
    assert (single.high - single.low) / 2 == pytest.approx(1.96 * stats.sem(values), rel=0.15)


def test_one_patient_has_no_interval_however_many_records():
    found = st.patient_bootstrap(np.zeros(9, int), st.weighted_mean(np.arange(9.0)))
    assert found.value == 4
    assert found.limits == (None, None)
    assert st.patient_draws(np.zeros(9, int), st.weighted_mean(np.arange(9.0))).p is None


def test_patient_bootstrap_does_not_depend_on_the_block_size(monkeypatch):
    patients, values = np.repeat(np.arange(30), 2), np.arange(60.0)
    whole = st.patient_bootstrap(patients, st.weighted_mean(values), n_resamples=50)
    monkeypatch.setattr(st, "_CHUNK_CELLS", 7 * 60)
    assert st.patient_bootstrap(patients, st.weighted_mean(values), n_resamples=50) == whole


def test_a_statistic_that_grows_with_noise_is_centred():
    """The squared mean of values around 0: drawing anew doubles it on average."""
    values = np.random.default_rng(2).normal(size=50)
    mean = st.weighted_mean(values - values.mean() + 0.05)
    plain, centred = (
        st.patient_bootstrap(np.arange(50), lambda weights: mean(weights) ** 2, seed=1, centred=c)
        for c in (False, True)
    )
    assert plain.value == centred.value == pytest.approx(0.0025)
    assert plain.high - plain.low == pytest.approx(centred.high - centred.low)
    assert plain.high - centred.high == pytest.approx(values.var() / 50, rel=0.2)


def test_networks_are_drawn_with_the_patients():
    """The interval covers the mean over networks and patients as often as it says: both are samples."""
    rng, hits, narrow = np.random.default_rng(4), 0, 0
    for seed in range(200):
        of_network, of_patient = rng.normal(size=5), rng.normal(size=40)
        means = [st.weighted_mean(of_patient + one) for one in of_network]
        found = st.patient_bootstrap(np.arange(40), means, 200, seed=seed)
        assert found.value == pytest.approx(of_patient.mean() + of_network.mean())
        hits += found.low < 0 < found.high
        alone = st.patient_bootstrap(np.arange(40), st.weighted_mean(of_patient + of_network.mean()), 200, seed=seed)
        narrow += alone.low < 0 < alone.high
    assert 0.91 * 200 <= hits <= 0.99 * 200  # 95 % within two standard errors and a half
    assert narrow < 0.6 * 200  # patients alone


def test_one_network_is_drawn_as_before_and_equal_ones_change_nothing():
    values = st.weighted_mean(np.random.default_rng(3).normal(size=30))
    single = st.patient_bootstrap(np.arange(30), values, 100, seed=2)
    assert st.patient_bootstrap(np.arange(30), [values], 100, seed=2) == single
    equal = st.patient_bootstrap(np.arange(30), [values] * 5, 100, seed=2)
    assert [equal.value, equal.low, equal.high] == pytest.approx([single.value, single.low, single.high])


def test_one_per_patient_takes_each_patient_once():
    patients = np.array([3, 3, 3, 8, 1, 1])
    chosen = st.one_per_patient(patients, seed=2)
    assert sorted(patients[chosen]) == [1, 3, 8]
    seen = {int(i) for seed in range(40) for i in st.one_per_patient(patients, seed)}
    assert seen == set(range(6))
