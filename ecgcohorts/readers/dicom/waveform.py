"""The waveform of a DICOM file: the multiplex group that holds the rhythm, and its samples as integers.

Source: DICOM PS3.3, section C.10.9 (waveform module).
"""

from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers.dicom.channels import NO_BASELINE, STATUSES, Channel, lead_name, read_channel
from ecgcohorts.readers.dicom.elements import CHANNEL_DEFINITIONS, FETCH_AGAIN, WAVEFORM_SEQUENCE, Items, Structure
from ecgcohorts.readers.dicom.values import decimal, integer, text

GROUP_OFFSET = 0x0018_1068
ORIGINALITY, N_CHANNELS, N_SAMPLES, RATE_HZ, LABEL = 0x003A_0004, 0x003A_0005, 0x003A_0010, 0x003A_001A, 0x003A_0020
BITS_ALLOCATED, INTERPRETATION, PADDING, DATA = 0x5400_1004, 0x5400_1006, 0x5400_100A, 0x5400_1010

DTYPES = {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "i2", (16, "US"): "u2", (32, "SL"): "i4"}
COMPANDED = {"MB": "mu-law", "AB": "A-law"}
_AVERAGED = ("MEDIAN", "REPRESENTATIVE", "AVERAGE", "TEMPLATE")  # labels of beats that no heart made
# A shorter run of padding in all channels happens in a quiet ECG whose padding value is 0. Our default.
SHORTEST_PADDING = 10
# Channels sampled further apart than this are no simultaneous ECG. Our default.
WORST_SKEW_SAMPLES = 0.5

EXPORT = "Export it as one group of simultaneous channels, with linear samples of 16 bits."
OTHER_GROUPS = "other original multiplex groups left out"
GROUP_DELAYED = "multiplex group starts later than the recording"
SKEWED = "channels skewed by less than half a sample"
PADDED = "padding marked missing"


class Group(NamedTuple):
    """One multiplex group, as declared."""

    item: Items
    label: str
    rate_hz: float
    n_samples: int
    names: tuple[str, ...]

    @property
    def twelve(self) -> frozenset[str]:
        """Which of the twelve leads it holds."""
        return frozenset(lead for name in self.names if (lead := canonical(name)) is not None)

    @property
    def rank(self) -> tuple[int, bool, float]:
        return len(self.twelve), "RHYTHM" in self.label, self.n_samples / self.rate_hz


class Waveform(NamedTuple):
    group: Group
    channels: tuple[Channel, ...]
    dtype: np.dtype
    notes: tuple[str, ...]


def find_waveform(structure: Structure) -> Waveform:
    """Choose and check the group with the rhythm; no sample is touched. Raises UnreadableRecording."""
    sequence = structure.elements.get(WAVEFORM_SEQUENCE)
    if sequence is None or not sequence.items:
        _refuse(Reason.EMPTY, "no waveform", "a multiplex group", structure)
    group, others = _choose(
        [_group(structure, item) for item in sequence.items if _is_rhythm(structure, item)], structure
    )
    definitions = group.item[CHANNEL_DEFINITIONS].items
    channels = tuple(read_channel(structure, item, place, group.rate_hz) for place, item in enumerate(definitions))
    dtype = _dtype(structure, group)
    _check_size(structure, group, dtype)
    skews = [channel.skew_s * group.rate_hz for channel in channels]
    if max(skews) - min(skews) >= WORST_SKEW_SAMPLES:
        _refuse(Reason.UNSUPPORTED, "channels skewed in time", "simultaneous ones", structure)
    quirks = {
        OTHER_GROUPS: others,
        GROUP_DELAYED: bool(decimal(structure, group.item, GROUP_OFFSET)),
        SKEWED: max(skews) != min(skews),
        NO_BASELINE: not all(channel.has_baseline for channel in channels),
    }
    counts = {status: sum(status in channel.statuses for channel in channels) for status in STATUSES}
    statuses = [f"channel status {status.casefold()}: {count}" for status, count in counts.items() if count]
    return Waveform(group, channels, dtype, (*(name for name, met in quirks.items() if met), *statuses))


def read_samples(structure: Structure, waveform: Waveform) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None]:
    """(channel, time) int32, and which of them are padding; None if none is."""
    group, width = waveform.group, len(waveform.channels)
    start = group.item[DATA].value
    frames = np.frombuffer(structure.data, waveform.dtype, group.n_samples * width, start).reshape(-1, width)
    digital = np.empty((width, group.n_samples), np.int32)
    digital[:] = frames.T
    missing = _padding(structure, waveform, digital)
    _check_bits(structure, waveform, digital, missing)
    return digital, missing


