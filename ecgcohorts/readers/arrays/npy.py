"""Read NumPy's .npy files: one array each. Source of the layout: numpy.lib.format, versions 1 to 3.

The header is the text of a Python dict. It is matched, never evaluated; object arrays, which are pickles, do not match.
"""

import os
import re
import struct
from io import FileIO
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import open_regular, read_exactly
from ecgcohorts.readers.arrays.description import ArrayDescription

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000  # as numpy's own limit
NPY_HEAD_BYTES = 12 + MAX_HEADER_BYTES
_PAIR = re.compile(
    r"""\s*(['"])(?:descr\1\s*:\s*['"](?P<dtype>[^'"]{1,40})['"]"""
    r"""|fortran_order\1\s*:\s*(?P<order>True|False)"""
    r"""|shape\1\s*:\s*\((?P<shape>[0-9, ]*)\))\s*(?:,|(?=\}))"""
)
_NUMBERS = re.compile(r"[<>|=]?[iu][1248]|[<>=]?f[248]")
_TEXTS = re.compile(r"\|S[1-9][0-9]{0,2}|[<>]U[1-9][0-9]{0,2}")


class _Header(NamedTuple):
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def check_size(self, begin: int, size: int, path: Path) -> None:
        """Refuse a file of `size` bytes whose values, from `begin` on, are not exactly the rest."""
        # 128 bytes can claim 3.6 TiB.
        expected = begin + self.n_bytes
        if size != expected:
            reason = Reason.TRUNCATED if size < expected else Reason.HEADER
            raise _refusal(reason, f"a file of {size} bytes", f"{expected}, by its header", path)

    def array(self, data: bytes | memoryview) -> NDArray:
        """Return the values that these bytes are."""
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran_order else "C")


class _NpyArray(NamedTuple):
    """The array of a .npy file."""

    path: Path
    description: ArrayDescription
    name: str | None

    def shape(self) -> tuple[int, ...]:
        """Return the shape that the header declares, after comparing it with the size of the file."""
        with open_regular(self.path) as file:
            header, _ = self._checked(file)
        return header.shape

    def load(self, record: int | None) -> NDArray:
        """Return the array as stored, or one record. Memory is taken only after its size was found to be in the file."""
        with open_regular(self.path) as file:
            header, begin = self._checked(file)
            if record is None:
                file.seek(begin)
                return header.array(read_exactly(file, header.n_bytes, self.path))
            one = _Header(header.dtype, False, header.shape[1:])
            file.seek(begin + record * one.n_bytes)
            return one.array(read_exactly(file, one.n_bytes, self.path))

    @staticmethod
    def parse(start: bytes, path: Path, texts: bool = False) -> tuple["_Header", int]:
        """Parse the header of an array, and say where its values begin. texts: these are values, too.

        Compare the shape with what is expected, and `check_size`, before memory is taken. Raises UnreadableRecording.
        """
        if not start.startswith(MAGIC):
            raise _refusal(Reason.FORMAT, "no NumPy signature", "a file that numpy.save wrote", path)
        version = start[6:8]
        if version not in (b"\1\0", b"\2\0", b"\3\0"):
            raise _refusal(Reason.UNSUPPORTED, "another version of .npy", "versions 1 to 3", path)
        length_format, begin = ("<H", 10) if version == b"\1\0" else ("<I", 12)
        if len(start) < begin:
            raise _refusal(Reason.TRUNCATED, f"{len(start)} bytes", "a header", path)
        (length,) = struct.unpack(length_format, start[8:begin])
        if length > MAX_HEADER_BYTES:
            raise _refusal(Reason.LIMIT, f"a header of {length} bytes", f"at most {MAX_HEADER_BYTES}", path)
        if len(start) < begin + length:
            raise _refusal(Reason.TRUNCATED, f"{len(start)} bytes", f"{begin + length} of header", path)
        header = _parse(start[begin : begin + length], path, texts)
        return header, begin + length

    def _checked(self, file: FileIO) -> tuple["_Header", int]:
        header, begin = self.parse(file.read(NPY_HEAD_BYTES), self.path)
        self.description.check_shape(header.shape, str(self.path))
        header.check_size(begin, os.fstat(file.fileno()).st_size, self.path)
        # Each record would be read from thousands of places.
        if self.description.has_records and header.fortran_order:
            raise _refusal(Reason.UNSUPPORTED, "records in Fortran order, each scattered", "C order", self.path)
        return header, begin


def _parse(raw: bytes, path: Path, texts: bool) -> _Header:
    text = raw.decode("latin-1").strip()
    found: dict[str, str] = {}
    place = 1
    while text.startswith("{") and (pair := _PAIR.match(text, place)):
        new = {key: value for key, value in pair.groupdict().items() if value is not None}
        if new.keys() & found.keys():
            break
        found |= new
        place = pair.end()
    if text[place:].strip() != "}" or len(found) != 3:
        raise _refusal(Reason.HEADER, "a header of another form", "one plain array: descr, fortran_order, shape", path)
    sizes = [size.strip() for size in found["shape"].split(",")]
    if not sizes[-1]:
        sizes.pop()
    if not all(size.isdecimal() and len(size) <= 18 for size in sizes):
        raise _refusal(Reason.HEADER, "an unreadable shape", "(rows, columns)", path)
    # `O` is not among them: numpy would unpickle such an array.
    if not _NUMBERS.fullmatch(found["dtype"]) and not (texts and _TEXTS.fullmatch(found["dtype"])):
        raise _refusal(Reason.UNSUPPORTED, "values that are not numbers", "integers or floats", path)
    return _Header(np.dtype(found["dtype"]), found["order"] == "True", tuple(int(size) for size in sizes))


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    return UnreadableRecording(reason, found, expected, "Save it again with numpy.save.", str(path))
