"""Read `.SCP` files of Healforce's portable devices: a frame like SCP-ECG's, with other checksums, times and samples.

Sources: two files of a Prince 180D and the reader that their owner published. Both numbers of bytes, the checksums (CRC
with start 0, most significant byte first) and the order of the leads were checked on these files.
"""

import binascii
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context, known, moment
from ecgcohorts.readers.scp.sections import BLOCK_HEADER, FILE_HEADER, LEAD_ENTRY, POINTER, SECTION_HEADER, refuse
from ecgcohorts.readers.scp.tags import _walk
from ecgcohorts.recording import Origin, Recording

PATIENT_ID, DATE, TIME = 2, 25, 26
TAGS, LEADS, RHYTHM = 1, 3, 6  # section numbers
CRC_START = 0
# The file names no lead. In both files the middle one is the sum of the others, to 2.2 steps on average; any other order
# of I, II and III misses by 12 and more.
NAMES = ("I", "II", "III")
MOST_OFF_STEPS = 5.0
NV_PER_MV = 1_000_000
VALUE_BITS, ZERO = 0x03FF, 512
FOUR_SAMPLES_BYTES = 6
SLICE = "a slice of a longer recording"


class _Slice(NamedTuple):
    """One file: half a minute of a longer recording."""

    rate_hz: int
    nv_per_step: int
    start: int  # number of the first sample in the whole recording, from 1
    n_samples: int
    packed: bytes
    tags: Mapping[int, bytes]

    @staticmethod
    def is_one(data: bytes) -> bool:
        """Tell a file of Healforce from SCP-ECG: positions from 0, and a file length in the last two of its four bytes."""
        if len(data) < FILE_HEADER + SECTION_HEADER + POINTER.size or any(data[2:4]):
            return False
        (length,) = struct.unpack_from("<I", data, FILE_HEADER + 4)
        return POINTER.unpack_from(data, FILE_HEADER + SECTION_HEADER) == (0, length, FILE_HEADER)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Verify the checksum of the file and take it apart. Raises UnreadableRecording."""
        # Files are filled up to 32,768 bytes with 0xFF.
        (declared,) = struct.unpack_from("<H", data, 4)
        if declared > len(data):
            refuse(f"{len(data)} bytes", f"{declared} as declared", where, Reason.TRUNCATED)
        if declared < FILE_HEADER + SECTION_HEADER:
            refuse(f"a file of {declared} bytes", "room for section 0", where)
        if binascii.crc_hqx(data[2:declared], CRC_START) != int.from_bytes(data[:2], "big"):
            refuse("another CRC of the file", "the stored one", where, Reason.CHECKSUM)
        bodies = _bodies(data[:declared], where)
        if LEADS not in bodies or RHYTHM not in bodies:
            refuse("no rhythm", "leads and rhythm, sections 3 and 6", where, Reason.EMPTY)
        leads, rhythm = bodies[LEADS], bodies[RHYTHM]
        if len(leads) < 2 + LEAD_ENTRY.size or len(rhythm) < BLOCK_HEADER.size + 2:
            refuse("sections without content", "leads and rhythm", where)
        # Devices with one electrode pair write one lead; which one it is stands nowhere, and no law can tell.
        if leads[0] != len(NAMES):
            refuse(f"{leads[0]} leads without names", "I, II and III", where, Reason.UNSUPPORTED)
        start, end, _ = LEAD_ENTRY.unpack_from(leads, 2)
        # In place of the interval in us stands the rate in Hz.
        nv_per_step, rate_hz, differences, bimodal = BLOCK_HEADER.unpack_from(rhythm)
        (size,) = struct.unpack_from("<H", rhythm, BLOCK_HEADER.size)
        n_samples = end - start + 1
        if not 1 <= start <= end or differences or bimodal or not nv_per_step:
            refuse(f"samples {start} to {end} in another coding", "plain samples of 10 bits", where, Reason.UNSUPPORTED)
        check_shape(len(NAMES), n_samples, rate_hz, where)
        packed = rhythm[BLOCK_HEADER.size + 2 :][:size]
        if len(packed) != size or size * 4 != FOUR_SAMPLES_BYTES * len(NAMES) * n_samples:
            refuse(f"{len(packed)} bytes of rhythm", f"four samples in {FOUR_SAMPLES_BYTES} bytes", where)
        return cls(rate_hz, nv_per_step, start, n_samples, packed, _walk(bodies.get(TAGS, b""), {}) or {})

    def samples(self, where: str) -> NDArray[np.int32]:
        """Unpack to (lead, time). Raises UnreadableRecording if the leads are not I, II and III by Einthoven's law."""
        words = np.frombuffer(self.packed, "<u2").reshape(-1, 3).astype(np.int32)
        # Each word holds a sample in its low bits, two marks of beats in its high ones, and between them four bits of
        # the fourth sample.
        fourth = (words & 0x3C00) >> np.array([2, 6, 10])
        values = np.column_stack([words, fourth.sum(axis=1)]) & VALUE_BITS
        digital = np.ascontiguousarray(values.reshape(-1, len(NAMES)).T - ZERO, np.int32)
        one, two, three = digital
        if np.abs(two - one - three).mean() > MOST_OFF_STEPS:
            refuse("three leads without names", "I, II and III", where, Reason.UNSUPPORTED)
        return digital

    def recording(self, path: Path, digital: NDArray[np.int32]) -> Recording:
        return Recording(
            recording_id=path.stem,
            leads=NAMES,
            rate_hz=float(self.rate_hz),
            digital=digital,
            gain_per_mv=np.full(len(NAMES), NV_PER_MV / self.nv_per_step),
            baseline=np.zeros(len(NAMES)),
            n_samples=self.n_samples,
            source=Origin("scp", path),
            **self._context().facts(SLICE),
        )

    def _context(self) -> Context:
        """Collect id and time: most significant byte first, the start of the whole recording."""
        patient = self.tags.get(PATIENT_ID, b"").split(b"\0", 1)[0].decode("latin-1").strip()
        day, clock = self.tags.get(DATE, b""), self.tags.get(TIME, b"")
        # Both files state the same time and continue each other, so it is the start of the whole recording.
        began: datetime | None = None
        if len(day) == 4 and len(clock) == 3:
            began = moment(int.from_bytes(day[:2], "big"), *day[2:], *clock)
        acquired_at = began + timedelta(seconds=(self.start - 1) // self.rate_hz) if began else None
        return Context(
            patient_id=known(patient),
            age_years=None,
            sex=None,
            acquired_at=acquired_at,
            device=None,
            site=None,
            mains_hz=None,
            fields={"PatientID": patient} if patient else {},
            notes=(),
        )


def _bodies(data: bytes, where: str) -> dict[int, bytes]:
    """Return what follows the header of each section. Positions count from 0."""
    (length,) = struct.unpack_from("<I", data, FILE_HEADER + 4)
    end = FILE_HEADER + length
    if end > len(data):
        refuse(f"{length} bytes of pointers", f"at most {len(data)}", where)
    found: dict[int, bytes] = {}
    for at in range(FILE_HEADER + SECTION_HEADER, end - POINTER.size + 1, POINTER.size):
        section, size, position = POINTER.unpack_from(data, at)
        if size < SECTION_HEADER or position < FILE_HEADER or position + size > len(data) or section in found:
            refuse(f"section {section} of {size} bytes at {position}", "sections inside the file", where)
        # The pointer to the rhythm tells the size before packing; what the section's own header tells is its true size.
        found[section] = data[position + SECTION_HEADER : position + size]
    return found
