"""Batches as a `tf.data.Dataset`, and conversion to millivolts on the device."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ecgcohorts.errors import SpecError
from ecgcohorts.loading.loader import Loader
from ecgcohorts.recording import MISSING


def batches(loader: Loader, epochs: int = 1, prefetch: int = 1) -> "tf.data.Dataset":
    """Return the next `epochs` epochs of a loader, from the sampler's position on, as dicts of whole batches.

    A dict holds signal int16 [batch, view, lead, time], valid int32 [batch, view], rows int64 [batch, view]. TensorFlow
    copies each batch once. A batch counts as consumed when TensorFlow fetches it, up to `prefetch` batches before the
    training step uses it: save `sampler.state_dict(consumed=n)` after n steps of the dataset's iteration.
    """
    if epochs < 1:
        raise SpecError(f"found epochs={epochs}, expected 1 or more.")
    sampler = loader.sampler
    shape = (sampler.check_rank(loader.rank, loader.world_size), sampler.options.views)
    # Whole batches have fixed shapes, so that TensorFlow traces a training step once.
    signature = {
        "signal": tf.TensorSpec((*shape, len(loader.store.recipe.leads), loader.window), tf.int16),
        "valid": tf.TensorSpec(shape, tf.int32),
        "rows": tf.TensorSpec(shape, tf.int64),
    }

    def generate() -> Iterator[dict[str, Any]]:
        # One iteration: `consumed` of a state counts from where it began, over the ends of epochs.
        for batch in loader._of_epochs(epochs):
            yield {"signal": batch.signal, "valid": batch.valid, "rows": batch.plan.rows}

    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(prefetch)


def millivolts(signal: "tf.Tensor", lsb_uv: float) -> "tf.Tensor":
    """Convert int16 steps to float32 in mV, 0 where there is no sample."""
    present = tf.where(signal == MISSING, tf.zeros_like(signal), signal)
    return tf.cast(present, tf.float32) * (lsb_uv / 1000)
