"""Resampling and filters of a recipe, from a cut strip at the source's rate to one at the recipe's.

Any list of steps is run one after another by SciPy in float64 (`_apply_steps`). The pattern of `cape-v1`, resampling,
band-pass and notch, is computed in one pair of Fourier transforms, in a third of the time (`_StripFilter`).

The filters are SciPy's in both, and so are the ends of a strip: `resample_poly` continues it along the line through its
first and last sample; `sosfiltfilt` continues the result evenly by `pad_s`, starts settled on the first value it meets, and
runs backward over the output of the forward pass. A Fourier transform has no ends: it takes the strip as a circle. What the
filters remember of the time before and after a strip dies away as one wave for each pole. So the two results differ by a
few known waves, and `_ends` computes how much of each a strip needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from ecgcohorts.preprocess.steps import BandPass, CheckRate, Cut, Notch, Recipe, Resample, SubtractMedian

Array = NDArray[np.float64]

_PERIODS = 10  # of the slower rate, to each side: length of the filter in resample_poly
_KAISER = 5.0  # its window
_PASSED = 1.4  # Nyquist frequencies of the slower rate; that filter takes 60 dB off everything above
_FINE = 64  # finer steps change the response of that filter by less than a millionth
# What may be left of the slowest wave at the other end of the shortest strip; of 0.5 Hz, 7 s leave 1e-7.
_FORGOTTEN = 1e-6
# What numpy calls the three ways to continue a signal.
_CONTINUED: dict[str, dict[str, Any]] = {
    "odd": {"mode": "reflect", "reflect_type": "odd"},
    "even": {"mode": "reflect"},
    "constant": {"mode": "edge"},
}
_SLOP = 1e-6  # samples; forgives 2499.9999999999995


def resample_and_filter(
    native_mv: Array, rate_hz: float, ratio: tuple[int, int], recipe: Recipe, notch_hz: float | None
) -> Array:
    """Return (lead, time) at the recipe's rate, from (lead, time) at the source's.

    ratio: (up, down), the recipe's rate over the source's. notch_hz: what to notch; None leaves every notch of the recipe
    out.
    """
    # A matter of speed alone: for its pattern the transform takes a third of the time.
    if _fits(recipe):
        return _strip_filter(native_mv.shape[1], ratio, rate_hz, recipe, notch_hz)(native_mv)
    return _apply_steps(native_mv, rate_hz, recipe, notch_hz)


@lru_cache(maxsize=16)
def _fits(recipe: Recipe) -> bool:
    """Return whether the resampling and the filters of a recipe are the pattern that `_strip_filter` computes.

    The pattern: polyphase resampling, then one Butterworth band-pass with even padding whose memory is short against a
    strip, then at most one notch in the same pass. Any other list of steps is for `_apply_steps`.
    """
    match recipe.after_cut:
        case (Resample(method="poly"), BandPass(kind="butterworth", ends="even") as band, *rest):
            notch = rest[0] if rest else None
            if len(rest) > 1 or None in (band.low_hz, band.high_hz, band.pad_s):
                return False
            if notch is not None and not (isinstance(notch, Notch) and notch.joined and not notch.harmonics):
                return False
            poles = signal.sos2zpk(_design_filters(recipe.rate_hz, recipe, None))[1]
            return bool((np.abs(poles) ** recipe.window_samples < _FORGOTTEN).all())
        case _:
            return False


@lru_cache(maxsize=64)
def _design_filters(source_rate_hz: float, recipe: Recipe, notch_hz: float | None) -> Array:
    """Return band-pass and notch as second-order sections at the recipe's rate: one cascade, to be run both ways."""
    notch = recipe.step(Notch)
    sections = _band_sections(_band(recipe), recipe.rate_hz, source_rate_hz)
    if notch_hz is None or notch is None:
        return sections
    return np.concatenate([sections, _notch_sections(notch_hz, notch.q, recipe.rate_hz)])


def _band(recipe: Recipe) -> BandPass:
    return next(step for step in recipe.steps if isinstance(step, BandPass))


def _band_sections(band: BandPass, rate_hz: float, source_rate_hz: float) -> Array:
    """Return a Butterworth band-pass, high-pass or low-pass as second-order sections at rate_hz."""
    low, high = band.low_hz, band.high_hz
    if high is not None and band.top_of_source_rate is not None:
        high = min(high, band.top_of_source_rate * source_rate_hz)
    if low is None or high is None:
        return signal.butter(
            band.order, low or high, "lowpass" if low is None else "highpass", fs=rate_hz, output="sos"
        )
    return signal.butter(band.order, (low, high), "bandpass", fs=rate_hz, output="sos")


def _notch_sections(hz: float, q: float, rate_hz: float) -> Array:
    """Return a notch as one second-order section."""
    return signal.tf2sos(*signal.iirnotch(hz, q, fs=rate_hz))


# --- any list of steps ------------------------------------------------------------------------------------------------


