"""Plans, reads and batches against what others do, in one run: `make bench`.

Targets hold for two cores of a 2020s server; ratios to a peer measured in the same run are what counts elsewhere.
Every row prints its ratio in the column of extra information.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ecgcohorts.index import COLUMNS, CohortIndex
from ecgcohorts.loader import Loader
from ecgcohorts.recipes import CAPE_V1
from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler
from ecgcohorts.samplers.roster import Roster
from ecgcohorts.store.shards import ShardedArray, Windows

PATIENTS, MEAN_RECORDS = 1_200_000, 4.3  # BCSV: 1,224,880 patients, 4.25 recordings each
STORED, SHARD, BATCH = 4096, 1024, 1024


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """Best of some runs."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


# --- samplers ---


@pytest.fixture(scope="module")
def roster() -> Roster:
    counts = 1 + np.random.default_rng(0).geometric(1 / (MEAN_RECORDS - 1), PATIENTS)
    ptr = np.concatenate([[0], np.cumsum(counts)])
    cohort = (np.arange(PATIENTS) * 4 // PATIENTS).astype(np.int32)
    return Roster(np.arange(ptr[-1]), ptr, cohort, ("bidmc", "code", "shzs", "vumc"))


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler])
def test_build_from_an_index(benchmark, roster, sampler_class):
    benchmark.extra_info["target_ms"] = 20
    benchmark(sampler_class, roster, pairs=512, seed=0)


def test_build_from_an_unsorted_table(benchmark, roster):
    shuffle = np.random.default_rng(1).permutation(len(roster.rows))
    patients = np.repeat(np.arange(PATIENTS), roster.counts)[shuffle]
    benchmark.extra_info["target_s"] = 2
    benchmark.pedantic(
        InDistributionBatchSampler.from_arrays,
        kwargs={"patients": patients, "cohorts": roster.cohort[patients], "pairs": 512, "seed": 0},
        rounds=3,
    )


@pytest.mark.parametrize("sampler_class", [PatientPairSampler, InDistributionBatchSampler])
def test_plan_512_pairs(benchmark, roster, sampler_class):
    """Steps one after another, so that the blocks of the permutation are paid for."""
    sampler = sampler_class(roster, pairs=512, seed=0)
    steps = iter(range(10**9))
    benchmark.extra_info["target_ms"] = 0.3
    benchmark(lambda: sampler.plan(0, next(steps) % len(sampler)))


def test_resume_in_the_middle_of_an_epoch(benchmark, roster):
    saved = InDistributionBatchSampler(roster, pairs=512, seed=0)
    saved.mark_consumed(7, 1200)
    state = saved.state_dict()
    fresh = InDistributionBatchSampler(roster, pairs=512, seed=0)
    benchmark.extra_info |= {
        "target_ms": 5,
        "fingerprint_once_ms": round(1e3 * seconds(lambda: fresh.state_dict(), 1), 1),
    }

    def resume() -> None:
        fresh.load_state_dict(state)
        fresh.plan(*fresh.position)

    benchmark(resume)


def test_peer_m_per_class_sampler(benchmark, roster):
    """pytorch-metric-learning: two records of each of 512 patients, on a tenth of the patients."""
    samplers = pytest.importorskip("pytorch_metric_learning.samplers")
    part = np.repeat(np.arange(PATIENTS // 10), roster.counts[: PATIENTS // 10])
    sampler = samplers.MPerClassSampler(part, m=2, batch_size=1024, length_before_new_iter=10 * 1024)
    ours = PatientPairSampler.from_arrays(patients=part, pairs=512, seed=0)
    per_batch = seconds(lambda: list(sampler), 1) / 10
    steps = iter(range(10**9))
    benchmark(lambda: ours.plan(0, next(steps) % len(ours)))
    benchmark.extra_info["times_peer"] = round(per_batch / benchmark.stats.stats.median)


# --- reader and loader ---


class OneArray(SimpleNamespace):
    """The array below as a store: two records a patient."""

    recipe, lsb_uv = CAPE_V1, 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,096 strips of an ECG-like wave with 3 uV of noise: about 33 KB each, as filtered recordings have."""
    folder = tmp_path_factory.mktemp("bench") / "signals"
    leads, samples = len(CAPE_V1.leads), CAPE_V1.strip_samples
    array = zarr.create_array(
        folder,
        shape=(STORED, leads, samples),
        chunks=(1, leads, samples),
        shards=(SHARD, leads, samples),
        dtype="int16",
        fill_value=-32768,
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2), Crc32cCodec()],
    )
    rng = np.random.default_rng(0)
    beat = np.arange(samples) / CAPE_V1.rate_hz % 0.8
    wave = 1000 * np.exp(-(((beat - 0.4) / 0.02) ** 2)) + 150 * np.exp(-(((beat - 0.65) / 0.05) ** 2))
    for start in range(0, STORED, SHARD):
        strips = wave * rng.uniform(0.2, 1.5, (SHARD, leads, 1)) + rng.normal(0, 3, (SHARD, leads, samples))
        array[start : start + SHARD] = np.rint(strips).astype(np.int16)
    return folder


def test_random_records_direct(benchmark, folder):
    """1,024 random records, warm: at least 30 times zarr-python's own indexing."""
    direct, reference = ShardedArray(folder), zarr.open_array(folder, mode="r")
    rng = np.random.default_rng(0)
    out = np.empty((BATCH, *direct.shape[1:]), np.int16)
    rows = rng.permutation(STORED)[:BATCH]
    expected = reference.oindex[rows]
    direct.read_into(rows, out)
    assert np.array_equal(out, expected)
    peer = seconds(lambda: reference.oindex[rng.permutation(STORED)[:BATCH]])
    benchmark(lambda: direct.read_into(rng.permutation(STORED)[:BATCH], out))
    best = benchmark.stats.stats.min
    benchmark.extra_info |= {"records_per_s": round(BATCH / best), "times_zarr": round(peer / best, 1)}
    assert peer / best >= 30


def test_contiguous_records_direct(benchmark, folder):
    direct = ShardedArray(folder)
    out = np.empty((BATCH, *direct.shape[1:]), np.int16)
    benchmark(direct.read_into, np.arange(500, 500 + BATCH), out)
    benchmark.extra_info["records_per_s"] = round(BATCH / benchmark.stats.stats.min)


def test_loader_epoch(benchmark, folder):
    """Windows of 512 pairs, prefetched, over all records."""
    columns = {name: np.zeros(STORED, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": np.arange(STORED), "patient": np.arange(STORED) // 2}
    columns["valid_stop"] = np.full(STORED, CAPE_V1.strip_samples, np.int32)
    array = ShardedArray(folder)

    def read_windows(rows, first, length, out, targets, threads) -> None:
        array.read_into(rows, out, targets, Windows(first, length), threads)

    store = OneArray(index=CohortIndex(columns, ("one",)), read_windows=read_windows)
    loader = Loader(store, PatientPairSampler(store.index, pairs=512, seed=0))
    benchmark.pedantic(lambda: [len(batch) for batch in loader], rounds=5)
    benchmark.extra_info["records_per_s"] = round(STORED / benchmark.stats.stats.min)
