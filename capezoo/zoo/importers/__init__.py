"""Public encoders by their own weights: a file that others published becomes a weight folder like any other.

One file here a model, found by its name; see `_contract`. Files of others are read by `_checkpoint`, which runs nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from ecgcohorts import plugins
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from capezoo.specs.run import EncoderSpec
    from capezoo.zoo.importers._contract import PublicModel

# Of features by another program, over the largest; float32 on two machines gives some 1e-6.
_TOLERANCE = 1e-4
_USE = "Research. Not a medical device: no output of it may guide care."


def public_model(name: str) -> "PublicModel":
    """Return what is known of a public encoder. Raises SpecError, with all names, for an unknown one."""
    model: PublicModel = plugins.load(__name__, name).MODEL
    return model


def import_weights(model: str, file: str | Path, out: str | Path, against: str | Path | None = None) -> Path:
    """Turn a file of weights that others published into a weight folder, and return it.

    model: name of a public encoder, such as ecgfounder. Its card has licence, input contract and known faults, its golden
    output is made here. against: .npz of the public program with `signal` (record, lead, time), as its network was fed, and
    `features` (record, feature), which the encoder must give. Raises SourceError for a file that cannot be read, SpecError
    for one of another model, for other features, or if `out` exists.
    """
    from capezoo.specs.card import WeightCard
    from capezoo.zoo.importers._checkpoint import read_tensors
    from capezoo.zoo.publish import _resolved, write_weights

    public, path = public_model(model), Path(file)
    if Path(out).exists():
        raise SpecError(f"{out}: found something there, expected a new folder. Name another, or remove it.")
    # Dropped ones are never read: an optimiser is twice as large as its encoder.
    tensors = read_tensors(path, public.inside, public.keeps)
    try:
        encoder, spec = public.describe(tensors)
        ours = public.ours(tensors)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        what = f"no tensor {error}" if isinstance(error, KeyError) else str(error)
        raise SpecError(f"{path}: found {what}, expected weights of {public.title}. {public.where}") from None
    filled = _filled(path, public, encoder, ours)
    if against is not None:
        _require_features(Path(against), filled)
    card = WeightCard(
        name=model,
        version="1",
        summary=f"{public.title} ({public.source}), imported from a file with SHA-256 {sha256_of(path)}.",
        encoder=_resolved(encoder),
        input=spec,
        parameters=sum(p.numel() for p in filled.parameters()),
        embedding_dim=int(filled.num_features),  # type: ignore[arg-type]
        weights_licence=public.licence,
        intended_use=_USE,
        known_failures=public.known_failures,
    )
    return write_weights(out, filled, card, licence=_licence(public))


def _filled(path: Path, public: "PublicModel", encoder: "EncoderSpec", tensors: "dict[str, Tensor]") -> "nn.Module":
    """Build the encoder of these tensors. Raises SpecError unless every one has its place, and every place its tensor."""
    import torch

    from capezoo.encoders import build

    # Shapes alone, so that nothing in it can stay random.
    with torch.device("meta"):
        model = build(encoder, seed=0)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            raise SpecError(
                f"{path}: found {found.get(name, 'nothing')} for tensor {name!r:.80}, expected {wanted.get(name, 'nothing')} in "
                f"weights of {public.title}. {public.where}"
            )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise SourceError(f"{path}: found NaN or infinity in tensor {name!r}, expected numbers. Download it again.")
    # Half precision and double both become float32, the type of every encoder here.
    numbers = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    model.load_state_dict(numbers, strict=True, assign=True)
    return model.eval()


def _require_features(path: Path, model: "nn.Module") -> None:
    """Raise SpecError unless the encoder gives the features that the public program gave, within _TOLERANCE."""
    import numpy as np

    from capezoo.zoo.forward import features

    try:
        with np.load(path, allow_pickle=False) as arrays:
            signal, wanted = (np.asarray(arrays[name], np.float32) for name in ("signal", "features"))
        found = features(model, signal)
    except (OSError, ValueError, KeyError, RuntimeError, BadZipFile) as error:
        told = " ".join(str(error).split())
        raise SourceError(
            f"{path}: found {told:.200}, expected an .npz with `signal` (record, lead, time) and `features` (record, feature)."
        ) from None
    if found.shape != wanted.shape:
        raise SpecError(f"{path}: found features of shape {wanted.shape}, expected {found.shape}.")
    difference = float(np.abs(found - wanted).max() / (np.abs(wanted).max() or 1.0))
    # Written this way round, NaN fails as well.
    if not difference <= _TOLERANCE:
        raise SpecError(
            f"{path}: the features differ by {difference:.1e} of the largest, expected at most {_TOLERANCE:.0e}. Give the signal as the "
            "network was fed, after all scaling, and the mean over time before any head."
        )


def _licence(public: "PublicModel") -> str:
    stated = "No licence is stated: ask the authors." if public.licence == "unknown" else f"Licence: {public.licence}."
    return f"These weights are the work of others.\n\n{public.title}: {public.source}.\n{stated}\n"
