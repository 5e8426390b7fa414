"""Perturbations: how often, how long, where, and that a draw repeats."""

import numpy as np
import pytest
import torch
from scipy import stats

from capezoo import views
from capezoo.specs import ViewsSpec

LENGTH = 2800
N = 20_000  # views drawn


def drawn(spec: ViewsSpec, seed: int = 0, n: int = N, length: int = LENGTH) -> views.Perturbation:
    return views.draw(spec, (n // 2, 2), length, torch.Generator().manual_seed(seed))


def test_missing_samples_become_zero_and_the_rest_millivolts() -> None:
    stored = torch.tensor([[[[-32768, -32767, 0, 1000, 32767]]]], dtype=torch.int16)
    signal_mv = views.to_mv(stored, lsb_uv=1.0)
    assert signal_mv.dtype == torch.float32
    torch.testing.assert_close(signal_mv.flatten(), torch.tensor([0.0, -32.767, 0.0, 1.0, 32.767]))
    torch.testing.assert_close(views.to_mv(stored, lsb_uv=4.88).flatten()[3], torch.tensor(4.88))


def test_half_of_the_views_are_masked() -> None:
    spans = drawn(ViewsSpec())
    masked = int((spans.stop > spans.start).sum())
    assert stats.binomtest(masked, N, 0.5).pvalue > 1e-3


def test_span_lengths_are_uniform_with_both_ends() -> None:
    spans = drawn(ViewsSpec(mask_probability=1.0))
    length = (spans.stop - spans.start).flatten().numpy()
    assert (length.min(), length.max()) == (140, 560)
    counts = np.bincount(length - 140, minlength=421)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_starts_are_uniform_over_all_that_fit() -> None:
    spec = ViewsSpec(mask_probability=1.0, mask_samples=(90, 90))
    start = drawn(spec, length=100).start.flatten().numpy()
    assert stats.chisquare(np.bincount(start, minlength=11)).pvalue > 1e-3
    assert start.max() == 10


def test_zeroed_samples_are_one_span_on_all_leads_and_nothing_else() -> None:
    signal = torch.full((32, 2, 8, LENGTH), 0.5)
    spans = drawn(ViewsSpec(), n=64)
    out = views.apply(signal, spans)
    zero = out == 0
    assert (zero == zero[:, :, :1]).all()  # the same on all leads
    assert (zero[:, :, 0].sum(-1) == spans.stop - spans.start).all()
    assert ((zero[:, :, 0, 1:] != zero[:, :, 0, :-1]).sum(-1) <= 2).all()  # contiguous
    assert (out[~zero] == 0.5).all()
    assert (signal == 0.5).all()  # the input is left as it was


def test_the_two_views_of_a_patient_are_drawn_apart() -> None:
    spans = drawn(ViewsSpec(mask_probability=1.0))
    correlation = np.corrcoef(spans.start[:, 0], spans.start[:, 1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(N / 2)


def test_same_generator_state_same_draw() -> None:
    first, again, other = drawn(ViewsSpec(), 5), drawn(ViewsSpec(), 5), drawn(ViewsSpec(), 6)
    assert torch.equal(first.start, again.start)
    assert torch.equal(first.stop, again.stop)
    assert not torch.equal(first.start, other.start)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    drawn(ViewsSpec(gain_range=(0.5, 2.0)))
    assert torch.equal(before, torch.get_rng_state())


def test_ranks_share_one_draw() -> None:
    whole = drawn(ViewsSpec(), n=64)
    parts = [whole.part(rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat([part.start for part in parts]), whole.start)
    assert torch.equal(torch.cat([part.stop for part in parts]), whole.stop)
    with pytest.raises(ValueError, match="32 pairs cannot be shared by 3 ranks"):
        whole.part(0, 3)


def test_gain_is_off_by_default_and_log_uniform_when_on() -> None:
    assert drawn(ViewsSpec()).gain is None
    perturbation = drawn(ViewsSpec(gain_range=(0.5, 2.0), mask_probability=0.0))
    logs = perturbation.gain.log2().flatten().numpy()
    assert stats.kstest(logs, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    signal = torch.ones(N // 2, 2, 1, 1)
    torch.testing.assert_close(views.apply(signal, perturbation)[..., 0, 0], perturbation.gain)
