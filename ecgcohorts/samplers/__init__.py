"""Batch plans from an index or from plain arrays: numpy only, no signals, no framework."""

from ecgcohorts.samplers.in_distribution import InDistributionBatchSampler
from ecgcohorts.samplers.patient_pairs import PatientPairSampler
from ecgcohorts.samplers.plan import BatchPlan, window_starts

__all__ = ["BatchPlan", "InDistributionBatchSampler", "PatientPairSampler", "window_starts"]
