"""Leave one cohort out: what it is worth to have a cohort's own patients in pretraining, when a probe is trained on it anyway.

Protocol of OpenECG (arXiv 2503.00711): an encoder is pretrained with a cohort and once more without it, and the same head is
trained and tested in that cohort. Which weights make such a pair is read from the digests of their training recordings and
from their cards: the recordings must differ by one whole cohort, the runs by nothing else. Test patients are in no
pretraining. `capezoo evaluate study --plan` trains such pairs (`leave_out: each`).
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

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
from capezoo.evaluate.questions._wording import _p
from capezoo.specs.base import Spec
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import Limits, columns, intervals
from ecgcohorts.report.page import NOTHING

if TYPE_CHECKING:
    from capezoo.evaluate.measure.statistics import Bootstrap

EXAMPLES = (
    "capezoo evaluate lodo --weights w/byol --weights w/byol-without-georgia --weights w/byol-without-cpsc2018 --weights random "
    "--store store.zarr --split study-1 --seed 0 -o study",
    "capezoo evaluate lodo --weights w/all --weights w/all-without-north --store store.zarr --split study-1 --target sex "
    "--min-patients 10 --seed 0 -o study",
)
# What may differ between two runs of a pair, beside who is in them; equal steps may take another number of epochs.
_FREE = {"name", "cohorts", "epochs", "max_steps"}
# OpenECG's gains in %, from a secondary summary that does not say of which metric: BYOL, SimCLR, MAE.
_PUBLISHED: dict[str, tuple[float, float, float]] = {
    "cpsc2018": (3.6, 2.6, 3.1),
    "ptb_xl": (0.8, 0.9, 0.8),
    "chapman_shaoxing": (0.2, 0.2, 0.1),
    "cinc2021_ptb": (1.1, 1.2, 1.5),
    "georgia": (1.2, 1.2, 2.4),
    "incart": (4.4, 3.2, 2.9),
}


_Both = tuple["Bootstrap", "Bootstrap"]  # of a pair, with the cohort and without


class Config(EveryProbe):
    """How many records, and how probes are trained."""


class _Gain(Spec):
    """What a cohort in pretraining is worth to a probe of that cohort, on the same test patients."""

    cohort: str  # empty: the mean over the cohorts that were left out
    target: str
    metric: str
    having: str  # weights that had met the cohort
    without: str
    value_having: float
    value_without: float
    difference: float  # having minus without
    low: float | None
    high: float | None
    p: float | None  # of the same draws
    q: float | None = None  # over all gains but means
    percent: float | None  # by which `having` is better; for an error, by which it is less. None: of 0
    percent_low: float | None
    percent_high: float | None


class Result(Spec):
    """Scores of all weights in all cohorts, and the gains of every pair."""

    homes: tuple[_Home, ...]
    cohorts: tuple[str, ...]
    left_out: dict[str, str]
    not_left_out: tuple[str, ...]  # cohorts that no pair of weights differs by
    paired: tuple[str, ...]  # weights of some pair, also of cohorts that have no labels
    pretrainings: tuple[_Pretraining, ...]
    numbers: tuple[_Number, ...]
    gains: tuple[_Gain, ...]

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Targets and metrics in their order."""
        return list(dict.fromkeys((one.target, one.metric) for one in self.numbers))

    def number(self, weights: str, cohort: str, target: str, metric: str) -> _Number | None:
        key = (weights, cohort, target, metric)
        return next((one for one in self.numbers if (one.weights, one.cohort, one.target, one.metric) == key), None)

    def of(self, target: str, metric: str) -> list[_Gain]:
        return [one for one in self.gains if (one.target, one.metric) == (target, metric)]


class _Pair(NamedTuple):
    cohort: str
    having: str
    without: str


def require_weights(index: CohortIndex, rows: Sequence[_Pretrained]) -> "list[_Pair]":
    """Return the pairs of weights. Raises Unanswerable if no two differ by one cohort."""
    pairs = list(_pairs(index, rows))
    if not pairs:
        raise Unanswerable(
            "found no two weights whose pretraining differs by one cohort of this store and by nothing else, expected one "
            "such pair. Train them with `leave_out: each` in a plan: capezoo evaluate study --plan."
        )
    return pairs


def run(context: Context, config: Config) -> Result:
    """Train and test probes in every cohort, and compare the weights that had met it with those that had not.

    Raises SpecError for an unknown split, and Unanswerable if no two weights differ by one cohort, or no cohort has labels.
    """
    pairs = require_weights(context.index, context.subjects)
    probed = _probed(context, config)
    gains = [gain for pair in pairs for gain in _gains(probed, pair)]
    met = {pair.cohort for pair in pairs}
    return Result(
        homes=probed.homes,
        cohorts=context.index.cohorts,
        left_out=probed.left_out,
        not_left_out=tuple(name for name in context.index.cohorts if name not in met),
        paired=tuple(dict.fromkeys(name for pair in pairs for name in (pair.having, pair.without))),
        pretrainings=_pretrainings(context),
        numbers=probed.numbers,
        gains=(*_controlled([gain for gain, _ in gains]), *_mean_gains(gains)),
    )


