"""Encoders by cohorts: in every cohort heads for age and sex are trained on some of its patients and tested on others.

Protocol of CAPE's first experiment (arXiv 2509.10369): encoders frozen; of each cohort 10,000 records for training, 2,000
for validation and 2,000 for tests; six heads a cell that differ in initial weights and order only; the mean over cohorts
and runs. Beyond it: patients are divided, not records; intervals draw patients; false-discovery control; effect sizes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import TASKS, EveryHome, Parts, Task
from capezoo.evaluate.measure.scalers import ScalerName
from capezoo.evaluate.questions import Context, Figure, Subject, Table
from capezoo.evaluate.questions._cells import (
    _MEAN,
    _Cell,
    _Compared,
    _comparisons,
    _Home,
    _Measured,
    _Score,
    _score,
    _Several,
    _several,
)
from capezoo.evaluate.questions._wording import _HEADINGS, _number, _p, _range, _with_range
from capezoo.specs.base import Spec
from ecgcohorts.report.charts import Limits, columns
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Bootstrap
    from capezoo.evaluate.measure.tasks import Exam

EXAMPLES = (
    "capezoo evaluate grid --weights w/x --weights w/z --weights random --store store.zarr --seed 0 -o study",
    "capezoo evaluate grid --weights w/x --store store.zarr --train-records 500 --test-records 500 --lr 1e-3 --seed 0 -o study",
    "capezoo evaluate grid --weights w/x --weights w/z --store store.zarr --search --split study-1 --seed 0 -o study",
)
_TITLES: dict[Task, str] = {"age": "age error at home, years", "sex": "sex AUROC at home"}


class Config(EveryHome):
    """How many records and heads, and how heads are trained."""

    min_patients: int = Field(
        20, gt=1, description="cohorts with fewer labelled test patients are left out and named; our default"
    )
    runs: int = Field(6, gt=0, description="heads per task, cohort and weights; CAPE")
    lr: float = Field(1e-4, gt=0, description="learning rate of the heads; CAPE's. Small cohorts may need more")
    max_epochs: int = Field(100, gt=0, description="of each head at most; CAPE")
    search: bool = Field(
        False,
        description="choose both hidden layers of each cell by its validation loss, of 32, 64, 128 and 256, instead of "
        "taking those that CAPE chose so; costs 16 more heads a cell",
    )
    scaler: ScalerName = Field(
        "plain", description="of features, fitted on each cohort's training part; CAPE has plain"
    )
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")


class Result(Spec):
    """Scores of all weights in all cohorts, and tests over all and over every pair of weights."""

    homes: tuple[_Home, ...]
    left_out: tuple[str, ...]  # too few labelled test patients
    weights: tuple[_Measured, ...]
    several: tuple[_Several, ...]
    comparisons: tuple[_Compared, ...]

    def cohorts(self, task: Task) -> list[str]:
        """Cohorts with scores of a task, and their mean if there are several."""
        names = [home.cohort for home in self.homes if home.task == task]
        return [*names, _MEAN] if len(names) > 1 else names


def run(context: Context, config: Config) -> Result:
    """Train and test heads in every cohort for every set of weights.

    Raises SpecError for an unknown split, and Unanswerable if no cohort has patients and labels enough.
    """
    parts = config.parts(context.index, context.seed, context.store)
    sat = _sat(context, config, parts)
    if not sat:
        raise Unanswerable(
            f"found no cohort with {config.min_patients} labelled test patients and both sexes or ages to train on, expected "
            "one. Lower --min-patients, or raise --test-records and --validation-records beside --train-records."
        )
    weights: list[_Measured] = []
    draws: list[dict[tuple[Task, str], Bootstrap]] = []
    for place in range(len(context.subjects)):
        measured, drawn = _measured(context, place, parts, sat, config)
        weights.append(measured)
        draws.append(drawn)
    kept = {exam.cohort for exam, _ in sat}
    return Result(
        homes=tuple(_home(context, exam, mine) for exam, mine in sat),
        left_out=tuple(name for name in context.index.cohorts if name not in kept),
        weights=tuple(weights),
        several=_several(weights),
        comparisons=_comparisons(weights, draws),
    )


def tables(result: Result) -> Sequence[Table]:
    """Scores of each task, tests over all and over pairs of weights, and the heads."""
    caption = (
        "Heads are trained and tested in the same cohort. The value is the mean over heads, as in the paper; its 95 % "
        "interval draws test patients anew, and initialisations where a row has several. Intervals and tests over heads (or "
        "initialisations) hold for the luck of training only."
    ) + (f" Too few labelled test patients: {', '.join(result.left_out)}." if result.left_out else "")
    shown = []
    for task in (task for task in TASKS if result.cohorts(task)):
        shown.append(Table(_HEADINGS[task], _scores(result, task), caption))
        if len(result.weights) > 1:
            compared = (
                "First minus second, test patients drawn anew; heads by Mann and Whitney. q: false-discovery control."
            )
            shown.append(Table(f"all weights, {task}", _all_at_once(result, task), folded=True))
            shown.append(Table(f"pairs of weights, {task}", _pairs(result, task), compared, folded=True))
    shown.append(Table("heads", _heads(result), folded=True))
    shown.append(Table("records", _records(result), folded=True))
    return shown


def figures(result: Result) -> Sequence[Figure]:
    """Draw each task: a column a cohort, a colour each set of weights, with intervals that draw patients. CAPE's Figure 2."""
    drawn = []
    for task in (task for task in TASKS if result.cohorts(task)):
        names = result.cohorts(task)
        series = {one.name: [_limits(one.score(task, name)) for name in names] for one in result.weights}
        svg = columns(_HEADINGS[task], [*map(_title, names)], series, "95 % intervals over patients")
        drawn.append(Figure(task, svg))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """The mean over cohorts and runs of each task."""
    found: dict[str, dict[str, float | None]] = {}
    for one in result.weights:
        last = {task: one.score(task, names[-1]) for task in TASKS if (names := result.cohorts(task))}
        found[one.name] = {title: score.mean if (score := last.get(task)) else None for task, title in _TITLES.items()}
    return found


