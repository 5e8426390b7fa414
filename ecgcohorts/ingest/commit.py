"""Turn a plan whose shards are all encoded into a snapshot that readers see, all of it or nothing.

Index and accounts are filled partition by partition into arrays made once: an index of 5 million records takes a gigabyte.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.errors import StoreError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, LABEL, QUALITY, STATISTICS, CohortIndex
from ecgcohorts.ingest._gathered import BLOCK
from ecgcohorts.ingest._ground import _Ground, _recoded
from ecgcohorts.ingest._ids import as_keys, ids_of
from ecgcohorts.ingest._memory import _remember
from ecgcohorts.ingest.encode import ShardResult, Staged
from ecgcohorts.ingest.plan import DUPLICATE, AnyPlan, Partition, PlanHeader, PlannedCohort, Refusal
from ecgcohorts.io.durable import move_file, sha256_of, write_file
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS
from ecgcohorts.recording import DIGEST_BYTES
from ecgcohorts.store.columns import write_index
from ecgcohorts.store.reader import Store
from ecgcohorts.store.remote.destination import Destination
from ecgcohorts.store.schema import (
    Accounting,
    FileEntry,
    Manifest,
    Segment,
    group_metadata,
    rejects_name,
    signals_metadata,
)
from ecgcohorts.store.upgrade import recipe_fields
from ecgcohorts.store.writer import blank_rows

_REJECT_COLUMNS = ("cohort", "recording_id", "stage", "reason", "error", "duplicate_of")
_FROM_PLAN = ("patient_known", "age", "sex", "days")  # columns that the index takes over as they are
_RESULT_ERRORS = (OSError, ValueError, KeyError, BadZipFile)


@dataclass(frozen=True, eq=False)
class _Settled:
    """Which rows of a planned cohort are live, and what was refused."""

    plan: PlannedCohort
    first_row: int
    live: NDArray[np.bool_]  # per planned row
    copies: NDArray[np.bool_]
    refused: tuple[Refusal, ...]

    @property
    def accounting(self) -> Accounting:
        reasons = dict(sorted(Counter(one.reason for one in self.refused).items()))
        duplicates = reasons.pop(DUPLICATE, 0)
        return Accounting(inputs=self.plan.inputs, stored=int(self.live.sum()), duplicates=duplicates, rejected=reasons)


class _Outcome(NamedTuple):
    """What a commit made."""

    accounting: dict[str, Accounting]
    fingerprint: str
    written: bool
    lost: tuple[str, ...]  # what of the snapshot before holds no longer, in words


def commit(plan: AnyPlan, before: Store | None, destination: Destination) -> _Outcome:
    """Make a snapshot of a plan whose partitions are all encoded. An update that changes nothing makes none.

    The caller holds the write lock. A commit that was interrupted before the snapshot is in force can be repeated. Raises
    StoreError naming the partitions that are missing.
    """
    header = plan.header
    results = _whole_results(header)
    ground = _Ground.of(before, header)
    settled = _settle(plan, results, ground)
    accounting = {one.plan.name: one.accounting for one in settled}
    entries = _place_shards(header, results, settled)
    index = _extend_index(ground, plan, results, settled)
    del results
    rejects = _extend_rejects(ground.rejects(), settled)
    segments = _segments(ground, settled)
    # Before the snapshot, so that a kill in between leaves nothing unnoted; what is noted too early is found to be untrue.
    _remember(destination.memory, plan, index)
    if before is not None and ground.replaced and _is_same(before, entries, index, rejects, (segments, ground.removed)):
        destination.clear(before.manifest, header.plans_under_way(header.base))
        return _Outcome(accounting, before.fingerprint, False, ())
    manifest, lost = _write_snapshot(ground, settled, entries, index, rejects)
    forget = ground.must_forget([one for cohort in settled for one in cohort.refused])
    # All of the above can be repeated. Readers see nothing of it until this replaces CURRENT.
    fingerprint = destination.publish(before.manifest if before else None, manifest, forget=forget)
    return _Outcome(accounting, fingerprint, True, lost)


def _is_same(
    before: Store,
    entries: Mapping[str, FileEntry],
    index: CohortIndex,
    rejects: pd.DataFrame,
    rest: tuple[tuple[Segment, ...], tuple[str, ...]],
) -> bool:
    """Tell whether an update would make the snapshot before again, but for the names of its segments."""
    segments, removed = rest
    # Names hold numbers of generations; everything else has to be equal, every shard by its SHA-256.
    old = [one.model_copy(update={"name": ""}) for one in before.segments]
    if old != [one.model_copy(update={"name": ""}) for one in segments] or removed != before.manifest.removed:
        return False
    was = {one.cohort: one.folder for one in before.segments}
    for name, entry in entries.items():
        cohort, inner = name.split("/")[1], name.split("/", 3)[3]
        if before.manifest.files.get(f"{was[cohort]}/{inner}") != entry:
            return False
    names = (index.cohorts, index.sites, index.devices) == (
        before.index.cohorts,
        before.index.sites,
        before.index.devices,
    )
    return (
        names
        and index.columns.keys() == before.index.columns.keys()
        and all(_alike(index[name], before.index[name]) for name in index.columns)
        and rejects.equals(before.rejects())
    )


def _alike(one: NDArray, other: NDArray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _whole_results(header: PlanHeader) -> list[ShardResult]:
    results, missing = [], []
    for partition in header.partitions:
        staged = Staged(header.staging, partition)
        try:
            result = ShardResult(staged.result)
            if not _is_there(staged.shard, header.shard_path(partition), result.entry) or len(result) != partition.rows:
                raise ValueError
            results.append(result)
        except _RESULT_ERRORS:
            missing.append(partition)
    if missing:
        raise StoreError(_missing(header, missing))
    return results


def _is_there(staged: Path, moved: Path, entry: FileEntry) -> bool:
    # A staged shard gets its name only once it is whole, so its size is check enough. A shard in the segment may be
    # another plan's: it is met only after a commit that was killed, and its sum has to tell.
    if staged.exists():
        return staged.stat().st_size == entry.size
    return moved.exists() and sha256_of(moved) == entry.sha256


def _missing(header: PlanHeader, missing: Sequence[Partition]) -> str:
    numbers = _spans([partition.number for partition in missing])
    text = f"{header.folder}: missing partitions {numbers} of {len(header.partitions)}, expected all to be encoded."
    for partition in missing:
        stopped = Staged(header.staging, partition).stopped_at()
        if stopped:
            text += f" Partition {partition.number} stopped, or still is, at recording {stopped}."
            break
    return f"{text} Encode them: ecgcohorts encode PLAN --partition {missing[0].number}"


def _spans(numbers: Sequence[int]) -> str:
    """Shorten ascending numbers: [3, 7, 8, 9] becomes "3, 7-9"."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _settle(plan: AnyPlan, results: Sequence[ShardResult], ground: _Ground) -> list[_Settled]:
    """Refuse copies of waveforms that the store or an earlier row of this run has."""
    before = ground.index
    known = len(before) if before is not None else 0
    empty = np.zeros((0, DIGEST_BYTES), np.uint8)
    digests = [before["waveform_digest"] if before is not None else empty]
    ids = [before["recording_id"] if before is not None else empty]
    good, rank = [np.ones(known, bool)], [np.full(known, -1)]
    order = {cohort.name: 2 * number for number, cohort in enumerate(plan.header.cohorts)}
    for partition, result in zip(plan.header.partitions, results, strict=True):
        rows = plan.rows(partition, ["recording_id", "patient_known"])
        digests.append(result.digest)
        ids.append(ids_of(rows["recording_id"]))
        good.append(result.outcome == 0)
        # A copy without a row in a table, say, would take the patient along if it were the one that is kept.
        rank.append(order[partition.cohort] + ~rows["patient_known"].to_numpy())
    # The store's rows come first, so that of equal waveforms the one already stored is the original.
    is_good, all_ids = np.concatenate(good), np.concatenate(ids)
    original = _first_like(np.concatenate(digests), is_good, np.concatenate(rank))
    copy = is_good & (original != np.arange(len(original)))
    refused_ids = (one.recording_id for cohort in plan.header.cohorts for one in plan.refused(cohort.name))
    others = np.frombuffer(b"".join(refused_ids), np.uint8).reshape(-1, DIGEST_BYTES)
    ground.check_found([all_ids[known:], others], np.concatenate(digests)[is_good])
    settled, first = [], known
    for cohort in plan.header.cohorts:
        mine = slice(first, first + cohort.rows)
        refused = [*plan.refused(cohort.name)]
        shards = [one for at, one in zip(plan.header.partitions, results, strict=True) if at.cohort == cohort.name]
        for row in np.flatnonzero(~is_good[mine] | copy[mine]).tolist():
            recording, like = all_ids[first + row].tobytes(), all_ids[original[first + row]].tobytes()
            if copy[first + row]:
                refused.append(Refusal(cohort.name, recording, "commit", DUPLICATE, "", like))
            else:
                shard, row_of_shard = divmod(row, plan.header.shard_records)
                refused.append(Refusal(cohort.name, recording, *shards[shard].refusal(row_of_shard)))
        live = is_good[mine] & ~copy[mine]
        first_row = ground.first_rows[cohort.name]
        settled.append(_Settled(cohort, first_row, live, copy[mine], tuple(refused)))
        first += cohort.rows
    return settled


