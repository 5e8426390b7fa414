"""What every file of a source is: one class each, from its first bytes and its neighbours, never from its name alone.

A WFDB record is several files, so a header says which of its neighbours are signals; so does a manifest of arrays. HDF5
does not say in its first bytes what it holds: it is opened far enough to see its layout.
"""

import os
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ecgcohorts.errors import Reason, RecordingError, SourceError, UnreadableRecording
from ecgcohorts.ingest import text_files
from ecgcohorts.io.globs import any_of
from ecgcohorts.plugins import load, names
from ecgcohorts.readers import HEAD_BYTES, KIND, files_beside, open_reader
from ecgcohorts.readers._shared.files import Folder as OpenFolder
from ecgcohorts.readers._shared.files import read_head
from ecgcohorts.readers._xml.document import root_name
from ecgcohorts.sources import Archive, Folder, Source
from ecgcohorts.sources.windows import at_hand, local

WFDB, HDF5, ARRAYS = "wfdb", "code_hdf5", "arrays"
WFDB_HEADER = ".hea"
_TELL_EVERY = 100  # files

_GZIP = b"\x1f\x8b\x08"
_TAR = re.compile(rb".{257}ustar", re.DOTALL)
_MATLAB_4 = struct.Struct("<5i")  # type, rows, columns, complex, length of the name
_MATLAB_4_TYPES = frozenset(10 * storage + kind for storage in range(6) for kind in range(2))  # little-endian, no text
_HTML_ROOTS = frozenset(("html", "head", "body", "div", "p", "table", "title", "center", "script", "style"))
_HTML_TAGS = re.compile(r"<(?:html|body|div|p|table)\b", re.IGNORECASE)


class Kind(StrEnum):
    """What a file is good for. The order is that of the report."""

    RECORDING = "recording"
    PART = "part of a recording"
    TABLE = "table"
    ARRAY = "undescribed array"
    DOCUMENT = "documentation"
    ARCHIVE = "archive"
    LINK = "link, not followed"
    HIDDEN = "hidden, left out"
    UNKNOWN = "unknown or unreadable"


class FileClass(NamedTuple):
    """Kind, what it is in a few words (of a recording: the reader), and why it does not read."""

    kind: Kind
    what: str
    reason: str = ""


