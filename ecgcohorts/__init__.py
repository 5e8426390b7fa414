"""ECG cohorts of any origin as one Zarr store, and batches from it for any framework.

Public names load on first use, so that `import ecgcohorts` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Batch": "ecgcohorts.loader",
    "BatchPlan": "ecgcohorts.samplers",
    "CohortIndex": "ecgcohorts.index",
    "CohortSpec": "ecgcohorts.cohort_spec",
    "EcgError": "ecgcohorts.errors",
    "InDistributionBatchSampler": "ecgcohorts.samplers",
    "Loader": "ecgcohorts.loader",
    "PatientPairSampler": "ecgcohorts.samplers",
    "PlanImpossible": "ecgcohorts.errors",
    "Recipe": "ecgcohorts.recipes",
    "RecipeMismatch": "ecgcohorts.errors",
    "Recording": "ecgcohorts.recording",
    "RejectedRecording": "ecgcohorts.errors",
    "SourceError": "ecgcohorts.errors",
    "SpecError": "ecgcohorts.errors",
    "StateMismatch": "ecgcohorts.errors",
    "Store": "ecgcohorts.store",
    "StoreError": "ecgcohorts.errors",
    "UnreadableRecording": "ecgcohorts.errors",
    "make_strip": "ecgcohorts.preprocess",
    "open": "ecgcohorts.store",
    "read": "ecgcohorts.readers",
    "verify": "ecgcohorts.store",
}
__all__ = [
    "Batch",
    "BatchPlan",
    "CohortIndex",
    "CohortSpec",
    "EcgError",
    "InDistributionBatchSampler",
    "Loader",
    "PatientPairSampler",
    "PlanImpossible",
    "Recipe",
    "RecipeMismatch",
    "Recording",
    "RejectedRecording",
    "SourceError",
    "SpecError",
    "StateMismatch",
    "Store",
    "StoreError",
    "UnreadableRecording",
    "__version__",
    "make_strip",
    "open",
    "read",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ecgcohorts' has no attribute {name!r}")
    attribute = "open_store" if name == "open" else name
    return getattr(import_module(_PUBLIC[name]), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from ecgcohorts.cohort_spec import CohortSpec
    from ecgcohorts.errors import (
        EcgError,
        PlanImpossible,
        RecipeMismatch,
        RejectedRecording,
        SourceError,
        SpecError,
        StateMismatch,
        StoreError,
        UnreadableRecording,
    )
    from ecgcohorts.index import CohortIndex
    from ecgcohorts.loader import Batch, Loader
    from ecgcohorts.preprocess import make_strip
    from ecgcohorts.readers import read
    from ecgcohorts.recipes import Recipe
    from ecgcohorts.recording import Recording
    from ecgcohorts.samplers import BatchPlan, InDistributionBatchSampler, PatientPairSampler
    from ecgcohorts.store import Store, verify
    from ecgcohorts.store import open_store as open
