"""Recipe `cape-v1` on signals known at every instant: each step, each limit, each refusal."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from ecgcohorts.errors import Reason, RejectedRecording, SpecError
from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.preprocess.filter import _design_filters, _strip_filter, resample_and_filter
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import BandPass
from ecgcohorts.preprocess.strip import _rate_ratio, make_strip
from ecgcohorts.recording import MISSING, Recording

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "cape-v1.npy"
CENTRE = slice(600, 3400)  # the 7 s in the middle of 10 s at 400 Hz


def filtered(
    signal_mv: np.ndarray, rate_hz: float, source_rate_hz: float | None = None, notch_hz: float | None = None
) -> np.ndarray:
    """A signal at rate_hz, resampled and filtered as one from a source at source_rate_hz."""
    ratio = _rate_ratio(rate_hz, CAPE_V1)
    return resample_and_filter(signal_mv, source_rate_hz or rate_hz, ratio, CAPE_V1, notch_hz)


def refusal(recording: Recording) -> Reason:
    with pytest.raises(RejectedRecording) as caught:
        make_strip(recording)
    return caught.value.reason


# --- the whole chain ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [100.0, 240.0, 250.0, 257.0, 360.0, 400.0, 500.0, 977.0, 1000.0, 8000.0])
@pytest.mark.parametrize("mains_hz", [None, 50, 60])
def test_the_strip_is_the_scipy_reference_rounded_to_microvolts(made, rate_hz, mains_hz):
    eight_mv = made.at(rate_hz, seed=1)
    strip = make_strip(made.record(eight_mv, rate_hz), CAPE_V1, mains_hz)
    expected = made.reference_mv(eight_mv, rate_hz, mains_hz)
    assert (strip.valid_start, strip.valid_stop) == (0, 4000)
    np.testing.assert_allclose(strip.samples, expected * 1000, rtol=0, atol=1.0)  # uV, the ends included


@pytest.mark.parametrize("seconds", [7.0, 7.335, 9.9, 10.0])
@pytest.mark.parametrize("notch_hz", [None, 50.0])
def test_the_circle_of_the_fourier_transform_leaves_no_trace(made, seconds, notch_hz):
    """Without resampling, both ways to compute the filters agree to a thousandth of a microvolt, ends included."""
    x = made.at(400, seconds, seed=2) + 5
    x[3] += np.linspace(-1, 4, x.shape[1])  # far from periodic
    x[5, :40] += 2  # and something at either end
    x[6, -3:] -= 2
    expected = made.reference_mv(x, 400.0, notch_hz)
    np.testing.assert_allclose(filtered(x, 400.0, notch_hz=notch_hz), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [100.0, 257.0, 500.0, 1000.0])
@pytest.mark.parametrize("seconds", [7.0, 10.0])
def test_the_ends_are_those_of_scipy_at_any_rate(made, rate_hz, seconds):
    x = made.at(rate_hz, seconds, seed=2)
    x[3] += np.linspace(-1, 4, x.shape[1])
    x[5, :10] += 0.5
    x[6, -3:] -= 0.5
    error_uv = 1000 * np.abs(
        filtered(x, rate_hz, notch_hz=50.0 if rate_hz > 110 else None) - made.reference_mv(x, rate_hz, 50)
    )
    assert error_uv.max() <= 2.5  # ripple of the resampling filter, which SciPy folds back


@pytest.mark.parametrize("rate_hz", [100.0, 257.0, 360.0, 500.0, 1000.0])
def test_offsets_drift_steps_and_pacing_spikes_leave_it_within_the_budget_of_scipy(made, rate_hz):
    """The offset is taken off for SciPy, whose resampling filter turns 0.04 % of it into ripple."""
    x = made.at(rate_hz, 7.3, seed=2)
    n = x.shape[1]
    x[0] += np.linspace(0, 5, n)
    x[1, n // 2 :] += 3
    x[2, 20 :: round(0.8 * rate_hz)] += 5  # spikes of one sample
    x[3, [0, 1, -2, -1]] += 2
    x[4] += 3 * np.sin(2 * np.pi * 0.1 * np.arange(n) / rate_hz)
    error_uv = 1000 * np.abs(filtered(x + 300, rate_hz) - made.reference_mv(x, rate_hz, None))
    assert error_uv.max() <= 5.0


def test_a_lead_that_stands_still_is_zero_to_the_last_bit(made):
    x = made.at(500, seed=2)
    x[4] = 0.1
    assert not filtered(x, 500.0, notch_hz=50.0)[4].any()


def test_golden_strips(made):
    """Our own stored integers, every tenth sample: the same on any machine, for none lies within 1e-6 uV of a half."""
    found = np.stack(
        [
            make_strip(made.record(made.at(500, seed=3)), mains_hz=50).samples,
            make_strip(made.record(made.at(257, 8.0, seed=4), 257.0), mains_hz=60).samples,
            make_strip(made.record(made.at(100, seed=5), 100.0)).samples,
        ]
    )[:, :, ::10]
    np.testing.assert_array_equal(found, np.load(GOLDEN))


def test_a_strip_does_not_depend_on_what_was_made_before_it(made):
    recordings = [
        made.record(made.at(rate, seconds, seed=seed), rate)
        for seed, (rate, seconds) in enumerate([(500.0, 10), (400.0, 7.335), (257.0, 30), (500.0, 8), (100.0, 10)])
    ]
    alone = [make_strip(recording, mains_hz="auto") for recording in recordings]
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        for place in order:
            again = make_strip(recordings[place], mains_hz="auto")
            np.testing.assert_array_equal(again.samples, alone[place].samples)
            assert again.quality.flags == alone[place].quality.flags
            np.testing.assert_equal(dict(again.quality.columns), dict(alone[place].quality.columns))


def test_integers_and_floats_of_one_recording_give_one_strip(made):
    digital = np.rint(made.at(500, seed=1) * 200).astype(np.int32) + 7
    gain, baseline = np.full(8, 200.0), np.full(8, 7.0)
    from_integers = Recording("r", EIGHT_LEADS, 500.0, digital=digital, gain_per_mv=gain, baseline=baseline)
    from_floats = made.record((digital - 7) / 200)
    np.testing.assert_array_equal(make_strip(from_integers).samples, make_strip(from_floats).samples)


def test_leads_are_found_by_name_and_limb_leads_derived(made):
    eight_mv = made.at(500, seed=1)
    shuffled = made.record(eight_mv[::-1], leads=tuple(name.lower() for name in EIGHT_LEADS[::-1]))
    np.testing.assert_array_equal(make_strip(shuffled).samples, make_strip(made.record(eight_mv)).samples)
    without_ii = np.concatenate([eight_mv[:1], eight_mv[1:2] - eight_mv[:1], eight_mv[2:]])
    derived = make_strip(made.record(without_ii, leads=("I", "III", *EIGHT_LEADS[2:]))).samples
    np.testing.assert_allclose(derived, make_strip(made.record(eight_mv)).samples, rtol=0, atol=1)
    assert refusal(made.record(eight_mv, leads=(*EIGHT_LEADS[:7], "V7"))) is Reason.LEADS


# --- filters ------------------------------------------------------------------------------------------------------

HZ = (0.25, 0.5, 0.67, 1.0, 40, 80, 100, 120, 150)


@pytest.mark.parametrize(
    ("order", "gain_db"),
    [
        (2, (-24.7, -6.02, -2.32, -0.50, -0.08, -2.11, -6.02, -13.3, -31.0)),
        (4, (-48.4, -6.02, -0.78, -0.03, 0.00, -0.63, -6.02, -23.0, -61.5)),
    ],
)
def test_gain_table(order, gain_db):
    band = CAPE_V1.required(BandPass).model_copy(update={"order": order})
    sos = _design_filters(400.0, CAPE_V1.changed("of-this-order", band), None)
    response = signal.sosfreqz(sos, HZ, fs=400)[1]
    np.testing.assert_allclose(40 * np.log10(np.abs(response)), gain_db, rtol=0, atol=0.05)


@pytest.mark.parametrize("frequency_hz", [0.5, 100.0])
def test_a_wave_at_either_edge_is_halved_and_not_shifted(frequency_hz):
    time_s = np.arange(16000) / 400
    wave = np.sin(2 * np.pi * frequency_hz * time_s + 0.3)[None]
    found = filtered(wave, 400.0)
    np.testing.assert_allclose(found[:, 6000:10000], 10 ** (-6.0206 / 20) * wave[:, 6000:10000], atol=2e-3)


def test_the_upper_edge_follows_a_slow_source():
    for rate_hz, edge_hz in ((100.0, 45.0), (200.0, 90.0), (250.0, 100.0), (500.0, 100.0)):
        response = signal.sosfreqz(_design_filters(rate_hz, CAPE_V1, None), [edge_hz], fs=400)[1]
        np.testing.assert_allclose(40 * np.log10(np.abs(response)), -6.02, atol=0.01)


@pytest.mark.parametrize(("mains_hz", "slowest_hz"), [(50.0, 110.0), (60.0, 132.0)])
def test_no_notch_where_the_source_is_too_slow_for_one(made, mains_hz, slowest_hz):
    for rate_hz, expected in ((slowest_hz, mains_hz), (slowest_hz - 1, np.nan)):
        strip = make_strip(made.record(made.at(rate_hz), rate_hz), mains_hz=mains_hz)
        np.testing.assert_equal(strip.quality.columns["notch_hz"], expected)


def test_the_notch_takes_the_hum_and_leaves_the_ecg(made):
    clean_mv = made.at(500)
    hum_mv = 0.2 * np.sin(2 * np.pi * 50 * np.arange(5000) / 500)
    notched = make_strip(made.record(clean_mv + hum_mv), mains_hz=50).samples[:, CENTRE]
    clean = make_strip(made.record(clean_mv)).samples[:, CENTRE]
    assert np.abs(notched - clean.astype(int)).max() <= 6  # uV: distortion of the ECG and what is left of the hum
    left = make_strip(made.record(clean_mv + hum_mv), mains_hz=60).samples[:, CENTRE] - clean.astype(int)
    assert np.abs(left).max() > 150


@pytest.mark.parametrize("frequency_hz", [50.0, 60.0])
@pytest.mark.parametrize(("score_db", "is_notched"), [(5.9, False), (6.1, True)])
def test_auto_notches_from_six_decibels_on(made, frequency_hz, score_db, is_notched):
    noisy_mv = made.at(500) + np.random.default_rng(0).normal(0, 0.01, (8, 5000))
    hum = np.sin(2 * np.pi * frequency_hz * np.arange(5000) / 500)
    column = f"mains_{frequency_hz:.0f}_before_db"
    low_mv, high_mv = 0.0, 0.1
    for _ in range(40):  # find the amplitude that has this score
        hum_mv = (low_mv + high_mv) / 2
        strip = make_strip(made.record(noisy_mv + hum_mv * hum), mains_hz="auto")
        low_mv, high_mv = (hum_mv, high_mv) if strip.quality.columns[column] < score_db else (low_mv, hum_mv)
    assert strip.quality.columns[column] == pytest.approx(score_db, abs=0.01)
    np.testing.assert_equal(strip.quality.columns["notch_hz"], frequency_hz if is_notched else np.nan)


def test_auto_takes_the_louder_of_two_hums(made):
    time_s = np.arange(5000) / 500
    both_mv = made.at(500) + 0.02 * np.sin(2 * np.pi * 50 * time_s) + 0.05 * np.sin(2 * np.pi * 60 * time_s)
    assert make_strip(made.record(both_mv), mains_hz="auto").quality.columns["notch_hz"] == 60


@pytest.mark.parametrize("mains_hz", [55, 0.0, "50"])
def test_a_mains_frequency_there_is_not(made, mains_hz):
    with pytest.raises(SpecError, match="expected 50, 60, 'auto' or none"):
        make_strip(made.record(made.at(500)), mains_hz=mains_hz)


# --- accuracy: the measurements behind the recipe ---------------------------------------------------------------


def test_even_padding_leaves_less_in_the_window_than_the_default(made):
    errors = {"even": [], "default": []}
    sos = _design_filters(400.0, CAPE_V1, None)
    time_s = np.arange(8000) / 400
    for seed in range(200):
        rng = np.random.default_rng(seed)
        long_mv = made.ecg_mv(time_s, rng.uniform(0.5, 1.2), rng.uniform(0, 0.5)) + made.drift_mv(time_s, rng)
        truth = signal.sosfiltfilt(sos, long_mv[:3], axis=1, padtype="even", padlen=800)[:, 2000:6000]
        cut = long_mv[:3, 2000:6000]
        for name, found in (
            ("even", filtered(cut, 400.0)),
            ("default", signal.sosfiltfilt(sos, cut, axis=1)),
        ):
            errors[name].append(1000 * np.abs(found - truth)[:, CENTRE].max())
    even, default = (np.percentile(errors[name], [50, 95]) for name in ("even", "default"))
    assert (even < default).all()
    assert even[1] <= 5.0  # uV
    assert default[1] > 20.0


def test_one_heart_looks_the_same_from_recorders_of_any_rate(made):
    seen = {}
    for rate_hz in (240.0, 250.0, 257.0, 500.0, 1000.0, 400.0):
        strip_mv = filtered(made.at(rate_hz), rate_hz)
        assert strip_mv.shape == (8, 4000)
        seen[rate_hz] = 1000 * strip_mv[:, CENTRE]
    # The resampler's ripple is proportional to the signal: 0.4 uV where R is 1.1 mV (lead II), 0.6 where it is 1.65.
    resampled_rates = [rate_hz for rate_hz in seen if rate_hz != 400.0]
    assert max(np.abs(seen[a] - seen[b])[1].max() for a, b in combinations(resampled_rates, 2)) <= 0.4
    assert max(np.abs(seen[a] - seen[b]).max() for a, b in combinations(resampled_rates, 2)) <= 0.6
    assert max(np.abs(seen[rate_hz] - seen[400.0]).max() for rate_hz in resampled_rates) <= 1.5


def test_what_a_100_hz_source_lacks_is_the_band_above_45_hz(made):
    slow = filtered(made.at(100), 100.0)[:, CENTRE]
    same_band = filtered(made.at(400), 400.0, 100.0)[:, CENTRE]
    full_band = filtered(made.at(400), 400.0)[:, CENTRE]
    assert 1000 * np.abs(slow - same_band).max() <= 1.5
    assert 5 <= 1000 * np.abs(slow - full_band).max() <= 25  # grows with how steep the QRS is


def test_an_offset_makes_no_step_at_the_ends(made):
    plain, lifted = (filtered(made.at(500) + offset_mv, 500.0) for offset_mv in (0.0, 300.0))
    assert 1000 * np.abs(lifted - plain).max() <= 1e-6  # uV


# --- length, gaps, padding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [100.0, 257.0, 360.0, 400.0, 500.0, 1000.0])
def test_seven_seconds_pass_and_a_sample_less_does_not(made, rate_hz):
    enough_mv = made.at(rate_hz, 7.0)
    strip = make_strip(made.record(enough_mv, rate_hz))
    assert strip.valid_stop == 2800
    assert refusal(made.record(enough_mv[:, :-1], rate_hz)) is Reason.TOO_SHORT


def test_699_hundredths_are_too_short_and_the_message_says_so(made):
    with pytest.raises(RejectedRecording, match=r"found 6\.990 s after trimming, expected at least 7 s"):
        make_strip(made.record(made.at(500, 6.99)))


def test_a_short_strip_lies_left_and_the_rest_is_missing(made):
    strip = make_strip(made.record(made.at(400, 7.335, seed=1), 400.0))
    assert (strip.samples.dtype, strip.samples.shape) == (np.int16, (8, 4000))
    assert strip.valid_stop == 2934
    assert (strip.samples[:, 2934:] == MISSING).all()
    assert (strip.samples[:, :2934] != MISSING).all()


@pytest.mark.parametrize("rate_hz", [257.0, 500.0, 1000.0])
def test_of_a_long_recording_the_first_ten_seconds_count(made, rate_hz):
    long_mv = made.at(rate_hz, 33.3, seed=1)
    first = make_strip(made.record(long_mv[:, : int(10 * rate_hz)], rate_hz))
    np.testing.assert_array_equal(make_strip(made.record(long_mv, rate_hz)).samples, first.samples)


def test_a_missing_sample_a_sentinel_and_40_ms_are_filled_41_are_not(made):
    eight_mv = made.at(1000, seed=1)
    for length, is_filled in ((1, True), (40, True), (41, False)):
        gapped_mv = eight_mv.copy()
        gapped_mv[2, 5000 : 5000 + length] = np.nan
        if not is_filled:
            assert refusal(made.record(gapped_mv, 1000.0)) is Reason.GAPS
            continue
        strip = make_strip(made.record(gapped_mv, 1000.0))
        assert strip.quality.columns["n_interp"] == length
        bridged_mv = eight_mv.copy()
        bridged_mv[2, 4999 : 5001 + length] = np.linspace(eight_mv[2, 4999], eight_mv[2, 5000 + length], length + 2)
        whole = make_strip(made.record(bridged_mv, 1000.0))
        np.testing.assert_allclose(strip.samples, whole.samples, rtol=0, atol=1)
    digital = np.rint(eight_mv * 1000).astype(np.int32)
    missing = np.zeros(digital.shape, bool)
    missing[4, 700] = True
    digital[4, 700] = -32768
    gain = np.full(8, 1000.0)
    strip = make_strip(
        Recording("r", EIGHT_LEADS, 1000.0, digital=digital, gain_per_mv=gain, baseline=gain * 0, missing=missing)
    )
    assert strip.quality.columns["n_interp"] == 1
    expected = make_strip(made.record(eight_mv, 1000.0)).samples.astype(int)
    # Off by the line that stands for the one sample, nowhere by the sentinel's 32 mV.
    assert np.abs(strip.samples - expected).max() <= 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_long_gap_ends_the_strip_as_the_end_of_a_recording_does(made, bad):
    eight_mv = made.at(500, 20.0, seed=1)
    eight_mv[5, 2000:2021] = bad  # 42 ms, at 4 s: what is before is too short
    eight_mv[0, 6000:7000] = bad
    strip = make_strip(made.record(eight_mv))
    expected = make_strip(made.record(eight_mv[:, 2021:6000]))
    np.testing.assert_array_equal(strip.samples, expected.samples)
    assert strip.valid_stop == np.ceil((6000 - 2021) * 4 / 5)
    assert strip.quality.columns["n_interp"] == 0


def test_missing_samples_at_either_end_are_cut_not_invented(made):
    eight_mv = made.at(500, seed=1)
    eight_mv[3, :5] = np.nan
    eight_mv[6, -7:] = np.nan
    strip = make_strip(made.record(eight_mv))
    np.testing.assert_array_equal(strip.samples, make_strip(made.record(eight_mv[:, 5:-7])).samples)
    assert strip.quality.columns["n_interp"] == 0


def test_zeros_at_both_ends_are_padding_and_zeros_within_are_not(made):
    eight_mv = made.at(400, 7.335, seed=1)
    eight_mv[:, 1000:1010] = 0  # a dead moment inside stays
    padded_mv = np.concatenate([np.zeros((8, 581)), eight_mv, np.zeros((8, 581))], axis=1)
    alone = make_strip(made.record(eight_mv, 400.0))
    padded = make_strip(made.record(padded_mv, 400.0))
    np.testing.assert_array_equal(padded.samples, alone.samples)
    assert padded.quality == alone.quality


def test_padding_then_a_gap_then_an_ecg(made):
    """The stretch before the gap is long, but of zeros: the strip is the ECG behind it."""
    eight_mv = np.concatenate([np.zeros((8, 4000)), np.full((8, 50), np.nan), made.at(500, 8.0)], axis=1)
    assert make_strip(made.record(eight_mv)).valid_stop == 3200


def test_nothing_there_is_empty_and_a_dead_lead_is_a_gap(made):
    assert refusal(made.record(np.zeros((8, 5000)))) is Reason.EMPTY
    assert refusal(made.record(np.zeros((8, 0)))) is Reason.EMPTY
    assert refusal(made.record(np.full((8, 5000), np.nan))) is Reason.EMPTY
    eight_mv = made.at(500)
    eight_mv[7] = np.nan
    assert refusal(made.record(eight_mv)) is Reason.GAPS
    assert refusal(made.record(np.pad(made.at(500, 6.0), ((0, 0), (1000, 1000))))) is Reason.TOO_SHORT


# --- rate, amplitude, range ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [0.0, -500.0, 99.99, 8000.5, np.nan, np.inf, 500.002])
def test_rates_there_are_not(made, rate_hz):
    assert refusal(made.record(made.at(500), rate_hz)) is Reason.RATE


@pytest.mark.parametrize(
    ("rate_hz", "ratio"),
    [(100.0, (4, 1)), (257.0, (400, 257)), (500.0, (4, 5)), (976.5625, (256, 625)), (8000.0, (1, 20))],
)
def test_rates_there_are(rate_hz, ratio):
    assert _rate_ratio(rate_hz, CAPE_V1) == ratio


def test_any_accepted_rate_needs_a_filter_of_bounded_length():
    rng = np.random.default_rng(0)
    for rate_hz in rng.uniform(100, 8000, 2000):
        try:
            up, down = _rate_ratio(rate_hz, CAPE_V1)
        except RejectedRecording:
            continue
        assert up <= 10_000
        assert down <= 200_000
        assert abs(up / down - 400 / rate_hz) <= 1.001e-6 * 400 / rate_hz


def test_amplitudes_no_heart_has(made):
    eight_mv = made.at(500, seed=1)
    for factor in (1e-6, 1e-3, 30.0, 1e3, 1e200, 1e307):
        assert refusal(made.record(eight_mv * factor)) is Reason.AMPLITUDE
    with pytest.raises(RejectedRecording, match=r"found an amplitude of [\d.]+ mV, expected 0\.1 to 10 mV. Check gain"):
        make_strip(made.record(eight_mv / 100))
    for factor in (0.2, 5.0):  # a gain wrong by five stays inside the band: stated, not hidden
        make_strip(made.record(eight_mv * factor))


def test_offset_and_slow_drift_are_no_amplitude(made):
    drift_mv = 10 + 2 * np.cos(2 * np.pi * 0.05 * np.arange(5000) / 500)
    assert refusal(made.record(np.zeros((8, 5000)) + drift_mv)) is Reason.AMPLITUDE
    strip = make_strip(made.record(made.at(500) + drift_mv))
    assert strip.quality.columns["p99_mv"] < 2


def test_beyond_32_millivolts_is_clipped_and_counted(made):
    eight_mv = made.at(500)
    eight_mv[3, 2500] += 300
    eight_mv[4, 1500] -= 300
    strip = make_strip(made.record(eight_mv))
    expected = made.reference_mv(eight_mv, 500.0, None) * 1000
    assert (strip.samples.max(), strip.samples.min()) == (32767, -32767)  # never the value for "missing"
    assert strip.quality.columns["n_clip_stored"] == (np.abs(np.rint(expected)) > 32767).sum() > 0


def test_an_absurd_lead_among_sound_ones_warns_of_nothing(made):
    eight_mv = made.at(500)
    eight_mv[2] *= 1e150
    assert make_strip(made.record(eight_mv)).quality.columns["n_clip_stored"] > 1000
    eight_mv[2, :] = 1e308
    eight_mv[2, ::2] = -1e308
    assert refusal(made.record(eight_mv)) is Reason.AMPLITUDE


def test_input_is_left_alone(made):
    eight_mv = made.at(500, seed=1)
    eight_mv[1, 100:105] = np.nan
    before = eight_mv.copy()
    make_strip(made.record(eight_mv), mains_hz="auto")
    np.testing.assert_array_equal(eight_mv, before)


def test_filters_are_designed_once(made):
    make_strip(made.record(made.at(500)), mains_hz=50)
    misses = _strip_filter.cache_info().misses
    make_strip(made.record(made.at(500, seed=9)), mains_hz=50)
    assert _strip_filter.cache_info().misses == misses
