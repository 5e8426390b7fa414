"""Measures of every trial of an artefact control, their intervals over seeds and patients, and the verdicts.

Fixed before any run: the primary measures (PRIMARY); that a seed counts for age and sex only if its heads beat a
constant answer at home; that intervals draw seeds and patients anew, since seeds share test patients.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from capezoo.evaluate.artefact.arms import ARMS
from capezoo.evaluate.artefact.trial import Trial
from capezoo.evaluate.measure.statistics import Interval, Weights, auroc, patient_bootstrap
from capezoo.specs.base import Spec, derive_seed

# All three are larger where an encoder goes by the device.
PRIMARY = ("shift_swapped", "sex_drop_swapped", "device_auc")
UNSEEN = ("shift_unseen", "sex_drop_unseen")  # the same on a device that pretraining never met
# Measures in which a seed may have no say; the mean over all seeds stands beside the one over those that count.
_OF_AGE, _OF_SEX = ("shift_swapped", "shift_unseen"), ("sex_drop_swapped", "sex_drop_unseen")
ALL = "_all"
MIXED, IN_DISTRIBUTION = "mixed", "in_distribution"
# An arm with another network is compared with in-distribution batches of that network.
_PARTNERS = {
    "mixed_group_norm": "in_distribution_group_norm",
    "own_devices": "own_devices_in_distribution",
    "own_devices_in_distribution": "own_devices_in_distribution",
}
_SCALERS = (("_plain", 0), ("", 1))  # suffix of a measure, place in a trial's arrays
_LEVEL = 0.95
# Our default: limits lie far out in the tails where seeds are few, so more draws than for patients alone.
_RESAMPLES = 2000

_Measure = Callable[[Weights], NDArray[np.float64]]  # weights (draw, test patient) -> (draw,)


class Estimate(Spec):
    """A mean over seeds with limits from seeds and patients drawn anew; None where it cannot be estimated."""

    value: float | None
    low: float | None
    high: float | None
    seeds: int  # that it is the mean of

    @classmethod
    def of(cls, interval: Interval, seeds: int) -> Self:
        """Take over an interval, NaN as None."""
        return cls(value=_number(interval.value), low=_number(interval.low), high=_number(interval.high), seeds=seeds)


class _Condition(Spec):
    kind: str
    strength_uv: float
    positives: str


class _OfArm(_Condition):
    arm: str

    @property
    def where(self) -> tuple[str, str, float, str]:
        """Kind, positives, strength and arm: what tables are sorted by."""
        return self.kind, self.positives, self.strength_uv, self.arm


class _ArmFound(_OfArm):
    """What one arm gave under one condition. measures: name -> mean over the seeds that count for it; `_all`: over all."""

    seeds: tuple[int, ...]
    age_counts: tuple[int, ...]  # seeds whose age heads beat the constant at home
    sex_counts: tuple[int, ...]
    measures: dict[str, Estimate]


class _Difference(_Condition):
    """First arm minus second, paired by seed, over seeds that count in both. larger, smaller, equal: seeds, by measure.

    A name that ends with `_all` is about all seeds that both arms have.
    """

    first: str
    second: str
    measures: dict[str, Estimate]
    larger: dict[str, int]
    smaller: dict[str, int]
    equal: dict[str, int]


class _TrialFound(_OfArm):
    """One trial. gains: of its heads over a constant answer at home, over patients alone."""

    seed: int
    age_gain: Estimate  # years
    sex_gain: Estimate  # AUROC above .5
    measures: dict[str, float | None]

    @property
    def age_counts(self) -> bool:
        """Whether the age heads beat the median age of those they were fitted on, beyond doubt about patients."""
        return (self.age_gain.low or 0) > 0

    @property
    def sex_counts(self) -> bool:
        """Whether the sex heads beat .5, beyond doubt about patients."""
        return (self.sex_gain.low or 0) > 0

    def counts(self, measure: str) -> bool:
        """Whether this trial has a say in a primary measure or its twin on the device never met."""
        if measure in _OF_AGE:
            return self.age_counts
        return self.sex_counts if measure in _OF_SEX else True


class Findings(Spec):
    """All that the trials of one experiment say."""

    arms: tuple[_ArmFound, ...]
    differences: tuple[_Difference, ...]
    trials: tuple[_TrialFound, ...]

    @classmethod
    def of(cls, trials: Iterable[Trial], seed: int = 0, resamples: int = _RESAMPLES) -> Self:
        """Judge trials of one cohort, whose patients have the same places in each. seed: of resampling."""
        conditions: dict[tuple[str, str, float], dict[str, dict[int, Trial]]] = defaultdict(lambda: defaultdict(dict))
        patients = set[int]()
        for trial in trials:
            cell = trial.cell
            conditions[cell.kind, cell.positives, cell.strength_uv][cell.arm][cell.seed] = trial
            patients |= set(trial.patient.tolist())
        draws = _Draws(np.array(sorted(patients), np.int64), resamples, seed)
        arms, differences, rows = [], [], []
        for (kind, positives, strength), found in sorted(conditions.items()):
            condition = {"kind": kind, "strength_uv": strength, "positives": positives}
            judged = {arm: _Arm(condition | {"arm": arm}, found[arm], draws) for arm in sorted(found, key=_place)}
            arms += [one.found() for one in judged.values()]
            rows += [row for one in judged.values() for row in one.rows.values()]
            differences += [judged[first].minus(judged[second], condition) for first, second in _pairs(judged)]
        return cls(arms=tuple(arms), differences=tuple(differences), trials=tuple(rows))


class _Draws:
    """Patients and seeds drawn with replacement: the same patients for all trials, so that arms are compared on them."""

    def __init__(self, patients: NDArray[np.int64], resamples: int, seed: int) -> None:
        self._patients, self._resamples, self._seed = patients, resamples, seed
        self._weights = self._counts(len(patients), "patients")
        self._seeds: dict[int, Weights] = {}  # by number of seeds

    def weights(self, patients: NDArray[np.int64]) -> Weights:
        """Return (draw, test patient): how often each was drawn."""
        return self._weights[:, np.searchsorted(self._patients, patients)]

    def interval(self, draws: NDArray[np.float64], values: NDArray[np.float64]) -> Interval:
        """Return the mean over seeds with its limits. draws: (seed, draw) of patients; values: (seed,) of all patients."""
        n = len(values)
        value = float(values.mean()) if n else float("nan")
        # One seed says nothing of the spread between seeds, and limits of patients alone would pass for both.
        if n < 2 or not np.isfinite(value):
            return Interval(value, float("nan"), float("nan"))
        if n not in self._seeds:
            self._seeds[n] = self._counts(n, "seeds")
        means = np.einsum("ij,ji->i", self._seeds[n], draws) / n
        # Percentiles of few seeds are too narrow; levels so far out have the width of a t interval (Hesterberg 2015,
        # doi:10.1080/00031305.2015.1089789, section 5.3: "expanded percentile").
        tail = float(stats.norm.sf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 + _LEVEL) / 2, n - 1)))
        low, high = np.nanquantile(means, [tail, 1 - tail])
        return Interval(value, float(low), float(high))

    def _counts(self, n: int, what: str) -> Weights:
        generator = np.random.Generator(np.random.PCG64(derive_seed(self._seed, what, n)))
        return generator.multinomial(n, np.full(n, 1 / max(n, 1)), size=self._resamples).astype(float)


class _Arm:
    """The trials of one arm under one condition, by seed."""

    def __init__(self, about: Mapping[str, object], trials: Mapping[int, Trial], draws: _Draws) -> None:
        self._about, self._draws = about, draws
        self.rows: dict[int, _TrialFound] = {}
        self._drawn: dict[int, dict[str, NDArray[np.float64]]] = {}
        for seed, trial in sorted(trials.items()):
            measures, weights = _measures(trial), draws.weights(trial.patient)
            self._drawn[seed] = {name: measure(weights) for name, measure in measures.items()}
            whole = np.ones((1, len(trial.patient)))
            age_gain, sex_gain = (
                Estimate.of(patient_bootstrap(trial.patient, gain, seed=seed), 1) for gain in _gains(measures)
            )
            values = {name: _number(float(measure(whole)[0])) for name, measure in measures.items()}
            # Without homes there are no heads, and nothing that was scaled for them.
            values |= {
                f"largest_z{suffix}": _number(trial.largest_z[place].max(initial=-np.inf)) for suffix, place in _SCALERS
            }
            self.rows[seed] = _TrialFound.model_validate(
                {**about, "seed": seed, "age_gain": age_gain, "sex_gain": sex_gain, "measures": values}
            )

    def found(self) -> _ArmFound:
        """Return the means over seeds."""
        names = list(next(iter(self._drawn.values())))
        chosen = {name: [seed for seed, row in self.rows.items() if row.counts(name)] for name in names}
        measures = {name: self._estimate(name, seeds) for name, seeds in chosen.items()}
        measures |= {
            f"{name}{ALL}": self._estimate(name, list(self.rows)) for name in (*_OF_AGE, *_OF_SEX) if name in names
        }
        return _ArmFound.model_validate(
            {
                **self._about,
                "seeds": tuple(self.rows),
                "age_counts": tuple(seed for seed, row in self.rows.items() if row.age_counts),
                "sex_counts": tuple(seed for seed, row in self.rows.items() if row.sex_counts),
                "measures": measures,
            }
        )

    def minus(self, other: "_Arm", condition: Mapping[str, object]) -> _Difference:
        """Compare with another arm in the seeds that both have."""
        found: dict[str, dict[str, object]] = {part: {} for part in ("measures", "larger", "smaller", "equal")}
        pairs = {seed: (row, other.rows[seed]) for seed, row in self.rows.items() if seed in other.rows}
        for name in (*PRIMARY, *UNSEEN):
            # A measure that an arm cannot have (devices of the store are not swapped) is no tie.
            seeds = [seed for seed, pair in pairs.items() if all(row.measures.get(name) is not None for row in pair)]
            counted = [seed for seed in seeds if all(row.counts(name) for row in pairs[seed])]
            for label, chosen in ((name, counted), (f"{name}{ALL}", seeds)):
                signs = np.sign([self._value(seed, name) - other._value(seed, name) for seed in chosen])
                found["measures"][label] = self._estimate(name, chosen, other)
                for part, sign in (("larger", 1), ("smaller", -1), ("equal", 0)):
                    found[part][label] = int((signs == sign).sum())
        return _Difference.model_validate(
            {**condition, "first": self._about["arm"], "second": other._about["arm"], **found}
        )

    def _estimate(self, name: str, seeds: Sequence[int], other: "_Arm | None" = None) -> Estimate:
        values = np.array([self._value(seed, name) - (other._value(seed, name) if other else 0.0) for seed in seeds])
        draws = [self._drawn[seed][name] - (other._drawn[seed][name] if other else 0.0) for seed in seeds]
        return Estimate.of(self._draws.interval(np.array(draws), values), len(seeds))

    def _value(self, seed: int, name: str) -> float:
        value = self.rows[seed].measures.get(name)
        return float("nan") if value is None else value


def _measures(trial: Trial) -> dict[str, _Measure]:
    """Return every measure of a trial that depends on patients, by name; with `_plain` under the plain scaler."""
    made = {"device_auc": _device_auc(trial.device, trial.device_score)}
    homes = len(trial.constant_age)
    if not homes:
        return made
    made["age_error_constant"] = _mean(np.abs(trial.constant_age[:, None] - trial.age).mean(axis=0))
    for suffix, place in _SCALERS:
        years, scores = _by_device(trial.age_years[place]), _by_device(trial.sex_score[place])
        for where in years:
            made[f"age_error_{where}{suffix}"] = _mean(np.abs(years[where] - trial.age).mean(axis=0))
            made[f"sex_{where}{suffix}"] = _mean_auroc(trial.sex, scores[where])
        for where, each in (("swapped", homes - 1), ("unseen", 1)):
            at_home = np.repeat(years["home"], each, axis=0)
            made[f"shift_{where}{suffix}"] = _mean(np.abs(years[where] - at_home).mean(axis=0))
            made[f"sex_drop_{where}{suffix}"] = _difference(made[f"sex_home{suffix}"], made[f"sex_{where}{suffix}"])
    return made


def _gains(measures: Mapping[str, _Measure]) -> Iterator[_Measure]:
    """Yield what the heads of age and of sex gain at home over a constant answer; NaN where there are no heads."""
    if "sex_home" in measures:
        yield _difference(measures["age_error_constant"], measures["age_error_home"])
        yield lambda weights: measures["sex_home"](weights) - 0.5
    else:
        yield from [lambda weights: np.full(len(weights), np.nan)] * 2


def _by_device(values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Sort answers (home, rendering, patient) into home's own, swapped for another, and never met: (pair, patient)."""
    homes = np.arange(len(values))
    # Rows in the order of homes, so that each swap lies beside the answers at its own home.
    at, to = np.nonzero(~np.eye(len(values), dtype=bool))
    return {"home": values[homes, homes], "swapped": values[at, to], "unseen": values[homes, len(values)]}


