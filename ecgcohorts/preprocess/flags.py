"""What is kept about the quality of a strip: flags and columns. Apart from their making, which loads SciPy."""

from collections.abc import Mapping
from enum import IntFlag
from types import MappingProxyType

import numpy as np


class Flag(IntFlag):
    """Bits of the `quality` column of an index (uint32). A bit keeps its meaning for ever; new flags take new bits."""

    INTERPOLATED = 1 << 0  # a gap of at most 40 ms was filled
    CLIPPED = 1 << 1  # the source stood at its extreme for SATURATED_S without a break
    CLIPPED_IN_STORE = 1 << 2  # more than 32.767 mV after filtering: cut to fit int16 at 1 uV
    FLAT_LEAD = 1 << 3  # a lead stood still for over a second
    MAINS_50 = 1 << 4  # hum before the notch: score of at least 6 dB
    MAINS_60 = 1 << 5
    EINTHOVEN = 1 << 6  # a stored limb lead is not what I and II say
    LEAD_I_INVERTED = 1 << 7  # looks like swapped arm electrodes: a hint, never corrected
    PACED = 1 << 8  # the file says that pacemaker spikes were seen
    LOW_RATE = 1 << 9  # a 100 Hz source holds nothing above 50 Hz
    EDGE_SLACK = 1 << 10  # the centre window comes nearer than 1.5 s to an end: filter edge above 5 uV
    # Both say that the numbers may be no millivolts, whatever the file states.
    EQUAL_SPANS = 1 << 11  # all leads span the same, or reach the same height; or the recording spans 0 to 1 or -1 to 1
    UNIT_VARIANCE = 1 << 12  # all leads have one deviation, or the recording has mean 0 and deviation 1: z-scores


QUALITY_COLUMNS: Mapping[str, np.dtype] = MappingProxyType(
    {
        "n_interp": np.dtype(np.int32),  # lead-samples filled, at the source rate
        "n_clip": np.dtype(np.int32),  # lead-samples in runs of >= 3 equal values at a lead's own extreme
        "n_clip_stored": np.dtype(np.int32),  # lead-samples cut to fit int16
        "flat_fraction": np.dtype(np.float32),  # share of the strip that stands still for > 1 s; worst lead
        "max_abs_mv": np.dtype(np.float32),  # of the filtered strip
        "p99_mv": np.dtype(np.float32),  # median over the twelve leads of the 99th percentile of |x|, filtered
        "baseline_power_mv2": np.dtype(np.float32),  # below 0.5 Hz without the mean, unfiltered; median over leads
        "hf_power_mv2": np.dtype(np.float32),  # above 40 Hz, unfiltered; median over leads
        "mains_50_before_db": np.dtype(np.float32),  # mains score before the filters
        "mains_60_before_db": np.dtype(np.float32),
        "mains_50_after_db": np.dtype(np.float32),  # and after them
        "mains_60_after_db": np.dtype(np.float32),
        "notch_hz": np.dtype(np.float32),  # what was notched; NaN if nothing was
        "einthoven_rms_mv": np.dtype(np.float32),  # worst of III, aVR, aVL, aVF as stored against I and II
        "bandlimit_hz": np.dtype(np.float32),  # nothing above: half the source rate or the recipe's upper edge
        "edge_slack_s": np.dtype(np.float32),  # from the centre window to either end of the strip
    }
)
