"""Out of distribution: heads for age and sex are trained on one cohort's embeddings and tested on every cohort.

Protocol of CAPE's second experiment (arXiv 2509.10369): encoder frozen, one cohort split by patient, several heads per
task that differ in initial weights and order only, the same test records for all weights. Beyond it: a guarded scaler
beside the plain one, intervals that draw patients, the error of a constant answer, and the health of the features.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import TASKS, Home, Parts, Task
from capezoo.evaluate.measure.scalers import SCALERS, Health, ScalerName
from capezoo.evaluate.questions import Context, Figure, Subject, Table
from capezoo.specs.base import Spec
from capezoo.specs.card import Metric
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import Limits, intervals
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.tasks import Answers, Exam

# Patients; our default. Without it a cohort of five would count as much as one of five thousand.
_FEWEST_IN_MEAN = 20
EXAMPLES = (
    "capezoo evaluate ood --weights w/x --weights random --store store.zarr --train-cohort ptb_xl --seed 0 -o study",
    "capezoo evaluate ood --weights w/x --store store.zarr --train-cohort north --seed 0 --lr 1e-3 --allow-seen -o study",
)
_CARD_NAMES: dict[Task, str] = {"age": "age_mae_years", "sex": "sex_auroc"}
_HEADINGS: dict[Task, str] = {"age": "Age: mean absolute error in years", "sex": "Sex: area under the ROC curve"}
_ELSEWHERE: dict[Task, str] = {"age": "age error elsewhere, years", "sex": "sex AUROC elsewhere"}


class Config(Home):
    """How many heads, and how they are trained."""

    runs: int = Field(3, gt=0, description="heads per task; CAPE has 10")
    lr: float = Field(1e-4, gt=0, description="learning rate of the heads; CAPE's. Small cohorts may need more")
    max_epochs: int = Field(100, gt=0, description="of each head at most; CAPE")
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")


class _TestSet(Spec):
    """Records of one cohort that heads are tested on: the same for all weights and all runs."""

    cohort: str
    records: int
    patients: int
    age_known: int  # and below 90
    age_90: int  # 90 or more: ages are capped there, so left out
    sex_known: int
    constant_age_mae: float | None  # error of always answering the training cohort's median age


class _Score(Spec):
    """One metric of one set of weights in one cohort."""

    task: Task
    cohort: str
    scaler: ScalerName
    runs: tuple[float, ...]  # one value per head
    mean: float
    se: float | None  # standard error over runs
    runs_low: float | None  # t interval over runs
    runs_high: float | None
    averaged: float  # of the prediction averaged over runs
    low: float | None  # of `averaged`, patients drawn anew
    high: float | None
    records: int
    patients: int


class _Measured(Spec):
    """Everything measured on one set of weights."""

    name: str
    units: int
    seen: dict[str, int] | None  # cohort -> test records that pretraining had seen; None: unknown
    seen_patients: dict[str, int] | None = None  # cohort -> test patients of whom it had seen a recording in the store
    health: Health
    epochs: dict[str, tuple[int, ...]]  # "task scaler" -> epochs of each head
    scores: tuple[_Score, ...]

    def score(self, task: Task, cohort: str, scaler: ScalerName) -> _Score | None:
        return next((s for s in self.scores if (s.task, s.cohort, s.scaler) == (task, cohort, scaler)), None)


class _Comparison(Spec):
    """Two sets of weights on the same test records: metric of `first` minus metric of `second`."""

    first: str
    second: str
    task: Task
    cohort: str
    scaler: ScalerName
    difference: float  # of the averaged predictions
    low: float | None
    high: float | None
    wilcoxon_p: float | None  # paired runs; n runs never give less than 2 / 2**n
    delong_p: float | None  # sex only, one record per patient
    delong_patients: int | None


class Result(Spec):
    """Scores of all weights in all cohorts, and every pair of weights compared."""

    train_cohort: str
    train_records: dict[str, int]  # task -> labelled training records
    tests: tuple[_TestSet, ...]
    weights: tuple[_Measured, ...]
    comparisons: tuple[_Comparison, ...]


def run(context: Context, config: Config) -> Result:
    """Train heads on `config.train_cohort` for every set of weights and test them on all cohorts.

    Raises SpecError for an unknown cohort, and Unanswerable if the training cohort has labels for neither task.
    """
    from capezoo.evaluate.measure.tasks import FEWEST, Exam, sit, targets

    index = context.index
    parts = config.parts(index, context.seed, context.store)
    # All weights sit the same exams, with the same draws of patients: differences are paired.
    all_exams = Exam.find(index, parts, context.seed, config.resamples)
    if not all_exams:
        raise Unanswerable(
            f"cohort {config.train_cohort!r}: found ages or sexes of fewer than {FEWEST} training or validation "
            "records, expected more. Train on another cohort."
        )
    tasks = [task for task in TASKS if any(exam.task == task for exam in all_exams)]
    training = config.model_dump(include={"runs", "lr", "max_epochs"})
    answers: list[Answers] = []
    weights: list[_Measured] = []
    for subject in context.subjects:
        answers.append({})
        epochs: dict[str, tuple[int, ...]] = {}
        for task in tasks:
            mine = [exam for exam in all_exams if exam.task == task]
            answered, trained = sit(subject.features, index, parts, mine, **training)
            answers[-1] |= answered
            epochs |= trained
            context.progress(len(weights) * len(tasks) + tasks.index(task) + 1, len(context.subjects) * len(tasks))
        scores = tuple(_score(exam, scaler, answers[-1]) for scaler in SCALERS for exam in all_exams)
        weights.append(_measured(subject, parts, scores, epochs))
    pairs = combinations(zip((subject.name for subject in context.subjects), answers, strict=True), 2)
    return Result(
        train_cohort=config.train_cohort,
        train_records={task: int(targets(index, parts.train, task)[1].sum()) for task in tasks},
        tests=tuple(_test_set(index, parts, name) for name in parts.tests),
        weights=tuple(weights),
        comparisons=tuple(
            _compare(exam, scaler, first, second) for first, second in pairs for scaler in SCALERS for exam in all_exams
        ),
    )


def tables(result: Result) -> Sequence[Table]:
    """Scores, differences and test records of each task, and the health of the features."""
    counts = " and ".join(f"{task} of {number:,} records" for task, number in result.train_records.items())
    caption = (
        f"Trained on {result.train_cohort}: {counts}. Plain: z-score by the training cohort. Guarded: small deviations "
        "are floored, values cut at ten deviations. The value is that of the prediction averaged over the heads; its "
        "95 % interval draws patients anew."
    )
    shown = []
    for task in (task for task in TASKS if task in result.train_records):
        shown.append(Table(_HEADINGS[task], _scores(result, task), caption))
        shown.append(Table("mean over heads ± standard error", _runs(result, task), folded=True))
        compared = _comparisons(result, task)
        if len(compared):
            shown.append(Table("paired differences", compared, folded=True))
    shown.append(Table("Features", _health(result), "units on the training part of the cohort"))
    shown.append(Table("test records", _test_records(result), folded=True))
    return shown


def figures(result: Result) -> Sequence[Figure]:
    """Draw each task's scores with the guarded scaler and their intervals: a row a cohort, a colour each set of weights."""
    drawn = []
    for task in (task for task in TASKS if task in result.train_records):
        cohorts = _tested(result, task)
        series = {weights.name: [_limits(weights.score(task, name, "guarded")) for name in cohorts]
                  for weights in result.weights}  # fmt: skip
        svg = intervals(_HEADINGS[task], _columns(result, cohorts), series, "guarded scaler, 95 % intervals")
        drawn.append(Figure(task, svg))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """Mean error and AUROC over the cohorts the heads were not trained on, with the guarded scaler."""
    return {
        weights.name: {title: _mean_elsewhere(result, weights, task, "guarded") for task, title in _ELSEWHERE.items()}
        for weights in result.weights
    }


