"""Lists of integers as XML text: counted before memory is taken, parsed fast, checked to the last character.

numpy's text parser refuses junk (2.x; older ones warned), but is not strict: it reads `- 1` as -1, clips what exceeds
64 bits, and makes a 0 of blanks, of a last sign, and of what follows a last comma. So commas and the last character are
checked before, count and range after.
"""

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._xml.values import refuse

_BLANKS = b" \t\n\r"  # the only white space of XML 1.0
_TO_SPACES = bytes.maketrans(b",", b" ")
_COUNTED_AT_ONCE = 1 << 20  # bytes; keeps the memory for counting small
_RANGE = np.iinfo(np.int32)


def count_integers(text: str, commas: bool = False) -> int:
    """How many runs of characters stand between blanks (and commas); what they are is not looked at."""
    data = _spaced(text, commas) + b" "
    ends = 0
    for start in range(0, len(data) - 1, _COUNTED_AT_ONCE):
        blank = np.frombuffer(data[start : start + _COUNTED_AT_ONCE + 1], np.uint8) <= ord(" ")
        ends += int(np.count_nonzero(blank[1:] > blank[:-1]))
    return ends


def integers(text: str, count: int, where: str, commas: bool = False) -> NDArray[np.int32]:
    """(count,) int32 from integers between blanks; with `commas`, between blanks and single commas.

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
