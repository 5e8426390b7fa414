"""From the store to batches of windows, beside a DataLoader as people write it, in one run: `make bench`.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_loading.py [--save]

Batches of 512 pairs of 7 s windows (8 x 2,800 samples) out of 8,192 strips of real PTB-XL shapes, patients with 4.3
recordings on the average, most of them few (log-normal); warm page cache. Loaders take turns, one epoch each; windows a
second of wall time, median. Then what one batch of 128 pairs reads, counted: 128 of some 1,900 patients, so that few of
them are neighbours.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parent))
import bench_peers
import bench_writing
import results

from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.loading.loader import Loader
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.samplers import PatientPairSampler
from ecgcohorts.store.signals.shards import ShardedArray, Windows

STRIPS, PAIRS, FEW_PAIRS, WINDOW, TURNS = 8192, 512, 128, 2800, 5
LOG_MEAN, LOG_SD = 1.1, 0.85  # of recordings a patient: median 3, mean 4.3, as in the CAPE cohorts
SLOW_WINDOWS = 512  # asked of those that take a millisecond each
COLD_TARGETS = {"reads a pair": "1.2", "bytes read over bytes needed": "2"}
WARM_BYTES_TARGET = "1.1"


class OneArray(SimpleNamespace):
    """A signal array as a store."""

    recipe, lsb_uv = CAPE_V1, 1.0

    def __init__(self, array: ShardedArray) -> None:
        counts = np.maximum(1, np.rint(np.random.default_rng(0).lognormal(LOG_MEAN, LOG_SD, STRIPS)).astype(np.int64))
        patient = np.repeat(np.arange(STRIPS), counts)[: len(array)]
        columns = {name: np.zeros(len(array), dtype) for name, dtype in COLUMNS.items()}
        columns |= {"row": np.arange(len(array)), "patient": patient.astype(COLUMNS["patient"])}
        columns["valid_stop"] = np.full(len(array), CAPE_V1.strip_samples, np.int32)
        super().__init__(index=CohortIndex(columns, ("one",)), array=array)

    def read_windows(
        self,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        length: NDArray[np.int64],
        out: NDArray[np.int16],
        targets: NDArray[np.int64] | None = None,
        threads: int | None = None,
    ) -> None:
        self.array.read_into(rows, out, targets, Windows(first, length), threads)


class PlainDataset(torch.utils.data.Dataset[torch.Tensor]):
    """What one writes first: a strip by its number, and a crop."""

    def __init__(self, array: object) -> None:
        self.array = array

    def __len__(self) -> int:
        return STRIPS

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.array[row])[:, :WINDOW].copy())  # type: ignore[index]


def windows_of(loader: Loader) -> int:
    return sum(batch.signal.shape[0] * batch.signal.shape[1] for batch in loader)


def plain(array: object, windows: int) -> Callable[[], int]:
    made = torch.utils.data.DataLoader(PlainDataset(array), batch_size=SLOW_WINDOWS, shuffle=True)
    return lambda: sum(len(batch) for batch in itertools.islice(made, windows // SLOW_WINDOWS))


def reads_of(array: ShardedArray, warm: bool) -> tuple[float, float]:
    """Reads a pair, and bytes read over bytes needed, of one batch, whose bytes are in memory or are not."""
    store = OneArray(array)
    loader = Loader(store, PatientPairSampler(store.index, FEW_PAIRS, seed=0), prefetch=0)
    rows = loader.sampler.plan(0, 0).rows
    array.read(rows.ravel())  # the indices of all shards, which are read once
    needed = sum(len(array.encoded(row)) for row in np.unique(rows).tolist())
    asked: list[int] = []
    real = array.place.read_into

    def read_into(name: str, start: int, out: memoryview) -> int:
        asked.append(len(out))
        return real(name, start, out)

    array.place.read_into = read_into  # type: ignore[method-assign]
    array.place.in_memory = lambda *_: warm  # type: ignore[method-assign]
    loader.load(0, 0)
    del array.place.read_into, array.place.in_memory
    return len(asked) / FEW_PAIRS, sum(asked) / needed


COLUMNS_TOLD = ("what", "measured", "target")


def measure() -> list[tuple[str, ...]]:
    bench_writing.STRIPS = STRIPS
    data = bench_writing.strips()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        arrays = {
            "lz4": bench_peers.Ours(folder / "lz4", data).array,
            "pcodec": bench_peers.OursCompact(folder / "pcodec", data).array,
        }
        np.save(folder / "raw.npy", data)
        stores = {codec: OneArray(array) for codec, array in arrays.items()}
        loaders: dict[str, Callable[[], int]] = {
            f"Loader, {codec}": lambda store=store: windows_of(
                Loader(store, PatientPairSampler(store.index, PAIRS, seed=0))
            )  # type: ignore[misc]
            for codec, store in stores.items()
        }
        reference = zarr.open_array(folder / "array", mode="r")
        loaders["DataLoader over zarr-python, strip by strip"] = plain(reference, SLOW_WINDOWS)
        loaders["DataLoader over a raw file in memory map"] = plain(np.load(folder / "raw.npy", mmap_mode="r"), 4096)
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for turn in range(1 + TURNS):  # the first fills caches and does not count
            for name, load in loaders.items():
                start = time.perf_counter()
                windows = load()
                rates[name] += [windows / (time.perf_counter() - start)] if turn else []
        table = [(f"{name}, windows/s", f"{statistics.median(found):,.0f}", "") for name, found in rates.items()]
        return table + [row for codec, array in arrays.items() for row in counted(codec, array)]


def counted(codec: str, array: ShardedArray) -> Iterator[tuple[str, ...]]:
    for (name, target), value in zip(COLD_TARGETS.items(), reads_of(array, warm=False), strict=True):
        yield f"{name}, from disk, {codec}", f"{value:.2f}", f"at most {target}"
    reads, over = reads_of(array, warm=True)
    yield f"reads a pair, in memory, {codec}", f"{reads:.2f}", ""
    yield f"bytes read over bytes needed, in memory, {codec}", f"{over:.2f}", f"at most {WARM_BYTES_TARGET}"


@pytest.mark.shared
def test_loading(benchmark):
    if not bench_writing.RECORDS.is_dir():
        pytest.skip("PTB-XL is not beside the repository")
    rows = benchmark.pedantic(measure, rounds=1)
    print("\n" + results.table(COLUMNS_TOLD, rows))
    for name, value, target in rows:
        if target:
            assert float(value) <= float(target.removeprefix("at most ")), name


if __name__ == "__main__":
    results.tell(__file__, COLUMNS_TOLD, measure(), ("ecgcohorts", "numcodecs", "pcodec", "zarr", "torch"))
