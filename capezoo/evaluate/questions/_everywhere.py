"""Linear probes in every cohort, with draws of test patients that pair, and what pretraining had met of each cohort."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import EveryHome, Parts
from capezoo.evaluate.measure.scalers import ScalerName
from capezoo.evaluate.questions import Context, Subject, Table
from capezoo.evaluate.questions._probing import _WHAT, Probing, _sit, _trainable
from capezoo.evaluate.questions._targets import Target, TargetExam
from capezoo.specs.base import Spec
from capezoo.zoo.digests import seen
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import Limits
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Bootstrap
    from capezoo.specs.card import Training

_MEAN = ""  # in place of a cohort's name: over cohorts, each counting alike
_DEFAULT = ("challenge_24", "age", "sex")
# Of a metric that is an error, less is better.
_ERRORS = ("MAE",)


class EveryProbe(Probing, EveryHome):
    """Settings of every question that trains linear probes in each cohort: its `Config` inherits them."""

    target: tuple[str, ...] = Field((), description=f"{_WHAT}; default: {', '.join(_DEFAULT)}")
    min_patients: int = Field(
        20, gt=1, description="cohorts with fewer labelled test patients are left out and named; our default"
    )
    scaler: ScalerName = Field(
        "guarded", description="of features, fitted on each cohort's training part; plain: z-scores; our default"
    )


class _Home(Spec):
    """Records of one cohort for one target: the same for all weights."""

    cohort: str
    target: str
    outputs: int  # classes that are scored here
    absent: tuple[str, ...]  # classes without a record that has them and one that has not: no part of a mean
    train_records: int
    validation_records: int
    test_records: int
    test_patients: int
    constant: dict[str, float]  # metric -> of a constant answer


class _Number(Spec):
    """One metric of one set of weights."""

    weights: str
    cohort: str  # empty: the mean over cohorts
    target: str
    metric: str
    value: float
    low: float | None  # test patients drawn anew, and initialisations with them
    high: float | None


class _Pretraining(Spec):
    """What pretraining had met of the store, by its digests; None: unknown."""

    weights: str
    patients: dict[str, int] | None  # cohort -> patients with a recording it was trained on
    steps: int | None  # 0: never trained


# (weights, cohort, target, metric) -> its draws; the cohort _MEAN is the mean over cohorts
_Draws = dict[tuple[str, str, str, str], "Bootstrap"]


@dataclass(frozen=True, eq=False)
class _Everywhere:
    """Probes of all weights in all cohorts."""

    homes: tuple[_Home, ...]
    draws: _Draws
    left_out: dict[str, str] = field(default_factory=dict)  # "cohort, target" -> why

    @cached_property
    def numbers(self) -> tuple[_Number, ...]:
        found = []
        for (weights, cohort, target, metric), draws in self.draws.items():
            if np.isfinite(draws.value):
                low, high = draws.interval().limits
                found.append(
                    _Number(weights=weights, cohort=cohort, target=target, metric=metric, value=draws.value,
                            low=low, high=high)
                )  # fmt: skip
        return tuple(found)


def _probed(context: Context, config: EveryProbe) -> _Everywhere:
    """Train and test probes of every subject in every cohort. Raises Unanswerable if no cohort has labels enough."""
    index, seed = context.index, context.seed
    parts = config.parts(index, seed, context.store)
    exams: list[tuple[TargetExam, Parts]] = []
    left_out: dict[str, str] = {}
    for cohort in index.cohorts:
        mine = parts.of(index, cohort)
        targets, refused = _trainable(index, config.target or _DEFAULT, mine)
        left_out |= {f"{cohort}, {name}": why for name, why in refused.items()}
        for target in targets:
            found = next(iter(TargetExam.find(target, index, mine, seed, config.resamples)), None)
            count = len(np.unique(found.patients)) if found else 0
            if found and count >= config.min_patients:
                exams.append((found, mine))
            else:
                left_out[f"{cohort}, {target.name}"] = (
                    f"found {count} test patients who can be scored, expected {config.min_patients}."
                )
    if not exams:
        raise Unanswerable(
            f"found no cohort with {config.min_patients} labelled test patients and labels to train on, expected one. Lower "
            "--min-patients, or add labels: ecgcohorts label."
        )
    draws: _Draws = {}
    for place, subject in enumerate(context.subjects):
        for step, (exam, mine) in enumerate(exams):
            of_exam = _drawn(subject, exam, mine, config, seed)
            draws |= {(subject.name, exam.cohort, exam.target.name, name): one for name, one in of_exam.items()}
            context.progress(place * len(exams) + step + 1, len(context.subjects) * len(exams))
    return _Everywhere(tuple(_home(*one) for one in exams), draws | dict(_means(draws)), left_out)


def _metrics(target: Target) -> list[str]:
    # The micro average counts frequent classes alone, and R2 says what MAE says.
    return [name for name in target.metrics if name not in ("micro AUROC", "R2")]


def _drawn(subject: Subject, exam: TargetExam, parts: Parts, config: EveryProbe, seed: int) -> "dict[str, Bootstrap]":
    """Train the probes of one cohort and target, and draw its test patients anew."""
    sat = [
        _sit(features, exam.target, [exam], parts, config, seed, names=(config.scaler,))[0]
        for features in subject.initialisations
    ]
    each = [exam.statistics(one[exam.cohort, config.scaler].mean(axis=0)) for one in sat]
    return {name: exam.draws([one[name] for one in each]) for name in _metrics(exam.target)}


def _means(draws: _Draws) -> "Iterator[tuple[tuple[str, str, str, str], Bootstrap]]":
    """Mean over the cohorts that have a target, where there are several."""
    from capezoo.evaluate.measure.statistics import Bootstrap

    for weights, target, metric in dict.fromkeys((key[0], *key[2:]) for key in draws):
        mine = [one for key, one in draws.items() if (key[0], *key[2:]) == (weights, target, metric)]
        if len(mine) > 1:
            yield (weights, _MEAN, target, metric), Bootstrap.mean(mine)


def _home(exam: TargetExam, parts: Parts) -> _Home:
    target = exam.target
    train, validation = (part[target.known(part)] for part in (parts.train, parts.validation))
    truth = target.truth[train]
    # The best constant for an absolute error is the median; for classes their shares.
    constant = np.median(truth, axis=0) if target.kind == "number" else truth.mean(axis=0)
    always = exam.statistics(np.tile(constant, (len(exam.entries), 1)))
    return _Home(
        cohort=exam.cohort,
        target=target.name,
        outputs=int(exam.outputs.sum()),
        absent=(*target.left_out, *(n for n, ok in zip(target.outputs, exam.outputs, strict=True) if not ok)),
        train_records=len(train),
        validation_records=len(validation),
        test_records=len(exam.entries),
        test_patients=len(np.unique(exam.patients)),
        constant={name: exam.alone(always[name]) for name in _metrics(target)},
    )


class _Pretrained(Protocol):
    """What is known of weights before they are embedded, and afterwards."""

    @property
    def name(self) -> str: ...
    @property
    def trained_on(self) -> NDArray[np.uint8] | None: ...
    @property
    def training(self) -> "Training | None": ...


def _met(index: CohortIndex, rows: Sequence[_Pretrained]) -> dict[str, NDArray[np.bool_]]:
    """Mark the entries of the store that each set of weights was trained on, where a card and digests tell."""
    return {
        one.name: seen(index, one.trained_on)[0]
        for one in rows
        if one.training is not None and one.trained_on is not None
    }


def _pretrainings(context: Context) -> tuple[_Pretraining, ...]:
    index, found = context.index, []
    for one in context.subjects:
        patients = None
        if one.trained_on is not None:
            entries = seen(index, one.trained_on)[0]
            patients = {
                name: len(np.unique(index["patient"][entries & (index["cohort"] == code)]))
                for code, name in enumerate(index.cohorts)
            }
        steps = one.training.steps if one.training else 0 if one.trained_on is not None else None
        found.append(_Pretraining(weights=one.name, patients=patients, steps=steps))
    return tuple(found)


def _percent_better(first: "Bootstrap", second: "Bootstrap", metric: str) -> "Bootstrap":
    """By how many percent of the second the first is better; for errors, by how many it is less. NaN of a second of 0."""
    from capezoo.evaluate.measure.statistics import Bootstrap

    sign = -100.0 if metric in _ERRORS else 100.0
    with np.errstate(divide="ignore", invalid="ignore"):
        values, draws = (sign * (a - b) / b for a, b in ((first.values, second.values), (first.draws, second.draws)))
    return Bootstrap(values, draws, first.seed)


def _text(value: float | None, low: float | None, high: float | None, metric: str, sign: str = "") -> str:
    """Write a number of a metric, or of `%`, with its interval."""
    if value is None:
        return NOTHING
    form = f"{sign}.{1 if metric == '%' else 2 if metric in _ERRORS else 3}f"
    return f"{value:{form}}" + ("" if low is None or high is None else f" ({low:{form}} to {high:{form}})")


def _score(number: _Number | None) -> str:
    return NOTHING if number is None else _text(number.value, number.low, number.high, number.metric)


def _limits(number: _Number | None) -> Limits | None:
    return (number.low, number.value, number.high) if number else None


def _title(target: str, metric: str) -> str:
    return f"{target[:1].upper()}{target[1:]}: {metric}"


def _cohort(name: str) -> str:
    return name or "mean over cohorts"


def _records(homes: Sequence[_Home], left_out: Mapping[str, str]) -> list[Table]:
    """Labelled records of each cohort and target, and why others have none."""
    rows = {
        f"{home.cohort}, {home.target}": {
            "training records": home.train_records,
            "validation records": home.validation_records,
            "test records": home.test_records,
            "test patients": home.test_patients,
            "classes scored": home.outputs,
            "no part of the mean": ", ".join(home.absent) or NOTHING,
        }
        for home in homes
    }
    found = [Table("records", pd.DataFrame.from_dict(rows, orient="index"), folded=True)]
    if left_out:
        found.append(
            Table("left out", pd.DataFrame.from_dict(dict(left_out), orient="index", columns=["why"]), "", True)
        )
    return found


def _met_table(found: Sequence[_Pretraining], cohorts: Sequence[str]) -> pd.DataFrame:
    """Patients of each cohort whom pretraining had met."""
    rows = {
        one.weights: [
            *(NOTHING if one.patients is None else f"{one.patients.get(name, 0):,}" for name in cohorts),
            NOTHING if one.steps is None else f"{one.steps:,}",
        ]
        for one in found
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*cohorts, "steps"])