def tables(result: Result) -> Sequence[Table]:
    """Gains and scores of each target, who was met in pretraining, and the records."""
    caption = (
        "A probe is trained in the cohort named, on features of the encoder that had met its training patients and of the one "
        "that had not. Test patients are in no pretraining. 95 % intervals draw them anew, the same for both; they do not "
        "hold the luck of pretraining: train with several seeds. Gain: by how many percent the first is better, for an error by how many it is less. "
        "q: false-discovery control over all gains but means. F1 counts answers above 1/2: that of a rare class may be 0 for "
        "all. Published: OpenECG's BYOL / SimCLR / MAE, of a metric that its summary does not name."
    )
    if result.not_left_out:
        caption += f" No pair of weights differs by {', '.join(result.not_left_out)}."
    shown = []
    for target, metric in result.asked:
        if result.of(target, metric):
            shown.append(
                Table(f"{_title(target, metric)}, gain of the cohort", _gain_rows(result, target, metric), caption)
            )
        scores = "Scores of all weights. Rows never trained have been given the same probes."
        shown.append(Table(f"{_title(target, metric)}, all weights", _score_rows(result, target, metric), scores, True))
    met = "patients of each cohort of whom pretraining had a recording, as the digests say"
    shown.append(Table("Met in pretraining", _met_table(result.pretrainings, result.cohorts), met))
    return [*shown, *_records(result.homes, result.left_out)]


def figures(result: Result) -> Sequence[Figure]:
    """Draw the gains of each target, a row a cohort, and the scores behind them."""
    drawn = []
    for target, metric in result.asked:
        gains = result.of(target, metric)
        if not gains:
            continue
        names = list(dict.fromkeys(one.cohort for one in gains))
        series: dict[str, list[Limits | None]] = {}
        for one in gains:
            row = series.setdefault(one.having, [None] * len(names))
            row[names.index(one.cohort)] = (
                None if one.percent is None else (one.percent_low, one.percent, one.percent_high)
            )
        title, named = f"{target} {metric}", [*map(_cohort, names)]
        axis = f"{metric}: gain of having the cohort in pretraining, %, 95 % intervals"
        drawn.append(Figure(f"{title}, gain", intervals(_title(target, metric), named, series, axis)))
        # The mean without each has no weights of its own to be drawn.
        kept = [name for name in names if name != _MEAN]
        scores = {
            words: [_limits(result.number(weights.get(name, ""), name, target, metric)) for name in kept]
            for words, weights in _compared(result, gains, kept).items()
        }
        axis = f"{metric}, 95 % intervals over patients"
        drawn.append(Figure(title, columns(_title(target, metric), kept, scores, axis)))
    return drawn


def headline(result: Result) -> dict[str, dict[str, float | None]]:
    """The mean over cohorts of each target's main metric, and for weights that had met all, what that was worth."""
    main = list({target: (target, metric) for target, metric in reversed(result.asked)}.values())[::-1]
    found: dict[str, dict[str, float | None]] = {}
    for one in result.pretrainings:
        row: dict[str, float | None] = {}
        for target, metric in main:
            number = result.number(one.weights, _MEAN, target, metric)
            row[f"{target}, {metric} of probes"] = number.value if number else None
            mine = [gain for gain in result.of(target, metric) if gain.having == one.weights]
            mean = next((gain for gain in mine if gain.cohort == _MEAN), mine[0] if len(mine) == 1 else None)
            row[f"{target}, {metric}: gain of the cohort, %"] = mean.percent if mean else None
        found[one.weights] = row
    return found


def over_seeds(results: Sequence[Result]) -> Sequence[Table]:
    """Gains of each cohort, mean over seeds and its t interval: the luck of pretraining, which patients drawn anew lack."""
    from capezoo.evaluate.measure.statistics import t_interval

    found: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        for one in result.gains:
            if one.percent is not None:
                key = (_title(one.target, one.metric), one.having, _cohort(one.cohort))
                found.setdefault(key, []).append(one.percent)
    rows = {}
    for (title, having, cohort), values in found.items():
        over = t_interval(values)
        rows[f"{title}, {having}, {cohort}"] = [
            _text(over.value, *over.limits, "%", "+"), ", ".join(f"{one:+.1f}" for one in values)
        ]  # fmt: skip
    heads = ["gain in %, mean and t interval over seeds", "each seed"]
    return [Table("Gain over seeds", pd.DataFrame.from_dict(rows, orient="index", columns=heads))] if rows else []


def _pairs(index: CohortIndex, rows: Sequence[_Pretrained]) -> Iterator[_Pair]:
    """Yield the weights that were pretrained alike but for one whole cohort, in the order of the cohorts."""
    met, found = _met(index, rows), []
    for one, other in permutations([one for one in rows if one.name in met], 2):
        if _like(one) != _like(other):
            continue
        more, less = met[one.name], met[other.name]
        added = np.unique(index["cohort"][more & ~less])
        # Of a cohort that is left out nobody may be known, and all else must be the same recordings.
        if (less & ~more).any() or len(added) != 1 or (less & (index["cohort"] == added[0])).any():
            continue
        cohort = index.cohorts[int(added[0])]
        if _others(one, cohort) == _others(other, cohort):
            found.append(_Pair(cohort, one.name, other.name))
    yield from sorted(found, key=lambda pair: index.cohorts.index(pair.cohort))


