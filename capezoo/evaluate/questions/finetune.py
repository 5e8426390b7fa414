"""Fine-tuning under shift: encoders tuned on one cohort as a whole, beside heads on them frozen, tested on every cohort.

CAPE's experiments keep the encoder frozen and leave open what fine-tuning does to transfer. Every row is tuned on the
same patients: a frozen encoder with heads, the same encoder fine-tuned with them, and, from `random`, a network trained
from scratch. Patients and records are those of `ood`; heads, loss and early stopping differ from it in that both tasks are
learned at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import TASKS, Task, Tuning
from capezoo.evaluate.questions import Context, Figure, Subject, Table
from capezoo.evaluate.questions._scored import _test_set, _TestSet
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.report.charts import intervals
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from torch import nn

    from capezoo.evaluate.measure.statistics import Statistic
    from capezoo.evaluate.measure.tasks import Exam
    from capezoo.evaluate.measure.tuning import Material, Tuned

ON_REQUEST = True  # minutes to hours: it trains encoders
EMBEDS = False
EXAMPLES = (
    "capezoo evaluate finetune --weights w/x --weights w/z --weights random --store store.zarr --train-cohort ptb_xl "
    "--seed 0 -o study",
    "capezoo evaluate finetune --weights w/z --store store.zarr --train-cohort north --seed 0 --runs 1 --norms frozen -o study",
)
_FEWEST_IN_MEAN = 20  # patients of a cohort that counts in the mean over the others; as in `ood`
_HEADINGS: dict[Task, str] = {"age": "Age: mean absolute error in years", "sex": "Sex: area under the ROC curve"}
_IN_SHORT: dict[Task, str] = {"age": "age error elsewhere, years", "sex": "sex AUROC elsewhere"}
How = Literal["frozen", "fine-tuned"]
_HOW: tuple[How, How] = ("frozen", "fine-tuned")


class Config(Tuning):
    """How networks are tuned, and how intervals are drawn."""

    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")


class _TunedScore(Spec):
    """One metric of one row in one cohort."""

    task: Task
    cohort: str
    value: float  # mean over the networks
    low: float | None  # patients drawn anew; networks are those there are
    high: float | None
    runs: tuple[float, ...]  # of each network
    records: int
    patients: int


class _Row(Spec):
    """Networks that began from some weights."""

    start: str
    how: How
    epochs: tuple[int, ...]
    scores: tuple[_TunedScore, ...]

    @property
    def name(self) -> str:
        return f"{self.start}, {self.how}"

    def score(self, task: Task, cohort: str) -> _TunedScore | None:
        return next((s for s in self.scores if (s.task, s.cohort) == (task, cohort)), None)


class _Difference(Spec):
    """Two rows on the same records and runs: metric of `first` minus metric of `second`."""

    first: str
    second: str
    task: Task
    cohort: str
    value: float
    low: float | None
    high: float | None


class Result(Spec):
    """Scores of all rows in all cohorts; differences between frozen and fine-tuned, and between starting points."""

    train_cohort: str
    train_records: dict[str, int]  # task -> labelled training records
    norms: str
    tests: tuple[_TestSet, ...]
    rows: tuple[_Row, ...]
    differences: tuple[_Difference, ...]


def run(context: Context, config: Config) -> Result:
    """Tune networks from every set of weights on `config.train_cohort` and test them on all cohorts.

    Raises SpecError for an unknown cohort, and Unanswerable without signals or without labels to train on.
    """
    from capezoo.evaluate.measure.tasks import FEWEST, Exam, targets

    index, store = context.index, context.store
    if store is None or not all(subject.models for subject in context.subjects):
        raise Unanswerable("found embeddings alone, expected their store and weights: encoders are trained on signals.")
    parts = config.parts(index, context.seed, store)
    exams = Exam.find(index, parts, context.seed, config.resamples)
    if not exams:
        raise Unanswerable(
            f"cohort {config.train_cohort!r}: found ages or sexes of fewer than {FEWEST} training or validation "
            "records, expected more. Train on another cohort."
        )
    tasks = tuple(task for task in TASKS if any(exam.task == task for exam in exams))
    answers: dict[tuple[str, How], _Answers] = {}
    rows, steps = [], _Steps(context, config.runs)
    for subject in context.subjects:
        for how, found in _tuned(context, config, subject, tasks, steps).items():
            mine = {(exam.task, exam.cohort): _of(exam, parts.tests, tasks, found) for exam in exams}
            answers[subject.name, how] = mine
            scores = tuple(_score(exam, mine[exam.task, exam.cohort]) for exam in exams)
            rows.append(_Row(start=subject.name, how=how, epochs=tuple(one.epochs for one in found), scores=scores))
    return Result(
        train_cohort=config.train_cohort,
        train_records={task: int(targets(index, parts.train, task)[1].sum()) for task in tasks},
        norms=config.norms,
        tests=tuple(_test_set(index, parts, name) for name in parts.tests),
        rows=tuple(rows),
        differences=tuple(_difference(exam, *pair, answers) for pair in _pairs(answers) for exam in exams),
    )


def tables(result: Result) -> Sequence[Table]:
    """Scores and differences of each task."""
    counts = " and ".join(f"{task} of {number:,} records" for task, number in result.train_records.items())
    how = "statistics of its batches" if result.norms == "train" else "the statistics it came with"
    caption = (
        f"Tuned on {result.train_cohort}: {counts}. Values are means over the networks of a row; their 95 % intervals draw "
        f"patients anew; those of each network stand below. While fine-tuning, BatchNorm has {how}. From random weights, fine-tuned means trained "
        "from scratch."
    )
    shown = []
    for task in (task for task in TASKS if task in result.train_records):
        shown.append(Table(_HEADINGS[task], _scores(result, task), caption))
        shown.append(Table("paired differences", _differences(result, task), folded=True))
    return [*shown, Table("each network", _networks(result), folded=True)]


def figures(result: Result) -> Sequence[Figure]:
    """Draw each task's scores with their intervals: a row a cohort, a colour each start and kind."""
    drawn = []
    for task in (task for task in TASKS if task in result.train_records):
        cohorts = _cohorts(result, task)
        series = {
            row.name: [(s.low, s.value, s.high) if (s := row.score(task, name)) else None for name in cohorts]
            for row in result.rows
        }
        drawn.append(Figure(task, intervals(_HEADINGS[task], _columns(result, cohorts), series, "95 % intervals")))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """What each start gives elsewhere, frozen and fine-tuned."""
    found: dict[str, dict[str, float | None]] = {row.start: {} for row in result.rows}
    for row in result.rows:
        for task in (task for task in TASKS if task in result.train_records):
            found[row.start][f"{row.how}: {_IN_SHORT[task]}"] = _elsewhere(result, row, task)
    # Measurements cannot be fine-tuned: nothing stands in their place.
    names = dict.fromkeys(key for numbers in found.values() for key in numbers)
    return {start: {key: numbers.get(key) for key in names} for start, numbers in found.items()}


