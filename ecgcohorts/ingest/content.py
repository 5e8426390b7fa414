"""Tell what a file holds from its first bytes. Suffixes are not looked at."""

import csv
import json
import re
import struct
import zlib
from enum import StrEnum
from typing import Literal, NamedTuple

from ecgcohorts.errors import Reason
from ecgcohorts.leads import standard
from ecgcohorts.plugins import load, names
from ecgcohorts.readers import HEAD_BYTES, KIND, root_name

Separator = Literal[",", ";", "tab", "space"]

# What a text must show to count as numbers or as a table. All of these are our own defaults.
MIN_NUMBERS = 32
MAX_LINES_BEFORE_NUMBERS = 20
MIN_EQUAL_ROWS = 0.9  # share of rows with as many cells as the first
MAX_COLUMN_NAME = 64  # characters
MIN_ASCII = 0.9  # share of bytes, in text that is not UTF-8

# Control characters that no text holds: all but tab, line breaks and form feed.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?|[nN][aA][nN]")
_COMMA_NUMBER = re.compile(r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d{1,3})?|[nN][aA][nN]")
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
_JSON_START = re.compile(r"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\]])")
_CHARACTERS: dict[Separator, str | None] = {",": ",", ";": ";", "tab": "\t", "space": None}
_GZIP = b"\x1f\x8b\x08"
# The header of the first member of a tar has its magic at byte 257.
_TAR = re.compile(rb".{257}ustar", re.DOTALL)
_MATLAB_4 = struct.Struct("<5i")  # type, rows, columns, complex, length of the name
_MATLAB_4_TYPES = frozenset(10 * storage + kind for storage in range(6) for kind in range(2))  # little-endian, no text
_HTML_ROOTS = frozenset(("html", "head", "body", "div", "p", "table", "title", "center", "script", "style"))
_HTML_TAGS = re.compile(r"<(?:html|body|div|p|table)\b", re.IGNORECASE)


class Kind(StrEnum):
    """The use of a file. Reports list the kinds in this order."""

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
    """Kind, content in a few words (for a recording: the reader), why it cannot be read, and what to look it up by."""

    kind: Kind
    what: str
    reason: str = ""
    detail: str = ""

    @staticmethod
    def of_head(head: bytes, whole: bool) -> "FileClass":
        """Return the class of a file that no reader knows, from its first bytes. whole: these are all its bytes."""
        found = next((each for magic, each in _MAGIC if head.startswith(magic)), None)
        if found is not None:
            return found
        if head.startswith(b"PK\x03\x04"):
            return _of_zip(head)
        if head.startswith(_GZIP):
            return _of_gzip(head)
        if _TAR.match(head):
            return FileClass(Kind.ARCHIVE, "tar")
        text = _decode(head)
        if text is None:
            return FileClass(Kind.ARRAY, "MATLAB 4") if _is_matlab_4(head) else NO_FORMAT
        return _of_text(head, text, whole)


