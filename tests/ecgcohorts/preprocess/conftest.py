"""Signals known at every instant, and the recipe `cape-v1` written a second time, as plainly as SciPy allows."""

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS
from ecgcohorts.recording import Recording

# Amplitude in mV, centre in s from the R peak, standard deviation in s: P, Q, R, S, T of lead II.
WAVES = ((0.12, -0.18, 0.022), (-0.10, -0.030, 0.010), (1.10, 0.0, 0.012), (-0.25, 0.032, 0.012), (0.30, 0.24, 0.045))
# How much of P, of Q+R+S and of T each of the eight leads shows.
WEIGHTS = {"I": (0.6, 0.7, 0.7), "II": (1, 1, 1), "V1": (0.4, -0.8, -0.2), "V2": (0.5, -1.1, 1.3)}
WEIGHTS |= {"V3": (0.6, 0.6, 1.5), "V4": (0.6, 1.5, 1.4), "V5": (0.6, 1.4, 1.1), "V6": (0.6, 1.1, 0.8)}


def ecg_mv(time_s: NDArray[np.float64], beat_s: float = 0.83, first_s: float = 0.31) -> NDArray[np.float64]:
    """Return (8, time) in mV: a sum of Gaussians, so exact at any sampling rate and for any stretch of time."""
    groups = np.zeros((3, len(time_s)))
    beats = np.arange(first_s - 2 * beat_s, time_s[-1] + 2 * beat_s, beat_s)
    for height_mv, centre_s, width_s in WAVES:
        group = 0 if centre_s < -0.1 else 2 if centre_s > 0.1 else 1
        for beat in beats:  # beyond 9 standard deviations a wave is below 1e-17 mV
            near = slice(*np.searchsorted(time_s, beat + centre_s + np.array([-9, 9]) * width_s))
            groups[group, near] += height_mv * np.exp(-0.5 * ((time_s[near] - beat - centre_s) / width_s) ** 2)
    return np.array([WEIGHTS[lead] for lead in EIGHT_LEADS]) @ groups


def drift_mv(time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (8, time): per lead an offset and four slow waves, 0.05 to 0.4 Hz, as breathing and electrodes make."""
    wave = rng.normal(0, 0.15, (8, 1)) + np.zeros((8, len(time_s)))
    for frequency_hz in rng.uniform(0.05, 0.4, 4):
        wave += rng.normal(0, 0.05, (8, 1)) * np.sin(2 * np.pi * (frequency_hz * time_s + rng.uniform()))
    return wave


def record(signal_mv: NDArray[np.float64], rate_hz: float = 500.0, **changes: object) -> Recording:
    """A recording of eight (or twelve) leads with float samples."""
    names = EIGHT_LEADS if len(signal_mv) == 8 else TWELVE_LEADS
    return Recording(**{"recording_id": "r", "leads": names, "rate_hz": rate_hz, "analog_mv": signal_mv} | changes)


def reference_mv(eight_mv: NDArray[np.float64], rate_hz: float, mains_hz: float | None) -> NDArray[np.float64]:
    """Steps 5 and 6 of `cape-v1` for the first 10 s of a gap-free recording, straight from SciPy, numbers written out."""
    ratio = Fraction(400) / Fraction(rate_hz).limit_denominator(10_000)
    x = eight_mv[:, : int(10 * rate_hz)]
    x = signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    sos = signal.butter(2, [0.5, min(100, 0.45 * rate_hz)], "bandpass", fs=400, output="sos")
    if mains_hz is not None and rate_hz >= 2.2 * mains_hz:
        sos = np.vstack([sos, signal.tf2sos(*signal.iirnotch(mains_hz, 30, fs=400))])
    return signal.sosfiltfilt(sos, x, axis=1, padtype="even", padlen=min(800, x.shape[1] - 1))


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The functions above, for tests: made.ecg_mv, made.drift_mv, made.record, made.reference_mv, made.strip_of."""

    def at(rate_hz: float, seconds: float = 10.0, seed: int | None = None) -> NDArray[np.float64]:
        """(8, time) of the ECG, with drift if a seed is given."""
        time_s = np.arange(round(seconds * rate_hz)) / rate_hz
        drift = 0.0 if seed is None else drift_mv(time_s, np.random.default_rng(seed))
        return ecg_mv(time_s) + drift

    functions: dict[str, Callable] = {"at": at, "ecg_mv": ecg_mv, "drift_mv": drift_mv, "record": record}
    return SimpleNamespace(**functions, reference_mv=reference_mv)
