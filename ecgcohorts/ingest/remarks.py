"""Say at the end of an ingest what nobody would look for by himself, each with what to do."""

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np

from ecgcohorts.cohorts.catalogue import shared_recordings
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.ingest.plan import DUPLICATE
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.store.reader import Store

_SCALED = int(Flag.EQUAL_SPANS | Flag.UNIT_VARIANCE)
_UNFILLED = "unknown"  # what `draft` writes where only a person knows


class Remarks:
    """Lines about one ingest, of its description or of what it stored."""

    @staticmethod
    def about(spec: CohortSpec) -> list[str]:
        """Return what is wrong with a description that is only half finished."""
        unfilled = [name for name in ("title", "licence", "citation") if getattr(spec, name).strip() == _UNFILLED]
        if not unfilled:
            return []
        names = " and ".join(filter(None, [", ".join(unfilled[:-1]), unfilled[-1]]))
        return [f"description: {names} still unknown. Fill in what holds: licence and title go with the store."]

    @staticmethod
    def on(store: Store, cohorts: Collection[str], spec: CohortSpec | None = None) -> list[str]:
        """Return what stands out in the last ingest of some cohorts of a store."""
        return [*_scaled(store, cohorts), *_copies(store, cohorts), *_shared(store, cohorts, spec)]


def _scaled(store: Store, cohorts: Collection[str]) -> Iterator[str]:
    # Of this run only: the same line about recordings of last year would hide what is new.
    last = {segment.cohort: segment for segment in store.segments if segment.cohort in cohorts}
    row, quality = store.index["row"], store.index["quality"]
    new = np.zeros(len(row), bool)
    for segment in last.values():
        new |= (row >= segment.first_row) & (row < segment.first_row + segment.rows)
    if count := int((quality[new] & _SCALED != 0).sum()):
        yield (
            f"{count:,} of {int(new.sum()):,} new recordings look scaled (flags equal_spans, unit_variance) and may be no "
            "millivolts. If they are not, say unit: none in the description and ingest into a new store."
        )


def _copies(store: Store, cohorts: Collection[str]) -> Iterator[str]:
    """Yield how many waveforms of a cohort another cohort of the store had before."""
    rejects = store.rejects()
    mine = rejects[rejects["cohort"].isin(list(cohorts)) & (rejects["reason"] == DUPLICATE)]
    if not len(mine):
        return
    ids = np.ascontiguousarray(store.index["recording_id"]).view("S16").ravel()
    order = np.argsort(ids)
    originals = np.array([bytes.fromhex(one) for one in mine["duplicate_of"]], ids.dtype)
    at = order[np.minimum(np.searchsorted(ids, originals, sorter=order), len(ids) - 1)]
    owners = [store.index.cohorts[code] for code in store.index["cohort"][at]]
    met = ids[at] == originals
    pairs = Counter((one, other) for one, other, is_met in zip(mine["cohort"], owners, met, strict=True) if is_met)
    for (one, other), count in sorted(pairs.items()):
        if one != other:
            yield f"{one}: copies of recordings of {other}: {count:,}. They are stored once, in {other}."


def _shared(store: Store, cohorts: Collection[str], spec: CohortSpec | None) -> Iterator[str]:
    there = set(store.accounts())
    for pair in shared_recordings(more=() if spec is None else (spec,)):
        if not {pair.one, pair.other} & {*cohorts}:
            continue
        if {pair.one, pair.other} <= there:
            yield str(pair)
        else:
            own, other = (pair.one, pair.other) if pair.one in cohorts else (pair.other, pair.one)
            yield f"{own} shares recordings with {other} ({pair.what}), which is not in this store."
