"""Re-identification: whether another ECG of the same person can be found by its embedding, among people held out.

Each recording of a person with two or more is asked for its nearest other recording of the cohort, by cosine similarity
of units z-scored over these recordings (guarded scaler). Every person counts alike, however many recordings there are
of them. Only people whom pretraining has not met are looked at: the test part of a kept split, or all that no weights
have seen. Intervals draw the people who are looked for; whom they are found among stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import unseen_people
from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.specs.base import Spec, derive_seed
from capezoo.specs.card import Metric
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import Limits, intervals
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Statistic

EXAMPLES = (
    "capezoo evaluate identity --weights w/x --weights random --store store.zarr --seed 0 -o study",
    "capezoo evaluate identity --weights w/x --store store.zarr --split study-1 --min-gap-days 30 --seed 0 -o study",
)
_When = Literal["any", "another day"]
_Measure = Literal["rank1", "reciprocal_rank", "auroc", "equal_error"]
_TITLES: dict[_Measure, str] = {
    "rank1": "found first",
    "reciprocal_rank": "mean reciprocal rank",
    "auroc": "AUROC of pairs",
    "equal_error": "equal error rate",
}
_PHRASES: dict[_When, str] = {"any": "any other recording", "another day": "a recording of another day"}
# Of similarities from -1 to 1. Areas and error rates err by the share of strangers in one bin, 0.1 % and less.
_BINS = 4000


class Config(Spec):
    """Whom to look for, and among whom."""

    split: str = Field("", description="split kept in the store, whose part test is looked at; default: all unseen")
    min_gap_days: float = Field(1.0, gt=0, description="from here on two recordings are of different days; our default")
    max_patients: int = Field(
        1000, gt=1, description="patients of each cohort at most, those with two recordings first; our default"
    )
    max_records: int = Field(20, gt=1, description="recordings of each patient at most, drawn at random; our default")
    min_patients: int = Field(5, gt=1, description="cohorts with fewer to look for are left out and named; our default")
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")
    allow_seen: bool = Field(False, description="look at patients whom pretraining has seen, or may have seen")


class _Search(Spec):
    """What was looked for in one cohort, the same for all weights, and what guessing would give."""

    cohort: str
    when: _When
    people: int  # looked for
    queries: int  # recordings of theirs that were asked
    among_people: int
    among_records: int
    chance: dict[_Measure, float]


class _Score(Spec):
    """One measure in one search. low, high: 95 %, people drawn anew."""

    cohort: str
    when: _When
    measure: _Measure
    value: float
    low: float | None
    high: float | None


class _Difference(_Score):
    """The same of `first` minus `second`, over the same people."""

    first: str
    second: str


class Result(Spec):
    """Scores of all weights in all searches, and every pair of weights compared."""

    searches: tuple[_Search, ...]
    left_out: dict[str, int]  # cohort -> people with two recordings, too few to look for
    seen: int  # people not looked at, because pretraining had seen them
    min_gap_days: float
    weights: dict[str, tuple[_Score, ...]]
    differences: tuple[_Difference, ...]

    def score(self, weights: str, cohort: str, when: _When, measure: _Measure) -> _Score:
        """One measure of one set of weights."""
        key = (cohort, when, measure)
        return next(one for one in self.weights[weights] if (one.cohort, one.when, one.measure) == key)


def run(context: Context, config: Config) -> Result:
    """Look for every held-out person, with all weights, among the same recordings.

    Raises Unanswerable if no cohort has `min_patients` people to look for, and SpecError if nobody knows whom pretraining
    has seen, or if it has seen people of `split`.
    """
    trained = {subject.name: subject.trained_on for subject in context.subjects}
    entries, seen = unseen_people(context.index, trained, config.split, context.store, config.allow_seen)
    crowds, left_out = _crowds(context.index, entries, context.seed, config)
    if not crowds:
        found = ", ".join(f"{name} {count}" for name, count in left_out.items()) or "none"
        raise Unanswerable(
            f"found held-out people with two recordings: {found}; expected {config.min_patients} in one cohort at least."
        )
    # By weights: of each search, what every initialisation tells; of trained weights there is one.
    told: dict[str, list[tuple[_Told, ...]]] = {}
    for subject in context.subjects:
        each = [[one for crowd in crowds for one in crowd.told(x, config)] for x in subject.initialisations]
        told[subject.name] = list(zip(*each, strict=True))
        context.progress(len(told), len(context.subjects))
    scores = {name: tuple(s for one in mine for s in _scores(one, context.seed, config)) for name, mine in told.items()}
    differences = [
        one
        for first, second in combinations(told, 2)
        for pair in zip(told[first], told[second], strict=True)
        for one in _differences((first, second), pair, context.seed, config)
    ]
    return Result(
        searches=tuple(first.search for first, *_ in next(iter(told.values()))),
        left_out=left_out,
        seen=seen,
        min_gap_days=config.min_gap_days,
        weights=scores,
        differences=tuple(differences),
    )


def tables(result: Result) -> Sequence[Table]:
    """Scores beside what guessing gives, differences, and who was looked for among whom."""
    shown = []
    for when in dict.fromkeys(search.when for search in result.searches):
        rows: dict[str, list[str]] = {}
        for search in (search for search in result.searches if search.when == when):
            for name in result.weights:
                found = [_text(result.score(name, search.cohort, when, measure)) for measure in _TITLES]
                rows[f"{name}, {search.cohort}"] = found
            rows[f"chance, {search.cohort}"] = [f"{search.chance[measure]:.3f}" for measure in _TITLES]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(_TITLES.values()))
        days = "a day" if result.min_gap_days == 1 else f"{result.min_gap_days:g} days"
        gap = f"{days} or more from the recording that is asked; " if when == "another day" else ""
        shown.append(Table(_PHRASES[when], frame, f"{gap}95 % intervals, people drawn anew"))
    if result.differences:
        shown.append(Table("paired differences", _difference_rows(result), folded=True))
    return [*shown, Table("people looked for", _search_rows(result), _not_looked_for(result), folded=True)]


def figures(result: Result) -> Sequence[Figure]:
    """Draw how often the nearest recording was the same person's: a row a search, a colour each set of weights."""
    names = [f"{search.cohort}, {_PHRASES[search.when]}" for search in result.searches]
    series: dict[str, list[Limits | None]] = {}
    for weights in result.weights:
        found = [result.score(weights, search.cohort, search.when, "rank1") for search in result.searches]
        series[weights] = [(one.low, one.value, one.high) for one in found]
    series["chance"] = [(None, search.chance["rank1"], None) for search in result.searches]
    return [Figure("found first", intervals("Nearest recording is the same person's", names, series, "share, 95 %"))]


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """How often the nearest recording is the same person's, each cohort counting alike."""
    rows: dict[str, dict[str, float | None]] = {}
    for weights in result.weights:
        rows[weights] = {}
        for when, title in (("any", "person found"), ("another day", "person found on another day")):
            values = [one.value for one in result.weights[weights] if (one.when, one.measure) == (when, "rank1")]
            rows[weights][title] = float(np.mean(values)) if values else None
    return rows


