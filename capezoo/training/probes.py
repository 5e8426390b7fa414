"""What embeddings of held-out patients tell while training: their cohort, and age and sex where those are known.

Small classifiers, fitted anew each time on four fifths of the patients and tested on the rest, in turn. Each has beside
it what chance gives. A rise of the cohort probes means that the encoder learns the recorder.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

FOLDS = 5  # our default
NEIGHBOURS = 15  # our default, as in the evaluation of finished weights
FEWEST = 20  # patients of a cohort, with an age, or of each sex; fewer are not probed; our default
RIDGE = (1.0, 10.0, 100.0, 1000.0)  # strengths tried for age, by leaving one patient out; our default
LOGISTIC_C = 0.1  # inverse strength of the L2 penalty; our default
MEASURES = ("knn_cohort", "cohort_auc", "age_mae", "sex_auc")
COLUMNS = tuple(column for name in MEASURES for column in (name, f"{name}_chance"))

Embeddings = NDArray[np.float32]  # (patient, unit)


def measure(embeddings: Embeddings, index: "CohortIndex", seed: int) -> dict[str, float]:
    """All probes that the index has enough patients for, by the names in COLUMNS. index: one entry an embedding.

    knn_cohort: share of each ECG's nearest neighbours that are of its cohort; cohort_auc, sex_auc: area under the ROC
    curve (cohorts: mean of each against the rest); age_mae: mean absolute error in years, by chance that of one age
    for all. Cohorts count alike: as many patients of each as the smallest has.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    with threadpool_limits(1):  # small products: a second thread costs more than it gains
        return (
            _cohorts(embeddings, index["cohort"], seed)
            | _age(embeddings, index["age"], seed)
            | _sex(embeddings, index["sex"], seed)
        )


def _cohorts(embeddings: Embeddings, cohort: NDArray[np.int32], seed: int) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    names, sizes = np.unique(cohort, return_counts=True)
    names = names[sizes >= FEWEST]
    if len(names) < 2:
        return {}
    each = int(sizes[sizes >= FEWEST].min())
    chosen = np.concatenate([np.flatnonzero(cohort == name)[:each] for name in names])
    x, y = embeddings[chosen], np.searchsorted(names, cohort[chosen])
    score = _out_of_fold(x, y, y, seed, _logistic)
    auc = np.mean([roc_auc_score(y == code, score[:, code]) for code in range(len(names))])
    return {"knn_cohort": _neighbour_share(x, y), "knn_cohort_chance": (each - 1) / (len(y) - 1),
            "cohort_auc": float(auc), "cohort_auc_chance": 0.5}  # fmt: skip


def _neighbour_share(x: Embeddings, y: NDArray[np.int64]) -> float:
    """Mean share of each row's nearest other rows, by cosine, that have its label."""
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x) - 1), metric="cosine").fit(x)
    found = finder.kneighbors(return_distance=False)  # without arguments a row is not its own neighbour
    return float((y[found] == y[:, None]).mean())


def _age(embeddings: Embeddings, age: NDArray[np.float32], seed: int) -> dict[str, float]:
    known = np.isfinite(age)
    if known.sum() < FEWEST:
        return {}
    y = age[known].astype(np.float64)
    old = (y > np.median(y)).astype(np.int64)  # both halves in every fold
    found = _out_of_fold(embeddings[known], y, old, seed, _ridge)
    chance = _out_of_fold(embeddings[known], y, old, seed, lambda x, y, new: np.full(len(new), np.median(y)))
    return {"age_mae": float(np.abs(found - y).mean()), "age_mae_chance": float(np.abs(chance - y).mean())}


def _sex(embeddings: Embeddings, sex: NDArray[np.int8], seed: int) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    known = sex >= 0
    y = sex[known].astype(np.int64)
    if min(np.bincount(y, minlength=2)) < FEWEST:
        return {}
    score = _out_of_fold(embeddings[known], y, y, seed, _logistic)[:, 1]
    return {"sex_auc": float(roc_auc_score(y, score)), "sex_auc_chance": 0.5}


Fit = Callable[[NDArray, NDArray, NDArray], NDArray]  # known x, known y, new x -> predictions for the new


def _out_of_fold(x: Embeddings, y: NDArray, strata: NDArray, seed: int, fit: Fit) -> NDArray[np.float64]:
    """Predictions for each row by a model that has not seen it; folds hold as much of each stratum."""
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    parts: list[tuple[NDArray, NDArray]] = []
    for known, new in StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(x, strata):
        # By the known patients alone: the scale would otherwise have seen those it is tested on.
        scaler = StandardScaler().fit(x[known])
        parts.append((new, fit(scaler.transform(x[known]), y[known], scaler.transform(x[new]))))
    order = np.argsort(np.concatenate([new for new, _ in parts]))
    return np.concatenate([predicted for _, predicted in parts]).astype(np.float64)[order]


def _logistic(x: NDArray, y: NDArray, new: NDArray) -> NDArray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=LOGISTIC_C, max_iter=2000, tol=1e-3).fit(x, y)
    return np.asarray(model.predict_proba(new))


def _ridge(x: NDArray, y: NDArray, new: NDArray) -> NDArray:
    from sklearn.linear_model import RidgeCV

    return np.asarray(RidgeCV(alphas=RIDGE).fit(x, y).predict(new))
