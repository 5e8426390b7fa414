"""The reader of this format; what is said about it stands in the package."""

import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.files import Folder, read_exactly
from ecgcohorts.readers.edf.context import read_context
from ecgcohorts.readers.edf.header import HEADER_BYTES, Header, fits, parse_fixed, parse_header, refuse
from ecgcohorts.readers.edf.signal import (
    CONTIGUOUS,
    OUT_OF_RANGE,
    PADDED,
    Chosen,
    check_contiguous,
    choose,
    decode,
    find_padding,
    is_out_of_range,
)
from ecgcohorts.recording import Recording, Source

SUFFIXES = (".bdf", ".edf")
VARIANTS = (
    "EDF, EDF+C and BDF, 16 and 24 bits; EDF+D without gaps",
    "the twelve leads and voltages at their rate; annotations skipped",
)
FILE_LIMIT = 256 << 20  # bytes of records; our default
TRAILING = "bytes after the last record ignored"


def sniff(head: bytes) -> bool:
    """Whether a file starts with an EDF or BDF header."""
    return fits(head)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a file. `entries` is ignored, a file has none.

    digital: (lead, time) int32, the stored integers. Raises UnreadableRecording: TRUNCATED before anything is
    allocated if the file is shorter than its header declares.
    """
    with Folder(path.parent) as folder, folder.open(path.name) as file:
        header, chosen, notes = _open(file, path)
        records = _records(file, header, chosen, path)
    digital = decode(header, chosen, records)
    missing = find_padding(header, digital)
    quirks = {
        OUT_OF_RANGE: is_out_of_range(chosen, digital),
        PADDED: missing is not None,
        CONTIGUOUS: header.is_discontinuous,
    }
    notes += tuple(name for name, met in quirks.items() if met)
    yield _recording(path, header, chosen, notes, digital, missing)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples, from the header; of EDF+D the times of the records are read too."""
    with Folder(path.parent) as folder, folder.open(path.name) as file:
        header, chosen, notes = _open(file, path)
        if header.is_discontinuous:
            _records(file, header, chosen, path)
    yield _recording(path, header, chosen, notes, np.zeros((len(chosen.signals), 0), np.int32))


def _open(file: FileIO, path: Path) -> tuple[Header, Chosen, tuple[str, ...]]:
    """The header, compared with the size of the file, and the signals to read; the file stands at its first record."""
    where = str(path)
    head = file.read(HEADER_BYTES)
    head += file.read(HEADER_BYTES * parse_fixed(head, where))
    header = parse_header(head, where)
    size = os.fstat(file.fileno()).st_size
    if header.declared_bytes > size:
        refuse(Reason.TRUNCATED, f"{size} bytes", f"{header.declared_bytes} as declared", where)
    if header.declared_bytes > FILE_LIMIT:
        refuse(Reason.LIMIT, f"{header.declared_bytes} bytes", f"at most {FILE_LIMIT}", where)
    return header, choose(header, where), (TRAILING,) if size > header.declared_bytes else ()


def _records(file: FileIO, header: Header, chosen: Chosen, path: Path) -> bytes:
    """All records; those of EDF+D must follow each other."""
    records = read_exactly(file, header.declared_bytes - header.header_bytes, path)
    if header.is_discontinuous:
        check_contiguous(header, chosen, records, str(path))
    return records


def _recording(
    path: Path,
    header: Header,
    chosen: Chosen,
    notes: tuple[str, ...],
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
) -> Recording:
    context = read_context(header, chosen.signals)
    return Recording(
        recording_id=path.stem,
        leads=tuple(signal.label for signal in chosen.signals),
        rate_hz=chosen.rate_hz,
        digital=digital,
        gain_per_mv=np.array(chosen.per_mv),
        baseline=np.array([scale.baseline for scale in chosen.scales]),
        missing=missing,
        n_samples=chosen.n_samples,
        patient_id=context.patient_id,
        age_years=context.age_years,
        sex=context.sex,
        acquired_at=context.acquired_at,
        mains_hz=context.mains_hz,
        fields=context.fields,
        source=Source("edf", path),
        notes=notes + chosen.notes + context.notes,
    )
