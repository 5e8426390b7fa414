"""The files of a cohort: which are there, what their headers say, and the tables beside them."""

import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ecgcohorts.cohort_schema import LISTED, Files, Layout, Table
from ecgcohorts.cohort_values import plain
from ecgcohorts.errors import (
    MachineError,
    Reason,
    RecordingError,
    SourceError,
    UnreadableRecording,
    is_of_machine,
    machine_error,
)
from ecgcohorts.readers import open_reader
from ecgcohorts.recording import Recording


@dataclass(frozen=True)
class SourceItem:
    """One recording to be read: path below SRC, entry inside that file, and its header or why it has none."""

    path: str  # posix
    entry: str = ""
    header: Recording | None = field(default=None, repr=False)
    error: RecordingError | None = field(default=None, repr=False)

    @property
    def location(self) -> str:
        """`path`, or `path#entry` in a file of several recordings."""
        return f"{self.path}#{self.entry}" if self.entry else self.path

    @property
    def stem(self) -> str:
        """`location` without the file's suffix: unique below SRC."""
        name = str(PurePosixPath(self.path).with_suffix(""))
        return f"{name}#{self.entry}" if self.entry else name


@dataclass(frozen=True)
class LoadedTable:
    """The columns of a CSV that a layout asks for, by key."""

    table: Table
    columns: Mapping[str, int]  # name -> place in a row
    rows: Mapping[str, tuple[str, ...]] = field(repr=False)

    def row(self, item: SourceItem) -> tuple[str, ...] | None:
        """The row of this recording, or None if the table has none for it."""
        return next((self.rows[key] for key in _keys(self.table, item) if key in self.rows), None)


@dataclass(frozen=True)
class Tables:
    """The layout found below SRC, and its tables; an optional table that is not there is left out."""

    layout: Layout
    loaded: Mapping[str, LoadedTable]


