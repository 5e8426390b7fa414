"""Do cohorts separate: how much an embedding tells of the cohort an ECG came from; the numbers beside every map.

All measures look at one record per patient and at as many patients of every cohort: two ECGs of one patient lie close
by design of the training, and a large cohort is easy to find by size alone. Units are z-scored over that sample
(guarded scaler), so that no unit counts for its scale.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.evaluate.measure.parts import unseen_people
from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.evaluate.questions._separation import balanced_sample, neighbour_purity, probe_aucs
from capezoo.specs.base import Spec, derive_seed
from capezoo.specs.card import Metric
from ecgcohorts.report.charts import Limits, intervals

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Interval, Statistic, Weights

EXAMPLES = (
    "capezoo evaluate separability --weights w/x --weights random --store store.zarr --seed 0 -o study",
    "capezoo evaluate separability --weights w/x --store store.zarr --seed 0 --neighbours 10 -o study",
)
_TITLES = {
    "knn_purity": "kNN purity",
    "between_cohort_variance": "variance between cohorts",
    "probe_auc": "linear probe AUC",
    "silhouette": "silhouette",
}


class Config(Spec):
    """Sizes of the comparison; all are our defaults."""

    neighbours: int = Field(15, gt=0, description="of each record, whose cohorts are looked at")
    folds: int = Field(5, gt=1, description="of patients, for the linear probe")
    # Neighbours and silhouette take time with the square of it.
    max_patients: int = Field(1000, ge=5, description="patients of each cohort at most, drawn at random")
    min_patients: int = Field(30, gt=0, description="cohorts with fewer patients are left out and named")
    resamples: int = Field(500, gt=0, description="draws of patients for each interval")
    split: str = Field(
        "",
        description="split kept in the store, whose part test alone is looked at; default: everybody, also trained on",
    )
    probe_c: float = Field(1.0, gt=0, description="inverse strength of the probe's L2 penalty; scikit-learn's default")


class Result(Spec):
    """Measures with 95 % intervals: weights -> metrics.

    By chance: purity 1 / cohorts, variance share (cohorts - 1) / (records - 1), AUC 0.5, silhouette 0 or less.
    """

    cohorts: tuple[str, ...]
    left_out: tuple[str, ...]  # too few patients
    patients_per_cohort: int
    weights: dict[str, tuple[Metric, ...]]

    def value(self, weights: str, name: str) -> float:
        """One measure of one set of weights."""
        return next(metric.value for metric in self.weights[weights] if metric.name == name)


def run(context: Context, config: Config) -> Result:
    """Measure how well cohorts can be told apart, on the same records for all weights.

    Raises Unanswerable if fewer than two cohorts have `min_patients` patients.
    """
    entries, _ = unseen_people(context.index, {}, config.split, context.store)
    patients = context.index["patient"]
    fewest = max(config.min_patients, config.folds)  # a probe needs a patient of every cohort in each fold
    chosen, kept, left_out = balanced_sample(
        context.cohorts[entries], patients[entries], context.seed, fewest=fewest, most=config.max_patients
    )
    chosen = entries[chosen]
    label, group = np.searchsorted(kept, context.cohorts[chosen]), patients[chosen]
    weights = {}
    for place, subject in enumerate(context.subjects):
        drawn = [features[chosen] for features in subject.initialisations]
        weights[subject.name] = _metrics(drawn, label, group, context.seed, config)
        context.progress(place + 1, len(context.subjects))
    return Result(
        cohorts=tuple(kept.tolist()),
        left_out=left_out,
        patients_per_cohort=len(chosen) // len(kept),
        weights=weights,
    )


def tables(result: Result) -> Sequence[Table]:
    """All measures with their intervals, and what chance would give."""
    rows = {name: [_text(_limits(metrics)[key]) for key in _TITLES] for name, metrics in result.weights.items()}
    k, n = len(result.cohorts), len(result.cohorts) * result.patients_per_cohort
    # Expected share of variance if cohorts were drawn at random: k - 1 of n - 1 degrees of freedom.
    rows["chance"] = [f"{1 / k:.3f}", f"{(k - 1) / (n - 1):.3f}", "0.500", "0 or less"]
    caption = f"{result.patients_per_cohort} patients of each of {', '.join(result.cohorts)}, one ECG each" + (
        f"; too few patients in {', '.join(result.left_out)}" if result.left_out else ""
    )
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(_TITLES.values()))
    return [Table("Measures, with 95 % intervals", frame, caption)]


def figures(result: Result) -> Sequence[Figure]:
    """Draw all measures with their intervals: a row a measure, a colour each set of weights."""
    series = {name: [_limits(metrics)[key] for key in _TITLES] for name, metrics in result.weights.items()}
    return [
        Figure("measures", intervals("How well cohorts separate", list(_TITLES.values()), series, "95 % intervals"))
    ]


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """The measures themselves."""
    return {name: {title: result.value(name, key) for key, title in _TITLES.items()} for name in result.weights}


def _metrics(
    drawn: Sequence[Features], label: NDArray[np.int64], group: NDArray[np.int64], seed: int, config: Config
) -> tuple[Metric, ...]:
    """Measure one sample: features (record, unit) of each initialisation, the cohort's code and the patient of each record."""
    from capezoo.evaluate.measure.statistics import patient_bootstrap, patient_draws

    each = [fit_scaler(features, "guarded")(features) for features in drawn]
    # One seed for all measures and weights: they see the same draws of patients.
    resamples, boot_seed = config.resamples, derive_seed(seed, "separability", "bootstrap")
    purities = [neighbour_purity(z, label, config.neighbours) for z in each]
    purity = patient_draws(group, purities, resamples, boot_seed, label).interval(centred=True)
    shares = [partial(_between_share, z, label) for z in each]
    share = patient_bootstrap(group, shares, resamples, boot_seed, centred=True)
    outlines = [_silhouette(z, label) for z in each]
    outline = patient_draws(group, outlines, resamples, boot_seed, label).interval(centred=True)
    fold_seed = derive_seed(seed, "separability", "folds")
    probe = _over_folds([probe_aucs(z, label, group, fold_seed, folds=config.folds, c=config.probe_c) for z in each])
    several = f" of {len(each)} initialisations" if len(each) > 1 else ""
    bootstrap = f"patient bootstrap, {resamples} resamples{several}"
    halves = f"halves of the patients, {resamples} resamples{several}, centred"
    folds = f"t over {config.folds} folds, corrected for their overlap" + (
        f" and {len(each)} initialisations" if several else ""
    )
    return (
        _metric("knn_purity", purity, len(label), f"{config.neighbours} nearest by Euclidean distance; {halves}"),
        _metric(
            "between_cohort_variance", share, len(label), f"trace of between / total scatter; {bootstrap}, centred"
        ),
        _metric("probe_auc", probe, len(label), f"logistic regression, macro one-vs-rest; {folds}"),
        _metric("silhouette", outline, len(label), f"Euclidean; {halves}"),
    )


