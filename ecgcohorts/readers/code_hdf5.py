"""CODE-15%, SaMi-Trop and CODE-test HDF5 files: many exams in one array `tracings`, padded with zeros to one length.

Layout: `tracings` (exam, time, lead) float32 in mV at 400 Hz; `exam_id` (exam) integers, absent in SaMi-Trop and
CODE-test, whose tables go by row. Sources: the CODE-15% and SaMi-Trop deposits, and the converter of the PhysioNet
Challenge 2025. CODE-test has aVL, aVF, aVR where the others have aVR, aVL, aVF, and nothing in the file says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.io.regular import size_of
from ecgcohorts.readers._shared.hdf5 import SIGNATURE, checked_dataset, open_hdf5, refuse, typed_errors
from ecgcohorts.readers._shared.units import without_infinities
from ecgcohorts.recording import Origin, Recording

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")
VARIANTS = (
    "CODE-15% parts with exam ids",
    "SaMi-Trop, by row",
    "CODE-test, by row, whose aVR stands last of its group",
)
ISOLATED = True
NEEDS = ("h5py",)
LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")  # order of the last axis
CODE_TEST_LEADS = (*LEADS[:3], "AVL", "AVF", "AVR", *LEADS[6:])
CODE_TEST_ORDER = "lead_order_of_code_test"  # note
EXAMS_ASKED = 16  # our default: the number of exams whose signals tell the order
# Our default. In either release the true order leaves next to nothing, and every other more than 150 % of the leads.
MOST_LEFT = 0.5
RATE_HZ = 400.0
TRACINGS, EXAM_ID = "tracings", "exam_id"
MAX_SAMPLES = int(4 * 3600 * RATE_HZ)  # per lead
MAX_EXAMS = 1 << 22  # our default; a published part has about 20,000


class _Exams(NamedTuple):
    """An open file whose layout was checked."""

    tracings: "h5py.Dataset"
    ids: "h5py.Dataset | None"
    leads: tuple[str, ...]


def sniff(head: bytes) -> bool:
    """Tell whether the file is HDF5. Only opening it can tell which layout it has."""
    return head.startswith(SIGNATURE)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield exams by id (by row number where the file has no ids) in the order asked; None: all that hold a signal.

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
                refuse(Reason.EMPTY, "exams of zeros only", "samples", path)
            return
        # Rows are found by id inside the file: the rows of the table beside it need not stand in its order.
        places = _places(path.absolute(), size_of(path))
        for entry in entries:
            row = places.get(entry, -1)
            if row < 0:
                refuse(Reason.MISSING_FILE, "no such exam, or two of one id", "each exam once", path)
            samples = _samples(exams, row, path)
            if not samples.size:
                refuse(Reason.EMPTY, "an exam of zeros", "samples", path)
            yield _recording(path, exams, row, entry, samples)


def scan(path: Path) -> Iterator[Recording]:
    """Yield every exam without samples, dummies included; n_samples is the padded length."""
    with _open(path) as exams:
        for row, entry in enumerate(_entries(exams, path)):
            yield _recording(path, exams, row, entry, np.zeros((len(LEADS), 0)))


def _recording(path: Path, exams: _Exams, row: int, entry: str, samples: NDArray[np.float64]) -> Recording:
    # The values are mV, as the Challenge's converter reads them: the deposit's own "1e-4 V" would leave a median peak of
    # 0.43 mV, which is a tenth of what 1,200 records show in mV.
    analog_mv, notes = without_infinities(samples)
    known = exams.ids is not None
    return Recording(
        recording_id=entry if known else f"{path.stem}-{entry}",
        leads=exams.leads,
        rate_hz=RATE_HZ,
        analog_mv=analog_mv,
        n_samples=samples.shape[1] or exams.tracings.shape[1],
        fields={"row": str(row)} | ({EXAM_ID: entry} if known else {}),
        source=Origin("code_hdf5", path, entry),
        notes=notes if exams.leads == LEADS else (*notes, CODE_TEST_ORDER),
    )


def _samples(exams: _Exams, row: int, path: Path) -> NDArray[np.float64]:
    """Return (lead, time) of one exam, cut to where any lead differs from exactly zero."""
    with typed_errors(path):
        frames = exams.tracings[row]
    # Padding is cut before any filter sees it: filtered with it, a recording with an offset of 0.3 mV had errors of
    # 0.20 mV at its edges.
    alive = np.flatnonzero((frames != 0).any(axis=1))
    kept = frames[alive[0] : alive[-1] + 1] if len(alive) else frames[:0]
    with np.errstate(invalid="ignore"):  # a signalling NaN, which only a damaged file holds, becomes a quiet one
        return np.ascontiguousarray(kept.T, np.float64)


def _entries(exams: _Exams, path: Path) -> list[str]:
    if exams.ids is None:
        return [str(row) for row in range(len(exams.tracings))]
    with typed_errors(path):
        return [str(value) for value in exams.ids[()].tolist()]


@lru_cache(maxsize=8)  # files: ingest asks for one exam at a time
def _places(path: Path, _size_and_time: tuple[int, int]) -> Mapping[str, int]:
    """Map each entry to its row, -1 for an id that stands twice. Cached until the file changes."""
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
def _open(path: Path) -> Iterator[_Exams]:
    """Open a file and check its layout. Every size is compared with the file before any sample is read."""
    with open_hdf5(path) as file:
        with typed_errors(path):
            if TRACINGS not in file:
                refuse(
                    Reason.FORMAT, f"no dataset {TRACINGS!r}", f"the layout of CODE-15%: {TRACINGS}, {EXAM_ID}", path
                )
            tracings = checked_dataset(file, TRACINGS, path)
            ids = checked_dataset(file, EXAM_ID, path) if EXAM_ID in file else None
            shape, kind = tracings.shape, tracings.dtype.kind
            if len(shape) != 3 or shape[2] != len(LEADS) or kind != "f" or tracings.dtype.itemsize not in (4, 8):
                refuse(Reason.FORMAT, f"tracings {shape} {tracings.dtype}", "(exam, time, 12) float32", path)
            if ids is not None and (ids.shape != shape[:1] or ids.dtype.kind not in "iu"):
                refuse(Reason.FORMAT, f"exam_id {ids.shape} {ids.dtype}", f"({shape[0]},) integers", path)
            if shape[0] > MAX_EXAMS or shape[1] > MAX_SAMPLES:
                refuse(Reason.LIMIT, f"{shape[0]} exams of {shape[1]}", f"{MAX_EXAMS} of {MAX_SAMPLES}", path)
        # Files with ids are CODE-15%'s, whose order was checked on 1,200 exams.
        yield _Exams(tracings, ids, LEADS if ids is not None else _order(path.absolute(), size_of(path)))


@lru_cache(maxsize=8)  # files, like `_places`
def _order(path: Path, _size_and_time: tuple[int, int]) -> tuple[str, ...]:
    """Return the order of leads that Goldberger's relations hold for: aVR + (I + II) / 2 = 0 and so on."""
    left = {LEADS: 0.0, CODE_TEST_LEADS: 0.0}
    size = 0.0
    with open_hdf5(path) as file, typed_errors(path):
        tracings = file[TRACINGS]
        frames = [np.asarray(tracings[row, :, :6], np.float64) for row in range(min(EXAMS_ASKED, len(tracings)))]
    for exam in frames:
        one, two = (np.nan_to_num(exam[:, lead], posinf=0, neginf=0) for lead in (0, 1))
        expected = {"AVR": -(one + two) / 2, "AVL": one - two / 2, "AVF": two - one / 2}
        size += sum(float(np.abs(each).sum()) for each in expected.values())
        for leads in left:
            for place in (3, 4, 5):
                found = np.nan_to_num(exam[:, place], posinf=0, neginf=0)
                left[leads] += float(np.abs(found - expected[leads[place]]).sum())
    fits = left[CODE_TEST_LEADS] < MOST_LEFT * size and left[CODE_TEST_LEADS] < MOST_LEFT * left[LEADS]
    return CODE_TEST_LEADS if fits else LEADS
