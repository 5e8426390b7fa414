"""Held-out measures against their definitions and at their extremes."""

from math import exp, log

import pytest
import torch
from torch import Tensor, nn

from capezoo import encoders, objectives
from capezoo.specs import EncoderSpec, ObjectiveSpec
from capezoo.training import monitor


def embeddings(n: int = 12, dim: int = 5) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_alignment_is_the_mean_squared_distance_of_neighbours() -> None:
    z = embeddings()
    unit = [[x / sum(v * v for v in row) ** 0.5 for x in row] for row in z.tolist()]
    pairs = [sum((a - b) ** 2 for a, b in zip(unit[i], unit[i + 1], strict=True)) for i in range(0, 12, 2)]
    assert monitor.alignment(z) == pytest.approx(sum(pairs) / 6)
    assert monitor.alignment(torch.tensor([[1.0, 0.0], [2.0, 0.0]])) == 0
    assert monitor.alignment(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(4)


def test_uniformity_is_the_log_mean_potential() -> None:
    z = embeddings()
    unit = [[x / sum(v * v for v in row) ** 0.5 for x in row] for row in z.tolist()]
    potentials = [
        exp(-2 * sum((a - b) ** 2 for a, b in zip(unit[i], unit[j], strict=True))) for i in range(12) for j in range(i)
    ]
    assert monitor.uniformity(z) == pytest.approx(log(sum(potentials) / len(potentials)))
    assert monitor.uniformity(torch.ones(6, 3)) == pytest.approx(0)


def test_effective_rank_at_its_extremes() -> None:
    assert monitor.effective_rank(torch.eye(7)) == pytest.approx(7)
    assert monitor.effective_rank(torch.ones(9, 4)) == pytest.approx(1, abs=1e-3)
    assert monitor.effective_rank(torch.zeros(9, 4)) == 0
    assert monitor.effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        exp(-(0.75 * log(0.75) + 0.25 * log(0.25)))
    )


class Constant(nn.Module):
    """An encoder that has collapsed: two live units of four, equal for all."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 0.0, 2.0]).expand(len(x), 4)


def test_a_collapsed_encoder_shows_in_every_number() -> None:
    objective = objectives.build(ObjectiveSpec(), 4, seed=0)
    batches = [monitor.ViewedBatch("a", torch.zeros(5, 2, 8, 64)), monitor.ViewedBatch("b", torch.zeros(3, 2, 8, 64))]
    held_out = monitor.measure(Constant(), objective, batches)
    assert held_out is not None
    assert held_out.loss == pytest.approx((5 * log(9) + 3 * log(5)) / 8)
    assert held_out.bound == pytest.approx(held_out.loss)
    assert held_out.loss_per_cohort == pytest.approx({"a": log(9), "b": log(5)})
    assert held_out.alignment == pytest.approx(0, abs=1e-9)
    assert held_out.uniformity == pytest.approx(0, abs=1e-6)
    assert held_out.effective_rank == pytest.approx(1, abs=1e-3)
    assert held_out.dead_units == 2


def test_measuring_leaves_the_model_as_it_was() -> None:
    spec = EncoderSpec(config={"widths": [4], "embedding_dim": 4, "dropout": 0.5})
    encoder, objective = encoders.build(spec, 0), objectives.build(ObjectiveSpec(), 4, 0)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    signal = torch.randn(6, 2, 8, 128, generator=torch.Generator().manual_seed(0))
    first = monitor.measure(encoder, objective, [monitor.ViewedBatch("a", signal)])
    again = monitor.measure(encoder, objective, [monitor.ViewedBatch("a", signal)])
    assert first == again  # no dropout, no batch statistics
    assert encoder.training
    assert objective.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder._forward_hooks


def test_nothing_held_out_gives_nothing() -> None:
    assert monitor.measure(Constant(), objectives.build(ObjectiveSpec(), 4, 0), []) is None
