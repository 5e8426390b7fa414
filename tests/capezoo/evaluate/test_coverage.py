"""Intervals hold the truth as often as they say: studies are simulated whose truth is known, and hits are counted."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from capezoo.evaluate.measure import statistics as st
from capezoo.evaluate.measure.statistics import Bootstrap, Interval
from capezoo.evaluate.questions import separability

# (interval, truth) of one simulated study
Study = Callable[[np.random.Generator, int], tuple[Interval, float]]
# Patients of a study; small cohorts are where an interval fails first.
PATIENTS = 80


def hits(study: Study, studies: int, resamples: int) -> float:
    """Share of studies whose interval holds the truth."""
    found = [study(np.random.default_rng(place), resamples) for place in range(studies)]
    return float(np.mean([interval.low <= truth <= interval.high for interval, truth in found]))


def patients(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The patient of each record, one to four records each, and what the records of a patient have in common."""
    patient = np.repeat(np.arange(PATIENTS), rng.integers(1, 5, PATIENTS))
    return patient, rng.normal(size=PATIENTS)[patient]


def runs(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
    return st.t_interval(rng.normal(3.0, 2.0, 6)), 3.0


def error(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
    """Mean absolute error of patients with records alike; E|N(0, 1)|, though the records vary by 0.3 only."""
    patient, common = patients(rng)
    values = np.abs(np.sqrt(0.9) * common + np.sqrt(0.1) * rng.normal(size=len(patient)))
    return st.patient_bootstrap(patient, st.weighted_mean(values), resamples, int(rng.integers(2**31))), np.sqrt(
        2 / np.pi
    )


def scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Patient, label and two scores of each record; their areas are Phi(1 / sqrt 2) and Phi(0.5 / sqrt 2)."""
    patient, common = patients(rng)
    label = (rng.random(PATIENTS) < 0.4)[patient]
    noise = 0.8 * common + 0.6 * rng.normal(size=len(patient))
    other = 0.8 * noise + 0.6 * rng.normal(size=len(patient))
    return patient, label, label + noise, 0.5 * label + other


def area(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
    patient, label, score, _ = scores(rng)
    made = st.patient_draws(patient, lambda w: st.auroc(label, score, w), resamples, int(rng.integers(2**31)))
    return made.interval(), ndtr(1 / np.sqrt(2))


def paired(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
    """The difference of two areas on the same records."""
    patient, label, first, second = scores(rng)
    seed = int(rng.integers(2**31))
    a, b = (st.patient_draws(patient, lambda w, s=s: st.auroc(label, s, w), resamples, seed) for s in (first, second))
    return (a - b).interval(), ndtr(1 / np.sqrt(2)) - ndtr(0.5 / np.sqrt(2))


def over_cohorts(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
    """The mean error over three cohorts, of which the third is twice as hard."""
    parts = []
    for factor in (1, 1, 2):
        patient, common = patients(rng)
        statistic = st.weighted_mean(factor * np.abs(common))
        parts.append(st.patient_draws(patient, statistic, resamples, int(rng.integers(2**31))))
    return Bootstrap.mean(parts).interval(), 4 / 3 * np.sqrt(2 / np.pi)


def delong(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
    """The 95 % interval that belongs to DeLong's p: difference and z give the standard error."""
    patient, label, first, second = scores(rng)
    single = st.one_per_patient(patient, int(rng.integers(2**31)))
    found = st.delong_test(label[single], first[single], second[single])
    half = 1.96 * found.difference / found.z
    low, high = sorted((found.difference - half, found.difference + half))
    return Interval(found.difference, low, high), ndtr(1 / np.sqrt(2)) - ndtr(0.5 / np.sqrt(2))


STUDIES = {f.__name__: f for f in (runs, error, area, paired, over_cohorts, delong)}


@pytest.mark.parametrize("name", STUDIES)
def test_intervals_hold_the_truth_in_about_19_of_20_studies(name):
    share = hits(STUDIES[name], studies=150, resamples=150)
    assert 0.88 <= share <= 0.99, f"{name}: {share:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_intervals_hold_the_truth_in_19_of_20_of_many_studies(name):
    share = hits(STUDIES[name], studies=2000, resamples=1000)
    print(f"{name}: {share:.4f}")
    # The bootstrap of 80 patients is a little short by theory: it draws from what was seen, and cuts no tail wider.
    assert 0.92 <= share <= 0.97, f"{name}: {share:.4f}"


def separability_hits(studies: int, resamples: int) -> dict[str, float]:
    """How often the interval of each measure of two overlapping cohorts holds its mean over all studies."""
    config, label = separability.Config(resamples=resamples), np.repeat([0, 1], 40)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for place in range(studies):
        z = np.random.default_rng(place).normal(size=(80, 8))
        z[:, 0] += label
        for one in separability._metrics([z.astype(np.float32)], label, np.arange(80), place, config):
            found.setdefault(one.name, []).append((one.low, one.value, one.high))
    tables = {name: np.array(values) for name, values in found.items()}
    return {name: float(np.mean((low <= value.mean()) & (value.mean() <= high)))
            for name, (low, value, high) in ((name, table.T) for name, table in tables.items())}  # fmt: skip


def test_intervals_of_separability_hold_their_mean():
    for name, share in separability_hits(studies=20, resamples=60).items():
        assert share >= 0.8, f"{name}: {share:.3f}"


@pytest.mark.slow
def test_intervals_of_separability_hold_their_mean_in_many_studies():
    """None is short of 95 % by more than chance; those of distances are wide where cohorts hardly differ."""
    found = separability_hits(studies=300, resamples=200)
    print(found)
    assert min(found.values()) >= 0.92


def test_records_in_place_of_patients_would_promise_too_much():
    """The check can fail: intervals that draw records, as most programs do, miss the truth far more often."""

    def naive(rng: np.random.Generator, resamples: int) -> tuple[Interval, float]:
        patient, common = patients(rng)
        made = st.patient_bootstrap(
            np.arange(len(patient)), st.weighted_mean(np.abs(common)), resamples, int(rng.integers(2**31))
        )
        return made, np.sqrt(2 / np.pi)

    assert hits(naive, studies=150, resamples=150) < 0.8


def test_p_of_a_bootstrap_is_uniform_where_nothing_differs():
    """Two scores equally good: a twentieth of p below .05, a fifth below .2."""

    def p_of(seed: int) -> float:
        rng = np.random.default_rng(seed)
        patient, label, first, _ = scores(rng)
        second = label + 0.8 * (first - label) + 0.6 * rng.normal(size=len(label))
        a, b = (st.patient_draws(patient, lambda w, s=s: st.auroc(label, s, w), 150, seed) for s in (first, second))
        return (a - b).p

    p = [p_of(seed) for seed in range(150)]
    assert np.mean(np.array(p) < 0.05) < 0.12
    assert 0.1 < np.mean(np.array(p) < 0.2) < 0.32


def of(value: float, draws: list[float]) -> Bootstrap:
    return Bootstrap(np.array([value]), np.array([draws]), 0)


def test_p_of_a_bootstrap_by_hand():
    assert of(1.0, [0.5, 1.0, 1.5, np.nan]).p == pytest.approx(2 * norm.sf(2.0))
    assert of(0.0, [0.0] * 3).p == 1.0
    assert of(1.0, [1.0] * 3).p is None
    assert of(1.0, [np.nan] * 3).interval().limits == (None, None)


def test_difference_and_mean_of_bootstraps():
    first, second = of(3.0, [2.0, 4.0]), of(1.0, [1.0, 1.5])
    assert (first - second).value == 2.0
    assert (first - second).draws.tolist() == [[1.0, 2.5]]
    assert Bootstrap.mean([first, second]).value == 2.0
    assert Bootstrap.mean([first, second]).draws.tolist() == [[1.5, 2.75]]


def test_a_lucky_network_is_lucky_in_every_cohort():
    """Three networks that differ by 1, patients that do not: the mean over cohorts is no more certain than one cohort."""
    parts = [
        Bootstrap(np.array([1.0, 2.0, 3.0]), np.repeat([[1.0], [2.0], [3.0]], 400, axis=1), seed) for seed in (4, 5)
    ]
    one, mean = parts[0].interval(), Bootstrap.mean(parts).interval()
    assert (mean.value, mean.low, mean.high) == (one.value, one.low, one.high)
    assert one.low < 1.0 < 3.0 < one.high
    trained = of(2.5, [2.5] * 400)
    assert (trained - parts[0]).values.tolist() == [1.5, 0.5, -0.5]
    assert (trained - parts[0]).interval().low == pytest.approx(2.5 - one.high)
