"""The last step: from shards that are all there to a snapshot that readers see, all of it or nothing."""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ecgcohorts.errors import StoreError
from ecgcohorts.ingest.assemble import SettledCohort, extend_index, extend_rejects, settle
from ecgcohorts.ingest.destination import Destination
from ecgcohorts.ingest.encode import ShardResult, Staged, staging_of
from ecgcohorts.ingest.plan import AnyPlan, Known, Part, PlanHeader
from ecgcohorts.ingest.plan_table import as_keys, ids_of
from ecgcohorts.io.durable import move_file, sha256_of, write_file
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES
from ecgcohorts.store.columns import write_index
from ecgcohorts.store.commit import describe_files
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import (
    CURRENT,
    STAGING,
    Accounting,
    Current,
    FileEntry,
    Manifest,
    Segment,
    group_metadata,
    index_folder,
    rejects_name,
    signals_metadata,
)
from ecgcohorts.store.writer import blank_rows

_MARK = "plan"  # a file in a staging folder that belongs to a plan file: the snapshot the plan was made for
_RESULT_ERRORS = (OSError, ValueError, KeyError, BadZipFile)


def fingerprint_of(folder: Path) -> str:
    """SHA-256 of the manifest in force, or nothing where no store is. Cheap: no index is read."""
    try:
        return Current.model_validate_json((folder / CURRENT).read_bytes()).sha256
    except FileNotFoundError:
        return ""
    except ValidationError:
        raise StoreError(f"{folder}: CURRENT is damaged. Restore the store from a copy.") from None


def known_to(store: Store | None) -> Known:
    """What a store has met: recordings, stored or refused, and patients, those who were removed apart."""
    if store is None:
        return Known()
    refused = np.frombuffer(bytes.fromhex("".join(store.rejects()["recording_id"])), np.uint8)
    recordings = np.concatenate([store.index["recording_id"], refused.reshape(-1, PSEUDONYM_BYTES)])
    removed = np.frombuffer(bytes.fromhex("".join(store.manifest.removed)), np.uint8).reshape(-1, PSEUDONYM_BYTES)
    return Known(recordings, store.index.patient_ids, removed)


def is_committed(plan: AnyPlan, known: Known) -> bool:
    """Has the store met every input of this plan, stored or refused?"""
    met = as_keys(known.recordings)
    for part in plan.header.parts:
        if not np.isin(as_keys(ids_of(plan.rows(part, ["recording_id"])["recording_id"])), met).all():
            return False
    refused = b"".join(one.recording_id for cohort in plan.header.cohorts for one in plan.refused(cohort.name))
    return bool(np.isin(as_keys(np.frombuffer(refused, np.uint8)), met).all())


def mark_staging(header: PlanHeader) -> None:
    """Say, in the store, that the shards being staged belong to a plan file, so that no ingest takes them for litter."""
    mark = staging_of(header) / _MARK
    if not mark.exists():
        write_file(mark, header.base.encode())


def plans_under_way(folder: Path, base: str) -> tuple[str, ...]:
    """Staging folders of plan files made for the snapshot in force, relative, with a slash at the end.

    Those of plans for an earlier one are litter: such a plan can no longer be committed.
    """
    marks = sorted((folder / STAGING).glob(f"*/{_MARK}"))
    return tuple(f"{STAGING}/{mark.parent.name}/" for mark in marks if mark.read_bytes() == base.encode())


def shard_path(header: PlanHeader, part: Part) -> Path:
    """Where the shard of a partition stands in the snapshot to come."""
    return _segment_folder(header, part.cohort) / "c" / str(part.shard) / "0" / "0"


def _segment_folder(header: PlanHeader, cohort: str) -> Path:
    return header.folder / "signals" / cohort / f"{header.generation:06d}"


def commit(plan: AnyPlan, before: Store | None, place: Destination) -> tuple[dict[str, Accounting], str]:
    """Make the snapshot of a plan whose partitions are all encoded. Return accounts per cohort and the fingerprint.

    For the holder of the write lock. What it does before the snapshot is in force, it can do again. Raises StoreError
    naming the partitions that are missing.
    """
    header = plan.header
    results = _whole_results(header)
    index = before.index if before else None
    settled = settle(plan, results, index, before.n_rows if before else 0)
    entries = _place_shards(header, results, settled)
    manifest = _write_snapshot(plan, before, results, settled, entries)
    fingerprint = place.publish(before.manifest if before else None, manifest)
    return {one.plan.name: one.accounting for one in settled}, fingerprint


def _whole_results(header: PlanHeader) -> list[ShardResult]:
    results, missing = [], []
    for part in header.parts:
        files = Staged(staging_of(header), part)
        try:
            result = ShardResult(files.result)
            if not _is_there(files.shard, shard_path(header, part), result.entry) or len(result) != part.rows:
                raise ValueError
            results.append(result)
        except _RESULT_ERRORS:
            missing.append(part)
    if missing:
        raise StoreError(_missing(header, missing))
    return results


