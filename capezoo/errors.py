"""Errors of training and of weights, beside those of `ecgcohorts.errors`.

EcgError
├── TrainingDiverged         the loss is not a number any more
└── CheckpointDamaged        a checkpoint file is not what was saved
"""

from ecgcohorts.errors import EcgError


class TrainingDiverged(EcgError):
    """The loss is NaN or infinite; the message names step, cohort and rows."""


class CheckpointDamaged(EcgError):
    """A checkpoint is truncated, altered or without its digest. It is never unpickled."""
