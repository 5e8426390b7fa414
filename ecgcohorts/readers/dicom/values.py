"""Values of DICOM elements inside the waveform: short ASCII texts and small integers. Source: DICOM PS3.5, section 6.2."""

import re
from typing import NamedTuple

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.dicom.elements import FETCH_AGAIN, Items, Structure

CODE_VALUE, CODING_SCHEME, CODE_MEANING = 0x0008_0100, 0x0008_0102, 0x0008_0104

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][+-]?[0-9]{1,2})?")


class Code(NamedTuple):
    """The first item of a code sequence; empty where there is none."""

    scheme: str
    value: str
    meaning: str


def text(structure: Structure, item: Items, tag: int) -> str:
    """A text without its padding; empty if absent. Only ASCII means anything in the waveform, so Latin-1 does."""
    return (structure.bytes_of(item, tag) or b"").decode("latin-1").strip("\0 ")


def decimal(structure: Structure, item: Items, tag: int) -> float | None:
    """A decimal string (DS); None if absent or empty. Raises UnreadableRecording for anything but one number."""
    found = text(structure, item, tag)
    if not found:
        return None
    if not _DECIMAL.fullmatch(found):
        raise UnreadableRecording(
            Reason.HEADER,
            f"an unreadable number in {tag >> 16:04x},{tag & 0xFFFF:04x}",
            "a number",
            FETCH_AGAIN,
            structure.where,
        )
    return float(found)


def integer(structure: Structure, item: Items, tag: int, width: int) -> int | None:
    """An unsigned integer of `width` bytes (US, UL); None if absent. Raises UnreadableRecording for another size."""
    value = structure.bytes_of(item, tag)
    if value is None:
        return None
    if len(value) != width:
        raise UnreadableRecording(
            Reason.HEADER,
            f"{len(value)} bytes in {tag >> 16:04x},{tag & 0xFFFF:04x}",
            f"{width}",
            FETCH_AGAIN,
            structure.where,
        )
    return int.from_bytes(value, "big" if structure.syntax.big_endian else "little")


def code(structure: Structure, item: Items, tag: int) -> Code:
    """Scheme, value and meaning of the first item of a code sequence."""
    element = item.get(tag)
    first = element.items[0] if element is not None and element.items else {}
    return Code(*(text(structure, first, part) for part in (CODING_SCHEME, CODE_VALUE, CODE_MEANING)))
