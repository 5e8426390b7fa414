"""Embeddings on disk: a Zarr v3 group with the index columns beside them, and the digest of both."""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.distributed import _join
from capezoo.embedding.adapt import Adaptation, MissingLeads
from capezoo.embedding.from_store import BatchNorm, Progress, _blocks
from capezoo.embedding.parts import RECORDS, _Parts, claim
from capezoo.specs.base import Spec, parse
from capezoo.specs.input import InputSpec
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, LABEL, CohortIndex
from ecgcohorts.io.durable import sync_folder
from ecgcohorts.store.commit import writer_lock

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store.reader import AnyStore

log = logging.getLogger(__name__)

_CHUNK_PARTS = 4
_CHUNK_RECORDS = _CHUNK_PARTS * RECORDS  # 4096, of the embedding array; 4 MB at 256 features


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
    batch_norm: BatchNorm = "running"
    device: str = "cpu"  # kind of what computed them: the last bits differ between kinds
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
    device: str | None = None,
    batch_norm: BatchNorm = "running",
) -> Embeddings:
    """Write the embeddings of a store as `write_embeddings` does, and return them."""
    how: dict[str, Any] = {"missing_leads": missing_leads, "force_recipe": force_recipe, "device": device}
    write_embeddings(model, store, out, name, card, progress, batch_norm=batch_norm, **how)
    return open_embeddings(out)


def write_embeddings(
    model: "nn.Module",
    store: "AnyStore",
    out: str | Path,
    name: str = "weights",
    card: str | None = None,
    progress: Progress | None = None,
    *,
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
    device: str | None = None,
    batch_norm: BatchNorm = "running",
) -> EmbeddingInfo:
    """Write the embeddings of a store as a Zarr v3 group with the index columns beside them; return its attributes.

    name: of the weights, for tables. card: SHA-256 of their card.json. progress: told records done and in all, of this
    process's share. missing_leads, force_recipe: as for `embed`; what was done is kept in the group's attributes.
    device: auto (a GPU if there is one), cpu, cuda or cuda:N; None: where the model is. batch_norm: as for `embed`.
    Embeddings go to the disk as they come, beside their place. Called again after a kill, it goes on there and ends with
    the same bytes. Processes that torchrun started share the work, and all return once it is done.
    Raises SpecError if `out` exists, RecipeMismatch for another recipe, LockHeld if another process writes there.
    """
    target = Path(out)
    _require_new(target)
    spec, index = InputSpec.of_model(model), _kept(store.index)
    plan = Adaptation.of_recipe(spec, store.recipe, str(store.path), missing_leads, force_recipe)
    made_of: dict[str, Any] = {"name": name, "card": card, "origin": getattr(model, "origin", None), "adaptation": plan}
    made_of["batch_norm"] = batch_norm
    info = _info(model, index, {**made_of, "input": spec, "device": device, "store_fingerprint": store.fingerprint})
    work = target.with_name(f".{target.name}.part")
    parts = _Parts(work, info.records, info.width)
    with ExitStack() as held:
        rank, ranks, wait = _join()
        if rank == 0:
            held.enter_context(writer_lock(work, "folder"))
            _require_new(target)  # again: another run may have finished it meanwhile
            # Another torch may round otherwise, and half of each would be the embeddings of neither.
            if claim(work, {**info.model_dump(mode="json"), "torch": version("torch")}):
                log.warning("%s: dropped what was left of other embeddings, which were never finished.", target)
        wait()
        missing = parts.missing()
        wait()  # before the first is written: all ranks must share out the same
        mine = missing[rank::ranks]
        counter = _Counter(progress, parts, mine, alone=ranks == 1)
        ranges = [parts.ranges[number] for number in mine]
        with closing(_blocks(model, store, plan, ranges, device, batch_norm)) as blocks:
            parts.write(mine, blocks, counter.add)
        wait()
        if rank == 0:
            _finished(target, work, info, parts, index)
        wait()  # nobody looks for the folder before it is there
    return _attributes(target)


def _attributes(folder: Path) -> EmbeddingInfo:
    import zarr

    return parse(EmbeddingInfo, dict(zarr.open_group(folder, mode="r", zarr_format=3).attrs), str(folder))


def _require_new(target: Path) -> None:
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")


