"""Write bare arrays (text, .npy, .npz, HDF5, MATLAB 4 and 5) and the manifests that describe them, with known samples."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE_HZ = 500.0
CANARIES = ("QZKOWALCZYK-ANNA", "QZ19430611", "QZDrGreenwood", "QZroom 12b left")
_MAT_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
_MAT_CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}


def beats(n_leads: int, n_samples: int, seed: int = 0) -> NDArray[np.int64]:
    """(lead, time) in uV, within 2 mV: one spike a second over a little noise."""
    rng = np.random.default_rng(seed)
    time = (np.arange(n_samples) % RATE_HZ - RATE_HZ / 2) / RATE_HZ
    spikes = rng.uniform(400, 1400, (n_leads, 1)) * np.exp(-((time / 0.02) ** 2))
    return np.rint(spikes + rng.normal(0, 20, spikes.shape)).astype(np.int64)


def manifest(path: Path, *comments: str, files: str = "['*.csv']", **keys: Any) -> Path:
    """A manifest with defaults that fit `beats(2, n).T` as CSV; a key of None is left out."""
    known = {"kind": "csv", "rate_hz": 500, "unit": "uV", "leads": "[I, II]", "axes": "time_lead"}
    lines = ["ecg_arrays: 1", *(f"# {text}" for text in comments)]
    lines += [f"{key}: {value}" for key, value in (known | keys).items() if value is not None]
    path.write_text("\n".join([*lines, f"files: {files}", ""]), "utf-8")
    return path


def text_of(rows: NDArray, separator: str = ",", decimal: str = ".", end: str = "\n", head: str = "") -> bytes:
    """Rows as text; floats with all their digits."""
    cells = [[repr(value).replace(".", decimal) for value in row] for row in rows.tolist()]
    return (head + "".join(separator.join(row) + end for row in cells)).encode()


def npy_of(array: NDArray, version: int = 1, header: str | None = None) -> bytes:
    """An .npy file by its description; `header` in place of the true one."""
    order = "True" if array.flags.f_contiguous and not array.flags.c_contiguous else "False"
    text = header or f"{{'descr': '{array.dtype.str}', 'fortran_order': {order}, 'shape': {array.shape}, }}"
    size, begin = ("<H", 10) if version == 1 else ("<I", 12)
    text += " " * (-(begin + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(size, len(text)) + text.encode() + array.tobytes("A")


def mat4_of(order: str = "<", **variables: NDArray) -> bytes:
    """MATLAB 4: full matrices of the six types it has."""
    out = b""
    for name, array in variables.items():
        number = ("f8", "f4", "i4", "i2", "u2", "u1").index(array.dtype.str[1:])
        mopt = number * 10 + (1000 if order == ">" else 0)
        raw = array.astype(array.dtype.newbyteorder(order)).tobytes("F")
        out += struct.pack(f"{order}5i", mopt, *array.shape, 0, len(name) + 1) + name.encode() + b"\0" + raw
    return out


def mat5_of(order: str = "<", packed: bool = True, stored: str | None = None, **variables: NDArray) -> bytes:
    """MATLAB 5 to 7; `stored`: the type of the bytes, where it is smaller than that of the variable."""
    endian = b"IM" if order == "<" else b"MI"
    out = b"MATLAB 5.0 MAT-file, written by a test".ljust(124) + struct.pack(f"{order}H", 0x0100) + endian
    for name, array in variables.items():
        out += _mat5_element(order, packed, stored or array.dtype.str[1:], name, array)
    return out


def _mat5_element(order: str, packed: bool, stored: str, name: str, array: NDArray, flags: int = 0) -> bytes:
    raw = array.astype(np.dtype(order + stored)).tobytes("F")
    inner = struct.pack(f"{order}4I", 6, 8, flags | _MAT_CLASSES[array.dtype.str[1:]], 0)
    inner += element(order, 5, struct.pack(f"{order}{array.ndim}i", *array.shape)) + element(order, 1, name.encode())
    inner += element(order, _MAT_TYPES[stored], raw)
    whole = struct.pack(f"{order}2I", 14, len(inner)) + inner
    if not packed:
        return whole
    data = zlib.compress(whole)
    return struct.pack(f"{order}2I", 15, len(data)) + data


def mat5_structure_of(order: str = "<", packed: bool = True, name: str = "ECG", **fields: NDArray | dict) -> bytes:
    """MATLAB 5 to 7: one structure of 1 x 1; a dict is a structure in it."""
    endian = b"IM" if order == "<" else b"MI"
    head = b"MATLAB 5.0 MAT-file, written by a test".ljust(124) + struct.pack(f"{order}H", 0x0100) + endian
    whole = _structure(order, name, fields)
    if not packed:
        return head + whole
    data = zlib.compress(whole)
    return head + struct.pack(f"{order}2I", 15, len(data)) + data


def _structure(order: str, name: str, fields: dict) -> bytes:
    inner = struct.pack(f"{order}4I", 6, 8, 2, 0) + element(order, 5, struct.pack(f"{order}2i", 1, 1))
    inner += element(order, 1, name.encode()) + element(order, 5, struct.pack(f"{order}i", 32))
    inner += element(order, 1, b"".join(field.encode().ljust(32, b"\0") for field in fields))
    for value in fields.values():
        if isinstance(value, dict):
            inner += _structure(order, "", value)
        else:
            inner += _mat5_element(order, False, value.dtype.str[1:], "", value)
    return struct.pack(f"{order}2I", 14, len(inner)) + inner


def element(order: str, kind: int, data: bytes) -> bytes:
    """One sub-element; up to four bytes stand in the tag."""
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}2I", kind, len(data)) + data + bytes(-len(data) % 8)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: a manifest and two CSV files, one in a folder of its own."""
    leads, n_samples = (LEADS[:3], 12) if seconds is None else (LEADS, round(seconds * RATE_HZ))
    place = folder / "traces" / "ward"
    place.mkdir(parents=True)
    made = []
    for seed, file in enumerate((f"traces/{CANARIES[0]}.csv", "traces/ward/2.csv")):
        uv = beats(len(leads), n_samples, seed)
        head = f"{CANARIES[0]};{CANARIES[1]};{CANARIES[2]}\n{','.join(leads)}\n"
        (folder / file).write_bytes(text_of(uv.T, head=head))
        made.append({"entry": file, "leads": leads, "rate_hz": RATE_HZ, "signal_mv": uv / 1000})
    path = manifest(
        folder / "arrays.yaml",
        CANARIES[3],
        files="['traces/*.csv', 'traces/ward/*.csv']",
        leads=f"[{', '.join(leads)}]",
        samples=n_samples,
        skip_lines=2,
    )
    return path, made


