"""Numbers and samples in the text of XML elements: matched from end to end, or refused.

Lists of integers are counted before memory is taken, parsed by numpy, and checked to the last character. numpy's text
parser refuses junk (2.x; older ones warned), but is not strict: it reads `- 1` as -1, clips what exceeds 64 bits, and
makes a 0 of blanks, of a last sign, and of what follows a last comma. So commas and the last character are checked
before, count and range after.
"""

import base64
import re
from typing import NoReturn
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording

NUMBER = re.compile(r"[+-]?[0-9]{1,15}(?:[.,][0-9]{0,15})?(?:[eE][+-]?[0-9]{1,2})?")

_BLANKS = b" \t\n\r"  # the only white space of XML 1.0
_TO_SPACES = bytes.maketrans(b",", b" ")
_COUNTED_AT_ONCE = 1 << 20  # bytes; keeps the memory for counting small
_RANGE = np.iinfo(np.int32)


def text_of(element: Element | None, path: str) -> str:
    """Return the stripped text at a path below an element, empty if there is none.

    `a/b` is the first element there, `a/b/@c` an attribute of it, and `@c` an attribute of the element itself.
    """
    above, is_attribute, name = path.rpartition("@")
    if is_attribute:
        found = element.find(above[:-1]) if above and element is not None else element
        return (found.get(name) or "").strip() if found is not None else ""
    return (element.findtext(path) or "").strip() if element is not None else ""


def number(element: Element | None, path: str, where: str) -> float | None:
    """Parse the number at a path, decimal comma allowed; None if absent or empty. Raises UnreadableRecording."""
    text = text_of(element, path)
    if not text:
        return None
    # float() reads nan, inf, 1_000 and digits of other scripts. Some MUSE files write amplitudes with a decimal comma.
    if not NUMBER.fullmatch(text):
        refuse(Reason.HEADER, f"{text[:40]!r} as {path}", "a number", where)
    return float(text.replace(",", "."))


def integer(element: Element | None, path: str, where: str) -> int | None:
    """Parse the whole number at a path; None if absent or empty. Raises UnreadableRecording."""
    value = number(element, path, where)
    if value is not None and value != int(value):
        refuse(Reason.HEADER, f"{value:g} as {path}", "a whole number", where)
    return None if value is None else int(value)


def base64_bytes(encoded: str, where: str) -> bytes:
    """Decode base64 without white space. Raises UnreadableRecording."""
    try:
        # Unless told to validate, the standard decoder skips junk: a damaged payload would lose samples silently.
        return base64.b64decode(encoded, validate=True)
    except ValueError:  # binascii.Error, or characters outside ASCII
        refuse(Reason.HEADER, "samples that are not base64", "base64 and white space only", where)


def count_integers(text: str, commas: bool = False) -> int:
    """Count the runs of characters between blanks (and commas), whatever characters they are."""
    data = _spaced(text, commas) + b" "
    ends = 0
    for start in range(0, len(data) - 1, _COUNTED_AT_ONCE):
        blank = np.frombuffer(data[start : start + _COUNTED_AT_ONCE + 1], np.uint8) <= ord(" ")
        ends += int(np.count_nonzero(blank[1:] > blank[:-1]))
    return ends


def integers(text: str, count: int, where: str, commas: bool = False) -> NDArray[np.int32]:
    """Parse integers between blanks, with `commas` between blanks and single commas, to (count,) int32.

    `count` is what `count_integers` found. Raises UnreadableRecording for anything that is not an int32.
    """
    if commas:
        bare = text.encode("ascii", "replace").translate(None, _BLANKS)
        if bare.startswith(b",") or b",," in bare:
            refuse(Reason.HEADER, "a list with a sample left out", "a number between any two commas", where)
    data = _spaced(text, commas).rstrip()
    if not data:
        return np.zeros(0, np.int32)
    try:
        values = np.fromstring(data, np.int64, sep=" ")
    except ValueError:
        values = np.zeros(0, np.int64)
    if len(values) != count or not data[-1:].isdigit():
        refuse(Reason.HEADER, "samples that are not whole numbers", "digits, signs and separators", where)
    if not _RANGE.min <= values.min() <= values.max() <= _RANGE.max:
        refuse(Reason.HEADER, "samples beyond 32 bits", "whole numbers of 32 bits", where)
    return values.astype(np.int32)


def _spaced(text: str, commas: bool) -> bytes:
    data = text.encode("ascii", "replace")
    return data.translate(_TO_SPACES) if commas else data


def refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    """Raise UnreadableRecording for a file that its writer can export again."""
    raise UnreadableRecording(reason, found, expected, "Export the file again.", where)
