"""Reads records straight from the shards of one Zarr v3 array: index in memory, one read a record, crc32c, blosc.

zarr-python stays the reference in the tests and in `verify`; its default path spends two reads, an index decode and
about 18 event-loop callbacks on every record. Where bytes come from, a folder or an object store, is the business of
`shard_sources`; they are checked and decoded here. Source of the layout: the Zarr v3 core specification and its
`sharding_indexed` codec, version 1.0.
"""

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecgcohorts.errors import StoreError
from ecgcohorts.store.shard_sources import FolderShards, ShardSource

ABSENT = 2**64 - 1  # offset and size of a chunk that was never written
CRC_BYTES = 4
CRC32C_RESIDUE = 0x48674BC7  # crc32c of any bytes followed by their own crc32c (little endian)
BLOSC_HEADER = struct.Struct("<4sIII")  # versions and flags, raw bytes, block bytes, compressed bytes
OVERHEAD_BYTES = BLOSC_HEADER.size + CRC_BYTES  # blosc stores what does not shrink behind its header

# Bounds of what is believed: a metadata file must not make us allocate at will. Our choice, far above any store here.
METADATA_LIMIT = 1 << 20
SHARD_RECORDS_LIMIT = 1 << 20
RECORD_BYTES_LIMIT = 1 << 26
ROWS_LIMIT = 1 << 32

MERGE_REACH = 4  # records asked for within this many places of each other are taken for one patient's
PARTS_PER_THREAD = 4  # evens out threads that finish early

_REMEDY = "Restore this file from a copy, or ingest the cohort again; `ecgcohorts verify` lists every damaged file."


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Little(_Strict):
    endian: Literal["little"]


class _BytesCodec(_Strict):
    name: Literal["bytes"]
    configuration: _Little


class _BloscConfiguration(_Strict):
    """The frame says all that decoding needs; these are only checked to be blosc's."""

    typesize: int = 1
    cname: Literal["lz4", "lz4hc", "blosclz", "zstd", "zlib"]
    clevel: int
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"]
    blocksize: int = 0


class _BloscCodec(_Strict):
    name: Literal["blosc"]
    configuration: _BloscConfiguration


class _Empty(_Strict):
    pass


class _Crc32cCodec(_Strict):
    name: Literal["crc32c"]
    configuration: _Empty = _Empty()


_Codec = Annotated[_BytesCodec | _BloscCodec | _Crc32cCodec, Field(discriminator="name")]
_Extent = Annotated[int, Field(ge=1, le=ROWS_LIMIT)]
_Shape = tuple[_Extent, _Extent, _Extent]


class _Sharding(_Strict):
    chunk_shape: _Shape
    codecs: tuple[_Codec, ...]
    index_codecs: tuple[_BytesCodec, _Crc32cCodec]
    index_location: Literal["end"] = "end"


class _ShardingCodec(_Strict):
    name: Literal["sharding_indexed"]
    configuration: _Sharding


class _Separator(_Strict):
    separator: Literal["/"] = "/"


class _KeyEncoding(_Strict):
    name: Literal["default"]
    configuration: _Separator = _Separator()


class _GridShape(_Strict):
    chunk_shape: _Shape


class _Grid(_Strict):
    name: Literal["regular"]
    configuration: _GridShape


