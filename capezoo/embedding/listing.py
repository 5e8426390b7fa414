"""Which recordings lie in files, folders, archives and buckets, found by content, in the order of their paths."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ecgcohorts.errors import RecordingError, SourceError, UnreadableRecording
from ecgcohorts.ingest.classify import ARRAYS, HDF5, Census
from ecgcohorts.ingest.content import NUMPY, Kind
from ecgcohorts.io.buckets import is_url
from ecgcohorts.readers import Reader, files_beside, open_reader
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.sources import Source, open_source
from ecgcohorts.sources.windows import Beside, at_hand

# Recordings; our default: 15 MB of windows of 12 leads and 10 s.
TOGETHER = 64
# Readers whose files may hold thousands of recordings.
_MANY = (HDF5, ARRAYS)


class Item(NamedTuple):
    """A file to read, or some of its recordings."""

    source: int  # place among the sources
    reader: str
    path: str  # inside the source
    entries: tuple[str, ...] | None = None  # None: all
    is_described: bool = False  # an array that says nothing of itself, read as the caller describes it


class Refusal(NamedTuple):
    """A recording, or a file, without an embedding, and why. May repeat text of a header."""

    file: str
    entry: str
    reason: str
    found: str
    expected: str
    what_to_do: str

    @classmethod
    def by(cls, error: RecordingError, file: str, entry: str = "") -> "Refusal":
        return cls(file, entry, str(error.reason), str(error.found), str(error.expected), str(error.remedy))


@dataclass
class Listing:
    """Recordings of several sources. others: files that are no recordings, by what they are."""

    sources: list[Source] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the sources, as given, with what joins them to a path
    items: list[Item] = field(default_factory=list)
    arrays: ArrayDescription | None = None  # of bare arrays
    unreadable: list[Refusal] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    _seen: set[tuple[str, str]] = field(default_factory=set)  # folder or address of a source, and path in it

    def reader(self, item: Item) -> Reader:
        """The reader of a file."""
        return open_reader(item.reader, self.arrays if item.is_described else None)

    def beside(self, item: Item) -> Beside:
        """What lists the further files that it opens."""
        return files_beside(item.reader, self.arrays if item.is_described else None)

    def file(self, item: Item) -> str:
        """The name of a file as the one who gave the sources would write it."""
        return _as_text(self.names[item.source] + item.path)

    def new(self, source: Source, paths: Sequence[str]) -> list[str]:
        """Return those paths in a source that no earlier source held, and remember them."""
        where = os.path.realpath(source.folder) if source.folder else source.address
        fresh = [path for path in paths if (where, path) not in self._seen]
        self._seen.update((where, path) for path in fresh)
        return fresh

    @property
    def tasks(self) -> list[tuple[Item, ...]]:
        """The items in portions of at most TOGETHER recordings, as far as that is known without reading."""
        found: list[list[Item]] = []
        room = 0
        for item in self.items:
            size = len(item.entries) if item.entries else 1
            if size > room:
                found.append([])
                room = TOGETHER
            found[-1].append(item)
            room -= size
        return [tuple(task) for task in found]


def listing(
    sources: Sequence[str | Path],
    held: ExitStack,
    arrays: ArrayDescription | None = None,
    tell: Callable[[int], None] | None = None,
) -> Listing:
    """Find the recordings of some sources, each file once where these overlap; `held` closes them.

    arrays: how to read .npy files that no manifest describes. tell: told how many files were looked at. Raises SourceError for a source that is not there, and if there is no recording in any.
    """
    found = Listing(arrays=arrays)
    for source in sources:
        for opened, name, only in _opened(source, held):
            _add(found, opened, name, only, tell)
    if not found.items:
        others = ", ".join(f"{count:,} {what}" for what, count in found.others.most_common()) or "nothing"
        first = ""
        if found.unreadable:
            one = found.unreadable[0]
            first = f" Of {len(found.unreadable):,} that cannot be read, {one.file}: found {one.found}."
        raise SourceError(
            f"{', '.join(map(str, sources[:3]))}: found no recording ({others}), expected ECG files. "
            f"See `ecgcohorts inspect`.{first}"
        )
    return found


def _opened(source: str | Path, held: ExitStack) -> Iterator[tuple[Source, str, str | None]]:
    """Open a source: yield it, its name before a path in it, and the one file that is meant, if one is."""
    path = Path(source)
    if is_url(str(source)) or path.is_dir():
        opened = open_source(source)
        held.enter_context(opened)
        yield opened, f"{str(source).rstrip('/')}/", None
        return
    if not path.is_file():
        raise SourceError(f"{path}: found no such folder or file, expected the recordings. Check the path.")
    beside = open_source(path.parent)
    held.enter_context(beside)
    one = Census.take(beside, path.name)
    if one.of(Kind.ARCHIVE):
        opened = open_source(path)
        held.enter_context(opened)
        yield opened, f"{path}#", None
        return
    yield beside, f"{path.parent}/" if path.parent != Path() else "", path.name


def _add(found: Listing, source: Source, name: str, only: str | None, tell: Callable[[int], None] | None) -> None:
    census = Census.take(source, only, tell)
    place = len(found.sources)
    found.sources.append(source)
    found.names.append(name)
    files: list[Item] = []
    for kind in Kind:
        for each, of_it in census.of(kind):
            paths = found.new(source, of_it)
            if kind is Kind.UNKNOWN:
                found.unreadable += [
                    Refusal(
                        _as_text(name + path),
                        "",
                        each.reason or "unknown_format",
                        each.what,
                        "an ECG file",
                        "See `ecgcohorts formats`.",
                    )
                    for path in paths
                ]
            elif kind is Kind.ARRAY and found.arrays is not None and each == NUMPY:
                files += [Item(place, ARRAYS, path, is_described=True) for path in paths]
            elif kind is Kind.RECORDING:
                files += [Item(place, each.what, path) for path in paths]
            elif kind is not Kind.PART:
                found.others[f"{kind.value}: {each.what}"] += len(paths)
    for item in sorted(files, key=lambda item: item.path):
        found.items += _items(found, item) if item.reader in _MANY else [item]


def _as_text(name: str) -> str:
    """Return a name that every table can hold: bytes of it that are no UTF-8 become such as \\xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _items(found: Listing, whole: Item) -> list[Item]:
    """Return the recordings of a file of many, some at a time; the file itself if its headers cannot be read."""
    source = found.sources[whole.source]
    try:
        with closing(at_hand(source, [(whole.path, None)], found.beside(whole))) as files:
            path = next(files)
            if isinstance(path, UnreadableRecording):
                raise path
            entries = [one.source.entry for one in found.reader(whole).scan(path) if one.source]
    except RecordingError as error:
        found.unreadable.append(Refusal.by(error, found.file(whole)))
        return []
    # A file of one recording need not name it.
    if len(entries) < 2 or len(set(entries)) < len(entries):
        return [whole]
    return [whole._replace(entries=tuple(entries[at : at + TOGETHER])) for at in range(0, len(entries), TOGETHER)]
