"""Read records straight from the shards of one Zarr v3 array: index in memory, one read a record, crc32c, decoding.

zarr-python stays the reference in the tests and in `verify`; its default path spends two reads, an index decode and
about 18 event-loop callbacks on every record. `io.place` delivers bytes from a folder or a bucket, `chunks` decodes them;
this module finds and checks them. Source of the layout: the Zarr v3 core specification and its `sharding_indexed` codec,
version 1.0.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import StoreError
from ecgcohorts.io.place import Place, place_at
from ecgcohorts.store.signals.array_metadata import CODEC_CHAINS, METADATA_LIMIT, REMEDY, _parse_metadata
from ecgcohorts.store.signals.chunks import CRC32C_RESIDUE, CRC_BYTES, OVERHEAD_BYTES, Block, decoder

ABSENT = 2**64 - 1  # offset and size of a chunk that was never written

# A batch asks for two records of each patient side by side, so records asked for within this many places of each other
# are taken for one patient's.
MERGE_REACH = 4
RUN_RECORDS = 8  # read at once at most: neighbours too are shared between threads, a quarter of a MB at a time
PARTS_PER_THREAD = 4  # evens out threads that finish early


class Windows(NamedTuple):
    """The samples of each strip that are wanted, from `first` on."""

    first: NDArray[np.int64]
    length: NDArray[np.int64]  # shorter than `out` has room for: the rest is filled with the missing value


class _Reads(NamedTuple):
    """Distinct records in order of their place on disk; lists, because single numpy elements are slow to reach."""

    rows: list[int]
    start: list[int]  # in the shard
    stop: list[int]
    asked: list[int]  # places in the request, in the order of records
    low: list[int]  # record i is asked for at asked[low[i] : high[i]]
    high: list[int]


class _Whole:
    """Strips are decoded where they belong: request i into out[targets[i]]."""

    def __init__(self, out: NDArray[np.int16], targets: Sequence[int], fill_value: int) -> None:
        self.out, self.targets, self.fill_value = Block(out), targets, fill_value

    def strips(self, shape: tuple[int, ...]) -> Block:
        """Return what records are decoded into."""
        return self.out

    def place(self, asked: list[int]) -> int:
        """Return where in it a record goes that these requests ask for."""
        return self.targets[asked[0]]

    def finish(self, strips: Block, asked: list[int]) -> None:
        """Copy a decoded record to the other requests for it."""
        for one in asked[1:]:
            self.out.array[self.targets[one]] = self.out.array[self.targets[asked[0]]]

    def blank(self, asked: list[int]) -> None:
        """Fill the places of requests for a record that was never written."""
        for one in asked:
            self.out.array[self.targets[one]] = self.fill_value


class _Cut(_Whole):
    """Strips are decoded into one strip of the thread, and their windows copied from there."""

    # The thread's strip stays in the processor's cache, so that copying from it costs little beside decoding.

    def __init__(self, out: NDArray[np.int16], targets: Sequence[int], fill_value: int, windows: Windows) -> None:
        super().__init__(out, targets, fill_value)
        self.first, self.length = windows.first.tolist(), windows.length.tolist()

    def strips(self, shape: tuple[int, ...]) -> Block:
        return _scratch.one_strip(shape)

    def place(self, asked: list[int]) -> int:
        return 0

    def finish(self, strips: Block, asked: list[int]) -> None:
        strip, out = strips.array[0], self.out.array
        for one in asked:
            first, length, target = self.first[one], self.length[one], self.targets[one]
            out[target, :, :length] = strip[:, first : first + length]
            if length < out.shape[2]:
                out[target, :, length:] = self.fill_value


class _Scratch(threading.local):
    """Memory of one thread, used again and again."""

    # New pages from the system cost as much as decoding into them.

    data: Block | None = None
    strip: Block | None = None

    def room(self, size: int) -> Block:
        if self.data is None or len(self.data.array) < size:
            self.data = Block(np.empty(size, np.uint8))
        return self.data

    def one_strip(self, shape: tuple[int, ...]) -> Block:
        if self.strip is None or self.strip.array.shape[1:] != shape:
            self.strip = Block(np.empty((1, *shape), np.int16))
        return self.strip


_scratch = _Scratch()


class ShardedArray:
    """Records of one array `(rows, lead, time)` int16, one record an inner chunk, in a folder or a bucket.

    Every chunk's crc32c is verified: damage raises StoreError naming the shard, it never decodes to a wrong signal.
    Thread-safe and picklable. folder: of the array below the place. metadata: its zarr.json, where the caller has read
    it already. `threads` read and decode one call's records; None: as many as suit the place.
    """

    def __init__(
        self, place: str | Path | Place, folder: str = "", metadata: bytes | None = None, threads: int | None = None
    ) -> None:
        self.place = place_at(place) if isinstance(place, str | Path) else place
        self.name = f"{self.place}/{folder}".rstrip("/")  # for people
        self.threads = self.place.threads if threads is None else max(1, threads)
        self._folder = f"{folder}/" if folder else ""
        self._zarr_json = self._read_zarr_json() if metadata is None else metadata
        layout = _parse_metadata(self._zarr_json, f"{self.name}/zarr.json")
        self.shape: tuple[int, int, int] = layout.shape
        self.attributes = layout.attributes
        self.fill_value = layout.fill_value
        self.shard_records = layout.chunk_grid.configuration.chunk_shape[0]
        self.record_bytes = 2 * self.shape[1] * self.shape[2]
        self._decode = decoder(CODEC_CHAINS[layout.codec_names])
        n_shards = -(-self.shape[0] // self.shard_records)
        # (offset, size) of every record: 16 bytes each. Memory of shards that nobody reads is reserved but never filled.
        self._places = np.empty((n_shards * self.shard_records, 2), np.uint64)
        self._known = np.zeros(n_shards, bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"ShardedArray({self.name!r}, shape={self.shape})"

    def __reduce__(self) -> tuple[type["ShardedArray"], tuple[Place, str, bytes, int]]:
        return ShardedArray, (self.place, self._folder.rstrip("/"), self._zarr_json, self.threads)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.int16]:
        """Return records as a new int16 (rows, lead, time)."""
        out = np.empty((len(rows), *self.shape[1:]), np.int16)
        self.read_into(rows, out)
        return out

    def read_into(
        self,
        rows: NDArray[np.integer],
        out: NDArray[np.int16],
        targets: NDArray[np.int64] | None = None,
        windows: Windows | None = None,
        threads: int | None = None,
    ) -> None:
        """Fill out[targets[i]], or out[i] without targets, with record rows[i], in any order, repeats allowed.

        out: (place, lead, time) int16, C-contiguous. With windows, its time is that of the windows: only their samples
        are copied, and a strip asked for twice is decoded once. Records asked for side by side that stand close in one
        shard come in one read. Raises IndexError for a row outside the array, StoreError for a missing or damaged shard.
        """
        wanted = np.asarray(rows).astype(np.int64, casting="same_kind")
        self._require_fitting(len(wanted), out, targets, windows)
        if len(wanted) == 0:
            return
        lowest, highest = int(wanted.min()), int(wanted.max())
        if lowest < 0 or highest >= self.shape[0]:
            raise IndexError(f"{self.name}: found rows {lowest} to {highest}, expected 0 to {self.shape[0] - 1}.")
        # Indexes first and one by one: they are few, and what follows needs the places of all records.
        for shard in np.unique(wanted // self.shard_records).tolist():
            if not self._known[shard]:
                self._learn(shard)
        places = range(len(wanted)) if targets is None else targets.tolist()
        delivery = (
            _Whole(out, places, self.fill_value) if windows is None else _Cut(out, places, self.fill_value, windows)
        )
        self._read(wanted, delivery, threads or self.threads)

    def _require_fitting(
        self, n: int, out: NDArray[np.int16], targets: NDArray[np.int64] | None, windows: Windows | None
    ) -> None:
        """Raise ValueError for buffers and windows that do not fit."""
        # Decoding writes to memory by address, where an index too large would not raise but overwrite.
        _, leads, time = self.shape
        shape = (n if targets is None else len(out), leads, time if windows is None else out.shape[-1])
        if out.shape != shape or out.dtype != np.int16 or not out.flags.c_contiguous:
            raise ValueError(f"found out {out.dtype} {out.shape}, expected C-contiguous int16 {shape}.")
        given = {"targets": targets, "windows": None if windows is None else windows.first}
        for name, values in given.items():
            if values is not None and len(values) != n:
                raise ValueError(f"found {len(values)} {name}, expected one for each of {n} rows.")
        if n and targets is not None and not 0 <= targets.min() <= targets.max() < len(out):
            raise ValueError(f"found targets {targets.min()} to {targets.max()}, expected 0 to {len(out) - 1}.")
        if n and windows is not None:
            lowest, highest = int(windows.first.min()), int((windows.first + windows.length).max())
            if lowest < 0 or highest > time or windows.length.min() < 0 or windows.length.max() > shape[2]:
                raise ValueError(f"found windows of samples {lowest} to {highest}, expected parts of 0 to {time}.")

    def encoded(self, row: int) -> bytes:
        """One record as its shard holds it, its verified checksum at the end: for copying it without decoding.

        Raises IndexError for a row outside the array, StoreError for a missing or damaged shard, or a row never written.
        """
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"{self.name}: found row {row}, expected 0 to {self.shape[0] - 1}.")
        number = row // self.shard_records
        if not self._known[number]:
            self._learn(number)
        start, size = self._places[row].tolist()
        if start == ABSENT:
            raise self._damaged(number, f"nothing at record {row}", "a record")
        data = self._bytes(number, start, start + size)
        if google_crc32c.value(data) != CRC32C_RESIDUE:
            raise self._damaged(number, f"a checksum that does not match in record {row}", "intact bytes")
        return data.tobytes()

    def _read(self, wanted: NDArray[np.int64], delivery: _Whole, threads: int) -> None:
        """Read rows that are there, each once, in several threads."""
        # In the order of the disk, whatever the order of the request; stable, so that repeats stay together.
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        low = np.flatnonzero(np.diff(ordered, prepend=-1))
        high = np.append(low[1:], len(ordered))
        rows = ordered[low]
        places = self._places[rows]
        present = places[:, 0] != ABSENT
        if not present.all():
            for first, last in zip(low[~present].tolist(), high[~present].tolist(), strict=True):
                delivery.blank(order[first:last].tolist())
            rows, low, high, places = rows[present], low[present], high[present], places[present]
            if len(rows) == 0:
                return
        start = places[:, 0].astype(np.int64)
        stop = start + places[:, 1].astype(np.int64)
        edges = self._run_edges(rows // self.shard_records, start, stop, order[low])
        reads = _Reads(*(part.tolist() for part in (rows, start, stop, order, low, high)))
        # A few records are not worth a thread, and a bucket is: `records_per_part` says from how many on.
        parts = min(PARTS_PER_THREAD * threads, -(-len(rows) // self.place.records_per_part))
        if parts == 1:
            self._read_runs(reads, delivery, edges.tolist())
            return
        pool = _pool(os.getpid(), threads)
        jobs = [pool.submit(self._read_runs, reads, delivery, part) for part in _overlapping_parts(edges, parts)]
        wait(jobs)  # nothing writes into `out` any more when an error is raised
        for job in jobs:
            job.result()

    def _run_edges(
        self, shards: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], asked: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return where each new read begins: records of one run stand close together, and were asked for together or touch."""
        # Records of one patient are neighbours and asked for together. Reading through the gap between strangers would
        # fetch many times the bytes needed: 13.6 times, before this was measured.
        gap = start[1:] - stop[:-1]
        together = (gap == 0) | (np.abs(np.diff(asked)) < MERGE_REACH)
        joined = (np.diff(shards) == 0) & (gap >= 0) & (gap <= self.place.gap_bytes) & together
        begins = np.concatenate([[True], ~joined])
        runs = np.flatnonzero(begins)
        within = np.arange(len(begins)) - np.repeat(runs, np.diff(runs, append=len(begins)))
        return np.append(np.flatnonzero(within % RUN_RECORDS == 0), len(begins))

    def _read_runs(self, reads: _Reads, delivery: _Whole, edges: list[int]) -> None:
        """Read runs of records standing close together; verify, decode and deliver every record."""
        strips = delivery.strips(self.shape[1:])
        for first, last in pairwise(edges):
            if last - first > 1 and self._better_apart(reads, first, last):
                for i in range(first, last):
                    self._read_run(reads, delivery, strips, i, i + 1)
            else:
                self._read_run(reads, delivery, strips, first, last)

    def _better_apart(self, reads: _Reads, first: int, last: int) -> bool:
        """Say whether a run is better read record by record."""
        # From a disk, one read with its gaps is faster. What is in memory is read without the gaps, which copies less.
        if reads.start[first + 1 : last] == reads.stop[first : last - 1]:
            return False
        number = reads.rows[first] // self.shard_records
        return all(self.place.in_memory(self._shard(number), reads.start[i]) for i in (first, last - 1))

    def _read_run(self, reads: _Reads, delivery: _Whole, strips: Block, first: int, last: int) -> None:
        """Read a run in one read, then verify, decode and deliver its records."""
        number, begin, end = reads.rows[first] // self.shard_records, reads.start[first], reads.stop[last - 1]
        data = _scratch.room(end - begin)
        self._fetch(number, begin, data.view[: end - begin])
        for i in range(first, last):
            asked = reads.asked[reads.low[i] : reads.high[i]]
            low, high = reads.start[i] - begin, reads.stop[i] - begin
            if google_crc32c.value(data.array[low:high]) != CRC32C_RESIDUE:
                raise self._damaged(number, f"a checksum that does not match in record {reads.rows[i]}", "intact bytes")
            if not self._decode(data, low, high, strips, delivery.place(asked)):
                wanted = f"{self.record_bytes} bytes of int16"
                raise self._damaged(number, f"record {reads.rows[i]} in another encoding", wanted)
            delivery.finish(strips, asked)

    def _shard(self, number: int) -> str:
        """Return where a shard stands below the place."""
        return f"{self._folder}c/{number}/0/0"

    def _read_zarr_json(self) -> bytes:
        try:
            return self.place.get(f"{self._folder}zarr.json", METADATA_LIMIT)
        except OSError as error:
            raise StoreError(
                f"{self.name}/zarr.json: found no readable array ({error.strerror}), expected a Zarr v3 array. {REMEDY}"
            ) from None

    def _fetch(self, number: int, start: int, into: memoryview) -> None:
        try:
            found = self.place.read_into(self._shard(number), start, into)
        except OSError as error:
            raise self._unreadable(number, error) from None
        if found != len(into):
            raise self._damaged(number, f"{found} bytes at {start}", f"{len(into)}")

    def _bytes(self, number: int, start: int, stop: int) -> NDArray[np.uint8]:
        # Memory of its own: the thread's scratch room is overwritten by the next read.
        data = np.empty(stop - start, np.uint8)
        self._fetch(number, start, data.data)
        return data

    def _learn(self, number: int) -> None:
        """Read, verify and keep the index of one shard: (offset, size) uint64 pairs, then their crc32c."""
        try:
            size = self.place.size(self._shard(number))
        except OSError as error:
            raise self._unreadable(number, error) from None
        length = 16 * self.shard_records + CRC_BYTES
        # The index stands at the end, so a shard that was cut short shows here and not as wrong records.
        if size < length:
            raise self._damaged(number, f"{size} bytes", f"at least {length} of index")
        data = self._bytes(number, size - length, size)
        if google_crc32c.value(data) != CRC32C_RESIDUE:
            raise self._damaged(
                number, "a shard index whose checksum does not match (damaged or cut short)", "intact bytes"
            )
        places = np.frombuffer(data, "<u8", 2 * self.shard_records).reshape(-1, 2)
        present = places[(places != ABSENT).any(1)]
        limit = size - length
        # Believed only inside the shard: offset and size are about to be used as addresses.
        wild = (
            (present > limit).any(1) | (present.sum(1) > limit) | (present[:, 1] > self.record_bytes + OVERHEAD_BYTES)
        )
        if wild.any():
            raise self._damaged(number, "a shard index pointing outside the shard", "records inside it")
        first = number * self.shard_records
        self._places[first : first + self.shard_records] = places
        self._known[number] = True  # last: other threads read places only where this is set

    def _unreadable(self, number: int, error: OSError) -> StoreError:
        return self._damaged(number, f"no readable shard ({error.strerror})", "the shard its zarr.json declares")

    def _damaged(self, number: int, found: str, expected: str) -> StoreError:
        return StoreError(f"{self.place}/{self._shard(number)}: found {found}, expected {expected}. {REMEDY}")


def _overlapping_parts(edges: NDArray[np.int64], parts: int) -> list[list[int]]:
    """Cut run edges into up to `parts` lists, each ending on the edge the next begins with."""
    cuts = np.unique(np.linspace(0, len(edges) - 1, parts + 1).astype(np.int64))
    return [edges[low : high + 1].tolist() for low, high in pairwise(cuts.tolist())]


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the decoding threads of this process, shared by all arrays; a forked child makes its own."""
    # Keyed by the process, because threads do not survive a fork and a pool without them waits for ever.
    return ThreadPoolExecutor(threads, thread_name_prefix="ecgcohorts-decode")
