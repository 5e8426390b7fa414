"""Out of distribution: heads for age and sex are trained on one cohort's embeddings and tested on every cohort.

Protocol of CAPE's second experiment (arXiv 2509.10369): encoder frozen, one cohort split by patient, several heads per
task that differ in initial weights and order only, the same test records for all weights. Beyond it: a guarded scaler
beside the plain one, intervals that draw patients, the error of a constant answer, and the health of the features.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import TASKS, Home, Task
from capezoo.evaluate.measure.scalers import SCALERS, ScalerName
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.evaluate.questions._scored import (
    _FEWEST,
    _compare,
    _Comparison,
    _controlled,
    _Measured,
    _measured,
    _Score,
    _score,
    _test_set,
    _TestSet,
)
from capezoo.evaluate.questions._wording import _HEADINGS, _in_papers_way, _number, _p, _with_range
from capezoo.specs.base import Spec
from capezoo.specs.card import Metric
from ecgcohorts.report.charts import Limits, intervals
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.tasks import Answers

EXAMPLES = (
    "capezoo evaluate ood --weights w/x --weights random --store store.zarr --train-cohort ptb_xl --seed 0 -o study",
    "capezoo evaluate ood --weights w/x --store store.zarr --train-cohort north --seed 0 --lr 1e-3 --allow-seen -o study",
)
_CARD_NAMES: dict[Task, str] = {"age": "age_mae_years", "sex": "sex_auroc"}
_NEVER_TRAINED = ("random", "measurements")  # rows that stand beside the metrics of a card
_PAPERS = (
    "7.880(028) is 7.880 ± 0.028 years, 0.939(06) is 0.939 ± 0.0006; * is an error of 1 year or .01 and more. The mean is over "
    f"all cohorts with {_FEWEST} patients or more, home included. p: Wilcoxon over heads, DeLong over patients."
)
_PAIRED = (
    "First minus second on the same records. Interval and first p draw patients, Wilcoxon looks at heads, DeLong at one ECG of "
    "each patient, with the predictions averaged over heads and with those of each head. q: false-discovery control of each "
    f"test over both tasks, all cohorts and all pairs, one scaler at a time. Fewer than {_FEWEST} patients have no p but Wilcoxon's."
)
_ELSEWHERE: dict[Task, str] = {"age": "age error elsewhere, years", "sex": "sex AUROC elsewhere"}


class Config(Home):
    """How many heads, and how they are trained."""

    runs: int = Field(10, gt=0, description="heads per task; CAPE. Fewer take less time, and 5 or fewer no p below .05")
    lr: float = Field(1e-4, gt=0, description="learning rate of the heads; CAPE's. Small cohorts may need more")
    max_epochs: int = Field(100, gt=0, description="of each head at most; CAPE")
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")


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
            sat = [sit(x, index, parts, mine, **training) for x in subject.initialisations]
            answers[-1] |= {key: np.stack([answered[key] for answered, _ in sat]) for key in sat[0][0]}
            epochs |= {key: tuple(e for _, trained in sat for e in trained[key]) for key in sat[0][1]}
            context.progress(len(weights) * len(tasks) + tasks.index(task) + 1, len(context.subjects) * len(tasks))
        scores = tuple(_score(exam, scaler, answers[-1]) for scaler in SCALERS for exam in all_exams)
        weights.append(_measured(subject, parts, scores, epochs))
    pairs = combinations(zip((subject.name for subject in context.subjects), answers, strict=True), 2)
    return Result(
        train_cohort=config.train_cohort,
        train_records={task: int(targets(index, parts.train, task)[1].sum()) for task in tasks},
        tests=tuple(_test_set(index, parts, name) for name in parts.tests),
        weights=tuple(weights),
        comparisons=_controlled(
            [
                _compare(exam, scaler, first, second)
                for first, second in pairs
                for scaler in SCALERS
                for exam in all_exams
            ]
        ),
    )


def tables(result: Result) -> Sequence[Table]:
    """Scores, differences and test records of each task, and the health of the features."""
    counts = " and ".join(f"{task} of {number:,} records" for task, number in result.train_records.items())
    caption = (
        f"Trained on {result.train_cohort}: {counts}. Plain: z-score by the training cohort. Guarded: small deviations "
        "are floored, values cut at ten deviations. The value is that of the prediction averaged over the heads; its "
        "95 % interval draws patients anew. Of several initialisations it is their mean, and they are drawn with the patients."
    )
    shown = []
    for task in (task for task in TASKS if task in result.train_records):
        shown.append(Table(_HEADINGS[task], _scores(result, task), caption))
        shown.append(
            Table("mean (standard error) over heads, as in Table 3 of CAPE", _table_3(result, task), _PAPERS, True)
        )
        shown.append(Table("the same in plain numbers", _runs(result, task), folded=True))
        compared = _comparisons(result, task)
        if len(compared):
            shown.append(Table("paired differences", compared, _PAIRED, folded=True))
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
    """Scores with the guarded scaler, two a task and cohort: of the averaged heads and over heads; and of rows never trained."""
    how = f"heads trained on {result.train_cohort}, guarded scaler"
    mine = next(one for one in result.weights if one.name == weights)
    metrics = []
    for s in (s for s in mine.scores if s.scaler == "guarded"):
        name, spread = _CARD_NAMES[s.task], "initialisations" if s.initialisations else "heads"
        averaged = f"{how}; predictions of {len(s.runs)} heads averaged, patients drawn anew"
        # The paper's number. It is the worse of the two: an average of heads is right more often than each.
        over_heads = f"{how}; mean of {len(s.runs)} heads, t interval over {spread}"
        told = [(name, s.averaged, s.low, s.high, averaged),
                (f"{name}_mean_of_runs", s.mean, s.runs_low, s.runs_high, over_heads)]  # fmt: skip
        for row in (row for row in result.weights if row.name in _NEVER_TRAINED and row.name != weights):
            if other := row.score(s.task, s.cohort, "guarded"):
                told.append((f"{name}_of_{row.name}", other.averaged, other.low, other.high, averaged))
        metrics += [Metric(name=title, cohort=s.cohort, value=value, low=low, high=high, n=s.records, method=method)
                    for title, value, low, high, method in told]  # fmt: skip
    return tuple(metrics)


def _mean_elsewhere(result: Result, weights: _Measured, task: Task, scaler: ScalerName) -> float | None:
    """Mean of the averaged prediction's metric over the cohorts not trained on, each cohort counting alike.

    Cohorts with fewer than _FEWEST labelled test patients do not count.
    """
    found = [weights.score(task, name, scaler) for name in _tested(result, task) if name != result.train_cohort]
    values = [score.averaged for score in found if score is not None and score.patients >= _FEWEST]
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
    for name, weights, scaler, scores in _rows(result, task):
        mean = _mean_elsewhere(result, weights, task, scaler)
        rows[name] = [*map(_score_text, scores), NOTHING if mean is None else _number(mean, task)]
    if task == "age":
        constant = {test.cohort: test.constant_age_mae for test in result.tests}
        # The same cohorts as in the mean of the scores, or the two could not be compared.
        counted = {
            s.cohort
            for s in result.weights[0].scores
            if s.task == task and s.cohort != result.train_cohort and s.patients >= _FEWEST
        }
        values = [value for name, value in constant.items() if name in counted and value is not None]
        known = [constant[name] for name in cohorts] + [float(np.mean(values)) if values else None]
        rows["median age, always"] = [NOTHING if value is None else f"{value:.2f}" for value in known]
    mean_title = f"mean of the others with {_FEWEST} patients or more"
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*_columns(result, cohorts), mean_title])


def _table_3(result: Result, task: Task) -> pd.DataFrame:
    """Mean and standard error over runs in the paper's notation, and p of every pair: a column per cohort, and row means."""
    cohorts = _tested(result, task)
    rows: dict[str, list[str]] = {}
    for name, _, _, scores in _rows(result, task):
        counted = [s.mean for s in scores if s is not None and s.patients >= _FEWEST]
        rows[name] = [
            *(_in_papers_way(s.mean, s.se, task) if s else NOTHING for s in scores),
            f"{np.mean(counted):.3f}" if counted else NOTHING,
        ]
    found = {(c.first, c.second, c.scaler, c.cohort): c for c in result.comparisons if c.task == task}
    for first, second, scaler in dict.fromkeys(key[:3] for key in found):
        pair = [found.get((first, second, scaler, cohort)) for cohort in cohorts]
        what = f"{first} against {second}, {scaler}"
        rows[f"p, Wilcoxon: {what}"] = [*(_p(c.wilcoxon_p if c else None) for c in pair), NOTHING]
        if task == "sex":
            rows[f"p, DeLong: {what}"] = [*(_p(c.delong_p if c else None) for c in pair), NOTHING]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*cohorts, "mean"])


