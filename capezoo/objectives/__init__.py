"""Objectives, one method a file: `Config` (a spec) and `Objective(config, encoder_dim)` with `needs`.

`Objective.forward(encoder, batch)` returns a scalar loss; a method with a teacher also has `after_step(encoder)`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from capezoo.specs import ObjectiveSpec, parse
from ecgcohorts import plugins

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Needs:
    """What a method asks of the trainer."""

    views: int  # recordings or crops per patient in a batch
    token_mask: bool = False  # parts of the input hidden from the encoder
    teacher: bool = False  # a slow copy of the encoder, moved by `after_step`


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """What an objective is given: views of one rank's patients, perturbed, on the device."""

    signal: "Tensor"  # float32 (batch, view, lead, time) in mV


def build(spec: ObjectiveSpec, encoder_dim: int, seed: int) -> "nn.Module":
    """Return a randomly initialised objective. Its weights depend on the arguments; no global generator is touched.

    Raises SpecError for an unknown objective or config key.
    """
    import torch

    module = plugins.load("capezoo.objectives", spec.name)
    config = parse(module.Config, spec.config, f"objective {spec.name}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return cast("nn.Module", module.Objective(config, encoder_dim))