@dataclass(frozen=True)
class Census:
    """Every file of a source, once, by class. Names are paths in it, sorted."""

    source: Source
    files: dict[FileClass, list[str]] = field(repr=False)
    left_out: dict[str, int] = field(default_factory=dict)  # of an archive: what has no name there -> how many

    @property
    def n_files(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def recordings(self) -> dict[str, list[str]]:
        """Files by reader, the commonest first."""
        found = [(each.what, paths) for each, paths in self.files.items() if each.kind is Kind.RECORDING]
        return dict(sorted(found, key=lambda pair: (-len(pair[1]), pair[0])))

    def of(self, kind: Kind) -> list[tuple[FileClass, list[str]]]:
        """The classes of a kind, the commonest first."""
        found = [(each, paths) for each, paths in self.files.items() if each.kind is kind]
        return sorted(found, key=lambda pair: (-len(pair[1]), pair[0]))


# First bytes -> what it is. Sources: the formats' own specifications.
_MAGIC: tuple[tuple[bytes, FileClass], ...] = (
    (b"\x93NUMPY", FileClass(Kind.ARRAY, "NumPy")),
    (b"MATLAB 5.0 MAT-file", FileClass(Kind.ARRAY, "MATLAB 5")),
    (b"MATLAB 7.3 MAT-file", FileClass(Kind.ARRAY, "MATLAB 7.3")),
    (b"\x89HDF\r\n\x1a\n", FileClass(Kind.ARRAY, "HDF5 of no known layout")),
    (b"PAR1", FileClass(Kind.TABLE, "Parquet")),
    (b"ARROW1\0\0", FileClass(Kind.TABLE, "Arrow")),
    (b"SQLite format 3\0", FileClass(Kind.TABLE, "SQLite")),
    (b"%PDF-", FileClass(Kind.DOCUMENT, "PDF")),
    (b"\x89PNG\r\n\x1a\n", FileClass(Kind.DOCUMENT, "picture")),
    (b"\xff\xd8\xff", FileClass(Kind.DOCUMENT, "picture")),
    (b"GIF8", FileClass(Kind.DOCUMENT, "picture")),
    (b"II*\0", FileClass(Kind.DOCUMENT, "picture")),
    (b"MM\0*", FileClass(Kind.DOCUMENT, "picture")),
    (b"7z\xbc\xaf\x27\x1c", FileClass(Kind.ARCHIVE, "7z")),
    (b"Rar!\x1a\x07", FileClass(Kind.ARCHIVE, "rar")),
    (b"\xfd7zXZ\0", FileClass(Kind.ARCHIVE, "xz")),
    (b"BZh", FileClass(Kind.ARCHIVE, "bzip2")),
    (b"\x28\xb5\x2f\xfd", FileClass(Kind.ARCHIVE, "zstd")),
)
_TEXT = FileClass(Kind.DOCUMENT, "text")
_EMPTY = FileClass(Kind.UNKNOWN, "empty file")
_NO_FORMAT = FileClass(Kind.UNKNOWN, "binary of no known format", Reason.FORMAT.value)
_NO_XML = FileClass(Kind.UNKNOWN, "XML of no known format", Reason.FORMAT.value)
_SIGNALS = FileClass(Kind.PART, "WFDB signals")
_SEGMENT = FileClass(Kind.PART, "WFDB header of a segment")
_ANNOTATIONS = FileClass(Kind.PART, "WFDB annotations")
_IN_MANIFEST = FileClass(Kind.PART, "array of a manifest")
_MANIFEST = FileClass(Kind.RECORDING, ARRAYS)


def classify(source: Source, only: str | None = None, tell: Callable[[int], None] | None = None) -> Census:
    """Give every file of a source its class. Of archives and buckets, those that have a name there.

    only: one file. tell: called with the number of files done. Raises SourceError if there is no file.
    """
    readers = {name: load(KIND, name) for name in names(KIND)}
    found: dict[FileClass, list[str]] = defaultdict(list)
    done = 0
    one: dict[str, FileClass | None] = {} if only is None else {only: None}
    for below, entries in [("", one)] if one else _folders(source):
        for name, each in _Folder(source, below, readers).classes(entries):
            found[each].append(below + name)
            done += 1
            if tell is not None and done % _TELL_EVERY == 0:
                tell(done)
    if not found:
        raise SourceError(f"found no file below {source}, expected raw ECG files. Check the path.")
    _give_to_manifests(source, found)
    left_out = source.left_out if isinstance(source, Archive) else {}
    return Census(source, {each: sorted(paths) for each, paths in found.items()}, left_out)


def _give_to_manifests(source: Source, found: dict[FileClass, list[str]]) -> None:
    """Move what a manifest of arrays names, in its folder and below, to its parts. Changes `found`."""
    named = []
    for name in found.get(_MANIFEST, ()):
        with local(source, [name]) as folder, suppress(RecordingError):  # which shows where the manifest is read
            named.append(any_of(files_beside(ARRAYS)(folder / name, None), name[: name.rfind("/") + 1]))
    for each in list(found):
        if named and each.kind in (Kind.TABLE, Kind.ARRAY, Kind.DOCUMENT):
            parts = {name for name in found[each] if any(globs.fullmatch(name) for globs in named)}
            found[_IN_MANIFEST] += sorted(parts)
            found[each] = [name for name in found[each] if name not in parts]
    for each in [each for each, paths in found.items() if not paths]:
        del found[each]


def _folders(source: Source) -> Iterator[tuple[str, dict[str, FileClass | None]]]:
    """Every folder, with its slash, and its files; a class stands where the name or the kind of entry says enough."""
    if isinstance(source, Folder):
        yield from _folders_below(source.path)
        return
    files: dict[str, dict[str, FileClass | None]] = defaultdict(dict)
    for name in source.names():
        below, slash, last = name.rpartition("/")
        files[below + slash][last] = None
    yield from files.items()


def _folders_below(path: Path) -> Iterator[tuple[str, dict[str, FileClass | None]]]:
    """The same of a folder, hidden files and links as well."""

    def refuse(error: OSError) -> None:
        raise SourceError(
            f"{path}: found a folder in it that cannot be read ({error.strerror}). Give this user access."
        )

    for base, folders, files in os.walk(path, onerror=refuse):
        folder = Path(base)
        hidden = any(part.startswith(".") for part in folder.relative_to(path).parts)
        links = [name for name in folders if (folder / name).is_symlink()]
        folders.sort()
        entries: dict[str, FileClass | None] = {}
        for name in (*files, *links):
            if (folder / name).is_symlink():
                entries[name] = FileClass(Kind.LINK, "to a folder" if name in links else "to a file")
            else:
                entries[name] = FileClass(Kind.HIDDEN, "file") if hidden or name.startswith(".") else None
        yield "" if folder == path else f"{folder.relative_to(path).as_posix()}/", entries


class _Folder:
    """One folder's files: what the WFDB headers in it name is part of their record."""

    def __init__(self, source: Source, below: str, readers: dict[str, ModuleType]) -> None:
        self.source, self.below, self.readers = source, below, readers
        self.parts: dict[str, FileClass] = {}  # file name -> class, as headers say
        self.records: set[str] = set()

    def classes(self, entries: dict[str, FileClass | None]) -> Iterator[tuple[str, FileClass]]:
        found: dict[str, FileClass] = {}
        for is_likely in (True, False):  # likely headers first: what they name need not be opened
            todo = []
            for name in sorted(name for name in entries if name.endswith(WFDB_HEADER) is is_likely):
                part = self.parts.get(name)
                known = entries[name] or (part if part is not _SEGMENT else None)
                if known is None:
                    todo.append(name)
                else:
                    found[name] = known
            for name, path in self._at_hand(todo):
                part = self.parts.get(name)  # said by a header that was among them
                found[name] = part if part is not None and part is not _SEGMENT else self._by_content(name, path)
        odd = [name for name, each in found.items() if each is _NO_FORMAT and name.rpartition(".")[0] in self.records]
        annotations = {name for name, path in self._at_hand(odd) if _is_annotation(path)}
        for name, each in found.items():
            is_header = each == FileClass(Kind.RECORDING, WFDB)
            part = self.parts.get(name)
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
        found = of_head(head, len(head) < HEAD_BYTES)
        if fitting == [WFDB] and found.kind is not Kind.ARRAY:  # columns of small numbers look like a header, too
            self._note_parts(path)
            return FileClass(Kind.RECORDING, WFDB)
        if fitting == [HDF5]:
            return self._hdf5(path, found)
        return self._by_suffix(path) or found if found in (_TEXT, _NO_FORMAT) else found

    def _note_parts(self, header: Path) -> None:
        """Remember which files a header names."""
        self.records.add(header.stem)
        with suppress(RecordingError):  # a header that cannot be read names nothing
            for name in files_beside(WFDB)(header, None):
                if name != header.name:
                    self.parts[name] = _SEGMENT if name.endswith(WFDB_HEADER) else _SIGNALS

    def _hdf5(self, path: Path, otherwise: FileClass) -> FileClass:
        """The first bytes of HDF5 say nothing of its layout: a recording if the reader knows it."""
        return otherwise if _refusal(HDF5, path) is Reason.FORMAT else FileClass(Kind.RECORDING, HDF5)

    def _by_suffix(self, path: Path) -> FileClass | None:
        """What the one reader that owns a suffix says about a file whose bytes no reader knows."""
        owners = [name for name, module in self.readers.items() if path.suffix.casefold() in module.SUFFIXES]
        if len(owners) != 1 or owners[0] in (HDF5, ARRAYS):
            return None
        reason = _refusal(owners[0], path)
        if reason is not None:
            return FileClass(Kind.UNKNOWN, f"named like {owners[0]}", reason.value)
        return FileClass(Kind.RECORDING, owners[0])


def _is_annotation(path: Path | UnreadableRecording) -> bool:
    """MIT annotations are 16-bit words and end with a word of zeros. Source: annot(5)."""
    if isinstance(path, UnreadableRecording):
        return False
    try:
        with OpenFolder(path.parent) as folder, folder.open(path.name) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-2, os.SEEK_END)
            return size % 2 == 0 and file.read(2) == b"\0\0"
    except (RecordingError, OSError):  # OSError: of one byte
        return False