def paired(result: Result) -> dict[str, dict[str, float | None]]:
    """The same with either scaler."""
    titles = {(task, scaler): f"{title}, {scaler}" for task, title in _ELSEWHERE.items() for scaler in SCALERS}
    return {
        weights.name: {title: _mean_elsewhere(result, weights, *key) for key, title in titles.items()}
        for weights in result.weights
    }


def card_metrics(result: Result, weights: str) -> tuple[Metric, ...]:
    """Scores with the guarded scaler, one metric a task and cohort."""
    how = f"heads trained on {result.train_cohort}, guarded scaler"
    mine = next(one for one in result.weights if one.name == weights)
    return tuple(
        Metric(
            name=_CARD_NAMES[s.task], cohort=s.cohort, value=s.averaged, low=s.low, high=s.high, n=s.records, method=how
        )
        for s in mine.scores
        if s.scaler == "guarded"
    )


def _mean_elsewhere(result: Result, weights: _Measured, task: Task, scaler: ScalerName) -> float | None:
    """Mean of the averaged prediction's metric over the cohorts not trained on, each cohort counting alike.

    Cohorts with fewer than _FEWEST_IN_MEAN labelled test patients do not count.
    """
    found = [weights.score(task, name, scaler) for name in _tested(result, task) if name != result.train_cohort]
    values = [score.averaged for score in found if score is not None and score.patients >= _FEWEST_IN_MEAN]
    return float(np.mean(values)) if values else None


