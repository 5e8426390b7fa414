"""Write SCP-ECG files with known samples, from the description of the format: sections 0 to 8, any of them bent.

Bits are handled as strings of 0 and 1: slow, and nothing like the reader.
"""

import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
IDS = {
    "I": 1,
    "II": 2,
    "V1": 3,
    "V2": 4,
    "V3": 5,
    "V4": 6,
    "V5": 7,
    "V6": 8,
    "III": 61,
    "aVR": 62,
    "aVL": 63,
    "aVF": 64,
}
CANARIES = (
    "Zzyxcanarylast",
    "Qwerfcanaryfirst",
    "PIDcanary7731",
    "Vbnmcanarysecond",
    "Drugcanarypill",
    "Diagcanarynote",
)
CANARIES += (
    "Instcanaryhouse",
    "Anlycanaryhouse",
    "Deptcanaryward",
    "Anlycanaryward",
    "Refercanarydoc",
    "Overcanarydoc",
)
CANARIES += ("Techcanaryname", "Roomcanary12b", "Freecanarytext", "Seqcanary00017", "Zonecanaryplace", "Histcanarytext")
CANARIES += ("Makercanarytag", "Serialcanary99", "Statecanarytext")


@dataclass(frozen=True)
class Code:
    """One code of a Huffman table: its bits as a string, how many more bits follow, and what it means."""

    bits: str
    value: int = 0
    appended: int = 0
    switch: int = 0  # number of the table to go on with, from 1; 0 means that this is a value

    def structure(self) -> bytes:
        """9 bytes; the first bit sent is the lowest of the stored code."""
        stored = sum(1 << place for place, bit in enumerate(self.bits) if bit == "1")
        size, base = len(self.bits), self.switch or self.value
        return struct.pack("<BBBhI", size, size + self.appended, 0 if self.switch else 1, base, stored)


Table = Sequence[Code]
DEFAULT: Table = (
    Code("0"),
    *[Code("1" * size + "0" + sign, size if sign == "0" else -size) for size in range(1, 9) for sign in "01"],
    Code("1111111110", appended=8),
    Code("1111111111", appended=16),
)


def two(value: int, size: int) -> str:
    """Two's complement."""
    return format(value % (1 << size), f"0{size}b")


def fits(value: int, code: Code) -> bool:
    if code.switch:
        return False
    half = 1 << (code.appended - 1) if code.appended else 0
    return -half <= value < half if code.appended else value == code.value


def huffman(
    values: Sequence[int], tables: Sequence[Table] = (DEFAULT,), wanted: Callable[[int], int] | None = None
) -> bytes:
    """Encode; `wanted(k)` is the number of the table that value k should be in, from 1, where a switch leads there."""
    out, current = [], 1
    for place, value in enumerate(values):
        goal = wanted(place) if wanted else current
        switch = [code for code in tables[current - 1] if code.switch == goal]
        if goal != current and switch:
            out.append(switch[0].bits)
            current = goal
        code = next(code for code in tables[current - 1] if fits(value, code))
        out.append(code.bits + (two(value, code.appended) if code.appended else ""))
    bits = "".join(out)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def differences(row: NDArray[np.integer], order: int) -> list[int]:
    """Row itself, its first or second differences; the first one or two samples stay as they are. 16-bit arithmetic."""
    values = row.astype(np.int64).tolist()
    if order == 1:
        values = values[:1] + [b - a for a, b in pairwise(values)]
    elif order == 2:
        values = values[:2] + [c - 2 * b + a for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return [(value + 32768) % 65536 - 32768 for value in values]


@dataclass(frozen=True)
class Beat:
    """One entry of section 4: samples counted from 1."""

    start: int
    fiducial: int
    end: int
    kind: int = 0
    protected: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Signal:
    """Section 5 or 6."""

    samples: NDArray[np.integer]  # (lead, time)
    order: int = 2
    nv: int = 2500
    interval_us: int = 2000
    bimodal: int = 0
    pad: int = 2  # every lead is filled up to a multiple of so many bytes

    def section(self, tables: Sequence[Table] | None, wanted: Callable[[int], int] | None = None) -> bytes:
        rows = []
        for row in self.samples:
            values = differences(row, self.order)
            data = huffman(values, tables, wanted) if tables else struct.pack(f"<{len(values)}h", *values)
            rows.append(data + bytes(-len(data) % self.pad))
        lengths = struct.pack(f"<{len(rows)}H", *map(len, rows))
        return struct.pack("<HHBB", self.nv, self.interval_us, self.order, self.bimodal) + lengths + b"".join(rows)


def device(model: bytes = b"CART01", mains: int = 1, institution: int = 71, language: int = 0) -> bytes:
    """Tag 14: numbers, model, revision 13, mains, and strings behind."""
    head = struct.pack("<HHHBB6sBBBBB", institution, 3, 51, 0, 8, model, 13, 0xA0, language, 0, mains)
    return head + bytes(16) + b"\x00" + b"1.0\x00Serialcanary99\x00\x00\x00\x00"


def tags(**changes: bytes | None) -> list[tuple[int, bytes]]:
    """Tags of section 1 with every place for identity filled; `t4=b""` replaces the value of tag 4, None leaves it out."""
    text = [name.encode() + b"\0" for name in CANARIES]
    values: dict[int, bytes | None] = dict(zip((0, 1, 2, 3), text, strict=False))
    values |= {4: struct.pack("<HB", 63, 1), 5: struct.pack("<HBB", 1956, 2, 29), 8: b"\x02", 9: b"\x01"}
    values |= {6: struct.pack("<HB", 171, 1), 7: struct.pack("<HB", 80, 1)}
    values |= {10: b"\0\0\0" + text[4], 13: text[5], 14: device()}
    values |= dict(zip(range(16, 24), text[6:14], strict=True))
    values |= {25: struct.pack("<HBB", 2019, 3, 31), 26: bytes([14, 5, 59]), 27: struct.pack("<H", 5)}
    values |= {28: struct.pack("<H", 150), 29: b"\x02", 30: text[14], 31: text[15]}
    values |= {34: struct.pack("<hH", 60, 0) + text[16], 35: text[17], 200: text[18]}
    values |= {int(name[1:]): value for name, value in changes.items()}
    return [(tag, value) for tag, value in sorted(values.items()) if value is not None]


def tag_bytes(pairs: Sequence[tuple[int, bytes]], end: bytes = b"\xff\0\0") -> bytes:
    return b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in pairs) + end


