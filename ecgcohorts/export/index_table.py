"""Export the index of a store, without signals, as one Parquet table."""

import os
from pathlib import Path

from ecgcohorts.export.common import refuse
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.io.durable import make_folder, name_aside, sync_folder
from ecgcohorts.store.reader import AnyStore


def export_index(store: AnyStore, out: Path, *, index: CohortIndex | None = None) -> int:
    """Write one row per recording, with all columns of the index. Return the number of rows.

    index: a part of the store's index, by default all of it. Raises SourceError if OUT exists or lies in the store.
    """
    index = store.index if index is None else index
    refuse(store, out)
    make_folder(out.parent)
    # Written aside and renamed, so that a killed export leaves no half table under the name asked for.
    aside = name_aside(out)
    try:
        index.to_pandas().to_parquet(aside, index=False)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        refuse(store, out)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(out.parent)
    return len(index)
