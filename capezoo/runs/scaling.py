"""The scaling study of AI4HealthUOL: five objectives, state spaces or a transformer, 12 leads at 240 Hz, crops of 2.5 s.

Source: arXiv 2605.12241 and its public code, from which the numbers are read. Its corpus is one; here cohorts are mixed.
The `_small` variants are ours, for two CPU cores.
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
)
from capezoo.specs.scaling import Normalisation

_OBJECTIVES = ("cpc", "data2vec", "dinosr", "hubert_sinkhorn", "jepa")
# A head learns at lr, layers and mask token at a tenth of it, the stem at a hundredth: the public code applies the
# factors of fine-tuning to pretraining, too. `encoder` covers the layers, the longer `encoder.stem` the stem.
_FACTORS = {"encoder": 0.1, "encoder.stem": 0.01}


def _published(objective: str, seed: int, encoder: str = "s4") -> RunConfig:
    """One objective at the study's numbers."""
    causal = objective == "cpc"
    # The study scales by constants of its first data set, except for CPC. Plain recipes keep no such constants: ours is
    # the scaling of each lead of a window.
    normalisation: Normalisation = "none" if causal else "window_lead_z"
    return RunConfig(
        name=f"scaling_{objective}" if encoder == "s4" else f"scaling_{objective}_transformer",
        seed=seed,
        encoder=EncoderSpec(name=encoder, config={"in_leads": 12, "causal": causal}),
        objective=ObjectiveSpec(name=objective),
        input=InputSpec(recipe="plain-240", normalisation=normalisation),
        sampler=SamplerSpec(name="random_batches", pairing="record", views=1, groups=64),
        views=(),
        optimiser=OptimiserSpec(
            kind="adamw",
            lr=3e-3,
            eps=1e-8,
            epsilon="torch",
            schedule="constant",
            weight_decay=1e-3,
            rate_factors=_FACTORS if causal else _FACTORS | {"objective.mask_token": 0.1},
        ),
        epochs=10,
    )


def _small(objective: str, seed: int) -> RunConfig:
    """The same with a narrow encoder, batches of 32, and 500 steps."""
    causal = objective == "cpc"
    # With momentum 0.9996 a teacher would go a fifth of the way in so few steps.
    moves: dict[str, Any] = {} if causal else {"momentum": 0.99}
    # Dropout takes whole channels, and of 64 there are fewer to spare than of 512: with 0.2 a probe of JEPA for age erred by
    # 14.7 years after 200 steps, and by 13.6 without.
    config: dict[str, Any] = {"in_leads": 12, "width": 64, "dropout": 0.0, "causal": causal}
    changes = {
        "name": f"scaling_{objective}_small",
        "encoder": EncoderSpec(name="s4", config=config),
        "objective": ObjectiveSpec(name=objective, config=moves),
        "sampler": SamplerSpec(name="random_batches", pairing="record", views=1, groups=32),
        "held_out": HeldOutSpec(every_steps=100, batches_per_cohort=2),
        "probes": ProbeSpec(every_steps=100),
        "epochs": 1_000_000,  # `max_steps` ends the run, however few recordings there are
        "max_steps": 500,
        "checkpoint_every": 100,
    }
    run = _published(objective, seed)
    # With a hundredth of the rate the stem would end as it began. An encoder that learns as fast as the head runs after its
    # teacher: after 200 steps of JEPA the effective rank was 3 of 64 so, 14 with a tenth, and 6 untrained. CPC has no teacher.
    factors = {} if causal else {"encoder": 0.1, "objective.mask_token": 0.1}
    changes["optimiser"] = run.optimiser.model_copy(update={"rate_factors": factors})
    return RunConfig.model_validate(dict(run) | changes)


# The study compares encoders, too. Its CNN is Net1D, which leaves 5 contexts of 600 samples: fewer than one span or block.
RUNS = (
    {f"scaling_{name}": partial(_published, name) for name in _OBJECTIVES}
    | {f"scaling_{name}_transformer": partial(_published, name, encoder="transformer1d") for name in _OBJECTIVES}
    | {f"scaling_{name}_small": partial(_small, name) for name in _OBJECTIVES}
)