def _first_like(digests: NDArray[np.uint8], among: NDArray[np.bool_], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each row of `among`, the first of lowest rank with the same digest; for each other row, itself."""
    original = np.arange(len(digests))
    # Half a digest tells nearly all waveforms apart, and takes a third of the memory to sort.
    halves = digests[:, :8].copy().view(np.uint64).ravel()
    order = np.argsort(halves)
    is_like = np.zeros(len(order), bool)
    for start in range(1, len(order), BLOCK):
        block = halves[order[start - 1 : start + BLOCK]]
        is_like[start : start + BLOCK] = block[1:] == block[:-1]
    is_like[:-1] |= is_like[1:]
    rows = np.sort(order[is_like])
    del halves, order, is_like
    rows = rows[among[rows]]
    rows = rows[np.argsort(rank[rows], kind="stable")]
    _, first, number = np.unique(as_keys(digests[rows]), return_index=True, return_inverse=True)
    original[rows] = rows[first[number]]
    return original


def _place_shards(
    header: PlanHeader, results: Sequence[ShardResult], settled: Sequence[_Settled]
) -> dict[str, FileEntry]:
    """Move every shard into the segment, with the rows of copies blanked. Return relative path -> size and sum."""
    copies = {one.plan.name: one.copies for one in settled}
    shape = (len(header.recipe.leads), header.recipe.strip_samples)
    entries = {}
    for partition, result in zip(header.partitions, results, strict=True):
        target, entry = header.shard_path(partition), result.entry
        staged = Staged(header.staging, partition)
        first = partition.shard * header.shard_records
        rows: NDArray[np.int64] = np.flatnonzero(copies[partition.cohort][first : first + partition.rows])
        # The staged shard stays until the commit is done, so that this can be repeated.
        if len(rows):
            entry = blank_rows(staged.shard, target, rows, header.shard_records, shape, header.codec)
        elif staged.shard.exists():
            move_file(staged.shard, target)
        entries[target.relative_to(header.folder).as_posix()] = entry
    return entries


def _segments(ground: _Ground, settled: Sequence[_Settled]) -> tuple[Segment, ...]:
    """Return all segments of the next snapshot, by their rows."""
    header = ground.header
    new = [
        Segment(
            cohort=one.plan.name,
            name=f"{header.generation:06d}",
            first_row=one.first_row,
            rows=len(one.live),
            shard_records=header.shard_records,
            accounting=one.accounting,
            licence=header.spec.licence,
            spec_sha256=header.spec.sha256,
        )
        for one in settled
    ]
    # Stable: empty segments begin where the next one does.
    return tuple(sorted([*ground.segments, *new], key=lambda segment: segment.first_row))


def _write_snapshot(
    ground: _Ground,
    settled: Sequence[_Settled],
    entries: dict[str, FileEntry],
    index: CohortIndex,
    rejects: pd.DataFrame,
) -> tuple[Manifest, tuple[str, ...]]:
    """Write metadata, index and rejects of the new generation. Return the manifest that names them all, and what is lost."""
    header, before = ground.header, ground.before
    folder, generation = header.folder, header.generation
    write_file(folder / "zarr.json", group_metadata({"recipe": recipe_fields(header.recipe)}))
    files = ground.files()
    written = ["zarr.json", "signals/zarr.json", "index/zarr.json", rejects_name(generation)]
    for name in ("signals/zarr.json", "index/zarr.json"):
        write_file(folder / name, group_metadata())
    for one in settled:
        array = header.segment_folder(one.plan.name) / "zarr.json"
        group = array.parent.parent / "zarr.json"
        write_file(array, signals_metadata(len(one.live), header.shard_records, header.recipe, header.codec))
        write_file(group, group_metadata())
        written += [path.relative_to(folder).as_posix() for path in (array, group)]
    written += write_index(folder, generation, index)
    splits, torn = ground.write_splits(index)
    written += splits
    write_file(folder / rejects_name(generation), rejects.to_parquet(index=False))
    files |= entries | FileEntry.of_files(folder, written)
    manifest = Manifest(
        generation=generation,
        recipe=header.recipe,
        key_fingerprint=header.key_fingerprint,
        segments=_segments(ground, settled),
        cohorts=index.cohorts,
        sites=index.sites,
        devices=index.devices,
        index_columns=tuple(sorted(index.columns)),
        versions=header.versions,
        codec=header.codec,
        files=dict(sorted(files.items())),
        removed=ground.removed,
    )
    gone = [] if before is None else [name for name in before.index.labels if LABEL + name not in index.columns]
    lost = [
        f"split {name!r} had a patient on two sides by these facts and was taken out: make it anew" for name in torn
    ]
    lost += [f"label {name!r} is not in this description and was taken out: add your own again" for name in gone]
    return manifest, tuple(lost)


def _extend_index(
    ground: _Ground, plan: AnyPlan, results: Sequence[ShardResult], settled: Sequence[_Settled]
) -> CohortIndex:
    """Add the live records of a run to an index. Patients met before keep their number and their records."""
    index = ground.index
    if ground.replaced:
        names: list[list[str]] = [[], [], []]
        new = {one.plan.name: one for one in settled}
        pieces = ground.pieces(lambda cohort: _new_columns(plan, results, new[cohort], names), names)
    else:
        names = [list(index.cohorts), list(index.sites), list(index.devices)] if index is not None else [[], [], []]
        pieces = [dict(index.columns)] if index is not None else []
        pieces += [_new_columns(plan, results, one, names) for one in settled]
    lengths = [len(piece["row"]) for piece in pieces]
    patient = _number_patients(_joined(pieces, lengths, "cohort"), _joined(pieces, lengths, "patient_id"))
    # Stable, so that new records of a patient follow those of earlier runs.
    order = np.argsort(patient, kind="stable")
    in_order = bool((np.diff(patient) >= 0).all())
    columns = {"patient": patient[order]}
    for name in sorted({name for piece in pieces for name in piece} - {"patient"}):
        column = _joined(pieces, lengths, name)
        columns[name] = column if in_order else column[order]
        for piece in pieces:
            piece.pop(name, None)  # not needed again, and a tenth of the memory
    cohorts, sites, devices = (tuple(known) for known in names)
    return CohortIndex(columns, cohorts, sites, devices)


def _joined(pieces: Sequence[dict[str, NDArray]], lengths: Sequence[int], name: str) -> NDArray:
    """Join a column of all pieces; label and quality columns that a piece never had are unknown there."""
    columns = [
        piece[name] if name in piece else np.full(length, np.nan, np.float32)
        for piece, length in zip(pieces, lengths, strict=True)
    ]
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _number_patients(cohort: NDArray, patient_id: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number patients densely in order of first appearance, by cohort and pseudonym."""
    # By first appearance, so that patients of earlier runs keep their numbers. Equal pseudonyms in two cohorts are two
    # patients: a pseudonym is keyed by the cohort, and a collision must not join people.
    is_new = np.ones(len(cohort), bool)
    is_new[1:] = cohort[1:] != cohort[:-1]
    keys = as_keys(patient_id)
    for start in range(1, len(keys), BLOCK):
        is_new[start : start + BLOCK] |= (
            keys[start : start + BLOCK] != keys[start - 1 : start - 1 + BLOCK][: len(keys) - start]
        )
    # Recordings of a patient stand side by side but for those of earlier runs, so few keys are left to sort.
    heads = np.flatnonzero(is_new)
    key = np.concatenate(
        [cohort[heads].astype("<i4")[:, None].view(np.uint8).reshape(-1, 4), patient_id[heads]], axis=1
    )
    flat = np.ascontiguousarray(key).view(f"S{key.shape[1]}").ravel()
    _, first, number = np.unique(flat, return_index=True, return_inverse=True)
    rank = np.empty(len(first), COLUMNS["patient"])
    rank[np.argsort(first)] = np.arange(len(first))
    return np.repeat(rank[number], np.diff(heads, append=len(cohort)))


def _new_columns(
    plan: AnyPlan, results: Sequence[ShardResult], one: _Settled, names: Sequence[list[str]]
) -> dict[str, NDArray]:
    """Return the index columns of one settled cohort. New names of cohorts, sites and devices are appended to `names`."""
    header, n = plan.header, int(one.live.sum())
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items() if name != "patient"}
    columns |= {name: np.zeros((n, DIGEST_BYTES), np.uint8) for name in BYTE_COLUMNS}
    # A cohort without live records brings no label columns: they would stay in the index without a value.
    labels = [LABEL + name for name in header.labels if n]
    columns |= {name: np.zeros(n, np.float32) for name in labels}
    columns |= {QUALITY + name: np.zeros(n, dtype) for name, dtype in QUALITY_COLUMNS.items()}
    statistics = [prefix + lead for prefix in STATISTICS for lead in header.recipe.leads]
    columns |= {name: np.zeros(n, np.float32) for name in statistics if header.recipe.record_statistics}
    columns["row"][:] = one.first_row + np.flatnonzero(one.live)
    at = first = 0
    wanted = ["recording_id", "patient_id", "site", "device", *_FROM_PLAN, *labels]
    for partition, result in zip(header.partitions, results, strict=True):
        if partition.cohort != one.plan.name:
            continue
        live = one.live[first : first + partition.rows]
        here = slice(at, at + int(live.sum()))
        rows, found = plan.rows(partition, wanted), result.columns()
        for name in (*_FROM_PLAN, *labels, "site", "device"):
            columns[name][here] = rows[name].to_numpy()[live]
        for name in ("recording_id", "patient_id"):
            columns[name][here] = ids_of(rows[name])[live]
        columns["waveform_digest"][here] = result.digest[live]
        columns["valid_start"][here], columns["valid_stop"][here] = found["valid"][live].T
        columns["quality"][here] = found["flags"][live]
        for name in QUALITY_COLUMNS:
            columns[QUALITY + name][here] = found[f"q_{name}"][live]
        if "statistics" in found:
            kept = found["statistics"][live].reshape(-1, len(statistics))  # means of all leads, then deviations
            for number, name in enumerate(statistics):
                columns[name][here] = kept[:, number]
        first, at = first + partition.rows, here.stop
    cohorts, sites, devices = names
    if one.plan.name not in cohorts:
        cohorts.append(one.plan.name)
    columns["cohort"][:] = cohorts.index(one.plan.name)
    columns["site"] = _recoded(columns["site"], header.sites, sites)
    columns["device"] = _recoded(columns["device"], header.devices, devices)
    return columns


def _extend_rejects(before: pd.DataFrame | None, settled: Sequence[_Settled]) -> pd.DataFrame:
    """Add the refused recordings of a run to the table of them, with ids as hexadecimal text."""
    # Sorted by pseudonym: the order of the scan is that of the paths, which do not enter a store.
    rows = [
        (one.cohort, one.recording_id.hex(), one.stage, one.reason, one.error, one.duplicate_of.hex())
        for cohort in settled
        for one in sorted(cohort.refused, key=lambda refusal: refusal.recording_id)
    ]
    frame = pd.DataFrame(rows, columns=list(_REJECT_COLUMNS), dtype=str)
    return frame if before is None else pd.concat([before, frame], ignore_index=True)
