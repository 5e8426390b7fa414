"""Compute the pattern of `cape-v1`, resampling, band-pass and notch, in one pair of Fourier transforms.

The filters are SciPy's, and so are the ends of a strip: `resample_poly` continues it along the line through its first and
last sample; `sosfiltfilt` continues the result evenly by `pad_s`, starts settled on the first value it meets, and runs
backward over the output of the forward pass. A Fourier transform has no ends: it takes the strip as a circle. What the
filters remember of the time before and after a strip dies away as one wave for each pole. So the two results differ by a
few known waves, and `_ends` computes how much of each a strip needs.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from ecgcohorts.preprocess.steps import BandPass, Notch, Recipe, Resample

Array = NDArray[np.float64]

_PERIODS = 10  # of the slower rate, to each side: length of the filter in resample_poly
_KAISER = 5.0  # its window
_PASSED = 1.4  # Nyquist frequencies of the slower rate; that filter takes 60 dB off everything above
_FINE = 64  # finer steps change the response of that filter by less than a millionth
_FORGOTTEN = (
    1e-6  # what may be left of the slowest wave at the other end of the shortest strip; of 0.5 Hz, 7 s leave 1e-7
)


@lru_cache(maxsize=16)
def fits(recipe: Recipe) -> bool:
    """Return whether the resampling and the filters of a recipe are the pattern that `strip_filter` computes.

    The pattern: polyphase resampling, then one Butterworth band-pass with even padding whose memory is short against a
    strip, then at most one notch in the same pass. Any other list of steps is for `chain.apply_steps`.
    """
    match recipe.after_cut:
        case (Resample(method="poly"), BandPass(kind="butterworth", ends="even") as band, *rest):
            notch = rest[0] if rest else None
            if len(rest) > 1 or None in (band.low_hz, band.high_hz, band.pad_s):
                return False
            if notch is not None and not (isinstance(notch, Notch) and notch.joined and not notch.harmonics):
                return False
            poles = signal.sos2zpk(design_filters(recipe.rate_hz, recipe, None))[1]
            return bool((np.abs(poles) ** recipe.window_samples < _FORGOTTEN).all())
        case _:
            return False


@lru_cache(maxsize=64)
def design_filters(source_rate_hz: float, recipe: Recipe, notch_hz: float | None) -> Array:
    """Return band-pass and notch as second-order sections at the recipe's rate: one cascade, to be run both ways."""
    notch = recipe.step(Notch)
    sections = band_sections(_band(recipe), recipe.rate_hz, source_rate_hz)
    if notch_hz is None or notch is None:
        return sections
    return np.concatenate([sections, notch_sections(notch_hz, notch.q, recipe.rate_hz)])


def _band(recipe: Recipe) -> BandPass:
    return next(step for step in recipe.steps if isinstance(step, BandPass))


def band_sections(band: BandPass, rate_hz: float, source_rate_hz: float) -> Array:
    """Return a Butterworth band-pass, high-pass or low-pass as second-order sections at rate_hz."""
    low, high = band.low_hz, band.high_hz
    if high is not None and band.top_of_source_rate is not None:
        high = min(high, band.top_of_source_rate * source_rate_hz)
    if low is None or high is None:
        return signal.butter(
            band.order, low or high, "lowpass" if low is None else "highpass", fs=rate_hz, output="sos"
        )
    return signal.butter(band.order, (low, high), "bandpass", fs=rate_hz, output="sos")


def notch_sections(hz: float, q: float, rate_hz: float) -> Array:
    """Return a notch as one second-order section."""
    return signal.tf2sos(*signal.iirnotch(hz, q, fs=rate_hz))