def card_metrics(result: Result, weights: str) -> tuple[Metric, ...]:
    """How often a held-out person is found first: what whoever holds another ECG of a person can expect."""
    of = {(search.cohort, search.when): search for search in result.searches}
    metrics = []
    for one in (one for one in result.weights[weights] if one.measure == "rank1"):
        search = of[one.cohort, one.when]
        name = "person_found" if one.when == "any" else "person_found_another_day"
        how = f"nearest of {search.among_records} recordings, {search.among_people} people; chance {search.chance['rank1']:.3f}"
        found = one.model_dump(include={"cohort", "value", "low", "high"})
        metrics.append(Metric.model_validate(found | {"name": name, "n": search.people, "method": how}))
    return tuple(metrics)


@dataclass(frozen=True, eq=False)
class _Told:
    """What one set of weights says in one search. Axis `person`: those looked for."""

    search: _Search
    rank1: NDArray[np.float64]  # (person,) share of a person's recordings whose nearest is the person's
    reciprocal_rank: NDArray[np.float64]
    same: NDArray[np.float64]  # (person, bin) share of a person's pairs in each bin of similarity
    other: NDArray[np.float64]  # the same of pairs with strangers

    def statistic(self, measure: _Measure) -> "Statistic":
        """A measure as a statistic over (resample, person) weights."""
        from capezoo.evaluate.measure.statistics import weighted_mean

        if measure in ("rank1", "reciprocal_rank"):
            return weighted_mean(self.rank1 if measure == "rank1" else self.reciprocal_rank)
        return lambda weights: _of_pairs(weights @ self.same, weights @ self.other, measure)


