"""Age and sex as tasks: whose truth is known, what heads are taught, and how their answers are scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from capezoo.evaluate.measure import heads
from capezoo.evaluate.measure.parts import TASKS, Parts, Task
from capezoo.evaluate.measure.scalers import SCALERS, Features, ScalerName, fit_scaler
from capezoo.evaluate.measure.statistics import (
    Bootstrap,
    Interval,
    Statistic,
    auroc,
    delong_test,
    one_per_patient,
    patient_draws,
    weighted_mean,
)
from capezoo.specs.base import derive_seed
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex

FEWEST = 2  # labelled records of each kind below which nothing is trained or scored
# The age head answers (age - 7) / 100; CAPE's public code.
_AGE_SHIFT, _AGE_RANGE = 7.0, 100.0
WIDTHS = (32, 64, 128, 256)  # of a hidden layer in the published search
_HEADS: dict[Task, heads.HeadConfig] = {"age": heads.AGE, "sex": heads.SEX}

# (task, cohort, scaler) -> (run, record) answers: years for age, probability of female for sex; with a leading axis of
# initialisations where a row has several
Answers = dict[tuple[Task, str, ScalerName], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Exam:
    """One task in one cohort: the test records whose truth is known. Axis `record` below means these."""

    task: Task
    cohort: str
    entries: NDArray[np.int64]
    truth: NDArray[np.float64]  # years, or 1 for female
    patients: NDArray[np.int64]
    seed: int
    resamples: int

    @classmethod
    def find(cls, index: CohortIndex, parts: Parts, seed: int, resamples: int) -> list[Self]:
        """List the exams that can be sat: tasks with labels enough to train on, in every cohort with enough to score."""
        found = []
        for task in (task for task in TASKS if _is_trainable(index, parts, task)):
            for cohort, entries in parts.tests.items():
                truth, is_known = targets(index, entries, task)
                if _is_scorable(truth[is_known], task):
                    at = entries[is_known]
                    found.append(cls(task, cohort, at, truth[is_known], index["patient"][at], seed, resamples))
        return found

    def metric(self, answer: NDArray[np.float64]) -> Statistic:
        """Error in years or AUROC of one (record,) answer, as a statistic over (resample, record) weights."""
        if self.task == "age":
            return weighted_mean(np.abs(answer - self.truth))
        return lambda weights: auroc(self.truth == 1, answer, weights)

    def per_run(self, answers: NDArray[np.float64]) -> list[float]:
        """The metric of each of (run, record) answers."""
        # One resample in which every record counts once.
        one = np.ones((1, len(self.truth)))
        return [float(self.metric(answer)(one)[0]) for answer in answers]

    def run_mean(self, answers: NDArray[np.float64]) -> Statistic:
        """The mean over runs of their metrics, not the metric of their mean, as a statistic of (run, record) answers."""
        if self.task == "age":
            return weighted_mean(np.abs(answers - self.truth).mean(axis=0))
        return lambda weights: np.mean([auroc(self.truth == 1, answer, weights) for answer in answers], axis=0)

    def draws(self, statistics: Sequence[Statistic]) -> Bootstrap:
        """A statistic when patients are drawn anew: the same draws for all weights and scalers.

        statistics: one of each initialisation, whose mean is meant; those of trained weights are one. A sex with a single
        patient has no draws.
        """
        found = patient_draws(self.patients, statistics, self.resamples, derive_seed(self.seed, "boot", self.cohort))
        # Of a sex with one patient every draw that has him is alike: the interval would know of no others.
        if self.task == "sex" and min(len(np.unique(self.patients[self.truth == one])) for one in (0, 1)) < FEWEST:
            found.draws[:] = np.nan
        return found

    def interval(self, statistics: Sequence[Statistic]) -> Interval:
        """The interval of a statistic from those draws."""
        return self.draws(statistics).interval()

    def delong(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float | None, int] | None:
        """p of DeLong's test between two (record,) answers, and the number of patients in it; None for age."""
        # DeLong's variance assumes independent cases: two ECGs of one patient are not.
        single = one_per_patient(self.patients, derive_seed(self.seed, "delong", self.cohort))
        if self.task != "sex" or not _is_scorable(self.truth[single], "sex"):
            return None
        p = delong_test(self.truth[single] == 1, first[single], second[single]).p
        # Different areas without any variance have no p.
        return p if np.isfinite(p) else None, len(single)


