"""One worker process against two, the same ingest: how much of the second core is used.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_scaling.py WORK [--records 8192] [--save]

Runs take turns; the best of each counts. Efficiency is the time of one worker over twice the time of two. Beside it the
machine's own ceiling, the same for two processes that share nothing: each encodes half of the recordings, and is timed once
both are up. Cores of one chip share cache, clock and memory, and this arithmetic needs all three.
"""

import argparse
import multiprocessing
import shutil
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import corpus
import numpy as np
import results

from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers.wfdb import reader as wfdb
from ecgcohorts.store.signals.chunks import encode_chunk

TURNS, SHARD = 3, 512
TARGET = 0.9
CEILING = "two processes that share nothing"
COLUMNS = ("what", "1 worker, s", "2 workers, s", "efficiency", "target")


def encode_seconds(work: Path, records: int, workers: int) -> tuple[float, float]:
    """Wall time of a whole ingest, and of its encoding alone."""
    store = work / f"scaling_{workers}.zarr"
    shutil.rmtree(store, ignore_errors=True)
    ticks: list[float] = []
    options = IngestOptions(workers=workers, limit=records, shard_records=SHARD, key_file=work / "key")
    start = time.perf_counter()
    ingest(
        work / "raw", store, str(work / "large.yaml"), options, progress=lambda *_: ticks.append(time.perf_counter())
    )
    return time.perf_counter() - start, ticks[-1] - ticks[0]


def make_strips(paths: list[str]) -> None:
    """What a worker does for each recording, but for the writing."""
    for path in paths:
        recording = next(wfdb.read(Path(path)))
        encode_chunk(make_strip(recording, CAPE_V1, 50.0).samples)
        _ = recording.waveform_digest


def apart_seconds(paths: list[str], workers: int) -> float:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(make_strips, [paths[:8]] * workers, chunksize=1)  # the processes are up, their filters designed
        start = time.perf_counter()
        pool.map(make_strips, [paths[number::workers] for number in range(workers)], chunksize=1)
        return time.perf_counter() - start


def measure(work: Path, records: int) -> list[tuple[str, ...]]:
    best: dict[tuple[str, int], float] = {}
    paths = sorted(map(str, (work / "raw").rglob("*.hea")))[:records]
    for _ in range(TURNS):
        for workers in (1, 2):
            whole, encoding = encode_seconds(work, records, workers)
            taken = {"whole ingest": whole, "encoding": encoding, CEILING: apart_seconds(paths, workers)}
            for what, seconds in taken.items():
                best[what, workers] = min(seconds, best.get((what, workers), np.inf))
    rows = []
    for what in ("whole ingest", "encoding", CEILING):
        one, two = best[what, 1], best[what, 2]
        rows.append((what, f"{one:.1f}", f"{two:.1f}", f"{one / two / 2:.2f}", ""))
    reached, possible = (best[what, 1] / best[what, 2] for what in ("encoding", CEILING))
    return [*rows, ("encoding, of the ceiling", "", "", f"{reached / possible:.2f}", f"{TARGET:g}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--records", type=int, default=8192)
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    corpus.write_corpus(asked.work, asked.records)
    rows = measure(asked.work, asked.records)
    print(results.table(COLUMNS, rows))
    if asked.save:
        command = f"python tests/benchmarks/bench_scaling.py WORK --records {asked.records} --save"
        results.keep("scaling", command, COLUMNS, rows, ("ecgcohorts", "numpy", "scipy", "numcodecs"))


if __name__ == "__main__":
    main()
