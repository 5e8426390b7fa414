"""Plans as they were when they were first published: a run saved then must go on as it was."""

import hashlib
import json
from pathlib import Path

import numpy as np

from ecgcohorts.samplers import (
    CohortPerRankSampler,
    FixedShareSampler,
    HardNegativeSampler,
    InDistributionBatchSampler,
    MicroBatchSampler,
    PatientPairSampler,
    RampSampler,
    RandomBatchSampler,
)
from ecgcohorts.samplers.planner import BatchPlanner

GOLDEN = Path(__file__).parents[2] / "golden"


def test_plan_order_is_frozen(index):
    """If this fails, saved runs resume to other batches, and published runs cannot be repeated."""
    found = {}
    for sampler in (
        PatientPairSampler(index, pairs=4, seed=7),
        InDistributionBatchSampler(index, pairs=4, seed=7),
        InDistributionBatchSampler(index, pairs=4, seed=7, temperature=0.5, singles="self", views=3),
    ):
        plans = [sampler.plan(epoch, step) for epoch, step in ((0, 3), (5, 0))]
        found[f"{type(sampler).__name__} views={sampler.options.views}"] = [
            [plan.cohort, plan.patients.tolist(), plan.rows.tolist(), plan.offsets.tolist()] for plan in plans
        ]
    assert found == json.loads((GOLDEN / "sampler_plans.json").read_text())


def made_plainly(index) -> dict[str, BatchPlanner]:
    """By what was asked for, the samplers that draw."""
    mixed, grouped = PatientPairSampler, InDistributionBatchSampler
    person = np.arange(index.n_patients) // 2
    return {
        "latest": mixed(index, 8, 7, draw="latest"),
        "gaps": mixed(index, 8, 7, min_gap_days=30, max_gap_days=900),
        "wrap": grouped(index, 8, 7, last="wrap"),
        "pad": grouped(index, 8, 7, last="pad"),
        "weights": grouped(index, 8, 7, weights={"a": 1, "b": 2, "c": 0.5}),
        "identities": grouped(index, 8, 7, identities=person),
        "identities, mixed": mixed(index, 8, 7, identities=person),
        "balance": mixed(index, 8, 7, balance=index["patient"] % 2),
        "texts": mixed.from_arrays(patients=[f"p{k}" for k in index["patient"].tolist()], pairs=8, seed=7),
        "records": RandomBatchSampler(index, 8, 7),
        "records by cohort": RandomBatchSampler(index, 8, 7, by="cohort"),
    }


def made_of_others(index) -> dict[str, BatchPlanner]:
    """By what was asked for, the small samplers that came later."""
    sampler = InDistributionBatchSampler(index, 8, 7)
    return {
        "micro-batches": MicroBatchSampler(sampler, 2),
        "cohort per rank": CohortPerRankSampler(sampler, 2),
        "ramp": RampSampler(sampler, [(0, 0), (1.5, 1)]),
        "shares": FixedShareSampler(index, 8, 7, {"a": 0.75, "*": 0.25}),
        "near": HardNegativeSampler(index, 8, 7, np.outer(np.arange(len(index)) % 17, [1, 2, 3]), neighbourhood=4),
    }


def orders(made: dict[str, BatchPlanner]) -> dict[str, str]:
    """By what was asked for, a digest of all that two epochs plan."""
    found = {}
    for name, sampler in made.items():
        digest = hashlib.sha256()
        for plan in [sampler.plan(epoch, step) for epoch in (0, 1) for step in range(sampler.steps(epoch))]:
            digest.update(f"{plan.cohort}".encode() + plan.patients.astype("<i8").tobytes())
            digest.update(plan.rows.astype("<i8").tobytes() + plan.offsets.astype("<f8").tobytes())
        found[name] = digest.hexdigest()[:16]
    return found


def test_order_under_every_option_is_frozen(index):
    """If this fails, runs with the options it names resume to other batches; see the test above."""
    assert orders(made_plainly(index)) == json.loads((GOLDEN / "sampler_orders.json").read_text())
    assert orders(made_of_others(index)) == json.loads((GOLDEN / "planner_orders.json").read_text())
