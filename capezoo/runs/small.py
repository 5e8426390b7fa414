"""Small runs for a laptop: CAPE's method, and three others on the same footing: crops of a recording, a teacher, tokens.

No number here is published: every one that differs from a default is ours, chosen for speed on two CPU cores.
"""

from typing import Any

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

# Widths are multiples of 16, which a CPU's vector units like; the stem takes every fourth sample, so that the
# costly long layers run at 100 Hz. Twelve times as fast as the published widths at full rate, and 339,808 parameters.
ENCODER = EncoderSpec(config={"widths": [16, 32, 48, 64], "embedding_dim": 64, "stem_stride": 4, "norm_momentum": 0.1})
# 112 tokens of 62.5 ms, less than a QRS complex. Attention looks back only, or there would be nothing to predict.
CAUSAL_VIT = EncoderSpec(
    name="vit1d", config={"patch": 25, "embedding_dim": 64, "head_dim": 32, "depth": 4, "causal": True}
)
# CAPE's 0.1 is for 1,024 ECGs; our default for batches of 32 to 128. Simulated cohorts, 200 steps of 32 pairs, seed 0:
# held-out loss 1.56, 1.05, 1.05, 1.55, 1.92 at 5e-4, 2e-3, 1e-2, 3e-2, 0.1; effective rank 38, 35, 27, 22, 15 of 64.
LR = 2e-3


def _smoke(seed: int) -> RunConfig:
    """A small CAPE-Z; with `sampler.name=patient_pairs` a small CAPE-X."""
    return RunConfig(
        name="smoke",
        seed=seed,
        encoder=ENCODER,
        sampler=SamplerSpec(groups=32),
        optimiser=OptimiserSpec(lr=LR),
        held_out=HeldOutSpec(every_steps=100, batches_per_cohort=2),
        probes=ProbeSpec(every_steps=100),
        epochs=1_000_000,  # `max_steps` ends the run, however few patients there are
        max_steps=500,
        checkpoint_every=100,
    )


def _simclr(seed: int) -> RunConfig:
    """SimCLR: the loss of CAPE on two crops of one recording."""
    changes = {"objective": ObjectiveSpec(name="simclr"), "sampler": SamplerSpec(groups=32, pairing="record")}
    return _like_smoke("simclr_small", seed, changes)


def _byol(seed: int) -> RunConfig:
    """BYOL: a predictor and a slow teacher; nothing repels."""
    changes = {
        "objective": ObjectiveSpec(name="byol", config={"hidden": 256, "projection": 64, "momentum": 0.99}),
        "sampler": SamplerSpec(groups=32, pairing="record"),
        "views": (ViewSpec(name="zero_span"), ViewSpec(name="gain")),
    }
    return _like_smoke("byol_small", seed, changes)


def _cpc(seed: int) -> RunConfig:
    """CPC: 2 tokens, 125 ms, ahead (the source: 117 ms) among 32 others of the recording."""
    changes = {
        "encoder": CAUSAL_VIT,
        "objective": ObjectiveSpec(name="cpc", config={"ahead": 2, "negatives": 32, "reduction": "mean"}),
        "sampler": SamplerSpec(groups=32, pairing="record", views=1),
        "views": (),
    }
    return _like_smoke("cpc_small", seed, changes)


def _like_smoke(name: str, seed: int, changes: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(dict(_smoke(seed)) | {"name": name} | changes)


RUNS = {"smoke": _smoke, "simclr_small": _simclr, "byol_small": _byol, "cpc_small": _cpc}
