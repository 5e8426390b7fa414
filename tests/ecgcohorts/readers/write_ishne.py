"""Write ISHNE Holter files with known samples, byte by byte from the specification: every field at its offset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {"X": 2, "Y": 3, "Z": 4, "I": 5, "II": 6, "III": 7, "aVR": 8, "aVL": 9, "aVF": 10}
CODES |= {"V1": 11, "V2": 12, "V3": 13, "V4": 14, "V5": 15, "V6": 16}
TWELVE = tuple(CODES)[3:]
ABSENT = -9

CANARIES = (
    *("KANARI-ISHNE-4411", "Fernanda-Ishnewood", "Crabapple-Ishnewood"),
    *("proprietary Ishne lobster", "copyright Ishne teapot", "notes about the Ishne glacier"),
)
PID, FIRST, LAST, PROPRIETARY, COPYRIGHT, NOTES = CANARIES


def crc_of(data: bytes) -> int:
    """CRC-CCITT bit by bit: polynomial 0x1021, start 0xFFFF."""
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = ((register << 1) ^ 0x1021 if register & 0x8000 else register << 1) & 0xFFFF
    return register


def put(header: bytearray, offset: int, *values: int) -> None:
    for place, value in enumerate(values):
        header[offset + 2 * place : offset + 2 * place + 2] = value.to_bytes(2, "little", signed=True)


def put_long(header: bytearray, offset: int, value: int) -> None:
    header[offset : offset + 4] = value.to_bytes(4, "little", signed=True)


def put_text(header: bytearray, offset: int, text: str, size: int) -> None:
    header[offset : offset + size] = text.encode("latin-1")[:size].ljust(size, b"\0")


def document(
    digital: NDArray[np.integer],
    leads: Sequence[str | int] = TWELVE,
    steps_nv: Sequence[int] | int = 5000,
    rate: int = 500,
    declared: int | None = None,
    variable: str = NOTES,
    **longs: int,
) -> bytes:
    """A whole file. longs: bytes_of_text, text_at, samples_at, n_leads, sex, year_born bent."""
    n_leads, n_samples = digital.shape
    text = variable.encode("latin-1")
    header = bytearray(522)
    put_long(header, 10, longs.get("bytes_of_text", len(text)))
    put_long(header, 14, n_samples if declared is None else declared)
    put_long(header, 18, longs.get("text_at", 522))
    put_long(header, 22, longs.get("samples_at", 522 + len(text)))
    put(header, 26, 1)
    put_text(header, 28, FIRST, 40)
    put_text(header, 68, LAST, 40)
    put_text(header, 108, PID, 20)
    put(header, 128, longs.get("sex", 2), 1)
    put(header, 132, 23, 4, longs.get("year_born", 1951))
    put(header, 138, 23, 4, 2011, 24, 4, 2011, 13, 59, 7)
    put(header, 156, longs.get("n_leads", n_leads))
    put(header, 158, *[CODES[lead] if isinstance(lead, str) else lead for lead in leads], *[ABSENT] * (12 - n_leads))
    put(header, 182, *[1] * n_leads, *[ABSENT] * (12 - n_leads))
    steps = [steps_nv] * n_leads if isinstance(steps_nv, int) else list(steps_nv)
    put(header, 206, *steps, *[ABSENT] * (12 - n_leads))
    put(header, 230, 0)
    put_text(header, 232, "digital", 40)
    put(header, 272, rate)
    put_text(header, 274, PROPRIETARY, 80)
    put_text(header, 354, COPYRIGHT, 80)
    header[:8] = b"ISHNE1.0"
    samples = b"".join(int(value).to_bytes(2, "little", signed=True) for value in digital.T.ravel())
    return mend(bytes(header) + text + samples)


def mend(data: bytes) -> bytes:
    """The CRC made right again: it covers the header and the text behind it, as far as the file says where they end."""
    end = int.from_bytes(data[22:26], "little", signed=True)
    covered = data[10:end] if 10 <= end <= len(data) and end < 5000 else data[10:522]
    return data[:8] + crc_of(covered).to_bytes(2, "little") + data[10:] if len(data) > 10 else data


def known_samples(n_leads: int = 12, n_samples: int = 60, seed: int = 31) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-350, 350, (n_leads, n_samples))


def beats(n_samples: int, rate: int = 500) -> NDArray[np.int64]:
    """(12, time) in the order of TWELVE, 5 uV a step."""
    rng = np.random.default_rng(32)
    phase_s = (np.arange(n_samples) % rate - rate // 2) / rate
    spike = rng.uniform(80, 280, (8, 1)) * np.exp(-((phase_s / 0.03) ** 2))
    eight = np.rint(spike + rng.normal(0, 4, (8, n_samples))).astype(np.int64)
    one, two = eight[:2]
    return np.stack([one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2, *eight[2:]])


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    digital = known_samples(3) if seconds is None else beats(round(seconds * 500))
    leads = TWELVE[: len(digital)]
    path = folder / "holter.ecg"
    path.write_bytes(document(digital, leads))
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": digital * 5e-3}]


def write_without_text(folder: Path) -> Path:
    """Two leads, no text behind the header, a few bytes behind the samples."""
    path = folder / "holter.ecg"
    path.write_bytes(document(known_samples(2), ("V1", "V5"), 2500, variable="") + bytes(7))
    return path


VARIANT_FIXTURES = {"without_text": write_without_text}


def _checked(folder: Path) -> tuple[Path, Path, range]:
    path, _ = write(folder)
    return path, path, range(8 * 10, 8 * (522 + len(NOTES)))


CHECKED = {"CRC-CCITT": _checked}
