"""Reading ECG files: one raw format a module, found by content."""

from pathlib import Path
from types import ModuleType

from ecgcohorts import plugins
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._files import read_head
from ecgcohorts.recording import Recording

KIND = "ecgcohorts.readers"
HEAD_BYTES = 4096  # what `sniff` of a reader gets to see


def read(path: str | Path) -> list[Recording]:
    """Read every recording of an ECG file; the format is found by content.

    Raises UnreadableRecording if the file is missing, of no known format, or damaged.
    """
    path = Path(path)
    return list(plugins.load(KIND, detect(path)).read(path))


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
