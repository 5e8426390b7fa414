"""From raw files to a store: plan, encode shard by shard, commit."""

from ecgcohorts.ingest.run import (
    IngestOptions,
    IngestReport,
    commit_plan,
    encode_partition,
    ingest,
    plan_to_file,
)

__all__ = ["IngestOptions", "IngestReport", "commit_plan", "encode_partition", "ingest", "plan_to_file"]
