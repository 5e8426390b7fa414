"""OpenECG: methods on 12 leads of 10 s, 100 Hz, whole recordings of all cohorts mixed. Source: arXiv 2503.00711.

The paper states networks, methods, masks of 100 of 1000 points, and no other number: rates, batches, views' chances and
the sampling rate are ours; MAE's numbers are those of its original. The `_small` variants are ours, too, for two CPU cores.
"""

from collections.abc import Callable
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

_TRAINED_ON = 0.9 * 1_233_337  # recordings of OpenECG, a tenth of them held out here
# Of the usual sizes ViT-Small is the nearest to the ResNet-50 of the other methods: 21.4 and 16.0 million parameters.
_VIT: dict[str, Any] = {"in_leads": 12, "patch": 25, "embedding_dim": 384}
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


def _mae(seed: int) -> RunConfig:
    """Masked autoencoding with ViT-Small: 40 tokens of 0.25 s, 30 of them dropped, and no view but that."""
    batch = 4096
    steps = int(_TRAINED_ON) // batch  # of an epoch
    return RunConfig(
        name="openecg_mae",
        seed=seed,
        encoder=EncoderSpec(name="vit1d", config=_VIT),
        objective=ObjectiveSpec(name="mae"),
        input=InputSpec(recipe="plain-100", length=1000),
        sampler=SamplerSpec(name="random_batches", pairing="record", views=1, groups=batch),
        views=(),
        optimiser=OptimiserSpec(
            kind="adamw",
            lr=1.5e-4 * batch / 256,
            betas=(0.9, 0.95),
            eps=1e-8,
            epsilon="torch",
            warmup_steps=40 * steps,
            weight_decay=0.05,
            # MAE's public code spares norms and biases.
            decay_only_matrices=True,
        ),
        epochs=800,
    )


def _mae_small(seed: int) -> RunConfig:
    """The same with a narrow encoder and decoder, batches of 64, and 1,000 steps."""
    changes = {
        "name": "openecg_mae_small",
        "encoder": EncoderSpec(name="vit1d", config=_VIT | {"embedding_dim": 64, "head_dim": 16, "depth": 4}),
        "objective": ObjectiveSpec(name="mae", config={"width": 64, "depth": 2, "heads": 4}),
        "sampler": SamplerSpec(name="random_batches", pairing="record", views=1, groups=64),
        "optimiser": _mae(seed).optimiser.model_copy(update={"lr": 1e-3, "warmup_steps": 100}),
        "held_out": HeldOutSpec(every_steps=100, batches_per_cohort=2),
        "probes": ProbeSpec(every_steps=100),
        "epochs": 1_000_000,
        "max_steps": 1000,
        "checkpoint_every": 200,
    }
    return RunConfig.model_validate(dict(_mae(seed)) | changes)


RUNS: dict[str, Callable[[int], RunConfig]] = {
    **{f"openecg_{name}": partial(_published, name) for name in _METHODS},
    **{f"openecg_{name}_small": partial(_small, name) for name in _METHODS},
    "openecg_mae": _mae,
    "openecg_mae_small": _mae_small,
}
