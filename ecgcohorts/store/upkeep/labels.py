"""Join labels from a user's own table to a store after ingest, by the ids of the source."""

import csv
import math
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import NothingMatched, SourceError, SpecError, StoreError
from ecgcohorts.index.cohort_index import LABEL, number_ids
from ecgcohorts.io.place import Folder
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES, PseudonymKey
from ecgcohorts.store.columns import write_column
from ecgcohorts.store.commit import (
    changing,
    clear_leftovers,
    publish,
    refuse_interrupted,
    remove_unlisted,
)
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import FileEntry, Manifest, index_folder
from ecgcohorts.store.upkeep.lookup import IdKind, _by_path, _pseudonyms_of

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")  # as in a cohort description; becomes a folder
_UNKNOWN = ("", "nan", "na", "n/a", "none", "null")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _LabelReport:
    """How a table and a cohort met, as counts only."""

    rows_matched: int  # of the table: those whose recording or patient is in the cohort
    rows_unmatched: int
    recordings_matched: int  # of the cohort
    recordings_unmatched: int  # these have NaN
    known: dict[str, int]  # label -> recordings with a number
    id_column: str  # of the table
    fingerprint: str  # of the store afterwards


def add_labels(
    store_path: str | Path,
    csv_path: str | Path,
    cohort: str,
    key_file: Path | None = None,
    *,
    id_column: str | Sequence[str],
    kind: IdKind = "recording",
    columns: Sequence[str] | Mapping[str, str],
    words: Mapping[str, float] | None = None,
    replace: bool = False,
) -> _LabelReport:
    """Add number columns of a CSV in UTF-8 to the index, as `label_<name>`. No signal is read or written.

    columns: names of columns, or {column of the CSV: name of the label}. words: the numbers of cells that are none.
    id_column: of several, the first if it names any recording, else the one that names most. kind: what the ids identify; a
    label of a patient goes to all their recordings. A recording may be named by the path of its file, if no cell is an id as
    the store knows them. Empty cells and recordings without a row are NaN. Adding the same again changes
    nothing, but clears away what a killed run left. Messages repeat nothing of the table. Raises SourceError for a table that
    cannot be used, or matches nothing; StoreError if the cohort has such a label already (unless `replace`), or an ingest was
    interrupted; KeyMismatch, LockHeld.
    """
    wanted = _label_names(columns)
    with changing(store_path) as (folder, store):
        mine = store.index["cohort"] == store.index.cohort_code(cohort)
        table = _read_table(Path(csv_path), id_column, wanted, words or {})
        ids, place = table.find(store.load_key(key_file), cohort, kind, store.index[f"{kind}_id"])
        found = place >= 0
        if not found.any():
            raise NothingMatched(
                f"{csv_path}: found no {kind} of cohort {cohort!r} in the id column, neither by id nor by path. Name another "
                "column, cohort or kind of id."
            )
        values = {name: _joined(store, name, mine, place, column) for name, column in table.values.items()}
        # Nothing new: no generation is written, so that the fingerprint stays.
        if all(_has(store, name, column) for name, column in values.items()):
            clear_leftovers(folder, store.manifest)
            fingerprint = store.fingerprint
        else:
            if not replace:
                _refuse_taken(store, cohort, mine, wanted)
            refuse_interrupted(folder)
            remove_unlisted(Folder(folder), store.manifest)
            fingerprint = publish(folder, _next_manifest(folder, store, values))
    rows = len(np.unique(place[found]))
    return _LabelReport(
        rows_matched=rows,
        rows_unmatched=table.n_rows - rows,
        recordings_matched=int(found.sum()),
        recordings_unmatched=int((mine & ~found).sum()),
        known={name: int(np.isfinite(column[found]).sum()) for name, column in values.items()},
        id_column=ids,
        fingerprint=fingerprint,
    )


