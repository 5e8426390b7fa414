"""Write small WFDB records with known samples: the ten integer formats, MATLAB 4, frames, skew, segments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 10, 311: 10}
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True)
class Channel:
    """One signal line and its samples; texts go into the header as they are."""

    samples: NDArray[np.signedinteger]  # as stored: before any skew, all samples of all frames
    name: str = "I"
    file: str = "r.dat"
    fmt: int = 16
    gain: str = "1000(0)/mV"
    per_frame: int = 1
    skew: int = 0
    offset: int = 0
    tail: str | None = None  # what follows the gain; None: computed
    extra: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        cluster = str(self.fmt)
        cluster += f"x{self.per_frame}" if self.per_frame > 1 else ""
        cluster += f":{self.skew}" if self.skew else ""
        cluster += f"+{self.offset}" if self.offset else ""
        tail = f"16 0 {self.samples[0]} {checksum(self.samples)} 0" if self.tail is None else self.tail
        return " ".join(part for part in (self.file, cluster, self.gain, tail, self.name) if part)


def checksum(samples: NDArray[np.signedinteger]) -> int:
    """Sum of all samples modulo 2^16, written signed, as the C library does."""
    return int((int(samples.astype(np.int64).sum()) + (1 << 15)) % (1 << 16)) - (1 << 15)


def encode(fmt: int, frames: NDArray[np.signedinteger]) -> bytes:
    """Samples in storage order, (frame, sample of the frame), as the bytes of one format. Source: signal(5)."""
    flat = frames.astype(np.int64).ravel()
    if fmt == 8:
        first = np.diff(frames.astype(np.int64), axis=0, prepend=frames[:1])
        return first.astype(np.int8).tobytes()
    if fmt == 24:
        return b"".join(int(value).to_bytes(3, "little", signed=True) for value in flat)
    if fmt in (212, 310, 311):
        return _packed(fmt, flat)
    shift = {80: 128, 160: 32768}.get(fmt, 0)
    dtype = {16: "<i2", 61: ">i2", 32: "<i4", 80: "u1", 160: "<u2"}[fmt]
    return (flat + shift).astype(dtype).tobytes()


def _packed(fmt: int, flat: NDArray[np.int64]) -> bytes:
    """Bit by bit, group by group: slow, and unlike the reader."""
    size = 2 if fmt == 212 else 3
    out = b""
    for start in range(0, len(flat), size):
        group = [int(value) & ((1 << BITS[fmt]) - 1) for value in flat[start : start + size]]
        count = len(group)
        group += [0] * (size - count)
        if fmt == 212:
            data = bytes([group[0] & 0xFF, (group[0] >> 8) | ((group[1] >> 8) << 4), group[1] & 0xFF])
            out += data[: {1: 2, 2: 3}[count]]
        elif fmt == 310:
            low = (group[0] << 1) | ((group[2] & 0x1F) << 11)
            high = (group[1] << 1) | ((group[2] >> 5) << 11)
            out += (low.to_bytes(2, "little") + high.to_bytes(2, "little"))[: {1: 2, 2: 4, 3: 4}[count]]
        else:
            word = group[0] | (group[1] << 10) | (group[2] << 20)
            out += word.to_bytes(4, "little")[: {1: 2, 2: 3, 3: 4}[count]]
    return out


def frames_of(channels: Sequence[Channel]) -> NDArray[np.signedinteger]:
    """(frame, sample of the frame) of the channels of one file."""
    return np.concatenate([channel.samples.reshape(-1, channel.per_frame) for channel in channels], axis=1)


def write_record(
    folder: Path,
    channels: Sequence[Channel],
    record_line: str | None = None,
    comments: Sequence[str] = (),
    name: str = "r",
    newline: str = "\n",
) -> Path:
    """Write header and signal files; returns the path of the header."""
    for file, group in groupby(channels, key=lambda channel: channel.file):
        members = list(group)
        padding = bytes(range(1, members[0].offset % 256 + 1)).ljust(members[0].offset, b"\x55")
        (folder / file).write_bytes(padding + encode(members[0].fmt, frames_of(members)))
    if record_line is None:
        record_line = f"{name} {len(channels)} 500 {len(channels[0].samples) // channels[0].per_frame}"
    lines = [record_line, *(channel.line() for channel in channels), *(f"# {comment}" for comment in comments)]
    path = folder / f"{name}.hea"
    path.write_bytes((newline.join(lines) + newline).encode())
    return path


def write_mat(folder: Path, samples: NDArray[np.int16], name: str = "m", preamble: bytes | None = None) -> Path:
    """A Challenge record: MATLAB 4 file `val` (lead, time), and a header of format 16+24."""
    if preamble is None:
        preamble = np.array([30, *samples.shape, 0, 4], "<i4").tobytes() + b"val\0"
    (folder / f"{name}.mat").write_bytes(preamble + samples.astype("<i2").tobytes(order="F"))
    channels = [Channel(row, lead, f"{name}.mat", offset=24) for row, lead in zip(samples, LEADS, strict=False)]
    lines = [f"{name} {len(samples)} 500 {samples.shape[1]}", *(channel.line() for channel in channels)]
    path = folder / f"{name}.hea"
    path.write_text("\n".join(lines) + "\n")
    return path


CANARIES = (
    *("KANARIENVOGEL-WFDB-4471902", "Zebedee Quillfeather", "Doctor Ottoline Marchbanks", "29/02/1916"),
    "found asleep beside the harpsichord",
)
PRIVATE = (
    f"Patient ID: {CANARIES[0]}",
    f"Name: {CANARIES[1]}",
    f"Physician: {CANARIES[2]}",
    f"Born: {CANARIES[3]}",
    CANARIES[4],
)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one record, and what must come out of it."""
    rng = np.random.default_rng(4)
    if seconds is None:
        leads, digital = LEADS[:3], rng.integers(-480, 480, (3, 41))
    else:
        leads, digital = LEADS, beats(rng, len(LEADS), round(seconds * 500), 250) + 12
    channels = [Channel(row, lead, gain="250(12)/mV") for row, lead in zip(digital, leads, strict=True)]
    path = write_record(folder, channels, comments=["Age: 94", "<sex>: F", *PRIVATE])
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": (digital - 12) / 250}]


