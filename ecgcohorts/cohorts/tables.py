"""Read the tables beside the recordings of a cohort, in whatever form they were published, and find rows by key."""

# Tables are kept as columns of texts: a row of two cells takes 55 bytes in columns, 150 to 220 as Python objects.

import csv
import gzip
import io
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Self, cast

from ecgcohorts.cohorts.account import CellAccount, TableAccount
from ecgcohorts.cohorts.files import Found, SourceItem, without_suffix
from ecgcohorts.cohorts.schema import LISTED, Layout, Table, Where
from ecgcohorts.cohorts.values import plain
from ecgcohorts.errors import SourceError, needs_extra
from ecgcohorts.io.texts import Texts
from ecgcohorts.sources.windows import local

MAX_WORKBOOK_BYTES = 1 << 30  # our default, unpacked; the largest published one has a few MB


class _Rows:
    """Rows by key, each with the same number of texts.

    Raises KeyError, with the number of the second row, for a key that comes twice.
    """

    def __init__(self, keys: Texts, columns: Sequence[Texts]) -> None:
        self._keys, order = keys.sort()
        self._place, self._columns = order, columns
        self._met = bytearray(len(keys))
        twice = self._keys.first_twice()
        if twice is not None:
            raise KeyError(int(order[twice]))

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the row of a key, or None. A row that was returned counts as met."""
        at = self._keys.find(key)
        if at is None:
            return None
        self._met[at] = 1
        return tuple(column[self._place[at]] for column in self._columns)

    @property
    def n_met(self) -> int:
        return sum(self._met)


@dataclass(frozen=True)
class _LoadedTable:
    """Those columns of a CSV that a layout asks for, by key."""

    table: Table
    columns: Mapping[str, int]  # name -> place in a row
    rows: _Rows = field(repr=False)
    groups: Mapping[str, int] = field(default_factory=dict, repr=False)  # number of rows by group

    def row(self, item: SourceItem) -> tuple[str, ...] | None:
        """Return the row of a recording; None if the table has none for it."""
        return next((row for key in _keys(self.table, item) if (row := self.rows.get(key)) is not None), None)

    def get(self, key: str | None) -> tuple[str, ...] | None:
        """Return the row of a key; None if the key is unknown or the table has none for it."""
        return None if key is None else self.rows.get(plain(key))


@dataclass(frozen=True)
class Tables:
    """The layout found below SRC, and its tables. Optional tables that do not exist are left out."""

    layout: Layout
    loaded: Mapping[str, _LoadedTable]
    # Counts of all recordings described with them: recordings by table without a row there, and in all under "".
    met: Counter[str] = field(default_factory=Counter, repr=False, compare=False)
    odd: dict[tuple[str, str], list[Any]] = field(default_factory=dict, repr=False, compare=False)  # see `note`
    # Header keys that rules name -> the nearest key that a header has, until one has the key itself, then None.
    keys: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)
    similar: Mapping[str, str] = field(default_factory=dict)  # optional table that is not there -> file of a like name

    @classmethod
    def load(cls, files: Found) -> Self:
        """Read every table of a layout, but only the columns that its rules name. Raises SourceError."""
        layout, source = files
        loaded, similar = {}, {}
        with local(source, [table.file for table in layout.tables]) as folder:
            for table in layout.tables:
                places = [p for p in layout.looked_at() if p.column is not None and p.table in (None, table.name)]
                wanted = {str(place.column) for place in places if not place.optional}
                optional = {str(place.column) for place in places} - wanted
                found = load_table(table, wanted, folder, str(source), optional)
                if found is not None:
                    loaded[table.name] = found
                elif source.folder is not None:
                    similar[table.name] = _similar(source.folder, table.file)
        return cls(layout, loaded, similar=similar)

    def accounts(self) -> tuple[TableAccount, ...]:
        """Tell, of every table of the layout, which rows and recordings found each other so far."""
        accounts = []
        for table in self.layout.tables:
            how = "by" if table.by else "pattern" if table.pattern is not None else f"match: {table.match}"
            account = TableAccount(
                table=table.name,
                file=table.file,
                found=table.name in self.loaded,
                listed=table.listed is not None,
                way=f"key or {how}",
                similar=self.similar.get(table.name, ""),
            )
            if account.found:
                rows, without = self.loaded[table.name].rows, self.met[table.name]
                counts = {
                    "rows_matched": rows.n_met,
                    "rows_unmatched": len(rows) - rows.n_met,
                    "recordings_matched": self.met[""] - without,
                    "recordings_unmatched": without,
                }
                account = account.model_copy(update=counts)
            accounts.append(account)
        return tuple(accounts)

    def note(self, fact: str, place: Where, text: str) -> None:
        """Note a text without the meaning that a rule looks for, unless it says that nothing is known."""
        tables = self.layout.tables if place.column is not None else ()
        file = next((table.file for table in tables if place.table in (None, table.name)), "")
        if where := CellAccount.place_of(place, file, text):
            first_and_count = self.odd.setdefault((fact, where), [text, 0])
            first_and_count[1] += 1

    def note_key(self, key: str, fields: Mapping[str, str], is_there: bool) -> None:
        """Note whether one header has a key that a rule names."""
        if is_there:
            self.keys[key] = None
        elif (
            key not in self.keys
        ):  # of the first header only: to compare the keys of all would take longer than the scan
            self.keys[key] = next(iter(get_close_matches(key, list(fields), n=1)), "")

    def not_understood(self) -> tuple[CellAccount, ...]:
        """Return what was noted, the commonest first, and last the header keys that no recording has."""
        found = [CellAccount.of(*key, count, first) for key, (first, count) in self.odd.items()]
        absent = {key: near for key, near in self.keys.items() if near is not None}
        for fact, rule in self.layout.rules().items() if absent else ():
            for place in rule:
                if place.header in absent:
                    found.append(CellAccount.of(fact, f"header {place.header}", 0, absent[place.header]))
        return tuple(sorted(found, key=lambda one: (-one.count, one.where, one.fact)))

    def check_rows(self, entries: Mapping[str, int]) -> None:
        """Compare tables that go by row with the number of recordings in each file, by path. Raises SourceError."""
        # One row that is missing would give every recording after it the facts of its neighbour.
        for loaded in self.loaded.values():
            for path, n in entries.items() if loaded.table.match == "row" and not loaded.table.by else ():
                rows = len(loaded.rows)
                if loaded.table.group is not None:
                    rows = loaded.groups.get(_group(loaded.table, path) or "", 0)
                if n != rows:
                    raise SourceError(
                        f"{path}: found {n:,} recordings, and {rows:,} rows for them in {loaded.table.file}, which "
                        "goes by row: expected as many. Fetch both again."
                    )


def load_table(
    table: Table, wanted: Iterable[str], folder: Path, where: str, optional: Iterable[str] = ()
) -> _LoadedTable | None:
    """Read the wanted columns of a CSV; None if it is optional and missing. where: what messages call the folder.

    optional: columns that may be missing; their cells are then empty.

    Raises SourceError for a missing file or column, a key that comes twice, or text that is not a CSV.
    """
    path = folder / table.file
    # Not Path.resolve, which fails on a link to itself.
    if os.path.realpath(folder) not in map(str, Path(os.path.realpath(path)).parents):
        raise SourceError(f"{where}/{table.file}: found a link that leads out of {where}. Copy the table there.")
    if not path.is_file():
        if not table.required:
            return None
        raise SourceError(f"There is no {table.file} in {where}. Name the folder that holds it.")
    where = f"{where}/{table.file}"
    if table.listed is not None:
        return _load_list(table, table.listed, path, where)
    names = sorted({*wanted, *optional})
    keys, columns = Texts(), [Texts() for _ in names]
    number = 0
    groups: Counter[str] = Counter()
    # Only a table of repeated keys is held as Python objects: a key's rows may stand far apart.
    merged: dict[str, list[str]] = {}
    for key, cells in _cells(table, names, set(wanted), path, where):
        number += 1
        if table.group is not None:  # the key is the group, and the row's number in it follows
            groups[key] += 1
            key = f"{key}#{groups[key] - 1}"
        if table.repeated:
            before = merged.setdefault(key, cells)
            merged[key] = [one if one == other else "" for one, other in zip(before, cells, strict=True)]
            continue
        keys.append(key)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    if table.rows is not None and number != table.rows:
        raise _other_number(number, table.rows, where)
    for key, cells in merged.items():
        keys.append(key)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    try:
        rows = _Rows(keys, columns)
    except KeyError as error:
        second = int(error.args[0]) + 1
        raise SourceError(f"{where}: one {table.key} stands in two rows, again in row {second}. Keep one.") from None
    return _LoadedTable(table, {name: place for place, name in enumerate(names)}, rows, groups)


def _cells(
    table: Table, names: Sequence[str], wanted: set[str], path: Path, where: str
) -> Iterator[tuple[str, list[str]]]:
    """Yield the key and the wanted cells of each row."""
    lines = _lines(table, path, where)
    header = next(lines, [])
    places = [_place(header, name, where) if name in header or name in wanted else None for name in names]
    key_column = table.group if table.key is None else table.key
    key_place = None if key_column is None else _place(header, key_column, where)
    for number, line in enumerate(line for line in lines if line):
        # A missing or additional cell shifts the others: an age would become a sex, an id that of somebody else.
        if len(line) != len(header):
            raise SourceError(
                f"{where}: found {len(line)} cells in row {number + 1}, expected {len(header)}. Fix the row."
            )
        if key_place is None:
            yield str(number), ["" if place is None else line[place] for place in places]
            continue
        key = line[key_place]
        if table.key_pattern is not None:
            found = re.search(table.key_pattern, key)
            if found is None:
                continue  # of another kind of recording
            key = found.group(1)
        yield plain(key), ["" if place is None else line[place] for place in places]


def _lines(table: Table, path: Path, where: str) -> Iterator[list[str]]:
    """Yield the rows of a table as texts, the names of its columns first."""
    if table.is_workbook:
        yield from _workbook_lines(table, path, where)
        return
    separator = {"tab": "\t"}.get(table.separator, table.separator)
    try:
        # Spreadsheets save UTF-8 with a byte order mark, which would become part of the first column's name.
        with _opened(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, delimiter=separator, strict=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where}: this is not a CSV in UTF-8 ({error}). Save it as one.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{where}: the file is damaged ({error}). Fetch it again.") from None


def _opened(path: Path) -> IO[bytes]:
    # mypy takes GzipFile for no IO, though it is read like one.
    return cast(IO[bytes], gzip.open(path)) if path.name.casefold().endswith(".gz") else path.open("rb")


def _workbook_lines(table: Table, path: Path, where: str) -> Iterator[list[str]]:
    with needs_extra("xlsx"):
        from openpyxl import load_workbook
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_WORKBOOK_BYTES:
            raise SourceError(f"{where}: {unpacked:,} bytes are too many for a workbook. Save it as CSV.")
        book = load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, SyntaxError) as error:
        raise SourceError(f"{where}: this is not a workbook ({type(error).__name__}). Save it as CSV.") from None
    with closing(book):
        if table.sheet is not None and table.sheet not in book.sheetnames:
            raise SourceError(f"{where}: found no sheet {table.sheet}, expected one of {', '.join(book.sheetnames)}.")
        sheet = book[table.sheet or book.sheetnames[0]]
        width = 0
        for row in sheet.iter_rows(values_only=True):
            line = ["" if cell is None else str(cell) for cell in row]
            # Sheets are as wide as whatever was ever written in them.
            while line and not line[-1] and len(line) > width:
                line.pop()
            width = width or len(line)
            yield line + [""] * (width - len(line)) if any(line) else []


def _load_list(table: Table, text: str, path: Path, where: str) -> _LoadedTable:
    """Read a bare list of keys as one column of one text. A key that comes twice says nothing new."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: this is not a list in UTF-8 ({error}). Save it as one.") from None
    if table.rows is not None and (n := sum(bool(line.strip()) for line in lines)) != table.rows:
        raise _other_number(n, table.rows, where)
    keys, column = Texts(), Texts()
    for key in dict.fromkeys(plain(line) for line in lines if line.strip()):
        keys.append(key)
        column.append(text)
    return _LoadedTable(table, {LISTED: 0}, _Rows(keys, [column]))


