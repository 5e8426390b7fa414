"""The plan of one batch: its records, and where their windows start."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ABSENT = -1  # row and patient of a place that `last="pad"` leaves empty


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """One rank's part of one global batch.

    cohort: its only cohort, or None in a mixed batch. rows: int64 [batch, view], places in the store (or in the arrays
    the sampler was built from). patients: int64 [batch], their ids; where one id is two people of two cohorts, it may come
    twice in a mixed batch. units: int64 [batch], numbers of what is drawn (people, or single records), all different; empty
    if the planner does not number them. is_self: bool [batch], one record seen twice.
    offsets: float64 [batch, view] in [0, 1), where in its valid range each window starts: see `window_starts`.
    left_out: cohorts too small for a batch, which this run never draws from.
    adjacent: the views of a row are neighbouring windows of one record, in the order of time.
    """

    cohort: str | None
    rows: NDArray[np.int64]
    patients: NDArray[np.int64]
    is_self: NDArray[np.bool_]
    offsets: NDArray[np.float64]
    epoch: int
    step: int
    left_out: tuple[str, ...] = ()
    adjacent: bool = False
    units: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.rows)


def window_starts(
    offsets: NDArray[np.float64], valid_start: NDArray[np.integer], valid_stop: NDArray[np.integer], window: int
) -> NDArray[np.int64]:
    """Return the first sample of each window, uniform over the starts that keep it inside the valid range.

    All arrays of one shape. A valid range shorter than the window is taken from its first sample.
    """
    choices = np.maximum(valid_stop.astype(np.int64) - valid_start - window + 1, 1)
    # The product can round up to `choices` itself.
    return valid_start + np.minimum((offsets * choices).astype(np.int64), choices - 1)
