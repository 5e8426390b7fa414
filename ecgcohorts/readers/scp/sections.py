"""Take an SCP-ECG file apart: checksums of file and sections, pointers of section 0, binary layout of sections 3 to 6.

Source: EN 1064 / ISO 11073-91064, little-endian, sample and byte positions counted from 1.
"""

import binascii
import struct
from itertools import pairwise
from typing import NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._shared.limits import MAX_LEADS

FILE_LIMIT = 16 << 20  # our default: 64 leads of at most 65,535 bytes are 4 MiB, the rest is for makers' sections
FILE_HEADER, SECTION_HEADER = 6, 16
POINTER = struct.Struct("<HII")  # section id, length, position
CRC_START = 0xFFFF  # CRC-CCITT: polynomial 0x1021, not reflected, no final xor
STANDARD_SECTIONS = range(12)  # makers give theirs higher numbers, and headers of their own
MOST_POINTERS = 1024
FIRST_POSITION = FILE_HEADER + 1
FIRST_POSITIONS_SEEN = (FIRST_POSITION, FILE_HEADER)  # some makers count positions from 0: known, but refused

REFERENCE_BEAT, SIMULTANEOUS = 0b001, 0b100  # flags of section 3; above them, how many leads are simultaneous
COUNT_SHIFT = 3
LEAD_ENTRY = struct.Struct("<IIB")
# Lead numbers of EN 1064 that are certain; others keep their number as name.
LEAD_NAMES = {1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7"}
LEAD_NAMES |= {10: "V2R", 11: "V3R", 12: "V4R", 13: "V5R", 14: "V6R", 15: "V7R", 16: "X", 17: "Y", 18: "Z"}
LEAD_NAMES |= {61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR", 66: "V8", 67: "V9"}

BLOCK_HEADER = struct.Struct("<HHBB")
# Bytes that may follow the data of a lead or section: writers pad to 2 or 4 bytes. Our default; more mean another layout.
PADDING_BYTES = 3
BEATS_HEADER = struct.Struct("<HHH")
BEAT = np.dtype([("type", "<u2"), ("start", "<u4"), ("fiducial", "<u4"), ("end", "<u4")])

MORE_LEADS = "more leads than announced, all defined"
NOT_DECLARED_SIMULTANEOUS = "leads of equal start and end, not declared simultaneous"
TRAILING = "bytes after the declared end of the file"
FROM_ZERO = "leads from sample 0 to the number of samples"
LONG_LEADS = "leads of more bytes than their length fields can hold"
WRAPS_AT = 1 << 16  # the length of a lead in bytes has 16 bits


class _Container(NamedTuple):
    sections: dict[int, bytes]  # what follows each section's header, by section id; empty and absent ones left out
    notes: tuple[str, ...]


class _LeadPlan(NamedTuple):
    """Section 3: the leads, and which samples they cover."""

    names: tuple[str, ...]
    start: int  # position of the first sample in the whole recording, from 1
    n_samples: int
    beats_subtracted: bool
    notes: tuple[str, ...]

    @classmethod
    def parse(cls, body: bytes, where: str) -> Self:
        """Parse section 3. Raises UnreadableRecording unless all leads cover the same samples."""
        if len(body) < 2:
            refuse("no lead definitions", "section 3", where)
        announced, flags = body[0], body[1]
        room = (len(body) - 2) // LEAD_ENTRY.size
        if not 1 <= announced <= room:
            refuse(f"{announced} leads announced, room for {room}", "a definition for every lead", where)
        room = min(room, max(announced, MAX_LEADS + 1))  # one lead too many is enough to be refused
        entries = [LEAD_ENTRY.unpack_from(body, 2 + place * LEAD_ENTRY.size) for place in range(room)]
        # Some carts announce too few leads: a definition like the others counts, anything else is padding.
        leads = entries[:announced]
        for entry in entries[announced:]:
            if entry[:2] != leads[0][:2] or not entry[2]:
                break
            leads.append(entry)
        # Leads recorded one after the other have other starts: side by side they would be a false twelve-lead ECG.
        start, end, _ = leads[0]
        if any(entry[:2] != (start, end) for entry in leads):
            refuse("leads that do not cover the same samples", "simultaneous leads", where, Reason.UNSUPPORTED)
        together = len(leads) if flags & SIMULTANEOUS else flags >> COUNT_SHIFT
        if 0 < together < len(leads):
            refuse(f"{together} of {len(leads)} leads at a time", "simultaneous leads", where, Reason.UNSUPPORTED)
        # Some writers count from 0 and give the number of samples as end: with their samples stored plainly, the bytes
        # of each lead tell (see the reader).
        if not start <= end or end < 1:
            refuse(f"samples {start} to {end}", "samples counted from 1", where)
        quirks = {MORE_LEADS: len(leads) > announced, NOT_DECLARED_SIMULTANEOUS: not together and len(leads) > 1}
        quirks[FROM_ZERO] = start == 0
        return cls(
            tuple([LEAD_NAMES.get(number, f"SCP-{number}") for *_, number in leads]),
            max(start, 1),
            end - max(start, 1) + 1,
            bool(flags & REFERENCE_BEAT),
            tuple(name for name, met in quirks.items() if met),
        )


class Block(NamedTuple):
    """Section 5 or 6: one stretch of signal per lead, still encoded."""

    nv_per_step: int
    interval_us: int
    differences: int  # 0 samples, 1 first, 2 second differences
    bimodal: int
    chunks: tuple[bytes, ...]

    @classmethod
    def parse(cls, body: bytes, n_leads: int, section: int, where: str, plain: int = 0) -> Self:
        """Cut section 5 or 6 into one chunk of bytes per lead. Raises UnreadableRecording.

        plain: samples of each lead, if they are known and stored in 16 bits each.
        """
        if n_leads > MAX_LEADS:
            refuse(f"{n_leads} leads or more", f"at most {MAX_LEADS}", where, Reason.LIMIT)
        first = BLOCK_HEADER.size + 2 * n_leads
        if len(body) < first:
            refuse(f"{len(body)} bytes in section {section}", f"at least {first} for {n_leads} leads", where)
        nv_per_step, interval_us, differences, bimodal = BLOCK_HEADER.unpack_from(body)
        if not nv_per_step:
            refuse(f"0 nV a step in section {section}", "a step size", where, Reason.UNIT)
        if not interval_us:
            refuse(f"0 us between samples in section {section}", "a sampling interval", where, Reason.RATE)
        if differences > 2:
            refuse(f"encoding {differences} in section {section}", "0, 1 or 2", where, Reason.UNSUPPORTED)
        lengths = np.frombuffer(body, "<u2", n_leads, BLOCK_HEADER.size).astype(np.int64)
        # A lead of over 65,535 bytes does not fit its length field. Writers that let it wrap keep all samples.
        if 2 * plain >= WRAPS_AT and (lengths == 2 * plain % WRAPS_AT).all():
            lengths[:] = 2 * plain
        ends = first + np.cumsum(lengths)
        over = len(body) - int(ends[-1])
        # Every byte of the rhythm must be accounted for: with a wrong length, a lead would begin inside another one.
        if not 0 <= over <= PADDING_BYTES:
            refuse(f"{len(body)} bytes in section {section}", f"{ends[-1]} as its leads declare", where)
        starts = [first, *ends[:-1].tolist()]
        chunks = tuple(body[start:end] for start, end in zip(starts, ends.tolist(), strict=True))
        return cls(nv_per_step, interval_us, differences, bimodal, chunks)


class Beats(NamedTuple):
    """Section 4: where the reference beat was subtracted."""

    length_ms: int
    fiducial: int  # sample of the reference beat, from 1
    start: NDArray[np.int64]  # per beat of type 0, from 1
    align: NDArray[np.int64]  # per beat of type 0: its fiducial sample, from 1
    end: NDArray[np.int64]

    @classmethod
    def parse(cls, body: bytes, where: str) -> Self:
        """Parse section 4: the beats of type 0, which were subtracted. Raises UnreadableRecording."""
        if len(body) < BEATS_HEADER.size:
            refuse("no beat positions", "section 4", where)
        length_ms, fiducial, count = BEATS_HEADER.unpack_from(body)
        if len(body) < BEATS_HEADER.size + count * BEAT.itemsize:
            refuse(f"{len(body)} bytes in section 4", f"room for {count} beats", where)
        found = np.frombuffer(body, BEAT, count, BEATS_HEADER.size)
        found = found[(found["type"] == 0) & (found["end"] > 0)]
        start, align, end = (found[name].astype(np.int64) for name in ("start", "fiducial", "end"))
        if (start > end).any():
            refuse("a beat that ends before it starts", "start and end", where)
        return cls(length_ms, fiducial, start, align, end)


def refuse(found: str, expected: str, where: str, reason: Reason = Reason.HEADER) -> NoReturn:
    """Raise UnreadableRecording for an SCP file that its writer can export again."""
    raise UnreadableRecording(reason, found, expected, "Export the file again.", where)


def sniff(head: bytes) -> bool:
    """Tell whether section 0 stands at the start and points to itself: before version 1.3 there is no magic number."""
    if len(head) < FILE_HEADER + SECTION_HEADER + POINTER.size:
        return False
    declared, section, length = *struct.unpack_from("<I", head, 2), *struct.unpack_from("<HI", head, 8)
    pointer, pointed, position = POINTER.unpack_from(head, FILE_HEADER + SECTION_HEADER)
    least = SECTION_HEADER + POINTER.size
    return (
        section == pointer == 0
        and least <= length == pointed
        and position in FIRST_POSITIONS_SEEN
        and declared >= FILE_HEADER + length
    )


def _open_container(data: bytes, where: str) -> _Container:
    """Verify all checksums and cut the file into sections. Raises UnreadableRecording."""
    if not sniff(data):
        refuse("a start that is no section 0", "an SCP-ECG file", where, Reason.FORMAT)
    stored, declared = struct.unpack_from("<HI", data)
    if declared > len(data):
        refuse(f"{len(data)} bytes", f"{declared} as declared", where, Reason.TRUNCATED)
    notes = (TRAILING,) if declared < len(data) else ()
    data = data[:declared]
    if binascii.crc_hqx(data[2:], CRC_START) != stored:
        refuse("another CRC of the file", "the stored one", where, Reason.CHECKSUM)
    places = _places(data, where)
    return _Container({key: body for key, place in places.items() if (body := _body(data, key, place, where))}, notes)


def _places(data: bytes, where: str) -> dict[int, tuple[int, int]]:
    """Map section ids to (start, end) in bytes, as section 0 points to them: inside the file, apart from each other."""
    (length,) = struct.unpack_from("<I", data, 10)
    if length > FILE_HEADER + SECTION_HEADER + MOST_POINTERS * POINTER.size:
        refuse(f"{length} bytes of pointers", f"at most {MOST_POINTERS} pointers", where, Reason.LIMIT)
    places: dict[int, tuple[int, int]] = {}
    first = FILE_HEADER + SECTION_HEADER
    for at in range(first, FILE_HEADER + length - POINTER.size + 1, POINTER.size):
        section, size, position = POINTER.unpack_from(data, at)
        if size == 0 and position == 0:
            continue  # a section that the file does not have
        start, end = position - 1, position - 1 + size
        if size < SECTION_HEADER or start < FILE_HEADER or end > len(data):
            refuse(f"section {section} of {size} bytes at {position}", "a section inside the file", where)
        if section in places:
            refuse(f"section {section} twice", "each section once", where)
        places[section] = (start, end)
    in_order = sorted(places.values())
    if in_order[0] != (FILE_HEADER, FILE_HEADER + length):
        refuse("section 0 at another place", f"position {FIRST_POSITION}", where)
    if any(before[1] > after[0] for before, after in pairwise(in_order)):
        refuse("sections that overlap", "sections apart from each other", where)
    return places


def _body(data: bytes, section: int, place: tuple[int, int], where: str) -> bytes:
    """Return a section without its header, after verifying both."""
    whole = data[slice(*place)]
    if section in STANDARD_SECTIONS:
        stored, found, length = struct.unpack_from("<HHI", whole)
        if (found, length) != (section, len(whole)):
            refuse(f"section {found} of {length} bytes", f"section {section} of {len(whole)}, as pointed to", where)
        if binascii.crc_hqx(whole[2:], CRC_START) != stored:
            refuse(f"another CRC of section {section}", "the stored one", where, Reason.CHECKSUM)
    return whole[SECTION_HEADER:]
