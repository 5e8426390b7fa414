"""mae and jepa_vit: which tokens go, both losses written out, and parameters as their sources state them."""

from collections import Counter
from dataclasses import replace
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from capezoo import encoders, objectives
from capezoo.encoders.vit1d import positions
from capezoo.objectives import jepa_vit, mae
from capezoo.objectives._contract import ViewBatch
from capezoo.objectives._masks import gaps, scattered
from capezoo.objectives._schedules import linear
from capezoo.specs import EncoderSpec, ObjectiveSpec
from ecgcohorts.errors import SpecError

SMALL = {"in_leads": 3, "embedding_dim": 12, "head_dim": 6, "depth": 2, "patch": 10}
SETTINGS: dict[str, dict[str, Any]] = {
    "mae": {"width": 8, "depth": 2, "heads": 2},
    "jepa_vit": {"heads": 3, "shortest": 3, "kept_share": [0.3, 0.4]},
}
WEIMANN: dict[str, Any] = {"bias": False, "registers": 1, "positions": "interleaved"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str, encoder: dict[str, Any] | None = None, **config: Any) -> tuple[Any, Any, ViewBatch]:
    """A small transformer in float64, an objective, three recordings of 20 tokens whose last is not full."""
    net = encoders.build(EncoderSpec(name="vit1d", config=SMALL | (encoder or {})), 0)
    objective = objectives.build(ObjectiveSpec(name=name, config=SETTINGS[name] | config), net, 1)
    signal = torch.randn(3, 1, 3, 196, generator=generator(1), dtype=torch.float64)
    batch = ViewBatch(signal, torch.full((3, 1), 196), torch.arange(3), None, 20, 100, generator(2))
    return net.double(), objective.double(), batch


def on_meta(kind: Any, config: Any, **encoder: Any) -> Any:
    with torch.device("meta"):
        net = encoders.build(EncoderSpec(name="vit1d", config={"in_leads": 12, "patch": 25} | encoder), 0)
        return kind(config, net)


@pytest.mark.parametrize(("width", "count"), [(192, 25_473_324), (384, 25_571_628), (768, 25_768_236)])
def test_decoders_have_the_parameters_of_the_original(width: int, count: int) -> None:
    decoder = on_meta(mae.Objective, mae.Config(), embedding_dim=width)
    expected = (width * 512 + 512) + 512 + 8 * (12 * 512**2 + 13 * 512) + 2 * 512 + (512 * 300 + 300)
    assert sum(p.numel() for p in decoder.parameters()) == expected == count


@pytest.mark.parametrize(("width", "depth", "count"), [(192, 8, 923_328), (384, 8, 3_689_856), (768, 12, 21_833_472)])
def test_predictors_have_the_parameters_of_weimann_and_conrad(width: int, depth: int, count: int) -> None:
    objective = on_meta(jepa_vit.Objective, jepa_vit.Config(), embedding_dim=width, depth=depth, **WEIMANN)
    half = width // 2
    expected = 2 * width * half + 2 * half + depth * (12 * half**2 + 2 * half)
    assert sum(p.numel() for p in objective.predictor.parameters()) == expected == count


def test_scattered_places_are_all_places_and_every_token_is_kept_as_often() -> None:
    kept, dropped = scattered(20_000, 8, 2, generator())
    both = torch.cat([kept, dropped], dim=1)
    assert torch.equal(both.sort(1).values, torch.arange(8).expand(20_000, -1))
    assert (kept.diff(dim=1) > 0).all()
    assert (dropped.diff(dim=1) > 0).all()
    pairs = Counter(map(tuple, kept.tolist()))
    assert len(pairs) == 28
    assert all(abs(count - 20_000 / 28) < 5 * (20_000 / 28) ** 0.5 for count in pairs.values())


