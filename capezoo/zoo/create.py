"""Make an encoder from a name, or load published weights. Every model has its input contract as `model.spec`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capezoo.encoders import build, timm
from capezoo.specs.base import parse
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.files import HALF, WEIGHTS, Architecture, _require_regular, _require_whole, read_card, read_header
from capezoo.zoo.hub import address_of
from capezoo.zoo.listing import list_models, locate
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)
_LEADS_BY_NUMBER = {8: EIGHT_LEADS, 12: TWELVE_LEADS}
# The types that tensors of our encoders have; int64 is the batch counter of BatchNorm.
_DTYPES = {"torch.float32": "F32", "torch.int64": "I64"}


def create_model(
    name: str = "cape_resnet",
    pretrained: bool | str | Path | None = None,
    in_leads: int | Sequence[str] | None = None,
    embedding_dim: int | None = None,
    num_classes: int = 0,
    seed: int = 0,
    *,
    features_only: bool = False,
    config: Mapping[str, Any] | None = None,
    check: bool = True,
) -> "nn.Module":
    """Return an encoder, (batch, lead, time) in mV -> (batch, embedding_dim), with its input contract as `model.spec`.

    pretrained: None for random weights; True for the weights `name` ("encoder.tag", or an encoder with one weight
    set); or "encoder.tag", a folder, "hf-hub:org/repo@revision". in_leads: 8, 12, or lead names in order.
    num_classes: adds a random classifier; 0 for embeddings. seed: random seed of weights and classifier.
    features_only: return the outputs of all stages instead, a list of (batch, channel, time'), with timm's
    FeatureGetterNet; `model.feature_info` has their channels and reductions. config: further settings of the encoder,
    such as `{"depth": 50}`; weights bring their own. check: as for `load`.
    Raises SpecError if name, leads, width or settings are unknown, or differ from those of the weights.
    """
    if features_only and num_classes:
        raise SpecError(f"num_classes={num_classes} and features_only exclude each other: stages have no classifier.")
    # Refused before weights are fetched: a wrong lead must not cost a download.
    leads = _lead_names(in_leads)
    settings = dict(config or {}) | ({} if embedding_dim is None else {"embedding_dim": embedding_dim})
    if pretrained:
        folder = _located(_default_weights(name) if pretrained is True else pretrained, check)
        _require_same(folder, EncoderSpec(name=name.partition(".")[0], config=settings), leads)
        model = _read(folder, num_classes, seed, check)
    else:
        spec = parse(InputSpec, {"leads": leads}, "in_leads") if leads is not None else InputSpec()
        encoder = EncoderSpec(name=name, config={"in_leads": len(spec.leads), **settings})
        model = _with_spec(build(encoder, seed, num_classes), spec)
    return _stages_of(model) if features_only else model


def _require_same(folder: Path, encoder: EncoderSpec, leads: tuple[str, ...] | None) -> None:
    """Raise SpecError unless the weights are of this encoder and have the leads and settings that were given."""
    found = Architecture.read(folder)
    if encoder.name != found.encoder.name:
        raise SpecError(
            f"{folder}: found weights of {found.encoder.name!r}, expected {encoder.name!r}. Name that encoder."
        )
    if leads and leads != found.input.leads:
        raise SpecError(f"{folder}: found weights for leads {' '.join(found.input.leads)}, expected {' '.join(leads)}. "
                        "Give those leads, or train for others.")  # fmt: skip
    for key, wanted in encoder.config.items():
        have = found.encoder.config.get(key)
        if have != wanted:
            raise SpecError(f"{folder}: found weights with {key}={have}, expected {wanted}. Leave {key} out.")


def _stages_of(model: "nn.Module") -> "nn.Module":
    places = tuple(range(len(model.feature_info)))  # type: ignore[arg-type]
    stages: nn.Module = timm("models._features").FeatureGetterNet(model, out_indices=places, output_fmt="NCL")
    return _with_spec(stages, model.spec)  # type: ignore[arg-type]


def load(weights: str | Path, num_classes: int = 0, seed: int = 0, *, check: bool = True) -> "nn.Module":
    """Return a published encoder in evaluation mode. weights: "encoder.tag", folder, or "hf-hub:org/repo@revision".

    Reads safetensors only. All tensors must have the names, shapes and types of the architecture; numbers may be stored
    in half precision. check: hold every file of the folder against SHA256SUMS, card and config first, and refuse tensors
    that are not finite; without it, damaged or swapped files load. `model.origin` is the address and commit of weights
    from a Hub, else None. Raises SpecError or SourceError, naming the first file
    or tensor that is wrong.
    """
    # Checked first: it takes milliseconds, and importing torch takes seconds.
    return _read(_located(weights, check), num_classes, seed, check)


def _located(weights: str | Path, check: bool) -> Path:
    folder = locate(weights)
    if check:
        _require_whole(folder)
        licence = read_card(folder).weights_licence
        if "NC" in licence.split("-"):
            log.warning("%s: licence %s allows no commercial use.", folder, licence)
    return folder


def _read(folder: Path, num_classes: int, seed: int, check: bool) -> "nn.Module":
    """Return the encoder of a weight folder. check: refuse numbers that are not finite."""
    import torch
    from safetensors.torch import load_file

    architecture, header = Architecture.read(folder), read_header(folder / WEIGHTS)
    if header.architecture != architecture:
        raise SourceError(f"{folder}: {WEIGHTS} and config.json name different architectures. Fetch the folder again.")
    # Shapes without memory: what a file claims allocates nothing before it is checked.
    with torch.device("meta"):
        model = build(architecture.encoder, seed=0)
    _require_same_tensors(folder / WEIGHTS, header.tensors, model)
    _require_regular(folder)  # the library would follow a link
    tensors = {name: t.float() if t.dtype == torch.half else t for name, t in load_file(folder / WEIGHTS).items()}
    for name, tensor in tensors.items() if check else ():
        # Least and largest, which NaN spoils: one pass over the numbers, where asking each took twenty times as long.
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise SourceError(
                f"{folder / WEIGHTS}: found NaN or infinity in tensor {name!r}, expected numbers. Train again, or use "
                "other weights."
            )
    # assign: tensors of the meta device have no memory to copy into.
    model.load_state_dict(tensors, strict=True, assign=True)
    if num_classes:
        # A new layer draws from the global generator: seed it here, and leave it as it was.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model.reset_classifier(num_classes)  # type: ignore[operator]
    model.origin = address_of(folder)  # type: ignore[assignment]  # for what is made with it
    return _with_spec(model.eval(), architecture.input)


def _with_spec(model: "nn.Module", spec: InputSpec) -> "nn.Module":
    model.spec = spec  # type: ignore[assignment]  # a plain value beside the tensors
    return model


def _lead_names(in_leads: int | Sequence[str] | None) -> tuple[str, ...] | None:
    if in_leads is None:
        return None
    if isinstance(in_leads, int):
        if in_leads not in _LEADS_BY_NUMBER:
            raise SpecError(f"found in_leads={in_leads}, expected 8, 12, or the names of the leads in order.")
        return _LEADS_BY_NUMBER[in_leads]
    return tuple(in_leads)


def _default_weights(name: str) -> str:
    if "." in name:
        return name
    # No favourite among several: which weights somebody used must stand in their code.
    found = list_models(f"{name}.*", pretrained=True)
    if len(found) != 1:
        known = ", ".join(found) if found else "none"
        raise SpecError(
            f"found {len(found)} weight sets of {name!r} ({known}), expected one. Name it, or give a folder."
        )
    return found[0]


def _require_same_tensors(path: Path, stored: dict[str, tuple[str, tuple[int, ...]]], model: "nn.Module") -> None:
    found = {name: ("F32" if dtype == HALF else dtype, shape) for name, (dtype, shape) in stored.items()}
    wanted = {name: (_DTYPES[str(t.dtype)], tuple(t.shape)) for name, t in model.state_dict().items()}
    for name in sorted(set(wanted) | set(found)):
        if found.get(name) != wanted.get(name):
            have, want = (f"{leaf[0]} {leaf[1]}" if leaf else "nothing" for leaf in (found.get(name), wanted.get(name)))
            raise SpecError(f"{path}: found {have} for tensor {name!r}, expected {want}. Publish these weights again.")