@dataclass(frozen=True, eq=False)
class _StripFilter:
    """Resampling and filters of a recipe, for strips of one length at one rate."""

    n_in: int
    n_out: int  # ceil(n_in * up / down)
    circle_in: int  # samples of the circle at the source's rate
    circle_out: int  # and at the recipe's
    gain: Array  # (2 * frequency,) of all filters together, for real and imaginary parts in turn
    ends_of: Array  # (wave, n_in): how much of each wave a strip needs
    waves: Array  # (wave, n_out)

    def __call__(self, native_mv: Array) -> Array:
        """Return (lead, n_out) at the recipe's rate, from (lead, n_in) at the source's."""
        circle_mv = np.empty((len(native_mv), self.circle_in))
        strip_mv = circle_mv[:, : self.n_in]
        # A constant does not pass. Without it a lead that stands still gives zeros to the last bit.
        np.subtract(native_mv, native_mv[:, :1], out=strip_mv)
        np.multiply(strip_mv[:, -1:], _line(self.n_in, self.circle_in), out=circle_mv[:, self.n_in :])
        spectrum = _with_images(fft.rfft(circle_mv), self.circle_in, len(self.gain) // 2)
        filtered = (spectrum.view(np.float64) * self.gain).view(np.complex128)
        filtered_mv = fft.irfft(filtered, self.circle_out)[:, : self.n_out]
        filtered_mv += (strip_mv @ self.ends_of.T) @ self.waves
        return filtered_mv


@lru_cache(maxsize=16)  # a megabyte each; most cohorts need one or two
def strip_filter(
    n_in: int, ratio: tuple[int, int], source_rate_hz: float, recipe: Recipe, notch_hz: float | None
) -> _StripFilter:
    """Return the filter for strips of n_in samples. ratio: (up, down), the recipe's rate over the source's."""
    up, down = ratio
    n_out = -(-n_in * up // down)
    circle_in, circle_out = _circle(n_in, up, down)
    resampling = _resampling_gain(up, down, circle_in, circle_out)
    sections = design_filters(source_rate_hz, recipe, notch_hz)
    response = signal.sosfreqz(sections, circle_out, whole=True)[1]
    pad = round((_band(recipe).pad_s or 0.0) * recipe.rate_hz)
    ends_of, waves = _ends(sections, response, n_out, min(pad, n_out - 1))
    # From the resampled circle back to the native one, and from there to the strip: both steps transposed.
    spectrum = fft.rfft(ends_of)[:, : len(resampling)] * resampling
    ends_of = fft.irfft(_without_images(spectrum, circle_in, circle_out), circle_in)
    ends_of[:, n_in - 1] += ends_of[:, n_in:] @ _line(n_in, circle_in)
    return _StripFilter(
        n_in=n_in,
        n_out=n_out,
        circle_in=circle_in,
        circle_out=circle_out,
        gain=np.repeat(resampling * np.abs(response[: len(resampling)]) ** 2 * (circle_out / circle_in), 2),
        ends_of=np.ascontiguousarray(ends_of[:, :n_in]),
        waves=waves,
    )


# --- resampling ---------------------------------------------------------------------------------------------------


def _circle(n_in: int, up: int, down: int) -> tuple[int, int]:
    """Return two lengths of one duration, at the source's and the recipe's rate, that are quick to transform.

    There is room for the resampling filter beyond both ends of the strip.
    """
    room = 2 * (_PERIODS * max(1, down / up) + 1)
    turns = fft.next_fast_len(int(np.ceil((n_in + room) / down)), real=True)
    return turns * down, turns * up


@lru_cache(maxsize=16)
def _line(n_in: int, circle_in: int) -> Array:
    """Return what lies on the circle beyond a strip that begins at 0 and ends at 1: the line through both.

    The line continues from the end, halfway round, and comes back to the beginning.
    """
    beyond = np.arange(1.0, circle_in - n_in + 1)
    after = (len(beyond) + 1) // 2
    beyond[:after] += n_in - 1
    beyond[after:] -= len(beyond) + 1
    return beyond / (n_in - 1)


def _resampling_gain(up: int, down: int, circle_in: int, circle_out: int) -> Array:
    """Return the gain of the filter of `resample_poly` at the frequencies of the circle that it lets pass."""
    if up == down:
        return np.ones(circle_out // 2 + 1)
    slower = min(circle_in, circle_out)
    nyquists = np.arange(min(int(_PASSED * slower / 2), circle_out // 2) + 1) / (slower / 2)
    steps = min(max(up, down), _FINE)
    taps = signal.firwin(2 * _PERIODS * steps + 1, 1 / steps, window=("kaiser", _KAISER))
    middle = _PERIODS * steps
    angle = np.pi / steps * np.outer(nyquists, np.arange(1, middle + 1))
    return taps[middle] + 2 * np.cos(angle) @ taps[middle + 1 :]


def _with_images(spectrum: NDArray[np.complex128], circle_in: int, frequencies: int) -> NDArray[np.complex128]:
    """Return so many frequencies of a (lead, frequency) spectrum, above the Nyquist frequency its mirror image."""
    if frequencies <= spectrum.shape[1]:
        return spectrum[:, :frequencies]
    mirrored = circle_in - np.arange(spectrum.shape[1], frequencies)
    return np.concatenate([spectrum, spectrum[:, mirrored].conj()], axis=1)


def _without_images(spectrum: NDArray[np.complex128], circle_in: int, circle_out: int) -> NDArray[np.complex128]:
    """Apply the transpose of `_with_images` and a transform back: fold what lies above the Nyquist frequency."""
    whole = circle_in // 2 + 1
    counted = spectrum * _occurrences(spectrum.shape[1], circle_out)
    folded = counted[:, :whole].copy()
    above = np.arange(whole, spectrum.shape[1])
    folded[:, circle_in - above] += counted[:, above].conj()
    return folded / _occurrences(folded.shape[1], circle_in)


def _occurrences(frequencies: int, circle: int) -> Array:
    """Return how often each frequency occurs in the full spectrum of a real signal: all but two have a conjugate."""
    return np.where(2 * np.arange(frequencies) % circle == 0, 1.0, 2.0)


# --- the ends -----------------------------------------------------------------------------------------------------


def _ends(sections: Array, response: NDArray[np.complex128], n: int, pad: int) -> tuple[Array, Array]:
    """Return what a strip needs to lose the memory of the circle and to gain that of its even continuation.

    response: of the sections, at the frequencies of a circle (time,) that begins with the n samples of the strip. The
    first result, (wave, time), gives as scalar product with a circle how much of each wave is to be added; the second,
    (wave, n), are the waves. Exact but for what is left of a wave after n samples, and 7 s leave 1e-7 of it.
    """
    circle = len(response)
    zeros, all_poles, k = signal.sos2zpk(sections)
    poles = all_poles[all_poles.imag >= 0]  # the others are their conjugates
    share = np.where(poles.imag > 0, 2.0, 1.0)
    # The impulse response is the sum over all poles of residue * pole ** (time - 1), from time 1 on.
    residues = np.array([k * np.prod(p - zeros) / np.prod((p - all_poles)[p != all_poles]) for p in poles])
    reversed_gain = np.array([k * np.prod(1 / p - zeros) / np.prod(1 / p - all_poles) for p in poles])
    powers = poles[:, None] ** np.arange(circle)
    for_ever = poles**pad / (1 - poles)  # weight of the last value met, which goes on for ever
    round_and_round = powers / (1 - poles**circle)[:, None]

    before = np.zeros((len(poles), circle), complex)  # memory of a forward pass at the first sample
    before[:, 1 : pad + 1] = powers[:, :pad]
    before[:, pad] += for_ever
    before -= round_and_round[:, ::-1]

    met = np.zeros((len(poles), n + pad), complex)  # memory of a backward pass at the last, of a forward pass ...
    met[:, n:] = powers[:, :pad]
    met[:, -1] += for_ever
    met = signal.sosfilt(sections, met[:, ::-1], axis=1)[:, ::-1]  # ... which is undone by transposing it
    after = np.zeros_like(before)
    after[:, :n] = met[:, :n]
    after[:, n - 1 - pad : n - 1] += met[:, n:][:, ::-1]
    after -= fft.ifft(fft.fft(np.roll(round_and_round, n, axis=1)) * response.conj())

    forward = (share * residues * reversed_gain)[:, None] * powers[:, :n]
    backward = (share * residues)[:, None] * powers[:, n - 1 :: -1]
    return (
        np.concatenate([before.real, before.imag, after.real, after.imag]),
        np.concatenate([forward.real, -forward.imag, backward.real, -backward.imag]),
    )
