"""Which records heads are trained on and tested on, and whether pretraining has met the patients they are tested on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

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
_NAMES = ("train", "validation", "test")


@runtime_checkable
class Tested(Protocol):
    """Settings of any question that tests on patients whom pretraining must not have seen."""

    @property
    def allow_seen(self) -> bool: ...

    def parts(self, index: CohortIndex, seed: int, store: "AnyStore | None" = None) -> "Parts":
        """Say who is trained on and who is tested: the same for all weights."""


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
        split = _kept(store, self.split) if self.split else None
        place = _divided(index, self.train_cohort, split or self.shares, seed)
        part_of = split.names(index) if split else None
        tests = {}
        for code, name in enumerate(index.cohorts):
            entries = place["test"] if name == self.train_cohort else np.flatnonzero(index["cohort"] == code)
            # A split of one cohort says nothing about another, all of which is tested then.
            if part_of is not None and any(part is not None for part in part_of[entries]):
                entries = entries[part_of[entries] == "test"]
            if len(entries):
                tests[name] = draw(entries, self.test_records, derive_seed(seed, "ood-test", name))
        return Parts(place["train"], place["validation"], tests)


class Tuning(Home):
    """How networks are tuned on the home cohort; all numbers are our defaults. `measure.tuning` does it."""

    runs: int = Field(3, gt=0, description="networks of each kind, which differ in heads, order and windows")
    lr: float = Field(1e-3, gt=0, description="of the heads; Adam")
    encoder_lr: float = Field(3e-4, gt=0, description="of the encoder's last block")
    layer_decay: Share = Field(1.0, description="factor on the rate from each block to the one before it; 1: all alike")
    batch: int = Field(32, gt=1, description="records a step")
    max_epochs: int = Field(30, gt=0, description="of a fine-tuned network at most")
    head_epochs: int = Field(200, gt=0, description="of heads on a frozen encoder at most: they are cheap")
    patience: int = Field(10, gt=0, description="epochs without a lower loss on validation patients, then it stops")
    norms: Literal["train", "frozen"] = Field(
        "train", description="BatchNorm while fine-tuning: statistics of its batches, or those it came with"
    )
    norm_momentum: float = Field(0.1, gt=0, le=1, description="share of a batch in running statistics; norms=train")


class EveryHome(Spec):
    """Settings of every question that trains in each cohort and tests there: its `Config` inherits them."""

    train_records: int = Field(
        10_000, gt=0, description="records of each cohort that heads are trained on, at most, drawn at random; CAPE"
    )
    validation_records: int = Field(2_000, gt=0, description="records for early stopping; CAPE")
    test_records: int = Field(
        2_000, gt=0, description="records tested; CAPE. A cohort with fewer is divided in the proportion of the three"
    )
    split: str = Field("", description="split kept in the store, with parts train, val and test; default: none")
    allow_seen: bool = Field(False, description="accept test patients whom pretraining has seen, or may have seen")

    def parts(self, index: CohortIndex, seed: int, store: "AnyStore | None" = None) -> "Parts":
        """Divide every cohort by patient and draw its records; `train` and `validation` are those of all cohorts together.

        store: that keeps `split`, which leaves out the cohorts that it does not divide. Raises SpecError for an unknown
        split, and one without the parts that are needed.
        """
        split = _kept(store, self.split) if self.split else None
        sizes = dict(zip(_NAMES, (self.train_records, self.validation_records, self.test_records), strict=True))
        shares = tuple(size / sum(sizes.values()) for size in sizes.values())
        drawn: dict[str, list[NDArray[np.int64]]] = {part: [] for part in _NAMES}
        for name in index.cohorts:
            for part, entries in _divided(index, name, split or shares, seed).items():
                drawn[part].append(draw(entries, sizes[part], derive_seed(seed, f"grid-{part}", name)))
        tests = {name: at for name, at in zip(index.cohorts, drawn["test"], strict=True) if len(at)}
        return Parts(np.concatenate(drawn["train"]), np.concatenate(drawn["validation"]), tests)


class Learning(EveryHome):
    """How heads are taught, alone or with their encoder, and what is tested. `measure.learning` does it.

    "Study": the benchmark of foundation models (arXiv 2509.25095) and its public code.
    """

    cohort: tuple[str, ...] = Field(
        (), description="cohorts asked; repeat for more; default: every one with the labels"
    )
    train_records: int = Field(70_000, gt=0, description="of each cohort, to train on, at most, drawn at random; ours")
    validation_records: int = Field(10_000, gt=0, description="to choose epoch and thresholds on; ours")
    test_records: int = Field(
        20_000, gt=0, description="tested; ours. A cohort with fewer is divided in the proportion of the three"
    )
    epochs: int = Field(10, gt=0, description="of an encoder trained with its head; ours, for a CPU. Study: 100")
    head_epochs: int = Field(100, gt=0, description="of heads on a frozen encoder; study")
    batch: int = Field(64, gt=1, description="records a step; study")
    lr: float = Field(1e-3, gt=0, description="of the head, constant; AdamW; study")
    upper: float = Field(0.1, ge=0, description="share of that rate for the encoder's blocks; study")
    lower: float = Field(
        0.01, ge=0, description="share for its stem; study. Without weights all layers have the rate of the head"
    )
    weight_decay: float = Field(1e-3, ge=0, description="of all parameters; study")
    norm_momentum: float = Field(
        0.1, gt=0, le=1, description="share of a batch in running statistics while an encoder is trained"
    )
    heads: int = Field(
        16, gt=0, description="of the attention that pools tokens, or the most that divide the channels; study"
    )
    crops: int = Field(
        4, gt=0, description="of each recording for heads on a frozen encoder, in turn; ours. Study: anew each epoch"
    )
    segments: Literal["mean", "max", "min"] = Field(
        "mean", description="how scores of a recording's segments become one; numbers are always averaged; study: mean"
    )

    def parts(self, index: CohortIndex, seed: int, store: "AnyStore | None" = None) -> "Parts":
        """Divide the cohorts asked. Raises SpecError for an unknown cohort."""
        kept = [index.cohort_code(name) for name in self.cohort]
        made = super().parts(index, seed, store)
        if not self.cohort:
            return made
        train, validation = (part[np.isin(index["cohort"][part], kept)] for part in (made.train, made.validation))
        return Parts(train, validation, {name: at for name, at in made.tests.items() if name in self.cohort})


def _divided(index: CohortIndex, cohort: str, by: Split | Sequence[float], seed: int) -> dict[str, NDArray[np.int64]]:
    """Entries of one cohort's training, validation and test part: of a kept split, or by shares of its patients."""
    here = index.where(cohort=cohort)
    if isinstance(by, Split):
        parts = dict(zip(_NAMES, map(by.of(here).__getitem__, KEPT_PARTS), strict=True))
    else:
        # Keyed by patient and seed: the same patients are tested whatever weights are compared and whatever is asked.
        parts = here.split_by_patient(dict(zip(_NAMES, by, strict=True)), f"ood-{seed}")
    return {name: np.flatnonzero(np.isin(index["row"], part["row"])) for name, part in parts.items()}


def draw(entries: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Draw `most` of the entries at random, in ascending order, or return all if they are no more."""
    if len(entries) <= most:
        return entries
    return np.sort(np.random.Generator(np.random.PCG64(seed)).choice(entries, most, replace=False))


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
    """Entries of the index: two parts of the home cohort or cohorts, and the test entries of every cohort."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    tests: dict[str, NDArray[np.int64]]

    def of(self, index: CohortIndex, cohort: str) -> "Parts":
        """Return what of these parts is of one cohort."""
        code = index.cohorts.index(cohort)
        train, validation = (part[index["cohort"][part] == code] for part in (self.train, self.validation))
        return Parts(train, validation, {cohort: self.tests.get(cohort, np.zeros(0, np.int64))})

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
