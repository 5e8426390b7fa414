"""What a process does to files below a folder: told act by act, each of which can be made to fail, or to be the last.

An act is one call that changes the disk, or opens something there. Writes are those that reach the kernel, behind
Python's buffer; one that is kept from happening has half of its bytes written. fsync is an act and does nothing: only
a loss of power could tell, and that is played by `power`.
"""

import builtins
import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

CHANGES = ("create", "write", "fsync", "replace", "link", "unlink", "mkdir", "rmdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_REAL = {name: getattr(os, name) for name in ("replace", "link", "unlink", "mkdir", "rmdir", "open", "close", "pwrite")}
_REAL_OPEN = io.open


class Act(NamedTuple):
    """One call. Paths are relative to the folder, `.` for itself; `file` numbers opened files, which may be renamed."""

    kind: str  # one of CHANGES, or `open`: for reading
    path: str
    target: str = ""  # of replace and link
    file: int = -1  # of create, write and fsync; -1 of fsync: of a folder
    offset: int = 0
    data: bytes = b""


class _Opened(NamedTuple):
    path: str
    file: int


class Disk:
    """While entered, calls `judge` with every act below `root` before it happens; what that raises keeps it from it.

    Below `sources` only opening is told. Paths must be absolute and without links.
    """

    def __init__(self, root: Path, sources: Path, judge: Callable[[Act], None]) -> None:
        self.root, self.sources, self.judge = str(root), str(sources), judge
        self.opened: dict[int, _Opened] = {}  # by descriptor
        self.files = 0
        self.created: dict[str, int] = {}  # number of the last file opened for writing, by the path it had then

    def __enter__(self) -> "Disk":
        with ExitStack() as stack:
            for name, call in (
                ("rename", "replace"),
                ("remove", "unlink"),
                ("fsync", "fsync"),
                *zip(_REAL, _REAL, strict=True),
            ):
                stack.enter_context(mock.patch.object(os, name, getattr(self, call)))
            for module in (io, builtins):
                stack.enter_context(mock.patch.object(module, "open", self.open_file))
            self._patches = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def inside(self, path: Any, folder: int | None = None) -> str | None:
        """The path below the root; None if it is not there."""
        text = os.fsdecode(os.fspath(path))
        if folder is not None:
            return f"{self.opened[folder].path}/{text}" if folder in self.opened else None
        if text == self.root:
            return "."
        return text.removeprefix(f"{self.root}/") if text.startswith(f"{self.root}/") else None

    def replace(self, source: Any, target: Any) -> None:
        self._two("replace", source, target)

    def link(self, source: Any, target: Any) -> None:
        self._two("link", source, target)

    def _two(self, kind: str, source: Any, target: Any) -> None:
        one, other = self.inside(source), self.inside(target)
        assert (one is None) == (other is None), f"{kind} from {source} to {target}"
        if one is not None and other is not None:
            self.judge(Act(kind, one, other))
        _REAL[kind](source, target)

    def unlink(self, path: Any, **named: Any) -> None:
        self._one("unlink", path, os.path.lexists(path), **named)

    def mkdir(self, path: Any, *rest: Any, **named: Any) -> None:
        self._one("mkdir", path, not os.path.lexists(path), *rest, **named)

    def rmdir(self, path: Any, **named: Any) -> None:
        self._one("rmdir", path, True, **named)

    def _one(self, kind: str, path: Any, changes: bool, *rest: Any, **named: Any) -> None:
        inside = self.inside(path)
        if changes and inside is not None:
            self.judge(Act(kind, inside))
        _REAL[kind](path, *rest, **named)

    def fsync(self, handle: int) -> None:
        if handle in self.opened:
            path, file = self.opened[handle]
        else:
            # Opened for reading, which is enough to sync what was written through another descriptor.
            path = self.inside(os.readlink(f"/proc/self/fd/{handle}")) or ""
            file = self.created[path]
        self.judge(Act("fsync", path, file=file))

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside = self.inside(path, dir_fd)
        file = self._judge_opening(path, inside, bool(flags & _WRITING))
        handle: int = _REAL["open"](path, flags, mode, dir_fd=dir_fd)
        if inside is not None:
            self.opened[handle] = _Opened(inside, file)
        return handle

    def close(self, handle: int) -> None:
        self.opened.pop(handle, None)
        _REAL["close"](handle)

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        def put(part: Any) -> int:
            written: int = _REAL["pwrite"](handle, part, offset)
            return written

        return self.write(self.opened[handle], data, offset, put) if handle in self.opened else put(data)

    def write(self, opened: _Opened, data: Any, offset: int, put: Callable[[Any], int]) -> int:
        """One write, all of it or half."""
        content = bytes(data)
        try:
            self.judge(Act("write", opened.path, file=opened.file, offset=offset, data=content))
        except BaseException:
            put(content[: len(content) // 2])
            raise
        return put(content)

    def open_file(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        """Stands for the built-in `open`; files written below the root are unbuffered behind a buffer of our own."""
        writing = not set(mode).isdisjoint("wax+")
        if isinstance(file, int):
            opened = self.opened.get(file)
            if opened is None or not writing:
                return _REAL_OPEN(file, mode, buffering, *rest, **named)
            return io.BufferedWriter(_Raw(self, file, opened, "wb"))
        inside = self.inside(file)
        number = self._judge_opening(file, inside, writing)
        if inside is None or not writing:
            return _REAL_OPEN(file, mode, buffering, *rest, **named)
        binary = mode.replace("t", "").replace("b", "") + "b"
        buffer = io.BufferedWriter(_Raw(self, file, _Opened(inside, number), binary))
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *rest, **named)

    def _judge_opening(self, path: Any, inside: str | None, writing: bool) -> int:
        """Number of the file if it is opened for writing."""
        if inside is not None and writing:
            self.files += 1
            self.judge(Act("create", inside, file=self.files))
            self.created[inside] = self.files
            return self.files
        if inside is not None or str(path).startswith(self.sources):
            self.judge(Act("open", inside or str(path)))
        return -1


class _Raw(io.FileIO):
    def __init__(self, disk: Disk, file: Any, opened: _Opened, mode: str) -> None:
        super().__init__(file, mode)
        self._disk, self._opened = disk, opened
        disk.opened[self.fileno()] = opened

    def write(self, data: Any) -> int:
        return self._disk.write(self._opened, data, self.tell(), super().write)

    def close(self) -> None:
        if not self.closed:
            self._disk.opened.pop(self.fileno(), None)
        super().close()
