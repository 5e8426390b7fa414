"""What linear probes answer: a number, one class of several, or the presence of each of some labels; and their metrics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Parts
from capezoo.evaluate.questions._sets import SETS
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.errors import SpecError, did_you_mean
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, CohortIndex

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Bootstrap, Interval, Weights
    from ecgcohorts.report.charts import Limits

Kind = Literal["number", "labels", "classes"]
_KINDS: tuple[Kind, ...] = ("number", "labels", "classes")
# Our default: more whole numbers than this are a measurement, not classes.
_MOST_CLASSES = 20
_MOST_NAMED = 30  # labels in a message
# Records below which nothing is trained or scored.
_FEWEST = 2

Statistic = Callable[["Weights"], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Target:
    """One thing to be answered of every record. truth: (entry, output), NaN unknown; of classes 1 in one column."""

    name: str
    kind: Kind
    outputs: tuple[str, ...]
    truth: NDArray[np.float64]
    left_out: tuple[str, ...] = ()  # outputs that the training or validation part does not have both ways

    @classmethod
    def find(cls, index: CohortIndex, asked: str, train: NDArray[np.int64], validation: NDArray[np.int64]) -> "Target":
        """Find `age`, `sex`, a set such as `superclass`, or labels NAME, NAME=KIND or NAME+NAME.

        Without KIND, a label of zeros and ones is a label, one of at most 20 whole numbers is of classes, and any other a
        number: by the values in the training part. Raises SpecError for an unknown name, Unanswerable for too few records.
        """
        name, kind, columns = _parsed(index, asked)
        truth = np.column_stack(list(columns.values()))
        # A few whole years in a small training part are a number all the same.
        told = _kind_of(truth[train]) if name != "age" else "number"
        found: Kind = next((one for one in _KINDS if one == kind), told)
        if found != "labels" and len(columns) > 1:
            raise SpecError(
                f"target {asked!r}: found values beside 0 and 1 in the training part, expected labels. Ask for each alone."
            )
        if found == "classes":
            made = cls._of_classes(name, truth[:, 0], train)
        elif found == "labels":
            made = cls(name, found, tuple(columns), np.where((truth == 0) | (truth == 1), truth, np.nan))
        else:
            made = cls(name, found, tuple(columns), truth)
        return made._trainable(train, validation)

    @staticmethod
    def require(index: CohortIndex, asked: str) -> None:
        """Raise what `find` raises for names and kinds, whatever the values are."""
        _parsed(index, asked)

    @classmethod
    def _of_classes(cls, name: str, values: NDArray[np.float64], train: NDArray[np.int64]) -> "Target":
        # A class that no training record has cannot be answered: its records count as unknown.
        classes = np.unique(values[train][np.isfinite(values[train])])
        truth = (values[:, None] == classes).astype(float)
        truth[~np.isin(values, classes)] = np.nan
        return cls(name, "classes", tuple(f"{one:g}" for one in classes), truth)

    def _trainable(self, train: NDArray[np.int64], validation: NDArray[np.int64]) -> "Target":
        """Leave out labels of which one part has no record, or all; refuse where nothing is left."""
        kept = np.ones(len(self.outputs), bool)
        if self.kind == "labels":
            # A class rare enough to be missing in the validation part can still be trained, and is in PTB-XL's.
            kept = np.array([len(np.unique(column[np.isfinite(column)])) == 2 for column in self.truth[train].T], bool)
        one = Target(
            self.name,
            self.kind,
            tuple(np.array(self.outputs, object)[kept].tolist()),
            self.truth[:, kept],
            tuple(np.array(self.outputs, object)[~kept].tolist()),
        )
        enough = all(one.known(part).sum() >= _FEWEST for part in (train, validation))
        if not one.outputs or not enough or (self.kind == "classes" and len(one.outputs) < 2):
            raise Unanswerable(
                f"{self.name}: found too few known values in the training or validation part, expected {_FEWEST} records in "
                "each, and of every label some with it and some without. Train on another cohort, or add labels: ecgcohorts label."
            )
        return one

    def known(self, entries: NDArray[np.int64], outputs: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Mark entries of which all outputs, or all of `outputs`, are known."""
        truth = self.truth[entries] if outputs is None else self.truth[entries][:, outputs]
        return np.asarray(np.isfinite(truth).all(axis=1))

    def weights(self, entries: NDArray[np.int64], train: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """What entries count in a loss, None for alike: sexes are balanced, as in CAPE, and diagnoses are not."""
        if self.name != "sex" or self.kind != "labels":
            return None
        # Over the training part alone: a validation part may have one sex only.
        share = float(self.truth[train].mean())
        return np.where(self.truth[entries, 0] == 1, 0.5 / share, 0.5 / (1 - share))

    def scored(self, entries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark outputs that can be scored in some entries: a number of two records, a class with one record that has it and
        one that has not."""
        truth = self.truth[entries]
        if self.kind == "number":
            return np.isfinite(truth).sum(axis=0) >= _FEWEST
        return np.asarray((truth == 1).any(axis=0) & (truth == 0).any(axis=0))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the main one first."""
        if self.kind == "number":
            return ("MAE", "R2")
        return ("AUROC", "F1") if len(self.outputs) == 1 else ("macro AUROC", "micro AUROC", "macro F1")


@dataclass(frozen=True, eq=False)
class TargetExam:
    """A target in one cohort. entries: records whose truth is known for all outputs that this cohort has at all."""

    target: Target
    cohort: str
    entries: NDArray[np.int64]
    outputs: NDArray[np.bool_]
    patients: NDArray[np.int64]
    seed: int
    resamples: int

    @classmethod
    def find(
        cls, target: Target, index: CohortIndex, parts: Parts, seed: int, resamples: int
    ) -> Iterator["TargetExam"]:
        for cohort, entries in parts.tests.items():
            # A label that a cohort does not have costs none of its records.
            here = np.asarray(np.isfinite(target.truth[entries]).any(axis=0))
            known = entries[target.known(entries, here)]
            scored = target.scored(known)
            if scored.any():
                yield cls(target, cohort, known, scored, index["patient"][known], seed, resamples)

    def statistics(
        self, answer: NDArray[np.float64], limits: NDArray[np.float64] | float = 0.5
    ) -> dict[str, Statistic]:
        """Metrics of (record, output) answers. With one output left of several, its mean is over that one.

        limits: of each label, above which it counts as present.
        """
        found = _statistics(self.target.kind, self.target.truth[self.entries], answer, self.outputs, limits)
        if len(self.target.outputs) > 1 and "AUROC" in found:
            auroc, f1 = found.values()
            return {"macro AUROC": auroc, "micro AUROC": auroc, "macro F1": f1}
        return found

    def by_class(self, answer: NDArray[np.float64]) -> dict[str, Statistic]:
        """AUROC of each of several classes that can be scored here."""
        outputs = self.target.outputs
        return {
            outputs[place]: _class_auroc(self.target.truth[self.entries, place] == 1, answer[:, place])
            for place in np.flatnonzero(self.outputs if len(outputs) > 1 else [])
        }

    def interval(self, each: Sequence[Statistic]) -> "Interval":
        """The interval of a statistic when patients are drawn anew: the same draws for all weights and scalers.

        each: the statistic of each initialisation, whose mean is meant; trained weights have one.
        """
        return self.draws(each).interval()

    def draws(self, each: Sequence[Statistic]) -> "Bootstrap":
        """Draw patients anew, as for `interval`; the draws of two statistics pair."""
        from capezoo.evaluate.measure.statistics import patient_draws

        return patient_draws(self.patients, each, self.resamples, derive_seed(self.seed, "probe", self.cohort))

    def alone(self, statistic: Statistic) -> float:
        """Value without an interval."""
        return float(statistic(np.ones((1, len(self.entries))))[0])


class _Value(Spec):
    """One number with its interval, for which patients are drawn anew."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, exam: TargetExam, each: Sequence[Statistic]) -> "_Value":
        """Draw the patients of an exam anew, and with them the initialisations, if there are several."""
        found = exam.interval(each)
        return cls(value=found.value, low=found.limits[0], high=found.limits[1])

    @property
    def limits(self) -> "Limits":
        """As charts take it."""
        return (self.low, self.value, self.high)

    @property
    def text(self) -> str:
        """As tables have it."""
        limits = "" if self.low is None or self.high is None else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{limits}"


def limits_of(truth: NDArray[np.float64], answer: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each label (record, label) the limit above which answers give the best F1; 1/2 for one that nobody has."""
    return np.array(
        [_limit(t[known] == 1, a[known]) for t, a, known in zip(truth.T, answer.T, np.isfinite(truth).T, strict=True)]
    )


def _limit(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    if not positive.any():
        return 0.5
    order = np.argsort(-score, kind="stable")
    hit, ranked = np.cumsum(positive[order]), score[order]
    f1 = 2 * hit / (np.arange(1, len(ranked) + 1) + hit[-1])
    # Equal scores are above a limit together.
    f1[np.flatnonzero(ranked[:-1] == ranked[1:])] = -1.0
    best = int(np.argmax(f1))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def differences(first: Sequence[Statistic], second: Sequence[Statistic]) -> list[Statistic]:
    """Pair the statistics of each initialisation of two rows: first minus second."""
    # Initialisation k of two rows is one network; a trained one stands against each.
    count = max(len(first), len(second))
    return [_minus(first[k % len(first)], second[k % len(second)]) for k in range(count)]


def _minus(first: Statistic, second: Statistic) -> Statistic:
    return lambda weights: first(weights) - second(weights)


def _statistics(
    kind: Kind,
    truth: NDArray[np.float64],
    answer: NDArray[np.float64],
    counted: NDArray[np.bool_] | None = None,
    limits: NDArray[np.float64] | float = 0.5,
) -> dict[str, Statistic]:
    """Return the metrics of (record, output) answers, each as a statistic over (resample, record) weights.

    Macro: the mean over classes with a record that has it and one that has not, in the part or draw at hand; the same rule for
    the value and for every draw. F1: of probabilities above `limits`, for exclusive classes of the most probable. counted:
    outputs that can be scored here, None for all.
    """
    if kind == "number":
        error, target = (answer - truth)[:, 0], truth[:, 0]
        return {"MAE": _mean_of(np.abs(error)), "R2": lambda weights: _r2(target, error, weights)}
    # Chosen among all classes: a probe is not told which ones a cohort has.
    chosen = answer > limits if kind == "labels" else np.eye(answer.shape[1], dtype=bool)[answer.argmax(axis=1)]
    if counted is not None:
        truth, answer, chosen = truth[:, counted], answer[:, counted], chosen[:, counted]
    positive = truth == 1
    if answer.shape[1] == 1:
        return {
            "AUROC": _class_auroc(positive[:, 0], answer[:, 0]),
            "F1": _mean_over([_f1(positive[:, 0], chosen[:, 0])]),
        }
    columns = range(answer.shape[1])
    return {
        "macro AUROC": _mean_over([_class_auroc(positive[:, k], answer[:, k]) for k in columns]),
        "micro AUROC": _micro(positive, answer),
        "macro F1": _mean_over([_f1(positive[:, k], chosen[:, k]) for k in columns]),
    }


def _class_auroc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> Statistic:
    """Area under the ROC curve of one class as a statistic; NaN where a draw lacks one side."""
    from capezoo.evaluate.measure.statistics import auroc

    return lambda weights: auroc(positive, score, weights)


def _parsed(index: CohortIndex, asked: str) -> tuple[str, str, dict[str, NDArray[np.float64]]]:
    """Return name, kind (empty if not given), and the columns of what is asked under their titles.

    Raises SpecError for an unknown kind or label, Unanswerable for a set of PTB-XL in a store without its labels.
    """
    name, _, kind = asked.partition("=")
    if kind and kind not in _KINDS:
        raise SpecError(f"target {asked!r}: found kind {kind!r}, expected one of {', '.join(_KINDS)}.")
    if name in SETS:
        missing = [label for label in SETS[name].values() if label not in index.labels]
        if missing:
            raise Unanswerable(
                f"{name}: found no label {missing[0]!r}, expected {len(SETS[name])} labels as cohort presets name them. "
                "Take them over from the source: ecgcohorts ingest --update."
            )
        return name, kind, {title: _column(index, label) for title, label in SETS[name].items()}
    names = [one.removeprefix(LABEL) for one in name.split("+")]
    return name, kind, {one: _column(index, one) for one in names}


def _column(index: CohortIndex, name: str) -> NDArray[np.float64]:
    """Values of a label, of age below 90, or of sex with 1 for female; NaN unknown."""
    if name == "age":
        age = index["age"].astype(np.float64)
        return np.where(age < AGE_CAP_YEARS, age, np.nan)
    if name == "sex":
        sex = index["sex"]
        return np.where(np.isin(sex, list(SEX_CODES.values())), sex == SEX_CODES["female"], np.nan)
    if name not in index.labels:
        known = ["age", "sex", *SETS]
        # A store of two systems has more than a hundred labels: a list of them would hide the rest of the message.
        labels = (
            ", ".join(index.labels) if len(index.labels) <= _MOST_NAMED else f"{len(index.labels)} labels of the store"
        )
        hint = did_you_mean(name, [*known, *index.labels])
        raise SpecError(
            f"found no label {name!r}, expected one of {', '.join(known)}, {labels}, or several with + between.{hint}"
        )
    return index[f"{LABEL}{name}"].astype(np.float64)


def _kind_of(truth: NDArray[np.float64]) -> Kind:
    values = np.unique(truth[np.isfinite(truth)])
    if np.isin(values, (0, 1)).all():
        return "labels"
    return "classes" if (values == values.round()).all() and len(values) <= _MOST_CLASSES else "number"


def _mean_of(values: NDArray[np.float64]) -> Statistic:
    from capezoo.evaluate.measure.statistics import weighted_mean

    return weighted_mean(values)


def _r2(target: NDArray[np.float64], error: NDArray[np.float64], weights: "Weights") -> NDArray[np.float64]:
    """Share of the variance of the part or draw at hand that is explained; NaN where nothing varies."""
    total = weights.sum(axis=1)
    # Centred before squaring: ages near 60 squared would cost three digits.
    centred = target - target.mean()
    spread = weights @ centred**2 - (weights @ centred) ** 2 / total
    left = weights @ error**2
    return 1 - np.divide(left, spread, out=np.full(len(total), np.nan), where=spread > 1e-9)


def _f1(positive: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> Statistic:
    """F1 of one class; NaN where no record has it."""

    def statistic(weights: "Weights") -> NDArray[np.float64]:
        hit = weights @ (positive & chosen)
        all_positive, all_chosen = weights @ positive.astype(float), weights @ chosen.astype(float)
        found = 2 * hit / np.maximum(all_positive + all_chosen, 1)
        return np.where((all_positive > 0) & (all_positive < weights.sum(axis=1)), found, np.nan)

    return statistic


def _mean_over(parts: list[Statistic]) -> Statistic:
    """Mean of several statistics, of those that are numbers; NaN if none is."""

    def statistic(weights: "Weights") -> NDArray[np.float64]:
        found = np.array([part(weights) for part in parts])
        is_number = np.isfinite(found)
        count = is_number.sum(axis=0)
        total = np.where(is_number, found, 0.0).sum(axis=0)
        return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)

    return statistic


def _micro(positive: NDArray[np.bool_], answer: NDArray[np.float64]) -> Statistic:
    """Area over all records and classes taken together."""
    outputs = answer.shape[1]
    pooled = _class_auroc(positive.ravel(), answer.ravel())

    def statistic(weights: "Weights") -> NDArray[np.float64]:
        # In as many pieces as there are outputs: repeated, the weights would take that many times the memory.
        pieces = np.array_split(weights, min(outputs, len(weights)))
        return np.concatenate([pooled(np.repeat(piece, outputs, axis=1)) for piece in pieces])

    return statistic
