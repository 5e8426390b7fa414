"""Masks by their measured shares, clusters and losses by hand, and rows without a hidden token."""

import subprocess
import sys
from dataclasses import replace
from math import cos, log, pi
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from capezoo import encoders, objectives
from capezoo.objectives._clusters import DecayingCodes, Prototypes, far_apart, sinkhorn
from capezoo.objectives._contract import ViewBatch
from capezoo.objectives._heads import StatePredictor
from capezoo.objectives._masks import blocks, mean_where, spans
from capezoo.objectives._perceptron import perceptron
from capezoo.specs import EncoderSpec, ObjectiveSpec
from ecgcohorts.errors import SpecError

NAMES = ["data2vec", "dinosr", "hubert_sinkhorn", "jepa"]
SETTINGS: dict[str, dict[str, Any]] = {
    "data2vec": {"dropout": 0.0, "mask_share": 0.5},
    "dinosr": {"dropout": 0.0, "mask_share": 0.5, "codes": 7},
    "hubert_sinkhorn": {"mask_share": 0.5, "prototypes": [5, 7]},
    "jepa": {"dropout": 0.0, "shortest": 4},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str, encoder: str = "s4", **config: Any) -> tuple[Any, Any, ViewBatch]:
    """A small encoder in float64 in evaluation mode, an objective that trains, three recordings of 30 tokens."""
    small = {"width": 6, "in_leads": 3} if encoder == "s4" else {"widths": [8, 8], "embedding_dim": 8, "in_leads": 3}
    net = encoders.build(EncoderSpec(name=encoder, config=small), 0)
    objective = objectives.build(ObjectiveSpec(name=name, config=SETTINGS[name] | config), net, 1)
    signal = torch.randn(3, 1, 3, 60, generator=generator(1), dtype=torch.float64)
    batch = ViewBatch(signal, torch.full((3, 1), 60), torch.arange(3), None, 20, 100, generator(2))
    return net.double().eval(), objective.double(), batch


