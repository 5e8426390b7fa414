"""Decode by the Huffman tables of SCP-ECG section 2, without a loop over symbols.

Every bit of the data is looked up as if a symbol started there. The chain of bits where one really does is then
followed in jumps of many symbols. Source: EN 1064 annex C, whose worked example is among the tests.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers.scp.sections import PADDING_BYTES, refuse

DEFAULT_TABLE = 19999  # "number of tables" that means the table of the standard
STRUCTURE = np.dtype([("prefix", "u1"), ("total", "u1"), ("mode", "u1"), ("base", "<i2"), ("code", "<u4")])
SWITCH, VALUE = 0, 1  # modes
WINDOW_BITS = 32  # bits seen from each position: no code may be longer
LOOKUP_BITS = 16  # prefixes up to this length are found in a table, longer ones by bisection; our default
MOST_TABLES = 4  # our default: time and memory grow with their number
APPENDED_BITS = 18  # second differences of 16-bit samples need no more
DOUBLINGS = 4  # the chain is followed in jumps of 2^4 symbols; 2^5 is as fast on a 10-s recording, others are slower
NO_SYMBOL = 1 << 30  # "length" of bits that are not a code: beyond every chunk


class _Lookup(NamedTuple):
    """One table. It tells which code of the book the next 32 bits start with."""

    first: NDArray[np.int64]  # (code,) its bits, filled up with zeros; ascending
    last: NDArray[np.int64]  # (code,) its bits, filled up with ones
    number: NDArray[np.int64]  # (code,) its place in the book
    direct: NDArray[np.int64] | None  # (2^bits,) place in the book by the next bits; None if prefixes are too long


class Book(NamedTuple):
    """All tables of a file. Arrays run over all their codes; the last entry stands for "no code"."""

    tables: tuple[_Lookup, ...]
    prefix_bits: NDArray[np.int64]
    total_bits: NDArray[np.int64]
    base: NDArray[np.int64]
    switches: NDArray[np.bool_]
    next_table: NDArray[np.int64]

    def decode(self, chunks: Sequence[bytes], count: int, where: str) -> Iterator[NDArray[np.int64]]:
        """Yield the first `count` values of every chunk: most significant bit first, each starting with the first table.

        Raises UnreadableRecording if a code is unknown, a chunk ends early, or more than padding is left over.
        """
        n_bits, n_tables = 8 * max(len(chunk) for chunk in chunks), len(self.tables)
        nodes = np.arange(0, n_bits * n_tables, n_tables)
        jumps = np.empty((3, n_bits * n_tables + 1), np.int64)
        room = _Room(np.empty(n_bits, np.uint64), nodes, np.empty((2, n_bits), np.int64), jumps)
        for chunk in chunks:
            yield _decode(chunk, count, self, room, where)

    @staticmethod
    def parse(body: bytes, where: str) -> "Book | None":
        """Parse the tables of section 2; None if it says that there are none. Raises UnreadableRecording."""
        if len(body) < 2:
            refuse("an empty section 2", "a number of tables", where)
        # 0 tables, or no section 2 at all, mean samples of 16 bits.
        (count,) = struct.unpack_from("<H", body)
        if count == DEFAULT_TABLE:
            return _standard_book()
        if count > MOST_TABLES:
            refuse(f"{count} Huffman tables", f"at most {MOST_TABLES}, or {DEFAULT_TABLE}", where, Reason.LIMIT)
        tables, at = [], 2
        for _ in range(count):
            (codes,) = struct.unpack_from("<H", body, at) if at + 2 <= len(body) else (0,)
            end = at + 2 + codes * STRUCTURE.itemsize
            if not codes or end > len(body):
                refuse(f"{codes} Huffman codes in {len(body) - at} bytes", "one or more, in full", where)
            tables.append(np.frombuffer(body, STRUCTURE, codes, at + 2))
            at = end
        return _book(tables, where) if tables else None


@cache
def _standard_book() -> Book:
    """Make the default table: 0 is `0`; 1 to 8 are so many ones, a zero and a sign bit; then 8 and 16 bits in full."""
    codes = [(1, 1, VALUE, 0, 0)]
    for size in range(1, 9):
        ones = (1 << size) - 1
        codes += [(size + 2, size + 2, VALUE, size, ones), (size + 2, size + 2, VALUE, -size, ones | 2 << size)]
    codes += [(10, 18, VALUE, 0, 0b0111111111), (10, 26, VALUE, 0, 0b1111111111)]
    return _book([np.array(codes, STRUCTURE)], "the default Huffman table")


def _book(tables: list[NDArray[np.void]], where: str) -> Book:
    for table in tables:
        _check(table, len(tables), where)
    codes = np.concatenate(tables)
    own = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    switches = codes["mode"] == SWITCH
    ends = np.cumsum([len(table) for table in tables])
    lookups = [_lookup(table, end - len(table), int(ends[-1]), where) for table, end in zip(tables, ends, strict=True)]
    return Book(
        tuple(lookups),
        np.append(codes["prefix"].astype(np.int64), 0),
        np.append(codes["total"].astype(np.int64), NO_SYMBOL),
        np.append(codes["base"].astype(np.int64), 0),
        np.append(switches, False),
        np.append(np.where(switches, codes["base"].astype(np.int64) - 1, own), 0),
    )


def _check(codes: NDArray[np.void], n_tables: int, where: str) -> None:
    """Refuse codes that consume no bits, switch to no table, or mean nothing certain."""
    prefix, total, base = (codes[name].astype(np.int64) for name in ("prefix", "total", "base"))
    appended, switches = total - prefix, codes["mode"] == SWITCH
    if (prefix < 1).any() or (appended < 0).any() or (total > WINDOW_BITS).any():
        refuse("a Huffman code without bits or of too many", f"1 to {WINDOW_BITS} bits", where)
    if (codes["mode"] > VALUE).any() or (codes["code"].astype(np.int64) >> prefix).any():
        refuse("a Huffman code of unknown mode, or with bits beyond its length", "codes of the standard", where)
    if (switches & ((base < 1) | (base > n_tables) | (appended > 0))).any():
        refuse("a switch to no Huffman table", f"a table from 1 to {n_tables}", where)
    if (appended > APPENDED_BITS).any() or ((appended > 0) & ~switches & (base != 0)).any():
        # Programs disagree whether a base is added to appended bits.
        refuse("appended bits beside a base value, or too many", f"up to {APPENDED_BITS} without base", where)


def _lookup(codes: NDArray[np.void], offset: int, none: int, where: str) -> _Lookup:
    """Sort the codes of one table by their bits, which are stored last bit first. `none` is the place of "no code"."""
    prefix = codes["prefix"].astype(np.int64)
    bits = (codes["code"].astype(np.int64)[:, None] >> np.arange(WINDOW_BITS)) & 1
    first = bits @ (1 << np.arange(WINDOW_BITS - 1, -1, -1))
    order = np.argsort(first, kind="stable")
    first, last, number = first[order], (first + (1 << (WINDOW_BITS - prefix)) - 1)[order], order + offset
    if (last[:-1] >= first[1:]).any():
        refuse("a Huffman code that starts another one", "a prefix code", where)
    direct = None
    longest = int(prefix.max())
    if longest <= LOOKUP_BITS:
        shift = WINDOW_BITS - longest
        direct = np.full(1 << longest, none)
        for place, start, end in zip(number, first >> shift, (last >> shift) + 1, strict=True):
            direct[start:end] = place
    return _Lookup(first, last, number, direct)


class _Room(NamedTuple):
    """Memory in which chunks are decoded one after the other: fresh memory would cost more than the decoding."""

    windows: NDArray[np.uint64]  # (bit,) what follows every bit, from the top of 64 bits down
    nodes: NDArray[np.int64]  # (bit,) first node of every bit
    scratch: NDArray[np.int64]  # (2, bit)
    jumps: NDArray[np.int64]  # (3, node + 1)


def _decode(chunk: bytes, count: int, book: Book, room: _Room, where: str) -> NDArray[np.int64]:
    windows = _windows(chunk, room)
    position, in_force = np.divmod(_chain(windows, count, book, room), len(book.tables))
    starts, numbers = windows[position], np.arange(len(book.base))
    code = _look_up(starts, book.tables[0], numbers, np.empty((2, len(starts)), np.int64))
    for number, table in enumerate(book.tables[1:], 1):
        here = np.flatnonzero(in_force == number)
        code[here] = _look_up(starts[here], table, numbers, np.empty((2, len(here)), np.int64))
    values = np.flatnonzero(~book.switches[code])[:count]
    code, position, starts = code[values], position[values], starts[values]
    left = len(windows) - int(position[-1] + book.total_bits[code[-1]]) if len(values) == count else -1
    if left < 0:
        refuse(f"{len(chunk)} bytes without {count} samples", "a known code for each", where, Reason.TRUNCATED)
    # More bits than padding mean that table and data do not belong together.
    if left >= 8 * (PADDING_BYTES + 1):
        refuse(f"{left} bits after {count} samples", f"at most {PADDING_BYTES} bytes", where)
    return book.base[code] + _appended(starts, book.prefix_bits[code], book.total_bits[code])


def _windows(chunk: bytes, room: _Room) -> NDArray[np.uint64]:
    """Return (bit,) the bits from every bit on: at least 57, zeros after the end."""
    windows = room.windows[: 8 * len(chunk)]
    words = np.ndarray((len(chunk),), ">u8", chunk + bytes(8), strides=(1,)).astype(np.uint64)
    np.left_shift(words[:, None], np.arange(8, dtype=np.uint64), out=windows.reshape(-1, 8))
    return windows


def _look_up(
    windows: NDArray[np.uint64], table: _Lookup, of_code: NDArray[np.int64], scratch: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (window,) the entry in `of_code` of the code that each window starts with. scratch: (2, window or more)."""
    index, found = scratch[:, : len(windows)]
    bits = WINDOW_BITS if table.direct is None else len(table.direct).bit_length() - 1
    np.right_shift(windows, np.uint64(64 - bits), out=index.view(np.uint64))
    if table.direct is not None:
        return of_code[table.direct].take(index, out=found, mode="clip")  # "clip" writes to `out` without a copy
    place = np.searchsorted(table.first, index, "right") - 1  # -1 before the first code: its last one does not fit
    fits = (table.first[place] <= index) & (index <= table.last[place])
    return of_code[np.where(fits, table.number[place], len(of_code) - 1)]