def _refusal(reader: str, path: Path) -> Reason | None:
    """Why a reader refuses a file at its first header; None if it does not."""
    try:
        next(iter(open_reader(reader).scan(path)), None)
    except RecordingError as error:
        return error.reason
    except Exception:  # a strange file must not end the look at the others
        return Reason.UNEXPECTED
    return None


def of_head(head: bytes, whole: bool) -> FileClass:
    """The class of a file that no reader knows, from its first bytes. `whole`: these are all its bytes."""
    found = next((each for magic, each in _MAGIC if head.startswith(magic)), None)
    if found is not None:
        return found
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(head)
    if head.startswith(_GZIP):
        return _of_gzip(head)
    if _TAR.match(head):
        return FileClass(Kind.ARCHIVE, "tar")
    text = text_files.decode(head)
    if text is None:
        return FileClass(Kind.ARRAY, "MATLAB 4") if _is_matlab_4(head) else _NO_FORMAT
    return _of_text(head, text, whole)


def _of_text(head: bytes, text: str, whole: bool) -> FileClass:
    if text.lstrip().startswith("<"):
        is_html = root_name(head).casefold() in _HTML_ROOTS or _HTML_TAGS.search(text)
        return FileClass(Kind.DOCUMENT, "web page") if is_html else _NO_XML
    if text_files.is_json(text, whole):
        return FileClass(Kind.DOCUMENT, "JSON")
    numbers = text_files.find_numbers(text, whole)
    table = text_files.find_table(text, whole)
    if numbers is not None and (table is None or not numbers.names or 2 * len(numbers.leads) >= numbers.columns):
        return FileClass(Kind.ARRAY, "numbers as text")
    if table is not None:
        return FileClass(Kind.TABLE, "tab-separated" if table.separator == "\t" else "CSV")
    return _TEXT


