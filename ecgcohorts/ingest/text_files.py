"""What a text file holds, told from its first bytes: a table, numbers, a document. Suffixes are not looked at."""

import csv
import json
import re
from typing import Literal, NamedTuple

from ecgcohorts.leads import canonical

Separator = Literal[",", ";", "tab", "space"]

# Our defaults, all of them: what a file must show before it counts as numbers or as a table.
MIN_NUMBERS = 32
MAX_LINES_BEFORE_NUMBERS = 20
MIN_EQUAL_ROWS = 0.9  # share of rows with as many cells as the first
MAX_COLUMN_NAME = 64  # characters
MIN_ASCII = 0.9  # share of bytes, in text that is not UTF-8

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?|[nN][aA][nN]")
_COMMA_NUMBER = re.compile(r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d{1,3})?|[nN][aA][nN]")
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
_JSON_START = re.compile(r"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\]])")
_CHARACTERS: dict[Separator, str | None] = {",": ",", ";": ";", "tab": "\t", "space": None}


class Numbers(NamedTuple):
    """How the numbers of a text stand in it."""

    separator: Separator
    decimal: Literal[".", ","]
    skip_lines: int  # before the first number
    columns: int
    rows: int  # in the bytes seen
    whole: bool  # the bytes seen are the whole file
    names: tuple[str, ...]  # of the columns, where the one line before the numbers holds as many texts; else empty

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the columns that name a standard lead."""
        return tuple(name for name in self.names if canonical(name))


class Table(NamedTuple):
    """A text table with column names in its first line."""

    separator: str
    columns: tuple[str, ...]


def decode(head: bytes) -> str | None:
    """The first bytes as text; None if they are none. A character cut at the end is left out."""
    codec = next((codec for mark, codec in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
    if codec is None:
        codec = "utf-8"
        try:
            head.decode(codec)
        except UnicodeDecodeError as error:
            if error.start < len(head) - 3:  # not merely a character cut at the end
                ascii_bytes = sum(byte < 0x80 for byte in head)
                codec = "cp1252" if ascii_bytes >= MIN_ASCII * len(head) else ""
    if not codec:
        return None
    text = head.decode(codec, errors="ignore").removeprefix("\ufeff")
    return None if _CONTROL.search(text) else text


def is_json(text: str, whole: bool) -> bool:
    """Whether a text is JSON or, where it was cut, starts like it."""
    if _JSON_START.match(text) is None:
        return False
    if not whole:
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def find_numbers(text: str, whole: bool) -> Numbers | None:
    """Rows of numbers, after a few lines of other text at most; None for anything else."""
    lines = _lines(text, whole)
    filled = [number for number, line in enumerate(lines) if line.strip()]
    start = next((n for n in filled if _separator(lines[n]) is not None), None)
    if start is None or start > MAX_LINES_BEFORE_NUMBERS:
        return None
    kind = _separator(lines[start])
    assert kind is not None
    rows = [_cells(lines[number], *kind) for number in filled if number >= start]
    if not all(rows) or sum(map(len, rows)) < MIN_NUMBERS or len({len(row) for row in rows[:-1]}) > 1:
        return None
    columns = len(rows[0])
    if min(columns, len(rows)) == 1 and _are_ids([cell for row in rows for cell in row]):
        return None
    before = [lines[number] for number in filled if number < start]
    names = _names(before[0], kind[0]) if len(before) == 1 else ()
    return Numbers(*kind, start, columns, len(rows), whole, names if len(names) == columns else ())


def find_table(text: str, whole: bool) -> Table | None:
    """A table of at least two columns with names and, where the text goes that far, one row."""
    lines = _lines(text, whole)
    if not lines:
        return None
    best: Table | None = None
    for separator in (",", ";", "\t"):
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            continue
        header = rows[0] if rows else []
        equal = sum(len(row) == len(header) for row in rows)
        named = sum(bool(name.strip()) for name in header) >= len(header) - 1  # an index column may have no name
        named = named and not all(map(_NUMBER.fullmatch, header))
        short = all(len(name) <= MAX_COLUMN_NAME for name in header)
        several = len(rows) > 1 or (not whole and "\n" not in text)  # a header longer than the bytes seen
        more = best is None or len(header) > len(best.columns)
        if len(header) > 1 and named and short and several and equal >= MIN_EQUAL_ROWS * len(rows) and more:
            best = Table(separator, tuple(name.strip() for name in header))
    return best


def _lines(text: str, whole: bool) -> list[str]:
    """Lines without the last one where it may be cut; of a single line, its cells without the last one."""
    lines = text.splitlines()
    if whole or not lines or text.endswith("\n"):
        return lines
    if len(lines) > 1:
        return lines[:-1]
    return [re.split(r"[,;\t ][^,;\t ]*$", lines[0])[0]]


def _separator(line: str) -> tuple[Separator, Literal[".", ","]] | None:
    """Separator and decimal point of a line that holds numbers only."""
    for separator in (";", "tab", ",", "space"):
        character = _CHARACTERS[separator]
        if character is not None and character not in line.strip():
            continue
        if separator == "," and _cells(line, "space", ",") and all(map(_WITH_COMMA.fullmatch, line.split())):
            return "space", ","
        for decimal in (".", ","):
            if decimal != separator and _cells(line, separator, decimal):
                return separator, decimal
    return None


def _cells(line: str, separator: Separator, decimal: Literal[".", ","]) -> list[str]:
    """The numbers of a line; none at all if it holds anything else."""
    cells = [cell.strip() for cell in line.strip().split(_CHARACTERS[separator])]
    if len(cells) > 1 and not cells[-1]:  # a separator at the end of the line
        cells.pop()
    pattern = _NUMBER if decimal == "." else _COMMA_NUMBER
    return cells if all(map(pattern.fullmatch, cells)) else []


def _are_ids(cells: list[str]) -> bool:
    """Whole numbers of which none comes twice: a list of record names. A signal repeats itself."""
    return all(map(str.isdecimal, cells)) and len(set(cells)) == len(cells)


def _names(line: str, separator: Separator) -> tuple[str, ...]:
    return tuple(cell.strip().strip("\"'") for cell in line.strip().split(_CHARACTERS[separator]))
