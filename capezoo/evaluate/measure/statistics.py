"""Intervals and paired tests for metrics on patients with several ECGs.

Resampling draws patients, never records: two ECGs of one patient are not two independent observations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from capezoo.specs.base import derive_seed

_LEVEL = 0.95  # of every interval
# Our default; the Monte Carlo error of a 95 % limit is then about 5 % of the half width.
_RESAMPLES = 1000
# Resamples x records held at once: 4 MB, about what a core's cache holds.
_CHUNK_CELLS = 500_000

Weights = NDArray[np.float64]
Statistic = Callable[[Weights], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A point estimate and its limits; NaN where they cannot be estimated."""

    value: float
    low: float
    high: float

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Lower and upper limit for JSON, which has no NaN: None where they cannot be estimated."""
        return (self.low if np.isfinite(self.low) else None, self.high if np.isfinite(self.high) else None)


@dataclass(frozen=True)
class _Paired:
    """Two methods on the same cases: difference first minus second, two-sided p."""

    difference: float
    z: float
    p: float


def t_interval(values: ArrayLike, level: float = _LEVEL) -> Interval:
    """Return the mean of independent runs with its t interval, which is about runs, not about patients."""
    array = np.asarray(values, float)
    mean, se = float(array.mean()), float(stats.sem(array)) if len(array) > 1 else float("nan")
    half = float(stats.t.ppf((1 + level) / 2, len(array) - 1)) * se if len(array) > 1 else float("nan")
    return Interval(mean, mean - half, mean + half)


def auroc(positive: ArrayLike, score: ArrayLike, weights: Weights | None = None) -> NDArray[np.float64]:
    """Return the area under the ROC curve, ties counted half; NaN where one class has no weight.

    positive, score: (record,). weights: (resample, record), all one if not given. Returns (resample,).
    """
    label, value = np.asarray(positive, bool), np.asarray(score, float)
    weight = np.ones((1, len(label))) if weights is None else weights
    order = np.argsort(value, kind="stable")
    label, value, weight = label[order], value[order], weight[:, order]
    starts = np.flatnonzero(np.r_[True, value[1:] != value[:-1]]) if len(value) else np.zeros(0, int)
    if not len(starts):
        return np.full(len(weight), np.nan)
    up, down = weight * label, weight * ~label
    # Equal scores are one step of the curve, so their weights add up.
    if len(starts) < len(value):
        up, down = np.add.reduceat(up, starts, axis=1), np.add.reduceat(down, starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    pairs = up.sum(axis=1) * down.sum(axis=1)
    return np.divide(np.einsum("ij,ij->i", up, below), pairs, out=np.full(len(weight), np.nan), where=pairs > 0)


def _placements(label: NDArray[np.bool_], value: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Return the share of the other class that each positive beats, and that beats each negative (Sun and Xu 2014)."""
    n_up, n_down = int(label.sum()), int((~label).sum())
    rank = stats.rankdata(value)
    beaten = (rank[label] - stats.rankdata(value[label])) / n_down
    beating = 1 - (rank[~label] - stats.rankdata(value[~label])) / n_up
    return beaten, beating


def delong_test(positive: ArrayLike, first: ArrayLike, second: ArrayLike) -> _Paired:
    """Test whether two scores of the same cases differ in AUROC. One case per patient is assumed.

    Scores that rank alike give p = 1; different areas without any variance give NaN.
    Source: DeLong 1988, in the U-statistic form with the midranks of Sun and Xu 2014.
    """
    label = np.asarray(positive, bool)
    if min(label.sum(), (~label).sum()) < 2:
        raise ValueError(f"found {int(label.sum())} positives of {len(label)}, expected two of each class at least.")
    up_a, down_a = _placements(label, np.asarray(first, float))
    up_b, down_b = _placements(label, np.asarray(second, float))
    difference = float(up_a.mean() - up_b.mean())
    se = float(np.sqrt((up_a - up_b).var(ddof=1) / len(up_a) + (down_a - down_b).var(ddof=1) / len(down_a)))
    # Equal rankings are no evidence of a difference; a division would give NaN for them.
    if se == 0:
        return _Paired(difference, 0.0, 1.0) if difference == 0 else _Paired(difference, float("nan"), float("nan"))
    z = difference / se
    return _Paired(difference, z, float(2 * stats.norm.sf(abs(z))))


