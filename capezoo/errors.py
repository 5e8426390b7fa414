"""Errors of training and of weights, beside those of `ecgcohorts.errors`.

EcgError
├── TrainingDiverged         the loss is no longer a number
├── CheckpointDamaged        a checkpoint file is not what was saved
└── SpecError
    └── Unanswerable         the store lacks what an evaluation question needs
"""

from ecgcohorts.errors import EcgError, SpecError, install_line

# What the extra `zoo` brings, by the name of the module: a base install has none of it.
_ZOO = {
    "huggingface_hub", "lightning_fabric", "openTSNE", "safetensors", "sklearn", "threadpoolctl", "timm", "torch",
    "torchvision",
}  # fmt: skip


class TrainingDiverged(EcgError):
    """The loss is NaN or infinite; the message names step, cohort and rows."""


class CheckpointDamaged(EcgError):
    """A checkpoint is truncated, altered or without its digest. It is never unpickled."""


class Unanswerable(SpecError):
    """An evaluation question that a store cannot answer: too few cohorts, patients or labels."""


def clear(error: ModuleNotFoundError) -> ImportError:
    """Return the error with what to install, if the missing module comes with the extra `zoo`; any other as it is."""
    missing = (error.name or "").partition(".")[0]
    if missing not in _ZOO:
        return error
    return ImportError(f"capezoo needs {missing}, which is not installed. Run: {install_line('zoo')}", name=missing)
