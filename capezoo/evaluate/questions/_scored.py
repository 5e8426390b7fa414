"""What is found out of distribution, one cohort and one comparison at a time: the specs of `ood`, and how they are computed.

A row of several untrained networks has a value of each: theirs is the mean, and its interval draws patients and networks
together, so that a row does not owe its place to one lucky network.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from capezoo.evaluate.measure.parts import Parts, Task
from capezoo.evaluate.measure.scalers import SCALERS, Health, ScalerName
from capezoo.evaluate.questions import Subject
from capezoo.specs.base import Spec
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.index.cohort_index import CohortIndex

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Statistic
    from capezoo.evaluate.measure.tasks import Answers, Exam

# Patients; our default. In a mean of cohorts five would count as much as five thousand, and two patients that err alike
# have a bootstrap without spread: on real recordings it gave p below 0.0001 for a difference between two people.
_FEWEST = 20


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
    runs: tuple[float, ...]  # one value per head; of several initialisations, their mean
    mean: float
    se: float | None  # standard error over runs; of several initialisations, over these
    runs_low: float | None  # t interval over the same
    runs_high: float | None
    averaged: float  # of the prediction averaged over runs
    low: float | None  # of `averaged`, patients drawn anew, and initialisations with them
    high: float | None
    records: int
    patients: int
    initialisations: tuple[float, ...] = ()  # `averaged` of each, where there are several


class _Measured(Spec):
    """Everything measured on one set of weights."""

    name: str
    units: int
    seen: dict[str, int] | None  # cohort -> test records that pretraining had seen; None: unknown
    seen_patients: dict[str, int] | None = None  # cohort -> test patients of whom it had seen a recording in the store
    health: Health  # of several initialisations, the first
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
    p: float | None = None  # of the draws that `low` and `high` are of; None for fewer than 20 patients, as of DeLong
    q: float | None = None  # over all comparisons with this scaler
    wilcoxon_p: float | None  # paired runs; n runs never give less than 2 / 2**n
    wilcoxon_q: float | None = None
    rank_biserial: float | None = None  # of the same runs; above 0 where `first` is larger
    delong_p: float | None  # sex only, one record per patient; it knows no spread of initialisations, so none with them
    delong_q: float | None = None
    delong_runs: tuple[float, ...] = ()  # p of each head, as far as it has one
    delong_patients: int | None


def _score(exam: "Exam", scaler: ScalerName, answers: "Answers") -> _Score:
    from scipy.stats import sem

    from capezoo.evaluate.measure.statistics import t_interval

    found = answers[exam.task, exam.cohort, scaler]
    table = np.array([exam.per_run(one) for one in found])  # (initialisation, run)
    several = len(found) > 1
    # Heads of one network differ less than networks do: what several tell apart is the spread between them.
    spread = table.mean(axis=1) if several else table[0]
    over_runs, interval = t_interval(spread), exam.interval([exam.metric(one.mean(axis=0)) for one in found])
    (runs_low, runs_high), (low, high) = over_runs.limits, interval.limits
    return _Score(
        task=exam.task,
        cohort=exam.cohort,
        scaler=scaler,
        runs=tuple(table.mean(axis=0).tolist()),
        mean=over_runs.value,
        se=float(sem(spread)) if len(spread) > 1 else None,
        runs_low=runs_low,
        runs_high=runs_high,
        averaged=interval.value,
        low=low,
        high=high,
        records=len(exam.truth),
        patients=len(np.unique(exam.patients)),
        initialisations=tuple(exam.per_run(found.mean(axis=1))) if several else (),
    )


def _compare(
    exam: "Exam", scaler: ScalerName, first: tuple[str, "Answers"], second: tuple[str, "Answers"]
) -> _Comparison:
    """Two sets of weights on the same records: runs paired by seed, answers paired by record."""
    from capezoo.evaluate.measure.ranks import signed_ranks

    a, b = (answers[exam.task, exam.cohort, scaler] for _, answers in (first, second))
    # Initialisation k of two rows is one network; a trained one stands against each.
    count = max(len(a), len(b))
    pairs = [(exam.metric(a[k % len(a)].mean(axis=0)), exam.metric(b[k % len(b)].mean(axis=0))) for k in range(count)]
    difference = exam.draws([_difference(*pair) for pair in pairs])
    per_run = [np.mean([exam.per_run(one) for one in found], axis=0) for found in (a, b)]
    ranks = signed_ranks(*per_run) if a.shape[1] > 1 else None
    tested = [exam.delong(*pair) for pair in ((a[0].mean(axis=0), b[0].mean(axis=0)), *zip(a[0], b[0], strict=True))]
    enough = len(np.unique(exam.patients)) >= _FEWEST
    # DeLong's variance is that of patients: it knows no spread of initialisations.
    delong_p, *of_heads = [one[0] if one and enough and count == 1 else None for one in tested]
    low, high = difference.interval().limits
    return _Comparison(
        first=first[0],
        second=second[0],
        task=exam.task,
        cohort=exam.cohort,
        scaler=scaler,
        difference=difference.value,
        low=low,
        high=high,
        p=difference.p if enough else None,
        wilcoxon_p=ranks.p if ranks else None,
        rank_biserial=ranks.effect if ranks else None,
        delong_p=delong_p,
        delong_runs=tuple(p for p in of_heads if p is not None),
        delong_patients=tested[0][1] if tested[0] and count == 1 else None,
    )


def _controlled(found: Sequence[_Comparison]) -> tuple[_Comparison, ...]:
    """Give every p its q, one scaler at a time: both ask the same, and would count as twice as many tests."""
    from capezoo.evaluate.measure.ranks import q_values

    adjusted = list(found)
    for scaler in SCALERS:
        places = [place for place, one in enumerate(found) if one.scaler == scaler]
        for test in ("", "wilcoxon_", "delong_"):
            q = q_values([getattr(found[place], f"{test}p") for place in places])
            for place, value in zip(places, q, strict=True):
                adjusted[place] = adjusted[place].model_copy(update={f"{test}q": value})
    return tuple(adjusted)


def _difference(first: "Statistic", second: "Statistic") -> "Statistic":
    return lambda weights: first(weights) - second(weights)


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
    from capezoo.evaluate.measure.tasks import targets

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
        age_90=int((age >= AGE_CAP_YEARS).sum()),
        sex_known=int(targets(index, entries, "sex")[1].sum()),
        constant_age_mae=constant,
    )
