"""Read datasets of an HDF5 file as arrays. MATLAB 7.3 files are HDF5, with their axes the other way round."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.hdf5 import checked_dataset, open_hdf5, refuse, typed_errors
from ecgcohorts.readers.arrays.description import MAX_ID, ArrayDescription

if TYPE_CHECKING:
    import h5py

_TEXTS_AT_ONCE = 16  # of variable length: many may point to one long text, and each becomes a copy


class _Hdf5Array(NamedTuple):
    """One dataset of an HDF5 file."""

    path: Path
    description: ArrayDescription
    name: str | None

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the dataset, after comparing it with the size of the file."""
        with open_hdf5(self.path) as file, typed_errors(self.path):
            shape: tuple[int, ...] = self._checked(file).shape
        return shape

    def load(self, record: int | None) -> NDArray:
        """Return the dataset as stored, or one record of it."""
        with open_hdf5(self.path) as file, typed_errors(self.path):
            return np.asarray(self._checked(file)[() if record is None else record])

    def side(self) -> NDArray:
        """Return a dataset of facts about the records: numbers, or texts as str."""
        assert self.name is not None
        with open_hdf5(self.path) as file, typed_errors(self.path):
            # Ids may lie in another file as well as samples may.
            dataset = checked_dataset(file, self.name, self.path)
            ArrayDescription.check_side(dataset.shape, str(self.path))
            if dataset.dtype.kind not in "OS":
                return np.asarray(dataset[()])
            texts = dataset.asstr()
            parts = []
            for start in range(0, len(dataset), _TEXTS_AT_ONCE):
                part = texts[start : start + _TEXTS_AT_ONCE]
                if max(len(text) for text in part.flat) > MAX_ID:
                    refuse(Reason.HEADER, "a long text", f"at most {MAX_ID} characters", self.path)
                parts.append(np.asarray(part, str))
            return np.concatenate(parts)

    def _checked(self, file: "h5py.File") -> "h5py.Dataset":
        assert self.name is not None
        dataset = checked_dataset(file, self.name, self.path)
        # Complex, text and compound values have no voltage; floats beyond 64 bits differ between machines.
        if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
            refuse(Reason.UNSUPPORTED, f"values of type {dataset.dtype!s:.40}", "integers or floats", self.path)
        self.description.check_shape(dataset.shape, str(self.path))
        return dataset
