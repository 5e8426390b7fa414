"""Simulate raw recordings of several cohorts, with known physiology and one known device signature per cohort.

`simulate` writes files as three hospitals would export them; `simulate_recordings` yields the same recordings in memory.
Age and sex have the same effect in every cohort (`traits.TRAITS`), but devices differ (`hospitals.HOSPITALS`). An encoder
that sees only the heart transfers between the cohorts; one that sees the recorder does not. docs/simulate.md says what is
modelled, from which sources, and what is not. A simulator is no evidence about patients.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.recording import Recording
from ecgcohorts.simulate.exams import Exam, Visit, draw_exams, plan
from ecgcohorts.simulate.hospitals import HOSPITALS, Hospital
from ecgcohorts.simulate.traits import TRAITS
from ecgcohorts.simulate.writers import WRITERS, write_cohort_yaml

__all__ = [
    "HOSPITALS",
    "TRAITS",
    "Hospital",
    "SimulationReport",
    "draw_exams",
    "plan",
    "simulate",
    "simulate_recordings",
]

Progress = Callable[[int, int], None]
TRUTH_FILE = "truth.csv"


class _Rows(Protocol):
    """The type that `csv.writer` returns, which has no public name."""

    def writerow(self, row: Iterable[object], /) -> object: ...


@dataclass(frozen=True)
class SimulationReport:
    """The folder written, and (patients, recordings) by cohort."""

    out: Path
    counts: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        parts = [
            f"{name}: {patients} patients, {recordings} recordings"
            for name, (patients, recordings) in self.counts.items()
        ]
        return f"{self.out}: " + "; ".join(parts)


def simulate(
    out: Path,
    *,
    patients_per_cohort: int | Mapping[str, int],
    seed: int,
    hospitals: Sequence[Hospital] = tuple(HOSPITALS.values()),
    progress: Progress | None = None,
) -> SimulationReport:
    """Write one folder of raw recordings per hospital below `out`, each with a `cohort.yaml`, and `truth.csv`.

    truth.csv holds the traits behind each recording and the effects of its device; no reader reads it.
    progress(done, total) is called after each recording. The same arguments give the same bytes on one version of numpy,
    scipy and h5py. Raises SpecError for an unknown hospital or no patients, SourceError if `out` is not empty.
    """
    # Arguments are checked before anything is written.
    visits = _plans(patients_per_cohort, hospitals, seed)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SourceError(f"{out}: exists and is not an empty folder. Name another, or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    total, done = sum(map(len, visits.values())), 0
    with (out / TRUTH_FILE).open("w", newline="", encoding="ascii") as file:
        truth = csv.writer(file, lineterminator="\n")
        for hospital in hospitals:
            mine = visits[hospital.name]
            folder = out / hospital.name
            folder.mkdir()
            exams = _watched(draw_exams(mine, seed), truth, progress, (done, total))
            WRITERS[hospital.export](folder, len(mine), exams)
            write_cohort_yaml(folder, hospital)
            done += len(mine)
    counts = {name: (len({visit.patient_id for visit in mine}), len(mine)) for name, mine in visits.items()}
    return SimulationReport(out, counts)


def simulate_recordings(
    *,
    patients_per_cohort: int | Mapping[str, int],
    seed: int,
    hospitals: Sequence[Hospital] = tuple(HOSPITALS.values()),
) -> Iterator[Recording]:
    """Yield the recordings that `simulate` writes, in memory: eight leads, device integers, site = cohort name."""
    for mine in _plans(patients_per_cohort, hospitals, seed).values():
        for exam in draw_exams(mine, seed):
            yield exam.recording()


def _plans(patients: int | Mapping[str, int], hospitals: Sequence[Hospital], seed: int) -> dict[str, list[Visit]]:
    names = [hospital.name for hospital in hospitals]
    if isinstance(patients, int):
        patients = dict.fromkeys(names, patients)
    if set(patients) != set(names) or len(set(names)) < len(names):
        raise SpecError(
            f"found patients for {', '.join(patients)}, expected one number for each of {', '.join(names)}."
        )
    if min(patients.values()) < 1 or seed < 0:
        raise SpecError(
            f"found {min(patients.values())} patients and seed {seed}, expected at least 1 and a seed from 0."
        )
    return {hospital.name: plan(hospital, patients[hospital.name], seed) for hospital in hospitals}


def _watched(exams: Iterable[Exam], truth: _Rows, progress: Progress | None, so_far: tuple[int, int]) -> Iterator[Exam]:
    """Pass exams on, write the truth of each, and call `progress`."""
    done, total = so_far
    for number, exam in enumerate(exams, done + 1):
        visit = exam.visit
        if number == 1:
            truth.writerow(["cohort", "recording_id", "patient_id", "sex", "age_years", *exam.truth])
        known = [visit.hospital.name, visit.recording_id, visit.patient_id, visit.sex, f"{visit.age_years:.3f}"]
        truth.writerow([*known, *(f"{value:.6g}" for value in exam.truth.values())])
        yield exam
        if progress is not None:
            progress(number, total)
