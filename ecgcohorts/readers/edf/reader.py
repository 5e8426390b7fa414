"""Read EDF and BDF files: choose the signals that belong to the ECG, and decode their samples as integers.

Source: the EDF specification. In every record the samples of each signal stand together, least significant byte first.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import open_regular, read_exactly
from ecgcohorts.leads import standard
from ecgcohorts.readers._shared.limits import TAKE_WINDOWS, check_shape
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers.edf.context import read_context
from ecgcohorts.readers.edf.header import Header, Scale, Signal, refuse
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".bdf", ".edf")
VARIANTS = (
    "EDF, EDF+C and BDF, 16 and 24 bits; EDF+D without gaps",
    "the twelve leads and voltages at their rate; annotations skipped",
)
LONG = True  # reads parts of recordings of any length
FILE_LIMIT = 256 << 20  # bytes of records; our default
TRAILING = "bytes after the last record ignored"

# A quiet ECG has shorter runs of zeros in all leads. Our default.
SHORTEST_PADDING = 10
# A record may start so much earlier or later than the last one ends; onsets are written as decimals. Our default.
WORST_GAP_SAMPLES = 0.5
MAX_ONSETS = 100_000  # records of a discontinuous file; our default: 4 h of records of 0.15 s

OTHER_RATES = "signals at other rates than the ECG left out"
NO_VOLTAGE = "signals that are no voltage left out"
OUT_OF_RANGE = "samples beyond the declared digital limits"
PADDED = "zeros at the end of the last record marked missing"
CONTIGUOUS = "EDF+D without gaps"
COMMAS = "decimal commas in the limits of signals"

# The first annotation of a record says when it starts: +0.5, then 0x14 twice (or a duration after 0x15), EDF+ 2.2.4.
_ONSET = re.compile(rb"([+-][0-9]{1,12}(?:\.[0-9]{1,12})?)\x14\x14\x00")


class _Chosen(NamedTuple):
    """The signals to read, all at one rate."""

    signals: tuple[Signal, ...]
    scales: tuple[Scale, ...]
    per_mv: tuple[float, ...]
    rate_hz: float
    n_samples: int
    notes: tuple[str, ...]


def read(path: Path, entries: Sequence[str] | None = None, part: slice | None = None) -> Iterator[Recording]:
    """Yield the one recording of a file, or a part of it. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers. Raises UnreadableRecording: TRUNCATED before anything is
    allocated if the file is shorter than its header declares.
    """
    with open_regular(path) as file:
        header, chosen, notes = _open(file, path, part)
        taken = range(chosen.n_samples) if part is None else range(chosen.n_samples)[part]
        some, records = _records(file, header, chosen, taken, path)
    digital = _decode(header, chosen, records)
    missing = _find_padding(len(some), digital) if some.stop == header.n_records else None
    if part is not None:
        start = taken.start - some.start * chosen.signals[0].per_record
        columns = slice(start, start + len(taken))
        digital, missing = digital[:, columns], None if missing is None else missing[:, columns]
        chosen = chosen._replace(n_samples=len(taken))
    quirks = {
        OUT_OF_RANGE: _is_out_of_range(header, chosen, digital),
        PADDED: missing is not None,
        CONTIGUOUS: header.is_discontinuous,
    }
    notes += tuple(name for name, met in quirks.items() if met)
    yield _recording(path, header, chosen, notes, digital, missing)


def scan(path: Path, long: bool = False) -> Iterator[Recording]:
    """Yield the same recording without samples, from the header; of EDF+D the times of the records are read too.

    long: of any length.
    """
    with open_regular(path) as file:
        header, chosen, notes = _open(file, path, slice(0) if long else None)
        if header.is_discontinuous:
            _check_contiguous(file, header, chosen, path)
    yield _recording(path, header, chosen, notes, np.zeros((len(chosen.signals), 0), np.int32))


def _open(file: FileIO, path: Path, part: slice | None) -> tuple[Header, _Chosen, tuple[str, ...]]:
    """Return the header, compared with the size of the file, and the signals to read. The file stands at its first record."""
    where = str(path)
    header = Header.parse(file.read, where)
    size = os.fstat(file.fileno()).st_size
    if header.declared_bytes > size:
        refuse(Reason.TRUNCATED, f"{size} bytes", f"{header.declared_bytes} as declared", where)
    if part is None and header.declared_bytes > FILE_LIMIT:
        raise UnreadableRecording(
            Reason.LIMIT, f"{header.declared_bytes} bytes", f"at most {FILE_LIMIT}", TAKE_WINDOWS, where
        )
    return header, _choose(header, where, part), (TRAILING,) if size > header.declared_bytes else ()


def _records(file: FileIO, header: Header, chosen: _Chosen, taken: range, path: Path) -> tuple[range, bytes]:
    """Return the records that hold some samples of a signal, by number and as bytes; those of EDF+D must follow each other."""
    if header.is_discontinuous:
        _check_contiguous(file, header, chosen, path)
    per_record, size = chosen.signals[0].per_record, header.record_samples * header.sample_bytes
    some = range(taken.start // per_record, -(-taken.stop // per_record))
    needed = len(some) * size
    if needed > FILE_LIMIT:
        refuse(Reason.LIMIT, f"{needed} bytes", f"at most {FILE_LIMIT}", str(path))
    file.seek(header.header_bytes + some.start * size)
    return some, read_exactly(file, needed, path)


def _recording(
    path: Path,
    header: Header,
    chosen: _Chosen,
    notes: tuple[str, ...],
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=tuple(signal.label for signal in chosen.signals),
        rate_hz=chosen.rate_hz,
        digital=digital,
        gain_per_mv=np.array(chosen.per_mv),
        baseline=np.array([scale.baseline for scale in chosen.scales]),
        missing=missing,
        n_samples=chosen.n_samples,
        source=Origin("edf", path),
        **read_context(header, chosen.signals).facts(*notes, *chosen.notes),
    )


def _choose(header: Header, where: str, part: slice | None) -> _Chosen:
    """Choose the twelve leads and every voltage sampled like them; the fastest voltages where no label is a lead.

    Raises UnreadableRecording if leads differ in rate, or if their calibration gives no gain.
    """
    ordinary = [signal for signal in header.signals if not signal.is_annotation]
    labels = [signal.label for signal in ordinary]
    is_lead = {label: lead is not None for label, lead in zip(labels, standard(labels), strict=True)}
    voltages = [signal for signal in ordinary if is_lead[signal.label] or _is_voltage(signal.dimension, where)]
    if not voltages:
        refuse(Reason.EMPTY, "no signal that is a voltage", "at least one", where)
    # Respiration and others may have rates of their own in the file of an ECG.
    counts = {signal.per_record for signal in voltages if is_lead[signal.label]}
    if len(counts) > 1:
        refuse(Reason.UNSUPPORTED, "ECG leads at several rates", "one rate", where)
    wanted = counts.pop() if counts else max(signal.per_record for signal in voltages)
    kept = tuple(signal for signal in voltages if signal.per_record == wanted)
    n_samples, rate_hz = wanted * header.n_records, header.rate_hz(kept[0])
    check_shape(len(kept), n_samples, rate_hz, where, part)
    if header.is_discontinuous and header.n_records > MAX_ONSETS:
        refuse(Reason.LIMIT, f"{header.n_records} records of their own times", f"at most {MAX_ONSETS}", where)
    scales = tuple(signal.scale(header.sample_bytes, where) for signal in kept)
    per_mv = tuple(
        steps_per_mv(scale.steps_per_unit, signal.dimension, signal.label, where)
        for signal, scale in zip(kept, scales, strict=True)
    )
    quirks = {
        OTHER_RATES: len(kept) < len(voltages),
        NO_VOLTAGE: len(voltages) < len(ordinary),
        COMMAS: any(signal.has_commas for signal in kept),
    }
    return _Chosen(kept, scales, per_mv, rate_hz, n_samples, tuple(name for name, met in quirks.items() if met))


def _decode(header: Header, chosen: _Chosen, records: bytes) -> NDArray[np.int32]:
    """Decode the chosen signals to (signal, time) int32. records: whole records of the file."""
    width = header.sample_bytes
    raw = np.frombuffer(records, np.uint8).reshape(-1, header.record_samples * width)
    count = chosen.signals[0].per_record
    digital = np.empty((len(chosen.signals), len(raw), count), np.int32)
    # A view on all records at once: no loop over records, of which an hour may have 3,600.
    for row, signal in enumerate(chosen.signals):
        samples = raw[:, signal.offset * width : (signal.offset + count) * width]
        digital[row] = samples.view("<i2") if width == 2 else _int24(samples)
    return digital.reshape(len(chosen.signals), -1)


def _find_padding(n_records: int, digital: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """Return (signal, time), True where zeros in all leads fill up the last of so many records; None if none do."""
    n_signals, n_samples = digital.shape
    # Of a single lead nobody can say which zeros at its end were measured.
    if n_signals < 2:
        return None
    # Only the last record can be filled up: writers have no other way to end between two records.
    alive = np.flatnonzero(digital[:, -(n_samples // n_records) :].any(axis=0))
    padded = n_samples // n_records - (int(alive[-1]) + 1 if len(alive) else 0)
    if padded < SHORTEST_PADDING:
        return None
    missing = np.zeros(digital.shape, bool)
    missing[:, n_samples - padded :] = True
    return missing


def _is_out_of_range(header: Header, chosen: _Chosen, digital: NDArray[np.int32]) -> bool:
    """Tell whether samples lie beyond the digital limits of their signal. They are kept; the header is wrong."""
    bound = 1 << 8 * header.sample_bytes - 1
    # Most writers declare all the integers there are, which no sample can leave.
    if all(scale.least == -bound and scale.most == bound - 1 for scale in chosen.scales):
        return False
    least, most = (np.array(limits) for limits in zip(*[(s.least, s.most) for s in chosen.scales], strict=True))
    return bool((digital.min(axis=1) < least).any() or (digital.max(axis=1) > most).any())


def _check_contiguous(file: FileIO, header: Header, chosen: _Chosen, path: Path) -> None:
    """Refuse an EDF+D or BDF+D file whose records do not follow each other, by the onset in each record."""
    where = str(path)
    timekeeper = next((signal for signal in header.signals if signal.is_annotation), None)
    if timekeeper is None:
        refuse(Reason.UNSUPPORTED, "a discontinuous file without annotations", "an onset in every record", where)
    width = header.sample_bytes
    found = []
    for place in range(header.n_records):
        file.seek(header.header_bytes + (place * header.record_samples + timekeeper.offset) * width)
        found.append(_ONSET.match(read_exactly(file, timekeeper.per_record * width, path)))
    onsets = [Decimal(match[1].decode()) for match in found if match is not None]
    if len(onsets) < len(found):
        refuse(Reason.HEADER, "a record without its onset", "one in every record", where)
    late = [abs(onset - onsets[0] - place * header.record_s) for place, onset in enumerate(onsets)]
    if float(max(late)) * chosen.rate_hz >= WORST_GAP_SAMPLES:
        refuse(Reason.UNSUPPORTED, "a discontinuous file with gaps", "records that follow each other", where)


def _is_voltage(dimension: str, where: str) -> bool:
    return not math.isnan(steps_per_mv(1.0, dimension, "", where))


def _int24(samples: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Unpack (record, bytes) to (record, sample): three bytes each, the sign in the last."""
    words = np.zeros((len(samples), samples.shape[1] // 3, 4), np.uint8)
    words[:, :, 1:] = samples.reshape(len(samples), -1, 3)
    shifted: NDArray[np.int32] = words.view("<i4")[:, :, 0] >> 8  # the arithmetic shift extends the sign
    return shifted
