"""Two recordings of one simulated person are about as alike as two of one real patient."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.preprocess.quality import _find_beats
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers import read
from ecgcohorts.recording import Recording
from ecgcohorts.simulate import HOSPITALS, simulate_recordings

NORTH = (HOSPITALS["north"],)
BEFORE, AFTER = 100, 180  # samples of a beat around its R peak: 0.25 s and 0.45 s


def same_person_auc(recordings: list[tuple[str, NDArray[np.float64]]]) -> float:
    """How well the correlation of median beats tells pairs of one person from pairs of two. (person, (8, time) mV)."""
    beats, people = [], []
    for person, signal_mv in recordings:
        peaks = _find_beats(signal_mv, CAPE_V1.rate_hz)
        peaks = [peak for peak in peaks if BEFORE < peak < signal_mv.shape[1] - AFTER]
        if len(peaks) >= 3:
            beat = np.median([signal_mv[:, peak - BEFORE : peak + AFTER] for peak in peaks], axis=0)
            beats.append((beat - beat.mean(axis=1, keepdims=True)).ravel())
            people.append(person)
    upper = np.triu_indices(len(beats), 1)
    alike = np.corrcoef(beats)[upper]
    same = (np.array(people)[:, None] == np.array(people)[None])[upper]
    ranks = rankdata(alike)[same]
    return float((ranks.mean() - (same.sum() + 1) / 2) / (~same).sum())


def filtered_mv(recording: Recording, mains_hz: float) -> NDArray[np.float64]:
    strip = make_strip(recording, CAPE_V1, mains_hz)
    return strip.samples[:, : strip.valid_stop] / 1000


def distinct(recordings: list[tuple[str, Recording]], mains_hz: float) -> list[tuple[str, NDArray[np.float64]]]:
    """Filtered signals without copies, everybody seen several times and at most 150 who are not."""
    seen: set[bytes] = set()
    kept = []
    for person, recording in recordings:
        if recording.waveform_digest not in seen:
            seen.add(recording.waveform_digest)
            kept.append((person, recording))
    visits = Counter(person for person, _ in kept)
    several = [(person, one) for person, one in kept if visits[person] > 1]
    once = [(person, one) for person, one in kept if visits[person] == 1][:150]
    return [(person, filtered_mv(one, mains_hz)) for person, one in several + once]


def test_people_are_as_hard_to_recognise_as_real_ones() -> None:
    """Two recordings of one PTB-XL patient: .86 (docs/simulate.md). Far above, an encoder has no use for the recorder."""
    found = []
    for seed in (0, 1, 2):
        recordings = simulate_recordings(patients_per_cohort=100, seed=seed, hospitals=NORTH)
        found.append(same_person_auc(distinct([(str(one.patient_id), one) for one in recordings], 50)))
    assert 0.80 < np.mean(found) < 0.90, found


@pytest.mark.shared
def test_real_people_are_that_hard_to_recognise(shared: Path) -> None:
    spec = CohortSpec.load("ptb_xl")
    tables = spec.load_tables(shared / "ptb_xl")
    recordings = [
        (str(spec.describe(tables, item).patient_id), read(shared / "ptb_xl" / item.path)[0])
        for item in spec.sources(shared / "ptb_xl")
    ]
    assert same_person_auc(distinct(recordings, 50)) == pytest.approx(0.86, abs=0.03)
