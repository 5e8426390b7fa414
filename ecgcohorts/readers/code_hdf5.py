"""CODE-15% and SaMi-Trop HDF5 files: many exams in one array `tracings`, padded with zeros to one length.

Layout: `tracings` (exam, time, lead) float32 in mV at 400 Hz; `exam_id` (exam) integers, absent in SaMi-Trop, whose
table goes by row. Sources: the CODE-15% and SaMi-Trop deposits, and the converter of the PhysioNet Challenge 2025,
which reads mV as we do; the deposit's own "1e-4 V" would make R waves of ten volts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import EcgError, Reason, UnreadableRecording
from ecgcohorts.readers._files import size_of
from ecgcohorts.recording import Recording, Source

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")
VARIANTS = ("CODE-15% parts with exam ids", "SaMi-Trop, by row")
ISOLATED = True
SIGNATURE = b"\x89HDF\r\n\x1a\n"
LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")  # order of the last axis
RATE_HZ = 400.0
TRACINGS, EXAM_ID = "tracings", "exam_id"
MAX_SAMPLES = int(4 * 3600 * RATE_HZ)  # per lead
MAX_EXAMS = 1 << 22  # our default; a published part has about 20,000
MAX_EXPANSION = 200  # bytes declared per byte of file, as for archives: a sparse file of 1 kB declares gigabytes
MAX_CHUNK_BYTES = 256 << 20  # our default: a chunk is unpacked whole to read one exam of it
# HDF5 filters that load no plug-in: deflate, shuffle, fletcher32, lzf (32000 is its registered number).
FILTERS = frozenset({1, 2, 3, 32000})
NOT_FINITE = "infinite samples marked missing"


class Exams(NamedTuple):
    """An open file whose layout was checked."""

    tracings: "h5py.Dataset"
    ids: "h5py.Dataset | None"


def sniff(head: bytes) -> bool:
    """Whether the file is HDF5; of which layout, only opening it can tell."""
    return head.startswith(SIGNATURE)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield exams by id (where the file has no ids, by row number) in the order asked; None: all that hold a signal.

    analog_mv: (lead, time) float64, zero padding cut from both ends. Raises UnreadableRecording for an exam that was
    asked for and is all zero, unknown, or there twice; the ones after it in `entries` are then not read.
    """
    with _open(path) as exams:
        if entries is None:
            empty = True
            for row, entry in enumerate(_entries(exams, path)):
                samples = _samples(exams, row, path)
                if samples.size:  # the last exam of a published part is a dummy of zeros
                    empty = False
                    yield _recording(path, exams, row, entry, samples)
            if empty:
                _refuse(Reason.EMPTY, "exams of zeros only", "samples", path)
            return
        places = _places(path.absolute(), size_of(path))
        for entry in entries:
            row = places.get(entry, -1)
            if row < 0:
                _refuse(Reason.MISSING_FILE, "no such exam, or two of one id", "each exam once", path)
            samples = _samples(exams, row, path)
            if not samples.size:
                _refuse(Reason.EMPTY, "an exam of zeros", "samples", path)
            yield _recording(path, exams, row, entry, samples)


def scan(path: Path) -> Iterator[Recording]:
    """Yield every exam without samples, dummies included; n_samples is the padded length."""
    with _open(path) as exams:
        for row, entry in enumerate(_entries(exams, path)):
            yield _recording(path, exams, row, entry, np.zeros((len(LEADS), 0)))


def _recording(path: Path, exams: Exams, row: int, entry: str, samples: NDArray[np.float64]) -> Recording:
    infinite = np.isinf(samples)
    known = exams.ids is not None
    return Recording(
        recording_id=entry if known else f"{path.stem}-{entry}",
        leads=LEADS,
        rate_hz=RATE_HZ,
        analog_mv=np.where(infinite, np.nan, samples),
        n_samples=samples.shape[1] or exams.tracings.shape[1],
        fields={"row": str(row)} | ({EXAM_ID: entry} if known else {}),
        source=Source("code_hdf5", path, entry),
        notes=(NOT_FINITE,) if infinite.any() else (),
    )


