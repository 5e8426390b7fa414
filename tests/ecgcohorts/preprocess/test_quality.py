"""Flags and columns of a strip, each against a signal that has what it looks for, and one that has not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, select
from ecgcohorts.preprocess import quality
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS, Flag
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import SelectLeads
from ecgcohorts.preprocess.strip import make_strip


def test_bits_keep_their_meaning():  # stores hold them: a new flag takes a new bit
    assert {flag.name: flag.value for flag in Flag} == {
        "INTERPOLATED": 1,
        "CLIPPED": 2,
        "CLIPPED_IN_STORE": 4,
        "FLAT_LEAD": 8,
        "MAINS_50": 16,
        "MAINS_60": 32,
        "EINTHOVEN": 64,
        "LEAD_I_INVERTED": 128,
        "PACED": 256,
        "LOW_RATE": 512,
        "EDGE_SLACK": 1024,
        "EQUAL_SPANS": 2048,
        "UNIT_VARIANCE": 4096,
    }


@pytest.mark.parametrize("with_quality", [True, False])
@pytest.mark.parametrize("rate_hz", [100.0, 500.0])
def test_every_strip_has_every_column_in_order(made, rate_hz, with_quality):
    found = make_strip(made.record(made.at(rate_hz), rate_hz), with_quality=with_quality).quality
    assert tuple(found.columns) == tuple(QUALITY_COLUMNS)
    for name, dtype in QUALITY_COLUMNS.items():
        if dtype.kind == "i":
            assert found.columns[name] == dtype.type(found.columns[name])
    assert 0 <= found.flags < 1 << 32


def test_without_quality_the_samples_are_the_same_and_the_known_is_known(made):
    eight_mv = made.at(100, 8.0, seed=1)
    eight_mv[2, 300:303] = np.nan
    full, quick = (make_strip(made.record(eight_mv, 100.0), with_quality=wanted) for wanted in (True, False))
    np.testing.assert_array_equal(full.samples, quick.samples)
    known = ("n_interp", "n_clip_stored", "p99_mv", "notch_hz", "bandlimit_hz", "edge_slack_s")
    np.testing.assert_equal(*({name: strip.quality.columns[name] for name in known} for strip in (full, quick)))
    assert quick.quality.flags == Flag.INTERPOLATED | Flag.LOW_RATE | Flag.EDGE_SLACK
    assert np.isnan(quick.quality.columns["flat_fraction"])


def test_a_clean_ecg_has_no_flag(made):
    noise_mv = np.random.default_rng(0).normal(0, 0.005, (8, 5000))
    assert make_strip(made.record(made.at(500, seed=1) + noise_mv)).quality.flags == 0


# --- spectra ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2800, 2934, 4000])
def test_power_density_is_welch(n):
    x = np.random.default_rng(0).normal(0, 1, (8, n)) + 3
    found = quality.power_density(x, 400.0)
    expected = signal.welch(x, 400, nperseg=800)[1]
    np.testing.assert_allclose(found[:, 2:-1], expected[:, 2:-1], rtol=1e-4)  # from 1 Hz up


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
@pytest.mark.parametrize("hum_uv", [5, 20])
def test_mains_score_of_a_known_hum_in_known_noise(mains_hz, hum_uv):
    noise_uv = 10.0  # rms, white: a density of 100 / 200 uV^2 per Hz
    hum = hum_uv * np.sin(2 * np.pi * mains_hz * np.arange(4000) / 400)
    x = np.random.default_rng(0).normal(0, noise_uv, (8, 4000)) + hum
    score_db = quality.mains_score(quality.power_density(x / 1000, 400.0), mains_hz)
    bandwidth_hz = 0.75  # 1.5 bins of a Hann window
    expected = 10 * np.log10((hum_uv**2 / 2 / bandwidth_hz + noise_uv**2 / 200) / (noise_uv**2 / 200))
    assert score_db == pytest.approx(expected, abs=0.7)


def test_mains_score_of_nothing():
    noise = np.random.default_rng(0).normal(0, 0.01, (8, 4000))
    assert -1 < quality.mains_score(quality.power_density(noise, 400.0), 50.0) < 3
    assert quality.mains_score(quality.power_density(np.zeros((8, 4000)), 400.0), 50.0) == 0


def test_mains_columns_before_and_after_the_notch(made):
    hum_mv = 0.05 * np.sin(2 * np.pi * 60 * np.arange(5000) / 500)
    noise_mv = np.random.default_rng(0).normal(0, 0.01, (8, 5000))
    found = make_strip(made.record(made.at(500) + noise_mv + hum_mv), mains_hz=60).quality
    assert found.columns["mains_60_before_db"] > 25
    assert found.columns["mains_60_after_db"] < 6
    assert found.flags == Flag.MAINS_60
    slow = make_strip(made.record(made.at(120), 120.0)).quality.columns
    assert np.isfinite(slow["mains_50_before_db"])
    assert np.isnan(slow["mains_60_before_db"])  # 60 Hz is all a 120 Hz source could hold


def test_baseline_and_high_frequency_power_are_those_of_the_waves_put_in(made):
    time_s = np.arange(5000) / 500
    clean = make_strip(made.record(made.at(500))).quality.columns
    slow = make_strip(made.record(made.at(500) + 0.4 * np.sin(2 * np.pi * 0.3 * time_s))).quality.columns
    fast = make_strip(made.record(made.at(500) + 0.4 * np.sin(2 * np.pi * 70 * time_s))).quality.columns
    assert slow["baseline_power_mv2"] - clean["baseline_power_mv2"] == pytest.approx(0.08, rel=0.02)
    assert fast["hf_power_mv2"] - clean["hf_power_mv2"] == pytest.approx(0.08, rel=0.02)
    assert slow["hf_power_mv2"] == pytest.approx(clean["hf_power_mv2"], rel=0.02, abs=1e-6)


# --- the source ---------------------------------------------------------------------------------------------------


def test_runs_equal_the_ones_counted_by_hand():
    rng = np.random.default_rng(0)
    for density in (0.0, 0.1, 0.5, 0.95, 1.0):
        mask = rng.random((5, 60)) < density
        by_hand = []
        for row in range(5):
            start = None
            for column in range(61):
                inside = column < 60 and mask[row, column]
                if inside and start is None:
                    start = column
                if not inside and start is not None:
                    by_hand.append((row, start, column - start))
                    start = None
        assert list(zip(*(part.tolist() for part in quality.runs(mask)), strict=True)) == by_hand


@pytest.mark.parametrize(("still_s", "is_flat"), [(0.99, False), (1.02, True), (3.0, True)])
@pytest.mark.parametrize("offset", [0, 137])
def test_a_lead_that_stands_still_for_over_a_second(made, still_s, is_flat, offset):
    eight_mv = made.at(500) + np.random.default_rng(0).normal(0, 0.01, (8, 5000))
    n = round(still_s * 500)
    eight_mv[6, 1500 + offset : 1500 + offset + n] = 0.25
    found = make_strip(made.record(eight_mv)).quality
    assert bool(found.flags & Flag.FLAT_LEAD) == is_flat
    assert found.columns["flat_fraction"] == pytest.approx(n / 5000 if is_flat else 0)


def test_a_saturated_amplifier_is_clipped_and_a_flat_lead_is_not(made):
    noisy_mv = made.at(500) + np.random.default_rng(0).normal(0, 0.01, (8, 5000))
    saturated_mv = np.minimum(noisy_mv, 0.8)  # every R peak of the chest leads reaches it
    expected = sum(length for _, _, length in zip(*quality.runs(saturated_mv == 0.8), strict=True) if length >= 3)
    found = make_strip(made.record(saturated_mv)).quality
    assert found.columns["n_clip"] == expected > 100
    noisy_mv[0, 1000:1010] = noisy_mv[0].max() + 1  # 20 ms at the top
    assert make_strip(made.record(noisy_mv)).quality.flags & Flag.CLIPPED
    noisy_mv[0] = 0.1
    dead = make_strip(made.record(noisy_mv)).quality
    assert dead.columns["n_clip"] == 0
    assert dead.columns["flat_fraction"] == 1
    assert dead.flags & (Flag.CLIPPED | Flag.FLAT_LEAD) == Flag.FLAT_LEAD


def twelve(made, seconds: float = 10.0) -> np.ndarray:
    return select(made.at(500, seconds), EIGHT_LEADS, TWELVE_LEADS)


def test_einthoven_residual_is_the_error_put_in(made):
    twelve_mv = twelve(made)
    assert make_strip(made.record(twelve_mv)).quality.columns["einthoven_rms_mv"] < 1e-9
    twelve_mv[2] += np.random.default_rng(0).normal(0, 0.07, 5000)
    found = make_strip(made.record(twelve_mv)).quality
    assert found.columns["einthoven_rms_mv"] == pytest.approx(0.07, rel=0.05)
    assert found.flags == Flag.EINTHOVEN


def test_einthoven_finds_swapped_names_after_a_gap_and_skips_missing_samples(made):
    twelve_mv = np.concatenate([np.full((12, 600), np.nan), twelve(made)], axis=1)
    twelve_mv[2, 3000:4000] = np.nan  # a stored derived lead may be missing: it is not part of the strip
    recording = made.record(twelve_mv)
    assert make_strip(recording).quality.columns["einthoven_rms_mv"] < 1e-9
    names = list(TWELVE_LEADS)
    names[4], names[5] = names[5], names[4]
    assert make_strip(replace(recording, leads=tuple(names))).quality.flags & Flag.EINTHOVEN


def test_einthoven_says_nothing_where_nothing_is_stored_twice(made):
    eight = made.record(made.at(500))
    assert np.isnan(make_strip(eight).quality.columns["einthoven_rms_mv"])
    twelve_mv = twelve(made)
    without_i = made.record(twelve_mv[1:], leads=TWELVE_LEADS[1:])
    assert np.isnan(make_strip(without_i).quality.columns["einthoven_rms_mv"])


# --- shape --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beat_s", [0.55, 0.83, 1.2])
def test_swapped_arms_are_seen_in_an_ecg_with_a_leftward_axis(made, beat_s):
    eight_mv = made.ecg_mv(np.arange(5000) / 500, beat_s)
    eight_mv[1] *= 0.3  # lead II small: aVR turns positive once the arms are swapped
    assert not make_strip(made.record(eight_mv)).quality.flags & Flag.LEAD_I_INVERTED
    swapped_mv = np.concatenate([-eight_mv[:1], eight_mv[1:2] - eight_mv[:1], eight_mv[2:]])
    assert make_strip(made.record(swapped_mv)).quality.flags & Flag.LEAD_I_INVERTED
    negative_qrs_only = eight_mv.copy()
    negative_qrs_only[0] = np.where(eight_mv[0] > 0.3, -eight_mv[0], eight_mv[0])  # P and T stay up: left bundle
    assert not make_strip(made.record(negative_qrs_only)).quality.flags & Flag.LEAD_I_INVERTED


def test_beats_are_found_where_they_were_put(made):
    eight_mv = made.at(400)
    beats = quality._find_beats(eight_mv, 400.0) / 400
    expected = np.arange(0.31, 10, 0.83)
    assert len(beats) == len(expected)
    np.testing.assert_allclose(beats, expected, atol=0.03)


# --- what the file and the recipe say -----------------------------------------------------------------------------


def test_a_note_about_a_pacemaker_sets_its_flag(made):
    noted = made.record(made.at(500), notes=("pace spikes: 12",))
    assert make_strip(noted).quality.flags & Flag.PACED
    assert not make_strip(made.record(made.at(500), notes=("no checksum",))).quality.flags & Flag.PACED


@pytest.mark.parametrize(
    ("rate_hz", "seconds", "slack_s", "limit_hz", "flags"),
    [
        (500.0, 10.0, 1.5, 100.0, Flag(0)),
        (400.0, 7.335, 0.1675, 100.0, Flag.EDGE_SLACK),
        (257.0, 9.0, 1.0, 100.0, Flag.EDGE_SLACK),
        (128.0, 10.0, 1.5, 64.0, Flag(0)),
        (100.0, 12.0, 1.5, 50.0, Flag.LOW_RATE),
    ],
)
def test_edges_and_bandwidth(made, rate_hz, seconds, slack_s, limit_hz, flags):
    found = make_strip(made.record(made.at(rate_hz, seconds), rate_hz), with_quality=False).quality
    assert found.columns["edge_slack_s"] == pytest.approx(slack_s, abs=0.002)
    assert found.columns["bandlimit_hz"] == limit_hz
    assert found.flags == flags


def test_quality_alters_nothing(made):
    eight_mv = made.at(500, seed=1)
    filtered_mv = made.reference_mv(eight_mv, 500.0, None)
    stages = quality.Stages(eight_mv, filtered_mv, 500.0, 0, 0, 0, None, 1.0)
    for array in (stages.native_mv, stages.filtered_mv):
        array.flags.writeable = False
    quality.Quality.measure(stages, made.record(eight_mv), CAPE_V1)


# --- numbers that are no millivolts -------------------------------------------------------------------------------

SCALED = Flag.EQUAL_SPANS | Flag.UNIT_VARIANCE
EACH_LEAD = {
    "span of 1": (lambda x: x / np.ptp(x, axis=1, keepdims=True), Flag.EQUAL_SPANS),
    "0 to 1": (lambda x: (x - x.min(1, keepdims=True)) / np.ptp(x, axis=1, keepdims=True), Flag.EQUAL_SPANS),
    "height of 3": (lambda x: 3 * x / np.abs(x).max(1, keepdims=True), Flag.EQUAL_SPANS),
    "z-score": (lambda x: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True), Flag.UNIT_VARIANCE),
    "deviation of a half": (lambda x: 0.5 * x / x.std(1, keepdims=True), Flag.UNIT_VARIANCE),
}
WHOLE = {
    "0 to 1": (lambda x: (x - x.min()) / np.ptp(x), Flag.EQUAL_SPANS),
    "-1 to 1": (lambda x: 2 * (x - x.min()) / np.ptp(x) - 1, Flag.EQUAL_SPANS),
    "z-score": (lambda x: (x - x.mean()) / x.std(), Flag.UNIT_VARIANCE),
}


@pytest.mark.parametrize("rate_hz", [100.0, 500.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scale", "flag"), [*EACH_LEAD.values(), *WHOLE.values()], ids=[*EACH_LEAD, *(f"record {way}" for way in WHOLE)]
)
def test_scaled_leads_are_flagged_and_the_same_leads_in_mv_are_not(made, scale, flag, rate_hz, seed):
    twelve_mv = select(made.at(rate_hz, 12.0, seed), EIGHT_LEADS, TWELVE_LEADS)  # 12 s: a strip is shorter
    assert not make_strip(made.record(twelve_mv, rate_hz)).quality.flags & SCALED
    # As stored by most: whole thousandths, float32, or integers with a gain and a baseline a lead.
    thousandths = np.rint(1000 * scale(twelve_mv)).astype(np.int32)
    as_integers = {"analog_mv": None, "digital": thousandths + 7, "gain_per_mv": np.full(12, 1000.0)}
    for recording in (
        made.record(thousandths / 1000, rate_hz),
        made.record(scale(twelve_mv).astype(np.float32).astype(np.float64), rate_hz),
        replace(made.record(twelve_mv, rate_hz), **as_integers, baseline=np.full(12, 7.0)),
    ):
        assert make_strip(recording).quality.flags & SCALED == flag


def test_a_gain_of_whole_steps_that_makes_every_lead_1_mv_high_is_flagged(made):
    # As LUDB's headers: 16 bits, the lead's own span in steps is its gain.
    steps = np.rint(1500 * select(made.at(250.0, seed=4), EIGHT_LEADS, TWELVE_LEADS)).astype(np.int32)
    gain = np.ptp(steps, axis=1).astype(float)
    recording = made.record(np.zeros((12, 2500)), 250.0)
    scaled = replace(recording, analog_mv=None, digital=steps, gain_per_mv=gain, baseline=np.zeros(12))
    assert make_strip(scaled).quality.flags & SCALED == Flag.EQUAL_SPANS


def test_gaps_and_padding_do_not_hide_scaling(made):
    eight = EACH_LEAD["z-score"][0](made.at(500.0, seed=1))
    gaps = eight.copy()
    gaps[:, 1000:1015] = gaps[5, 2000:2010] = np.nan
    padded = np.pad(eight, ((0, 0), (400, 700)))
    for signal_mv in (gaps, padded):
        assert make_strip(made.record(signal_mv)).quality.flags & SCALED == Flag.UNIT_VARIANCE


def test_a_flat_lead_and_leads_that_share_a_height_with_one_other_are_no_scaling(made):
    eight_mv = made.at(500.0, seed=1)
    eight_mv[4] = 0.5
    eight_mv[6] = eight_mv[5]
    assert not make_strip(made.record(eight_mv)).quality.flags & SCALED
    scaled = EACH_LEAD["span of 1"][0](np.delete(eight_mv, 4, axis=0))
    assert make_strip(made.record(np.insert(scaled, 4, 0.5, axis=0))).quality.flags & SCALED == Flag.EQUAL_SPANS


def test_one_lead_is_known_by_mean_0_and_deviation_1_or_by_0_to_1_only(made):
    lead_mv = made.at(500.0, seed=2)[1:2]
    recipe = CAPE_V1.changed("one-lead", SelectLeads(leads=("II",)))

    def flags(signal_mv):
        recording = replace(made.record(made.at(500.0)), leads=("II",), analog_mv=signal_mv)
        return make_strip(recording, recipe).quality.flags & SCALED

    for name, (scale, flag) in WHOLE.items():
        assert flags(scale(lead_mv)) == flag, name
    assert flags(lead_mv) == flags(2.5 * WHOLE["0 to 1"][0](lead_mv)) == 0
