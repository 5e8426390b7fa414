"""ECG cohorts of any origin as one Zarr store, and batches from it for any framework.

Public names load on first use, so that `import ecgcohorts` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Batch": "ecgcohorts.loading.loader",
    "BatchPlan": "ecgcohorts.samplers",
    "CohortIndex": "ecgcohorts.index.cohort_index",
    "CohortSpec": "ecgcohorts.cohorts.spec",
    "EcgError": "ecgcohorts.errors",
    "InDistributionBatchSampler": "ecgcohorts.samplers",
    "Loader": "ecgcohorts.loading.loader",
    "MachineError": "ecgcohorts.errors",
    "ObjectStoreError": "ecgcohorts.errors",
    "PatientPairSampler": "ecgcohorts.samplers",
    "PlanImpossible": "ecgcohorts.errors",
    "RandomBatchSampler": "ecgcohorts.samplers",
    "Recipe": "ecgcohorts.preprocess.recipes",
    "RecipeMismatch": "ecgcohorts.errors",
    "Recording": "ecgcohorts.recording",
    "RejectedRecording": "ecgcohorts.errors",
    "SourceError": "ecgcohorts.errors",
    "SpecError": "ecgcohorts.errors",
    "Split": "ecgcohorts.index.splits",
    "StateMismatch": "ecgcohorts.errors",
    "Store": "ecgcohorts.store",
    "StoreError": "ecgcohorts.errors",
    "UnionStore": "ecgcohorts.store",
    "UnreadableRecording": "ecgcohorts.errors",
    "load_split": "ecgcohorts.store",
    "make_strip": "ecgcohorts.preprocess.strip",
    "open": "ecgcohorts.store",
    "read": "ecgcohorts.readers",
    "save_split": "ecgcohorts.store",
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
    "MachineError",
    "ObjectStoreError",
    "PatientPairSampler",
    "PlanImpossible",
    "RandomBatchSampler",
    "Recipe",
    "RecipeMismatch",
    "Recording",
    "RejectedRecording",
    "SourceError",
    "SpecError",
    "Split",
    "StateMismatch",
    "Store",
    "StoreError",
    "UnionStore",
    "UnreadableRecording",
    "__version__",
    "load_split",
    "make_strip",
    "open",
    "read",
    "save_split",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ecgcohorts' has no attribute {name!r}")
    from ecgcohorts.errors import needs_extra

    attribute = "open_stores" if name == "open" else name
    with needs_extra("ingest"):  # make_strip filters with scipy; all other names are there in a base install
        return getattr(import_module(_PUBLIC[name]), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from ecgcohorts.cohorts.spec import CohortSpec
    from ecgcohorts.errors import (
        EcgError,
        MachineError,
        ObjectStoreError,
        PlanImpossible,
        RecipeMismatch,
        RejectedRecording,
        SourceError,
        SpecError,
        StateMismatch,
        StoreError,
        UnreadableRecording,
    )
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.index.splits import Split
    from ecgcohorts.loading.loader import Batch, Loader
    from ecgcohorts.preprocess.recipes import Recipe
    from ecgcohorts.preprocess.strip import make_strip
    from ecgcohorts.readers import read
    from ecgcohorts.recording import Recording
    from ecgcohorts.samplers import BatchPlan, InDistributionBatchSampler, PatientPairSampler, RandomBatchSampler
    from ecgcohorts.store.reader import Store
    from ecgcohorts.store.splits import load_split, save_split
    from ecgcohorts.store.union import UnionStore
    from ecgcohorts.store.union import open_stores as open
    from ecgcohorts.store.upkeep.verify import verify
