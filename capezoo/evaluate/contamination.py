"""Test records that weights have met in pretraining: counted, and refused unless somebody says that they may be there."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from capezoo.zoo.overlap import seen
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex

Tests = Mapping[str, NDArray[np.int64]]  # cohort -> test entries of the index


def seen_in_tests(
    index: CohortIndex, tests: Tests, trained_on: NDArray[np.uint8] | None
) -> tuple[dict[str, int], dict[str, int]] | None:
    """Per cohort: test records that were trained on, and test patients with any such record. None if nobody knows.

    trained_on: (record, 16) waveform digests.
    """
    if trained_on is None:
        return None
    record, patient = seen(index, trained_on)
    return (
        {name: int(record[entries].sum()) for name, entries in tests.items()},
        {name: len(np.unique(index["patient"][entries[patient[entries]]])) for name, entries in tests.items()},
    )


def require_unseen(name: str, index: CohortIndex, tests: Tests, trained_on: NDArray[np.uint8] | None) -> None:
    """Raise SpecError if weights were trained on any recording of a test patient, or nobody knows whether they were."""
    found = seen_in_tests(index, tests, trained_on)
    if found is None:
        raise SpecError(f"{name}: found no list of its training recordings, expected one: the test records may be among "
                        "them. To evaluate nevertheless: --allow-seen.")  # fmt: skip
    records, patients = found
    if any(patients.values()):
        where = ", ".join(f"{patients[cohort]} of {cohort}" for cohort in patients if patients[cohort])
        raise SpecError(
            f"{name}: found test patients it was pretrained on ({where}; {sum(records.values())} of the test records), "
            "expected none. Test on others: see capezoo overlap. To evaluate nevertheless: --allow-seen."
        )
