"""A small run for a laptop: the published method and loss, a network of 0.34 M parameters, small batches.

No number here is published: every one that differs from CAPE's is our default, chosen for speed on two CPU cores.
"""

from capezoo.specs import EncoderSpec, HeldOutSpec, OptimiserSpec, ProbeSpec, RunConfig, SamplerSpec

# Widths are multiples of 16, which a CPU's vector units like; the stem takes every fourth sample, so that the
# costly long layers run at 100 Hz. Twelve times as fast as the published widths at full rate, and 339,808 parameters.
ENCODER = EncoderSpec(config={"widths": [16, 32, 48, 64], "embedding_dim": 64, "stem_stride": 4, "norm_momentum": 0.1})
# CAPE's 0.1 is for 1,024 ECGs; our default for batches of 32 to 128. Simulated cohorts, 200 steps of 32 pairs, seed 0:
# held-out loss 1.56, 1.05, 1.05, 1.55, 1.92 at 5e-4, 2e-3, 1e-2, 3e-2, 0.1; effective rank 38, 35, 27, 22, 15 of 64.
LR = 2e-3


def smoke(seed: int) -> RunConfig:
    """A small CAPE-Z; with `sampler.name=patient_pairs` a small CAPE-X."""
    return RunConfig(
        name="smoke",
        seed=seed,
        encoder=ENCODER,
        sampler=SamplerSpec(pairs=32),
        optimiser=OptimiserSpec(lr=LR),
        held_out=HeldOutSpec(every_steps=100, batches_per_cohort=2),
        probes=ProbeSpec(every_steps=100),
        epochs=1_000_000,  # `max_steps` ends the run, however few patients there are
        max_steps=500,
        checkpoint_every=100,
    )
