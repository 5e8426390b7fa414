"""Perturbations: how often, how long, where, and that a draw repeats."""

import numpy as np
import pytest
import torch
from scipy import stats

from capezoo import views
from capezoo.specs import InputSpec, ViewSpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

LENGTH = 2800
N = 20_000  # views drawn
NAMES = plugins.names("capezoo.views")


def built(name: str, length: int = LENGTH, **config: object) -> list[views.View]:
    return views.build([ViewSpec(name=name, config=config)], InputSpec(length=length))


def drawn(seed: int = 0, n: int = N, length: int = LENGTH, name: str = "zero_span", **config: object) -> views.Drawn:
    chain = built(name, length, **config)
    return views.draw(chain, (n // 2, 2, 8, length), torch.Generator().manual_seed(seed))[0]


def test_there_are_views() -> None:
    assert {
        *("zero_span", "gain", "lead_mask", "lead_spans", "gaussian_noise", "baseline_wander", "mains_hum"),
        *("axis_rotation", "crop_resize", "time_warp", "permutation", "sign_flip"),
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_view_is_a_pure_function_of_its_draw(name: str) -> None:
    """Config with sources; the same on any rank; input left alone; the global generator too; float32 stays float32."""
    config = plugins.load("capezoo.views", name).Config
    assert config.model_validate_json(config().model_dump_json()) == config()
    assert all(field.description for field in config.model_fields.values())
    with pytest.raises(SpecError, match=f"view {name}: found unknown key 'nonsense'"):
        built(name, nonsense=1)
    chain, shape = built(name), (8, 2, 8, LENGTH)
    before = torch.get_rng_state()
    first, again, other = (views.draw(chain, shape, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    signal = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kept = signal.clone()
    whole = views.apply(chain, signal, first)
    assert torch.equal(signal, kept)
    assert whole.dtype == torch.float32
    assert torch.equal(views.apply(chain, signal, again), whole)
    assert not torch.equal(views.apply(chain, signal, other), whole)
    shares = [views.apply(chain, signal[4 * rank : 4 * rank + 4], views.part(first, rank, 2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(shares), whole)


def test_missing_samples_become_zero_and_the_rest_millivolts() -> None:
    stored = torch.tensor([[[[-32768, -32767, 0, 1000, 32767]]]], dtype=torch.int16)
    signal_mv = InputSpec().scaled(stored, 1.0)
    assert signal_mv.dtype == torch.float32
    torch.testing.assert_close(signal_mv.flatten(), torch.tensor([0.0, -32.767, 0.0, 1.0, 32.767]))
    torch.testing.assert_close(InputSpec().scaled(stored, 4.88).flatten()[3], torch.tensor(4.88))


def test_half_of_the_views_are_masked() -> None:
    spans = drawn()
    masked = int((spans["stop"] > spans["start"]).sum())
    assert stats.binomtest(masked, N, 0.5).pvalue > 1e-3


def test_span_lengths_are_uniform_with_both_ends() -> None:
    spans = drawn(probability=1.0)
    length = (spans["stop"] - spans["start"]).flatten().numpy()
    assert (length.min(), length.max()) == (140, 560)
    counts = np.bincount(length - 140, minlength=421)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_starts_are_uniform_over_all_that_fit() -> None:
    start = drawn(length=100, probability=1.0, samples=(90, 90))["start"].flatten().numpy()
    assert stats.chisquare(np.bincount(start, minlength=11)).pvalue > 1e-3
    assert start.max() == 10


def test_zeroed_samples_are_one_span_on_all_leads_and_nothing_else() -> None:
    signal = torch.full((32, 2, 8, LENGTH), 0.5)
    spans = drawn(n=64)
    out = views.apply(built("zero_span"), signal, [spans])
    zero = out == 0
    assert (zero == zero[:, :, :1]).all()  # the same on all leads
    assert (zero[:, :, 0].sum(-1) == spans["stop"] - spans["start"]).all()
    assert ((zero[:, :, 0, 1:] != zero[:, :, 0, :-1]).sum(-1) <= 2).all()  # contiguous
    assert (out[~zero] == 0.5).all()
    assert (signal == 0.5).all()  # the input is left as it was


def test_the_two_views_of_a_patient_are_drawn_apart() -> None:
    spans = drawn(probability=1.0)
    correlation = np.corrcoef(spans["start"][:, 0], spans["start"][:, 1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(N / 2)


def test_ranks_share_one_draw() -> None:
    whole = [drawn(n=64)]
    parts = [views.part(whole, rank, 4)[0] for rank in range(4)]
    for edge in ("start", "stop"):
        assert torch.equal(torch.cat([part[edge] for part in parts]), whole[0][edge])
    with pytest.raises(ValueError, match="32 groups cannot be shared by 3 ranks"):
        views.part(whole, 0, 3)


def test_a_span_longer_than_the_window_is_refused() -> None:
    with pytest.raises(SpecError, match="view zero_span: found a span of 560 samples in a window of 500"):
        built("zero_span", 500)
    built("zero_span", 500, probability=0.0)
    with pytest.raises(SpecError, match="give 0 < shortest <= longest"):
        built("zero_span", samples=(5, 4))


def test_gain_is_log_uniform() -> None:
    gain = drawn(name="gain", range=(0.5, 2.0))["gain"]
    assert stats.kstest(gain.log2().flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    signal = torch.ones(N // 2, 2, 1, 1)
    torch.testing.assert_close(views.apply(built("gain"), signal, [{"gain": gain}])[..., 0, 0], gain)
    with pytest.raises(SpecError, match="give 0 < lowest <= highest"):
        built("gain", range=(2.0, 1.0))


def test_leads_are_masked_each_by_itself() -> None:
    """Half of 8: the number of masked leads is binomial."""
    masked = drawn(name="lead_mask")["masked"]
    counts = np.bincount(masked.sum(-1).flatten().numpy(), minlength=9)
    assert stats.chisquare(counts, stats.binom(8, 0.5).pmf(np.arange(9)) * N).pvalue > 1e-3
    signal = torch.ones(4, 2, 8, 5)
    out = views.apply(built("lead_mask"), signal, [{"masked": masked[:4]}])
    assert torch.equal(out == 0, masked[:4, :, :, None].expand(-1, -1, -1, 5))


def test_views_follow_each_other_from_one_generator() -> None:
    """As they did when span and gain were one draw: a saved run has the same numbers."""
    chain = views.build([ViewSpec(name="zero_span"), ViewSpec(name="gain", config={"range": (0.5, 2.0)})], InputSpec())
    span, gain = views.draw(chain, (6, 2, 8, LENGTH), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    masked = torch.rand((6, 2), generator=generator) < 0.5
    length = torch.randint(140, 561, (6, 2), generator=generator)
    start = (torch.rand((6, 2), generator=generator, dtype=torch.float64) * (LENGTH - length + 1)).long()
    assert torch.equal(span["start"], start)
    assert torch.equal(span["stop"], torch.where(masked, start + length, start))
    low, high = np.log(0.5), np.log(2.0)
    assert torch.equal(gain["gain"], (low + (high - low) * torch.rand((6, 2), generator=generator)).exp())


def test_a_gain_of_its_own_for_each_lead() -> None:
    chain, signal = built("gain", per_lead=True, range=(0.33, 3.0)), torch.ones(4, 2, 8, 5)
    gain = views.draw(chain, tuple(signal.shape), torch.Generator().manual_seed(0))[0]["gain"]
    assert gain.shape == (4, 2, 8)
    assert torch.equal(views.apply(chain, signal, [{"gain": gain}]), gain[..., None].expand(-1, -1, -1, 5))
