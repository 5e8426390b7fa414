"""Contec ECG90A `.ECG` files: a header of 43 bytes, eight leads of unsigned 16-bit samples, zeros at the end.

Source: N. Rigacci's published description of the format, found by experiment, and one file of his. The file states
neither rate nor step nor leads: the device has only these.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import read_bounded
from ecgcohorts.readers._shared.limits import MAX_SECONDS, check_shape
from ecgcohorts.readers._shared.people import Context, age_in_years
from ecgcohorts.recording import Origin, Recording, Sex

SUFFIXES = (".ecg",)
VARIANTS = ("ECG90A: leads II, III and V1 to V6 at 800 Hz, 5 uV a step (rate and step as published, not in the file)",)
LEADS = ("II", "III", "V1", "V2", "V3", "V4", "V5", "V6")
RATE_HZ = 800.0
# As published, without its source. A QRS complex of 1.1 mV in lead III of the one real file does not contradict it.
STEPS_PER_MV = 200.0
BASELINE = 2048  # the middle of 12 bits
HIGHEST = 4095
MISSING = 0x6800  # what stands in place of a lead whose electrode is off

HEADER = struct.Struct("<8s2x20s2x8xBBB")  # number of the recording, time, name (never read), sex, age, weight
FOOTER_BYTES = 37  # zeros
FRAME_BYTES = 2 * len(LEADS)
FILE_LIMIT = HEADER.size + FOOTER_BYTES + int(MAX_SECONDS * RATE_HZ) * FRAME_BYTES
SEXES: dict[int, Sex] = {0: "female", 1: "male"}
NO_VALUE = 0  # age and weight where none was entered

_START = re.compile(
    rb"[ -~]{0,7}\0{1,8}\0\0([0-9]{4})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})\0\0\0", re.DOTALL
)
_TIME_AT, _NAME_AT = 10, 32
OFF = "leads off throughout: "


def sniff(head: bytes) -> bool:
    """Tell whether a number of the recording and a moment stand where they should: the format has no mark."""
    match = _START.match(head)
    return match is not None and match.start(1) == _TIME_AT and match.end() == _NAME_AT


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers; 0x6800 is missing. Raises UnreadableRecording.
    """
    data, where = read_bounded(path, FILE_LIMIT), str(path)
    n_samples = _n_samples(data, where)
    payload = data[HEADER.size : HEADER.size + n_samples * FRAME_BYTES]
    digital = np.ascontiguousarray(np.frombuffer(payload, "<u2").reshape(n_samples, len(LEADS)).T, np.int32)
    missing = digital == MISSING
    highest = int(digital[~missing].max(initial=0))
    # Zeros in all leads end the samples, so they mean that the file was cut or mixed up.
    if not digital.any(axis=0).all() or highest > HIGHEST:
        _refuse(Reason.HEADER, f"zeros among the samples, or {highest}", f"1 to {HIGHEST}", where)
    # Unlike a flat lead, an electrode that was never connected is no fault of the recording.
    off = [lead for lead, lost in zip(LEADS, missing, strict=True) if lost.all()]
    notes = (OFF + ", ".join(off),) if off else ()
    yield _recording(path, data, n_samples, digital, missing if missing.any() else None, notes)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples, from header and size."""
    data = read_bounded(path, FILE_LIMIT)
    yield _recording(path, data, _n_samples(data, str(path)), np.zeros((len(LEADS), 0), np.int32))


def _recording(
    path: Path,
    data: bytes,
    n_samples: int,
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
    notes: tuple[str, ...] = (),
) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=LEADS,
        rate_hz=RATE_HZ,
        digital=digital,
        gain_per_mv=np.full(len(LEADS), STEPS_PER_MV),
        baseline=np.full(len(LEADS), float(BASELINE)),
        missing=missing,
        n_samples=n_samples,
        source=Origin("contec", path),
        **_context(data).facts(*notes),
    )


def _n_samples(data: bytes, where: str) -> int:
    """Return the samples of each lead: what lies between header and footer, in whole frames."""
    if not sniff(data) or len(data) < HEADER.size:
        _refuse(Reason.FORMAT, f"{len(data)} bytes of another start", "a header of ECG90A", where)
    # Without a declared length, the zeros at the end are all that tells a whole file from a cut one.
    payload = len(data) - HEADER.size - FOOTER_BYTES
    if payload < 0 or payload % FRAME_BYTES or any(data[-FOOTER_BYTES:]):
        _refuse(Reason.TRUNCATED, f"{len(data)} bytes", f"whole samples, then {FOOTER_BYTES} zeros", where)
    check_shape(len(LEADS), payload // FRAME_BYTES, RATE_HZ, where)
    return payload // FRAME_BYTES


def _context(data: bytes) -> Context:
    """Collect time, sex and age. The name is never read; the number counts recordings, not patients."""
    number, time, sex, age, weight = HEADER.unpack_from(data)
    stamp = time.split(b"\0", 1)[0].decode("ascii")
    fields = {"Case": number.split(b"\0", 1)[0].decode("ascii").strip(), "Time": stamp, "Sex": str(sex)}
    fields |= {"Age": str(age), "Weight": str(weight)}
    return Context(
        # Devices count from 1 again when their card is cleared: as an id, the number would join strangers.
        patient_id=None,
        age_years=None if age == NO_VALUE else age_in_years(age, "year"),
        sex=SEXES.get(sex),
        acquired_at=_moment(stamp),
        device=None,
        site=None,
        mains_hz=None,
        fields={name: text for name, text in fields.items() if text},
        notes=(),
    )


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S")
    except ValueError:  # a clock that was never set
        return None


def _refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, "Copy the file again from the device.", where)
