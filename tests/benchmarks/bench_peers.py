"""Random batches from disk, ours beside the loaders and stores others use, on the same strips in one run: `make bench`.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_peers.py [--save]

1,024 of 8,192 strips of 8 leads x 4,000 samples (real PTB-XL shapes), drawn anew each turn, into one array; warm page
cache; one process, two threads where the library has threads. Stores that read batches are asked for a batch, the others
for one strip after another. Wall time, median of the turns, which all take one after the other.
"""

import io
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

sys.path.append(str(Path(__file__).parent))
import bench_writing
import results

from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.store.schema import signals_metadata
from ecgcohorts.store.signals.chunks import Block, Codec, decoder, encode_chunk
from ecgcohorts.store.signals.shards import ShardedArray
from ecgcohorts.store.writer import ShardWriter

STRIPS, SHARD, BATCH, THREADS, TURNS = 8192, 1024, 1024, 2, 9
SLOW_BATCH = 128  # strips asked of those that take milliseconds each
Read = Callable[[NDArray[np.int64], NDArray[np.int16]], None]
TARGETS = {"zarr-python, oindex": 30.0, "zarr-python + zarrs, one call": 3.0, "tensorstore": 2.0}
TARGETS |= {"MosaicML streaming (MDS), one by one": 2.0}
COMPACT_TARGET = 4.0  # times as fast as h5py with gzip
LIMIT_TARGETS = {"lz4": 0.9, "pcodec": 0.8}  # of what two processes of the codec alone reach on this machine


class Case:
    """One way to read, made ready in a folder of its own."""

    name: str
    package: str  # importable, or the case is skipped
    slow = False

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        raise NotImplementedError

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        raise NotImplementedError


def write_shards(folder: Path, data: NDArray[np.int16]) -> Path:
    """One array for all that read Zarr: one strip an inner chunk, lz4 with bitshuffle, crc32c."""
    path = folder.parent / "array"
    if not path.exists():
        array = zarr.create_array(
            path,
            shape=data.shape,
            chunks=(1, *data.shape[1:]),
            shards=(SHARD, *data.shape[1:]),
            dtype="int16",
            fill_value=-32768,
            compressors=[BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
        )
        for first in range(0, len(data), SHARD):
            array[first : first + SHARD] = data[first : first + SHARD]
    return path


class Ours(Case):
    name, package = "ecgcohorts", "ecgcohorts"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        self.array = ShardedArray(write_shards(folder, data), threads=THREADS)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        self.array.read_into(rows, out)


class OursCompact(Ours):
    name, package = "ecgcohorts, --codec pcodec", "pcodec"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        for number, first in enumerate(range(0, len(data), SHARD)):
            with ShardWriter(folder / "c" / str(number) / "0" / "0", SHARD, data.shape[1:], "pcodec") as shard:
                for strip in data[first : first + SHARD]:
                    shard.append(strip)
        (folder / "zarr.json").write_bytes(signals_metadata(len(data), SHARD, CAPE_V1, "pcodec"))
        self.array = ShardedArray(folder, threads=THREADS)


class BareCodec(Case):
    """What the codec alone takes on one core: the compressed strips in memory."""

    name, package = "limit: lz4 alone, one core", "numcodecs"
    codec: Codec = "lz4"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        chunks = [np.frombuffer(encode_chunk(strip, self.codec), np.uint8) for strip in data]
        self.chunks = [Block(chunk) for chunk in chunks]
        self.decode = decoder("blosc" if self.codec == "lz4" else self.codec)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        strips = Block(out)
        for place, row in enumerate(rows.tolist()):
            chunk = self.chunks[row]
            self.decode(chunk, 0, len(chunk.array), strips, place)


class BareCodecThreads(BareCodec):
    name = "limit: lz4 alone, two threads"

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        strips = Block(out)

        def part(first: int) -> None:
            for place in range(first, len(rows), THREADS):
                chunk = self.chunks[rows[place]]
                self.decode(chunk, 0, len(chunk.array), strips, place)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(part, range(THREADS)))


class BareCodecProcesses(BareCodec):
    """The limit for two cores, whatever else the machine does: two processes that share nothing, each half the strips."""

    name = "limit: lz4 alone, two processes"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        super().__init__(folder, data)
        context = multiprocessing.get_context("fork")  # which hands over the compressed strips without a copy
        self.pipes = []
        for _ in range(THREADS):
            here, there = context.Pipe()
            context.Process(target=self._serve, args=(there, data.shape[1:]), daemon=True).start()
            self.pipes.append(here)

    def _serve(self, pipe: Connection, shape: tuple[int, ...]) -> None:
        own = np.zeros((BATCH, *shape), np.int16)
        while True:
            rows = pipe.recv()
            super().read(rows, own[: len(rows)])
            pipe.send(None)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        for pipe, part in zip(self.pipes, np.array_split(rows, THREADS), strict=True):
            pipe.send(part)
        for pipe in self.pipes:
            pipe.recv()


class BarePcodec(BareCodec):
    name, package, codec = "limit: pcodec alone, one core", "pcodec", "pcodec"


