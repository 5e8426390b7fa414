"""Weights and signals in, embeddings out; what does not fit the weights is adapted exactly or refused (`adapt`).

One window per recording, the centre of its valid part: the same on every run.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Adaptation, Mains, MissingLeads, fit_array, fit_recipe, spec_of
from capezoo.embedding.from_arrays import array_windows
from capezoo.embedding.from_store import store_features
from capezoo.zoo.forward import features
from ecgcohorts.errors import SpecError

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
) -> NDArray[np.float32]:
    """Return the embeddings of a store, in the order of its index, or of an array of raw signals: (record, unit).

    An array is (record, lead, time), NaN where missing, unfiltered, and needs `rate_hz`, `leads` and `unit` (V, mV or
    uV). It goes through the recipe of the weights: leads found by name, scaled, resampled, filtered (notch at
    `mains_hz`). `adaptation` tells what is done, with the same arguments.
    missing_leads: "refuse"; "derive" limb leads from two others; or "zero", which also feeds 0 mV where nothing can be
    derived. force_recipe: take a store of another recipe, if rate, unit and length fit.
    Raises RecipeMismatch for a store of another recipe, SpecError for what cannot be adapted exactly, and
    RejectedRecording, naming the record, for signals that the recipe refuses.
    """
    given = {"rate_hz": rate_hz, "leads": leads, "unit": unit, "mains_hz": mains_hz}
    plan = _fit(model, source, given, missing_leads, force_recipe)
    if isinstance(source, np.ndarray):
        return features(model, array_windows(source, spec_of(model), plan))
    return store_features(model, source, plan)


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


def _fit(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
    given: dict[str, Any],
    missing_leads: MissingLeads,
    force_recipe: bool,
) -> Adaptation:
    """Return how `source` is made to fit the model. given: the description of an array."""
    if isinstance(source, np.ndarray):
        return fit_array(spec_of(model), source, given, missing_leads)
    spec = spec_of(model)
    if not hasattr(source, "recipe"):
        raise SpecError(f"found {type(source).__name__}, expected a store, or a numpy array (record, lead, time).")
    if any(given[name] is not None for name in ("rate_hz", "leads", "unit")):
        raise SpecError("found rate_hz, leads or unit beside a store, expected none: the store knows them.")
    return fit_recipe(spec, source.recipe, str(source.path), missing_leads, force_recipe)