class _Counter:
    """Tells how many records of this process's share are done; of a lone process, those of an earlier one are done too."""

    def __init__(self, progress: Progress | None, parts: _Parts, mine: list[int], alone: bool) -> None:
        to_do = sum(len(parts.ranges[number]) for number in mine)
        self._progress, self._total = progress, sum(map(len, parts.ranges)) if alone else to_do
        self._done = self._total - to_do

    def add(self, records: int) -> None:
        self._done += records
        if self._progress:
            self._progress(self._done, self._total)


def _kept(index: CohortIndex) -> CohortIndex:
    """Return the columns of an index that stand beside its embeddings, in order of their names."""
    columns = {
        key: column
        for key, column in sorted(index.columns.items())
        if key in COLUMNS or key in BYTE_COLUMNS or key.startswith(LABEL)
    }
    return CohortIndex(columns, index.cohorts, index.sites, index.devices)


def _info(model: "nn.Module", index: CohortIndex, made_of: dict[str, Any]) -> EmbeddingInfo:
    """Describe embeddings before they are made: without the digest of what they will hold."""
    from capezoo.devices import _device_named

    named = made_of.pop("device")
    there = next(model.parameters()).device if named is None else _device_named(named)
    return EmbeddingInfo(
        **made_of,
        device=there.type,
        weights=weights_digest(model),
        records=len(index),
        width=int(model.num_features),  # type: ignore[arg-type]
        columns=tuple(index.columns),
        cohorts=index.cohorts,
        sites=index.sites,
        devices=index.devices,
        data="",
    )


def without_embeddings(
    model: "nn.Module", store: "AnyStore", name: str, card: str | None = None, batch_norm: BatchNorm = "running"
) -> Embeddings:
    """Say whose embeddings of which store these would be, for who trains a model on its signals: they have no units.

    Raises RecipeMismatch for another recipe, as `embed_store` does.
    """
    spec, index = InputSpec.of_model(model), _kept(store.index)
    plan = Adaptation.of_recipe(spec, store.recipe, str(store.path))
    made_of = {"name": name, "card": card, "adaptation": plan, "batch_norm": batch_norm, "input": spec, "device": None}
    info = _info(model, index, {**made_of, "store_fingerprint": store.fingerprint})
    return Embeddings(Path(), info, index, np.zeros((len(index), 0), np.float32))


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
    return _digest(embedding.shape, [embedding], index)


def _digest(shape: tuple[int, ...], embedding: Iterable[NDArray[np.float32]], index: CohortIndex) -> str:
    """embedding: the rows of an array of this shape, in pieces."""
    digest = hashlib.sha256(f"embedding\0<f4\0{shape}\0".encode())
    for piece in embedding:
        digest.update(np.ascontiguousarray(piece, "<f4").tobytes())
    for name, array in sorted(index.columns.items()):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name}\0{little.dtype.str}\0{little.shape}\0".encode() + little.tobytes())
    return digest.hexdigest()


def _finished(target: Path, work: Path, info: EmbeddingInfo, parts: _Parts, index: CohortIndex) -> None:
    """Put the parts together, beside their place and then in it. In memory there is one chunk of them at a time."""
    import zarr

    aside, shape = work / "whole", (info.records, info.width)
    shutil.rmtree(aside, ignore_errors=True)
    group = zarr.create_group(aside, zarr_format=3)
    for name, column in index.columns.items():
        _array_in(group, f"index/{name}", column.shape, column.dtype)[...] = column
    embedding = _array_in(group, "embedding", shape, np.dtype(np.float32))
    numbers = range(len(parts.ranges))

    def chunks() -> Iterator[NDArray[np.float32]]:
        for first in numbers[::_CHUNK_PARTS]:
            chunk = np.concatenate([parts.read(number) for number in numbers[first : first + _CHUNK_PARTS]])
            embedding[first * RECORDS : first * RECORDS + len(chunk)] = chunk
            yield chunk

    info = info.model_copy(update={"data": _digest(shape, chunks(), index)})
    group.update_attributes(info.model_dump(mode="json"))
    # The rename must not reach the disk before the bytes do, or a power cut leaves holes under the final name.
    for path in aside.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    os.rename(aside, target)
    sync_folder(target.parent)
    shutil.rmtree(work)


def _array_in(group: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(min(max(shape[0], 1), _CHUNK_RECORDS), *shape[1:]),
        serializer=BytesCodec(endian="little" if dtype.itemsize > 1 else None),
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        fill_value=np.nan if dtype.kind == "f" else 0,
        config={"write_empty_chunks": True},  # a missing chunk must not read as data
    )
