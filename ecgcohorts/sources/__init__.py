"""Where raw recordings come from: a folder, a bucket, or a tar or zip. All are read as real files in a folder.

Readers know nothing of this. Files of a folder are read where they are; of the others, the files of a few recordings at a
time are written into a private temporary folder and removed again: `at_hand` and `local` of `sources.windows`.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote

from ecgcohorts.errors import SourceError, UnreadableRecording
from ecgcohorts.io.buckets import Bucket, is_url
from ecgcohorts.io.place import Folder
from ecgcohorts.sources.archive import Archive
from ecgcohorts.sources.loose import LooseFiles
from ecgcohorts.sources.names import FILE, path_of
from ecgcohorts.sources.scratch import Scratch

__all__ = ["Archive", "Source", "is_archive", "open_source"]


class Source(Protocol):
    """A set of files by posix path, opened by `open_source`, closed by `with`. Can be sent to processes of this machine.

    `str` of it is for messages. Hidden files and links to folders have no names.
    """

    @property
    def folder(self) -> Path | None:
        """The folder whose files are read where they are; None if they have to be brought here by `fetch`."""

    @property
    def address(self) -> str:
        """What `open_source` opens it by, anywhere: an absolute file URI, with the folder in an archive behind `#`, or a URL."""

    @property
    def only_here(self) -> bool:
        """Must it be unpacked on each machine that reads it?"""

    @property
    def scratch(self) -> Scratch:
        """Holds what is brought here, until the source is closed."""

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """Yield paths, sorted, of the files that match as a whole. below: only in this folder, given with its slash."""

    def state(self, name: str, at_hand: Path) -> str:
        """Describe a file so that a change shows. at_hand: the file itself, for now. Raises OSError if it is gone."""

    def fetch(self, names: Iterable[str], into: Path) -> dict[str, UnreadableRecording]:
        """Write files below an empty folder, those that are there. Return what is wrong with some of them."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def is_archive(path: Path) -> bool:
    """Say whether a file is an archive that `open_source` opens."""
    with suppress(SourceError):
        return bool(Archive(path))
    return False


def open_source(where: str | Path) -> LooseFiles | Archive:
    """Open a folder, an archive, or the URL of a bucket, by path, URL, or the address of a source.

    Raises SourceError for anything else, SpecError for a URL that cannot be used.
    """
    text = str(where)
    if is_url(text):
        return LooseFiles(Bucket(text))
    uri, _, below = text.partition("#") if text.startswith(FILE) else (text, "", "")
    path = path_of(uri) if text.startswith(FILE) else Path(where)
    if not path.exists():
        raise SourceError(f"{path}: found no such folder or file, expected the recordings. Check the path.")
    return LooseFiles(Folder(path)) if path.is_dir() else Archive(path, unquote(below, errors="surrogateescape"))
