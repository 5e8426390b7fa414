"""The records of a data file: what their entries are called, and what the file says about each beside its samples."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import size_of
from ecgcohorts.readers.arrays import hdf5, matlab, npy, npz, text
from ecgcohorts.readers.arrays.description import MAX_ID, ArrayDescription

_Array = text._TextArray | npy._NpyArray | npz._NpzArray | hdf5._Hdf5Array | matlab._MatlabArray
_KINDS: dict[str, Callable[[Path, ArrayDescription, str | None], _Array]] = {
    "csv": text._TextArray,
    "npy": npy._NpyArray,
    "npz": npz._NpzArray,
    "hdf5": hdf5._Hdf5Array,
    "matlab": matlab._MatlabArray,
}


class Records(NamedTuple):
    """The records of one file, in its order."""

    entries: tuple[str, ...]  # ids, or numbers from 0
    places: dict[str, int]  # entry -> number; -1 for an id that stands twice
    samples: int  # of the array, padding included
    scale: NDArray[np.float64] | None  # (record, lead or 1)
    lengths: NDArray[np.int64] | None  # (record,)

    @staticmethod
    def of(path: Path, description: ArrayDescription) -> "Records":
        """Read them. They are kept until the file changes, since ingest asks for one recording at a time.

        Raises UnreadableRecording.
        """
        return _records(path.absolute(), size_of(path), description)

    @staticmethod
    def length(path: Path, description: ArrayDescription) -> int:
        """Return the samples per lead that a file of one recording declares. Raises UnreadableRecording."""
        shape = _array_of(path, description, description.names[0]).shape()
        return description.check_shape(shape, str(path))

    @staticmethod
    def stored(path: Path, description: ArrayDescription, record: int | None) -> NDArray:
        """Return the samples of a recording as (lead, time), in the type of the file. Raises UnreadableRecording."""
        arrays = [description.arranged(_array_of(path, description, name).load(record)) for name in description.names]
        if isinstance(description.name, str) or description.name is None:
            return arrays[0]
        if len({array.shape for array in arrays}) > 1 or len({array.dtype for array in arrays}) > 1:
            raise _refusal(Reason.LEADS, "leads of unequal length or type", "equal ones", path)
        return np.stack(arrays)


def _array_of(path: Path, description: ArrayDescription, name: str | None) -> _Array:
    """Return one array of a file, unread."""
    return _KINDS[description.kind](path, description, name)


@lru_cache(maxsize=8)
def _records(path: Path, _size_and_time: tuple[int, int], description: ArrayDescription) -> Records:
    shapes = {_array_of(path, description, name).shape() for name in description.names}
    if len(shapes) > 1:
        raise _refusal(Reason.LEADS, "leads of unequal length, or numbers of records", "equal ones", path)
    (shape,) = shapes
    count, longest = shape[0], description.check_shape(shape, str(path))
    entries = tuple(map(str, range(count)))
    if description.ids is not None:
        entries = _ids(_side(path, description, description.ids, count, 1), path)
    # Of two equal ids neither is found: which of the two a table means, nobody can say.
    places = {entry: number for number, entry in enumerate(entries)}
    if len(places) < count:
        places |= dict.fromkeys((entry for entry, times in Counter(entries).items() if times > 1), -1)
    scale = lengths = None
    if description.scale is not None:
        factors = _side(path, description, description.scale, count, len(description.leads))
        if factors.dtype.kind not in "iuf" or not (np.isfinite(factors) & (factors != 0)).all():
            raise _refusal(Reason.UNIT, "a scale that is no number, or 0", "units per step", path)
        scale = factors.astype(np.float64).reshape(count, -1)
    if description.lengths is not None:
        found = _side(path, description, description.lengths, count, 1)
        if found.dtype.kind not in "iu" or found.min() < 0 or found.max() > longest:
            raise _refusal(Reason.HEADER, "a length that no record can have", f"0 to {longest} samples", path)
        lengths = found.astype(np.int64).reshape(count)
    return Records(entries, places, longest, scale, lengths)


def _side(path: Path, description: ArrayDescription, name: str, count: int, width: int) -> NDArray:
    """Return an array of one value a record, or of `width` values."""
    array = _array_of(path, description, name)
    assert isinstance(array, npz._NpzArray | hdf5._Hdf5Array)
    values = array.side()
    if values.shape not in ((count,), (count, 1), (count, width)):
        raise _refusal(Reason.HEADER, f"{name!r:.40} of shape {values.shape}", f"({count},), one a record", path)
    return values


def _ids(values: NDArray, path: Path) -> tuple[str, ...]:
    if values.dtype.kind not in "iuSU":
        raise _refusal(Reason.HEADER, f"ids of type {values.dtype!s:.40}", "integers or texts", path)
    texts = values.reshape(-1).tolist()
    if values.dtype.kind == "S":
        texts = [text.decode("utf-8", "replace") for text in texts]
    ids = tuple(str(text).strip() for text in texts)
    # An entry of a manifest is `file#id`.
    if any(not each or len(each) > MAX_ID or not each.isprintable() or "#" in each for each in ids):
        raise _refusal(Reason.HEADER, "an id that is empty, long, or holds #", f"1 to {MAX_ID} characters", path)
    return ids


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    return UnreadableRecording(reason, found, expected, "See arrays in docs/formats.md.", str(path))
