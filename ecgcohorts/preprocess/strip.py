"""Recording to strip: leads, gaps, trim, rate, filters, whole microvolts, as a recipe says.

This is the only way from a recording to a strip: `ingest` and the embedding of arrays both call `make_strip`.
Every number is in `ecgcohorts.preprocess.recipes`; docs/preprocessing.md holds the measurements behind them.
Importing this module loads scipy.signal: import it where strips are made, not in the package root.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from ecgcohorts.errors import Reason, RejectedRecording, SpecError
from ecgcohorts.leads import LIMB_LEADS
from ecgcohorts.preprocess import quality
from ecgcohorts.preprocess.filter import resample_and_filter
from ecgcohorts.preprocess.quality import Quality, Stages
from ecgcohorts.preprocess.recipes import CAPE_V1, load_recipe
from ecgcohorts.preprocess.steps import (
    CheckAmplitude,
    CheckRate,
    Cut,
    FillGaps,
    Notch,
    Recipe,
    Resample,
    Trim,
)
from ecgcohorts.recording import MISSING, Recording

Mains = float | Literal["auto"] | None

LARGEST = 32767
_RATE_TOLERANCE = 1e-6  # relative; 10 us over a strip, under 1 uV on the steepest QRS
_DERIVED = quality.FROM_I_AND_II[2:].astype(np.float32)
_LEAST_STEPS = 20  # of numbers without a unit: below, rounding takes more than 1 % of the amplitude. Our default.
_SLOP = 1e-6  # samples; forgives 0.040 * 250 = 10.000000000000002


@dataclass(frozen=True, eq=False)
class Strip:
    """One preprocessed recording as a store keeps it.

    samples: int16 (lead, time) of the recipe's length, in steps of `recipe.lsb_uv`; MISSING outside the valid part.
    The valid part is [valid_start, valid_stop); strips begin at 0.
    statistics: float32 (2, lead), mean and deviation in mV of the whole recording, if the recipe keeps them.
    """

    samples: NDArray[np.int16]
    valid_start: int
    valid_stop: int
    quality: Quality
    statistics: NDArray[np.float32] | None = None


def make_strip(
    recording: Recording, recipe: Recipe | str | Path = CAPE_V1, mains_hz: Mains = None, with_quality: bool = True
) -> Strip:
    """Return the strip of one recording.

    recipe: a recipe, the name of an installed one, or a YAML file that describes one.
    mains_hz: 50 or 60 puts a notch there, "auto" asks the signal itself, None leaves the notch out.
    Raises RejectedRecording: LEADS, RATE, EMPTY, TOO_SHORT, GAPS or AMPLITUDE. The result depends on nothing
    but the arguments: alone or among others, the same bits.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers end as AMPLITUDE, without a warning
        return _make_strip(recording, recipe, mains_hz, with_quality)


def _make_strip(recording: Recording, recipe: Recipe, mains_hz: Mains, with_quality: bool) -> Strip:
    _check_unit(recording, recipe)
    rate_hz = recording.rate_hz
    ratio = _rate_ratio(rate_hz, recipe)
    lead_mv = recording.leads_mv(recipe.leads)
    native_mv, start, n_interp = _cut_strip(lead_mv, rate_hz, recipe)
    shortest = quality.SEGMENT_S * rate_hz
    # Only where a recipe's window is shorter than that.
    if native_mv.shape[1] < shortest - _SLOP:
        raise RejectedRecording(
            Reason.TOO_SHORT,
            f"{native_mv.shape[1] / rate_hz:.3f} s",
            f"at least {quality.SEGMENT_S:g} s, over which spectra are measured, whatever recipe {recipe.name} allows",
        )
    notch_hz = _choose_notch(native_mv, rate_hz, recipe, mains_hz)
    # Two resamplings may each round up: one sample too many for the strip.
    filtered_mv = resample_and_filter(native_mv, rate_hz, ratio, recipe, notch_hz)[:, : recipe.strip_samples]
    samples, n_clip_stored = _to_steps(filtered_mv, recipe)
    valid_stop = filtered_mv.shape[1]
    p99_mv = _amplitude(filtered_mv, samples[:, :valid_stop], recipe)
    stages = Stages(native_mv, filtered_mv, rate_hz, start, n_interp, n_clip_stored, notch_hz, p99_mv)
    judge = Quality.measure if with_quality else Quality.unmeasured
    statistics = _statistics(lead_mv, rate_hz, recipe) if recipe.record_statistics else None
    return Strip(samples, 0, valid_stop, judge(stages, recording, recipe), statistics)


