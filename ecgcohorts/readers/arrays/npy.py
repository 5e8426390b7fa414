"""Read NumPy's .npy files: one array each. Source of the layout: numpy.lib.format, versions 1 to 3.

The header is the text of a Python dict. It is matched, never evaluated; object arrays, which are pickles, do not match.
"""

import os
import re
import struct
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import open_regular, read_exactly
from ecgcohorts.readers.arrays.description import ArrayDescription

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000  # as numpy's own limit
_PAIR = re.compile(
    r"""\s*(['"])(?:descr\1\s*:\s*['"](?P<dtype>[^'"]{1,40})['"]"""
    r"""|fortran_order\1\s*:\s*(?P<order>True|False)"""
    r"""|shape\1\s*:\s*\((?P<shape>[0-9, ]*)\))\s*(?:,|(?=\}))"""
)
_NUMBERS = re.compile(r"[<>|=]?[iu][1248]|[<>=]?f[248]")


class _Header(NamedTuple):
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]


class NpyArray(NamedTuple):
    """The array of a .npy file."""

    path: Path
    description: ArrayDescription

    def shape(self) -> tuple[int, ...]:
        """Return the shape that the header declares, after comparing it with the size of the file."""
        with open_regular(self.path) as file:
            return _checked_header(file, self.path, self.description).shape

    def load(self) -> NDArray:
        """Return the array as stored. Memory is taken only after its size was found to be that of the file."""
        with open_regular(self.path) as file:
            header = _checked_header(file, self.path, self.description)
            data = read_exactly(file, _size(header), self.path)
        return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran_order else "C")


def _checked_header(file: FileIO, path: Path, description: ArrayDescription) -> _Header:
    start = file.read(12)
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
    file.seek(begin)
    header = _parse(read_exactly(file, length, path), path)
    description.check_shape(header.shape, str(path))
    # 128 bytes can claim 3.6 TiB, so the size is compared before memory is taken.
    expected, found = begin + length + _size(header), os.fstat(file.fileno()).st_size
    if found != expected:
        reason = Reason.TRUNCATED if found < expected else Reason.HEADER
        raise _refusal(reason, f"a file of {found} bytes", f"{expected}, by its header", path)
    return header


def _size(header: _Header) -> int:
    return header.shape[0] * header.shape[1] * header.dtype.itemsize


def _parse(raw: bytes, path: Path) -> _Header:
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
    if not _NUMBERS.fullmatch(found["dtype"]):
        raise _refusal(Reason.UNSUPPORTED, "values that are not numbers", "integers or floats", path)
    return _Header(np.dtype(found["dtype"]), found["order"] == "True", tuple(int(size) for size in sizes))


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    return UnreadableRecording(reason, found, expected, "Save it again with numpy.save.", str(path))
