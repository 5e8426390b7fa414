"""Downstream tasks: encoders fine-tuned, frozen with attention pooling, or with one linear layer, on the tasks of the papers.

Three modes, as in the benchmark of foundation models (arXiv 2509.25095). A task names a system of labels: it is learned and
tested in every cohort that has them, and where one has not, a line says so. Patients of training, validation and test part
are others. Rows of untrained networks and simple measures, and how well the same head tells the cohort, stand beside.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Learning
from capezoo.evaluate.questions import Context, Figure, Subject, Table
from capezoo.evaluate.questions._jobs import _COHORT, _EVERY, _Job, _jobs, _telling
from capezoo.evaluate.questions._probing import _WHAT
from capezoo.evaluate.questions._targets import Kind, Statistic, Target, _Value, differences, limits_of
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import intervals
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.learning import Learner, Lesson, Taught

ON_REQUEST = True  # minutes to hours: it trains encoders
EMBEDS = False
EXAMPLES = (
    "capezoo evaluate downstream --weights w/x --weights random --weights measurements --store store.zarr --seed 0 -o study",
    "capezoo evaluate downstream --weights w/x --weights random --store store.zarr --task scp_all --cohort ptb_xl --split folds "
    "--mode fine_tuned --epochs 100 --seed 0 -o study",
)
Mode = Literal["linear", "frozen", "fine_tuned"]
_MODES: tuple[Mode, ...] = ("linear", "frozen", "fine_tuned")
_DEFAULT = ("superclass", "code_six", "age", "sex")


class Config(Learning):
    """What is learned, how, and how intervals are drawn."""

    task: tuple[str, ...] = Field((), description=f"{_WHAT}; default: {', '.join(_DEFAULT)}")
    mode: tuple[Mode, ...] = Field((), description="repeat for more; default: all three")
    min_patients: int = Field(20, gt=1, description="a cohort with fewer test patients is left out; our default")
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; study")

    def require(self, index: CohortIndex) -> None:
        """Raise SpecError for a task that no store knows; one that this store lacks is left out."""
        for name in self.task:
            with suppress(Unanswerable):
                Target.require(index, name)


class _Task(Spec):
    """A task as one cohort has it: the same records for all weights and modes."""

    task: str
    cohort: str
    kind: Kind
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]  # the main one first
    left_out: tuple[str, ...]  # labels that no training record has, or all have
    absent: tuple[str, ...]  # classes that no test record has, or all have: no part of a mean
    train_records: int
    validation_records: int
    records: int
    patients: int
    constant: float | None  # of a number: mean absolute error of the training part's median

    @property
    def name(self) -> str:
        return f"{self.task}, {self.cohort}"


class _Score(Spec):
    """One set of weights in one mode on one task."""

    weights: str
    mode: Mode
    task: str
    cohort: str
    networks: int  # initialisations whose mean this is
    metrics: dict[str, _Value]


class _Difference(Spec):
    """Main metric of `first` minus that of `second`, on the same records."""

    first: str
    second: str
    mode: Mode
    task: str
    cohort: str
    difference: _Value


class Result(Spec):
    """Scores of all weights and modes in all cohorts that have the labels. The task `cohort` is to tell the cohort."""

    weights: tuple[str, ...]
    tasks: tuple[_Task, ...]
    scores: tuple[_Score, ...]
    differences: tuple[_Difference, ...]
    segments: str
    epochs: dict[str, int]  # mode -> epochs, of which the best on validation counts
    left_out: dict[str, str]  # "task, cohort" -> why it cannot be learned there

    def score(self, weights: str, mode: str, one: _Task) -> _Score | None:
        """One of the scores, if there is one."""
        wanted = (weights, mode, one.task, one.cohort)
        return next((s for s in self.scores if (s.weights, s.mode, s.task, s.cohort) == wanted), None)

    @property
    def modes(self) -> list[str]:
        """Modes in their order."""
        return [mode for mode in _MODES if mode in self.epochs]


def run(context: Context, config: Config) -> Result:
    """Teach every set of weights each task in each cohort that has it, in each mode, and test it there.

    Raises SpecError for an unknown cohort, or for weights without tokens in mode frozen, and Unanswerable without signals
    or if no cohort has labels enough.
    """
    if context.store is None or not all(subject.models for subject in context.subjects):
        raise Unanswerable("found embeddings alone, expected their store and weights: heads are trained on signals.")
    modes = [mode for mode in _MODES if mode in (config.mode or _MODES)]
    jobs, left_out = _jobs(
        context, config.parts(context.index, context.seed, context.store), config.task or _DEFAULT, config
    )
    if not jobs:
        raise Unanswerable(" ".join(dict.fromkeys(left_out.values())))
    told = _telling(context, [job.parts for job in jobs], config.resamples) if modes != ["fine_tuned"] else None
    _require_tokens(context, modes)
    places = [(subject, mode) for subject in context.subjects for mode in modes if mode in _open(subject)]
    if not places:
        raise Unanswerable(
            "found neither tokens nor weights to train in any row, expected them in these modes. Ask for --mode linear."
        )
    asked = [*jobs, *([told] if told else [])]
    steps = _Steps(context, sum(_networks(subject, mode) * len(_of(mode, asked)) for subject, mode in places))
    answers = {
        (subject.name, mode): _answers(context, config, subject, mode, _of(mode, asked), steps)
        for subject, mode in places
    }
    scores = [
        _scored(name, mode, job, found[job.key])
        for (name, mode), found in answers.items()
        for job in asked
        if job.key in found
    ]
    pairs = [(a, b, mode) for mode in modes for a, b in combinations([n for n, m in answers if m == mode], 2)]
    return Result(
        weights=tuple(subject.name for subject in context.subjects),
        tasks=tuple(_described(job) for job in asked),
        scores=tuple(scores),
        differences=tuple(
            _compared(job, mode, (a, answers[a, mode][job.key]), (b, answers[b, mode][job.key]))
            for a, b, mode in pairs
            for job in jobs
        ),
        segments=config.segments,
        epochs={mode: config.epochs if mode == "fine_tuned" else config.head_epochs for mode in modes},
        left_out=left_out,
    )


def tables(result: Result) -> Sequence[Table]:
    """Each task in its cohorts, who was trained on and tested, differences, and what was left out."""
    caption = _caption(result)
    shown = []
    for task in dict.fromkeys(one.task for one in result.tasks if one.task != _COHORT):
        mine = [one for one in result.tasks if one.task == task]
        shown.append(Table(f"{task[:1].upper()}{task[1:]}", _scores(result, mine), caption))
    shown.append(Table("records, and classes in a mean", _records(result), folded=True))
    if result.differences:
        rows = {
            f"{row.first} minus {row.second}, {row.mode}, {row.task}, {row.cohort}": row.difference.text
            for row in result.differences
        }
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=["difference in the main metric"])
        shown.append(Table("paired differences", frame, folded=True))
    if result.left_out:
        reasons = pd.DataFrame.from_dict(result.left_out, orient="index", columns=["why"])
        shown.append(Table("left out", reasons, folded=True))
    return shown


def figures(result: Result) -> Sequence[Figure]:
    """Draw the main metric of each task by cohort: a colour a set of weights and mode."""
    drawn = []
    for task in dict.fromkeys(one.task for one in result.tasks):
        mine = [one for one in result.tasks if one.task == task]
        series = {f"{name}, {mode}": [_main(result.score(name, mode, one)) for one in mine]
                  for name in result.weights for mode in result.modes}  # fmt: skip
        some = {
            name: [value.limits if value else None for value in cells] for name, cells in series.items() if any(cells)
        }
        axis = f"{mine[0].metrics[0]}, 95 % intervals"
        drawn.append(Figure(task, intervals(task, [one.cohort for one in mine], some, axis)))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """The main metric of each task, cohort and mode."""
    rows: dict[str, dict[str, float | None]] = {name: {} for name in result.weights}
    for name in rows:
        for one in result.tasks:
            for mode in result.modes:
                value = _main(result.score(name, mode, one))
                rows[name][f"{one.name}, {mode}: {one.metrics[0]}"] = value.value if value else None
    return rows


def _main(score: _Score | None) -> _Value | None:
    return next(iter(score.metrics.values())) if score else None


@dataclass(frozen=True, eq=False)
class _Answered:
    """What one network says of the test records, and above which limits its probabilities count as present."""

    answers: NDArray[np.float64]  # (record, output)
    limits: NDArray[np.float64]


def _open(subject: Subject) -> tuple[Mode, ...]:
    """Modes that a row can have: without weights to train and tokens to pool there is one."""
    has_weights = any(parameter.requires_grad for parameter in subject.models[0].parameters())
    return _MODES if has_weights else ("linear",)


def _require_tokens(context: Context, modes: Sequence[Mode]) -> None:
    """Raise SpecError, before anything is trained, for weights without tokens in mode frozen."""
    from capezoo.evaluate.measure.learning import has_tokens

    for subject in context.subjects if "frozen" in modes else ():
        if "frozen" in _open(subject) and not has_tokens(subject.models[0]):
            raise SpecError(f"{subject.name}: found features without tokens, expected (record, channel, token) to pool by "
                            "attention. Ask for the other modes: --mode linear --mode fine_tuned.")  # fmt: skip


class _Steps:
    """Tells progress: a step is one network taught one task."""

    def __init__(self, context: Context, total: int) -> None:
        self._tell, self._done, self._total = context.progress, 0, total

    def one(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)


def _of(mode: Mode, asked: Sequence[_Job]) -> list[_Job]:
    """What is asked in a mode: an encoder trained to tell the cohort would say nothing of what its features give away."""
    return [job for job in asked if mode != "fine_tuned" or job.target.name != _COHORT]


def _networks(subject: Subject, mode: Mode) -> int:
    """Initialisations taught: a network that is trained as a whole stands for all of them."""
    return 1 if mode == "fine_tuned" else len(subject.models)


def _answers(
    context: Context, config: Config, subject: Subject, mode: Mode, jobs: Sequence[_Job], steps: _Steps
) -> dict[tuple[str, str], list[_Answered]]:
    """Teach each initialisation of one row."""
    found: dict[tuple[str, str], list[_Answered]] = {job.key: [] for job in jobs}
    for place in range(_networks(subject, mode)):
        for job, learner in _learners(context, config, subject, mode, place, jobs):
            # Neither weights nor mode are in the key: all see the same order and first weights, so that rows pair.
            taught = learner.taught(_lesson(job), derive_seed(context.seed, "downstream", *job.key))
            found[job.key].append(_answered(job, taught))
            steps.one()
    return found


def _learners(
    context: Context, config: Config, subject: Subject, mode: Mode, place: int, jobs: Sequence[_Job]
) -> "Iterator[tuple[_Job, Learner]]":
    """Yield what teaches each job: one for all, or one a cohort for rows with the BatchNorm statistics of each."""
    from capezoo.evaluate.measure.learning import Learner
    from capezoo.evaluate.measure.training import Windows
    from capezoo.specs.input import InputSpec

    assert context.store is not None
    index, windows = context.index, Windows(context.store, InputSpec.of_model(subject.models[place]))
    info = subject.embeddings.info
    own = info.batch_norm == "per_cohort"
    made: dict[str, Learner] = {}
    for job in jobs:
        # Of every cohort at once there are no statistics of its own.
        name = job.exam.cohort if own and job.exam.cohort != _EVERY else ""
        if name not in made:
            train = np.unique(np.concatenate([one.parts.train for one in jobs])) if subject.estimated else None
            entries = np.flatnonzero(index["cohort"] == index.cohort_code(name)) if name else train
            encoder = windows.begun(subject.models[place], entries, context.device)
            made[name] = Learner(encoder, windows, config, mode, scratch=info.card is None, device=context.device)
        yield job, made[name]


def _lesson(job: _Job) -> "Lesson":
    from capezoo.evaluate.measure.learning import Lesson

    return Lesson(job.target.kind, job.target.truth, job.parts.train, job.parts.validation)


def _answered(job: _Job, taught: "Taught") -> _Answered:
    [tests] = job.parts.tests.values()
    # All test records of the cohort, so that what a frozen encoder says of them is kept for the next task.
    answers = taught.answers(tests)[np.searchsorted(tests, job.exam.entries)]
    limits = np.full(answers.shape[1], 0.5)
    if job.target.kind == "labels":
        limits = limits_of(job.target.truth[job.parts.validation], taught.validation)
    return _Answered(answers, limits)


def _metrics(job: _Job) -> tuple[str, ...]:
    return tuple(name for name in job.target.metrics if name != "micro AUROC")


def _statistics(job: _Job, found: Sequence[_Answered], name: str) -> list[Statistic]:
    return [job.exam.statistics(one.answers, one.limits)[name] for one in found]


def _scored(weights: str, mode: Mode, job: _Job, found: Sequence[_Answered]) -> _Score:
    metrics = {name: _Value.of(job.exam, _statistics(job, found, name)) for name in _metrics(job)}
    task, cohort = job.key
    return _Score(weights=weights, mode=mode, task=task, cohort=cohort, networks=len(found), metrics=metrics)


def _compared(
    job: _Job, mode: Mode, first: tuple[str, Sequence[_Answered]], second: tuple[str, Sequence[_Answered]]
) -> _Difference:
    main, (task, cohort) = job.target.metrics[0], job.key
    a, b = (_statistics(job, found, main) for _, found in (first, second))
    difference = _Value.of(job.exam, differences(a, b))
    return _Difference(first=first[0], second=second[0], mode=mode, task=task, cohort=cohort, difference=difference)


def _described(job: _Job) -> _Task:
    target, exam = job.target, job.exam
    constant = None
    if target.kind == "number":
        median = np.nanmedian(target.truth[job.parts.train], axis=0)
        constant = float(np.abs(target.truth[exam.entries] - median).mean())
    return _Task(
        task=target.name,
        cohort=exam.cohort,
        kind=target.kind,
        outputs=target.outputs,
        metrics=_metrics(job),
        left_out=target.left_out,
        absent=tuple(name for name, is_scored in zip(target.outputs, exam.outputs, strict=True) if not is_scored),
        train_records=int(np.isfinite(target.truth[job.parts.train]).any(axis=1).sum()),
        validation_records=len(job.parts.validation),
        records=len(exam.entries),
        patients=len(np.unique(exam.patients)),
        constant=constant,
    )


def _caption(result: Result) -> str:
    epochs = ", ".join(f"{mode} {count}" for mode, count in result.epochs.items())
    return (
        f"Trained and tested on other patients of the same cohort. Epochs, of which the best on validation counts: {epochs}. "
        f"95 % intervals draw patients anew. Probabilities of a recording's segments: {result.segments}. A class is part of a mean "
        "where the test part, or a draw of its patients, has records with it and without."
    )


def _scores(result: Result, mine: Sequence[_Task]) -> pd.DataFrame:
    """A row a set of weights and cohort, one of a constant, one for how well each tells the cohort; a column a mode and metric."""
    columns = [(mode, place) for mode in result.modes for place in range(len(mine[0].metrics))]
    rows = {}
    for one in mine:
        for name in result.weights:
            found = [result.score(name, mode, one) for mode, _ in columns]
            rows[f"{one.cohort}: {name}"] = [
                s.metrics[one.metrics[place]].text if s else NOTHING
                for s, (_, place) in zip(found, columns, strict=True)
            ]
        if one.constant is not None:
            constant = f"{one.constant:.3f}"
            rows[f"{one.cohort}: median, always"] = [NOTHING if place else constant for _, place in columns]
    for told in (one for one in result.tasks if one.task == _COHORT):
        for name in result.weights:
            values = [None if place else _main(result.score(name, mode, told)) for mode, place in columns]
            rows[f"the cohort, from {name}, {told.metrics[0]}"] = [one.text if one else NOTHING for one in values]
    heads = [f"{mode}: {mine[0].metrics[place]}" for mode, place in columns]
    return pd.DataFrame.from_dict(rows, orient="index", columns=heads)


def _records(result: Result) -> pd.DataFrame:
    """Who was trained on and tested, and which classes are no part of a mean."""
    rows = {
        one.name: [
            one.train_records,
            one.validation_records,
            one.records,
            one.patients,
            f"{len(one.outputs) - len(one.absent)} of {len(one.outputs) + len(one.left_out)}",
            ", ".join((*one.left_out, *one.absent)) or NOTHING,
        ]
        for one in result.tasks
    }
    heads = ["trained on", "validated on", "tested on", "patients tested", "classes in the mean", "others"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=heads)
