"""What every source offers, for modules that use one without opening it."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, Self

from ecgcohorts.errors import UnreadableRecording
from ecgcohorts.sources.scratch import Scratch


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

    @property
    def left_out(self) -> dict[str, int]:
        """Count what is no regular file, by kind: of a folder, links to folders met so far; of an archive, all members."""

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """Yield paths, sorted, of the files that match as a whole. below: only in this folder, given with its slash."""

    def state(self, name: str, at_hand: Path) -> str:
        """Describe a file so that a change shows. at_hand: the file itself, for now. Raises OSError if it is gone."""

    def fetch(self, names: Iterable[str], into: Path) -> dict[str, UnreadableRecording]:
        """Write files below an empty folder, those that are there. Return what is wrong with some of them."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
