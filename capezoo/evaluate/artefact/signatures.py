"""Signatures of four made-up recorders, and of a fifth that pretraining never meets: what each does to a raw recording.

A signature is applied in mV at the rate of the raw signal, before any recipe: what the recipe's filters take out of it is
gone, as in life. All are constructed; none is that of a make. The strength is in uV, and 0 changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from capezoo.specs.base import derive_seed
from ecgcohorts.errors import SpecError, did_you_mean

Signal = NDArray[np.float64]  # (lead, time) in mV
DEVICES = ("A", "B", "C", "D")
UNSEEN = "E"  # rendered in tests only
RENDERINGS = (*DEVICES, UNSEEN)

# The kinds are not equally strong. At 200 uV, on PTB-XL after cape-v1, a tone is 113 to 143 uV rms (2 where the notch takes
# it), noise 110 to 141, a band edge takes out 2 to 26, and quantisation and gain change 6 to 39.
# For each of the renderings.
_TONE_HZ = (35.0, 50.0, 65.0, 80.0, 43.0)
_LEAD_SCALE = (0.8, 1.2)
_SWELL, _SWELL_HZ = 0.2, 0.3  # depth and frequency of the slow change of a tone's amplitude
_SLOPE = (-1.0, 0.0, 1.0, 2.0, -2.0)  # power density falls with frequency to this power
_NOISE_HZ = (2.0, 100.0)  # half of it: below, drift; above, most recipes keep nothing
_CORNER_HZ = (90.0, 65.0, 45.0, 30.0, 37.0)
_CORNER_ORDER = 4
_WHOLE_UV = 200.0  # strength from which all above the corner is gone
_STEP = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 32)  # of the strength
_GAIN = (-0.4, -0.1, 0.2, 0.5, 0.8)  # per mV of strength


@dataclass(frozen=True)
class Signature:
    """A kind of signature at one strength. Its draws depend on seed and recording alone, and on no device.

    So the renderings of a recording by several devices differ in what makes the device, and in nothing else.
    """

    kind: str
    strength_uv: float
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise SpecError(f"found kind {self.kind!r}, expected one of {known}.{did_you_mean(self.kind, KINDS)}")

    @property
    def is_added(self) -> bool:
        """Whether it is a signal of its own, which does not depend on the recording's."""
        return self.kind in _ADDED

    def added(self, shape: tuple[int, int], rate_hz: float, device: int, recording: bytes, use: str = "own") -> Signal:
        """Return what an added signature adds to a recording of `shape`, (lead, time) in mV.

        device: place in RENDERINGS. recording: what tells it from others under any pseudonym key. use: another word
        gives other draws.
        """
        if not self.strength_uv:
            return np.zeros(shape)
        return _ADDED[self.kind](shape, rate_hz, device, self.strength_uv / 1000, self._generator(recording, use))

    def applied(self, signal_mv: Signal, rate_hz: float, device: int, recording: bytes, use: str = "own") -> Signal:
        """Return the recording as `device` would have made it."""
        if not self.strength_uv:
            return signal_mv
        if self.is_added:
            return signal_mv + self.added(signal_mv.shape, rate_hz, device, recording, use)
        return _CHANGED[self.kind](signal_mv, rate_hz, device, self.strength_uv / 1000)

    def _generator(self, recording: bytes, use: str) -> np.random.Generator:
        return np.random.Generator(
            np.random.PCG64(derive_seed(self.seed, "signature", self.kind, use, recording.hex()))
        )


def _tone(
    shape: tuple[int, int], rate_hz: float, device: int, strength_mv: float, generator: np.random.Generator
) -> Signal:
    """Return a tone of the strength's amplitude: one phase a recording, .8 to 1.2 times as large from lead to lead."""
    phase, scale = generator.uniform(0, 2 * np.pi), generator.uniform(*_LEAD_SCALE, (shape[0], 1))
    time_s = np.arange(shape[1]) / rate_hz
    swell = 1 + _SWELL * np.sin(2 * np.pi * _SWELL_HZ * time_s + phase)
    return np.asarray(strength_mv * scale * swell * np.sin(2 * np.pi * _TONE_HZ[device] * time_s + phase))


def _noise(
    shape: tuple[int, int], rate_hz: float, device: int, strength_mv: float, generator: np.random.Generator
) -> Signal:
    """Return Gaussian noise, 2 to 100 Hz, of the power of a tone of this strength; the colour is the device's."""
    spectrum = np.fft.rfft(generator.standard_normal(shape))
    hz = np.fft.rfftfreq(shape[1], 1 / rate_hz)
    inside = (hz >= _NOISE_HZ[0]) & (hz <= _NOISE_HZ[1])
    spectrum *= np.where(inside, np.maximum(hz, _NOISE_HZ[0]) ** (-_SLOPE[device] / 2), 0.0)
    noise = np.fft.irfft(spectrum, shape[1])
    return np.asarray(noise * (strength_mv / np.sqrt(2) / noise.std(axis=1, keepdims=True)))


def _band_edge(signal_mv: Signal, rate_hz: float, device: int, strength_mv: float) -> Signal:
    """Take out what lies above the device's corner: all of it from 200 uV on, in proportion below."""
    sections = signal.butter(_CORNER_ORDER, _CORNER_HZ[device], fs=rate_hz, output="sos")
    below_mv = signal.sosfiltfilt(sections, signal_mv, axis=1, padtype="even")
    return np.asarray(signal_mv + min(1.0, 1000 * strength_mv / _WHOLE_UV) * (below_mv - signal_mv))


def _quantisation(signal_mv: Signal, rate_hz: float, device: int, strength_mv: float) -> Signal:
    """Change the gain, and round to steps of 1/32 to 1/4 of the strength: both are the device's."""
    step_mv, gain = strength_mv * _STEP[device], 1 + strength_mv * _GAIN[device]
    return np.asarray(np.rint(signal_mv * gain / step_mv) * step_mv)


_ADDED: Mapping[str, Callable[..., Signal]] = {"tone": _tone, "noise": _noise}
_CHANGED: Mapping[str, Callable[..., Signal]] = {"band_edge": _band_edge, "quantisation": _quantisation}
KINDS = (*_ADDED, *_CHANGED)
