"""The store: immutable signal segments, an index, and a manifest that names every byte of a snapshot."""

from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.verify import VerifyReport, verify

__all__ = ["Store", "VerifyReport", "open_store", "verify"]
