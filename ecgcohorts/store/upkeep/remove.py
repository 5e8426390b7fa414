"""Take a patient out of a store for good, when consent is withdrawn.

Signals are overwritten in new shard files beside the old ones, which go when the new snapshot is in force: until then a
kill leaves the old snapshot whole. What stays are pseudonyms: that of the patient in the manifest and those of the
recordings in the table of rejects, so that a later ingest of the same source knows whom to leave out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import COLUMNS, UNKNOWN, CohortIndex
from ecgcohorts.io.durable import link_file, write_file
from ecgcohorts.io.place import Folder
from ecgcohorts.store.columns import write_index
from ecgcohorts.store.commit import changing, publish, refuse_interrupted, remove_unlisted
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import FileEntry, Manifest, Segment, index_folder, rejects_name
from ecgcohorts.store.splits import load_split, split_names, write_split
from ecgcohorts.store.upkeep.lookup import REMOVED, _pseudonyms_of, find_by_id
from ecgcohorts.store.writer import blank_rows


@dataclass(frozen=True)
class _RemovalReport:
    """What was removed. `written` is False if the patient had been removed before."""

    patient: str  # pseudonym, in hexadecimal
    recordings: int
    shards: int  # rewritten
    splits: int  # rewritten
    copies: int  # of these recordings under other ids, refused as duplicates when they were ingested
    fingerprint: str
    written: bool


def remove_patient(
    store_path: str | Path, cohort: str, original_id: str, key_file: Path | None = None
) -> _RemovalReport:
    """Take all recordings of a patient out of signals, index and splits, and keep them out of later ingests.

    original_id: as the source has it; of a recording without patient id, the id of the recording. Removing again
    changes nothing, but clears away what a killed removal left. Needs room for a copy of the shards the patient is in.
    Raises SpecError for a patient who is not in the cohort, StoreError for a damaged shard or an interrupted ingest,
    KeyMismatch, LockHeld.
    """
    with changing(store_path) as (folder, store):
        refuse_interrupted(folder)
        names = _names_of(store, cohort, original_id, key_file)
        remove_unlisted(Folder(folder), store.manifest)
        code = store.index.cohort_code(cohort)
        # An id may be printed in two ways, or be that of a recording without a patient: the first that is there counts.
        for name in names:
            gone = store.index.entries_of(code, "patient", name)
            if gone.any():
                return _remove(folder, store, name.hex(), gone)
    before = [name.hex() for name in names if name.hex() in store.manifest.removed]
    if before or find_by_id(store, cohort, original_id, "recording", key_file).reason == REMOVED:
        return _RemovalReport(names[0].hex(), 0, 0, 0, 0, store.fingerprint, written=False)
    raise SpecError(f"{folder}: found no patient of this id in cohort {cohort!r}. Give the id as the source has it.")


def _names_of(store: Store, cohort: str, original_id: str, key_file: Path | None) -> list[bytes]:
    """Return the pseudonyms the patient may have: that of the id, and that of a recording that is a patient of its own."""
    key = store.load_key(key_file)
    store.index.cohort_code(cohort)
    names = _pseudonyms_of(key, cohort, "patient", original_id)
    for recording in _pseudonyms_of(key, cohort, "recording", original_id):
        same = store.index.entries_of(store.index.cohort_code(cohort), "recording", recording)
        names += [one.tobytes() for one in store.index["patient_id"][same & ~store.index["patient_known"]]]
    return names


def _remove(folder: Path, store: Store, patient: str, gone: NDArray[np.bool_]) -> _RemovalReport:
    """Write and publish the generation without the entries `gone`."""
    manifest = store.manifest
    rows = np.sort(store.index["row"][gone])
    # Only segments that hold the patient are written anew, and of these only the shards.
    hit = [one for one in manifest.segments if len(_inside(one, rows))]
    # Each rewritten segment takes the number of a generation for its name: two of one cohort must not share it.
    new_names = {one.folder: f"{manifest.generation + place:06d}" for place, one in enumerate(hit, 1)}
    generation = manifest.generation + len(hit)
    without = (f"{index_folder(manifest.generation)}/", "rejects-", *(f"{one.folder}/" for one in hit))
    kept = split_names(store)
    without += tuple(f"splits/{name}/" for name in kept)
    files = manifest.carry_over(folder, generation, without)
    segments, shards = [], 0
    for segment in manifest.segments:
        new = segment
        if segment.folder in new_names:
            local = _inside(segment, rows)
            new, entries = _rewrite(folder, store, segment, new_names[segment.folder], local)
            files |= entries
            shards += len(np.unique(local // segment.shard_records))
        segments.append(new)
    index = _without(store.index, gone)
    written = write_index(folder, generation, index)
    for name in kept:
        split = load_split(store, name)
        written += write_split(folder, generation, split.definition, split.column(index), index, store.n_rows)
    rejects = store.rejects()
    removed_ids = [one.tobytes().hex() for one in store.index["recording_id"][gone]]
    write_file(folder / rejects_name(generation), _rejects(store, gone, removed_ids).to_parquet(index=False))
    files |= FileEntry.of_files(folder, [*dict.fromkeys(written), rejects_name(generation)])
    following = _manifest(manifest, generation, tuple(segments), index, patient, dict(sorted(files.items())))
    # Earlier snapshots still hold the signals, so they are not named any more and go with this very publish.
    fingerprint = publish(folder, following, forget=True)
    # Copies of these recordings were never stored; the caller is told, because their lines stay in the table of rejects.
    copies = int(rejects["duplicate_of"].isin(removed_ids).sum())
    return _RemovalReport(patient, int(gone.sum()), shards, len(kept), copies, fingerprint, written=True)


def _manifest(
    before: Manifest,
    generation: int,
    segments: tuple[Segment, ...],
    index: CohortIndex,
    patient: str,
    files: dict[str, FileEntry],
) -> Manifest:
    return before.model_copy(
        update={
            "generation": generation,
            "segments": segments,
            "sites": index.sites,
            "devices": index.devices,
            "removed": tuple(sorted({*before.removed, patient})),
            "files": files,
        }
    )


def _inside(segment: Segment, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the store's rows that are in a segment, counted from its first."""
    return rows[(rows >= segment.first_row) & (rows < segment.first_row + segment.rows)] - segment.first_row


