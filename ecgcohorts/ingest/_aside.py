"""A file that names paths of the input, while it is written beside its place: a killed writer's must not stay."""

import contextlib
import fcntl
import glob
import os
from pathlib import Path

from ecgcohorts.io.durable import name_aside

_OWNER_ONLY = 0o600


def _open_aside(path: Path) -> tuple[Path, int]:
    """Return a new file beside `path`, open for writing, and locked until it is closed."""
    while True:
        aside = name_aside(path)
        # The mode is given at creation: between an open() and a chmod() others could read the paths.
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another writer may have taken it for a dead one's before it was locked.
        if aside.exists():
            return aside, handle
        os.close(handle)


def _drop_unfinished(path: Path) -> None:
    """Delete what killed writers of a file left beside it, which names the paths of the input. The living hold a lock."""
    for aside in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with contextlib.suppress(OSError), aside.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.unlink()
