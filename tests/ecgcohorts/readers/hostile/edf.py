"""EDF and BDF files written by an adversary: each must be refused at once and cheaply."""

import os
from pathlib import Path
from typing import Any

import write_edf as files

LEADS = files.leads_of(files.known_samples(2, 100))


def written(folder: Path, signals: Any = LEADS, **how: Any) -> Path:
    path = folder / "ecg.edf"
    path.write_bytes(files.document(signals, **how))
    return path


def bent(folder: Path, **changes: Any) -> Path:
    """Every signal changed alike."""
    return written(folder, files.leads_of(files.known_samples(2, 100), **changes))


def case_minus_one_records(folder: Path) -> Path:
    return written(folder, n_records="-1")


def case_a_hundred_million_records(folder: Path) -> Path:
    return written(folder, n_records="99999999")


def case_9999_signals(folder: Path) -> Path:
    return written(folder, n_signals="9999", header_bytes="2560000")


def case_header_bytes_of_another_number_of_signals(folder: Path) -> Path:
    return written(folder, header_bytes="512")


def case_digital_limits_in_falling_order(folder: Path) -> Path:
    return bent(folder, digital=("32767", "-32768"))


def case_equal_digital_limits(folder: Path) -> Path:
    return bent(folder, digital=("0", "0"))


def case_equal_physical_limits(folder: Path) -> Path:
    return bent(folder, physical=("5", "5.0"))


def case_physical_limits_beyond_floats(folder: Path) -> Path:
    return bent(folder, physical=("-9e99999", "9e99999"))


def case_physical_limits_of_no_gain(folder: Path) -> Path:
    return bent(folder, physical=("-9e99", "9e99"))


def case_duration_of_zero(folder: Path) -> Path:
    return written(folder, record_s="0")


def case_duration_of_nothing(folder: Path) -> Path:
    return written(folder, record_s="1e-99")


def case_records_without_samples(folder: Path) -> Path:
    path = written(folder)
    data = bytearray(path.read_bytes())
    data[256 + 2 * 216 : 256 + 2 * 216 + 16] = b"0       " * 2
    path.write_bytes(data)
    return path


def case_a_gap_between_records(folder: Path) -> Path:
    return written(folder, [*LEADS, files.Annotations([0.0, 7.0])], kind="EDF+D")


def case_a_discontinuous_file_of_four_million_records(folder: Path) -> Path:
    """Each of one sample and one onset: sparse, so that the file costs nothing."""
    lead = files.Signal("I", files.known_samples(1, 1)[0], per_record=1)
    path = written(folder, [lead, files.Annotations([0.0], 24)], record_s="0.001", kind="EDF+D", n_records="4000000")
    os.truncate(path, 256 * 3 + 4_000_000 * 50)
    return path


def case_five_hours_in_a_sparse_file(folder: Path) -> Path:
    lead = files.Signal("I", files.known_samples(1, 500)[0], per_record=500)
    path = written(folder, [lead], record_s="1", n_records="18000")
    os.truncate(path, 512 + 18_000 * 1000)
    return path


def case_a_sparse_gigabyte(folder: Path) -> Path:
    lead = files.Signal("I", files.known_samples(1, 50_000)[0], per_record=50_000)
    other = files.Signal("EMG", files.known_samples(1, 50_000)[0], per_record=50_000)
    path = written(folder, [lead, *[other] * 60], record_s="1", n_records="176")
    os.truncate(path, 256 * 62 + 176 * 61 * 100_000)
    return path
