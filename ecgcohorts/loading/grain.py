"""Batches for Grain and JAX: a random-access source of whole batches, and conversion to millivolts on the device."""

import operator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING


class _PlannedBatches:
    """A random-access source for Grain: item i is batch i of the run, counted over all epochs.

    An item is a dict: signal int16 [batch, view, lead, time], valid int32 [batch, view], rows int64 [batch, view]. An item
    depends on its number alone, so Grain's iterator state is the whole state of a run. The sampler's position is neither
    used nor moved.
    """

    def __init__(self, loader: Loader, epochs: int = 1) -> None:
        if epochs < 1:
            raise SpecError(f"found epochs={epochs}, expected 1 or more.")
        self.loader = loader
        self._starts = np.cumsum([0, *(loader.sampler.steps(epoch) for epoch in range(epochs))])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> dict[str, Any]:
        number = operator.index(number)
        # IndexError, not SpecError: it is what ends a loop over a sequence.
        if not 0 <= number < len(self):
            raise IndexError(f"found batch {number}, expected 0 to {len(self) - 1}.")
        epoch = int(np.searchsorted(self._starts, number, side="right")) - 1
        batch = self.loader.load(epoch, number - int(self._starts[epoch]))
        return {"signal": batch.signal, "valid": batch.valid, "rows": batch.plan.rows}


def batches(loader: Loader, epochs: int = 1) -> grain.MapDataset:
    """Return a Grain dataset of whole batches, for `.to_iter_dataset()`. Do not shuffle or batch it again."""
    return grain.MapDataset.source(_PlannedBatches(loader, epochs))


@jax.jit
def millivolts(signal: jax.Array, lsb_uv: float) -> jax.Array:
    """Convert int16 steps to float32 in mV, 0 where there is no sample, in one fused pass on the device."""
    return jnp.where(signal == MISSING, 0, signal).astype(jnp.float32) * (lsb_uv / 1000)
