"""The draw of a patient's records, keyed by patient and pass, never by batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError
from ecgcohorts.samplers._values import SECONDS_PER_DAY
from ecgcohorts.samplers.options import Options
from ecgcohorts.samplers.permutation import GOLDEN, Words, below, key_of, mix64, unit_interval
from ecgcohorts.samplers.roster import Roster, _in_time

SPAN_S = 1 << 36  # 2,178 years: more than any two records of a patient are apart
OFFSET_STREAM = 256  # draws from here on place windows; those before choose records


@dataclass(frozen=True, eq=False)
class _GapTable:
    """The later records that each dated record may be paired with, in order of unit and time.

    record: place in the roster. first: first allowed partner, a place in this table. before: [record + 1], allowed pairs
    of all records before it. unit_first: [unit + 1], first place of each unit.
    """

    record: NDArray[np.int64]
    first: NDArray[np.int64]
    before: NDArray[np.int64]
    unit_first: NDArray[np.int64]

    def pairs_of(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.before[self.unit_first[units + 1]] - self.before[self.unit_first[units]]


class PairDraw:
    """Draw `views` different records of each patient in random order, uniform over all sets or the most recent ones.

    With bounds on the time gap, pairs are uniform over those within the bounds; a record without a date is in none, and
    never among the most recent ones.
    """

    def __init__(self, roster: Roster, options: Options, seed: int) -> None:
        self.roster, self.options, self.seed = roster, options, seed
        self._gaps = _gap_table(roster, options) if options.bounds_gap else None
        self._dated: NDArray[np.int64] | None = None
        self._by_time: NDArray[np.int64] | None = None  # where records of a unit are not in the order of time
        if options.draw == "latest":
            self._dated, self._by_time = _latest(roster)
        self._salts = np.array([key_of(seed, "cohort", name) for name in roster.cohorts], np.uint64)

    @property
    def has_pair(self) -> NDArray[np.bool_]:
        """Whether each unit has enough different records that are close enough in time: bool [unit]."""
        if self._gaps is not None:
            return self._gaps.pairs_of(np.arange(len(self.roster))) > 0
        return (self.roster.counts if self._dated is None else self._dated) >= self.options.views

    @property
    def corrected(self) -> bool:
        """Does draw="latest" take others than it did when it trusted the order of the records?"""
        if self._dated is None:
            return False
        return self._by_time is not None or bool((self._dated < self.roster.counts).any())

    def __call__(
        self, units: NDArray[np.int64], pass_: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
        """Return rows [unit, view], is_self [unit] and offsets [unit, view] of one pass."""
        views = self.options.views
        # By patient, not by place in the batch: a change of `pairs` or of the number of ranks leaves every pair as it was.
        ids = units if self.roster.by_record else self.roster.patient_of(units)
        # The salt of the cohort keeps patient 7 of two hospitals apart.
        patient_key = mix64(ids.astype(np.uint64) * GOLDEN + self._salts[self.roster.cohort[units]])
        key = mix64(patient_key + np.uint64(key_of(self.seed, "pass", pass_)))
        counters = np.arange(1, views + 1, dtype=np.uint64)
        # Words of their own for windows: more views must not move the windows of the first ones.
        counters = np.concatenate([counters, counters + np.uint64(OFFSET_STREAM)])
        words = mix64(key[:, None] + counters * np.uint64(GOLDEN))
        first = self.roster.ptr[units]
        count = self.roster.ptr[units + 1] - first
        if self._gaps is None:
            if self._dated is not None:
                # Those without a date come last of all, and are drawn where a patient has no others.
                dated = self._dated[units]
                count = np.where(dated > 0, dated, count)
                among = np.minimum(count, views)
                first, count = first + count - among, among
            records, is_self = first[:, None] + _different(words[:, :views], count), count < views
            if self._by_time is not None:
                records = self._by_time[records]
        else:
            records, is_self = self._within_gap(self._gaps, units, words)
        return self.roster.rows[records], is_self, unit_interval(words[:, views:])

    def _within_gap(
        self, gaps: _GapTable, units: NDArray[np.int64], words: Words
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        allowed = gaps.pairs_of(units)
        is_self = allowed == 0
        # One number below the count of allowed pairs names a pair: uniform over pairs, where choosing a record first is not.
        number = gaps.before[gaps.unit_first[units]] + below(words[:, 0], allowed.astype(np.uint64)).astype(np.int64)
        # A unit without pairs stands where the next one begins, perhaps at the very end: its place is not used.
        earlier = np.minimum(np.searchsorted(gaps.before, number, side="right") - 1, len(gaps.record) - 1)
        later = np.where(is_self, earlier, gaps.first[earlier] + number - gaps.before[earlier])
        records = gaps.record[np.stack([earlier, later], axis=1)]
        # A pair is found as (earlier, later): without the swap, the first view would always be the older record.
        swap = words[:, 1] >> 63 == 1
        records[swap] = records[swap, ::-1]
        if is_self.any():
            first = self.roster.ptr[units[is_self]]
            count = (self.roster.ptr[units[is_self] + 1] - first).astype(np.uint64)
            records[is_self] = (first + below(words[is_self, 0], count).astype(np.int64))[:, None]
        return records, is_self


def _different(words: Words, count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw different numbers below `count` in random order, [unit, view]. Where there are too few, they repeat."""
    views = words.shape[1]
    picks = np.empty(words.shape, np.int64)
    for view in range(views):
        left = np.maximum(count - view, 1).astype(np.uint64)
        # A Fisher-Yates draw without the array: a number among those left, counted past those taken.
        pick = below(words[:, view], left).astype(np.int64)
        for taken in np.sort(picks[:, :view], axis=1).T:  # count up past what is taken already
            pick += pick >= taken
        picks[:, view] = pick
    # Only singles="self" gets here: a patient with two records and four views shows both twice.
    if (count < views).any():
        few = np.flatnonzero(count < views)
        again = np.arange(views) % count[few, None]
        picks[few] = np.take_along_axis(picks[few], again, axis=1)
    return picks