class BarePcodecProcesses(BareCodecProcesses):
    name, package, codec = "limit: pcodec alone, two processes", "pcodec", "pcodec"


class ZarrPython(Case):
    name, package, slow = "zarr-python, oindex", "zarr", True

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        self.array = zarr.open_array(write_shards(folder, data), mode="r")

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        out[:] = self.array.oindex[rows]


class Zarrs(Case):
    """The Rust pipeline reads many chunks in one call if the indexer names them all; `oindex` does not."""

    name, package = "zarr-python + zarrs, one call", "zarrs"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        path = write_shards(folder, data)
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": THREADS}):
            self.array = zarr.open_array(path, mode="r")

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        inner = self.array._async_array
        indexer = _Rows(np.sort(rows), inner.shape, inner.metadata.chunk_grid)
        out[:] = sync(inner._get_selection(indexer, prototype=default_buffer_prototype()))


class _Rows:
    """An indexer of zarr-python for some rows of an array, each whole."""

    drop_axes = ()

    def __init__(self, rows: NDArray[np.int64], shape: tuple[int, ...], grid: Any) -> None:
        self.rows, self.all, self.grid = rows.tolist(), shape, grid
        self.shape = (len(rows), *shape[1:])

    def __iter__(self) -> Iterator[Any]:
        from zarr.core.indexing import BasicIndexer, ChunkProjection

        everything = (slice(None),) * (len(self.all) - 1)
        for place, row in enumerate(self.rows):
            for part in BasicIndexer((slice(row, row + 1), *everything), self.all, self.grid):
                target = (slice(place, place + 1), *part.out_selection[1:])
                yield ChunkProjection(part.chunk_coords, part.chunk_selection, target, part.is_complete_chunk)


class Tensorstore(Case):
    name, package = "tensorstore", "tensorstore"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        import tensorstore

        context = {"data_copy_concurrency": {"limit": THREADS}, "cache_pool": {"total_bytes_limit": 0}}
        where = {"driver": "file", "path": str(write_shards(folder, data))}
        spec = {"driver": "zarr3", "kvstore": where, "context": context, "recheck_cached_data": "open"}
        self.array = tensorstore.open(spec, read=True).result()

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        out[:] = self.array[rows].read().result()


class Zarrista(Case):
    """Rust, a chunk at a time, with the indices of shards kept; in two threads."""

    name, package = "zarrista, chunk by chunk", "zarrista"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        import zarrista

        store = zarrista.store.FilesystemStore(str(write_shards(folder, data)))
        self.array = zarrista.Array.open(store)
        self.caches = [self.array.shard_cache() for _ in range(THREADS)]
        self.pool = ThreadPoolExecutor(THREADS)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        def part(thread: int) -> None:
            for place in range(thread, len(rows), THREADS):
                chunk = self.array.retrieve_subchunk([int(rows[place]), 0, 0], shard_cache=self.caches[thread])
                out[place] = np.asarray(chunk)[0]

        list(self.pool.map(part, range(THREADS)))


class Mds(Case):
    name, package = "MosaicML streaming (MDS), one by one", "streaming"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        from streaming import StreamingDataset

        bench_writing.write_mds(folder, data)
        self.set = StreamingDataset(local=str(folder / "mds"), remote=None, shuffle=False, batch_size=1)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        for place, row in enumerate(rows.tolist()):
            out[place] = self.set[row]["strip"]


class LitData(Case):
    name, package, slow = "LitData, one by one", "litdata", True

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        from litdata import StreamingDataset

        bench_writing.write_litdata(folder, data)
        self.set = StreamingDataset(str(folder / "litdata"))

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        for place, row in enumerate(rows.tolist()):
            out[place] = self.set[row]


class HuggingFace(Case):
    name, package = "Hugging Face datasets (Arrow), list of rows", "datasets"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        import datasets

        feature = datasets.Features({"strip": datasets.Array2D(data.shape[1:], "int16")})
        made = datasets.Dataset.from_generator(
            lambda: ({"strip": strip} for strip in data), features=feature, cache_dir=str(folder / "cache")
        )
        made.save_to_disk(str(folder / "arrow"))
        self.set = datasets.load_from_disk(str(folder / "arrow")).with_format("numpy")

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        out[:] = self.set[rows.tolist()]["strip"]


class WebDataset(Case):
    """Cannot be asked for rows: reads on through shuffled shards and a buffer."""

    name, package = "webdataset, shuffled stream", "webdataset"

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        import webdataset

        folder.mkdir(parents=True, exist_ok=True)
        with webdataset.ShardWriter(str(folder / "%05d.tar"), maxcount=SHARD, verbose=0) as out:
            for row, strip in enumerate(data):
                out.write({"__key__": f"{row:08d}", "strip.npy": strip})
        last = -(-len(data) // SHARD) - 1
        stream = webdataset.WebDataset(f"{folder}/{{00000..{last:05d}}}.tar", shardshuffle=100, empty_check=False)
        self.set = iter(stream.repeat().shuffle(1000).decode())

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        for place in range(len(rows)):
            out[place] = next(self.set)["strip.npy"]


class Hdf5(Case):
    name, package, slow = "h5py, gzip and shuffle, one by one", "h5py", True
    shuffle = True

    def __init__(self, folder: Path, data: NDArray[np.int16]) -> None:
        import h5py

        folder.mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "strips.h5", "w") as file:
            file.create_dataset(
                "strips", data=data, chunks=(1, *data.shape[1:]), compression="gzip", shuffle=self.shuffle
            )
        self.array = h5py.File(folder / "strips.h5")["strips"]

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        for place, row in enumerate(rows.tolist()):
            self.array.read_direct(out, np.s_[row], np.s_[place])


