"""BatchNorm statistics of a model from recordings of a store: those of the signals, whatever the model had before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from capezoo import encoders
from capezoo.embedding import from_store
from capezoo.embedding.adapt import Adaptation
from capezoo.embedding.embed import adaptation
from capezoo.embedding.from_store import estimate_norms
from capezoo.specs import EncoderSpec, InputSpec
from capezoo.zoo.forward import estimate_batch_norm
from ecgcohorts.errors import SpecError

SMALL = {
    "cape_resnet": {"widths": [4, 4], "embedding_dim": 6, "kernel": 8, "dropout": 0.2},
    "xresnet1d": {},
    "ribeiro_resnet": {},
}


class OneNorm(nn.Module):
    """A layer whose statistics are known: those of the signal itself."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8, momentum=0.25)
        self.drop = nn.Dropout(0.5)

    def forward_features(self, x):
        assert not self.drop.training
        return self.norm(self.drop(x))


def windows(n=300):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, 8, 50)) * np.arange(1, 9)[:, None] + np.arange(8)[:, None]).astype(np.float32)


def test_statistics_are_those_of_all_windows_each_counting_alike():
    model, x = OneNorm().train(), windows()
    x[290:] += 5  # of a short last block, which must not count as much as a whole one
    assert estimate_batch_norm(model, [x[:150], x[150:290], x[290:]]) is model
    np.testing.assert_allclose(model.norm.running_mean, x.mean(axis=(0, 2)), rtol=1e-4)
    blocks = [x[:150].var(axis=(0, 2)), x[150:290].var(axis=(0, 2)), x[290:].var(axis=(0, 2))]
    np.testing.assert_allclose(model.norm.running_var, np.average(blocks, axis=0, weights=[150, 140, 10]), rtol=1e-2)
    assert model.norm.momentum == 0.25
    assert model.training
    assert model.norm.training


def test_what_the_model_had_before_does_not_matter():
    first, second, x = OneNorm(), OneNorm().eval(), windows()
    second.norm.running_mean += 7
    second.norm.num_batches_tracked += 3
    for model in (first, second, second):
        estimate_batch_norm(model, [x])
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not second.norm.training


def test_momentum_is_put_back_when_a_block_cannot_be_read():
    model = OneNorm()

    def broken():
        yield windows(4)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        estimate_batch_norm(model, broken())
    assert model.norm.momentum == 0.25


@pytest.mark.parametrize("name", SMALL)
def test_features_of_a_random_network_move_once_it_knows_the_signals(name, store):
    model = encoders.build(EncoderSpec(name=name, config=SMALL[name]), seed=0)
    model.spec = InputSpec()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    raw = [layer.running_var.clone() for layer in layers]
    estimate_norms(model, store, adaptation(model, store), np.arange(5))
    assert all((layer.running_var - before).abs().max() > 0 for layer, before in zip(layers, raw, strict=True))
    again = encoders.build(EncoderSpec(name=name, config=SMALL[name]), seed=0)
    again.spec = model.spec
    estimate_norms(again, store, adaptation(model, store), np.arange(5)[::-1])
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_blocks_hold_recordings_from_everywhere_and_no_more_than_asked(store, monkeypatch):
    """Contiguous blocks would each be of one cohort."""
    monkeypatch.setattr(from_store, "_NORM_WINDOWS", 4)
    monkeypatch.setattr(from_store, "_NORM_BLOCK", 2)
    read = []
    counting = replace(store)
    object.__setattr__(counting, "read", lambda rows: read.append(rows.tolist()) or store.read(rows))
    model = OneNorm()
    model.spec = InputSpec()
    estimate_norms(model, counting, Adaptation.of_recipe(InputSpec(), store.recipe, "store"), np.arange(5))
    rows = store.index["row"]
    assert read == [rows[[0, 3]].tolist(), rows[[1, 4]].tolist()]


def test_no_recordings_are_refused_and_a_model_without_batchnorm_needs_none(store):
    model = encoders.build(EncoderSpec(config=SMALL["cape_resnet"]), seed=0)
    model.spec = InputSpec()
    plan = Adaptation.of_recipe(InputSpec(), store.recipe, "store")
    with pytest.raises(SpecError, match="found no window to estimate BatchNorm statistics on"):
        estimate_norms(model, store, plan, np.zeros(0, np.int64))
    bare = nn.Linear(1, 1)
    bare.spec = InputSpec()
    assert estimate_norms(bare, store, plan, np.zeros(0, np.int64)) is bare
