"""Which patients are near each other: features from a file, an array or columns, and a line on which near ones are neighbours.

All comparisons are made in whole numbers that float64 holds exactly, so that a line is the same on every machine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers._groups import LABEL
from ecgcohorts.samplers.permutation import GOLDEN, key_of, mix64, permute
from ecgcohorts.samplers.roster import Roster
from ecgcohorts.samplers.state import shortened

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

# Differences have 20 bits, products of two 40, sums of 2,048 of those 51: float64 holds 53.
_STEPS = 1 << 19
_FEATURES = 2048
_CATEGORIES = 64  # our choice; a column of codes with more would be a feature each
_SAMPLE = 16  # members of a part from which its ends are chosen
_BLOCK = 1 << 15  # units multiplied at a time
_COLUMNS = 8  # features read at a time

Near = ArrayLike | str | Path | Sequence[str]


def read_features(near: Near, roster: Roster, index: "CohortIndex | None") -> NDArray[np.int32]:
    """Return the features of each unit, the mean over its records, in whole steps: int32 [unit, feature].

    near: an array or a `.npy` file with one row per record, in the order of the index or the arrays; or columns of the
    index. Raises SpecError for a file that is not there, of another length, or with values missing.
    """
    rows = np.arange(roster.entries) if index is None else index["row"]
    by_row = np.empty(int(rows.max()) + 1, np.int64)
    by_row[rows] = np.arange(len(rows))
    entries = by_row[roster.rows]  # without those that are excluded, whose features do not matter
    names = [near] if isinstance(near, str) and not near.endswith(".npy") else near
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        values, entries = _columns(names, index, entries), np.arange(len(entries))
    elif isinstance(near, str | Path):
        values = _checked(_opened(Path(near)), str(near), roster.entries, entries)
    else:
        # With its mask, which numpy would drop: what is excluded may be masked.
        values = _checked(np.ma.asarray(near), "near", roster.entries, entries)
    # A few features at a time: five million records of 64 would be 2.7 GB, several times over.
    blocks = [slice(first, first + _COLUMNS) for first in range(0, values.shape[1], _COLUMNS)]
    ends = [(block.min(axis=0), block.max(axis=0)) for block in (values[entries, one] for one in blocks)]
    low, high = (np.concatenate([end[side] for end in ends]).astype(np.float64) for side in (0, 1))
    # One scale for all features: distances keep their ratios.
    with np.errstate(over="ignore"):
        scale, middle = float((high - low).max()) or 1.0, low / 2 + high / 2
    if not np.isfinite(scale):
        raise SpecError("near: found numbers too far apart for float64, expected smaller ones. Divide them.")
    features = np.empty((len(roster), values.shape[1]), np.int32)
    for one in blocks:
        steps = np.rint((values[entries, one].astype(np.float64) - middle[one]) / scale * _STEPS).astype(np.int64)
        # Sums of whole numbers are exact in any order; a mean of floats would depend on it.
        features[:, one] = np.rint(np.add.reduceat(steps, roster.ptr[:-1]) / roster.counts[:, None])
    return features


def line_of(points: NDArray[np.int32], key: int) -> NDArray[np.int64]:
    """Return an order of some points, [unit, feature], in which near ones stand close together.

    Parts are halved, each along the direction between two of its far members, until every part is one point: as the trees
    of Dasgupta, Freund, STOC 2008 ("random projection trees"), with exact medians. One feature gives its sorted order.
    """
    n = len(points)
    order = permute(np.arange(n), n, key)  # equal points stay in random order
    # Codes are all equally far from each other, and most stand in the middle of any direction: this keeps equal ones together.
    weights = mix64(
        np.arange(1, points.shape[1] + 1, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(key)
    ) >> np.uint64(46)
    second = _reach(points, np.arange(n), weights.astype(np.float64)[None], np.zeros(n, np.int64))
    bounds = np.array([0, n])
    level = 0
    while (sizes := np.diff(bounds)).max() > 1:
        level += 1
        part = np.repeat(np.arange(len(sizes)), sizes)
        along = _directions(points, order, bounds, key_of(key, level))
        order = order[np.lexsort((second[order], _reach(points, order, along, part), part))]
        bounds = np.unique(np.concatenate([bounds, bounds[:-1] + (sizes + 1) // 2]))
    return order


def _reach(
    points: NDArray[np.int32], order: NDArray[np.int64], along: NDArray[np.float64], part: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how far each point lies along its part's direction, [place in the order]."""
    reach = np.empty(len(order))
    for first in range(0, len(order), _BLOCK):
        here = slice(first, first + _BLOCK)
        reach[here] = (points[order[here]].astype(np.float64) * along[part[here]]).sum(axis=1)
    return reach


