"""Find the files of a cohort: which of its layouts they have, and what their headers say."""

import contextlib
import errno
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from ecgcohorts import plugins
from ecgcohorts.cohorts.schema import Layout, Windows
from ecgcohorts.cohorts.windows import _in_windows
from ecgcohorts.errors import (
    MachineError,
    Reason,
    RecordingError,
    SourceError,
    UnreadableRecording,
    is_of_machine,
    machine_error,
)
from ecgcohorts.readers import KIND, Reader, files_beside, open_reader
from ecgcohorts.recording import Recording
from ecgcohorts.sources import Archive, Source
from ecgcohorts.sources.names import fault_of
from ecgcohorts.sources.windows import Wanted, at_hand


@dataclass(frozen=True)
class SourceItem:
    """One recording to be read: path below SRC, entry inside that file, and its header or why it has none."""

    path: str  # posix
    entry: str = ""
    header: Recording | None = field(default=None, repr=False)
    error: RecordingError | None = field(default=None, repr=False)
    state: str = field(default="", repr=False)  # changes whenever one of its files does

    @property
    def whole(self) -> str:
        """The entry of the whole recording, of which this may be a window."""
        return self.entry.removesuffix(self.window)

    @property
    def window(self) -> str:
        """The end of `entry` that names a window of a long recording; empty for a whole one."""
        return Windows.named(self.entry)

    @property
    def location(self) -> str:
        """`path`, or `path#entry` in a file of several recordings; without the window."""
        return f"{self.path}#{self.whole}" if self.whole else self.path

    @property
    def stem(self) -> str:
        """`location` without the suffix of the file, with the window: unique below SRC."""
        name = without_suffix(self.path)
        return f"{name}#{self.entry}" if self.whole else f"{name}{self.entry}"


def without_suffix(path: str) -> str:
    """Cut the suffix of a posix path, as pathlib does but several times as fast.

    >>> without_suffix("a.b/1.hea"), without_suffix("a.b/1"), without_suffix("a/.b"), without_suffix("a/1.")
    ('a.b/1', 'a.b/1', 'a/.b', 'a/1.')
    """
    dot = path.rfind(".")
    return path[:dot] if path.rfind("/") + 1 < dot < len(path) - 1 else path