def _sat(context: Context, config: Config, parts: Parts) -> list[tuple["Exam", Parts]]:
    """Exams that can be sat, each with the parts of its cohort, in the order of the cohorts."""
    from capezoo.evaluate.measure.tasks import Exam

    found = []
    for name in parts.tests:
        mine = parts.of(context.index, name)
        exams = Exam.find(context.index, mine, context.seed, config.resamples)
        found += [(exam, mine) for exam in exams if len(np.unique(exam.patients)) >= config.min_patients]
    return found


def _measured(
    context: Context, place: int, parts: Parts, sat: Sequence[tuple["Exam", Parts]], config: Config
) -> tuple[_Measured, dict[tuple[Task, str], "Bootstrap"]]:
    """Train and test all heads of one set of weights; beside it, what every score is when patients are drawn anew."""
    from capezoo.evaluate.measure.statistics import Bootstrap

    subject, total = context.subjects[place], len(context.subjects) * len(sat)
    cells, draws = [], {}
    values: dict[tuple[Task, str], NDArray[np.float64]] = {}  # (initialisation, run)
    for step, (exam, mine) in enumerate(sat):
        cell, found = _cell(subject, exam, mine, config)
        cells.append(cell)
        key = (exam.task, exam.cohort)
        values[key] = np.array([exam.per_run(one) for one in found])
        draws[key] = exam.draws([exam.run_mean(one) for one in found])
        context.progress(place * len(sat) + step + 1, total)
    for task in TASKS:
        keys = [key for key in values if key[0] == task]
        if len(keys) > 1:
            # Run by run: a run of the mean is one training of all heads of that number.
            values[task, _MEAN] = np.mean([values[key] for key in keys], axis=0)
            draws[task, _MEAN] = Bootstrap.mean([draws[key] for key in keys])
    seen = parts.tests_seen(subject.embeddings.index, subject.trained_on)
    kept = {exam.cohort for exam, _ in sat}
    measured = _Measured(
        name=subject.name,
        units=subject.features.shape[1],
        seen_patients=seen and {name: count for name, count in seen[1].items() if name in kept},
        cells=tuple(cells),
        scores=tuple(_score(*key, values[key], draws[key]) for key in values),
    )
    return measured, draws