def table_bytes(tables: Sequence[Table]) -> bytes:
    """Section 2: the default table by its number, own tables in full."""
    if list(tables) == [DEFAULT]:
        return struct.pack("<H", 19999)
    each = [struct.pack("<H", len(table)) + b"".join(code.structure() for code in table) for table in tables]
    return struct.pack("<H", len(tables)) + b"".join(each)


def lead_bytes(
    ids: Sequence[int], n_samples: int, flags: int | None = None, start: int = 1, count: int | None = None
) -> bytes:
    """Section 3: all leads simultaneous unless the flags say otherwise."""
    flags = 0b100 | min(len(ids), 31) << 3 if flags is None else flags
    entries = [struct.pack("<IIB", start, start + n_samples - 1, lead) for lead in ids]
    return struct.pack("<BB", len(ids) if count is None else count, flags) + b"".join(entries)


def beat_bytes(length_ms: int, fiducial: int, beats: Sequence[Beat]) -> bytes:
    """Section 4: beats, then the protected zones."""
    zones = [struct.pack("<HIII", beat.kind, beat.start, beat.fiducial, beat.end) for beat in beats]
    zones += [struct.pack("<II", *beat.protected) for beat in beats]
    return struct.pack("<HHH", length_ms, fiducial, len(beats)) + b"".join(zones)


def crc(data: bytes) -> bytes:
    return struct.pack("<H", binascii.crc_hqx(data, 0xFFFF))


def section_bytes(number: int, body: bytes, magic: bytes = b"") -> bytes:
    """Header and body, filled up to an even length."""
    body += bytes(len(body) % 2)
    after = struct.pack("<HIBB6s", number, 16 + len(body), 13, 13, magic) + body
    return crc(after) + after


def file_bytes(bodies: Mapping[int, bytes], order: Sequence[int] | None = None, tail: bytes = b"") -> bytes:
    """Sections, by number, in the order given; sections 0 to 11 all have a pointer, absent ones an empty one."""
    order = list(bodies) if order is None else order
    numbers = sorted({*range(12), *bodies})
    at = 6 + 16 + 10 * len(numbers)
    whole, places = {number: section_bytes(number, bodies[number]) for number in order}, {}
    for number in order:
        places[number] = (len(whole[number]), at + 1)
        at += len(whole[number])
    places[0] = (16 + 10 * len(numbers), 7)
    pointers = [struct.pack("<HII", number, *places.get(number, (0, 0))) for number in numbers]
    after = (
        struct.pack("<I", at)
        + section_bytes(0, b"".join(pointers), b"SCPECG")
        + b"".join(whole[number] for number in order)
    )
    return crc(after) + after + tail


