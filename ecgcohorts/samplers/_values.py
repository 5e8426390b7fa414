"""Values that projects bring: ids, names of groups, classes, days. What could silently mean another thing is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import SpecError

UNKNOWN = -1
Classes = tuple[NDArray[np.integer], tuple[str, ...]]  # of each unit, and their names
DENSE_SPAN = 8  # integers spread over up to this many times their number are counted, others sorted
SORTED_TEXTS = 10_000  # cohorts are few, patients many
SECONDS_PER_DAY = 86_400
EXACT_FLOAT = 2**53  # above it, float64 has no room for every integer
# What str() makes of a missing value in numpy, pandas and Python; read from a file, such a text is no id.
MISSING_TEXTS = frozenset({"", "nan", "NaN", "NAN", "None", "NaT", "<NA>"})

Codes = tuple[NDArray[np.integer], NDArray]  # of each entry, and the distinct values


class _NoClass(SpecError, TypeError):
    """A record has no class. Also a TypeError, which numpy raised for None: who caught that still does."""


def _plain(values: ArrayLike, name: str) -> NDArray:
    """Return a 1-d array. Raises SpecError for another shape, and for masked values, which numpy would unmask."""
    if np.ma.is_masked(values):
        raise SpecError(
            f"found masked values in {name}, expected a value in every entry. Leave these records out (`exclude=`)."
        )
    return np.asarray(_shaped(values, name))


def _shaped(values: ArrayLike, name: str) -> NDArray:
    """Return a 1-d array with the mask it may have. Raises SpecError for another shape."""
    array = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    # numpy makes texts of everything in a list with one text in it, so 1 and "1" would become one group.
    if array.dtype.kind in "US" and isinstance(values, list | tuple) and len({type(one) for one in values}) > 1:
        array = np.asarray(values, object)
    if array.ndim != 1 or not len(array):
        raise SpecError(f"found {name} of shape {array.shape}, expected one entry per record.")
    return array


def _part(values: Any, kept: NDArray[np.bool_], name: str) -> Any:
    """Return the kept entries of a column, or None. What others lack does not matter."""
    if values is None:
        return None
    array = _shaped(values, name)
    if len(array) != len(kept):
        raise SpecError(
            f"found arrays of unequal length {len(kept)} and {len(array)}, expected one entry per record in each."
        )
    return array[kept]


def _known(values: ArrayLike, kept: NDArray[np.bool_], name: str, what: str = "one value") -> NDArray:
    """Return the kept entries of what has one value for each record. Raises SpecError for another shape, or masked values."""
    if np.shape(values) != kept.shape:
        raise SpecError(f"found {name} of shape {np.shape(values)}, expected {what} per record: {kept.shape}.")
    return _plain(_part(values, kept, name), name)


def _coded(values: ArrayLike, name: str, missing: bool = False) -> Codes:
    """Number the distinct values: integers and few values in sorted order, many texts as they first appear.

    missing: entries without a value get UNKNOWN; otherwise they raise SpecError.
    """
    array = _plain(values, name)
    if array.dtype.kind in "iub":
        return _integers(array, name)
    if array.dtype.kind == "f" and name in ("patients", "identities"):
        _check_float_ids(array, name)
    import pandas as pd  # hashing: sorting five million texts takes ten times as long

    # object first: pandas takes NaN, None and NaT for missing there, and str(None) would be a patient of that name.
    numbers, found = pd.factorize(array.astype(object))
    if any(isinstance(value, bytes) for value in found):
        again, found = pd.factorize(np.array([_decoded(value, name) for value in found], object))
        numbers = np.where(numbers < 0, numbers, again[numbers])
    texts = {value for value in found if _is_missing_text(value)}
    if texts and missing:
        lost = np.array([value in texts for value in found])
        number = np.where(lost, UNKNOWN, np.cumsum(~lost) - 1)
        numbers, found = np.where(numbers < 0, UNKNOWN, number[numbers]), found[~lost]
    elif not missing and (texts or (numbers < 0).any()):
        which = ", ".join(map(repr, sorted(texts))) or f"{int((numbers < 0).sum())} missing values"
        own = (
            "make them a group (unknown='group')" if name == "cohorts" else "give each unknown patient an id of its own"
        )
        raise SpecError(
            f"found {which} in {name}, expected a value in every entry. Leave these records out (`exclude=`), or {own}."
        )
    if len(found) > SORTED_TEXTS:
        return numbers.astype(np.int64), found
    # Sorted names make the numbering independent of the order of the table, and with it the order of cohorts.
    order = np.array(sorted(range(len(found)), key=lambda at: (str(found[at]), type(found[at]).__name__)), np.int64)
    places = np.append(np.argsort(order), UNKNOWN)
    return places[numbers].astype(np.int64), found[order]


def _integers(array: NDArray, name: str) -> Codes:
    low, high = int(array.min()), int(array.max())
    # Unsigned ids above this would wrap to negative ones and merge two people.
    if high >= 2**63:
        raise SpecError(f"found {high} in {name}, expected integers below 2**63, or text.")
    # Dense ids are numbered in linear time; for sparse ones the table of what is there would be too large.
    span = high - low + 1
    if span > max(DENSE_SPAN * len(array), DENSE_SPAN):
        distinct, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int64), distinct
    shifted = array.astype(np.int64, copy=False)
    shifted = shifted - low if low else shifted
    seen = np.zeros(span, bool)
    seen[shifted] = True
    # Without gaps the numbers stand for themselves, and nothing of five million entries is looked up.
    if seen.all():
        return shifted, np.arange(low, high + 1)
    return (np.cumsum(seen) - 1)[shifted], np.flatnonzero(seen) + low


def _check_float_ids(array: NDArray, name: str) -> None:
    # 16,777,216 and 16,777,217 are one number in float32: two people would become one.
    if array.dtype.itemsize < 8:
        raise SpecError(
            f"found {name} of {array.dtype}, expected integers or text: it rounds large ids. Read them anew."
        )
    if (np.abs(array) > EXACT_FLOAT).any():
        raise SpecError(f"found {name} above 2**53 in {array.dtype}, which rounds them, expected integers or text.")


def _decoded(value: Any, name: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise SpecError(f"found {value!r} in {name}, expected UTF-8. Decode the bytes first.") from None


def _excluded(exclude: ArrayLike, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the entries to leave out. exclude: their rows, or a boolean for each entry. Raises SpecError for other rows."""
    out = np.asarray(exclude)
    # A boolean is in the order of the table or the index, and rows of a store are in another.
    if out.dtype == bool and out.shape == rows.shape and not np.ma.is_masked(exclude):
        marked: NDArray[np.bool_] = out
    elif out.size and (out.dtype.kind not in "iu" or out.ndim != 1 or np.ma.is_masked(exclude)):
        raise SpecError(
            f"found exclude of {out.dtype} and shape {out.shape}, expected rows, or a boolean for each of {len(rows)} records."
        )
    elif out.dtype != bool and len(out) == len(rows) and np.isin(out, (0, 1)).all():
        raise SpecError(
            f"found exclude of {len(out)} zeros and ones for as many records, expected rows, or booleans. Convert marks with "
            ".astype(bool)."
        )
    else:
        missing = np.setdiff1d(out, rows)
        if len(missing):
            raise SpecError(
                f"found {len(missing)} rows in exclude that are not there, such as {missing[0]}. Leave them out of it."
            )
        marked = np.isin(rows, out)
    if marked.all():
        raise SpecError("found every record in exclude, expected some that are left.")
    return marked


