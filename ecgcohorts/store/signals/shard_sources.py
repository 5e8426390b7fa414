"""Where the bytes of a signal array come from: files of a local folder, or parts of objects.

What is read, in how many requests, and whether it is right, is decided in `shards.py` for both alike.
"""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

from ecgcohorts.errors import StoreError
from ecgcohorts.io.buckets import Bucket, Stamp

LEAST_OPEN_FILES = 64  # shards that all arrays of a process together keep open; macOS allows a process 256 files
MOST_OPEN_FILES = 4096  # 16 million recordings
MOST_THREADS = 8  # a sixth of a record's time is spent under the interpreter lock: more threads wait for each other
NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux: fail rather than wait for the disk
REQUESTS = 32  # range requests of one call under way at once: each waits for the network, not for us


class ShardSource(ABC):
    """The shards of one array and its zarr.json. Thread-safe and picklable.

    Raises OSError where a file or object cannot be read, StoreError where it is no longer the one this was opened on.
    """

    name: str  # for people: the folder or URL of the array
    # Read through a gap up to this between records of one patient: 128 KiB holds up to three others with lz4, and so more
    # than 85 % of pairs. A request to an object store takes as long as some hundred KiB do.
    gap_bytes: int
    threads: int  # records are read and decoded in so many
    records_per_part: int  # at least so many are handed to a thread at once

    @abstractmethod
    def metadata(self, limit: int) -> bytes:
        """zarr.json; at most limit + 1 bytes of it."""

    @abstractmethod
    def size(self, number: int) -> int:
        """Of a shard, in bytes."""

    @abstractmethod
    def read_into(self, number: int, start: int, out: memoryview) -> int:
        """Fill `out` with bytes of a shard, in one read. Returns how many there were: fewer where it ends before."""

    def in_memory(self, number: int, place: int) -> bool:
        """Whether a byte of a shard can be had without waiting; False if that cannot be known."""
        return False

    def shard_name(self, number: int) -> str:
        return f"{self.name}/{shard_key(number)}"


def shard_key(number: int) -> str:
    """Where a shard stands below its array."""
    return f"c/{number}/0/0"


class _Shard:
    """An open shard: closed when the last user lets go, so an evicted one stays readable to threads that hold it."""

    __slots__ = ("fd", "size")
    all_open: ClassVar[set[int]] = set()  # of this process

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.all_open.add(self.fd)
        self.size = os.fstat(self.fd).st_size

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.all_open.discard(self.fd)  # before another may get its number
            os.close(self.fd)


@cache
def open_files_limit() -> int:
    """How many shards all arrays together keep open: half of what the system allows this process."""
    try:
        import resource
    except ImportError:
        return LEAST_OPEN_FILES
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = allowed == resource.RLIM_INFINITY
    return MOST_OPEN_FILES if unlimited else min(max(allowed // 2, LEAST_OPEN_FILES), MOST_OPEN_FILES)


class FolderShards(ShardSource):
    """Of a local folder, by preadv, so not on Windows."""

    gap_bytes = 128 * 1024
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    records_per_part = 16  # handing work over costs about as much as decoding a record

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = str(self.folder)
        self._open: dict[int, _Shard] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["FolderShards"], tuple[Path]]:
        return FolderShards, (self.folder,)

    def metadata(self, limit: int) -> bytes:
        with (self.folder / "zarr.json").open("rb") as file:
            return file.read(limit + 1)

    def size(self, number: int) -> int:
        return self._shard(number).size

    def read_into(self, number: int, start: int, out: memoryview) -> int:
        shard = self._shard(number)  # held by name: while it lives, its descriptor is not closed and reused
        return os.preadv(shard.fd, (out,), start)

    def in_memory(self, number: int, place: int) -> bool:
        if NOWAIT is None:
            return False
        shard = self._shard(number)
        try:
            return os.preadv(shard.fd, (bytearray(1),), place, NOWAIT) == 1
        except OSError:  # it is not there, or this file system cannot tell
            return False

    def _shard(self, number: int) -> _Shard:
        shard = self._open.get(number)
        if shard is not None:
            return shard
        shard = _Shard(self.folder / shard_key(number))
        with self._lock:
            shard = self._open.setdefault(number, shard)
            while len(self._open) > 1 and len(_Shard.all_open) > open_files_limit():
                self._open.pop(next(iter(self._open)))  # the first opened: random reads favour none
        return shard


class BucketShards(ShardSource):
    """Of an object store, by range requests, pinned to the objects that were there when the store was opened.

    zarr.json is given: the store's manifest names its SHA-256, so whoever opens the store has checked it.
    """

    gap_bytes = 256 * 1024
    threads = REQUESTS
    records_per_part = 2  # a pair

    def __init__(self, bucket: Bucket, folder: str, metadata: bytes, stamps: Mapping[str, Stamp]) -> None:
        """stamps: of the shards, by their names below the store."""
        self.name = f"{bucket.url}/{folder}"
        self._bucket, self._folder, self._metadata, self._stamps = bucket, folder, metadata, dict(stamps)

    def __reduce__(self) -> tuple[type["BucketShards"], tuple[Bucket, str, bytes, dict[str, Stamp]]]:
        return BucketShards, (self._bucket, self._folder, self._metadata, self._stamps)

    def metadata(self, limit: int) -> bytes:
        return self._metadata[: limit + 1]

    def size(self, number: int) -> int:
        return self._stamp(number).size

    def read_into(self, number: int, start: int, out: memoryview) -> int:
        seen = self._stamp(number)
        try:
            data, stamp = self._bucket.get_range(self._key(number), start, start + len(out))
        except FileNotFoundError:
            stamp = None
        if stamp != seen:
            what = "is gone" if stamp is None else "has been replaced"
            raise StoreError(f"{self.shard_name(number)}: {what} since the store was opened. Open the store again.")
        out[: len(data)] = data
        return len(data)

    def _stamp(self, number: int) -> Stamp:
        try:
            return self._stamps[self._key(number)]
        except KeyError:
            raise FileNotFoundError(2, "no such object in the manifest") from None

    def _key(self, number: int) -> str:
        return f"{self._folder}/{shard_key(number)}"
