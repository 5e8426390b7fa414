"""What is written for speed gives, to the last bit, what the plain form gives that stands here."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS
from ecgcohorts.preprocess import quality
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.preprocess.strip import _p99
from ecgcohorts.recording import Recording


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64])
def test_the_percentile_is_that_of_all_samples_in_order(kind):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 50, 99, 100, 101, 401, 2800, *rng.integers(1, 5000, 100).tolist()):
        scale = rng.choice([0.4, 30.0, 9000.0])  # many ties, or none
        strip = np.clip(rng.standard_t(2, (rng.integers(1, 13), n)) * scale, -32767, 32767).astype(kind)
        ordered = np.sort(np.abs(strip), axis=1)
        found = _p99(strip)
        assert found.dtype == kind
        np.testing.assert_array_equal(found, ordered[:, int(0.99 * (n - 1))])


def clipping(signal_mv: np.ndarray) -> tuple[int, int]:
    lengths = []
    for lead in signal_mv:
        low, high, length = lead.min(), lead.max(), 0
        for value in [*lead.tolist(), None]:
            if value is not None and low < high and value in (low, high):
                length += 1
            else:
                lengths.append(length)
                length = 0
    long = [length for length in lengths if length >= 3]
    return sum(long), max(long, default=0)


def test_clipping_is_what_counting_one_by_one_finds():
    rng = np.random.default_rng(0)
    seen = set()
    for steps in (2, 3, 5, 9, 40, 1000):
        for n in (3, 4, 5, 60, 61, 62):
            signal_mv = rng.integers(0, steps, (4, n)).astype(np.float32)
            signal_mv[0] = 7
            seen.add(quality._clipping(signal_mv)[0] > 0)
            assert quality._clipping(signal_mv) == clipping(signal_mv)
    assert seen == {True, False}


def test_a_clipped_run_at_either_end_of_a_lead_counts_and_one_across_two_leads_does_not():
    signal_mv = np.arange(40.0).reshape(2, 20)
    signal_mv[0, -3:] = 50
    signal_mv[1, :3] = 0
    assert quality._clipping(signal_mv) == (6, 3) == clipping(signal_mv)
    across = np.array([[1.0, 2, 3, 9, 9], [9, 9, 3, 2, 1]])
    assert quality._clipping(across) == (0, 0)


@pytest.mark.parametrize(("n", "length"), [(800, 4000), (1000, 5000), (1000, 5499), (515, 2570), (200, 200)])
def test_segments_of_welch_are_the_windows_that_begin_half_a_segment_apart(n, length):
    signal_mv = np.random.default_rng(0).normal(size=(3, length)).astype(np.float32)
    np.testing.assert_array_equal(
        quality._segments(signal_mv, n), sliding_window_view(signal_mv, n, axis=1)[:, :: n // 2]
    )


def recorded(names: tuple[str, ...], gain: float = 200.0, baseline: float = 0.0) -> Recording:
    rng = np.random.default_rng(0)
    digital = rng.integers(-900, 900, (len(names), 500)).astype(np.int32)
    gains, baselines = np.full(len(names), gain), np.full(len(names), baseline)
    return Recording("r", names, 500.0, digital, gains, baselines)


ORDERS = {
    "as the standard has them": TWELVE_LEADS,
    "backward": TWELVE_LEADS[::-1],
    "others between": ("Resp", "I", "ABP", "II", *TWELVE_LEADS[4:8], "PLETH", *TWELVE_LEADS[8:]),
    "the eight alone": EIGHT_LEADS,
}


@pytest.mark.parametrize("names", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("baseline", [0.0, 12.0])
def test_chosen_leads_and_the_digest_are_those_of_the_integers_copied_out(names, baseline):
    recording = recorded(names, baseline=baseline)
    rows = [names.index(lead) for lead in EIGHT_LEADS]
    integers = recording.digital[rows]
    np.testing.assert_array_equal(recording.leads_mv(), (integers - baseline) / 200.0)
    np.testing.assert_array_equal(recording.in_mv(rows[3:], slice(7, None, 4)), (integers[3:, 7::4] - baseline) / 200.0)
    np.testing.assert_array_equal(recording.in_mv(slice(1, 4)), (recording.digital[1:4] - baseline) / 200.0)
    assert recording.waveform_digest == hashlib.sha256(integers.astype("<i4").tobytes()).digest()[:16]


@pytest.mark.parametrize("gain", [200.0, -200.0, 0.004])
@pytest.mark.parametrize("baseline", [0.0, 30.0])
@pytest.mark.parametrize("change", [None, "spans", "deviations"])
def test_flags_of_scaling_are_the_same_from_steps_and_from_millivolts(gain, baseline, change):
    recording = recorded(TWELVE_LEADS, gain, baseline)
    steps = recording.digital * np.linspace(1, 9, 12)[:, None]
    if change is not None:
        steps = steps - steps.mean(axis=1, keepdims=True)
        steps /= np.ptp(steps, axis=1, keepdims=True) if change == "spans" else steps.std(axis=1, keepdims=True)
        steps *= 20_000
    recording = replace(recording, digital=np.rint(steps).astype(np.int32))
    in_mv = Recording("r", TWELVE_LEADS, 500.0, analog_mv=recording.signal_mv)
    expected = {None: Flag(0), "spans": Flag.EQUAL_SPANS, "deviations": Flag.UNIT_VARIANCE}[change]
    assert quality._scaling(recording) & expected == expected
    assert quality._scaling(recording) == quality._scaling(in_mv)
