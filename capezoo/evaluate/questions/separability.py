"""How much an embedding tells of the cohort an ECG came from: the numbers that belong beside every map.

All measures look at one record per patient and at as many patients of every cohort: two ECGs of one patient lie close
by design of the training, and a large cohort is easy to find by size alone. Units are z-scored over that sample
(guarded scaler), so that no unit counts for its scale.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, silhouette_samples
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from capezoo.evaluate.measure.scalers import fit_scaler
from capezoo.evaluate.measure.statistics import (
    Interval,
    Weights,
    one_per_patient,
    patient_bootstrap,
    t_interval,
    weighted_mean,
)
from capezoo.specs import Metric, derive_seed
from ecgcohorts.errors import SpecError


class SeparabilityConfig(BaseModel):
    """Sizes of the comparison; all are our defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = 15
    folds: int = 5
    max_patients: int = 1000  # per cohort; neighbours and silhouette take time with the square of it
    min_patients: int = 30  # cohorts with fewer are left out and named
    resamples: int = 500
    probe_c: float = 1.0  # scikit-learn's default; inverse strength of the L2 penalty


class Separability(BaseModel):
    """Measures with 95 % intervals. By chance: purity 1 / cohorts, variance share (cohorts - 1) / (records - 1),
    AUC 0.5, silhouette 0 or less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cohorts: tuple[str, ...]
    left_out: tuple[str, ...]  # too few patients
    patients_per_cohort: int
    metrics: tuple[Metric, ...]

    def value(self, name: str) -> float:
        return next(metric.value for metric in self.metrics if metric.name == name)


def separability(
    features: NDArray[np.float32],
    cohort: Sequence[str],
    patients: NDArray[np.int64],
    seed: int,
    config: SeparabilityConfig = SeparabilityConfig(),  # noqa: B008 - frozen
) -> Separability:
    """Measure how well cohorts can be told apart. features: (record, unit); the other two one per record.

    Raises SpecError if fewer than two cohorts have `min_patients` patients.
    """
    names = np.asarray(cohort)
    chosen, kept, left_out = balanced_sample(names, patients, seed, config)
    label = np.searchsorted(kept, names[chosen])
    group = np.asarray(patients)[chosen]
    z = fit_scaler(features[chosen], "guarded")(features[chosen])
    resamples, boot_seed = config.resamples, derive_seed(seed, "separability", "bootstrap")
    purity = patient_bootstrap(
        group, weighted_mean(neighbour_purity(z, label, config.neighbours)), resamples, boot_seed
    )
    share = patient_bootstrap(
        group, lambda weights: between_share(z, label, weights), resamples, boot_seed, centred=True
    )
    outline = patient_bootstrap(group, weighted_mean(silhouette_samples(z, label)), resamples, boot_seed)
    probe = t_interval(probe_aucs(z, label, group, derive_seed(seed, "separability", "folds"), config))
    drawn = f"patient bootstrap, {resamples} resamples"
    metrics = (
        _metric("knn_purity", purity, len(chosen), f"{config.neighbours} nearest by Euclidean distance; {drawn}"),
        _metric("between_cohort_variance", share, len(chosen), f"trace of between / total scatter; {drawn}, centred"),
        _metric(
            "probe_auc", probe, len(chosen), f"logistic regression, macro one-vs-rest; t over {config.folds} folds"
        ),
        _metric("silhouette", outline, len(chosen), f"Euclidean; {drawn}"),
    )
    return Separability(
        cohorts=tuple(kept.tolist()),
        left_out=left_out,
        patients_per_cohort=len(chosen) // len(kept),
        metrics=metrics,
    )


def balanced_sample(
    names: NDArray[np.str_], patients: NDArray[np.int64], seed: int, config: SeparabilityConfig
) -> tuple[NDArray[np.int64], NDArray[np.str_], tuple[str, ...]]:
    """One record per patient, as many patients of every cohort as the smallest has, at most `max_patients`.

    Returns places in ascending order, the cohorts kept in alphabetical order, and those left out as too small.
    """
    single = one_per_patient(patients, derive_seed(seed, "separability", "record"))
    cohorts, sizes = np.unique(names[single], return_counts=True)
    kept = cohorts[sizes >= config.min_patients]
    if len(kept) < 2:
        found = ", ".join(f"{name} {size}" for name, size in zip(cohorts, sizes, strict=True))
        raise SpecError(f"found patients: {found}; expected {config.min_patients} in two cohorts at least.")
    size = min(int(sizes[sizes >= config.min_patients].min()), config.max_patients)
    parts = []
    for name in kept:
        generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "separability", str(name))))
        parts.append(generator.choice(single[names[single] == name], size, replace=False))
    left_out = tuple(cohorts[sizes < config.min_patients].tolist())
    return np.sort(np.concatenate(parts)), kept, left_out


def neighbour_purity(z: NDArray, label: NDArray[np.int64], neighbours: int) -> NDArray[np.float64]:
    """Share of each record's nearest neighbours, itself not counted, that are of its own cohort: (record,)."""
    found = NearestNeighbors(n_neighbors=min(neighbours, len(z) - 1)).fit(z).kneighbors(return_distance=False)
    return np.asarray((label[found] == label[:, None]).mean(axis=1), np.float64)


def between_share(z: NDArray, label: NDArray[np.int64], weights: Weights) -> NDArray[np.float64]:
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


def probe_aucs(
    z: NDArray, label: NDArray[np.int64], groups: NDArray[np.int64], seed: int, config: SeparabilityConfig
) -> list[float]:
    """Area under the ROC curve of a linear probe for the cohort, on each held-out fold of patients."""
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


def _metric(name: str, interval: Interval, n: int, method: str) -> Metric:
    low, high = (None if np.isnan(edge) else edge for edge in (interval.low, interval.high))  # NaN: no spread to see
    return Metric(name=name, cohort="all", value=interval.value, low=low, high=high, n=n, method=method)
