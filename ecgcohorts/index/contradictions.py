"""Find patients whose recordings contradict each other: a filler in place of ids makes one person of many strangers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import ContradictoryPatients
from ecgcohorts.index.cohort_index import SEX_CODES, UNKNOWN, CohortIndex

# Our defaults. Sexes and birth dates are mistyped for some true patients, so a few contradictions are no alarm.
MAX_FRACTION = 0.01
_FEWEST = 2
_SLACK_YEARS = 3.0  # an age in whole years leaves one open, rounding and a late correction the rest
_LONGEST_YEARS = 40.0  # between two recordings without a date: digital archives are not older
_AGE_CAP_YEARS = 90.0  # what an index holds for this age and any higher one
_DAYS_PER_YEAR = 365.25
_LARGEST = 5
# A mistyped sex or date makes a few odd recordings of a patient. An id with more of them, or with most recordings of the
# cohort, stands for many people, and is refused although it is only one.
_ODD_RECORDINGS, _ODD_OF_MOST = 10, 3
_PATIENTS_AT_ONCE = 1 << 14
_LOOKED_INTO = 1000  # contradicting ids, the largest
# Where patients seen over years have one age nearly all, it is one age a patient, and says nothing about strangers.
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class _Crowd:
    """How often a patient was recorded."""

    recordings: int
    days: int  # with a recording; 0 where no time is known
    most_a_day: int

    def __str__(self) -> str:
        on = f" on {self.days} day{'s' * (self.days != 1)}, up to {self.most_a_day} a day" if self.days else ", undated"
        return f"{self.recordings} recordings{on}"


@dataclass(frozen=True)
class PatientCheck:
    """Counts of ids, never the ids."""

    repeated: int  # ids with two or more recordings
    contradicting: int  # of these, ids whose recordings contradict each other
    by_sex: int
    by_age: int
    largest: tuple[_Crowd, ...]  # patients with the most recordings
    one_age: int = 0  # ids of one age over years, if nearly all are like this; never counted as contradicting
    over_years: int = 0  # ids with ages in recordings that lie years apart
    crowds: tuple[tuple[int, int], ...] = ()  # of ids that stand for many people: recordings, and those unlike the rest

    @classmethod
    def of(cls, index: CohortIndex) -> Self:
        """Check the patients of a store."""
        starts = index.patient_ptr[:-1]
        return cls.of_columns(starts, index["sex"], index["age"], index["days"].astype(np.float64))

    @classmethod
    def of_columns(
        cls, starts: NDArray[np.int64], sex: NDArray[np.int8], age: NDArray[np.float32], days: NDArray[np.float64]
    ) -> Self:
        """Check recordings that lie patient by patient, from `starts` on; NaN or -1 where a fact is unknown.

        days: from any day, which may be another one for each patient.
        """
        if not len(starts):
            return cls(0, 0, 0, 0, ())
        several = np.diff(starts, append=len(sex)) > 1
        blocks = _blocks(starts, len(sex))
        parts = [(own, (sex[rows], age[rows], days[rows])) for own, rows in blocks]
        both_sexes = np.concatenate([_both_sexes(own, facts[0]) for own, facts in parts])
        ages_differ = np.concatenate([_ages_differ(own, *facts[1:]) for own, facts in parts])
        one_age, over_years = np.concatenate([_ages_over_years(own, *facts[1:]) for own, facts in parts], axis=1)
        by_sex = several & both_sexes
        is_static = one_age.sum() >= max(_FEWEST, _NEARLY_ALL * over_years.sum())
        by_age = several & ages_differ & ~(one_age & is_static)
        contradicting = by_sex | by_age
        return cls(
            int(several.sum()),
            int(contradicting.sum()),
            int(by_sex.sum()),
            int(by_age.sum()),
            _largest(starts, days),
            int(one_age.sum()) if is_static else 0,
            int(over_years.sum()),
            tuple(_crowds(starts, np.flatnonzero(contradicting & ~(one_age & ~by_sex)), (sex, age, days))),
        )

    @property
    def fraction(self) -> float:
        return self.contradicting / self.repeated if self.repeated else 0.0

    def refuse(self, limit: float, where: str) -> None:
        """Raise ContradictoryPatients if a larger share than `limit`, and at least two, contradict themselves.

        One is enough if it stands for many people, unless `limit` is 1.
        """
        if self.contradicting < _FEWEST or self.fraction <= limit:
            if not self.crowds or limit >= 1:
                return
            raise ContradictoryPatients(
                f"{where}: found {_crowd_words(self.crowds)}, expected one person under an id. Such an id stands in place of "
                "many: list it under fillers of the description's patient; if it is right, pass --max-contradictions 1."
            )
        raise ContradictoryPatients(
            f"{where}: found {self.contradicting} of {self.repeated} patient ids with two or more recordings that contradict "
            f"each other ({self.by_sex} in sex, {self.by_age} in age), expected a share of at most {limit:g}. Largest "
            f"patients: {'; '.join(map(str, self.largest))}. If a filler stands in place of ids, list it under fillers of "
            "the description's patient; if its column is wrong, correct it; if the ids are right, pass --max-contradictions."
        )

    def __str__(self) -> str:
        lines = [
            f"patients: {self.repeated} ids with two or more recordings, {self.contradicting} of them with recordings that "
            f"contradict each other ({self.fraction:.1%}; {self.by_sex} in sex, {self.by_age} in age)"
        ]
        if self.one_age:
            lines.append(
                f"ages: {self.one_age} of {self.over_years} patients are of one age in recordings years apart, so the source "
                "states one age a patient, and it is wrong for the other recordings. Say with age_at to which date it "
                "belongs, or leave it out: age: []"
            )
        if self.crowds:
            lines.append(f"strangers: {_crowd_words(self.crowds)}")
        return "\n".join(lines + [f"largest: {'; '.join(map(str, self.largest))}"] * bool(self.largest))


def _blocks(starts: NDArray[np.int64], n: int) -> list[tuple[NDArray[np.int64], slice]]:
    """Return some patients at a time: where each begins in the recordings of the block, and which recordings these are."""
    # Facts of all recordings at once would take five times their own memory.
    edges = np.append(starts, n)
    cuts = [*range(0, len(starts), _PATIENTS_AT_ONCE), len(starts)]
    return [(starts[low:high] - starts[low], slice(edges[low], edges[high])) for low, high in pairwise(cuts)]


def _both_sexes(starts: NDArray[np.int64], sex: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Tell for each patient whether both sexes are stated."""
    return np.logical_and.reduce([np.logical_or.reduceat(sex == code, starts) for code in SEX_CODES.values()])


