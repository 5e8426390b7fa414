"""From raw files to a store: plan, encode shard by shard, commit."""

from ecgcohorts.ingest.run import IngestOptions, IngestReport, ingest

__all__ = ["IngestOptions", "IngestReport", "ingest"]
