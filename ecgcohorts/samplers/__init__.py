"""Batch plans from an index or from plain arrays: numpy only, no signals, no framework."""

from ecgcohorts.samplers.in_distribution import InDistributionBatchSampler
from ecgcohorts.samplers.patient_pairs import PatientPairSampler
from ecgcohorts.samplers.plan import BatchPlan, window_starts
from ecgcohorts.samplers.random_batches import RandomBatchSampler

__all__ = ["BatchPlan", "InDistributionBatchSampler", "PatientPairSampler", "RandomBatchSampler", "window_starts"]
