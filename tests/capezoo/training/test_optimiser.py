"""Each kind of update and each schedule against another implementation, or written out in float64."""

from math import cos, pi, sqrt

import numpy as np
import pytest
import torch
from torch import nn

from capezoo.specs import OptimiserSpec
from capezoo.training.optimiser import Optimiser, build
from ecgcohorts.errors import SpecError

CPU = torch.device("cpu")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()


def gradients(model: nn.Module, step: int) -> None:
    """The same for both sides, and small enough at times that epsilon matters."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        scale = 10.0 ** torch.randint(-8, 1, (1,), generator=generator).item()
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def moved(spec: OptimiserSpec, steps: int = 12) -> nn.Module:
    model = network()
    ours = Optimiser(model.named_parameters(), spec, CPU)
    for step in range(steps):
        gradients(model, step)
        ours.at_step(ours.torch.param_groups, step, steps)
        ours.torch.step()
    return model


def of(spec: OptimiserSpec) -> Optimiser:
    return Optimiser(network().named_parameters(), spec, CPU)


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    for (name, mine), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_torchs_form_is_torchs_own_with_its_own_scheduler(kind: str) -> None:
    values = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.05}
    found = moved(OptimiserSpec(kind=kind, epsilon="torch", **values))
    model = network()
    theirs = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](model.parameters(), **values)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=12)
    for step in range(12):
        gradients(model, step)
        theirs.step()
        schedule.step()
    assert_same(found, model)


def test_kerass_form_is_kerass_update_written_out() -> None:
    """keras.optimizers.Adam.update_step: alpha = lr sqrt(1 - b2^t) / (1 - b1^t); w -= m alpha / (sqrt(v) + eps)."""
    spec = OptimiserSpec(lr=0.01, schedule="constant", eps=1e-3)
    found, model = moved(spec), network()
    b1, b2 = spec.betas
    weights = [parameter.detach().numpy().copy() for parameter in model.parameters()]
    m, v = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for step in range(12):
        gradients(model, step)
        alpha = spec.lr * sqrt(1 - b2 ** (step + 1)) / (1 - b1 ** (step + 1))
        for i, parameter in enumerate(model.parameters()):
            gradient = parameter.grad.numpy()
            m[i] += (gradient - m[i]) * (1 - b1)
            v[i] += (gradient**2 - v[i]) * (1 - b2)
            weights[i] -= m[i] * alpha / (np.sqrt(v[i]) + spec.eps)
    for mine, theirs in zip(found.parameters(), weights, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-9, atol=1e-12)
    torchs = moved(spec.model_copy(update={"epsilon": "torch"}))
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(found.parameters(), torchs.parameters(), strict=True))


def test_lars_is_the_update_written_out() -> None:
    """Algorithm 1 of the paper, and optax.lars: decay is added first, trust |w| / |g + decay w| on matrices, the rate stands
    inside the velocity; vectors take plain steps of momentum."""
    spec = OptimiserSpec(kind="lars", lr=0.2, weight_decay=0.01, momentum=0.8, trust=0.02)
    found, model = moved(spec), network()
    weights = [parameter.detach().numpy().copy() for parameter in model.parameters()]
    velocity = [np.zeros_like(weight) for weight in weights]
    for step in range(12):
        gradients(model, step)
        lr = 0.1 * (1 + cos(pi * step / 12))
        for i, parameter in enumerate(model.parameters()):
            update = parameter.grad.numpy().copy()
            if update.ndim > 1:
                update += 0.01 * weights[i]
                update *= 0.02 * np.linalg.norm(weights[i]) / np.linalg.norm(update)
            velocity[i] = 0.8 * velocity[i] + lr * update
            weights[i] -= velocity[i]
    for mine, theirs in zip(found.parameters(), weights, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-9, atol=1e-12)


def test_lars_takes_zero_weights_and_zero_gradients() -> None:
    model = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(model.weight)
    ours = Optimiser(model.named_parameters(), OptimiserSpec(kind="lars", lr=0.5), CPU)
    for gradient in (torch.zeros(2, 3), torch.ones(2, 3)):
        model.weight.grad = gradient
        ours.torch.step()
        assert torch.isfinite(model.weight).all()
    assert model.weight.abs().sum() > 0


def test_half_cosine_equals_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    for spec in (OptimiserSpec(), OptimiserSpec(lr=0.1, final_lr=0.01)):
        optimiser = torch.optim.Adam([parameter], lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=50, eta_min=spec.final_lr)
        for step in range(50):
            assert of(spec).rate(step, 50) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
            optimiser.step()
            schedule.step()


def test_warmup_rises_to_the_peak_and_the_cosine_follows() -> None:
    spec = OptimiserSpec(lr=1.0, warmup_steps=4)
    rates = [of(spec).rate(step, 12) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    constant = OptimiserSpec(lr=1.0, warmup_steps=2, schedule="constant")
    assert [of(constant).rate(step, 5) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_weight_decay_is_constant_or_goes_along_half_a_cosine() -> None:
    assert of(OptimiserSpec(weight_decay=0.3)).decay(7, 10) == 0.3
    spec = OptimiserSpec(weight_decay=0.01, final_weight_decay=0.1)
    found = [of(spec).decay(step, 10) for step in (0, 5, 10)]
    assert found == pytest.approx([0.01, 0.055, 0.1])


def test_rates_by_the_longest_beginning_and_decay_on_matrices_only() -> None:
    factors = {"0.": 0.1, "0.bias": 0.5, "2": 0.0}
    spec = OptimiserSpec(lr=1.0, schedule="constant", weight_decay=0.2, decay_only_matrices=True, rate_factors=factors)
    model = network()
    model[2].bias.requires_grad_(False)
    ours = Optimiser(model.named_parameters(), spec, CPU)
    ours.at_step(ours.torch.param_groups, 0, 1)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in ours.torch.param_groups for p in group["params"]}
    names = {name: found.get(id(p)) for name, p in model.named_parameters()}
    assert names == {
        "0.weight": (0.1, 0.2), "0.bias": (0.5, 0.0), "1.weight": (1.0, 0.0), "1.bias": (1.0, 0.0),
        "2.weight": (0.0, 0.2), "2.bias": None,
    }  # fmt: skip


def test_a_factor_for_no_parameter_is_refused() -> None:
    names = ["encoder.stem.weight", "objective.head.0.weight"]
    OptimiserSpec(rate_factors={"encoder.": 0.1, "objective.head.0": 0.5}).require_fitting(names)
    with pytest.raises(SpecError, match=r"begins with 'encodr'. Names begin with encoder.stem, objective.head."):
        OptimiserSpec(rate_factors={"encoder": 0.1, "encodr": 0.1}).require_fitting(names)


@pytest.mark.parametrize("kind", ["adam", "adamw", "lars"])
def test_a_saved_state_goes_on_with_the_same_bits(kind: str) -> None:
    spec = OptimiserSpec(kind=kind, lr=0.1, weight_decay=0.01, rate_factors={"0.": 0.5})
    whole, model = moved(spec), network()
    ours = Optimiser(model.named_parameters(), spec, CPU)
    for step in range(12):
        if step == 6:
            state = ours.torch.state_dict()
            assert all("params" in group and "kind" not in group for group in state["param_groups"])
            ours = Optimiser(model.named_parameters(), spec, CPU)
            ours.torch.load_state_dict(state)
        gradients(model, step)
        ours.at_step(ours.torch.param_groups, step, 12)
        ours.torch.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_a_built_optimiser_takes_kerass_first_step_by_itself() -> None:
    """From zero with gradient 1e-7, rate 0.1 and epsilon 1e-7: torch's form would step 3 times as far or more."""
    steps = {}
    for epsilon in ("keras", "torch"):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.double))
        adam = build([weight], OptimiserSpec(lr=0.1, epsilon=epsilon), CPU)
        weight.grad = torch.full((1,), 1e-7, dtype=torch.double)
        adam.step()
        steps[epsilon] = weight.item()
    mean, square = 0.1 * 1e-7, 0.001 * 1e-14
    assert steps["keras"] == pytest.approx(-0.1 * sqrt(0.001) / 0.1 * mean / (sqrt(square) + 1e-7), rel=1e-9)
    assert steps["torch"] == pytest.approx(-0.1 * 1e-7 / (1e-7 + 1e-7), rel=1e-9)
