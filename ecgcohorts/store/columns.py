"""The CohortIndex on disk: one plain Zarr v3 array a column, written and read without zarr-python.

Opening a store reads every column; through zarr-python that takes three times as long and half a second of imports.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from ecgcohorts.errors import StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, LABEL, QUALITY, STATISTICS, CohortIndex
from ecgcohorts.io.durable import write_file
from ecgcohorts.io.place import Place
from ecgcohorts.store.schema import Manifest, group_metadata, index_folder
from ecgcohorts.store.signals.chunks import CRC_BYTES, pack

_ID_BYTES = 16  # of a pseudonym
_CHUNK_RECORDS = 1 << 18  # 2 MB of an int64 column
# What is believed of a column's zarr.json: the name goes to numpy, which would also make objects or strings of it.
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64")


def write_index(store: Path, generation: int, index: CohortIndex) -> list[str]:
    """Write every column of an index; return the relative paths written. Attributes of the group explain the codes."""
    folder = store / index_folder(generation)
    names = {"cohorts": list(index.cohorts), "sites": list(index.sites), "devices": list(index.devices)}
    write_file(folder / "zarr.json", group_metadata({**names, "sex": ["male", "female"]}))
    for name, column in sorted(index.columns.items()):
        write_column(folder / name, column)
    return [path.relative_to(store).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def read_index(place: Place, manifest: Manifest) -> CohortIndex:
    """Load the index of a snapshot into memory. Raises StoreError if a column is damaged, missing or unknown."""
    # In threads: checksums and decompression release the interpreter lock, and an object store answers each in 20 ms.
    home = index_folder(manifest.generation)
    folder = f"{place}/{home}"
    read = partial(_read_named, place, manifest, home)
    with ThreadPoolExecutor(place.threads) as pool:
        columns = dict(zip(manifest.index_columns, pool.map(read, manifest.index_columns), strict=True))
    for name, dtype in COLUMNS.items():
        if name not in columns or columns[name].dtype != dtype:
            raise StoreError(f"{folder}: index column {name!r} is missing or not {dtype}. Restore it from a copy.")
    # An unknown column may change what the known ones mean, so it is refused rather than passed over.
    for name in columns:
        if not (name in COLUMNS or name in BYTE_COLUMNS or name.startswith((LABEL, QUALITY, *STATISTICS))):
            raise StoreError(f"{folder}: found index column {name!r}, which this version does not know.")
    wrong = _impossible(columns, manifest)
    if wrong is not None:
        raise StoreError(f"{folder}/{wrong}: found values that no row of the store has. Restore the store from a copy.")
    try:
        return CohortIndex(columns, manifest.cohorts, manifest.sites, manifest.devices)
    except ValueError as error:
        raise StoreError(f"{folder}: the index contradicts itself ({error}). Restore the store from a copy.") from None


def _impossible(columns: dict[str, NDArray], manifest: Manifest) -> str | None:
    """Name a column whose values are not codes, rows or samples of this store; None if there is none."""
    # Sums prove that a file is the manifest's, not that whoever wrote both meant well: these numbers become addresses and
    # sizes of memory.
    for name, column in columns.items():
        if column.shape != (len(columns["row"]), *([_ID_BYTES] if name in BYTE_COLUMNS else [])):
            return name
        if name in BYTE_COLUMNS and column.dtype != np.uint8:
            return name
    lowest = {"row": 0, "cohort": 0, "site": -1, "device": -1, "sex": -1, "valid_start": 0, "valid_stop": 0}
    samples = manifest.recipe.strip_samples
    highest = {
        "row": manifest.n_rows - 1,
        "cohort": len(manifest.cohorts) - 1,
        "site": len(manifest.sites) - 1,
        "device": len(manifest.devices) - 1,
        "sex": 1,
        "valid_start": samples,
        "valid_stop": samples,
    }
    for name, limit in highest.items():
        if len(columns[name]) and not lowest[name] <= columns[name].min() <= columns[name].max() <= limit:
            return name
    patient = columns["patient"]
    steps = np.diff(patient, prepend=-1)
    if len(patient) and (steps[0] != 1 or steps.min() < 0 or steps.max() > 1):
        return "patient"
    return None


def _read_named(place: Place, manifest: Manifest, home: str, name: str) -> NDArray:
    return read_column(place, manifest, f"{home}/{name}")


def write_column(folder: Path, column: NDArray) -> None:
    """Write one column as a Zarr v3 array in a folder of its own. The caller writes the metadata of the group above."""
    chunk_shape = (min(max(len(column), 1), _CHUNK_RECORDS), *column.shape[1:])
    write_file(folder / "zarr.json", (json.dumps(_metadata(column, chunk_shape), indent=1) + "\n").encode())
    for number, first in enumerate(range(0, len(column), chunk_shape[0])):
        chunk = np.zeros(chunk_shape, column.dtype.newbyteorder("<"))  # Zarr chunks have one shape: the last is padded
        part = column[first : first + chunk_shape[0]]
        chunk[: len(part)] = part
        write_file(folder.joinpath("c", str(number), *["0"] * (column.ndim - 1)), pack(chunk, b"zstd"))


def _metadata(column: NDArray, chunk_shape: tuple[int, ...]) -> dict[str, Any]:
    width = column.dtype.itemsize
    packing = {"typesize": width, "cname": "zstd", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(column.shape),
        "data_type": str(column.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if column.dtype == bool else 0,
        # Elements of one byte have no byte order: the specification wants the codec without a configuration then.
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}} if width > 1 else {"name": "bytes"},
            {"name": "blosc", "configuration": packing},
            {"name": "crc32c"},
        ],
        "attributes": {},
        "storage_transformers": [],
    }


def read_column(place: Place, manifest: Manifest, folder: str, most: int | None = None) -> NDArray:
    """Read what `write_column` wrote into a folder of the store. most: rows that it may have.

    Every file's SHA-256 is checked before anything in it is believed. Raises StoreError if one is damaged or missing.
    """
    where = f"{place}/{folder}"
    try:
        metadata = json.loads(manifest.read_file(place, f"{folder}/zarr.json"))
        shape = tuple(int(length) for length in metadata["shape"])
        chunk_shape = tuple(int(length) for length in metadata["chunk_grid"]["configuration"]["chunk_shape"])
        # The file is the manifest's by its SHA-256; this refuses what another version wrote, before it sizes memory.
        if (
            metadata["data_type"] not in _DTYPES
            or chunk_shape[1:] != shape[1:]
            or shape[1:] not in ((), (_ID_BYTES,))
            or shape[0] < 0
            or (most is not None and shape[0] > most)
            or not 0 < chunk_shape[0] <= _CHUNK_RECORDS
        ):
            raise StoreError(f"{where}: the index column has another layout. Use the version that wrote it.")
        dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    except (ValueError, KeyError, TypeError, IndexError):
        raise StoreError(f"{where}: zarr.json is damaged. Restore it from a copy.") from None
    # The shape says how many chunks there are, and the manifest that each is there: an absent one is not a fill value.
    parts = []
    for number in range(-(-shape[0] // chunk_shape[0])):
        name = "/".join([folder, "c", str(number), *["0"] * (len(shape) - 1)])
        parts.append(_unpack(manifest.read_file(place, name), f"{place}/{name}", chunk_shape, dtype))
    # The last chunk is padded; native byte order, because callers index and sort the column.
    column = np.concatenate(parts)[: shape[0]] if parts else np.zeros(shape, dtype)
    return column.astype(dtype.newbyteorder("="), copy=False)


def _unpack(data: bytes, where: str, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    packed, crc = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if int(google_crc32c.value(packed)) != int.from_bytes(crc, "little"):
        raise StoreError(f"{where}: content does not match its checksum. Restore it from a copy.")
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    # Sizes of the content and of the frame, from blosc's header. The C decoder trusts both.
    sizes = int.from_bytes(packed[4:8], "little"), int.from_bytes(packed[12:16], "little")
    if sizes != (n_bytes, len(packed)):
        raise StoreError(f"{where}: found another size than zarr.json says. Restore it from a copy.")
    return np.frombuffer(blosc.decompress(packed), dtype).reshape(shape)
