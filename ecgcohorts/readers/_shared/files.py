"""Opening files that others named: regular files only, no links followed, sizes known before anything is read.

Source of the rules: a header may name any path, and a path may be a link, a pipe or a device.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ecgcohorts.errors import Reason, UnreadableRecording, is_of_machine

# O_NONBLOCK: opening a pipe must not wait for its other end. Windows has neither flag nor directory descriptors.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_CAN_OPEN_IN_FOLDER = os.open in os.supports_dir_fd
_FORBIDDEN = frozenset('/\\:\0"<>|?*')


class Folder:
    """One open directory. Files are opened relative to it, so a renamed parent cannot redirect them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "Folder":
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
        """The whole content of a file of at most `limit` bytes."""
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise UnreadableRecording(
                    Reason.LIMIT,
                    f"a file of {size} bytes",
                    f"at most {limit}",
                    "It is no file of this format, or holds something else as well.",
                    str(self.path / name),
                )
            return read_exactly(file, size, self.path / name)


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole content of a regular file of at most `limit` bytes."""
    with Folder(path.parent) as folder:
        return folder.read(path.name, limit)


def read_head(path: Path, count: int) -> bytes:
    """The first `count` bytes of a regular file, fewer if it is shorter."""
    with Folder(path.parent) as folder, folder.open(path.name) as file:
        return file.read(count)


def size_of(path: Path) -> tuple[int, int]:
    """Size in bytes and time of last change, in ns, of a regular file; for libraries that open by name themselves."""
    with Folder(path.parent) as folder, folder.open(path.name) as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def read_exactly(file: FileIO, count: int, path: Path) -> bytes:
    """The next `count` bytes. Raises UnreadableRecording if the file ends first (it shrank since it was measured)."""
    data = file.read(count)
    if len(data) < count:
        raise UnreadableRecording(
            Reason.TRUNCATED, f"{len(data)} bytes", f"{count}", "Read it again when its writer is done.", str(path)
        )
    return data


def check_bare_name(name: str, where: str) -> str:
    """Return a file name taken from a header, if it can only mean a file in the header's own folder."""
    bad = not name or name[0] in "-~" or ".." in name or name == "." or not _FORBIDDEN.isdisjoint(name)
    if bad or not name.isprintable():
        raise UnreadableRecording(
            Reason.PATH, f"the file name {name[:80]!r}", "a bare file name", "Name the file without any path.", where
        )
    return name


def _regular(descriptor: int, path: Path) -> int:
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise UnreadableRecording(
        Reason.PATH, "a folder, pipe or device", "a regular file", "Name the file itself.", str(path)
    )


def _unreadable(path: Path, error: OSError | ValueError) -> Exception:
    """What to raise instead; of trouble of the machine the error itself, which is nothing to refuse a recording for."""
    if is_of_machine(error):
        return error
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR):
        return UnreadableRecording(Reason.MISSING_FILE, "no such file", "a readable file", "Check the path.", str(path))
    if code in (errno.ELOOP, errno.EMLINK):  # what O_NOFOLLOW gives for a link (EMLINK on FreeBSD)
        return UnreadableRecording(
            Reason.PATH, "a symbolic link", "a regular file", "Name or copy the file it points to.", str(path)
        )
    why = error.strerror if isinstance(error, OSError) else "the name holds a NUL byte"
    return UnreadableRecording(
        Reason.PATH, f"a file that does not open ({why})", "a readable file", "Check its name and rights.", str(path)
    )
