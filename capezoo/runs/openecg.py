"""OpenECG: methods on 12 leads of 10 s, 100 Hz, whole recordings of all cohorts mixed. Source: arXiv 2503.00711.

The paper states networks, methods, masks of 100 of 1000 points, and no other number: rates, batches, views' chances and
the sampling rate are ours. The `_small` variants are ours, too, for two CPU cores.
"""

from functools import partial
from typing import Any

from capezoo.specs.input import InputSpec
from capezoo.specs.run import (
    EncoderSpec,
    HeldOutSpec,
    ObjectiveSpec,
    OptimiserSpec,
    ProbeSpec,
    RunConfig,
    SamplerSpec,
    ViewSpec,
)

_METHODS = ("simclr", "byol")
# The two masks of the paper. A recording is as long as the window, so two views differ by them alone.
_MASKS = (ViewSpec(name="zero_span", config={"samples": [100, 100]}), ViewSpec(name="lead_spans"))
# Heads for a narrow encoder; with BYOL's momentum 0.996 the teacher would lag behind so few steps.
_SMALL_HEADS: dict[str, dict[str, Any]] = {
    "simclr": {},
    "byol": {"hidden": 256, "projection": 64, "momentum": 0.99},
}


def _published(objective: str, seed: int) -> RunConfig:
    """ResNet-50 with 15,959,168 parameters."""
    return RunConfig(
        name=f"openecg_{objective}",
        seed=seed,
        encoder=EncoderSpec(name="resnet50_1d", config={"in_leads": 12}),
        objective=ObjectiveSpec(name=objective),
        input=InputSpec(recipe="plain-100", length=1000),
        sampler=SamplerSpec(name="random_batches", pairing="record", groups=256),
        views=_MASKS,
        optimiser=OptimiserSpec(lr=1e-3, eps=1e-8, epsilon="torch", warmup_steps=1000),
        epochs=100,
    )


def _small(objective: str, seed: int) -> RunConfig:
    """The same with an eighth of the width, batches of 32, and 500 steps."""
    changes = {
        "name": f"openecg_{objective}_small",
        "encoder": EncoderSpec(name="resnet50_1d", config={"in_leads": 12, "embedding_dim": 256}),
        "objective": ObjectiveSpec(name=objective, config=_SMALL_HEADS[objective]),
        "sampler": SamplerSpec(name="random_batches", pairing="record", groups=32),
        "held_out": HeldOutSpec(every_steps=100, batches_per_cohort=2),
        "optimiser": OptimiserSpec(lr=1e-3, eps=1e-8, epsilon="torch"),
        "probes": ProbeSpec(every_steps=100),
        "epochs": 1_000_000,  # `max_steps` ends the run, however few recordings there are
        "max_steps": 500,
        "checkpoint_every": 100,
    }
    return RunConfig.model_validate(dict(_published(objective, seed)) | changes)


RUNS = {f"openecg_{name}": partial(_published, name) for name in _METHODS} | {
    f"openecg_{name}_small": partial(_small, name) for name in _METHODS
}
