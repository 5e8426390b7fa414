"""The store: immutable signal segments, an index, and a manifest that names every byte of a snapshot."""

from ecgcohorts.store.reader import AnyStore, Store, open_store
from ecgcohorts.store.splits import load_split, save_split, split_like, split_names
from ecgcohorts.store.union import UnionStore, open_named, open_stores
from ecgcohorts.store.upkeep.verify import VerifyReport, verify

__all__ = [
    "AnyStore",
    "Store",
    "UnionStore",
    "VerifyReport",
    "load_split",
    "open_named",
    "open_store",
    "open_stores",
    "save_split",
    "split_like",
    "split_names",
    "verify",
]
