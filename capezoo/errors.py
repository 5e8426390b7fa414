"""Errors of training and of weights, beside those of `ecgcohorts.errors`.

EcgError
├── TrainingDiverged         the loss is not a number any more
└── CheckpointDamaged        a checkpoint file is not what was saved
"""

from ecgcohorts.errors import EcgError, install_line

# What the extra `zoo` brings, by the name of the module: a base install has none of it.
_ZOO = {
    "huggingface_hub", "lightning_fabric", "openTSNE", "safetensors", "sklearn", "threadpoolctl", "timm", "torch",
    "torchvision",
}  # fmt: skip


class TrainingDiverged(EcgError):
    """The loss is NaN or infinite; the message names step, cohort and rows."""


class CheckpointDamaged(EcgError):
    """A checkpoint is truncated, altered or without its digest. It is never unpickled."""


def clear(error: ModuleNotFoundError) -> ImportError:
    """Return the error with what to install, if the missing module comes with the extra `zoo`; any other as it is."""
    missing = (error.name or "").partition(".")[0]
    if missing not in _ZOO:
        return error
    return ImportError(f"capezoo needs {missing}, which is not installed. Run: {install_line('zoo')}", name=missing)
