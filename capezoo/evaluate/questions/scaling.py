"""More patients: what a probe gains from an encoder that was pretrained on a larger share of the patients, and where that ends.

Protocol of OpenECG (arXiv 2503.00711) and of the scaling study (arXiv 2605.12241): one run on nested shares of the patients,
the same probes on each encoder. Weights belong to one curve if the runs on their cards differ in `held_out.train_percent`
and length only; that their patients are nested is read from the digests. `capezoo evaluate study --plan` trains them
(`percent: [1, 5, 10, 25, 50, 75, 100]`).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.evaluate.questions._everywhere import (
    _MEAN,
    EveryProbe,
    _cohort,
    _Everywhere,
    _Home,
    _limits,
    _met,
    _met_table,
    _Number,
    _percent_better,
    _Pretrained,
    _Pretraining,
    _pretrainings,
    _probed,
    _records,
    _score,
    _text,
    _title,
)
from capezoo.specs.base import Spec
from capezoo.specs.run import RunConfig
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import Limits, columns
from ecgcohorts.report.page import NOTHING

EXAMPLES = (
    "capezoo evaluate scaling --weights w/cpc-10pct --weights w/cpc-50pct --weights w/cpc-100pct --weights random "
    "--weights measurements --store store.zarr --split study-1 --seed 0 -o study",
    "capezoo evaluate scaling --weights w/a-25pct --weights w/a-100pct --store store.zarr --split study-1 --target sex "
    "--tolerance 1 --min-patients 10 --seed 0 -o study",
)
_END_HEADS = ["saturates at", "shown to be flat from"]
_FREE = {"name", "epochs", "max_steps"}  # what may differ between runs of a curve, beside the share of patients


class Config(EveryProbe):
    """How many records, how probes are trained, and what counts as a gain."""

    tolerance: float = Field(
        0.5, ge=0, description="gain in %, of the smaller share's score, that is worth no more patients; our default"
    )


class _Point(Spec):
    """An encoder of a curve."""

    weights: str
    percent: float  # of the training patients
    patients: int
    records: int
    steps: int


class _Step(Spec):
    """What a larger share of patients is worth, on the same test patients."""

    curve: str
    cohort: str
    target: str
    metric: str
    smaller: float  # percent
    larger: float
    gain: float | None  # by how many percent the larger is better; for an error, by how many it is less
    low: float | None
    high: float | None


class _End(Spec):
    """Where a curve ends to rise. Shares are in percent; None: not before the largest, of which nobody can tell."""

    curve: str
    cohort: str
    target: str
    metric: str
    saturates_at: float | None  # from there on no gain of a larger share has all of its interval above the tolerance
    flat_from: float | None  # from there on every gain of a larger share has all of its interval below the tolerance


class Result(Spec):
    """Scores of all weights in all cohorts, the gains along each curve, and where they end."""

    tolerance: float
    homes: tuple[_Home, ...]
    cohorts: tuple[str, ...]
    left_out: dict[str, str]
    pretrainings: tuple[_Pretraining, ...]
    numbers: tuple[_Number, ...]
    curves: dict[str, tuple[_Point, ...]]  # name -> its encoders, by growing share
    gains: tuple[_Step, ...]
    ends: tuple[_End, ...]

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Targets and metrics in their order."""
        return list(dict.fromkeys((one.target, one.metric) for one in self.numbers))

    def number(self, weights: str, cohort: str, target: str, metric: str) -> _Number | None:
        key = (weights, cohort, target, metric)
        return next((one for one in self.numbers if (one.weights, one.cohort, one.target, one.metric) == key), None)

    def places(self, target: str) -> list[str]:
        """Cohorts that have a target, and their mean first if there are several."""
        found = [home.cohort for home in self.homes if home.target == target]
        return [_MEAN, *found] if len(found) > 1 else found


