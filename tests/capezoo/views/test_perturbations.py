"""What each perturbation does, in numbers: amplitudes in mV, frequencies in Hz, leads that stay consistent; and its peer."""

from math import cos, pi, radians, sin
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal as dsp
from scipy import stats

from capezoo import views
from capezoo.specs import InputSpec, ViewSpec
from capezoo.views import axis_rotation
from ecgcohorts.errors import SpecError
from ecgcohorts.leads import TWELVE_LEADS, select

TWELVE = InputSpec(recipe="plain-240")  # twelve leads, 600 samples
N = 64


def perturbed(name: str, signal: torch.Tensor, of: InputSpec = TWELVE, seed: int = 0, **config: Any) -> torch.Tensor:
    chain = views.build([ViewSpec(name=name, config=config)], of)
    return views.apply(chain, signal, views.draw(chain, tuple(signal.shape), torch.Generator().manual_seed(seed)))


def added(name: str, of: InputSpec = TWELVE, n: int = N, **config: Any) -> torch.Tensor:
    """What a view adds to silence: (view, lead, time) in mV."""
    return perturbed(name, torch.zeros(n, 2, len(of.leads), of.length), of, **config).flatten(0, 1)


def beats(n: int = 4, of: InputSpec = TWELVE) -> torch.Tensor:
    """Windows with leads as a recording has them: 2 mV high, noise in I, II and the chest leads."""
    eight = np.random.default_rng(0).normal(0, 0.5, (8, n * 2 * of.length))
    leads = select(eight, ("I", "II", *TWELVE_LEADS[6:]), of.leads)
    return torch.from_numpy(leads).float().unflatten(1, (n, 2, of.length)).permute(1, 2, 0, 3).contiguous()