def healforce_bytes(
    samples: NDArray[np.integer],
    rate: int = 150,
    nv: int = 9524,
    start: int = 283_501,
    patient: str = CANARIES[2],
    **bent: int,
) -> bytes:
    """A slice as Healforce's devices write it: positions from 0, numbers of section 1 and CRCs most significant byte first.

    samples: (3, time), -512 to 511. bent: n_leads, size, declared, end.
    """
    flat = (samples.T.ravel() + 512).tolist()
    words = []
    for place in range(0, len(flat), 4):
        *three, fourth = [
            flat[at] | (place % 3) << 10 for at in range(place, place + 4)
        ]  # marks of beats above 10 bits
        for nibble, value in zip((8, 4, 0), three, strict=True):
            words.append((value >> 10) << 14 | (fourth >> nibble & 15) << 10 | value & 1023)
    packed = struct.pack(f"<{len(words)}H", *words)
    tag1 = tag_bytes(
        [(2, patient.encode().ljust(30, b"\0")), (25, bytes([7, 227, 8, 8])), (26, bytes([0, 4, 10]))], b"\0" * 4
    )
    end = bent.get("end", start + samples.shape[1] - 1)
    bodies = {1: tag1, 3: struct.pack("<BBIIBB", bent.get("n_leads", 3), 4, start, end, 5, 0)}
    bodies[6] = struct.pack("<HHBBH", nv, rate, 0, 0, bent.get("size", len(packed))) + packed
    at, pointers, after = 6 + 16 + 10 * (len(bodies) + 1), [], b""
    pointers.append(struct.pack("<HII", 0, at - 6, 6))
    for number, body in bodies.items():
        pointers.append(struct.pack("<HII", number, 16 + len(body), at + len(after)))
        after += struct.pack("<HHIBB6s", 0, number, 16 + len(body), 13, 13, b"") + body
    section0 = struct.pack("<HHIBB6s", 0, 0, at - 6, 13, 13, b"") + b"".join(pointers)
    length = bent.get("declared", at + len(after))
    return mend(bytes(4) + struct.pack("<H", length) + section0 + after) + b"\xff" * 50


def mend(data: bytes) -> bytes:
    """Make length and checksums right again after a change, as far as the pointers lead anywhere."""
    out = bytearray(data)
    if len(out) < 22:
        return data
    if out[2:4] == b"\0\0":  # Healforce's own
        (length,) = struct.unpack_from("<H", out, 4)
        out[:2] = binascii.crc_hqx(bytes(out[2:length]), 0).to_bytes(2, "big")
        return bytes(out)
    out[2:6] = struct.pack("<I", len(out))
    (length,) = struct.unpack_from("<I", out, 10)
    for at in range(22, min(6 + length, len(out)) - 9, 10):
        number, size, index = struct.unpack_from("<HII", out, at)
        if number < 12 and size >= 16 and 7 <= index <= len(out) - size + 1:
            out[index - 1 : index + 1] = crc(bytes(out[index + 1 : index - 1 + size]))
    out[0:2] = crc(bytes(out[2:]))
    return bytes(out)


@dataclass(frozen=True)
class Ecg:
    """One file. `reference` and `beats` are given together: the rhythm then holds what is left after subtraction."""

    rhythm: Signal
    leads: Sequence[str] = LEADS
    tables: Sequence[Table] | None = (DEFAULT,)
    wanted: Callable[[int], int] | None = None
    tags: bytes = field(default_factory=lambda: tag_bytes(tags()))
    reference: Signal | None = None
    beats: bytes = b""
    flags: int | None = None
    start: int = 1
    others: Mapping[int, bytes] = field(default_factory=dict)  # further sections, or other bodies

    def bodies(self) -> dict[int, bytes]:
        n_leads, n_samples = self.rhythm.samples.shape
        flags = (0b100 | min(n_leads, 31) << 3 | (self.reference is not None)) if self.flags is None else self.flags
        found = {1: self.tags}
        if self.tables is not None:
            found[2] = table_bytes(self.tables)
        found[3] = lead_bytes([IDS[lead] for lead in self.leads], n_samples, flags, self.start)
        if self.reference is not None:
            found |= {4: self.beats, 5: self.reference.section(self.tables, self.wanted)}
        found[6] = self.rhythm.section(self.tables, self.wanted)
        found[8] = b"\0" + bytes(7) + b"\1" + struct.pack("<BH", 1, len(CANARIES[-1])) + CANARIES[-1].encode()
        return {number: body for number, body in (found | dict(self.others)).items() if body is not None}

    def data(self, order: Sequence[int] | None = None) -> bytes:
        return file_bytes(self.bodies(), order)


