"""Raw file to shard bytes on one core, ours against the pipeline in common use, in one run: `make bench`.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_ingest.py [--save]

The peer reads with `wfdb.rdrecord`, resamples and filters with SciPy (the same filters as the recipe) and writes one
chunk of a Zarr array per recording. Both take turns over the same 4,000 recordings, fifty at a time: real PTB-XL recordings
of 500 Hz, no two alike (`corpus.py`), because caches make light of forty files read again and again. Times are CPU times of
this process, the median over recordings. The limit beside a stage is what its indispensable part takes alone: the bytes to
integers, one pair of transforms, SHA-256, blosc.
"""

import hashlib
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs import blosc
from scipy import fft, signal

sys.path.append(str(Path(__file__).parent))
import corpus
import results

from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers.wfdb import reader as wfdb
from ecgcohorts.store.writer import ShardWriter

RECORDS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ptb_xl" / "records500"
DIFFERENT, AT_A_TIME = 4000, 50  # recordings
LEADS = [0, 1, *range(6, 12)]  # I, II, V1-V6 of a PTB-XL record
MAINS_HZ = 50.0
# Times the peer: what is wanted, and what was reached on a shared machine with a margin, below which this fails.
TARGETS, AT_LEAST = (8.0, 6.0), (5.0, 3.0)
STAGES = ("decode", "filter", "quality", "digest", "encode and write")


class Clock:
    """CPU milliseconds by stage."""

    def __init__(self) -> None:
        self._found: defaultdict[str, list[float]] = defaultdict(list)

    def time(self, stage: str, step: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = step()
        self._found[stage].append(1e3 * (time.process_time() - start))
        return result

    def ms(self, stage: str) -> float:
        return statistics.median(self._found[stage])


class Peer:
    """The pipeline in common use, for one folder."""

    def __init__(self, folder: Path, n: int) -> None:
        import zarr

        self._array: Any = zarr.create_array(folder / "peer", shape=(n, 8, 4000), chunks=(1, 8, 4000), dtype="int16")
        band = signal.butter(2, [0.5, 100], "bandpass", fs=400, output="sos")
        self._filter = np.concatenate([band, signal.tf2sos(*signal.iirnotch(MAINS_HZ, 30, fs=400))])

    def ingest(self, row: int, path: Path) -> None:
        import wfdb as package

        record = package.rdrecord(str(path.with_suffix("")))
        resampled = signal.resample_poly(record.p_signal.T[LEADS], 4, 5, axis=1)
        filtered = signal.sosfiltfilt(self._filter, resampled, axis=1)
        self._array[row] = np.rint(1000 * filtered).astype(np.int16)


def ingest(path: Path, shard: ShardWriter, with_quality: bool) -> None:
    recording = next(wfdb.read(path))
    shard.append(make_strip(recording, CAPE_V1, MAINS_HZ, with_quality).samples)
    _ = recording.waveform_digest


def stages(path: Path, shard: ShardWriter, clock: Clock) -> None:
    """Each stage of `ingest` on its own, and its limit."""
    recording = clock.time("decode", lambda: next(wfdb.read(path)))
    strip = clock.time("filter", lambda: make_strip(recording, CAPE_V1, MAINS_HZ, with_quality=False))
    clock.time("both", lambda: make_strip(recording, CAPE_V1, MAINS_HZ))
    clock.time("digest", lambda: recording.waveform_digest)
    clock.time("encode and write", lambda: shard.append(strip.samples))
    raw = path.with_suffix(".dat")
    native = clock.time("decode limit", lambda: np.fromfile(raw, "<i2").reshape(-1, 12).T.astype(np.int32))
    circle = np.resize(native[LEADS].astype(np.float64), (8, 5120))
    clock.time("filter limit", lambda: fft.irfft(fft.rfft(circle)[:, :2049], 4096))
    integers = np.ascontiguousarray(native[LEADS])
    clock.time("digest limit", lambda: hashlib.sha256(integers))
    clock.time("encode and write limit", lambda: blosc.compress(strip.samples, b"lz4", 5, blosc.BITSHUFFLE))


def measure() -> dict[str, float]:
    """CPU milliseconds a recording: "peer", "ours", "ours with quality", and each stage and limit."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's own
        paths = sorted(corpus.write_corpus(Path(name), DIFFERENT).rglob("*.hea"))
        blosc.use_threads = False
        peer = Peer(Path(name), len(paths))
        with ShardWriter(Path(name) / "shard", 3 * len(paths), (8, 4000)) as shard:
            for first in range(0, len(paths), AT_A_TIME):
                block = list(enumerate(paths))[first : first + AT_A_TIME]
                for row, path in block:
                    clock.time("peer", lambda row=row, path=path: peer.ingest(row, path))
                for what, with_quality in (("ours", False), ("ours with quality", True)):
                    for _, path in block:
                        clock.time(what, lambda path=path, q=with_quality: ingest(path, shard, q))
                for _, path in block:
                    stages(path, shard, clock)
    limits = [f"{stage} limit" for stage in STAGES if stage != "quality"]
    names = ["peer", "ours", "ours with quality", "both", *(s for s in STAGES if s != "quality"), *limits]
    found = {name: clock.ms(name) for name in names}
    return found | {"quality": found["both"] - found["filter"]}


COLUMNS = ("stage", "CPU ms a recording", "limit", "times the peer", "target")


def rows(found: dict[str, float]) -> list[tuple[str, ...]]:
    made = []
    for stage in STAGES:
        limit = found.get(f"{stage} limit")
        made.append((stage, f"{found[stage]:.2f}", "" if limit is None else f"{limit:.2f}", "", ""))
    for name, target in zip(("ours", "ours with quality"), TARGETS, strict=True):
        made.append((f"whole, {name}", f"{found[name]:.2f}", "", f"{found['peer'] / found[name]:.1f}", f"{target:g}"))
    return [*made, ("whole, peer", f"{found['peer']:.2f}", "", "", "")]


@pytest.mark.shared
def test_ingest(benchmark):
    """Without and with quality measures, at least so many times the peer."""
    if not RECORDS.is_dir():
        pytest.skip("PTB-XL is not beside the repository")
    found = measure()
    print("\n" + results.table(COLUMNS, rows(found)))
    path = next(RECORDS.rglob("*.hea"))
    benchmark(lambda: make_strip(next(wfdb.read(path)), CAPE_V1, MAINS_HZ))
    benchmark.extra_info |= {name: round(ms, 3) for name, ms in found.items()}
    ratios = (found["peer"] / found["ours"], found["peer"] / found["ours with quality"])
    benchmark.extra_info |= {"times_peer": [round(ratio, 1) for ratio in ratios], "targets": TARGETS}
    assert all(ratio >= least for ratio, least in zip(ratios, AT_LEAST, strict=True))


if __name__ == "__main__":
    results.tell(__file__, COLUMNS, rows(measure()), ("ecgcohorts", "numpy", "scipy", "numcodecs", "wfdb", "zarr"))
