"""Millions of texts in one buffer: as objects, each would take 50 bytes beside its characters."""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def encoded(text: str) -> bytes:
    """UTF-8; what a file system gave and is no text (surrogates) comes back as it was."""
    return text.encode("utf-8", "surrogateescape")


def decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


class Texts:
    """Texts one after the other in one buffer. Empty ones before the first that is not take no room."""

    def __init__(self) -> None:
        self._data, self._ends, self._empty = bytearray(), array("q", [0]), 0

    def append(self, text: str) -> None:
        if not text and not self._data:
            self._empty += 1
            return
        self._data += encoded(text)
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return self._empty + len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        at = place - self._empty
        return "" if at < 0 else decoded(bytes(self._data[self._ends[at] : self._ends[at + 1]]))

    def column(self) -> "pa.LargeBinaryArray":
        """All of them; nothing can be added from here on."""
        import pyarrow as pa

        ends = self._ends if not self._empty else np.concatenate([np.zeros(self._empty, np.int64), self._ends])
        return pa.Array.from_buffers(pa.large_binary(), len(self), [None, pa.py_buffer(ends), pa.py_buffer(self._data)])

    def sort(self) -> tuple["SortedTexts", NDArray[np.int64]]:
        """The texts by their bytes, which for text is the order of its characters; and the places they had, equal ones
        in turn."""
        import pyarrow.compute as pc

        column = self.column()
        order = pc.sort_indices(column)
        return SortedTexts(column.take(order)), order.to_numpy().astype(np.int64)


class SortedTexts(Sequence[str]):
    """Sorted texts that can be looked up, from a column of `large_binary` that starts at its buffers' beginning."""

    def __init__(self, column: "pa.LargeBinaryArray") -> None:
        self.column = column
        _, ends, data = column.buffers()
        self._length = len(column)
        self._ends = memoryview(ends).cast("q") if self._length else memoryview(bytes(8)).cast("q")
        self._data = memoryview(b"" if data is None else data)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [decoded(self.bytes_at(at)) for at in range(*place.indices(self._length))]
        return decoded(self.bytes_at(range(self._length)[place]))

    def bytes_at(self, place: int) -> bytes:
        return bytes(self._data[self._ends[place] : self._ends[place + 1]])

    def first_twice(self) -> int | None:
        """The first place that holds the same text as the one before."""
        before = None
        for place in range(self._length):
            now = self.bytes_at(place)
            if now == before:
                return place
            before = now
        return None

    def find(self, text: str) -> int | None:
        """Its place, the first of equal ones; None if it is not among them."""
        wanted = encoded(text)
        place = self._first_not_below(wanted)
        return place if place < self._length and self.bytes_at(place) == wanted else None

    def below(self, folder: str) -> range:
        """Places of all paths below a folder, which is given with its slash; all places for an empty one."""
        if not folder:
            return range(self._length)
        prefix = encoded(folder)
        return range(self._first_not_below(prefix), self._first_not_below(prefix[:-1] + b"0"))  # 0 follows the slash

    def _first_not_below(self, wanted: bytes) -> int:
        return bisect_left(range(self._length), wanted, key=self.bytes_at)