# task and cohort -> answers of each network: (run, record)
_Answers = dict[tuple[Task, str], NDArray[np.float64]]


class _Steps:
    """Tells progress: a step is one network."""

    def __init__(self, context: Context, runs: int) -> None:
        self._tell, self._done = context.progress, 0
        self._total = sum(runs * len(_kinds(subject)) for subject in context.subjects)

    def one(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)


def _kinds(subject: Subject) -> tuple[How, ...]:
    has_weights = any(parameter.requires_grad for parameter in subject.models[0].parameters())
    return _HOW if has_weights else _HOW[:1]


def _tuned(
    context: Context, config: Config, subject: Subject, tasks: tuple[Task, ...], steps: _Steps
) -> "dict[How, list[Tuned]]":
    """Tune what begins from one set of weights; run r draws alike for all of them, so that runs pair."""
    from capezoo.evaluate.measure.tuning import Material, Tuner
    from capezoo.specs.input import InputSpec

    store: Any = context.store
    parts = config.parts(context.index, context.seed, store)
    material = Material(store, parts, tasks, InputSpec.of_model(subject.models[0]))
    own = subject.embeddings.info.batch_norm == "per_cohort"
    found: dict[How, list[Tuned]] = {how: [] for how in _kinds(subject)}
    tuners: dict[int, Tuner] = {}
    for number in range(config.runs):
        place = number % len(subject.models)
        if place not in tuners:
            encoder = _begun(subject, place, material)
            tuners[place] = Tuner(encoder, material, config, per_cohort=own, device=context.device)
        seed = derive_seed(context.seed, "finetune", number)
        for how, made in found.items():
            made.append(tuners[place].frozen(seed) if how == "frozen" else tuners[place].whole(seed))
            steps.one()
    return found


def _begun(subject: Subject, place: int, material: "Material") -> "nn.Module":
    """Return an encoder as training begins; `random` has the BatchNorm statistics of the training part."""
    return material.windows.begun(subject.models[place], material.parts.train if subject.estimated else None)


def _of(
    exam: "Exam", tests: Mapping[str, NDArray[np.int64]], tasks: tuple[Task, ...], found: "list[Tuned]"
) -> NDArray[np.float64]:
    """Answers of each network to one exam: (run, record)."""
    places = np.searchsorted(tests[exam.cohort], exam.entries)
    return np.stack([one.answers[exam.cohort][tasks.index(exam.task), places] for one in found])


def _score(exam: "Exam", answers: NDArray[np.float64]) -> _TunedScore:
    interval = exam.interval([_mean([exam.metric(one) for one in answers])])
    low, high = interval.limits
    return _TunedScore(
        task=exam.task,
        cohort=exam.cohort,
        value=interval.value,
        low=low,
        high=high,
        runs=tuple(exam.per_run(answers)),
        records=len(exam.truth),
        patients=len(np.unique(exam.patients)),
    )


