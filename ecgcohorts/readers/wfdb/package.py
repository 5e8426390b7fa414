"""Read rare WFDB records: several segments, put together here; several rates, skew and FLAC by the `wfdb` package.

The package raises whatever its parts raise; here all of it becomes UnreadableRecording.
"""

# Why files are measured before the package is called, and sums compared afterwards: it does neither. Of 300 copies of a
# skewed record with one bit flipped it read all 300 (wfdb 4.3.1). These checks refuse all of them, for 0.2 ms a record.

import os
import warnings
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording, is_of_machine, needs_extra
from ecgcohorts.io.regular import OpenFolder
from ecgcohorts.leads import standard
from ecgcohorts.readers.wfdb.header import HEADER_LIMIT, NULL, Header, Signal, check_sample_count
from ecgcohorts.readers.wfdb.signal import (
    FETCH_AGAIN,
    FLAC_MISSING,
    STORAGE,
    Samples,
    is_plain,
    verify,
)

# FLAC may pack a constant signal a thousandfold, so its files say little about what they unpack to. Our default.
MAX_FLAC_SAMPLES = 1 << 25
# Null segments take no bytes of the file, but memory here: 256 MiB, an hour and a half of 12 leads at 500 Hz. Our default.
MAX_SEGMENT_SAMPLES = 1 << 25
_WIDEST_BYTES = 4  # of a sample, in any format
_COPY_SLACK = 1 << 20  # bytes: headers of FLAC files, pictures in them included
THROUGH_PACKAGE = "read through the wfdb package"
SEVERAL_SEGMENTS = "several segments"
OTHER_RATES = "signals at other rates than the ECG left out"
CONVERT = "Convert it to one segment at one rate, for example with `wfdb.wrsamp`."


def read_rare(header: Header, folder: OpenFolder, path: Path) -> Samples:
    """Read a record that `signal.is_plain` leaves to this module. Raises UnreadableRecording."""
    if path.suffix != ".hea":
        _unsupported("a header of another suffix", ".hea", path)
    if header.segments:
        return _read_segments(header, folder, path)
    return _read_single(header, folder, path)


def outline(header: Header, folder: OpenFolder, path: Path) -> Samples:
    """Return the signals of any record without samples: zero columns. Reads headers only."""
    if header.segments:
        signals = _reference_signals(header, folder, path)
        return Samples(signals, header.rate_hz, None, None, np.zeros((len(signals), 0)))
    if is_plain(header):
        return Samples(header.signals, header.rate_hz, np.zeros((header.n_signals, 0), np.int32))
    signals = tuple(header.signals[place] for place in _of_one_rate(header.signals, path))
    return Samples(signals, header.rate_hz * signals[0].per_frame, np.zeros((len(signals), 0), np.int32))


def _reference_signals(header: Header, folder: OpenFolder, path: Path) -> tuple[Signal, ...]:
    """Return the signals of a multi-segment record, from its layout header or its first segment that is there."""
    name = next((name for name, _ in header.segments if name != NULL), None)
    if name is None:
        raise UnreadableRecording(Reason.EMPTY, "null segments only", "one segment", FETCH_AGAIN, str(path))
    return _segment_header(name, folder).signals


def _read_single(header: Header, folder: OpenFolder, path: Path) -> Samples:
    where = str(path)
    signals = header.signals
    _check_files(header, folder, path)
    if header.notes:
        # The package refuses most of what is a quirk here, such as the base date `2006`.
        with TemporaryDirectory() as private:
            record = _package_record(_plain_copy(header, folder, Path(private)), where)
    else:
        record = _package_record(path, where)
    samples = [np.asarray(values) for values in record.e_d_signal]
    if [len(values) for values in samples] != [header.n_frames * signal.per_frame for signal in signals]:
        raise UnreadableRecording(
            Reason.TRUNCATED, "other lengths than declared", f"{header.n_frames} frames", FETCH_AGAIN, where
        )
    # Sums are over the samples as stored, before any skew is undone.
    sums = [int(values.sum(dtype=np.int64)) for values in samples]
    odd = verify(signals, [int(values[0]) for values in samples], sums, True, where)

    kept, notes = _of_one_rate(signals, path), [THROUGH_PACKAGE, *odd]
    if len(kept) < len(signals):
        notes.append(OTHER_RATES)
    per_frame = signals[kept[0]].per_frame
    signals = tuple(signals[place] for place in kept)
    digital = np.stack([samples[place] for place in kept]).astype(np.int32)
    found = Samples.of(signals, header.rate_hz * per_frame, digital, *notes)
    if any(signal.skew for signal in signals):
        missing = np.zeros(digital.shape, bool) if found.missing is None else found.missing
        for row, signal in enumerate(signals):
            _shift(digital[row], missing[row], signal.skew * per_frame)
        found = found._replace(missing=missing)
    return found


