"""Plan the visits of simulated people, and record them: the form in memory that writers and benchmarks use.

Every person and every visit has a random generator of its own, keyed by (seed, hospital, person, visit). The tenth person
is the same whether 10 or 10,000 are simulated, and whichever other hospitals are simulated.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.recording import Recording, Sex
from ecgcohorts.simulate.anatomy import Patient, Session
from ecgcohorts.simulate.beats import BEFORE_S, Beats
from ecgcohorts.simulate.devices import PAD_S
from ecgcohorts.simulate.hospitals import Hospital
from ecgcohorts.simulate.traits import NAMES, OLDEST, YOUNGEST

# Recordings per person: a fifth have one, the others 2 to 5 (CAPE cohorts: 2.7 to 8.7 among persons with at least two).
VISITS, VISIT_SHARES = (1, 2, 3, 4, 5), (0.20, 0.28, 0.20, 0.16, 0.16)
YEARS_BETWEEN_VISITS = 1.2  # mean of an exponential; our approximation
FIRST_DAY, LAST_FIRST_DAY = datetime(2008, 1, 1), datetime(2018, 12, 31)
OPENS_S, OPEN_FOR_S = 7 * 3600, 12 * 3600
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, eq=False)
class Visit:
    """One planned recording."""

    hospital: Hospital
    patient_number: int  # 0, 1, 2 ... within the hospital
    visit_number: int
    recording_id: str
    patient_id: str
    sex: Sex
    age_years: float  # exact; files hold whole years
    acquired_at: datetime
    duration_s: float


@dataclass(frozen=True, eq=False)
class Exam:
    """One simulated recording: the integers of the device, and the truth behind them."""

    visit: Visit
    digital: NDArray[np.int32]  # (lead, time): I, II, V1-V6, steps of the device
    r_samples: NDArray[np.int64]  # middle of each QRS complex in the recording, without ectopic beats
    truth: dict[str, float]  # traits and effects of the device

    def recording(self) -> Recording:
        """Return the exam as a reader would yield it: eight leads, but no file."""
        visit, device = self.visit, self.visit.hospital.device
        return Recording(
            recording_id=visit.recording_id,
            leads=EIGHT_LEADS,
            rate_hz=device.rate_hz,
            digital=self.digital,
            gain_per_mv=np.full(len(EIGHT_LEADS), device.gain_per_mv),
            baseline=np.zeros(len(EIGHT_LEADS)),
            patient_id=visit.patient_id,
            age_years=float(int(visit.age_years)),
            sex=visit.sex,
            acquired_at=visit.acquired_at,
            device=device.name,
            site=visit.hospital.name,
            mains_hz=device.mains_hz,
        )


def _generator(seed: int, hospital: str, *numbers: int) -> np.random.Generator:
    # By a checksum of the name, because `hash` of a text differs between processes. numpy does not promise equal streams
    # across its versions.
    return np.random.default_rng([seed, zlib.crc32(hospital.encode()), *numbers])


def plan(hospital: Hospital, patients: int, seed: int) -> list[Visit]:
    """Plan all visits of the first `patients` people of a hospital, person by person, in order of time."""
    visits: list[Visit] = []
    for number in range(patients):
        visits += _plan_person(hospital, number, seed)
    return visits


def _plan_person(hospital: Hospital, number: int, seed: int) -> list[Visit]:
    rng = _generator(seed, hospital.name, number, 0)
    sex: Sex = "male" if rng.random() < hospital.male_share else "female"
    age = hospital.age_mean + hospital.age_sd * rng.standard_normal()
    # Drawn again and not clipped: clipping would pile people up at the two limits.
    while not YOUNGEST <= age <= OLDEST:
        age = hospital.age_mean + hospital.age_sd * rng.standard_normal()
    count = rng.choice(VISITS, p=VISIT_SHARES)
    first = FIRST_DAY + timedelta(days=float(rng.uniform(0, (LAST_FIRST_DAY - FIRST_DAY).days)))
    gaps = rng.exponential(YEARS_BETWEEN_VISITS, count) + 1 / DAYS_PER_YEAR
    gaps[0] = 0
    since = np.cumsum(gaps)
    lengths, shares = zip(*hospital.durations_s, strict=True)
    visits = []
    for visit, years in enumerate(since):
        if age + years > OLDEST and visit:
            break
        day = (first + timedelta(days=float(years * DAYS_PER_YEAR))).replace(hour=0, minute=0, second=0, microsecond=0)
        patient = hospital.first_patient + number
        visits.append(
            Visit(
                hospital=hospital,
                patient_number=number,
                visit_number=visit,
                recording_id=str(patient * 10 + visit),
                patient_id=str(patient),
                sex=sex,
                age_years=min(float(age + years), OLDEST),
                acquired_at=day + timedelta(seconds=OPENS_S + int(rng.integers(OPEN_FOR_S))),
                duration_s=float(rng.choice(lengths, p=shares)),
            )
        )
    return visits


def draw_exams(visits: list[Visit], seed: int) -> Iterator[Exam]:
    """Record every visit. Consecutive visits of one person share that person; nothing else depends on their order."""
    person: Patient | None = None
    before: tuple[str, int] | None = None
    for visit in visits:
        key = (visit.hospital.name, visit.patient_number)
        if person is None or key != before:
            person = Patient.draw(
                _generator(seed, visit.hospital.name, visit.patient_number, 1), visit.sex, visit.age_years
            )
            before = key
        yield _draw_exam(visit, person, seed)


def _draw_exam(visit: Visit, person: Patient, seed: int) -> Exam:
    device = visit.hospital.device
    # From 2 on: stream 0 of a person plans the visits, and stream 1 draws the heart.
    rng = _generator(seed, visit.hospital.name, visit.patient_number, 2 + visit.visit_number)
    session = Session.draw(rng, person, visit.age_years)
    samples = round(visit.duration_s * device.rate_hz)
    pad = round(PAD_S * device.rate_hz)
    time_s = np.arange(-pad, samples + pad) / device.rate_hz
    beats = Beats.draw(rng, session, time_s[0] - 1, time_s[-1] + BEFORE_S)
    clean_mv = beats.clean_ecg(rng, session, time_s)
    digital, gain = device.record(rng, session, clean_mv)
    middle = np.rint((beats.onset_s + session.trait("qrs_ms") / 2000) * device.rate_hz).astype(np.int64)
    inside = (middle >= 0) & (middle < samples)
    truth = {name: float(value) for name, value in zip(NAMES, session.traits, strict=True)}
    truth |= {
        "ectopic_beats": float((beats.ectopic & inside).sum()),
        "breath_hz": session.breath_hz,
        "tremor": session.tremor,
        "device_gain": gain,
    }
    return Exam(visit, digital, middle[inside & ~beats.ectopic], truth)
