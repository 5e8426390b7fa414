"""Opening a store: one snapshot, checked, its index in memory and its signals on demand."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from ecgcohorts.errors import StoreError, is_of_machine, machine_error
from ecgcohorts.index import CohortIndex
from ecgcohorts.recipes import Recipe
from ecgcohorts.store.columns import read_index
from ecgcohorts.store.durable import machine_errors
from ecgcohorts.store.schema import (
    CURRENT,
    MISSING,
    Current,
    FileEntry,
    Manifest,
    Segment,
    manifest_name,
    rejects_name,
)
from ecgcohorts.store.shards import ShardedArray
from ecgcohorts.store.upgrade import upgraded

_MANIFEST_LIMIT = 1 << 30  # bytes; a manifest of 11 M records is about 1 MB
_READ_TRIES = 3  # a writer may replace the snapshot between reading CURRENT and reading the index


class AnyStore(ABC):
    """What reads strips: one store, or several opened as one. Rows are numbered through the whole of it."""

    path: Path  # one folder; for several stores their names, for people to read
    index: CohortIndex
    fingerprint: str

    @property
    @abstractmethod
    def recipe(self) -> Recipe: ...

    @property
    @abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """In the order of their rows."""

    @property
    @abstractmethod
    def _folders(self) -> tuple[Path, ...]:
        """Of each segment's array."""

    @abstractmethod
    def rejects(self) -> pd.DataFrame:
        """What was refused or found twice: cohort, recording_id, stage, reason, error, duplicate_of."""

    @property
    def lsb_uv(self) -> float:
        return self.recipe.lsb_uv

    @property
    def n_rows(self) -> int:
        """Planned rows; `len(store.index)` of them are live."""
        return sum(segment.rows for segment in self.segments)

    @cached_property
    def _arrays(self) -> list[ShardedArray]:
        arrays = [ShardedArray(folder) for folder in self._folders]
        for array, segment in zip(arrays, self.segments, strict=True):
            if len(array) != segment.rows:
                raise StoreError(
                    f"{array.folder}: found {len(array)} rows, expected {segment.rows}. Restore zarr.json."
                )
        return arrays

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        return np.array([segment.first_row for segment in self.segments], np.int64)

    def read(self, rows: ArrayLike) -> NDArray[np.int16]:
        """Strips of some rows: int16 (n, lead, time), one step = lsb_uv, -32768 = no sample there."""
        wanted = np.atleast_1d(np.asarray(rows, np.int64))
        out = np.empty((len(wanted), len(self.recipe.leads), self.recipe.strip_samples), np.int16)
        self.read_into(wanted, out)
        return out

    def read_mv(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Strips of some rows in mV: float32 (n, lead, time), NaN = no sample there."""
        strips = self.read(rows)
        signal_mv = strips * np.float32(self.lsb_uv / 1000)
        signal_mv[strips == MISSING] = np.nan
        return signal_mv

    def read_into(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Fill `out` (n, lead, time) with the strips of `rows`, in any order. Raises StoreError for a row not there."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise StoreError(f"found row {rows.min()} to {rows.max()}, expected 0 to {self.n_rows - 1}.")
        segment_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        present = np.unique(segment_of)
        for segment in present:
            local = rows - self._first_rows[segment]
            if len(present) == 1:
                self._arrays[segment].read_into(local, out)
                return
            places = np.flatnonzero(segment_of == segment)
            part = np.empty((len(places), *out.shape[1:]), np.int16)
            self._arrays[segment].read_into(local[places], part)
            out[places] = part

    def __repr__(self) -> str:
        cohorts = ", ".join(self.index.cohorts)
        counts = f"{len(self.index)} recordings of {self.index.n_patients} patients"
        return f"{type(self).__name__}({str(self.path)!r}: {counts} in {cohorts})"


@dataclass(frozen=True, eq=False, repr=False)
class Store(AnyStore):
    """One snapshot of a store. Opening it reads the index only; `read` reads signals.

    Later writes do not change what this object shows.
    """

    path: Path
    manifest: Manifest
    index: CohortIndex
    fingerprint: str  # SHA-256 of the manifest, which names every byte of the snapshot
    _rejects: pd.DataFrame

    @property
    def recipe(self) -> Recipe:
        return self.manifest.recipe

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.manifest.segments

    @property
    def _folders(self) -> tuple[Path, ...]:
        return tuple(self.path / segment.folder for segment in self.segments)

    def rejects(self) -> pd.DataFrame:
        """What was refused or found twice: cohort, recording_id, stage, reason, error, duplicate_of."""
        return self._rejects.copy()


def open_store(path: str | Path, generation: int | None = None) -> Store:
    """Open one snapshot of a store. Checks that every file of it is there with its size.

    generation: of an earlier snapshot, such as `Manifest.generation` told; None: the one in force. Raises StoreError with
    the remedy if there is no such store or snapshot, or it is damaged or of another version.
    """
    folder = Path(path)
    for _ in range(_READ_TRIES):
        before = _current_bytes(folder)
        try:
            manifest, fingerprint = read_manifest(folder, generation)
            check_files(folder, manifest)
            refused = pd.read_parquet(folder / rejects_name(manifest.generation))
            return Store(folder, manifest, read_index(folder, manifest), fingerprint, refused)
        except (StoreError, OSError, pa.ArrowException) as error:
            if _current_bytes(folder) != before:  # a writer came between: what was read is no longer in force
                continue
            if isinstance(error, StoreError):
                raise
            if isinstance(error, OSError) and is_of_machine(error):
                raise machine_error(str(folder), error) from None
            what = type(error).__name__
            raise StoreError(f"{folder}: cannot be read ({what}). Restore the store from a copy.") from None
    raise StoreError(
        f"{folder}: replaced {_READ_TRIES} times while it was being opened. Try again when the writer is done."
    )


def _current_bytes(folder: Path) -> bytes | None:
    try:
        return (folder / CURRENT).read_bytes()
    except OSError:
        return None


def read_manifest(folder: Path, generation: int | None = None) -> tuple[Manifest, str]:
    """Return a manifest, the one in force if no generation is asked for, and its SHA-256."""
    if not (folder / CURRENT).is_file():
        what = "no such folder" if not folder.exists() else "a folder without a committed store"
        raise StoreError(
            f"{folder}: found {what}, expected a store. Make one: ecgcohorts ingest SRC {folder} --cohort NAME"
        )
    try:
        with machine_errors(folder):
            current = Current.model_validate_json((folder / CURRENT).read_bytes())
    except ValidationError:
        raise StoreError(f"{folder}: CURRENT is damaged. Restore the store from a copy.") from None
    manifest = _read_named(folder, current)
    if generation in (None, manifest.generation):
        return manifest, current.sha256
    there = {one.generation: one for one in manifest.earlier if (folder / one.manifest).exists()}
    if generation not in there:
        known = ", ".join(str(number) for number in (manifest.generation, *there))
        raise StoreError(f"{folder}: found no generation {generation}, expected one of {known}.")
    return _read_named(folder, there[generation]), there[generation].sha256


def earlier_manifests(folder: Path, manifest: Manifest) -> list[Manifest]:
    """Of the snapshots before one that are still there, latest first. Raises StoreError for a damaged one."""
    return [_read_named(folder, one) for one in manifest.earlier if (folder / one.manifest).exists()]


def files_named(folder: Path, manifest: Manifest) -> dict[str, FileEntry | None]:
    """All files of a snapshot and of the earlier ones that are still there, with what must stand in them.

    None for manifests: whoever names one has its SHA-256.
    """
    files: dict[str, FileEntry | None] = {}
    for one in (*reversed(earlier_manifests(folder, manifest)), manifest):
        files |= {manifest_name(one.generation): None, **one.files}
    return files


def _read_named(folder: Path, named: Current) -> Manifest:
    path = folder / named.manifest
    try:
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise StoreError(f"{path}: manifest of {path.stat().st_size} bytes, expected less than {_MANIFEST_LIMIT}.")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != named.sha256:
            raise StoreError(f"{path}: manifest does not match CURRENT. Restore the store from a copy.")
        return Manifest.model_validate_json(upgraded(folder, data))
    except FileNotFoundError:
        raise StoreError(
            f"{folder}: CURRENT names a manifest that is not there. Restore the store from a copy."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"{folder}: manifest is damaged at {place or 'its start'}. Restore the store from a copy."
        ) from None


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise StoreError if a file of the snapshot is missing or has another size: absence must not read as data."""
    for name, entry in manifest.files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry.size:
            found = "no file" if size is None else f"{size} bytes"
            raise StoreError(f"{path}: found {found}, expected {entry.size} bytes. Restore the file, or ingest again.")
