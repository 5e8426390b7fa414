"""Encoders, one family a file: `Config` (a spec) and `Encoder(config, num_classes=0)` with timm's method protocol.

Signals go in as float32 (batch, lead, time) in mV, embeddings come out as (batch, num_features).
"""

from typing import TYPE_CHECKING, Any, cast

from capezoo.encoders._timm import timm
from capezoo.specs.base import parse
from capezoo.specs.run import EncoderSpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from capezoo.encoders._protocol import TokenEncoder

__all__ = ["TokenEncoder", "build", "timm"]

_MOST_PARAMETERS = 1 << 30  # as many as a weight folder's 4 GiB of tensors hold in float32


def build(spec: EncoderSpec, seed: int, num_classes: int = 0) -> "nn.Module":
    """Return a randomly initialised encoder. Its weights depend on spec and seed; no global generator is touched.

    On the meta device, as `with torch.device("meta")` makes it the default, it has shapes and no memory.
    Raises SpecError for an unknown encoder or config key, and for settings of more than 2**30 parameters.
    """
    import torch

    from capezoo.encoders._outline import _outline

    module = plugins.load("capezoo.encoders", spec.name)
    config = parse(module.Config, spec.config, f"encoder {spec.name}")
    # Counted before anything is allocated: settings that each look harmless may ask for terabytes together.
    outline = _outline(module.Encoder, config, num_classes)
    count = sum(parameter.numel() for parameter in outline.parameters())
    if count > _MOST_PARAMETERS:
        raise SpecError(
            f"encoder {spec.name}: found settings of {count:,} parameters, expected at most {_MOST_PARAMETERS:,}. "
            "Make it narrower."
        )
    if torch.get_default_device().type == "meta":
        return outline
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPU's too
        return cast("nn.Module", module.Encoder(config, num_classes=num_classes))


def __getattr__(name: str) -> Any:
    """Import TokenEncoder when it is asked for: names of encoders are listed without torch, which takes seconds."""
    if name != "TokenEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from capezoo.encoders._protocol import TokenEncoder

    return TokenEncoder
