"""HDF5 files in the layout of CODE-15%, written by an adversary: each must be refused at once and cheaply."""

from pathlib import Path

import h5py
import numpy as np

SHAPE = (2, 900, 12)


def opened(folder: Path) -> h5py.File:
    return h5py.File(folder / "exams.h5", "w")


def case_external_storage(folder: Path) -> Path:
    with opened(folder) as file:
        file.create_dataset("tracings", SHAPE, "f4", external=[("/etc/passwd", 0, 2 * 900 * 12 * 4)])
    return folder / "exams.h5"


def case_virtual_dataset(folder: Path) -> Path:
    with opened(folder) as file:
        layout = h5py.VirtualLayout(SHAPE, "f4")
        layout[:] = h5py.VirtualSource(folder.parent / "secret.h5", "tracings", SHAPE)
        file.create_virtual_dataset("tracings", layout)
    return folder / "exams.h5"


def case_soft_link(folder: Path) -> Path:
    with opened(folder) as file:
        file["inner"] = np.ones(SHAPE, "f4")
        file["tracings"] = h5py.SoftLink("/inner")
    return folder / "exams.h5"


def case_external_link(folder: Path) -> Path:
    with opened(folder) as file:
        file["tracings"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "tracings")
    return folder / "exams.h5"


def case_ids_behind_an_external_link(folder: Path) -> Path:
    with opened(folder) as file:
        file["tracings"] = np.ones(SHAPE, "f4")
        file["exam_id"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "exam_id")
    return folder / "exams.h5"


def case_sparse_gigabytes(folder: Path) -> Path:
    with opened(folder) as file:
        file.create_dataset("tracings", (20_000, 4096, 12), "f4", chunks=(1, 1, 12))
    return folder / "exams.h5"


def case_one_exam_of_gigabytes(folder: Path) -> Path:
    with opened(folder) as file:
        file.create_dataset("tracings", (1, 80_000_000, 12), "f4", chunks=(1, 1, 12))
    return folder / "exams.h5"


def case_more_ids_than_exams(folder: Path) -> Path:
    with opened(folder) as file:
        file["tracings"] = np.ones(SHAPE, "f4")
        file.create_dataset("exam_id", (1 << 40,), "i8", chunks=(1024,))
    return folder / "exams.h5"


def case_wrong_type(folder: Path) -> Path:
    with opened(folder) as file:
        file["tracings"] = np.ones(SHAPE, "i2")
    return folder / "exams.h5"


def case_texts_as_samples(folder: Path) -> Path:
    with opened(folder) as file:
        file.create_dataset("tracings", SHAPE, h5py.string_dtype())
    return folder / "exams.h5"


def case_chunk_of_gigabytes(folder: Path) -> Path:
    """A chunk of 240 MB that packs to little: unpacked whole for one exam, were it let through."""
    with opened(folder) as file:
        shape = (1 << 12, 1 << 12, 12)
        file.create_dataset("tracings", shape, "f4", chunks=(1 << 8, 1 << 12, 12), compression="gzip")
    return folder / "exams.h5"


def case_filter_that_loads_a_library(folder: Path) -> Path:
    with opened(folder) as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 90, 12))
        properties.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1, 90, 12))
        h5py.h5d.create(file.id, b"tracings", h5py.h5t.IEEE_F32LE, space, properties)
    return folder / "exams.h5"


def case_group_that_contains_itself(folder: Path) -> Path:
    with opened(folder) as file:
        file.create_group("tracings")
        file["tracings/tracings"] = file["tracings"]
    return folder / "exams.h5"


def case_signature_and_nothing(folder: Path) -> Path:
    (folder / "exams.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    return folder / "exams.h5"


def case_super_block_beyond_the_end(folder: Path) -> Path:
    """Version 0, with offsets of eight bytes of ones."""
    head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + b"\x04\0\x10\0" + bytes(4)
    (folder / "exams.h5").write_bytes(head + b"\xff" * 200)
    return folder / "exams.h5"
