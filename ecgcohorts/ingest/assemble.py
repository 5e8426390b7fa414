"""After every shard is written: find copies, blank their rows, and put the index and the accounts together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.index import BYTE_COLUMNS, COLUMNS, LABEL, QUALITY, SEX_CODES, UNKNOWN, CohortIndex
from ecgcohorts.ingest.encode import ShardResult
from ecgcohorts.ingest.plan import CohortPlan, PlannedRecord, Refusal, count_reasons
from ecgcohorts.quality import QUALITY_COLUMNS
from ecgcohorts.recipes import Recipe
from ecgcohorts.recording import DIGEST_BYTES
from ecgcohorts.store.schema import Accounting, FileEntry
from ecgcohorts.store.writer import blank_rows

_REJECT_COLUMNS = ("cohort", "recording_id", "stage", "reason", "error", "duplicate_of")
DUPLICATE = "duplicate"


@dataclass(frozen=True, eq=False)
class EncodedCohort:
    """A cohort of the plan with the results of its shards, in row order."""

    plan: CohortPlan
    folder: Path  # of the segment's array
    shards: tuple[ShardResult, ...]
    first_row: int
    shard_records: int

    def column(self, name: str, empty: tuple[int, ...] = (0,)) -> NDArray:
        parts = [getattr(shard, name) for shard in self.shards]
        return np.concatenate(parts) if parts else np.zeros(empty)

    def quality(self, name: str) -> NDArray:
        parts = [shard.quality[name] for shard in self.shards]
        return np.concatenate(parts) if parts else np.zeros(0, QUALITY_COLUMNS[name])


@dataclass(frozen=True, eq=False)
class SettledCohort:
    """What of a cohort is live, what was refused, and the shard files as they now stand."""

    encoded: EncodedCohort
    live: NDArray[np.bool_]  # per planned row
    refused: tuple[Refusal, ...]
    entries: tuple[FileEntry, ...]  # per shard

    @property
    def accounting(self) -> Accounting:
        reasons = count_reasons(self.refused)
        duplicates = reasons.pop(DUPLICATE, 0)
        return Accounting(
            inputs=self.encoded.plan.n_inputs, stored=int(self.live.sum()), duplicates=duplicates, rejected=reasons
        )


def settle(cohort: EncodedCohort, seen: dict[bytes, bytes], recipe: Recipe) -> SettledCohort:
    """Refuse copies of waveforms in `seen` (digest -> recording id, extended here) and blank their rows on disk."""
    refused = list(cohort.plan.refused)
    live = np.zeros(len(cohort.plan.records), bool)
    copies = np.zeros(len(cohort.plan.records), bool)
    row = 0
    for shard in cohort.shards:
        for place in range(len(shard.outcome)):
            record = cohort.plan.records[row]
            digest = shard.digest[place].tobytes()
            if shard.outcome[place]:
                refused.append(_refusal(cohort, record, shard, place))
            elif digest in seen:
                copies[row] = True
                refused.append(Refusal(cohort.plan.cohort, record.recording_id, "commit", DUPLICATE, "", seen[digest]))
            else:
                live[row] = True
                seen[digest] = record.recording_id
            row += 1
    entries = tuple(_blank(cohort, number, copies, recipe) for number in range(len(cohort.shards)))
    return SettledCohort(cohort, live, tuple(refused), entries)


def _refusal(cohort: EncodedCohort, record: PlannedRecord, shard: ShardResult, place: int) -> Refusal:
    stage, reason, error = shard.stage_name(place), shard.reason(place), str(shard.error[place])
    return Refusal(cohort.plan.cohort, record.recording_id, stage, reason, error)


def _blank(cohort: EncodedCohort, number: int, copies: NDArray[np.bool_], recipe: Recipe) -> FileEntry:
    """The file entry of a shard, after its copies were blanked. Doing it twice changes nothing."""
    first = number * cohort.shard_records
    rows = np.flatnonzero(copies[first : first + cohort.shard_records])
    if not len(rows):
        return cohort.shards[number].entry
    shape = (len(recipe.leads), recipe.strip_samples)
    return blank_rows(cohort.folder / "c" / str(number) / "0" / "0", rows, cohort.shard_records, shape)


def extend_index(index: CohortIndex | None, settled: list[SettledCohort]) -> CohortIndex:
    """The index with the live records of a run added. Patients met before keep their number and their records."""
    parts = [index] if index is not None else []
    cohorts = list(index.cohorts) if index is not None else []
    sites = list(index.sites) if index is not None else []
    devices = list(index.devices) if index is not None else []
    for one in settled:
        parts.append(_part(one, cohorts, sites, devices))
    names = sorted({name for part in parts for name in part.columns})
    columns = {name: np.concatenate([_column(part, name) for part in parts]) for name in names}
    patient = _number_patients(columns)
    order = np.lexsort((np.arange(len(patient)), patient))
    columns["patient"] = patient
    return CohortIndex(
        {name: column[order] for name, column in columns.items()}, tuple(cohorts), tuple(sites), tuple(devices)
    )


def _number_patients(columns: dict[str, NDArray]) -> NDArray[np.int64]:
    """Dense patient numbers in order of first appearance, by (cohort, pseudonym)."""
    if not len(columns["row"]):
        return np.zeros(0, COLUMNS["patient"])
    key = np.concatenate([columns["cohort"].astype("<i4")[:, None].view(np.uint8), columns["patient_id"]], axis=1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()].astype(COLUMNS["patient"])


def _column(part: CohortIndex, name: str) -> NDArray:
    """A column of a part; label and quality columns that this part never had are unknown there."""
    if name in part.columns:
        return part.columns[name]
    return np.full(len(part), np.nan, np.float32)


def _part(one: SettledCohort, cohorts: list[str], sites: list[str], devices: list[str]) -> CohortIndex:
    """Index columns of one settled cohort; new names are appended to the lists."""
    encoded = one.encoded
    records = [record for record, alive in zip(encoded.plan.records, one.live, strict=True) if alive]
    valid = encoded.column("valid", (0, 2))[one.live]
    columns: dict[str, NDArray] = {
        "row": encoded.first_row + np.flatnonzero(one.live),
        "cohort": np.full(len(records), _code(encoded.plan.cohort, cohorts)),
        "patient": np.zeros(len(records)),
        "patient_known": np.array([record.patient_known for record in records]),
        "age": np.array([record.age for record in records]),
        "sex": np.array([SEX_CODES.get(record.sex or "", UNKNOWN) for record in records]),
        "days": np.array([record.days for record in records]),
        "site": np.array([_code(record.site, sites) for record in records]),
        "device": np.array([_code(record.device, devices) for record in records]),
        "valid_start": valid[:, 0],
        "valid_stop": valid[:, 1],
        "quality": encoded.column("flags")[one.live],
    }
    columns = {name: column.astype(COLUMNS[name]) for name, column in columns.items()}
    columns["recording_id"] = _bytes([record.recording_id for record in records])
    columns["patient_id"] = _bytes([record.patient_id for record in records])
    columns["waveform_digest"] = encoded.column("digest", (0, DIGEST_BYTES))[one.live].astype(np.uint8)
    for name in sorted({label for record in records for label, _ in record.labels}):
        values = [dict(record.labels).get(name, np.nan) for record in records]
        columns[LABEL + name] = np.array(values, np.float32)
    for name, dtype in QUALITY_COLUMNS.items():
        columns[QUALITY + name] = encoded.quality(name)[one.live].astype(dtype)
    assert set(BYTE_COLUMNS) <= set(columns)
    return CohortIndex(columns, tuple(cohorts))


def _bytes(ids: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, DIGEST_BYTES)


def _code(name: str | None, names: list[str]) -> int:
    if name is None:
        return UNKNOWN
    if name not in names:
        names.append(name)
    return names.index(name)


def extend_rejects(before: pd.DataFrame | None, settled: list[SettledCohort]) -> pd.DataFrame:
    """The table of refused recordings with those of a run added: ids as hexadecimal text."""
    rows = [
        (one.cohort, one.recording_id.hex(), one.stage, one.reason, one.error, one.duplicate_of.hex())
        for part in settled
        for one in sorted(part.refused, key=lambda refusal: refusal.recording_id)
    ]
    frame = pd.DataFrame(rows, columns=list(_REJECT_COLUMNS), dtype=str)
    return frame if before is None else pd.concat([before, frame], ignore_index=True)
