"""Read one variable of a MATLAB file of versions 4 to 7, or one field of a structure, as an array.

Version 7.3 is HDF5: the kind `hdf5` reads it. Only the head of each variable is unpacked at first: it gives name, type
and size. Source: MathWorks' "MAT-File
Format" (2025).
"""

# Why not scipy.io.loadmat, which runs in the isolated process as well: it lists a million empty variables (22 MB) in
# 26 s of processor time where MAX_VARIABLES ends the search at once; it takes the first of two variables of one name;
# and it returns a variable of a file that is cut off behind it.

import os
import struct
import zlib
from collections.abc import Iterator
from io import FileIO
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import open_regular, read_exactly
from ecgcohorts.readers.arrays.description import ArrayDescription

MAX_EXPANSION = 200  # as for archives
FREE_BYTES = 1 << 20  # our default: that much may unpack from anything, such as an ECG of zeros
HEADER_5 = 128
HEAD_BYTES = 2048  # of a variable, packed or not: its flags, axes and name, which has at most 63 characters
MAX_VARIABLES = 4096  # our default
MAX_STRUCTURE_BYTES = 256 << 20  # unpacked whole to find a field; our default: four hours of eight leads at 500 Hz
MAX_FIELDS = 1024  # of one structure; our default
_MATRIX, _COMPRESSED = 14, 15
_STRUCTURE = 2  # class
# Data types of version 5 elements, and of the `P` digit of version 4.
_TYPES_5 = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TYPES_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
# Classes of version 5 arrays. A double of whole numbers may be stored as bytes; the class says what it is.
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX, _LOGICAL = 0x0800, 0x0200


class _Variable(NamedTuple):
    """Where the samples of a variable lie, and what they are."""

    name: bytes
    shape: tuple[int, ...]
    stored: np.dtype | None  # None: no plain numbers
    result: np.dtype | None
    begin: int  # of its bytes in the file
    size: int  # of them
    unpacked: int  # bytes, if compressed; else 0
    skip: int  # of these bytes (unpacked, if compressed) to the samples
    end: int  # of the element with the samples, counted alike
    inside: int = 0  # where the fields of a structure begin, counted alike; 0 for any other class


class _MatlabArray(NamedTuple):
    """One variable of a MATLAB file."""

    path: Path
    description: ArrayDescription
    name: str | None

    def shape(self) -> tuple[int, ...]:
        """Return the shape that the variable declares, after comparing it with the size of the file."""
        with open_regular(self.path) as file:
            return _find(file, self, self.path).shape

    def load(self, record: int | None) -> NDArray:
        """Return the variable in MATLAB's rows and columns, of the type that MATLAB shows. It holds one record."""
        with open_regular(self.path) as file:
            variable = _find(file, self, self.path)
            data = _content(file, variable, self.path)
        values = np.frombuffer(data, variable.stored, prod(variable.shape), variable.skip)
        return values.astype(variable.result, copy=False).reshape(variable.shape, order="F")


def _find(file: FileIO, wanted: _MatlabArray, path: Path) -> _Variable:
    """Find the variable of the description, after checking that every variable lies in the file as a whole.

    A dot leads into a structure: `ECG.data`. No name in MATLAB holds one.
    """
    assert wanted.name is not None
    name, *fields = wanted.name.split(".")
    size = os.fstat(file.fileno()).st_size
    start = file.read(HEADER_5)
    if start[:10] == b"MATLAB 7.3" or start[:8] == b"\x89HDF\r\n\x1a\n":
        raise _refusal(Reason.UNSUPPORTED, "a file of MATLAB 7.3", "kind: hdf5, which reads it", path)
    if len(start) < 20:
        raise _refusal(Reason.TRUNCATED, f"{len(start)} bytes", "a MATLAB file", path)
    # Version 5 begins with text, version 4 with a small number, of which one byte at least is 0.
    is_5 = 0 not in start[:4]
    order = "<" if start[126:128] == b"IM" else ">"
    found = None
    variables = _variables_5(file, start, size, path) if is_5 else _variables_4(file, start, size, path)
    for count, variable in enumerate(variables):
        if count == MAX_VARIABLES:
            raise _refusal(Reason.LIMIT, f"more than {MAX_VARIABLES} variables", "fewer", path)
        if variable.name == name.encode():
            if found is not None:
                raise _refusal(Reason.HEADER, "the variable twice", "once", path)
            found = variable
    if found is None:
        raise _refusal(Reason.FORMAT, f"no variable {name!r:.80}", "a variable of that name", path)
    if fields:
        found = _field(file, found, fields, order, path)
    if found.inside:
        raise _refusal(Reason.FORMAT, "a structure", f"the name of its field: {wanted.name:.80}.data", path)
    if found.stored is None or found.result is None:
        raise _refusal(
            Reason.UNSUPPORTED, "a variable that is not a plain array of numbers", "a real, full matrix", path
        )
    wanted.description.check_shape(found.shape, str(path))
    size = found.unpacked or found.size
    needed = found.skip + prod(found.shape) * found.stored.itemsize
    if not needed <= found.end < needed + 8:  # elements are padded to 8 bytes
        raise _refusal(Reason.HEADER, f"{found.end} bytes", f"{needed} for its shape", path)
    if found.size > 2 * size + HEAD_BYTES:
        raise _refusal(Reason.HEADER, f"{size} bytes packed to {found.size}", "fewer", path)
    return found


