"""The same batches through Grain into JAX: each is one item, so Grain's own state resumes the run."""

import grain
import jax
import jax.numpy as jnp
from small_store import small_store

import ecgcohorts as ec
from ecgcohorts.loading.grain import batches, millivolts

store = ec.open(small_store())
sampler = ec.InDistributionBatchSampler(store.index, pairs=8, seed=0)
loader = ec.Loader(store, sampler, window=2800)


@jax.jit
def info_nce(weights: jax.Array, signal_mv: jax.Array) -> jax.Array:
    """The contrastive loss of one linear layer on the spectrum; signal_mv: (patient, view, lead, time)."""
    spectrum = jnp.log1p(jnp.abs(jnp.fft.rfft(signal_mv)[..., :100])).reshape(*signal_mv.shape[:2], -1)
    embedded = (spectrum - spectrum.mean((0, 1))) @ weights
    first, second = jnp.moveaxis(embedded / jnp.linalg.norm(embedded, axis=-1, keepdims=True), 1, 0)
    similarity = first @ second.T / 0.1
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarity)))


weights = jax.random.normal(jax.random.key(0), (8 * 100, 16)) * 0.05
options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
for batch in batches(loader, epochs=10).to_iter_dataset(options):
    signal_mv = millivolts(jax.device_put(batch["signal"]), store.lsb_uv)
    loss, slope = jax.value_and_grad(info_nce)(weights, signal_mv)
    weights -= 0.02 * slope
    print(f"loss {loss:.3f}, signal on {signal_mv.device}")