def _latest(roster: Roster) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return each unit's number of records with a date, and the order that puts those last; None if they are in it."""
    if roster.days is None:
        raise SpecError("found draw='latest' but no dates, expected days=. Pass days, or draw='uniform'.")
    before = np.concatenate([[0], np.cumsum(np.isfinite(roster.days))])
    # A store that grew in several runs has a patient's records in the order of time within each run only.
    order = _in_time(np.arange(len(roster.rows)), roster.ptr, roster.days)
    in_order = bool((order[1:] > order[:-1]).all())
    return before[roster.ptr[1:]] - before[roster.ptr[:-1]], None if in_order else order


def _gap_table(roster: Roster, options: Options) -> _GapTable:
    if roster.days is None:
        raise SpecError("found bounds on the time gap but no dates, expected days=. Pass days, or no bounds.")
    unit = np.repeat(np.arange(len(roster)), roster.counts)
    dated = np.flatnonzero(np.isfinite(roster.days))
    record = dated[np.lexsort((roster.days[dated], unit[dated]))]
    unit = unit[record]
    apart = np.ptp(roster.days[record].astype(np.float64)) if len(record) else 0.0
    # Placeholders such as the year 9999 would reach into the time line of the next patient.
    if apart * SECONDS_PER_DAY >= SPAN_S:
        raise SpecError(
            f"found dates {apart:.0f} days apart, expected those of people. Put NaN where a date is unknown."
        )
    # Whole seconds: bounds such as 365 days compare exactly, which sums of float days do not.
    seconds = np.rint(roster.days[record].astype(np.float64) * SECONDS_PER_DAY).astype(np.int64)
    seconds -= seconds.min(initial=0)
    # All units on one time line, far enough apart never to meet: one searchsorted answers for every patient at once.
    clock = unit * SPAN_S + seconds
    low = round((options.min_gap_days or 0.0) * SECONDS_PER_DAY)
    high = SPAN_S if options.max_gap_days is None else round(min(options.max_gap_days, 1e6) * SECONDS_PER_DAY)
    end = (unit + 1) * SPAN_S - 1
    here = np.arange(1, len(record) + 1)
    first = np.maximum(np.searchsorted(clock, np.minimum(clock + low, end)), here)
    stop = np.searchsorted(clock, np.minimum(clock + high, end), side="right")
    before = np.concatenate([[0], np.cumsum(np.maximum(stop - first, 0))])
    return _GapTable(record, first, before, np.searchsorted(unit, np.arange(len(roster) + 1)))
