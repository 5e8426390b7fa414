"""A place is a folder or a bucket. Both hold files by names with slashes, and both answer the same questions.

Raw files, stores, shards, copies and ingests go through these two classes. They have no common base: a caller takes
`Place`, and mypy checks each call against both. `tests/ecgcohorts/io/test_place.py` runs one contract over them.
"""

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.io.buckets import SCHEMES, Bucket, is_url
from ecgcohorts.io.durable import copy_file, machine_errors, sha256_of, write_file

_LEAST_OPEN_FILES = 64  # that all folders of a process together keep open; macOS allows a process 256
_MOST_OPEN_FILES = 4096  # shards of 16 million recordings
_MOST_THREADS = 8  # a sixth of a record's time is spent under the interpreter lock: more threads wait for each other
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux: fail rather than wait for the disk
_FLATTENED = re.compile(rf"({'|'.join(SCHEMES)}):/", re.IGNORECASE)


class Folder:
    """The files below a folder of this machine. Thread-safe and picklable.

    What is written is durable when the call returns. Raises OSError as the system does: FileNotFoundError for a file
    that is not there.
    """

    # Read through a gap of up to 128 KiB between two records: with lz4 it spans up to three others of the patient, and so
    # joins more than 85 % of pairs in one read.
    gap_bytes = 128 * 1024
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    records_per_part = 16  # given to a thread at once: handing work over costs about as much as decoding one record

    def __init__(self, path: Path) -> None:
        self.path = path
        self.linked: set[str] = set()  # links to folders that `names` met and did not follow
        self._open: dict[str, _OpenFile] = {}
        self._lock = threading.Lock()

    # Open descriptors mean nothing in another process: it opens its own.
    def __reduce__(self) -> tuple[type["Folder"], tuple[Path]]:
        return Folder, (self.path,)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of the path, as a title."""
        return self.path.name

    def names(self, below: str = "") -> Iterator[str]:
        """Yield the files that are not hidden, in the order of their paths. Links to folders are not followed.

        Only the names of one folder at a time are held and sorted, so millions of files take no memory.
        below: only in this folder, given with its slash.
        """
        return self._walk(below, everything=False)

    def everything(self) -> Iterator[str]:
        """Yield every file, hidden ones too, and every folder with a slash at its end, after what is in it."""
        with machine_errors(self.path):
            yield from self._walk("", everything=True)

    def links(self) -> Iterator[str]:
        """Yield what is neither a file nor a folder, links among them, wherever it stands."""
        with machine_errors(self.path):
            for name in self._walk("", everything=True):
                with contextlib.suppress(FileNotFoundError):  # renamed by its writer since it was listed
                    mode = os.lstat(os.path.join(self.path, name.rstrip("/"))).st_mode
                    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                        yield name.rstrip("/")

    def _walk(self, below: str, everything: bool) -> Iterator[str]:
        # A stack instead of recursion: each name would pass through one generator per level.
        left = [(below, iter(self._entries(below, everything)))]
        while left:
            folder, entries = left[-1]
            name = next(entries, None)
            if name is None:
                left.pop()
                if everything and folder != below:
                    yield folder
            elif name.endswith("/"):
                left.append((name, iter(self._entries(name, everything))))
            else:
                yield name

    def _entries(self, below: str, everything: bool) -> list[str]:
        """List one folder. Folders have their slash before sorting, so that whole paths come out in order."""
        found = []
        where = os.path.join(self.path, below)
        if everything and not os.path.isdir(where):  # gone since it was listed, or the place is not made yet
            return []
        # A link has a name but no entries. The place itself may be reached by one.
        if everything and below and os.path.islink(where[:-1]):
            return []
        with os.scandir(where) as entries:
            for entry in entries:
                if everything:
                    found.append(below + entry.name + "/" * entry.is_dir())
                elif not entry.name.startswith("."):
                    if not entry.is_dir():
                        found.append(below + entry.name)
                    elif not entry.is_symlink():
                        found.append(below + entry.name + "/")
                    else:
                        self.linked.add(below + entry.name)
        return sorted(found)

    def sizes(self, names: Iterable[str] | None = None) -> dict[str, int]:
        """Sizes in bytes of the named files, or of all, that are there. A link is no file."""
        found = {}
        for name in self.everything() if names is None else names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = os.lstat(os.path.join(self.path, name))
                if stat.S_ISREG(status.st_mode):
                    found[name] = status.st_size
        return found

    def pin(self, names: Iterable[str]) -> dict[str, int]:
        """`sizes`. In a bucket, `read_into` refuses an object replaced since; an open file here stays what it was.

        Raises StoreError for a link on the way to a file: it may lead to any file of the machine.
        """
        names = list(names)
        found = self.sizes(names)
        above: set[str] = set()
        for name in names:
            while (name := name.rpartition("/")[0]) and name not in above:
                above.add(name)
        for name in (*sorted(above), *names):
            if name not in found and os.path.islink(os.path.join(self.path, name)):
                raise self._linked(name)
        return found

    def _linked(self, name: str) -> StoreError:
        return StoreError(f"{self.path}/{name}: found a link, which no store holds. Put the file itself there.")

    def get(self, name: str, limit: int | None = None) -> bytes:
        """Read a whole file. Raises StoreError for more than `limit` bytes, before they are read."""
        try:
            handle = os.open(self.path / name, _FLAGS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):  # how O_NOFOLLOW refuses a link (EMLINK on FreeBSD)
                raise self._linked(name) from None
            raise
        with open(handle, "rb") as file:
            size = os.fstat(handle).st_size
            # A damaged file may be of any size; what is read must fit what its manifest says.
            if limit is not None and size > limit:
                raise StoreError(
                    f"{self.path}/{name}: found {size} bytes, expected at most {limit}. Restore it from a copy."
                )
            return file.read()

    def size(self, name: str) -> int:
        """Size of one file in bytes. The file stays open for `read_into`."""
        return self._opened(name).size

    def read_into(self, name: str, start: int, out: memoryview) -> int:
        """Fill `out` from a file in one read. Return how many bytes there were: fewer if the file ends before."""
        file = self._opened(name)  # held by name: while it lives, its descriptor is not closed and reused
        return os.preadv(file.fd, (out,), start)

    def in_memory(self, name: str, at: int) -> bool:
        """Say whether a byte can be had without waiting for the disk; False if that cannot be known."""
        if NOWAIT is None:
            return False
        file = self._opened(name)
        try:
            return os.preadv(file.fd, (bytearray(1),), at, NOWAIT) == 1
        except OSError:  # it is not there, or this file system cannot tell
            return False

    def _opened(self, name: str) -> "_OpenFile":
        file = self._open.get(name)
        if file is not None:
            return file
        # Opened outside the lock: two threads may both open it, and the one that loses closes its own.
        file = _OpenFile(self.path / name)
        with self._lock:
            file = self._open.setdefault(name, file)
            while len(self._open) > 1 and len(_OpenFile.all_open) > _open_files_limit():
                self._open.pop(next(iter(self._open)))  # the first opened: random reads favour none
        return file

    def let_go(self) -> None:
        """Close the files that `size` and `read_into` keep open, once nobody is reading in them."""
        with self._lock:
            self._open.clear()

    def sha256_of(self, name: str) -> str:
        """SHA-256 of a file, in hexadecimal, in bounded memory."""
        return sha256_of(self.path / name)

    def noted_sha256(self, name: str) -> str | None:
        """SHA-256 of a file. A bucket tells what was noted when it was put, without reading the object."""
        return self.sha256_of(name)

    def on_disk(self, name: str) -> AbstractContextManager[Path]:
        """Give the file as one of this machine, for as long as the context lasts."""
        return contextlib.nullcontext(self.path / name)

    def put(self, name: str, content: bytes | Path, sha256: str | None = None) -> None:
        """Make or replace a file, durably; nobody sees half of it. sha256: noted in a bucket, not needed here."""
        if isinstance(content, bytes):
            write_file(self.path / name, content)
        else:
            copy_file(content, self.path / name)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, and folders (with a slash) if they are empty by then. What is gone already does not matter."""
        for name in list(names):  # `names` may be walking this very folder
            path = self.path / name
            if path.is_symlink():  # never ours: a store makes none
                continue
            with contextlib.suppress(FileNotFoundError):
                if not name.endswith("/"):
                    path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()

    def zarr(self) -> Any:
        """Return what zarr-python opens to read here."""
        return self.path


