"""Damage files as accidents and attackers do: bits, bytes, cuts, numbers, lengths in binary fields, XML elements."""

import random
import re
from collections.abc import Callable

TOKENS = (
    *(b"0", b"-1", b"9999999999", b"1e308", b"nan", b"\0", b"\xff", b"\xff\xff\xff\xff", b" ", b"\n", b"#", b"/"),
    *(b"..", b"<", b">", b"&", b"&x;", b"x2", b":3", b"+9", b",", b";", b'"', b"^", b"\xc3", b"\xef\xbb\xbf"),
)
NUMBERS = (
    *(b"0", b"-0", b"-1", b"1", b"65535", b"65536", b"2147483647", b"-2147483648", b"4294967296"),
    *(b"9223372036854775808", b"99999999999999999999", b"1e308", b"-1e308", b"1e-308", b"1e999", b"nan", b"inf"),
    *(b"0.0000001", b"1.5", b"", b"0x10", b"1_0", b"\xd9\xa3"),
)
HEAD = 2048  # bytes; headers lie here, and half of the damage is done there
LONGEST = 40  # bytes of a stretch that is cut, doubled or moved
_NUMBER = re.compile(rb"[+-]?[0-9]+(?:\.[0-9]+)?")
_LEAF = re.compile(rb"<([\w:.-]{1,80})(?:\s[^<>]{0,400})?>([^<]*)</\1>")
_MARKS = 2000  # numbers and elements looked up in a file: a long list of samples has more than enough

Span = tuple[int, int]
Edit = Callable[[bytearray, random.Random], None]


class Victim:
    """An intact file, and where in it numbers and elements stand."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        is_text = b"\0" not in data[:4096]
        self.numbers = _spans(_NUMBER, data, 0) if is_text else []
        self.leaves = _spans(_LEAF, data, 0) if is_text else []
        self.texts = _spans(_LEAF, data, 2) if is_text else []

    def mutant(self, name: str) -> bytes:
        """The mutant of this name: the same for the same name, always."""
        rng = random.Random(name)
        data = bytearray(self.data)
        edits = rng.choice((1, 1, 2, 3, 4))
        # Positions of numbers and elements hold only in the intact file, so one of these edits comes first.
        if self.numbers and rng.random() < 0.5:
            self._edit_text(data, rng)
            edits -= 1
        for _ in range(edits):
            rng.choice(EDITS)(data, rng)
        return bytes(data)

    def _edit_text(self, data: bytearray, rng: random.Random) -> None:
        if not self.leaves or rng.random() < 0.4:
            start, stop = rng.choice(self.numbers)
            data[start:stop] = rng.choice(NUMBERS)
            return
        place = rng.randrange(len(self.leaves))
        (start, stop), (inner, end) = self.leaves[place], self.texts[place]
        other, (other_inner, other_end) = rng.choice(self.leaves), rng.choice(self.texts)
        kind = rng.randrange(7)
        if kind == 0:
            del data[start:stop]
        elif kind == 1:
            data[start:start] = data[start:stop] * rng.choice((1, 2, 70))
        elif kind == 2:
            data[start:stop] = data[slice(*other)]
        elif kind == 3:
            data[inner:end] = data[other_inner:other_end]
        elif kind == 4:
            data[inner:end] = b""
        elif kind == 5:
            data[inner:end] = data[start:stop]
        else:
            data[inner:end] = rng.choice(NUMBERS + TOKENS)


def _spans(pattern: re.Pattern[bytes], data: bytes, group: int) -> list[Span]:
    found = [match.span(group) for match in pattern.finditer(data)]
    return found[: _MARKS // 2] + found[-_MARKS // 2 :] if len(found) > _MARKS else found


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), HEAD) if rng.random() < 0.5 else len(data)) if data else 0


def _stretch(data: bytearray, rng: random.Random) -> Span:
    start = _place(data, rng)
    return start, min(len(data), start + rng.randint(1, LONGEST))


def flip_bit(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def change_byte(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] = rng.randrange(256)


def cut_out(data: bytearray, rng: random.Random) -> None:
    start, stop = _stretch(data, rng)
    del data[start:stop]


def cut_off(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def double(data: bytearray, rng: random.Random) -> None:
    start, stop = _stretch(data, rng)
    data[start:start] = data[start:stop]


def move(data: bytearray, rng: random.Random) -> None:
    """Copy a stretch over another place."""
    start, stop = _stretch(data, rng)
    target = _place(data, rng)
    data[target : target + stop - start] = data[start:stop]


def put_token(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.choice(TOKENS)


def change_field(data: bytearray, rng: random.Random) -> None:
    """A whole number of 1, 2, 4 or 8 bytes, in either byte order, set to an extreme or moved by one."""
    width = rng.choice((1, 2, 2, 4, 4, 8))
    place = max(0, min(_place(data, rng), len(data) - width))
    if rng.random() < 0.5:
        place -= place % width  # most fields are aligned
    order = "big" if rng.random() < 0.2 else "little"
    top = (1 << 8 * width) - 1
    now = int.from_bytes(data[place : place + width], order)
    value = rng.choice((0, top, top >> 1, (top >> 1) + 1, now + 1, now - 1, now * 2, len(data))) & top
    data[place : place + width] = value.to_bytes(width, order)


EDITS: tuple[Edit, ...] = (flip_bit, change_byte, cut_out, cut_off, double, move, put_token, change_field, change_field)
