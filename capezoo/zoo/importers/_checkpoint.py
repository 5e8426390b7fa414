"""Tensors of a file that others made: torch's two formats and safetensors, read without running anything in them.

Sizes are held against the file before memory is taken, links and pipes are refused, and only the tensors that are wanted
are read: optimiser, configuration and callbacks of a checkpoint stay where they are.
"""

import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from capezoo.specs.base import read_json
from capezoo.zoo.importers._pickled import Made, Name, read_pickle
from ecgcohorts.errors import SourceError, SpecError, UnreadableRecording
from ecgcohorts.io.regular import open_regular, size_of

# Bytes of a file; the largest public ECG encoder, with its optimiser, has 1.1 GB.
_FILE_LIMIT = 8 << 30
# Bytes of a pickle without its numbers, or of a header; one of a thousand tensors has some 100 kB.
_TEXT_LIMIT = 32 << 20
# Bytes of an archive's directory: 60 an entry. The library reads it whole before it tells how many there are.
_DIRECTORY_LIMIT = 4 << 20
_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # the number that torch's old format begins with, pickled
_TYPES = {
    **{"DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}
# What the libraries and this module raise when they meet something they do not expect.
_OF_DAMAGE = (
    *(ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, struct.error, SpecError),
    *(zipfile.BadZipFile, NotImplementedError),
)
_SAFE_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64},
    **{"I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool},
}


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that tensors are views of."""

    key: str
    type: torch.dtype
    count: int


@dataclass(frozen=True)
class _Lying:
    """A tensor that still lies in its file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, numbers: Tensor) -> Tensor:
        """Return the tensor, from the numbers of its storage. Raises ValueError for a view beyond its storage."""
        count, steps = prod(self.shape), zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((side - 1) * stride for side, stride in steps) if count else -1
        # A stride of 0 repeats numbers: a small file could ask for terabytes.
        if min((self.offset, *self.shape, *self.strides)) < 0 or max(count, last + 1) > len(numbers):
            raise ValueError(f"a tensor {self.shape!r:.80} of {len(numbers)} numbers")
        return numbers.as_strided(self.shape, self.strides, self.offset).clone(memory_format=torch.contiguous_format)