def _patient_weights(patients: ArrayLike, n_resamples: int, seed: int) -> Iterator[Weights]:
    """Yield blocks of (resample, record): how often each record's patient was drawn, with replacement."""
    _, place = np.unique(np.asarray(patients), return_inverse=True)
    n_patients = int(place.max()) + 1 if len(place) else 0
    generator = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _CHUNK_CELLS // max(1, len(place)))
    for start in range(0, n_resamples, block):
        count = min(block, n_resamples - start)
        drawn = generator.integers(0, n_patients, size=(count, n_patients))
        # One bincount over all resamples of a block: each has its own range of cells.
        cells = drawn + np.arange(count)[:, None] * n_patients
        counts = np.bincount(cells.ravel(), minlength=count * n_patients).reshape(count, n_patients)
        yield counts[:, place].astype(float)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """A statistic, and what it is when patients are drawn anew; of each initialisation of a network, if there are several.

    values: (initialisation,). draws: (initialisation, resample), NaN where a draw has no value. Two made with the same
    patients and seed have the same draws: their difference is paired, and one network stands against each of several.
    """

    values: NDArray[np.float64]
    draws: NDArray[np.float64]
    seed: int  # of the draws of initialisations

    @classmethod
    def mean(cls, parts: Sequence[Self]) -> Self:
        """Return the mean over cohorts of other patients, each drawn for itself and counting alike."""
        # Initialisations are drawn once for all cohorts: a lucky network is lucky in every one.
        values, draws = ([getattr(part, name) for part in parts] for name in ("values", "draws"))
        return cls(np.mean(values, axis=0), np.mean(draws, axis=0), parts[0].seed)

    def __sub__(self, other: "Bootstrap") -> "Bootstrap":
        return Bootstrap(self.values - other.values, self.draws - other.draws, self.seed)

    @property
    def value(self) -> float:
        """The statistic; of several initialisations, their mean."""
        return float(np.mean(self.values))

    def interval(self, level: float = _LEVEL, centred: bool = False) -> Interval:
        """Return the percentile interval; limits are NaN if no draw has a value. centred: as in `patient_bootstrap`."""
        drawn = self._drawn(level)
        if not len(drawn):
            return Interval(self.value, float("nan"), float("nan"))
        shift = drawn.mean() - self.value if centred else 0.0
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - shift
        return Interval(self.value, float(low), float(high))

    @property
    def p(self) -> float | None:
        """Two-sided p that the statistic is 0, from the draws' standard deviation; 1 if it always is; None if unknown."""
        drawn = self._drawn(_LEVEL)
        # Shares of draws beyond 0 have no p below 1 / resamples, which no control over a family of tests would pass.
        error = float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
        if error == 0:
            return 1.0 if self.value == 0 else None
        return float(2 * stats.norm.sf(abs(self.value) / error))

    def _drawn(self, level: float) -> NDArray[np.float64]:
        share = _initialisation_draws(len(self.values), self.draws.shape[1], self.seed, level)
        drawn = np.einsum("ij,ji->i", share, self.draws)
        # A rare class may be missing from a draw; such a draw has no AUROC.
        return drawn[np.isfinite(drawn)]


