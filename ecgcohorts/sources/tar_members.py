"""The members of a plain tar: ustar, GNU and POSIX (pax) headers, read one block at a time.

Not tarfile: it keeps half a kilobyte for every member, and reads headers of any size.
Sources: POSIX.1-2017, pax; GNU tar manual, "Basic Tar Format".
"""

import io
from typing import BinaryIO

from ecgcohorts.errors import SourceError
from ecgcohorts.io.texts import decoded
from ecgcohorts.sources.members import STORED, Gathering, Member

BLOCK = 512
MAX_EXTRA_BYTES = 1 << 20  # of one long name or pax header; our default
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"5": "", b"6": "pipe"}
_ZEROS = bytes(BLOCK)


def is_tar(block: bytes) -> bool:
    """Whether the first block of a file is a header of a tar, or the end of an empty one."""
    return len(block) == BLOCK and (block == _ZEROS or _checksum_fits(block))


def gather_tar(file: BinaryIO, size: int, found: Gathering, where: str) -> None:
    """All members, in the order of the file. Raises SourceError for damage."""
    _Pass(file, size, found, where).run()


class _Pass:
    def __init__(self, file: BinaryIO, size: int, found: Gathering, where: str) -> None:
        self._file, self._size, self._found, self._where = file, size, found, where
        self._at = 0
        self._name: str | None = None  # from a header before, for the next member
        self._pax: dict[str, str] = {}
        self._global: dict[str, str] = {}

    def run(self) -> None:
        while True:
            block = self._read(BLOCK)
            if block == _ZEROS:
                break
            if not _checksum_fits(block):
                raise self._damaged("found a header whose checksum is wrong")
            self._header(block)
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
        name = said.get("path") or self._name or _name_of(block)
        if kind in _WITHOUT_DATA:
            if _WITHOUT_DATA[kind]:
                self._found.leave_out(_WITHOUT_DATA[kind])
            return
        if "size" in said:
            if not said["size"].isdecimal() or len(said["size"]) > 18:
                raise self._damaged("found a size that is no number")
            size = int(said["size"])
        is_sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in said)
        if kind == b"S":
            more = block[482]
            while more:
                more = self._read(BLOCK)[504]
        start = self._at
        self._skip(size)
        if is_sparse or kind not in _FILES:
            self._found.leave_out("sparse file" if is_sparse else "entry of an unknown kind")
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
        if size > MAX_EXTRA_BYTES:
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
            length = int(data[at:space]) if space > at and data[at:space].isdigit() else 0
            key, equals, value = data[space + 1 : at + length - 1].partition(b"=")
            if at + length > len(data) or not equals or data[at + length - 1 : at + length] != b"\n":
                raise self._damaged("found a header that cannot be read")
            found[decoded(key)] = decoded(value)
            at += length
        return found

    def _damaged(self, what: str) -> SourceError:
        return SourceError(f"{self._where}: {what} at byte {self._at}, expected a whole tar. Fetch or pack it again.")


def _name_of(block: bytes) -> str:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""  # GNU keeps times there
    return decoded(prefix + b"/" + name if prefix else name)


def _checksum_fits(block: bytes) -> bool:
    """The sum of all bytes, its own field taken as spaces; signed bytes in some old ones."""
    text = block[148:156].split(b"\0")[0].strip()
    if not text.isdigit() or set(text) & set(b"89"):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    total = sum(rest)
    return int(text, 8) in (total, total - 256 * sum(byte > 127 for byte in rest))
