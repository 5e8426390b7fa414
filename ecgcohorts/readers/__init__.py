"""Reading ECG files: one raw format a module, found by content."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from ecgcohorts import plugins
from ecgcohorts.errors import Reason, SpecError, UnreadableRecording
from ecgcohorts.readers._shared.files import read_head
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from ecgcohorts.readers.arrays.manifest import ArrayDescription

KIND = "ecgcohorts.readers"
HEAD_BYTES = 4096  # what `sniff` of a reader gets to see
NUMBERS = (".csv", ".tsv", ".txt", ".gz", ".npy", ".mat")  # what the reader `arrays` reads by way of a manifest


class Reader(Protocol):
    """What ingest asks of a reader. Modules of this package fulfil it; see docs/formats.md for the contract."""

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]: ...

    def scan(self, path: Path) -> Iterator[Recording]: ...


def open_reader(name: str, arrays: "ArrayDescription | None" = None) -> Reader:
    """A reader by name, ready for any file: the one way to use readers that callers know by name.

    A reader whose module says `ISOLATED = True` calls C libraries on the bytes of the file; it runs in a process of
    its own, with limits on memory and time, and what kills that process is an UnreadableRecording here. Where a system
    has no such limits (Windows), it runs there without them.
    arrays: for the reader `arrays` only, how its files are to be read, where no manifest lies beside them.
    """
    module = plugins.load(KIND, name)
    if arrays is not None and not hasattr(module, "described"):
        raise SpecError(f"found a description of arrays for the reader {name}, expected the reader arrays. Remove one.")
    if getattr(module, "ISOLATED", False):
        from ecgcohorts.readers._isolated.parent import IsolatedReader  # here, because few formats need it

        return IsolatedReader(name, arrays)
    reader: Reader = module if arrays is None else module.described(arrays)
    return reader


def files_beside(
    name: str, arrays: "ArrayDescription | None" = None, samples: bool = True
) -> Callable[[Path, Sequence[str] | None], Iterable[str]]:
    """Which files a reader opens beside the one it is given: called with its path and with entries, None for all.

    They are given by name or glob, from the folder of the file, as far as those that are there tell; asked again when
    these are there, it may tell more. samples: what `read` opens; else what `scan` does.
    """
    module = plugins.load(KIND, name)
    if arrays is not None or not hasattr(module, "beside"):
        return lambda path, entries: ()
    return partial(module.beside, samples=samples)


def read(path: str | Path) -> list[Recording]:
    """Read every recording of an ECG file; the format is found by content.

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
    if len(fitting) != 1:
        # No reader knows the bytes: the one that owns the suffix can say best what is wrong with them.
        fitting = [name for name in fitting or readers if _has_suffix(readers[name], path)]
    if len(fitting) == 1:
        return fitting[0]
    beside = path.with_suffix(".hea")
    remedy = "See `ecgcohorts formats`."
    if path.suffix.casefold() in NUMBERS:
        remedy = "Numbers without a header need a manifest: arrays in docs/formats.md."
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
