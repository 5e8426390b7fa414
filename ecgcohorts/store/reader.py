"""Open a store: one snapshot, checked, with its index in memory and its signals on demand."""

import contextlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgcohorts.errors import (
    KeyMismatch,
    SourceError,
    SpecError,
    StoreError,
    is_of_machine,
    machine_error,
    needs_extra,
)
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.io.place import Place, place_at
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.privacy.pseudonyms import PseudonymKey, load_key
from ecgcohorts.recording import MISSING
from ecgcohorts.store.columns import read_index
from ecgcohorts.store.manifests import _current_bytes, _earlier_manifests, _read_manifest, _Watch, manifest_bytes
from ecgcohorts.store.schema import (
    Accounting,
    Manifest,
    Segment,
    rejects_name,
)
from ecgcohorts.store.signals.shards import ShardedArray, Windows

_READ_TRIES = 3  # a writer may replace the snapshot between reading CURRENT and reading the index


@dataclass(frozen=True)
class Member:
    """A store that is read: by itself, or as one of several opened as one."""

    place: Place
    manifest: Manifest
    fingerprint: str  # SHA-256 of the manifest
    first_row: int  # where its rows begin in the numbering of the whole

    @property
    def path(self) -> Path | str:
        return self.place.path

    @property
    def earlier_generations(self) -> list[int]:
        """Numbers of the earlier snapshots that are still there, latest first. Raises StoreError for a damaged one."""
        return [manifest.generation for manifest in _earlier_manifests(self.place, self.manifest)]


