"""Recording: units to the end, and one digest for one waveform."""

from dataclasses import replace

import numpy as np
import pytest

from ecgcohorts.errors import RejectedRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.recording import Recording


def integers(seed: int = 0, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 900, (12, n)).astype(np.int32)


def of_integers(digital: np.ndarray, gain: float = 1000.0, leads: tuple[str, ...] = TWELVE_LEADS) -> Recording:
    n = len(digital)
    return Recording("r", leads, 400.0, digital, np.full(n, gain), np.zeros(n))


def test_millivolts_use_gain_and_baseline_of_each_lead():
    gain, baseline = np.arange(1, 13) * 100.0, np.arange(12) * 10.0
    recording = replace(of_integers(integers()), gain_per_mv=gain, baseline=baseline)
    np.testing.assert_allclose(recording.signal_mv, (integers() - baseline[:, None]) / gain[:, None])


def test_missing_samples_are_nan():
    missing = np.zeros((12, 200), bool)
    missing[3, 7] = True
    signal_mv = replace(of_integers(integers()), missing=missing).signal_mv
    assert np.isnan(signal_mv[3, 7])
    assert np.isnan(signal_mv).sum() == 1


def test_digest_is_that_of_the_waveform_not_of_its_file():
    digital = integers()
    whole = of_integers(digital).waveform_digest
    order = np.random.default_rng(1).permutation(12)
    shuffled = of_integers(digital[order], leads=tuple(TWELVE_LEADS[place] for place in order))
    padded = of_integers(np.pad(digital, ((0, 0), (5, 9))))
    as_float = Recording("r", TWELVE_LEADS, 400.0, analog_mv=digital / 1000.0)
    padded_float = Recording("r", TWELVE_LEADS, 400.0, analog_mv=np.pad(digital / 1000.0, ((0, 0), (600, 0))))
    assert {whole} == {one.waveform_digest for one in (shuffled, padded, as_float, padded_float)}
    assert len(whole) == 16


@pytest.mark.parametrize("change", ["sample", "lead", "shift"])
def test_digest_tells_waveforms_apart(change):
    digital = integers()
    other = digital.copy()
    if change == "sample":
        other[0, 100] += 1
    elif change == "lead":
        other[[6, 7]] = other[[7, 6]]
    else:
        other = np.roll(other, 1, axis=1)
    assert of_integers(digital).waveform_digest != of_integers(other).waveform_digest


def test_derived_leads_do_not_count_in_the_digest():
    other = integers()
    other[2:6] += 1  # III, aVR, aVL, aVF
    assert of_integers(integers()).waveform_digest == of_integers(other).waveform_digest


def test_a_file_of_few_leads_has_a_digest_of_those_it_has():
    digital = integers()
    lead_i = of_integers(digital[:1], leads=("ECG I",))
    # A filtered copy beside the lead is no standard lead, as in ECG-ID.
    beside = of_integers(digital[:2], leads=("Lead I", "ECG I filtered"))
    as_float = Recording("r", ("I",), 400.0, analog_mv=np.pad(digital[:1] / 1000.0, ((0, 0), (7, 2))))
    assert lead_i.waveform_digest == beside.waveform_digest == as_float.waveform_digest
    other = of_integers(digital[:1] + 1, leads=("I",))
    three = of_integers(digital[:3], leads=TWELVE_LEADS[:3])
    assert len({one.waveform_digest for one in (lead_i, other, three, of_integers(digital))}) == 4
    with pytest.raises(RejectedRecording, match="found no I, II, V1"):
        _ = of_integers(digital[:1], leads=("EEG Fp1",)).waveform_digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of digital and analog_mv"),
        ({"digital": integers(), "analog_mv": integers() / 1000}, "exactly one"),
        ({"digital": integers()}, "need gain_per_mv and baseline"),
        ({"analog_mv": np.zeros((3, 10))}, r"shape \(3, 10\), expected \(12 leads, time\)"),
    ],
)
def test_half_a_recording_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recording("r", TWELVE_LEADS, 400.0, **arguments)


def test_header_text_does_not_show_in_print():
    recording = replace(of_integers(integers()), fields={"Name": "CANARY"})
    assert "CANARY" not in repr(recording)
