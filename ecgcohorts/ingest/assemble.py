"""After every shard is written: find copies, and put the index and the accounts together.

Everything goes partition by partition into arrays made once, because an index of 5 million records takes a gigabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, LABEL, QUALITY, UNKNOWN, CohortIndex
from ecgcohorts.ingest.encode import ShardResult
from ecgcohorts.ingest.plan import AnyPlan, PlannedCohort, Refusal, count_reasons
from ecgcohorts.ingest.plan_table import as_keys, ids_of
from ecgcohorts.preprocess.quality import QUALITY_COLUMNS
from ecgcohorts.recording import DIGEST_BYTES
from ecgcohorts.store.schema import Accounting

_REJECT_COLUMNS = ("cohort", "recording_id", "stage", "reason", "error", "duplicate_of")
DUPLICATE = "duplicate"
_FROM_PLAN = ("patient_known", "age", "sex", "days")  # columns that the index takes over as they are


@dataclass(frozen=True, eq=False)
class SettledCohort:
    """What of a cohort of the plan is live, and what was refused."""

    plan: PlannedCohort
    first_row: int
    live: NDArray[np.bool_]  # per planned row
    copies: NDArray[np.bool_]
    refused: tuple[Refusal, ...]

    @property
    def accounting(self) -> Accounting:
        reasons = count_reasons(self.refused)
        duplicates = reasons.pop(DUPLICATE, 0)
        return Accounting(inputs=self.plan.inputs, stored=int(self.live.sum()), duplicates=duplicates, rejected=reasons)


def settle(
    plan: AnyPlan, results: Sequence[ShardResult], index: CohortIndex | None, n_rows: int
) -> list[SettledCohort]:
    """Refuse copies of waveforms that the store (its index and number of rows) or an earlier row of this run has."""
    before = 0 if index is None else len(index)
    digests, ids = [_ids(index, "waveform_digest")], [_ids(index, "recording_id")]
    good = [np.ones(before, bool)]
    for part, result in zip(plan.header.parts, results, strict=True):
        digests.append(result.digest)
        ids.append(ids_of(plan.rows(part, ["recording_id"])["recording_id"]))
        good.append(result.outcome == 0)
    is_good, all_ids = np.concatenate(good), np.concatenate(ids)
    original = _first_like(np.concatenate(digests), is_good)
    copy = is_good & (original != np.arange(len(original)))
    settled, first = [], before
    for cohort in plan.header.cohorts:
        mine = slice(first, first + cohort.rows)
        refused = [*plan.refused(cohort.name)]
        shards = [result for part, result in zip(plan.header.parts, results, strict=True) if part.cohort == cohort.name]
        for row in np.flatnonzero(~is_good[mine] | copy[mine]).tolist():
            recording, like = all_ids[first + row].tobytes(), all_ids[original[first + row]].tobytes()
            if copy[first + row]:
                refused.append(Refusal(cohort.name, recording, "commit", DUPLICATE, "", like))
            else:
                shard, place = divmod(row, plan.header.shard_records)
                refused.append(Refusal(cohort.name, recording, *shards[shard].refusal(place)))
        live = is_good[mine] & ~copy[mine]
        settled.append(SettledCohort(cohort, n_rows + first - before, live, copy[mine], tuple(refused)))
        first += cohort.rows
    return settled


def _ids(index: CohortIndex | None, name: str) -> NDArray[np.uint8]:
    return np.zeros((0, DIGEST_BYTES), np.uint8) if index is None else index[name]


def _first_like(digests: NDArray[np.uint8], among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row of `among`, the first of them with the same digest; the others are left to themselves."""
    rows = np.flatnonzero(among)
    _, first, number = np.unique(as_keys(digests[rows]), return_index=True, return_inverse=True)
    original = np.arange(len(digests))
    original[rows] = rows[first[number]]
    return original


def extend_index(
    index: CohortIndex | None, plan: AnyPlan, results: Sequence[ShardResult], settled: Sequence[SettledCohort]
) -> CohortIndex:
    """The index with the live records of a run added. Patients met before keep their number and their records."""
    names = [list(index.cohorts), list(index.sites), list(index.devices)] if index is not None else [[], [], []]
    parts = [dict(index.columns)] if index is not None else []
    for one in settled:
        parts.append(_part(plan, results, one, names))
    lengths = [len(part["row"]) for part in parts]
    patient = _number_patients(_joined(parts, lengths, "cohort"), _joined(parts, lengths, "patient_id"))
    order = np.argsort(patient, kind="stable")
    in_order = bool((np.diff(patient) >= 0).all())
    columns = {"patient": patient[order]}
    for name in sorted({name for part in parts for name in part} - {"patient"}):
        column = _joined(parts, lengths, name)
        columns[name] = column if in_order else column[order]
        for part in parts:
            part.pop(name, None)  # not needed again, and a tenth of the memory
    cohorts, sites, devices = (tuple(known) for known in names)
    return CohortIndex(columns, cohorts, sites, devices)