def _check_files(header: Header, folder: OpenFolder, path: Path) -> None:
    """Refuse what cannot be there or cannot be right, before the package takes memory for it."""
    where = str(path)
    if not header.n_frames:
        _unsupported("no number of samples", "one in the record line", path)
    check_sample_count(header.n_frames * sum(signal.per_frame for signal in header.signals), where)
    for name, group in groupby(header.signals, key=lambda signal: signal.file):
        signals = tuple(group)
        if name == NULL:
            _unsupported("a layout header, which has no samples", "a record", path)
        first, count = signals[0], header.n_frames * sum(signal.per_frame for signal in signals)
        with folder.open(name) as stream:
            available = os.fstat(stream.fileno()).st_size - first.offset
        # FLAC offsets count samples, and no number of bytes follows from a number of samples.
        if first.format in FLAC_MISSING:
            needed = 1
            if count > MAX_FLAC_SAMPLES:
                raise UnreadableRecording(
                    Reason.LIMIT, f"{count} samples", f"at most {MAX_FLAC_SAMPLES} in FLAC", CONVERT, where
                )
        elif first.format in STORAGE:
            needed = STORAGE[first.format].size(count)
        else:
            _unsupported(f"storage format {first.format}", f"one of {[*STORAGE, *FLAC_MISSING]}", path)
        if available < needed:
            raise UnreadableRecording(
                Reason.TRUNCATED, f"{max(available, 0)} bytes of samples", f"{needed}", FETCH_AGAIN, where
            )


def _of_one_rate(signals: tuple[Signal, ...], path: Path) -> list[int]:
    """Return the places of the signals sampled like the ECG leads, or of the fastest where none is one of the twelve."""
    leads = standard([signal.name for signal in signals])
    rates = {signal.per_frame for signal, lead in zip(signals, leads, strict=True) if lead is not None}
    if len(rates) > 1:
        _unsupported("ECG leads at several rates", "one rate", path)
    # Signals at other rates would have to be resampled, and readers do not resample.
    wanted = rates.pop() if rates else max(signal.per_frame for signal in signals)
    return [place for place, signal in enumerate(signals) if signal.per_frame == wanted]


def _shift(digital: NDArray[np.int32], missing: NDArray[np.bool_], count: int) -> None:
    """Move one signal to the left by `count` samples, in place. Its end, for which there are no samples, becomes missing."""
    count = min(count, len(digital))
    kept = len(digital) - count
    digital[:kept], missing[:kept] = digital[count:].copy(), missing[count:].copy()
    missing[kept:] = True


def _read_segments(header: Header, folder: OpenFolder, path: Path) -> Samples:
    """Join several segments, in mV: gains may differ between them. Gaps, and signals that a segment lacks, are NaN."""
    where = str(path)
    if header.n_frames * header.n_signals > MAX_SEGMENT_SAMPLES:
        raise UnreadableRecording(
            Reason.LIMIT,
            f"{header.n_frames * header.n_signals} samples",
            f"at most {MAX_SEGMENT_SAMPLES} in segments",
            CONVERT,
            where,
        )
    reference = _reference_signals(header, folder, path)
    if len(reference) != header.n_signals:
        _unsupported(f"{len(reference)} signals in its first segment", f"{header.n_signals}", path)
    if not header.n_frames:
        raise UnreadableRecording(Reason.EMPTY, "0 samples", "at least one", FETCH_AGAIN, where)
    analog_mv = np.full((header.n_signals, header.n_frames), np.nan)
    # Segments of one record may hold other signals, in another order: their descriptions tell, as in the C library.
    rows = {signal.name: row for row, signal in enumerate(reference)}
    start = 0
    for name, n_frames in header.segments:
        if name != NULL and n_frames:
            segment = _segment_header(name, folder)
            _check_segment(segment, n_frames, reference, folder)
            found = _segment_mv(segment, folder)
            analog_mv[[rows[signal.name] for signal in segment.signals], start : start + n_frames] = found
        start += n_frames
    return Samples(reference, header.rate_hz, None, None, analog_mv, (SEVERAL_SEGMENTS,))