def list_files(root: Path) -> list[str]:
    """Paths of all files below `root`, relative, posix, sorted; hidden ones left out. Links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise SourceError(
            f"{root}: found a folder in it that cannot be read ({error.strerror}). Give this user access."
        )

    found: list[str] = []
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        found += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def glob_pattern(glob: str) -> str:
    """A glob as a regular expression over a whole posix path: `*` and `?` stay inside a folder, `**/` does not.

    >>> bool(re.fullmatch(glob_pattern("**/*.hea"), "a/b/1.hea")), bool(re.fullmatch(glob_pattern("*.hea"), "a/1.hea"))
    (True, False)
    """
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(token, re.escape(token)) for token in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", glob))


def matching(paths: Iterable[str], files: Files) -> list[str]:
    """Those paths that an include glob matches and no exclude glob."""
    wanted = re.compile("|".join(map(glob_pattern, files.include)))
    unwanted = re.compile("|".join(map(glob_pattern, files.exclude))) if files.exclude else None
    return [path for path in paths if wanted.fullmatch(path) and not (unwanted and unwanted.fullmatch(path))]


def find_layout(layouts: Sequence[Layout], root: Path) -> tuple[Layout, list[str]]:
    """The one layout whose files are below `root`, and their paths; a fallback only where no other layout has any.

    Raises SourceError for none or several.
    """
    if not root.is_dir():
        raise SourceError(f"found no folder {root}, expected the recordings there. Check the path.")
    paths = list_files(root)
    found = [(layout, chosen) for layout in layouts if (chosen := matching(paths, layout.files))]
    if not found:
        wanted = " or ".join(", ".join(layout.files.include) for layout in layouts)
        raise SourceError(
            f"{root}: found {len(paths)} files, but none like {wanted}. Name the folder that holds the recordings, "
            "or another cohort."
        )
    found = [(layout, chosen) for layout, chosen in found if not layout.fallback] or found
    if len(found) > 1:
        names = " and ".join(layout.name for layout, _ in found)
        raise SourceError(f"{root}: found files of the layouts {names}, expected one. Name the folder of one of them.")
    return found[0]


def scan_files(layout: Layout, root: Path, paths: Iterable[str]) -> Iterator[SourceItem]:
    """Yield one item per recording, in the order of paths and of entries inside a file. Payloads are not read."""
    reader = open_reader(layout.reader, layout.arrays)
    for path in paths:
        trouble: MachineError | None = None
        try:
            for header in reader.scan(root / path):
                entry = header.source.entry if header.source else ""
                yield SourceItem(path, entry, header)
        except RecordingError as error:
            yield SourceItem(path, error=error)
        except Exception as error:  # one strange file must not end the scan of 100,000
            if isinstance(error, MemoryError | OSError) and is_of_machine(error):
                trouble = machine_error(str(root), error)
            else:
                unexpected = UnreadableRecording(
                    Reason.UNEXPECTED, type(error).__name__, f"a {layout.reader} file", "Look at this file.", path
                )
                unexpected.__cause__ = error
                yield SourceItem(path, error=unexpected)
        if trouble is not None:
            raise trouble  # out here: as its context, the first error would still name paths


def load_table(table: Table, wanted: Iterable[str], root: Path) -> LoadedTable | None:
    """Read the wanted columns of a CSV; None if it is optional and not there.

    Raises SourceError for a missing file or column, a key that comes twice, or text that is no CSV.
    """
    path = root / table.file
    if not path.is_file():
        if not table.required:
            return None
        raise SourceError(f"found no {table.file} in {root}, expected it there. Name the folder that holds it.")
    if table.listed is not None:
        return _load_list(table, table.listed, path)
    names = sorted({*wanted})
    rows: dict[str, tuple[str, ...]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            places = [_place(header, name, path) for name in names]
            key_place = None if table.key is None else _place(header, table.key, path)
            for number, line in enumerate(line for line in lines if line):
                if len(line) != len(header):
                    raise SourceError(
                        f"{path}: found {len(line)} cells in row {number + 1}, expected {len(header)}. Mend it."
                    )
                key = str(number) if key_place is None else plain(line[key_place])
                if key in rows:
                    raise SourceError(
                        f"{path}: found one {table.key} in two rows, the second is {number + 1}. Keep one."
                    )
                # interned: a cohort of a million has few distinct sexes, devices and sites
                rows[key] = tuple(sys.intern(line[place]) for place in places)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: found text that is no CSV in UTF-8 ({error}). Save it as such.") from None
    return LoadedTable(table, {name: place for place, name in enumerate(names)}, rows)


def _load_list(table: Table, text: str, path: Path) -> LoadedTable:
    """A bare list of keys: one column, and one text in it. A key that comes twice says nothing new."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: found text that is no list in UTF-8 ({error}). Save it as such.") from None
    return LoadedTable(table, {LISTED: 0}, {plain(line): (text,) for line in lines if line.strip()})


def load_tables(layout: Layout, root: Path) -> Tables:
    """Read every table of a layout, only the columns that its rules name."""
    loaded = {}
    for table in layout.tables:
        wanted = [p.column for p in layout.places() if p.column is not None and p.table in (None, table.name)]
        found = load_table(table, wanted, root)
        if found is not None:
            loaded[table.name] = found
    return Tables(layout, loaded)


def _place(header: Sequence[str], column: str, path: Path) -> int:
    if column not in header:
        raise SourceError(f"{path}: found no column {column}, expected one. Is it another release of this table?")
    return header.index(column)


def _keys(table: Table, item: SourceItem) -> list[str]:
    """What a row of this recording may be called in the key column."""
    if table.pattern is not None:
        found = re.search(table.pattern, item.location)
        return [plain(found.group(1))] if found else []
    path = PurePosixPath(item.path)
    if table.match == "path":
        return [str(path.with_suffix("")), str(path)]
    if table.match == "stem":
        return [plain(path.stem), path.name]
    return [plain(item.entry)]
