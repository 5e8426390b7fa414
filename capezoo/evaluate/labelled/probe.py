"""Cross-validate simple models on features of frozen encoders, and compare encoders on the same recordings.

Every model is one of scikit-learn. Patients are never on both sides: not of the folds, and not of the inner folds that choose
a model's setting. All numbers are of answers given to recordings that the model had not seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.errors import Unanswerable
from capezoo.evaluate.labelled.examples import Labelled
from capezoo.evaluate.measure.statistics import Bootstrap, Statistic, Weights, auroc, patient_draws, weighted_mean
from ecgcohorts.errors import SpecError

Method = Literal["linear", "knn", "boosting"]
_FOLDS, _INNER = 5, 3  # our defaults
# Regularisation and neighbours that are tried: our defaults, each grid spans what 100 to 100,000 recordings ask for.
_STRENGTHS = tuple(10.0**power for power in range(-5, 3))
_NEIGHBOURS = (5, 15, 45)
# Of calibration, equally full; the usual number.
_BINS = 10
_ALONE = "covariates alone"


@dataclass(frozen=True, eq=False)
class Row:
    """What one table of features answers. metrics: by name. answers: (record,) or (record, class), each of a model that has
    not seen the recording or its patient.
    """

    name: str
    metrics: Mapping[str, Bootstrap]
    answers: NDArray[np.float64]
    settings: tuple[str, ...]  # chosen in each fold
    table: Mapping[str, Any] = field(default_factory=dict)  # binary: threshold, confusion, calibration


def probe(
    data: Labelled, method: Method = "linear", *, folds: int = _FOLDS, seed: int = 0, resamples: int = 1000
) -> list[Row]:
    """Return a row for each table of features and, if there are covariates, one for these alone.

    Raises Unanswerable if there are fewer patients, or fewer of a class, than folds.
    """
    parts = _folds(data, folds, seed)
    inputs = {name: np.hstack([features, data.covariates]) for name, features in data.features.items()}
    if data.covariate_names:
        inputs[_ALONE] = data.covariates
    rows = []
    for name, x in inputs.items():
        answers, settings = _answered(data, x, method, parts, seed)
        metrics = {
            metric: patient_draws(data.patient, statistic, resamples, seed)
            for metric, statistic in _metrics(data, answers, parts).items()
        }
        table = _decided(data, answers, parts) if data.kind == "binary" else {}
        rows.append(Row(name, metrics, answers, settings, table))
    return rows


def _folds(data: Labelled, folds: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if folds < 2:
        raise SpecError(f"found {folds} folds, expected 2 or more: one is to learn from, one to test on.")
    people = len(np.unique(data.patient))
    if people < 2 * folds:
        raise Unanswerable(
            f"found {people} patients with an answer, expected {2 * folds} for {folds} folds. Label more."
        )
    if data.kind == "number":
        return list(GroupKFold(folds, shuffle=True, random_state=seed).split(data.target, groups=data.patient))
    for place, name in enumerate(data.classes):
        count = len(np.unique(data.patient[data.target == place]))
        if count < folds:
            raise Unanswerable(
                f"found {count} patients of class {name!r}, expected {folds} or more. Label more, or fold less."
            )
    divided = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(divided.split(data.target, data.target, groups=data.patient))


def fitted(
    x: NDArray[Any], target: NDArray[np.float64], patient: NDArray[np.int64], kind: str, method: Method, seed: int
) -> Any:
    """Return a model of scikit-learn, its setting chosen by inner folds of patients."""
    from sklearn.model_selection import GridSearchCV, GroupKFold

    model, grid = _model(kind, method, seed)
    if not grid:
        return model.fit(x, target)
    inner = GroupKFold(_INNER, shuffle=True, random_state=seed).split(x, target, groups=patient)
    # No model learns from one class. Of the rarest there are two patients here, or one: some folds have what it takes.
    able = [(train, test) for train, test in inner if kind == "number" or len(np.unique(target[train])) > 1]
    return GridSearchCV(model, grid, scoring=_loss(kind, target), cv=able, error_score="raise").fit(x, target)


def _loss(kind: str, target: NDArray[np.float64]) -> Any:
    """Return what scores a setting. Of a rare class an inner fold may have no case, to learn from or to answer."""
    if kind == "number":
        return "neg_mean_absolute_error"
    from sklearn.metrics import log_loss

    classes = np.unique(target)

    def score(model: Any, x: NDArray[Any], truth: NDArray[np.float64]) -> float:
        probabilities = np.zeros((len(x), len(classes)))
        probabilities[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(x)
        return -float(log_loss(truth, probabilities, labels=classes))

    return score


def _model(kind: str, method: Method, seed: int) -> tuple[Any, dict[str, Any]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    is_number = kind == "number"
    if method == "boosting":  # knows what is missing, and stops by itself
        kinds = HistGradientBoostingRegressor, HistGradientBoostingClassifier
        return kinds[not is_number](early_stopping=True, random_state=seed), {}
    if method == "knn":
        last: Any = KNeighborsRegressor(weights="distance") if is_number else KNeighborsClassifier(weights="distance")
        grid: dict[str, Any] = {f"{type(last).__name__.lower()}__n_neighbors": list(_NEIGHBOURS)}
    elif is_number:
        last, grid = Ridge(), {"ridge__alpha": [1 / strength for strength in _STRENGTHS]}
    else:
        last, grid = LogisticRegression(max_iter=2000), {"logisticregression__C": list(_STRENGTHS)}
    # A column of which a fold knows nothing stays, or coefficients would belong to other columns.
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(fill, StandardScaler(), last), grid


def _answered(
    data: Labelled, x: NDArray[Any], method: Method, parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]], seed: int
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    width = (len(data.classes),) if data.kind == "classes" else ()
    answers, settings = np.full((len(x), *width), np.nan), []
    for train, test in parts:
        model = fitted(x[train], data.target[train], data.patient[train], data.kind, method, seed)
        answers[test] = answer(model, x[test], data.kind, len(data.classes))
        settings.append(", ".join(f"{key}={value:g}" for key, value in getattr(model, "best_params_", {}).items()))
    return answers, tuple(settings)


def answer(model: Any, x: NDArray[Any], kind: str, classes: int) -> NDArray[np.float64]:
    """Return numbers, the probability of the positive class, or of every class."""
    if kind == "number":
        return np.asarray(model.predict(x), np.float64)
    probabilities = np.zeros((len(x), classes))
    probabilities[:, model.classes_.astype(np.int64)] = model.predict_proba(x)
    return probabilities[:, 1] if kind == "binary" else probabilities


def _metrics(
    data: Labelled, answers: NDArray[np.float64], parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> dict[str, Statistic]:
    truth, tests = data.target, [test for _, test in parts]
    if data.kind == "number":
        error, spread = np.abs(answers - truth), np.abs(truth - np.median(truth))
        return {"mae": weighted_mean(error), "mae_of_the_median": weighted_mean(spread)}
    if data.kind == "binary":
        return {
            "auroc": _within(tests, auroc, truth == 1, answers),
            "average_precision": _within(tests, _average_precision, truth == 1, answers),
            "brier": weighted_mean((answers - truth) ** 2),
        }
    each = [_within(tests, auroc, truth == place, answers[:, place]) for place in range(len(data.classes))]
    return {
        # A class without a case in a draw is left out of that draw's mean.
        "macro_auroc": lambda weights: np.nanmean([one(weights) for one in each], axis=0),
        "accuracy": weighted_mean(answers.argmax(1) == truth),
    }


def _within(
    tests: list[NDArray[np.int64]],
    measure: Callable[[NDArray[np.bool_], NDArray[np.float64], Weights], NDArray[np.float64]],
    positive: NDArray[np.bool_],
    score: NDArray[np.float64],
) -> Statistic:
    """Return the mean of a measure of order over folds, each counting by its pairs of a positive and a negative."""

    # Not over all answers at once: a fold with more positives leaves fewer to learn from, so that a model that knows
    # nothing answers lower just there, and 240 random recordings have an area of .32.
    def statistic(weights: Weights) -> NDArray[np.float64]:
        total, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for test in tests:
            here = weights[:, test]
            found, count = measure(positive[test], score[test], here), here @ positive[test] * (here @ ~positive[test])
            total += np.where(count > 0, np.nan_to_num(found) * count, 0)
            pairs += count
        return np.divide(total, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)

    return statistic


def _average_precision(
    positive: NDArray[np.bool_], score: NDArray[np.float64], weights: Weights
) -> NDArray[np.float64]:
    """Return the mean of precision over recall, ties as one step; NaN without a positive. Source: scikit-learn's definition."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    up = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    seen = np.cumsum(weights[:, order], axis=1)[:, ends]
    precision = np.divide(up, seen, out=np.zeros_like(up), where=seen > 0)
    gained = np.diff(up, axis=1, prepend=0.0)
    total = up[:, -1]
    return np.divide((precision * gained).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


def _decided(
    data: Labelled, answers: NDArray[np.float64], parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> dict[str, Any]:
    """Return decisions at a threshold that other folds chose, and how well probabilities are calibrated."""
    truth, said = data.target == 1, np.zeros(len(answers), bool)
    thresholds = []
    for train, test in parts:
        # The threshold of a fold is chosen on the answers to all others: no truth about its patients is compared with it.
        thresholds.append(_youden(truth[train], answers[train]))
        said[test] = answers[test] >= thresholds[-1]
    outcomes = [
        [int(((truth == is_true) & (said == is_said)).sum()) for is_said in (False, True)] for is_true in (False, True)
    ]
    return {
        "threshold": float(np.median(thresholds)),
        "sensitivity": float(said[truth].mean()),
        "specificity": float((~said[~truth]).mean()),
        "confusion": outcomes,  # rows: truth, negative first; columns: said
        "calibration": _calibration(truth, answers),
    }


def _youden(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Return the threshold with the largest sum of sensitivity and specificity."""
    from sklearn.metrics import roc_curve

    false, true, thresholds = roc_curve(positive, score)
    return float(thresholds[1:][np.argmax((true - false)[1:])])


def _calibration(positive: NDArray[np.bool_], probability: NDArray[np.float64]) -> dict[str, Any]:
    """Return mean probability, share of positives and count of equally full bins, and their mean distance (ECE)."""
    bins = [part for part in np.array_split(np.argsort(probability, kind="stable"), _BINS) if len(part)]
    said, seen, count = (np.array([measure(part) for part in bins]) for measure in
                         (lambda part: probability[part].mean(), lambda part: positive[part].mean(), len))  # fmt: skip
    return {
        "probability": said.tolist(),
        "share": seen.tolist(),
        "count": count.tolist(),
        "expected_error": float(np.average(np.abs(said - seen), weights=count)),
    }
