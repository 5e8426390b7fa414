"""Columns of an index as colours of a map: a few values, and of numbers a few bands in their order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError, did_you_mean
from ecgcohorts.index.cohort_index import LABEL, QUALITY, SEX_CODES, CohortIndex

_STANDARD = ("cohort", "device", "site", "sex", "age")
# Our defaults. More colours than these nobody tells apart.
_MOST_VALUES, _BANDS = 12, 5
_REST = "others"
# Years; an adult's heart changes little in less.
_AGE_BANDS = (0, 20, 40, 60, 80)


@dataclass(frozen=True, eq=False)
class Column:
    """Values of one column. codes: (record,) place in `values`, -1 unknown."""

    name: str
    values: tuple[str, ...]
    codes: NDArray[np.int64]
    ordered: bool = False

    @staticmethod
    def require(index: CohortIndex, name: str) -> None:
        """Raise SpecError unless a column of this name can be drawn."""
        known = [*_STANDARD, *index.labels, *(one for one in index.columns if one.startswith(QUALITY))]
        if name not in known and name.removeprefix(LABEL) not in index.labels:
            raise SpecError(f"found no column {name!r}, expected one of {', '.join(known)}.{did_you_mean(name, known)}")

    @property
    def texts(self) -> NDArray[np.str_]:
        """The value of each record, empty if unknown."""
        return np.array([*self.values, ""])[self.codes]


def columns_of(index: CohortIndex, entries: NDArray[np.int64], asked: Sequence[str]) -> list[Column]:
    """Return the columns asked for, or those of the standard five that have two values among these entries."""
    made = [_column(index, entries, name) for name in asked or _STANDARD]
    return made if asked else [one for one in made if len(np.unique(one.codes[one.codes >= 0])) > 1]


def _column(index: CohortIndex, entries: NDArray[np.int64], name: str) -> Column:
    if name == "sex":
        # As in the index: 0 male, 1 female, -1 unknown.
        return Column(name, tuple(SEX_CODES), index["sex"][entries].astype(np.int64))
    if name == "age":
        return _age(index["age"][entries].astype(np.float64))
    if name in ("cohort", "device", "site"):
        names = {"cohort": index.cohorts, "device": index.devices, "site": index.sites}[name]
        return _named(name, names, index[name][entries].astype(np.int64))
    column = name if name in index.columns else f"{LABEL}{name}"
    return _numbers(name.removeprefix(LABEL), index[column][entries].astype(np.float64))


def _named(name: str, names: Sequence[str], codes: NDArray[np.int64]) -> Column:
    """The values that occur, in alphabetical order; the rarest of too many have one colour together."""
    # An index made by hand may have codes without names.
    codes = np.where(codes < len(names), codes, -1)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda code: -counts[code])
    kept = present if len(present) <= _MOST_VALUES or name == "cohort" else present[: _MOST_VALUES - 1]
    kept = sorted(kept, key=lambda code: names[code])
    place = np.full(len(names) + 1, len(kept) if len(kept) < len(present) else -1)
    place[kept] = np.arange(len(kept))
    place[-1] = -1  # unknown
    rest = (_REST,) if len(kept) < len(present) else ()
    return Column(name, tuple(names[code] for code in kept) + rest, place[codes])


def _age(years: NDArray[np.float64]) -> Column:
    codes = np.digitize(years, _AGE_BANDS) - 1
    names = [f"{low} to {low + 19}" for low in _AGE_BANDS[:-1]] + [f"from {_AGE_BANDS[-1]}"]
    return Column("age", tuple(names), np.where(np.isfinite(years), codes, -1), ordered=True)


def _numbers(name: str, values: NDArray[np.float64]) -> Column:
    """A few numbers as they are, others in bands of as many records each."""
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if len(distinct) <= _BANDS + 1:
        place = np.where(known, np.searchsorted(distinct, values), -1)
        return Column(name, tuple(f"{one:g}" for one in distinct), place, ordered=len(distinct) > 2)
    # Upper edges, so that a value which many records share is a band and not the edge between two.
    # Edges are values that occur: one between two values may follow another that equals the lower, with nothing between.
    shares = np.arange(1, _BANDS + 1) / _BANDS
    edges = np.unique(np.quantile(values[known], shares, method="inverted_cdf"))
    codes = np.minimum(np.searchsorted(edges, values), len(edges) - 1)
    bands = [values[known & (codes == code)] for code in range(len(edges))]
    names = [f"{band.min():.3g} to {band.max():.3g}" if np.ptp(band) else f"{band[0]:.3g}" for band in bands]
    return Column(name, tuple(names), np.where(known, codes, -1), ordered=True)
