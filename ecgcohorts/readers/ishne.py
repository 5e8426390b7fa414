"""ISHNE Holter files (`ISHNE1.0`): a header of fixed length, a block of free text, and interleaved 16-bit samples.

Source: Badilini, The ISHNE Holter Standard Output File Format, 1998, and independent readers of it. No real file is at
hand: the layout is unconfirmed, and whatever differs from it is refused.
"""

import binascii
import os
import struct
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import open_regular, read_exactly
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context, age_of, known, moment
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.recording import Origin, Recording, Sex

SUFFIXES = (".ecg", ".hol", ".ish")
VARIANTS = ("version 1 with CRC, 1 to 12 leads in nV a step, windows of days (layout unconfirmed on real files)",)
LONG = True  # reads parts of recordings of any length
MAGIC = b"ISHNE1.0"
CRC_AT, HEADER_AT, VARIABLE_AT = 8, 10, 522
CRC_START = 0xFFFF  # CRC-CCITT: polynomial 0x1021, not reflected, no final xor
MOST_VARIABLE = 1 << 20  # bytes of free text; our default
MOST_LEADS = 12  # the header has room for no more
SAMPLE_BYTES = 2
MISSING = -(1 << 15)  # how writers mark a lead fault

# From byte 10: sizes of free text and signal, their offsets, version; two names (never read); id, sex, race; birth,
# recording and file date as day, month, year; start as hour, minute, second; number of leads.
_FACTS = struct.Struct("<4ih80x20shh3h3h3h3hh")
_LEADS = struct.Struct("<12h12h12h")  # code, quality and resolution in nV of each
_DEVICE = struct.Struct("<h40sh")  # pacemaker, recorder, rate in Hz
_LEADS_AT = HEADER_AT + _FACTS.size
_DEVICE_AT = _LEADS_AT + _LEADS.size

# 0 (unknown) and 1 (bipolar) name no lead, and no lead of theirs may be mistaken for one of the twelve.
NAMES = {2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"}
NAMES |= {10 + place: f"V{place}" for place in range(1, 7)} | {17: "ES", 18: "AS", 19: "AI"}
SEXES: dict[int, Sex] = {1: "male", 2: "female"}
TRAILING = "bytes after the last sample ignored"
MOST_TRAILING_S = 1.0  # more than this after the declared end is no padding, and the count may be wrong; our default


class _Header(NamedTuple):
    """What the header says, compared with the size of the file."""

    leads: tuple[str, ...]
    per_mv: tuple[float, ...]
    rate_hz: float
    n_samples: int  # per lead
    starts_at: int  # byte of the first sample
    context: Context


def sniff(head: bytes) -> bool:
    """Tell whether a file starts with the mark of version 1; annotation files have another one."""
    return head.startswith(MAGIC)


def read(path: Path, entries: Sequence[str] | None = None, part: slice | None = None) -> Iterator[Recording]:
    """Yield the one recording of a file, or a part of it. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers; -32768 is missing. Raises UnreadableRecording.
    """
    with open_regular(path) as file:
        header = _open(file, path, part)
        taken = range(header.n_samples)[part or slice(None)]
        header = header._replace(n_samples=len(taken))
        file.seek(header.starts_at + taken.start * len(header.leads) * SAMPLE_BYTES)
        payload = read_exactly(file, len(taken) * len(header.leads) * SAMPLE_BYTES, path)
    interleaved = np.frombuffer(payload, "<i2").reshape(header.n_samples, len(header.leads))
    digital = np.ascontiguousarray(interleaved.T, np.int32)
    missing = digital == MISSING
    yield _recording(path, header, digital, missing if missing.any() else None)


def scan(path: Path, long: bool = False) -> Iterator[Recording]:
    """Yield the same recording without samples; the CRC covers the header only and is verified. long: of any length."""
    with open_regular(path) as file:
        header = _open(file, path, slice(0) if long else None)
    yield _recording(path, header, np.zeros((len(header.leads), 0), np.int32))


def _recording(
    path: Path, header: _Header, digital: NDArray[np.int32], missing: NDArray[np.bool_] | None = None
) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=header.leads,
        rate_hz=header.rate_hz,
        digital=digital,
        gain_per_mv=np.array(header.per_mv),
        baseline=np.zeros(len(header.leads)),
        missing=missing,
        n_samples=header.n_samples,
        source=Origin("ishne", path),
        **header.context.facts(),
    )


