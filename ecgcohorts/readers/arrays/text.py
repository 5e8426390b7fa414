"""Read text of numbers (CSV and its kin) in blocks of lines, plain or gzipped. Every cell must be a number."""

import re
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import open_regular
from ecgcohorts.leads import canonical
from ecgcohorts.readers.arrays.description import MAX_COLUMNS, ArrayDescription

MAX_TEXT_BYTES = 512 << 20  # unpacked; our default: four hours of twelve leads at 500 Hz
MAX_EXPANSION = 200  # as for archives
FREE_BYTES = 1 << 20  # our default: that much may unpack from anything, such as an ECG of zeros
BLOCK_BYTES = 1 << 20
PACKED_BYTES = 64 << 10  # smaller, because what follows a gzip member is copied for every member
MAX_MEMBERS = 10_000  # of one gzip file; our default: block-wise gzip of 512 MiB has 8,192
MAX_EMPTY_LINES = 1000  # at the end; our default
MAX_CELL_BYTES = 40  # with padding; a float with all its digits has 24
MAX_ROW_BYTES = 64 << 20  # a row of one lead: four hours at 500 Hz, eight bytes each
MARK = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = {",": ",", ";": ";", "tab": "\t", "space": None}  # None: any white space
_QUOTES = " \t\r\"'"  # around a column name
_UNIT = re.compile(r"[(\[/][^()\[\]]*[)\]]?$")  # after a column name: V1 (mV), V1 [uV], V1/mV


class _TextArray(NamedTuple):
    """The rows of numbers of a text file, plain or gzipped."""

    path: Path
    description: ArrayDescription
    name: str | None = None  # a text holds one array

    def shape(self) -> tuple[int, int]:
        """Count the lines, and the cells of the first one; no number is parsed."""
        rows, width = 0, 0
        for block in self._row_blocks():
            width = width or self._cells(block)
            rows += block.count(b"\n")
        return _checked_shape(rows, width, self.description, self.path)

    def load(self, record: int | None = None) -> NDArray:
        """Return the numbers as (row, column): int64 if no cell has a decimal point or an exponent, otherwise float64."""
        blocks: list[NDArray] = []
        rows, width = 0, 0
        description = self.description
        open_end = description.model_copy(update={"samples": None})
        for block in self._row_blocks():
            width = width or self._cells(block)
            rows += block.count(b"\n")
            if description.axes == "time_lead":
                _checked_shape(rows, width, open_end, self.path)  # more rows may follow
            else:
                _checked_shape(max(rows, len(description.leads)), width, description, self.path)
            numbers = self._parse(block, width)
            blocks.append(numbers if description.columns is None else numbers[:, description.columns])
        _checked_shape(rows, width, description, self.path)
        return np.concatenate(blocks)  # of integers and floats: floats

    def _cells(self, block: bytes) -> int:
        """Count the cells of the first line."""
        line = block[: block.index(b"\n")]
        separator = SEPARATORS[self.description.separator]
        return len(line.split()) if separator is None else line.count(separator.encode()) + 1

    def _check_names(self, lines: list[bytes], width: int) -> None:
        """Refuse names of columns, in the lines before the numbers, that contradict the leads of the description.

        Only names of standard leads count: `time`, `ch3` and names that nobody knows contradict nothing.
        """
        description = self.description
        if description.axes != "time_lead":
            return
        leads = [canonical(lead) for lead in description.leads]
        columns = description.columns or range(len(leads))
        if max(columns) >= width:
            return  # the number of columns is checked with the rows
        for line in lines:
            for names in _names(line, width, SEPARATORS[description.separator]):
                found = [canonical(names[column]) for column in columns]
                # A single name among many cells is text that happens to be one: `Channel,I` above two columns.
                wrong = [pair for pair in zip(found, leads, strict=False) if None not in pair and pair[0] != pair[1]]
                if wrong and len(found) - found.count(None) >= min(2, len(leads)):
                    # Two leads in the place of each other would pass every later check.
                    raise UnreadableRecording(
                        Reason.LEADS,
                        f"{wrong[0][0]} as name of the column described as {wrong[0][1]}",
                        "the same leads in the line of names and in the description",
                        "Correct leads or columns of the description, or the names in a copy of the file.",
                        str(self.path),
                    )

    def _parse(self, block: bytes, width: int) -> NDArray:
        """Parse whole lines of numbers. numpy.loadtxt is strict, except for what is refused before and after it."""
        comma = self.description.decimal == ","
        separator = SEPARATORS[self.description.separator]
        # Any other character is refused first: loadtxt would read nan and inf, which no cell of samples may hold.
        allowed = b"0123456789+-eE \n" + (separator or "\t").encode() + (b"," if comma else b".")
        lines = block[:-1].split(b"\n")
        if block.translate(None, allowed) or max(map(len, lines)) > width * MAX_CELL_BYTES:
            raise _no_number(self.path)
        text = block.translate(bytes.maketrans(b",", b".")) if comma else block
        is_float = any(mark in text for mark in (b".", b"e", b"E"))
        if not any(digit in text for digit in b"0123456789"):
            raise _no_number(self.path)  # loadtxt would warn of no data
        try:
            numbers = np.loadtxt(
                text[:-1].decode("ascii").split("\n"),
                np.float64 if is_float else np.int64,
                comments=None,
                delimiter=separator,
                ndmin=2,
            )
        except (ValueError, OverflowError):
            raise _no_number(self.path) from None
        if numbers.shape != (len(lines), width) or not np.isfinite(numbers).all():  # it skips empty lines
            raise _no_number(self.path)
        return numbers

    def _row_blocks(self) -> Iterator[bytes]:
        """Yield blocks of whole lines that end with `\\n`, none of them empty, after the lines to skip."""
        longest = MAX_ROW_BYTES if self.description.axes == "lead_time" else MAX_COLUMNS * MAX_CELL_BYTES
        skip, is_over = self.description.skip_lines, False
        before: list[bytes] = []
        for block in _line_blocks(self.path, longest):
            while skip and block:
                line, _, block = block.partition(b"\n")
                before += [line] if len(line) <= MAX_COLUMNS * MAX_CELL_BYTES else []
                skip -= 1
            rows = block.rstrip(b"\n")
            if rows and before:
                self._check_names(before, self._cells(rows + b"\n"))
                before = []
            if (rows and is_over) or len(block) - len(rows) > MAX_EMPTY_LINES:
                raise _no_number(self.path)
            is_over = is_over or block.endswith(b"\n\n") or block == b"\n"  # empty lines stand only at the end
            if rows:
                yield rows + b"\n"


