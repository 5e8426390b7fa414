"""Resampling and filters of any recipe, one step after another, by SciPy in float64.

`filter.py` computes the pattern of `cape-v1` in a third of the time; everything else goes through here.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from ecgcohorts.preprocess.filter import band_sections, notch_sections
from ecgcohorts.preprocess.steps import BandPass, CheckRate, Cut, Notch, Recipe, Resample, SubtractMedian

Array = NDArray[np.float64]

# What numpy calls the three ways to continue a signal.
_CONTINUED: dict[str, dict[str, Any]] = {
    "odd": {"mode": "reflect", "reflect_type": "odd"},
    "even": {"mode": "reflect"},
    "constant": {"mode": "edge"},
}
_SLOP = 1e-6  # samples; forgives 2499.9999999999995


def apply_steps(native_mv: Array, source_rate_hz: float, recipe: Recipe, notch_hz: float | None) -> Array:
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
            sections.append(band_sections(step, rate_hz, source_rate_hz))
        elif notch_hz is not None:
            sections.append(notch_sections(notch_hz, step.q, rate_hz))
            last = int(np.ceil(rate_hz / 2 / notch_hz)) if step.harmonics else 0
            multiples += [notch_sections(multiple * notch_hz, step.q, rate_hz) for multiple in range(2, last)]
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
    shared = min(np.count_nonzero(design[:, place] == 0) for place in (2, 5))  # taps that first-order sections lack
    asked = 3 * (2 * len(design) + 1 - shared) if step.pad_s is None else round(step.pad_s * rate_hz)
    padding = min(asked, signal_mv.shape[1] - 1)  # SciPy's default, but for a strip that is shorter
    return np.asarray(signal.sosfiltfilt(design, signal_mv, axis=1, padtype=step.ends, padlen=padding))
