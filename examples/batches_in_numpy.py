"""Batches as plain NumPy arrays, for any framework or none: plan, signal, and the millivolts made of it."""

import numpy as np
from small_store import small_store

import ecgcohorts as ec
from ecgcohorts.loading.loader import MISSING

store = ec.open(small_store())
sampler = ec.InDistributionBatchSampler(store.index, pairs=8, seed=0)
for batch in ec.Loader(store, sampler, window=2800):
    there = batch.signal != MISSING  # int16 (patient, view, lead, time), one step is lsb_uv microvolts
    signal_mv = np.where(there, batch.signal, 0).astype(np.float32) * (batch.lsb_uv / 1000)
    print(batch.plan.cohort, signal_mv.shape, f"{signal_mv[there].std():.3f} mV")
