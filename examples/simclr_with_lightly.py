"""SimCLR with lightly's loss: two views are two recordings of a patient, their negatives are all of the same hospital."""

import torch
from lightly.loss import NTXentLoss
from small_store import small_store
from torch import nn

import ecgcohorts as ec
from ecgcohorts.loading.torch import TorchBatches

store = ec.open(small_store())
sampler = ec.InDistributionBatchSampler(store.index, pairs=8, seed=0)
batches = TorchBatches(ec.Loader(store, sampler, window=2800))

torch.manual_seed(0)
encoder = nn.Sequential(
    *(nn.Conv1d(8, 32, 25, stride=10), nn.ReLU(), nn.Conv1d(32, 64, 11, stride=4), nn.ReLU()),
    *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 16)),
)
info_nce = NTXentLoss(temperature=0.1)
optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)

for epoch in range(10):
    for batch in batches:
        first, second = batch.millivolts().unbind(dim=1)  # (patient, lead, time) each
        loss = info_nce(encoder(first), encoder(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"epoch {epoch}, all of {batch.plan.cohort}: loss {loss.item():.3f}")
