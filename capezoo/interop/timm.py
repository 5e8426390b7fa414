"""Enter our encoders in timm's registry, on request and never on import, for scripts with `timm.create_model`.

timm's registry describes images: the entries say input_size (leads, 1, time), mean 0 and deviation 1, so that its data
tools leave millivolts alone. What an encoder must be fed is `model.spec`; publish and load weights with `capezoo`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capezoo.encoders import timm
from capezoo.specs.input import InputSpec
from capezoo.zoo.create import create_model
from capezoo.zoo.listing import list_models

if TYPE_CHECKING:
    from torch import nn

PREFIX = "capezoo_"  # no name of timm's begins so
# timm looks for this name in the module of a model's function.
default_cfgs: dict[str, dict[str, Any]] = {}


def register_with_timm() -> list[str]:
    """Enter every encoder in timm's registry as "capezoo_NAME", and return these names. A second call changes nothing.

    `timm.create_model("capezoo_NAME", num_classes=5)` is then `capezoo.create_model("NAME", num_classes=5)`; timm's
    `in_chans` is 8 or 12 leads. The models take (batch, lead, time) and timm's (batch, lead, 1, time).
    """
    models = timm("models")
    for name in list_models():
        if not models.is_model(PREFIX + name):
            default_cfgs[PREFIX + name] = _data_config(InputSpec())
            models.register_model(_entry(name))
    return [PREFIX + name for name in list_models()]


def _entry(name: str) -> Callable[..., "nn.Module"]:
    """Return the function timm calls. Arguments of timm without a meaning here are refused by Python as unknown."""

    def entry(
        pretrained: bool = False,
        *,
        in_chans: int | None = None,
        num_classes: int = 0,
        embedding_dim: int | None = None,
        features_only: bool = False,
        seed: int = 0,
        pretrained_cfg: object = None,  # these three timm always gives, and they are about its own weights
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
    ) -> "nn.Module":
        model = create_model(name, pretrained, in_chans, embedding_dim, num_classes, seed, features_only=features_only)
        model.pretrained_cfg = _data_config(model.spec)  # type: ignore[assignment,arg-type]  # timm's data tools ask it
        return model

    entry.__name__ = PREFIX + name
    return entry


def _data_config(spec: InputSpec) -> dict[str, Any]:
    leads = len(spec.leads)
    return {
        "input_size": (leads, 1, spec.length),
        "mean": (0.0,) * leads,
        "std": (1.0,) * leads,
        "crop_pct": 1.0,
        "num_classes": 0,
    }