def require_weights(index: CohortIndex, rows: Sequence[_Pretrained]) -> dict[str, tuple[_Point, ...]]:
    """Return the curves. Raises SpecError for shares that are not nested, Unanswerable if no two weights make a curve."""
    found = list(_curves(index, rows))
    if not found:
        raise Unanswerable(
            "found no two weights that were pretrained alike on shares of the same patients, expected a curve of them. Train "
            "them with `percent: [10, 25, 50, 100]` in a plan: capezoo evaluate study --plan."
        )
    # Two curves of one name are told apart by their largest shares.
    names = [name for name, _ in found]
    return {name if names.count(name) == 1 else points[-1].weights: points for name, points in found}


def run(context: Context, config: Config) -> Result:
    """Train and test probes in every cohort, and compare the weights of each curve.

    Raises SpecError for an unknown split and for shares that are not nested, and Unanswerable if no two weights make a curve,
    or no cohort has labels.
    """
    curves = require_weights(context.index, context.subjects)
    probed = _probed(context, config)
    gains = [gain for name, points in curves.items() for gain in _gains(probed, name, points)]
    return Result(
        tolerance=config.tolerance,
        homes=probed.homes,
        cohorts=context.index.cohorts,
        left_out=probed.left_out,
        pretrainings=_pretrainings(context),
        numbers=probed.numbers,
        curves=curves,
        gains=tuple(gains),
        ends=tuple(_ends(gains, curves, config.tolerance)),
    )


def tables(result: Result) -> Sequence[Table]:
    """Each curve with its gains, where it ends, all scores, and who was met in pretraining."""
    caption = (
        "The same probes on encoders pretrained on nested shares of the patients; test patients are in no share. 95 % intervals "
        "draw test patients anew, the same for all shares; they do not hold the luck of pretraining: train with several seeds. "
        "Gain: by how many percent the score is better than that of the share before, and the largest than this one; for an "
        "error, by how many it is less."
    )
    ends = (
        f"A curve saturates at the smallest share from which on no larger one's gain lies above {result.tolerance:g} % with its "
        "whole interval. That is soon so where test patients are few: it is shown to be flat only from the share on of which "
        "every larger one's gain lies below that with its whole interval. The largest share itself is neither: nobody has "
        "seen what comes after it."
    )
    shown = []
    for target, metric in result.asked:
        shown.append(Table(_title(target, metric), _curve_rows(result, target, metric), caption))
    shown.append(Table("Where the curves end", _end_rows(result), ends))
    for target, metric in result.asked:
        shown.append(Table(f"{_title(target, metric)}, by cohort", _score_rows(result, target, metric), folded=True))
    met = "patients of each cohort of whom pretraining had a recording, as the digests say"
    shown.append(Table("Met in pretraining", _met_table(result.pretrainings, result.cohorts), met, True))
    return [*shown, *_records(result.homes, result.left_out)]


def figures(result: Result) -> Sequence[Figure]:
    """Draw the score of each target over the share of patients, with what was never trained beside it."""
    shares = sorted({point.percent for points in result.curves.values() for point in points})
    drawn = []
    others = _others(result)
    for target, metric in result.asked:
        place = result.places(target)[0]
        series: dict[str, list[Limits | None]] = {}
        for name, points in result.curves.items():
            of_share = {point.percent: point.weights for point in points}
            row = [_limits(result.number(of_share.get(share, ""), place, target, metric)) for share in shares]
            series[name] = [*row, *(None for _ in others)]
        for number, other in enumerate(others):
            beside: list[Limits | None] = [None] * (len(shares) + len(others))
            beside[len(shares) + number] = _limits(result.number(other, place, target, metric))
            series[other] = beside
        names = [*(f"{share:g} %" for share in shares), *others]
        axis = f"{metric}, {_cohort(place)}, by share of the patients"
        drawn.append(Figure(f"{target} {metric}", columns(_title(target, metric), names, series, axis)))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """The mean over cohorts of each target's main metric, and for the largest share, where its curve saturates."""
    main = list({target: (target, metric) for target, metric in reversed(result.asked)}.values())[::-1]
    last = {points[-1].weights: name for name, points in result.curves.items()}
    found: dict[str, dict[str, float | None]] = {}
    for one in result.pretrainings:
        row: dict[str, float | None] = {}
        for target, metric in main:
            place = result.places(target)[0]
            number = result.number(one.weights, place, target, metric)
            row[f"{target}, {metric} of probes"] = number.value if number else None
            end = _end(result, last.get(one.weights, ""), place, target, metric)
            row[f"{target}, {metric}: saturates at, % of patients"] = end.saturates_at if end else None
        found[one.weights] = row
    return found