def _field(file: FileIO, structure: _Variable, fields: list[str], order: str, path: Path) -> _Variable:
    """Find a field of a structure, or of a structure in it. Every field must lie inside as a whole."""
    # In a file of version 4, or where the variable is no structure, `inside` is 0.
    if max(structure.size, structure.unpacked) > MAX_STRUCTURE_BYTES:
        raise _refusal(Reason.LIMIT, "a structure of that size", f"at most {MAX_STRUCTURE_BYTES} bytes", path)
    # Compression allows no access in place, and a field of 1 x 1 may stand behind the samples.
    data = _content(file, structure, path) if structure.inside else b""
    found = structure
    for field in fields:
        if not found.inside:
            raise _refusal(Reason.FORMAT, "a dot after what is no structure of 1 x 1", "the field of one", path)
        try:
            fitting = [inner for name, inner in _fields(data, found, order) if name == field.encode()]
        except struct.error:
            raise _refusal(Reason.HEADER, "a damaged structure", "fields inside their structure", path) from None
        if len(fitting) != 1:
            raise _refusal(Reason.FORMAT, f"{len(fitting)} fields {field!r:.80}", "one field of that name", path)
        found = fitting[0]
    return found


def _fields(data: bytes, structure: _Variable, order: str) -> Iterator[tuple[bytes, _Variable]]:
    """Yield the fields of a structure by name. Raises struct.error where they do not fit into it."""
    _, length, place = _element(data, order, structure.inside)
    _, names, place = _element(data, order, place)
    (width,) = struct.unpack(f"{order}i", length)
    if not 0 < width <= HEAD_BYTES or len(names) % width or len(names) // width > MAX_FIELDS:
        raise struct.error
    for start in range(0, len(names), width):
        kind, n_bytes, begin = _tag(data, order, place)
        place = begin + n_bytes
        if kind != _MATRIX or place > structure.end:
            raise struct.error
        # Ever further, since an element of no bytes is an empty matrix, and its tag still takes eight.
        inner = _variable_5(data[begin : begin + min(n_bytes, HEAD_BYTES)], order, 0, n_bytes)
        moved = inner._replace(begin=structure.begin, size=structure.size, unpacked=structure.unpacked)
        inside = begin + inner.inside if inner.inside else 0
        yield (
            names[start : start + width].split(b"\0")[0],
            moved._replace(skip=begin + inner.skip, end=place, inside=inside),
        )


def _content(file: FileIO, variable: _Variable, path: Path) -> bytes:
    """Return all bytes of a variable, unpacked."""
    file.seek(variable.begin)
    data = read_exactly(file, variable.size, path)
    return _unpacked(data, variable.unpacked, path) if variable.unpacked else data