NUMPY = FileClass(Kind.ARRAY, "NumPy")
# First bytes -> class. Sources: the formats' own specifications.
_MAGIC: tuple[tuple[bytes, FileClass], ...] = (
    (b"\x93NUMPY", NUMPY),
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
TEXT = FileClass(Kind.DOCUMENT, "text")
NO_FORMAT = FileClass(Kind.UNKNOWN, "binary of no known format", Reason.FORMAT.value)


def _of_text(head: bytes, text: str, whole: bool) -> FileClass:
    if text.lstrip().startswith("<"):
        root = root_name(head)
        if root.casefold() in _HTML_ROOTS or _HTML_TAGS.search(text):
            return FileClass(Kind.DOCUMENT, "web page")
        return FileClass(
            Kind.UNKNOWN, "XML of no known format", Reason.FORMAT.value, root and f"first element {root[:80]}"
        )
    if _is_json(text, whole):
        return FileClass(Kind.DOCUMENT, "JSON")
    # Numbers under names of leads are an array; numbers under other names are a table.
    numbers = _find_numbers(text, whole)
    table = _find_table(text, whole)
    if numbers is not None and (table is None or not numbers.names or 2 * len(numbers.leads) >= numbers.columns):
        return FileClass(Kind.ARRAY, "numbers as text")
    if table is not None:
        return FileClass(Kind.TABLE, "tab-separated" if table.separator == "\t" else "CSV")
    return TEXT


def _unpacked(head: bytes) -> bytes:
    """Return the first bytes inside a gzip file, or b"" if they cannot be unpacked."""
    try:
        # Bounded: a small file may unpack to gigabytes.
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _of_gzip(head: bytes) -> FileClass:
    """Classify a gzip file: the array reader opens gzipped arrays, but gzipped recordings have to be unpacked first."""
    content = _unpacked(head)
    is_nested = content.startswith(_GZIP)  # a gzip file can be made that contains itself
    inner = FileClass.of_head(content, whole=False) if content and not is_nested else NO_FORMAT
    if inner.kind in (Kind.TABLE, Kind.ARRAY, Kind.DOCUMENT):
        return FileClass(inner.kind, f"{inner.what}, gzipped")
    fitting = [name for name in names(KIND) if load(KIND, name).sniff(content)]
    return FileClass(Kind.ARCHIVE, f"gzipped {fitting[0]}" if fitting else "gzip")


def _of_zip(head: bytes) -> FileClass:
    """Classify a zip file by its first member, whose name is in the first bytes."""
    name_length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + name_length]
    if name.endswith(b".npy"):
        return FileClass(Kind.ARRAY, "NumPy archive")
    if name == b"[Content_Types].xml":
        return FileClass(Kind.DOCUMENT, "office document")
    return FileClass(Kind.ARCHIVE, "zip")


def _is_matlab_4(head: bytes) -> bool:
    # MATLAB 4 has no magic number: the five integers of its header and the name after them must make sense together.
    if len(head) < _MATLAB_4.size:
        return False
    kind, rows, columns, is_complex, name_length = _MATLAB_4.unpack_from(head)
    plausible = kind in _MATLAB_4_TYPES and rows > 0 and columns > 0 and is_complex in (0, 1) and 1 < name_length < 64
    name = head[_MATLAB_4.size : _MATLAB_4.size + name_length]
    return plausible and name.endswith(b"\0") and name[:-1].decode("latin-1").isidentifier()


class Numbers(NamedTuple):
    """The layout of the numbers in a text."""

    separator: Separator
    decimal: Literal[".", ","]
    skip_lines: int  # before the first number
    columns: int
    rows: int  # in the bytes seen
    whole: bool  # the bytes seen are the whole file
    names: tuple[str, ...]  # of the columns, if the only line before the numbers has as many texts; else empty

    @property
    def leads(self) -> tuple[str, ...]:
        """The column names that are standard leads."""
        return tuple(name for name, lead in zip(self.names, standard(self.names), strict=True) if lead)

    @staticmethod
    def in_head(head: bytes) -> "Numbers | None":
        """Return the layout of the rows of numbers in a text file, gzipped or not, from its first bytes. None for any other."""
        is_packed = head.startswith(_GZIP)
        text = _decode(_unpacked(head) if is_packed else head)
        return None if text is None else _find_numbers(text, whole=len(head) < HEAD_BYTES and not is_packed)


class _Table(NamedTuple):
    """A text table with column names in its first line."""

    separator: str
    columns: tuple[str, ...]


