"""Batch plans from an index or from plain arrays: numpy only, no signals, no framework."""

from ecgcohorts.samplers.cohort_per_rank import CohortPerRankSampler
from ecgcohorts.samplers.fixed_shares import FixedShareSampler
from ecgcohorts.samplers.hard_negatives import HardNegativeSampler
from ecgcohorts.samplers.in_distribution import InDistributionBatchSampler
from ecgcohorts.samplers.micro_batches import MicroBatchSampler
from ecgcohorts.samplers.patient_pairs import PatientPairSampler
from ecgcohorts.samplers.plan import BatchPlan, window_starts
from ecgcohorts.samplers.ramp import RampSampler
from ecgcohorts.samplers.random_batches import RandomBatchSampler

__all__ = [
    "BatchPlan",
    "CohortPerRankSampler",
    "FixedShareSampler",
    "HardNegativeSampler",
    "InDistributionBatchSampler",
    "MicroBatchSampler",
    "PatientPairSampler",
    "RampSampler",
    "RandomBatchSampler",
    "window_starts",
]