def _label_names(columns: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Map columns of the CSV to names of labels."""
    if isinstance(columns, str):
        raise SpecError("columns is one text. Give several names, or pairs of column and label.")
    wanted = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    if not wanted or len(set(wanted.values())) < len(wanted):
        raise SpecError("no columns are named, or two for one label. Name each label once.")
    for name in wanted.values():
        if not _NAME.fullmatch(name):
            raise SpecError(
                f"found label name {name!r}, expected small letters, digits and _. Give it another: COLUMN=label."
            )
    return wanted


def _refuse_taken(store: Store, cohort: str, mine: NDArray[np.bool_], wanted: Mapping[str, str]) -> None:
    for name in wanted.values():
        column = store.index.columns.get(LABEL + name)
        if column is not None and np.isfinite(column[mine]).any():
            raise StoreError(
                f"{store.path}: cohort {cohort!r} has a label {name!r} already. Give yours another name, or replace "
                "it: --replace."
            )


class _Table:
    """Ids and numbers of a CSV, by row."""

    # Numbers as float32 arrays from the start: a table of five million rows would take gigabytes as Python objects.

    def __init__(self, id_columns: Sequence[str], labels: Sequence[str]) -> None:
        self.ids: dict[str, list[str]] = {name: [] for name in id_columns}
        self._values = {name: array("f") for name in labels}
        self.n_rows = 0

    def append(self, originals: Sequence[str], numbers: Sequence[float]) -> None:
        for ids, original in zip(self.ids.values(), originals, strict=True):
            ids.append(original)
        for column, number in zip(self._values.values(), numbers, strict=True):
            column.append(number)
        self.n_rows += 1

    @property
    def values(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.frombuffer(column, np.float32) for name, column in self._values.items()}

    def find(
        self, key: PseudonymKey, cohort: str, kind: IdKind, known: NDArray[np.uint8]
    ) -> tuple[str, NDArray[np.int64]]:
        """Return the column of ids that names known pseudonyms, uint8 (id, 16), and the row of each; -1 for none.

        Raises SourceError for an id that comes twice: which of the two values is meant?
        """
        best, place = next(iter(self.ids)), np.full(len(known), -1, np.int64)
        for name, ids in self.ids.items():
            rows = _rows_of(ids, lambda text: _pseudonyms_of(key, cohort, kind, text), known)
            # Only then: a recording `12.34` is no file of the recording `12`.
            if kind == "recording" and not (rows >= 0).any():
                rows = _rows_of(ids, lambda text: _by_path(key, cohort, text), known)
            if (rows >= 0).sum() > (place >= 0).sum():
                # The first column is where ids stand. That another names more of them may be chance.
                if name == next(iter(self.ids)):
                    return name, rows
                best, place = name, rows
        return best, place


def _rows_of(ids: Sequence[str], names_of: Callable[[str], list[bytes]], known: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the row of `ids` for each known pseudonym; -1 for none."""
    names, rows = bytearray(), array("q")
    for row, original in enumerate(ids):
        for name in dict.fromkeys(names_of(original)):
            names += name
            rows.append(row)
    # Those of other cohorts never match, because the cohort is hashed too.
    number = number_ids(np.concatenate([np.frombuffer(names, np.uint8).reshape(-1, PSEUDONYM_BYTES), known]))
    of_row, mine, wanted = np.frombuffer(rows, np.int64), number[: len(rows)], number[len(rows) :]
    row_of = np.full(number.max(initial=-1) + 1, -1, np.int64)
    row_of[mine] = of_row
    # Of what the store knows: two folders may each have a file 1.hea that is in no cohort of it.
    here = np.zeros(len(row_of), bool)
    here[wanted] = True
    twice = (row_of[mine] != of_row) & here[mine]
    if twice.any():
        again = int(row_of[mine][twice][0]) + 1
        raise SourceError(f"one id stands in two rows of the table, the second time in row {again}. Keep one of them.")
    return row_of[wanted]


def _read_table(
    path: Path, id_column: str | Sequence[str], wanted: Mapping[str, str], words: Mapping[str, float]
) -> _Table:
    id_columns = (id_column,) if isinstance(id_column, str) else tuple(id_column)
    table = _Table(id_columns, tuple(wanted.values()))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Strict, because a stray quote would otherwise swallow lines without a word.
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            ids = [_place(header, name, path) for name in id_columns]
            places = [_place(header, name, path) for name in wanted]
            for number, line in _numbered(lines):
                if len(line) != len(header):
                    raise SourceError(
                        f"{path}: found {len(line)} cells in row {number}, expected {len(header)}. Fix it."
                    )
                cells = zip(wanted, (line[place] for place in places), strict=True)
                numbers = [
                    words[word] if (word := cell.strip()) in words else _number(cell, f"{path}: row {number}, {name}")
                    for name, cell in cells
                ]
                table.append([line[place] for place in ids], numbers)
    except OSError as error:
        raise SourceError(f"{path}: found no readable file ({error.strerror}), expected a CSV.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        what = type(error).__name__  # its text may hold a value
        raise SourceError(f"{path}: the file is no CSV in UTF-8 ({what}). Save it as one.") from None
    return table


def _numbered(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    return enumerate((line for line in lines if line), 1)


def _place(header: Sequence[str], name: str, path: Path) -> int:
    if header.count(name) != 1:
        raise SourceError(f"{path}: found {header.count(name)} columns {name!r} in its first line, expected one.")
    return header.index(name)


def _number(cell: str, where: str) -> float:
    text = cell.strip().casefold()
    if text in _UNKNOWN:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    # Written so that NaN fails as well: what is unknown is an empty cell, not a number that is none.
    if not abs(number) <= _FLOAT32_MAX:
        raise SourceError(f"{where}: the cell is neither empty nor a number that float32 holds. Fix it.")
    return number


def _joined(
    store: Store, name: str, mine: NDArray[np.bool_], place: NDArray[np.int64], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the column of a label for the whole index; other cohorts keep what they have."""
    before = store.index.columns.get(LABEL + name)
    column = np.full(len(store.index), np.nan, np.float32) if before is None else before.copy()
    column[mine] = np.nan
    column[place >= 0] = values[place[place >= 0]]
    return column


def _has(store: Store, name: str, column: NDArray[np.float32]) -> bool:
    before = store.index.columns.get(LABEL + name)
    return before is not None and np.array_equal(before, column, equal_nan=True)


def _next_manifest(folder: Path, store: Store, values: Mapping[str, NDArray[np.float32]]) -> Manifest:
    """Write the new columns of the next generation; all other files are carried over."""
    manifest, generation = store.manifest, store.manifest.generation + 1
    old, new = index_folder(manifest.generation), index_folder(generation)
    files = manifest.carry_over(folder, generation, without=tuple(f"{old}/{LABEL}{name}/" for name in values))
    written = []
    for name, column in values.items():
        home = folder / new / f"{LABEL}{name}"
        write_column(home, column)
        written += [path.relative_to(folder).as_posix() for path in sorted(home.rglob("*")) if path.is_file()]
    files |= FileEntry.of_files(folder, written)
    columns = sorted({*manifest.index_columns, *(LABEL + name for name in values)})
    return manifest.model_copy(
        update={"generation": generation, "index_columns": tuple(columns), "files": dict(sorted(files.items()))}
    )