def _tested(result: Result, task: Task) -> list[str]:
    """Cohorts with scores of a task, the training cohort first."""
    names = dict.fromkeys(s.cohort for weights in result.weights for s in weights.scores if s.task == task)
    # `sorted` is stable: the other cohorts keep the order of the store.
    return sorted(names, key=lambda name: name != result.train_cohort)


def _columns(result: Result, cohorts: Sequence[str]) -> list[str]:
    return [f"{name} (trained here)" if name == result.train_cohort else name for name in cohorts]


def _scores(result: Result, task: Task) -> pd.DataFrame:
    """Value of the averaged prediction with its interval: a row per weights and scaler, a column per cohort.

    The last column is the mean over the cohorts not trained on.
    """
    cohorts = _tested(result, task)
    rows: dict[str, list[str]] = {}
    for weights in result.weights:
        for scaler in SCALERS:
            found = [_score_text(weights.score(task, cohort, scaler)) for cohort in cohorts]
            mean = _mean_elsewhere(result, weights, task, scaler)
            rows[f"{weights.name}, {scaler}"] = [*found, NOTHING if mean is None else _number(mean, task)]
    if task == "age":
        constant = {test.cohort: test.constant_age_mae for test in result.tests}
        # The same cohorts as in the mean of the scores, or the two could not be compared.
        counted = {
            s.cohort
            for s in result.weights[0].scores
            if s.task == task and s.cohort != result.train_cohort and s.patients >= _FEWEST_IN_MEAN
        }
        values = [value for name, value in constant.items() if name in counted and value is not None]
        known = [constant[name] for name in cohorts] + [float(np.mean(values)) if values else None]
        rows["median age, always"] = [NOTHING if value is None else f"{value:.2f}" for value in known]
    mean_title = f"mean of the others with {_FEWEST_IN_MEAN} patients or more"
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*_columns(result, cohorts), mean_title])


def _runs(result: Result, task: Task) -> pd.DataFrame:
    """Mean over runs and its standard error, as the paper prints them."""
    cohorts = _tested(result, task)
    rows: dict[str, list[str]] = {}
    for weights in result.weights:
        for scaler in SCALERS:
            scores = [weights.score(task, cohort, scaler) for cohort in cohorts]
            rows[f"{weights.name}, {scaler}"] = [
                _number(s.mean, task) + ("" if s.se is None else f" ± {s.se:.2g}") if s else NOTHING for s in scores
            ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=cohorts)


