"""Decode a single-segment WFDB record of the ten integer formats, checked against length, checksum and first value.

Source of the bit layouts: the WFDB specification, signal(5).
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import OpenFolder, read_exactly
from ecgcohorts.leads import standard
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers.wfdb.header import MAT_SUFFIX, NULL, Header, Signal, check_sample_count
from ecgcohorts.recording import Unit

_NO_UNIT = "nu"
A_PART = "a part of a record, whose checksums are of the whole"
UNFIT_FIRST = "declared first value is no value of its format, not compared"
FETCH_AGAIN = "Fetch the file again from its source."
MAT_V4_PREAMBLE = 20  # bytes: five little-endian int32, before the variable's name
MAT_V4_TYPES = {16: 30, 32: 20}  # storage format -> MOPT code: little-endian, full matrix, int16 or int32


class Samples(NamedTuple):
    """The signals of a record: as integers, or in mV where its segments may differ in gain."""

    signals: tuple[Signal, ...]
    rate_hz: float
    digital: NDArray[np.int32] | None = None  # (signal, time)
    missing: NDArray[np.bool_] | None = None
    analog_mv: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, signals: tuple[Signal, ...], rate_hz: float, digital: NDArray[np.int32], *notes: str) -> Self:
        """Return decoded integers, those that stand for "no sample" marked missing."""
        return cls(signals, rate_hz, digital, _find_missing(signals, digital), notes=notes)

    @staticmethod
    def unit_of(signals: tuple[Signal, ...]) -> Unit:
        """Tell whether the ECG leads of a record are voltages, or numbers of which the header says that they have no unit."""
        if not any(signal.unit.casefold() == _NO_UNIT for signal in signals):
            return "mV"  # of headers, which are read by the million, almost all
        leads = standard([signal.name for signal in signals])
        units = {signal.unit.casefold() for signal, lead in zip(signals, leads, strict=True) if lead is not None}
        # header(5) lets a writer name any unit, and names none of its own for "no unit". NU is that of wfdb-python.
        return "none" if units == {_NO_UNIT} else "mV"

    @staticmethod
    def steps_of(signals: tuple[Signal, ...], where: str) -> NDArray[np.float64]:
        """Return the integer steps per mV of each signal; per 1 where the leads have no unit. NaN for what is no voltage."""
        units = [signal.unit for signal in signals]
        if Samples.unit_of(signals) == "none":
            units = ["mV" if unit.casefold() == _NO_UNIT else unit for unit in units]
        return np.array([steps_per_mv(s.gain, unit, s.name, where) for s, unit in zip(signals, units, strict=True)])

    @classmethod
    def read(cls, header: Header, folder: OpenFolder, where: str, part: slice | None = None) -> Self:
        """Decode a plain record, verified against what the header declares.

        part: those samples alone; nothing tells then whether they are right. Raises UnreadableRecording: TRUNCATED before
        anything is allocated, CHECKSUM if a sum or a first value differs.
        """
        if part is not None:
            return cls._read_part(header, folder, where, part)
        blocks = []
        n_frames = header.n_frames or None
        for file, group in groupby(header.signals, key=lambda signal: signal.file):
            block = _read_file(file, tuple(group), n_frames, folder)
            n_frames = n_frames or block.shape[1]
            if block.shape[1] != n_frames:
                raise UnreadableRecording(
                    Reason.TRUNCATED, "signal files of unequal length", "equal ones", FETCH_AGAIN, where
                )
            blocks.append(block)
        digital = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if not digital.shape[1]:
            raise UnreadableRecording(Reason.EMPTY, "0 samples", "at least one", FETCH_AGAIN, where)
        # Both checks are free: the first value and the sum stand in almost every header, and the `wfdb` package looks at
        # neither.
        sums = digital.sum(axis=1, dtype=np.int32)  # may wrap: the low 16 bits, which count, stay right
        notes = verify(header.signals, digital[:, 0].tolist(), sums.tolist(), header.n_frames > 0, where)
        return cls.of(header.signals, header.rate_hz, digital, *notes)

    @classmethod
    def _read_part(cls, header: Header, folder: OpenFolder, where: str, part: slice) -> Self:
        check_shape(header.n_signals, header.n_frames, header.rate_hz, where, part)
        taken = range(header.n_frames)[part]
        blocks = []
        for file, group in groupby(header.signals, key=lambda signal: signal.file):
            signals = tuple(group)
            # Differences mean something from the first sample on only.
            start = 0 if signals[0].format == 8 else taken.start
            check_sample_count((taken.stop - start) * len(signals), where)
            block = _read_file(file, signals, header.n_frames, folder, range(start, taken.stop))
            blocks.append(block[:, taken.start - start :])
        return cls.of(header.signals, header.rate_hz, np.concatenate(blocks), A_PART)


class _Storage(NamedTuple):
    """One integer format: `group` samples take `bytes` bytes; `missing` is the value that means "no sample"."""

    group: int
    bytes: int
    missing: int | None
    decode: Callable[[NDArray[np.uint8]], NDArray[np.signedinteger]]
    tail: tuple[int, ...] = ()  # bytes of a last group of 1, 2 ... samples, where shorter than a full one

    def size(self, count: int) -> int:
        """Return how many bytes `count` samples take."""
        full, rest = divmod(count, self.group)
        return full * self.bytes + (self.tail[rest - 1] if rest else 0)

    def count(self, size: int) -> int:
        """Return how many samples begin in so many bytes; two last samples of format 310 look like three."""
        full, rest = divmod(size, self.bytes)
        return full * self.group + (bisect_left((*self.tail, self.bytes), rest) + 1 if rest else 0)


def _int24(raw: NDArray[np.uint8]) -> NDArray[np.signedinteger]:
    words = np.zeros((len(raw) // 3, 4), np.uint8)
    words[:, 1:] = raw.reshape(-1, 3)
    return words.view("<i4")[:, 0] >> 8  # the arithmetic shift extends the sign


def _packed_212(raw: NDArray[np.uint8]) -> NDArray[np.signedinteger]:
    triple = raw.reshape(-1, 3).astype(np.int16)
    low, middle, high = triple[:, 0], triple[:, 1], triple[:, 2]
    pair = np.stack([low | ((middle & 0x0F) << 8), high | ((middle >> 4) << 8)], axis=1)
    return ((pair ^ 0x800) - 0x800).ravel()  # 12-bit two's complement


def _packed_310(raw: NDArray[np.uint8]) -> NDArray[np.signedinteger]:
    word = raw.view("<u2").reshape(-1, 2).astype(np.int16)
    first, second = word[:, 0], word[:, 1]
    third = ((first >> 11) & 0x1F) | (((second >> 11) & 0x1F) << 5)
    triple = np.stack([(first >> 1) & 0x3FF, (second >> 1) & 0x3FF, third], axis=1)
    return ((triple ^ 0x200) - 0x200).ravel()  # 10-bit two's complement


def _packed_311(raw: NDArray[np.uint8]) -> NDArray[np.signedinteger]:
    word = raw.view("<u4").astype(np.int64)
    triple = np.stack([word & 0x3FF, (word >> 10) & 0x3FF, (word >> 20) & 0x3FF], axis=1)
    return ((triple ^ 0x200) - 0x200).astype(np.int32).ravel()


_NO_SAMPLE_16 = -(1 << 15)
# Bits of formats 24 and 32 from the 16th on do not reach the checksum: it counts 16 bits.
STORAGE: dict[int, _Storage] = {
    8: _Storage(1, 1, None, lambda raw: raw.view(np.int8)),  # first differences, summed up in `_absolute`
    16: _Storage(1, 2, -(1 << 15), lambda raw: raw.view("<i2")),
    24: _Storage(1, 3, -(1 << 23), _int24),
    32: _Storage(1, 4, -(1 << 31), lambda raw: raw.view("<i4")),
    61: _Storage(1, 2, -(1 << 15), lambda raw: raw.view(">i2")),
    80: _Storage(1, 1, -(1 << 7), lambda raw: raw.astype(np.int16) - 128),
    160: _Storage(1, 2, -(1 << 15), lambda raw: raw.view("<u2").astype(np.int32) - 32768),
    212: _Storage(2, 3, -(1 << 11), _packed_212, (2,)),
    310: _Storage(3, 4, -(1 << 9), _packed_310, (2, 4)),
    311: _Storage(3, 4, -(1 << 9), _packed_311, (2, 3)),
}
FLAC_MISSING = {508: -(1 << 7), 516: -(1 << 15), 524: -(1 << 23)}


def is_plain(header: Header) -> bool:
    """Tell whether this module reads the record: integer formats, one sample per frame, no skew, every file there."""
    return bool(header.signals) and all(
        signal.format in STORAGE and signal.per_frame == 1 and not signal.skew and signal.file != NULL
        for signal in header.signals
    )


def verify(
    signals: tuple[Signal, ...], first: Sequence[int], sums: Sequence[int], whole: bool, where: str
) -> tuple[str, ...]:
    """Compare the first sample and the sum of each signal, as stored and before any skew, with its header.

    Sums count modulo 2^16, written signed or unsigned. Where no length is declared (`whole` False) they say nothing.
    Returns notes. Raises UnreadableRecording if something differs.
    """
    notes = []
    for place, (signal, start, total) in enumerate(zip(signals, first, sums, strict=True)):
        initial = signal.initial
        # Some writers put the "no sample" of 16 bits into the header of a record of fewer bits, whatever the sample.
        if initial == _NO_SAMPLE_16 and (_mark(signal) or initial) > initial:
            initial = None
            notes = [UNFIT_FIRST]
        # Format 8: the first value follows from `initial` itself.
        starts_wrong = initial is not None and signal.format != 8 and start != initial
        if starts_wrong or (whole and signal.checksum is not None and (total - signal.checksum) & 0xFFFF):
            what = "first sample" if starts_wrong else "checksum"
            raise UnreadableRecording(
                Reason.CHECKSUM,
                f"another {what} in signal {place}",
                f"{signal.initial if starts_wrong else signal.checksum} as its header declares",
                FETCH_AGAIN,
                where,
            )
    return tuple(notes)


def _mark(signal: Signal) -> int | None:
    """Return the value that means "no sample", the least of the signal's format; None if it has none."""
    return STORAGE[signal.format].missing if signal.format in STORAGE else FLAC_MISSING.get(signal.format)