class Hdf5Plain(Hdf5):
    """As h5py compresses when asked for gzip and nothing else."""

    name, shuffle = "h5py, gzip without shuffle, one by one", False


CASES = (
    *(BareCodec, BareCodecThreads, BareCodecProcesses, BarePcodec, BarePcodecProcesses, Ours, OursCompact),
    *(ZarrPython, Zarrs, Tensorstore, Zarrista, Mds, LitData, HuggingFace, WebDataset, Hdf5, Hdf5Plain),
)
LIMITS = (BareCodec, BareCodecThreads, BareCodecProcesses, BarePcodec, BarePcodecProcesses)


def measure(strips: int = STRIPS) -> dict[str, tuple[float, float] | None]:
    """By case: strips a second, and kB a strip on disk; None if its package is not there. Cases take turns."""
    bench_writing.STRIPS = strips
    data = bench_writing.strips()
    blosc.use_threads = False
    rng = np.random.default_rng(0)
    found: dict[str, tuple[float, float] | None] = {case.name: None for case in CASES}
    with tempfile.TemporaryDirectory() as made, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ready = {case.name: case(Path(made) / case.__name__, data) for case in CASES if find_spec(case.package)}
        out = np.zeros((BATCH, *data.shape[1:]), np.int16)
        taken: dict[str, list[float]] = {name: [] for name in ready}
        for turn in range(1 + TURNS):  # the first fills caches and does not count
            for name, case in ready.items():
                size = SLOW_BATCH if case.slow else BATCH
                rows = rng.permutation(strips)[:size]
                start = time.perf_counter()
                case.read(rows, out[:size])
                taken[name] += [size / (time.perf_counter() - start)] if turn else []
        for name, rates in taken.items():
            folder = Path(made) / type(ready[name]).__name__
            size = _bytes(folder if folder.exists() else folder.parent / "array")
            found[name] = (statistics.median(rates), size / strips / 1000)
    return found


def _bytes(folder: Path) -> int:
    """On disk, without the cache that a library keeps beside."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    return sum(os.path.getsize(path) for path in files)


COLUMNS = ("reader", "strips/s", "kB a strip on disk", "ours is so many times as fast", "target")


def rows(found: dict[str, tuple[float, float] | None]) -> list[tuple[str, ...]]:
    ours, packed = found[Ours.name], found[OursCompact.name]
    assert ours is not None
    targets = {name: f"{ratio:g}" for name, ratio in TARGETS.items()}
    table = []
    for case in CASES:
        measured = found[case.name]
        if measured is None:
            table.append((case.name, "not installed", "", "", ""))
            continue
        rate, size = measured
        on_disk = "" if case in LIMITS else f"{size:.1f}"
        table.append((case.name, f"{rate:,.0f}", on_disk, f"{ours[0] / rate:.2f}", targets.get(case.name, "")))
    of_lz4 = share(ours, found[BareCodecProcesses.name])
    of_pcodec = share(packed, found[BarePcodecProcesses.name])
    derived = [("ours, of two processes of lz4 alone", of_lz4, LIMIT_TARGETS["lz4"])]
    derived += [("pcodec, of two processes of pcodec alone", of_pcodec, LIMIT_TARGETS["pcodec"])]
    derived += [("pcodec, times h5py with gzip and shuffle", share(packed, found[Hdf5.name]), COMPACT_TARGET)]
    return table + [(name, "", "", f"{ratio:.2f}", f"{target:g}") for name, ratio, target in derived]


def share(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float:
    return one[0] / other[0] if one and other else float("nan")


@pytest.mark.shared
def test_random_batches(benchmark):
    if not bench_writing.RECORDS.is_dir():
        pytest.skip("PTB-XL is not beside the repository")
    found = benchmark.pedantic(measure, rounds=1)
    print("\n" + results.table(COLUMNS, rows(found)))
    ours, peer = found[Ours.name], found[ZarrPython.name]
    assert ours is not None
    assert peer is not None
    assert ours[0] >= TARGETS[ZarrPython.name] * peer[0]


PACKAGES = (
    *("ecgcohorts", "numcodecs", "pcodec", "zarr", "zarrs", "tensorstore", "zarrista", "mosaicml-streaming", "litdata"),
    *("datasets", "webdataset", "h5py"),
)

if __name__ == "__main__":
    results.tell(__file__, COLUMNS, rows(measure()), PACKAGES)
