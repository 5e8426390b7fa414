"""Batch plans beside the samplers others use, at the size of the CAPE study, in one run: `make bench`.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_samplers.py [--save]

1.2 million patients with 4.3 recordings each, and 3.0 million with 3.7; 512 pairs a batch. From plain arrays: the same table
in random order. Peers: MPerClassSampler of
pytorch-metric-learning draws two recordings of each of 512 patients; RandomSampler of torchdata, the stateful one, goes on
in the middle of an epoch. Wall time, median of the turns.
"""

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parent))
import results

from ecgcohorts.samplers import InDistributionBatchSampler, PatientPairSampler
from ecgcohorts.samplers.roster import Roster

PAIRS, TURNS = 512, 5
STUDY, NEXT = (1_200_000, 5_200_000), (3_000_000, 11_200_000)  # patients, recordings: BCSV, and what comes after
COHORTS = ("bidmc", "code", "shzs", "vumc")
PEER_BATCHES = 10
BUILD_MS, BUILD_MB, PLAN_TIMES, RESUME_TIMES = 50, 25, 400, 1000  # targets
ARRAYS_MS, FIRST_MS = 300, 10  # targets of plain arrays: to build, and the first batch after loading a state


class Size(NamedTuple):
    patients: int
    recordings: int

    def counts(self) -> NDArray[np.int64]:
        """Recordings of each patient: one or more, the rest at random."""
        more = np.random.default_rng(0).integers(0, self.patients, self.recordings - self.patients)
        return 1 + np.bincount(more, minlength=self.patients)

    def roster(self) -> Roster:
        ptr = np.concatenate([[0], np.cumsum(self.counts())])
        cohort = (np.arange(self.patients) * len(COHORTS) // self.patients).astype(np.int32)
        return Roster(np.arange(ptr[-1]), ptr, cohort, COHORTS)

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Patients and cohorts of every recording, as another project has them: in no order."""
        patients = np.random.default_rng(1).permutation(np.repeat(np.arange(self.patients), self.counts()))
        return patients, patients * len(COHORTS) // self.patients


def seconds(call: Callable[[], object], turns: int = TURNS) -> float:
    taken = []
    for _ in range(turns):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def megabytes(call: Callable[[], object]) -> float:
    """What is kept of what `call` makes."""
    tracemalloc.start()
    made = call()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del made
    return kept / 1e6


def plan_s(sampler: PatientPairSampler | InDistributionBatchSampler) -> float:
    """One batch, on the average of an epoch's first 200: blocks of the permutation are paid for."""
    return seconds(lambda: [sampler.plan(0, step) for step in range(200)]) / 200


def m_per_class_s(counts: NDArray[np.int64]) -> float | None:
    if not find_spec("pytorch_metric_learning"):
        return None
    from pytorch_metric_learning.samplers import MPerClassSampler

    labels = np.repeat(np.arange(len(counts)), counts)
    length = PEER_BATCHES * 2 * PAIRS
    sampler = MPerClassSampler(labels, m=2, batch_size=2 * PAIRS, length_before_new_iter=length)
    return seconds(lambda: list(sampler), 3) / PEER_BATCHES


def torchdata_resume_s(recordings: int) -> float | None:
    if not find_spec("torchdata"):
        return None
    from torchdata.stateful_dataloader.sampler import RandomSampler

    half = RandomSampler(range(recordings))
    walk = iter(half)
    for _ in range(recordings // 2):
        next(walk)
    state = walk.state_dict()

    def resume() -> None:
        fresh = iter(RandomSampler(range(recordings)))
        fresh.load_state_dict(state)
        next(fresh)

    return seconds(resume, 3)


def from_arrays_s(size: Size) -> tuple[float, float]:
    """Seconds to build a sampler from plain arrays, and to its first batch after a state was loaded."""
    patients, cohorts = size.table()

    def build() -> InDistributionBatchSampler:
        return InDistributionBatchSampler.from_arrays(patients=patients, cohorts=cohorts, pairs=PAIRS, seed=0)

    sampler = build()
    sampler.mark_consumed(7, len(sampler) // 2)
    state = sampler.state_dict()

    def first(fresh: InDistributionBatchSampler) -> float:
        def resume() -> None:
            fresh.load_state_dict(state)
            next(iter(fresh))

        return seconds(resume, 1)

    return seconds(build), statistics.median([first(build()) for _ in range(TURNS)])


def resume_s(roster: Roster) -> float:
    saved = InDistributionBatchSampler(roster, pairs=PAIRS, seed=0)
    saved.mark_consumed(7, len(saved) // 2)
    state = saved.state_dict()
    fresh = InDistributionBatchSampler(roster, pairs=PAIRS, seed=0)
    fresh.state_dict()  # the fingerprint, once

    def resume() -> None:
        fresh.load_state_dict(state)
        fresh.plan(*fresh.position)

    return seconds(resume)


COLUMNS = ("what", "ours", "peer", "ours is so many times as fast", "target")


def measure() -> list[tuple[str, ...]]:
    study, roster = Size(*STUDY), Size(*STUDY).roster()
    rows: list[tuple[str, ...]] = []

    def add(what: str, ours: float, peer: float | None = None, target: str = "") -> None:
        times = f"{peer / ours:,.0f}" if peer else ""
        rows.append((what, f"{1e3 * ours:.2f} ms", f"{1e3 * peer:,.1f} ms" if peer else "", times, target))

    def build(of: Roster) -> InDistributionBatchSampler:
        return InDistributionBatchSampler(of, pairs=PAIRS, seed=0)

    add("build, 1.2 M patients", seconds(lambda: build(roster)), target="20 ms")
    pairs, mixed = build(roster), PatientPairSampler(roster, pairs=PAIRS, seed=0)
    peer = m_per_class_s(study.counts())
    add("one batch in-distribution, MPerClassSampler", plan_s(pairs), peer, str(PLAN_TIMES))
    add("one batch mixed, MPerClassSampler", plan_s(mixed), peer, str(PLAN_TIMES))
    peer = torchdata_resume_s(study.recordings)
    add("go on at half an epoch, torchdata RandomSampler", resume_s(roster), peer, str(RESUME_TIMES))
    made, first = from_arrays_s(study)
    add("build from plain arrays, 1.2 M patients", made, target=f"{ARRAYS_MS} ms")
    add("first batch of it after loading a state", first, target=f"{FIRST_MS} ms")
    large = Size(*NEXT).roster()
    add("build, 3.0 M patients", seconds(lambda: build(large)), target=f"{BUILD_MS} ms")
    kept = megabytes(lambda: build(large))
    rows.append(("memory of it, without the index", f"{kept:.1f} MB", "", "", f"{BUILD_MB} MB"))
    add("one batch, 3.0 M patients", plan_s(build(large)))
    return rows


def test_samplers(benchmark):
    rows = benchmark.pedantic(measure, rounds=1)
    print("\n" + results.table(COLUMNS, rows))
    by = {row[0]: row for row in rows}
    assert float(by["build, 3.0 M patients"][1].split()[0]) < BUILD_MS
    times = by["one batch in-distribution, MPerClassSampler"][3]
    if not times:
        pytest.skip("pytorch-metric-learning is not installed")
    assert float(times.replace(",", "")) >= PLAN_TIMES


if __name__ == "__main__":
    results.tell(__file__, COLUMNS, measure(), ("ecgcohorts", "numpy", "pytorch-metric-learning", "torchdata", "torch"))
