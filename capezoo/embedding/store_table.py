"""The embeddings of a store as one table, with the index columns beside them."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capezoo import distributed
from capezoo.embedding.folder import EmbeddingInfo, open_embeddings, write_embeddings
from capezoo.embedding.tables import ROWS, require_table, write_table

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store.reader import AnyStore


def write_store_table(model: "nn.Module", store: "AnyStore", out: str | Path, **how: Any) -> EmbeddingInfo:
    """Write the embeddings of a store and its index columns as a table: .parquet, .csv or .npz; return their attributes.

    how: further arguments of `write_embeddings`, which makes them first, in a folder beside the table, so that a killed
    run goes on. Of several processes one writes the table. Raises as it does, and SpecError for another suffix.
    """
    target = Path(out)
    require_table(target)
    aside = target.with_name(f".{target.name}.embeddings")
    # Whole embeddings whose table was never written may be those of other weights.
    shutil.rmtree(aside, ignore_errors=True)
    info = write_embeddings(model, store, aside, **how)
    if distributed.rank() == 0:
        made = open_embeddings(aside)
        columns = made.index.to_pandas()
        starts = range(0, len(columns), ROWS)
        pieces = ((columns[at : at + ROWS], made.embedding[at : at + ROWS]) for at in starts)
        write_table(target, pieces, len(columns))
        shutil.rmtree(aside)
    return info
