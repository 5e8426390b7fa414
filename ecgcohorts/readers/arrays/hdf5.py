"""Read one dataset of an HDF5 file as an array. MATLAB 7.3 files are HDF5, with their axes the other way round."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.hdf5 import checked_dataset, open_hdf5, refuse, typed_errors
from ecgcohorts.readers.arrays.description import ArrayDescription

if TYPE_CHECKING:
    import h5py


def shape_of(path: Path, description: ArrayDescription) -> tuple[int, ...]:
    """Return the shape of the dataset, after comparing it with the size of the file."""
    with _checked(path, description) as dataset:
        shape: tuple[int, ...] = dataset.shape
    return shape


def load(path: Path, description: ArrayDescription) -> NDArray:
    """Return the dataset as stored."""
    with _checked(path, description) as dataset:
        return np.asarray(dataset[()])


@contextmanager
def _checked(path: Path, description: ArrayDescription) -> Iterator["h5py.Dataset"]:
    assert description.name is not None
    with open_hdf5(path) as file, typed_errors(path):
        dataset = checked_dataset(file, description.name, path)
        # Complex, text and compound values have no voltage; floats beyond 64 bits differ between machines.
        if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
            refuse(Reason.UNSUPPORTED, f"values of type {dataset.dtype!s:.40}", "integers or floats", path)
        description.check_shape(dataset.shape, str(path))
        yield dataset
