"""Signatures are what they say they are, and both ways to put one on a recording agree."""

from dataclasses import replace

import numpy as np
import pytest

import ecgcohorts as ec
from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.artefact.signatures import KINDS, RENDERINGS, Signature
from capezoo.evaluate.artefact.spectra import device_amplitudes
from ecgcohorts.errors import RecipeMismatch, SpecError

RATE_HZ = 500.0
SHAPE = (8, 5000)
FIRST, SECOND = b"first recording", b"second recording"
ECG = np.cumsum(np.random.Generator(np.random.PCG64(3)).normal(0, 0.02, SHAPE), axis=1)  # mV, of all frequencies


def power_above(signal_mv, hz):
    """Mean power of (lead, time) above a frequency."""
    # Without a window the step from its end to its beginning would be most of what a wandering signal has up there.
    density = np.abs(np.fft.rfft(signal_mv * np.hanning(signal_mv.shape[1]))) ** 2
    return density[:, np.fft.rfftfreq(signal_mv.shape[1], 1 / RATE_HZ) > hz].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_no_strength_changes_nothing(kind):
    for device in range(len(RENDERINGS)):
        np.testing.assert_array_equal(Signature(kind, 0, 1).applied(ECG, RATE_HZ, device, FIRST), ECG)


@pytest.mark.parametrize("kind", KINDS)
def test_every_device_leaves_another_signature_and_the_same_one_again(kind):
    signature = Signature(kind, 200, 1)
    made = [signature.applied(ECG, RATE_HZ, device, FIRST) for device in range(len(RENDERINGS))]
    for one, device in zip(made, range(len(RENDERINGS)), strict=True):
        np.testing.assert_array_equal(one, signature.applied(ECG, RATE_HZ, device, FIRST))
    for one in range(len(made)):
        for other in range(one):
            assert np.abs(made[one] - made[other]).max() > 0.002


@pytest.mark.parametrize("kind", ["tone", "noise"])
def test_draws_are_those_of_seed_recording_and_use(kind):
    first = Signature(kind, 100, 1).added(SHAPE, RATE_HZ, 0, FIRST)
    for other in (
        Signature(kind, 100, 2).added(SHAPE, RATE_HZ, 0, FIRST),
        Signature(kind, 100, 1).added(SHAPE, RATE_HZ, 0, SECOND),
        Signature(kind, 100, 1).added(SHAPE, RATE_HZ, 0, FIRST, "on top"),
    ):
        assert np.abs(first - other).max() > 0.05
    np.testing.assert_allclose(2 * first, Signature(kind, 200, 1).added(SHAPE, RATE_HZ, 0, FIRST), atol=1e-12)


@pytest.mark.parametrize(("device", "hz"), list(enumerate([35, 50, 65, 80, 43])))
def test_a_tone_stands_at_its_frequency_with_its_amplitude(device, hz):
    tone = Signature("tone", 200, 5).added(SHAPE, RATE_HZ, device, FIRST)
    amplitude = np.abs(np.fft.rfft(tone)) * 2 / SHAPE[1]
    assert (np.fft.rfftfreq(SHAPE[1], 1 / RATE_HZ)[amplitude.argmax(axis=1)] == hz).all()
    assert (amplitude.max(axis=1) > 0.2 * 0.8 - 1e-3).all()
    assert (amplitude.max(axis=1) < 0.2 * 1.2 + 1e-3).all()


@pytest.mark.parametrize(("device", "slope"), list(enumerate([-1, 0, 1, 2, -2])))
def test_noise_has_its_power_and_its_colour(device, slope):
    noise = np.concatenate([Signature("noise", 200, seed).added(SHAPE, RATE_HZ, device, FIRST) for seed in range(8)])
    np.testing.assert_allclose(noise.std(axis=1), 0.2 / np.sqrt(2), rtol=1e-9)
    hz, density = np.fft.rfftfreq(SHAPE[1], 1 / RATE_HZ), (np.abs(np.fft.rfft(noise)) ** 2).mean(axis=0)
    low, high = (density[(hz > middle - 2) & (hz < middle + 2)].mean() for middle in (20, 80))
    # Of 64 leads and 39 frequencies a mean power is known to 2 %.
    assert np.log(low / high) / np.log(4) == pytest.approx(slope, abs=0.1)
    assert density[hz > 101].max() < 1e-9 * density.max()


@pytest.mark.parametrize("strength_uv", [100, 200, 400])
def test_a_band_edge_takes_out_its_share_above_the_corner(strength_uv):
    share = min(strength_uv / 200, 1)
    for device, corner in enumerate([90, 65, 45, 30, 37]):
        cut = Signature("band_edge", strength_uv, 1).applied(ECG, RATE_HZ, device, FIRST)
        # The power that is left is the square of the amplitude that is left.
        left = power_above(cut, 2.5 * corner) / power_above(ECG, 2.5 * corner)
        assert left == pytest.approx((1 - share) ** 2, abs=0.02)


def test_quantisation_has_its_steps_and_its_gain():
    for device, (step, gain) in enumerate(
        zip([1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 32], [-0.4, -0.1, 0.2, 0.5, 0.8], strict=True)
    ):
        rounded = Signature("quantisation", 200, 1).applied(ECG, RATE_HZ, device, FIRST)
        steps = rounded / (0.2 * step)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
        assert np.abs(rounded - ECG * (1 + 0.2 * gain)).max() <= 0.2 * step / 2 + 1e-12


