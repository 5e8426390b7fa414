"""Note in the file beside a store of which files its recordings are."""

from pathlib import Path

import numpy as np

from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.ingest._ids import ids_of
from ecgcohorts.ingest._seen import _Hashes, _Seen
from ecgcohorts.ingest.plan import AnyPlan, Plan
from ecgcohorts.privacy.pseudonyms import PSEUDONYM_BYTES


def _remember(path: Path | None, plan: AnyPlan, index: CohortIndex) -> None:
    """Note of which files the recordings of a committed plan are, stored or refused."""
    if path is None:
        return
    header = plan.header
    hashes = _Hashes(bytes.fromhex(header.memory_key), header.spec.sha256, header.rules(header.layout))
    seen = _Seen.load(path)
    for partition in header.partitions:
        rows = plan.rows(partition, ["recording_id", "state"])
        state = rows["state"].to_numpy()
        shown = state != 0  # others are taken over from the store
        seen = seen.with_new(
            hashes.of(partition.cohort, ids_of(rows["recording_id"])[shown], state[shown].tolist(), index)
        )
    for cohort in header.cohorts:
        refused = [one for one in plan.refused(cohort.name) if one.state]
        ids = np.frombuffer(b"".join(one.recording_id for one in refused), np.uint8).reshape(-1, PSEUDONYM_BYTES)
        seen = seen.with_new(hashes.of(cohort.name, ids, [one.state for one in refused], index))
    seen.save(path)


def _note(path: Path | None, plan: Plan) -> None:
    """Note files of recordings that the store has met, and that nothing was remembered of."""
    if path is not None and len(plan.noted.recording):
        _Seen.load(path).with_new(plan.noted).save(path)