def one_by_one(n: int, keep: int, shortest: int, random: np.random.Generator) -> list[int]:
    """Cut blocks out of one row until enough is gone: a list of stretches, as one would do it on paper."""
    stretches, missing = [(0, n)], n - keep
    while missing:
        lengths = np.array([stop - start for start, stop in stretches])
        start, stop = stretches.pop(random.choice(len(stretches), p=lengths / lengths.sum()))
        size = missing if missing < shortest else int(random.integers(shortest, missing + 1))
        if size >= stop - start:
            missing -= stop - start
            continue
        if missing < shortest:
            begin = int(random.choice([end for end in (start, stop - size) if end not in (0, n - size)]))
        else:
            begin = int(random.integers(start, stop - size + 1))
        stretches += [part for part in ((start, begin), (begin + size, stop)) if part[0] < part[1]]
        missing -= size
    return sorted(place for start, stop in stretches for place in range(start, stop))


def test_blocks_are_cut_as_one_would_row_by_row() -> None:
    """Number of blocks, and how often each token is kept, against a loop over single rows."""
    random, rows, n, keep = np.random.default_rng(0), 1500, 60, 12
    kept, dropped = gaps(rows, n, keep, 10, generator())
    assert torch.equal(torch.cat([kept, dropped], 1).sort(1).values, torch.arange(n).expand(rows, -1))
    assert (kept.diff(dim=1) > 0).all()
    assert (dropped.diff(dim=1) > 0).all()

    def blocks(lines: list[list[int]]) -> list[list[int]]:
        gone = [[place not in set(line) for place in range(n)] for line in lines]
        return [[len(list(run)) for is_gone, run in groupby(row) if is_gone] for row in gone]

    slow = [one_by_one(n, keep, 10, random) for _ in range(rows)]
    found, expected = blocks(kept.tolist()), blocks(slow)
    assert min(map(min, found)) == 10 == min(map(min, expected))
    assert np.mean([len(row) for row in found]) == pytest.approx(np.mean([len(row) for row in expected]), abs=0.12)
    share = [np.bincount(np.concatenate(lines), minlength=n) / rows for lines in (kept.tolist(), slow)]
    assert np.abs(share[0] - share[1]).max() < 0.06
    # Fewer to drop than a block has: one gap, anywhere.
    few, _ = gaps(50, 12, 9, 10, generator())
    assert {len(row) for row in blocks_of(few, 12)} == {1}


def blocks_of(kept: torch.Tensor, n: int) -> list[list[int]]:
    gone = torch.ones(len(kept), n, dtype=torch.bool).scatter(1, kept, value=False)
    return [[len(list(run)) for is_gone, run in groupby(row) if is_gone] for row in gone.tolist()]


