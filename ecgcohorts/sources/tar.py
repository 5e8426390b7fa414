"""Tars: ustar, GNU and POSIX (pax) headers, plain or packed by gzip, bzip2 or xz.

Not tarfile. It takes 23 us a member against 13 us here, keeps half a kilobyte for every member, takes a damaged header for
the end of the archive, and reads headers of any size; releases of it hang on hostile headers (CVE-2024-6232,
CVE-2025-8194). Forms that no published cohort has (sparse files, checksums of signed bytes, zstd) are refused.

Members of a compressed tar cannot be had out of order, so it is unpacked once, as a stream, into a plain one.
Sources: POSIX.1-2017, pax; GNU tar manual, "Basic Tar Format".
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from ecgcohorts.errors import SourceError
from ecgcohorts.io.texts import decoded
from ecgcohorts.sources.members import (
    HARD_LINK,
    MAX_RATIO,
    MAX_TOTAL_BYTES,
    STORED,
    SYMBOLIC_LINK,
    Gathering,
    Member,
)
from ecgcohorts.sources.scratch import no_room

BLOCK = 512
_MAX_EXTRA_BYTES = 1 << 20  # of one long name or pax header; our default
_COPY_BYTES = 1 << 20
_FILES = (b"0", b"\0")
_LINKS = {b"1": HARD_LINK, b"2": SYMBOLIC_LINK}
_WITHOUT_DATA = {b"3": "device", b"4": "device", b"5": "", b"6": "pipe"}
_SPARSE = "GNU.sparse."
# Records of pax headers, a microsecond each: our default. Tars have about five a member; packed, 190 kB hold six million.
_FREE_RECORDS, _RECORDS_A_MEMBER = 1000, 32
_ZEROS = bytes(BLOCK)


_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {  # by the first bytes of a compressed file
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


class Tar:
    """One pass over a plain tar, header by header."""

    def __init__(self, file: BinaryIO, size: int, found: Gathering, where: str) -> None:
        self._file, self._size, self._found, self._where = file, size, found, where
        self._at = 0
        self._name: str | None = None  # from a header before, for the next member
        self._pax: dict[str, str] = {}
        self._global: dict[str, str] = {}
        self._n_records = 0

    @staticmethod
    def begins(block: bytes) -> bool:
        """Say whether the first block of a file is a header of a tar, or the end of an empty one."""
        return len(block) == BLOCK and (block == _ZEROS or _checksum_fits(block))

    def gather(self) -> None:
        """Gather all members, in the order of the file. Raises SourceError for damage."""
        while True:
            block = self._read(BLOCK)
            if block == _ZEROS:
                break
            if not _checksum_fits(block):
                raise self._damaged("found a header whose checksum is wrong")
            self._header(block)
        # After the end come zeros only; another archive behind it would be lost in silence.
        while rest := self._file.read(1 << 20):
            if rest.strip(b"\0"):
                raise self._damaged("found more behind its end")

    def _header(self, block: bytes) -> None:
        kind, size = block[156:157], self._number(block[124:136])
        if kind in (b"x", b"X", b"g"):
            target = self._global if kind == b"g" else self._pax
            target.update(self._records(self._extra(size)))
        elif kind == b"L":
            self._name = decoded(self._extra(size).rstrip(b"\0"))
        elif kind == b"K":  # the target of a link, which is not followed
            self._extra(size)
        else:
            self._member(block, kind, size)
            self._name, self._pax = None, {}

    def _member(self, block: bytes, kind: bytes, size: int) -> None:
        said = self._global | self._pax
        # pax overrides GNU, which overrides the header's own hundred bytes.
        name = said.get("path") or self._name or _name_of(block)
        if kind in _LINKS:
            self._found.add_link(name, _LINKS[kind], self._at)
            return
        if kind in _WITHOUT_DATA:
            if _WITHOUT_DATA[kind]:
                self._found.leave_out(_WITHOUT_DATA[kind])
            return
        if "size" in said:
            if not said["size"].isdecimal() or len(said["size"]) > 18:
                raise self._damaged("found a size that is no number")
            size = int(said["size"])
        if kind == b"S" or _SPARSE in said:
            self._found.refuse("a sparse file", "files that are stored whole")
        start = self._at
        self._skip(size)
        if kind not in _FILES:
            self._found.leave_out("entry of an unknown kind")
        elif not name.endswith("/"):  # before POSIX, that was a folder
            mark = self._number(block[136:148])
            self._found.add(Member(name, start, size, size, mark, STORED))

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise self._damaged("found its end missing")
        self._at += count
        return data

    def _extra(self, size: int) -> bytes:
        # The only data that is read whole, so the only one whose declared size has to be bounded.
        if size > _MAX_EXTRA_BYTES:
            raise self._damaged(f"found a name or header of {size} bytes")
        data = self._read(size)
        self._skip_to_block()
        return data

    def _skip(self, size: int) -> None:
        if size > self._size - self._at:
            raise self._damaged("found its end missing")
        self._at += size
        self._skip_to_block()

    def _skip_to_block(self) -> None:
        self._at += -self._at % BLOCK
        self._file.seek(self._at, io.SEEK_SET)

    def _number(self, field: bytes) -> int:
        """Octal digits, or with the first bit set, a number of 11 bytes."""
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        else:
            text = field.split(b"\0")[0].strip() or b"0"
            value = int(text, 8) if text.isdigit() and not set(text) & set(b"89") else -1
        if not 0 <= value < 1 << 62:
            raise self._damaged("found a header with a number that is none")
        return value

    def _records(self, data: bytes) -> dict[str, str]:
        """`LENGTH KEY=VALUE\\n`, one after the other."""
        found, at = {}, 0
        while at < len(data):
            space = data.find(b" ", at, at + 20)
            # Looked for in 20 bytes, so that a header of digits alone is refused at once.
            length = int(data[at:space]) if space > at and data[at:space].isdigit() else 0
            key, equals, value = data[space + 1 : at + length - 1].partition(b"=")
            if at + length > len(data) or not equals or data[at + length - 1 : at + length] != b"\n":
                raise self._damaged("found a header that cannot be read")
            self._n_records += 1
            if self._n_records > _FREE_RECORDS + _RECORDS_A_MEMBER * self._found.count:
                raise self._damaged(f"found {self._n_records} records in headers")
            # What is not used is not kept: the records of a global header are laid under those of every member.
            if key in (b"path", b"size"):
                found[decoded(key)] = decoded(value)
            elif key.startswith(_SPARSE.encode()):
                found[_SPARSE] = ""
            at += length
        return found

    def _damaged(self, what: str) -> SourceError:
        return SourceError(f"{self._where}: {what} at byte {self._at}, expected a whole tar. Fetch or pack it again.")


def _name_of(block: bytes) -> str:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""  # GNU keeps times there
    return decoded(prefix + b"/" + name if prefix else name)


def _checksum_fits(block: bytes) -> bool:
    """Say whether a header's checksum is the sum of all its bytes, its own field taken as spaces."""
    text = block[148:156].split(b"\0")[0].strip()
    if not text.isdigit() or set(text) & set(b"89"):
        return False
    return int(text, 8) == sum(block) - sum(block[148:156]) + 8 * ord(" ")


