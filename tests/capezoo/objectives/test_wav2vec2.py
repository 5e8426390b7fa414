"""wav2vec 2.0, CMSC and their sum: masks by their measured shares, losses by hand in float64, gradients through lengths."""

from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from capezoo import encoders, objectives
from capezoo.objectives._cmsc import CmscConfig, across_views
from capezoo.objectives._codes import GumbelCodes
from capezoo.objectives._contract import ViewBatch, check
from capezoo.objectives._masks import equal_spans, others
from capezoo.objectives._schedules import exponential
from capezoo.objectives._wav2vec2 import _Drawn
from capezoo.specs import EncoderSpec, InputSpec, ObjectiveSpec, RunConfig, SamplerSpec
from ecgcohorts.errors import SpecError

SMALL = {"stem_width": 6, "embedding_dim": 8, "head_dim": 4, "depth": 1, "position_kernel": 4, "position_groups": 2}
CODES = {"span": 4, "codes": 5, "projection": 6, "negatives": 7}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str, views: int, **config: Any) -> tuple[Any, Any, ViewBatch]:
    """A small encoder and an objective in float64, in evaluation mode; four recordings of 30 tokens."""
    net = encoders.build(EncoderSpec(name="wav2vec2", config=SMALL), 0).double().eval()
    objective = objectives.build(ObjectiveSpec(name=name, config=config), net, 1).double().eval()
    signal = torch.randn(4, views, 8, 480, generator=generator(1), dtype=torch.float64)
    group = torch.tensor([0, 1, 2, 1])
    return net, objective, ViewBatch(signal, torch.full((4, views), 480), group, None, 20, 100, generator(2))


def by_hand(net: Any, objective: Any, signal: torch.Tensor, seed: int = 2) -> dict[str, Any]:
    """The loss place by place, with its draws made again: cosines with the own code and with others that are not the same."""
    drawn = _Drawn.draw(len(signal), 30, objective.settings, generator(seed))
    raw, features, tokens = net.features_and_tokens(signal)
    tokens = torch.where(drawn.hidden[..., None], objective.mask_token, tokens)
    context, codes = net.contextualise(tokens)[-1], objective.quantiser.codes
    losses, right = [], 0
    for row in range(len(signal)):
        places = drawn.hidden[row].nonzero().flatten().tolist()
        best = objective.quantiser.scores(features[row, places]).unflatten(1, (2, -1)).argmax(-1)
        wanted = objective.project_codes(torch.cat([codes[0, best[:, 0]], codes[1, best[:, 1]]], dim=1))
        predicted = objective.project_context(context[row, places])
        for i in range(len(places)):
            among = [j for j in drawn.among[row, i].tolist() if not torch.equal(best[j], best[i])]
            assert i not in drawn.among[row, i]
            score = torch.stack([F.cosine_similarity(predicted[i], wanted[j], dim=0) / 0.1 for j in [i, *among]])
            losses.append(score.logsumexp(0) - score[0])
            right += bool((score[0] > score[1:]).all())
    return {"contrast": torch.stack(losses).mean(), "accuracy": right / len(losses), "penalty": raw.square().mean(),
            "hidden": drawn.hidden, "features": features, "context": context}  # fmt: skip


@pytest.mark.parametrize(("rows", "share"), [(1, 0.496), (8, 0.419), (64, 0.369), (128, 0.355)])
def test_a_larger_batch_hides_less(rows: int, share: float) -> None:
    """The shares measured on the public code."""
    draws = [equal_spans(rows, 156, 0.65, 10, generator(seed)) for seed in range(300 if rows < 64 else 60)]
    assert torch.stack([draw.float().mean() for draw in draws]).mean().item() == pytest.approx(share, abs=0.008)
    assert all((draw.sum(1) == draw[0].sum()).all() for draw in draws)
    assert not any(draw[:, -1].any() for draw in draws)


