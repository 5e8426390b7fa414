"""Batches for Grain and JAX: a map-style source of whole batches, and millivolts made on the device."""

import operator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING


class PlannedBatches:
    """Grain's random-access source: item i is the i-th batch of the run, counted through all epochs.

    An item is a dict: signal int16 [batch, view, lead, time], valid int32 [batch, view], rows int64 [batch, view]. What an
    item holds depends on its number alone, so Grain's own iterator state is the whole state of a run; the sampler's
    position is neither used nor moved.
    """

    def __init__(self, loader: Loader, epochs: int = 1) -> None:
        if epochs < 1:
            raise SpecError(f"found epochs={epochs}, expected 1 or more.")
        self.loader = loader
        self._starts = np.cumsum([0, *(loader.sampler.steps(epoch) for epoch in range(epochs))])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> dict[str, Any]:
        place = operator.index(number)
        if not 0 <= place < len(self):
            raise IndexError(f"found batch {place}, expected 0 to {len(self) - 1}.")
        epoch = int(np.searchsorted(self._starts, place, side="right")) - 1
        batch = self.loader.load(epoch, place - int(self._starts[epoch]))
        return {"signal": batch.signal, "valid": batch.valid, "rows": batch.plan.rows}


def batches(loader: Loader, epochs: int = 1) -> grain.MapDataset:
    """A Grain dataset of whole batches; go on with `.to_iter_dataset()`. Do not shuffle or batch it again."""
    return grain.MapDataset.source(PlannedBatches(loader, epochs))


@jax.jit
def millivolts(signal: jax.Array, lsb_uv: float) -> jax.Array:
    """float32 in mV from int16 steps, 0 where there is no sample: one fused pass on the device."""
    return jnp.where(signal == MISSING, 0, signal).astype(jnp.float32) * (lsb_uv / 1000)