def _check_unit(recording: Recording, recipe: Recipe) -> None:
    # Also voltages where none are expected: a store has one unit. A cohort of mV may say `unit: none` of itself.
    if recording.unit == recipe.unit:
        return
    raise RejectedRecording(
        Reason.UNIT,
        "numbers without a unit" if recording.unit == "none" else "voltages",
        f"{'voltages' if recipe.unit == 'mV' else 'numbers without a unit'}, which recipe {recipe.name} takes",
        "Take a recipe whose last step, store, says the unit of the cohort: see unit none in docs/preprocessing.md.",
    )


@lru_cache(maxsize=64)
def _rate_ratio(rate_hz: float, recipe: Recipe) -> tuple[int, int]:
    """Return (up, down), the recipe's rate over the source's in lowest terms. Raises RejectedRecording (RATE)."""
    check, first = recipe.required(CheckRate), recipe.required(Resample).rate_hz
    low, high = check.source_rate_hz
    if not low <= rate_hz <= high:
        raise RejectedRecording(Reason.RATE, f"{rate_hz:g} samples per second", f"{low:g} to {high:g}")
    ratio = Fraction(rate_hz / first).limit_denominator(check.max_denominator)
    if abs(float(ratio) * first / rate_hz - 1) > _RATE_TOLERANCE:
        raise RejectedRecording(
            Reason.RATE,
            f"{rate_hz!r} samples per second",
            f"a multiple of {first:g} by a fraction with a denominator of at most {check.max_denominator}",
            "Give the nominal rate.",
        )
    return ratio.denominator, ratio.numerator


# --- gaps and trimming --------------------------------------------------------------------------------------------


def _cut_strip(
    signal_mv: NDArray[np.float64], rate_hz: float, recipe: Recipe, whole: bool = False
) -> tuple[NDArray[np.float64], int, int]:
    """Return the strip at its own rate, the column it begins at, and how many samples of it were interpolated.

    signal_mv: (lead, time), NaN or infinite where missing. The strip lies in the first stretch of at least the recipe's
    window in which no lead has a gap too long to fill, without the columns of zeros at its ends if the recipe trims
    them (CODE pads with them). whole: return all of that stretch, as for a recipe that cuts after resampling.
    Raises RejectedRecording (EMPTY, TOO_SHORT, GAPS).
    """
    whole = whole or not recipe.cuts_first
    if np.isfinite(signal_mv.sum()) and signal_mv[:, :1].any() and signal_mv[:, -1:].any():
        filled_mv, stretches = signal_mv, [(0, signal_mv.shape[1])]  # nothing to fill or trim, as in most
    else:
        finite = np.isfinite(signal_mv)
        filled_mv, unfilled = _fill_gaps(signal_mv, finite, rate_hz, recipe)
        alive = np.asarray(filled_mv.any(axis=0))  # NaN counts, but only where a stretch cannot lie
        stretches = _stretches(~unfilled, alive, recipe.step(Trim) is not None)
    for first, stop in stretches:
        if stop - first >= recipe.window_s * rate_hz - _SLOP:
            if not whole:
                longest = int(recipe.strip_s * rate_hz + _SLOP)
                first += max(stop - first - longest, 0) // 2 if recipe.required(Cut).keep == "centre" else 0
                stop = min(stop, first + longest)
            n_interp = 0 if filled_mv is signal_mv else int((~finite[:, first:stop]).sum())
            return filled_mv[:, first:stop], first, n_interp
    raise _refusal(signal_mv, rate_hz, recipe)


def _stretches(good: NDArray[np.bool_], alive: NDArray[np.bool_], trims: bool) -> list[tuple[int, int]]:
    """Return [first, stop) of each run of good columns that is not dead, if asked without the dead columns at its ends."""
    found = []
    for start, length in zip(*quality.runs(good[None])[1:], strict=True):
        where = np.flatnonzero(alive[start : start + length])
        if len(where):
            first, last = (where[0], where[-1]) if trims else (0, length - 1)
            found.append((int(start + first), int(start + last + 1)))
    return found


