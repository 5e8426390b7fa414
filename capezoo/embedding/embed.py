"""Weights and signals in, embeddings out; what does not fit the weights is adapted exactly or refused (`adapt`).

One window per recording, the centre of its valid part: the same on every run.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Adaptation, Mains, MissingLeads
from capezoo.embedding.from_store import _NO_BATCH_NORM, _NORM_BLOCK, BatchNorm, store_features
from capezoo.embedding.raw import RawWindows, Window, _recordings_of, window_of
from capezoo.specs.input import InputSpec
from capezoo.zoo.forward import BATCH, _features, _has_batch_norm, estimate_batch_norm
from ecgcohorts.errors import RecordingError, SpecError
from ecgcohorts.readers import read
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ecgcohorts.store.reader import AnyStore

# One ECG: as read, the path of a file of any raw format with one or more, or an array (lead, time).
One = Recording | str | Path | NDArray[Any]
OnError = Literal["raise", "nan"]


def embed(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any] | Tensor | One | Sequence[One]",
    *,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    mains_hz: Mains = "auto",
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
    device: str | None = None,
    batch_norm: BatchNorm = "running",
    on_error: OnError = "raise",
) -> NDArray[np.float32]:
    """Return the embeddings of a store, in the order of its index, or of raw signals: (record, unit).

    Raw signals are the path of a file of any format that `ecgcohorts formats` lists, a `Recording`, an array or tensor
    (record, lead, time), or a list of paths, recordings and arrays (lead, time). They are unfiltered, NaN where missing. Arrays
    need `rate_hz`, `leads` and `unit` (V, mV, uV, or none where the weights take numbers without a unit); files say it
    themselves. All go through the recipe of the weights: leads found by name, scaled, resampled, filtered (notch at
    `mains_hz`). `adaptation` tells what is done, with the same arguments. For many files see `embed_files`.
    missing_leads: "refuse"; "derive" limb leads from two others; or "zero", which also feeds 0 mV where nothing can be
    derived. force_recipe: take a store of another recipe, if rate, unit and length fit. device: auto (a GPU if there is
    one), cpu, cuda or cuda:N; by default where the model is. batch_norm: statistics kept in training (running), or those
    of each cohort's own recordings, of all raw signals given (per_cohort); no label is read, and `model` stays as it is.
    on_error: what becomes of a raw signal that cannot be read or that the recipe refuses: an error, or a row of NaN.
    Raises RecipeMismatch for a store of another recipe, SpecError for what cannot be adapted exactly, and, naming the
    record, RejectedRecording for signals that the recipe refuses and UnreadableRecording for files.
    """
    given = {"rate_hz": rate_hz, "leads": leads, "unit": unit, "mains_hz": mains_hz}
    if _is_store(source):
        plan = _fit_store(model, source, given, missing_leads, force_recipe)
        return store_features(model, source, plan, device=device, batch_norm=batch_norm)
    refused: list[int] = []
    spec, nan = InputSpec.of_model(model), refused if on_error == "nan" else None
    blocks = _in_blocks(_windows(spec, source, given, missing_leads, nan))
    if batch_norm == "per_cohort":
        held = list(blocks)
        blocks, model = iter(held), _fitted_to(model, held, refused, device)
    found = list(_features(model, blocks, device))
    features = np.concatenate(found) if found else np.empty((0, int(model.num_features)), np.float32)  # type: ignore[arg-type]
    features[refused] = np.nan
    return features


def adaptation(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any] | Tensor | Recording",
    *,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    mains_hz: Mains = "auto",
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
) -> Adaptation:
    """Return what `embed` does to such input before the encoder sees it; no signal is read.

    Raises what `embed` raises, except for what only the samples show.
    """
    given = {"rate_hz": rate_hz, "leads": leads, "unit": unit, "mains_hz": mains_hz}
    if _is_store(source):
        return _fit_store(model, source, given, missing_leads, force_recipe)
    spec = InputSpec.of_model(model)
    if isinstance(source, Recording):
        _refuse_description(given, "a recording")
        return RawWindows(spec, mains_hz, missing_leads).plan(source)
    return Adaptation.of_array(spec, _as_array(source), given, missing_leads)


def _fitted_to(
    model: "nn.Module", blocks: list[NDArray[np.float32]], refused: list[int], device: str | None
) -> "nn.Module":
    """Return a copy of a model with the BatchNorm statistics of these windows. Raises SpecError if it has none."""
    if not _has_batch_norm(model):
        raise SpecError(_NO_BATCH_NORM)
    windows = np.delete(np.concatenate(blocks), refused, axis=0) if blocks else np.empty((0, 0, 0), np.float32)
    count = -(-len(windows) // _NORM_BLOCK)
    return estimate_batch_norm(copy.deepcopy(model), (windows[first::count] for first in range(count)), device)


def _is_store(source: object) -> TypeGuard["AnyStore"]:
    return hasattr(source, "recipe") and hasattr(source, "index")


def _fit_store(
    model: "nn.Module", store: "AnyStore", given: dict[str, Any], missing_leads: MissingLeads, force_recipe: bool
) -> Adaptation:
    _refuse_description(given, "a store")
    return Adaptation.of_recipe(InputSpec.of_model(model), store.recipe, str(store.path), missing_leads, force_recipe)


def _refuse_description(given: dict[str, Any], what: str) -> None:
    if any(given[name] is not None for name in ("rate_hz", "leads", "unit")):
        raise SpecError(f"found rate_hz, leads or unit beside {what}, expected none: {what} knows them.")


def _as_array(source: Any) -> NDArray[Any]:
    """Return an array as it is, and a tensor as an array. Raises SpecError for anything else."""
    if isinstance(source, np.ndarray):
        return source
    if type(source).__module__.partition(".")[0] == "torch":  # without loading it
        array: NDArray[Any] = source.detach().cpu().numpy()
        return array
    raise SpecError(
        f"found {type(source).__name__}, expected a store, files, recordings, or an array or tensor (record, lead, time)."
    )


class _Raw(NamedTuple):
    """A raw signal, or why there is none; where it is from; and what is done to it, if that is known of all together."""

    found: Recording | RecordingError
    where: str
    plan: Adaptation | None = None


def _raw(spec: InputSpec, source: Any, given: dict[str, Any], missing_leads: MissingLeads) -> Iterator[_Raw]:
    """Yield the raw signals of a source, one by one. Raises SpecError for what holds none."""
    several = isinstance(source, list | tuple)
    for number, item in enumerate(source if several else [source]):
        if isinstance(item, str | Path):
            _refuse_description(given, "a file")
            try:
                yield from (_Raw(one, str(item)) for one in read(item))
            except RecordingError as error:
                yield _Raw(error, str(item))
        elif isinstance(item, Recording):
            _refuse_description(given, "a recording")
            yield _Raw(item, f"record {number}")
        else:
            signals = _as_array(item)[None] if several else _as_array(item)
            plan = Adaptation.of_array(spec, signals, given, missing_leads)
            for place, one in enumerate(_recordings_of(signals, plan)):
                yield _Raw(one, f"record {number if several else place}", plan)


def _windows(
    spec: InputSpec, source: Any, given: dict[str, Any], missing_leads: MissingLeads, refused: list[int] | None
) -> Iterator[Window]:
    """Yield the window of every raw signal. refused: gets the numbers of those that have none; these windows are 0."""
    fitter = RawWindows(spec, given["mains_hz"], missing_leads)
    for number, one in enumerate(_raw(spec, source, given, missing_leads)):
        try:
            if isinstance(one.found, RecordingError):
                raise one.found
            window, _ = window_of(one.found, spec, one.plan) if one.plan else fitter.of(one.found)
        except RecordingError as error:
            if refused is None:
                raise type(error)(error.reason, error.found, error.expected, error.remedy, one.where) from None
            refused.append(number)
            window = np.zeros((len(spec.leads), spec.length), np.float32)
        yield window


def _in_blocks(windows: Iterator[Window]) -> Iterator[NDArray[np.float32]]:
    while block := list(islice(windows, BATCH)):
        yield np.stack(block)