def _npy(folder: Path) -> Path:
    (folder / "1.npy").write_bytes(npy_of(beats(2, 20).astype("<i2")))
    return manifest(folder / "arrays.yaml", kind="npy", axes="lead_time", files="['*.npy']")


def _gzipped(folder: Path) -> Path:
    (folder / "1.txt.gz").write_bytes(gzip.compress(text_of(beats(2, 20).T / 1000, "\t"), mtime=0))
    return manifest(folder / "arrays.yaml", unit="mV", separator="tab", files="['*.gz']")


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "1.h5", "w") as file:
        file.create_group("ecg")["rhythm"] = beats(2, 20).T.astype("f4")
    return manifest(folder / "arrays.yaml", kind="hdf5", name="ecg/rhythm", files="['*.h5']")


def _matlab4(folder: Path) -> Path:
    (folder / "1.mat").write_bytes(mat4_of(before=np.ones((1, 2)), val=beats(2, 20).astype("i2")))
    return manifest(folder / "arrays.yaml", kind="matlab", name="val", axes="lead_time", files="['*.mat']")


def _matlab5(folder: Path) -> Path:
    (folder / "1.mat").write_bytes(mat5_of(before=np.ones((1, 2)), val=beats(2, 20).astype("f8"), stored="f8"))
    return manifest(folder / "arrays.yaml", kind="matlab", name="val", axes="lead_time", files="['*.mat']")


def _structured(folder: Path) -> Path:
    content = mat5_structure_of(age=np.array([[52]], "u1"), data=beats(2, 20).astype("f4"))
    (folder / "1.mat").write_bytes(content)
    return manifest(folder / "arrays.yaml", kind="matlab", name="ECG.data", axes="lead_time", files="['*.mat']")


def _npy_records(folder: Path) -> Path:
    uv = np.stack([beats(2, 20, seed) for seed in range(3)])
    (folder / "1.npy").write_bytes(npy_of(uv.transpose(0, 2, 1)[:, None].astype("<i2").copy()))
    return manifest(folder / "arrays.yaml", kind="npy", axes="record_one_time_lead", files="['*.npy']")


def npz_of(packed: bool = True, **arrays: NDArray) -> bytes:
    """A zip of .npy files, as numpy.savez writes it, by the standard library."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_of(np.ascontiguousarray(array)), file.compression)
    return buffer.getvalue()


def _npz_records(folder: Path) -> Path:
    uv = np.stack([beats(2, 20, seed) for seed in range(3)])
    side = {"exam": np.array([7, 8, 9], "<i4"), "step": np.array([1.0, 2, 5]), "n": np.array([20, 18, 20], "<i2")}
    (folder / "1.npz").write_bytes(npz_of(x=uv.astype("<i2"), **side))
    keys = {"name": "x", "ids": "exam", "scale": "step", "lengths": "n", "files": "['*.npz']"}
    return manifest(folder / "arrays.yaml", kind="npz", axes="record_lead_time", **keys)


def _hdf5_records(folder: Path) -> Path:
    """One dataset a lead, ids as texts."""
    with h5py.File(folder / "1.h5", "w") as file:
        for number, lead in enumerate(("I", "II")):
            file[f"ecg/{lead}"] = np.stack([beats(2, 20, seed)[number] for seed in range(3)]).astype("f4")
        file["ids"] = np.array([b"a1", b"a2", b"b1"])
    keys = {"name": "[ecg/I, ecg/II]", "ids": "ids", "axes": "record_time", "files": "['*.h5']"}
    return manifest(folder / "arrays.yaml", kind="hdf5", **keys)


VARIANT_FIXTURES: dict[str, Callable[[Path], Path]] = {
    "npy": _npy,
    "gzipped": _gzipped,
    "hdf5": _hdf5,
    "matlab4": _matlab4,
    "matlab5": _matlab5,
    "structure": _structured,
    "npy of records": _npy_records,
    "npz of records": _npz_records,
    "hdf5 of records": _hdf5_records,
}


def _checked_gzip(folder: Path) -> tuple[Path, Path, range]:
    """The compressed bytes after the header, but for the last, which is filled up with bits that mean nothing."""
    path = _gzipped(folder)
    packed = path.with_name("1.txt.gz")
    return path, packed, range(8 * 10, 8 * (packed.stat().st_size - 9))


CHECKED = {"gzip": _checked_gzip}
