"""Write MFER files with known samples, tag by tag, from what ISO 22077 publishes of its encoding rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}
CODES |= {"V1": 3, "V2": 4, "V3": 5, "V4": 6, "V5": 7, "V6": 8, "status": 4160, "pressure": 0xC00A}
TWELVE = tuple(CODES)[:12]
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
TYPES = {0: "i2", 1: "u2", 2: "i4", 3: "u1", 4: "u2", 5: "i1", 6: "u4", 7: "f4", 8: "f8"}

CANARIES = ("KANARI-MFER-330", "Sakurako-Mferdottir", "note about the Mfer umbrella")
PID, NAME, NOTE = CANARIES


def tag(code: int, content: bytes, channel: int | None = None) -> bytes:
    """One definition: tag, perhaps a channel, length, content."""
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x84" + size.to_bytes(4, "big")
    return bytes([code]) + (b"" if channel is None else bytes([channel])) + length + content


@dataclass(frozen=True)
class Coder:
    """Numbers in one of the two byte orders."""

    little: bool = True

    def number(self, value: int, size: int = 2) -> bytes:
        return value.to_bytes(size, "little" if self.little else "big", signed=value < 0)

    def scaled(self, unit: int, exponent: int, mantissa: int, size: int = 2) -> bytes:
        return bytes([unit]) + exponent.to_bytes(1, "big", signed=True) + self.number(mantissa, size)

    def samples(self, values: NDArray[np.integer], kind: int) -> bytes:
        return values.astype(("<" if self.little else ">") + TYPES[kind]).tobytes()


@dataclass(frozen=True)
class Channel:
    """One channel: its lead, all its samples, and how they are written."""

    lead: str | int
    samples: NDArray[np.integer]
    block: int = 20
    kind: int = 0
    step: tuple[int, int, int] | None = (0, -6, 5)  # unit (0: V), exponent, mantissa
    interval: tuple[int, int, int] | None = (1, -3, 2)  # unit (1: s), exponent, mantissa
    null: int | None = None
    extra: bytes = b""

    def attributes(self, coder: Coder) -> bytes:
        code = CODES[self.lead] if isinstance(self.lead, str) else self.lead
        parts = [tag(0x09, coder.number(code)), tag(0x0A, bytes([self.kind])), tag(0x04, coder.number(self.block, 4))]
        parts += [tag(0x0B, coder.scaled(*self.interval))] if self.interval else []
        parts += [tag(0x0C, coder.scaled(*self.step))] if self.step else []
        parts += [tag(0x12, coder.number(self.null))] if self.null is not None else []
        return b"".join(parts) + self.extra


PEOPLE = (PID.encode("ascii"), NAME.encode("utf-16-le"), bytes([60, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]), b"\x02")


def head(coder: Coder, people: Sequence[bytes] = PEOPLE, order: bytes | None = None) -> bytes:
    """What stands before the channels."""
    ident, name, age, sex = people
    time = coder.number(2011) + bytes([4, 23, 13, 59, 7]) + bytes(4)
    parts = [
        tag(0x40, b"MFR Monitoring Waveform".ljust(32, b"\0")),
        tag(0x01, bytes([coder.little]) if order is None else order),
        tag(0x03, b"ANSI X3.4\0"),
        tag(0x17, b"NIHON KOHDEN^CNS6000^0, 5, 0, 9\0"),
        tag(0x08, b"\x14"),
        tag(0x85, time),
        tag(0x82, ident),
        tag(0x03, b"UTF-16LE\0\0"),
        tag(0x81, name),
        tag(0x03, b"ANSI X3.4\0"),
        tag(0x83, age),
        tag(0x84, sex),
        tag(0x16, NOTE.encode()),
        b"\0",  # filler
    ]
    return b"".join(parts)


def frame(
    channels: Sequence[Channel], coder: Coder, sequences: int | None = None, n_channels: int | None = None
) -> bytes:
    """The channels and their samples; `sequences` and `n_channels` bend what is declared."""
    count = len(channels[0].samples) // channels[0].block
    declared = [tag(0x06, coder.number(count if sequences is None else sequences, 4))]
    declared += [tag(0x05, coder.number(len(channels) if n_channels is None else n_channels))]
    declared += [tag(0x3F, each.attributes(coder), place) for place, each in enumerate(channels)]
    blocks = [
        coder.samples(each.samples[place * each.block : (place + 1) * each.block], each.kind)
        for place in range(count)
        for each in channels
    ]
    return b"".join(declared) + tag(0x1E, b"".join(blocks))


def document(channels: Sequence[Channel], little: bool = True, **how: Any) -> bytes:
    coder = Coder(little)
    heading = {key: how.pop(key) for key in ("people", "order") if key in how}
    before, after = how.pop("before", b""), how.pop("after", b"")
    return head(coder, **heading) + before + frame(channels, coder, **how) + after + b"\x80"


def known_samples(n_leads: int = 2, n_samples: int = 60, seed: int = 41) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-300, 300, (n_leads, n_samples))


def beats(n_samples: int, rate: int = 500) -> NDArray[np.int64]:
    """(8, time) in the order of EIGHT, 5 uV a step."""
    rng = np.random.default_rng(42)
    phase_s = (np.arange(n_samples) % rate - rate // 2) / rate
    spike = rng.uniform(80, 280, (8, 1)) * np.exp(-((phase_s / 0.03) ** 2))
    return np.rint(spike + rng.normal(0, 4, (8, n_samples))).astype(np.int64)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: leads beside a pressure and a status, and what must come out of it."""
    digital = known_samples() if seconds is None else beats(round(seconds * 500))
    leads, n_samples = EIGHT[: len(digital)], digital.shape[1]
    channels = [Channel(lead, row) for lead, row in zip(leads, digital, strict=True)]
    slow = Channel("pressure", np.arange(n_samples // 2) % 90, 10, step=(1, -3, 125), interval=(1, -3, 4))
    status = Channel("status", np.zeros(n_samples, int), kind=4, step=None)
    path = folder / "monitor.mwf"
    path.write_bytes(document([*channels[:1], slow, *channels[1:], status]))
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": digital * 5e-3}]


def write_big_endian(folder: Path) -> Path:
    """Two leads of 32 bits in one block each, most significant byte first."""
    path = folder / "cart.mwf"
    channels = [Channel(lead, row, 60, 2) for lead, row in zip(("I", "II"), known_samples(), strict=True)]
    path.write_bytes(document(channels, little=False))
    return path


VARIANT_FIXTURES = {"big_endian": write_big_endian}