def patient_draws(
    patients: ArrayLike,
    statistic: Statistic | Sequence[Statistic],
    n_resamples: int = _RESAMPLES,
    seed: int = 0,
    halves_of: ArrayLike | None = None,
) -> Bootstrap:
    """Compute a statistic as it is, and when patients are drawn anew with replacement; a single patient has no draws.

    statistic: (resample, record) weights -> (resample,) values; it is called once with all weights one. Several: one for
    each initialisation of a network. halves_of: stratum of each record; then a draw is a random half of each stratum's
    patients, with weights 0 and 1, for statistics of pairs of records: ask for the `centred` interval.
    """
    each = [statistic] if callable(statistic) else list(statistic)
    everyone = np.ones((1, len(np.asarray(patients))))
    if halves_of is None:
        blocks = _patient_weights(patients, n_resamples, seed)
    else:
        blocks = _half_weights(patients, halves_of, n_resamples, seed)
    found = np.concatenate([np.stack([one(weights) for one in each]) for weights in blocks], axis=1)
    if len(np.unique(np.asarray(patients))) < 2:
        found[:] = np.nan  # one patient, drawn again and again, would have an interval without width
    return Bootstrap(np.array([one(everyone)[0] for one in each]), found, seed)


def _half_weights(patients: ArrayLike, strata: ArrayLike, n_resamples: int, seed: int) -> Iterator[Weights]:
    """Yield blocks of (resample, record): 1 where the record's patient is in a random half of its stratum, else 0."""
    # A patient drawn twice would be their own nearest neighbour, and neighbours kept as they are vary too little. Halves
    # have nobody twice, and a mean varies among them as means of all patients do among samples.
    _, first, place = np.unique(np.asarray(patients), return_index=True, return_inverse=True)
    parts = [np.flatnonzero(np.asarray(strata)[first] == one) for one in np.unique(np.asarray(strata))]
    generator = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _CHUNK_CELLS // max(1, len(place)))
    for start in range(0, n_resamples, block):
        chosen = np.zeros((min(block, n_resamples - start), len(first)))
        for row in chosen:
            for part in parts:
                row[generator.permutation(part)[: len(part) // 2]] = 1
        yield chosen[:, place]


def patient_bootstrap(
    patients: ArrayLike,
    statistic: Statistic | Sequence[Statistic],
    n_resamples: int = _RESAMPLES,
    seed: int = 0,
    level: float = _LEVEL,
    centred: bool = False,
) -> Interval:
    """Return the percentile interval of a statistic when patients are drawn anew, as `patient_draws` does.

    Of several initialisations, the value is their mean, and they are drawn together with the patients. Resamples where
    it is NaN (no case of one class drawn) are left out. centred: subtract what drawing with replacement adds on average,
    for statistics that grow with noise; without it their interval may miss the value.
    """
    return patient_draws(patients, statistic, n_resamples, seed).interval(level, centred)


def _initialisation_draws(count: int, n_resamples: int, seed: int, level: float) -> Weights:
    """Return (resample, initialisation): how much each counts in the mean of a resample; alike if there is one."""
    if count == 1:
        return np.ones((n_resamples, 1))
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "initialisations")))
    # One fewer than there are: drawing all of five anew gives the mean only 4/5 of its variance (Rao and Wu 1988).
    drawn = generator.integers(0, count, size=(n_resamples, count - 1))
    share = (drawn[:, :, None] == np.arange(count)).mean(axis=1)
    # And Student's factor: the percentiles of five networks alone would cover 89 % where they say 95 (simulated).
    wider = stats.t.ppf((1 + level) / 2, count - 1) / stats.norm.ppf((1 + level) / 2)
    return np.asarray(1 / count + wider * (share - 1 / count), np.float64)


def weighted_mean(values: ArrayLike) -> Callable[[Weights], NDArray[np.float64]]:
    """Return the statistic `mean of values` for `patient_bootstrap`."""
    array = np.asarray(values, float)
    return lambda weights: weights @ array / weights.sum(axis=1)


def one_per_patient(patients: ArrayLike, seed: int = 0) -> NDArray[np.int64]:
    """Draw one record of each patient at random; return their places in ascending order."""
    array = np.asarray(patients)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(array))
    first = np.unique(array[order], return_index=True)[1]
    return np.sort(order[first])