def _comparisons(result: Result, task: Task) -> pd.DataFrame:
    """First minus second on the same records: difference, patient interval, and p of the paired tests."""
    rows = {
        f"{row.first} minus {row.second}, {row.cohort}, {row.scaler}": [
            _number(row.difference, task),
            _range(row.low, row.high, task) or NOTHING,
            _p(row.wilcoxon_p),
            _p(row.delong_p),
        ]
        for row in result.comparisons
        if row.task == task
    }
    columns = ["difference", "95 % interval", "Wilcoxon p over runs", "DeLong p, one ECG per patient"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _health(result: Result) -> pd.DataFrame:
    """Units of each embedding on the training part, and how far other cohorts leave their range."""
    records, patients = (sum(getattr(test, what) for test in result.tests) for what in ("records", "patients"))
    rows = {}
    for weights in result.weights:
        state = weights.health
        largest = max(state.largest_z, key=lambda name: state.largest_z[name], default=NOTHING)
        rows[weights.name] = {
            "features": state.units,
            "dead": state.dead,
            "near-dead": state.near_dead,
            "effective rank": f"{state.effective_rank:.1f}",
            "largest |z|": f"{state.largest_z.get(largest, 0.0):.3g} in {largest}",
            "test records seen in pretraining": _share(weights.seen, records),
            "test patients seen in pretraining": _share(weights.seen_patients, patients),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _test_records(result: Result) -> pd.DataFrame:
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


def _limits(score: _Score | None) -> Limits | None:
    return (score.low, score.averaged, score.high) if score else None


def _share(seen: Mapping[str, int] | None, whole: int) -> str:
    return NOTHING if seen is None else f"{sum(seen.values()):,} of {whole:,}"


def _score_text(score: _Score | None) -> str:
    if score is None:
        return NOTHING
    limits = _range(score.low, score.high, score.task)
    return _number(score.averaged, score.task) + (f" ({limits})" if limits else "")


def _number(value: float, task: Task) -> str:
    return f"{value:.2f}" if task == "age" else f"{value:.3f}"


def _range(low: float | None, high: float | None, task: Task) -> str:
    return "" if low is None or high is None else f"{_number(low, task)} to {_number(high, task)}"


def _p(value: float | None) -> str:
    return NOTHING if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _score(exam: "Exam", scaler: ScalerName, answers: "Answers") -> _Score:
    from scipy.stats import sem

    from capezoo.evaluate.measure.statistics import t_interval

    found = answers[exam.task, exam.cohort, scaler]
    runs = exam.per_run(found)
    over_runs, interval = t_interval(runs), exam.interval(exam.metric(found.mean(axis=0)))
    (runs_low, runs_high), (low, high) = over_runs.limits, interval.limits
    return _Score(
        task=exam.task,
        cohort=exam.cohort,
        scaler=scaler,
        runs=tuple(runs),
        mean=over_runs.value,
        se=float(sem(runs)) if len(runs) > 1 else None,
        runs_low=runs_low,
        runs_high=runs_high,
        averaged=interval.value,
        low=low,
        high=high,
        records=len(exam.truth),
        patients=len(np.unique(exam.patients)),
    )


def _compare(
    exam: "Exam", scaler: ScalerName, first: tuple[str, "Answers"], second: tuple[str, "Answers"]
) -> _Comparison:
    """Two sets of weights on the same records: runs paired by seed, answers paired by record."""
    from capezoo.evaluate.measure.statistics import wilcoxon_p

    a, b = (answers[exam.task, exam.cohort, scaler] for _, answers in (first, second))
    of_a, of_b = exam.metric(a.mean(axis=0)), exam.metric(b.mean(axis=0))
    interval = exam.interval(lambda weights: of_a(weights) - of_b(weights))
    delong_p, delong_patients = exam.delong(a.mean(axis=0), b.mean(axis=0)) or (None, None)
    low, high = interval.limits
    return _Comparison(
        first=first[0],
        second=second[0],
        task=exam.task,
        cohort=exam.cohort,
        scaler=scaler,
        difference=interval.value,
        low=low,
        high=high,
        wilcoxon_p=wilcoxon_p(exam.per_run(a), exam.per_run(b)) if len(a) > 1 else None,
        delong_p=delong_p,
        delong_patients=delong_patients,
    )


def _measured(
    subject: Subject, parts: Parts, scores: tuple[_Score, ...], epochs: dict[str, tuple[int, ...]]
) -> _Measured:
    features, index = subject.features, subject.embeddings.index
    records, patients = parts.tests_seen(index, subject.trained_on) or (None, None)
    return _Measured(
        name=subject.name,
        units=features.shape[1],
        seen=records,
        seen_patients=patients,
        health=Health.of(features[parts.train], {name: features[at] for name, at in parts.tests.items()}),
        epochs=epochs,
        scores=scores,
    )


def _test_set(index: CohortIndex, parts: Parts, cohort: str) -> _TestSet:
    from capezoo.evaluate.measure.tasks import AGE_CAP, targets

    entries = parts.tests[cohort]
    age, has_age = targets(index, entries, "age")
    train_age, trained = targets(index, parts.train, "age")
    constant = None
    if has_age.any() and trained.any():
        constant = float(np.abs(age[has_age] - np.median(train_age[trained])).mean())
    return _TestSet(
        cohort=cohort,
        records=len(entries),
        patients=len(np.unique(index["patient"][entries])),
        age_known=int(has_age.sum()),
        age_90=int((age >= AGE_CAP).sum()),
        sex_known=int(targets(index, entries, "sex")[1].sum()),
        constant_age_mae=constant,
    )