def _find_missing(signals: tuple[Signal, ...], digital: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """Return (signal, time), True at the value that a format reserves for "no sample"; None if it is nowhere."""
    marks = [_mark(signal) for signal in signals]
    # The mark is the least value of its format, so the minimum of a signal tells.
    least = digital.min(axis=1)
    if not any(mark is not None and low == mark for mark, low in zip(marks, least, strict=True)):
        return None
    # Format 8 has no such value; -2^63 is outside int32 and never met.
    return digital == np.array([-(1 << 63) if mark is None else mark for mark in marks])[:, None]


def _read_file(
    file: str, signals: tuple[Signal, ...], n_frames: int | None, folder: OpenFolder, taken: range | None = None
) -> NDArray[np.int32]:
    """Decode the consecutive signals that share one file to (signal, time). taken: these frames only."""
    storage, offset, width = STORAGE[signals[0].format], signals[0].offset, len(signals)
    path = folder.path / file
    with folder.open(file) as stream:
        available = os.fstat(stream.fileno()).st_size - offset
        if n_frames is None:
            # Nothing declares the length, so the file must hold whole frames: nothing else tells a cut one.
            n_frames = -(-storage.count(max(available, 0)) // width)
            check_sample_count(n_frames * width, str(path))
        needed = storage.size(n_frames * width)
        if available < needed:
            raise UnreadableRecording(
                Reason.TRUNCATED, f"{max(available, 0)} bytes of samples", f"{needed}", FETCH_AGAIN, str(path)
            )
        # Challenge files: 24 bytes, then samples column by column, which is frame by frame.
        if file.endswith(MAT_SUFFIX):
            _check_mat_preamble(stream.read(offset), signals[0].format, (width, n_frames), path)
        taken = range(n_frames) if taken is None else taken
        # Packed formats hold two or three samples in a group of bytes, in whose middle a frame may begin.
        first_group, ahead = divmod(taken.start * width, storage.group)
        stream.seek(offset + first_group * storage.bytes)
        data = read_exactly(stream, storage.size(taken.stop * width) - first_group * storage.bytes, path)
    padding = -len(data) % storage.bytes
    flat = storage.decode(np.frombuffer(data + bytes(padding), np.uint8))[ahead : ahead + len(taken) * width]
    frames = flat.reshape(len(taken), width)
    if signals[0].format == 8:
        return _absolute(frames, signals, str(path))
    digital = np.empty((width, len(taken)), np.int32)
    digital[:] = frames.T
    return digital


def _absolute(differences: NDArray[np.signedinteger], signals: tuple[Signal, ...], where: str) -> NDArray[np.int32]:
    """Sum the first differences of format 8; sample 0 is the declared first value plus the first byte."""
    start = np.array([s.adc_zero if s.initial is None else s.initial for s in signals], np.int64)
    values = np.cumsum(differences, axis=0, dtype=np.int64) + start
    if values.size and max(abs(int(values.min())), abs(int(values.max()))) >= 1 << 31:
        raise UnreadableRecording(Reason.HEADER, "samples beyond 32 bits", "int32", FETCH_AGAIN, where)
    return np.ascontiguousarray(values.T, np.int32)


def _check_mat_preamble(preamble: bytes, storage: int, shape: tuple[int, int], path: Path) -> None:
    """Compare the five integers and the name that a MATLAB 4 file puts before the samples with the header."""
    if len(preamble) < MAT_V4_PREAMBLE:
        return  # not a MAT file in spite of its name
    code, rows, columns, imaginary, name_length = np.frombuffer(preamble, "<i4", 5).tolist()
    found = (code, rows, columns, imaginary, MAT_V4_PREAMBLE + name_length)
    expected = (MAT_V4_TYPES.get(storage), *shape, 0, len(preamble))
    if found != expected:
        raise UnreadableRecording(
            Reason.HEADER,
            f"a MATLAB file of type, rows, columns, imaginary, data start {found}",
            f"{expected} as its header says",
            "Fetch both files again. MATLAB 5 and 7.3 files are not read.",
            str(path),
        )
