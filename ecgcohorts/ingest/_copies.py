"""Take signals over from the snapshot before, as they are encoded, with what was measured when they were read."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import StoreError
from ecgcohorts.index.cohort_index import QUALITY, STATISTICS
from ecgcohorts.io.place import Place
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import signals_metadata
from ecgcohorts.store.signals.shards import ShardedArray

_ALWAYS = ("waveform_digest", "valid_start", "valid_stop", "quality")


@dataclass(frozen=True, eq=False)
class _Copies:
    """The rows of a partition whose signals a store has."""

    place: Place
    arrays: tuple[tuple[str, bytes], ...]  # folder and metadata of the arrays they are in
    at: NDArray[np.int64]  # (row, 2): number of an array, or -1 for a row to be read, and a row of it
    columns: dict[str, NDArray]  # of the index, by row; of a row to be read they say nothing

    @classmethod
    def of(cls, store: Store, entries: NDArray[np.int64]) -> Self:
        """Find the signals of entries of the index; -1 stands for a row to be read.

        Raises StoreError if this version encodes signals in another way, so that the bytes are no copies.
        """
        index, recipe = store.index, store.recipe
        rows = index["row"][entries]
        first_rows = np.array([segment.first_row for segment in store.segments])
        number = np.where(entries >= 0, np.searchsorted(first_rows, rows, side="right") - 1, -1)
        used = np.unique(number[number >= 0])
        arrays = []
        for segment in (store.segments[one] for one in used.tolist()):
            metadata = store.manifest.read_file(store.place, f"{segment.folder}/zarr.json")
            if metadata != signals_metadata(segment.rows, segment.shard_records, recipe, store.manifest.codec):
                raise StoreError(f"{store.path}: this version encodes signals differently. Ingest into a new store.")
            arrays.append((segment.folder, metadata))
        at = np.full((len(entries), 2), -1)
        mine = number >= 0
        at[mine] = np.column_stack([np.searchsorted(used, number[mine]), rows[mine] - first_rows[number[mine]]])
        names = [name for name in index.columns if name.startswith((QUALITY, *STATISTICS)) or name in _ALWAYS]
        return cls(store.place, tuple(arrays), at, {name: index[name][entries] for name in names})

    def has(self, row: int) -> bool:
        return bool(self.at[row, 0] >= 0)

    def encoded(self, row: int) -> bytes:
        """Return the signal of a row as its shard holds it, its checksum verified."""
        array, inner = self.at[row].tolist()
        return self._open[array].encoded(inner)

    @cached_property
    def _open(self) -> list[ShardedArray]:
        return [ShardedArray(self.place, folder, metadata) for folder, metadata in self.arrays]
