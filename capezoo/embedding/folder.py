"""Embeddings on disk: a Zarr v3 group with the index columns beside them, and the digest of both."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Adaptation, MissingLeads
from capezoo.embedding.from_store import Progress, store_features
from capezoo.specs.base import Spec, parse
from capezoo.specs.input import InputSpec
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, LABEL, CohortIndex

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store.reader import AnyStore

_CHUNK_RECORDS = 4096  # of the embedding array; 4 MB at 256 features


class EmbeddingInfo(Spec):
    """Attributes of an embeddings folder: what made it, and the digest of what it holds."""

    format: Literal["capezoo-embeddings"] = "capezoo-embeddings"
    format_version: Literal[2] = 2  # 1 had no adaptation
    name: str  # of the weights, for tables
    weights: str  # SHA-256 over names, shapes and bytes of all tensors of the encoder
    card: str | None  # SHA-256 of card.json, None for weights that were never published
    origin: str | None = None  # hf-hub:ORG/REPO@COMMIT, for weights that came from there
    input: InputSpec
    adaptation: Adaptation
    window: Literal["centre"] = "centre"
    store_fingerprint: str
    records: int
    width: int
    columns: tuple[str, ...]
    cohorts: tuple[str, ...]
    sites: tuple[str, ...]
    devices: tuple[str, ...]
    data: str  # SHA-256 over the embedding and all columns


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One embedding per record of a store: `embedding[i]` belongs to entry i of `index`."""

    path: Path
    info: EmbeddingInfo
    index: CohortIndex
    embedding: NDArray[np.float32]  # (record, unit)


def weights_digest(model: "nn.Module") -> str:
    """Return SHA-256 over names, types, shapes and bytes of all tensors, so that weights are known under any file name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        # Type and shape too: in another shape the same bytes are other weights.
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def embed_store(
    model: "nn.Module",
    store: "AnyStore",
    out: str | Path,
    name: str = "weights",
    card: str | None = None,
    progress: Progress | None = None,
    *,
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
) -> Embeddings:
    """Write the embeddings of a store as a Zarr v3 group with the index columns beside them, and return them.

    name: of the weights, for tables. card: SHA-256 of their card.json. progress: told records done and in all.
    missing_leads, force_recipe: as for `embed`; what was done is kept in the group's attributes.
    The folder is written beside its place, then renamed. Raises SpecError if `out` exists, RecipeMismatch for another
    recipe.
    """
    target = Path(out)
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")
    spec = InputSpec.of_model(model)
    plan = Adaptation.of_recipe(spec, store.recipe, str(store.path), missing_leads, force_recipe)
    embedding = store_features(model, store, plan, progress)
    columns = {
        key: column
        for key, column in sorted(store.index.columns.items())
        if key in COLUMNS or key in BYTE_COLUMNS or key.startswith(LABEL)
    }
    index = CohortIndex(columns, store.index.cohorts, store.index.sites, store.index.devices)
    info = EmbeddingInfo(
        name=name,
        weights=weights_digest(model),
        card=card,
        origin=getattr(model, "origin", None),
        input=spec,
        adaptation=plan,
        store_fingerprint=store.fingerprint,
        records=len(embedding),
        width=embedding.shape[1],
        columns=tuple(columns),
        cohorts=index.cohorts,
        sites=index.sites,
        devices=index.devices,
        data=_data_digest(embedding, index),
    )
    _write(target, info, embedding, index)
    return Embeddings(target, info, index, embedding)


def open_embeddings(path: str | Path) -> Embeddings:
    """Read an embeddings folder into memory. Raises StoreError if it is none, or not what was written."""
    import zarr
    from zarr.errors import BaseZarrError

    folder = Path(path)
    if not (folder / "zarr.json").is_file():
        raise StoreError(
            f"{folder}: found no embeddings, expected a folder made by: capezoo embed WEIGHTS STORE -o DIR"
        )
    try:
        group = zarr.open_group(folder, mode="r", zarr_format=3)
        info = parse(EmbeddingInfo, dict(group.attrs), str(folder))
        embedding = _array(group, "embedding")
        columns = {name: _array(group, f"index/{name}") for name in info.columns}
    except (BaseZarrError, KeyError, ValueError, OSError, RuntimeError) as error:
        raise StoreError(f"{folder}: damaged ({type(error).__name__}). Remove it and embed again.") from None
    if embedding.shape != (info.records, info.width) or any(len(column) != info.records for column in columns.values()):
        raise StoreError(f"{folder}: found {embedding.shape}, expected {(info.records, info.width)}. Embed again.")
    index = CohortIndex(columns, info.cohorts, info.sites, info.devices)
    if _data_digest(embedding, index) != info.data:
        raise StoreError(f"{folder}: found other numbers than were written. Remove it and embed again.")
    return Embeddings(folder, info, index, embedding)


def _array(group: Any, name: str) -> NDArray[Any]:
    return np.asarray(group[name][...])


# The digest covers little-endian bytes, so that it is the same on machines of either order.
def _data_digest(embedding: NDArray[np.float32], index: CohortIndex) -> str:
    digest = hashlib.sha256()
    for name, array in {"embedding": embedding, **dict(sorted(index.columns.items()))}.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name}\0{little.dtype.str}\0{little.shape}\0".encode() + little.tobytes())
    return digest.hexdigest()


def _write(target: Path, info: EmbeddingInfo, embedding: NDArray[np.float32], index: CohortIndex) -> None:
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

    from ecgcohorts.io.durable import sync_folder

    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        group = zarr.create_group(aside, zarr_format=3, attributes=info.model_dump(mode="json"))
        for name, array in {"embedding": embedding, **{f"index/{k}": v for k, v in index.columns.items()}}.items():
            group.create_array(
                name,
                shape=array.shape,
                dtype=array.dtype,
                chunks=(min(max(len(array), 1), _CHUNK_RECORDS), *array.shape[1:]),
                serializer=BytesCodec(endian="little" if array.dtype.itemsize > 1 else None),
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                fill_value=np.nan if array.dtype.kind == "f" else 0,
                config={"write_empty_chunks": True},  # a missing chunk must not read as data
            )[...] = array
        # The rename must not reach the disk before the bytes do, or a power cut leaves holes under the final name.
        for path in aside.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(aside, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