def _runs(result: Result, task: Task) -> pd.DataFrame:
    """Mean over runs and its standard error, as the paper prints them."""
    rows = {
        name: [_number(s.mean, task) + ("" if s.se is None else f" ± {s.se:.2g}") if s else NOTHING for s in scores]
        for name, _, _, scores in _rows(result, task)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=_tested(result, task))


def _rows(result: Result, task: Task) -> Iterator[tuple[str, _Measured, ScalerName, list[_Score | None]]]:
    """Yield the rows of a table of scores, a row per weights and scaler: its name, both, and a score per cohort tested."""
    cohorts = _tested(result, task)
    for weights in result.weights:
        for scaler in SCALERS:
            yield f"{weights.name}, {scaler}", weights, scaler, [weights.score(task, name, scaler) for name in cohorts]


def _comparisons(result: Result, task: Task) -> pd.DataFrame:
    """First minus second on the same records: difference, patient interval, and p of the paired tests."""
    rows = {
        f"{row.first} minus {row.second}, {row.cohort}, {row.scaler}": {
            "difference": _with_range(row.difference, row.low, row.high, task),
            "p": _p(row.p),
            "q": _p(row.q),
            "Wilcoxon p": _p(row.wilcoxon_p),
            "Wilcoxon q": _p(row.wilcoxon_q),
            "rank-biserial": NOTHING if row.rank_biserial is None else f"{row.rank_biserial:+.2f}",
            "DeLong p": _p(row.delong_p),
            "DeLong q": _p(row.delong_q),
            "DeLong p of each head": f"{_p(min(row.delong_runs))} to {_p(max(row.delong_runs))}"
            if row.delong_runs
            else NOTHING,
        }
        for row in result.comparisons
        if row.task == task
    }
    return pd.DataFrame.from_dict(rows, orient="index")


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
    return NOTHING if score is None else _with_range(score.averaged, score.low, score.high, score.task)
