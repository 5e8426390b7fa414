"""The recorder: its effect on a clean ECG, from the skin to the file.

A `DeviceSignature` is fixed per cohort and does not depend on the patient. Sizes are those of real recorders:
bandwidth 0.05-150 Hz, 500 samples a second or more, step at most 5 uV (AHA: Kligfield et al., Circulation 2007;115:1306);
gain within 5 % and noise within 30 uV peak to valley referred to the input (ANSI/AAMI EC11); steps of 5 uV (PTB-XL),
4.88 uV (GE MUSE) and 9.77 uV (the first samples of many CODE-15 records are its multiples). Noise levels lie around
what quiet intervals of real records hold in 15-40 and 40-90 Hz and below 0.5 Hz (medians of 200 records, uV rms:
PTB-XL 3.4, 1.6 and 39; CODE-15 10, 4.9 and 77). The combination of values in one device is our choice.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.simulate.anatomy import Session

PAD_S = 1.0  # simulated before and after the stored part, so that filters start outside it
# Rows I, II, V1-V6 from electrodes RA, LA, LL, C1-C6 (Einthoven, Wilson): noise of an arm is in all chest leads too.
ELECTRODES = 9
LEADS_OF_ELECTRODES = np.zeros((len(EIGHT_LEADS), ELECTRODES))
LEADS_OF_ELECTRODES[0, :2] = -1, 1
LEADS_OF_ELECTRODES[1, [0, 2]] = -1, 1
LEADS_OF_ELECTRODES[2:, :3] = -1 / 3
LEADS_OF_ELECTRODES[2:, 3:] = np.eye(6)

EMG_LOW_HZ, EMG_HIGH_HZ = 20.0, 60.0  # distant muscle through skin: most power between these; our approximation
ELECTRODE_SD = 0.4  # ln, spread of noise between electrodes of one recording
MAINS_SD_HZ = 0.02  # grid frequency stays within 50 or 60 +- 0.05 Hz almost always
MAINS_THIRD = 0.15  # amplitude of the third harmonic relative to the first
WANDER_LOW_HZ, WANDER_HIGH_HZ = 0.05, 0.8  # slow drift of electrode potentials
BREATH_SHARE = 0.5  # of wander power, at the breathing rate


@dataclass(frozen=True)
class DeviceSignature:
    """One make of recorder at one hospital. Noise is per electrode, in uV rms, before the device's filters."""

    name: str
    rate_hz: float
    step_uv: float  # of the integers in the file
    highpass_hz: float  # first order, causal, as an RC time constant
    lowpass_hz: float  # Butterworth magnitude and phase of `lowpass_order`
    lowpass_order: int
    smoothing_taps: int  # moving average in the device's software; 1 = none; delays by half its length
    gain: float  # 1 = exact
    gain_sd: float  # between recordings (carts of one make), relative
    white_uv: float  # amplifier, flat
    pink_uv: float  # electrodes, 1/f in power, from 0.5 to 40 Hz
    emg_uv: float  # muscle, median over recordings
    hum_uv: float  # mains, median over recordings
    hum_spread: float  # ln SD between recordings
    mains_hz: float
    wander_uv: float  # baseline

    def __post_init__(self) -> None:
        if not 0 < self.highpass_hz < self.lowpass_hz <= self.rate_hz / 2:
            raise ValueError(
                f"{self.name}: band {self.highpass_hz}-{self.lowpass_hz} Hz at {self.rate_hz} Hz, "
                "expected 0 < highpass < lowpass <= rate / 2."
            )

    @property
    def gain_per_mv(self) -> float:
        """Integer steps per mV."""
        return 1000 / self.step_uv

    def record(
        self, rng: np.random.Generator, session: Session, clean_mv: NDArray[np.float64]
    ) -> tuple[NDArray[np.int32], float]:
        """Return the integers that the device writes, (lead, time), and its true gain.

        clean_mv: (lead, time) at the device's rate, longer than the stored part by PAD_S at both ends.
        """
        # The FFT treats the padded record as periodic. A high-pass of long time constant turns that into a small offset, far
        # below the offsets of real electrodes.
        samples = clean_mv.shape[1]
        gain = self.gain * (1 + self.gain_sd * float(rng.standard_normal()))
        spectrum = np.fft.rfft(clean_mv + _tones(rng, self, session, samples), axis=-1)
        spectrum += _noise(rng, self, session, samples)
        recorded = np.fft.irfft(spectrum * (gain * _transfer(self, samples)), samples, axis=-1)
        pad = round(PAD_S * self.rate_hz)
        steps = np.rint(recorded[:, pad : samples - pad] * self.gain_per_mv)
        return np.clip(steps, -32767, 32767).astype(np.int32), gain


