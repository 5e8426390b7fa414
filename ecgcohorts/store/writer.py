"""Write one shard, which has one owner: strips in, a Zarr v3 shard file out, in bounded memory.

A shard is the encoded inner chunks one after the other, then an index of (offset, length) pairs and its crc32c.
Written directly because zarr-python needs the whole shard in memory and takes two to three times as long.
"""

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.io.durable import drop, make_folder, name_aside, sync_folder
from ecgcohorts.recording import MISSING
from ecgcohorts.store.schema import FileEntry
from ecgcohorts.store.signals.chunks import CRC_BYTES, Codec, encode_chunk, with_crc

# Offset and length of a row that was not appended: the last shard of a segment is rarely full.
_AT_ONCE = 1 << 20  # bytes, of a beginning that is checked
_ABSENT = np.uint64(2**64 - 1)  # Zarr v3 sharding: this inner chunk is not there


class ShardWriter:
    """Appends strips to one shard file; the file gets its name only when it is whole and on disk.

    kept: name of the file until then, if what is appended shall outlive a killed process: `keep` makes a beginning durable,
    and `go_on` of a later writer takes it over. While another process writes it, this one does without.

    >>> with ShardWriter(path, shard_records=4096, shape=(8, 4000)) as shard:   # doctest: +SKIP
    ...     shard.append(strip)
    ...     shard.append(None)                          # a refused record: a row of the missing value
    >>> shard.entry                                     # doctest: +SKIP
    """

    def __init__(
        self, path: Path, shard_records: int, shape: tuple[int, int], codec: Codec = "lz4", kept: Path | None = None
    ) -> None:
        self._path, self._aside, self._kept = path, name_aside(path), kept
        self._kept_bytes = 0
        self._shape, self._codec = shape, codec
        self._index = np.full((shard_records, 2), _ABSENT, "<u8")
        self._count = 0
        self._size = 0
        self._sha = hashlib.sha256()
        # A refused record keeps its row, so that rows planned before decoding stay true. Encoded once: all are alike.
        self._absent_row = encode_chunk(np.full(shape, MISSING, np.int16), codec)

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        self._file: BinaryIO
        if self._kept is not None and _lock(self._kept, file := self._kept.open("ab")):
            self._file, self._aside = file, self._kept
            self._kept_bytes = os.fstat(file.fileno()).st_size  # until `go_on` has looked at them
        else:
            self._file, self._kept = self._aside.open("wb"), None
        return self

    @property
    def is_kept(self) -> bool:
        """Whether this process is the one that may keep a beginning."""
        return self._kept is not None

    def keep(self) -> tuple[NDArray[np.uint64], FileEntry]:
        """Make durable what has been appended, and return what `go_on` needs: index (row, 2), size and SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._kept_bytes = self._size
        return self._index[: self._count].copy(), FileEntry(size=self._size, sha256=self._sha.hexdigest())

    def go_on(self, index: NDArray[np.uint64], entry: FileEntry) -> bool:
        """Take over a beginning that `keep` has described. False, and an empty file, if it is not there whole."""
        sha, left = hashlib.sha256(), entry.size
        with self._aside.open("rb") as file:
            while data := file.read(min(left, _AT_ONCE)):
                sha.update(data)
                left -= len(data)
        is_whole = left == 0 and sha.hexdigest() == entry.sha256 and len(index) <= len(self._index)
        if is_whole:
            self._index[: len(index)] = index
            self._count, self._size, self._sha = len(index), entry.size, sha
        self._kept_bytes = self._size
        self._file.truncate(self._size)
        self._file.seek(self._size)
        return is_whole

    def append(self, strip: NDArray[np.int16] | None) -> None:
        """Add the next row; None leaves a row of the missing value."""
        if strip is None:
            self.append_encoded(self._absent_row)
            return
        if strip.shape != self._shape or strip.dtype != np.int16:
            raise ValueError(f"strip is {strip.dtype} {strip.shape}, expected int16 {self._shape}")
        self.append_encoded(encode_chunk(strip, self._codec))

    def append_encoded(self, chunk: bytes) -> None:
        """Add the next row as bytes of `encode_chunk` or of another shard."""
        self._index[self._count] = (self._size, len(chunk))
        self._count += 1
        self._put(chunk)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha.update(data)  # while it is at hand: the manifest wants it, and reading back would double the work
        self._size += len(data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._give_up()
            return
        try:
            self._put(with_crc(self._index.tobytes()))
            self._file.flush()
            os.fsync(self._file.fileno())
            # Before it is closed, which gives back the lock: another process would go on with what is whole.
            os.replace(self._aside, self._path)
        except OSError:
            self._give_up()
            raise
        finally:
            self._file.close()
        # The entry is there only for a shard that is whole and durable, so that no manifest can name another one.
        sync_folder(self._path.parent)
        self.entry = FileEntry(size=self._size, sha256=self._sha.hexdigest())

    def _give_up(self) -> None:
        """Leave what `keep` made durable, and nothing else: the disk may be full."""
        # Holds the lock: another process would lock the file in between, and lose what it writes.
        held = os.dup(self._file.fileno())
        try:
            # Closing may write what is left in the buffer, so the file is cut afterwards.
            with contextlib.suppress(OSError):
                self._file.close()
            if self._kept_bytes:
                with contextlib.suppress(OSError):
                    os.ftruncate(held, self._kept_bytes)
            else:
                drop(self._aside)
        finally:
            os.close(held)


def _lock(path: Path, file: BinaryIO) -> bool:
    """Lock an open file for its writer; close it and return False where another process has it, or has renamed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return True
    # Also a file system without locks: there, nothing is kept.
    except OSError:
        pass
    file.close()
    return False


def blank_rows(
    path: Path,
    target: Path,
    rows: NDArray[np.integer],
    shard_records: int,
    shape: tuple[int, int],
    codec: Codec,
) -> FileEntry:
    """Write a shard to `target` with some rows replaced by the missing value; all other chunks keep their bytes."""
    # Whole, not patched in place: a reader of an earlier snapshot may be at work on the file. 100 MB by default.
    data = path.read_bytes()
    index_bytes = shard_records * 16
    index = np.frombuffer(data[-index_bytes - CRC_BYTES : -CRC_BYTES], "<u8").reshape(-1, 2)
    blanked = set(rows.tolist())
    writer = ShardWriter(target, shard_records, shape, codec)
    with writer:
        for place, (offset, length) in enumerate(index[index[:, 0] != _ABSENT].tolist()):
            # Not decoded: equal bytes in give equal bytes out, whatever the version of the codec.
            if place in blanked:
                writer.append(None)
            else:
                writer.append_encoded(data[offset : offset + length])
    return writer.entry