def over_seeds(results: Sequence[Result]) -> Sequence[Table]:
    """Scores of each share, mean over seeds and its t interval: the luck of pretraining, which patients drawn anew lack."""
    from capezoo.evaluate.measure.statistics import t_interval

    rows, ends = {}, {}
    for target, metric in results[0].asked:
        place = results[0].places(target)[0]
        for name, points in results[0].curves.items():
            for point in points:
                numbers = [one.number(point.weights, place, target, metric) for one in results]
                values = [one.value for one in numbers if one]
                over = t_interval(values)
                rows[f"{_title(target, metric)}, {point.weights}"] = [
                    _text(over.value, *over.limits, metric), ", ".join(f"{value:.3f}" for value in values)
                ]  # fmt: skip
            found = [_end(one, name, place, target, metric) for one in results]
            ends[f"{_title(target, metric)}, {name}"] = [
                ", ".join(_share(one.saturates_at if one else None) for one in found),
                ", ".join(_share(one.flat_from if one else None) for one in found),
            ]
    scores = pd.DataFrame.from_dict(rows, orient="index", columns=["mean and t interval over seeds", "each seed"])
    return [
        Table("Scores over seeds", scores),
        Table("Ends of the curves in each seed", pd.DataFrame.from_dict(ends, orient="index", columns=_END_HEADS)),
    ]


def _curves(index: CohortIndex, rows: Sequence[_Pretrained]) -> Iterator[tuple[str, tuple[_Point, ...]]]:
    """Yield the weights that were pretrained alike on shares of the same patients, by growing share.

    Raises SpecError if a share does not contain a smaller one.
    """
    met = _met(index, rows)
    groups: list[tuple[object, list[_Pretrained]]] = []
    for one in (one for one in rows if one.name in met):
        mine = next((members for like, members in groups if like == _like(one)), None)
        if mine is None:
            groups.append((_like(one), [one]))
        else:
            mine.append(one)
    for _, members in groups:
        ordered = sorted(members, key=_percent)
        if len({_percent(one) for one in ordered}) < 2:
            continue
        for smaller, larger in pairwise(ordered):
            strangers = int((met[smaller.name] & ~met[larger.name]).sum())
            if strangers or _percent(smaller) == _percent(larger):
                raise SpecError(
                    f"{smaller.name} and {larger.name}: found {strangers} recordings of {_percent(smaller):g} % of the patients "
                    f"that are not among those of {_percent(larger):g} %, expected shares that contain each other. Train all "
                    "with one store and one held_out.salt, each share once."
                )
        points = [
            _Point(
                weights=one.name,
                percent=_percent(one),
                patients=len(np.unique(index["patient"][met[one.name]])),
                records=int(met[one.name].sum()),
                steps=one.training.steps if one.training else 0,
            )
            for one in ordered
        ]
        # As a plan names a family: its members are NAME-<percent>pct.
        yield ordered[-1].name.removesuffix(f"-{_percent(ordered[-1]):g}pct"), tuple(points)


def _run_of(one: _Pretrained) -> RunConfig:
    assert one.training is not None
    return one.training.run


def _percent(one: _Pretrained) -> float:
    return _run_of(one).held_out.train_percent


def _like(one: _Pretrained) -> dict[str, Any]:
    """What must be the same in all runs of a curve."""
    values = _run_of(one).model_dump(exclude=_FREE)
    values["held_out"].pop("train_percent")
    return values


def _gains(probed: _Everywhere, name: str, points: Sequence[_Point]) -> Iterator[_Step]:
    """Yield the gain of each larger share over each smaller one, in every cohort and on their mean."""
    places = [key[1:] for key in probed.draws if key[0] == points[0].weights]
    for (cohort, target, metric), (smaller, larger) in product(places, combinations(points, 2)):
        before, after = (probed.draws[one.weights, cohort, target, metric] for one in (smaller, larger))
        gain = _percent_better(after, before, metric)
        low, high = gain.interval().limits
        is_number = bool(np.isfinite(gain.value))
        yield _Step(
            curve=name,
            cohort=cohort,
            target=target,
            metric=metric,
            smaller=smaller.percent,
            larger=larger.percent,
            gain=gain.value if is_number else None,
            low=low if is_number else None,
            high=high if is_number else None,
        )