def _apply_steps(native_mv: Array, source_rate_hz: float, recipe: Recipe, notch_hz: float | None) -> Array:
    """Return (lead, time) at the recipe's rate, from (lead, time) at the source's.

    notch_hz: what to notch; None leaves every notch of the recipe out.
    """
    signal_mv, rate_hz = native_mv, source_rate_hz
    steps = list(recipe.after_cut)
    while steps:
        step = steps.pop(0)
        match step:
            case Resample():
                signal_mv = _resampled(signal_mv, rate_hz, step, recipe)
                rate_hz = step.rate_hz
            case Cut():
                length = round(step.strip_s * rate_hz)
                start = max(signal_mv.shape[1] - length, 0) // 2 if step.keep == "centre" else 0
                signal_mv = signal_mv[:, start : start + length]
            case SubtractMedian():
                width = int(step.width_s * rate_hz) + 1
                width += width % 2 == 0  # a median needs a middle
                signal_mv = signal_mv - np.stack([signal.medfilt(lead_mv, width) for lead_mv in signal_mv])
            case BandPass() | Notch():
                cascade: list[BandPass | Notch] = [step]
                while steps and isinstance(joined := steps[0], BandPass | Notch) and joined.joined:
                    cascade.append(joined)
                    steps.pop(0)
                for sections in _designs(cascade, rate_hz, source_rate_hz, notch_hz):
                    signal_mv = _both_ways(signal_mv, rate_hz, step, sections)
    return signal_mv


def _resampled(signal_mv: Array, rate_hz: float, step: Resample, recipe: Recipe) -> Array:
    if rate_hz == step.rate_hz:
        return signal_mv
    n_out = int(signal_mv.shape[1] / rate_hz * step.rate_hz + _SLOP)
    match step.method:
        case "linear":
            at, known = np.linspace(0, 1, n_out), np.linspace(0, 1, signal_mv.shape[1])
            return np.stack([np.interp(at, known, lead_mv) for lead_mv in signal_mv])
        case "fourier":
            return np.asarray(signal.resample(signal_mv, n_out, axis=1))
        case "decimate":
            return np.asarray(signal.decimate(signal_mv, round(rate_hz / step.rate_hz), axis=1))
        case "poly":
            check = recipe.step(CheckRate) or CheckRate()
            ratio = Fraction(rate_hz / step.rate_hz).limit_denominator(check.max_denominator)
            up, down = ratio.denominator, ratio.numerator
            # The filter turns 0.04 % of an offset into ripple. Without it a lead that stands still stays so.
            offset_mv = signal_mv[:, :1]
            return offset_mv + signal.resample_poly(signal_mv - offset_mv, up, down, axis=1, padtype="line")


def _designs(
    cascade: Sequence[BandPass | Notch], rate_hz: float, source_rate_hz: float, notch_hz: float | None
) -> list[Array]:
    """Return filters to run one after another: second-order sections (section, 6), or the taps of an FIR."""
    sections: list[Array] = []
    multiples: list[Array] = []  # of a notch: each in a pass of its own
    for step in cascade:
        if isinstance(step, BandPass) and step.kind == "fir":
            edges = [edge for edge in (step.low_hz, step.high_hz) if edge is not None]
            passes_zero: str | bool = "lowpass" if step.low_hz is None else False
            return [signal.firwin(step.order, edges, fs=rate_hz, pass_zero=passes_zero)]
        if isinstance(step, BandPass):
            sections.append(_band_sections(step, rate_hz, source_rate_hz))
        elif notch_hz is not None:
            sections.append(_notch_sections(notch_hz, step.q, rate_hz))
            last = int(np.ceil(rate_hz / 2 / notch_hz)) if step.harmonics else 0
            multiples += [_notch_sections(multiple * notch_hz, step.q, rate_hz) for multiple in range(2, last)]
    return [*([np.concatenate(sections)] if sections else []), *multiples]


def _both_ways(signal_mv: Array, rate_hz: float, step: BandPass | Notch, design: Array) -> Array:
    """Run a filter forward and backward, the ends continued as its first step says."""
    if step.ends == "gust":
        return np.asarray(signal.filtfilt(*signal.sos2tf(design), signal_mv, axis=1, method="gust"))
    if design.ndim == 1:
        # An FIR forgets after its own length, so both passes are one convolution: `filtfilt` in a twentieth of the time.
        both = np.convolve(design, design[::-1])
        continued_mv = np.pad(signal_mv, [(0, 0), (len(design) - 1,) * 2], **_CONTINUED[step.ends])
        return np.asarray(signal.oaconvolve(continued_mv, both[None], mode="valid", axes=1))
    # Taps that first-order sections lack, and so SciPy's default padding, but no more than a short strip has.
    shared = min(np.count_nonzero(design[:, place] == 0) for place in (2, 5))
    asked = 3 * (2 * len(design) + 1 - shared) if step.pad_s is None else round(step.pad_s * rate_hz)
    padding = min(asked, signal_mv.shape[1] - 1)
    return np.asarray(signal.sosfiltfilt(design, signal_mv, axis=1, padtype=step.ends, padlen=padding))


# --- the pattern of cape-v1 --------------------------------------------------------------------------------------------


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
        parts = spectrum.view(
            np.float64
        )  # in place: a recording in double precision hardly fits the second-level cache
        np.multiply(parts, self.gain, out=parts)
        filtered_mv = fft.irfft(spectrum, self.circle_out)[:, : self.n_out]
        filtered_mv += (strip_mv @ self.ends_of.T) @ self.waves
        return filtered_mv


@lru_cache(maxsize=16)  # a megabyte each; most cohorts need one or two
def _strip_filter(
    n_in: int, ratio: tuple[int, int], source_rate_hz: float, recipe: Recipe, notch_hz: float | None
) -> _StripFilter:
    """Return the filter for strips of n_in samples. ratio: (up, down), the recipe's rate over the source's."""
    up, down = ratio
    n_out = -(-n_in * up // down)
    circle_in, circle_out = _circle(n_in, up, down)
    resampling = _resampling_gain(up, down, circle_in, circle_out)
    sections = _design_filters(source_rate_hz, recipe, notch_hz)
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
