"""The reader of this format; what is said about it stands in the package."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.readers._shared.files import read_bounded
from ecgcohorts.readers.dicom.context import read_context
from ecgcohorts.readers.dicom.elements import META_START, PREFIX, PREFIX_AT, Structure, parse_structure
from ecgcohorts.readers.dicom.waveform import PADDED, Waveform, find_waveform, read_samples
from ecgcohorts.recording import Recording, Source

SUFFIXES = (".dcm",)
VARIANTS = (
    "implicit and explicit little endian, explicit big endian",
    "12-lead, general, ambulatory ECG and hemodynamic; the original rhythm group",
    "samples of 8, 16 and 32 bits; leads by SCP-ECG or MDC code, or by name",
)
FILE_LIMIT = 128 << 20  # bytes; our default: three hours of 12 leads at 500 Hz


def sniff(head: bytes) -> bool:
    """Whether `DICM` stands after 128 bytes."""
    return head[PREFIX_AT:META_START] == PREFIX


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a DICOM file. `entries` is ignored, a file has none.

    digital: (lead, time) int32, the stored integers; padding is missing. Signals that are no voltage (pressure ...)
    are kept with a NaN gain. Raises UnreadableRecording.
    """
    structure = parse_structure(read_bounded(path, FILE_LIMIT), str(path))
    waveform = find_waveform(structure)
    digital, missing = read_samples(structure, waveform)
    yield _recording(path, structure, waveform, digital, missing)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; none is decoded."""
    structure = parse_structure(read_bounded(path, FILE_LIMIT), str(path))
    waveform = find_waveform(structure)
    yield _recording(path, structure, waveform, np.zeros((len(waveform.channels), 0), np.int32))


def _recording(
    path: Path,
    structure: Structure,
    waveform: Waveform,
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
) -> Recording:
    channels = waveform.channels
    context = read_context(structure, channels)
    return Recording(
        recording_id=path.stem,
        leads=tuple(channel.name for channel in channels),
        rate_hz=waveform.group.rate_hz,
        digital=digital,
        gain_per_mv=np.array([channel.per_mv for channel in channels]),
        baseline=np.array([channel.baseline for channel in channels]),
        missing=missing,
        n_samples=waveform.group.n_samples,
        patient_id=context.patient_id,
        age_years=context.age_years,
        sex=context.sex,
        acquired_at=context.acquired_at,
        device=context.device,
        site=context.site,
        mains_hz=context.mains_hz,
        fields=context.fields,
        source=Source("dicom", path),
        notes=(*waveform.notes, *([PADDED] if missing is not None else []), *context.notes),
    )
