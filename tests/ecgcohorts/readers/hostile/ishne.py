"""ISHNE files written by an adversary: each must be refused at once and cheaply."""

import os
from pathlib import Path
from typing import Any

import write_ishne as files


def written(folder: Path, *leads: str, n_samples: int = 60, **how: Any) -> Path:
    names = leads or ("I", "II")
    path = folder / "holter.ecg"
    path.write_bytes(files.document(files.known_samples(len(names), n_samples), names, **how))
    return path


def case_two_billion_samples_declared(folder: Path) -> Path:
    return written(folder, declared=2**31 - 1)


def case_less_than_no_samples(folder: Path) -> Path:
    return written(folder, declared=-1)


def case_no_samples(folder: Path) -> Path:
    return written(folder, n_samples=0)


def case_one_sample_less_than_declared(folder: Path) -> Path:
    return written(folder, declared=61)


def case_two_gigabytes_of_text_declared(folder: Path) -> Path:
    return written(folder, bytes_of_text=2**31 - 1, samples_at=2**31 - 1)


def case_text_beyond_the_file(folder: Path) -> Path:
    return written(folder, bytes_of_text=500_000, samples_at=500_522)


def case_less_than_no_text(folder: Path) -> Path:
    return written(folder, bytes_of_text=-500, samples_at=22)


def case_samples_inside_the_header(folder: Path) -> Path:
    return written(folder, samples_at=10)


def case_no_leads(folder: Path) -> Path:
    return written(folder, n_leads=0)


def case_more_leads_than_the_header_has_room_for(folder: Path) -> Path:
    return written(folder, n_leads=13)


def case_less_than_no_leads(folder: Path) -> Path:
    return written(folder, n_leads=-2)


def case_a_step_of_nothing(folder: Path) -> Path:
    return written(folder, steps_nv=[5000, 0])


def case_a_step_below_nothing(folder: Path) -> Path:
    return written(folder, steps_nv=[5000, -9])


def case_a_rate_of_nothing(folder: Path) -> Path:
    return written(folder, rate=0)


def case_a_rate_below_nothing(folder: Path) -> Path:
    return written(folder, rate=-500)


def case_another_crc(folder: Path) -> Path:
    path = written(folder)
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    return path


def case_a_day_in_a_sparse_file(folder: Path) -> Path:
    """24 h at 500 Hz: well formed, and beyond what is read."""
    path = written(folder, declared=24 * 3600 * 500)
    os.truncate(path, 522 + len(files.NOTES) + 4 * 24 * 3600 * 500)
    return path
