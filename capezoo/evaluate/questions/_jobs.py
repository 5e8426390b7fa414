"""What is learned of which cohort: tasks and the cohorts that have the labels for them, and telling these cohorts apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Parts
from capezoo.evaluate.questions import Context
from capezoo.evaluate.questions._targets import Target, TargetExam

_COHORT = "cohort"  # the task of telling the cohort
_EVERY = "every cohort"


class _Asking(Protocol):
    """What settings must say."""

    @property
    def min_patients(self) -> int: ...
    @property
    def resamples(self) -> int: ...


@dataclass(frozen=True, eq=False)
class _Job:
    """A task in a cohort, with who is trained on and who is tested."""

    target: Target
    exam: TargetExam
    parts: Parts

    @property
    def key(self) -> tuple[str, str]:
        return self.target.name, self.exam.cohort


def _jobs(context: Context, parts: Parts, tasks: Sequence[str], asking: _Asking) -> tuple[list[_Job], dict[str, str]]:
    """Find the tasks that cohorts have labels for, and why others are left out: "task" or "task, cohort" -> reason."""
    jobs, left_out = [], {}
    for task in dict.fromkeys(tasks):
        try:
            Target.require(context.index, task)
        except Unanswerable as error:
            left_out[task] = str(error)
            continue
        for cohort in parts.tests:
            try:
                jobs.append(_job(context, parts.of(context.index, cohort), task, asking))
            except Unanswerable as error:
                left_out[f"{task}, {cohort}"] = str(error)
    return jobs, left_out


def _job(context: Context, parts: Parts, task: str, asking: _Asking) -> _Job:
    """Raise Unanswerable if the cohort of these parts has too few labels or test patients."""
    index, [(cohort, tests)] = context.index, parts.tests.items()
    patients = len(np.unique(index["patient"][tests]))
    if patients < asking.min_patients:
        raise Unanswerable(
            f"{cohort}: found {patients} test patients, expected {asking.min_patients}. Lower --min-patients."
        )
    target = Target.find(index, task, parts.train, parts.validation)
    exams = list(TargetExam.find(target, index, parts, context.seed, asking.resamples))
    # Without a class to judge it by, no epoch would be the best.
    if not exams or not target.scored(parts.validation).any():
        raise Unanswerable(
            f"{task}: found no class with and without records in both validation and test part of {cohort}, expected one."
        )
    return _Job(target, exams[0], parts)


def _telling(context: Context, parts: Sequence[Parts], resamples: int) -> _Job | None:
    """Make the task of telling apart the cohorts that have a task; nothing for one alone. parts: of each cohort."""
    of_each = {next(iter(one.tests)): one for one in parts}
    if len(of_each) < 2:
        return None
    index, names = context.index, tuple(of_each)
    codes = np.array([index.cohort_code(name) for name in names])
    train, validation, entries = (
        np.sort(np.concatenate([part(one) for one in of_each.values()]))
        for part in (lambda one: one.train, lambda one: one.validation, lambda one: next(iter(one.tests.values())))
    )
    target = Target(_COHORT, "classes", names, (index["cohort"][:, None] == codes).astype(float))
    scored, patients = target.scored(entries), index["patient"][entries]
    exam = TargetExam(target, _EVERY, entries, scored, patients, context.seed, resamples)
    return _Job(target, exam, Parts(train, validation, {_EVERY: entries}))