def _rewrite(
    folder: Path, store: Store, segment: Segment, name: str, rows: NDArray[np.int64]
) -> tuple[Segment, dict[str, FileEntry]]:
    """Write a segment under another name with some of its rows blank; shards without any are only linked."""
    # What leaves `stored` enters `rejected`, so that inputs = stored + duplicates + rejected still holds.
    account = segment.accounting
    rejected = {**account.rejected, REMOVED: account.rejected.get(REMOVED, 0) + len(rows)}
    account = account.model_copy(
        update={"stored": account.stored - len(rows), "rejected": dict(sorted(rejected.items()))}
    )
    new = segment.model_copy(update={"name": name, "accounting": account})
    shape = (len(store.recipe.leads), store.recipe.strip_samples)
    shards = rows // segment.shard_records
    places = {f"c/{shard}/0/0": rows[shards == shard] for shard in np.unique(shards).tolist()}
    entries = {}
    # Shards without the patient get a second name under the new segment: no copy, and the old name goes with the old one.
    for path, entry in store.manifest.files.items():
        if not path.startswith(f"{segment.folder}/"):
            continue
        inner = path.removeprefix(f"{segment.folder}/")
        target = f"{new.folder}/{inner}"
        if inner in places:
            # Checked first: a rewritten shard gets a new SHA-256, under which old damage would pass for content.
            entry.refuse_damaged(folder / path)
            local = places[inner] % segment.shard_records
            entry = blank_rows(
                folder / path, folder / target, local, segment.shard_records, shape, store.manifest.codec
            )
        else:
            link_file(folder / path, folder / target)
        entries[target] = entry
    return new, entries


def _without(index: CohortIndex, gone: NDArray[np.bool_]) -> CohortIndex:
    """Return the other entries, without names of sites and devices that were this patient's alone."""
    kept = index.take(~gone)
    columns = dict(kept.columns)
    names = {}
    for column, values in (("site", index.sites), ("device", index.devices)):
        used = np.unique(columns[column])
        used = used[used != UNKNOWN]
        code = np.full(len(values) + 1, UNKNOWN, COLUMNS[column])  # the last is for the code -1
        code[used] = np.arange(len(used))
        columns[column] = code[columns[column]]
        names[column] = tuple(values[place] for place in used.tolist())
    return CohortIndex(columns, kept.cohorts, names["site"], names["device"])


def _rejects(store: Store, gone: NDArray[np.bool_], recording_ids: list[str]) -> pd.DataFrame:
    cohorts = [store.index.cohorts[code] for code in store.index["cohort"][gone].tolist()]
    rows = {"cohort": cohorts, "recording_id": recording_ids, "stage": "remove", "reason": REMOVED}
    frame = pd.DataFrame({**rows, "error": "", "duplicate_of": ""}, dtype=str)
    return pd.concat([store.rejects(), frame], ignore_index=True)