def _is_there(staged: Path, moved: Path, entry: FileEntry) -> bool:
    """Its size is enough for a staged shard, which got its name when it was whole.

    A place in the segment is not the plan's own, and can only be met after a commit that was killed.
    """
    if staged.exists():
        return staged.stat().st_size == entry.size
    return moved.exists() and sha256_of(moved) == entry.sha256


def _missing(header: PlanHeader, missing: Sequence[Part]) -> str:
    numbers = spans([part.number for part in missing])
    text = f"{header.folder}: missing partitions {numbers} of {len(header.parts)}, expected all to be encoded."
    for part in missing:
        stopped = Staged(staging_of(header), part).stopped_at()
        if stopped:
            text += f" Partition {part.number} stopped, or still is, at recording {stopped}."
            break
    return f"{text} Encode them: ecgcohorts encode PLAN --partition {missing[0].number}"


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in short.

    >>> spans([3, 7, 8, 9])
    '3, 7-9'
    """
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _place_shards(
    header: PlanHeader, results: Sequence[ShardResult], settled: Sequence[SettledCohort]
) -> dict[str, FileEntry]:
    """Give every shard its place in the segment, rows of copies blanked; relative path -> what stands there now."""
    copies = {one.plan.name: one.copies for one in settled}
    shape = (len(header.recipe.leads), header.recipe.strip_samples)
    entries = {}
    for part, result in zip(header.parts, results, strict=True):
        target, entry = shard_path(header, part), result.entry
        files = Staged(staging_of(header), part)
        first = part.shard * header.shard_records
        rows: NDArray[np.int64] = np.flatnonzero(copies[part.cohort][first : first + part.rows])
        if len(rows):  # the staged one stays until the commit is done, so that this can be done again
            entry = blank_rows(files.shard, target, rows, header.shard_records, shape, header.codec)
        elif files.shard.exists():
            move_file(files.shard, target)
        entries[target.relative_to(header.folder).as_posix()] = entry
    return entries


def _write_snapshot(
    plan: AnyPlan,
    before: Store | None,
    results: Sequence[ShardResult],
    settled: Sequence[SettledCohort],
    entries: dict[str, FileEntry],
) -> Manifest:
    """Write metadata, index and rejects of the new generation; return the manifest that names them all."""
    header = plan.header
    folder, generation = header.folder, header.generation
    write_file(folder / "zarr.json", group_metadata({"recipe": header.recipe.model_dump(mode="json")}))
    files = dict(before.manifest.files) if before else {}
    if before:
        replaced = (index_folder(before.manifest.generation) + "/", "rejects-")
        files = {name: entry for name, entry in files.items() if not name.startswith(replaced)}
    written = ["zarr.json", "signals/zarr.json", "index/zarr.json", rejects_name(generation)]
    for name in ("signals/zarr.json", "index/zarr.json"):
        write_file(folder / name, group_metadata())
    for one in settled:
        written += _write_segment_metadata(header, one)
    index = extend_index(before.index if before else None, plan, results, settled)
    written += write_index(folder, generation, index)
    rejects = extend_rejects(before.rejects() if before else None, settled)
    write_file(folder / rejects_name(generation), rejects.to_parquet(index=False))
    files |= entries | describe_files(folder, written)
    return Manifest(
        generation=generation,
        recipe=header.recipe,
        key_fingerprint=header.key_fingerprint,
        segments=(*(before.segments if before else ()), *(_segment(header, one) for one in settled)),
        cohorts=index.cohorts,
        sites=index.sites,
        devices=index.devices,
        index_columns=tuple(sorted(index.columns)),
        versions=header.versions,
        codec=header.codec,
        files=dict(sorted(files.items())),
        removed=before.manifest.removed if before else (),
    )


def _write_segment_metadata(header: PlanHeader, one: SettledCohort) -> list[str]:
    array = _segment_folder(header, one.plan.name) / "zarr.json"
    group = array.parent.parent / "zarr.json"
    write_file(array, signals_metadata(len(one.live), header.shard_records, header.recipe, header.codec))
    write_file(group, group_metadata())
    return [path.relative_to(header.folder).as_posix() for path in (array, group)]


def _segment(header: PlanHeader, one: SettledCohort) -> Segment:
    return Segment(
        cohort=one.plan.name,
        name=f"{header.generation:06d}",
        first_row=one.first_row,
        rows=len(one.live),
        shard_records=header.shard_records,
        accounting=one.accounting,
        licence=header.spec.licence,
        spec_sha256=digest_of_spec(header),
    )


def digest_of_spec(header: PlanHeader) -> str:
    """Under which a segment remembers its description."""
    return hashlib.sha256(header.spec.model_dump_json().encode()).hexdigest()