class AnyStore(ABC):
    """One store, or several opened as one. Rows are numbered through the whole."""

    index: CohortIndex
    fingerprint: str

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """Folder of one store, or its URL as text; for several stores their names, for people to read."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path, as a title."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe: ...

    @property
    @abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """Segments in the order of their rows."""

    @property
    @abstractmethod
    def _folders(self) -> tuple[str, ...]:
        """The folder of each segment's array, in its own store."""

    @property
    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """The stores that are read, in the order of their rows."""

    @property
    @abstractmethod
    def _left_out(self) -> Mapping[str, int]:
        """By cohort, how many stored recordings the index does not list because an earlier store has them."""

    @abstractmethod
    def rejects(self) -> pd.DataFrame:
        """Return what was refused or found twice: cohort, recording_id, stage, reason, error, duplicate_of."""

    def accounts(self) -> dict[str, Accounting]:
        """Return by cohort, in order of ingest, what became of the inputs of all its runs.

        `stored` is what the index lists: of several stores, copies of what an earlier one has count as duplicates.
        """
        runs: dict[str, list[Accounting]] = {}
        for segment in self.segments:
            runs.setdefault(segment.cohort, []).append(segment.accounting)
        found = {}
        for name, parts in runs.items():
            whole, copies = Accounting.total(parts), self._left_out.get(name, 0)
            moved = {"stored": whole.stored - copies, "duplicates": whole.duplicates + copies}
            found[name] = whole.model_copy(update=moved)
        return found

    @property
    def lsb_uv(self) -> float:
        """One step of the stored integers, in uV. Raises SpecError where the numbers have no unit."""
        self._require_mv()
        return self.recipe.lsb_uv

    def _require_mv(self) -> None:
        if self.recipe.unit != "mV":
            raise SpecError(
                f"{self.path}: found numbers without a unit, expected voltages. Read them as they are: read_values, or "
                "stored integers x recipe.lsb_uv / 1000."
            )

    @property
    def n_rows(self) -> int:
        """Planned rows; `len(store.index)` of them are live."""
        return sum(segment.rows for segment in self.segments)

    @cached_property
    def _arrays(self) -> list[ShardedArray]:
        found = []
        for number, folder in enumerate(self._folders):
            member = self._member_of(number)
            with self._reading(number):
                metadata = member.manifest.read_file(member.place, f"{folder}/zarr.json")
                array = ShardedArray(member.place, folder, metadata)
            if len(array) != self.segments[number].rows:
                raise StoreError(
                    f"{member.path}/{folder}: found {len(array)} rows, expected {self.segments[number].rows}. Restore "
                    "zarr.json."
                )
            found.append(array)
        return found

    @cached_property
    def _watches(self) -> list[_Watch]:
        return [_Watch(member.place, member.manifest, member.fingerprint) for member in self.members]

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        return np.array([segment.first_row for segment in self.segments], np.int64)

    def read(self, rows: ArrayLike) -> NDArray[np.int16]:
        """Return strips of some rows: int16 (n, lead, time), one step = recipe.lsb_uv, -32768 = no sample there."""
        wanted = np.atleast_1d(np.asarray(rows, np.int64))
        out = np.empty((len(wanted), len(self.recipe.leads), self.recipe.strip_samples), np.int16)
        self.read_into(wanted, out)
        return out

    def read_mv(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Return strips of some rows in mV: float32 (n, lead, time), NaN = no sample there.

        Raises SpecError if the store holds numbers without a unit; `read_values` reads these too.
        """
        self._require_mv()
        return self.read_values(rows)

    def read_values(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Return strips of some rows in the store's unit, `recipe.unit`: float32 (n, lead, time), NaN = no sample there."""
        strips = self.read(rows)
        values = strips * np.float32(self.recipe.lsb_uv / 1000)
        values[strips == MISSING] = np.nan
        return values

    def read_into(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Fill `out`, int16 (n, lead, time), with the strips of `rows`, in any order. Raises StoreError for a row not there."""
        self._read_parts(rows, np.arange(len(rows)), out, None, None)

    def read_windows(
        self,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        length: NDArray[np.int64],
        out: NDArray[np.int16],
        targets: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> None:
        """Fill out[targets[i]], or out[i], with length[i] samples of strip rows[i] from first[i] on, then with -32768.

        out: int16 (place, lead, time of a window), C-contiguous. threads: None for as many as suit the place. A row asked
        for twice is decoded once. Raises StoreError for a row not there, ValueError for samples outside a strip.
        """
        places = np.arange(len(rows)) if targets is None else targets
        self._read_parts(rows, places, out, Windows(first, length), threads)

    def _read_parts(
        self,
        rows: NDArray[np.int64],
        targets: NDArray[np.int64],
        out: NDArray[np.int16],
        windows: Windows | None,
        threads: int | None,
    ) -> None:
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise StoreError(f"found row {rows.min()} to {rows.max()}, expected 0 to {self.n_rows - 1}.")
        self.refuse_removed()
        # The last segment that begins at or before a row; empty segments share a first row with the next one.
        segment_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        for segment in np.unique(segment_of):
            here = np.flatnonzero(segment_of == segment)
            local = rows[here] - self._first_rows[segment]
            cut = None if windows is None else Windows(windows.first[here], windows.length[here])
            with self._reading(segment):
                self._arrays[segment].read_into(local, out, targets[here], cut, threads)

    def refuse_removed(self) -> None:
        """Raise StoreError if a patient was removed since the store was opened, or the store is gone.

        Each read asks this first; so should whoever hands out what was read ahead. A folder is asked each time, which takes
        5 us, a bucket at most once a second.
        """
        for watch in self._watches:
            watch.check()

    def refuse_inside(self, out: Path) -> None:
        """Raise SourceError for a file or folder to write that would lie in the store, or take its place."""
        for member in self.members:
            if isinstance(member.path, Path) and member.path.resolve() in (out.resolve(), *out.resolve().parents):
                raise SourceError(f"{out}: lies in the store {member.path}. Name a place beside it.")

    def _member_of(self, segment: int) -> Member:
        """Return the store that holds a segment."""
        return self.members[self._number_of_member(segment)]

    def _number_of_member(self, segment: int) -> int:
        return sum(one.first_row <= self._first_rows[segment] for one in self.members) - 1

    @contextlib.contextmanager
    def _reading(self, segment: int) -> Iterator[None]:
        """Tell damage from deletion, around reading a segment."""
        # A removed patient's shards are written anew and the old ones go at once: a reader who opened the store before
        # must not be told that the disk is bad.
        try:
            yield
        except StoreError:
            number = self._number_of_member(segment)
            self._watches[number].check(at_once=True)
            member = self.members[number]
            now, _ = manifest_bytes(member.place)
            still_there = member.place.sizes([member.manifest.file_name])
            if self._folders[segment] in {one.folder for one in now.segments} or still_there:
                raise
            raise StoreError(
                f"{member.path}: the snapshot you opened has been deleted, because its signals were written anew since. "
                "Open the store again."
            ) from None

    def __repr__(self) -> str:
        cohorts = ", ".join(self.index.cohorts)
        counts = f"{len(self.index)} recordings of {self.index.n_patients} patients"
        return f"{type(self).__name__}({str(self.path)!r}: {counts} in {cohorts})"


@dataclass(frozen=True, eq=False, repr=False)
class Store(AnyStore):
    """One snapshot of a store. Opening it reads the index only; `read` reads signals.

    Later writes do not change what this object shows, except that it shows nothing more after a patient was removed.
    """

    place: Place  # of a bucket, pinned to the objects of this snapshot
    manifest: Manifest
    index: CohortIndex
    fingerprint: str  # SHA-256 of the manifest, which names every byte of the snapshot
    # Parquet, read when it is asked for: samplers and loaders never do, and a base install has no pyarrow.
    _rejects: bytes

    @property
    def path(self) -> Path | str:
        return self.place.path

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def recipe(self) -> Recipe:
        return self.manifest.recipe

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.manifest.segments

    @property
    def members(self) -> tuple[Member, ...]:
        return (Member(self.place, self.manifest, self.fingerprint, first_row=0),)

    @property
    def _left_out(self) -> Mapping[str, int]:
        return {}

    @property
    def _folders(self) -> tuple[str, ...]:
        return tuple(segment.folder for segment in self.segments)

    def rejects(self) -> pd.DataFrame:
        """Return what was refused or found twice: cohort, recording_id, stage, reason, error, duplicate_of.

        Raises MissingExtra without pyarrow (extra `ingest`), StoreError if the table is damaged.
        """
        with needs_extra("ingest"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        try:
            # Without threads: where none can start, pyarrow waits for it for ever.
            table = pq.read_table(io.BytesIO(self._rejects), use_threads=False, pre_buffer=False)
            return table.to_pandas(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _cannot_be_read(self.place, error) from None

    def load_key(self, key_file: Path | None) -> PseudonymKey:
        """Load this store's key from a file or the user's configuration folder. Raises KeyMismatch for another key, or none."""
        # Another key gives other pseudonyms: every search would end in "not found", and a removal would remove nobody.
        key = load_key(key_file, for_new_store=False)
        if key.fingerprint != self.manifest.key_fingerprint:
            raise KeyMismatch(
                f"{self.path}: made with another pseudonym key. Pass the one it was made with: --key FILE."
            )
        return key


def open_store(path: str | Path, generation: int | None = None) -> Store:
    """Open one snapshot of a store, in a folder or below a URL such as "s3://bucket/store.zarr".

    Checks that every file of it is there with its size. generation: of an earlier snapshot, such as
    `Manifest.generation` told; None: the one in force. Raises StoreError with the remedy if there is no such store or
    snapshot, or it is damaged or of another version; ObjectStoreError if the object store does not answer.
    """
    place = place_at(path)
    # No lock is taken to read. If CURRENT is another one afterwards, what looked like damage was a writer at work.
    for _ in range(_READ_TRIES):
        before = _current_bytes(place)
        try:
            manifest, fingerprint = _read_manifest(place, generation)
            manifest.check_files(place)
            refused = manifest.read_file(place, rejects_name(manifest.generation))
            return Store(place, manifest, read_index(place, manifest), fingerprint, refused)
        except (StoreError, OSError) as error:
            if _current_bytes(place) != before:  # a writer came between: what was read is no longer in force
                continue
            if isinstance(error, StoreError):
                raise
            if isinstance(error, OSError) and is_of_machine(error):
                raise machine_error(str(place), error) from None
            raise _cannot_be_read(place, error) from None
    raise StoreError(
        f"{place}: replaced {_READ_TRIES} times while it was being opened. Try again when the writer is done."
    )


def _cannot_be_read(place: Place, error: Exception) -> StoreError:
    return StoreError(f"{place}: cannot be read ({type(error).__name__}). Restore the store from a copy.")