def beats(rng: np.random.Generator, n_leads: int, n_samples: int, steps_per_mv: float) -> NDArray[np.int64]:
    """(lead, time) at 500 Hz: one spike a second of 0.5 to 1.5 mV over a little noise."""
    time = (np.arange(n_samples) % 500 - 250) / 500
    signal_mv = rng.uniform(0.5, 1.5, (n_leads, 1)) * np.exp(-((time / 0.02) ** 2)) + rng.normal(
        0, 0.02, (n_leads, n_samples)
    )
    return np.rint(signal_mv * steps_per_mv).astype(np.int64)


def _several_formats(folder: Path) -> Path:
    stored = (("I", "r.dat", 16), ("II", "r.dat", 16), ("V1", "s.dat", 212), ("V2", "t.dat", 310), ("V3", "u.dat", 8))
    return write_record(folder, [Channel(np.arange(60) * 7 % 90, *each) for each in stored], comments=["Age: 63"])


def _frames(folder: Path) -> Path:
    return write_record(folder, [Channel(np.arange(60), "II", per_frame=3, skew=2)], "r 1 125 20")


def _segments(folder: Path) -> Path:
    write_record(folder, [Channel(np.arange(60), "II", file="a.dat")], name="a")
    path = folder / "r.hea"
    path.write_text("r/2 1 500 120\na 60\na 60\n")
    return path


def _matlab(folder: Path) -> Path:
    return write_mat(folder, np.random.default_rng(5).integers(-900, 900, (3, 50)).astype(np.int16))


# Further small records for the fuzzer: what the fixture of the contract does not reach.
VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {
    "formats": _several_formats,
    "frames": _frames,
    "segments": _segments,
    "matlab": _matlab,
}


def _checked(fmt: int, folder: Path) -> tuple[Path, Path, NDArray[np.int64]]:
    """A record of two signals; its sums cover every bit of its signal file but the filler of packed formats."""
    top = 1 << (BITS[fmt] - 1)
    # The least value means "no sample", which no recording here holds.
    samples = np.random.default_rng(fmt).integers(1 - top, top, (2, 75))
    path = write_record(folder, [Channel(row, lead, fmt=fmt) for row, lead in zip(samples, LEADS, strict=False)])
    data = folder / "r.dat"
    bits = np.arange(8 * data.stat().st_size)
    if fmt == 310:  # the lowest bit of each word of two bytes
        bits = bits[bits % 16 != 0]
    elif fmt == 311:  # the two highest bits of each group of four bytes
        bits = bits[bits % 32 < 30]
    return path, data, bits


# Formats 24 and 32 are not here: a flip at bit 16 or above leaves a sum modulo 2^16 as it was. Nor is format 8, where
# one flip shifts all later samples, and the changes may cancel.
CHECKED = {f"format {fmt}": partial(_checked, fmt) for fmt in (16, 61, 80, 160, 212, 310, 311)}
