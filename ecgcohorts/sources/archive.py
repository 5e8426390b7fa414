"""Read a tar or zip as a source: members are unpacked one by one as they are asked for, never where the archive says.

One pass over the archive makes an index that finds members by name. Bytes are counted as they are unpacked: a member is
never longer than it declares, and a zip's checksum must fit.
"""

import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

from ecgcohorts.errors import Reason, SourceError, UnreadableRecording
from ecgcohorts.sources.members import DEFLATED, LINKS, Gathering, Index, Member
from ecgcohorts.sources.names import uri_of
from ecgcohorts.sources.scratch import Scratch, no_room
from ecgcohorts.sources.tar import BLOCK, CompressedTar, Tar
from ecgcohorts.sources.zip_members import END_MARK, LOCAL, LOCAL_MARK, gather_zip

_INDEX, _PLAIN = "index.arrow", "plain.tar"
_COPY_BYTES = 1 << 18


class Archive:
    """The regular files of a tar, plain or compressed, or a zip; hidden ones left out of `names`.

    below: the only folder in it to read, with its slash. A copy sent to another process of this machine uses the same
    index.
    """

    folder: Path | None = None

    def __init__(self, path: Path, below: str = "", scratch: Scratch | None = None) -> None:
        self.path, self.below = path, below
        self.scratch = Scratch() if scratch is None else scratch
        with self._open(path) as file:
            head = file.read(BLOCK)
        self._is_zip = head.startswith((LOCAL_MARK, END_MARK))
        self._packed = CompressedTar.at(path, head)
        self.only_here = self._packed is not None
        if not (self.only_here or self._is_zip or Tar.begins(head)):
            raise SourceError(
                f"{path}: found a file that is no archive, expected a folder, a tar, a zip, or the URL of a bucket."
            )

    def __reduce__(self) -> tuple[type["Archive"], tuple[Path, str, Scratch]]:
        # Made before it is sent, or each process would make one of its own at the same path.
        _ = self._index
        return Archive, (self.path, self.below, self.scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.scratch.remove()

    def __str__(self) -> str:
        return f"{self.path}/{self.below}".rstrip("/") if self.below else str(self.path)

    @property
    def address(self) -> str:
        from urllib.parse import quote

        return uri_of(self.path) + (f"#{quote(self.below, errors='surrogateescape')}" if self.below else "")

    @property
    def left_out(self) -> dict[str, int]:
        return self._index.left_out

    def top_folder(self) -> str | None:
        """Return the one folder, with its slash, that holds all files; None if there are several, or files beside it."""
        index, names = self._index, self._index.names
        # Sorted, so the first and the last name decide: if they share their top folder, all between them do.
        places = [place for place in (_first_shown(index, 1), _first_shown(index, -1)) if place is not None]
        tops = {names[place].partition("/")[::2] for place in places}
        if self.below or not tops or len({top for top, _ in tops}) > 1 or not all(rest for _, rest in tops):
            return None
        return tops.pop()[0] + "/"

    def inside(self, below: str) -> "Archive":
        """Return the same archive, with one folder of it as the whole."""
        return Archive(self.path, below, self.scratch)

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """Yield paths below `below`, sorted; with `wanted`, links of such a name too: `fetch` tells that they are none."""
        index = self._index
        for place in index.names.below(self.below + below):
            name = index.names[place].removeprefix(self.below)
            if not _is_hidden(name) and (not index.is_link(place) if wanted is None else wanted.fullmatch(name)):
                yield name

    def state(self, name: str, at_hand: Path) -> str:
        member = self._index.find(self.below + name)
        return "" if member is None else f"{member.size} {member.mark}"

    def fetch(self, names: Iterable[str], into: Path) -> dict[str, UnreadableRecording]:
        """Unpack members below a folder of our own. Return what is wrong with some; names that are not there are left out.

        Raises SourceError if the archive has changed, or there is no room.
        """
        found = [(name, self._index.find(self.below + name)) for name in names]
        failed = {}
        with self._open(self._plain) as file:
            # In the order of their places, so that a disk reads forward.
            for name, member in sorted(found, key=lambda pair: -1 if pair[1] is None else pair[1].start):
                if member is not None:
                    try:
                        _write(into / name, _unpacked(file, member, self._is_zip))
                    except UnreadableRecording as error:
                        (into / name).unlink(missing_ok=True)
                        failed[name] = error
        return failed

    @property
    def _plain(self) -> Path:
        return self.scratch.path / _PLAIN if self.only_here else self.path

    @cached_property
    def _index(self) -> Index:
        path = self.scratch.path / _INDEX
        if not path.exists():
            # Once, before anything is looked up: members of a compressed tar cannot be had out of order.
            if self._packed is not None:
                self._packed.unpack(self._plain)
            found = Gathering(str(self.path))
            with self._open(self._plain) as file:
                size, state = os.fstat(file.fileno()).st_size, _state(file)
                if self._is_zip:
                    gather_zip(file, size, found, str(self.path))
                else:
                    Tar(file, size, found, str(self.path)).gather()
            found.write(path, state)
        return Index.open(path)

    def _open(self, path: Path) -> BinaryIO:
        try:
            file = path.open("rb")
        except OSError as error:
            raise SourceError(f"{path}: found no readable archive ({error.strerror}). Check the path.") from None
        index = self.__dict__.get("_index")
        if index is not None and index.state != _state(file):
            file.close()
            raise SourceError(
                f"{self.path}: the archive has changed since it was opened. Run again when its writer is done."
            )
        return file


def _state(file: BinaryIO) -> str:
    status = os.fstat(file.fileno())
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _is_hidden(name: str) -> bool:
    """Say whether a file or a folder that it stands in is hidden."""
    return name.startswith(".") or "/." in name


def _first_shown(index: Index, step: int) -> int | None:
    """Return the first place (step 1) or the last one (step -1) of a file that is not hidden."""
    places = range(len(index.names))[::step]
    return next((place for place in places if not (_is_hidden(index.names[place]) or index.is_link(place))), None)


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    first = next(blocks, b"")  # before there is a file: some members fail here
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(first)
            for block in blocks:
                file.write(block)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        # On a disk that does not tell capitals apart, or where one name is a file and a folder.
        raise SourceError("two names in the archive cannot stand in one folder here. Unpack it first.") from None
    except OSError as error:
        raise no_room(error) from None


def _unpacked(file: BinaryIO, member: Member, is_zip: bool) -> Iterator[bytes]:
    """Yield the bytes of a member. Raises UnreadableRecording unless there are as many as it declares, and for a link."""
    if member.method in LINKS:
        # As in a folder, where a link may lead out of it.
        raise _failed(Reason.PATH, f"a {LINKS[member.method]}")
    file.seek(member.start)
    if is_zip:
        # The local header repeats the directory's entry, but its name and extra field may have other lengths.
        head = file.read(LOCAL.size)
        if len(head) < LOCAL.size or not head.startswith(LOCAL_MARK):
            raise _failed(Reason.TRUNCATED, "no member where the directory says one is")
        *_, n_name, n_extra = LOCAL.unpack(head)
        file.seek(n_name + n_extra, io.SEEK_CUR)
    # A tar has no checksum of contents, so its members are only counted.
    total, checksum = 0, 0
    for block in (_inflated if member.method == DEFLATED else _plain)(file, member.packed):
        total += len(block)
        if total > member.size:
            raise _failed(Reason.LIMIT, "more bytes than the archive declares")
        if is_zip:
            checksum = zlib.crc32(block, checksum)
        yield block
    if total < member.size:
        raise _failed(Reason.TRUNCATED, f"{total} bytes of {member.size}")
    if is_zip and checksum != member.mark:
        raise _failed(Reason.CHECKSUM, "bytes of another checksum than the archive's")


def _plain(file: BinaryIO, left: int) -> Iterator[bytes]:
    try:
        while left and (block := file.read(min(left, _COPY_BYTES))):
            left -= len(block)
            yield block
    except OSError as error:
        raise SourceError(f"the archive could not be read ({error.strerror}). Run the same command again.") from None


def _inflated(file: BinaryIO, left: int) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _plain(file, left):
            # With a bound on each step: a few packed bytes can hold gigabytes.
            while packed and not inflate.eof:
                yield inflate.decompress(packed, _COPY_BYTES)
                packed = inflate.unconsumed_tail
        while not inflate.eof and (block := inflate.decompress(b"", _COPY_BYTES)):
            yield block
    except zlib.error:
        raise _failed(Reason.CHECKSUM, "bytes that do not unpack") from None


def _failed(reason: Reason, found: str) -> UnreadableRecording:
    return UnreadableRecording(reason, f"{found}, in the archive", "a whole member", "Fetch or pack it again.")