def test_an_unknown_kind_is_refused():
    with pytest.raises(SpecError, match=r"found kind 'tune'.*Did you mean"):
        Signature("tune", 100, 1)


@pytest.mark.parametrize("kind", ["tone", "noise"])
def test_a_filtered_store_and_a_raw_one_give_the_same_input(artefact_materials, kind):
    """Adding what was filtered alone is the same as filtering the sum: to one step of 1 uV, ends included."""
    filtered, raw = artefact_materials["filtered"], artefact_materials["raw"]
    np.testing.assert_array_equal(filtered.digest, raw.digest)
    places = np.arange(6)
    for device in range(len(RENDERINGS)):
        signature = Signature(kind, 200, 1)
        for on_top in (None, np.full(6, 2)):
            one = filtered.render(places, np.full(6, device), signature, on_top).astype(int)
            other = raw.render(places, np.full(6, device), signature, on_top).astype(int)
            assert np.abs(one - other).max() <= 1


def test_without_a_signature_a_rendering_is_what_ingest_stored(artefact_materials):
    filtered, raw = artefact_materials["filtered"], artefact_materials["raw"]
    places = np.arange(len(raw))
    rendered = raw.render(places, places % 4, Signature("band_edge", 0, 1))
    np.testing.assert_array_equal(rendered, filtered.strips)


@pytest.mark.parametrize("which", ["filtered", "raw"])
def test_the_notch_takes_out_the_tone_at_its_frequency_and_leaves_the_others(artefact_materials, which):
    material, middle = artefact_materials[which], slice(800, 3200)
    assert (material.notch_hz == 50).all()
    places = np.arange(6)
    for device, hz in enumerate([35, 50, 65, 80, 43]):
        added = material.render(places, np.full(6, device), Signature("tone", 200, 1)).astype(float)
        added -= material.render(places, np.full(6, device), Signature("tone", 0, 1))
        rms_uv = added[:, :, middle].std()
        # A whole tone has 143 uV; the band-pass takes a third off 80 Hz.
        assert rms_uv < 5 if hz == 50 else rms_uv > 90


def test_patients_do_not_stand_in_the_order_of_a_key(artefact_materials):
    one, other = artefact_materials["filtered"], artefact_materials["other key"]
    assert one.fingerprint == other.fingerprint
    assert replace(one, age=one.age + 1).fingerprint != one.fingerprint
    assert len(one) == 36
    assert sorted(map(bytes, one.digest)) == list(map(bytes, one.digest))


def test_fewer_patients_are_the_first_ones(artefact_stores, artefact_materials):
    some = Material.of(ec.open(artefact_stores / "filtered.zarr"), "north", patients=9)
    np.testing.assert_array_equal(some.strips, artefact_materials["filtered"].strips[:9])


def test_mains_are_what_the_caller_or_the_recordings_say(artefact_stores):
    store = ec.open(artefact_stores / "raw.zarr")
    assert (Material.of(store, "north", mains_hz=60).notch_hz == 60).all()
    shown = Material.of(store, "north").notch_hz
    assert set(shown[np.isfinite(shown)]) == {50}


def test_what_a_store_cannot_give_is_refused_with_a_remedy(artefact_stores, artefact_materials):
    for kind in ("band_edge", "quantisation"):
        with pytest.raises(
            RecipeMismatch, match=r"cape-v1, which filters.*ecgcohorts ingest SOURCE STORE --recipe plain-500"
        ):
            artefact_materials["filtered"].render(np.arange(2), [0, 1], Signature(kind, 100, 1))
    store = ec.open(artefact_stores / "filtered.zarr")
    with pytest.raises(RecipeMismatch, match="cape-v1, which filters"):
        Material.of(store, "north", "ecgfounder-1")
    with pytest.raises(RecipeMismatch, match="no lead V3"):
        Material.of(replace_leads(ec.open(artefact_stores / "raw.zarr")), "north")
    with pytest.raises(SpecError, match="no cohort 'nort'"):
        Material.of(store, "nort")


def replace_leads(store):
    """The same store as if its recipe had no V3."""
    recipe = store.recipe
    leads = tuple(lead for lead in recipe.leads if lead != "V3")
    steps = type(recipe.steps[1])(leads=leads)
    return replace(store, manifest=store.manifest.model_copy(update={"recipe": recipe.changed("mine", steps)}))


def test_amplitudes_of_own_devices_are_those_of_the_tones_they_hold(artefact_materials):
    """Two devices: one hums 40 uV at 50 Hz, the other 12 uV at 35 and 80 Hz."""
    material = artefact_materials["filtered"]
    time_s = np.arange(4000) / 400
    first = 40 * np.sin(2 * np.pi * 50 * time_s)
    second = 12 * (np.sin(2 * np.pi * 35 * time_s) + np.cos(2 * np.pi * 80 * time_s))
    device = np.arange(36) % 3
    waves = np.stack([first, second, first])[device]
    strips = np.repeat(np.rint(waves)[:, None], 8, axis=1).astype(np.int16)
    made = replace(
        material, strips=strips, device=np.where(device == 2, -1, device), devices=("hum", "other", "absent")
    )
    found = device_amplitudes(made, least=12)
    assert list(found) == ["hum", "other"]
    np.testing.assert_allclose(found["hum"], [0, 40, 0, 0], atol=0.5)
    np.testing.assert_allclose(found["other"], [12, 0, 0, 12], atol=0.5)
    assert device_amplitudes(made, least=13) == {}
