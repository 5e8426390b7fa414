"""Held-out measures against their definitions and at their extremes."""

from math import exp, log

import pytest
import torch
from torch import Tensor, nn

from capezoo import encoders, objectives
from capezoo.objectives._contract import Losses, Needs, Objective, ViewBatch
from capezoo.specs import EncoderSpec, ObjectiveSpec
from capezoo.training import monitor


def embeddings(n: int = 12, dim: int = 5) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_alignment_is_the_mean_squared_distance_of_two_views() -> None:
    z = embeddings()
    unit = [[x / sum(v * v for v in row) ** 0.5 for x in row] for row in z.tolist()]
    pairs = [sum((a - b) ** 2 for a, b in zip(unit[i], unit[i + 1], strict=True)) for i in range(0, 12, 2)]
    assert monitor._alignment(z[::2], z[1::2]) == pytest.approx(sum(pairs) / 6)
    assert monitor._alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])) == 0
    assert monitor._alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[-3.0, 0.0]])) == pytest.approx(4)


def test_uniformity_is_the_log_mean_potential() -> None:
    z = embeddings()
    unit = [[x / sum(v * v for v in row) ** 0.5 for x in row] for row in z.tolist()]
    potentials = [
        exp(-2 * sum((a - b) ** 2 for a, b in zip(unit[i], unit[j], strict=True))) for i in range(12) for j in range(i)
    ]
    assert monitor._uniformity(z) == pytest.approx(log(sum(potentials) / len(potentials)))
    assert monitor._uniformity(torch.ones(6, 3)) == pytest.approx(0)


def test_effective_rank_at_its_extremes() -> None:
    assert monitor._effective_rank(torch.eye(7)) == pytest.approx(7)
    assert monitor._effective_rank(torch.ones(9, 4)) == pytest.approx(1, abs=1e-3)
    assert monitor._effective_rank(torch.zeros(9, 4)) == 0
    assert monitor._effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        exp(-(0.75 * log(0.75) + 0.25 * log(0.25)))
    )


def viewed(cohort: str, signal: Tensor) -> ViewBatch:
    rows = torch.arange(len(signal))
    return ViewBatch(signal, torch.ones(signal.shape[:2]), rows, cohort, 0, 1, torch.Generator().manual_seed(0))


class Constant(nn.Module):
    """An encoder that has collapsed: two live units of four, equal for all."""

    num_features = 4

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 0.0, 2.0]).expand(len(x), 4)


def test_a_collapsed_encoder_shows_in_every_number() -> None:
    objective = objectives.build(ObjectiveSpec(), Constant(), seed=0)
    batches = [viewed("a", torch.zeros(5, 2, 8, 64)), viewed("b", torch.zeros(3, 2, 8, 64))]
    held_out = monitor.HeldOut.measure(Constant(), objective, batches)
    assert held_out is not None
    assert held_out.loss == pytest.approx((5 * log(9) + 3 * log(5)) / 8)
    assert held_out.untrained == pytest.approx(held_out.loss)
    assert held_out.loss_per_cohort == pytest.approx({"a": log(9), "b": log(5)})
    assert held_out.alignment == pytest.approx(0, abs=1e-9)
    assert held_out.uniformity == pytest.approx(0, abs=1e-6)
    assert held_out.effective_rank == pytest.approx(1, abs=1e-3)
    assert held_out.dead_units == 2


def test_measuring_leaves_the_model_as_it_was() -> None:
    spec = EncoderSpec(config={"widths": [4], "embedding_dim": 4, "dropout": 0.5})
    encoder = encoders.build(spec, 0)
    objective = objectives.build(ObjectiveSpec(), encoder, 0)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    signal = torch.randn(6, 2, 8, 128, generator=torch.Generator().manual_seed(0))
    first = monitor.HeldOut.measure(encoder, objective, [viewed("a", signal)])
    again = monitor.HeldOut.measure(encoder, objective, [viewed("a", signal)])
    assert first == again  # no dropout, no batch statistics
    assert encoder.training
    assert objective.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder._forward_hooks


def test_nothing_held_out_gives_nothing() -> None:
    assert monitor.HeldOut.measure(Constant(), objectives.build(ObjectiveSpec(), Constant(), 0), []) is None


class Never(Objective):
    """Never calls the encoder whole, as a method on tokens, and knows no untrained loss."""

    needs, terms = Needs(views=1), ("extra",)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        return Losses(batch.signal.mean(), {"extra": batch.signal.amax()})


@pytest.mark.parametrize("views", [1, 3])
def test_any_objective_and_any_number_of_views_is_measured(views: int) -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 4))
    signal = torch.randn(5, views, 8, 64, generator=torch.Generator().manual_seed(0))
    held_out = monitor.HeldOut.measure(encoder, Never(), [viewed("a", signal), viewed("b", 2 * signal[:3])])
    assert held_out is not None
    assert (held_out.alignment, held_out.untrained) == (None, None)
    means = [signal.mean().item(), 2 * signal[:3].mean().item()]
    assert held_out.loss_per_cohort == pytest.approx({"a": means[0], "b": means[1]})
    assert held_out.loss == pytest.approx((5 * means[0] + 3 * means[1]) / 8)
    assert held_out.terms["extra"] == pytest.approx((5 * signal.max().item() + 6 * signal[:3].max().item()) / 8)
    embedded = [encoder(one.transpose(0, 1).flatten(0, 1)) for one in (signal, 2 * signal[:3])]
    assert held_out.effective_rank == pytest.approx(monitor._effective_rank(torch.cat(embedded)), rel=1e-4)
    expected = (5 * monitor._uniformity(embedded[0]) + 3 * monitor._uniformity(embedded[1])).item() / 8
    assert held_out.uniformity == pytest.approx(expected, rel=1e-4)
