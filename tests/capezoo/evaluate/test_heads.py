"""Stacked heads against the same head trained alone, torch's Adam, and the paper's parameter counts."""

import numpy as np
import pytest
import torch

from capezoo.evaluate.measure import heads
from capezoo.evaluate.measure.heads import AGE, SEX, Examples, HeadConfig

SMALL = HeadConfig(hidden=(8, 6), loss="mse", lr=1e-2, max_epochs=15, batch=16, patience=4, plateau_patience=2)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5)).astype(np.float32)
    y = 1 / (1 + np.exp(-x @ rng.normal(size=5)))
    return x, y


def parts(x, y, *transforms):
    inputs = [np.asarray(f(x), np.float32) for f in transforms] or [x]
    return Examples.of([i[:60] for i in inputs], y[:60]), Examples.of([i[60:] for i in inputs], y[60:])


def test_parameter_counts_of_the_paper():
    assert AGE.parameters(256) == 98_817
    assert SEX.parameters(256) == 131_841
    built = heads._initial(256, SEX, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in built) == 131_841


def test_a_head_among_others_equals_the_head_alone(data):
    x, y = data
    train, val = parts(x, y, np.copy, lambda x: 3 * x)
    together = SMALL.train(train, val, seeds=[4, 5, 6])
    alone = SMALL.train(*parts(x, y, lambda x: 3 * x), seeds=[5])
    assert together.epochs.shape == (2, 3)
    assert together.epochs[1, 1] == alone.epochs[0, 0]
    np.testing.assert_allclose(together.predict(3 * x, 1)[1], alone.predict(3 * x)[0], rtol=1e-4, atol=1e-6)
    assert len(set(together.best_loss.ravel().round(9))) == 6  # runs and groups do differ


def test_adam_equals_torch():
    generator = torch.Generator().manual_seed(1)
    start, gradients = torch.randn(3, 4, 2, generator=generator), torch.randn(7, 3, 4, 2, generator=generator)
    rates = torch.tensor([1e-2, 1e-3, 5e-2])
    ours = heads._Adam([start.clone()])
    for gradient in gradients:
        ours.step([gradient], rates)
    for head, rate in enumerate(rates.tolist()):
        p = start[head].clone().requires_grad_()
        theirs = torch.optim.Adam([p], lr=rate, betas=heads._BETAS, eps=heads._EPSILON)
        for gradient in gradients[:, head]:
            p.grad = gradient.clone()
            theirs.step()
        torch.testing.assert_close(ours.params[0][head], p, rtol=1e-5, atol=1e-7)


def test_heads_learn_a_function_and_balanced_sex(data):
    x, y = data
    config = HeadConfig(hidden=(16, 16), loss="bce", lr=1e-2, max_epochs=60, dropout=0.0)
    label = (y > 0.5).astype(float)
    train, val = parts(x, label)
    trained = config.train(train, val, seeds=[0])
    assert ((trained.predict(x[60:])[0] > 0.5) == label[60:]).mean() > 0.85


def test_the_best_epoch_is_kept_not_the_last(data):
    """With a rate so high that training diverges, the kept head still has the best validation loss seen."""
    x, y = data
    train, val = parts(x, y)
    trained = SMALL.model_copy(update={"lr": 0.5, "plateau_factor": 1.0}).train(train, val, seeds=[0, 1])
    predicted = trained.predict(x[60:])
    np.testing.assert_allclose(((predicted - y[60:]) ** 2).mean(axis=1), trained.best_loss[0], rtol=1e-4)


def test_watch_follows_the_keras_callbacks():
    """One head whose loss improves by less than min_delta: plateau twice, then stop; another goes on improving."""
    config = SMALL.model_copy(update={"patience": 5, "plateau_patience": 2, "min_delta": 0.1, "max_epochs": 7})
    watch = heads._Watch(2, config)
    rates = []
    for epoch in range(7):
        _, kept = watch.update(torch.tensor([1.0 - 0.001 * epoch, 1.0 - 0.2 * epoch])[watch.active])
        rates.append(float(watch.lr[0]))
        watch.drop(kept)
    assert watch.epochs.tolist() == [6, 7]
    assert watch.best.tolist() == pytest.approx([0.995, -0.2])
    assert rates[:6] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


def test_heads_refuse_nan_and_nothing(data):
    x, y = data
    train, val = parts(np.where(x > 1, np.nan, x), y)
    with pytest.raises(ValueError, match="not finite"):
        SMALL.train(train, val, seeds=[0])
    with pytest.raises(ValueError, match="no record to train on"):
        SMALL.train(Examples.of([x[:0]], y[:0]), val, seeds=[0])


def test_training_leaves_the_global_generator_alone(data):
    before = torch.random.get_rng_state()
    SMALL.train(*parts(*data), seeds=[0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_head_without_hidden_layers_finds_the_least_squares_line(data):
    x, _ = data
    truth = np.column_stack([3 * x[:, 0] - 4, x[:, 1] + 2 * x[:, 2]])
    config = HeadConfig(hidden=(), loss="linear", outputs=2, lr=0.05, max_epochs=300, dropout=0.0, plateau_patience=20)
    assert config.parameters(5) == 12
    trained = config.train(*parts(x, truth), seeds=[0, 1])
    answer = trained.predict(x[60:])
    assert answer.shape == (2, 30, 2)
    line = np.linalg.lstsq(np.c_[x[:60], np.ones(60)], truth[:60], rcond=None)[0]
    np.testing.assert_allclose(answer[0], np.c_[x[60:], np.ones(30)] @ line, atol=0.05)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_several_outputs_are_probabilities_and_their_loss_is_keras_s(data, loss):
    x, _ = data
    truth = np.eye(3)[np.argmax(x[:, :3], axis=1)]
    config = HeadConfig(hidden=(), loss=loss, outputs=3, lr=0.05, max_epochs=80, dropout=0.0)
    trained = config.train(*parts(x, truth), seeds=[0])
    answer = trained.predict(x[60:])[0]
    assert (answer.argmax(axis=1) == truth[60:].argmax(axis=1)).mean() > 0.75
    cross = {"softmax": -np.log(answer)[truth[60:] == 1], "bce": -np.log(np.where(truth[60:] == 1, answer, 1 - answer))}
    assert trained.best_loss[0, 0] == pytest.approx(cross[loss].mean(), rel=1e-4)
    assert (np.allclose(answer.sum(axis=1), 1)) == (loss == "softmax")