def seen_by(net: Any, objective: Any, signal: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The student's context, token by token."""
    tokens = net.tokens(signal)
    rows = [
        torch.stack([objective.mask_token if gone else token for token, gone in zip(row, where, strict=True)])
        for row, where in zip(tokens, hidden.tolist(), strict=True)
    ]
    return net.contextualise(torch.stack(rows))[-1]


def test_spans_hide_the_measured_share_and_some_rows_not_at_all() -> None:
    hidden = spans(10_000, 300, 0.065, 10, generator())
    near = [min(t, 5) + 1 + min(299 - t, 4) for t in range(299)] + [1]  # middles that hide a token
    expected = torch.tensor([1 - 0.9935**k for k in near])
    assert expected.mean() == pytest.approx(0.0626, abs=2e-4)
    assert hidden.float().mean().item() == pytest.approx(expected.mean().item(), abs=1e-3)
    torch.testing.assert_close(hidden.float().mean(0), expected, atol=8e-3, rtol=0)
    assert (~hidden.any(1)).float().mean() == pytest.approx(0.9935**300, abs=0.01)


def test_a_span_reaches_four_before_its_middle_and_five_after() -> None:
    drawn = torch.rand(500, 40, generator=generator(3)) < 0.002
    hidden = spans(500, 40, 0.02, 10, generator(3))
    lone = drawn.sum(1) == 1
    for row in torch.arange(500)[lone]:
        middle = int(drawn[row].nonzero())
        last = 39 if middle == 39 else min(middle + 5, 38)
        assert hidden[row].nonzero().flatten().tolist() == list(range(max(0, middle - 4), last + 1))
    assert lone.any()
    assert not hidden[~drawn.any(1)].any()


def test_blocks_cover_and_leave_what_was_measured() -> None:
    for share, kept, too_few in ((0.85, 89, 0.22), (1.0, 123, 0.02)):
        options: dict[str, Any] = {"targets": 4, "shares": ((0.15, 0.2), (share, share))}
        counts, context = blocks(3000, 300, generator(), shortest=64, **options)
        assert (counts.sum(1) == 4 * 64).all()  # 45 to 60 of 300 would be shorter
        assert not counts[:, 299].any()
        assert (counts > 0).float().mean().item() == pytest.approx(0.588, abs=5e-3)
        assert (context.sum(1) >= 64).all()
        mixed = (context & (counts > 0)).any(1)  # random tokens instead
        assert (context[mixed].sum(1) == 64).all()
        assert mixed.float().mean().item() == pytest.approx(too_few, abs=0.02)
        # What was left before that: targets of the same length, and nothing that is too short.
        options["shares"] = ((64.5 / 300, 64.5 / 300), (share, share))
        _, before = blocks(3000, 300, generator(1), shortest=1, **options)
        assert before.float().sum(1).mean().item() == pytest.approx(kept, abs=1.5)


def test_nothing_hidden_is_no_loss_and_no_gradient_that_is_no_number() -> None:
    values = torch.randn(2, 3, requires_grad=True)
    loss = mean_where(values, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not values.grad.any()
    for name in NAMES[:3]:
        net, objective, batch = made(name, mask_share=0.0)
        total = objective(net, batch).total
        total.backward()
        assert total.isfinite()
        assert total.item() == 0 or name == "hubert_sinkhorn"  # which has a loss on the others


def test_sinkhorn_is_capis_with_a_column_shift_and_another_with_a_row_shift() -> None:
    logits = 10 * torch.randn(200, 8, generator=generator(), dtype=torch.float64)
    column, row = sinkhorn(logits, 3, "column"), sinkhorn(logits, 3)
    theirs = pytest.importorskip("lightly.loss.capi_loss").sinkhorn_knopp(logits[:, None], 3, epsilon=0.0)
    torch.testing.assert_close(column, theirs[:, 0].to(column.dtype), rtol=1e-5, atol=1e-6)
    assert (row - column).abs().max() > 0.05
    torch.testing.assert_close(sinkhorn(logits, 2000), sinkhorn(logits, 2000, "column"), rtol=1e-3, atol=1e-3)
    for share in (row, column):
        torch.testing.assert_close(share.sum(1), torch.ones(200, dtype=torch.float64))
    torch.testing.assert_close(
        sinkhorn(logits, 2000).sum(0), torch.full((8,), 25.0, dtype=torch.float64), rtol=0.01, atol=0
    )


def test_codes_are_decaying_means_and_those_not_hit_stay() -> None:
    codes = DecayingCodes(5, 3, 0.9).double()
    start, x, n = codes.codes.clone(), torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64), 20
    hit = int((start - x).norm(dim=1).argmin())
    assert (codes(x.expand(n, -1)) == hit).all()
    codes.move()
    torch.testing.assert_close(codes.codes[hit], (0.9 * start[hit] + 0.1 * n * x) / (0.9 + 0.1 * n))
    others = torch.arange(5) != hit
    torch.testing.assert_close(codes.codes[others], start[others])
    assert codes.counts.sum().item() == pytest.approx(0.9 * 5 + 0.1 * n)
    before = codes.codes.clone()
    codes.eval()(x.expand(n, -1))
    codes.move()
    assert torch.equal(codes.codes, before)


def test_first_centres_are_rows_far_apart() -> None:
    groups = 10 * torch.eye(4).repeat_interleave(50, 0) + 0.01 * torch.randn(200, 4, generator=generator())
    centres = far_apart(groups, 4, generator(1))
    assert sorted(centres.argmax(1).tolist()) == [0, 1, 2, 3]
    assert all((groups == centre).all(1).any() for centre in centres)
    assert far_apart(torch.ones(6, 4), 3, generator()).equal(torch.ones(3, 4))


def test_predictors_have_the_parameters_of_the_study() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in StatePredictor(512, 512, 0.2).parameters()) == 855_040
        assert sum(p.numel() for p in perceptron(512, 512, 384).parameters()) == 459_648


