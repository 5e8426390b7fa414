"""Huffman decoding of SCP files against a decoder that goes bit by bit, on the standard's example and random tables."""

import struct
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.scp import reader as scp
from ecgcohorts.readers.scp.huffman import LOOKUP_BITS, MOST_TABLES, Book

# The worked example of EN 1064, annex C: second differences. One byte is printed wrong in drafts of the standard (F5
# for F1), and a last zero bit is not printed.
EXAMPLE = bytes.fromhex("ff837fe0e6f1536559b65b964b9600")
SAMPLES = [13, 14, 15, 14, 16, 18, 19, 20, 22, 22, 23, 23, 23, 22, 22, 20, 17, 15, 12, 8, 6, 3, 1, 0, -2, -2, -3, -3]


@pytest.fixture(scope="session")
def make(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("scp")


def bit_by_bit(data: bytes, count: int, tables: Sequence[Sequence[Any]]) -> list[int]:
    """The slow way: one bit after the other, until they are a code of the table in force."""
    return followed(data, count, tables)[0]


def followed(data: bytes, count: int, tables: Sequence[Sequence[Any]]) -> tuple[list[int], int]:
    """Values, and how many bits they took."""
    bits = "".join(format(byte, "08b") for byte in data)
    values: list[int] = []
    at, table = 0, {code.bits: code for code in tables[0]}
    while len(values) < count:
        end = at + 1
        while bits[at:end] not in table:
            end += 1
            assert end <= len(bits)
        code = table[bits[at:end]]
        at = end + code.appended
        if code.switch:
            table = {each.bits: each for each in tables[code.switch - 1]}
            continue
        assert at <= len(bits)
        extra = int(bits[end:at] or "0", 2)
        values.append(
            code.value + extra - ((extra >> max(code.appended - 1, 0)) << code.appended if code.appended else 0)
        )
    return values, at


def decoded(make: ModuleType, data: bytes, count: int, tables: Sequence[Sequence[Any]]) -> list[int]:
    book = Book.parse(make.table_bytes(tables), "x")
    assert book is not None
    (values,) = book.decode([data], count, "x")
    return values.tolist()


def refused(make: ModuleType, data: bytes, count: int, tables: Sequence[Sequence[Any]]) -> Reason:
    with pytest.raises(UnreadableRecording) as caught:
        decoded(make, data, count, tables)
    return caught.value.reason


def test_the_example_of_the_standard(make: ModuleType) -> None:
    values = decoded(make, EXAMPLE, len(SAMPLES), [make.DEFAULT])
    assert values == bit_by_bit(EXAMPLE, len(SAMPLES), [make.DEFAULT])
    assert scp._summed(np.array(values), 2, "x").tolist() == SAMPLES


def test_every_code_of_the_default_table(make: ModuleType) -> None:
    values = [*range(-140, 141), -32768, 32767]
    data = make.huffman(values)
    assert bit_by_bit(data, len(values), [make.DEFAULT]) == values
    assert decoded(make, data, len(values), [make.DEFAULT]) == values


def test_the_default_table_written_out_is_the_same(make: ModuleType) -> None:
    values = [0, 5, -8, 100, -3000, 1]
    stored = struct.pack("<HH", 1, len(make.DEFAULT)) + b"".join(code.structure() for code in make.DEFAULT)
    book = Book.parse(stored, "x")
    assert book is not None
    assert next(book.decode([make.huffman(values)], 6, "x")).tolist() == values


def split(leaves: list[str], choices: Sequence[int]) -> list[str]:
    """A prefix code: every choice splits one leaf in two; the deepest possible one has 32 bits."""
    for choice in choices:
        bits = leaves.pop(choice % len(leaves))
        leaves += [bits] if len(bits) == 32 else [bits + "0", bits + "1"]
    return leaves


@st.composite
def coded(draw: st.DrawFn, Code: Any) -> tuple[list[list[Any]], list[int], list[int]]:
    """Tables with an escape for any value and a switch to every other table, values to code, and the tables to use."""
    n_tables = draw(st.integers(1, 3))
    tables = []
    for number in range(1, n_tables + 1):
        deep = draw(st.booleans())
        choice = st.just(-1) if deep else st.integers(0, 40)
        leaves = split(["0", "1"], draw(st.lists(choice, min_size=3, max_size=31 if deep else 40)))
        leaves.sort(key=len)
        table = [Code(leaves.pop(0), appended=draw(st.sampled_from([16, 17, 18])))]
        table += [Code(leaves.pop(0), switch=other + 1) for other in range(n_tables) if other + 1 != number]
        if draw(st.booleans()):
            leaves = leaves[: len(leaves) // 2]  # some bits mean nothing
        values = draw(st.lists(st.integers(-300, 300), min_size=len(leaves), max_size=len(leaves), unique=True))
        tables.append(draw(st.permutations(table + [Code(*pair) for pair in zip(leaves, values, strict=True)])))
    known = [code.value for table in tables for code in table if not code.switch]
    value = st.one_of(st.sampled_from(known), st.integers(-32768, 32767))
    values = draw(st.lists(value, min_size=1, max_size=80))
    return tables, values, draw(st.lists(st.integers(1, n_tables), min_size=len(values), max_size=len(values)))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_tables_come_back(data: st.DataObject, make: ModuleType) -> None:
    tables, values, wanted = data.draw(coded(make.Code))
    encoded = make.huffman(values, tables, wanted.__getitem__)
    assert decoded(make, encoded, len(values), tables) == values
    assert bit_by_bit(encoded, len(values), tables) == values


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(min_size=4, max_size=60), count=st.integers(1, 60))
def test_noise_gives_what_bit_by_bit_gives(noise: bytes, count: int, make: ModuleType) -> None:
    """Whatever the bits are: the same values, or an error because they end early or too late."""
    try:
        values, used = followed(noise, count, [make.DEFAULT])
    except AssertionError:
        assert refused(make, noise, count, [make.DEFAULT]) is Reason.TRUNCATED
        return
    if 8 * len(noise) - used > 31:
        assert refused(make, noise, count, [make.DEFAULT]) is Reason.HEADER
    else:
        assert decoded(make, noise, count, [make.DEFAULT]) == values


def test_codes_longer_than_the_lookup_are_found(make: ModuleType) -> None:
    long = ["1" * size + "0" for size in range(LOOKUP_BITS + 8)]
    table = [make.Code(bits, place) for place, bits in enumerate(long)]
    values = [*range(len(long)), 0, 0, 20, 3]
    assert decoded(make, make.huffman(values, [table]), len(values), [table]) == values
    # Ones only are no code; neither is what stands before the first code.
    assert refused(make, b"\xff" * 8, 1, [table]) is Reason.TRUNCATED
    assert refused(make, bytes(4), 1, [[make.Code("1" * 20, 1)]]) is Reason.TRUNCATED


def test_every_chunk_starts_with_the_first_table(make: ModuleType) -> None:
    tables = [[make.Code("0", 1), make.Code("1", switch=2)], [make.Code("0", 2), make.Code("1", 3)]]
    book = Book.parse(make.table_bytes(tables), "x")
    assert book is not None
    first, second = book.decode([b"\x80", b"\x00\x00"], 7, "x")
    assert first.tolist() == [2] * 7
    assert second.tolist() == [1] * 7


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([(0, 0, 1, 0, 0)], "1 to 32 bits"),  # consumes nothing
        ([(0, 8, 1, 0, 0)], "1 to 32 bits"),
        ([(8, 4, 1, 0, 0)], "1 to 32 bits"),
        ([(32, 33, 1, 0, 0)], "1 to 32 bits"),
        ([(255, 255, 1, 0, 0)], "1 to 32 bits"),
        ([(1, 1, 2, 0, 0)], "codes of the standard"),
        ([(1, 1, 1, 0, 2)], "codes of the standard"),
        ([(1, 1, 0, 0, 0)], "a table from 1 to 1"),
        ([(1, 1, 0, 2, 0)], "a table from 1 to 1"),
        ([(1, 1, 0, -1, 0)], "a table from 1 to 1"),
        ([(1, 3, 0, 1, 0)], "a table from 1 to 1"),
        ([(1, 20, 1, 0, 0)], "up to 18 without base"),
        ([(1, 9, 1, 7, 0)], "up to 18 without base"),
        ([(1, 1, 1, 0, 0), (1, 1, 1, 1, 0)], "a prefix code"),
        ([(1, 1, 1, 0, 0), (3, 3, 1, 1, 0b100)], "a prefix code"),
        ([(3, 3, 1, 0, 0b100), (1, 1, 1, 1, 0)], "a prefix code"),
        ([(32, 32, 1, 0, 0xFFFFFFFF), (31, 31, 1, 1, 0x7FFFFFFF)], "a prefix code"),
        ([], "one or more, in full"),
    ],
)
def test_tables_out_of_line_are_refused(codes: list[tuple[int, ...]], expected: str) -> None:
    body = struct.pack("<HH", 1, len(codes)) + b"".join(struct.pack("<BBBhI", *code) for code in codes)
    with pytest.raises(UnreadableRecording) as caught:
        Book.parse(body, "x")
    assert caught.value.expected == expected


