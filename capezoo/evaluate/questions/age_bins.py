"""Error by age: the age distribution of each cohort, and the error of predicted age in each decade of life.

Figure 5 of CAPE (arXiv 2509.10369), with heads for age as `ood` trains them. The paper's bins are of equal width between the
extremes of true and predicted age, so they differ from cohort to cohort and from head to head; these are decades, with counts
and intervals. A cohort whose patients are of the ages that are easiest to tell has the lowest error for that alone: the error
standardised to one distribution of ages is what cohorts can be compared by.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Home
from capezoo.evaluate.measure.scalers import SCALERS, ScalerName
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.specs.base import Spec
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import Limits, intervals, lines
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Statistic
    from capezoo.evaluate.measure.tasks import Exam

EXAMPLES = (
    "capezoo evaluate age_bins --weights w/x --weights random --store store.zarr --train-cohort ptb_xl --seed 0 -o study",
    "capezoo evaluate age_bins --weights w/x --store store.zarr --train-cohort north --standard south --seed 0 -o study",
)
_DECADES = tuple(range(0, 90, 10))
# A store caps ages here; what lies above is known to be 90 or more, and no better.
_OLDEST = int(AGE_CAP_YEARS)
_STEP = 5  # years, of the distribution of ages
# Patients; our default. A decade of a cohort with fewer has no interval, and cohorts are not compared over it.
_FEWEST_IN_DECADE = 5


class Config(Home):
    """How heads are trained, and what ages errors are standardised to."""

    runs: int = Field(10, gt=0, description="heads, whose errors are pooled; CAPE")
    lr: float = Field(1e-4, gt=0, description="learning rate of the heads; CAPE's. Small cohorts may need more")
    max_epochs: int = Field(100, gt=0, description="of each head at most; CAPE")
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")
    min_patients: int = Field(50, gt=0, description="cohorts with fewer test patients are tested, but not compared")
    standard: str = Field(
        "", description="cohort whose ages errors are standardised to; default: the mean of all compared cohorts"
    )

    def require(self, index: CohortIndex) -> None:
        """Raise SpecError for a standard that is no cohort."""
        if self.standard:
            index.cohort_code(self.standard)


class _Value(Spec):
    """One error in years with its interval, for which patients are drawn anew."""

    value: float
    low: float | None
    high: float | None


class _Ages(Spec):
    """Ages of the patients of one cohort, at the first recording that knows them."""

    cohort: str
    counts: tuple[int, ...]  # patients by steps of five years below 90
    from_90: int
    unknown: int


class _TestSet(Spec):
    """Test records of one cohort with a known age: the same for all weights. The tenth bin is of ages from 90 on."""

    cohort: str
    records: tuple[int, ...]
    patients: tuple[int, ...]
    constant: tuple[float | None, ...]  # error of always answering the training cohort's median age
    constant_all: float | None  # below 90
    constant_standardised: float | None


class _Score(Spec):
    """One set of weights in one cohort with one scaler."""

    weights: str
    cohort: str
    scaler: ScalerName
    bins: tuple[_Value | None, ...]  # as in `_TestSet`; the tenth is the distance to 90
    all: _Value | None  # below 90
    standardised: _Value | None


class _Standard(Spec):
    """The common distribution of ages."""

    decades: tuple[int, ...]  # their first years; every cohort compared has patients enough in each
    shares: tuple[float, ...]  # of each decade, summing to 1


class Result(Spec):
    """Ages of all cohorts, and errors by decade."""

    train_cohort: str
    train_records: int
    ages: tuple[_Ages, ...]
    tests: tuple[_TestSet, ...]
    scores: tuple[_Score, ...]
    compared: tuple[str, ...]  # cohorts with patients enough
    standard: _Standard | None  # None: no decade in which all of these have patients enough

    def score(self, weights: str, cohort: str, scaler: ScalerName) -> _Score:
        """One of the scores."""
        return next(s for s in self.scores if (s.weights, s.cohort, s.scaler) == (weights, cohort, scaler))

    @property
    def names(self) -> list[str]:
        """Names of the weights, in order."""
        return list(dict.fromkeys(score.weights for score in self.scores))


def run(context: Context, config: Config) -> Result:
    """Train heads for age on `config.train_cohort` and measure their error in every cohort and decade.

    Raises SpecError for an unknown cohort, and Unanswerable if the training cohort has no ages.
    """
    from capezoo.evaluate.measure.tasks import FEWEST, Exam, sit, targets

    index, seed = context.index, context.seed
    parts = config.parts(index, seed, context.store)
    found = [exam for exam in Exam.find(index, parts, seed, config.resamples) if exam.task == "age"]
    if not found:
        raise Unanswerable(
            f"cohort {config.train_cohort!r}: found ages of fewer than {FEWEST} training or validation records, expected "
            "more. Train on another cohort."
        )
    exams = [_with_the_oldest(exam, index, parts.tests[exam.cohort]) for exam in found]
    patients = {exam.cohort: np.array(_patients_in(exam)[:-1]) for exam in exams}
    compared = {name: counts for name, counts in patients.items() if counts.sum() >= config.min_patients}
    standard = _standard(compared, config.standard)
    common = dict.fromkeys(compared, standard)
    train_age, known = targets(index, parts.train, "age")
    scores = []
    training = config.model_dump(include={"runs", "lr", "max_epochs"})
    for place, subject in enumerate(context.subjects):
        sat = [sit(features, index, parts, exams, **training)[0] for features in subject.initialisations]
        for scaler in SCALERS:
            for exam in exams:
                answers = [answered["age", exam.cohort, scaler] for answered in sat]
                scores.append(_score(subject.name, exam, scaler, answers, common.get(exam.cohort)))
        context.progress(place + 1, len(context.subjects))
    return Result(
        train_cohort=config.train_cohort,
        train_records=int(known.sum()),
        ages=tuple(_ages(index, name) for name in index.cohorts),
        tests=tuple(_test_set(exam, float(np.median(train_age[known])), common.get(exam.cohort)) for exam in exams),
        scores=tuple(scores),
        compared=tuple(compared),
        standard=standard,
    )


def tables(result: Result) -> Sequence[Table]:
    """Errors over all ages, standardised, and by decade in each cohort; and the ages themselves."""
    caption = (
        f"Heads trained on {result.train_records:,} records of {result.train_cohort}. Mean absolute error in years, errors of "
        "all heads pooled, ages below 90; 95 % intervals draw patients anew."
    )
    shown = [Table("Error over all ages", _over_all(result, "all", [test.cohort for test in result.tests]), caption)]
    if result.standard:
        shares = ", ".join(
            f"{_decade(k)}: {share:.0%}"
            for k, share in zip(result.standard.decades, result.standard.shares, strict=True)
        )
        caption = f"The error if every cohort had these ages: {shares}. Cohorts with too few patients are left out."
        shown.append(
            Table("Error standardised to common ages", _over_all(result, "standardised", result.compared), caption)
        )
    home = [test for test in result.tests if test.cohort == result.train_cohort]
    others = [test for test in result.tests if test.cohort != result.train_cohort]
    if home:
        shown.append(Table("Error by decade", _by_decade(result, home), f"Test records of {result.train_cohort}"))
    if others:
        shown.append(Table("Error by decade elsewhere", _by_decade(result, others), folded=bool(home)))
    rows = {
        one.cohort: [*_sum_by_decade(one.counts), one.from_90, one.unknown]
        for one in result.ages
        if sum(one.counts) + one.from_90
    }
    columns = [*map(_decade, _DECADES), f"from {_OLDEST}", "unknown"]
    shown.append(Table("patients by age", pd.DataFrame.from_dict(rows, orient="index", columns=columns), folded=True))
    return shown


def figures(result: Result) -> Sequence[Figure]:
    """Draw the ages of each cohort, and for each set of weights the error by decade: a colour a cohort, guarded scaler."""
    middle = np.arange(0, _OLDEST, _STEP) + _STEP / 2
    compared = _compared(result)
    series = {
        one.cohort: (middle, np.array(one.counts) / (sum(one.counts) + one.from_90) * 100)
        for one in result.ages
        if one.cohort in compared
    }
    drawn = [Figure("ages", lines("Ages of patients", series, "years", f"% of patients in {_STEP} years"))]
    tests = {test.cohort: test for test in result.tests}
    present = [k for k in range(len(_DECADES)) if any(tests[name].records[k] for name in compared)]
    for weights in result.names:
        by_cohort = {}
        for name in compared:
            bins = result.score(weights, name, "guarded").bins
            by_cohort[name] = [_limits(bins[k]) for k in present]
        rows = [_decade(_DECADES[k]) for k in present]
        svg = intervals(f"{weights}: age error by decade", rows, by_cohort, "years, guarded scaler, 95 % intervals")
        drawn.append(Figure(weights, svg))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """Mean over the cohorts not trained on of the standardised error, with the guarded scaler."""
    return {name: {"age error elsewhere, common ages": _mean_elsewhere(result, name)} for name in result.names}


def _mean_elsewhere(result: Result, weights: str) -> float | None:
    found = [s.standardised.value for s in result.scores
             if s.weights == weights and s.scaler == "guarded" and s.cohort != result.train_cohort and s.standardised]  # fmt: skip
    return float(np.mean(found)) if found else None


def _with_the_oldest(exam: "Exam", index: CohortIndex, entries: NDArray[np.int64]) -> "Exam":
    """The same exam with the records of patients of 90 and more, who have a bin of their own."""
    from dataclasses import replace

    age = index["age"][entries].astype(np.float64)
    at = entries[np.isfinite(age)]
    return replace(exam, entries=at, truth=age[np.isfinite(age)], patients=index["patient"][at])


def _bin_of(age: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the decade, 9 from 90 on."""
    return np.minimum(age // 10, len(_DECADES)).astype(np.int64)


def _patients_in(exam: "Exam") -> list[int]:
    place = _bin_of(exam.truth)
    return [len(np.unique(exam.patients[place == k])) for k in range(len(_DECADES) + 1)]


def _standard(compared: Mapping[str, NDArray[np.int64]], cohort: str) -> _Standard | None:
    """Mean of the age distributions of the cohorts compared, or one cohort's, over the decades that all of them have.

    compared: cohort -> test patients by decade. Raises Unanswerable if the cohort is none of them.
    """
    if cohort and cohort not in compared:
        raise Unanswerable(
            f"standard {cohort!r}: found too few test patients with an age, expected one of {', '.join(compared) or 'none'}. "
            "Lower min_patients, or name another cohort."
        )
    shared = [k for k in range(len(_DECADES)) if compared and all(c[k] >= _FEWEST_IN_DECADE for c in compared.values())]
    if not shared:
        return None
    shares = np.mean([c[shared] / c[shared].sum() for name, c in compared.items() if cohort in ("", name)], axis=0)
    return _Standard(decades=tuple(_DECADES[k] for k in shared), shares=tuple(shares.tolist()))


def _mean_in(error: NDArray[np.float64], chosen: NDArray[np.bool_]) -> "Statistic":
    """Mean error of some records as a statistic; NaN in a draw that has none of them."""

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        part = weights[:, chosen]
        size = part.sum(axis=1)
        return np.divide(part @ error[chosen], size, out=np.full(len(weights), np.nan), where=size > 0)

    return statistic


def _standardised(error: NDArray[np.float64], place: NDArray[np.int64], standard: _Standard) -> "Statistic":
    """Mean of the decades' errors with the shares of the standard; NaN in a draw that lacks one of them."""
    parts = [_mean_in(error, place == k // 10) for k in standard.decades]
    return lambda weights: np.einsum("i,ij->j", standard.shares, np.array([part(weights) for part in parts]))


def _score(
    weights: str, exam: "Exam", scaler: ScalerName, answers: Sequence[NDArray[np.float64]], standard: _Standard | None
) -> _Score:
    """answers: (run, record) of each initialisation."""
    place, patients = _bin_of(exam.truth), _patients_in(exam)
    # As in the paper, every head's error counts, not that of their mean.
    errors = [np.abs(one - exam.truth).mean(axis=0) for one in answers]
    bins = [
        _value(exam, [_mean_in(error, place == k) for error in errors], patients[k]) for k in range(len(_DECADES) + 1)
    ]
    below = place < len(_DECADES)
    whole = _value(exam, [_mean_in(error, below) for error in errors], sum(patients[:-1]))
    common = None
    if standard:
        common = _value(exam, [_standardised(error, place, standard) for error in errors], sum(patients))
    return _Score(weights=weights, cohort=exam.cohort, scaler=scaler, bins=tuple(bins), all=whole, standardised=common)


def _value(exam: "Exam", each: Sequence["Statistic"], patients: int) -> _Value | None:
    if not patients:
        return None
    found = exam.interval(each)
    low, high = found.limits if patients >= _FEWEST_IN_DECADE else (None, None)
    return _Value(value=found.value, low=low, high=high)


def _test_set(exam: "Exam", constant: float, standard: _Standard | None) -> _TestSet:
    place, error = _bin_of(exam.truth), np.abs(exam.truth - constant)
    records = np.bincount(place, minlength=len(_DECADES) + 1)
    one = np.ones((1, len(exam.truth)))
    below = place < len(_DECADES)
    return _TestSet(
        cohort=exam.cohort,
        records=tuple(records.tolist()),
        patients=tuple(_patients_in(exam)),
        constant=tuple(float(error[place == k].mean()) if records[k] else None for k in range(len(records))),
        constant_all=float(error[below].mean()) if below.any() else None,
        constant_standardised=float(_standardised(error, place, standard)(one)[0]) if standard else None,
    )


def _ages(index: CohortIndex, cohort: str) -> _Ages:
    mine = index.first_known("age")[index.patient_cohort == index.cohort_code(cohort)].astype(np.float64)
    known = mine[np.isfinite(mine)]
    counts = np.histogram(known, bins=np.arange(0, _OLDEST + _STEP, _STEP))[0]
    # The last bin of a histogram is closed: ages of 90 are in it.
    counts[-1] -= (known == _OLDEST).sum()
    return _Ages(
        cohort=cohort,
        counts=tuple(counts.tolist()),
        from_90=int((known >= _OLDEST).sum()),
        unknown=int((~np.isfinite(mine)).sum()),
    )


def _sum_by_decade(counts: Sequence[int]) -> list[int]:
    return np.array(counts).reshape(len(_DECADES), -1).sum(axis=1).tolist()


def _compared(result: Result) -> list[str]:
    """Cohorts with patients enough to be drawn; all of them if none has."""
    return list(result.compared or [test.cohort for test in result.tests])


def _over_all(result: Result, what: str, cohorts: Sequence[str]) -> pd.DataFrame:
    """A row a set of weights and scaler, and one of the constant answer; a column a cohort."""
    rows = {}
    for name in result.names:
        for scaler in SCALERS:
            rows[f"{name}, {scaler}"] = [_text(getattr(result.score(name, c, scaler), what)) for c in cohorts]
    constant = {test.cohort: getattr(test, f"constant_{what}") for test in result.tests}
    rows["median age, always"] = [NOTHING if constant[c] is None else f"{constant[c]:.2f}" for c in cohorts]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(cohorts))


def _by_decade(result: Result, tests: Sequence[_TestSet]) -> pd.DataFrame:
    """A row a decade, a column each set of weights and scaler. Several cohorts have a heading each."""
    scored = [(name, scaler) for name in result.names for scaler in SCALERS]
    columns = ["patients", "records", *(f"{name}, {scaler}" for name, scaler in scored), "median age, always"]
    titles, rows = [], []
    for test in tests:
        if len(tests) > 1:
            titles.append(test.cohort)
            rows.append([""] * len(columns))
        for k, records in enumerate(test.records):
            if records:
                titles.append(_decade(_DECADES[k]) if k < len(_DECADES) else f"from {_OLDEST}, distance to {_OLDEST}")
                found = [_text(result.score(name, test.cohort, scaler).bins[k]) for name, scaler in scored]
                rows.append([f"{test.patients[k]:,}", f"{records:,}", *found, f"{test.constant[k]:.2f}"])
    return pd.DataFrame(rows, index=titles, columns=columns)


def _decade(first: int) -> str:
    return f"{first} to {first + 9}"


def _limits(value: _Value | None) -> Limits | None:
    return (value.low, value.value, value.high) if value else None


def _text(value: _Value | None) -> str:
    if value is None:
        return NOTHING
    limits = "" if value.low is None or value.high is None else f" ({value.low:.2f} to {value.high:.2f})"
    return f"{value.value:.2f}{limits}"