def _classes_of(balance: ArrayLike, kept: NDArray[np.bool_]) -> tuple[NDArray[np.integer], tuple[str, ...]]:
    """Return the class of each record and the names of the classes. Raises SpecError for a record without one.

    kept: the records that can be drawn; the others get any class.
    """
    array = _known(balance, kept, "balance")
    if array.dtype.kind in "OSU":
        array = np.array([_decoded(value, "balance") for value in array.tolist()], object)
        import pandas as pd

        missing = pd.isna(array) | [_is_missing_text(value) for value in array]
    else:
        missing = np.isnan(array) if array.dtype.kind in "fmM" else []
    if np.any(missing):
        raise _NoClass(
            f"found {int(np.sum(missing))} records without a class in balance, expected one in each. Leave these records "
            "out (`exclude=`), or give them a class of their own."
        )
    codes: NDArray[np.integer]
    try:
        distinct, codes = np.unique(array, return_inverse=True)
    except TypeError:  # text and numbers have no order among each other
        codes, distinct = _coded(array, "balance")
    of_record = np.zeros(len(kept), np.int64)
    of_record[kept] = codes
    return of_record, _names_of(distinct.tolist())


def _is_missing_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() in MISSING_TEXTS


def _names_of(values: Sequence[Any], plain: Sequence[str] | None = None) -> tuple[str, ...]:
    """Name different values differently: where str() makes one text of two, as of 1 and "1", both get their repr()."""
    texts = [str(value) for value in values] if plain is None else list(plain)
    if len(set(texts)) == len(texts):
        return tuple(texts)
    twice = {text for text in texts if texts.count(text) > 1}
    texts = [repr(value) if text in twice else text for value, text in zip(values, texts, strict=True)]
    if len(set(texts)) < len(texts):
        raise SpecError(f"found different values that all read {sorted(twice)}, expected distinct names. Rename them.")
    return tuple(texts)