def _similar(folder: Path, file: str) -> str:
    """Return the file beside a missing table whose name is closest to it, or ""."""
    wanted = folder / file
    if not wanted.parent.is_dir():
        return ""
    # Of one suffix only: beside the table may lie a million recordings.
    others = [path.name for path in wanted.parent.iterdir() if path.suffix == wanted.suffix and path.is_file()]
    return next(iter(get_close_matches(wanted.name, others, n=1)), "")


def _other_number(found: int, wanted: int, where: str) -> SourceError:
    return SourceError(f"{where}: found {found:,} rows, expected {wanted:,}. Fetch the whole table again.")


def _place(header: Sequence[str], column: str, where: str) -> int:
    if column not in header:
        if len(header) == 1 and (other := next((one for one in ";\t|" if one in header[0]), None)):
            name = "tab" if other == "\t" else other
            raise SourceError(f"{where}: found cells parted by {name!r}, expected ','. State separator: {name!r}.")
        raise SourceError(f"{where}: there is no column {column}. Is it another release of this table?")
    return header.index(column)


def _group(table: Table, path: str) -> str | None:
    """Return what the group column says of the rows of a file."""
    found = re.search(table.pattern or "", path)
    return plain(found.group(1)) if found else None


def _keys(table: Table, item: SourceItem) -> list[str]:
    """Return the texts by which the key column may call a recording."""
    if table.group is not None:
        return [f"{_group(table, item.path)}#{plain(item.whole)}"]
    if table.pattern is not None:
        found = re.search(table.pattern, item.location)
        return [plain(found.group(1))] if found else []
    if table.match == "path":
        # Published tables name a recording with and without its suffix.
        return [without_suffix(item.path), item.path]
    if table.match == "stem":
        name = item.path[item.path.rfind("/") + 1 :]
        return [plain(without_suffix(name)), name]
    return [plain(item.whole)]
