"""The same batches as a tf.data.Dataset, and a contrastive step in TensorFlow."""

import tensorflow as tf
from small_store import small_store

import ecgcohorts as ec
from ecgcohorts.loading.tensorflow import batches, millivolts

store = ec.open(small_store())
sampler = ec.InDistributionBatchSampler(store.index, pairs=8, seed=0)
loader = ec.Loader(store, sampler, window=2800)

tf.random.set_seed(0)
weights = tf.Variable(tf.random.normal((8 * 100, 16), stddev=0.05))
for batch in batches(loader, epochs=10):
    signal_mv = millivolts(batch["signal"], store.lsb_uv)  # (patient, view, lead, time)
    spectrum = tf.math.log1p(tf.abs(tf.signal.rfft(signal_mv)[..., :100]))
    spectrum = tf.reshape(spectrum - tf.reduce_mean(spectrum, (0, 1)), (8, 2, -1))
    with tf.GradientTape() as tape:
        first, second = tf.unstack(tf.math.l2_normalize(spectrum @ weights, axis=-1), axis=1)
        similarity = tf.matmul(first, second, transpose_b=True) / 0.1
        loss = -tf.reduce_mean(tf.linalg.diag_part(tf.nn.log_softmax(similarity)))
    weights.assign_sub(0.02 * tape.gradient(loss, weights))
    print(f"loss {loss:.3f}")
