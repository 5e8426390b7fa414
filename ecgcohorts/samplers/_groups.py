"""Groups of records: of columns of an index, or of arrays. Names tell groups apart, whatever they are made of."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers._values import UNKNOWN, _coded, _names_of
from ecgcohorts.samplers.options import Unknown

COHORT = "cohort"
LABEL = "label_"
JOIN = " / "
WITHOUT = "unknown"  # name of the group of records without a value, where those are a group
MANY_GROUPS = 10_000  # our choice; a column of measurements would give each record a group of its own
By = str | Sequence[str]
Codes = tuple[NDArray[np.integer], tuple[str, ...]]  # of each record, and the names of the groups


class _Columns(Protocol):
    """The part of an index that groups are made of."""

    @property
    def columns(self) -> Mapping[str, NDArray]: ...
    @property
    def cohorts(self) -> tuple[str, ...]: ...
    @property
    def sites(self) -> tuple[str, ...]: ...
    @property
    def devices(self) -> tuple[str, ...]: ...
    def __getitem__(self, name: str, /) -> NDArray: ...


def _groups(cohorts: ArrayLike | tuple[ArrayLike, ...] | None, n: int, unknown: Unknown) -> Codes:
    # Without cohorts all records are of one: the samplers know no other case.
    _check(unknown)
    if cohorts is None:
        return np.zeros(n, np.int8), ("0",)
    columns = cohorts if isinstance(cohorts, tuple) else (cohorts,)
    if not columns:
        raise SpecError("found no column in cohorts=(), expected one or more.")
    coded = [_coded(column, "cohorts", missing=unknown == "group") for column in columns]
    if len({len(codes) for codes, _ in coded}) > 1:
        lengths = ", ".join(str(len(codes)) for codes, _ in coded)
        raise SpecError(f"found columns of cohorts of unequal length {lengths}, expected one entry per record in each.")
    return _joined([_with_unknown(codes, _names_of(names.tolist())) for codes, names in coded])


def _check(unknown: Unknown) -> None:
    if unknown not in ("raise", "group"):
        raise SpecError(f"found unknown={unknown!r}, expected one of raise, group.")


def _with_unknown(codes: NDArray[np.integer], names: Sequence[str]) -> Codes:
    """Make a group of the entries without a value."""
    missing = codes == UNKNOWN
    if not missing.any():
        return codes, tuple(names)
    return np.where(missing, len(names), codes), _names_of([*names, None], [*names, WITHOUT])


def _group_records(index: _Columns, by: By, unknown: Unknown = "raise", out: NDArray[np.bool_] | None = None) -> Codes:
    """Return the code of each record's group and the names of the groups. by: a column, or several taken together.

    Columns: cohort, site, device, sex, a label, or any other with few values. unknown: records without a value are
    refused, or a group of each cohort ("group"). out: records that are excluded, and may have none. Raises SpecError if
    there is no such column, or it has too many values.
    """
    _check(unknown)
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise SpecError("found no column to group by, expected one or more, such as device.")
    columns = [_column(index, name) for name in names]
    for name, (codes, _) in zip(names, columns, strict=True):
        missing = int(((codes == UNKNOWN) if out is None else (codes == UNKNOWN) & ~out).sum())
        if missing and unknown == "raise":
            raise SpecError(
                f"found {missing} of {len(codes)} records without {name}, expected one in each. Leave them out "
                "(`exclude=`, `index.take`), make them a group of each cohort (unknown='group'), or group by another column."
            )
    if out is not None:
        # Any group will do for what is never drawn; one of its own would rename the others.
        columns = [(np.where(out & (codes == UNKNOWN), 0, codes), texts) for codes, texts in columns]
    # By codes and not by names: a device may be called "unknown".
    lost = np.any([codes == UNKNOWN for codes, _ in columns], axis=0)
    columns = [_with_unknown(*column) for column in columns]
    if COHORT in names or not lost.any():
        return _joined(columns)
    # Unknown recorders of two hospitals are not one distribution.
    of_cohort = np.where(lost, index["cohort"], len(index.cohorts))
    codes, texts = _joined([*columns, (of_cohort, (*index.cohorts, ""))])
    return codes, _names_of(texts, [text.removesuffix(JOIN) for text in texts])


def _joined(columns: Sequence[Codes]) -> Codes:
    """Number the combinations that occur, in the order of their codes, and join their names by a slash."""
    if len(columns) == 1:
        return columns[0][0], tuple(columns[0][1])
    # Mixed radix: the last column varies fastest, as in the joined names.
    mixed = np.zeros(len(columns[0][0]), np.int64)
    for codes, names in columns:
        mixed = mixed * len(names) + codes
    present, codes = np.unique(mixed, return_inverse=True)
    parts = []
    for code in present.tolist():
        part = []
        for _, names in reversed(columns):
            code, place = divmod(code, len(names))
            part.append(names[place])
        parts.append(tuple(reversed(part)))
    # A name with a slash of its own, as in ("a / b", "c") and ("a", "b / c"), must not make one group of two.
    return codes.astype(np.int64), _names_of(parts, [JOIN.join(part) for part in parts])


def _column(index: _Columns, name: str) -> Codes:
    named: dict[str, Sequence[str]] = {
        "cohort": index.cohorts,
        "site": index.sites,
        "device": index.devices,
        "sex": ("male", "female"),
    }
    if name in named:
        return index[name].astype(np.int64), tuple(named[name])
    return _values(index[name if name in index.columns else f"{LABEL}{name}"], name)


def _values(column: NDArray, name: str) -> Codes:
    if column.ndim != 1:
        raise SpecError(f"found {name} of shape {column.shape}, expected a column with one value a record.")
    known = np.isfinite(column) if column.dtype.kind == "f" else np.ones(len(column), bool)
    distinct, numbers = np.unique(column[known], return_inverse=True)
    # Said here, before a sampler answers that thousands of groups are too small for a batch.
    if len(distinct) > MANY_GROUPS:
        raise SpecError(f"found {len(distinct)} values of {name}, expected at most {MANY_GROUPS} groups.")
    codes = np.full(len(column), UNKNOWN, np.int64)
    codes[known] = numbers
    values = distinct.tolist()
    # Two measurements may read alike in six digits.
    return codes, _names_of(values, [f"{value:g}" if column.dtype.kind == "f" else str(value) for value in values])