def _is_rhythm(structure: Structure, item: Items) -> bool:
    """Whether a group is recorded, not derived: by its declared type, never by its place."""
    label = text(structure, item, LABEL).upper()
    return text(structure, item, ORIGINALITY) == "ORIGINAL" and not any(word in label for word in _AVERAGED)


def _group(structure: Structure, item: Items) -> Group:
    rate_hz = decimal(structure, item, RATE_HZ)
    n_channels, n_samples = integer(structure, item, N_CHANNELS, 2), integer(structure, item, N_SAMPLES, 4)
    if rate_hz is None or n_channels is None or n_samples is None or CHANNEL_DEFINITIONS not in item:
        _refuse(Reason.HEADER, "no rate, number of channels or samples, or no definitions", "all of them", structure)
    check_shape(n_channels, n_samples, rate_hz, structure.where)
    definitions = item[CHANNEL_DEFINITIONS].items
    if len(definitions) != n_channels:
        _refuse(Reason.HEADER, f"{len(definitions)} channel definitions", f"{n_channels} as declared", structure)
    names = tuple(lead_name(structure, channel, place) for place, channel in enumerate(definitions))
    return Group(item, text(structure, item, LABEL).upper(), rate_hz, n_samples, names)


def _choose(groups: list[Group], structure: Structure) -> tuple[Group, bool]:
    """The group with most of the twelve leads, called rhythm, longest; and whether others are left out.

    A group that lacks leads which another one has would be a part of an ECG: refused, as are two equally good ones.
    """
    if not groups:
        _refuse(Reason.EMPTY, "derived multiplex groups only", "an original one", structure)
    best = max(groups, key=lambda group: group.rank)
    if any(group.twelve - best.twelve for group in groups):
        _refuse(Reason.UNSUPPORTED, f"leads spread over {len(groups)} multiplex groups", "all in one", structure)
    if sum(group.rank == best.rank for group in groups) > 1:
        _refuse(Reason.UNSUPPORTED, "two equally good multiplex groups", "one rhythm", structure)
    return best, len(groups) > 1


def _dtype(structure: Structure, group: Group) -> np.dtype:
    bits, kind = integer(structure, group.item, BITS_ALLOCATED, 2), text(structure, group.item, INTERPRETATION)
    found = DTYPES.get((bits or 0, kind))
    if found is None:
        what = f"{COMPANDED[kind]} samples" if kind in COMPANDED else f"samples of {bits} bits and another kind"
        _refuse(Reason.UNSUPPORTED, what, "8, 16 or 32 bits as SB, UB, SS, US or SL", structure)
    if structure.syntax.big_endian and bits != 16:
        # Such samples are stored in words of 16 bits, and how others lie in swapped words is read in two ways.
        _refuse(Reason.UNSUPPORTED, f"big-endian samples of {bits} bits", "16 bits", structure)
    return np.dtype(found).newbyteorder(">" if structure.syntax.big_endian else "<")


def _check_size(structure: Structure, group: Group, dtype: np.dtype) -> None:
    """Compare the declared number of samples with the bytes there are. An odd number is padded by one byte."""
    expected = group.n_samples * len(group.names) * dtype.itemsize
    element = group.item.get(DATA)
    found = 0 if element is None else element.stop - element.value
    if found < expected:
        _refuse(Reason.TRUNCATED, f"{found} bytes of samples", f"{expected} as declared", structure)
    if found > expected + expected % 2:
        _refuse(Reason.HEADER, f"{found} bytes of samples", f"{expected} as declared", structure)


def _padding(structure: Structure, waveform: Waveform, digital: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """Where the declared padding value stands and means it.

    Anywhere if it is the least value of its type. Others, such as the 0 of some carts, are voltages too: only a run of
    them in all channels at the end is padding.
    """
    dtype = waveform.dtype
    stored = structure.bytes_of(waveform.group.item, PADDING)
    if stored is None or len(stored) < dtype.itemsize:
        return None
    padding = int(np.frombuffer(stored, dtype, 1)[0])
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
    structure: Structure, waveform: Waveform, digital: NDArray[np.int32], missing: NDArray[np.bool_] | None
) -> None:
    """Fewer stored than allocated bits: samples beyond them are no numbers of that width, their sign was not extended."""
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
