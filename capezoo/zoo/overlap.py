"""Which recordings of a store weights were trained on, by waveform digest.

A recording counts as seen if its waveform was in the training data, whatever file or store it came from; a patient, if
any of their recordings in the store was seen. A patient whose recordings in the training data are all different from
those in the store cannot be recognised.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capezoo.specs.base import Spec
from capezoo.zoo.digests import seen, trained_on, training_digests
from capezoo.zoo.files import DIGESTS, _require_whole, read_card
from capezoo.zoo.listing import locate
from ecgcohorts.errors import SourceError
from ecgcohorts.privacy.pseudonyms import load_key

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

_ELSEWHERE = "in no part"  # of a split


class GroupOverlap(Spec):
    """One cohort of a store, or one part of a split in it."""

    cohort: str
    part: str | None  # of the split, if one was asked for
    records: int
    seen_records: int
    patients: int
    seen_patients: int


class Overlap(Spec):
    """How much of a store weights were trained on."""

    name: str  # of the weights, as their card has it
    version: str
    training_records: int  # different waveforms
    store_fingerprint: str
    split: str | None
    groups: tuple[GroupOverlap, ...]

    @property
    def seen_records(self) -> int:
        return sum(group.seen_records for group in self.groups)


def overlap(
    weights: str | Path,
    store: "AnyStore",
    split: str | None = None,
    offline: bool = False,
    *,
    digest_key: Path | None = None,
) -> Overlap:
    """Compare published weights with a store, per cohort, or per cohort and part of the split kept by that name.

    digest_key: file of the key with which the digests were published, if they are keyed.
    Raises SourceError for weights without digests of their training data, or with keyed ones and no key, KeyMismatch for
    another key, SpecError for unknown weights or splits.
    """
    folder = locate(weights, offline)
    card, listed = read_card(folder), training_digests(folder)
    # Digests that were swapped together with their card would tell of no overlap.
    _require_whole(folder)
    if listed is None:
        raise SourceError(f"{folder}: found no {DIGESTS}, expected the digests of the training recordings. Nobody can say "
                          "what these weights have seen.")  # fmt: skip
    index = store.index
    known = trained_on(folder, index, load_key(digest_key, for_new_store=False) if digest_key else None)
    if known is None:
        raise SourceError(f"{folder}: found keyed digests of the training recordings, expected the key. Ask the publisher "
                          "to compare, or give the key: --digest-key FILE.")  # fmt: skip
    parts = _parts(store, split)
    record, patient = seen(index, known)
    # Parts in the order of the split, so that two cohorts read alike; a part without recordings has no row.
    groups = []
    for code, cohort in enumerate(index.cohorts):
        for part in dict.fromkeys(parts.tolist()) if split else (None,):
            here = (index["cohort"] == code) & (parts == part if split else True)
            if here.any():
                groups.append(_group(cohort, part, index["patient"], here, (record, patient)))
    return Overlap(
        name=card.name,
        version=card.version,
        training_records=len(listed),
        store_fingerprint=store.fingerprint,
        split=split,
        groups=tuple(groups),
    )


def _parts(store: "AnyStore", split: str | None) -> NDArray[np.object_]:
    """Name the part of the split that each entry is in."""
    if split is None:
        return np.full(len(store.index), None, object)
    from ecgcohorts.store.splits import load_split

    kept = load_split(store, split)
    # Code -1, in no part, picks the last name.
    return np.array([*kept.definition.parts, _ELSEWHERE], object)[kept.column(store.index)]


def _group(
    cohort: str,
    part: str | None,
    patients: NDArray[np.int64],
    here: NDArray[np.bool_],
    seen_here: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> GroupOverlap:
    record, patient = seen_here
    return GroupOverlap(
        cohort=cohort,
        part=part,
        records=int(here.sum()),
        seen_records=int((here & record).sum()),
        patients=len(np.unique(patients[here])),
        seen_patients=len(np.unique(patients[here & patient])),
    )