def _mean(per_patient: NDArray[np.float64]) -> _Measure:
    """Return the mean over patients whose value is known."""
    known = np.isfinite(per_patient)
    values = per_patient[known]

    def measure(weights: Weights) -> NDArray[np.float64]:
        weight = weights[:, known]
        total = weight.sum(axis=1)
        return np.divide(weight @ values, total, out=np.full(len(weight), np.nan), where=total > 0)

    return measure


def _mean_auroc(sex: NDArray[np.float64], scores: NDArray[np.float64]) -> _Measure:
    """Return the mean AUROC of several scores of the same patients. scores: (score, patient)."""
    up, down = np.flatnonzero(sex == 1), np.flatnonzero(sex == 0)
    a, b = scores[:, up, None], scores[:, None, down]
    # All scores share patients and weights, so their mean is one product with the mean of their comparisons.
    beaten = ((a > b) + 0.5 * (a == b)).mean(axis=0)

    def measure(weights: Weights) -> NDArray[np.float64]:
        pairs = weights[:, up].sum(axis=1) * weights[:, down].sum(axis=1)
        sums = np.einsum("ij,ij->i", weights[:, up] @ beaten, weights[:, down])
        return np.divide(sums, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)

    return measure


def _device_auc(device: NDArray[np.int64], score: NDArray[np.float64]) -> _Measure:
    """Return the mean over devices of the AUROC of one against the rest. score: (patient, device)."""
    present = [code for code in range(score.shape[1]) if 0 < (device == code).sum() < len(device)]

    def measure(weights: Weights) -> NDArray[np.float64]:
        each = [auroc(device == code, score[:, code], weights) for code in present]
        return np.mean(each, axis=0) if each else np.full(len(weights), np.nan)

    return measure


def _difference(first: _Measure, second: _Measure) -> _Measure:
    return lambda weights: first(weights) - second(weights)


def _pairs(arms: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield which arms are compared: mixed with in-distribution, and every other one with both."""
    present = set(arms)
    for arm in sorted(present, key=_place):
        partner = _PARTNERS.get(arm, IN_DISTRIBUTION)
        if arm not in (IN_DISTRIBUTION, partner) and partner in present:
            yield arm, partner
        # The other way round, so that a positive difference always means that mixed batches did worse. Devices of the
        # store are other devices, with other patients.
        if arm not in (MIXED, IN_DISTRIBUTION) and not ARMS[arm].own_devices and MIXED in present:
            yield MIXED, arm


def _place(arm: str) -> tuple[int, str]:
    """Order of arms in tables: the two of the claim first."""
    return ((MIXED, IN_DISTRIBUTION).index(arm) if arm in (MIXED, IN_DISTRIBUTION) else 2, arm)


def _number(value: ArrayLike) -> float | None:
    number = float(np.asarray(value))
    return number if np.isfinite(number) else None
