"""Columns of pseudonyms: as Arrow holds them, as arrays, and as keys to sort and look up."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES

_AT_ONCE = 1 << 16  # ids
PSEUDONYM = pa.binary(PSEUDONYM_BYTES)  # type of a column of pseudonyms


def ids_of(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return a column of pseudonyms as (row, 16) uint8."""
    # From the buffers: `to_pylist` would make 50 bytes of Python object out of each 16.
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * PSEUDONYM_BYTES :][: len(chunk) * PSEUDONYM_BYTES]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *parts]).reshape(-1, PSEUDONYM_BYTES)


def as_keys(ids: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Return (row, 16) uint8 as (row,) fixed-width bytes, to sort and look up. Keys are equal where all 16 bytes are."""
    # numpy drops trailing zero bytes when it compares, but all keys have one width, so no two ids become equal.
    return np.ascontiguousarray(ids).reshape(-1, PSEUDONYM_BYTES).view(f"S{PSEUDONYM_BYTES}").ravel()


def _places_of(ids: NDArray[np.uint8], among: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where each id stands among others, (id, 16) uint8; -1 for one that does not."""
    keys, wanted = as_keys(among), as_keys(ids)
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    found = np.empty(len(wanted), np.int64)
    for start in range(0, len(wanted), _AT_ONCE):  # keys of all places would be a copy of all ids
        some = wanted[start : start + _AT_ONCE]
        place = order[np.minimum(np.searchsorted(keys, some, sorter=order), len(order) - 1)]
        found[start : start + _AT_ONCE] = np.where(keys[place] == some, place, -1)
    return found
