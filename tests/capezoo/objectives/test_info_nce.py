"""The contrastive loss against the sum written out, two other implementations, and closed forms."""

from math import exp, log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ecgcohorts as ec
from capezoo.objectives import build, info_nce
from capezoo.objectives._contract import ViewBatch
from capezoo.objectives._contrastive import info_nce as loss_of
from capezoo.specs import ObjectiveSpec


def views(
    pairs: int, dim: int = 16, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.randn(2, pairs, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return first, second


def by_hand(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Equations 1 and 2 with plain loops."""
    z = [*first.tolist(), *second.tolist()]
    n = len(first)

    def similarity(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / (sum(a * a for a in z[i]) ** 0.5 * sum(b * b for b in z[j]) ** 0.5)

    total = 0.0
    for i in range(2 * n):
        other = (i + n) % (2 * n)
        below = sum(exp(similarity(i, k) / temperature) for k in range(2 * n) if k != i)
        total -= log(exp(similarity(i, other) / temperature) / below)
    return total / (2 * n)


@pytest.mark.parametrize("pairs", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_equals_the_sum_written_out(pairs: int, temperature: float) -> None:
    first, second = views(pairs)
    assert loss_of(first, second, temperature).item() == pytest.approx(by_hand(first, second, temperature), abs=1e-12)


def test_equals_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    first, second = views(9)
    patients = torch.arange(9).repeat(2)
    theirs = losses.NTXentLoss(temperature=0.1)(torch.cat([first, second]), patients)
    torch.testing.assert_close(loss_of(first, second, 0.1), theirs)


def test_is_half_of_pclr() -> None:
    """PCLR: cross-entropy of a over [ab, aa] plus cross-entropy of b over [ba, bb], own places masked."""
    first, second = views(8)
    a, b = F.normalize(first, dim=1), F.normalize(second, dim=1)
    own = torch.eye(8, dtype=torch.float64) * 1e9
    same = torch.arange(8)
    pclr = F.cross_entropy(torch.cat([a @ b.T / 0.1, a @ a.T / 0.1 - own], dim=1), same)
    pclr = pclr + F.cross_entropy(torch.cat([b @ a.T / 0.1, b @ b.T / 0.1 - own], dim=1), same)
    torch.testing.assert_close(loss_of(first, second, 0.1), pclr / 2)


def test_equal_embeddings_cost_the_log_of_all_others() -> None:
    same = torch.ones(512, 4)
    assert loss_of(same, same, 0.1).item() == pytest.approx(6.930495, abs=1e-5) == pytest.approx(log(1023), abs=1e-5)


def test_order_of_pairs_and_of_views_does_not_matter() -> None:
    first, second = views(11)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    expected = loss_of(first, second, 0.1)
    torch.testing.assert_close(loss_of(first[order], second[order], 0.1), expected)
    torch.testing.assert_close(loss_of(second, first, 0.1), expected)


def cohort_code_loss(counts: list[int]) -> float:
    """Loss of embeddings that know the cohort and nothing else, for a batch with these many pairs of each cohort."""
    cohort = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    code = F.one_hot(cohort, len(counts)).double()
    return loss_of(code, code, 0.1).item()


def closed_form(counts: list[int], temperature: float = 0.1) -> float:
    """The same by arithmetic: an anchor has 2n-1 others of its cohort at similarity 1, the rest at 0."""
    total = sum(counts)
    terms = [n * log(2 * n - 1 + 2 * (total - n) * exp(-1 / temperature)) for n in counts if n]
    return sum(terms) / total


def test_knowing_the_cohort_pays_in_mixed_batches_only() -> None:
    mixed = cohort_code_loss([128] * 4)
    assert mixed == pytest.approx(5.541400, abs=1e-6) == pytest.approx(closed_form([128] * 4), abs=1e-6)
    assert cohort_code_loss([512]) == pytest.approx(6.930495, abs=1e-6)
    assert log(1023) - mixed == pytest.approx(1.389, abs=1e-3)


@pytest.mark.parametrize("counts", [[300, 150, 50, 12], [511, 1], [3, 2]])
def test_knowing_the_cohort_in_an_uneven_batch(counts: list[int]) -> None:
    assert cohort_code_loss(counts) == pytest.approx(closed_form(counts), abs=1e-9)


@pytest.mark.parametrize("name", ["patient_pairs", "in_distribution"])
def test_sampler_and_loss_together(name: str) -> None:
    """Batches as sampled: the closed form with each batch's own counts; ln(2N-1) exactly in distribution."""
    kind = {"patient_pairs": ec.PatientPairSampler, "in_distribution": ec.InDistributionBatchSampler}[name]
    sizes = (600, 300, 150, 140)
    cohort_of = np.repeat(np.arange(4), sizes)  # of each patient
    patients = np.repeat(np.arange(sum(sizes)), 2)
    sampler = kind.from_arrays(patients=patients, cohorts=cohort_of[patients], pairs=128, seed=3)
    for step in range(len(sampler)):
        counts = np.bincount(cohort_of[sampler.plan(0, step).patients], minlength=4).tolist()
        assert sum(counts) == 128
        loss = cohort_code_loss(counts)
        assert loss == pytest.approx(closed_form(counts), abs=1e-9)
        if name == "in_distribution":
            assert loss == pytest.approx(log(255), abs=1e-9)
        else:
            assert loss < log(255) - 0.5


def test_bfloat16_embeddings_are_scored_in_float32() -> None:
    first, second = views(32, dtype=torch.bfloat16)
    expected = loss_of(first.float(), second.float(), 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(first, second, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


class Wide(nn.Module):
    """An encoder of which only the width is asked."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def batch_of(signal: torch.Tensor) -> ViewBatch:
    rows = torch.arange(len(signal))
    return ViewBatch(signal, torch.ones(signal.shape[:2]), rows, None, 0, 1, torch.Generator())


def test_rows_of_one_group_never_repel_each_other() -> None:
    """Against the sum written out with the others of the anchor's group left out of it; in bits, if there are none."""
    first, second = views(5)
    group = torch.tensor([0, 1, 0, 2, 1])
    z, who = torch.cat([first, second]), torch.cat([group, group])
    cosine = F.normalize(z, dim=1) @ F.normalize(z, dim=1).T
    total = 0.0
    for i in range(10):
        other = (i + 5) % 10
        among = [k for k in range(10) if k == other or who[k] != who[i]]
        total += log(sum(exp(cosine[i, k].item() / 0.1) for k in among)) - cosine[i, other].item() / 0.1
    assert loss_of(first, second, 0.1, group).item() == pytest.approx(total / 10, abs=1e-12)
    assert torch.equal(loss_of(first, second, 0.1, torch.arange(5)), loss_of(first, second, 0.1))


def test_loss_falls_by_half_in_sixty_steps() -> None:
    generator = torch.Generator().manual_seed(3)
    patient = torch.randn(8, 1, 8, 1, generator=generator)
    signal = patient + 0.5 * torch.randn(8, 2, 8, 40, generator=generator)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(320, 6), nn.Tanh())
    encoder.num_features = 6  # type: ignore[assignment]
    objective = build(ObjectiveSpec(), encoder, seed=1)
    optimiser = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=0.02)
    losses = []
    for _ in range(60):
        loss = objective(encoder, batch_of(signal)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_head_has_the_parameters_of_the_table_and_pairs_the_right_views() -> None:
    objective = build(ObjectiveSpec(), Wide(256), seed=0)
    assert sum(p.numel() for p in objective.parameters()) == 131_584
    pclr = info_nce.Objective(info_nce.Config(head_width=320), Wide(320))
    assert sum(p.numel() for p in pclr.parameters()) == 205_440
    signal = torch.randn(6, 2, 1, 256, generator=torch.Generator().manual_seed(0))
    loss = objective(nn.Flatten(), batch_of(signal)).total
    heads = [objective.head(signal[:, view, 0]) for view in (0, 1)]
    torch.testing.assert_close(loss, loss_of(heads[0], heads[1], 0.1))
