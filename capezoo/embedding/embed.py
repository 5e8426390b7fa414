"""Weights and signals in, embeddings out; what does not fit the weights is adapted exactly or refused (`adapt`).

One window per recording, the centre of its valid part: the same on every run.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import MV_PER_UNIT, Adaptation, Mains, MissingLeads, window_starts
from capezoo.embedding.from_store import _NO_BATCH_NORM, _NORM_BLOCK, BatchNorm, store_features
from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import scaled
from capezoo.zoo.forward import _has_batch_norm, estimate_batch_norm, features
from ecgcohorts.errors import RecordingError, SpecError
from ecgcohorts.leads import positions
from ecgcohorts.preprocess.steps import SelectLeads
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store.reader import AnyStore


def embed(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
    *,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    mains_hz: Mains = "auto",
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
    device: str | None = None,
    batch_norm: BatchNorm = "running",
) -> NDArray[np.float32]:
    """Return the embeddings of a store, in the order of its index, or of an array of raw signals: (record, unit).

    An array is (record, lead, time), NaN where missing, unfiltered, and needs `rate_hz`, `leads` and `unit` (V, mV, uV,
    or none where the weights take numbers without a unit). It goes through the recipe of the weights: leads found by name, scaled, resampled, filtered (notch at
    `mains_hz`). `adaptation` tells what is done, with the same arguments.
    missing_leads: "refuse"; "derive" limb leads from two others; or "zero", which also feeds 0 mV where nothing can be
    derived. force_recipe: take a store of another recipe, if rate, unit and length fit. device: auto (a GPU if there is
    one), cpu, cuda or cuda:N; by default where the model is. batch_norm: statistics kept in training (running), or those
    of each cohort's own recordings, of all of an array (per_cohort); no label is read, and `model` stays as it is.
    Raises RecipeMismatch for a store of another recipe, SpecError for what cannot be adapted exactly, and
    RejectedRecording, naming the record, for signals that the recipe refuses.
    """
    given = {"rate_hz": rate_hz, "leads": leads, "unit": unit, "mains_hz": mains_hz}
    plan = _fit(model, source, given, missing_leads, force_recipe)
    if isinstance(source, np.ndarray):
        windows = _array_windows(source, InputSpec.of_model(model), plan)
        fitted = _fitted_to(model, windows, device) if batch_norm == "per_cohort" else model
        return features(fitted, windows, device)
    return store_features(model, source, plan, device=device, batch_norm=batch_norm)


def adaptation(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
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
    return _fit(model, source, given, missing_leads, force_recipe)


def _fitted_to(model: "nn.Module", windows: NDArray[np.float32], device: str | None) -> "nn.Module":
    """Return a copy of a model with the BatchNorm statistics of these windows. Raises SpecError if it has none."""
    if not _has_batch_norm(model):
        raise SpecError(_NO_BATCH_NORM)
    count = -(-len(windows) // _NORM_BLOCK)
    return estimate_batch_norm(copy.deepcopy(model), (windows[first::count] for first in range(count)), device)


def _fit(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
    given: dict[str, Any],
    missing_leads: MissingLeads,
    force_recipe: bool,
) -> Adaptation:
    """Return how `source` is made to fit the model. given: the description of an array."""
    if isinstance(source, np.ndarray):
        return Adaptation.of_array(InputSpec.of_model(model), source, given, missing_leads)
    spec = InputSpec.of_model(model)
    if not hasattr(source, "recipe"):
        raise SpecError(f"found {type(source).__name__}, expected a store, or a numpy array (record, lead, time).")
    if any(given[name] is not None for name in ("rate_hz", "leads", "unit")):
        raise SpecError("found rate_hz, leads or unit beside a store, expected none: the store knows them.")
    return Adaptation.of_recipe(spec, source.recipe, str(source.path), missing_leads, force_recipe)


def _array_windows(signal: NDArray[Any], spec: InputSpec, adaptation: Adaptation) -> NDArray[np.float32]:
    """Return the windows that the encoder sees, (record, lead, spec.length), of raw signals (record, lead, time).

    The recipe runs on all its leads that there are, wanted or not, so that the same ECG gives what its store gives.
    Raises RejectedRecording, naming the record, for a signal that the recipe refuses.
    """
    from ecgcohorts.preprocess.strip import make_strip  # loads scipy.signal

    recipe = spec.the_recipe()
    # Also leads that the weights do not read: what counts as padding, a gap or an amplitude depends on all of them.
    have = {*positions(adaptation.leads), *adaptation.derived}
    leads = tuple(lead for lead in dict.fromkeys((*recipe.leads, *spec.leads)) if lead in have)
    on_these = recipe if leads == recipe.leads else recipe.changed(recipe.name, SelectLeads(leads=leads))
    out = np.empty((len(signal), len(spec.leads), spec.length), np.float32)
    for number, raw in enumerate(signal):
        analog_mv = np.asarray(raw, np.float64) * MV_PER_UNIT.get(adaptation.unit, 1.0)
        recording = Recording(
            f"record {number}", adaptation.leads, adaptation.rate_hz, analog_mv=analog_mv, unit=recipe.unit
        )
        try:
            # Nobody reads flags here, and measuring quality costs about as much as the filters.
            strip = make_strip(recording, on_these, adaptation.mains_hz, with_quality=False)
        except RecordingError as error:
            raise type(error)(error.reason, error.found, error.expected, error.remedy, f"record {number}") from None
        start = window_starts(np.array([strip.valid_start]), np.array([strip.valid_stop]), spec.length)[0]
        window_mv = strip.samples[None, :, start : start + spec.length] * np.float32(recipe.lsb_uv / 1000)
        statistics = None
        if strip.statistics is not None:
            at = [leads.index(lead) if lead in leads else -1 for lead in spec.leads]
            with_nothing = np.concatenate(
                [strip.statistics, np.zeros((2, 1), np.float32)], axis=1
            )  # of a lead fed as 0 mV
            statistics = (with_nothing[0, at], with_nothing[1, at])
        fitted_mv = adaptation.fit(window_mv, leads, spec)[0]
        out[number] = scaled(fitted_mv, spec.normalisation, statistics=statistics)
    return out
