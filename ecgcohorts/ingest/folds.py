"""Take folds that others published into a store, and write the parts of a split for others: by the ids of the source.

A store holds no ids of the source. Whoever holds the key can match a table of them; whoever holds the files, too, can make one.
"""

import csv
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import NothingMatched, SourceError, SpecError
from ecgcohorts.index.rules import MAX_PARTS
from ecgcohorts.index.splits import PTB_XL_FOLDS, make_split
from ecgcohorts.ingest._ids import as_keys
from ecgcohorts.ingest.trace import _check_out, _traced, _write
from ecgcohorts.sources import open_source
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.splits import load_split, save_split
from ecgcohorts.store.upkeep.labels import add_labels

_COLUMNS = ("record", "part")
_FOLDS = ("fold", "strat_fold", "part", "split")  # what publishers call the column
_PART = re.compile(r"[A-Za-z0-9][\w%.-]{0,63}")
_NUMBER = re.compile(r"\d+(?:\.0*)?")


@dataclass(frozen=True)
class Folds:
    """How a table of folds and a store met, as counts."""

    out: Path | None  # the table, if one was written
    parts: dict[str, int]  # recordings
    unmatched: int  # rows of the table that no recording has, or recordings of the split that the source does not show
    id_column: str = ""  # of the table that was taken

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parts.items())
        if self.out is not None:
            rest = f"; {self.unmatched:,} of the split are not in this source" if self.unmatched else ""
            return f"{self.out}: recordings by part: {parts}{rest}"
        rest = f"{self.unmatched:,} rows of the table match no recording"
        return f"recordings by part: {parts}; {rest}, by the column {self.id_column}"

    @classmethod
    def take(
        cls,
        store_path: str | Path,
        table: Path,
        cohort: str,
        name: str,
        key_file: Path | None = None,
        *,
        id_column: str | None = None,
        replace: bool = False,
    ) -> "Folds":
        """Make a split of a CSV: ids or paths of recordings, and behind the first column one called fold, strat_fold, part or split.

        id_column: where the ids or paths stand. By default in the first column; where that names no recording, in the one of
        texts that names most: numbers of another column may be those of recordings by chance.
        Folds 1 to 8 are `train`, 9 `val` and 10 `test`, as PTB-XL recommends; words are names of parts. The numbers stay in
        the store as a label of the split's name. Raises SourceError for another table, SpecError if the folds part a patient
        of the store, NothingMatched if no row is of the cohort.
        """
        ids, column, words = _read(table, id_column)
        numbers = {word: float(number) for number, word in enumerate(words, 1)}
        columns = {column: name.replace("-", "_")}
        matched = rows = 0
        used: dict[str, None] = {}  # several cohorts may stand in columns of their own
        for one in _cohorts(open_store(store_path), cohort):
            with suppress(NothingMatched):
                report = add_labels(
                    store_path, table, one, key_file, id_column=ids, columns=columns, words=numbers, replace=replace
                )
                matched, rows = matched + report.rows_matched, report.rows_matched + report.rows_unmatched
                used[report.id_column] = None
        if not matched:
            raise NothingMatched(
                f"{table}: found no recording of {cohort!r} in {' or '.join(ids)}, neither ids nor paths of files. Add a column "
                "of them: what the description finds as `recording`, or paths below the source; --id-column names it."
            )
        values = {word: (number,) for word, number in numbers.items()} or PTB_XL_FOLDS
        listed = {part: tuple(wanted) for part, wanted in values.items()}
        rule = {"kind": "label", "label": columns[column], "values": listed}
        split = make_split(open_store(store_path).index, name, rule)
        save_split(store_path, split, replace=replace)
        counts = {part: int((split.codes == code).sum()) for code, part in enumerate(split.parts)}
        return cls(None, counts, rows - matched, ", ".join(used))

    @classmethod
    def save(
        cls,
        places: tuple[str | Path, str | Path],
        cohort: str | CohortSpec,
        name: str,
        out: Path,
        key_file: Path | None = None,
    ) -> "Folds":
        """Write the part of each recording of a split under its id in the source, as CSV of mode 0600.

        places: store and source. Reads headers only; `take` reads the table, in any store of the same source. Raises EcgError
        subclasses: KeyMismatch for another key than the store's, NothingMatched if the split has no recording of the source.
        """
        _check_out(out, _COLUMNS, *places)
        store = open_store(places[0])
        split = load_split(store, name)
        # By bisection: a dictionary of millions of ids would take several times their memory.
        keys = as_keys(split.recording_id)
        order = np.argsort(keys)
        keys, codes = keys[order], split.codes[order]
        spec = cohort if isinstance(cohort, CohortSpec) else CohortSpec.load(cohort)
        key = store.load_key(key_file)
        rows: list[tuple[str, str]] = []
        with open_source(places[1]) as opened:
            for one in _traced(spec.find(opened), spec, key):
                wanted = np.array(bytes.fromhex(one.name), keys.dtype)
                at = int(np.searchsorted(keys, wanted))
                if at < len(keys) and keys[at] == wanted:
                    rows.append((one.about.recording_id, split.parts[codes[at]]))
        if not rows:
            raise NothingMatched(
                f"{places[1]}: found no recording of split {name!r}. Name the source and the cohort it was made of."
            )
        _write(out, _COLUMNS, rows)
        counts = {part: sum(one == part for _, one in rows) for part in split.parts}
        # Of the cohorts of this description: a store may hold others, from other sources.
        index = store.index
        mine = [index.cohort_code(one) for one in spec.cohort_names if one in index.cohorts]
        held = sum(int(((split.column(index) >= 0) & (index["cohort"] == code)).sum()) for code in mine)
        return cls(out, counts, held - len(rows))


