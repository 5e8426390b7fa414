"""Linear probes: how well one dense layer on frozen embeddings answers diagnoses, age, sex, or any label of a store.

The linear probes of CAPE's public code (arXiv 2509.10369): PTB-XL's five superclasses and 23 subclasses, age and sex, on
its folds or on shares of patients. Beyond it: any label column, other cohorts that have the labels, a guarded scaler beside
the plain one, intervals that draw patients, and what a constant answer gets.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Home, Parts
from capezoo.evaluate.measure.scalers import SCALERS, ScalerName
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.evaluate.questions._probing import Probing, _Answers, _settings, _sit, _trainable
from capezoo.evaluate.questions._targets import Kind, Target, TargetExam, _Value, differences
from capezoo.specs.base import Spec
from capezoo.specs.card import Metric
from ecgcohorts.report.charts import intervals
from ecgcohorts.report.page import NOTHING

EXAMPLES = (
    "capezoo evaluate probe --weights w/x --weights random --store store.zarr --train-cohort ptb_xl --split folds --seed 0 -o study",
    "capezoo evaluate probe --weights w/x --store store.zarr --train-cohort ptb_xl --target af+rbbb --target lvef=number "
    "--seed 0 --lr 1e-3 -o study",
)
_DEFAULT = ("age", "sex", "superclass", "subclass")


class Config(Probing, Home):
    """What is answered in the home cohort and elsewhere, and how the probes are trained."""


class _Asked(Spec):
    """A target as the home cohort has it."""

    name: str
    kind: Kind
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]  # the main one first
    left_out: tuple[str, ...]  # labels that no training record has, or all have
    train_records: int
    validation_records: int


class _TestSet(Spec):
    """Records of one cohort with known truth of one target: the same for all weights."""

    target: str
    cohort: str
    records: int
    patients: int
    positives: dict[str, int]  # class -> records that have it; empty for a number
    absent: tuple[str, ...]  # classes unknown here, or that no record has, or all have: no part of a mean
    constant: dict[
        str, float
    ]  # metric -> of a constant answer: median of a number, shares of classes in the training part


class _Score(Spec):
    """One set of weights, one target, one cohort, one scaler."""

    weights: str
    target: str
    cohort: str
    scaler: ScalerName
    metrics: dict[str, _Value]  # of the answer averaged over runs; of several initialisations, their mean
    runs: tuple[float, ...]  # the main metric of each run; of several initialisations, their mean
    classes: dict[str, _Value]  # AUROC of each class that this cohort has; of one label alone none


class _Difference(Spec):
    """Main metric of `first` minus that of `second`, on the same records."""

    first: str
    second: str
    target: str
    cohort: str
    scaler: ScalerName
    difference: _Value


class Result(Spec):
    """Scores of all weights for all targets in all cohorts that have them."""

    train_cohort: str
    targets: tuple[_Asked, ...]
    tests: tuple[_TestSet, ...]
    scores: tuple[_Score, ...]
    differences: tuple[_Difference, ...]
    epochs: dict[str, tuple[int, ...]]  # "weights, target, scaler" -> epochs of each probe
    at_limit: int  # probes whose last epoch was their last allowed
    left_out: dict[str, str]  # target -> why this store cannot answer it

    def score(self, weights: str, target: str, cohort: str, scaler: ScalerName) -> _Score | None:
        """One of the scores, if there is one."""
        wanted = (weights, target, cohort, scaler)
        return next((s for s in self.scores if (s.weights, s.target, s.cohort, s.scaler) == wanted), None)

    @property
    def names(self) -> list[str]:
        """Names of the weights, in order."""
        return list(dict.fromkeys(score.weights for score in self.scores))


def run(context: Context, config: Config) -> Result:
    """Train probes on `config.train_cohort` for every set of weights and target, and test them on all cohorts.

    Raises SpecError for an unknown cohort or label, and Unanswerable if no target can be answered.
    """
    index, seed = context.index, context.seed
    parts = config.parts(index, seed, context.store)
    targets, left_out = _trainable(index, config.target or _DEFAULT, parts)
    if not targets:
        raise Unanswerable(" ".join(left_out.values()))
    exams = [exam for one in targets for exam in TargetExam.find(one, index, parts, seed, config.resamples)]
    scores: list[_Score] = []
    compared: list[_Difference] = []
    epochs: dict[str, tuple[int, ...]] = {}
    at_limit = 0
    for target in targets:
        mine = [exam for exam in exams if exam.target is target]
        answers = {}
        for subject in context.subjects:
            sat = [_sit(features, target, mine, parts, config, seed) for features in subject.initialisations]
            answers[subject.name] = {key: np.stack([answered[key] for answered, _ in sat]) for key in sat[0][0]}
            trained = {scaler: tuple(n for _, counts in sat for n in counts[scaler]) for scaler in SCALERS}
            epochs |= {f"{subject.name}, {target.name}, {scaler}": count for scaler, count in trained.items()}
            at_limit += sum(n >= _settings(target, config).max_epochs for count in trained.values() for n in count)
            scores += [
                _scored(subject.name, exam, scaler, answers[subject.name]) for exam in mine for scaler in SCALERS
            ]
            context.progress(
                targets.index(target) * len(context.subjects) + len(answers), len(targets) * len(context.subjects)
            )
        pairs = list(combinations(answers.items(), 2))
        compared += [_compared(exam, scaler, *pair) for pair in pairs for exam in mine for scaler in SCALERS]
    return Result(
        train_cohort=config.train_cohort,
        targets=tuple(_asked(one, parts) for one in targets),
        tests=tuple(_test_set(exam, parts) for exam in exams),
        scores=tuple(scores),
        differences=tuple(compared),
        epochs=epochs,
        at_limit=at_limit,
        left_out=left_out,
    )


def tables(result: Result) -> Sequence[Table]:
    """Each target at home, elsewhere and by class, and the test records."""
    shown = []
    for one in result.targets:
        caption = (
            f"Trained on {one.train_records:,} records of {result.train_cohort}, validated on {one.validation_records:,}. "
            "95 % intervals draw patients anew. Plain: z-score by the training part. Guarded: small deviations are floored, "
            "values cut at ten deviations."
        )
        if one.left_out:
            caption += f" Left out, as no training record has it or all have: {', '.join(one.left_out)}."
        if result.at_limit:
            caption += f" Of all probes {result.at_limit} stopped at the last epoch allowed: a higher rate may help."
        tests = [test for test in result.tests if test.target == one.name]
        home = [test for test in tests if test.cohort == result.train_cohort]
        shown += [Table(_title(one), _scores(result, one, [test], one.metrics), caption) for test in home]
        if len(tests) > len(home):
            by_cohort = _scores(result, one, tests, one.metrics[:1])
            shown.append(
                Table(f"{_title(one)}: {one.metrics[0]} by cohort", by_cohort, "" if home else caption, bool(home))
            )
        if len(one.outputs) > 1 and home:
            shown.append(Table(f"{_title(one)}: AUROC by class", _by_class(result, one), folded=True))
        if len(result.names) > 1:
            shown.append(Table(f"{_title(one)}: paired differences", _paired(result, one), folded=True))
    rows = {
        f"{test.target}, {test.cohort}": [test.records, test.patients, ", ".join(test.absent) or NOTHING]
        for test in result.tests
    }
    heads = ["records", "patients", "no part of the mean"]
    shown.append(Table("test records", pd.DataFrame.from_dict(rows, orient="index", columns=heads), folded=True))
    if result.left_out:
        reasons = pd.DataFrame.from_dict(result.left_out, orient="index", columns=["why"])
        shown.append(Table("left out", reasons, folded=True))
    return shown


def figures(result: Result) -> Sequence[Figure]:
    """Draw the main metric of each target by cohort, and the AUROC of each class at home: guarded scaler."""
    drawn = []
    for one in result.targets:
        cohorts = [test.cohort for test in result.tests if test.target == one.name]
        titles = [f"{name} (trained here)" if name == result.train_cohort else name for name in cohorts]
        scores = {
            name: [result.score(name, one.name, cohort, "guarded") for cohort in cohorts] for name in result.names
        }
        series = {
            name: [s.metrics[one.metrics[0]].limits if s else None for s in mine] for name, mine in scores.items()
        }
        axis = f"{one.metrics[0]}, guarded scaler, 95 % intervals"
        drawn.append(Figure(one.name, intervals(_title(one), titles, series, axis)))
        here = {name: result.score(name, one.name, result.train_cohort, "guarded") for name in result.names}
        if len(one.outputs) > 1 and all(here.values()):
            by_class = {
                name: [s.classes[c].limits if s and c in s.classes else None for c in one.outputs]
                for name, s in here.items()
            }
            axis = "AUROC, guarded scaler, 95 % intervals"
            drawn.append(Figure(f"{one.name} by class", intervals(_title(one), one.outputs, by_class, axis)))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """The main metric of each target in the cohort that probes were trained on, with the guarded scaler."""
    rows: dict[str, dict[str, float | None]] = {}
    for name in result.names:
        rows[name] = {}
        for one in result.targets:
            score = result.score(name, one.name, result.train_cohort, "guarded")
            rows[name][f"{one.name}, {one.metrics[0]} of probe"] = (
                score.metrics[one.metrics[0]].value if score else None
            )
    return rows


def card_metrics(result: Result, weights: str) -> tuple[Metric, ...]:
    """Main metrics with the guarded scaler, one a target and cohort."""
    how = f"linear probe trained on {result.train_cohort}, guarded scaler, answers averaged over runs"
    found = []
    for test in result.tests:
        if score := result.score(weights, test.target, test.cohort, "guarded"):
            name, one = next(iter(score.metrics.items()))
            key = f"probe_{test.target}_{name.lower().replace(' ', '_')}"
            found.append(Metric(name=key, cohort=test.cohort, n=test.records, method=how, **one.model_dump()))
    return tuple(found)


def _scored(weights: str, exam: TargetExam, scaler: ScalerName, answers: _Answers) -> _Score:
    found = answers[exam.cohort, scaler]
    each = [exam.statistics(one.mean(axis=0)) for one in found]
    by_class = [exam.by_class(one.mean(axis=0)) for one in found]
    main = exam.target.metrics[0]
    return _Score(
        weights=weights,
        target=exam.target.name,
        cohort=exam.cohort,
        scaler=scaler,
        metrics={name: _Value.of(exam, [one[name] for one in each]) for name in exam.target.metrics},
        runs=tuple(
            np.mean([[exam.alone(exam.statistics(run)[main]) for run in one] for one in found], axis=0).tolist()
        ),
        classes={name: _Value.of(exam, [one[name] for one in by_class]) for name in by_class[0]},
    )


def _compared(
    exam: TargetExam,
    scaler: ScalerName,
    first: tuple[str, _Answers],
    second: tuple[str, _Answers],
) -> _Difference:
    main = exam.target.metrics[0]
    a, b = (
        [exam.statistics(one.mean(axis=0))[main] for one in answers[exam.cohort, scaler]]
        for _, answers in (first, second)
    )
    return _Difference(
        first=first[0],
        second=second[0],
        target=exam.target.name,
        cohort=exam.cohort,
        scaler=scaler,
        difference=_Value.of(exam, differences(a, b)),
    )


def _asked(target: Target, parts: Parts) -> _Asked:
    return _Asked(
        name=target.name,
        kind=target.kind,
        outputs=target.outputs,
        metrics=target.metrics,
        left_out=target.left_out,
        train_records=int(target.known(parts.train).sum()),
        validation_records=int(target.known(parts.validation).sum()),
    )


def _test_set(exam: TargetExam, parts: Parts) -> _TestSet:
    target = exam.target
    train = target.truth[parts.train[target.known(parts.train)]]
    # The best constant for an absolute error is the median; for classes their shares.
    constant = np.median(train, axis=0) if target.kind == "number" else train.mean(axis=0)
    always = exam.statistics(np.tile(constant, (len(exam.entries), 1)))
    named = zip(target.outputs, exam.outputs, strict=True)
    truth = target.truth[exam.entries]
    counts = dict(zip(target.outputs, (truth == 1).sum(axis=0).tolist(), strict=True))
    return _TestSet(
        target=target.name,
        cohort=exam.cohort,
        records=len(exam.entries),
        patients=len(np.unique(exam.patients)),
        positives={} if target.kind == "number" else counts,
        absent=tuple(name for name, is_scored in named if not is_scored),
        constant={name: exam.alone(statistic) for name, statistic in always.items()},
    )


def _title(one: _Asked) -> str:
    words = {"number": "number", "labels": f"{len(one.outputs)} labels", "classes": f"{len(one.outputs)} classes"}
    return one.name[:1].upper() + one.name[1:] + (f" ({words[one.kind]})" if len(one.outputs) > 1 else "")


def _scores(result: Result, one: _Asked, tests: Sequence[_TestSet], metrics: Sequence[str]) -> pd.DataFrame:
    """A row a set of weights and scaler, and one of a constant answer; a column a cohort or a metric."""
    rows = {}
    for name in result.names:
        for scaler in SCALERS:
            found = [result.score(name, one.name, test.cohort, scaler) for test in tests]
            rows[f"{name}, {scaler}"] = [s.metrics[key].text if s else NOTHING for s in found for key in metrics]
    rows["constant answer"] = [f"{test.constant[key]:.3f}" for test in tests for key in metrics]
    columns = list(metrics) if len(tests) == 1 else [test.cohort for test in tests]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _by_class(result: Result, one: _Asked) -> pd.DataFrame:
    """AUROC of each class at home with the guarded scaler, beside the number of records that have it."""
    test = next(t for t in result.tests if (t.target, t.cohort) == (one.name, result.train_cohort))
    frame = pd.DataFrame({"records": test.positives}, index=list(one.outputs))
    for name in result.names:
        score = result.score(name, one.name, result.train_cohort, "guarded")
        found = score.classes if score else {}
        frame[name] = [found[c].text if c in found else NOTHING for c in one.outputs]
    return frame


def _paired(result: Result, one: _Asked) -> pd.DataFrame:
    rows = {
        f"{row.first} minus {row.second}, {row.cohort}, {row.scaler}": row.difference.text
        for row in result.differences
        if row.target == one.name
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[f"difference in {one.metrics[0]}"])