class _OpenFile:
    """An open file, closed when the last user lets go: one evicted from the cache stays readable to threads that hold it."""

    # Closed by __del__, not by a lock or a count: a thread that is reading holds the object, so its descriptor stays open.
    __slots__ = ("fd", "size")
    all_open: ClassVar[set[int]] = set()  # of this process

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, _FLAGS)
        self.all_open.add(self.fd)
        self.size = os.fstat(self.fd).st_size

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.all_open.discard(self.fd)  # before another may get its number
            os.close(self.fd)


@cache
def _open_files_limit() -> int:
    """Return how many files all folders together keep open: half of what the system allows this process."""
    try:
        import resource
    except ImportError:
        return _LEAST_OPEN_FILES
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = allowed == resource.RLIM_INFINITY
    return _MOST_OPEN_FILES if unlimited else min(max(allowed // 2, _LEAST_OPEN_FILES), _MOST_OPEN_FILES)


# A union and no base class, in which every method would be declared a third time.
Place = Folder | Bucket


def place_at(where: str | Path) -> Place:
    """Return the folder of a path, or the bucket of a URL such as "s3://bucket/folder"."""
    if isinstance(where, str) and is_url(where):
        return Bucket(where)
    # pathlib makes one slash of two: the error would otherwise speak of a missing folder.
    if _FLATTENED.match(str(where)):
        raise SpecError(f"{where}: a URL as a Path loses a slash. Give it as text.")
    return Folder(Path(where))
