"""Bring files here a window of recordings at a time, the next window while this one is read."""

import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from ecgcohorts.errors import RecordingError, SourceError, UnreadableRecording
from ecgcohorts.io.globs import any_of
from ecgcohorts.sources.scratch import no_room
from ecgcohorts.sources.source import Source

WINDOW = 64  # recordings; our default: two windows are on disk at a time, 30 MB of ten-second ECGs

Wanted = tuple[str, Sequence[str] | None]  # path, and entries in it; None: all
# A reader's answer to: which other files, by name or glob, in the folder of a file that is here, does it need?
Beside = Callable[[Path, Sequence[str] | None], Iterable[str]]


def at_hand(
    source: Source, wanted: Iterable[Wanted], beside: Beside
) -> Generator[Path | UnreadableRecording, None, None]:
    """Yield each wanted file, in a folder where the files that it needs stand beside it, or why it cannot be had.

    A file stays until the next one is asked for. A file that the source does not have is simply missing there. Raises
    EcgError if the source itself cannot be read.
    """
    if source.folder is not None:
        yield from (source.folder / path for path, _ in wanted)
        return
    windows = _Windows(source, wanted, beside)
    try:
        while (window := windows.next()) is not None:
            yield from window.files
    finally:
        windows.close()


@contextmanager
def local(source: Source, names: Iterable[str]) -> Iterator[Path]:
    """Give a folder that holds those of the named files that the source has. Raises SourceError for a damaged one."""
    if source.folder is not None:
        yield source.folder
        return
    folder = source.scratch.new_folder()
    try:
        for problem in source.fetch(names, folder).values():
            raise SourceError(f"{source}: found {problem.found}, expected {problem.expected}. {problem.remedy}")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Window:
    """Up to 64 recordings, whose files are brought into one folder."""

    def __init__(self, folder: Path, wanted: list[Wanted]) -> None:
        self.folder, self.wanted = folder, wanted
        self.names: set[str] = set()  # asked for
        self.files: list[Path | UnreadableRecording] = []


class _Windows:
    """Two windows: the caller reads one while a thread fills the other."""

    def __init__(self, source: Source, wanted: Iterable[Wanted], beside: Beside) -> None:
        self._source, self._left, self._beside = source, iter(wanted), beside
        self._thread = ThreadPoolExecutor(1)
        self._now: _Window | None = None
        self._coming: Future[_Window] | None = None
        self._begin()

    def next(self) -> _Window | None:
        before, self._now = self._now, None
        if self._coming is not None:
            self._now = self._coming.result()
            self._coming = None
        _remove(before)
        if self._now is not None:
            self._begin()
        return self._now

    def close(self) -> None:
        self._thread.shutdown()
        if self._coming is not None and self._coming.exception() is None:
            _remove(self._coming.result())
        _remove(self._now)

    def _begin(self) -> None:
        # Taken here and not in the thread: `wanted` may be a generator that reads from a file of the caller's.
        wanted = list(islice(self._left, WINDOW))
        if wanted:
            self._coming = self._thread.submit(self._make, wanted, self._now)

    def _make(self, wanted: list[Wanted], before: _Window | None) -> _Window:
        window = _Window(self._source.scratch.new_folder(), wanted)
        try:
            self._fill(window, before)
        except BaseException:
            _remove(window)
            raise
        return window

    def _fill(self, window: _Window, before: _Window | None) -> None:
        """Fetch the files themselves, then what they say they need, until they name nothing new."""
        # In rounds, each fetched at once: one header names its segments, these name their signal files.
        needs = [{path} for path, _ in window.wanted]
        failed: dict[str, UnreadableRecording] = {}
        while new := set().union(*needs) - window.names:
            window.names |= new
            failed |= self._source.fetch(sorted(new - _kept(before, new, window.folder)), window.folder)
            for (path, entries), names in zip(window.wanted, needs, strict=True):
                if path not in failed:
                    names |= self._names_beside(window.folder, path, entries)
        for (path, _), names in zip(window.wanted, needs, strict=True):
            problem = next((failed[name] for name in sorted(names) if name in failed), None)
            window.files.append(window.folder / path if problem is None else problem)

    def _names_beside(self, folder: Path, path: str, entries: Sequence[str] | None) -> set[str]:
        below = path[: path.rfind("/") + 1]
        try:
            found = list(self._beside(folder / path, entries))
        # A file that cannot be read names nothing. Its reader meets it again and says why.
        except RecordingError:
            return set()
        globs = [name for name in found if set(name) & {"*", "?"}]
        names = {below + name for name in found if name not in globs}
        return names | set(self._source.names(any_of(globs, below), below)) if globs else names


def _kept(before: _Window | None, new: set[str], folder: Path) -> set[str]:
    """Keep files of the window before that are wanted again: a file of many recordings is not fetched for each."""
    # By hard links: the window before is removed as a whole, and its files live on here.
    kept = set() if before is None else new & before.names
    for name in sorted(kept):
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            assert before is not None
            os.link(before.folder / name, folder / name)
        except FileNotFoundError:
            kept.remove(name)  # it was not there, and may not be now
        except OSError as error:
            raise no_room(error) from None
    return kept


def _remove(window: _Window | None) -> None:
    if window is not None:
        shutil.rmtree(window.folder, ignore_errors=True)