@dataclass(frozen=True, eq=False)
class _Crowd:
    """Recordings of one cohort among which people are looked for, in the order in which ties are broken."""

    cohort: str
    entries: NDArray[np.int64]
    patients: NDArray[np.int64]
    days: NDArray[np.float64]

    def told(self, features: Features, config: Config) -> "Iterator[_Told]":
        """Search the crowd on any day, and on another day if enough people have one."""
        chosen = features[self.entries]
        z = fit_scaler(chosen, "guarded")(chosen)
        length = np.linalg.norm(z, axis=1, keepdims=True)
        unit = np.divide(z, length, out=np.zeros_like(z), where=length > 0)
        for when, gap in (("any", None), ("another day", config.min_gap_days)):
            wanted = self._wanted(gap)
            if len(np.unique(self.patients[list(wanted)])) >= config.min_patients:
                yield self._searched(unit, wanted, when)  # type: ignore[arg-type]

    def _wanted(self, gap: float | None) -> dict[int, NDArray[np.int64]]:
        """Places of the recordings that each recording should lead to: place -> places; only where there is one."""
        found = {}
        for place, patient in enumerate(self.patients):
            same = np.flatnonzero(self.patients == patient)
            same = same[same != place]
            # A day that is not known is not known to be another.
            if gap is not None:
                same = same[np.abs(self.days[same] - self.days[place]) >= gap]
            if len(same):
                found[place] = same
        return found

    def _searched(self, unit: Features, wanted: Mapping[int, NDArray[np.int64]], when: _When) -> _Told:
        people, person_of = np.unique(self.patients[list(wanted)], return_inverse=True)
        ranks, chances = np.zeros((len(people), 2)), np.zeros((len(people), 2))
        same, other = np.zeros((len(people), _BINS)), np.zeros((len(people), _BINS))
        count = np.bincount(person_of)[:, None]
        for person, (place, right) in zip(person_of, wanted.items(), strict=True):
            similar = unit @ unit[place]
            strangers = np.flatnonzero(self.patients != self.patients[place])
            first = right[similar[right].argmax()]
            best, rest = similar[first], similar[strangers]
            # Equal embeddings, as of a collapsed network, find nobody: their order is that of the crowd, which is random.
            rank = 1 + int((rest > best).sum()) + int((rest[strangers < first] == best).sum())
            ranks[person] += (rank == 1, 1 / rank)
            chances[person] += _by_chance(len(right), len(strangers))
            same[person] += _histogram(similar[right])
            other[person] += _histogram(rest)
        by_chance = (chances / count).mean(axis=0)
        search = _Search(
            cohort=self.cohort,
            when=when,
            people=len(people),
            queries=len(wanted),
            among_people=len(np.unique(self.patients)),
            among_records=len(self.entries),
            chance={"rank1": by_chance[0], "reciprocal_rank": by_chance[1], "auroc": 0.5, "equal_error": 0.5},
        )
        ranks /= count
        return _Told(search, ranks[:, 0], ranks[:, 1], same / count, other / count)


def _crowds(
    index: CohortIndex, entries: NDArray[np.int64], seed: int, config: Config
) -> tuple[list[_Crowd], dict[str, int]]:
    """Draw the crowd of each cohort; beside them, cohorts with too few people to look for."""
    crowds, left_out = [], {}
    # Without ids of patients, two recordings of one person would count as strangers.
    entries = entries[index["patient_known"][entries]]
    for code, name in enumerate(index.cohorts):
        generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "identity", name)))
        mine = generator.permutation(entries[index["cohort"][entries] == code])
        patients = index["patient"][mine]
        # In random order, each patient's first so many recordings.
        place = pd.Series(patients).groupby(patients).cumcount().to_numpy()
        mine, patients = mine[place < config.max_records], patients[place < config.max_records]
        people, first, counts = np.unique(patients, return_index=True, return_counts=True)
        repeated = int((counts > 1).sum())
        if repeated < config.min_patients:
            if len(mine):
                left_out[name] = repeated
            continue
        drawn = people[np.lexsort((first, counts < 2))][: config.max_patients]
        kept = np.isin(patients, drawn)
        days = index["days"][mine[kept]].astype(np.float64)
        crowds.append(_Crowd(name, mine[kept], patients[kept], days))
    return crowds, left_out


