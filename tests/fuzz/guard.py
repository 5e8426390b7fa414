"""Watch and limit code that reads hostile files: what it opens, starts and changes, how long and how much memory.

The watch is an audit hook. It sees what Python opens; a C library that opens files itself (HDF5) goes past it.
"""

import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ecgcohorts

MEGABYTE = 1 << 20
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OPENING = ("open", "os.listdir", "os.scandir")
# Whatever of these a reader does is wrong. Prefixes end in a dot.
_FORBIDDEN_PREFIXES = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "shutil.", "tempfile.", "pty.")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_FORBIDDEN = {
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.utime", "os.chdir", "os.kill", "os.putenv", "pickle.find_class"),
}


class TookTooLong(BaseException):
    """Not an Exception: no reader may take it for a damaged file."""


class Watch:
    """Notes every forbidden act between `start` and `stop`. There is one a process: audit hooks stay for good."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.allow_processes = False
        self._folder = ""
        self._also: tuple[str, ...] = ()
        self._active = False
        self._code = _code_folders()
        sys.addaudithook(self._hook)

    def start(self, folder: Path, also: tuple[Path, ...] = ()) -> None:
        """From now on only `folder`, the paths of `also` and installed code may be opened, and only for reading."""
        self._folder, self._also = os.path.realpath(folder), tuple(map(str, also))
        self.acts = []
        self._active = True

    def stop(self) -> list[str]:
        self._active = False
        return self.acts

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        self._active = False  # looking at paths must not call us again
        try:
            act = self._judge(event, arguments)
        finally:
            self._active = True
        if act:
            self.acts.append(act)
            raise PermissionError(f"a reader must not do this: {act}")

    def _judge(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event in _PROCESSES:
            return "" if self.allow_processes else f"{event} {arguments!r:.200}"
        if event in _FORBIDDEN or event.startswith(_FORBIDDEN_PREFIXES):
            return "" if self.allow_processes else f"{event} {arguments!r:.200}"
        if event not in _OPENING or isinstance(arguments[0], int):
            return ""
        path = os.fsdecode(arguments[0] or ".")
        mode, flags = arguments[1:3] if event == "open" else ("r", 0)
        if (isinstance(mode, str) and not set(mode).isdisjoint("wax+")) or (flags or 0) & _WRITING:
            return "" if self.allow_processes else f"{event} for writing {path!r}"
        return "" if self._may_read(path, flags or 0) else f"{event} {path!r}"

    def _may_read(self, path: str, flags: int) -> bool:
        # A bare name may be relative to an open folder, which was judged when it was opened.
        if path in self._also or (os.sep not in path and path not in ("..", ".")):
            return True
        follows = not flags & os.O_NOFOLLOW
        place = os.path.realpath(path) if follows else os.path.normpath(os.path.abspath(path))
        return any(place == folder or place.startswith(folder + os.sep) for folder in (self._folder, *self._code))


def _code_folders() -> tuple[str, ...]:
    """Where installed code lies, and what the interpreter itself looks at."""
    installed = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}
    own = str(Path(ecgcohorts.__file__).parent)
    plugins = {entry for entry in sys.path if "site-packages" in entry}
    folders = {os.path.realpath(folder) for folder in (*installed, own, *plugins)}
    return (*folders, "/proc", "/dev/null")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the block after so many seconds on the clock."""

    def ring(*_: object) -> None:
        raise TookTooLong(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory(more_bytes: int) -> None:
    """Let this process take so much more address space than it has now."""
    now = _status_bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, now + more_bytes))


def peak_bytes() -> int:
    """Most memory ever resident. A forked process starts from what it shares with its parent."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)
