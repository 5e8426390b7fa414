"""What goes into a run and what comes out, as frozen values that go to JSON and back to an equal object."""

from capezoo.specs.base import SHA256, AnySpec, PartSpec, Share, Spec, derive_seed, fingerprint, parse
from capezoo.specs.card import CohortUse, Golden, Metric, Training, WeightCard
from capezoo.specs.input import InputSpec
from capezoo.specs.run import (
    ComputeSpec,
    EncoderSpec,
    HeldOutSpec,
    ObjectiveSpec,
    OptimiserSpec,
    ProbeSpec,
    RunConfig,
    SamplerSpec,
    ViewSpec,
)

__all__ = [
    "SHA256",
    "AnySpec",
    "CohortUse",
    "ComputeSpec",
    "EncoderSpec",
    "Golden",
    "HeldOutSpec",
    "InputSpec",
    "Metric",
    "ObjectiveSpec",
    "OptimiserSpec",
    "PartSpec",
    "ProbeSpec",
    "RunConfig",
    "SamplerSpec",
    "Share",
    "Spec",
    "Training",
    "ViewSpec",
    "WeightCard",
    "derive_seed",
    "fingerprint",
    "parse",
]
