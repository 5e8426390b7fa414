"""Runs of what tests/test_adding_things.py adds: four steps each, of a few recordings."""

from typing import Any

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec, HeldOutSpec, ObjectiveSpec, ProbeSpec, RunConfig, SamplerSpec, ViewSpec


def _slow_copy(seed: int) -> RunConfig:
    """A teacher, two recordings of a patient, flipped."""
    return _four_steps("added_slow_copy", seed, ObjectiveSpec(name="slow_copy"), SamplerSpec(groups=4))


def _next_token(seed: int) -> RunConfig:
    """Tokens, one window of a recording."""
    sampler = SamplerSpec(groups=4, pairing="record", views=1)
    return _four_steps("added_next_token", seed, ObjectiveSpec(name="next_token"), sampler)


def _four_steps(name: str, seed: int, objective: ObjectiveSpec, sampler: SamplerSpec) -> RunConfig:
    values: dict[str, Any] = {"name": name, "seed": seed, "objective": objective, "sampler": sampler}
    return RunConfig(
        **values,
        encoder=EncoderSpec(name="patches"),
        input=InputSpec(rate_hz=125.0, length=500, recipe="plain-125"),
        views=(ViewSpec(name="flip"),),
        held_out=HeldOutSpec(fraction=0.3, every_steps=2, batches_per_cohort=1),
        probes=ProbeSpec(patients=0),
        max_steps=4,
        log_every=1,
        curves=False,
    )


RUNS = {"added_slow_copy": _slow_copy, "added_next_token": _next_token}
