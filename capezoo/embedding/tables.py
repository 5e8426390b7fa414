"""Features as one table, with what is known of each recording beside them: Parquet, CSV, NumPy or Zarr, by suffix."""

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.io.durable import make_folder, name_aside, sync_folder

if TYPE_CHECKING:
    import pandas as pd

    Piece = tuple[pd.DataFrame, NDArray[np.float32]]

# Not a sign before a digit: -5 is a number. What spreadsheets run: OWASP, "CSV Injection".
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.]+$)")
# Of a chunk of a Zarr array; 4 MB at 256 features; our default.
ROWS = 4096


def require_table(target: Path) -> None:
    """Raise SpecError for a suffix of no table, and where something is already."""
    if target.suffix not in _WRITERS:
        raise SpecError(f"{target}: found suffix {target.suffix!r}, expected one of {', '.join(_WRITERS)}.")
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new file. Name another, or remove it.")


def write_table(target: Path, pieces: Iterable["Piece"], records: int) -> None:
    """Write a table, whole or not at all. pieces: columns, and features (record, unit), some records at a time.

    Columns are text or numbers, of the same types in every piece. Parquet and CSV have a column for each feature,
    feature_0 and so on; NumPy and Zarr one array `features`.
    """
    require_table(target)
    make_folder(target.parent)
    aside = name_aside(target)
    try:
        _WRITERS[target.suffix](aside, _regrouped(pieces), records)
        for path in [aside, *aside.rglob("*")]:
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        require_table(target)
        aside.rename(target)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        aside.unlink(missing_ok=True)
    sync_folder(target.parent)


def _regrouped(pieces: Iterable["Piece"]) -> Iterator["Piece"]:
    """Yield the same rows, ROWS at a time: row groups and chunks of a few rows make files large and slow to read."""
    import pandas as pd

    held: list[Piece] = []
    is_empty = True
    for piece in pieces:
        held.append(piece)
        while sum(len(features) for _, features in held) >= ROWS:
            columns, features = pd.concat([one for one, _ in held]), np.concatenate([one for _, one in held])
            yield columns[:ROWS], features[:ROWS]
            is_empty = False
            held = [(columns[ROWS:], features[ROWS:])]
    # A table without rows has columns all the same: whoever reads it next need not know.
    if held and (is_empty or sum(len(features) for _, features in held)):
        yield pd.concat([one for one, _ in held]), np.concatenate([one for _, one in held])


def _with_features(piece: "Piece") -> "pd.DataFrame":
    import pandas as pd

    columns, features = piece
    names = [f"feature_{number}" for number in range(features.shape[1])]
    return pd.concat([columns.reset_index(drop=True), pd.DataFrame(features, columns=names)], axis=1)


def harmless(columns: "pd.DataFrame") -> "pd.DataFrame":
    """Return columns for CSV in which no text is a formula to a spreadsheet: `=x` becomes `'=x`. See `as_given`.

    Names of files, and what headers say, come from elsewhere.
    """
    texts = [name for name in columns if columns[name].dtype.kind in "OUT"]
    return columns.assign(**{str(name): columns[name].map(_harmless, na_action="ignore") for name in texts})


def _harmless(text: Any) -> Any:
    return f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text


def as_given(texts: "pd.Series[Any]") -> "pd.Series[Any]":
    """Undo `harmless`."""
    return texts.map(lambda text: text[1:] if text[:1] == "'" and _FORMULA.match(text[1:]) else text)


def _write_parquet(path: Path, pieces: Iterator["Piece"], records: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    try:
        for piece in pieces:
            table = pa.Table.from_pandas(_with_features(piece), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_csv(path: Path, pieces: Iterator["Piece"], records: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        for number, piece in enumerate(pieces):
            columns, features = piece
            _with_features((harmless(columns), features)).to_csv(file, index=False, header=number == 0)


def _write_npz(path: Path, pieces: Iterator["Piece"], records: int) -> None:
    import pandas as pd

    columns, features = zip(*pieces, strict=True)
    whole = pd.concat(columns, ignore_index=True)
    arrays = {str(name): _plain(whole[name]) for name in whole} | {"features": np.concatenate(features)}
    # Not `savez`, whose own argument is called `file`, as one of our columns is.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_zarr(path: Path, pieces: Iterator["Piece"], records: int) -> None:
    import zarr

    group, done = zarr.create_group(path, zarr_format=3), 0
    for columns, features in pieces:
        arrays: dict[str, Any] = {str(name): _plain(columns[name]) for name in columns}
        arrays["features"] = features
        for name, array in arrays.items():
            if not done:
                dtype = "string" if array.dtype.kind == "U" else array.dtype
                chunks = (max(1, min(records, ROWS)), *array.shape[1:])
                group.create_array(name, shape=(records, *array.shape[1:]), dtype=dtype, chunks=chunks)
            to_write = array.astype(object) if array.dtype.kind == "U" else array
            group[name][done : done + len(array)] = to_write  # type: ignore[index]
        done += len(features)


def _plain(column: "pd.Series[Any]") -> NDArray[Any]:
    """Return a column as an array that needs no pickle: text stays text, with nothing for what is missing."""
    if column.dtype.kind in "OUT" or str(column.dtype) in ("string", "str", "category"):
        return column.astype(object).where(column.notna(), "").to_numpy().astype(str)
    return column.to_numpy()


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".npz": _write_npz, ".zarr": _write_zarr}
