"""Write HDF5 files in the layout of CODE-15% (with ids) and of SaMi-Trop (without), with known samples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
LENGTH = 4096
RATE_HZ = 400.0
CANARIES = ("471190283", "618274590")  # exam ids: all that such a file says about a person


def exam(n_samples: int, seed: int) -> NDArray[np.float32]:
    """(time, lead) samples in mV, none of them zero in all leads."""
    return np.random.default_rng(seed).normal(0.3, 0.5, (n_samples, len(LEADS))).astype(np.float32)


def beats(n_samples: int, seed: int) -> NDArray[np.float32]:
    """(time, lead) samples in mV: one spike a second of 0.5 to 1.5 mV over a little noise."""
    rng = np.random.default_rng(seed)
    time = (np.arange(n_samples)[:, None] % RATE_HZ - RATE_HZ / 2) / RATE_HZ
    spikes = rng.uniform(0.5, 1.5, len(LEADS)) * np.exp(-((time / 0.02) ** 2))
    return (spikes + rng.normal(0, 0.02, spikes.shape)).astype(np.float32)


def padded(samples: NDArray[np.float32], before: int, length: int = LENGTH) -> NDArray[np.float32]:
    """(length, lead) with the exam after `before` rows of zeros."""
    rows = np.zeros((length, len(LEADS)), np.float32)
    rows[before : before + len(samples)] = samples
    return rows


def write_exams(path: Path, tracings: NDArray[Any], ids: Sequence[int] | None = None, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("tracings", data=tracings, **options)
        if ids is not None:
            file["exam_id"] = np.asarray(ids, np.int64)
    return path


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: two exams, and what must come out of it."""
    if seconds is None:
        length, samples = 30, (exam(21, 1), exam(30, 2))
    else:
        length, samples = LENGTH, (beats(round(seconds * RATE_HZ), 1), beats(round(seconds * RATE_HZ) - 40, 2))
    path = folder / "exams_part0.hdf5"
    tracings = [padded(each, before, length) for each, before in zip(samples, (7, 0), strict=True)]
    write_exams(path, np.stack(tracings), [int(number) for number in CANARIES])
    return path, [
        {"entry": number, "leads": LEADS, "rate_hz": RATE_HZ, "signal_mv": each.T.astype(np.float64)}
        for number, each in zip(CANARIES, samples, strict=True)
    ]


def _compressed(folder: Path) -> Path:
    tracings = np.stack([exam(40, seed) for seed in range(2)])
    return write_exams(folder / "packed.h5", tracings, [5, 6], chunks=(1, 20, 12), compression="gzip")


def _rows(folder: Path) -> Path:
    return write_exams(folder / "rows.h5", exam(40, 3)[None])


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {"compressed": _compressed, "rows": _rows}
