"""Encoders for ECGs: pretrain them on cohort stores, publish them with their input contract, measure how they transfer.

Names load lazily: `import capezoo` reads neither torch nor timm.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecgcohorts.errors import require

# OpenMP threads that wait by spinning take the cores from the loader's threads: on two cores a step then takes three
# to seven times as long. Read when torch loads; whoever set it or loaded torch before keeps their choice.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from capezoo.embedding.embed import adaptation, embed
    from capezoo.embedding.files import embed_files
    from capezoo.interop.onnx import export_onnx
    from capezoo.interop.sklearn import EcgEmbedder
    from capezoo.interop.timm import register_with_timm
    from capezoo.specs import EncoderSpec, InputSpec, ObjectiveSpec, RunConfig, WeightCard
    from capezoo.training.loop import pretrain
    from capezoo.zoo.create import create_model, load
    from capezoo.zoo.listing import list_models, pull
    from capezoo.zoo.overlap import overlap
    from capezoo.zoo.publish import publish
    from capezoo.zoo.verify import verify

_HOME = {
    "EcgEmbedder": "capezoo.interop.sklearn",
    "EncoderSpec": "capezoo.specs",
    "InputSpec": "capezoo.specs",
    "ObjectiveSpec": "capezoo.specs",
    "RunConfig": "capezoo.specs",
    "WeightCard": "capezoo.specs",
    "adaptation": "capezoo.embedding.embed",
    "create_model": "capezoo.zoo",
    "embed": "capezoo.embedding.embed",
    "embed_files": "capezoo.embedding.files",
    "export_onnx": "capezoo.interop.onnx",
    "list_models": "capezoo.zoo",
    "load": "capezoo.zoo",
    "overlap": "capezoo.zoo",
    "pretrain": "capezoo.training.loop",
    "publish": "capezoo.zoo",
    "pull": "capezoo.zoo",
    "register_with_timm": "capezoo.interop.timm",
    "verify": "capezoo.zoo",
}
__all__ = [
    "EcgEmbedder",
    "EncoderSpec",
    "InputSpec",
    "ObjectiveSpec",
    "RunConfig",
    "WeightCard",
    "adaptation",
    "create_model",
    "embed",
    "embed_files",
    "export_onnx",
    "list_models",
    "load",
    "overlap",
    "pretrain",
    "publish",
    "pull",
    "register_with_timm",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'capezoo' has no attribute {name!r}")
    require("zoo", "torch")  # here, and not when `capezoo` is imported: the command line has help to give without torch
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
