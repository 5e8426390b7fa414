"""Make every cohort one segment again: appends put later recordings of a patient far from the earlier ones.

The new segment is written beside the old ones, which stay with the earlier snapshot until `gc`: a kill leaves the old
snapshot or the new one. Records are copied as they are encoded, one at a time, each with its checksum verified.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import StoreError
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.io.durable import write_file
from ecgcohorts.io.place import Folder
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.store.columns import write_index
from ecgcohorts.store.commit import changing, publish, refuse_interrupted, remove_unlisted
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import Accounting, FileEntry, Segment, index_folder, signals_metadata
from ecgcohorts.store.signals.shards import ShardedArray
from ecgcohorts.store.splits import load_split, split_names, write_split
from ecgcohorts.store.writer import ShardWriter

Progress = Callable[[int, int], None]  # records copied, and in all


@dataclass(frozen=True)
class CompactReport:
    """What was rewritten. `written` is False if there was nothing to do."""

    cohorts: tuple[str, ...]
    recordings: int  # of these cohorts
    segments: int  # before; afterwards one for each cohort
    empty_rows: int  # left out
    fingerprint: str
    written: bool


def compact(
    store_path: str | Path,
    cohort: str | None = None,
    key_file: Path | None = None,
    progress: Progress | None = None,
) -> CompactReport:
    """Replace all segments of a cohort, or of every cohort, by one without empty rows.

    Patients stand in the order in which an ingest of everything at once would put them. Their records stand by time as far
    as `days` tells; those of a later ingest follow in their present order. Row numbers change, in the index and in all kept
    splits; recording ids, values and accounts do not. Needs room for a copy of the cohort's signals. Raises SpecError for
    an unknown cohort, StoreError for a damaged shard or an interrupted ingest, KeyMismatch, LockHeld.
    """
    with changing(store_path) as (folder, store):
        key = store.load_key(key_file)
        wanted = store.index.cohorts if cohort is None else (store.index.cohorts[store.index.cohort_code(cohort)],)
        refuse_interrupted(folder)
        remove_unlisted(Folder(folder), store.manifest)  # what a killed run left
        scattered = tuple(name for name in wanted if _is_scattered(store, name))
        if not scattered:
            return CompactReport((), 0, 0, 0, store.fingerprint, written=False)
        return _compact(folder, store, {name: _in_order(store.index, name, key) for name in scattered}, progress)


def _is_scattered(store: Store, cohort: str) -> bool:
    mine = _segments_of(store, cohort)
    live = sum(segment.accounting.stored for segment in mine)
    # Fewer live than planned: rows of recordings that were refused or removed are empty.
    return len(mine) > 1 or live < sum(segment.rows for segment in mine)


def _segments_of(store: Store, cohort: str) -> list[Segment]:
    return [segment for segment in store.segments if segment.cohort == cohort]


def _in_order(index: CohortIndex, cohort: str, key: PseudonymKey) -> NDArray[np.int64]:
    """Return the entries of a cohort in store order."""
    # Days are unknown in later ingests, since nobody reads a patient's first date again: these records go last.
    entries = np.flatnonzero(index["cohort"] == index.cohort_code(cohort))
    patients, number = np.unique(index["patient"][entries], return_inverse=True)
    # The keyed order of an ingest depends on pseudonyms alone, so it can be had again without the source.
    place = np.empty(len(patients), np.int64)
    place[key.store_order(cohort, index.patient_ids[patients])] = np.arange(len(patients))
    days = index["days"][entries]
    return entries[np.lexsort((index["row"][entries], days, np.isnan(days), place[number]))]


def _compact(
    folder: Path, store: Store, orders: dict[str, NDArray[np.int64]], progress: Progress | None
) -> CompactReport:
    """Write and publish the generation in which each cohort of `orders` is one segment with these entries."""
    manifest, generation = store.manifest, store.manifest.generation + 1
    old = [segment for segment in store.segments if segment.cohort in orders]
    segments, rows = _lay_out(store, orders, generation)
    index = _renumbered(store.index, rows)
    kept = split_names(store)
    # Index and splits are written anew, because every row has another number; the rejects stay as they are.
    without = (f"{index_folder(manifest.generation)}/", *(f"{segment.folder}/" for segment in old))
    without += tuple(f"splits/{name}/" for name in kept)
    files = manifest.carry_over(folder, generation, without)
    copied, total = 0, sum(map(len, orders.values()))

    def tell() -> None:
        nonlocal copied
        copied += 1
        if progress:
            progress(copied, total)

    for segment in segments:
        if segment.cohort in orders:
            files |= _write_segment(folder, store, segment, store.index["row"][orders[segment.cohort]], tell)
    written = write_index(folder, generation, index)
    for name in kept:
        split = load_split(store, name)
        n_rows = sum(segment.rows for segment in segments)
        written += write_split(folder, generation, split.definition, split.column(index), index, n_rows)
    files |= FileEntry.of_files(folder, list(dict.fromkeys(written)))
    changes = {"generation": generation, "segments": segments, "files": dict(sorted(files.items()))}
    fingerprint = publish(folder, manifest.model_copy(update=changes))
    empty = sum(segment.rows for segment in old) - total
    return CompactReport(tuple(orders), total, len(old), empty, fingerprint, written=True)


def _lay_out(
    store: Store, orders: dict[str, NDArray[np.int64]], generation: int
) -> tuple[tuple[Segment, ...], NDArray[np.int64]]:
    """Return the segments to come, each cohort's new one where its first one was; and the new row of every entry."""
    before = store.index["row"]
    rows = np.empty(len(before), np.int64)
    segments: list[Segment] = []
    done: set[str] = set()
    at = 0
    for segment in store.segments:
        # Untouched cohorts keep their files; only their first rows move when one before them shrinks.
        if segment.cohort not in orders:
            inside = (before >= segment.first_row) & (before < segment.first_row + segment.rows)
            rows[inside] = before[inside] - segment.first_row + at
            segments.append(segment.model_copy(update={"first_row": at}))
        elif segment.cohort not in done:
            order = orders[segment.cohort]
            rows[order] = at + np.arange(len(order))
            segments.append(_joined(_segments_of(store, segment.cohort), generation, at, len(order)))
            done.add(segment.cohort)
        else:
            continue
        at += segments[-1].rows
    return tuple(segments), rows


