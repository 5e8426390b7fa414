"""Walk the structure of a DICOM file: elements, sequences and items, within bounds and before anything is decoded.

Every length is compared with what encloses it, so a cut file is found wherever it was cut; depth and number of elements
are limited. Sources: DICOM PS3.5, section 6.2 (values), chapter 7 (data elements, nesting) and annex A (transfer
syntaxes); PS3.10, chapter 7 (file meta information).
"""

import re
from struct import Struct
from typing import NamedTuple, NoReturn, Self

from ecgcohorts.errors import Reason, UnreadableRecording

PREFIX, PREFIX_AT = b"DICM", 128
META_START = PREFIX_AT + len(PREFIX)
TRANSFER_SYNTAX = 0x0002_0010
FIRST_TAG = 0x0008_0000  # below are file meta and command elements, which no data set has

WAVEFORM_SEQUENCE = 0x5400_0100
CHANNEL_DEFINITIONS = 0x003A_0200
CHANNEL_SOURCE = 0x003A_0208
SENSITIVITY_UNITS = 0x003A_0211
INSTITUTION_CODE = 0x0008_0082
_CODE_VALUE, _CODING_SCHEME, _CODE_MEANING = 0x0008_0100, 0x0008_0102, 0x0008_0104
# The sequences that are looked into. Others are stepped over, except for those of undefined length, whose end is inside.
SEQUENCES = frozenset((WAVEFORM_SEQUENCE, CHANNEL_DEFINITIONS, CHANNEL_SOURCE, SENSITIVITY_UNITS, INSTITUTION_CODE))

MAX_DEPTH = 16  # sequences within sequences; our default, waveforms need three
MAX_ELEMENTS = 50_000  # looked at; our default, a 12-lead file has about a thousand

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][+-]?[0-9]{1,2})?")

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # VRs with a length of four bytes
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

FETCH_AGAIN = "Fetch the file again from its source."
CONVERT = "Convert it to explicit little endian, for example with `dcmconv +te`."


class _Syntax(NamedTuple):
    """How a data set is encoded."""

    explicit: bool  # elements name their value representation
    big_endian: bool = False


_SYNTAXES = {
    "1.2.840.10008.1.2": _Syntax(explicit=False),
    "1.2.840.10008.1.2.1": _Syntax(explicit=True),
    "1.2.840.10008.1.2.2": _Syntax(explicit=True, big_endian=True),
}
# A deflated file of 430 kB took 952 MB in pydicom.
_DEFLATED = "1.2.840.10008.1.2.1.99"
_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")

_HEADER = {False: Struct("<HHI"), True: Struct(">HHI")}
_SHORT_LENGTH = {False: Struct("<H"), True: Struct(">H")}
_LONG_LENGTH = {False: Struct("<I"), True: Struct(">I")}


class _Element(NamedTuple):
    """Where an element lies in the file, and the `items` of a sequence that was looked into."""

    start: int  # of its header
    value: int
    stop: int
    items: tuple["Items", ...] = ()


Items = dict[int, _Element]  # tag -> element: one data set, or one item of a sequence


class _Code(NamedTuple):
    """The first item of a code sequence; empty where there is none."""

    scheme: str
    value: str
    meaning: str


