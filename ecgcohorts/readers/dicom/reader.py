"""Read DICOM waveforms: choose the multiplex group that holds the rhythm, and decode its samples as integers.

Source: DICOM PS3.3, section C.10.9 (waveform module).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import read_bounded
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared.lead_groups import TOGETHER, LeadGroup, Placement
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers.dicom.channels import NO_BASELINE, STATUSES, Channel
from ecgcohorts.readers.dicom.context import read_context
from ecgcohorts.readers.dicom.elements import (
    CHANNEL_DEFINITIONS,
    FETCH_AGAIN,
    META_START,
    PREFIX,
    PREFIX_AT,
    WAVEFORM_SEQUENCE,
    Items,
    Structure,
)
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".dcm",)
NEEDS = ("pydicom",)
VARIANTS = (
    "implicit and explicit little endian, explicit big endian",
    "12-lead, general, ambulatory ECG and hemodynamic; the original rhythm group, or groups that follow each other",
    "samples of 8, 16 and 32 bits; leads by SCP-ECG or MDC code, or by name",
)
FILE_LIMIT = 128 << 20  # bytes; our default: three hours of 12 leads at 500 Hz

GROUP_OFFSET = 0x0018_1068
ORIGINALITY, N_CHANNELS, N_SAMPLES, RATE_HZ, LABEL = 0x003A_0004, 0x003A_0005, 0x003A_0010, 0x003A_001A, 0x003A_0020
BITS_ALLOCATED, INTERPRETATION, PADDING, DATA = 0x5400_1004, 0x5400_1006, 0x5400_100A, 0x5400_1010

DTYPES = {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "i2", (16, "US"): "u2", (32, "SL"): "i4"}
COMPANDED = {"MB": "mu-law", "AB": "A-law"}
_AVERAGED = ("MEDIAN", "REPRESENTATIVE", "AVERAGE", "TEMPLATE")  # labels of beats that no heart made
# A shorter run of padding in all channels happens in a quiet ECG whose padding value is 0. Our default.
SHORTEST_PADDING = 10
# Channels sampled further apart than this are not a simultaneous ECG. Our default.
WORST_SKEW_SAMPLES = 0.5

EXPORT = "Export it as one group of simultaneous channels, with linear samples of 16 bits."
OTHER_GROUPS = "other original multiplex groups left out"
GROUP_DELAYED = "multiplex group starts later than the recording"
SKEWED = "channels skewed by less than half a sample"
PADDED = "padding marked missing"


class _Group(NamedTuple):
    """One multiplex group as declared."""

    item: Items
    label: str
    rate_hz: float
    n_samples: int
    names: tuple[str, ...]
    offset_ms: float | None

    @property
    def twelve(self) -> frozenset[str]:
        """The ones of the twelve leads that it holds."""
        return frozenset(lead for name in self.names if (lead := canonical(name)) is not None)

    @property
    def rank(self) -> tuple[int, bool, float]:
        """How good a choice it is: number of the twelve leads, called rhythm, seconds."""
        return len(self.twelve), "RHYTHM" in self.label, self.n_samples / self.rate_hz


class _Waveform(NamedTuple):
    """A chosen group, with all that decoding its samples needs."""

    group: _Group
    channels: tuple[Channel, ...]
    dtype: np.dtype
    notes: tuple[str, ...]


class _Rhythm(NamedTuple):
    """The rhythm: one group, or several with a place for each."""

    waveforms: list[_Waveform]
    placement: Placement | None
    notes: tuple[str, ...]

    @property
    def channels(self) -> tuple[Channel, ...]:
        groups = [waveform.channels for waveform in self.waveforms]
        return tuple(self.placement.put(groups)) if self.placement else groups[0]

    @property
    def n_samples(self) -> int:
        return self.placement.n_samples if self.placement else self.waveforms[0].group.n_samples

    def read(self, structure: Structure) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None]:
        """Return (channel, time) int32, and which of them are padding or of another group; None if none is."""
        groups = [_read_samples(structure, waveform) for waveform in self.waveforms]
        return self.placement.joined(groups) if self.placement else groups[0]


def sniff(head: bytes) -> bool:
    """Tell whether `DICM` stands after 128 bytes."""
    return head[PREFIX_AT:META_START] == PREFIX


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a DICOM file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers; padding is missing. Signals that are not voltages (pressure ...)
    are kept with a gain of NaN. Raises UnreadableRecording.
    """
    structure = Structure.parse(read_bounded(path, FILE_LIMIT), str(path))
    rhythm = _find_rhythm(structure)
    digital, missing = rhythm.read(structure)
    padded = (PADDED,) if missing is not None and rhythm.placement is None else ()
    yield _recording(path, structure, rhythm._replace(notes=rhythm.notes + padded), digital, missing)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; none is decoded."""
    structure = Structure.parse(read_bounded(path, FILE_LIMIT), str(path))
    rhythm = _find_rhythm(structure)
    yield _recording(path, structure, rhythm, np.zeros((len(rhythm.channels), 0), np.int32))


def _recording(
    path: Path,
    structure: Structure,
    rhythm: _Rhythm,
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
) -> Recording:
    channels = rhythm.channels
    return Recording(
        recording_id=path.stem,
        leads=tuple(channel.name for channel in channels),
        rate_hz=rhythm.waveforms[0].group.rate_hz,
        digital=digital,
        gain_per_mv=np.array([channel.per_mv for channel in channels]),
        baseline=np.array([channel.baseline for channel in channels]),
        missing=missing,
        n_samples=rhythm.n_samples,
        source=Origin("dicom", path),
        **read_context(structure, channels).facts(*rhythm.notes),
    )


def _find_rhythm(structure: Structure) -> _Rhythm:
    """Choose and check the groups with the rhythm. No sample is touched. Raises UnreadableRecording."""
    sequence = structure.elements.get(WAVEFORM_SEQUENCE)
    if sequence is None or not sequence.items:
        _refuse(Reason.EMPTY, "no waveform", "a multiplex group", structure)
    groups = [_group(structure, item) for item in sequence.items if _is_rhythm(structure, item)]
    best = _choose(groups, structure)
    if len(best) == 1:
        waveform = _waveform(structure, best[0])
        quirks = {OTHER_GROUPS: len(groups) > 1, GROUP_DELAYED: bool(best[0].offset_ms)}
        return _Rhythm([waveform], None, (*(name for name, met in quirks.items() if met), *waveform.notes))
    rate_hz = best[0].rate_hz
    if any(group.offset_ms is None or group.rate_hz != rate_hz for group in best):
        _refuse(Reason.UNSUPPORTED, f"leads spread over {len(best)} multiplex groups", "all in one", structure)
    # The time that each group states, in ms from the start of the acquisition.
    parts = [
        LeadGroup(group.names, round((group.offset_ms or 0.0) * rate_hz / 1000), group.n_samples) for group in best
    ]
    placement = Placement.of(parts, structure.where)
    check_shape(sum(map(len, placement.rows)), placement.n_samples, rate_hz, structure.where)
    waveforms = [_waveform(structure, group) for group in best]
    notes = dict.fromkeys(note for waveform in waveforms for note in waveform.notes)
    return _Rhythm(waveforms, placement, (TOGETHER, *notes))


def _waveform(structure: Structure, group: _Group) -> _Waveform:
    """Check one chosen group."""
    definitions = group.item[CHANNEL_DEFINITIONS].items
    channels = tuple(Channel.parse(structure, item, place, group.rate_hz) for place, item in enumerate(definitions))
    dtype = _dtype(structure, group)
    _check_size(structure, group, dtype)
    skews = [channel.skew_s * group.rate_hz for channel in channels]
    if max(skews) - min(skews) >= WORST_SKEW_SAMPLES:
        _refuse(Reason.UNSUPPORTED, "channels skewed in time", "simultaneous ones", structure)
    quirks = {
        SKEWED: max(skews) != min(skews),
        NO_BASELINE: not all(channel.has_baseline for channel in channels),
    }
    counts = {status: sum(status in channel.statuses for channel in channels) for status in STATUSES}
    statuses = [f"channel status {status.casefold()}: {count}" for status, count in counts.items() if count]
    return _Waveform(group, channels, dtype, (*(name for name, met in quirks.items() if met), *statuses))


def _read_samples(structure: Structure, waveform: _Waveform) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None]:
    """Return (channel, time) int32, and which of them are padding; None if none is."""
    group, width = waveform.group, len(waveform.channels)
    start = group.item[DATA].value
    frames = np.frombuffer(structure.data, waveform.dtype, group.n_samples * width, start).reshape(-1, width)
    digital = np.empty((width, group.n_samples), np.int32)
    digital[:] = frames.T
    missing = _padding(structure, waveform, digital)
    _check_bits(structure, waveform, digital, missing)
    return digital, missing


def _is_rhythm(structure: Structure, item: Items) -> bool:
    """Tell whether a group is recorded, not derived: by its declared type, never by its place."""
    # The median beat is a multiplex group like any other, at the same rate, and only its type and label tell.
    label = structure.text(item, LABEL).upper()
    return structure.text(item, ORIGINALITY) == "ORIGINAL" and not any(word in label for word in _AVERAGED)


def _group(structure: Structure, item: Items) -> _Group:
    rate_hz = structure.decimal(item, RATE_HZ)
    n_channels, n_samples = structure.integer(item, N_CHANNELS, 2), structure.integer(item, N_SAMPLES, 4)
    if rate_hz is None or n_channels is None or n_samples is None or CHANNEL_DEFINITIONS not in item:
        _refuse(Reason.HEADER, "no rate, number of channels or samples, or no definitions", "all of them", structure)
    check_shape(n_channels, n_samples, rate_hz, structure.where)
    definitions = item[CHANNEL_DEFINITIONS].items
    if len(definitions) != n_channels:
        _refuse(Reason.HEADER, f"{len(definitions)} channel definitions", f"{n_channels} as declared", structure)
    names = tuple(Channel.find_name(structure, channel, place) for place, channel in enumerate(definitions))
    offset_ms = structure.decimal(item, GROUP_OFFSET)
    return _Group(item, structure.text(item, LABEL).upper(), rate_hz, n_samples, names, offset_ms)


def _choose(groups: list[_Group], structure: Structure) -> list[_Group]:
    """Return the group with most of the twelve leads, called rhythm, longest; all groups if each holds other leads.

    Raises UnreadableRecording if two groups are equally good.
    """
    if not groups:
        _refuse(Reason.EMPTY, "derived multiplex groups only", "an original one", structure)
    best = max(groups, key=lambda group: group.rank)
    # As on paper: four groups of three leads, 2.5 s each. Their times tell whether they can be put together.
    if any(group.twelve - best.twelve for group in groups):
        return [group for group in groups if group.twelve]
    if sum(group.rank == best.rank for group in groups) > 1:
        _refuse(Reason.UNSUPPORTED, "two equally good multiplex groups", "one rhythm", structure)
    return [best]


def _dtype(structure: Structure, group: _Group) -> np.dtype:
    bits, kind = structure.integer(group.item, BITS_ALLOCATED, 2), structure.text(group.item, INTERPRETATION)
    found = DTYPES.get((bits or 0, kind))
    if found is None:
        what = f"{COMPANDED[kind]} samples" if kind in COMPANDED else f"samples of {bits} bits and another kind"
        _refuse(Reason.UNSUPPORTED, what, "8, 16 or 32 bits as SB, UB, SS, US or SL", structure)
    if structure.syntax.big_endian and bits != 16:
        # The standard stores samples in words of 16 bits; programs disagree how others lie in swapped words.
        _refuse(Reason.UNSUPPORTED, f"big-endian samples of {bits} bits", "16 bits", structure)
    return np.dtype(found).newbyteorder(">" if structure.syntax.big_endian else "<")


def _check_size(structure: Structure, group: _Group, dtype: np.dtype) -> None:
    """Compare the declared number of samples with the bytes that are there. An odd number is padded by one byte."""
    expected = group.n_samples * len(group.names) * dtype.itemsize
    element = group.item.get(DATA)
    found = 0 if element is None else element.stop - element.value
    if found < expected:
        _refuse(Reason.TRUNCATED, f"{found} bytes of samples", f"{expected} as declared", structure)
    # One byte less would be a cut file, one byte more is the padding to an even length.
    if found > expected + expected % 2:
        _refuse(Reason.HEADER, f"{found} bytes of samples", f"{expected} as declared", structure)


def _padding(structure: Structure, waveform: _Waveform, digital: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """Return a mask of the padding; None if there is none.

    The least value of its type is padding wherever it stands. Other padding values, such as the 0 of some carts, are
    voltages too: only a run of them in all channels at the end is padding.
    """
    dtype = waveform.dtype
    stored = structure.bytes_of(waveform.group.item, PADDING)
    if stored is None or len(stored) < dtype.itemsize:
        return None
    padding = int(np.frombuffer(stored, dtype, 1)[0])
    # Mortara files declare the padding value 0: taken everywhere, it would erase real samples.
    if padding == np.iinfo(dtype).min:
        missing = digital == padding
        return missing if missing.any() else None
    kept = np.flatnonzero((digital != padding).any(axis=0))
    last = int(kept[-1]) + 1 if len(kept) else 0
    if digital.shape[1] - last < SHORTEST_PADDING:
        return None
    missing = np.zeros(digital.shape, bool)
    missing[:, last:] = True
    return missing


def _check_bits(
    structure: Structure, waveform: _Waveform, digital: NDArray[np.int32], missing: NDArray[np.bool_] | None
) -> None:
    """Refuse samples beyond the stored bits, where these are fewer than the allocated ones: their sign was not extended."""
    for row, channel in enumerate(waveform.channels):
        bits = channel.bits_stored
        if bits is None or bits >= 8 * waveform.dtype.itemsize:
            continue
        if bits < 1:
            _refuse(Reason.HEADER, f"{bits} stored bits", "at least one", structure)
        samples = digital[row] if missing is None else digital[row][~missing[row]]
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if waveform.dtype.kind == "i" else (0, (1 << bits) - 1)
        if samples.size and (samples.min() < low or samples.max() > high):
            _refuse(Reason.HEADER, f"samples beyond {bits} stored bits", f"{low} to {high}", structure)


def _refuse(reason: Reason, found: str, expected: str, structure: Structure) -> NoReturn:
    remedy = EXPORT if reason == Reason.UNSUPPORTED else FETCH_AGAIN
    raise UnreadableRecording(reason, found, expected, remedy, structure.where)
