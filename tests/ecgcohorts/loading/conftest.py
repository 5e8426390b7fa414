"""A store in memory, for adapters to hand on."""

from collections.abc import Callable

import numpy as np
import pytest

from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import Cut, Store
from ecgcohorts.samplers import InDistributionBatchSampler

TINY = CAPE_V1.changed("tiny", Cut(strip_s=1.0, window_s=0.5), Store(lsb_uv=2.0))
PATIENTS = 40


class ArrayStore:
    """Two cohorts, two records of each patient, in memory."""

    recipe, lsb_uv = TINY, TINY.lsb_uv

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.strips = rng.integers(-999, 999, (2 * PATIENTS, 8, TINY.strip_samples)).astype(np.int16)
        columns = {name: np.zeros(2 * PATIENTS, dtype) for name, dtype in COLUMNS.items()}
        columns["row"] = np.arange(2 * PATIENTS)
        columns["patient"] = np.repeat(np.arange(PATIENTS), 2)
        columns["cohort"] = (columns["patient"] >= PATIENTS // 2).astype(np.int32)
        columns["valid_stop"][:] = TINY.strip_samples
        self.index = CohortIndex(columns, ("a", "b"))

    def read_windows(self, rows, first, length, out, targets, threads) -> None:
        for row, start, n, target in zip(rows, first, length, targets, strict=True):
            out[target, :, :n], out[target, :, n:] = self.strips[row, :, start : start + n], -32768


@pytest.fixture
def store() -> ArrayStore:
    return ArrayStore()


@pytest.fixture
def build_sampler(store) -> Callable[..., InDistributionBatchSampler]:
    return lambda seed=0: InDistributionBatchSampler(store.index, pairs=5, seed=seed)


@pytest.fixture
def sampler(build_sampler) -> InDistributionBatchSampler:
    return build_sampler()