def _cell(subject: Subject, exam: "Exam", mine: Parts, config: Config) -> tuple[_Cell, NDArray[np.float64]]:
    """Train the heads of one cell; beside it their (initialisation, run, record) answers."""
    from capezoo.evaluate.measure.tasks import head_parameters, searched, sit

    index, training = subject.embeddings.index, config.model_dump(include={"lr", "max_epochs"})
    hidden = None
    if config.search:
        hidden = searched(subject.features, index, mine, exam, scaler=config.scaler, **training)
    sat = [
        sit(features, index, mine, [exam], runs=config.runs, scalers=[config.scaler], hidden=hidden, **training)
        for features in subject.initialisations
    ]
    widths, parameters = head_parameters(exam.task, subject.features.shape[1], hidden)
    trained = tuple(count for _, epochs in sat for count in epochs[f"{exam.task} {config.scaler}"])
    cell = _Cell(task=exam.task, cohort=exam.cohort, hidden=widths, parameters=parameters, epochs=trained)
    return cell, np.stack([answers[exam.task, exam.cohort, config.scaler] for answers, _ in sat])


def _home(context: Context, exam: "Exam", mine: Parts) -> _Home:
    from capezoo.evaluate.measure.tasks import targets

    train, known = targets(context.index, mine.train, exam.task)
    constant = 0.5
    if exam.task == "age":
        constant = float(np.abs(exam.truth - np.median(train[known])).mean())
    return _Home(
        task=exam.task,
        cohort=exam.cohort,
        train_records=int(known.sum()),
        validation_records=int(targets(context.index, mine.validation, exam.task)[1].sum()),
        test_records=len(exam.truth),
        test_patients=len(np.unique(exam.patients)),
        constant=constant,
    )


def _limits(score: _Score | None) -> Limits | None:
    return (score.low, score.mean, score.high) if score else None


def _title(cohort: str) -> str:
    return cohort or "mean over cohorts"


def _scores(result: Result, task: Task) -> pd.DataFrame:
    """Mean over heads with its interval over patients, and of the last column also over heads."""
    cohorts = result.cohorts(task)
    rows = {}
    for one in result.weights:
        scores = [one.score(task, name) for name in cohorts]
        cells = [_with_range(s.mean, s.low, s.high, task) if s else NOTHING for s in scores]
        last = scores[-1]
        rows[one.name] = [*cells, (_range(last.runs_low, last.runs_high, task) if last else "") or NOTHING]
    homes = {home.cohort: home.constant for home in result.homes if home.task == task}
    values = [homes[name] if name in homes else float(np.mean(list(homes.values()))) for name in cohorts]
    always = "median age, always" if task == "age" else "one answer, always"
    rows[always] = [*(_number(value, task) for value in values), NOTHING]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*map(_title, cohorts), "its interval over heads"])


def _all_at_once(result: Result, task: Task) -> pd.DataFrame:
    rows = {
        _title(one.cohort): [_p(one.p), _p(one.q), f"{one.epsilon_squared:.2f}"]
        for one in result.several
        if one.task == task
    }
    titles = ["Kruskal-Wallis p over heads", "q", "effect, epsilon squared"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def _pairs(result: Result, task: Task) -> pd.DataFrame:
    rows = {
        f"{one.first} minus {one.second}, {_title(one.cohort)}": [
            _with_range(one.difference, one.low, one.high, task),
            _p(one.p),
            _p(one.q),
            _p(one.runs_p),
            _p(one.runs_q),
            NOTHING if one.cliffs_delta is None else f"{one.cliffs_delta:+.2f}",
        ]
        for one in result.comparisons
        if one.task == task
    }
    titles = [
        "difference",
        "p over patients",
        "q over patients",
        "p over heads",
        "q over heads",
        "Cliff's delta over heads",
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def _heads(result: Result) -> pd.DataFrame:
    rows = {
        f"{one.name}, {cell.cohort}, {cell.task}": {
            "layers": " to ".join(map(str, (one.units, *cell.hidden, 1))),
            "parameters": f"{cell.parameters:,}",
            "epochs": f"{min(cell.epochs)} to {max(cell.epochs)}",
        }
        for one in result.weights
        for cell in one.cells
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _records(result: Result) -> pd.DataFrame:
    rows = {
        f"{home.cohort}, {home.task}": {
            "training records": home.train_records,
            "validation records": home.validation_records,
            "test records": home.test_records,
            "test patients": home.test_patients,
        }
        for home in result.homes
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    for one in result.weights:
        seen = [NOTHING if one.seen_patients is None else one.seen_patients[home.cohort] for home in result.homes]
        frame[f"test patients that {one.name} has seen"] = seen
    return frame