def _ages_differ(starts: NDArray[np.int64], age: NDArray[np.float32], days: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each patient whether the ages give birth dates too far apart, or undated ages differ too much."""
    aged, dated = ~np.isnan(age), ~np.isnan(days)
    born = days / _DAYS_PER_YEAR - age
    # Nobody knows how much older than the cap somebody was: such an age says only that the birth was not later.
    latest = np.minimum.reduceat(np.where(aged & dated, born, np.inf), starts)
    earliest = np.maximum.reduceat(np.where(aged & dated & (age < _AGE_CAP_YEARS), born, -np.inf), starts)
    undated = aged & ~dated
    oldest = np.maximum.reduceat(np.where(undated, age, -np.inf), starts)
    youngest = np.minimum.reduceat(np.where(undated, age, np.inf), starts)
    return np.asarray((earliest - latest > _SLACK_YEARS) | (oldest - youngest > _LONGEST_YEARS))


def _ages_over_years(
    starts: NDArray[np.int64], age: NDArray[np.float32], days: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each patient whether all ages are one, over more years than an age stays; and whether it has such years."""
    known = ~np.isnan(age) & ~np.isnan(days) & (age < _AGE_CAP_YEARS)

    def span(values: NDArray[np.floating]) -> NDArray[np.floating]:
        highest = np.maximum.reduceat(np.where(known, values, -np.inf), starts)
        return np.asarray(highest - np.minimum.reduceat(np.where(known, values, np.inf), starts))

    over_years = span(days) / _DAYS_PER_YEAR > _SLACK_YEARS
    return over_years & (span(age) == 0), over_years


def _crowds(
    starts: NDArray[np.int64],
    ids: NDArray[np.int64],
    facts: tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]],
) -> Iterator[tuple[int, int]]:
    """Yield, of the ids that stand for many people, the number of recordings and of those unlike the rest."""
    sex, age, days = facts
    stops = np.append(starts[1:], len(sex))
    sizes = (stops - starts)[ids]
    for patient in ids[np.argsort(-sizes, kind="stable")[:_LOOKED_INTO]].tolist():
        n, mine = int(stops[patient] - starts[patient]), slice(starts[patient], stops[patient])
        odd = _odd_recordings(sex[mine], age[mine], days[mine])
        if odd >= _ODD_RECORDINGS or (odd >= _ODD_OF_MOST and 2 * n > len(sex)):
            yield n, odd


def _odd_recordings(sex: NDArray[np.int8], age: NDArray[np.float32], days: NDArray[np.float64]) -> int:
    """Count the recordings of one id, in order of time, that are of another sex or age than most."""
    known = age[~np.isnan(age)]
    born = (days / _DAYS_PER_YEAR - age)[(age < _AGE_CAP_YEARS) & ~np.isnan(days)]
    if len(born):
        by_age = int((np.abs(born - np.median(born)) > _SLACK_YEARS).sum())
    else:
        by_age = int((np.abs(known - np.median(known)) > _LONGEST_YEARS / 2).sum()) if len(known) else 0
    # People change their registered sex, once. Where nearly all ages tell of one birth, only sexes that go to and fro count.
    if 2 * len(born) > len(sex) and by_age <= 0.05 * len(born):
        known_sex = sex[sex != UNKNOWN]
        return max(by_age, int((known_sex[1:] != known_sex[:-1]).sum()) // 2)
    return max(by_age, min(int((sex == code).sum()) for code in SEX_CODES.values()))


def _crowd_words(crowds: tuple[tuple[int, int], ...]) -> str:
    n, odd = crowds[0]
    more = f", and {len(crowds) - 1} more such ids" if len(crowds) > 1 else ""
    return f"an id with {n:,} recordings, of which {odd:,} are of another sex or birth date than most{more}"


def _largest(starts: NDArray[np.int64], days: NDArray[np.float64]) -> tuple[_Crowd, ...]:
    stops = np.append(starts[1:], len(days))
    counts = stops - starts
    crowds = []
    for patient in np.argsort(-counts, kind="stable")[:_LARGEST].tolist():
        if counts[patient] > 1:
            mine = days[starts[patient] : stops[patient]]
            each = np.unique(np.floor(mine[~np.isnan(mine)]), return_counts=True)[1]
            crowds.append(_Crowd(int(counts[patient]), len(each), int(each.max(initial=0))))
    return tuple(crowds)
