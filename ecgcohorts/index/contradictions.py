"""Find patients whose recordings contradict each other: a filler in place of ids makes one person of many strangers."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import ContradictoryPatients
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex

# Our defaults. Sexes and birth dates are mistyped for some true patients, so a few contradictions are no alarm.
MAX_FRACTION = 0.01
_FEWEST = 2
_SLACK_YEARS = 3.0  # an age in whole years leaves one open, rounding and a late correction the rest
_LONGEST_YEARS = 40.0  # between two recordings without a date: digital archives are not older
_AGE_CAP_YEARS = 90.0  # what an index holds for this age and any higher one
_DAYS_PER_YEAR = 365.25
_LARGEST = 5


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
        both = [np.logical_or.reduceat(sex == code, starts) for code in SEX_CODES.values()]
        by_sex = several & np.logical_and.reduce(both)
        by_age = several & _ages_differ(starts, age, days)
        return cls(
            int(several.sum()),
            int((by_sex | by_age).sum()),
            int(by_sex.sum()),
            int(by_age.sum()),
            _largest(starts, days),
        )

    @property
    def fraction(self) -> float:
        return self.contradicting / self.repeated if self.repeated else 0.0

    def refuse(self, limit: float, where: str) -> None:
        """Raise ContradictoryPatients if a larger share than `limit`, and at least two, contradict themselves."""
        if self.contradicting < _FEWEST or self.fraction <= limit:
            return
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
        return "\n".join(lines + [f"largest: {'; '.join(map(str, self.largest))}"] * bool(self.largest))


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