def _directions(
    points: NDArray[np.int32], order: NDArray[np.int64], bounds: NDArray[np.int64], key: int
) -> NDArray[np.float64]:
    """Return the direction in which each part is long: between a member and the farthest from it, of a sample."""
    sizes = np.diff(bounds)
    sample = min(_SAMPLE, int(sizes.max()))
    places = bounds[:-1, None] + np.arange(sample) * sizes[:, None] // sample
    one = points[order[bounds[:-1] + (np.uint64(key) % sizes.astype(np.uint64)).astype(np.int64)]].astype(np.float64)
    far, reach = one.copy(), np.zeros(len(sizes))
    for column in places.T:
        other = points[order[column]].astype(np.float64)
        distance = ((other - one) ** 2).sum(axis=1)
        further = distance > reach
        far[further], reach[further] = other[further], distance[further]
    along = far - one
    # Of the two ways along a direction always the same: halves of a half then join where they are near.
    sign = np.sign(along[np.arange(len(along)), (along != 0).argmax(axis=1)])
    return along * np.where(sign == 0, 1, sign)[:, None]


def _opened(path: Path) -> NDArray:
    if not path.is_file():
        raise SpecError(f"{path}: found no file, expected a .npy file with one row per record. Check the path.")
    try:
        # Mapped: a header that promises more than the file holds is found out before any memory is taken.
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError):
        raise SpecError(f"{path}: found no array in it, expected a .npy file. Write it with numpy.save.") from None


def _checked(values: NDArray, name: str, records: int, entries: NDArray[np.int64]) -> NDArray:
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2):
        raise SpecError(
            f"{name}: found {values.dtype} of shape {values.shape}, expected numbers [record] or [record, feature]."
        )
    if len(values) != records:
        raise SpecError(
            f"{name}: found {len(values)} rows, expected one for each of {records} records, in their order. "
            "Embed the records of this index, or take the index of those that were embedded."
        )
    table = values.reshape(records, -1)
    if not 0 < table.shape[1] <= _FEATURES:
        raise SpecError(f"{name}: found {table.shape[1]} features, expected 1 to {_FEATURES}. Give fewer.")
    if np.ma.is_masked(table) and np.any(np.ma.getmaskarray(table)[entries]):
        raise SpecError(f"{name}: found masked values, expected finite numbers. Leave these records out (`exclude=`).")
    table = np.ma.getdata(table)
    bad = int((~np.isfinite(table)).any(axis=1)[entries].sum())
    if bad:
        raise SpecError(
            f"{name}: found {bad} rows with NaN or infinity, expected finite numbers. Leave these records out "
            "(`exclude=`)."
        )
    return table


def _columns(names: Sequence[str], index: "CohortIndex | None", entries: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return some entries of columns over their ranges; codes as one feature each; unknown values far from known ones."""
    if index is None:
        found = ", ".join(shortened(names))
        raise SpecError(f"found columns {found} without an index, expected an array of numbers with a row per record.")
    features: list[NDArray[np.float64]] = []
    for name in names:
        known_name = name if name in index.columns else f"{LABEL}{name}"
        if known_name not in index.columns:
            raise SpecError(f"found no column {name}, expected one of {', '.join(index.columns)}, or a .npy file.")
        column = index[known_name][entries]
        if column.ndim != 1:
            raise SpecError(f"found {name} of shape {column.shape}, expected a column with one value a record.")
        if column.dtype.kind == "f":
            known = np.isfinite(column)
            values = np.where(known, column, np.median(column[known]) if known.any() else 0).astype(np.float64)
            span = values.max() - values.min()
            # A feature of its own: the middle value alone would put the unknown among the known of middle age.
            features += [(values - values.min()) / (span or 1), (~known).astype(np.float64)]
        else:
            codes = np.unique(column)
            if len(codes) > _CATEGORIES:
                raise SpecError(f"found {len(codes)} values of {name}, expected {_CATEGORIES} at most. Leave it out.")
            features += [(column == code) / np.sqrt(2) for code in codes]
    return np.stack(features, axis=1)
