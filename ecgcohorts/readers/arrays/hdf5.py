"""One dataset of an HDF5 file as an array. MATLAB 7.3 files are HDF5 too; their axes are the other way round there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.hdf5 import checked_dataset, open_hdf5, refuse, typed_errors
from ecgcohorts.readers.arrays.manifest import ArrayDescription

if TYPE_CHECKING:
    import h5py


def shape_of(path: Path, description: ArrayDescription) -> tuple[int, ...]:
    """The shape of the dataset, compared with the size of the file."""
    with _checked(path, description) as dataset:
        shape: tuple[int, ...] = dataset.shape
    return shape


def load(path: Path, description: ArrayDescription) -> NDArray:
    """The dataset as stored."""
    with _checked(path, description) as dataset:
        return np.asarray(dataset[()])


@contextmanager
def _checked(path: Path, description: ArrayDescription) -> Iterator["h5py.Dataset"]:
    assert description.name is not None
    with open_hdf5(path) as file, typed_errors(path):
        dataset = checked_dataset(file, description.name, path)
        if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
            refuse(Reason.UNSUPPORTED, f"values of type {dataset.dtype!s:.40}", "integers or floats", path)
        description.check_shape(dataset.shape, str(path))
        yield dataset
