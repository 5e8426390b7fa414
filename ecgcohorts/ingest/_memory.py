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
    for cohort in header.cohorts:
        # Of a whole cohort at once: each look-up sorts the index, each addition copies all that was remembered.
        parts = [plan.rows(one, ["recording_id", "state"]) for one in header.partitions if one.cohort == cohort.name]
        refused = plan.refused(cohort.name)
        ids = np.concatenate(
            [np.zeros((0, PSEUDONYM_BYTES), np.uint8), *(ids_of(rows["recording_id"]) for rows in parts)]
        )
        state = np.concatenate([np.zeros(0, np.uint64), *(rows["state"].to_numpy() for rows in parts)])
        refused_ids = np.frombuffer(b"".join(one.recording_id for one in refused), np.uint8)
        refused_state = np.array([one.state for one in refused], np.uint64)
        for own, marks in ((ids, state), (refused_ids.reshape(-1, PSEUDONYM_BYTES), refused_state)):
            if not (shown := marks != 0).all():  # others are taken over from the store, or stand in no file
                own, marks = own[shown], marks[shown]
            seen = seen.with_new(hashes.of(cohort.name, own, marks, index))
    seen.save(path)


def _note(path: Path | None, plan: Plan) -> None:
    """Note files of recordings that the store has met, and that nothing was remembered of."""
    if path is not None and len(plan.noted.recording):
        _Seen.load(path).with_new(plan.noted).save(path)