def _samples(exams: Exams, row: int, path: Path) -> NDArray[np.float64]:
    """(lead, time) of one exam, cut to where any lead differs from exactly zero."""
    with _typed_errors(path):
        frames = exams.tracings[row]
    alive = np.flatnonzero((frames != 0).any(axis=1))
    kept = frames[alive[0] : alive[-1] + 1] if len(alive) else frames[:0]
    with np.errstate(invalid="ignore"):  # a signalling NaN, which only a damaged file holds, becomes a quiet one
        return np.ascontiguousarray(kept.T, np.float64)


def _entries(exams: Exams, path: Path) -> list[str]:
    if exams.ids is None:
        return [str(row) for row in range(len(exams.tracings))]
    with _typed_errors(path):
        return [str(value) for value in exams.ids[()].tolist()]


@lru_cache(maxsize=8)  # files: ingest asks for one exam at a time
def _places(path: Path, _size_and_time: tuple[int, int]) -> Mapping[str, int]:
    """Row of each entry, -1 for an id that stands twice. Cached until the file changes."""
    with _open(path) as exams:
        entries = _entries(exams, path)
    places = {entry: row for row, entry in enumerate(entries)}
    if len(places) < len(entries):
        seen: set[str] = set()
        for entry in entries:
            if entry in seen:
                places[entry] = -1
            seen.add(entry)
    return places


@contextmanager
def _open(path: Path) -> Iterator[Exams]:
    """Open a file and check its layout; every size is compared with the file before any sample is read."""
    size = size_of(path)[0]
    with _typed_errors(path):
        import h5py  # here, because it takes a while

        # Read-only media and some network disks have no locks; nothing is written here.
        file = h5py.File(path, "r", locking=False)
    with file:
        with _typed_errors(path):
            tracings = _dataset(file, TRACINGS, size, path)
            ids = _dataset(file, EXAM_ID, size, path) if EXAM_ID in file else None
            shape, kind = tracings.shape, tracings.dtype.kind
            if len(shape) != 3 or shape[2] != len(LEADS) or kind != "f" or tracings.dtype.itemsize not in (4, 8):
                _refuse(Reason.FORMAT, f"tracings {shape} {tracings.dtype}", "(exam, time, 12) float32", path)
            if ids is not None and (ids.shape != shape[:1] or ids.dtype.kind not in "iu"):
                _refuse(Reason.FORMAT, f"exam_id {ids.shape} {ids.dtype}", f"({shape[0]},) integers", path)
            if shape[0] > MAX_EXAMS or shape[1] > MAX_SAMPLES:
                _refuse(Reason.LIMIT, f"{shape[0]} exams of {shape[1]}", f"{MAX_EXAMS} of {MAX_SAMPLES}", path)
        yield Exams(tracings, ids)


def _dataset(file: "h5py.File", name: str, file_size: int, path: Path) -> "h5py.Dataset":
    """A dataset that lies in this file as a whole. HDF5 reads any other file through links and external storage."""
    import h5py

    if name not in file:
        _refuse(Reason.FORMAT, f"no dataset {name!r}", f"the layout of CODE-15%: {TRACINGS}, {EXAM_ID}", path)
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        _refuse(Reason.PATH, f"a link in place of {name!r}", "a dataset of this file", path)
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        _refuse(Reason.FORMAT, f"a group {name!r}", "a dataset", path)
    if dataset.external is not None or dataset.is_virtual:
        _refuse(Reason.PATH, f"{name!r} stored in other files", "a dataset of this file", path)
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(place)[0] for place in range(properties.get_nfilters())}
    if not filters <= FILTERS:
        _refuse(Reason.UNSUPPORTED, f"HDF5 filters {sorted(filters)}", "deflate, lzf or none", path)
    itemsize = dataset.dtype.itemsize
    declared = math.prod(dataset.shape) * itemsize
    if declared > MAX_EXPANSION * file_size or math.prod(dataset.chunks or (1,)) * itemsize > MAX_CHUNK_BYTES:
        _refuse(Reason.LIMIT, f"{declared} bytes declared in {file_size}", f"at most {MAX_EXPANSION} times", path)
    return dataset


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    """Give whatever HDF5 raises on damaged files (OSError, KeyError, RuntimeError, TypeError ...) as one type."""
    try:
        yield
    except EcgError:
        raise
    except Exception as error:
        raise UnreadableRecording(
            Reason.HEADER, f"damaged HDF5 ({type(error).__name__})", "a whole file", "Fetch it again.", str(path)
        ) from error


def _refuse(reason: Reason, found: str, expected: str, path: Path) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, "Check which file this is.", str(path))