def _joined(segments: list[Segment], generation: int, first_row: int, rows: int) -> Segment:
    """Describe the one segment for several of a cohort, which share their description. Its shards are as large as the largest."""
    return segments[-1].model_copy(
        update={
            "name": f"{generation:06d}",
            "first_row": first_row,
            "rows": rows,
            "shard_records": max(segment.shard_records for segment in segments),
            "accounting": Accounting.total(segment.accounting for segment in segments),
        }
    )


def _renumbered(index: CohortIndex, rows: NDArray[np.int64]) -> CohortIndex:
    """Return the index with other rows, ordered and numbered as an ingest does: patients as they first come, then rows."""
    first = np.full(index.n_patients, np.iinfo(np.int64).max)
    np.minimum.at(first, index["patient"], rows)
    order = np.lexsort((rows, first[index["patient"]]))
    columns = {name: column[order] for name, column in index.columns.items()}
    number = np.empty(index.n_patients, COLUMNS["patient"])
    number[np.argsort(first)] = np.arange(index.n_patients)
    columns |= {"row": rows[order], "patient": number[columns["patient"]]}
    return CohortIndex(columns, index.cohorts, index.sites, index.devices)


def _write_segment(
    folder: Path, store: Store, new: Segment, rows: NDArray[np.int64], tell: Callable[[], None]
) -> dict[str, FileEntry]:
    """Write the shards of a segment from the present `rows` of the store; return the new files by relative path."""
    old = _segments_of(store, new.cohort)
    arrays = [_checked_array(folder, store, segment) for segment in old]
    first_rows = np.array([segment.first_row for segment in old])
    source = np.searchsorted(first_rows, rows, side="right") - 1
    places = list(zip(source.tolist(), (rows - first_rows[source]).tolist(), strict=True))
    shape = (len(store.recipe.leads), store.recipe.strip_samples)
    entries = {}
    # New files only, under the new generation's name: until CURRENT is replaced, readers use the old ones.
    for number, first in enumerate(range(0, new.rows, new.shard_records)):
        target = f"{new.folder}/c/{number}/0/0"
        with ShardWriter(folder / target, new.shard_records, shape, store.manifest.codec) as shard:
            for segment, row in places[first : first + new.shard_records]:
                # Not decoded: the bytes are those that were verified, and one record at a time needs no memory.
                shard.append_encoded(arrays[segment].encoded(row))
                tell()
        entries[target] = shard.entry
    metadata = f"{new.folder}/zarr.json"
    write_file(folder / metadata, signals_metadata(new.rows, new.shard_records, store.recipe, store.manifest.codec))
    return entries | FileEntry.of_files(folder, [metadata])


def _checked_array(folder: Path, store: Store, segment: Segment) -> ShardedArray:
    """Open a segment to copy from. Raises StoreError unless it is whole, and encoded as this version encodes."""
    for name, entry in store.manifest.files.items():
        if name.startswith(f"{segment.folder}/"):
            entry.refuse_damaged(folder / name)
    # Copied chunks get this version's zarr.json, so they must have been written under the same one.
    path = folder / segment.folder / "zarr.json"
    metadata = path.read_bytes()
    if metadata != signals_metadata(segment.rows, segment.shard_records, store.recipe, store.manifest.codec):
        raise StoreError(f"{path}: this version encodes signals differently. Ingest into a new store.")
    return ShardedArray(store.place, segment.folder, metadata)
