"""Open HDF5 files of strangers: only datasets that lie in the file itself, of sizes that the file can hold.

HDF5 follows links into any other file, reads samples from external files, loads libraries for its filters, and
declares gigabytes in a file of one kilobyte.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ecgcohorts.errors import EcgError, Reason, UnreadableRecording, is_of_machine, needs_extra
from ecgcohorts.io.regular import size_of

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_EXPANSION = 200  # bytes declared per byte of file, as for archives: a sparse file of 1 kB declares gigabytes
MAX_CHUNK_BYTES = 256 << 20  # our default: a chunk is unpacked whole to read one row of it
# HDF5 filters that load no plug-in: deflate, shuffle, fletcher32, lzf (32000 is its registered number).
FILTERS = frozenset({1, 2, 3, 32000})


@contextmanager
def open_hdf5(path: Path) -> Iterator["h5py.File"]:
    """Open an HDF5 file. Raises UnreadableRecording for links, pipes and damaged files."""
    size_of(path)  # HDF5 opens by name and would follow a link: this refuses it
    with needs_extra("ingest"):
        import h5py  # here, because it takes a while
    with typed_errors(path):
        # Read-only media and some network disks refuse locks, and nothing is written here.
        file = h5py.File(path, "r", locking=False)
    with file:
        yield file


def checked_dataset(file: "h5py.File", name: str, path: Path) -> "h5py.Dataset":
    """Return the dataset `name` (`a/b` inside groups) if it lies in this file as a whole and the file can hold it.

    Call it within `typed_errors`. Raises UnreadableRecording.
    """
    import h5py

    place: h5py.Group = file
    # Part by part: a soft or external link may stand at any level, and h5py resolves a whole path without a word.
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or part in ("", ".") or part not in place:
            refuse(Reason.FORMAT, f"no dataset {name[:80]!r}", "a dataset of that name", path)
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            refuse(Reason.PATH, f"a link in place of {name[:80]!r}", "a dataset of this file", path)
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        refuse(Reason.FORMAT, f"a group {name[:80]!r}", "a dataset", path)
    dataset: h5py.Dataset = place
    # External storage reads any local file, without a word.
    if dataset.external is not None or dataset.is_virtual:
        refuse(Reason.PATH, f"{name[:80]!r} stored in other files", "a dataset of this file", path)
    properties = dataset.id.get_create_plist()
    # Any other filter makes HDF5 look for a plug-in library.
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if not filters <= FILTERS:
        refuse(Reason.UNSUPPORTED, f"HDF5 filters {sorted(filters)}", "deflate, lzf or none", path)
    itemsize, file_size = dataset.dtype.itemsize, size_of(path)[0]
    declared = math.prod(dataset.shape) * itemsize
    if declared > MAX_EXPANSION * file_size or math.prod(dataset.chunks or (1,)) * itemsize > MAX_CHUNK_BYTES:
        refuse(Reason.LIMIT, f"{declared} bytes declared in {file_size}", f"at most {MAX_EXPANSION} times", path)
    return dataset


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn whatever HDF5 raises on damaged files (OSError, KeyError, RuntimeError, TypeError ...) into one type."""
    try:
        yield
    except EcgError:
        raise
    except Exception as error:
        if is_of_machine(error):
            raise
        raise UnreadableRecording(
            Reason.HEADER, f"damaged HDF5 ({type(error).__name__})", "a whole file", "Fetch it again.", str(path)
        ) from error


def refuse(reason: Reason, found: str, expected: str, path: Path) -> NoReturn:
    """Raise UnreadableRecording for an HDF5 file that may be another one than was meant."""
    raise UnreadableRecording(reason, found, expected, "Check which file this is.", str(path))