@pytest.mark.parametrize("body", [b"", b"\1", b"\1\0", b"\1\0\2\0" + bytes(9), struct.pack("<H", MOST_TABLES + 1)])
def test_sections_that_do_not_hold_their_tables_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableRecording):
        Book.parse(body, "x")
    assert Book.parse(bytes(2), "x") is None


def test_a_table_that_switches_to_itself_for_ever_ends_with_the_data(make: ModuleType) -> None:
    assert refused(make, b"\xff" * 9000, 5, [[make.Code("0"), make.Code("1", switch=1)]]) is Reason.TRUNCATED
    tables = [[make.Code("1", switch=2), make.Code("0")], [make.Code("1", switch=1), make.Code("0")]]
    assert refused(make, b"\xff" * 9000, 5, tables) is Reason.TRUNCATED


def test_chunks_that_end_early_or_late_are_refused(make: ModuleType) -> None:
    data = make.huffman([5] * 40)
    assert refused(make, data[:-1], 40, [make.DEFAULT]) is Reason.TRUNCATED
    assert refused(make, b"", 1, [make.DEFAULT]) is Reason.TRUNCATED
    assert refused(make, data, 30, [make.DEFAULT]) is Reason.HEADER
    assert decoded(make, data + bytes(3), 40, [make.DEFAULT]) == [5] * 40
    assert refused(make, data + bytes(4), 40, [make.DEFAULT]) is Reason.HEADER
    # The 16 bits of the last value are cut off in their middle.
    assert refused(make, make.huffman([-30000])[:2], 1, [make.DEFAULT]) is Reason.TRUNCATED
