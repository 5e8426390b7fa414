"""Read the arrays of a NumPy archive (.npz): a zip of .npy files, stored or deflated. Nothing in it is unpickled."""

import zlib
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from numpy.typing import NDArray

from ecgcohorts.errors import Reason, SourceError, UnreadableRecording
from ecgcohorts.io.regular import open_regular, read_exactly, size_of
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.readers.arrays.npy import NPY_HEAD_BYTES, _NpyArray
from ecgcohorts.sources.members import DEFLATED, Gathering, Member
from ecgcohorts.sources.zip_members import LOCAL, LOCAL_MARK, gather_zip

MAX_ARRAYS = 1024  # of one archive; our default
MAX_BYTES = 512 << 20  # unpacked, kept in memory while records are taken from them; our default


class _NpzArray(NamedTuple):
    """One array of an archive."""

    path: Path
    description: ArrayDescription
    name: str | None

    def shape(self) -> tuple[int, ...]:
        """Return the shape that its header declares, after comparing it with its size."""
        start, size = _opened(self.path).head(self._member)
        header, begin = _NpyArray.parse(start, self.path)
        self.description.check_shape(header.shape, str(self.path))
        header.check_size(begin, size, self.path)
        return header.shape

    def load(self, record: int | None) -> NDArray:
        """Return the array as stored, or one record. The zip's checksum covers it."""
        self.shape()
        data = _opened(self.path).content(self._member)
        header, begin = _NpyArray.parse(data[:NPY_HEAD_BYTES], self.path)
        values = header.array(memoryview(data)[begin:])
        return values if record is None else values[record].copy()

    def side(self) -> NDArray:
        """Return an array of facts about the records: numbers, or texts."""
        start, size = _opened(self.path).head(self._member)
        header, begin = _NpyArray.parse(start, self.path, texts=True)
        ArrayDescription.check_side(header.shape, str(self.path))
        header.check_size(begin, size, self.path)
        return header.array(memoryview(_opened(self.path).content(self._member))[begin:])

    @property
    def _member(self) -> str:
        return f"{self.name}.npy"


class _Archive:
    """An archive, its directory, and those members that were unpacked."""

    def __init__(self, path: Path) -> None:
        self.path, self._contents = path, dict[str, bytes]()
        members = _Members(str(path))
        with open_regular(path) as file:
            try:
                gather_zip(file, size_of(path)[0], members, str(path))
            except SourceError:
                raise _refusal(Reason.HEADER, "a damaged or unusual zip", "what numpy.savez wrote", path) from None
        self._members = members.by_name

    def head(self, name: str) -> tuple[bytes, int]:
        """Return the first bytes of a member, and its size."""
        member = self._member(name)
        if name in self._contents:
            return self._contents[name][:NPY_HEAD_BYTES], member.size
        with open_regular(self.path) as file:
            packed = self._packed(file, member, NPY_HEAD_BYTES)
        if member.method != DEFLATED:
            return packed, member.size
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, NPY_HEAD_BYTES), member.size
        except zlib.error:
            raise _damaged(self.path) from None

    def content(self, name: str) -> bytes:
        """Return a member, and keep it: ingest asks for one record after the other."""
        member = self._member(name)
        if name not in self._contents:
            if member.size + sum(map(len, self._contents.values())) > MAX_BYTES:
                raise _refusal(Reason.LIMIT, f"an array of {member.size} bytes", f"{MAX_BYTES} in all", self.path)
            with open_regular(self.path) as file:
                data = self._packed(file, member, member.packed)
            if member.method == DEFLATED:
                data = _inflated(data, member.size, self.path)
            if len(data) != member.size:
                raise _damaged(self.path)
            if zlib.crc32(data) != member.mark:
                raise _refusal(Reason.CHECKSUM, "another CRC-32", "the stored one", self.path)
            self._contents[name] = data
        return self._contents[name]

    def _member(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            raise _refusal(Reason.FORMAT, f"no array {name.removesuffix('.npy')!r:.80}", "one of that name", self.path)
        return member

    def _packed(self, file: FileIO, member: Member, most: int) -> bytes:
        """Return the bytes of a member as they lie in the file, at most so many."""
        file.seek(member.start)
        mark, *_, n_name, n_extra = LOCAL.unpack(read_exactly(file, LOCAL.size, self.path))
        if mark != LOCAL_MARK:
            raise _damaged(self.path)
        # The name and the extra field may be longer here than in the directory.
        file.seek(member.start + LOCAL.size + n_name + n_extra)
        return read_exactly(file, min(member.packed, most), self.path)


# Not zipfile: it keeps half a kilobyte a member before anything can be counted, and raises errors of a dozen types.
class _Members(Gathering):
    """Few members, by name. The index that a `Gathering` writes is for archives of millions."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.by_name = dict[str, Member]()

    def add(self, member: Member) -> None:
        super().add(member)
        if member.name in self.by_name or len(self.by_name) >= MAX_ARRAYS:
            self.refuse("one name twice, or too many", f"at most {MAX_ARRAYS} arrays")
        self.by_name[member.name] = member


def _opened(path: Path) -> _Archive:
    return _open(path.absolute(), size_of(path))


# One archive: what is unpacked of it may take MAX_BYTES, and ingest goes through files one by one.
@lru_cache(maxsize=1)
def _open(path: Path, _size_and_time: tuple[int, int]) -> _Archive:
    return _Archive(path)


def _inflated(data: bytes, size: int, path: Path) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error:
        raise _damaged(path) from None
    if not stream.eof or stream.unused_data:
        raise _damaged(path)
    return found


def _damaged(path: Path) -> UnreadableRecording:
    return _refusal(Reason.HEADER, "damaged compression", "a whole file", path)


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    remedy = "Save the array as .npy." if reason is Reason.LIMIT else "Save it again with numpy.savez."
    return UnreadableRecording(reason, found, expected, remedy, str(path))
