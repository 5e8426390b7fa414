"""XLI, the compression of Philips resting ECGs: 10-bit LZW over byte planes of second differences.

Source: the description of the published readers, checked against decoded files. A chunk per lead; in each, LZW codes
give the high bytes of all values, then their low bytes. The values are the first two samples, then biased second
differences, one place late. All arithmetic is modulo 2^16.
"""

import struct
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.limits import MAX_LEADS
from ecgcohorts.readers._xml.values import refuse

CHUNK_HEADER = struct.Struct("<iHh")  # bytes that follow, a number that was 1 in every file seen, start
KNOWN_KIND = 1
CODE_BITS = 10
# Off by one here is silent: with 1021, lead I of one file still decodes, and others come out 2 to 10 bytes off.
LAST_CODE = 1022  # the table holds strings 0 to 1022; code 1023 ends a chunk
BYTES = tuple(bytes([value]) for value in range(256))  # what the table starts with
LEARNING = LAST_CODE + 1 - len(BYTES)  # codes after the first that each add a string; then the table is full
BIAS = np.uint16(64)  # added to stored second differences
GROUP_BYTES, GROUP_CODES = 5, 4  # 40 bits are four codes


def decode(payload: bytes, n_leads: int, n_samples: int, where: str) -> NDArray[np.int16]:
    """Decode the first `n_leads` chunks, each of exactly `n_samples` values, to (lead, time) int16.

    Of III, aVR, aVL and aVF the values are residuals: see `rebuild_limb_leads`.
    Files hold 16 chunks, whatever the number of leads. Nothing longer than declared is ever built: the codes give the
    length of the output before it is joined. Raises UnreadableRecording.
    """
    chunks = _chunks(payload, n_leads, where)
    planes = b"".join(_expand(codes, 2 * n_samples, where) for codes, _ in chunks)
    pairs = np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(n_leads, 2, n_samples).swapaxes(1, 2))
    starts = np.array([start for _, start in chunks], np.int16).view(np.uint16)
    return _integrate(pairs.view(">u2")[..., 0].astype(np.uint16), starts)


def rebuild_limb_leads(stored: NDArray[np.int16]) -> NDArray[np.int16]:
    """Replace the residuals of III, aVR, aVL and aVF, rows 2 to 5, by the leads; rows 0 and 1 are I and II.

    stored: (lead, time). Halves are rounded down, results wrap to 16 bits.
    """
    leads = stored.copy()
    first, second, third, right, left, foot = stored[:6].astype(np.int32)
    leads[2] = (second - first - third).astype(np.int16)
    third = leads[2].astype(np.int32)
    # Shifts and not divisions: halves are rounded down, also below zero.
    leads[3] = (-right - (first + second >> 1)).astype(np.int16)
    leads[4] = ((first - third >> 1) - left).astype(np.int16)
    leads[5] = ((second + third >> 1) - foot).astype(np.int16)
    return leads


def _chunks(payload: bytes, n_leads: int, where: str) -> list[tuple[memoryview, int]]:
    """Return LZW codes and start of the first `n_leads` chunks. The last chunk must end where the payload ends."""
    found: list[tuple[memoryview, int]] = []
    place = 0
    while place < len(payload):
        begin = place + CHUNK_HEADER.size
        if begin > len(payload):
            refuse(Reason.TRUNCATED, "a cut XLI chunk", "whole ones", where)
        size, kind, start = CHUNK_HEADER.unpack_from(payload, place)
        place = begin + size
        if size < 0 or place > len(payload):
            refuse(Reason.TRUNCATED, f"an XLI chunk of {size} bytes", f"at most {len(payload) - begin}", where)
        if kind != KNOWN_KIND:
            refuse(Reason.UNSUPPORTED, f"an XLI chunk of kind {kind}", f"kind {KNOWN_KIND}", where)
        found.append((memoryview(payload)[begin:place], start))
        if len(found) > MAX_LEADS:
            refuse(Reason.LIMIT, f"more than {MAX_LEADS} XLI chunks", "one a lead", where)
    if len(found) < n_leads:
        refuse(Reason.TRUNCATED, f"{len(found)} XLI chunks", f"{n_leads} or more, one a lead", where)
    return found[:n_leads]


def _expand(packed: memoryview, n_bytes: int, where: str) -> bytes:
    """Undo LZW, to exactly `n_bytes`."""
    codes = _codes(packed)
    if not 0 < len(codes) <= n_bytes:  # each code gives at least one byte
        refuse(Reason.TRUNCATED, f"{len(codes)} LZW codes in a chunk", f"1 to {n_bytes}", where)
    learning = codes[: LEARNING + 1]
    # Each code but the first adds a string, and may be the one that stands for it.
    if (learning >= len(BYTES) + np.arange(len(learning))).any():
        refuse(Reason.HEADER, "an LZW code before its string", "codes in order", where)
    strings = _learn(learning.tolist())
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    n_found = int(lengths[codes].sum())
    if n_found != n_bytes:
        refuse(Reason.TRUNCATED, f"{n_found} bytes in an XLI chunk", f"{n_bytes}", where)
    return b"".join(map(strings.__getitem__, codes.tolist()))


def _learn(codes: list[int]) -> list[bytes]:
    """Return the strings of the codes: each code adds the previous string and the first byte of its own."""
    strings = list(BYTES)
    previous = strings[codes[0]]
    for n_strings, code in enumerate(codes[1:], len(strings)):
        current = strings[code] if code < n_strings else previous  # the string added now begins like the previous one
        strings.append(previous + current[:1])
        previous = strings[code]
    return strings


def _codes(packed: memoryview) -> NDArray[np.uint16]:
    """Unpack 10-bit codes, most significant bit first, up to the one that ends the chunk."""
    n_codes = len(packed) * 8 // CODE_BITS
    padded = bytes(packed) + bytes(-len(packed) % GROUP_BYTES)
    group = np.frombuffer(padded, np.uint8).reshape(-1, GROUP_BYTES).astype(np.uint64)
    bits = reduce(lambda high, low: high << np.uint64(8) | low, group.T)
    shifts = np.arange((GROUP_CODES - 1) * CODE_BITS, -1, -CODE_BITS, dtype=np.uint64)
    codes = (bits[:, None] >> shifts & np.uint64((1 << CODE_BITS) - 1)).ravel()[:n_codes].astype(np.uint16)
    ends = np.flatnonzero(codes > LAST_CODE)
    return codes[: ends[0]] if ends.size else codes


def _integrate(stored: NDArray[np.uint16], starts: NDArray[np.uint16]) -> NDArray[np.int16]:
    """Sum second differences twice.

    stored: (lead, time). The second difference at sample 2 is -start, at sample i it is 64 - stored[i - 1]: the last
    stored value is not used.
    """
    steps = np.empty_like(stored)
    steps[:, :1] = stored[:, :1]
    steps[:, 1:2] = stored[:, 1:2] - stored[:, :1]
    steps[:, 2:3] = -starts[:, None]
    steps[:, 3:] = BIAS - stored[:, 2:-1]
    steps[:, 1:] = np.cumsum(steps[:, 1:], axis=1, dtype=np.uint16)
    return np.cumsum(steps, axis=1, dtype=np.uint16).view(np.int16)
