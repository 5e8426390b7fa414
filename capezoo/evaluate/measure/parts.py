"""Which records heads are trained on and tested on, and whether pretraining has met the patients they are tested on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from capezoo.specs.base import Share, Spec, derive_seed
from capezoo.zoo.digests import seen
from ecgcohorts.index.cohort_index import CohortIndex

Task = Literal["age", "sex"]
TASKS: tuple[Task, ...] = ("age", "sex")


class Home(Spec):
    """Settings of every question that trains on one cohort, its home: the `Config` of such a question inherits them."""

    train_cohort: str = Field(description="cohort whose labels the heads see")
    shares: tuple[Share, Share, Share] = Field(
        (0.5, 0.1, 0.4), description="of that cohort's patients: training, validation, test; CAPE"
    )
    test_records: int = Field(10_000, gt=0, description="records tested per cohort at most, drawn at random; CAPE")
    allow_seen: bool = Field(False, description="accept test patients whom pretraining has seen, or may have seen")

    def split(self, index: CohortIndex, seed: int) -> "Parts":
        """Split the home cohort by patient and draw the test entries of every cohort: the same for all weights.

        Raises SpecError for an unknown cohort.
        """
        names = ("train", "validation", "test")
        here = index.where(cohort=self.train_cohort)
        # Keyed by patient and seed: the same patients are tested whatever weights are compared and whatever is asked.
        parts = here.split_by_patient(dict(zip(names, self.shares, strict=True)), f"ood-{seed}")
        place = {name: np.flatnonzero(np.isin(index["row"], part["row"])) for name, part in parts.items()}
        tests = {}
        for code, name in enumerate(index.cohorts):
            entries = place["test"] if name == self.train_cohort else np.flatnonzero(index["cohort"] == code)
            if len(entries) > self.test_records:
                generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "ood-test", name)))
                entries = np.sort(generator.choice(entries, self.test_records, replace=False))
            if len(entries):
                tests[name] = entries
        return Parts(place["train"], place["validation"], tests)


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