class Found(NamedTuple):
    """A layout, and the source in which it has files; of an archive, that may be its one top folder."""

    layout: Layout
    source: Source

    @classmethod
    def among(cls, layouts: Sequence[Layout], source: Source) -> Self:
        """Find the one layout that has files in the source; a fallback only where no other layout has any.

        If all files of an archive stand below one top folder, and a layout has files there, that folder is the source.
        Raises SourceError for no layout, or several.
        """
        top = source.top_folder() if isinstance(source, Archive) else None
        # A published archive usually holds one folder, named after the release; layouts start below it.
        if isinstance(source, Archive) and top is not None and (found := _fitting(layouts, source.inside(top))):
            source = source.inside(top)
        else:
            found = _fitting(layouts, source)
        if not found:
            raise _no_files(layouts, source)
        found = [layout for layout in found if not layout.fallback] or found
        if len(found) > 1:
            names = " and ".join(layout.name for layout in found)
            raise SourceError(
                f"{source}: there are files of the layouts {names}, expected files of one. Take one after the other, with "
                f"--cohort NAME#{found[0].name} (several formats in docs/cohorts.md), or name the folder of one of them."
            )
        return cls(found[0], source)

    @staticmethod
    def reader_of(layout: Layout) -> Reader:
        """Return the reader of a layout's files, of windows where the layout asks for them."""
        return _in_windows(open_reader(layout.reader, layout.arrays), layout.windows)

    def listed(self, paths: Sequence[str]) -> list[str]:
        """Return those of some paths, below the source or absolute, that this layout reads, in order.

        Raises SourceError, with a number instead of the path, for one that is not there, and if there is none.
        """
        pattern, folder = self.layout.files.pattern(), self.source.folder
        found = set()
        for number, path in enumerate(paths, 1):
            name = path
            if folder is not None and os.path.isabs(path):
                name = os.path.relpath(path, folder)
            name = posixpath.normpath(name)
            if (folder is not None and not os.path.lexists(folder / name)) or name.startswith(("/", "../")):
                raise SourceError(f"{self.source}: found no file of the name in line {number}. Give paths below it.")
            # A list of all that is new names signal files and tables as well.
            if pattern.fullmatch(name):
                found.add(name)
        if not found:
            wanted = ", ".join(self.layout.files.include)
            raise SourceError(
                f"{self.source}: found {len(paths)} files in the list, but none like {wanted}. Correct it."
            )
        return sorted(found)

    def paths(self, only: Iterable[str] | None = None, skip: Callable[[str, str], bool] | None = None) -> Iterator[str]:
        """Yield the paths of files that the layout reads, sorted.

        only: paths to look at instead of all. skip: told path and state of a file, says whether it is left closed.
        """
        pattern = self.layout.files.pattern()
        if skip is None:
            yield from self.source.names(pattern) if only is None else only
            return
        for names in (
            self._with_namesakes(pattern) if only is None else ((path, *self._namesakes(path)) for path in only)
        ):
            for path in names:
                if pattern.fullmatch(path):
                    alike = set(self._namesakes(path)).intersection(names)
                    if not skip(path, self._state(path, Path(self.source.folder or "", path), alike)):
                        yield path

    def _namesakes(self, path: str) -> tuple[str, ...]:
        """Return what the other files of a recording are called where they are named like this one."""
        suffixes = () if self.layout.arrays else getattr(plugins.load(KIND, self.layout.reader), "BESIDE", ())
        return tuple(without_suffix(path) + suffix for suffix in suffixes)

    def _with_namesakes(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, ...]]:
        """Yield the files of the layout, each together with the files that are named like it."""
        # From the listing: to ask a bucket for each of them would take a request for every known recording.
        suffixes = "|".join(re.escape(suffix) for suffix in self._namesakes(""))
        wanted = re.compile(f"(?:{pattern.pattern})|.*(?:{suffixes})", re.DOTALL) if suffixes else pattern
        alike: list[str] = []
        for name in self.source.names(wanted):
            # Paths are sorted, so those of one stem stand in one run of paths that begin with it.
            if alike and not name.startswith(f"{without_suffix(alike[0])}."):
                yield tuple(alike)
                alike = []
            alike.append(name)
        yield tuple(alike)

    def state(self, path: str, file: Path, beside: Iterable[str] = ()) -> str:
        """Describe a file, and the others that its recording is read from, so that a change of any shows.

        beside: their names, in the folder of the file. Raises OSError if the file itself is gone.
        """
        below = path[: path.rfind("/") + 1]
        return self._with_others(path, file, [below + name for name in beside])

    def _with_others(self, path: str, file: Path, others: Iterable[str]) -> str:
        found = [self.source.state(path, file)]
        for name in sorted(set(others)):
            with contextlib.suppress(OSError):  # not there
                if fault_of(name) is None and (state := self.source.state(name, file)):
                    found.append(f"{name} {state}")
        return "\0".join(found)

    def _state(self, path: str, file: Path, others: Iterable[str]) -> str:
        try:
            return self._with_others(path, file, others)
        except OSError:  # a link that leads nowhere
            return ""

    def scan(self, paths: Iterable[str] | None = None) -> Iterator[SourceItem]:
        """Yield one item per recording of some files, or of all, in the order of paths and of entries inside a file.

        Payloads are not read.
        """
        layout, source = self
        reader = self.reader_of(layout)
        # A scan opens headers only: of an archive or a bucket, nothing else is fetched.
        beside = files_beside(layout.reader, layout.arrays, samples=False)
        # `at_hand` asks for names ahead of the file that it yields; those between wait here.
        ahead: deque[str] = deque()

        def wanted() -> Iterator[Wanted]:
            for path in self.paths() if paths is None else paths:
                ahead.append(path)
                yield path, None

        for file in at_hand(source, wanted(), beside):
            path = ahead.popleft()
            if isinstance(file, UnreadableRecording):
                yield SourceItem(path, error=file)
                continue
            trouble: MachineError | None = None
            state, asked, below = "", None, path[: path.rfind("/") + 1]
            try:
                for header in reader.scan(file):
                    others = [below + name for name in header.source.beside] if header.source else []
                    if others != asked:  # once, where a file has thousands of recordings
                        state, asked = self._state(path, file, others), others
                    entry = header.source.entry if header.source else ""
                    if entry.removesuffix(Windows.named(entry)) in layout.files.exclude_entries:
                        continue
                    yield SourceItem(path, entry, header, state=state)
            except RecordingError as error:
                # It was listed a moment ago: the mount went away, or somebody is moving files.
                if error.reason is Reason.MISSING_FILE and not os.path.lexists(file):
                    trouble = machine_error(str(source), FileNotFoundError(errno.ENOENT, ""))
                else:
                    yield SourceItem(path, error=error, state=self._state(path, file, self._namesakes(path)))
            except Exception as error:  # one strange file must not end the scan of 100,000
                if isinstance(error, MemoryError | OSError) and is_of_machine(error):
                    trouble = machine_error(str(source), error)
                else:
                    unexpected = UnreadableRecording(
                        Reason.UNEXPECTED, type(error).__name__, f"a {layout.reader} file", "Look at this file.", path
                    )
                    unexpected.__cause__ = error
                    yield SourceItem(path, error=unexpected, state=self._state(path, file, self._namesakes(path)))
            if trouble is not None:
                raise trouble  # out here: as its context, the first error would still name paths


def _fitting(layouts: Sequence[Layout], source: Source) -> list[Layout]:
    """Return the layouts that have files, in one pass over the names that ends when all of them are found."""
    left = {place: layout.files.pattern() for place, layout in enumerate(layouts)}
    found = set()
    # One pattern for all layouts, so that an archive or a bucket is listed once.
    everything = re.compile("|".join(f"(?:{pattern.pattern})" for pattern in left.values()), re.DOTALL)
    for name in source.names(everything):
        met = {place for place, pattern in left.items() if pattern.fullmatch(name)}
        found |= met
        left = {place: pattern for place, pattern in left.items() if place not in met}
        if not left:
            break
    return [layouts[place] for place in sorted(found)]


def _no_files(layouts: Sequence[Layout], source: Source) -> SourceError:
    wanted = " or ".join(", ".join(layout.files.include) for layout in layouts)
    # The folder they share tells whether the folder that was named is too high or too low.
    count, common = 0, ""
    for count, name in enumerate(source.names(), 1):
        folder = posixpath.dirname(name)
        common = folder if count == 1 else posixpath.commonpath([common, folder])
    where = f" (all below {common})" if common else ""
    return SourceError(
        f"{source}: found {count} files{where}, but none like {wanted}. Name the folder that holds the recordings, "
        "or another cohort."
    )
