"""Read one dataset of an HDF5 file as an array. MATLAB 7.3 files are HDF5, with their axes the other way round."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.hdf5 import checked_dataset, open_hdf5, refuse, typed_errors
from ecgcohorts.readers.arrays.description import ArrayDescription

if TYPE_CHECKING:
    import h5py


class Hdf5Array(NamedTuple):
    """One dataset of an HDF5 file."""

    path: Path
    description: ArrayDescription

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the dataset, after comparing it with the size of the file."""
        with self._checked() as dataset:
            shape: tuple[int, ...] = dataset.shape
        return shape

    def load(self) -> NDArray:
        """Return the dataset as stored."""
        with self._checked() as dataset:
            return np.asarray(dataset[()])

    @contextmanager
    def _checked(self) -> Iterator["h5py.Dataset"]:
        assert self.description.name is not None
        with open_hdf5(self.path) as file, typed_errors(self.path):
            dataset = checked_dataset(file, self.description.name, self.path)
            # Complex, text and compound values have no voltage; floats beyond 64 bits differ between machines.
            if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
                refuse(Reason.UNSUPPORTED, f"values of type {dataset.dtype!s:.40}", "integers or floats", self.path)
            self.description.check_shape(dataset.shape, str(self.path))
            yield dataset
