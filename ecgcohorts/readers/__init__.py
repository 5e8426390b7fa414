"""Read ECG files. One raw format is one module or folder here; a file's own bytes say which one reads it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from ecgcohorts import plugins
from ecgcohorts.errors import Reason, SpecError, UnreadableRecording
from ecgcohorts.io.regular import read_head
from ecgcohorts.readers._xml.document import root_name
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from ecgcohorts.readers.arrays.description import ArrayDescription

__all__ = [
    "HEAD_BYTES",
    "KIND",
    "Reader",
    "detect",
    "files_beside",
    "missing_packages",
    "open_reader",
    "read",
    "root_name",
]

KIND = "ecgcohorts.readers"
HEAD_BYTES = 4096  # how much of a file `sniff` is given
_NUMBERS = (".csv", ".tsv", ".txt", ".gz", ".npy", ".npz", ".mat")  # what the reader `arrays` reads, given a manifest


class Reader(Protocol):
    """What ingest asks of a reader. The modules of this package fulfil it; docs/formats.md states the contract."""

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]: ...

    def scan(self, path: Path) -> Iterator[Recording]: ...


def open_reader(name: str, arrays: "ArrayDescription | None" = None) -> Reader:
    """Return a reader by name, ready for any file.

    A reader whose module says `ISOLATED = True` hands the bytes of a file to C libraries. It therefore runs in a
    process of its own with limits on memory and time, and whatever kills that process becomes an UnreadableRecording
    here. Windows has no such limits: the process runs there without them.
    arrays: how to read files that no manifest describes; only for the reader `arrays`. Raises SpecError otherwise.
    """
    module = plugins.load(KIND, name)
    if arrays is not None and not hasattr(module, "described"):
        raise SpecError(f"A description of arrays fits the reader arrays only, not {name}. Remove one of the two.")
    # HDF5 has a steady stream of heap overflows; a crash must cost one file and not the run.
    if getattr(module, "ISOLATED", False):
        from ecgcohorts.readers._isolated.parent import IsolatedReader  # here, because few formats need it

        return IsolatedReader(name, arrays)
    reader: Reader = module if arrays is None else module.described(arrays)
    return reader


def files_beside(
    name: str, arrays: "ArrayDescription | None" = None, samples: bool = True
) -> Callable[[Path, Sequence[str] | None], Iterable[str]]:
    """Return a function that lists the further files a reader opens for one file: (path, entries or None) -> names.

    It gives names or globs, relative to the folder of the file, as far as the files at hand name them. Ask again once
    these are there: a header may name headers. samples: list what `read` opens; otherwise what `scan` opens.
    """
    module = plugins.load(KIND, name)
    if arrays is not None or not hasattr(module, "beside"):
        return lambda path, entries: ()
    return partial(module.beside, samples=samples)


def missing_packages(name: str) -> list[str]:
    """List the packages that a reader imports, for some files or for all (its NEEDS), and that are not installed."""
    return [package for package in getattr(plugins.load(KIND, name), "NEEDS", ()) if find_spec(package) is None]


def read(path: str | Path) -> list[Recording]:
    """Read every recording of an ECG file, whose format is found by content.

    Raises UnreadableRecording if the file is missing, of no known format, or damaged.
    """
    path = Path(path)
    return list(open_reader(detect(path)).read(path))


def detect(path: str | Path) -> str:
    """Name the reader for a file, by its first bytes; by its suffix where the bytes leave it open.

    Raises UnreadableRecording if no reader, or more than one, knows the file.
    """
    path = Path(path)
    head = read_head(path, HEAD_BYTES)
    readers = {name: plugins.load(KIND, name) for name in plugins.names(KIND)}
    fitting = [name for name, reader in readers.items() if reader.sniff(head)]
    # Two readers that know the bytes are as bad as none: trying both until one does not complain would read some files
    # as the wrong format.
    if len(fitting) != 1:
        # Where no reader knows the bytes, the one that owns the suffix says best what is wrong with them.
        fitting = [name for name in fitting or readers if _has_suffix(readers[name], path)]
    if len(fitting) == 1:
        return fitting[0]
    beside = path.with_suffix(".hea")
    remedy = "See `ecgcohorts formats`."
    if path.suffix.casefold() in _NUMBERS:
        remedy = "Numbers without a header need a manifest: see arrays in docs/formats.md."
    if beside != path and beside.is_file():
        remedy = f"Name the header: {beside.name}."
    raise UnreadableRecording(
        Reason.FORMAT,
        f"a file that fits {' and '.join(fitting) or 'no reader'}",
        f"one of {', '.join(readers)}",
        remedy,
        str(path),
    )


def _has_suffix(reader: ModuleType, path: Path) -> bool:
    return path.suffix.casefold() in reader.SUFFIXES
