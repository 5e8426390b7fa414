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

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import unseen_people
from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.specs.base import Spec, derive_seed
from capezoo.specs.card import Metric
from ecgcohorts.report.charts import Limits, intervals

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Interval, Weights

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
    max_patients: int = Field(1000, gt=0, description="patients of each cohort at most, drawn at random")
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
    chosen, kept, left_out = _balanced_sample(context.cohorts[entries], patients[entries], context.seed, config)
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


def _balanced_sample(
    names: NDArray[np.str_], patients: NDArray[np.int64], seed: int, config: Config
) -> tuple[NDArray[np.int64], NDArray[np.str_], tuple[str, ...]]:
    """Draw one record per patient, and as many patients of every cohort as the smallest has, at most `max_patients`.

    Returns places in ascending order, the cohorts kept in alphabetical order, and those left out as too small.
    """
    from capezoo.evaluate.measure.statistics import one_per_patient

    single = one_per_patient(patients, derive_seed(seed, "separability", "record"))
    cohorts, sizes = np.unique(names[single], return_counts=True)
    kept = cohorts[sizes >= config.min_patients]
    if len(kept) < 2:
        found = ", ".join(f"{name} {size}" for name, size in zip(cohorts, sizes, strict=True))
        raise Unanswerable(f"found patients: {found}; expected {config.min_patients} in two cohorts at least.")
    size = min(int(sizes[sizes >= config.min_patients].min()), config.max_patients)
    parts = []
    for name in kept:
        generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "separability", str(name))))
        parts.append(generator.choice(single[names[single] == name], size, replace=False))
    left_out = tuple(cohorts[sizes < config.min_patients].tolist())
    return np.sort(np.concatenate(parts)), kept, left_out


def _metrics(
    drawn: Sequence[Features], label: NDArray[np.int64], group: NDArray[np.int64], seed: int, config: Config
) -> tuple[Metric, ...]:
    """Measure one sample: features (record, unit) of each initialisation, the cohort's code and the patient of each record."""
    from sklearn.metrics import silhouette_samples

    from capezoo.evaluate.measure.statistics import patient_bootstrap, weighted_mean

    each = [fit_scaler(features, "guarded")(features) for features in drawn]
    # One seed for all measures and weights: they see the same draws of patients.
    resamples, boot_seed = config.resamples, derive_seed(seed, "separability", "bootstrap")
    purity = patient_bootstrap(
        group, [weighted_mean(_neighbour_purity(z, label, config.neighbours)) for z in each], resamples, boot_seed
    )
    shares = [partial(_between_share, z, label) for z in each]
    share = patient_bootstrap(group, shares, resamples, boot_seed, centred=True)
    outlines = [weighted_mean(silhouette_samples(z, label)) for z in each]
    outline = patient_bootstrap(group, outlines, resamples, boot_seed)
    fold_seed = derive_seed(seed, "separability", "folds")
    probe = _over_folds([_probe_aucs(z, label, group, fold_seed, config) for z in each])
    several = f" of {len(each)} initialisations" if len(each) > 1 else ""
    bootstrap = f"patient bootstrap, {resamples} resamples{several}"
    folds = f"t over {config.folds} folds" + (f" and {len(each)} initialisations" if several else "")
    return (
        _metric("knn_purity", purity, len(label), f"{config.neighbours} nearest by Euclidean distance; {bootstrap}"),
        _metric(
            "between_cohort_variance", share, len(label), f"trace of between / total scatter; {bootstrap}, centred"
        ),
        _metric("probe_auc", probe, len(label), f"logistic regression, macro one-vs-rest; {folds}"),
        _metric("silhouette", outline, len(label), f"Euclidean; {bootstrap}"),
    )


def _over_folds(aucs: Sequence[Sequence[float]]) -> "Interval":
    """Mean of (initialisation, fold) areas with its t interval: over the folds, and of several also over initialisations."""
    from scipy import stats

    from capezoo.evaluate.measure.statistics import Interval, t_interval

    table = np.array(aucs)
    if len(table) == 1:
        return t_interval(table[0])
    # Both are samples. The two variances add up, and the fewer of them says how sure their sum is.
    se = float(np.hypot(stats.sem(table.mean(axis=0)), stats.sem(table.mean(axis=1))))
    half = float(stats.t.ppf(0.975, min(table.shape) - 1)) * se
    return Interval(float(table.mean()), float(table.mean()) - half, float(table.mean()) + half)


def _neighbour_purity(z: NDArray, label: NDArray[np.int64], neighbours: int) -> NDArray[np.float64]:
    """Share of each record's nearest neighbours, itself not counted, that are of its own cohort: (record,)."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(neighbours, len(z) - 1)).fit(z).kneighbors(return_distance=False)
    return np.asarray((label[found] == label[:, None]).mean(axis=1), np.float64)


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


def _probe_aucs(
    z: NDArray, label: NDArray[np.int64], groups: NDArray[np.int64], seed: int, config: Config
) -> list[float]:
    """Area under the ROC curve of a linear probe for the cohort, on each held-out fold of patients."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    # Its seed has 32 bits at most. Folds by patient stay right if a sample ever has two records of one.
    splitter = StratifiedGroupKFold(config.folds, shuffle=True, random_state=seed % 2**32)
    many = label.max() > 1
    aucs = []
    for train, test in splitter.split(z, label, groups):
        scaler = fit_scaler(z[train], "guarded")
        # Its thousands of small products lose more to a second thread on a busy machine (34 s against 3 s) than they gain.
        with threadpool_limits(1):
            probe = LogisticRegression(C=config.probe_c, max_iter=5000, tol=1e-3).fit(scaler(z[train]), label[train])
        score = probe.predict_proba(scaler(z[test]))
        aucs.append(float(roc_auc_score(label[test], score if many else score[:, 1], multi_class="ovr")))
    return aucs


def _metric(name: str, interval: "Interval", n: int, method: str) -> Metric:
    low, high = interval.limits
    return Metric(name=name, cohort="all", value=interval.value, low=low, high=high, n=n, method=method)


def _limits(metrics: Sequence[Metric]) -> dict[str, Limits]:
    return {metric.name: (metric.low, metric.value, metric.high) for metric in metrics}


def _text(limits: Limits) -> str:
    low, value, high = limits
    return f"{value:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")
