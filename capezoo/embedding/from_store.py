"""Features of every recording of a store: central windows, adapted and scaled as the weights ask."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Adaptation, window_starts
from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import lead_statistics, scaled
from capezoo.zoo.forward import BATCH, features
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.recording import MISSING

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store.reader import AnyStore

Progress = Callable[[int, int], None]


def store_features(
    model: "nn.Module", store: "AnyStore", plan: Adaptation, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Return features (record, unit) in the order of the index. progress: told records done and in all.

    Raises StoreError for a recording shorter than the window, SpecError for weights that give no numbers.
    """
    embedding = features(model, _windows(model, store, plan, progress))
    if not np.isfinite(embedding).all():
        raise SpecError(
            "found embeddings that are no finite numbers, expected numbers. Check the weights: capezoo verify"
        )
    return embedding


def _windows(
    model: "nn.Module", store: "AnyStore", plan: Adaptation, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    """Yield the windows that the encoder sees, float32 (record, lead, time), in blocks."""
    index, spec = store.index, InputSpec.of_model(model)
    starts = window_starts(index["valid_start"], index["valid_stop"], spec.length)
    known = [lead for lead in spec.leads if lead not in plan.zeroed]
    for first in range(0, len(index), BATCH):
        part = slice(first, first + BATCH)
        strips = store.read(index["row"][part])
        windows = np.stack([s[:, at : at + spec.length] for s, at in zip(strips, starts[part], strict=True)])
        if (windows == MISSING).any():
            raise StoreError(f"{store.path}: found missing samples inside a valid part. Run: ecgcohorts verify")
        # float32 before the leads are combined: halves of whole microvolts are exact in it.
        windows_mv = plan.fit(windows * np.float32(store.recipe.lsb_uv / 1000), store.recipe.leads, spec)
        statistics = lead_statistics(index, np.arange(len(index))[part], known, spec.normalisation)
        if statistics is not None and plan.zeroed:
            # A lead fed as 0 mV has a deviation of 0, so that it stays 0 whatever its mean.
            at = [spec.leads.index(lead) for lead in known]
            whole = np.zeros((2, len(windows_mv), len(spec.leads)), np.float32)
            whole[:, :, at] = statistics
            statistics = (whole[0], whole[1])
        yield scaled(windows_mv, spec.normalisation, statistics=statistics)
        if progress:
            progress(min(first + BATCH, len(index)), len(index))