def _names(line: bytes, width: int, separator: str | None) -> Iterator[list[str]]:
    """Yield the cells of a line if there are as many as columns: names of the columns, without quotes and units."""
    text = line.decode("utf-8", errors="replace").strip().lstrip("#%").strip()
    # Some writers separate names by commas, and numbers by blanks.
    for character in dict.fromkeys((separator, ",", ";", "\t", None)):
        cells = text.split(character)
        if len(cells) == width + 1 and not cells[-1].strip():  # a separator at the end of the line
            cells.pop()
        if len(cells) == width:
            yield [_UNIT.sub("", cell.strip(_QUOTES)).strip(_QUOTES) for cell in cells]


def _checked_shape(rows: int, width: int, description: ArrayDescription, path: Path) -> tuple[int, int]:
    """Return the number of rows, and of the columns that are leads. Raises UnreadableRecording."""
    if not rows:
        raise _refusal(Reason.EMPTY, "no rows", "rows of numbers", path)
    if description.axes == "time_lead" and width > MAX_COLUMNS:
        raise _refusal(Reason.LIMIT, f"{width} columns", f"at most {MAX_COLUMNS}", path)
    if description.columns is not None:
        if max(description.columns) >= width:
            raise _refusal(Reason.LEADS, f"{width} columns", f"column {max(description.columns)}, from 0", path)
        width = len(description.columns)
    description.check_shape((rows, width), str(path))
    return rows, width


def _line_blocks(path: Path, longest: int) -> Iterator[bytes]:
    pending: list[bytes] = []  # pieces of a line whose end is still to come
    length = 0
    packed = path.suffix.casefold() == ".gz"
    with open_regular(path) as file:
        for chunk in _unpacked(file, path) if packed else _plain(file, path):
            end = chunk.rfind(b"\n") + 1
            if end:
                yield b"".join([*pending, chunk[:end]]).replace(b"\r\n", b"\n")
                pending, length = [], 0
            pending.append(chunk[end:])
            length += len(chunk) - end
            if length > longest:
                raise _refusal(Reason.LIMIT, f"a line of over {longest} bytes", "shorter ones", path)
    if length:
        if not packed:  # gzip has a checksum over all; here the last number may have lost its end
            raise _refusal(Reason.TRUNCATED, "no line end after the last number", "one", path)
        yield b"".join(pending) + b"\n"


def _plain(file: FileIO, path: Path) -> Iterator[bytes]:
    total = 0
    while chunk := file.read(BLOCK_BYTES):
        if not total:
            chunk = _without_mark(chunk, path)
        total += len(chunk)
        if total > MAX_TEXT_BYTES:
            raise _refusal(Reason.LIMIT, f"over {MAX_TEXT_BYTES} bytes", "a shorter recording", path)
        yield chunk


def _unpacked(file: FileIO, path: Path) -> Iterator[bytes]:
    """Yield the content of a gzip file of one or several members."""
    taken, total, members = 0, 0, 1
    stream, data = zlib.decompressobj(wbits=31), b""
    while data := data or file.read(PACKED_BYTES):
        if stream.eof:
            stream, members = zlib.decompressobj(wbits=31), members + 1
        # Bytes taken and bytes made are counted together, over all members: each member alone could stay below the cap.
        taken += len(data)
        try:
            chunk = stream.decompress(data, BLOCK_BYTES)
        except zlib.error as error:
            is_sum = "data check" in str(error) or "length check" in str(error)
            reason = Reason.CHECKSUM if is_sum else Reason.HEADER
            raise _refusal(reason, "damaged gzip", "a whole file", path) from None
        data = stream.unused_data if stream.eof else stream.unconsumed_tail
        taken -= len(data)
        if not total:
            chunk = _without_mark(chunk, path)
        total += len(chunk)
        if total > min(MAX_TEXT_BYTES, max(MAX_EXPANSION * taken, FREE_BYTES)) or members > MAX_MEMBERS:
            found = f"{total} bytes in {taken}, {members} members"
            raise _refusal(Reason.LIMIT, found, f"{MAX_EXPANSION} times, {MAX_MEMBERS} members at most", path)
        yield chunk
    if not stream.eof:
        raise _refusal(Reason.TRUNCATED, "gzip without its end", "a whole file", path)


def _without_mark(chunk: bytes, path: Path) -> bytes:
    if chunk.startswith(UTF_16):
        raise _refusal(Reason.UNSUPPORTED, "UTF-16", "text in UTF-8", path)
    return chunk.removeprefix(MARK)


def _no_number(path: Path) -> UnreadableRecording:
    return _refusal(Reason.HEADER, "a cell that is not a number, or rows of unequal length", "numbers only", path)


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    remedy = "Fetch it again; check skip_lines, separator and decimal in its description."
    return UnreadableRecording(reason, found, expected, remedy, str(path))
