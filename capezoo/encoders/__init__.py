"""Encoders, one family a file: `Config` (a spec) and `Encoder(config, num_classes=0)` with timm's method protocol.

Signals go in as float32 (batch, lead, time) in mV, embeddings come out as (batch, num_features).
"""

from typing import TYPE_CHECKING, Any, cast

from capezoo.encoders._timm import timm
from capezoo.specs.base import parse
from capezoo.specs.run import EncoderSpec
from ecgcohorts import plugins

if TYPE_CHECKING:
    from torch import nn

    from capezoo.encoders._protocol import TokenEncoder

__all__ = ["TokenEncoder", "build", "timm"]


def build(spec: EncoderSpec, seed: int, num_classes: int = 0) -> "nn.Module":
    """Return a randomly initialised encoder. Its weights depend on spec and seed; no global generator is touched.

    Raises SpecError for an unknown encoder or config key.
    """
    import torch

    module = plugins.load("capezoo.encoders", spec.name)
    config = parse(module.Config, spec.config, f"encoder {spec.name}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPU's too
        return cast("nn.Module", module.Encoder(config, num_classes=num_classes))


def __getattr__(name: str) -> Any:
    """Import TokenEncoder when it is asked for: names of encoders are listed without torch, which takes seconds."""
    if name != "TokenEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from capezoo.encoders._protocol import TokenEncoder

    return TokenEncoder
