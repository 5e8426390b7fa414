"""Measure the quality of one strip. Nothing here changes a signal.

A flag tells a person to look; no recording is refused for one. A measure that does not apply is NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from scipy import fft, signal

from ecgcohorts import leads
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS, Flag
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.recording import Recording

MAINS_HZ = (50.0, 60.0)
MAINS_DB = 6.0  # about 3 uV of hum; a clean ECG scores up to 2 dB
SATURATED_S = 0.020  # our default: rounded peaks repeat their top value for up to 16 ms in PTB-XL, CODE and G12EC
FLAT_UV = 1.0
FLAT_S = 1.0
_GLANCES = 50  # at most one of two samples, at the slowest rate
EINTHOVEN_MV = 0.05  # our default: ten steps of a 5 uV recorder
SAFE_SLACK_S = 1.5  # nearer to a record end than this the filter edge exceeds 5 uV
SEGMENT_S = 2.0  # Welch
_LOWEST_HZ, _HIGH_HZ = 0.5, 40.0
_HIGHEST_HZ = 200.0  # half the rate of cape-v1: measures of the source must not depend on the recipe
_SLOW_HZ = 100.0  # a source at this rate or below carries nothing above half of it
_RATE_RATIO = 2.2  # no mains score where there are fewer samples in a period of the mains
_SIDE_HZ = 5.0  # what surrounds the mains frequency reaches so far
# How exactly scaled leads agree, relative to the largest: headers that scale by whole steps per mV err by 0.3 %. Of 1,560
# real recordings of three leads or more, the nearest to equal spans, heights or deviations differs by 37 %.
_ALIKE = 0.01
# How exactly a whole recording keeps 0, 1 and -1 as extremes, or as mean and deviation; the nearest real one errs by 0.01.
_EXACT = 1e-3
_SILENCE = 1e-12  # mV^2/Hz, a thousandth of the noise of 1 uV steps; keeps logarithms finite


# (limb lead, 2): each as a sum of I and II; the weights are halves and wholes, exact in any precision.
FROM_I_AND_II = leads.select(np.eye(2), ("I", "II"), leads.LIMB_LEADS)


@dataclass(frozen=True, eq=False)
class Stages:
    """One strip before and after resampling and filters. Arrays are (lead, time) in mV, leads in recipe order."""

    native_mv: NDArray[np.float64]  # gaps filled, cut, at the source rate
    filtered_mv: NDArray[np.float64]
    rate_hz: float  # of native_mv
    start: int  # column of the recording at which native_mv begins
    n_interp: int
    n_clip_stored: int
    notch_hz: float | None
    p99_mv: float


@dataclass(frozen=True)
class Quality:
    """The quality of one strip: bits of `Flag`, and one number for each name in `QUALITY_COLUMNS`."""

    flags: int
    columns: Mapping[str, float]

    @classmethod
    def measure(cls, stages: Stages, recording: Recording, recipe: Recipe) -> Self:
        """Return all flags and columns of a strip. Costs about as much as the filters do."""
        native_mv, filtered_mv = stages.native_mv.astype(np.float32), stages.filtered_mv.astype(np.float32)
        n_clip, longest_clip = _clipping(native_mv)
        before = power_density(native_mv, stages.rate_hz, _HIGHEST_HZ)
        after = power_density(filtered_mv, recipe.rate_hz, MAINS_HZ[-1] + _SIDE_HZ)
        columns = _counted(stages, recipe) | {
            "n_clip": n_clip,
            "flat_fraction": _flat_fraction(native_mv, stages.rate_hz),
            "max_abs_mv": float(max(filtered_mv.max(), -filtered_mv.min())),
            "baseline_power_mv2": _baseline_power(native_mv, stages.rate_hz),
            "hf_power_mv2": float(median(before[:, round(_HIGH_HZ * SEGMENT_S) + 1 :].sum(axis=1)) / SEGMENT_S),
            "einthoven_rms_mv": _einthoven_rms(stages, recording, recipe),
        }
        shared = min(before.shape[1], after.shape[1])
        both = np.stack([before[:, :shared], after[:, :shared]])
        for mains_hz in MAINS_HZ:
            # A recipe of 100 Hz has no 50 Hz to measure after the filters.
            if min(stages.rate_hz, recipe.rate_hz) / mains_hz >= _RATE_RATIO:
                before_db, after_db = mains_score(both, mains_hz)
                columns[f"mains_{mains_hz:.0f}_before_db"] = float(before_db)
                columns[f"mains_{mains_hz:.0f}_after_db"] = float(after_db)
            elif stages.rate_hz / mains_hz >= _RATE_RATIO:
                columns[f"mains_{mains_hz:.0f}_before_db"] = float(mains_score(before, mains_hz))
        columns = _in_its_unit(columns, recipe)
        flags = _known_flags(columns, recording, stages.rate_hz, recipe)
        if longest_clip >= SATURATED_S * stages.rate_hz:
            flags |= Flag.CLIPPED
        if recipe.unit == "mV":  # leads scaled one by one keep no axis, and that they are scaled is no news
            if _lead_i_inverted(stages.filtered_mv, recipe):
                flags |= Flag.LEAD_I_INVERTED
            flags |= _scaling(recording)
        return cls(int(flags), columns)

    @classmethod
    def unmeasured(cls, stages: Stages, recording: Recording, recipe: Recipe) -> Self:
        """Return what the chain counted on its way; every other column is NaN, or 0 for counts."""
        columns = _in_its_unit(_counted(stages, recipe), recipe)
        return cls(int(_known_flags(columns, recording, stages.rate_hz, recipe)), columns)


def _in_its_unit(columns: dict[str, float], recipe: Recipe) -> dict[str, float]:
    """Return the columns, those in mV as NaN where the numbers have no unit."""
    if recipe.unit == "mV":
        return columns
    return {name: np.nan if name.endswith(("_mv", "_mv2")) else value for name, value in columns.items()}


def _counted(stages: Stages, recipe: Recipe) -> dict[str, float]:
    """Return all columns in their fixed order, filled where the recipe has counted on its way, else NaN or 0."""
    columns: dict[str, float] = {name: 0 if dtype.kind == "i" else np.nan for name, dtype in QUALITY_COLUMNS.items()}
    slack_s = (stages.filtered_mv.shape[1] - recipe.window_samples) / 2 / recipe.rate_hz
    return columns | {
        "n_interp": stages.n_interp,
        "n_clip_stored": stages.n_clip_stored,
        "p99_mv": stages.p99_mv,
        "notch_hz": np.nan if stages.notch_hz is None else stages.notch_hz,
        "bandlimit_hz": min(stages.rate_hz / 2, recipe.rate_hz / 2 if recipe.band_hz is None else recipe.band_hz[1]),
        "edge_slack_s": slack_s,
    }


def _known_flags(columns: Mapping[str, float], recording: Recording, rate_hz: float, recipe: Recipe) -> Flag:
    """Return the flags that follow from the columns, the rate and the notes. NaN sets no flag."""
    tests = {
        Flag.INTERPOLATED: columns["n_interp"] > 0,
        Flag.CLIPPED_IN_STORE: columns["n_clip_stored"] > 0,
        Flag.FLAT_LEAD: columns["flat_fraction"] > 0,
        Flag.MAINS_50: columns["mains_50_before_db"] >= MAINS_DB,
        Flag.MAINS_60: columns["mains_60_before_db"] >= MAINS_DB,
        Flag.EINTHOVEN: columns["einthoven_rms_mv"] > EINTHOVEN_MV,
        # Readers note pacing in words of their own that begin so; no header text is kept.
        Flag.PACED: any(note.startswith("pace") for note in recording.notes),
        Flag.LOW_RATE: rate_hz <= _SLOW_HZ,
        # Without a high-pass there is no filter edge to come near to.
        Flag.EDGE_SLACK: recipe.band_hz is not None and columns["edge_slack_s"] < SAFE_SLACK_S,
    }
    flags = Flag(0)
    for flag, is_set in tests.items():
        if is_set:
            flags |= flag
    return flags


# --- spectra ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _hann(n: int) -> NDArray[np.float32]:
    return signal.windows.hann(n, sym=False).astype(np.float32)


def power_density(signal_mv: NDArray[np.floating], rate_hz: float, top_hz: float = np.inf) -> NDArray[np.float32]:
    """Return Welch's one-sided power density (lead, frequency) in mV^2/Hz, up to top_hz; bins lie 0.5 Hz apart.

    Hann segments of 2 s, half overlapping. From 1 Hz up equal to `scipy.signal.welch`, in single precision; below,
    the mean leaks in, because nothing here looks there.
    """
    n = round(SEGMENT_S * rate_hz)
    window = _hann(n)
    frames = _segments(np.asarray(signal_mv, np.float32), n)
    bins = int(min(top_hz, rate_hz / 2) * SEGMENT_S) + 1
    parts = fft.rfft(frames * window)[..., :bins].view(np.float32)  # real and imaginary in turn
    squares = np.einsum("lsp,lsp->lp", parts, parts)
    return (squares[:, ::2] + squares[:, 1::2]) * (2 / (rate_hz * frames.shape[1] * np.square(window).sum()))


def _segments(signal_mv: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Return (lead, segment, n): as many as fit, each begun halfway through the one before."""
    step = n // 2
    shape = len(signal_mv), (signal_mv.shape[1] - n) // step + 1, n
    lead_bytes, sample_bytes = signal_mv.strides
    # `sliding_window_view` checks and slices for 10 us, a tenth of the transforms.
    return as_strided(signal_mv, shape, (lead_bytes, step * sample_bytes, sample_bytes), writeable=False)