@pytest.mark.parametrize("name", ["gaussian_noise", "baseline_wander", "mains_hum", "axis_rotation"])
def test_limb_leads_still_follow_from_each_other(name: str) -> None:
    out = perturbed(name, beats())
    assert not torch.equal(out, beats())
    i, ii, iii, avr, avl, avf = out.unbind(2)[:6]
    for found, expected in ((iii, ii - i), (avr, -(i + ii) / 2), (avl, i - ii / 2), (avf, ii - i / 2)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gaussian_noise", "baseline_wander", "mains_hum"])
def test_millivolts_are_added_to_millivolts_alone(name: str) -> None:
    with pytest.raises(SpecError, match=f"view {name} adds millivolts: found windows with normalisation window_z, exp"):
        added(name, TWELVE.model_copy(update={"normalisation": "window_z"}))


def test_white_noise_has_its_deviation_and_no_colour() -> None:
    noise = added("gaussian_noise", std_mv=(0.03, 0.03))
    independent = noise[:, [0, 1, *range(6, 12)]]
    assert stats.kstest(independent.flatten().numpy(), stats.norm(0, 0.03).cdf).pvalue > 1e-3
    assert noise[:, 2].std().item() == pytest.approx(0.03 * 2**0.5, rel=0.01)  # III is II - I
    power = dsp.periodogram(independent.flatten(0, 1).numpy())[1][:, 1:-1].mean(0)
    assert power.max() < 1.3 * power.mean()
    weak = added("gaussian_noise", std_mv=(0.0, 0.02))[:, 0].std(-1)
    assert stats.kstest(weak.numpy(), stats.uniform(0, 0.02).cdf).pvalue > 1e-3


def test_wander_is_slow_and_as_high_as_said() -> None:
    one = added("baseline_wander", lead_deviation=0.0, waves=1, amplitude_mv=(0.4, 0.4), hz=(0.5, 2.0))
    assert one.abs().max().item() == pytest.approx(0.4, abs=1e-3)
    assert torch.equal(one[:, 0], one[:, 7])
    many = added("baseline_wander", InputSpec(recipe="plain-240", length=2400)).double().numpy()
    hz, power = dsp.periodogram(many, 240, window="hann")
    assert power[..., hz <= 0.5].sum() > 0.999 * power.sum()


def test_hum_has_the_frequencies_of_the_mains() -> None:
    found = added("mains_hum", amplitude_mv=(0.2, 0.2)).double().numpy()[:, 0]
    hz, power = dsp.periodogram(found, 240)
    top = hz[power.argmax(-1)]
    assert set(top.round().tolist()) == {50, 60}
    assert stats.binomtest(int((top < 55).sum()), 2 * N, 0.5).pvalue > 1e-3
    assert np.abs(found).max() == pytest.approx(0.2, rel=0.05)
    with pytest.raises(SpecError, match="found a hum of 60 Hz, expected less than half the rate of the window, 50 Hz"):
        added("mains_hum", InputSpec(recipe="plain-100"))


def test_spans_of_leads_are_a_second_long_and_lie_apart() -> None:
    zero = added_to_ones("lead_spans", InputSpec(recipe="plain-100", length=1000), probability=1.0) == 0
    assert (zero.sum(-1) == 100).all()  # of 1000 points, OpenECG
    assert ((zero[..., 1:] != zero[..., :-1]).sum(-1) <= 2).all()
    starts = zero.int().argmax(-1)
    assert stats.kstest(starts.flatten().numpy() / 900, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(starts[:, 0], starts[:, 1])[0, 1]) < 4 / (2 * N) ** 0.5
    some = added_to_ones("lead_spans", TWELVE).eq(0).any(-1)
    assert stats.binomtest(int(some.sum()), some.numel(), 0.5).pvalue > 1e-3
    with pytest.raises(SpecError, match="view lead_spans: found a span of 720 samples in a window of 600"):
        added_to_ones("lead_spans", TWELVE, seconds=(1.0, 3.0))


def added_to_ones(name: str, of: InputSpec, **config: Any) -> torch.Tensor:
    return perturbed(name, torch.ones(N, 2, len(of.leads), of.length), of, **config).flatten(0, 1)


def test_a_crop_is_a_line_of_time_within_the_window() -> None:
    """Of a ramp, the view is the place that was read."""
    ramp = torch.arange(600.0).expand(N, 2, 12, 600)
    places = perturbed("crop_resize", ramp)[:, :, 0]
    step = places.diff(dim=-1)
    torch.testing.assert_close(step, step[..., :1].expand_as(step), rtol=0, atol=1e-3)
    assert stats.kstest(step[..., 0].flatten().numpy(), stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3
    assert places.min() >= 0
    assert places.max() <= 599
    assert torch.equal(perturbed("crop_resize", ramp, share=(1.0, 1.0)), ramp)
    with pytest.raises(SpecError, match="parts above 0, and at most 1"):
        perturbed("crop_resize", ramp, share=(0.5, 1.5))


def test_warped_time_runs_forwards_from_end_to_end() -> None:
    ramp = torch.arange(600.0).expand(N, 2, 12, 600)
    places = perturbed("time_warp", ramp)[:, :, 0]
    assert (places.diff(dim=-1) > 0).all()
    assert torch.equal(places[..., 0], torch.zeros(N, 2))
    torch.testing.assert_close(places[..., -1], torch.full((N, 2), 599.0))
    assert 10 < (places - torch.arange(600.0)).abs().amax(-1).mean() < 60  # at 240 Hz 40 to 250 ms
    torch.testing.assert_close(perturbed("time_warp", ramp, strength=0.0), ramp, rtol=0, atol=1e-3)


def test_a_permutation_moves_whole_parts() -> None:
    ramp = torch.arange(602.0).expand(N, 2, 12, 602)
    source = perturbed("permutation", ramp, InputSpec(recipe="plain-240", length=602))[:, :, 3]
    assert torch.equal(source.sort(-1).values, ramp[:, :, 0])
    assert ((source.diff(dim=-1) != 1).sum(-1) <= 3).all()
    moved = (source != ramp[:, :, 0]).any(-1)
    assert stats.binomtest(int(moved.sum()), 2 * N, 0.5 * 23 / 24).pvalue > 1e-3  # one order in 24 is the old one
    assert set(source[..., 0].flatten().tolist()) == {0, 151, 301, 452}


def test_a_flip_turns_all_leads() -> None:
    found = perturbed("sign_flip", beats(N)) / beats(N)
    assert (found == found[:, :, :1, :1]).all()
    assert stats.binomtest(int((found[:, :, 0, 0] < 0).sum()), 2 * N, 0.5).pvalue > 1e-3


def test_rotation_by_hand() -> None:
    """Three matrices written out, for a dipole as Dower's leads see it: axes to leads is the inverse's pseudo-inverse."""
    inverse = axis_rotation._INVERSE_DOWER.numpy()
    dower = np.linalg.pinv(inverse)
    a, b, c = radians(30), radians(-20), radians(45)
    about_x = np.array([[1, 0, 0], [0, cos(a), -sin(a)], [0, sin(a), cos(a)]])
    about_y = np.array([[cos(b), 0, sin(b)], [0, 1, 0], [-sin(b), 0, cos(b)]])
    about_z = np.array([[cos(c), -sin(c), 0], [sin(c), cos(c), 0], [0, 0, 1]])
    turned = axis_rotation._rotation(torch.tensor([a, b, c], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(turned, about_z @ about_y @ about_x, atol=1e-12)
    heart = np.random.default_rng(1).normal(size=(3, 600))
    of = InputSpec(recipe="cape-v1", length=600)
    seen = torch.from_numpy(dower @ heart).float().expand(2, 2, 8, 600)
    largest = perturbed("axis_rotation", seen, of, degrees=0.0, scale=(1.25, 1.25))
    torch.testing.assert_close(largest, 1.25 * seen, rtol=0, atol=1e-4)
    lengths = [np.linalg.norm(inverse @ lead, axis=0) for lead in (seen[0, 0].numpy(),
               *perturbed("axis_rotation", seen, of, scale=(1.0, 1.0)).flatten(0, 1).numpy())]  # fmt: skip
    for length in lengths[1:]:
        np.testing.assert_allclose(length, lengths[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(SpecError, match="needs I, II and V1 to V6 on one scale: found no V1, V2, V3, V4, V5, V6"):
        perturbed("axis_rotation", seen, InputSpec(leads=("I", "II")))
    with pytest.raises(SpecError, match="on one scale: found normalisation window_lead_z"):
        perturbed("axis_rotation", seen, InputSpec(normalisation="window_lead_z"))


def test_equal_to_ecg_augmentations(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our draws in place of theirs. Their axes are Kors's, so ours are put in; their hum is set by its power."""
    peer = pytest.importorskip("ecg_augmentations")
    from ecg_augmentations import ops
    from ecg_augmentations.augmentations import leads, noise

    signal = beats()[:, 0]
    both = beats()
    for name in ("crop_resize", "time_warp"):
        places = perturbed(name, torch.arange(600.0).expand(4, 2, 12, 600))[:, 0, :1]
        torch.testing.assert_close(perturbed(name, both)[:, 0], ops.interp(signal, places), rtol=0, atol=2e-3)

    chain = views.build([ViewSpec(name="axis_rotation")], TWELVE)
    draws: list[torch.Tensor] = []
    real = axis_rotation.uniform
    monkeypatch.setattr(axis_rotation, "uniform", lambda *of: draws.append(real(*of)) or draws[-1])
    ours = views.apply(chain, both, views.draw(chain, tuple(both.shape), torch.Generator().manual_seed(0)))[:, 0]
    theirs = iter([draws[0][:, 0] * 180 / pi, draws[1][:, 0]])
    monkeypatch.setattr(leads, "KORS", axis_rotation._INVERSE_DOWER.tolist())
    monkeypatch.setattr(leads, "uniform", lambda *of: next(theirs))
    torch.testing.assert_close(ours, peer.VCGRotation(angle=45, scale=(1, 1.5))(signal), rtol=0, atol=1e-5)

    (drawn,) = views.draw(views.build([ViewSpec(name="baseline_wander")], TWELVE), (4, 2, 12, 600), torch.Generator())
    ones = torch.ones(4, 12, 1)
    numbers = []
    for wave in range(3):
        hz, phase, amplitude = (drawn[key][:, 0, wave, None, None] for key in ("hz", "phase", "amplitude"))
        numbers += [hz, (phase + pi / 2) * ones, 3 * amplitude * drawn["factor"][:, 0, :, None]]
    given = iter(numbers)
    monkeypatch.setattr(noise, "uniform", lambda *of: next(given))
    wander = peer.BaselineWander(240, n_components=3, relative=False)(signal)
    chain = views.build([ViewSpec(name="baseline_wander")], TWELVE)
    torch.testing.assert_close(views.apply(chain, both, [drawn])[:, 0], wander, rtol=0, atol=1e-5)


def test_time_of_a_single_sample_cannot_run_faster() -> None:
    with pytest.raises(SpecError, match="view time_warp: found a window of 1 sample, expected 2 or more"):
        views.build([ViewSpec(name="time_warp")], TWELVE.model_copy(update={"length": 1}))


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("axis_rotation", "scale"),
        ("baseline_wander", "amplitude_mv"),
        ("gain", "range"),
        ("gaussian_noise", "std_mv"),
        ("lead_spans", "seconds"),
        ("mains_hum", "amplitude_mv"),
    ],
)
def test_numbers_that_float32_has_no_room_for_are_refused(name: str, setting: str) -> None:
    """They would make infinities of a window; a span of 1e308 s overflowed Python's own integers."""
    with pytest.raises(SpecError, match=rf"view {name}: .*give 0 <=? lowest <= highest <= 1e\+06"):
        views.build([ViewSpec(name=name, config={setting: [1e308, 1e308]})], TWELVE)
