"""Indices with known numbers of records per patient, made without a store; and random tables, with what plans over them keep."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import PlanImpossible
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.samplers.plan import ABSENT, BatchPlan
from ecgcohorts.samplers.planner import BatchPlanner

WORLD_SIZES = (1, 2, 4, 8)
ARRAYS = ("rows", "patients", "is_self", "offsets")


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


@dataclass(frozen=True)
class World:
    """Arrays with one entry per record, in any order: patients 0 .. n - 1, each in one cohort. pairs: multiple of 8."""

    patients: np.ndarray
    cohorts: np.ndarray
    pairs: int
    seed: int
    rng: np.random.Generator

    @classmethod
    def of(cls, seed: int) -> "World":
        rng = np.random.default_rng(seed)
        sizes = rng.integers(12, 60, rng.integers(1, 5))
        cohort = np.repeat(np.arange(len(sizes)), sizes)
        counts = rng.integers(1, 5, len(cohort))
        patients = rng.permutation(np.repeat(rng.permutation(len(cohort)), counts))
        return cls(patients, np.array([f"c{code}" for code in range(len(sizes))])[cohort[patients]], 8, seed, rng)

    def drawing(self) -> dict[str, Any]:
        """Some way to draw records."""
        return {"views": int(self.rng.choice([2, 2, 3])), "singles": str(self.rng.choice(["drop", "drop", "self"]))}

    def eligible(self, views: int = 2, singles: str = "drop") -> dict[str, np.ndarray]:
        """Patients of each cohort who can be drawn."""
        found = {}
        for name in np.unique(self.cohorts).tolist():
            ids, counts = np.unique(self.patients[self.cohorts == name], return_counts=True)
            found[name] = ids[counts >= (views if singles == "drop" else 1)]
        return found

    def cohorts_of(self, plan: BatchPlan) -> set[str]:
        return set(self.cohorts[plan.rows[plan.rows != ABSENT]].tolist())


def epoch_of(planner: BatchPlanner, epoch: int) -> list[BatchPlan]:
    return [planner.plan(epoch, step) for step in range(planner.steps(epoch))]


def same(a: BatchPlan, b: BatchPlan) -> bool:
    return a.cohort == b.cohort and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)


def check_planner(
    build: Callable[[], BatchPlanner], world: World, sizes: tuple[int, ...] = WORLD_SIZES
) -> BatchPlanner:
    """Check what every planner promises, whatever it plans: rows, ranks, and a run that stops anywhere and goes on."""
    planner = build()
    epoch = int(world.rng.integers(0, 4))
    for step, plan in enumerate(epoch_of(planner, epoch)):
        assert (plan.epoch, plan.step) == (epoch, step)
        assert plan.rows.shape == plan.offsets.shape == (planner.pairs, planner.options.views)
        assert (world.patients[plan.rows] == plan.patients[:, None]).all()
        assert len(set(plan.patients.tolist())) == planner.pairs
        distinct = np.array([len(set(rows)) for rows in plan.rows.tolist()])
        assert ((distinct < planner.options.views) == plan.is_self).all()
        assert plan.cohort is None or world.cohorts_of(plan) == {plan.cohort}
    steps = planner.steps(epoch)
    step = int(world.rng.integers(steps))
    whole = planner.plan(epoch, step)
    for size in sizes:
        parts = [planner.plan(epoch, step, rank, size) for rank in range(size)]
        assert {len(part) for part in parts} == {planner.pairs // size}
        for name in ARRAYS:
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, name))
    _stops_and_goes_on(build, epoch, step, sizes[-1])
    return planner


def _stops_and_goes_on(build: Callable[[], BatchPlanner], epoch: int, step: int, size: int) -> None:
    first, again = build().on_rank(size - 1, size), build().on_rank(size - 1, size)
    first.set_epoch(epoch)
    for _, rows in zip(range(step + 1), first, strict=False):
        last = rows
    np.testing.assert_array_equal(last, first.plan(epoch, step, size - 1, size).rows.ravel())
    saved = json.loads(json.dumps(first.state_dict()))
    assert len(json.dumps(saved)) < 1024
    again.load_state_dict(saved)
    assert again.position == first.position
    rest = [rows.tobytes() for rows in again]
    assert rest == [rows.tobytes() for rows in first]
    assert len(rest) == (first.steps(epoch) - step - 1 or first.steps(epoch + 1))


def possible(build: Callable[[], BatchPlanner]) -> BatchPlanner | None:
    """Build a planner, or return None where this world has too few patients for it."""
    try:
        return build()
    except PlanImpossible:
        return None


@pytest.fixture(scope="session")
def worlds() -> SimpleNamespace:
    """The helpers above: pytest's importlib mode has no import by name for helper modules."""
    return SimpleNamespace(
        World=World, check_planner=check_planner, epoch_of=epoch_of, same=same, possible=possible, arrays=ARRAYS
    )