def _joined(parts: Sequence[dict[str, NDArray]], lengths: Sequence[int], name: str) -> NDArray:
    """A column of all parts; label and quality columns that a part never had are unknown there."""
    columns = [
        part[name] if name in part else np.full(length, np.nan, np.float32)
        for part, length in zip(parts, lengths, strict=True)
    ]
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _number_patients(cohort: NDArray, patient_id: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Dense patient numbers in order of first appearance, by (cohort, pseudonym)."""
    key = np.concatenate([cohort.astype("<i4")[:, None].view(np.uint8).reshape(-1, 4), patient_id], axis=1)
    flat = np.ascontiguousarray(key).view(f"S{key.shape[1]}").ravel()
    _, first, number = np.unique(flat, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[number].astype(COLUMNS["patient"])


def _part(
    plan: AnyPlan, results: Sequence[ShardResult], one: SettledCohort, names: Sequence[list[str]]
) -> dict[str, NDArray]:
    """Index columns of one settled cohort; new names of cohorts, sites and devices are appended to the lists."""
    header, n = plan.header, int(one.live.sum())
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items() if name != "patient"}
    columns |= {name: np.zeros((n, DIGEST_BYTES), np.uint8) for name in BYTE_COLUMNS}
    labels = [LABEL + name for name in header.labels if n]
    columns |= {name: np.zeros(n, np.float32) for name in labels}
    columns |= {QUALITY + name: np.zeros(n, dtype) for name, dtype in QUALITY_COLUMNS.items()}
    columns["row"][:] = one.first_row + np.flatnonzero(one.live)
    at = first = 0
    wanted = ["recording_id", "patient_id", "site", "device", *_FROM_PLAN, *labels]
    for part, result in zip(header.parts, results, strict=True):
        if part.cohort != one.plan.name:
            continue
        live = one.live[first : first + part.rows]
        here = slice(at, at + int(live.sum()))
        rows, found = plan.rows(part, wanted), result.columns()
        for name in (*_FROM_PLAN, *labels, "site", "device"):
            columns[name][here] = rows[name].to_numpy()[live]
        for name in ("recording_id", "patient_id"):
            columns[name][here] = ids_of(rows[name])[live]
        columns["waveform_digest"][here] = result.digest[live]
        columns["valid_start"][here], columns["valid_stop"][here] = found["valid"][live].T
        columns["quality"][here] = found["flags"][live]
        for name in QUALITY_COLUMNS:
            columns[QUALITY + name][here] = found[f"q_{name}"][live]
        first, at = first + part.rows, here.stop
    cohorts, sites, devices = names
    if one.plan.name not in cohorts:
        cohorts.append(one.plan.name)
    columns["cohort"][:] = cohorts.index(one.plan.name)
    columns["site"] = _recoded(columns["site"], header.sites, sites)
    columns["device"] = _recoded(columns["device"], header.devices, devices)
    return columns


def _recoded(codes: NDArray[np.int32], own: Sequence[str], names: list[str]) -> NDArray[np.int32]:
    """Codes into `own` as codes into `names`, to which those that are new are appended as they come."""
    used, first = np.unique(codes, return_index=True)
    place = {name: number for number, name in enumerate(names)}
    new = np.full(len(own) + 1, UNKNOWN, np.int32)  # the last is for the code -1
    for code in used[np.argsort(first)].tolist():
        if code != UNKNOWN:
            if own[code] not in place:
                place[own[code]] = len(names)
                names.append(own[code])
            new[code] = place[own[code]]
    return new[codes]


def extend_rejects(before: pd.DataFrame | None, settled: Sequence[SettledCohort]) -> pd.DataFrame:
    """The table of refused recordings with those of a run added: ids as hexadecimal text."""
    rows = [
        (one.cohort, one.recording_id.hex(), one.stage, one.reason, one.error, one.duplicate_of.hex())
        for part in settled
        for one in sorted(part.refused, key=lambda refusal: refusal.recording_id)
    ]
    frame = pd.DataFrame(rows, columns=list(_REJECT_COLUMNS), dtype=str)
    return frame if before is None else pd.concat([before, frame], ignore_index=True)