def known_samples(n_leads: int = 12, n_samples: int = 60, seed: int = 5) -> NDArray[np.int64]:
    """Smooth and rough stretches, so that every kind of code is used."""
    random = np.random.default_rng(seed)
    smooth = np.cumsum(random.integers(-3, 4, (n_leads, n_samples)), axis=1)
    return smooth + np.where(
        random.random((n_leads, n_samples)) < 0.05, random.integers(-900, 900, (n_leads, n_samples)), 0
    )


def beating_heart(seconds: float, rate_hz: int = 500, nv: int = 2500) -> NDArray[np.int64]:
    """(12 leads, time) in steps: a beat every 0.8 s, within 2 mV; the limb leads agree with each other."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = (time % 0.8) - 0.3
    wave = np.exp(-((phase / 0.012) ** 2)) - 0.2 * np.exp(-(((phase - 0.03) / 0.012) ** 2))
    wave += 0.12 * np.exp(-(((phase + 0.16) / 0.03) ** 2)) + 0.25 * np.exp(-(((phase - 0.25) / 0.05) ** 2))
    noise = np.random.default_rng(3).normal(0, 0.01, (8, len(time)))
    one, two_, *chest = np.array([0.6, 1.0, -0.4, 0.5, 0.9, 1.4, 1.2, 0.8])[:, None] * wave + noise
    limb = [one, two_, two_ - one, -(one + two_) / 2, one - two_ / 2, two_ - one / 2]
    return np.rint(np.stack([*limb, *chest]) * 1e6 / nv).astype(np.int64)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    samples = known_samples() if seconds is None else beating_heart(seconds)
    path = folder / "ecg.scp"
    path.write_bytes(Ecg(Signal(samples)).data())
    return path, [{"entry": "", "leads": LEADS, "rate_hz": 500.0, "signal_mv": samples * 2.5e-3}]


def added_nv(rhythm: Signal, reference: Signal, fiducial: int, beats: Sequence[Beat]) -> NDArray[np.int64]:
    """(lead, time) in nV: residual and reference beat, sample by sample as the description says."""
    total = rhythm.samples.astype(np.int64) * rhythm.nv
    for beat in beats:
        if beat.kind != 0 or beat.end == 0:
            continue
        for sample in range(beat.start, beat.end + 1):
            place = fiducial - beat.fiducial + sample - 1
            if 0 <= place < reference.samples.shape[1] and 1 <= sample <= total.shape[1]:
                total[:, sample - 1] += reference.samples[:, place].astype(np.int64) * reference.nv
    return total


def _written(folder: Path, ecg: Ecg) -> Path:
    path = folder / "ecg.scp"
    path.write_bytes(ecg.data())
    return path


def _plain_integers(folder: Path) -> Path:
    return _written(folder, Ecg(Signal(known_samples(3, 40), order=0), LEADS[:3], tables=None))


def _counted_from_zero(folder: Path) -> Path:
    """Plain samples, 0 to their number."""
    ecg = Ecg(Signal(known_samples(3, 40), order=0), LEADS[:3], None, others={3: lead_bytes([1, 2, 61], 41, start=0)})
    return _written(folder, ecg)


def einthoven_samples(n_samples: int = 40, seed: int = 8) -> NDArray[np.int64]:
    """(3, time): I, II and III, in 10 bits."""
    one, three = np.random.default_rng(seed).integers(-200, 200, (2, n_samples))
    return np.stack([one, one + three, three])


def _healforce(folder: Path) -> Path:
    path = folder / "62.SCP"
    path.write_bytes(healforce_bytes(einthoven_samples()))
    return path


def _subtracted_beats(folder: Path) -> Path:
    rhythm, reference = Signal(known_samples(2, 60), order=1), Signal(known_samples(2, 20, 6))
    beats = beat_bytes(40, 10, [Beat(5, 12, 20), Beat(30, 37, 45)])
    return _written(folder, Ecg(rhythm, LEADS[:2], reference=reference, beats=beats))


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {
    "counted_from_zero": _counted_from_zero,
    "healforce": _healforce,
    "integers": _plain_integers,
    "beats": _subtracted_beats,
}


def _checked(folder: Path) -> tuple[Path, Path, NDArray[np.int64]]:
    """The CRC of the file covers all that follows it, and a flip in the CRC itself shows as well."""
    path, _ = write(folder)
    return path, path, np.arange(8 * path.stat().st_size)


CHECKED = {"CRC": _checked}
