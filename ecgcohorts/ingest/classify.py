"""Give every file of a source one class, from its first bytes and its neighbours, never from its name alone.

A WFDB record is several files, so a header says which of its neighbours are signals; so does a manifest of arrays. The
first bytes of HDF5 do not say what it holds, so it is opened far enough to see its layout.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Self

from ecgcohorts.errors import Reason, RecordingError, SourceError, UnreadableRecording
from ecgcohorts.ingest.content import NO_FORMAT, TEXT, FileClass, Kind
from ecgcohorts.io.globs import any_of
from ecgcohorts.io.regular import open_regular, read_head
from ecgcohorts.plugins import load, names
from ecgcohorts.readers import HEAD_BYTES, KIND, files_beside, open_reader
from ecgcohorts.sources import Archive, Source
from ecgcohorts.sources.windows import at_hand, local

WFDB, HDF5, ARRAYS = "wfdb", "code_hdf5", "arrays"
WFDB_HEADER = ".hea"
NAMED_LIKE = "named like "  # and the name of a reader
_TELL_EVERY = 100  # files


@dataclass(frozen=True)
class Census:
    """Every file of a source, once, by class. Names are paths inside the source, sorted."""

    source: Source
    files: dict[FileClass, list[str]] = field(repr=False)
    left_out: dict[str, int] = field(default_factory=dict)  # of an archive: kind of entry that is no file -> how many

    @classmethod
    def take(cls, source: Source, only: str | None = None, tell: Callable[[int], None] | None = None) -> Self:
        """Give every file of a source its class.

        only: the one file to look at. tell: called with the number of files done. Raises SourceError if there is no file.
        """
        readers = {name: load(KIND, name) for name in names(KIND)}
        found: dict[FileClass, list[str]] = defaultdict(list)
        done = 0
        one: dict[str, FileClass | None] = {} if only is None else {only: None}
        for below, entries in [("", one)] if one else _folders(source):
            for name, each in _Siblings(source, below, readers).classes(entries):
                found[each].append(below + name)
                done += 1
                if tell is not None and done % _TELL_EVERY == 0:
                    tell(done)
        if not found:
            raise SourceError(f"{source}: there is no file in it. Check the path.")
        # Last, because a manifest may name files of folders that are visited after its own.
        _give_to_manifests(source, found)
        left_out = source.left_out if isinstance(source, Archive) else {}
        return cls(source, {each: sorted(paths) for each, paths in found.items()}, left_out)

    @property
    def n_files(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def recordings(self) -> dict[str, list[str]]:
        """Files by reader, the commonest first."""
        return {each.what: paths for each, paths in self.of(Kind.RECORDING)}

    def of(self, kind: Kind) -> list[tuple[FileClass, list[str]]]:
        """Return the classes of a kind, the commonest first."""
        found = [(each, paths) for each, paths in self.files.items() if each.kind is kind]
        return sorted(found, key=lambda pair: (-len(pair[1]), pair[0]))


_EMPTY = FileClass(Kind.UNKNOWN, "empty file")
_SIGNALS = FileClass(Kind.PART, "WFDB signals")
_SEGMENT = FileClass(Kind.PART, "WFDB header of a segment")
_ANNOTATIONS = FileClass(Kind.PART, "WFDB annotations")
_IN_MANIFEST = FileClass(Kind.PART, "array of a manifest")
_MANIFEST = FileClass(Kind.RECORDING, ARRAYS)


def _give_to_manifests(source: Source, found: dict[FileClass, list[str]]) -> None:
    """Move files that a manifest of arrays names, in its folder and below, to its parts. Changes `found`."""
    named = []
    for name in found.get(_MANIFEST, ()):
        with local(source, [name]) as folder, suppress(RecordingError):  # reading the manifest itself will report it
            named.append(any_of(files_beside(ARRAYS)(folder / name, None), name[: name.rfind("/") + 1]))
    for each in list(found):
        if named and each.kind in (Kind.TABLE, Kind.ARRAY, Kind.DOCUMENT):
            parts = {name for name in found[each] if any(globs.fullmatch(name) for globs in named)}
            found[_IN_MANIFEST] += sorted(parts)
            found[each] = [name for name in found[each] if name not in parts]
    for each in [each for each, paths in found.items() if not paths]:
        del found[each]


def _folders(source: Source) -> Iterator[tuple[str, dict[str, FileClass | None]]]:
    """Yield every folder, with a slash, and its files, with a class where the name or the kind of entry says enough."""
    if source.folder is not None:
        yield from _folders_below(source.folder)
        return
    files: dict[str, dict[str, FileClass | None]] = defaultdict(dict)
    for name in source.names():
        below, slash, last = name.rpartition("/")
        files[below + slash][last] = None
    yield from files.items()


def _folders_below(path: Path) -> Iterator[tuple[str, dict[str, FileClass | None]]]:
    # Of a folder on disk, hidden files and links are listed too, so that a person sees what ingest will leave out.
    def refuse(error: OSError) -> None:
        raise SourceError(f"{path}: a folder in it cannot be read ({error.strerror}). Give this user access.")

    for base, folders, files in os.walk(path, onerror=refuse):
        folder = Path(base)
        hidden = any(part.startswith(".") for part in folder.relative_to(path).parts)
        links = [name for name in folders if (folder / name).is_symlink()]
        # os.walk continues in this order, which is then the same on every file system.
        folders.sort()
        entries: dict[str, FileClass | None] = {}
        for name in (*files, *links):
            if (folder / name).is_symlink():
                entries[name] = FileClass(Kind.LINK, "to a folder" if name in links else "to a file")
            else:
                entries[name] = FileClass(Kind.HIDDEN, "file") if hidden or name.startswith(".") else None
        yield "" if folder == path else f"{folder.relative_to(path).as_posix()}/", entries


class _Siblings:
    """The files of one folder. Files that its WFDB headers name are parts of their records."""

    def __init__(self, source: Source, below: str, readers: dict[str, ModuleType]) -> None:
        self.source, self.below, self.readers = source, below, readers
        self.parts: dict[str, FileClass] = {}  # file name -> class, as headers say
        self.records: set[str] = set()

    def classes(self, entries: dict[str, FileClass | None]) -> Iterator[tuple[str, FileClass]]:
        found: dict[str, FileClass] = {}
        # Likely headers first: files that they name need not be opened.
        for is_likely in (True, False):
            todo = []
            for name in sorted(name for name in entries if name.endswith(WFDB_HEADER) is is_likely):
                part = self.parts.get(name)
                known = entries[name] or (part if part is not _SEGMENT else None)
                if known is None:
                    todo.append(name)
                else:
                    found[name] = known
            for name, path in self._at_hand(todo):
                part = self.parts.get(name)  # a header among `todo` may have named it
                found[name] = part if part is not None and part is not _SEGMENT else self._by_content(name, path)
        # Annotations have no magic number, so only unknown files with the name of a record are tried.
        odd = [name for name, each in found.items() if each is NO_FORMAT and name.rpartition(".")[0] in self.records]
        annotations = {name for name, path in self._at_hand(odd) if _is_annotation(path)}
        for name, each in found.items():
            is_header = each == FileClass(Kind.RECORDING, WFDB)
            part = self.parts.get(name)
            # A header that another header names as a signal stays a recording, unless it is a segment of that record.
            if part is not None and entries[name] is None and (not is_header or part is _SEGMENT):
                each = part
            elif name in annotations:
                each = _ANNOTATIONS
            yield name, each

    def _at_hand(self, names: list[str]) -> Iterator[tuple[str, Path | UnreadableRecording]]:
        wanted = [(self.below + name, None) for name in names]
        yield from zip(names, at_hand(self.source, wanted, lambda path, entries: ()), strict=True)

    def _by_content(self, name: str, path: Path | UnreadableRecording) -> FileClass:
        try:
            if isinstance(path, UnreadableRecording):
                raise path
            head = read_head(path, HEAD_BYTES)
        except RecordingError as error:
            return FileClass(Kind.UNKNOWN, f"{error.found}", error.reason.value)
        if not head:
            return _EMPTY
        fitting = [reader for reader, module in self.readers.items() if module.sniff(head)]
        if len(fitting) > 1:
            return FileClass(Kind.UNKNOWN, f"fits {' and '.join(fitting)}", Reason.FORMAT.value)
        if fitting and fitting[0] not in (WFDB, HDF5):
            return FileClass(Kind.RECORDING, fitting[0])
        found = FileClass.of_head(head, len(head) < HEAD_BYTES)
        # Columns of small numbers look like a WFDB header, too.
        if fitting == [WFDB] and found.kind is not Kind.ARRAY:
            self._note_parts(path)
            return FileClass(Kind.RECORDING, WFDB)
        if fitting == [HDF5]:
            return found if _refusal(HDF5, path) is Reason.FORMAT else FileClass(Kind.RECORDING, HDF5)
        return self._by_suffix(path) or found if found in (TEXT, NO_FORMAT) else found

    def _note_parts(self, header: Path) -> None:
        """Note the files that a header names."""
        self.records.add(header.stem)
        with suppress(RecordingError):  # a header that cannot be read names nothing
            for name in files_beside(WFDB)(header, None):
                if name != header.name:
                    self.parts[name] = _SEGMENT if name.endswith(WFDB_HEADER) else _SIGNALS

    def _by_suffix(self, path: Path) -> FileClass | None:
        """Ask the one reader that owns a suffix about a file whose first bytes no reader knows."""
        # HDF5 and YAML hold many things besides recordings, so their suffixes say nothing.
        owners = [name for name, module in self.readers.items() if path.suffix.casefold() in module.SUFFIXES]
        if len(owners) != 1 or owners[0] in (HDF5, ARRAYS):
            return None
        reason = _refusal(owners[0], path)
        if reason is not None:
            return FileClass(Kind.UNKNOWN, f"{NAMED_LIKE}{owners[0]}", reason.value)
        return FileClass(Kind.RECORDING, owners[0])


def _is_annotation(path: Path | UnreadableRecording) -> bool:
    """Tell whether a file can be MIT annotations: 16-bit words, the last of them zero. Source: annot(5)."""
    if isinstance(path, UnreadableRecording):
        return False
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-2, os.SEEK_END)
            return size % 2 == 0 and file.read(2) == b"\0\0"
    except (RecordingError, OSError):  # OSError: of one byte
        return False


def _refusal(reader: str, path: Path) -> Reason | None:
    """Return the reason for which a reader refuses the first header of a file, or None."""
    try:
        next(iter(open_reader(reader).scan(path)), None)
    except RecordingError as error:
        return error.reason
    # A strange file must not end the look at the others.
    except Exception:
        return Reason.UNEXPECTED
    return None
