"""Open files that a stranger named: regular files only, no links, sizes known before a byte is read.

A header may name any path, and a path may lead to a link, a pipe or a device.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ecgcohorts.errors import CANNOT_OPEN, Reason, UnreadableRecording, is_of_machine

# O_NONBLOCK: without it, opening a pipe waits for a writer that may never come. Windows has neither flag, nor folders
# as descriptors.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CAN_OPEN_IN_FOLDER = os.open in os.supports_dir_fd


class OpenFolder:
    """One open directory. Its files are opened relative to it, so nobody can redirect them by renaming a parent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "OpenFolder":
        if _CAN_OPEN_IN_FOLDER:
            try:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            except (OSError, ValueError) as error:
                raise _unreadable(self.path, error) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @contextmanager
    def open(self, name: str) -> Iterator[FileIO]:
        """Open one regular file of this folder. Raises UnreadableRecording for links, pipes, devices and folders."""
        path = self.path / name
        try:
            if self._descriptor is None:
                descriptor = os.open(path, _FLAGS)
            else:
                descriptor = os.open(name, _FLAGS, dir_fd=self._descriptor)
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            raise _unreadable(path, error) from None
        with FileIO(_regular(descriptor, path), "rb") as file:
            yield file

    def read(self, name: str, limit: int) -> bytes:
        """Return the whole content of a file of at most `limit` bytes. Raises UnreadableRecording."""
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            # Before reading: a limit that is checked afterwards does not bound memory.
            if size > limit:
                raise UnreadableRecording(
                    Reason.LIMIT,
                    f"a file of {size} bytes",
                    f"at most {limit}",
                    "It is of another format, or something else is in it as well.",
                    str(self.path / name),
                )
            return read_exactly(file, size, self.path / name)


@contextmanager
def open_regular(path: Path) -> Iterator[FileIO]:
    """Open a regular file by its path. Raises UnreadableRecording for links, pipes, devices and folders."""
    with OpenFolder(path.parent) as folder, folder.open(path.name) as file:
        yield file


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the whole content of a regular file of at most `limit` bytes. Raises UnreadableRecording."""
    with OpenFolder(path.parent) as folder:
        return folder.read(path.name, limit)


def read_head(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of a regular file, fewer if it is shorter. Raises UnreadableRecording."""
    with open_regular(path) as file:
        return file.read(count)


def size_of(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the time of the last change, in ns, of a regular file.

    Call it before a library that opens files by name and would follow a link. Raises UnreadableRecording.
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def read_exactly(file: FileIO, count: int, path: Path) -> bytes:
    """Return the next `count` bytes. Raises UnreadableRecording if the file ends first: it shrank after it was measured."""
    data = file.read(count)
    if len(data) < count:
        raise UnreadableRecording(
            Reason.TRUNCATED, f"{len(data)} bytes", f"{count}", "Read it again when its writer is done.", str(path)
        )
    return data


def _regular(descriptor: int, path: Path) -> int:
    # Asked of the open descriptor, not of the path: between two system calls the path may come to mean another file.
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise UnreadableRecording(
        Reason.PATH, "a folder, pipe or device", "a regular file", "Name the file itself.", str(path)
    )


def _unreadable(path: Path, error: OSError | ValueError) -> Exception:
    """Return what to raise: the error itself if the machine is in trouble, which says nothing about the recording."""
    if is_of_machine(error):
        return error
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR):
        return UnreadableRecording(Reason.MISSING_FILE, "no such file", "a readable file", "Check the path.", str(path))
    if code in (errno.ELOOP, errno.EMLINK):  # how O_NOFOLLOW refuses a link (EMLINK on FreeBSD)
        return UnreadableRecording(
            Reason.PATH, "a symbolic link", "a regular file", "Name or copy the file it points to.", str(path)
        )
    why = error.strerror if isinstance(error, OSError) else "its name holds a NUL byte"
    return UnreadableRecording(
        Reason.PATH,
        CANNOT_OPEN.format(why),
        "a readable file",
        "Check its name and permissions.",
        str(path),
    )
