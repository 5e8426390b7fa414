"""Real limits instead of played ones: a full disk, files that may not grow, too few open files."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpus import Corpus, clear
from trials import Reference, afterwards, complaints

import ecgcohorts as ec

FILE_BYTES = tuple(round(200 * 1.5**step) for step in range(18))  # 200 B to 200 kB
MORE_FILES = tuple(range(0, 20))  # beyond those open already
DISK_PAGES = tuple(range(2, 220, 6))  # of 4 kB, beyond what is there at the start


def run_limited(corpus: Corpus, reference: Reference, kind: str, amount: int, work: Path) -> list[str]:
    """Run a command under a limit, then without; it may fail the first time, with an EcgError of one line."""
    with LIMITS[kind](corpus, reference, amount, work):
        problems = complaints(lambda: reference.command.run(corpus, work))
    try:
        return problems + afterwards(corpus, reference, (reference.before, reference.after), work)
    finally:
        if os.path.ismount(work):
            subprocess.run(["umount", "--lazy", str(work)], check=True)


@contextmanager
def _file_size(corpus: Corpus, reference: Reference, amount: int, work: Path) -> Iterator[None]:
    corpus.fresh(reference.command.start, work)
    with _limited(resource.RLIMIT_FSIZE, amount):
        yield


@contextmanager
def _open_files(corpus: Corpus, reference: Reference, amount: int, work: Path) -> Iterator[None]:
    corpus.fresh(reference.command.start, work)
    if reference.before:
        ec.open(work / "s.zarr")  # what is imported late has been, when files run out
    with _limited(resource.RLIMIT_NOFILE, amount + len(os.listdir("/dev/fd")) - 1):
        yield


@contextmanager
def _limited(what: int, amount: int) -> Iterator[None]:
    before, most = resource.getrlimit(what)
    resource.setrlimit(what, (amount, most))
    try:
        yield
    finally:
        resource.setrlimit(what, (before, most))


@contextmanager
def _disk(corpus: Corpus, reference: Reference, amount: int, work: Path) -> Iterator[None]:
    mount(work, "64m")
    shutil.copytree(corpus.place / reference.command.start, work, dirs_exist_ok=True)
    used = os.statvfs(work)
    pages = used.f_blocks - used.f_bfree + amount
    subprocess.run(["mount", "-o", f"remount,size={pages * used.f_frsize}", str(work)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,size=64m", str(work)], check=True)


def mount(folder: Path, size: str) -> None:
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, stderr=subprocess.DEVNULL
    )


def can_mount(folder: Path) -> bool:
    """May this user make a small disk of memory?"""
    try:
        mount(folder, "1m")
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", str(folder)], check=True)
        clear(folder)
    return True


LIMITS = {"bytes a file": _file_size, "open files": _open_files, "bytes on the disk": _disk}