def _ends(gains: Sequence[_Step], curves: Mapping[str, Sequence[_Point]], tolerance: float) -> Iterator[_End]:
    keys = dict.fromkeys((one.curve, one.cohort, one.target, one.metric) for one in gains)
    for curve, cohort, target, metric in keys:
        mine = [
            one for one in gains if (one.curve, one.cohort, one.target, one.metric) == (curve, cohort, target, metric)
        ]
        shares = [point.percent for point in curves[curve]]
        # Without an interval nothing is known, so nothing is said to end.
        saturates = {
            share: all(_is_none_above(one, tolerance) for one in mine if one.smaller >= share) for share in shares
        }
        flat = {share: all(_is_below(one, tolerance) for one in mine if one.smaller >= share) for share in shares}
        yield _End(
            curve=curve,
            cohort=cohort,
            target=target,
            metric=metric,
            saturates_at=next((share for share in shares[:-1] if saturates[share]), None),
            flat_from=next((share for share in shares[:-1] if flat[share]), None),
        )


def _is_none_above(one: _Step, tolerance: float) -> bool:
    return one.low is not None and one.low <= tolerance


def _is_below(one: _Step, tolerance: float) -> bool:
    return one.high is not None and one.high < tolerance


def _end(result: Result, curve: str, cohort: str, target: str, metric: str) -> _End | None:
    key = (curve, cohort, target, metric)
    return next((one for one in result.ends if (one.curve, one.cohort, one.target, one.metric) == key), None)


def _share(percent: float | None) -> str:
    return "not seen" if percent is None else f"{percent:g} %"


def _curve_rows(result: Result, target: str, metric: str) -> pd.DataFrame:
    """A row a share of each curve, and one of each set of weights that is in none."""
    place = result.places(target)[0]
    rows = {}
    for name, points in result.curves.items():
        mine = {
            (one.smaller, one.larger): one
            for one in result.gains
            if (one.curve, one.cohort, one.target, one.metric) == (name, place, target, metric)
        }
        for number, point in enumerate(points):
            before = mine.get((points[number - 1].percent, point.percent)) if number else None
            after = mine.get((point.percent, points[-1].percent))
            rows[f"{name}, {point.percent:g} %"] = [
                f"{point.patients:,}",
                f"{point.records:,}",
                f"{point.steps:,}",
                _score(result.number(point.weights, place, target, metric)),
                *(_text(one.gain, one.low, one.high, "%", "+") if one else NOTHING for one in (before, after)),
            ]
    for other in _others(result):
        score = _score(result.number(other, place, target, metric))
        rows[other] = [NOTHING, NOTHING, NOTHING, score, NOTHING, NOTHING]
    heads = ["patients", "recordings", "steps", f"{metric}, {_cohort(place)}", "gain over the share before, %",
             "gain of the largest over it, %"]  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index", columns=heads)


def _others(result: Result) -> list[str]:
    """Weights of no curve."""
    members = {point.weights for points in result.curves.values() for point in points}
    return [one.weights for one in result.pretrainings if one.weights not in members]


def _end_rows(result: Result) -> pd.DataFrame:
    rows = {
        f"{_title(one.target, one.metric)}, {one.curve}, {_cohort(one.cohort)}": [
            _share(one.saturates_at), _share(one.flat_from)
        ]
        for one in result.ends
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index", columns=_END_HEADS)


def _score_rows(result: Result, target: str, metric: str) -> pd.DataFrame:
    """A row a set of weights and one of a constant answer; a column a cohort."""
    constant = {home.cohort: home.constant[metric] for home in result.homes if home.target == target}
    rows = {
        one.weights: [_score(result.number(one.weights, name, target, metric)) for name in constant]
        for one in result.pretrainings
    }
    rows["constant answer"] = [_text(value, None, None, metric) for value in constant.values()]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*constant])