def test_data2vec_by_hand() -> None:
    net, objective, batch = made("data2vec")
    signal = batch.signal[:, 0]
    tokens, inner = net.tokens(signal), []
    for layer in net.layers:  # no dropout in evaluation
        added = F.glu(layer.mix(F.gelu(layer.convolution(tokens))), dim=-1)
        tokens = layer.norm(tokens + added)
        inner.append((added - added.mean(-1, keepdim=True)) / (added.var(-1, correction=0, keepdim=True) + 1e-5).sqrt())
    wanted = (inner[2] + inner[3]) / 2
    hidden = spans(3, 30, 0.5, 10, generator(2))
    error = objective.predictor(seen_by(net, objective, signal, hidden)) - wanted
    each = torch.where(error.abs() < 1, error.square() / 2, error.abs() - 0.5).sum(-1) / 6**0.5
    torch.testing.assert_close(objective(net, batch).total, each[hidden].mean())


def test_jepa_by_hand() -> None:
    net, objective, batch = made("jepa")
    signal = batch.signal[:, 0]
    wanted = F.layer_norm(
        F.layer_norm(net(signal)[:, None] * 0 + net.contextualise(net.tokens(signal))[-1], (6,)), (6,)
    )
    counts, context = blocks(3, 30, generator(2), targets=4, shares=((0.15, 0.2), (0.85, 1.0)), shortest=4)
    error = objective.predictor(seen_by(net, objective, signal, ~context)) - wanted
    each = torch.where(error.abs() < 1, error.square() / 2, error.abs() - 0.5).mean(-1)
    listed = [each[row, t] for row in range(3) for t in range(30) for _ in range(int(counts[row, t]))]
    assert max(counts.flatten()) > 1
    torch.testing.assert_close(objective(net, batch).total, torch.stack(listed).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm_over", ["features", "time"])
def test_dinosr_by_hand(norm_over: str) -> None:
    net, objective, batch = made("dinosr", norm_over=norm_over)
    signal = batch.signal[:, 0]
    seen = F.layer_norm(net.contextualise(net.tokens(signal))[-1], (6,))
    if norm_over == "time":
        seen = (seen - seen.mean(1, keepdim=True)) / (seen.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    code = torch.cdist(seen.flatten(0, 1), objective.codebook.codes).argmin(1).unflatten(0, (3, 30))
    hidden = spans(3, 30, 0.5, 10, generator(2))
    logits = objective.predictor(seen_by(net, objective, signal, hidden))
    losses = objective(net, batch)
    expected = -logits.log_softmax(-1).gather(2, code[..., None])[..., 0]
    torch.testing.assert_close(losses.total, expected[hidden].mean())
    share = torch.bincount(code.flatten(), minlength=7) / 90
    assert losses.terms["code_perplexity"].item() == pytest.approx(
        torch.special.entr(share).sum().exp().item(), rel=1e-6
    )
    assert objective.untrained(3, 30) == log(7)


def test_hubert_by_hand() -> None:
    net, objective, batch = made("hubert_sinkhorn")
    signal = batch.signal[:, 0]
    features = F.normalize(net.contextualise(net.tokens(signal))[-1].flatten(0, 1), dim=1)
    hidden = spans(3, 30, 0.5, 10, generator(2))
    logits = objective.head(seen_by(net, objective, signal, hidden)).flatten(0, 1).split([5, 7], dim=1)
    at = (1 + cos(pi * 20 / 200)) / 2  # step 20
    warm, cool, expected, moved = 0.1 + 0.4 * at, 0.07 + 0.08 * at, 0.0, []
    for score, codebook in zip(logits, objective.codebooks, strict=True):
        old = codebook.directions.clone()
        q = (features @ old.T / cool).exp()
        q = q / q.amax(1, keepdim=True)
        for _ in range(3):
            q = q / q.sum(0)
            q = q / q.sum(1, keepdim=True)
        q = q.detach()
        divergence = (q * (q.log() - (score / warm).log_softmax(1))).sum(1)
        gone, p = hidden.flatten(), score.softmax(1)
        expected = expected + 0.75 * divergence[gone].mean() + 0.25 * divergence[~gone].mean()
        expected = expected - 0.001 * (p * p.log()).sum(1).mean()
        moved.append(F.normalize(0.99 * old + 0.01 * F.normalize(q.T @ features, dim=1), dim=1))
    torch.testing.assert_close(objective(net, batch).total, expected)
    objective.after_step(net, 20, 100)
    for codebook, expected_now in zip(objective.codebooks, moved, strict=True):
        torch.testing.assert_close(codebook.directions, expected_now.detach())


def test_prototypes_start_at_features_of_the_first_batch_alone() -> None:
    net, objective, batch = made("hubert_sinkhorn")
    features = F.normalize(net.contextualise(net.tokens(batch.signal[:, 0]))[-1].flatten(0, 1), dim=1)

    def from_features() -> bool:
        return bool((objective.codebooks[1].directions @ features.T).amax(1).sub(1).abs().max() < 1e-9)

    objective.eval()(net, replace(batch, step=0))
    objective.train()(net, batch)
    assert not from_features()
    objective(net, replace(batch, step=0))
    assert from_features()


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_teacher_never_moves_and_normalises_by_the_batch(name: str) -> None:
    for teacher in ("moving", "frozen"):
        net, objective, batch = made(name, teacher=teacher)
        before = [p.clone() for p in objective.teacher.parameters()]
        with torch.no_grad():
            net.stem[0].conv.weight.add_(1)
        objective.train()(net, batch)
        objective.after_step(net, 0, 100)
        same = all(torch.equal(p, q) for p, q in zip(objective.teacher.parameters(), before, strict=True))
        assert same == (teacher == "frozen") == objective.teacher.network.training


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_shortens_has_all_tokens_of_a_context_hidden(name: str) -> None:
    net, objective, batch = made(name, "cape_resnet", **({"layers": 1} if name == "data2vec" else {}), **(
        {"shortest": 1} if name == "jepa" else {"span": 1}))  # fmt: skip
    batch = replace(batch, signal=batch.signal.repeat(1, 1, 1, 8))
    n = net.contextualise(net.tokens(batch.signal[:, 0]))[-1].shape[1]
    assert 1 < n < net.tokens(batch.signal[:, 0]).shape[1]
    assert objective(net, batch).total.isfinite()
    hidden = torch.arange(n).expand(3, -1) == 0
    plain = net.contextualise(net.tokens(batch.signal[:, 0]))[-1]
    assert not torch.allclose(objective.understood(net, batch.signal[:, 0], hidden)[:, 0], plain[:, 0])


def test_layers_of_several_shapes_have_no_mean() -> None:
    with pytest.raises(SpecError, match=r"found layers=2, expected at most .* Set layers=1"):
        made("data2vec", "cape_resnet")


def state_after(rank: int) -> list[torch.Tensor]:
    """Clusters after one step on the rows of this rank, of all ranks if -1."""
    rows = F.normalize(torch.randn(40, 6, generator=generator(), dtype=torch.float64), dim=1)
    mine = rows if rank < 0 else rows[20 * rank : 20 * rank + 20]
    torch.manual_seed(0)
    codes, prototypes = DecayingCodes(5, 6, 0.9).double(), Prototypes(4, 6, 0.99).double()
    codes(mine)
    codes.move()
    prototypes.start(mine, generator(max(rank, 0)))
    share = sinkhorn(prototypes(mine) / 0.1, 3, "column")
    prototypes.see(share, mine)
    prototypes.move()
    return [codes.sums, codes.counts, prototypes.directions, sinkhorn(prototypes(mine) / 0.1, 3)]


def on_a_rank(rank: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=int(rank), world_size=2)
    torch.save(state_after(int(rank)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_clusters_of_one(tmp_path: Path) -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['on_a_rank'](*sys.argv[2:])"
    ranks = [subprocess.Popen([sys.executable, "-c", code, __file__, str(r), str(tmp_path)]) for r in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    found = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2)]
    with torch.random.fork_rng():
        *expected, shares = state_after(-1)
    for *state, _ in found:
        for one, other in zip(state, expected, strict=True):
            torch.testing.assert_close(one, other)
    torch.testing.assert_close(torch.cat([found[0][-1], found[1][-1]]), shares)