def targets(
    index: CohortIndex, entries: NDArray[np.int64], task: Task
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Truth of some entries (years, or 1 for female) and whether it is known; ages from 90 on count as unknown."""
    if task == "age":
        age = index["age"][entries].astype(np.float64)
        # From the cap on ages are stored as the cap; CAPE leaves them out of age metrics as well.
        return age, np.isfinite(age) & (age < AGE_CAP_YEARS)
    sex = index["sex"][entries]
    return (sex == SEX_CODES["female"]).astype(np.float64), np.isin(sex, list(SEX_CODES.values()))


def _is_scorable(truth: NDArray[np.float64], task: Task) -> bool:
    """Whether there are enough truths for a metric; for sex, enough of both."""
    if task == "age":
        return len(truth) >= FEWEST
    return bool(min((truth == 1).sum(), (truth == 0).sum()) >= FEWEST)


def _is_trainable(index: CohortIndex, parts: Parts, task: Task) -> bool:
    for entries in (parts.train, parts.validation):
        truth, is_known = targets(index, entries, task)
        if is_known.sum() < FEWEST or (task == "sex" and len(np.unique(truth[is_known])) < 2):
            return False
    return True


def sit(
    features: Features,
    index: CohortIndex,
    parts: Parts,
    sat: Sequence[Exam],
    *,
    runs: int,
    lr: float,
    max_epochs: int,
    scalers: Sequence[ScalerName] = SCALERS,
    hidden: tuple[int, int] | None = None,
) -> tuple[Answers, dict[str, tuple[int, ...]]]:
    """Train heads for the one task of the exams `sat`, with each of `scalers`, and return their answers.

    features: (entry of the index, unit). hidden: widths of the two hidden layers; None: the published ones. Beside the
    answers: "task scaler" -> epochs of each of `runs` heads.
    """
    task, seed = sat[0].task, sat[0].seed
    train, validation, scale = _taught(features, index, parts, task, scalers)
    config = _HEADS[task].model_copy(update={"lr": lr, "max_epochs": max_epochs})
    if hidden:
        config = config.model_copy(update={"hidden": hidden})
    # Neither weights nor scaler are in the key: run r draws alike for all of them, so that runs pair.
    trained = config.train(train, validation, [derive_seed(seed, "ood-head", task, run) for run in range(runs)])
    answers: Answers = {}
    epochs: dict[str, tuple[int, ...]] = {}
    for place, name in enumerate(scalers):
        # Equal inputs were taught once.
        group = min(place, len(train.inputs) - 1)
        epochs[f"{task} {name}"] = tuple(trained.epochs[group].tolist())
        for exam in sat:
            found = trained.predict(scale[name](features[exam.entries]), group)
            answers[task, exam.cohort, name] = found * _AGE_RANGE + _AGE_SHIFT if task == "age" else found
    return answers, epochs


def searched(
    features: Features, index: CohortIndex, parts: Parts, exam: Exam, *, lr: float, max_epochs: int, scaler: ScalerName
) -> tuple[int, int]:
    """Return the widths of two hidden layers, of WIDTHS each, whose head has the least loss on the validation part."""
    train, validation, _ = _taught(features, index, parts, exam.task, [scaler])
    config = _HEADS[exam.task].model_copy(update={"lr": lr, "max_epochs": max_epochs})
    # One head a shape: the published search says no more, and sixteen shapes cost as much as sixteen runs.
    seeds = [derive_seed(exam.seed, "ood-head", exam.task, 0)]
    losses = {}
    for hidden in product(WIDTHS, WIDTHS):
        trained = config.model_copy(update={"hidden": hidden}).train(train, validation, seeds)
        losses[hidden] = float(trained.best_loss[0, 0])
    return min(losses, key=lambda hidden: losses[hidden])


def head_parameters(task: Task, units: int, hidden: tuple[int, int] | None) -> tuple[tuple[int, ...], int]:
    """Return widths and number of weights of a task's head; hidden: None: the published widths."""
    config = _HEADS[task] if hidden is None else _HEADS[task].model_copy(update={"hidden": hidden})
    return config.hidden, config.parameters(units)


def _taught(
    features: Features, index: CohortIndex, parts: Parts, task: Task, scalers: Sequence[ScalerName]
) -> tuple[heads.Examples, heads.Examples, dict[ScalerName, Callable[[Features], Features]]]:
    """What heads are trained and validated on, a group for each scaler or one if all scale alike; and the scalers."""
    (train_x, train_y), (val_x, val_y) = (
        _known(features, index, part, task) for part in (parts.train, parts.validation)
    )
    scale: dict[ScalerName, Callable[[Features], Features]] = {name: fit_scaler(train_x, name) for name in scalers}
    inputs = [(one(train_x), one(val_x)) for one in scale.values()]
    # Heads of one run draw alike, so equal inputs give equal heads: train them once.
    if all(np.array_equal(a, b) for pair in inputs[1:] for a, b in zip(pair, inputs[0], strict=True)):
        inputs = inputs[:1]
    train, validation = zip(*inputs, strict=True)
    return _examples(list(train), train_y, train_y, task), _examples(list(validation), val_y, train_y, task), scale


def _known(
    features: Features, index: CohortIndex, entries: NDArray[np.int64], task: Task
) -> tuple[Features, NDArray[np.float64]]:
    truth, is_known = targets(index, entries, task)
    return features[entries[is_known]], truth[is_known]


def _examples(
    inputs: list[Features], truth: NDArray[np.float64], train: NDArray[np.float64], task: Task
) -> heads.Examples:
    """What a head is taught: age as a share of its range; sex with weights n / (2 n_class) of the training part."""
    if task == "age":
        return heads.Examples.of(inputs, (truth - _AGE_SHIFT) / _AGE_RANGE)
    # Balanced over the training part alone: a validation part of another mix must not move the weights.
    share = train.mean()
    return heads.Examples.of(inputs, truth, np.where(truth == 1, 0.5 / share, 0.5 / (1 - share)))
