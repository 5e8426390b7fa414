"""From raw files to a store: plan, encode shard by shard, commit.

Public names load on first use: looking at a folder (`inspect`, `draft`) needs none of what ingest does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecgcohorts.errors import needs_extra

if TYPE_CHECKING:
    from ecgcohorts.ingest.run import (
        IngestOptions,
        IngestReport,
        commit_plan,
        encode_partition,
        ingest,
        plan_to_file,
    )

__all__ = ["IngestOptions", "IngestReport", "commit_plan", "encode_partition", "ingest", "plan_to_file"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ecgcohorts.ingest' has no attribute {name!r}")
    with needs_extra("ingest"):
        module = import_module("ecgcohorts.ingest.run")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
