"""Signals of an EDF or BDF file: which ones belong to the ECG, and their samples as integers.

Source: the EDF specification; in every record the samples of each signal stand together, least significant byte first.
"""

import math
import re
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared import units as _units
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers.edf.header import Header, Scale, Signal, refuse, scale_of

# A shorter run of zeros in all leads happens in a quiet ECG. Our default.
SHORTEST_PADDING = 10
# A record may start so much earlier or later than the last one ends; onsets are written as decimals. Our default.
WORST_GAP_SAMPLES = 0.5
MAX_ONSETS = 100_000  # records of a discontinuous file; our default: 4 h of records of 0.15 s

OTHER_RATES = "signals at other rates than the ECG left out"
NO_VOLTAGE = "signals that are no voltage left out"
OUT_OF_RANGE = "samples beyond the declared digital limits"
PADDED = "zeros at the end of the last record marked missing"
CONTIGUOUS = "EDF+D without gaps"

# The first annotation of a record says when it starts: +0.5, then 0x14 twice (or a duration after 0x15), EDF+ 2.2.4.
_ONSET = re.compile(rb"([+-][0-9]{1,12}(?:\.[0-9]{1,12})?)\x14\x14\x00")


class Chosen(NamedTuple):
    """The signals that are read, all at one rate."""

    signals: tuple[Signal, ...]
    scales: tuple[Scale, ...]
    per_mv: tuple[float, ...]
    rate_hz: float
    n_samples: int
    notes: tuple[str, ...]


def choose(header: Header, where: str) -> Chosen:
    """The twelve leads and every voltage sampled like them; the fastest voltages where no label is a lead.

    Raises UnreadableRecording if leads differ in rate, or if their calibration gives no gain.
    """
    ordinary = [signal for signal in header.signals if not signal.is_annotation]
    is_lead = {signal.label: canonical(signal.label) is not None for signal in ordinary}
    voltages = [signal for signal in ordinary if is_lead[signal.label] or _is_voltage(signal.dimension, where)]
    if not voltages:
        refuse(Reason.EMPTY, "no signal that is a voltage", "at least one", where)
    counts = {signal.per_record for signal in voltages if is_lead[signal.label]}
    if len(counts) > 1:
        refuse(Reason.UNSUPPORTED, "ECG leads at several rates", "one rate", where)
    wanted = counts.pop() if counts else max(signal.per_record for signal in voltages)
    kept = tuple(signal for signal in voltages if signal.per_record == wanted)
    n_samples, rate_hz = wanted * header.n_records, header.rate_hz(kept[0])
    check_shape(len(kept), n_samples, rate_hz, where)
    if header.is_discontinuous and header.n_records > MAX_ONSETS:
        refuse(Reason.LIMIT, f"{header.n_records} records of their own times", f"at most {MAX_ONSETS}", where)
    scales = tuple(_scale(signal, header.sample_bytes, where) for signal in kept)
    per_mv = tuple(
        _units.steps_per_mv(scale.steps_per_unit, signal.dimension, signal.label, where)
        for signal, scale in zip(kept, scales, strict=True)
    )
    quirks = {OTHER_RATES: len(kept) < len(voltages), NO_VOLTAGE: len(voltages) < len(ordinary)}
    return Chosen(kept, scales, per_mv, rate_hz, n_samples, tuple(name for name, met in quirks.items() if met))


def decode(header: Header, chosen: Chosen, records: bytes) -> NDArray[np.int32]:
    """(signal, time) int32 of the chosen signals. records: all records of the file, as many bytes as declared."""
    width = header.sample_bytes
    raw = np.frombuffer(records, np.uint8).reshape(header.n_records, header.record_samples * width)
    count = chosen.signals[0].per_record
    digital = np.empty((len(chosen.signals), header.n_records, count), np.int32)
    for row, signal in enumerate(chosen.signals):
        samples = raw[:, signal.offset * width : (signal.offset + count) * width]
        digital[row] = samples.view("<i2") if width == 2 else _int24(samples)
    return digital.reshape(len(chosen.signals), -1)


def find_padding(header: Header, digital: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """(signal, time), True where the last record is filled up with zeros in all leads; None if it is not.

    Of a single lead nobody can say which zeros at its end were measured, so none is taken for padding.
    """
    n_signals, n_samples = digital.shape
    if n_signals < 2:
        return None
    alive = np.flatnonzero(digital[:, -(n_samples // header.n_records) :].any(axis=0))
    padded = n_samples // header.n_records - (int(alive[-1]) + 1 if len(alive) else 0)
    if padded < SHORTEST_PADDING:
        return None
    missing = np.zeros(digital.shape, bool)
    missing[:, n_samples - padded :] = True
    return missing


def is_out_of_range(chosen: Chosen, digital: NDArray[np.int32]) -> bool:
    """Whether samples lie beyond the digital limits of their signal: they are kept, but the header is wrong."""
    least, most = (np.array(limits) for limits in zip(*[(s.least, s.most) for s in chosen.scales], strict=True))
    return bool((digital.min(axis=1) < least).any() or (digital.max(axis=1) > most).any())


def check_contiguous(header: Header, chosen: Chosen, records: bytes, where: str) -> None:
    """Refuse an EDF+D or BDF+D file whose records do not follow each other, by the onsets that they carry."""
    timekeeper = next((signal for signal in header.signals if signal.is_annotation), None)
    if timekeeper is None:
        refuse(Reason.UNSUPPORTED, "a discontinuous file without annotations", "an onset in every record", where)
    width = header.sample_bytes
    start, step = timekeeper.offset * width, header.record_samples * width
    found = [_ONSET.match(records, at, at + timekeeper.per_record * width) for at in range(start, len(records), step)]
    onsets = [Decimal(match[1].decode()) for match in found if match is not None]
    if len(onsets) < len(found):
        refuse(Reason.HEADER, "a record without its onset", "one in every record", where)
    late = [abs(onset - onsets[0] - place * header.record_s) for place, onset in enumerate(onsets)]
    if float(max(late)) * chosen.rate_hz >= WORST_GAP_SAMPLES:
        refuse(Reason.UNSUPPORTED, "a discontinuous file with gaps", "records that follow each other", where)


def _is_voltage(dimension: str, where: str) -> bool:
    return not math.isnan(_units.steps_per_mv(1.0, dimension, "", where))


def _scale(signal: Signal, sample_bytes: int, where: str) -> Scale:
    found = scale_of(signal.calibration, sample_bytes)
    if found is None:
        refuse(
            Reason.HEADER,
            "limits of a signal that give no gain",
            "two different physical ones, and two digital ones in order",
            where,
        )
    return found


def _int24(samples: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(record, bytes) to (record, sample): three bytes each, the sign in the last."""
    words = np.zeros((len(samples), samples.shape[1] // 3, 4), np.uint8)
    words[:, :, 1:] = samples.reshape(len(samples), -1, 3)
    shifted: NDArray[np.int32] = words.view("<i4")[:, :, 0] >> 8  # the arithmetic shift extends the sign
    return shifted
