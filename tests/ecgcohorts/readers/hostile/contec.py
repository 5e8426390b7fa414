"""ECG90A files written by an adversary: each must be refused at once and cheaply."""

import os
from pathlib import Path
from typing import Any

import write_contec as files


def written(folder: Path, n_samples: int = 40, **how: Any) -> Path:
    path = folder / "0000037.ECG"
    path.write_bytes(files.document(files.known_samples(n_samples), **how))
    return path


def case_no_samples(folder: Path) -> Path:
    return written(folder, 0)


def case_a_footer_of_something(folder: Path) -> Path:
    return written(folder, footer=bytes(36) + b"\1")


def case_half_a_frame(folder: Path) -> Path:
    return written(folder, footer=bytes(45))


def case_zeros_among_the_samples(folder: Path) -> Path:
    return written(folder, footer=bytes(37 + 16))


def case_samples_beyond_twelve_bits(folder: Path) -> Path:
    raw = files.known_samples()
    raw[3, 3] = 0x6801
    path = folder / "0000037.ECG"
    path.write_bytes(files.document(raw))
    return path


def case_another_start(folder: Path) -> Path:
    return written(folder, time=b"15/11/2020 12:59:50")


def case_a_gigabyte_of_nothing(folder: Path) -> Path:
    path = written(folder)
    os.truncate(path, 1 << 30)
    return path
