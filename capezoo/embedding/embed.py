"""Weights and signals in, embeddings out; what does not fit the weights is adapted exactly or refused (`contract`).

One window per recording, the centre of its valid part: the same on every run.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import (
    Adaptation,
    Mains,
    MissingLeads,
    array_windows,
    fit_array,
    fit_leads,
    fit_recipe,
    window_starts,
)
from capezoo.specs import InputSpec, Spec, parse
from capezoo.zoo.forward import BATCH, features, features_of
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, LABEL, CohortIndex
from ecgcohorts.recording import MISSING

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store import AnyStore

_CHUNK_RECORDS = 4096  # of the embedding array; 4 MB at 256 features
Progress = Callable[[int, int], None]


class EmbeddingInfo(Spec):
    """Attributes of an embeddings folder: what made it, and the digest of what it holds."""

    format: Literal["capezoo-embeddings"] = "capezoo-embeddings"
    format_version: Literal[2] = 2  # 1 had no adaptation
    name: str  # of the weights, for tables
    weights: str  # SHA-256 over names, shapes and bytes of all tensors of the encoder
    card: str | None  # SHA-256 of card.json, None for weights that were never published
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


def embed(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
    *,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    mains_hz: Mains = "auto",
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
) -> NDArray[np.float32]:
    """Embeddings of a store, in the order of its index, or of an array of raw signals: (record, unit).

    An array is (record, lead, time), NaN where missing, unfiltered, and needs `rate_hz`, `leads` and `unit` (V, mV or
    uV). It goes through the recipe of the weights: leads found by name, scaled, resampled, filtered (notch at
    `mains_hz`). `adaptation` tells what is done, with the same arguments.
    missing_leads: "refuse"; "derive" limb leads from two others; or "zero", which also feeds 0 mV where nothing can be
    derived. force_recipe: take a store of another recipe, if rate, unit and length fit.
    Raises RecipeMismatch for a store of another recipe, SpecError for what cannot be adapted exactly, and
    RejectedRecording, naming the record, for signals that the recipe refuses.
    """
    given = {"rate_hz": rate_hz, "leads": leads, "unit": unit, "mains_hz": mains_hz}
    plan = _fit(model, source, given, missing_leads, force_recipe)
    if isinstance(source, np.ndarray):
        return features(model, array_windows(source, spec_of(model), plan))
    return _all_features(model, store_windows(source, spec_of(model), plan))


def adaptation(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
    *,
    rate_hz: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    mains_hz: Mains = "auto",
    missing_leads: MissingLeads = "refuse",
    force_recipe: bool = False,
) -> Adaptation:
    """What `embed` does to such input before the encoder sees it; no signal is read.

    Raises what `embed` raises, except for what only the samples show.
    """
    given = {"rate_hz": rate_hz, "leads": leads, "unit": unit, "mains_hz": mains_hz}
    return _fit(model, source, given, missing_leads, force_recipe)


def _fit(
    model: "nn.Module",
    source: "AnyStore | NDArray[Any]",
    given: dict[str, Any],
    missing_leads: MissingLeads,
    force_recipe: bool,
) -> Adaptation:
    """How `source` is made to fit the model. given: the description of an array."""
    if isinstance(source, np.ndarray):
        return fit_array(spec_of(model), source, given, missing_leads)
    spec = spec_of(model)
    if not hasattr(source, "recipe"):
        raise SpecError(f"found {type(source).__name__}, expected a store, or a numpy array (record, lead, time).")
    if any(given[name] is not None for name in ("rate_hz", "leads", "unit")):
        raise SpecError("found rate_hz, leads or unit beside a store, expected none: the store knows them.")
    return fit_recipe(spec, source.recipe, str(source.path), missing_leads, force_recipe)


def spec_of(model: "nn.Module") -> InputSpec:
    """The input contract of a model. Raises SpecError if it has none."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, InputSpec):
        raise SpecError(
            "found a model without `spec`, expected one from capezoo.create_model or with an InputSpec set."
        )
    return spec


def store_windows(
    store: "AnyStore", spec: InputSpec, plan: Adaptation, progress: Progress | None = None
) -> Iterator[NDArray[np.float32]]:
    """Central windows in mV of all records, in the order of the index, in blocks, adapted to the spec as planned."""
    index = store.index
    starts = window_starts(index["valid_start"], index["valid_stop"], spec.length)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(index), BATCH):
            part = slice(first, first + BATCH)
            strips = store.read(index["row"][part])
            windows = np.stack([s[:, at : at + spec.length] for s, at in zip(strips, starts[part], strict=True)])
            if (windows == MISSING).any():
                raise StoreError(f"{store.path}: found missing samples inside a valid part. Run: ecgcohorts verify")
            windows_mv = windows * np.float32(store.recipe.lsb_uv / 1000)
            yield fit_leads(windows_mv, store.recipe.leads, spec, plan)
            if progress:
                progress(min(first + BATCH, len(index)), len(index))

    return blocks()


def _all_features(model: "nn.Module", blocks: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    found = list(features_of(model, blocks))
    embedding = np.concatenate(found) if found else np.zeros((0, int(model.num_features)), np.float32)  # type: ignore[arg-type]
    if not np.isfinite(embedding).all():
        raise SpecError(
            "found embeddings that are no finite numbers, expected numbers. Check the weights: capezoo verify"
        )
    return embedding


def weights_digest(model: "nn.Module") -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors: what the weights are, whatever they are called."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
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
    Written beside its place, then renamed. Raises SpecError if `out` exists, RecipeMismatch for another recipe.
    """
    target = Path(out)
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")
    spec = spec_of(model)
    plan = fit_recipe(spec, store.recipe, str(store.path), missing_leads, force_recipe)
    embedding = _all_features(model, store_windows(store, spec, plan, progress))
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
        for path in aside.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(aside, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Callable(ModuleType):
    """Importing `capezoo.embed` puts the module where `capezoo.embed`, the function, is expected: it answers as both."""

    def __call__(self, *args: Any, **kwargs: Any) -> NDArray[np.float32]:
        return embed(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
