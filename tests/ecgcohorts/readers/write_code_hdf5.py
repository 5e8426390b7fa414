"""Write HDF5 files in the layout of CODE-15% (with ids) and of SaMi-Trop (without), with known samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
LENGTH = 4096


def exam(n_samples: int, seed: int) -> NDArray[np.float32]:
    """(time, lead) samples in mV, none of them zero in all leads."""
    return np.random.default_rng(seed).normal(0.3, 0.5, (n_samples, len(LEADS))).astype(np.float32)


def padded(samples: NDArray[np.float32], before: int) -> NDArray[np.float32]:
    """(LENGTH, lead) with the exam after `before` rows of zeros."""
    rows = np.zeros((LENGTH, len(LEADS)), np.float32)
    rows[before : before + len(samples)] = samples
    return rows


def write_exams(path: Path, tracings: NDArray[Any], ids: Sequence[int] | None = None, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=tracings, **options)
        if ids is not None:
            file["exam_id"] = np.asarray(ids, np.int64)
    return path


def write(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: two exams, and what must come out of it."""
    exams = {902: (exam(2934, 1), 581), 17: (exam(4096, 2), 0)}
    path = folder / "exams_part0.hdf5"
    write_exams(path, np.stack([padded(*each) for each in exams.values()]), list(exams))
    return path, [
        {"entry": str(number), "leads": LEADS, "rate_hz": 400.0, "signal_mv": samples.T.astype(np.float64)}
        for number, (samples, _) in exams.items()
    ]