def _cohorts(store: Store, name: str) -> list[str]:
    """Return the cohorts of a store that a name means: one of its own, or those of a description."""
    known = store.index.cohorts
    if name in known:
        return [name]
    described: tuple[str, ...] = ()
    try:
        described = CohortSpec.load(name).cohort_names
    except SpecError:
        if Path(name).suffix:  # of a file: what is wrong with it is what is wrong
            raise
    found = [one for one in described if one in known]
    if not found:
        store.index.cohort_code(name)  # raises, and names those that there are
    return found


def _read(table: Path, id_column: str | None) -> tuple[list[str], str, Mapping[str, None]]:
    """Return the columns that may hold ids, that of folds, and the names of the parts, if the folds are words."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            found = [column for column in _FOLDS if column in header[1:]]
            if len(found) != 1:
                raise SourceError(
                    f"{table}: found {len(found)} of the columns {', '.join(_FOLDS)} behind the first, expected one. A "
                    "column before it, or after, holds ids or paths of recordings."
                )
            place = header.index(found[0])
            texts: dict[str, None] = {}
            wordy: set[int] = set()  # columns with a text that is no number
            for line in lines:
                wordy |= {at for at, cell in enumerate(line[: len(header)]) if at not in wordy and not _is_number(cell)}
                texts |= dict.fromkeys(line[place : place + 1])
            ids = [name for at, name in enumerate(header) if at != place and (at == 0 or at in wordy)]
    except OSError as error:
        raise SourceError(f"{table}: found no readable file ({error.strerror}), expected a CSV.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table}: this is no CSV in UTF-8 ({type(error).__name__}). Save it as one.") from None
    texts = dict.fromkeys(text.strip() for text in texts)
    texts.pop("", None)
    if id_column is not None:
        if header.count(id_column) != 1:
            raise SourceError(f"{table}: found {header.count(id_column)} columns {id_column!r}, expected one.")
        ids = [id_column]
    ids = [name for name in ids if header.count(name) == 1] or header[:1]
    numbers = [text for text in texts if _NUMBER.fullmatch(text)]
    known = {number for wanted in PTB_XL_FOLDS.values() for number in wanted}
    if len(numbers) == len(texts):
        if not {float(number) for number in numbers} <= known:
            raise SourceError(
                f"{table}: found folds other than 1 to 10, whose meaning is not known. Add them with `ecgcohorts label`, and "
                "say what they are with `ecgcohorts split --by label`."
            )
        return ids, found[0], {}
    if numbers or len(texts) > MAX_PARTS or not all(map(_PART.fullmatch, texts)):
        raise SourceError(f"{table}: found {len(texts)} texts as folds, expected numbers 1 to 10 or names of parts.")
    return ids, found[0], texts


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True