def _variables_4(file: FileIO, start: bytes, size: int, path: Path) -> Iterator[_Variable]:
    order = "<" if struct.unpack("<i", start[:4])[0] in range(5000) else ">"
    place = 0
    while place < size:
        file.seek(place)
        mopt, rows, columns, imaginary, name_bytes = struct.unpack(f"{order}5i", read_exactly(file, 20, path))
        machine, spare, number, kind = (mopt // 10**power % 10 for power in (3, 2, 1, 0))
        if not (0 <= mopt < 5000 and machine == (order == ">") and spare == 0 and number < 6 and kind < 3):
            raise _refusal(Reason.FORMAT, "no MATLAB header", "a file of MATLAB 4 to 7", path)
        if min(rows, columns) < 0 or imaginary not in (0, 1) or not 0 < name_bytes <= HEAD_BYTES:
            raise _refusal(Reason.HEADER, "a header out of range", "sizes and a name", path)
        name = read_exactly(file, name_bytes, path).rstrip(b"\0")
        stored = np.dtype(order + _TYPES_4[number])
        begin, place = place + 20 + name_bytes, place + 20 + name_bytes
        n_bytes = rows * columns * stored.itemsize * (1 + imaginary)
        place += n_bytes
        _check_end(place, size, path)
        plain = stored if kind == 0 and not imaginary else None
        yield _Variable(name, (rows, columns), plain, stored.newbyteorder("="), begin, n_bytes, 0, 0, n_bytes)


def _variables_5(file: FileIO, start: bytes, size: int, path: Path) -> Iterator[_Variable]:
    if len(start) < HEADER_5 or start[126:128] not in (b"IM", b"MI"):
        raise _refusal(Reason.FORMAT, "no MATLAB header", "a file of MATLAB 4 to 7", path)
    order = "<" if start[126:128] == b"IM" else ">"
    (version,) = struct.unpack(f"{order}H", start[124:126])
    if version != 0x0100:
        raise _refusal(Reason.UNSUPPORTED, f"version {version:#x}", "0x100 (MATLAB 5 to 7)", path)
    place = HEADER_5
    while place < size:
        file.seek(place)
        kind, n_bytes = struct.unpack(f"{order}2I", read_exactly(file, 8, path))
        begin, place = place + 8, place + 8 + n_bytes
        if kind not in (_MATRIX, _COMPRESSED):
            raise _refusal(Reason.HEADER, f"an element of type {kind}", "arrays", path)
        _check_end(place, size, path)
        if kind == _MATRIX:
            yield _variable_5(read_exactly(file, min(n_bytes, HEAD_BYTES), path), order, begin, n_bytes)
            continue
        packed = read_exactly(file, min(n_bytes, HEAD_BYTES), path)
        try:
            head = zlib.decompressobj().decompress(packed, HEAD_BYTES)
        except zlib.error as error:
            raise _damaged(error, path) from None
        if len(head) < 8:
            raise _refusal(Reason.HEADER, "a compressed element of nothing", "an array", path)
        kind, unpacked = struct.unpack(f"{order}2I", head[:8])
        if unpacked + 8 > max(MAX_EXPANSION * n_bytes, FREE_BYTES):
            raise _refusal(Reason.LIMIT, f"{unpacked} bytes in {n_bytes}", f"at most {MAX_EXPANSION} times", path)
        inner = _variable_5(head[8:] if kind == _MATRIX else b"", order, begin, n_bytes)
        inside = inner.inside + 8 if inner.inside else 0
        yield inner._replace(unpacked=unpacked + 8, skip=inner.skip + 8, end=unpacked + 8, inside=inside)


def _variable_5(head: bytes, order: str, begin: int, size: int) -> _Variable:
    """Parse the first bytes of an array. If its head does not fit into them, it is not a plain matrix of two axes."""
    other = _Variable(b"", (), None, None, begin, size, 0, 0, size)
    try:
        flags_type, flags_bytes, flags = struct.unpack_from(f"{order}3I", head)
        _, axes, place = _element(head, order, 16)
        _, name, place = _element(head, order, place)
        if flags_type != 6 or flags_bytes != 8:
            return other
        shape = struct.unpack(f"{order}{len(axes) // 4}i", axes)
        if flags & 0xFF == _STRUCTURE:
            return other._replace(name=name, inside=place if prod(shape) == 1 else 0)
        stored_type, n_bytes, skip = _tag(head, order, place)
    except struct.error:
        return other
    stored, result = _TYPES_5.get(stored_type), _CLASSES.get(flags & 0xFF)
    if flags & (_COMPLEX | _LOGICAL) or stored is None or result is None or min(shape, default=-1) < 0:
        return other._replace(name=name)
    dtype, kind = np.dtype(order + stored), np.dtype(result)
    # MATLAB stores a double of whole numbers as bytes. Only a cast that could lose something is refused.
    if kind.kind != "f" and not np.can_cast(dtype, kind):
        return other._replace(name=name)
    if prod(shape) * dtype.itemsize != n_bytes:
        return other._replace(name=name)
    return other._replace(name=name, shape=shape, stored=dtype, result=kind, skip=skip)


def _element(head: bytes, order: str, place: int) -> tuple[int, bytes, int]:
    """Return type and bytes of a sub-element, and where the next one begins. Raises struct.error at the end."""
    kind, n_bytes, begin = _tag(head, order, place)
    (data,) = struct.unpack_from(f"{n_bytes}s", head, begin)
    end = begin + n_bytes
    return kind, data, end + (-end % 8)


def _tag(head: bytes, order: str, place: int) -> tuple[int, int, int]:
    """Return type, size and place of the data. Four bytes or fewer stand in the tag itself."""
    kind, n_bytes = struct.unpack_from(f"{order}2I", head, place)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, place + 4
    return kind, n_bytes, place + 8


def _unpacked(data: bytes, size: int, path: Path) -> bytes:
    """Unpack exactly `size` bytes from the whole of `data`; zlib verifies its own checksum."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise _damaged(error, path) from None
    if len(found) != size or not stream.eof or stream.unused_data:
        raise _refusal(Reason.HEADER, "a compressed variable of another size", f"{size} bytes", path)
    return found


def _damaged(error: zlib.error, path: Path) -> UnreadableRecording:
    reason = Reason.CHECKSUM if "data check" in str(error) else Reason.HEADER
    return _refusal(reason, "damaged compression", "a whole file", path)


def _check_end(end: int, size: int, path: Path) -> None:
    if end > size:
        raise _refusal(Reason.TRUNCATED, f"a file of {size} bytes", f"{end}, by its header", path)


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    return UnreadableRecording(reason, found, expected, "Save it again, as version 7 or as HDF5.", str(path))
