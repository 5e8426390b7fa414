"""Write so that a power cut leaves the old file or the new one, never half of either.

`tests/faults/power.py` checks that against what a crash may leave of a recorded run.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ecgcohorts.errors import machine_error

_BLOCK = 1 << 20


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by `data` whole: temporary file in the same folder, flush, fsync, rename, fsync the folder."""
    make_folder(path.parent)
    # In the same folder, because a rename is atomic only within one file system.
    aside = name_aside(path)
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Content first, name second: a rename that reaches the disk before its content would show an empty file.
        os.replace(aside, path)
    except OSError:
        drop(aside)
        raise
    sync_folder(path.parent)


def drop(path: Path) -> None:
    """Delete a half-written file after an error, to make room on a full disk. If that fails, the next write does it."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def machine_errors(where: Path) -> Iterator[None]:
    """Raise MachineError where a call fails: a full or failing disk, too many open files."""
    try:
        yield
    except OSError as error:
        raise machine_error(str(where), error) from None


def move_file(source: Path, target: Path) -> None:
    """Rename a file whose content is on disk already, within one file system, durably."""
    make_folder(target.parent)
    os.replace(source, target)
    sync_folder(target.parent)


def name_aside(path: Path) -> Path:
    """Return a new name beside `path` for a file while it is being written."""
    # Random, because a process left over from a killed run may still be writing under the name it chose.
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durable."""
    # A file is lost together with a folder whose own entry in its parent was never synced.
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make durable what was renamed, made or deleted in a folder."""
    # An fsync of the file alone does not bring its entry in the folder to the disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal, in bounded memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all, durably, in bounded memory."""
    make_folder(target.parent)
    aside = name_aside(target)
    try:
        # Synced through a second descriptor: fsync is about the file, whoever wrote it.
        shutil.copyfile(source, aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(target.parent)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk knows no links; durable when this returns."""
    make_folder(target.parent)
    try:
        os.link(source, target)
    except OSError:  # exFAT, some network file systems
        copy_file(source, target)
    else:
        sync_folder(target.parent)
