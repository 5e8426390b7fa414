"""CPC: closed forms, negatives that never hold the target, and predictions that see nothing later."""

from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from capezoo import encoders
from capezoo.objectives import cpc
from capezoo.objectives._contract import ViewBatch
from capezoo.specs import EncoderSpec


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(signal: torch.Tensor) -> ViewBatch:
    rows = len(signal)
    return ViewBatch(signal[:, None], torch.ones(rows, 1), torch.arange(rows), None, 0, 1, generator())


def vit(**config: object) -> torch.nn.Module:
    small = {"patch": 2, "embedding_dim": 16, "head_dim": 8, "depth": 2, "in_leads": 3} | config
    return encoders.build(EncoderSpec(name="vit1d", config=small), seed=0)


class Alike(torch.nn.Module):
    """Tokens that are all equal."""

    num_features = token_dim = 4

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), x.shape[-1] // 2, 4)

    def contextualise(self, tokens: torch.Tensor, keep: None = None) -> list[torch.Tensor]:
        return [tokens]


@pytest.mark.parametrize(("reduction", "expected"), [("sum", 1389.906), ("mean", 4.859812)])
def test_equal_scores_cost_the_log_of_all_candidates(reduction: str, expected: float) -> None:
    """300 tokens, 14 ahead, 128 negatives: 286 ln 129, whatever the number of recordings."""
    objective = cpc.Objective(cpc.Config(reduction=reduction), Alike())
    losses = objective(Alike(), batch_of(torch.zeros(3, 8, 600)))
    each = 286 if reduction == "sum" else 1
    assert losses.total.item() == pytest.approx(each * log(129), rel=1e-6) == pytest.approx(expected, rel=1e-6)
    assert objective.untrained(512, 300) == pytest.approx(each * log(129), rel=1e-12)
    assert losses.terms["accuracy"].item() == 0  # equal scores know nothing


def test_random_weights_are_right_once_in_as_many_as_there_are_candidates() -> None:
    predicted, targets = (torch.randn(64, n, 16, generator=generator(n)) for n in (286, 300))
    score = cpc._scores(predicted, targets, cpc._candidates(64, 300, 14, 128, generator()))
    right = int((score[..., :1] > score[..., 1:]).all(-1).sum())
    assert stats.binomtest(right, 64 * 286, 1 / 129).pvalue > 1e-3


def test_the_target_is_never_among_its_negatives_which_are_uniform_over_the_others() -> None:
    among = cpc._candidates(400, 20, 3, 16, generator())
    assert among.shape == (400, 17, 17)
    target, negatives = among[..., :1], among[..., 1:]
    assert (target[..., 0] == torch.arange(3, 20)).all()
    assert (negatives != target).all()
    counts = np.bincount(negatives[:, 5].flatten().numpy(), minlength=20)
    assert counts[8] == 0
    assert stats.chisquare(np.delete(counts, 8)).pvalue > 1e-3


def test_loss_equals_the_sum_written_out() -> None:
    model, config = vit(causal=True).double(), cpc.Config(ahead=2, negatives=5)
    objective = cpc.Objective(config, model).double()
    signal = torch.randn(2, 3, 24, generator=generator(), dtype=torch.float64)
    given = batch_of(signal)
    tokens = model.tokens(signal)
    context = model.contextualise(tokens)[-1]
    among = cpc._candidates(2, 12, 2, 5, generator())
    total = 0.0
    for row in range(2):
        for t in range(10):
            predicted = objective.predictor.weight @ context[row, t]
            score = torch.stack([predicted @ tokens[row, place] for place in among[row, t].tolist()])
            total = total - F.log_softmax(score, 0)[0]
    torch.testing.assert_close(objective(model, given).total, total / 2)


@pytest.mark.parametrize("causal", [True, False])
def test_a_prediction_has_no_gradient_to_later_samples_if_the_encoder_is_causal(causal: bool) -> None:
    model = vit(causal=causal)
    objective = cpc.Objective(cpc.Config(ahead=2), model)
    signal = torch.randn(1, 3, 24, generator=generator(), requires_grad=True)
    for t in (0, 4, 9):
        predicted = objective.predictor(model.contextualise(model.tokens(signal))[-1])[:, t]
        (gradient,) = torch.autograd.grad(predicted.sum(), signal)
        assert gradient[..., : 2 * (t + 1)].abs().sum() > 0
        assert (gradient[..., 2 * (t + 1) :].abs().sum() == 0) == causal


def test_targets_and_negatives_train_the_stem() -> None:
    model = vit(causal=True)
    objective = cpc.Objective(cpc.Config(ahead=2, negatives=4), model)
    signal = torch.randn(2, 3, 24, generator=generator())
    tokens = model.tokens(signal)
    tokens.retain_grad()
    with torch.no_grad():
        context = model.contextualise(tokens)[-1]
    predicted = objective.predictor(context[:, :-2])
    score = cpc._scores(predicted, tokens, cpc._candidates(2, 12, 2, 4, generator()))
    F.cross_entropy(score.transpose(1, 2), torch.zeros(2, 10, dtype=torch.long)).backward()
    assert (tokens.grad.abs().sum((0, 2)) > 0).all()  # past and future, through targets and negatives alone


def test_an_encoder_that_shortens_is_given_means_of_the_tokens_its_contexts_cover() -> None:
    config = {"widths": [8], "embedding_dim": 8, "stem_stride": 2, "in_leads": 3}
    model = encoders.build(EncoderSpec(name="cape_resnet", config=config), seed=0).eval()
    objective = cpc.Objective(cpc.Config(ahead=1, negatives=3), model)
    signal = torch.randn(2, 3, 64, generator=generator())  # 32 tokens, 8 contexts
    with torch.no_grad():
        tokens = model.tokens(signal)
        context = model.contextualise(tokens)[-1]
        targets = tokens.unflatten(1, (8, 4)).mean(2)
        score = cpc._scores(objective.predictor(context[:, :-1]), targets, cpc._candidates(2, 8, 1, 3, generator()))
        expected = -F.log_softmax(score, -1)[..., 0].sum(1).mean()
        torch.testing.assert_close(objective(model, batch_of(signal)).total, expected)
