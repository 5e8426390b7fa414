"""Read the files of a folder or a bucket as a source, one by one as they stand."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Self

from ecgcohorts.errors import ObjectStoreError, SourceError, UnreadableRecording
from ecgcohorts.io.place import Folder, Place
from ecgcohorts.sources.members import MAX_FILE_BYTES
from ecgcohorts.sources.names import fault_of, uri_of
from ecgcohorts.sources.scratch import Scratch, no_room

_STAMPS = 10_000  # our default; objects at hand at a time are those of two windows


class LooseFiles:
    """All files of a place that are not hidden. Those of a folder stay where they are; objects are fetched when asked for."""

    only_here = False

    def __init__(self, place: Place, scratch: Scratch | None = None, stamps: Mapping[str, str] | None = None) -> None:
        self._place = place
        self.folder = place.path if isinstance(place, Folder) else None
        self.scratch = Scratch() if scratch is None else scratch
        self._stamps: dict[str, str] = dict(stamps or {})  # of objects met last: listed or fetched
        self._stamping = Lock()
        if self.folder is not None and not self.folder.is_dir():
            what = "a file" if self.folder.exists() else "no such folder"
            raise SourceError(f"{place}: found {what}, expected the folder with the recordings. Check the path.")

    def __reduce__(self) -> tuple[type["LooseFiles"], tuple[Place, Scratch | None, dict[str, str]]]:
        # A Scratch that is sent makes its folder first; files that stay in theirs need none. With what was listed, so that
        # another process need not ask for objects that it does not fetch.
        with self._stamping:
            return LooseFiles, (self._place, self.scratch if self.folder is None else None, dict(self._stamps))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.scratch.remove()

    def __str__(self) -> str:
        return str(self._place)

    @property
    def address(self) -> str:
        return str(self._place) if self.folder is None else uri_of(self.folder)

    @property
    def left_out(self) -> dict[str, int]:
        linked = len(self._place.linked)
        return {"link to a folder": linked} if linked else {}

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """Yield paths, sorted, without holding them. Objects whose name cannot be a file's are left out."""
        try:
            for name in self._place.names(below) if isinstance(self._place, Folder) else self._objects(below):
                if (wanted is None or wanted.fullmatch(name)) and (self.folder or fault_of(name) is None):
                    yield name
        except OSError as error:
            raise SourceError(
                f"{self}: a folder in it cannot be read ({error.strerror}). Give this user access."
            ) from None

    def state(self, name: str, at_hand: Path) -> str:
        """Describe the file at hand, so that a change shows: by size and time, those of an object as it was fetched.

        An object that is listed, and not at hand yet, is described as the listing does.
        """
        if self.folder is None:
            return self._stamp_of(name)
        status = os.stat(os.path.join(self.folder, name))  # pathlib takes ten times as long
        return f"{status.st_size} {status.st_mtime_ns}"

    def _objects(self, below: str) -> Iterator[str]:
        assert not isinstance(self._place, Folder)
        for name, stamp in self._place.names_and_stamps(below):
            self._note(name, stamp)
            yield name

    def _note(self, name: str, stamp: tuple[int, int]) -> None:
        with self._stamping:  # several threads fetch
            self._stamps.pop(name, None)
            self._stamps[name] = "{} {}".format(*stamp)
            # Those of a whole listing would take gigabytes.
            if len(self._stamps) > _STAMPS:
                del self._stamps[next(iter(self._stamps))]

    def _stamp_of(self, name: str) -> str:
        assert not isinstance(self._place, Folder)
        with self._stamping:
            known = self._stamps.pop(name, None)
            if known is not None:
                self._stamps[name] = known  # as the newest: a file of many recordings is asked for again
        return "{} {}".format(*self._place.stamp(name)) if known is None else known

    def fetch(self, names: Iterable[str], into: Path) -> dict[str, UnreadableRecording]:
        """Write objects below a folder of our own. Those that are not there are left out, and none fails alone.

        Raises ObjectStoreError if the store does not answer, SourceError if there is no room.
        """
        # A header may name anything, also a path that leads out of the folder: such a file counts as missing.
        safe = [name for name in names if fault_of(name) is None]
        try:
            for folder in {(into / name).parent for name in safe}:
                folder.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(self._place.threads) as threads:
                list(threads.map(lambda name: self._fetch_one(name, into), safe))
        except OSError as error:
            raise no_room(error) from None
        return {}

    def _fetch_one(self, name: str, into: Path) -> None:
        assert not isinstance(self._place, Folder)
        try:
            self._note(name, self._place.fetch(name, into / name, MAX_FILE_BYTES))
        except FileNotFoundError:
            (into / name).unlink(missing_ok=True)
            with self._stamping:
                self._stamps.pop(name, None)  # listed a while ago
        except ObjectStoreError as error:  # whose name may be that of a patient
            raise ObjectStoreError(str(error).replace(f"{self}/{name}", str(self))) from None
