"""S4 against SciPy's linear systems, closed forms, and what causality means."""

import numpy as np
import pytest
import torch
from scipy import signal

from capezoo import encoders
from capezoo.encoders.s4 import StateSpace, _impulse_responses
from capezoo.specs import EncoderSpec
from ecgcohorts.errors import SpecError

SMALL = {"width": 16, "depth": 2, "dropout": 0.0}


def hippo(state: int) -> tuple[np.ndarray, np.ndarray]:
    """LegS, entry by entry."""
    a, b = np.zeros((state, state)), np.zeros((state, 1))
    for n in range(state):
        b[n] = np.sqrt(2 * n + 1)
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -np.sqrt((2 * n + 1) * (2 * k + 1))
    return a, b


def built(**config: object) -> torch.nn.Module:
    return encoders.build(EncoderSpec(name="s4", config=config), seed=0).eval()


@pytest.mark.parametrize(("causal", "whole", "layer"), [(True, 2_932_736, 530_944), (False, 2_949_120, 535_040)])
def test_parameters_are_those_of_the_scaling_study(causal, whole, layer):
    with torch.device("meta"):
        model = encoders.build(EncoderSpec(name="s4", config={"in_leads": 12, "causal": causal}), seed=0)
    assert sum(p.numel() for p in model.parameters()) == whole
    assert sum(p.numel() for p in model.stem.parameters()) == 808_960
    assert sum(p.numel() for p in model.layers[0].parameters()) == layer


def test_a_window_of_the_study_has_300_tokens():
    assert built(**SMALL).tokens(torch.zeros(1, 8, 600)).shape == (1, 300, 16)


def test_the_system_is_hippo():
    """Known eigenvalues of its normal part, for eight states."""
    a, _ = hippo(8)
    p = np.sqrt(np.arange(8) + 0.5)
    values = np.linalg.eigvals(a + np.outer(p, p))
    np.testing.assert_allclose(values.real, -0.5, atol=1e-9)
    np.testing.assert_allclose(
        np.sort(values.imag[values.imag > 0]), [0.427489, 1.957794, 5.354209, 19.857410], atol=1e-6
    )


@pytest.mark.parametrize("step", [0.001, 0.02, 0.1])
def test_impulse_responses_are_those_of_scipy(step):
    a, b = hippo(8)
    ad, bd, *_ = signal.cont2discrete((a, b, np.eye(8), np.zeros((8, 1))), step, method="bilinear")
    found = _impulse_responses(torch.tensor([step], dtype=torch.float64), 8, 301)[0].numpy()
    expected = np.stack([np.linalg.matrix_power(ad, n) @ bd for n in range(301)], axis=-1)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    # SciPy's own simulation gives what is seen one step later: its output precedes the update of the state.
    _, y, _ = signal.dlsim((ad, bd, np.eye(8), np.zeros((8, 1)), step), np.eye(1, 301).T)
    np.testing.assert_allclose(found[:, :-1], y[1:].T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_the_convolution_is_the_recurrence(causal):
    """State by state from the left, and for both directions also from the right, without the token itself."""
    space = StateSpace(3, 4, causal, (0.01, 0.1)).double()
    x = torch.randn(2, 50, 3, dtype=torch.float64)
    a, b = hippo(4)
    expected = (space.skip * x).detach().numpy()
    for channel in range(3):
        step = float(space.log_step[channel].exp())
        inverse = np.linalg.inv(np.eye(4) - step / 2 * a)
        ad, bd = inverse @ (np.eye(4) + step / 2 * a), step * inverse @ b
        for record in range(2):
            u = x[record, :, channel].numpy()
            for direction, order in enumerate([range(50)] if causal else [range(50), range(49, -1, -1)]):
                h, c = np.zeros((4, 1)), space.readout[direction, channel].detach().numpy()
                for t in order:
                    before = float(c @ h[:, 0])
                    h = ad @ h + bd * u[t]
                    expected[record, t, channel] += float(c @ h[:, 0]) if direction == 0 else before
    np.testing.assert_allclose(space(x).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def test_only_a_causal_one_ignores_what_comes_later():
    x = torch.randn(1, 8, 200, generator=torch.Generator().manual_seed(0))
    later = x.clone()
    later[..., 102:] += 1
    for causal in (True, False):
        model = built(**SMALL, causal=causal)
        with torch.no_grad():
            one, other = (model.contextualise(model.tokens(each))[-1] for each in (x, later))
        # Token j sees samples up to 2 j + 1.
        same = torch.isclose(one, other, atol=1e-5).all(-1)[0]
        assert bool(same[:51].all()) is causal
        assert not same[51:].any()


def test_a_longer_window_has_longer_kernels_that_begin_alike():
    space = StateSpace(3, 8, False, (0.001, 0.1))
    short = space.kernel(40)
    long = space.kernel(90)
    torch.testing.assert_close(long[:, :40], short[:, :40])
    torch.testing.assert_close(long[:, -40:], short[:, -40:])
    torch.testing.assert_close(space.kernel(40), short)


def test_weights_bring_the_steps_they_were_made_with():
    """Kernels are kept between calls: those of other weights must go."""
    first, second = StateSpace(3, 8, True, (0.001, 0.1)), StateSpace(3, 8, True, (0.001, 0.1))
    x = torch.randn(1, 30, 3)
    assert not torch.allclose(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    assert first.double().kernel(30).dtype == torch.float64
    assert "log_step" in first.state_dict()


def test_kernels_made_without_autograd_are_trained_through_afterwards():
    space = StateSpace(3, 8, False, (0.001, 0.1))
    with torch.inference_mode():
        space(torch.randn(1, 30, 3))
    space(torch.randn(1, 30, 3)).sum().backward()
    assert space.readout.grad.any()


def test_inner_outputs_are_what_layers_add():
    model = built(**SMALL)
    tokens = model.tokens(torch.randn(2, 8, 60, generator=torch.Generator().manual_seed(0)))
    inner, stages = model.inner_outputs(tokens), model.contextualise(tokens)
    for layer, before, added, after in zip(model.layers, [tokens, *stages], inner, stages, strict=False):
        torch.testing.assert_close(layer.norm(before + added), after)


def test_dropout_takes_a_channel_for_the_whole_sequence():
    layer = encoders.build(EncoderSpec(name="s4", config={**SMALL, "dropout": 0.5}), seed=0).layers[0].train()
    dropped = layer._drop(torch.ones(4, 30, 16))
    gone = dropped == 0
    assert torch.equal(gone.any(1), gone.all(1))
    assert 0 < gone.float().mean() < 1


@pytest.mark.parametrize(
    ("config", "words"),
    [({"kernels": [3, 1]}, "as many kernels as strides"), ({"steps": [0.1, 0.001]}, "from small to large"),
     ({"state": 100_000}, "256")],
)  # fmt: skip
def test_odd_settings_are_refused(config, words):
    with pytest.raises(SpecError, match=words):
        encoders.build(EncoderSpec(name="s4", config=config), seed=0)