def _by_chance(right: int, strangers: int) -> tuple[float, float]:
    """Expected share found first, and expected reciprocal rank, of a random order of the right ones and strangers."""
    whole = right + strangers
    rank = np.arange(1, strangers + 2)
    # The first right one is at rank r: r - 1 strangers, then a right one, drawn without replacement.
    missed = np.concatenate([[1.0], np.cumprod((strangers - rank[:-1] + 1) / (whole - rank[:-1] + 1))])
    found = missed * right / (whole - rank + 1)
    return float(found[0]), float((found / rank).sum())


def _histogram(similar: NDArray) -> NDArray[np.float64]:
    """Share of similarities, -1 to 1, in each bin."""
    places = np.clip(((similar.astype(np.float64) + 1) * (_BINS / 2)).astype(np.int64), 0, _BINS - 1)
    return np.bincount(places, minlength=_BINS) / len(similar)


def _of_pairs(same: NDArray[np.float64], other: NDArray[np.float64], measure: _Measure) -> NDArray[np.float64]:
    """Area under the ROC curve, or the rate at which both errors are equal, of (resample, bin) shares of pairs: (resample,)."""
    same, other = (part / part.sum(axis=1, keepdims=True) for part in (same, other))
    below = np.cumsum(other, axis=1)
    if measure == "auroc":
        return np.asarray((same * (below - other / 2)).sum(axis=1))
    # Thresholds between bins, from "all are the same person" on: refused though the same, accepted though another.
    refused = np.pad(np.cumsum(same, axis=1), ((0, 0), (1, 0)))
    accepted = 1 - np.pad(below, ((0, 0), (1, 0)))
    after = (refused >= accepted).argmax(axis=1)  # never the first: nobody is refused there
    row = np.arange(len(same))
    gap, gap_before = (refused[row, at] - accepted[row, at] for at in (after, after - 1))
    share = gap / (gap - gap_before)
    return np.asarray(refused[row, after] + share * (refused[row, after - 1] - refused[row, after]))


def _interval(statistics: "Sequence[Statistic]", search: _Search, seed: int, config: Config) -> dict[str, float | None]:
    """Mean over initialisations, with its limits."""
    from capezoo.evaluate.measure.statistics import patient_bootstrap

    # One seed for a search: all weights and measures see the same draws of people.
    drawn = derive_seed(seed, "identity", search.cohort, search.when)
    found = patient_bootstrap(np.arange(search.people), statistics, config.resamples, drawn)
    low, high = found.limits
    return {"value": found.value, "low": low, "high": high}


def _scores(told: Sequence[_Told], seed: int, config: Config) -> Iterator[_Score]:
    search = told[0].search
    for measure in _TITLES:
        of = {"cohort": search.cohort, "when": search.when, "measure": measure}
        yield _Score.model_validate(of | _interval([one.statistic(measure) for one in told], search, seed, config))


def _differences(
    names: tuple[str, str], pair: tuple[Sequence[_Told], Sequence[_Told]], seed: int, config: Config
) -> Iterator[_Difference]:
    first, second = pair
    search, count = first[0].search, max(len(first), len(second))
    of = {"cohort": search.cohort, "when": search.when, "first": names[0], "second": names[1]}
    for measure in _TITLES:
        # Initialisation k of two rows is one network; a trained one stands against each.
        each = [
            _minus(first[k % len(first)].statistic(measure), second[k % len(second)].statistic(measure))
            for k in range(count)
        ]
        yield _Difference.model_validate(of | {"measure": measure} | _interval(each, search, seed, config))


def _minus(first: "Statistic", second: "Statistic") -> "Statistic":
    return lambda weights: first(weights) - second(weights)


def _difference_rows(result: Result) -> pd.DataFrame:
    rows: dict[str, list[str]] = {}
    for one in result.differences:
        name = f"{one.first} minus {one.second}, {one.cohort}, {_PHRASES[one.when]}"
        rows.setdefault(name, []).append(_text(one))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(_TITLES.values()))


def _search_rows(result: Result) -> pd.DataFrame:
    columns = ["people looked for", "by recordings", "among people", "among recordings"]
    rows = {
        f"{one.cohort}, {_PHRASES[one.when]}": [one.people, one.queries, one.among_people, one.among_records]
        for one in result.searches
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _not_looked_for(result: Result) -> str:
    few = ", ".join(f"{name} ({count})" for name, count in result.left_out.items())
    return f"{result.seen} people seen in pretraining are not here" + (f"; too few people in {few}" if few else "")


def _text(score: _Score) -> str:
    limits = NOTHING if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    return f"{score.value:.3f} ({limits})"