def _decode(head: bytes) -> str | None:
    """Return the first bytes as text, without a character cut at their end; None if they are no text."""
    codec = next((codec for mark, codec in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
    if codec is None:
        codec = "utf-8"
        try:
            head.decode(codec)
        except UnicodeDecodeError as error:
            if error.start < len(head) - 3:  # not merely a character cut at the end
                # Almost any bytes are valid cp1252. Text in it is mostly ASCII, and binary content is not.
                ascii_bytes = sum(byte < 0x80 for byte in head)
                codec = "cp1252" if ascii_bytes >= MIN_ASCII * len(head) else ""
    if not codec:
        return None
    text = head.decode(codec, errors="ignore").removeprefix("\ufeff")
    return None if _CONTROL.search(text) else text


def _is_json(text: str, whole: bool) -> bool:
    """Tell whether a text is JSON or, if it was cut, starts like JSON."""
    if _JSON_START.match(text) is None:
        return False
    if not whole:
        return True
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _find_numbers(text: str, whole: bool) -> Numbers | None:
    """Return the layout of rows of numbers, with at most a few lines of other text before them; None for any other text."""
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
    cells = [cell for row in rows for cell in row]
    # One column of whole numbers, none of them twice, is a list of record names: the samples of a signal repeat.
    if min(columns, len(rows)) == 1 and all(map(str.isdecimal, cells)) and len(set(cells)) == len(cells):
        return None
    before = [lines[number] for number in filled if number < start]
    names = _names(before[0], kind[0]) if len(before) == 1 else ()
    return Numbers(*kind, start, columns, len(rows), whole, names if len(names) == columns else ())


def _find_table(text: str, whole: bool) -> _Table | None:
    """Return a table of at least two named columns and, if the text goes that far, one row; None if there is none."""
    lines = _lines(text, whole)
    if not lines:
        return None
    best: _Table | None = None
    for separator in (",", ";", "\t"):
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            continue
        header = rows[0] if rows else []
        equal = sum(len(row) == len(header) for row in rows)
        names = [name.strip() for name in header]
        nameless = [at for at, name in enumerate(names) if not name]
        # A column of row numbers, as pandas writes it, has no name; columns that are empty throughout need none.
        filled = sum(any(len(row) > at and row[at].strip() for row in rows) for at in nameless)
        named = filled <= 1 and len(names) - len(nameless) >= (2 if len(nameless) > 1 else 1)
        named = named and not all(map(_NUMBER.fullmatch, names if len(nameless) < 2 else filter(None, names)))
        short = all(len(name) <= MAX_COLUMN_NAME for name in header)
        # One line alone is a table only if it is longer than the bytes seen: prose has commas, too.
        several = len(rows) > 1 or (not whole and "\n" not in text)
        more = best is None or len(header) > len(best.columns)
        if len(header) > 1 and named and short and several and equal >= MIN_EQUAL_ROWS * len(rows) and more:
            best = _Table(separator, tuple(name.strip() for name in header))
    return best


def _lines(text: str, whole: bool) -> list[str]:
    """Return the lines without the last one if it may be cut; of a single line, its cells without the last one."""
    lines = text.splitlines()
    if whole or not lines or text.endswith("\n"):
        return lines
    if len(lines) > 1:
        return lines[:-1]
    return [re.split(r"[,;\t ][^,;\t ]*$", lines[0])[0]]


def _separator(line: str) -> tuple[Separator, Literal[".", ","]] | None:
    """Return separator and decimal point of a line of numbers only; None for any other line."""
    for separator in (";", "tab", ",", "space"):
        character = _CHARACTERS[separator]
        if character is not None and character not in line.strip():
            continue
        # "1,5 2,5" is two numbers with a decimal comma, not three with commas between them.
        if separator == "," and _cells(line, "space", ",") and all(map(_WITH_COMMA.fullmatch, line.split())):
            return "space", ","
        for decimal in (".", ","):
            if decimal != separator and _cells(line, separator, decimal):
                return separator, decimal
    return None


def _cells(line: str, separator: Separator, decimal: Literal[".", ","]) -> list[str]:
    """Return the numbers of a line, or [] if it holds anything else."""
    cells = [cell.strip() for cell in line.strip().split(_CHARACTERS[separator])]
    if len(cells) > 1 and not cells[-1]:  # a separator at the end of the line
        cells.pop()
    pattern = _NUMBER if decimal == "." else _COMMA_NUMBER
    return cells if all(map(pattern.fullmatch, cells)) else []


def _names(line: str, separator: Separator) -> tuple[str, ...]:
    return tuple(cell.strip().strip("\"'") for cell in line.strip().split(_CHARACTERS[separator]))
