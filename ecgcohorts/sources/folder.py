"""A folder as a source: its files are where they are, nothing is copied."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ecgcohorts.errors import SourceError
from ecgcohorts.sources.address import uri_of


class Folder:
    """All files below a folder; hidden ones left out, links to folders not followed."""

    only_here = False

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            what = "a file" if path.exists() else "no such folder"
            raise SourceError(f"{path}: found {what}, expected the folder with the recordings. Check the path.")
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __str__(self) -> str:
        return str(self.path)

    @property
    def address(self) -> str:
        return uri_of(self.path)

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """Sorted, without holding more than one folder's at a time: nothing is sorted but what stands in one folder."""
        left = [iter([below])]
        while left:
            name = next(left[-1], None)
            if name is None:
                left.pop()
            elif not name or name.endswith("/"):
                left.append(iter(self._entries(name, wanted)))
            else:
                yield name

    def state(self, name: str, at_hand: Path) -> str:
        status = os.stat(os.path.join(self.path, name))  # pathlib takes ten times as long
        return f"{status.st_size} {status.st_mtime_ns}"

    def _entries(self, below: str, wanted: re.Pattern[str] | None) -> list[str]:
        """Files, and folders with a slash at their end: sorted so, whole paths come out in their order."""
        found = []
        try:
            with os.scandir(os.path.join(self.path, below)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = below + entry.name
                    if not entry.is_dir():
                        if wanted is None or wanted.fullmatch(name):
                            found.append(name)
                    elif not entry.is_symlink():
                        found.append(name + "/")
        except OSError as error:
            raise SourceError(
                f"{self.path}: found a folder in it that cannot be read ({error.strerror}). Give this user access."
            ) from None
        return sorted(found)