def masked_autoencoder_loss(net: Any, objective: Any, signal: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The public code's way: shuffle by noise, keep the first, pad with mask tokens, unshuffle, draw all, weigh."""
    batch, n, dim, keep = len(signal), 20, 12, 5
    shuffle = noise.argsort(1)
    restore, decoder = shuffle.argsort(1), objective.decoder
    x = net.tokens(signal) + positions(n, dim, signal.device)
    x = x.gather(1, shuffle[:, :keep, None].repeat(1, 1, dim))
    for block in net.blocks:
        x = block(x)
    x = decoder.embed(net.norm(x))
    x = torch.cat([x, decoder.mask_token.repeat(batch, n - keep, 1)], dim=1)
    x = x.gather(1, restore[..., None].repeat(1, 1, x.shape[-1])) + positions(n, 8, signal.device)
    for block in decoder.blocks:
        x = block(x)
    drawn = decoder.out(decoder.norm(x))
    is_gone = torch.cat([torch.zeros(batch, keep), torch.ones(batch, n - keep)], 1).gather(1, restore)
    filled = F.pad(signal, (0, 4))
    target = torch.stack([filled[..., 10 * t : 10 * t + 10].reshape(batch, 30) for t in range(n)], 1)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    return (((drawn - target) ** 2).mean(-1) * is_gone).sum() / is_gone.sum()


@pytest.mark.parametrize("encoder", [{}, {"registers": 0, "mlp_ratio": 2.0}])
def test_mae_is_the_originals(encoder: dict[str, Any]) -> None:
    net, objective, batch = made("mae", encoder)
    noise = torch.rand(3, 20, generator=generator(2))
    expected = masked_autoencoder_loss(net, objective, batch.signal[:, 0], noise)
    losses = objective(net, batch)
    torch.testing.assert_close(losses.total, expected)
    theirs = torch.autograd.grad(expected, [*net.parameters(), *objective.parameters()], allow_unused=True)
    mine = torch.autograd.grad(losses.total, [*net.parameters(), *objective.parameters()], allow_unused=True)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_mae_judges_hidden_patches_alone_and_sees_visible_ones_alone() -> None:
    """With the encoder blind, visible samples are neither input nor target; else hidden samples are a target only."""
    net, objective, batch = made("mae")
    kept, dropped = scattered(3, 20, 5, generator(2))
    signal = batch.signal.clone().requires_grad_()

    def loss_of(signal: torch.Tensor) -> torch.Tensor:
        return objective(net, ViewBatch(signal, batch.valid, batch.group, None, 0, 1, generator(2))).total

    (gradient,) = torch.autograd.grad(loss_of(signal), signal)
    per_token = F.pad(gradient[:, 0], (0, 4)).unflatten(-1, (20, 10)).abs().sum((1, 3))
    assert (per_token > 0).all()
    with torch.no_grad():
        net.patch_embed.proj.weight.zero_()
    (gradient,) = torch.autograd.grad(loss_of(signal), signal)
    per_token = F.pad(gradient[:, 0], (0, 4)).unflatten(-1, (20, 10)).abs().sum((1, 3))
    assert per_token.gather(1, kept).abs().max() == 0
    assert (per_token.gather(1, dropped) > 0).all()


def test_what_mae_predicts_does_not_depend_on_hidden_samples() -> None:
    net, objective, batch = made("mae")
    kept, dropped = scattered(3, 20, 5, generator(2))
    signal = batch.signal[:, 0].clone().requires_grad_()
    drawn = objective.decoder(net.contextualise(net.tokens(signal), kept)[-1], kept, dropped)
    (gradient,) = torch.autograd.grad(drawn.square().sum(), signal)
    per_token = F.pad(gradient, (0, 4)).unflatten(-1, (20, 10)).abs().sum((1, 3))
    assert per_token.gather(1, dropped).max() == 0
    assert (per_token.gather(1, kept) > 0).all()


def test_an_untrained_mae_has_about_one_and_raw_patches_have_their_size() -> None:
    net, objective, batch = made("mae")
    assert objective.untrained(3, 20) == 1.0
    assert objective(net, batch).total.item() == pytest.approx(1.0, abs=0.1)
    net, raw, batch = made("mae", normalise=False)
    with torch.no_grad():
        raw.decoder.out.weight.zero_()
        raw.decoder.out.bias.zero_()
    _, dropped = scattered(3, 20, 5, generator(2))
    size = F.pad(batch.signal[:, 0], (0, 4)).unflatten(-1, (20, 10)).square().mean((1, 3)).gather(1, dropped)
    torch.testing.assert_close(raw(net, batch).total, size.mean())
    assert raw.untrained(3, 20) is None


def test_patches_beyond_the_end_of_a_recording_do_not_count() -> None:
    net, objective, batch = made("mae")
    kept, dropped = scattered(3, 20, 5, generator(2))
    short = ViewBatch(batch.signal, torch.tensor([[196], [81], [0]]), batch.group, None, 0, 1, generator(2))
    context = net.contextualise(net.tokens(batch.signal[:, 0]), kept)[-1]
    drawn = objective.decoder(context, kept, dropped)
    wanted = objective._wanted(batch.signal[:, 0], 20, dropped)
    error = (drawn - wanted).square().mean(-1)
    counts = torch.stack([dropped[0] < 20, dropped[1] < 9, dropped[2] < 0])  # 81 samples reach into the ninth patch
    torch.testing.assert_close(objective(net, short).total, error[counts].mean())


def test_jepa_vit_by_hand() -> None:
    net, objective, batch = made("jepa_vit", {"registers": 1, "bias": False})
    with torch.no_grad():  # so that teacher and student differ
        net.blocks[0].mlp.fc1.weight.mul_(1.5)
    signal, draws = batch.signal[:, 0], generator(2)
    keep = ceil((0.3 + 0.1 * torch.rand(1, generator=draws).item()) * 20)
    kept, dropped = gaps(3, 20, keep, 3, draws)
    assert 6 <= keep <= 8
    predictor, rows = objective.predictor, []
    table = positions(20, 6, signal.device, "interleaved")
    wise = objective.teacher.network
    for row in range(3):
        target = wise.contextualise(wise.tokens(signal[row : row + 1]))[-1][0, dropped[row]]
        seen = predictor.embed(net.contextualise(net.tokens(signal[row : row + 1]), kept[row : row + 1])[-1][0])
        x = torch.cat([seen + table[kept[row]], predictor.mask_token + table[dropped[row]]])[None]
        for block in predictor.blocks:
            x = block(x)
        rows.append((predictor.out(predictor.norm(x[0, keep:])) - target).abs().mean())
    torch.testing.assert_close(objective(net, batch).total, torch.stack(rows).mean())
    assert not any(name.endswith("bias") for name, _ in predictor.named_parameters())


def test_the_teacher_of_jepa_vit_moves_along_the_line_or_not_at_all() -> None:
    assert [linear(0.998, 0.9995, step, 100_000) for step in (0, 50_000, 100_000, 200_000)] == pytest.approx(
        [0.998, 0.99875, 0.9995, 0.9995]
    )
    for teacher in ("moving", "frozen"):
        net, objective, _ = made("jepa_vit", teacher=teacher)
        slow = objective.teacher.network.blocks[0].attn.qkv.weight
        first = slow.clone()
        expected = first.clone()
        for step, change in enumerate((1.0, -3.0)):
            with torch.no_grad():
                net.blocks[0].attn.qkv.weight.add_(change)
            objective.after_step(net, step, 4)
            # Before step 1 of 4 the momentum is a quarter of the way, before step 2 a half.
            momentum = 0.998 + 0.0015 * (step + 1) / 4
            expected = momentum * expected + (1 - momentum) * net.blocks[0].attn.qkv.weight.detach()
        torch.testing.assert_close(slow, expected if teacher == "moving" else first)
        assert not objective.teacher.network.training


@pytest.mark.parametrize("name", ["mae", "jepa_vit"])
def test_widths_that_do_not_divide_and_shares_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"found a predictor of width 9 with 2 heads, expected an even multiple\. Set"):
        made(name, width=9, heads=2)
    wrong = {"mae": {"dropped_share": 1.0}, "jepa_vit": {"kept_share": [0.5, 0.2]}}[name]
    with pytest.raises(SpecError, match=f"objective {name}: found"):
        made(name, **wrong)
    with pytest.raises(SpecError, match="weights, expected at most"):
        made(name, width=65_536, heads=2)


def test_a_patch_of_one_number_cannot_be_normalised() -> None:
    """Its deviation is 0 / 0, and so would every loss be."""
    with pytest.raises(SpecError, match=r"objective mae: found patches of one sample of one lead, expected several"):
        made("mae", {"in_leads": 1, "patch": 1})
    net, objective, batch = made("mae", {"in_leads": 1, "patch": 1}, normalise=False)
    assert torch.isfinite(objective(net, replace(batch, signal=batch.signal[:, :, :1])).total)
