"""Strips to a durable shard, ours against zarr-python, LitData and MosaicML's MDS, in one run: `make bench`.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_writing.py [--save]

All write the same 4,096 strips of 8 leads x 4,000 samples (real PTB-XL shapes) from memory, one process, one thread. Ours
checks each record with crc32c, sums the file with SHA-256 and flushes it to disk (fsync); the others do none of these.
zarr-python writes the same array with the same codecs, one shard a call. LitData and MDS write the raw bytes of each strip
as it is in their format. Wall time, best of some turns; MB are of raw int16.
"""

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

sys.path.append(str(Path(__file__).parent))
import results

from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers.wfdb import reader as wfdb
from ecgcohorts.store.writer import ShardWriter

RECORDS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ptb_xl" / "records500"
STRIPS, SHARD = 4096, 1024
TURNS = 3
TARGETS = {"zarr-python": 2.5, "LitData": 3.0, "MDS": 3.0}


def strips() -> NDArray[np.int16]:
    """(4096, 8, 4000) int16 of real shapes, no two alike."""
    paths = sorted(RECORDS.rglob("*.hea"))[:128]
    real = np.stack([make_strip(next(wfdb.read(path)), CAPE_V1, 50.0, False).samples for path in paths])
    rng = np.random.default_rng(0)
    made = np.empty((STRIPS, *real.shape[1:]), np.int16)
    for row in range(STRIPS):
        made[row] = np.rint(np.roll(real[row % len(real)], rng.integers(4000), axis=1) * rng.uniform(0.8, 1.2))
    return made


def write_ours(folder: Path, data: NDArray[np.int16]) -> None:
    for first in range(0, len(data), SHARD):
        with ShardWriter(folder / f"{first}", SHARD, data.shape[1:]) as shard:
            for strip in data[first : first + SHARD]:
                shard.append(strip)


def write_zarr(folder: Path, data: NDArray[np.int16]) -> None:
    array = zarr.create_array(
        folder / "array",
        shape=data.shape,
        chunks=(1, *data.shape[1:]),
        shards=(SHARD, *data.shape[1:]),
        dtype="int16",
        compressors=[BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
    )
    for first in range(0, len(data), SHARD):
        array[first : first + SHARD] = data[first : first + SHARD]


def write_litdata(folder: Path, data: NDArray[np.int16]) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder / "litdata"), chunk_bytes=64 << 20)
    for row, strip in enumerate(data):
        writer[row] = strip
    writer.done()


def write_mds(folder: Path, data: NDArray[np.int16]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder / "mds"), columns={"strip": f"ndarray:int16:{data.shape[1]},{data.shape[2]}"}) as out:
        for strip in data:
            out.write({"strip": strip})


WRITERS: dict[str, Callable[[Path, NDArray[np.int16]], None]] = {
    "ecgcohorts": write_ours,
    "zarr-python": write_zarr,
    "LitData": write_litdata,
    "MDS": write_mds,
}


def measure() -> dict[str, tuple[float, int]]:
    """By writer: MB/s of raw int16, and bytes on disk. A writer that is not installed is left out."""
    data = strips()
    blosc.use_threads = False
    best: dict[str, tuple[float, int]] = {}
    for _ in range(TURNS):
        for name, write in WRITERS.items():
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                start = time.perf_counter()
                try:
                    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                        write(folder, data)
                except ImportError:
                    continue
                rate = data.nbytes / 1e6 / (time.perf_counter() - start)
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                best[name] = max(best.get(name, (0.0, 0)), (rate, size))
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
    return best


def rows(found: dict[str, tuple[float, int]]) -> list[tuple[str, ...]]:
    ours = found["ecgcohorts"][0]
    table = []
    for name in WRITERS:
        if name not in found:
            table.append((name, "not installed", "", "", ""))
            continue
        rate, size = found[name]
        target = f"{TARGETS[name]:g}" if name in TARGETS else ""
        table.append((name, f"{rate:.0f}", f"{size / STRIPS / 1000:.1f}", f"{ours / rate:.1f}", target))
    return table


COLUMNS = ("writer", "MB/s of raw int16", "kB a strip on disk", "ours is so many times as fast", "target")


@pytest.mark.shared
def test_writing(benchmark, tmp_path):
    if not RECORDS.is_dir():
        pytest.skip("PTB-XL is not beside the repository")
    found = measure()
    print("\n" + results.table(COLUMNS, rows(found)))
    data = strips()[:SHARD]
    benchmark.pedantic(write_ours, args=(tmp_path, data), rounds=3)
    benchmark.extra_info |= {name: round(rate) for name, (rate, _) in found.items()}
    assert found["ecgcohorts"][0] > found["zarr-python"][0]


if __name__ == "__main__":
    packages = ("ecgcohorts", "zarr", "numcodecs", "litdata", "mosaicml-streaming")
    results.tell(__file__, COLUMNS, rows(measure()), packages)
