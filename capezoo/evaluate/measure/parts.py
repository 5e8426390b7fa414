"""Which records heads are trained on and tested on, and whether pretraining has met the patients they are tested on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from capezoo.specs.base import Share, Spec, derive_seed
from capezoo.zoo.digests import seen
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.index.splits import Split
from ecgcohorts.store.splits import load_split

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

Task = Literal["age", "sex"]
TASKS: tuple[Task, ...] = ("age", "sex")
KEPT_PARTS = ("train", "val", "test")  # of a split kept in a store


class Home(Spec):
    """Settings of every question that trains on one cohort, its home: the `Config` of such a question inherits them."""

    train_cohort: str = Field(description="cohort whose labels the heads see")
    shares: tuple[Share, Share, Share] = Field(
        (0.5, 0.1, 0.4), description="of that cohort's patients: training, validation, test; CAPE"
    )
    split: str = Field(
        "", description="split kept in the store, with parts train, val and test, instead of `shares`; default: none"
    )
    test_records: int = Field(10_000, gt=0, description="records tested per cohort at most, drawn at random; CAPE")
    allow_seen: bool = Field(False, description="accept test patients whom pretraining has seen, or may have seen")

    def parts(self, index: CohortIndex, seed: int, store: "AnyStore | None" = None) -> "Parts":
        """Split the home cohort by patient and draw the test entries of every cohort: the same for all weights.

        store: that keeps `split`, whose test part is tested in every cohort that it divides; of others, all are. Raises
        SpecError for an unknown cohort, an unknown split, and one without the parts that are needed.
        """
        names = ("train", "validation", "test")
        here = index.where(cohort=self.train_cohort)
        part_of = None
        if self.split:
            split = _kept(store, self.split)
            parts = dict(zip(names, map(split.of(here).__getitem__, KEPT_PARTS), strict=True))
            part_of = split.names(index)
        else:
            # Keyed by patient and seed: the same patients are tested whatever weights are compared and whatever is asked.
            parts = here.split_by_patient(dict(zip(names, self.shares, strict=True)), f"ood-{seed}")
        place = {name: np.flatnonzero(np.isin(index["row"], part["row"])) for name, part in parts.items()}
        tests = {}
        for code, name in enumerate(index.cohorts):
            entries = place["test"] if name == self.train_cohort else np.flatnonzero(index["cohort"] == code)
            # A split of one cohort says nothing about another, all of which is tested then.
            if part_of is not None and any(part is not None for part in part_of[entries]):
                entries = entries[part_of[entries] == "test"]
            if len(entries) > self.test_records:
                generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "ood-test", name)))
                entries = np.sort(generator.choice(entries, self.test_records, replace=False))
            if len(entries):
                tests[name] = entries
        return Parts(place["train"], place["validation"], tests)


def _kept(store: "AnyStore | None", name: str, needed: Sequence[str] = KEPT_PARTS) -> Split:
    if store is None:
        raise SpecError(f"found split {name!r} and embeddings without their store, expected both.")
    split = load_split(store, name)
    if not set(needed) <= set(split.parts):
        raise SpecError(
            f"split {name!r}: found parts {', '.join(split.parts)}, expected {', '.join(needed)}. Make one: ecgcohorts "
            "split STORE NAME --by patient --part train=0.5 --part val=0.1 --part test=0.4."
        )
    return split


def unseen_people(
    index: CohortIndex,
    trained_on: Mapping[str, NDArray[np.uint8] | None],
    split: str = "",
    store: "AnyStore | None" = None,
    allow_seen: bool = False,
) -> tuple[NDArray[np.int64], int]:
    """Entries of people of whom no weights have seen a recording, and how many people were left out for that.

    trained_on: weights -> (record, 16) waveform digests, None if nobody knows. split: kept in the store, and only its part
    test counts. Raises SpecError for an unknown split, for one whose test part has been seen, and if nobody knows;
    allow_seen: none of these two, and nobody is left out.
    """
    is_asked = _kept(store, split, ("test",)).names(index) == "test" if split else np.ones(len(index), bool)
    met = np.zeros(len(index), bool)
    for name, digests in trained_on.items() if not allow_seen else ():
        if digests is None:
            raise SpecError(f"{name}: found no list of its training recordings, expected one: it may have met the people "
                            "who are held out. A keyed list needs its key: --digest-key. To go on nevertheless: "
                            "--allow-seen.")  # fmt: skip
        mine = seen(index, digests)[1]
        count = len(np.unique(index["patient"][is_asked & mine]))
        if split and count:
            raise SpecError(f"{name}: found {count} people of part test of split {split!r} that it was pretrained on, expected "
                            "none. Pretrain on its part train: --set held_out.split. To go on nevertheless: --allow-seen.")  # fmt: skip
        met |= mine
    return np.flatnonzero(is_asked & ~met), len(np.unique(index["patient"][is_asked & met]))


@dataclass(frozen=True, eq=False)
class Parts:
    """Entries of the index: two parts of the home cohort, and the test entries of every cohort."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    tests: dict[str, NDArray[np.int64]]

    def tests_seen(
        self, index: CohortIndex, trained_on: NDArray[np.uint8] | None
    ) -> tuple[dict[str, int], dict[str, int]] | None:
        """Count, per cohort, test records that pretraining has seen, and test patients with any such record.

        trained_on: (record, 16) waveform digests; None, and the answer is None, if nobody knows.
        """
        if trained_on is None:
            return None
        # The whole index is compared, not the test entries: one seen recording spoils the whole patient.
        record, patient = seen(index, trained_on)
        return (
            {name: int(record[entries].sum()) for name, entries in self.tests.items()},
            {name: len(np.unique(index["patient"][entries[patient[entries]]])) for name, entries in self.tests.items()},
        )
