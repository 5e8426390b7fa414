"""Results as tables that a person reads. Numbers come from results.json; nothing is computed here but their order."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from capezoo.evaluate.measure.scalers import SCALERS, ScalerName
from capezoo.evaluate.results import OodResult, Score, StudyResult, Task, WeightsResult

FEWEST_IN_MEAN = 20  # patients; our default: a cohort of five would count as much as one of five thousand
DASH = "\N{EN DASH}"
TITLES: dict[Task, str] = {"age": "Age: mean absolute error in years", "sex": "Sex: area under the ROC curve"}
ELSEWHERE: dict[Task, str] = {"age": "age error elsewhere, years", "sex": "sex AUROC elsewhere"}
SEPARABILITY = {
    "knn_purity": "kNN purity",
    "between_cohort_variance": "variance between cohorts",
    "probe_auc": "linear probe AUC",
    "silhouette": "silhouette",
}


def scores(result: OodResult, task: Task) -> pd.DataFrame:
    """Value of the averaged prediction with its patient interval: one row per weights and scaler, one column per cohort.

    The cohort the heads were trained on comes first; the mean over the others is the last column.
    """
    cohorts = tested(result, task)
    rows: dict[str, list[str]] = {}
    for weights in result.weights:
        for scaler in SCALERS:
            found = [weights.score(task, cohort, scaler) for cohort in cohorts]
            mean = mean_elsewhere(result, weights, task, scaler)
            rows[f"{weights.name}, {scaler}"] = [*map(_score, found), DASH if mean is None else _number(mean, task)]
    if task == "age":
        constant = {test.cohort: test.constant_age_mae for test in result.tests}
        known = [constant[name] for name in cohorts]
        counted = {
            score.cohort
            for score in result.weights[0].scores
            if score.task == task and score.cohort != result.config.train_cohort and score.patients >= FEWEST_IN_MEAN
        }
        values = [value for name, value in constant.items() if name in counted and value is not None]
        mean_text = f"{np.mean(values):.2f}" if values else DASH
        rows["median age, always"] = [*(DASH if value is None else f"{value:.2f}" for value in known), mean_text]
    columns = [f"{name} (trained here)" if name == result.config.train_cohort else name for name in cohorts]
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=[*columns, f"mean of the others with {FEWEST_IN_MEAN} patients or more"]
    )


def tested(result: OodResult, task: Task) -> list[str]:
    """Cohorts with scores of a task, the training cohort first."""
    names = list(
        dict.fromkeys(score.cohort for weights in result.weights for score in weights.scores if score.task == task)
    )
    return sorted(names, key=lambda name: name != result.config.train_cohort)


def mean_elsewhere(result: OodResult, weights: WeightsResult, task: Task, scaler: ScalerName) -> float | None:
    """Mean of the averaged prediction's metric over the cohorts not trained on, each cohort counting alike.

    Cohorts with fewer than FEWEST_IN_MEAN labelled test patients do not count.
    """
    found = [weights.score(task, name, scaler) for name in tested(result, task) if name != result.config.train_cohort]
    values = [score.averaged for score in found if score is not None and score.patients >= FEWEST_IN_MEAN]
    return float(np.mean(values)) if values else None


def runs(result: OodResult, task: Task) -> pd.DataFrame:
    """Mean over runs and its standard error, as the paper prints them."""
    cohorts = tested(result, task)
    rows = {
        f"{weights.name}, {scaler}": [_over_runs(weights.score(task, cohort, scaler)) for cohort in cohorts]
        for weights in result.weights
        for scaler in SCALERS
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=cohorts)


def comparisons(result: OodResult, task: Task) -> pd.DataFrame:
    """First minus second on the same records: difference, patient interval, and p of the paired tests."""
    rows = {
        f"{row.first} minus {row.second}, {row.cohort}, {row.scaler}": [
            _number(row.difference, task),
            _range(row.low, row.high, task),
            _p(row.wilcoxon_p),
            _p(row.delong_p),
        ]
        for row in result.comparisons
        if row.task == task
    }
    columns = ["difference", "95 % interval", "Wilcoxon p over runs", "DeLong p, one ECG per patient"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def separability(study: StudyResult) -> pd.DataFrame:
    """How well each embedding tells cohorts apart, with intervals and what chance would give."""
    rows: dict[str, list[str]] = {}
    for name, measured in study.separability.items():
        by_name = {metric.name: metric for metric in measured.metrics}
        rows[name] = [
            f"{by_name[key].value:.3f}{_range(by_name[key].low, by_name[key].high, None, ' ({})')}"
            for key in SEPARABILITY
        ]
        k, n = len(measured.cohorts), len(measured.cohorts) * measured.patients_per_cohort
        rows["chance"] = [f"{1 / k:.3f}", f"{(k - 1) / (n - 1):.3f}", "0.500", "0 or less"]
    if "chance" in rows:
        rows["chance"] = rows.pop("chance")  # last
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(SEPARABILITY.values()))


def health(result: OodResult) -> pd.DataFrame:
    """Units of each embedding on the training part, and how far other cohorts leave their range."""
    rows = {}
    for weights in result.weights:
        state = weights.health
        largest = max(state.largest_z, key=lambda name: state.largest_z[name], default=DASH)
        rows[weights.name] = {
            "features": state.units,
            "dead": state.dead,
            "near-dead": state.near_dead,
            "effective rank": f"{state.effective_rank:.1f}",
            "largest |z|": f"{state.largest_z.get(largest, 0.0):.3g} in {largest}",
            "test records seen in pretraining": DASH
            if weights.seen is None
            else f"{sum(weights.seen.values()):,} of {sum(test.records for test in result.tests):,}",
            "test patients seen in pretraining": DASH
            if weights.seen_patients is None
            else f"{sum(weights.seen_patients.values()):,} of {sum(test.patients for test in result.tests):,}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tested_records(result: OodResult) -> pd.DataFrame:
    """Who the heads are tested on."""
    rows = {
        test.cohort: {
            "records": test.records,
            "patients": test.patients,
            "age known, below 90": test.age_known,
            "age 90 or more, left out": test.age_90,
            "sex known": test.sex_known,
        }
        for test in result.tests
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def over_seeds(studies: Sequence[StudyResult]) -> pd.DataFrame:
    """First minus second set of weights of every study, paired by study: one row per measure.

    Age and sex: mean over the cohorts the heads were not trained on, guarded and plain.
    """
    measures: dict[str, Callable[[StudyResult, WeightsResult], float | None]] = {
        title: partial(_separability, key) for key, title in SEPARABILITY.items()
    }
    for task, title in ELSEWHERE.items():
        for scaler in SCALERS:
            measures[f"{title}, {scaler}"] = partial(_elsewhere, task, scaler)
    rows = {}
    for title, measure in measures.items():
        pairs = [(measure(study, study.ood.weights[0]), measure(study, study.ood.weights[1])) for study in studies]
        whole = [(a, b) for a, b in pairs if a is not None and b is not None]
        if whole:
            differences = [a - b for a, b in whole]
            rows[title] = {
                "first": ", ".join(f"{a:.3g}" for a, _ in whole),
                "second": ", ".join(f"{b:.3g}" for _, b in whole),
                "mean difference": f"{np.mean(differences):+.3g}",
                "second lower in": f"{sum(d > 0 for d in differences)} of {len(whole)}",
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def _separability(key: str, study: StudyResult, weights: WeightsResult) -> float | None:
    return study.separability[weights.name].value(key) if weights.name in study.separability else None


def _elsewhere(task: Task, scaler: ScalerName, study: StudyResult, weights: WeightsResult) -> float | None:
    return mean_elsewhere(study.ood, weights, task, scaler)


def _score(score: Score | None) -> str:
    if score is None:
        return DASH
    return f"{_number(score.averaged, score.task)}{_range(score.low, score.high, score.task, ' ({})')}"


def _over_runs(score: Score | None) -> str:
    if score is None:
        return DASH
    return _number(score.mean, score.task) + ("" if score.se is None else f" ± {score.se:.2g}")


def _number(value: float, task: Task | None) -> str:
    return f"{value:.2f}" if task == "age" else f"{value:.3f}"


def _range(low: float | None, high: float | None, task: Task | None, shape: str = "{}") -> str:
    if low is None or high is None:
        return "" if shape != "{}" else DASH
    return shape.format(f"{_number(low, task)} to {_number(high, task)}")


def _p(value: float | None) -> str:
    return DASH if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"
