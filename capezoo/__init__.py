"""Encoders for ECGs: pretrain them on cohort stores, publish them with their input contract, measure how they transfer.

Names load lazily: `import capezoo` reads neither torch nor timm.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("torch") is None:
    raise ImportError('capezoo needs torch, which is not installed. Run: pip install "ecgcohorts[zoo]"', name="torch")

if TYPE_CHECKING:
    from capezoo.embed import embed
    from capezoo.specs import EncoderSpec, InputSpec, ObjectiveSpec, RunConfig, WeightCard
    from capezoo.train import pretrain
    from capezoo.zoo import create_model, list_models, load, publish, verify

_HOME = {
    "EncoderSpec": "capezoo.specs",
    "InputSpec": "capezoo.specs",
    "ObjectiveSpec": "capezoo.specs",
    "RunConfig": "capezoo.specs",
    "WeightCard": "capezoo.specs",
    "create_model": "capezoo.zoo",
    "embed": "capezoo.embed",
    "list_models": "capezoo.zoo",
    "load": "capezoo.zoo",
    "pretrain": "capezoo.train",
    "publish": "capezoo.zoo",
    "verify": "capezoo.zoo",
}
__all__ = [
    "EncoderSpec",
    "InputSpec",
    "ObjectiveSpec",
    "RunConfig",
    "WeightCard",
    "create_model",
    "embed",
    "list_models",
    "load",
    "pretrain",
    "publish",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'capezoo' has no attribute {name!r}")
    # Kept in the module: `capezoo.embed` is the function even after the submodule of that name was imported.
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