def unpacked_head(head: bytes) -> bytes:
    """The first bytes of the content of a gzip file; empty if there are none to be had."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _of_gzip(head: bytes) -> FileClass:
    """A gzipped array is read as it is; gzipped recordings have to be unpacked first."""
    content = unpacked_head(head)
    is_nested = content.startswith(_GZIP)  # there are gzip files that hold themselves
    inner = of_head(content, whole=False) if content and not is_nested else _NO_FORMAT
    if inner.kind in (Kind.TABLE, Kind.ARRAY, Kind.DOCUMENT):
        return FileClass(inner.kind, f"{inner.what}, gzipped")
    fitting = [name for name in names(KIND) if load(KIND, name).sniff(content)]
    return FileClass(Kind.ARCHIVE, f"gzipped {fitting[0]}" if fitting else "gzip")


def _of_zip(head: bytes) -> FileClass:
    """By the name of the first member, which stands in the first bytes."""
    name_length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + name_length]
    if name.endswith(b".npy"):
        return FileClass(Kind.ARRAY, "NumPy archive")
    if name == b"[Content_Types].xml":
        return FileClass(Kind.DOCUMENT, "office document")
    return FileClass(Kind.ARCHIVE, "zip")


def _is_matlab_4(head: bytes) -> bool:
    if len(head) < _MATLAB_4.size:
        return False
    kind, rows, columns, is_complex, name_length = _MATLAB_4.unpack_from(head)
    plausible = kind in _MATLAB_4_TYPES and rows > 0 and columns > 0 and is_complex in (0, 1) and 1 < name_length < 64
    name = head[_MATLAB_4.size : _MATLAB_4.size + name_length]
    return plausible and name.endswith(b"\0") and name[:-1].decode("latin-1").isidentifier()
