"""The published runs: arXiv 2509.10369. All numbers are defaults of the specs, which name their sources.

Published cost: 478,400 steps of 1,024 ECGs, 167 h on one RTX 3090 for four cohorts of 5.2 million ECGs.
"""

from capezoo.specs.run import RunConfig, SamplerSpec


def _cape_x(seed: int) -> RunConfig:
    """CAPE-X: cohorts mixed in every batch."""
    return RunConfig(name="cape_x", seed=seed, sampler=SamplerSpec(name="patient_pairs"))


def _cape_z(seed: int) -> RunConfig:
    """CAPE-Z: every batch from one cohort."""
    return RunConfig(name="cape_z", seed=seed, sampler=SamplerSpec(name="in_distribution"))


def _cape_single(seed: int, cohort: str) -> RunConfig:
    """CAPE-B, -C, -S, -V: one cohort alone."""
    return RunConfig(name=f"cape_{cohort}", seed=seed, cohorts=(cohort,), sampler=SamplerSpec(name="in_distribution"))


RUNS = {"cape_x": _cape_x, "cape_z": _cape_z, "cape_single": _cape_single}