def _refusal(signal_mv: NDArray[np.float64], rate_hz: float, recipe: Recipe) -> RejectedRecording:
    """Return why no stretch of a recording is long enough."""
    where = np.flatnonzero(np.where(np.isfinite(signal_mv), signal_mv, 0.0).any(axis=0))
    if not len(where):
        return RejectedRecording(Reason.EMPTY, "nothing but 0 mV or missing samples", "an ECG")
    trims = recipe.step(Trim) is not None
    extent_s = (int(where[-1] - where[0] + 1) if trims else signal_mv.shape[1]) / rate_hz
    found, expected = f"{extent_s:.3f} s{' after trimming' if trims else ''}", f"at least {recipe.window_s:g} s"
    if extent_s * rate_hz < recipe.window_s * rate_hz - _SLOP:
        return RejectedRecording(Reason.TOO_SHORT, found, expected)
    gap_ms = recipe.required(FillGaps).max_gap_s * 1000
    return RejectedRecording(Reason.GAPS, f"{found}, broken by gaps", f"{expected} without a gap over {gap_ms:g} ms")


def _statistics(lead_mv: NDArray[np.float64], rate_hz: float, recipe: Recipe) -> NDArray[np.float32]:
    """Return float32 (2, lead): mean and deviation of the whole recording, gaps filled and padding trimmed."""
    whole_mv = _cut_strip(lead_mv, rate_hz, recipe, whole=True)[0]
    first_mv = whole_mv[:, :1]
    # Without its first sample a lead that stands still has a deviation of exactly 0, which is how scaling knows it.
    rest_mv = whole_mv - first_mv
    return np.stack([first_mv[:, 0] + rest_mv.mean(axis=1), rest_mv.std(axis=1)]).astype(np.float32)