def _pairs(answers: "Mapping[tuple[str, How], Any]") -> Iterator[tuple[tuple[str, How], tuple[str, How]]]:
    """Yield fine-tuned and frozen of each start, then every two starts fine-tuned."""
    tuned = [key for key in answers if key[1] == "fine-tuned"]
    yield from ((key, (key[0], "frozen")) for key in tuned)
    yield from combinations(tuned, 2)


def _difference(
    exam: "Exam", first: tuple[str, How], second: tuple[str, How], answers: "Mapping[tuple[str, How], _Answers]"
) -> _Difference:
    """Network r of one row stands against network r of the other: same patients, order and first heads."""
    a, b = ([exam.metric(one) for one in answers[key][exam.task, exam.cohort]] for key in (first, second))
    interval = exam.interval([_minus(_mean(a), _mean(b))])
    low, high = interval.limits
    names = (f"{start}, {how}" for start, how in (first, second))
    return _Difference(
        first=next(names),
        second=next(names),
        task=exam.task,
        cohort=exam.cohort,
        value=interval.value,
        low=low,
        high=high,
    )


def _mean(statistics: "Sequence[Statistic]") -> "Statistic":
    # Networks are not drawn anew: of two or three, such intervals reach from below 0 to above 1.
    return lambda weights: np.mean([one(weights) for one in statistics], axis=0)


def _minus(first: "Statistic", second: "Statistic") -> "Statistic":
    return lambda weights: first(weights) - second(weights)


def _cohorts(result: Result, task: Task) -> list[str]:
    """Cohorts with scores of a task, the training cohort first, the others in the order of the store."""
    names = dict.fromkeys(score.cohort for score in result.rows[0].scores if score.task == task)
    return sorted(names, key=lambda name: name != result.train_cohort)


def _columns(result: Result, cohorts: Sequence[str]) -> list[str]:
    return [f"{name} (tuned here)" if name == result.train_cohort else name for name in cohorts]


def _elsewhere(result: Result, row: _Row, task: Task) -> float | None:
    """Mean over the other cohorts with enough patients, each counting alike."""
    found = [row.score(task, name) for name in _cohorts(result, task) if name != result.train_cohort]
    values = [score.value for score in found if score is not None and score.patients >= _FEWEST_IN_MEAN]
    return float(np.mean(values)) if values else None


def _scores(result: Result, task: Task) -> pd.DataFrame:
    """A row for each start and kind and, for age, one for the constant answer."""
    cohorts = _cohorts(result, task)
    rows = {}
    for row in result.rows:
        cells = [_text(row.score(task, name), task) for name in cohorts]
        rows[row.name] = [*cells, _number(_elsewhere(result, row, task), task)]
    if task == "age":
        constant = {test.cohort: test.constant_age_mae for test in result.tests}
        counted = [s.cohort for s in result.rows[0].scores if s.task == task and s.patients >= _FEWEST_IN_MEAN]
        others = [constant[name] for name in counted if name != result.train_cohort]
        known = [value for value in others if value is not None]
        mean = float(np.mean(known)) if known else None
        rows["median age, always"] = [_number(constant[name], task) for name in cohorts] + [_number(mean, task)]
    last = f"mean of the others with {_FEWEST_IN_MEAN} patients or more"
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*_columns(result, cohorts), last])


def _networks(result: Result) -> pd.DataFrame:
    """Epochs of each network, and what it gives in the cohorts with enough patients."""
    rows: dict[str, dict[str, str]] = {}
    for row in result.rows:
        for number, epochs in enumerate(row.epochs):
            cells = {"epochs": str(epochs)}
            for task in (task for task in TASKS if task in result.train_records):
                cells |= {
                    f"{task}, {score.cohort}": _number(score.runs[number], task)
                    for score in row.scores
                    if score.task == task and (score.cohort == result.train_cohort or score.patients >= _FEWEST_IN_MEAN)
                }
            rows[f"{row.name}, network {number}"] = cells
    return pd.DataFrame.from_dict(rows, orient="index")


def _differences(result: Result, task: Task) -> pd.DataFrame:
    cohorts = _cohorts(result, task)
    rows: dict[str, list[str]] = {}
    for one in result.differences:
        if one.task == task:
            cells = rows.setdefault(f"{one.first} minus {one.second}", [NOTHING] * len(cohorts))
            cells[cohorts.index(one.cohort)] = _text(one, task)
    return pd.DataFrame.from_dict(rows, orient="index", columns=_columns(result, cohorts))


def _text(found: _TunedScore | _Difference | None, task: Task) -> str:
    if found is None:
        return NOTHING
    if found.low is None or found.high is None:
        return _number(found.value, task)
    return f"{_number(found.value, task)} ({_number(found.low, task)} to {_number(found.high, task)})"


def _number(value: float | None, task: Task) -> str:
    return NOTHING if value is None else f"{value:.2f}" if task == "age" else f"{value:.3f}"