def _open(file: FileIO, path: Path, part: slice | None) -> _Header:
    """Read and verify the header. Raises UnreadableRecording before anything is allocated for samples."""
    where, size = str(path), os.fstat(file.fileno()).st_size
    head = file.read(VARIABLE_AT)
    if not sniff(head):
        _refuse(Reason.FORMAT, "another start", "ISHNE1.0", where)
    if len(head) < VARIABLE_AT:
        _refuse(Reason.TRUNCATED, f"{len(head)} bytes", f"{VARIABLE_AT} of a header", where)
    facts = _FACTS.unpack_from(head, HEADER_AT)
    variable, n_samples, variable_at, starts_at = facts[:4]
    # One reader trusts the sizes, another the offsets. Where they contradict each other, nothing tells which is right.
    if not 0 <= variable <= MOST_VARIABLE or variable_at != VARIABLE_AT or starts_at != VARIABLE_AT + variable:
        _refuse(
            Reason.HEADER,
            f"{variable} bytes of text at {variable_at}, samples at {starts_at}",
            f"at most {MOST_VARIABLE} at {VARIABLE_AT}, samples behind them",
            where,
        )
    _verify(head, read_exactly(file, variable, path) if starts_at <= size else b"", where)
    n_leads = facts[-1]
    if not 1 <= n_leads <= MOST_LEADS:
        _refuse(Reason.LIMIT, f"{n_leads} leads", f"1 to {MOST_LEADS}", where)
    pacemaker, recorder, rate = _DEVICE.unpack_from(head, _DEVICE_AT)
    check_shape(n_leads, n_samples, float(rate), where, part)
    notes = _check_length(n_samples, n_leads, rate, size - starts_at, where)
    codes_qualities_steps = _LEADS.unpack_from(head, _LEADS_AT)
    leads = tuple(NAMES.get(code, f"ISHNE-{code}") for code in codes_qualities_steps[:n_leads])
    steps_nv = codes_qualities_steps[2 * MOST_LEADS : 2 * MOST_LEADS + n_leads]
    # -9 stands for absent facts in this format, also where a lead has no resolution.
    if min(steps_nv) <= 0:
        _refuse(Reason.UNIT, f"a step of {min(steps_nv)} nV", "a resolution for every lead", where)
    per_mv = tuple(steps_per_mv(1.0 / step, "nV", lead, where) for step, lead in zip(steps_nv, leads, strict=True))
    context = _context(_text(facts[5]), facts[6:-1], _text(recorder), pacemaker)
    context = context._replace(notes=(*notes, *context.notes))
    return _Header(leads, per_mv, float(rate), n_samples, starts_at, context)


def _verify(head: bytes, variable: bytes, where: str) -> None:
    (stored,) = struct.unpack_from("<H", head, CRC_AT)
    if binascii.crc_hqx(head[HEADER_AT:] + variable, CRC_START) != stored:
        _refuse(Reason.CHECKSUM, "another CRC of the header", "the stored one", where)


def _check_length(n_samples: int, n_leads: int, rate: int, payload: int, where: str) -> tuple[str, ...]:
    """Compare the declared samples of each lead with the bytes there are. Returns a note if some are left over."""
    over = payload - n_samples * n_leads * SAMPLE_BYTES
    # Some programs count over all leads. Such a file looks like one that was cut, so it is refused, too.
    if over < 0:
        _refuse(Reason.TRUNCATED, f"{payload} bytes", f"{n_samples} samples of each of {n_leads} leads", where)
    if over > MOST_TRAILING_S * rate * n_leads * SAMPLE_BYTES:
        _refuse(Reason.HEADER, f"{over} bytes after the last sample", f"at most {MOST_TRAILING_S:g} s", where)
    return (TRAILING,) if over else ()


def _context(patient: str, facts: tuple[int, ...], recorder: str, pacemaker: int) -> Context:
    """Collect what the header says about the patient and the recording; names and free text are never read."""
    sex, race, *numbers = facts
    born, recorded = numbers[2::-1], numbers[5:2:-1]  # day, month, year, turned round
    acquired_at = moment(*recorded, *numbers[9:12]) or moment(*recorded)
    fields = {"ID": patient, "Sex": str(sex), "Race": str(race), "Recorder": recorder, "Pacemaker": str(pacemaker)}
    fields |= {"BirthDate": _day(born), "RecordingDate": _day(recorded)}
    age_years, doubts = age_of(None, moment(*born), acquired_at)
    return Context(
        patient_id=known(patient),
        age_years=age_years,
        sex=SEXES.get(sex),
        acquired_at=acquired_at,
        device=recorder or None,
        site=None,
        mains_hz=None,
        fields={name: text for name, text in fields.items() if text},
        notes=doubts,
    )


def _day(parts: list[int]) -> str:
    day = moment(*parts)
    return day.date().isoformat() if day else ""


def _text(value: bytes) -> str:
    """Decode a text up to its NUL, stripped; the standard names no encoding."""
    return value.split(b"\0", 1)[0].decode("latin-1").strip()


def _refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, "Export the file again.", where)
