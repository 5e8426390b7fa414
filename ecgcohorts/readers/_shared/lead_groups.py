"""Put the leads of one ECG together that a file keeps in groups, one after the other in time, as 4 x 2.5 s on paper."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import canonical

_Value = TypeVar("_Value")
TOGETHER = "leads of several groups put together, missing outside their group"


class LeadGroup(NamedTuple):
    """Leads recorded together, from sample `start` on."""

    leads: tuple[str, ...]
    start: int
    n_samples: int

    @property
    def stop(self) -> int:
        return self.start + self.n_samples


class Placement(NamedTuple):
    """Where the samples of several groups go."""

    rows: tuple[tuple[int, ...], ...]  # of each group: those leads that are kept
    starts: tuple[int, ...]  # of each group, from the first sample of all
    n_samples: int

    @classmethod
    def of(cls, groups: Sequence[LeadGroup], where: str) -> "Placement":
        """Place groups that follow each other; a lead of a rhythm strip beside them is kept whole, and once.

        Raises UnreadableRecording for groups that start together or overlap, and for a lead in two of them: a cart that
        writes one time for all groups would otherwise make an ECG that never was.
        """
        first, last = min(group.start for group in groups), max(group.stop for group in groups)
        parts = sorted((group for group in groups if group.n_samples < last - first), key=lambda group: group.start)
        if not parts or any(one.stop > other.start for one, other in pairwise(parts)):
            _refuse(f"{len(groups)} groups of leads that do not follow each other in time", where)
        names = [canonical(lead) or lead for group in parts for lead in group.leads]
        if len(set(names)) < len(names):
            _refuse("one lead in two groups", where)
        rows: list[tuple[int, ...]] = [()] * len(groups)
        taken: set[str] = set()
        # The longest first: lead II of the strip, not its 2.5 s among the groups.
        for place in sorted(range(len(groups)), key=lambda place: -groups[place].n_samples):
            names = [canonical(lead) or lead for lead in groups[place].leads]
            rows[place] = tuple(row for row, name in enumerate(names) if name not in taken)
            taken.update(names)
        return cls(tuple(rows), tuple(group.start - first for group in groups), last - first)

    def put(self, values: Sequence[Sequence[_Value]]) -> list[_Value]:
        """Return one value for each lead that is kept, from those of each group."""
        return [group[row] for group, rows in zip(values, self.rows, strict=True) for row in rows]

    def joined(
        self, groups: Sequence[tuple[NDArray[np.int32], NDArray[np.bool_] | None]]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return (lead, time) of samples and what is missing, from those of each group. What no group holds is missing."""
        n_leads = sum(map(len, self.rows))
        digital, missing = np.zeros((n_leads, self.n_samples), np.int32), np.ones((n_leads, self.n_samples), bool)
        lead = 0
        for (samples, holes), rows, start in zip(groups, self.rows, self.starts, strict=True):
            for row in rows:
                here = slice(start, start + samples.shape[1])
                digital[lead, here] = samples[row]
                missing[lead, here] = False if holes is None else holes[row]
                lead += 1
        return digital, missing


def _refuse(found: str, where: str) -> NoReturn:
    remedy = "Export it as one group of simultaneous leads."
    raise UnreadableRecording(
        Reason.UNSUPPORTED, found, "all leads in one, or one group after the other", remedy, where
    )