def _days(values: ArrayLike, name: str = "days") -> NDArray[np.float64]:
    """Return days as float64, NaN where unknown, from numbers, dates or durations of any unit.

    Raises SpecError for what is none of these: numpy would turn microseconds into numbers of days without a word.
    """
    array = _plain(values, name)
    if array.dtype.kind == "O":
        array = _dates_of_objects(array, name)
    if array.dtype.kind in "mM":
        unit = np.datetime_data(array.dtype)[0]
        if unit == "generic":
            raise SpecError(f"found {name} of {array.dtype} without a unit, expected one, such as datetime64[s].")
        # Months and years have no fixed length; numpy refuses to convert durations of them, and so do we.
        if array.dtype.kind == "m" and unit in "YM":
            raise SpecError(f"found {name} of {array.dtype}, expected days or a shorter unit.")
        micro = array.astype(f"{array.dtype.kind}8[us]")
        # numpy lets placeholders such as the year 500,000 wrap around to some other date.
        if unit in "YMWDhms" and not ((micro.astype(array.dtype) == array) | np.isnat(array)).all():
            raise SpecError(
                f"found {name} of {array.dtype} that are too far away for microseconds, expected those of people. "
                "Put NaT where a date is unknown."
            )
        days = micro.astype(np.int64) / (SECONDS_PER_DAY * 1e6)
        days[np.isnat(array)] = np.nan
        return days
    if array.dtype.kind not in "iuf":
        raise SpecError(
            f"found {name} of {array.dtype}, expected numbers of days, dates or durations. Convert with pandas.to_datetime."
        )
    days = array.astype(np.float64)
    days[np.isinf(days)] = np.nan
    return days


def _dates_of_objects(array: NDArray, name: str) -> NDArray:
    """Return numbers, or datetime64, of an array of Python objects: of pandas' nullable columns, zones, None."""
    import pandas as pd

    known = ~pd.isna(array)
    given = array[known].tolist()
    numbers = [isinstance(value, int | float | np.number) and not isinstance(value, np.timedelta64) for value in given]
    if any(isinstance(value, str | bytes) for value in given):
        raise SpecError(f"found text in {name}, expected numbers of days or dates. Convert with pandas.to_datetime.")
    try:
        if all(numbers):
            return np.where(known, array, np.nan).astype(np.float64)
        # pandas takes a number among dates for nanoseconds since 1970.
        if not any(numbers):
            if all(isinstance(value, np.timedelta64) or hasattr(value, "total_seconds") for value in given):
                return pd.to_timedelta(pd.Series(array)).to_numpy()
            # One zone for all: times of day of two zones cannot be compared otherwise.
            return pd.to_datetime(pd.Series(array), utc=True).dt.tz_localize(None).to_numpy()
    except (TypeError, ValueError, OverflowError):
        pass
    raise SpecError(f"found {name} that are neither numbers nor dates, expected one kind of them.")