def _check_segment(segment: Header, n_frames: int, reference: tuple[Signal, ...], folder: OpenFolder) -> None:
    """Refuse a segment that is not a plain part of this record, before it is read."""
    where = folder.path / f"{segment.record_name}.hea"
    names = [signal.name for signal in segment.signals]
    if not {signal.name for signal in reference} >= set(names) or len(set(names)) < len(names):
        _unsupported("a segment with other signals than the first", "the same ones", where)
    if Samples.unit_of(segment.signals) != Samples.unit_of(reference):
        _unsupported("leads without a unit beside voltages", "one or the other", where)
    if segment.segments or any(signal.per_frame != 1 or signal.skew for signal in segment.signals):
        _unsupported("a segment of several segments or rates", "a plain one", where)
    if segment.n_frames != n_frames:
        raise UnreadableRecording(
            Reason.HEADER, f"a segment of {segment.n_frames} samples", f"{n_frames}", FETCH_AGAIN, str(where)
        )


def _segment_mv(segment: Header, folder: OpenFolder) -> NDArray[np.float64]:
    """Read one segment to (signal, time) in mV, verified against its own sums."""
    path = folder.path / f"{segment.record_name}.hea"
    plain = is_plain(segment)
    found = Samples.read(segment, folder, str(path)) if plain else _read_single(segment, folder, path)
    assert found.digital is not None
    baseline = np.array([signal.baseline for signal in segment.signals])
    analog_mv: NDArray[np.float64] = (found.digital - baseline[:, None]) / Samples.steps_of(segment.signals, str(path))[
        :, None
    ]
    if found.missing is not None:
        analog_mv[found.missing] = np.nan
    return analog_mv


def _segment_header(name: str, folder: OpenFolder) -> Header:
    file = f"{name}.hea"
    header = Header.parse(folder.read(file, HEADER_LIMIT), str(folder.path / file))
    # The package finds a segment by its file; messages name the record.
    return header._replace(record_name=name)


def _plain_copy(header: Header, folder: OpenFolder, into: Path) -> Path:
    """Copy the signals of a record whose files were checked, and write them a header without quirks. Returns its path."""
    files = {name: f"f{number}.dat" for number, name in enumerate(dict.fromkeys(s.file for s in header.signals))}
    for name, copy in files.items():
        signals = [signal for signal in header.signals if signal.file == name]
        per_frame = sum(signal.per_frame for signal in signals)
        # What follows the declared samples is not copied, or a file of a terabyte would be.
        most = _WIDEST_BYTES * per_frame * (header.n_frames + signals[0].offset) + _COPY_SLACK
        with folder.open(name) as stream, (into / copy).open("wb") as file:
            while piece := stream.read(min(most, _COPY_SLACK)):
                file.write(piece)
                most -= len(piece)
    lines = [f"r {header.n_signals} 500 {header.n_frames}"]  # whatever its rate: it is taken from `header`
    for signal in header.signals:
        kind = f"{signal.format}x{signal.per_frame}:{signal.skew}+{signal.offset}"
        # Integers are asked for, so that gain and baseline are not; a first value counts in format 8 alone.
        first = signal.adc_zero if signal.initial is None else signal.initial
        lines.append(f"{files[signal.file]} {kind} 200(0)/mV 16 {signal.adc_zero} {first} 0 0")
    (into / "r.hea").write_text("\n".join(lines) + "\n", encoding="ascii")
    return into / "r.hea"


def _package_record(path: Path, where: str) -> Any:
    """Call `wfdb.rdrecord`, and turn everything it raises into UnreadableRecording."""
    with needs_extra("ingest"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its deprecations say nothing about the record
        import wfdb  # here, because it takes about a second
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return wfdb.rdrecord(str(path.with_suffix("")), physical=False, smooth_frames=False, ignore_skew=True)
    except Exception as error:  # it raises IndexError, KeyError, TypeError and more on damaged files
        if isinstance(error, OSError) and is_of_machine(error):
            raise
        raise UnreadableRecording(
            Reason.UNSUPPORTED, f"{type(error).__name__} in the wfdb package", "a record it reads", CONVERT, where
        ) from error


def _unsupported(found: str, expected: str, path: Path) -> NoReturn:
    raise UnreadableRecording(Reason.UNSUPPORTED, found, expected, CONVERT, str(path))
