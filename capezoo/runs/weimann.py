"""ECG-JEPA of Weimann and Conrad: joint embedding prediction by a vision transformer that is given a fifth of its tokens.

Source: the public code and configurations, kweimann/ECG-JEPA: 12 leads, 10 s at 500 Hz, ten data sets drawn by weights that
it states; here every recording once an epoch, cohorts mixed. The `_small` variant is ours, for one CPU core.
"""

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
)

# ViT-S of the source: 8 blocks, no bias, 200 tokens of 50 ms.
_VIT: dict[str, Any] = {
    **{"in_leads": 12, "patch": 25, "embedding_dim": 384, "depth": 8},
    **{"bias": False, "registers": 1, "positions": "interleaved"},
}


def _jepa(seed: int) -> RunConfig:
    """ViT-S, 14,277,888 parameters, for 100,000 steps of 2,048 recordings."""
    return RunConfig(
        name="weimann_jepa",
        seed=seed,
        encoder=EncoderSpec(name="vit1d", config=_VIT),
        objective=ObjectiveSpec(name="jepa_vit"),
        # The source scales each lead by constants of its data set, and cuts at 5 deviations, which we do not.
        input=InputSpec(recipe="plain-500", length=5000, normalisation="cohort_lead_z"),
        sampler=SamplerSpec(name="random_batches", pairing="record", views=1, groups=2048),
        views=(),
        optimiser=OptimiserSpec(
            kind="adamw",
            lr=1e-3,
            final_lr=1e-6,
            betas=(0.9, 0.99),
            eps=1e-6,
            epsilon="torch",
            warmup_steps=10_000,
            weight_decay=0.01,
            final_weight_decay=0.1,
            # Registers, mask token and norms have one axis each: the source decays weights of layers alone.
            decay_only_matrices=True,
        ),
        epochs=1_000_000,  # `max_steps` ends the run, however few recordings there are
        max_steps=100_000,
    )


def _jepa_small(seed: int) -> RunConfig:
    """The same with a narrow encoder at 100 Hz, batches of 32, and 500 steps."""
    vit = _VIT | {"patch": 10, "embedding_dim": 64, "head_dim": 16, "depth": 4}
    changes: dict[str, Any] = {
        "name": "weimann_jepa_small",
        "encoder": EncoderSpec(name="vit1d", config=vit),
        # With momentum 0.998 a teacher would go two thirds of the way in so few steps.
        "objective": ObjectiveSpec(name="jepa_vit", config={"heads": 4, "momentum": [0.99, 0.999]}),
        # Stores of plain-100 keep no statistics of recordings, from which those of a cohort would come.
        "input": InputSpec(recipe="plain-100", length=1000, normalisation="window_lead_z"),
        "sampler": SamplerSpec(name="random_batches", pairing="record", views=1, groups=32),
        "optimiser": _jepa(seed).optimiser.model_copy(update={"warmup_steps": 50}),
        "held_out": HeldOutSpec(every_steps=100, batches_per_cohort=2),
        "probes": ProbeSpec(every_steps=100),
        "max_steps": 500,
        "checkpoint_every": 100,
    }
    return RunConfig.model_validate(dict(_jepa(seed)) | changes)


RUNS = {"weimann_jepa": _jepa, "weimann_jepa_small": _jepa_small}
