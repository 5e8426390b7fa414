"""Objectives, one method a file: `Config` (a spec) and `Objective(config, encoder)`, a subclass of `_contract.Objective`."""

from typing import TYPE_CHECKING, cast

import torch

from capezoo.objectives._contract import Losses, Needs, Objective, ViewBatch, check
from capezoo.objectives._perceptron import perceptron
from capezoo.objectives._schedules import half_cosine
from capezoo.objectives._teacher import Teacher
from capezoo.specs.base import parse
from ecgcohorts import plugins

if TYPE_CHECKING:
    from torch import nn

    from capezoo.specs.run import ObjectiveSpec


__all__ = ["Losses", "Needs", "Objective", "Teacher", "ViewBatch", "build", "check", "half_cosine", "perceptron"]


def build(spec: "ObjectiveSpec", encoder: "nn.Module", seed: int) -> "Objective":
    """Return an objective for an encoder, randomly initialised but for copies of the encoder's weights.

    Its weights depend on the arguments alone; no global generator is touched. Raises SpecError for an unknown objective
    or setting.
    """
    module = plugins.load("capezoo.objectives", spec.name)
    config = parse(module.Config, spec.config, f"objective {spec.name}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return cast("Objective", module.Objective(config, encoder))