def _fill_gaps(
    signal_mv: NDArray[np.float64], finite: NDArray[np.bool_], rate_hz: float, recipe: Recipe
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the signal with short gaps linearly interpolated, and a mask of the columns that still have a gap.

    A gap at the very beginning or end of a lead has nothing to interpolate from and stays.
    """
    n = signal_mv.shape[1]
    if finite.all():
        return signal_mv, np.zeros(n, bool)
    longest = recipe.required(FillGaps).max_gap_s * rate_hz + _SLOP
    filled_mv = signal_mv.copy()
    still = ~finite
    for row, start, length in zip(*quality.runs(~finite), strict=True):
        stop = start + length
        if length > longest or start == 0 or stop == n:
            continue
        left, right = signal_mv[row, start - 1], signal_mv[row, stop]
        filled_mv[row, start:stop] = left + (right - left) * np.arange(1, length + 1) / (length + 1)
        still[row, start:stop] = False
    return filled_mv, np.asarray(still.any(axis=0))


# --- notch, amplitude and storage ---------------------------------------------------------------------------------


def _choose_notch(
    native_mv: NDArray[np.float64], source_rate_hz: float, recipe: Recipe, mains_hz: Mains
) -> float | None:
    """Return the frequency to notch, or None. Raises SpecError for a mains frequency that does not exist.

    "auto" takes the one of 50 and 60 Hz with the higher mains score, if that is at least 6 dB.
    """
    if mains_hz not in (None, "auto", *quality.MAINS_HZ):
        raise SpecError(f"found mains frequency {mains_hz!r}, expected 50, 60, 'auto' or none.")
    notch = recipe.step(Notch)
    if notch is None:
        return None
    asked: tuple[float, ...]
    if notch.hz != "mains":
        asked = (notch.hz,)
    elif mains_hz == "auto":
        asked = quality.MAINS_HZ
    else:
        asked = () if mains_hz is None else (float(mains_hz),)
    possible = [f0 for f0 in asked if source_rate_hz / f0 >= notch.min_source_rate_ratio]
    if len(asked) < 2 or not possible:
        return possible[0] if possible else None
    density = quality.power_density(native_mv, source_rate_hz)
    score_db, loudest_hz = max((float(quality.mains_score(density, f0)), f0) for f0 in possible)
    return loudest_hz if score_db >= quality.MAINS_DB else None


def _to_steps(filtered_mv: NDArray[np.float64], recipe: Recipe) -> tuple[NDArray[np.int16], int]:
    """Return int16 (lead, strip) in steps of lsb_uv, MISSING past the end, and how many samples were clipped.

    A sample is never MISSING: the range is symmetric. Raises RejectedRecording (AMPLITUDE) where the source held
    numbers too large to compute with.
    """
    steps = filtered_mv * (1000 / recipe.lsb_uv)
    np.rint(steps, out=steps)
    largest = max(steps.max(), -steps.min())
    if not np.isfinite(largest):
        raise RejectedRecording(Reason.AMPLITUDE, "numbers beyond any voltage", "millivolts", "Check gain and unit.")
    n_clipped = 0
    if largest > LARGEST:
        n_clipped = int((np.abs(steps) > LARGEST).sum())
        np.clip(steps, -LARGEST, LARGEST, out=steps)
    samples = np.full((len(steps), recipe.strip_samples), MISSING, np.int16)
    samples[:, : steps.shape[1]] = steps
    return samples, n_clipped


def _p99(filtered: NDArray) -> NDArray:
    """Return the 99th percentile of |x| of each lead of (lead, time), in the unit given."""
    absolute = np.abs(filtered)
    n = absolute.shape[1]
    above = n - int(0.99 * (n - 1))  # the percentile is the least of so many largest samples
    # Of 2 * above maxima of disjoint parts of a lead, `above` samples reach the upper half: the percentile is no less than
    # the least of that half. Some hundred samples are, and sorting these takes a third of the time that numpy takes to
    # partition all 4,000.
    parts = min(2 * above, n)
    maxima = np.sort(absolute[:, : n // parts * parts].reshape(len(absolute), -1, parts).max(axis=1), axis=1)
    candidates = np.flatnonzero(absolute >= maxima[:, -above, None])
    values = absolute.reshape(-1)[candidates]
    edges = np.searchsorted(candidates, n * np.arange(len(absolute) + 1)).tolist()
    return np.array([np.sort(values[start:stop])[-above] for start, stop in pairwise(edges)], absolute.dtype)


def _amplitude(filtered_mv: NDArray[np.float64], stored: NDArray[np.int16], recipe: Recipe) -> float:
    """Return the amplitude of a strip in mV; refuse it if the recipe says so."""
    check = recipe.step(CheckAmplitude) or CheckAmplitude()
    if check.above_hz is None:
        p99_mv = _p99_of_all(stored, recipe) * (recipe.lsb_uv / 1000)
    else:
        # The high-pass at 0.5 Hz with which the limits were measured, order 2 and zero phase.
        sections = signal.butter(2, check.above_hz, "highpass", fs=recipe.rate_hz, output="sos")
        padding = min(round(2 * recipe.rate_hz), filtered_mv.shape[1] - 1)  # 4 s make no difference
        above_mv = signal.sosfiltfilt(sections, filtered_mv, axis=1, padtype="even", padlen=padding)
        p99_mv = _p99_of_all(above_mv, recipe)
    return _check_amplitude(p99_mv, recipe)


def _p99_of_all(strip: NDArray[Any], recipe: Recipe) -> NDArray:
    """Return _p99 of the leads of a strip and of those that follow from I and II, where these two are among them."""
    derived = [place for place, lead in enumerate(LIMB_LEADS[2:]) if lead not in recipe.leads]
    if not {"I", "II"} <= set(recipe.leads) or not derived:  # a few leads, or all, for weights that need these
        return _p99(strip)
    i_and_ii = strip[[recipe.leads.index(lead) for lead in ("I", "II")]].astype(np.float32)
    return np.concatenate([_p99(strip), _p99(_DERIVED[derived] @ i_and_ii)])


def _check_amplitude(p99_mv: NDArray[np.floating], recipe: Recipe) -> float:
    """Return the median over leads of their 99th percentile in mV. Refuse it, if the recipe checks, unless an ECG has it.

    p99_mv: (lead,), without offset and slow drift. For a strip: of the twelve standard leads, as the limits were measured
    on them; the eight independent ones alone lie up to 60 % higher.
    Raises RejectedRecording (AMPLITUDE), never rescales. It finds microvolts or volts mistaken for millivolts, and
    saturated recordings; a gain wrong by a factor of five stays inside the limits.
    """
    amplitude_mv = float(quality.median(p99_mv))
    check = recipe.step(CheckAmplitude)
    largest = LARGEST * recipe.lsb_uv / 1000
    if recipe.unit == "none" and not _LEAST_STEPS * recipe.lsb_uv / 1000 <= amplitude_mv < largest:
        raise RejectedRecording(
            Reason.AMPLITUDE,
            f"an amplitude of {amplitude_mv:.3g}",
            f"{_LEAST_STEPS * recipe.lsb_uv / 1000:g} to {largest:g}, which steps of {recipe.lsb_uv / 1000:g} in 16 bits can hold",
            "Divide the numbers: steps_per_unit in the description of arrays.",
        )
    if check is not None and not check.amplitude_mv[0] <= amplitude_mv <= check.amplitude_mv[1]:
        low, high = check.amplitude_mv
        raise RejectedRecording(
            Reason.AMPLITUDE,
            f"an amplitude of {amplitude_mv:.3g} mV",
            f"{low:g} to {high:g} mV",
            "Check gain and unit.",
        )
    return amplitude_mv
