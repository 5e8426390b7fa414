"""Indices with known numbers of records per patient, made without a store."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex


def make_index(records: Mapping[str, Sequence[int]], seed: int = 0) -> CohortIndex:
    """records: cohort -> number of records of each of its patients. Rows are shuffled, dates ascend in a patient."""
    rng = np.random.default_rng(seed)
    counts = np.concatenate([np.asarray(list(values), int) for values in records.values()])
    patient = np.repeat(np.arange(len(counts)), counts)
    cohort_of_patient = np.repeat(np.arange(len(records)), [len(values) for values in records.values()])
    n = len(patient)
    days = rng.uniform(0, 2000, n)
    days = days[np.lexsort((days, patient))]
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: rng.integers(0, 256, (n, 16)).astype(np.uint8) for name in BYTE_COLUMNS}
    columns |= {
        "row": rng.permutation(n).astype(np.int64),
        "cohort": cohort_of_patient[patient].astype(np.int32),
        "patient": patient.astype(np.int64),
        "days": days.astype(np.float32),
        "valid_stop": np.full(n, 4000, np.int32),
    }
    return CohortIndex(columns, tuple(records))


@pytest.fixture
def index() -> CohortIndex:
    """Three cohorts of 100, 41 and 25 patients with 1 to 6 records; 80, 30 and 20 of them have two or more."""
    return make_index({"a": [1] * 20 + [2, 3, 4, 6] * 20, "b": [1] * 11 + [2, 5, 3] * 10, "c": [1] * 5 + [4] * 20})


@pytest.fixture
def build_index() -> Callable[..., CohortIndex]:
    return make_index
