"""The simulated recorders: filters, gain, noise and steps are as their signatures say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgcohorts.simulate import HOSPITALS
from ecgcohorts.simulate.anatomy import Patient, Session
from ecgcohorts.simulate.devices import LEADS_OF_ELECTRODES, PAD_S, DeviceSignature, _transfer

QUIET: dict[str, Any] = {"white_uv": 0, "pink_uv": 0, "emg_uv": 0, "hum_uv": 0, "wander_uv": 0, "gain_sd": 0}
DEVICES = [hospital.device for hospital in HOSPITALS.values()]


@pytest.fixture(scope="module")
def session() -> Session:
    rng = np.random.default_rng(5)
    return Session.draw(rng, Patient.draw(rng, "male", 50.0), 50.0)


def through(
    device: DeviceSignature, session: Session, clean_mv: NDArray[np.float64], seed: int = 0
) -> NDArray[np.float64]:
    """What the device writes, in mV."""
    return device.record(np.random.default_rng(seed), session, clean_mv)[0] / device.gain_per_mv


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_both_edges_of_the_band_are_at_3_db(device: DeviceSignature) -> None:
    flat = replace(device, smoothing_taps=1)
    samples = round(1000 * device.rate_hz)  # 1 mHz a bin
    decibel = 20 * np.log10(np.abs(_transfer(flat, samples)) + 1e-12)
    for edge in (device.highpass_hz, device.lowpass_hz):
        assert decibel[round(edge * 1000)] == pytest.approx(-3.01, abs=0.05)
    assert decibel[10_000] == pytest.approx(0, abs=0.02)


def test_smoothing_is_a_moving_average_with_its_delay() -> None:
    smooth = replace(DEVICES[0], smoothing_taps=5)
    samples = 5000
    ratio = _transfer(smooth, samples)[1:] / _transfer(DEVICES[0], samples)[1:]
    kernel = np.zeros(samples)
    kernel[:5] = 1 / 5
    np.testing.assert_allclose(ratio, np.fft.rfft(kernel)[1:], atol=1e-9)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_gain_and_step(device: DeviceSignature, session: Session) -> None:
    samples = round((10 + 2 * PAD_S) * device.rate_hz)
    tone = np.sin(2 * np.pi * 10 * np.arange(samples) / device.rate_hz)
    clean = np.tile(tone, (8, 1))
    written, gain = replace(device, **QUIET).record(np.random.default_rng(0), session, clean)
    assert gain == device.gain
    assert written.shape == (8, round(10 * device.rate_hz))
    passed = np.abs(_transfer(device, samples)[round(10 * samples / device.rate_hz)])
    assert np.ptp(written[0]) / 2 == pytest.approx(device.gain * passed * 1000 / device.step_uv, rel=0.01)


def test_hum_is_at_the_mains_of_the_country_and_obeys_einthoven(session: Session) -> None:
    for device in DEVICES:
        hum = replace(device, **{**QUIET, "hum_uv": 200.0}, step_uv=0.5)
        signal = through(hum, session, np.zeros((8, round(12 * device.rate_hz))))
        power = np.abs(np.fft.rfft(signal, axis=1)) ** 2
        peak = np.argmax(power[:, 20:], axis=1) + 20
        assert set(np.rint(peak / 10)) == {device.mains_hz}
    # any electrode noise: III = II - I is the potential of LL against LA, without RA
    assert LEADS_OF_ELECTRODES[1, 0] - LEADS_OF_ELECTRODES[0, 0] == 0
    np.testing.assert_allclose(LEADS_OF_ELECTRODES.sum(axis=1), 0, atol=1e-12)  # a common potential is invisible


@pytest.mark.parametrize("kind", ["white_uv", "pink_uv", "emg_uv", "wander_uv"])
def test_noise_has_the_level_asked_for(kind: str, session: Session) -> None:
    calm = replace(session, tremor=1.0, breath_depth=1.0)
    open_band = replace(
        DEVICES[0], **{**QUIET, kind: 100.0}, highpass_hz=0.001, lowpass_hz=250.0, lowpass_order=8, step_uv=0.1
    )
    levels = [
        through(open_band, calm, np.zeros((8, 6000)), seed)[0].std() for seed in range(60)
    ]  # lead I: two electrodes, each 100 uV rms, ln SD 0.4 between electrodes for muscle
    rms = 1000 * np.sqrt(np.mean(np.square(levels)))
    expected = 100 * np.sqrt(2) * (np.exp(0.4**2) if kind == "emg_uv" else 1)
    assert rms == pytest.approx(expected, rel=0.25)


def test_a_band_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 < highpass < lowpass"):
        replace(DEVICES[0], lowpass_hz=300.0)