def _like(one: _Pretrained) -> object:
    """What must be the same in the runs of a pair."""
    assert one.training is not None
    return one.training.run.model_dump(exclude=_FREE)


def _others(one: _Pretrained, cohort: str) -> dict[str, int]:
    """Records of all other cohorts, also of those that this store does not hold."""
    assert one.training is not None
    return {use.name: use.records for use in one.training.cohorts if use.name != cohort and use.records}


def _gains(probed: _Everywhere, pair: _Pair) -> "Iterator[tuple[_Gain, _Both]]":
    for home in (home for home in probed.homes if home.cohort == pair.cohort):
        for metric in home.constant:
            having, without = (
                probed.draws[name, pair.cohort, home.target, metric] for name in (pair.having, pair.without)
            )
            yield _gain(pair, home.target, metric, having, without), (having, without)


def _gain(pair: _Pair, target: str, metric: str, having: "Bootstrap", without: "Bootstrap") -> _Gain:
    difference, percent = having - without, _percent_better(having, without, metric)
    (low, high), (percent_low, percent_high) = difference.interval().limits, percent.interval().limits
    is_number = bool(np.isfinite(percent.value))
    return _Gain(
        cohort=pair.cohort,
        target=target,
        metric=metric,
        having=pair.having,
        without=pair.without,
        value_having=having.value,
        value_without=without.value,
        difference=difference.value,
        low=low,
        high=high,
        p=difference.p,
        percent=percent.value if is_number else None,
        percent_low=percent_low if is_number else None,
        percent_high=percent_high if is_number else None,
    )


def _controlled(gains: Sequence[_Gain]) -> list[_Gain]:
    from capezoo.evaluate.measure.ranks import q_values

    q = q_values([one.p for one in gains])
    return [one.model_copy(update={"q": value}) for one, value in zip(gains, q, strict=True)]


def _mean_gains(gains: "Sequence[tuple[_Gain, _Both]]") -> Iterator[_Gain]:
    """Compare means over the cohorts that were left out, each counting alike."""
    from capezoo.evaluate.measure.statistics import Bootstrap

    for key in dict.fromkeys((one.having, one.target, one.metric) for one, _ in gains):
        mine = [both for one, both in gains if (one.having, one.target, one.metric) == key]
        if len(mine) > 1:
            having, without = (Bootstrap.mean(side) for side in zip(*mine, strict=True))
            yield _gain(_Pair(_MEAN, key[0], "one for each"), *key[1:], having, without)


def _gain_rows(result: Result, target: str, metric: str) -> pd.DataFrame:
    """A row a pair: both scores, the gain, rows never trained, and what was published."""
    gains = result.of(target, metric)
    several = len({one.having for one in gains}) > 1
    others = [one.weights for one in result.pretrainings if one.weights not in result.paired]
    rows = {}
    for one in gains:
        name = _cohort(one.cohort) + (f", {one.having}" if several else "")
        sides = [
            _text(found.value, found.low, found.high, metric) if found else f"{value:.3f}"
            for found, value in (
                (result.number(one.having, one.cohort, target, metric), one.value_having),
                (result.number(one.without, one.cohort, target, metric), one.value_without),
            )
        ]
        published = _PUBLISHED.get(one.cohort)
        rows[name] = [
            *sides,
            _text(one.difference, one.low, one.high, metric, "+"),
            _text(one.percent, one.percent_low, one.percent_high, "%", "+"),
            _p(one.p),
            _p(one.q),
            *(_score(result.number(other, one.cohort, target, metric)) for other in others),
            " / ".join(f"{value:.1f}" for value in published) if published else NOTHING,
        ]
    heads = ["with", "without", "difference", "gain, %", "p", "q", *others, "published gain, %"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=heads)


def _score_rows(result: Result, target: str, metric: str) -> pd.DataFrame:
    """A row a set of weights and one of a constant answer; a column a cohort, and their mean."""
    constant = {home.cohort: home.constant[metric] for home in result.homes if home.target == target}
    names = [*constant, _MEAN] if len(constant) > 1 else [*constant]
    rows = {
        one.weights: [_score(result.number(one.weights, name, target, metric)) for name in names]
        for one in result.pretrainings
    }
    values = [constant[name] if name else float(np.mean(list(constant.values()))) for name in names]
    rows["constant answer"] = [_text(value, None, None, metric) for value in values]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*map(_cohort, names)])


def _compared(result: Result, gains: Sequence[_Gain], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Series of a picture: words -> cohort -> weights, with it and without it, and those of no pair."""
    found: dict[str, dict[str, str]] = {}
    for one in gains:
        found.setdefault(f"{one.having}, with", {})[one.cohort] = one.having
        found.setdefault(f"{one.having}, without", {})[one.cohort] = one.without
    for row in result.pretrainings:
        if row.weights not in result.paired:
            found[row.weights] = dict.fromkeys(names, row.weights)
    return found