@lru_cache(maxsize=64)
def _transfer(device: DeviceSignature, samples: int) -> NDArray[np.complex128]:
    """Return the (frequency,) complex response of the device's filters for a real FFT over `samples`."""
    hz = np.fft.rfftfreq(samples, 1 / device.rate_hz)
    jw = 1j * hz
    response = jw / (jw + device.highpass_hz)
    for pole in _butterworth_poles(device.lowpass_order):
        response = response / (jw / device.lowpass_hz - pole)
    half = (device.smoothing_taps - 1) / 2
    taps = np.exp(-2j * np.pi * np.outer(hz / device.rate_hz, np.arange(device.smoothing_taps) - half)).mean(axis=1)
    return response * taps * np.exp(-2j * np.pi * hz / device.rate_hz * half)


def _butterworth_poles(order: int) -> NDArray[np.complex128]:
    """Return the poles of the analogue prototype with cut-off 1 rad/s. By their product the gain at 0 Hz is 1."""
    number = np.arange(1, order + 1)
    return np.exp(1j * np.pi * (2 * number + order - 1) / (2 * order))


def _noise(rng: np.random.Generator, device: DeviceSignature, session: Session, samples: int) -> NDArray[np.complex128]:
    """Draw amplifier, electrode and muscle noise and slow drift, as a (lead, frequency) spectrum in mV, before filters."""
    white, pink, emg, wander = _noise_shapes(device.rate_hz, samples)
    spread = np.exp(ELECTRODE_SD * rng.standard_normal((ELECTRODES, 1)))
    muscle = device.emg_uv * session.tremor * spread
    power = device.white_uv**2 * white + device.pink_uv**2 * pink + muscle**2 * emg
    power += (1 - BREATH_SHARE) * device.wander_uv**2 * session.breath_depth * wander
    # rfft of unit white noise has E|X|^2 = samples, half of it in each of the real and the imaginary part.
    size = np.sqrt(power * (samples / 2))
    draws = rng.standard_normal((2, *size.shape))
    spectrum = 1e-3 * LEADS_OF_ELECTRODES @ (size * draws)
    return spectrum[0] + 1j * spectrum[1]


@lru_cache(maxsize=64)
def _noise_shapes(rate_hz: float, samples: int) -> tuple[NDArray[np.float64], ...]:
    """Return (frequency,) power shapes of mean 1 over the two-sided spectrum: white, pink, muscle, wander."""
    hz = np.fft.rfftfreq(samples, 1 / rate_hz)
    safe = np.maximum(hz, hz[1])
    pink = np.where((hz >= 0.5) & (hz <= 40), 1 / safe, 0)
    muscle = (safe / EMG_LOW_HZ) ** 4 / (1 + (safe / EMG_LOW_HZ) ** 4) / (1 + (safe / EMG_HIGH_HZ) ** 4)
    wander = np.where((hz >= WANDER_LOW_HZ) & (hz <= WANDER_HIGH_HZ), 1 / safe**2, 0)
    return tuple(shape * (len(hz) / shape.sum()) for shape in (np.ones_like(hz), pink, muscle, wander))


def _tones(rng: np.random.Generator, device: DeviceSignature, session: Session, samples: int) -> NDArray[np.float64]:
    """Draw mains hum with its third harmonic and the breathing artefact, (lead, time) in mV, before filters."""
    time_s = np.arange(samples) / device.rate_hz
    carrier = np.exp(2j * np.pi * (device.mains_hz + MAINS_SD_HZ * rng.standard_normal()) * time_s)
    breath = np.sin(2 * np.pi * session.breath_hz * time_s + rng.uniform(0, 2 * np.pi))
    size = np.sqrt(2) * device.hum_uv * np.exp(device.hum_spread * rng.standard_normal())
    couple = size * np.exp(ELECTRODE_SD * rng.standard_normal(ELECTRODES))
    phase = rng.uniform(0, 2 * np.pi) + 0.5 * rng.standard_normal(ELECTRODES)
    sway = np.sqrt(2 * BREATH_SHARE) * device.wander_uv * session.breath_depth * rng.standard_normal(ELECTRODES)
    first, third = couple * np.exp(1j * phase), MAINS_THIRD * couple * np.exp(3j * phase)
    weights = 1e-3 * LEADS_OF_ELECTRODES @ np.stack([first.real, -first.imag, third.real, -third.imag, sway], axis=1)
    cubed = carrier * carrier * carrier
    return weights @ np.stack([carrier.real, carrier.imag, cubed.real, cubed.imag, breath])
