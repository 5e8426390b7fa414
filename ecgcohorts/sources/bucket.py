"""A place in an object store as a source: listed once, files fetched as they are asked for, many at a time."""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Self

from ecgcohorts.errors import ObjectStoreError, UnreadableRecording
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.sources.members import MAX_FILE_BYTES
from ecgcohorts.sources.names import fault_of, is_hidden
from ecgcohorts.sources.scratch import Scratch, no_room

THREADS = 16  # our default; a request waits some 20 ms for its first byte, whatever its size


class Objects:
    """All objects below a URL; hidden ones left out of `names`, and those whose name cannot be a file's."""

    only_here = False

    def __init__(self, url: str, scratch: Scratch | None = None) -> None:
        self._bucket = Bucket(url)
        self.scratch = Scratch() if scratch is None else scratch

    def __reduce__(self) -> tuple[type["Objects"], tuple[str, Scratch]]:
        return Objects, (self.address, self.scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.scratch.remove()

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return self._bucket.url

    def names(self, wanted: re.Pattern[str] | None = None, below: str = "") -> Iterator[str]:
        """In the store's own order, which is that of the names; none of them is kept."""
        for name, _ in self._bucket.each(below):
            if not is_hidden(name) and (wanted is None or wanted.fullmatch(name)) and fault_of(name) is None:
                yield name

    def state(self, name: str, at_hand: Path) -> str:
        """By its content: that of a listing would have to be kept for all of them."""
        digest = blake2b(digest_size=16)
        with at_hand.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def fetch(self, names: Iterable[str], into: Path) -> dict[str, UnreadableRecording]:
        """Write objects below a folder of our own. Those that are not there are left out, and none fails alone.

        Raises ObjectStoreError if the store does not answer, SourceError if there is no room.
        """
        safe = [name for name in names if fault_of(name) is None]
        try:
            for folder in {(into / name).parent for name in safe}:
                folder.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(THREADS) as threads:
                list(threads.map(lambda name: self._fetch_one(name, into), safe))
        except OSError as error:
            raise no_room(error) from None
        return {}

    def _fetch_one(self, name: str, into: Path) -> None:
        try:
            self._bucket.fetch(name, into / name, MAX_FILE_BYTES)
        except FileNotFoundError:
            (into / name).unlink(missing_ok=True)
        except ObjectStoreError as error:  # whose name may be that of a patient
            raise ObjectStoreError(str(error).replace(f"{self.address}/{name}", self.address)) from None
