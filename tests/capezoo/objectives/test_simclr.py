"""SimCLR's head, and its loss against the formula by hand and lightly's."""

from math import exp, log

import pytest
import torch
from torch import nn

from capezoo import runs
from capezoo.objectives import build
from capezoo.objectives._contract import ViewBatch, check
from capezoo.specs import ObjectiveSpec, RunConfig
from ecgcohorts.errors import SpecError


class Flat(nn.Module):
    """An encoder whose features are the samples of its one lead."""

    num_features = 24

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return signal.flatten(1)


def setting(rows: int = 6) -> tuple[nn.Module, torch.Tensor, ViewBatch]:
    """Encoder and objective in float64, and a batch of rows of different patients."""
    objective = build(ObjectiveSpec(name="simclr"), Flat(), seed=2).double()
    signal = torch.randn(rows, 2, 1, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = torch.full((rows, 2), 24)
    return objective, signal, ViewBatch(signal, valid, torch.arange(rows), None, 0, 1, torch.Generator())


def test_loss_is_the_formula_of_the_paper() -> None:
    """Equation 1 of arXiv 2002.05709 with plain loops, its head written out as two products."""
    objective, signal, batch = setting()
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in objective.head if isinstance(layer, nn.Linear))
    rows = signal.transpose(0, 1).reshape(12, 24)  # first views, then second ones
    z = ((rows @ w1.T + b1).clamp(min=0) @ w2.T + b2).tolist()

    def similarity(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / (sum(a * a for a in z[i]) ** 0.5 * sum(b * b for b in z[j]) ** 0.5)

    total = 0.0
    for i in range(12):
        below = sum(exp(similarity(i, k) / 0.1) for k in range(12) if k != i)
        total += log(below) - similarity(i, (i + 6) % 12) / 0.1
    assert objective(Flat(), batch).total.item() == pytest.approx(total / 12, abs=1e-12)


def test_equals_lightly() -> None:
    loss = pytest.importorskip("lightly.loss")
    objective, signal, batch = setting(9)
    first, second = (objective.head(signal[:, view, 0]) for view in (0, 1))
    theirs = loss.NTXentLoss(temperature=0.1)(first, second)
    torch.testing.assert_close(objective(Flat(), batch).total, theirs, rtol=1e-6, atol=0)


def test_the_head_of_resnet_50_has_two_layers_and_no_norm() -> None:
    encoder = nn.Module()
    encoder.num_features = 2048  # type: ignore[assignment]
    objective = build(ObjectiveSpec(name="simclr"), encoder, seed=0)
    assert [tuple(p.shape) for p in objective.parameters()] == [(2048, 2048), (2048,), (128, 2048), (128,)]
    assert sum(p.numel() for p in objective.parameters()) == 4_458_624


def test_recordings_of_a_patient_are_for_info_nce() -> None:
    run = runs.get("simclr_small", seed=0)
    assert (run.objective.name, run.sampler.pairing) == ("simclr", "record")
    patients = RunConfig.model_validate(dict(run) | {"sampler": run.sampler.model_copy(update={"pairing": "patient"})})
    with pytest.raises(
        SpecError, match="simclr needs views paired by record, sampler in_distribution pairs by patient"
    ):
        check(setting()[0], Flat(), patients)
