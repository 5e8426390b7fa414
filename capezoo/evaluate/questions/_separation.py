"""How far groups of records lie apart in an embedding: what `separability` and `map` measure alike.

One record per patient and as many patients of every group: two ECGs of one patient lie close by design of the training, and
a large group is easy to find by size alone.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.specs.base import Spec, derive_seed

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Statistic, Weights

_FOLDS = 5  # of patients, for the probe of a map; as in `separability`


def balanced_sample(
    names: NDArray[np.str_], patients: NDArray[np.int64], seed: int, *, fewest: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.str_], tuple[str, ...]]:
    """Draw one record per patient, and as many patients of every group as the smallest has, at most `most`.

    names: group of each record. Returns places in ascending order, the groups kept in alphabetical order, and those left out
    as they have fewer than `fewest` patients. Raises Unanswerable if fewer than two are kept.
    """
    from capezoo.evaluate.measure.statistics import one_per_patient

    single = one_per_patient(patients, derive_seed(seed, "separability", "record"))
    groups, sizes = np.unique(names[single], return_counts=True)
    kept = groups[sizes >= fewest]
    if len(kept) < 2:
        found = ", ".join(f"{name} {size}" for name, size in zip(groups, sizes, strict=True))
        raise Unanswerable(f"found patients: {found}; expected {fewest} in two cohorts at least.")
    size = min(int(sizes[sizes >= fewest].min()), most)
    parts = []
    for name in kept:
        generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "separability", str(name))))
        parts.append(generator.choice(single[names[single] == name], size, replace=False))
    left_out = tuple(groups[sizes < fewest].tolist())
    return np.sort(np.concatenate(parts)), kept, left_out


def neighbour_purity(z: NDArray, label: NDArray[np.int64], neighbours: int) -> "Statistic":
    """Share of each record's nearest neighbours, itself not counted, that are of its own group, as a mean over records.

    The statistic takes weights 0 and 1: only records of weight 1 have neighbours, and are some.
    """
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(neighbours, len(z) - 1)
    # Of so many a random half holds enough but once in millions; then those it holds are looked at.
    found = NearestNeighbors(n_neighbors=min(6 * neighbours + 10, len(z) - 1)).fit(z).kneighbors(return_distance=False)
    is_own = label[found] == label[:, None]

    def purity(weights: "Weights") -> NDArray[np.float64]:
        shares = []
        for kept in weights > 0:
            near = kept[found[kept]]
            near &= near.cumsum(axis=1) <= neighbours
            shares.append(np.mean((near & is_own[kept]).sum(axis=1) / np.maximum(near.sum(axis=1), 1)))
        return np.array(shares, np.float64)

    return purity


def probe_aucs(
    z: NDArray, label: NDArray[np.int64], groups: NDArray[np.int64], seed: int, *, folds: int, c: float
) -> list[float]:
    """Area under the ROC curve of a linear probe for the group, on each held-out fold of patients. c: inverse L2 penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    # Its seed has 32 bits at most. Folds by patient stay right if a sample ever has two records of one.
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    many = label.max() > 1
    aucs = []
    for train, test in splitter.split(z, label, groups):
        scaler = fit_scaler(z[train], "guarded")
        # Its thousands of small products lose more to a second thread on a busy machine (34 s against 3 s) than they gain.
        with threadpool_limits(1):
            probe = LogisticRegression(C=c, max_iter=5000, tol=1e-3).fit(scaler(z[train]), label[train])
        score = probe.predict_proba(scaler(z[test]))
        aucs.append(float(roc_auc_score(label[test], score if many else score[:, 1], multi_class="ovr")))
    return aucs


class Separation(Spec):
    """How far the values of one column lie apart in one embedding."""

    values: tuple[str, ...]  # with patients enough
    patients: int  # of each value, one record each
    probe_auc: float  # macro one-vs-rest, mean over folds of patients
    neighbours: float  # share of the nearest records that have the same value; by chance 1 / values
    silhouette: float

    @classmethod
    def of(
        cls,
        features: Features,
        values: NDArray[np.str_],
        patients: NDArray[np.int64],
        seed: int,
        neighbours: int,
        *,
        fewest: int,
        most: int,
    ) -> "Separation | None":
        """Measure features (record, unit) and a value of each, empty if unknown; None if too few patients have one."""
        from sklearn.metrics import silhouette_score

        known = np.flatnonzero(values != "")
        try:
            # A probe needs a patient of every value in each fold.
            fewest = max(fewest, _FOLDS)
            places, kept, _ = balanced_sample(values[known], patients[known], seed, fewest=fewest, most=most)
        except Unanswerable:
            return None
        chosen = known[places]
        z = fit_scaler(features[chosen], "guarded")(features[chosen])
        label = np.searchsorted(kept, values[chosen])
        fold_seed = derive_seed(seed, "separability", "folds")
        return cls(
            values=tuple(kept.tolist()),
            patients=len(chosen) // len(kept),
            probe_auc=float(np.mean(probe_aucs(z, label, patients[chosen], fold_seed, folds=_FOLDS, c=1.0))),
            neighbours=float(neighbour_purity(z, label, neighbours)(np.ones((1, len(z))))[0]),
            silhouette=float(silhouette_score(z, label)),
        )
