"""Read the members of a zip from the directory at its end; Zip64 as well.

Not zipfile: it keeps half a kilobyte for every member. Source: PKWARE, APPNOTE.TXT 6.3.10.
"""

import stat
import struct
from typing import BinaryIO, NoReturn

from ecgcohorts.errors import SourceError
from ecgcohorts.sources.members import DEFLATED, STORED, SYMBOLIC_LINK, Gathering, Member

_END = struct.Struct("<4s4H2LH")  # signature, disks, entries, size and place of the directory, comment
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
END_MARK, LOCAL_MARK = b"PK\x05\x06", b"PK\x03\x04"
_LONGEST_COMMENT = 0xFFFF
_ENCRYPTED, _UTF_8 = 0x2041, 0x0800  # encrypted, strongly, or with a masked directory
_UNIX = 3


def gather_zip(file: BinaryIO, size: int, found: Gathering, where: str) -> None:
    """Gather all members, in the order of the directory. Raises SourceError for damage, encryption, other methods."""
    count, start, length = _directory(file, size, where)
    file.seek(start)
    left, packed = length, 0
    # Read entry by entry: the directory of a million members has 100 MB.
    for _ in range(count):
        head = file.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\x01\x02"):
            _damaged(where, "an entry of its directory that is none")
        _, made_by, _, flags, method, _, _, crc, *sizes, n_name, n_extra, n_comment, _, _, mode, offset = _ENTRY.unpack(
            head
        )
        rest = file.read(n_name + n_extra + n_comment)
        left -= len(head) + len(rest)
        if left < 0 or len(rest) < n_name + n_extra + n_comment:
            _damaged(where, "a directory that is cut")
        # Old zips have names of code page 437; a flag marks those in UTF-8.
        name = rest[:n_name].decode(*(("utf-8", "surrogateescape") if flags & _UTF_8 else ("cp437",)))
        n_packed, n_unpacked, offset = _wide(rest[n_name : n_name + n_extra], (sizes[0], sizes[1], offset), where)
        kind = stat.S_IFMT(mode >> 16) if made_by >> 8 == _UNIX else 0
        # Windows writes no modes: there a name with a slash is all that makes a folder.
        if name.endswith("/") or stat.S_ISDIR(kind):
            continue
        if stat.S_ISLNK(kind):
            found.add_link(name, SYMBOLIC_LINK, offset)
            continue
        if kind and not stat.S_ISREG(kind):
            found.leave_out("device or pipe")
            continue
        if flags & _ENCRYPTED:
            found.refuse("encrypted members", "members that anybody can read")
        if method not in (STORED, DEFLATED):
            found.refuse(f"a member packed by method {method}", f"{STORED} (stored) or {DEFLATED} (deflated)")
        # Members that share bytes make a bomb of which every member is honest: their sum cannot exceed the file.
        packed += n_packed
        if offset + LOCAL.size + n_name + n_packed > start or packed > size:
            _damaged(where, "members that lie outside of it, or on each other")
        found.add(Member(name, offset, n_packed, n_unpacked, crc, method))
    if left:
        _damaged(where, "a directory of another length")


def _directory(file: BinaryIO, size: int, where: str) -> tuple[int, int, int]:
    """Return how many entries the directory has, where it begins and how long it is."""
    # The end record stands before a comment of unknown length, which may hold its mark: the right one is the last whose
    # comment reaches exactly to the end of the file.
    start = max(0, size - _END.size - _LONGEST_COMMENT)
    file.seek(start)
    tail = file.read(size - start)
    at = tail.rfind(END_MARK)
    while at >= 0 and (len(tail) - at < _END.size or at + _END.size + _END.unpack_from(tail, at)[-1] != len(tail)):
        at = tail.rfind(END_MARK, 0, at)
    if at < 0:
        _damaged(where, "no directory at its end")
    _, disk, first_disk, here, count, length, place, _ = _END.unpack_from(tail, at)
    end = start + at
    # Fields that do not fit hold all ones; a record of Zip64 before this one then has the numbers.
    if 0xFFFF in (here, count) or 0xFFFFFFFF in (length, place):
        file.seek(max(0, end - _LOCATOR.size))
        mark, _, at_64, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if mark == b"PK\x06\x07":
            file.seek(min(at_64, end))
            record = file.read(_END_64.size)
            if len(record) < _END_64.size or not record.startswith(b"PK\x06\x06"):
                _damaged(where, "no directory where it should be")
            *_, disk, first_disk, here, count, length, place = _END_64.unpack(record)
            end = at_64
    if disk or first_disk or here != count or place + length != end:
        _damaged(where, "several parts, or something before its beginning")
    return count, place, length


def _wide(extra: bytes, numbers: tuple[int, ...], where: str) -> list[int]:
    """Return packed size, unpacked size and offset of an entry, from its Zip64 field where 32 bits are too few."""
    packed, unpacked, offset = numbers
    # The field holds only the numbers that did not fit, in this order.
    values = {"unpacked": unpacked, "packed": packed, "offset": offset}
    wanted = [name for name, value in values.items() if value == 0xFFFFFFFF]
    at = 0
    while wanted and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            if length < 8 * len(wanted) or at + 4 + length > len(extra):
                _damaged(where, "an entry of its directory that is cut")
            values |= zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", extra, at + 4), strict=True)
            break
        at += 4 + length
    return [values["packed"], values["unpacked"], values["offset"]]


def _damaged(where: str, what: str) -> NoReturn:
    raise SourceError(f"{where}: found {what}, expected a whole zip. Fetch or pack it again.")
