"""Where raw recordings come from: a folder, a tar or zip, or an object store. All are read as real files in a folder.

Readers know nothing of this. What a folder has is read where it is; of the others, the files of a few recordings at a
time are written into a private temporary folder and removed again: `at_hand` and `local`.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote

from ecgcohorts.errors import SourceError, UnreadableRecording
from ecgcohorts.io.buckets import is_url
from ecgcohorts.sources.address import FILE, path_of
from ecgcohorts.sources.archive import Archive
from ecgcohorts.sources.bucket import Objects
from ecgcohorts.sources.folder import Folder
from ecgcohorts.sources.scratch import Scratch

__all__ = ["Archive", "Fetched", "Folder", "Objects", "Source", "is_archive", "open_source"]


class Source(Protocol):
    """A set of files by posix path, opened by `open_source`, closed by `with`. Can be sent to processes of this machine.

    `str` of it is for messages. Hidden files and links to folders have no names.
    """

    @property
    def address(self) -> str:
        """What `open_source` opens it by, anywhere: an absolute file URI, with the folder in an archive behind `#`, or a URL."""

    @property
    def only_here(self) -> bool:
        """Must it be unpacked on each machine that reads it?"""

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """Paths of all files, sorted, of those that match as a whole; below: only in this folder, given with its slash."""

    def state(self, name: str, at_hand: Path) -> str:
        """What changes whenever the file does. at_hand: the file itself, for now. Raises OSError if it is gone."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Fetched(Source, Protocol):
    """A source whose files have to be brought here."""

    @property
    def scratch(self) -> Scratch: ...

    def fetch(self, names: Iterable[str], into: Path) -> dict[str, UnreadableRecording]:
        """Write files below an empty folder, those that are there. Return what is wrong with some of them."""


def is_archive(path: Path) -> bool:
    """Whether a file is an archive that `open_source` opens."""
    with suppress(SourceError):
        return bool(Archive(path))
    return False


def open_source(place: str | Path) -> Folder | Archive | Objects:
    """A folder, an archive, or the URL of a bucket, by path, URL, or the address of a source.

    Raises SourceError for what is none of these, SpecError for a URL that cannot be used.
    """
    text = str(place)
    if is_url(text):
        return Objects(text)
    uri, _, below = text.partition("#") if text.startswith(FILE) else (text, "", "")
    path = path_of(uri) if text.startswith(FILE) else Path(place)
    if not path.exists():
        raise SourceError(f"{path}: found no such folder or file, expected the recordings. Check the path.")
    return Folder(path) if path.is_dir() else Archive(path, unquote(below, errors="surrogateescape"))
