"""What the question `grid` finds: the heads of every cell, their scores, and tests over all and over pairs of weights."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capezoo.evaluate.measure.parts import Task
from capezoo.specs.base import Spec

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Bootstrap

_MEAN = ""  # in place of a cohort's name: over cohorts, each counting alike


class _Home(Spec):
    """Records of one cohort for one task: the same for all weights and all runs."""

    task: Task
    cohort: str
    train_records: int
    validation_records: int
    test_records: int
    test_patients: int
    constant: float  # metric of one answer for all: the training part's median age, or any sex


class _Score(Spec):
    """One metric of one set of weights."""

    task: Task
    cohort: str  # empty: the mean over cohorts
    runs: tuple[float, ...]  # one value per head; of several initialisations, one for each of them
    mean: float
    runs_low: float | None  # t interval over runs
    runs_high: float | None
    low: float | None  # of `mean`, test patients drawn anew, and initialisations with them
    high: float | None


class _Cell(Spec):
    """The heads of one set of weights in one cohort."""

    task: Task
    cohort: str
    hidden: tuple[int, ...]
    parameters: int
    epochs: tuple[int, ...]


class _Measured(Spec):
    """Everything measured on one set of weights."""

    name: str
    units: int
    seen_patients: dict[str, int] | None  # cohort -> test patients whom pretraining had seen; None: unknown
    cells: tuple[_Cell, ...]
    scores: tuple[_Score, ...]

    def score(self, task: Task, cohort: str) -> _Score | None:
        return next((one for one in self.scores if (one.task, one.cohort) == (task, cohort)), None)


class _Several(Spec):
    """All weights at once: do their runs differ?"""

    task: Task
    cohort: str
    p: float  # Kruskal and Wallis, over runs
    q: float | None  # over all tasks and cohorts
    epsilon_squared: float


class _Compared(Spec):
    """Two sets of weights on the same records: metric of `first` minus metric of `second`."""

    first: str
    second: str
    task: Task
    cohort: str
    difference: float
    low: float | None  # test patients drawn anew
    high: float | None
    p: float | None  # of the same draws
    q: float | None = None  # over all pairs, tasks and cohorts
    runs_p: float | None  # Mann and Whitney, over runs
    runs_q: float | None = None
    cliffs_delta: float | None  # over runs


def _score(task: Task, cohort: str, values: NDArray[np.float64], draws: "Bootstrap") -> _Score:
    """values: (initialisation, run)."""
    from capezoo.evaluate.measure.statistics import t_interval

    # Heads of one network differ less than networks do: what several tell apart is the spread between them.
    runs = values.mean(axis=1) if len(values) > 1 else values[0]
    (low, high), (runs_low, runs_high) = draws.interval().limits, t_interval(runs).limits
    return _Score(
        task=task,
        cohort=cohort,
        runs=tuple(runs.tolist()),
        mean=draws.value,
        runs_low=runs_low,
        runs_high=runs_high,
        low=low,
        high=high,
    )


def _several(weights: Sequence[_Measured]) -> tuple[_Several, ...]:
    from capezoo.evaluate.measure.ranks import kruskal_wallis, q_values

    first = weights[0].scores
    # One run of each has no spread to compare with.
    if len(weights) < 2 or len(first[0].runs) < 2:
        return ()
    found = [kruskal_wallis([one.scores[place].runs for one in weights]) for place in range(len(first))]
    return tuple(
        _Several(task=score.task, cohort=score.cohort, p=test.p, q=q, epsilon_squared=test.effect)
        for score, test, q in zip(first, found, q_values([test.p for test in found]), strict=True)
    )


def _comparisons(
    weights: Sequence[_Measured], draws: Sequence[dict[tuple[Task, str], "Bootstrap"]]
) -> tuple[_Compared, ...]:
    from capezoo.evaluate.measure.ranks import q_values

    found = list(_compared(weights, draws))
    # Two families: patients and runs are two questions, each asked of all pairs, tasks and cohorts.
    q, runs_q = q_values([one.p for one in found]), q_values([one.runs_p for one in found])
    return tuple(one.model_copy(update={"q": a, "runs_q": b}) for one, a, b in zip(found, q, runs_q, strict=True))


def _compared(
    weights: Sequence[_Measured], draws: Sequence[dict[tuple[Task, str], "Bootstrap"]]
) -> Iterator[_Compared]:
    from capezoo.evaluate.measure.ranks import rank_sum

    for (first, of_first), (second, of_second) in combinations(zip(weights, draws, strict=True), 2):
        for a, b in zip(first.scores, second.scores, strict=True):
            paired = of_first[a.task, a.cohort] - of_second[a.task, a.cohort]
            # Unpaired: equal initial weights make nothing alike between heads on different features.
            test = rank_sum(a.runs, b.runs) if len(a.runs) > 1 else None
            low, high = paired.interval().limits
            yield _Compared(
                first=first.name,
                second=second.name,
                task=a.task,
                cohort=a.cohort,
                difference=paired.value,
                low=low,
                high=high,
                p=paired.p,
                runs_p=test.p if test else None,
                cliffs_delta=test.effect if test else None,
            )
