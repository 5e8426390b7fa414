"""Paths that lead where they should not: as the file to be read, and as names inside a WFDB header."""

import os
from pathlib import Path

import numpy as np

DATA = np.arange(9, dtype="<i2").tobytes()


def naming(folder: Path, name: str) -> Path:
    """A record whose header names another file; a file of the right content lies at `r.dat`, and above the folder."""
    inner = folder / "inner"
    inner.mkdir()
    for place in (folder, inner):
        (place / "r.dat").write_bytes(DATA)
    path = inner / "r.hea"
    path.write_bytes(f"r 1 500 9\n{name} 16 1000/mV 16 0 0 36 0 I\n".encode())
    return path


def record(folder: Path) -> Path:
    path = naming(folder, "r.dat")
    path.with_name("r.dat").unlink()
    return path


def case_parent_folder(folder: Path) -> Path:
    return naming(folder, "../r.dat")


def case_parent_folder_later_in_the_name(folder: Path) -> Path:
    return naming(folder, "./../r.dat")


def case_absolute_path(folder: Path) -> Path:
    return naming(folder, f"{folder}/r.dat")


def case_drive_letter(folder: Path) -> Path:
    return naming(folder, "C:r.dat")


def case_backslashes(folder: Path) -> Path:
    return naming(folder, "..\\r.dat")


def case_network_share(folder: Path) -> Path:
    return naming(folder, "\\\\127.0.0.1\\r.dat")


def case_url(folder: Path) -> Path:
    return naming(folder, "http://127.0.0.1:9/r.dat")


def case_file_url(folder: Path) -> Path:
    return naming(folder, f"file://{folder}/r.dat")


def case_nul_in_the_name(folder: Path) -> Path:
    return naming(folder, "r.dat\0.txt")


def case_leading_minus(folder: Path) -> Path:
    return naming(folder, "-")


def case_leading_minus_and_a_name(folder: Path) -> Path:
    return naming(folder, "-r.dat")


def case_home_folder(folder: Path) -> Path:
    return naming(folder, "~/r.dat")


def case_tilde(folder: Path) -> Path:
    return naming(folder, "~")


def case_name_of_the_folder_itself(folder: Path) -> Path:
    return naming(folder, ".")


def case_name_that_turns_round(folder: Path) -> Path:
    return naming(folder, "r\u202etad.dat")


def case_segment_in_the_parent_folder(folder: Path) -> Path:
    path = naming(folder, "r.dat")
    path.write_text("r/2 1 500 18\n../r 9\n../r 9\n")
    return path


def case_signal_file_linked_from_outside(folder: Path) -> Path:
    path = record(folder)
    path.with_name("r.dat").symlink_to(folder / "r.dat")
    return path


def case_signal_file_that_links_to_itself(folder: Path) -> Path:
    path = record(folder)
    path.with_name("r.dat").symlink_to(path.with_name("r.dat"))
    return path


def case_signal_file_linked_to_a_device(folder: Path) -> Path:
    path = record(folder)
    path.with_name("r.dat").symlink_to("/dev/zero")
    return path


def case_signal_file_is_a_pipe(folder: Path) -> Path:
    path = record(folder)
    os.mkfifo(path.with_name("r.dat"))
    return path


def case_signal_file_is_a_folder(folder: Path) -> Path:
    path = record(folder)
    path.with_name("r.dat").mkdir()
    return path


def case_signal_file_missing(folder: Path) -> Path:
    return record(folder)


def case_link(folder: Path) -> Path:
    path = folder / "link.hea"
    path.symlink_to(naming(folder, "r.dat"))
    return path


def case_link_to_itself(folder: Path) -> Path:
    path = folder / "loop.xml"
    path.symlink_to(path)
    return path


def case_pipe(folder: Path) -> Path:
    path = folder / "pipe.edf"
    os.mkfifo(path)
    return path


def case_device(folder: Path) -> Path:
    return Path("/dev/zero")


def case_folder(folder: Path) -> Path:
    path = folder / "folder.dcm"
    path.mkdir()
    return path


def case_nothing_there(folder: Path) -> Path:
    return folder / "missing.scp"


def case_nul_in_the_path(folder: Path) -> Path:
    return folder / "a\0b.hea"


def case_empty_file(folder: Path) -> Path:
    path = folder / "empty.xml"
    path.touch()
    return path