def test_every_row_has_ten_spans_or_all_have_eleven_and_none_is_thinned_if_so_set() -> None:
    """A start shows where nothing hidden stands before it; spans that meet hide fewer."""
    numbers = []
    for seed in range(200):
        hidden = equal_spans(4, 1560, 0.065, 10, generator(seed), thin=False)
        alone = 10 * (hidden & ~F.pad(hidden, (1, 0))[:, :-1]).sum(1) == hidden.sum(1)
        numbers.append({int(n) // 10 for n in hidden.sum(1)[alone]})
    assert all(len(found) <= 1 for found in numbers)
    seen = [found.pop() for found in numbers if found]
    assert set(seen) == {10, 11}
    assert seen.count(11) / len(seen) == pytest.approx(0.14, abs=0.08)
    loose = equal_spans(500, 156, 0.65, 10, generator(), thin=False)
    assert loose.float().mean().item() == pytest.approx(0.496, abs=0.01)
    assert len(set(loose.sum(1).tolist())) > 10


def test_short_rows_have_two_spans_and_a_choice() -> None:
    hidden = equal_spans(50, 6, 0.1, 4, generator())
    assert (hidden.sum(1) == 5).all()  # both starts there are
    assert equal_spans(3, 6, 1.0, 1, generator()).sum(1).tolist() == [5, 5, 5]


def test_negatives_are_other_hidden_places_evenly() -> None:
    drawn = others(torch.tensor([5, 3]), 5, 4000, generator())
    for row, count in ((0, 5), (1, 3)):
        for i in range(count):
            hits = torch.bincount(drawn[row, i], minlength=5) / 4000
            expected = torch.tensor([1 / (count - 1) if j < count and j != i else 0.0 for j in range(5)])
            torch.testing.assert_close(hits, expected, atol=0.03, rtol=0)


def test_wav2vec2_by_hand() -> None:
    net, objective, batch = made("wav2vec2", 1, **CODES)
    losses, own = objective(net, batch), by_hand(net, objective, batch.signal[:, 0])
    scores = objective.quantiser.scores(own["features"][own["hidden"]]).unflatten(1, (2, 5))
    share, hits = scores.softmax(-1).mean(0), F.one_hot(scores.argmax(-1), 5).double().mean(0)
    used, likely = (sum((-(p * (p + 1e-7).log()).sum()).exp() for p in of) for of in (hits, share))
    total = own["contrast"] + 0.1 * (10 - likely) / 10 + 10 * own["penalty"]
    torch.testing.assert_close(losses.total, total, rtol=1e-6, atol=0)
    assert losses.terms["accuracy"].item() == pytest.approx(own["accuracy"])
    assert losses.terms["code_perplexity"].item() == pytest.approx(float(used), rel=1e-6)
    assert 2 <= used <= 10


def test_rows_that_are_not_thinned_count_by_their_tokens() -> None:
    net, objective, batch = made("wav2vec2", 1, thin=False, **CODES)
    own = by_hand(net, objective, batch.signal[:, 0])
    assert len(set(own["hidden"].sum(1).tolist())) > 1
    torch.testing.assert_close(objective(net, batch).terms["contrast"], own["contrast"].detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("second_pass", [False, True])
def test_the_sum_by_hand(second_pass: bool) -> None:
    net, objective, batch = made("wav2vec2_cmsc", 2, second_pass=second_pass, **CODES)
    signal = batch.signal.flatten(0, 1)
    own, losses = by_hand(net, objective, signal), objective(net, batch)
    first, second = (net(signal) if second_pass else own["context"].mean(1)).unflatten(0, (4, 2)).unbind(1)
    cosine = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) / 0.1 for b in second]) for a in first])
    positives = [[0], [1, 3], [2], [1, 3]]  # rows 1 and 3 are of one patient
    each = [-score.log_softmax(0)[own_].mean() for way in (cosine, cosine.T)
            for score, own_ in zip(way, positives, strict=True)]  # fmt: skip
    torch.testing.assert_close(losses.terms["cmsc"], torch.stack(each).mean().detach())
    without = objectives.build(ObjectiveSpec(name="wav2vec2", config=CODES), net, 1).double().eval()
    both = (
        without.weighed(without.parts(net, signal, replace(batch, generator=generator(2)))) + torch.stack(each).mean()
    )
    torch.testing.assert_close(losses.total, both)


def test_sizes_with_ecg_fm_are_its_90_9_million() -> None:
    with torch.device("meta"):
        net = encoders.build(EncoderSpec(name="wav2vec2", config={"in_leads": 12}), 0)
        objective: Any = objectives.build(ObjectiveSpec(name="wav2vec2_cmsc"), net, 0)
    parts = (objective.quantiser, objective.project_codes, objective.project_context)
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [246_400, 65_792, 196_864]
    assert objective.mask_token.shape == (768,)
    assert sum(p.numel() for module in (net, objective) for p in module.parameters()) == 90_883_072


def test_choices_are_argmax_and_in_training_follow_the_softmax() -> None:
    codes = GumbelCodes(3, 1, 4, 2).double()
    with torch.no_grad():
        codes.scores.weight.zero_()
        codes.scores.bias.copy_(torch.tensor([2.0, 0.0, 1.0, -1.0]))
    x, present = torch.zeros(20_000, 3, dtype=torch.float64), torch.ones(20_000, dtype=torch.bool)
    drawn = codes(x, present, 2.0, generator())
    share = torch.bincount(drawn.places[:, 0], minlength=4) / 20_000
    torch.testing.assert_close(share.double(), codes.scores.bias.detach().softmax(0), atol=0.01, rtol=0)
    assert torch.equal(drawn.vectors, codes.codes[0][drawn.places[:, 0]])  # to the bit, whatever the softmax
    best = codes.eval()(x, present, 2.0, generator())
    assert (best.places == 0).all()
    assert best.code_perplexity.item() == pytest.approx(1.0, abs=1e-5)
    entropy = torch.special.entr(codes.scores.bias.softmax(0)).sum()
    assert best.perplexity.item() == pytest.approx(entropy.exp().item(), rel=1e-5)


