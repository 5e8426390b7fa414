"""Manifests and the data files they name, written by an adversary: each must be refused at once and cheaply."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np

LEADS = "[I, II]"


def manifest(folder: Path, file: str, **keys: object) -> Path:
    known = {"rate_hz": 500, "unit": "uV", "leads": LEADS, "axes": "time_lead"}
    path = folder / "arrays.yaml"
    lines = ["ecg_arrays: 1", *(f"{key}: {value}" for key, value in (known | keys).items()), f"files: ['{file}']", ""]
    path.write_text("\n".join(lines))
    return path


def raw_manifest(folder: Path, text: str, end: str = "files: ['*.csv']\n") -> Path:
    (folder / "1.csv").write_text("1,2\n")
    path = folder / "arrays.yaml"
    path.write_text(f"ecg_arrays: 1\n{text}\n{end}")
    return path


GOOD = "kind: csv\nrate_hz: 500\nunit: uV\nleads: [I, II]\naxes: time_lead"


def npy(folder: Path, descr: str, order: str, shape: str, size: int) -> Path:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    with (folder / "1.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.truncate(10 + len(header) + size)
    return manifest(folder, "1.npy", kind="npy")


def text(folder: Path, data: bytes, size: int = 0, name: str = "1.csv", **keys: object) -> Path:
    with (folder / name).open("wb") as file:
        file.write(data)
        if size:
            file.truncate(size)
    return manifest(folder, name, kind="csv", **keys)


def mat5(folder: Path, *elements: bytes, name: str = "val") -> Path:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (folder / "1.mat").write_bytes(head + b"".join(elements))
    return manifest(folder, "1.mat", kind="matlab", name=name)


def matrix(rows: int, columns: int, n_bytes: int, payload: bytes = b"") -> bytes:
    inner = struct.pack("<4I", 6, 8, 6, 0) + struct.pack("<4I", 5, 8, rows, columns)
    inner += struct.pack("<2H", 1, 3) + b"val\0" + struct.pack("<2I", 9, n_bytes)
    return struct.pack("<2I", 14, len(inner) + n_bytes) + inner + payload


def compressed(plain: bytes, zeros: int = 0) -> bytes:
    packer = zlib.compressobj(9)
    data = packer.compress(plain)
    for _ in range(zeros >> 20):
        data += packer.compress(bytes(1 << 20))
    data += packer.flush()
    return struct.pack("<2I", 15, len(data)) + data


def hdf5(folder: Path) -> tuple[h5py.File, Path]:
    return h5py.File(folder / "1.h5", "w"), manifest(folder, "1.h5", kind="hdf5", name="ecg")


def case_manifest_of_multiplying_aliases(folder: Path) -> Path:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))
    return raw_manifest(folder, f"l0: &l0 [I, II]\n{levels}\n{GOOD}")


def case_manifest_of_nested_lists(folder: Path) -> Path:
    return raw_manifest(folder, f"x: {'[' * 30_000}")


def case_manifest_that_makes_an_object(folder: Path) -> Path:
    return raw_manifest(folder, f'{GOOD}\nname: !!python/object/apply:os.system ["true"]')


def case_manifest_of_a_megabyte(folder: Path) -> Path:
    return raw_manifest(folder, f"{GOOD}\n{'# x' * 350_000}")


def case_manifest_of_a_terabyte(folder: Path) -> Path:
    path = raw_manifest(folder, GOOD)
    os.truncate(path, 1 << 40)
    return path


def case_manifest_of_endless_digits(folder: Path) -> Path:
    return raw_manifest(folder, GOOD.replace("500", "9" * 20_000))


def case_manifest_of_a_sexagesimal_number(folder: Path) -> Path:
    return raw_manifest(folder, GOOD.replace("500", "1:" * 9000 + "1"))


def case_manifest_with_a_key_twice(folder: Path) -> Path:
    return raw_manifest(folder, f"{GOOD}\nunit: mV")


def case_manifest_of_infinite_rate(folder: Path) -> Path:
    return raw_manifest(folder, GOOD.replace("500", ".inf"))


def case_manifest_naming_files_above(folder: Path) -> Path:
    (folder.parent / "secret.csv").write_text("1,2\n")
    return raw_manifest(folder, GOOD, "files: ['../*.csv']\n")


def case_manifest_naming_an_absolute_path(folder: Path) -> Path:
    return raw_manifest(folder, GOOD, "files: ['/etc/*']\n")


def case_manifest_of_a_glob_that_takes_for_ever(folder: Path) -> Path:
    (folder / ("a" * 250)).write_text("1,2\n")
    return raw_manifest(folder, GOOD, f"files: ['{'*a' * 100}*b']\n")


def case_data_file_that_is_a_link(folder: Path) -> Path:
    (folder.parent / "outside.csv").write_text("1,2\n")
    (folder / "1.csv").symlink_to(folder.parent / "outside.csv")
    return manifest(folder, "*.csv", kind="csv")


def case_data_below_a_linked_folder(folder: Path) -> Path:
    (folder / "data").symlink_to("/etc")
    return manifest(folder, "data/host*", kind="csv")


def case_data_file_that_is_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "1.csv")
    return manifest(folder, "*.csv", kind="csv")


def case_npy_of_terabytes(folder: Path) -> Path:
    return npy(folder, "'<f8'", "False", "(250000000000, 2)", 0)


def case_npy_of_objects(folder: Path) -> Path:
    return npy(folder, "'|O'", "False", "(10, 2)", 160)


def case_npy_of_structures(folder: Path) -> Path:
    return npy(folder, "[('a', '<f8')]", "False", "(10, 2)", 160)


def case_npy_in_fortran_order_of_another_size(folder: Path) -> Path:
    return npy(folder, "'<f8'", "True", "(10, 2)", 161)


def case_npy_whose_size_overflows(folder: Path) -> Path:
    return npy(folder, "'<f8'", "False", "(9223372036854775808, 2)", 0)


def case_npy_whose_header_is_an_expression(folder: Path) -> Path:
    return npy(folder, "'<f8'", "False", "(10 ** 9, 2)", 160)


def case_npy_of_a_long_header(folder: Path) -> Path:
    (folder / "1.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{" * 1000)
    return manifest(folder, "1.npy", kind="npy")


def case_csv_of_a_million_columns(folder: Path) -> Path:
    return text(folder, b"1," * 999_999 + b"1\n")


def case_csv_of_one_endless_line(folder: Path) -> Path:
    return text(folder, b"1," * 30_000_000)


def case_csv_of_one_endless_number(folder: Path) -> Path:
    return text(folder, b"1" * 30_000_000 + b"\n")


def case_csv_of_a_sparse_terabyte(folder: Path) -> Path:
    return text(folder, b"1,2\n", 1 << 40)


def case_csv_of_empty_lines(folder: Path) -> Path:
    return text(folder, b"1,2\n" + b"\n" * 50_000_000 + b"1,2\n")


def case_csv_of_lead_rows_without_end(folder: Path) -> Path:
    return text(folder, b"1," * 40_000_000, axes="lead_time")


def case_csv_of_too_many_rows(folder: Path) -> Path:
    return text(folder, b"1,2\n" * 8_000_000, rate_hz=1)


def case_csv_with_a_name_in_a_cell(folder: Path) -> Path:
    return text(folder, b"1,2\n3,=cmd|'/C calc'!A0\n")


def case_csv_of_numbers_beyond_floats(folder: Path) -> Path:
    return text(folder, b"1.0,2.0\n1e999,2.0\n")


def case_csv_of_integers_beyond_64_bits(folder: Path) -> Path:
    return text(folder, b"1,99999999999999999999\n")


def case_gzip_bomb(folder: Path) -> Path:
    (folder / "1.csv.gz").write_bytes(gzip.compress(b"0,0\n" * 5_000_000, 9))
    return manifest(folder, "1.csv.gz", kind="csv")


def case_gzip_of_members_without_end(folder: Path) -> Path:
    (folder / "1.csv.gz").write_bytes(gzip.compress(b"", 9) * 500_000)
    return manifest(folder, "1.csv.gz", kind="csv")


def case_matlab_bomb(folder: Path) -> Path:
    size = 32 << 20
    return mat5(folder, compressed(matrix(size // 16, 2, size), size))


def case_matlab_that_declares_gigabytes(folder: Path) -> Path:
    return mat5(folder, matrix(1 << 24, 2, 1 << 28))


def case_matlab_compressed_claim(folder: Path) -> Path:
    return mat5(folder, compressed(matrix(5000, 2, 80_000, bytes(160))))


def case_matlab_of_negative_sizes(folder: Path) -> Path:
    (folder / "1.mat").write_bytes(struct.pack("<5i", 0, -2, -5000, 0, 4) + b"val\0" + bytes(80_000))
    return manifest(folder, "1.mat", kind="matlab", name="val")


def case_matlab_of_many_empty_variables(folder: Path) -> Path:
    (folder / "1.mat").write_bytes((struct.pack("<5i", 0, 0, 0, 0, 2) + b"x\0") * 1_000_000)
    return manifest(folder, "1.mat", kind="matlab", name="val")


def case_matlab_of_text_in_place_of_numbers(folder: Path) -> Path:
    (folder / "1.mat").write_bytes(struct.pack("<5i", 1, 2, 10, 0, 4) + b"val\0" + bytes(160))
    return manifest(folder, "1.mat", kind="matlab", name="val")


def case_hdf5_external_storage(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        file.create_dataset("ecg", (10, 2), "i1", external=[("/etc/passwd", 0, 20)])
    return path


def case_hdf5_virtual_dataset(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        layout = h5py.VirtualLayout((10, 2), "f4")
        layout[:] = h5py.VirtualSource(folder.parent / "secret.h5", "ecg", (10, 2))
        file.create_virtual_dataset("ecg", layout)
    return path


def case_hdf5_external_link(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        file["ecg"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "ecg")
    return path


def case_hdf5_soft_link(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        file["other"] = np.ones((10, 2))
        file["ecg"] = h5py.SoftLink("/other")
    return path


def case_hdf5_that_declares_gigabytes(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        file.create_dataset("ecg", (7_000_000, 2), "f8", chunks=(1, 2))
    return path


def case_hdf5_of_references(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        file.create_dataset("ecg", (10, 2), h5py.ref_dtype)
    return path


def case_hdf5_of_texts(folder: Path) -> Path:
    file, path = hdf5(folder)
    with file:
        file.create_dataset("ecg", (10, 2), h5py.string_dtype())
    return path


def case_matlab_structure_of_many_fields(folder: Path) -> Path:
    inner = struct.pack("<4I", 6, 8, 2, 0) + struct.pack("<4I", 5, 8, 1, 1) + struct.pack("<2H", 1, 3) + b"val\0"
    inner += struct.pack("<2HI", 5, 4, 1) + struct.pack("<2I", 1, 8_000_000) + b"x" * 8_000_000
    return mat5(folder, struct.pack("<2I", 14, len(inner)) + inner, name="val.x")


def case_matlab_structure_bomb(folder: Path) -> Path:
    size = 32 << 20
    inner = struct.pack("<4I", 6, 8, 2, 0) + struct.pack("<4I", 5, 8, 1, 1) + struct.pack("<2H", 1, 3) + b"val\0"
    return mat5(folder, compressed(struct.pack("<2I", 14, size) + inner, size), name="val.x")


def npz(folder: Path, members: dict[str, bytes], **keys: object) -> Path:
    with zipfile.ZipFile(folder / "1.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return manifest(folder, "1.npz", kind="npz", **({"name": "ecg", "axes": "record_time_lead"} | keys))


def npy_bytes(descr: str, shape: str, data: bytes) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


ECG = npy_bytes("<i2", "(3, 40, 2)", bytes(480))


def case_npz_bomb(folder: Path) -> Path:
    return npz(folder, {"ecg.npy": npy_bytes("<i2", f"({1 << 20}, 40, 2)", bytes(160 << 20))})


def case_npz_of_a_member_beyond_its_directory(folder: Path) -> Path:
    path = npz(folder, {"ecg.npy": ECG})
    data = bytearray((folder / "1.npz").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 400 << 20)
    (folder / "1.npz").write_bytes(data)
    return path


def case_npz_of_many_members(folder: Path) -> Path:
    return npz(folder, {f"{number}.npy": b"" for number in range(20_000)})


def case_npz_of_one_name_twice(folder: Path) -> Path:
    path = npz(folder, {"ecg.npy": ECG, "ecb.npy": ECG})
    (folder / "1.npz").write_bytes((folder / "1.npz").read_bytes().replace(b"ecb", b"ecg"))
    return path


def case_npz_of_pickled_ids(folder: Path) -> Path:
    stream = io.BytesIO()
    np.save(stream, np.array([print, 1, 2], dtype=object), allow_pickle=True)
    return npz(folder, {"ecg.npy": ECG, "ids.npy": stream.getvalue()}, ids="ids")


def case_npz_of_ids_for_terabytes(folder: Path) -> Path:
    return npz(folder, {"ecg.npy": ECG, "ids.npy": npy_bytes("<U999", "(1000000000,)", b"")}, ids="ids")


def case_npz_of_negative_lengths(folder: Path) -> Path:
    lengths = npy_bytes("<i8", "(3,)", struct.pack("<3q", -1, -40, -(1 << 62)))
    return npz(folder, {"ecg.npy": ECG, "n.npy": lengths}, lengths="n")


def case_npz_of_an_infinite_scale(folder: Path) -> Path:
    scale = npy_bytes("<f8", "(3,)", struct.pack("<3d", 1.0, float("inf"), float("nan")))
    return npz(folder, {"ecg.npy": ECG, "s.npy": scale}, scale="s")


def case_npy_of_too_many_records(folder: Path) -> Path:
    path = npy(folder, "'<i1'", "False", "(5000000, 40, 2)", 400_000_000)
    return manifest(folder, path.with_name("1.npy").name, kind="npy", axes="record_time_lead")


def case_hdf5_of_ids_that_are_one_long_text(folder: Path) -> Path:
    file, _ = hdf5(folder)
    with file:
        file["ecg"] = np.ones((40, 40, 2), "i2")
        file.create_dataset("ids", data=["x" * 1_000_000] * 40, dtype=h5py.string_dtype())
    return manifest(folder, "1.h5", kind="hdf5", name="ecg", axes="record_time_lead", ids="ids")


def case_hdf5_of_ids_in_another_file(folder: Path) -> Path:
    file, _ = hdf5(folder)
    with file:
        file["ecg"] = np.ones((3, 40, 2), "i2")
        file["ids"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "ids")
    return manifest(folder, "1.h5", kind="hdf5", name="ecg", axes="record_time_lead", ids="ids")