def _over_folds(aucs: Sequence[Sequence[float]]) -> "Interval":
    """Mean of (initialisation, fold) areas with its t interval: over the folds, and of several also over initialisations."""
    from scipy import stats

    from capezoo.evaluate.measure.statistics import Interval

    table = np.array(aucs)
    several, folds = table.shape
    # Folds share their training records. Without the second term, Nadeau and Bengio's (2003), intervals of simulated
    # cohorts held the truth in 81 to 95 % of cases, with it in 86 to 99 %.
    variance = table.mean(axis=0).var(ddof=1) * (1 / folds + 1 / (folds - 1))
    degrees = folds - 1
    if several > 1:
        # Both are samples. The two variances add up, and the fewer of them says how sure their sum is.
        variance += stats.sem(table.mean(axis=1)) ** 2
        degrees = min(table.shape) - 1
    half = float(stats.t.ppf(0.975, degrees) * np.sqrt(variance))
    return Interval(float(table.mean()), float(table.mean()) - half, float(table.mean()) + half)


def _silhouette(z: NDArray, label: NDArray[np.int64]) -> "Statistic":
    """The mean silhouette of the records of weight 1 among each other, as a statistic of weights 0 and 1.

    Source: Rousseeuw 1987. A record alone in its cohort has 0.
    """
    from sklearn.metrics import pairwise_distances

    distance = pairwise_distances(z)
    # Equal records must be at distance 0 exactly, or a record would not be where it is.
    np.fill_diagonal(distance, 0.0)
    cohorts, own = np.unique(label, return_inverse=True)

    def silhouette(weights: "Weights") -> NDArray[np.float64]:
        kept, each = weights.astype(distance.dtype), np.arange(len(label))
        sums = np.stack([kept[:, own == code] @ distance[own == code] for code in range(len(cohorts))], axis=1)
        sizes = np.stack([kept[:, own == code].sum(axis=1) for code in range(len(cohorts))], axis=1)
        others = sizes[:, own] - kept  # of one's own cohort, oneself left out
        within = np.divide(sums[:, own, each], others, out=np.zeros_like(kept), where=others > 0)
        means = sums / np.maximum(sizes, 1)[:, :, None]
        means[:, own, each] = np.inf
        nearest = means.min(axis=1)
        larger = np.maximum(within, nearest)
        value = np.divide(nearest - within, larger, out=np.zeros_like(kept), where=(larger > 0) & (others > 0))
        return np.asarray((kept * value).sum(axis=1) / kept.sum(axis=1), np.float64)

    return silhouette


def _between_share(z: NDArray, label: NDArray[np.int64], weights: "Weights") -> NDArray[np.float64]:
    """Trace of the between-cohort scatter over the trace of the total scatter: (resample,).

    weights: (resample, record). 0 where nothing varies.
    """
    x = z.astype(np.float64)
    total = weights.sum(axis=1)
    mean = weights @ x / total[:, None]
    spread = weights @ (x**2).sum(axis=1) - total * (mean**2).sum(axis=1)
    between = -total * (mean**2).sum(axis=1)
    for place in np.unique(label):
        part = weights[:, label == place]
        size = part.sum(axis=1)
        summed = part @ x[label == place]
        between += np.divide((summed**2).sum(axis=1), size, out=np.zeros_like(size), where=size > 0)
    return np.divide(between, spread, out=np.zeros_like(spread), where=spread > 1e-12)


def _metric(name: str, interval: "Interval", n: int, method: str) -> Metric:
    low, high = interval.limits
    return Metric(name=name, cohort="all", value=interval.value, low=low, high=high, n=n, method=method)


def _limits(metrics: Sequence[Metric]) -> dict[str, Limits]:
    return {metric.name: (metric.low, metric.value, metric.high) for metric in metrics}


def _text(limits: Limits) -> str:
    low, value, high = limits
    return f"{value:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")