def test_the_gradient_of_a_choice_is_that_of_the_softmax() -> None:
    codes, x = GumbelCodes(3, 2, 4, 2).double(), torch.randn(5, 3, generator=generator(), dtype=torch.float64)
    weight = torch.randn(5, 4, generator=generator(1), dtype=torch.float64)
    (codes(x, torch.ones(5, dtype=torch.bool), 0.7, generator(2)).vectors * weight).sum().backward()
    found = codes.scores.weight.grad.clone()
    codes.scores.weight.grad = None
    there = generator(int(torch.randint(1 << 62, (), generator=generator(2))))
    scores = codes.scores(x).unflatten(-1, (2, 4))
    noisy = scores - torch.empty_like(scores).exponential_(generator=there).log()
    soft = torch.cat([(noisy / 0.7).softmax(-1)[:, g] @ codes.codes[g].detach() for g in range(2)], dim=1)
    (soft * weight).sum().backward()
    torch.testing.assert_close(found, codes.scores.weight.grad)


def test_temperatures_fall_as_in_the_source() -> None:
    ends = (2.0, 0.5, 0.999995)
    assert exponential(*ends, 0) == 2.0
    assert exponential(*ends, 100_000) == pytest.approx(2 * 0.999995**100_000)
    assert exponential(*ends, 277_259) == 0.5  # ln 4 / 5e-6 steps
    assert exponential(*ends, 277_250) > 0.5


def test_a_temperature_that_is_to_rise_is_refused() -> None:
    """A factor of at most 1 cannot raise it: it would be the last one from the first step on."""
    with pytest.raises(
        SpecError, match=r"'gumbel_temperature', expected: .*first temperature that is not below the last"
    ):
        made("wav2vec2", 1, gumbel_temperature=[0.5, 2.0])


def test_cmsc_is_symmetric_infonce_and_ln_n_at_collapse() -> None:
    net, objective, batch = made("cmsc", 2)
    batch = replace(batch, group=torch.arange(4))
    first, second = (net(view) for view in batch.signal.unbind(1))
    score = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / 0.1
    own = torch.arange(4)
    expected = (F.cross_entropy(score, own) + F.cross_entropy(score.T, own)) / 2
    torch.testing.assert_close(objective(net, batch).total, expected)
    assert across_views(torch.ones(4, 3), torch.ones(4, 3), own, CmscConfig()).item() == pytest.approx(log(4))
    assert objective.untrained(4, 30) == log(4)


def test_lengths_have_no_gradient_unless_asked_for() -> None:
    """With one, a cosine's gradient stands upright on the embedding; without, what is left is the detached form's."""
    second, own = torch.randn(4, 3, generator=generator(), dtype=torch.float64), torch.arange(4)
    found = {}
    for normalise in (True, False):
        first = torch.randn(4, 3, generator=generator(1), dtype=torch.float64).requires_grad_()
        loss = across_views(first, second, own, CmscConfig(normalise_gradient=normalise))
        loss.backward()
        found[normalise] = (loss.item(), first.detach(), first.grad)
    assert found[True][0] == found[False][0]
    _, first, upright = found[True]
    torch.testing.assert_close((first * upright).sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    radial = (first * found[False][2]).sum(1)
    assert (radial.abs() > 1e-4).all()
    along = F.normalize(first, dim=1)
    torch.testing.assert_close(found[False][2] - (found[False][2] * along).sum(1, keepdim=True) * along, upright)


def test_an_encoder_that_shortens_after_its_tokens_is_refused() -> None:
    net = encoders.build(EncoderSpec(name="cape_resnet", config={"widths": [8, 8], "embedding_dim": 8}), 0)
    objective = objectives.build(ObjectiveSpec(name="wav2vec2"), net, 0)
    sampler = SamplerSpec(name="random_batches", pairing="record", views=1, groups=4)
    config = RunConfig(
        name="x", seed=0, objective=ObjectiveSpec(name="wav2vec2"), sampler=sampler, input=InputSpec(length=640)
    )
    with pytest.raises(SpecError, match=r"needs a context for every token, encoder cape_resnet makes \d+ of \d+\. Use"):
        check(objective, net, config)


def test_other_encoders_have_normed_tokens_for_targets_and_no_penalty() -> None:
    net: Any = encoders.build(EncoderSpec(name="s4", config={"width": 6}), 0).double().eval()
    objective = objectives.build(ObjectiveSpec(name="wav2vec2", config=CODES), net, 1).double().eval()
    signal = torch.randn(3, 1, 8, 60, generator=generator(1), dtype=torch.float64)
    batch = ViewBatch(signal, torch.full((3, 1), 60), torch.arange(3), None, 0, 100, generator())
    losses = objective(net, batch)
    raw, features, tokens = net.features_and_tokens(signal[:, 0])
    assert (raw, losses.terms["penalty"].item()) == (None, 0)
    torch.testing.assert_close(features, F.layer_norm(tokens, (6,)))
