"""Simulated recordings beside real ones: noise, drift and amplitudes of the same size. Bounds are factors, not fits."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from ecgcohorts.leads import select
from ecgcohorts.readers import read
from ecgcohorts.recording import Recording
from ecgcohorts.simulate import HOSPITALS, simulate_recordings

RECORDS = 80
SHORTEST_S = 7.0
QUIET_S, QUIET_SHARE = 0.2, 0.25  # noise is taken from the quietest quarter of such stretches: between T and P waves


@pytest.fixture(scope="module")
def simulated() -> dict[str, NDArray[np.float64]]:
    found: dict[str, list[Recording]] = {name: [] for name in HOSPITALS}
    for recording in simulate_recordings(patients_per_cohort=30, seed=4):
        assert recording.site is not None
        found[recording.site].append(recording)
    return {name: describe(recordings) for name, recordings in found.items()}


def real(folder: Path, pattern: str) -> NDArray[np.float64]:
    # `9190_...` are altered on purpose
    paths = (path for path in sorted(folder.glob(pattern)) if not path.name.startswith("9190_"))
    readings = (read(path)[0] for path in paths)
    return describe(islice((one for one in readings if one.duration_s >= SHORTEST_S), RECORDS))


def describe(recordings: Iterable[Recording]) -> NDArray[np.float64]:
    """Medians over recordings: noise in 15-40 and 40-90 Hz and drift below 0.5 Hz in uV rms, then peak to valley in mV."""
    rows = []
    for recording in recordings:
        mv, rate = np.asarray(select(recording.signal_mv, recording.leads), np.float64), recording.rate_hz
        noise = [quiet_rms_uv(mv, rate, band) for band in ((15, 40), (40, 90))]
        slow = signal.sosfiltfilt(
            signal.butter(2, 0.5, "low", fs=rate, output="sos"), mv - mv.mean(axis=1, keepdims=True)
        )
        rows.append([*noise, 1000 * np.median(slow.std(axis=1)), *np.ptp(mv, axis=1)])
    medians: NDArray[np.float64] = np.median(rows, axis=0)
    return medians


def quiet_rms_uv(mv: NDArray[np.float64], rate_hz: float, band_hz: tuple[int, int]) -> float:
    part = signal.sosfiltfilt(signal.butter(3, band_hz, "bandpass", fs=rate_hz, output="sos"), mv)
    length = round(QUIET_S * rate_hz)
    pieces = part[:, : part.shape[1] // length * length].reshape(len(mv), -1, length)
    return 1000 * float(np.median(np.quantile(np.sqrt((pieces**2).mean(axis=2)), QUIET_SHARE, axis=1)))


@pytest.mark.shared
def test_noise_and_drift_are_of_real_size(shared: Path, simulated: dict[str, NDArray[np.float64]]) -> None:
    both = np.stack([real(shared / "ptb_xl" / "records500", "*/*.hea"), real(shared / "code15", "*.hea")])
    low, high = both.min(axis=0)[:3], both.max(axis=0)[:3]
    for name, medians in simulated.items():
        assert np.all(medians[:3] > 0.5 * low), f"{name} {medians[:3]} against {low}"
        assert np.all(medians[:3] < 2.0 * high), f"{name} {medians[:3]} against {high}"


@pytest.mark.shared
def test_amplitudes_are_those_of_ptb_xl(shared: Path, simulated: dict[str, NDArray[np.float64]]) -> None:
    peak_to_valley = real(shared / "ptb_xl" / "records500", "*/*.hea")[3:]
    for name, medians in simulated.items():
        ratio = medians[3:] / peak_to_valley
        assert np.all((ratio > 0.6) & (ratio < 1.6)), f"{name} {ratio}"