class Structure(NamedTuple):
    """A walked file. Only ASCII texts and small integers are decoded here: what the waveform needs."""

    data: bytes
    syntax: _Syntax
    meta_stop: int  # where the file meta information ends
    elements: Items
    where: str

    def bytes_of(self, item: Items, tag: int) -> bytes | None:
        """Return the value of an element as stored; None if absent."""
        element = item.get(tag)
        return None if element is None else self.data[element.value : element.stop]

    def text(self, item: Items, tag: int) -> str:
        """Decode a text without its padding; empty if absent."""
        # Only ASCII means anything in the waveform, and Latin-1 decodes any byte.
        return (self.bytes_of(item, tag) or b"").decode("latin-1").strip("\0 ")

    def decimal(self, item: Items, tag: int) -> float | None:
        """Decode a decimal string (DS); None if absent or empty. Raises UnreadableRecording if it is not one number."""
        found = self.text(item, tag)
        if not found:
            return None
        if not _DECIMAL.fullmatch(found):
            _refuse(
                Reason.HEADER, f"an unreadable number in {tag >> 16:04x},{tag & 0xFFFF:04x}", "a number", self.where
            )
        return float(found)

    def integer(self, item: Items, tag: int, width: int) -> int | None:
        """Decode an unsigned integer of `width` bytes (US, UL); None if absent. Raises UnreadableRecording."""
        value = self.bytes_of(item, tag)
        if value is None:
            return None
        if len(value) != width:
            _refuse(Reason.HEADER, f"{len(value)} bytes in {tag >> 16:04x},{tag & 0xFFFF:04x}", f"{width}", self.where)
        return int.from_bytes(value, "big" if self.syntax.big_endian else "little")

    def code(self, item: Items, tag: int) -> _Code:
        """Decode scheme, value and meaning of the first item of a code sequence."""
        element = item.get(tag)
        first = element.items[0] if element is not None and element.items else {}
        return _Code(*(self.text(first, part) for part in (_CODING_SCHEME, _CODE_VALUE, _CODE_MEANING)))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Walk a whole file. Raises UnreadableRecording: UNSUPPORTED for syntaxes that are not read, before anything else."""
        if data[PREFIX_AT:META_START] != PREFIX:
            _refuse(Reason.FORMAT, "no DICM after 128 bytes", "a DICOM file", where)
        meta = _Walker(data, False, where)
        elements, meta_stop = meta.meta()
        element = elements.get(TRANSFER_SYNTAX)
        if element is None:
            _refuse(Reason.HEADER, "no transfer syntax", "one in the file meta information", where)
        syntax = _syntax_of(data[element.value : element.stop].decode("latin-1").strip("\0 "), where)
        walker = _Walker(data, syntax.big_endian, where)
        found, _ = walker.elements(meta_stop, len(data), syntax.explicit)
        if found and min(found) < FIRST_TAG:
            _refuse(Reason.HEADER, "a command or file meta element in the data set", "none", where)
        return cls(data, syntax, meta_stop, found, where)


def _syntax_of(uid: str, where: str) -> _Syntax:
    syntax = _SYNTAXES.get(uid)
    if syntax is not None:
        return syntax
    found = "a transfer syntax of another kind"
    if uid == _DEFLATED:
        found = "a deflated transfer syntax, which may unpack to any size"
    elif uid.startswith(_ENCAPSULATED):
        found = "an encapsulated (image) transfer syntax"
    raise UnreadableRecording(
        Reason.UNSUPPORTED, found, "implicit little, explicit little or explicit big endian", CONVERT, where
    )


class _Walker:
    """One pass over a file. It counts the elements it has looked at, over all depths."""

    def __init__(self, data: bytes, big_endian: bool, where: str) -> None:
        self.data, self.where, self.seen = data, where, 0
        self.header = _HEADER[big_endian]
        self.short_length, self.long_length = _SHORT_LENGTH[big_endian], _LONG_LENGTH[big_endian]

    def meta(self) -> tuple[Items, int]:
        """Return the elements of group 2, which are always explicit little endian, and where they end."""
        found: Items = {}
        at = META_START
        while self.data[at : at + 2] == b"\x02\x00":
            tag, _, length, value = self._element(at, len(self.data), True)
            found[tag] = _Element(at, value, self._stop(value, length, len(self.data)))
            at = found[tag].stop
        return found, at

    def elements(
        self, at: int, stop: int, explicit: bool, depth: int = 0, delimited: bool = False
    ) -> tuple[Items, int]:
        """Walk one data set from `at` to `stop` or, if delimited, to its own end. Returns it, and where the next thing starts."""
        found: Items = {}
        while at < stop:
            tag, vr, length, value = self._element(at, stop, explicit)
            if tag == _ITEM_END and delimited and length == 0:
                return found, value
            if tag >> 16 == _ITEM >> 16 or tag in found:
                _refuse(Reason.HEADER, "an element out of place, or twice", "each once", self.where)
            items: tuple[Items, ...] = ()
            if length == _UNDEFINED:
                if vr not in (b"SQ", b"UN", b""):
                    _refuse(Reason.UNSUPPORTED, "a value of undefined length", "sequences only", self.where)
                # Unknown sequences hold implicit elements, PS3.5 section 6.2.2.
                items, end = self._items(value, stop, explicit and vr != b"UN", depth + 1, True)
            else:
                end = self._stop(value, length, stop)
                if tag in SEQUENCES:
                    items, _ = self._items(value, end, explicit and vr != b"UN", depth + 1, False)
            found[tag] = _Element(at, value, end, items)
            at = end
        if delimited:
            _refuse(Reason.TRUNCATED, "an item without its end", "a whole file", self.where)
        return found, at

    def _items(self, at: int, stop: int, explicit: bool, depth: int, delimited: bool) -> tuple[tuple[Items, ...], int]:
        """Walk the items of one sequence, as `elements` walks a data set."""
        if depth > MAX_DEPTH:
            _refuse(Reason.LIMIT, f"more than {MAX_DEPTH} sequences in each other", "fewer", self.where)
        items: list[Items] = []
        while at < stop:
            tag, _, length, value = self._element(at, stop, False)
            if tag == _SEQUENCE_END and delimited and length == 0:
                return tuple(items), value
            if tag != _ITEM:
                _refuse(Reason.HEADER, "a sequence of something else than items", "items", self.where)
            if length == _UNDEFINED:
                item, at = self.elements(value, stop, explicit, depth, True)
            else:
                item, at = self.elements(value, self._stop(value, length, stop), explicit, depth)
            items.append(item)
        if delimited:
            _refuse(Reason.TRUNCATED, "a sequence without its end", "a whole file", self.where)
        return tuple(items), at

    def _element(self, at: int, stop: int, explicit: bool) -> tuple[int, bytes, int, int]:
        """Return tag, value representation, length and place of the value of the element at `at`."""
        self.seen += 1
        # Empty elements take eight bytes each, so the size of the file alone would allow millions.
        if self.seen > MAX_ELEMENTS:
            _refuse(Reason.LIMIT, f"more than {MAX_ELEMENTS} elements", "fewer", self.where)
        value = self._stop(at, 8, stop)
        group, element, length = self.header.unpack_from(self.data, at)
        tag = group << 16 | element
        if not explicit or group == _ITEM >> 16:  # items and their ends have no value representation
            return tag, b"", length, value
        vr = self.data[at + 4 : at + 6]
        if vr in _SHORT:
            return tag, vr, self.short_length.unpack_from(self.data, at + 6)[0], value
        if vr not in _LONG:
            _refuse(Reason.HEADER, "an unknown value representation", "one of PS3.5", self.where)
        value = self._stop(value, 4, stop)
        return tag, vr, self.long_length.unpack_from(self.data, at + 8)[0], value

    def _stop(self, start: int, length: int, limit: int) -> int:
        if start + length > limit:
            _refuse(Reason.TRUNCATED, f"{limit - start} bytes", f"{length} as declared", self.where)
        return start + length


def _refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, FETCH_AGAIN, where)