def read_tensors(
    path: Path, inside: tuple[str, ...], wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, as they are stored.

    inside: keys that lead to them, such as ("state_dict",), of a checkpoint that holds more. wanted: which names to read.
    Raises SourceError for a file that is none of the formats, is damaged, or has no such keys.
    """
    try:
        size = size_of(path)[0]
        if size > _FILE_LIMIT:
            raise ValueError(f"{size} bytes, more than {_FILE_LIMIT}")
        with open_regular(path) as raw, _opened(raw, size) as (tree, numbers_of):
            lying = _named(path, tree, inside)
            chosen = {name: tensor for name, tensor in lying.items() if wanted(name)}
            # Tied weights may count twice. More would be one run of numbers asked for under many names.
            if sum(tensor.storage.count * tensor.storage.type.itemsize for tensor in set(chosen.values())) > 2 * size:
                raise ValueError("tensors that take more than the file has")
            return {name: tensor.of(numbers_of(tensor.storage)) for name, tensor in chosen.items()}
    except UnreadableRecording as error:
        raise SourceError(str(error)) from None
    except _OF_DAMAGE as error:
        cut = isinstance(error, zipfile.BadZipFile | struct.error | EOFError)
        told = "a file that is damaged or cut off" if cut else " ".join(str(error).split())
        raise SourceError(
            f"{path}: found {told:.200}, expected weights: a checkpoint of torch, or safetensors. "
            "Download it again, and look at its size: a web page may have been saved in its place."
        ) from None


@contextmanager
def _opened(raw: FileIO, size: int) -> Iterator[tuple[Any, Callable[[_Storage], Tensor]]]:
    """Yield what a file holds, with `_Lying` in the place of tensors, and a function that reads a storage."""
    file: BufferedReader[Any] = BufferedReader(raw)
    try:
        yield from _of_file(file, size)
    finally:
        file.detach()  # or it would close what its opener closes


def _of_file(file: "BufferedReader[Any]", size: int) -> Iterator[tuple[Any, Callable[[_Storage], Tensor]]]:
    head = file.peek(32)[:32]
    if head.startswith(b"PK\3\4"):
        with _archive(file, size) as archive:
            yield _of_archive(archive)
    elif _MAGIC in head:
        yield _of_old_format(file, size)
    elif len(head) > 16 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8:
        yield _of_safetensors(file, size)
    else:
        raise ValueError(f"a file that begins with {head[:16]!r}")


@contextmanager
def _archive(file: "BufferedReader[Any]", size: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose directory has a sane length, as the last bytes of the file tell it."""
    file.seek(max(0, size - 22))
    end = file.read(22)
    # A comment could stand behind this record; torch writes none, and looking for it would read what is no archive.
    if not end.startswith(b"PK\5\6"):
        raise zipfile.BadZipFile
    (length,) = struct.unpack("<I", end[12:16])
    if length == 0xFFFFFFFF:  # told in the longer record of an archive over 4 GiB
        file.seek(max(0, size - 22 - 20 - 56))
        (length,) = struct.unpack("<Q", file.read(56)[40:48])
    if length > _DIRECTORY_LIMIT:
        raise ValueError(f"an archive with a directory of {length} bytes")
    with zipfile.ZipFile(file) as archive:
        yield archive


def _of_archive(archive: zipfile.ZipFile) -> tuple[Any, Callable[[_Storage], Tensor]]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    # An archive of another program may hold several, and none is more right than the others.
    if len(pickles) != 1:
        raise ValueError(f"an archive with {len(pickles)} pickles")
    root = pickles[0].removesuffix("data.pkl")

    def read(name: str, most: int) -> bytes:
        entry = entries[name]
        # Stored, not compressed, as torch writes them: an entry cannot grow beyond the file.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError("an archive that is compressed")
        if entry.file_size > most:
            raise ValueError(f"{name:.80} of {entry.file_size} bytes")
        return archive.read(entry)

    order = read(f"{root}byteorder", 16) if f"{root}byteorder" in entries else b"little"
    if order != b"little":
        raise ValueError(f"numbers in {order!r} order")

    def numbers_of(storage: _Storage) -> Tensor:
        return _numbers(read(f"{root}data/{storage.key}", _FILE_LIMIT), storage)

    tree = read_pickle(BytesIO(read(pickles[0], _TEXT_LIMIT)), _made, _storage)
    return tree, numbers_of


def _of_old_format(file: "BufferedReader[Any]", size: int) -> tuple[Any, Callable[[_Storage], Tensor]]:
    """Torch's format before 1.6: magic number, version, system, object, names of storages; then their numbers."""
    bounded = cast(IO[bytes], _Bounded(file, min(size, _TEXT_LIMIT)))
    types: dict[str, _Storage] = {}

    def remember(what: Any) -> _Storage:
        storage = _storage(what)
        return types.setdefault(storage.key, storage)

    for _ in range(3):
        read_pickle(bounded, _made)
    tree = read_pickle(bounded, _made, remember)
    keys = read_pickle(bounded, _made)
    places: dict[str, int] = {}
    for key in keys:
        # The format says the count twice; a file that says two has been made by hand.
        (count,) = struct.unpack("<q", file.read(8))
        if count != types[key].count:
            raise ValueError(f"a storage of {count} numbers, where {types[key].count} are announced")
        places[key] = file.tell()
        file.seek(places[key] + count * types[key].type.itemsize)

    def numbers_of(storage: _Storage) -> Tensor:
        file.seek(places[storage.key])
        return _numbers(file.read(storage.count * storage.type.itemsize), storage)

    return tree, numbers_of


def _of_safetensors(file: "BufferedReader[Any]", size: int) -> tuple[Any, Callable[[_Storage], Tensor]]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _TEXT_LIMIT:
        raise ValueError(f"a header of {length} bytes")
    values = read_json(file.read(length), "header", _TEXT_LIMIT)
    # Text of any kind, which nobody here needs.
    values.pop("__metadata__", None)
    tree: dict[str, _Lying] = {}
    for name, entry in values.items():
        (start, stop), shape, kind = entry["data_offsets"], tuple(entry["shape"]), _SAFE_TYPES[entry["dtype"]]
        if not all(isinstance(side, int) for side in (start, stop, *shape)) or not 0 <= start <= stop <= size:
            raise ValueError(f"a tensor outside its file: {name:.80}")
        strides = tuple(prod(shape[place + 1 :]) for place in range(len(shape)))
        tree[name] = _Lying(_Storage(str(start), kind, (stop - start) // kind.itemsize), 0, shape, strides)

    def numbers_of(storage: _Storage) -> Tensor:
        file.seek(8 + length + int(storage.key))
        return _numbers(file.read(storage.count * storage.type.itemsize), storage)

    return tree, numbers_of


class _Bounded:
    """A file of which pickles may take so many bytes and no more."""

    def __init__(self, file: "BufferedReader[Any]", left: int) -> None:
        self.file, self.left = file, left

    def _count(self, data: bytes) -> bytes:
        self.left -= len(data)
        if not data or self.left <= 0:
            raise EOFError
        return data

    def read(self, count: int) -> bytes:
        return self._count(self.file.read(min(count, self.left)))

    def readline(self) -> bytes:
        return self._count(self.file.readline(self.left))

    def tell(self) -> int:
        return self.file.tell()


def _made(what: Name, arguments: tuple[Any, ...]) -> Any:
    """Rebuild tensors, dictionaries and shapes. Whatever else a pickle calls becomes an inert object."""
    if what == Name("collections", "OrderedDict"):
        return dict(pair for pair in arguments[0] if isinstance(pair[0], str)) if arguments else {}
    if what == Name("torch", "Size"):
        return arguments[0]
    if what.module != "torch._utils":
        return Made(what)
    # A parameter is its tensor and a flag, and of a tensor here only the numbers matter.
    if what.name.startswith("_rebuild_parameter"):
        return arguments[0]
    if what.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        storage, offset, shape, strides = arguments[:4]
        whole = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(isinstance(one, int) for one in whole) or len(shape) > 8:
            raise ValueError("a tensor of something other than numbers")
        return _Lying(storage, offset, tuple(shape), tuple(strides))
    return Made(what)


def _storage(what: Any) -> _Storage:
    """Return the storage that torch's reference to it names: kind, key, device, count."""
    if not isinstance(what, tuple) or len(what) < 5 or what[0] != "storage" or not isinstance(what[1], Name):
        raise ValueError("a reference that is none to numbers")
    if what[1].name not in _TYPES or not isinstance(what[4], int) or what[4] < 0:
        raise ValueError(f"numbers of the kind {what[1].name:.40}")
    return _Storage(str(what[2]), _TYPES[what[1].name], what[4])


def _numbers(data: bytes, storage: _Storage) -> Tensor:
    if len(data) != storage.count * storage.type.itemsize:
        raise ValueError(f"{len(data)} bytes, where {storage.count * storage.type.itemsize} are announced")
    # A copy, which may be written to: torch warns of tensors over bytes that may not.
    return torch.frombuffer(bytearray(data), dtype=storage.type) if data else torch.empty(0, dtype=storage.type)


def _named(path: Path, tree: Any, inside: tuple[str, ...]) -> dict[str, _Lying]:
    """Return the tensors below these keys. Raises SourceError if there are none."""
    for key in inside:
        if not isinstance(tree, dict) or key not in tree:
            raise SourceError(f"{path}: found {_keys_of(tree)}, expected {key!r}. Give the file of this model.")
        tree = tree[key]
    if not isinstance(tree, dict) or not any(isinstance(value, _Lying) for value in tree.values()):
        raise SourceError(f"{path}: found {_keys_of(tree)}, expected tensors. Give the file of this model.")
    return {str(name): value for name, value in tree.items() if isinstance(value, _Lying)}


def _keys_of(tree: Any) -> str:
    if not isinstance(tree, dict):
        return f"a {type(tree).__name__}"
    return f"the keys {', '.join(f'{key!s:.40}' for key in list(tree)[:8])}" if tree else "no keys"