def mains_score(density: NDArray[np.float32], mains_hz: float) -> NDArray[np.floating]:
    """Return in dB how far the peak at the mains frequency stands above what surrounds it; median over leads.

    density: (..., lead, frequency) from `power_density`; the result has the leading axes. Peak within 0.75 Hz, against
    the median of 1.5-5 Hz to both sides. A lead of zeros scores 0.
    """
    # The peak, not the mean of the band: it gives the scores measured earlier (5.4 dB for PTB s0010_re).
    first = round((mains_hz - _SIDE_HZ) * SEGMENT_S)
    near = density[..., first : first + round(2 * _SIDE_HZ * SEGMENT_S) + 1].astype(np.float64) + _SILENCE
    distance_hz = np.abs(np.arange(near.shape[-1]) / SEGMENT_S - _SIDE_HZ)
    peak = near[..., distance_hz <= 0.75].max(axis=-1)
    around = median(near[..., distance_hz >= 1.5])
    return np.asarray(10 * median(np.log10(peak / around)))


def median(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the median along the last axis; `np.median` takes four times as long over a few values."""
    ordered = np.sort(values, axis=-1)
    n = values.shape[-1]
    return np.asarray((ordered[..., n // 2] + ordered[..., (n - 1) // 2]) / 2)


@lru_cache(maxsize=64)
def _slow_waves(n: int, rate_hz: float) -> NDArray[np.float32]:
    """Return cosines, then sines, (wave, time), of the frequencies in (0, 0.5) Hz that fit n samples."""
    phase = 2 * np.pi * np.outer(np.arange(1, int(np.ceil(_LOWEST_HZ * n / rate_hz))), np.arange(n)) / n
    return np.concatenate([np.cos(phase), np.sin(phase)]).astype(np.float32)


def _baseline_power(signal_mv: NDArray[np.floating], rate_hz: float) -> float:
    """Return the power below 0.5 Hz, mean excluded, in mV^2: the median over leads of (lead, time)."""
    n = signal_mv.shape[1]
    amplitudes = signal_mv @ _slow_waves(n, rate_hz).T / n
    return float(median(2 * np.square(amplitudes).sum(axis=1)))


# --- the source ---------------------------------------------------------------------------------------------------


def runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return (row, start, length) of every run of True along the last axis of a (row, time) array."""
    n = mask.shape[1]
    where = np.flatnonzero(mask)
    if not len(where):
        return where, where, where
    begins = np.ones(len(where), bool)  # also where a run reaches over the end of a row
    begins[1:] = (np.diff(where) != 1) | (where[1:] % n == 0)
    first = np.flatnonzero(begins)
    length = np.diff(first, append=len(where))
    return where[first] // n, where[first] % n, length


def _clipping(native_mv: NDArray[np.floating]) -> tuple[int, int]:
    """Return how many samples lie in runs of >= 3 equal values at a lead's extreme, and the longest such run.

    A lead that never moves is flat, not clipped.
    """
    low, high = native_mv.min(axis=1, keepdims=True), native_mv.max(axis=1, keepdims=True)
    at_extreme = (native_mv == low) | (native_mv == high)
    where = np.flatnonzero(at_extreme)
    if not (where[2:] - where[:-2] == 2).any():  # no three side by side, as in most
        return 0, 0
    at_extreme &= low < high
    length = runs(at_extreme)[2]
    length = length[length >= 3]
    return int(length.sum()), int(length.max(initial=0))


def _flat_fraction(native_mv: NDArray[np.floating], rate_hz: float) -> float:
    """Return the share of samples in stretches of more than 1 s without a step of 1 uV; the worst lead counts."""
    # Most strips are spared the search: a stretch that long fills one of these blocks, seen at a few places only.
    every = int(FLAT_S * rate_hz / _GLANCES)
    block = _GLANCES // 2 * every
    blocks = native_mv[:, : native_mv.shape[1] // block * block].reshape(len(native_mv), -1, _GLANCES // 2, every)
    if not _is_still(blocks[..., 1] - blocks[..., 0]).all(axis=2).any():
        return 0.0
    row, _, length = runs(_is_still(np.diff(native_mv, axis=1)))
    long = length > FLAT_S * rate_hz
    samples = np.bincount(row[long], weights=length[long] + 1, minlength=len(native_mv))
    return float(samples.max() / native_mv.shape[1])


def _is_still(step_mv: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.abs(step_mv) < FLAT_UV / 1000


def _einthoven_rms(stages: Stages, recording: Recording, recipe: Recipe) -> float:
    """Return how far III, aVR, aVL and aVF as stored lie from I and II, as rms in mV; the worst lead counts.

    NaN unless the file holds I, II and one of them: a residual of derived leads would say nothing.
    """
    have = leads.positions(recording.leads)
    stored = [lead for lead in leads.LIMB_LEADS[2:] if lead in have]
    if not stored or "I" not in have or "II" not in have or not {"I", "II"} <= set(recipe.leads):
        return np.nan
    every = 4  # samples; plenty for an rms
    limbs_mv = stages.native_mv[[recipe.leads.index("I"), recipe.leads.index("II")], ::every]
    columns = slice(stages.start, stages.start + stages.native_mv.shape[1], every)
    residual = FROM_I_AND_II[[leads.LIMB_LEADS.index(lead) for lead in stored]] @ limbs_mv
    residual -= recording.in_mv([have[lead] for lead in stored], columns)
    known = np.isfinite(residual)
    residual[~known] = 0
    return float(np.sqrt((np.square(residual).sum(axis=1) / np.maximum(known.sum(axis=1), 1)).max()))


def _scaling(recording: Recording) -> Flag:
    """Return the flags of a recording whose twelve leads look scaled, each by itself or all together.

    The whole recording counts, not the strip: scaling is seen only over the samples by which it was done.
    """
    found = list(leads.positions(recording.leads).values())
    rows = slice(None) if len(found) == len(recording.leads) else found  # a slice copies nothing
    gain = recording.gain_per_mv
    if gain is not None and recording.missing is None and (gain[rows] > 0).all():
        assert recording.digital is not None
        assert recording.baseline is not None
        # Sums of steps are divided by the gain, not each of 60,000 samples.
        signal, gain, baseline = recording.digital[rows].astype(np.float64), gain[rows], recording.baseline[rows, None]
        if baseline.any():
            signal -= baseline
    else:
        signal, gain = recording.in_mv(rows), np.ones(1)
    count = np.full(len(signal), signal.shape[1])
    # Most have no gap, and no padding, which would count in a deviation; masks take twice the time of all the rest.
    total = signal.sum(axis=1)
    if not np.isfinite(total.sum()) or not (signal[:, :1].any() and signal[:, -1:].any()):
        there = np.isfinite(signal)
        signal = np.where(there, signal, 0.0)
        alive = np.flatnonzero(signal.any(axis=0))
        if not len(alive):
            return Flag(0)
        inside = slice(alive[0], alive[-1] + 1)
        signal, count = signal[:, inside], np.maximum(there[:, inside].sum(axis=1), 1)
        total = signal.sum(axis=1)
    low, high = signal.min(axis=1) / gain, signal.max(axis=1) / gain
    total, power = total / gain, np.vecdot(signal, signal) / gain**2
    moves = high > low
    deviation = np.sqrt(np.maximum(power / count - np.square(total / count), 0))
    flags = Flag(0)
    if _is_alike((high - low)[moves]) or _is_alike(np.maximum(high, -low)[moves]):
        flags |= Flag.EQUAL_SPANS
    if _is_alike(deviation[moves]):
        flags |= Flag.UNIT_VARIANCE
    foot, samples = low.min(), count.sum()
    if abs(high.max() - 1) < _EXACT and min(abs(foot), abs(foot + 1)) < _EXACT:
        flags |= Flag.EQUAL_SPANS
    if abs(total.sum() / samples) < _EXACT and abs(np.sqrt(power.sum() / samples) - 1) < _EXACT:
        flags |= Flag.UNIT_VARIANCE
    return flags


def _is_alike(values: NDArray[np.float64]) -> bool:
    """Say whether three numbers or more are the same but for rounding. Fewer are alike by chance."""
    return len(values) >= 3 and bool(values.max() - values.min() <= _ALIKE * values.max())


# --- shape --------------------------------------------------------------------------------------------------------

# Where the waves lie around the QRS, in s. Our default: wide enough for 50-110 beats per minute.
_P, _BEFORE_QRS, _QRS, _T = (-0.24, -0.10), (-0.10, -0.06), (-0.06, 0.06), (0.12, 0.42)
_SMALLEST_MV = (0.02, 0.10, 0.02)  # P, QRS, T: below this a wave has no sign. Our default.


def _lead_i_inverted(filtered_mv: NDArray[np.float64], recipe: Recipe) -> bool:
    """Return whether P, QRS and T are all negative in lead I and the QRS is positive in aVR, in the median beat.

    That is what swapped arm electrodes look like, and dextrocardia: a hint for a person. docs/preprocessing.md
    says how many swaps it finds.
    """
    if not {"I", "II"} <= set(recipe.leads):
        return False
    if recipe.band_hz is None or recipe.band_hz[0] < _LOWEST_HZ:  # the offset that a high-pass would have taken
        filtered_mv = filtered_mv - np.median(filtered_mv, axis=1, keepdims=True)
    lead_i = filtered_mv[recipe.leads.index("I")]
    if lead_i.max() >= -lead_i.min():  # the highest point is above: no inverted QRS, and no beats to look for
        return False
    beats = _find_beats(filtered_mv, recipe.rate_hz)
    first, last = round(_P[0] * recipe.rate_hz), round(_T[1] * recipe.rate_hz)
    beats = beats[(beats + first >= 0) & (beats + last < filtered_mv.shape[1])]
    if len(beats) < 3:
        return False
    around = beats[:, None] + np.arange(first, last)

    def waves(lead_mv: NDArray[np.float64]) -> list[float]:
        """Largest deflection of P, QRS and T, with its sign, from the level just before the QRS."""
        beat = np.median(lead_mv[around], axis=0)
        zero, *parts = (
            beat[round(start_s * recipe.rate_hz) - first : round(stop_s * recipe.rate_hz) - first]
            for start_s, stop_s in (_BEFORE_QRS, _P, _QRS, _T)
        )
        deflections = [part - np.median(zero) for part in parts]
        return [float(part[np.abs(part).argmax()]) for part in deflections]

    lead_avr = -(lead_i + filtered_mv[recipe.leads.index("II")]) / 2
    negative = all(wave <= -least for wave, least in zip(waves(lead_i), _SMALLEST_MV, strict=True))
    return negative and waves(lead_avr)[1] >= _SMALLEST_MV[1]


def _find_beats(filtered_mv: NDArray[np.float64], rate_hz: float) -> NDArray[np.intp]:
    """Return the sample of each QRS of a (lead, time) strip: peaks of the summed slope of all leads.

    Good enough to average beats; not a detector for rhythm analysis.
    """
    every = 2  # samples; a QRS is slow enough
    rate_hz /= every
    slope = np.abs(np.diff(filtered_mv[:, ::every], axis=1)).sum(axis=0)
    width = round(0.08 * rate_hz)
    smooth = np.convolve(slope, np.ones(width) / width, mode="same")
    height = 0.5 * np.partition(smooth, -width)[-width]  # half of what the steepest 80 ms exceed
    return every * signal.find_peaks(smooth, height=height, distance=round(0.25 * rate_hz))[0]