class _ArrayMetadata(_Strict):
    """The one layout this reader reads; anything else is refused, never guessed."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: tuple[Annotated[int, Field(ge=0, le=ROWS_LIMIT)], _Extent, _Extent]
    data_type: Literal["int16"]
    chunk_grid: _Grid
    chunk_key_encoding: _KeyEncoding
    fill_value: Annotated[int, Field(ge=-(2**15), lt=2**15)]
    codecs: tuple[_ShardingCodec]
    attributes: dict[str, Any] = {}
    dimension_names: tuple[str | None, ...] | None = None
    storage_transformers: tuple[()] = ()


class _Reads(NamedTuple):
    """Records to read, in order of their place on disk; lists, because single numpy elements are slow to reach."""

    rows: list[int]
    start: list[int]  # in the shard
    stop: list[int]
    targets: list[int]  # places in out
    out: NDArray[np.int16]


class ShardedArray:
    """Records of one array `(rows, lead, time)` int16, one record an inner chunk, in a local folder or elsewhere.

    Every chunk's crc32c is verified: damage raises StoreError naming the shard, it never decodes to a wrong signal.
    Thread-safe and picklable. `threads` read and decode one call's records; None: as many as suit the source.
    """

    def __init__(self, source: str | Path | ShardSource, threads: int | None = None) -> None:
        self.source = source if isinstance(source, ShardSource) else FolderShards(source)
        self.threads = self.source.threads if threads is None else max(1, threads)
        metadata = _read_metadata(self.source)
        sharding = metadata.codecs[0].configuration
        self.shape: tuple[int, int, int] = metadata.shape
        self.attributes = metadata.attributes
        self.fill_value = metadata.fill_value
        self.shard_records = metadata.chunk_grid.configuration.chunk_shape[0]
        self.record_bytes = 2 * self.shape[1] * self.shape[2]
        self._decode = _decoder(sharding.codecs)
        n_shards = -(-self.shape[0] // self.shard_records)
        # (offset, size) of every record; pages of shards never touched are never filled
        self._places = np.empty((n_shards * self.shard_records, 2), np.uint64)
        self._known = np.zeros(n_shards, bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"ShardedArray({self.source.name!r}, shape={self.shape})"

    def __reduce__(self) -> tuple[type["ShardedArray"], tuple[ShardSource, int]]:
        return ShardedArray, (self.source, self.threads)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.int16]:
        """Return records as a new int16 (rows, lead, time)."""
        out = np.empty((len(rows), *self.shape[1:]), np.int16)
        self.read_into(rows, out)
        return out

    def read_into(self, rows: NDArray[np.integer], out: NDArray[np.int16]) -> None:
        """Fill out[i] with record rows[i], in any order, repeats allowed.

        out: (len(rows), lead, time) int16, C-contiguous. Records asked for side by side that stand close in one shard
        come in one read. Raises IndexError for a row outside the array, StoreError for a missing or damaged shard.
        """
        wanted = np.asarray(rows).astype(np.int64, casting="same_kind")
        shape = (len(wanted), *self.shape[1:])
        if out.shape != shape or out.dtype != np.int16 or not out.flags.c_contiguous:
            raise ValueError(f"found out {out.dtype} {out.shape}, expected C-contiguous int16 {shape}.")
        if len(wanted) == 0:
            return
        lowest, highest = int(wanted.min()), int(wanted.max())
        if lowest < 0 or highest >= self.shape[0]:
            raise IndexError(
                f"{self.source.name}: found rows {lowest} to {highest}, expected 0 to {self.shape[0] - 1}."
            )
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        first = np.flatnonzero(np.diff(ordered, prepend=-1))  # a record asked for twice is decoded once
        for shard in np.unique(ordered // self.shard_records).tolist():
            if not self._known[shard]:
                self._learn(shard)
        self._read_distinct(ordered[first], order[first], out)
        if len(first) < len(wanted):
            source = np.repeat(order[first], np.diff(first, append=len(wanted)))
            again = np.flatnonzero(source != order)
            out[order[again]] = out[source[again]]

    def encoded(self, row: int) -> bytes:
        """One record as its shard holds it, its verified checksum at the end: for copying it without decoding.

        Raises IndexError for a row outside the array, StoreError for a missing or damaged shard, or a row never written.
        """
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"{self.source.name}: found row {row}, expected 0 to {self.shape[0] - 1}.")
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

    def _read_distinct(self, rows: NDArray[np.int64], targets: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Read ascending, distinct rows into out[targets], in several threads."""
        places = self._places[rows]
        absent = places[:, 0] == ABSENT
        if absent.any():
            out[targets[absent]] = self.fill_value
            rows, targets, places = rows[~absent], targets[~absent], places[~absent]
        if len(rows) == 0:
            return
        start = places[:, 0].astype(np.int64)
        stop = start + places[:, 1].astype(np.int64)
        shards = rows // self.shard_records
        gap = start[1:] - stop[:-1]
        side_by_side = (gap == 0) | (np.abs(np.diff(targets)) < MERGE_REACH)
        joined = (np.diff(shards) == 0) & (gap >= 0) & (gap <= self.source.gap_bytes) & side_by_side
        edges = np.flatnonzero(np.concatenate([[True], ~joined, [True]]))
        # Always in the pool: on the main thread blosc would start threads of its own.
        reads = _Reads(rows.tolist(), start.tolist(), stop.tolist(), targets.tolist(), out)
        pool = _pool(os.getpid(), self.threads)
        parts = min(PARTS_PER_THREAD * self.threads, -(-len(rows) // self.source.records_per_part))
        jobs = [pool.submit(self._read_runs, reads, part) for part in _overlapping_parts(edges, parts)]
        wait(jobs)  # nothing writes into `out` any more when an error is raised
        for job in jobs:
            job.result()

    def _read_runs(self, reads: "_Reads", edges: list[int]) -> None:
        """Read runs of records standing close together, each in one read; verify and decode every record."""
        for low, high in pairwise(edges):
            number = reads.rows[low] // self.shard_records
            begin, end = reads.start[low], reads.stop[high - 1]
            data = self._bytes(number, begin, end)
            for i in range(low, high):
                chunk = data[reads.start[i] - begin : reads.stop[i] - begin]
                if google_crc32c.value(chunk) != CRC32C_RESIDUE:
                    raise self._damaged(
                        number, f"a checksum that does not match in record {reads.rows[i]}", "intact bytes"
                    )
                if not self._decode(chunk, reads.out[reads.targets[i]]):
                    wanted = f"{self.record_bytes} bytes of int16"
                    raise self._damaged(number, f"record {reads.rows[i]} in another encoding", wanted)

    def _bytes(self, number: int, start: int, stop: int) -> NDArray[np.uint8]:
        try:
            data = np.frombuffer(self.source.read(number, start, stop), np.uint8)
        except OSError as error:
            raise self._unreadable(number, error) from None
        if len(data) != stop - start:
            raise self._damaged(number, f"{len(data)} bytes at {start}", f"{stop - start}")
        return data

    def _learn(self, number: int) -> None:
        """Read, verify and keep the index of one shard: (offset, size) uint64 pairs, then their crc32c."""
        try:
            size = self.source.size(number)
        except OSError as error:
            raise self._unreadable(number, error) from None
        length = 16 * self.shard_records + CRC_BYTES
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
        return StoreError(f"{self.source.shard_name(number)}: found {found}, expected {expected}. {_REMEDY}")


def _overlapping_parts(edges: NDArray[np.int64], parts: int) -> list[list[int]]:
    """Cut run edges into up to `parts` lists, each ending on the edge the next begins with."""
    cuts = np.unique(np.linspace(0, len(edges) - 1, parts + 1).astype(np.int64))
    return [edges[low : high + 1].tolist() for low, high in pairwise(cuts.tolist())]


def _read_metadata(source: ShardSource) -> _ArrayMetadata:
    """Parse and check zarr.json. Raises StoreError naming the first key that differs from the layout read here."""
    path = f"{source.name}/zarr.json"
    try:
        text = source.metadata(METADATA_LIMIT)
    except OSError as error:
        raise StoreError(
            f"{path}: found no readable array ({error.strerror}), expected a Zarr v3 array. {_REMEDY}"
        ) from None
    if len(text) > METADATA_LIMIT:
        raise StoreError(f"{path}: found over {METADATA_LIMIT} bytes of metadata, expected fewer. {_REMEDY}")
    try:
        metadata = _ArrayMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        found = repr(first["input"])[:80]
        raise StoreError(
            f"{path}: found {found} at {where}, expected another value ({first['msg']}). {_REMEDY}"
        ) from None
    problem = _problem(metadata)
    if problem:
        raise StoreError(f"{path}: {problem}. Open it with zarr, or ingest the cohort again.")
    return metadata


def _problem(metadata: _ArrayMetadata) -> str | None:
    """What the types cannot say: shapes that fit, codecs in the one order."""
    records, *record = metadata.chunk_grid.configuration.chunk_shape
    sharding = metadata.codecs[0].configuration
    names = tuple(codec.name for codec in sharding.codecs)
    if tuple(record) != metadata.shape[1:] or sharding.chunk_shape != (1, *metadata.shape[1:]):
        return f"found inner chunks {sharding.chunk_shape}, expected one record {(1, *metadata.shape[1:])}"
    if records > SHARD_RECORDS_LIMIT or 2 * record[0] * record[1] > RECORD_BYTES_LIMIT:
        return f"found shards of {records} records of {record}, expected fewer than {SHARD_RECORDS_LIMIT} smaller ones"
    if names not in (("bytes", "blosc", "crc32c"), ("bytes", "crc32c")):
        return f"found codecs {', '.join(names)}, expected bytes, blosc, crc32c"
    return None


def _decoder(codecs: tuple[Any, ...]) -> Callable[[NDArray[np.uint8], NDArray[np.int16]], bool]:
    return _decode_blosc if any(codec.name == "blosc" for codec in codecs) else _decode_plain


def _decode_blosc(chunk: NDArray[np.uint8], out: NDArray[np.int16]) -> bool:
    """Decode one chunk, its checksum still behind it, into out; False if the frame is not what the array declares."""
    if len(chunk) < BLOSC_HEADER.size + CRC_BYTES:
        return False
    _, raw_bytes, _, compressed_bytes = BLOSC_HEADER.unpack_from(chunk.data)
    if raw_bytes != out.nbytes or compressed_bytes != len(chunk) - CRC_BYTES:
        return False  # the C decoder trusts these two
    try:
        blosc.decompress(chunk, out)
    except (RuntimeError, ValueError):
        return False
    return True


def _decode_plain(chunk: NDArray[np.uint8], out: NDArray[np.int16]) -> bool:
    if len(chunk) != out.nbytes + CRC_BYTES:
        return False
    out[...] = chunk[:-CRC_BYTES].view("<i2").reshape(out.shape)
    return True


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Decoding threads of this process, shared by all arrays; a forked child makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ecgcohorts-decode")
