"""Errors of training and of weights, beside those of `ecgcohorts.errors`.

EcgError
├── TrainingDiverged         the loss is no longer a number
├── CheckpointDamaged        a checkpoint file is not what was saved
└── SpecError
    └── Unanswerable         the store lacks what an evaluation question needs
"""

from importlib.util import find_spec

from ecgcohorts.errors import EcgError, MissingExtra, SpecError, install_line


class TrainingDiverged(EcgError):
    """The loss is NaN or infinite; the message names step, cohort and rows."""


class CheckpointDamaged(EcgError):
    """A checkpoint is truncated, altered or without its digest. It is never unpickled."""


class Unanswerable(SpecError):
    """An evaluation question that a store cannot answer: too few cohorts, patients or labels."""


def require(*packages: str) -> None:
    """Raise MissingExtra, which says what to install, for the first package that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(f"capezoo needs {package}, which is not installed. Run: {install_line('zoo')}")