class CompressedTar:
    """A tar packed by gzip, bzip2 or xz."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError if the first block of a compressed file shows that it is no tar."""
        self._path = path
        with self._opened() as (stream, _):
            if not Tar.begins(stream.read(BLOCK)):
                raise SourceError(
                    f"{path}: found a compressed file that is no tar, expected a folder, a tar, a zip, or the URL of a "
                    "bucket."
                )

    @classmethod
    def at(cls, path: Path, head: bytes) -> Self | None:
        """Open a file that begins with `head`; None unless a program packed it whose tars are read here."""
        return cls(path) if head.startswith(tuple(_OPENERS)) else None

    def unpack(self, into: Path) -> None:
        """Unpack into a new plain tar.

        Raises SourceError for one that is damaged, or that unpacks to more than a tar of recordings does.
        """
        total = 0
        with self._opened() as (stream, packed), into.open("xb") as plain:
            while block := stream.read(_COPY_BYTES):
                total += len(block)
                # Counted on the way: bzip2 does not say how much is in a file, and gzip says it modulo 4 GiB.
                if total > MAX_TOTAL_BYTES or Gathering.is_bomb(total, packed.tell()):
                    raise SourceError(
                        f"{self._path}: found more than {MAX_RATIO} bytes for each packed one, expected recordings. Look "
                        "into it."
                    )
                try:
                    plain.write(block)
                except OSError as error:
                    raise no_room(error) from None

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, BinaryIO]]:
        """Give the file as a stream, and the file itself. Damage is a SourceError."""
        with self._path.open("rb") as packed:
            head = packed.read(16)
            packed.seek(0)
            opener = next(opener for magic, opener in _OPENERS.items() if head.startswith(magic))
            try:
                with opener(packed) as stream:
                    yield stream, packed
            except (EOFError, zlib.error, lzma.LZMAError) as error:
                raise self._cut(error) from None
            except OSError as error:
                if error.errno is None:  # how gzip and bz2 tell of damage
                    raise self._cut(error) from None
                raise

    def _cut(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self._path}: the compressed tar is cut or damaged ({type(error).__name__}). Fetch it again."
        )