def _chain(windows: NDArray[np.uint64], count: int, book: Book, room: _Room) -> NDArray[np.int64]:
    """Return the nodes visited from the first one on: `count` or a few more, fewer if one of them leads beyond the end.

    A node is a bit and the table in force there, numbered bit by bit; the node after the last one is the end.
    """
    n_tables = len(book.tables)
    stop = len(windows) * n_tables
    following, jump, longer = room.jumps[:, : stop + 1]
    hop = book.total_bits * n_tables + book.next_table
    for number, table in enumerate(book.tables):
        hops = _look_up(windows, table, hop, room.scratch)
        np.add(hops, room.nodes[: len(windows)], out=following[number:stop:n_tables])
    following[stop] = stop
    np.minimum(following, stop, out=following)
    following.take(following, out=jump, mode="clip")
    for _ in range(DOUBLINGS - 1):
        jump.take(jump, out=longer, mode="clip")
        jump, longer = longer, jump
    # A loop in Python over one node in 2^DOUBLINGS; the nodes between them are filled in below, all at once.
    landings: list[int] = []
    node, jumps = 0, memoryview(jump)
    most = stop if book.switches.any() else -(-count >> DOUBLINGS)
    while node != stop and len(landings) < most:
        landings.append(node)
        node = jumps[node]
    visited = np.empty((1 << DOUBLINGS, len(landings)), np.int64)
    visited[0] = landings
    for step in range(1, 1 << DOUBLINGS):
        following.take(visited[step - 1], out=visited[step], mode="clip")
    chain = visited.T.ravel()
    return chain[chain < stop]


def _appended(
    windows: NDArray[np.uint64], prefix_bits: NDArray[np.int64], total_bits: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Read the bits between prefix and end of each code as two's complement; 0 where there are none."""
    value = np.zeros(len(windows), np.int64)
    long = np.flatnonzero(total_bits > prefix_bits)
    left = (windows[long] << prefix_bits[long].astype(np.uint64)).view(np.int64)
    value[long] = left >> (64 - (total_bits - prefix_bits)[long])
    return value
