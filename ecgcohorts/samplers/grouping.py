"""Which distribution a record belongs to: its cohort, or any columns of the index, such as the device."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError

if TYPE_CHECKING:  # loads pandas, which a project with arrays of its own can do without
    from ecgcohorts.index.cohort_index import CohortIndex

UNKNOWN = -1
LABEL = "label_"
MANY_GROUPS = 10_000  # our choice; a column of measurements would give each record a group of its own
By = str | Sequence[str]


def group_records(index: "CohortIndex", by: By) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes [record] and the names they stand for. by: a column, or several, whose values together make a group.

    Columns: cohort, site, device, sex, a label, or any other with few values. Raises SpecError where a record has no
    value, for a column that is not there, and for one of too many values.
    """
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise SpecError("found no column to group by, expected one or more, such as device.")
    return joined([_column(index, name) for name in names])


def joined(columns: Sequence[tuple[NDArray[np.int64], Sequence[str]]]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """One code for each combination that occurs, in the order of the codes; names joined by a slash."""
    if len(columns) == 1:
        return columns[0][0], tuple(columns[0][1])
    mixed = np.zeros(len(columns[0][0]), np.int64)
    for codes, names in columns:
        mixed = mixed * len(names) + codes
    present, codes = np.unique(mixed, return_inverse=True)
    texts = []
    for code in present.tolist():
        parts = []
        for _, names in reversed(columns):
            code, place = divmod(code, len(names))
            parts.append(names[place])
        texts.append(" / ".join(reversed(parts)))
    return codes.astype(np.int64), tuple(texts)


def _column(index: "CohortIndex", name: str) -> tuple[NDArray[np.int64], Sequence[str]]:
    named: dict[str, Sequence[str]] = {
        "cohort": index.cohorts,
        "site": index.sites,
        "device": index.devices,
        "sex": ("male", "female"),
    }
    if name in named:
        codes: NDArray[np.int64] = index[name].astype(np.int64)
        names = named[name]
    else:
        codes, names = _values(index[name if name in index.columns else f"{LABEL}{name}"], name)
    unknown = int((codes == UNKNOWN).sum())
    if unknown:
        raise SpecError(
            f"found {unknown} of {len(codes)} records without {name}, expected one in each. Leave them out "
            "(`index.take`), or group by another column."
        )
    return codes, names


def _values(column: NDArray, name: str) -> tuple[NDArray[np.int64], list[str]]:
    if column.ndim != 1:
        raise SpecError(f"found {name} of shape {column.shape}, expected a column with one value a record.")
    known = np.isfinite(column) if column.dtype.kind == "f" else np.ones(len(column), bool)
    distinct, numbers = np.unique(column[known], return_inverse=True)
    if len(distinct) > MANY_GROUPS:
        raise SpecError(f"found {len(distinct)} values of {name}, expected at most {MANY_GROUPS} groups.")
    codes = np.full(len(column), UNKNOWN, np.int64)
    codes[known] = numbers
    return codes, [f"{value:g}" if column.dtype.kind == "f" else str(value) for value in distinct.tolist()]
