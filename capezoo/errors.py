"""Errors of training and of weights, beside those of `ecgcohorts.errors`.

EcgError
├── TrainingDiverged         the loss is no longer a number
├── CheckpointDamaged        a checkpoint file is not what was saved
└── SpecError
    └── Unanswerable         the store lacks what an evaluation question needs
"""

from ecgcohorts.errors import EcgError, SpecError


class TrainingDiverged(EcgError):
    """The loss is NaN or infinite; the message names step, cohort and rows."""


class CheckpointDamaged(EcgError):
    """A checkpoint is truncated, altered or without its digest. It is never unpickled."""


class Unanswerable(SpecError):
    """An evaluation question that a store cannot answer: too few cohorts, patients or labels."""
