"""Fine-tuning under shift: what is trained, what stays, and that rows pair."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from capezoo import encoders
from capezoo.embedding.adapt import Adaptation
from capezoo.embedding.folder import EmbeddingInfo, Embeddings
from capezoo.errors import Unanswerable
from capezoo.evaluate.measure import tuning
from capezoo.evaluate.measure.training import Fit
from capezoo.evaluate.measure.tuning import Material, Tuner
from capezoo.evaluate.questions import Context, Subject, finetune
from capezoo.evaluate.questions.finetune import Config
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe

LENGTH, UNITS = 128, 8
QUICK = Config(train_cohort="home", runs=2, max_epochs=3, head_epochs=3, resamples=20)


@dataclass(frozen=True, eq=False)
class Strips:
    index: CohortIndex
    signals: np.ndarray
    recipe: Recipe = CAPE_V1
    path: str = "memory"

    def read(self, rows):
        return self.signals[rows]

    def refuse_removed(self):
        pass


@pytest.fixture(scope="module")
def store():
    """Two cohorts of 60 people: the pace of lead I is their age, the sign of V1 their sex; away, all is three times as large."""
    rng = np.random.default_rng(0)
    n = 120
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: rng.integers(0, 256, (n, 16)).astype("u1") for name in BYTE_COLUMNS}
    columns |= {"row": np.arange(n), "patient": np.arange(n), "cohort": (np.arange(n) >= 60).astype("i4")}
    age, sex = rng.uniform(20, 85, n), rng.integers(0, 2, n)
    columns |= {"age": age.astype("f4"), "sex": sex.astype("i1"), "valid_stop": np.full(n, LENGTH + 40, "i4")}
    time = np.arange(LENGTH + 40)
    signals = rng.normal(0, 50, (n, 8, len(time)))
    signals[:, 0] += 500 * np.sin(time * age[:, None] / 100 + rng.uniform(0, 6, (n, 1)))
    signals[:, 2] += 400 * (2 * sex - 1)[:, None]
    signals[60:] *= 3
    return Strips(CohortIndex(columns, ("home", "away")), np.rint(signals).astype("i2"))


def network(seed=0, **config):
    values = {"widths": [4, 6], "embedding_dim": UNITS, "stem_stride": 4, "kernel": 8}
    model = encoders.build(EncoderSpec(config=values | config), seed)
    model.spec = InputSpec(length=LENGTH)
    return model.eval()


def subject(store, name, *models, estimated=False, batch_norm="running"):
    info = EmbeddingInfo(
        name=name,
        weights="0" * 64,
        card=None,
        input=InputSpec(),
        adaptation=Adaptation.of_recipe(InputSpec(), CAPE_V1, "store"),
        batch_norm=batch_norm,
        store_fingerprint="f" * 64,
        records=len(store.index),
        width=UNITS,
        columns=tuple(store.index.columns),
        cohorts=store.index.cohorts,
        sites=(),
        devices=(),
        data="0" * 64,
    )
    features = np.zeros((len(store.index), UNITS), np.float32)
    return Subject(Embeddings(Path(name), info, store.index, features), models=models, estimated=estimated)


def material_of(store, config=QUICK, tasks=("age", "sex")):
    return Material(store, config.parts(store.index, 0), tasks, InputSpec(length=LENGTH))


def rows_of(result):
    return {(row.start, row.how): row for row in result.rows}


def test_a_network_learns_at_home_what_a_frozen_random_encoder_does_not_show(store):
    config = QUICK.model_copy(update={"max_epochs": 40, "encoder_lr": 1e-2, "lr": 1e-2, "batch": 8, "runs": 1})
    untrained = subject(store, "random", network(), estimated=True)
    result = finetune.run(Context((untrained,), 0, store=store), config)
    rows = rows_of(result)
    home = next(test for test in result.tests if test.cohort == "home")
    assert rows["random", "fine-tuned"].score("sex", "home").value > 0.95
    assert rows["random", "fine-tuned"].score("age", "home").value < home.constant_age_mae - 3
    assert rows["random", "fine-tuned"].score("age", "home").value < rows["random", "frozen"].score("age", "home").value
    assert result.train_records == {"age": 25, "sex": 25}


def test_equal_starts_give_equal_rows_and_no_difference_and_stay_as_they_were(store):
    one = network()
    before = copy.deepcopy(one.state_dict())
    steps = []
    context = Context(
        (subject(store, "a", one), subject(store, "b", copy.deepcopy(one))), 0, lambda *step: steps.append(step), store
    )
    result = finetune.run(context, QUICK)
    rows = rows_of(result)
    for how in ("frozen", "fine-tuned"):
        assert rows["a", how].scores == rows["b", how].scores
        assert len(set(rows["a", how].score("age", "away").runs)) == 2
    between = [one for one in result.differences if (one.first, one.second) == ("a, fine-tuned", "b, fine-tuned")]
    assert {(one.value, one.low, one.high) for one in between} == {(0.0, 0.0, 0.0)}
    gains = [one for one in result.differences if (one.first, one.second) == ("a, fine-tuned", "a, frozen")]
    assert len(gains) == 4
    assert any(one.value != 0 for one in gains)
    assert all(torch.equal(before[key], value) for key, value in one.state_dict().items())
    assert steps == [(step, 8) for step in range(1, 9)]
    assert set(finetune.headline(result)["a"]) == {
        f"{how}: {what}"
        for how in ("frozen", "fine-tuned")
        for what in ("age error elsewhere, years", "sex AUROC elsewhere")
    }
    sexes = [score for row in result.rows for score in row.scores if score.task == "sex"]
    assert all(0 <= score.low <= score.value <= score.high <= 1 for score in sexes)
    assert all(score.value == pytest.approx(np.mean(score.runs)) for score in sexes)
    networks = finetune.tables(result)[-1].rows
    assert (
        networks.loc["a, frozen, network 1", "sex, away"] == f"{rows['a', 'frozen'].score('sex', 'away').runs[1]:.3f}"
    )
    table = finetune.tables(result)[0].rows
    assert list(table.index) == ["a, frozen", "a, fine-tuned", "b, frozen", "b, fine-tuned", "median age, always"]
    assert list(table.columns)[:2] == ["home (tuned here)", "away"]


@pytest.mark.parametrize(("norms", "moves"), [("train", True), ("frozen", False)])
def test_batch_norm_follows_its_batches_or_keeps_what_it_came_with(store, norms, moves, monkeypatch):
    kept = {}
    whole = tuning._Whole.forward

    def forward(self, windows):
        kept.update({name: buffer.clone() for name, buffer in self.encoder.named_buffers()})
        return whole(self, windows)

    monkeypatch.setattr(tuning._Whole, "forward", forward)
    encoder = network()
    Tuner(encoder, material_of(store), QUICK.model_copy(update={"norms": norms})).whole(0)
    same = [torch.equal(kept[name], buffer) for name, buffer in encoder.named_buffers() if "running" in name]
    assert all(same) is not moves
    assert {layer.momentum for layer in encoder.modules() if isinstance(layer, _BatchNorm)} == {0.01}


def test_an_untrained_start_has_the_statistics_of_the_training_part(store):
    material = material_of(store)
    raw = network()
    begun = finetune._begun(subject(store, "random", raw, estimated=True), 0, material)
    assert not torch.equal(begun.stem_norm.running_var, raw.stem_norm.running_var)
    trained = finetune._begun(subject(store, "z", raw), 0, material)
    assert torch.equal(trained.stem_norm.running_var, raw.stem_norm.running_var)
    assert trained is not raw


def test_a_row_with_statistics_of_each_cohort_does_not_see_the_gain_elsewhere(store):
    encoder = network()
    subjects = (subject(store, "kept", encoder), subject(store, "own", encoder, batch_norm="per_cohort"))
    config = QUICK.model_copy(update={"max_epochs": 10, "encoder_lr": 1e-2, "lr": 1e-2, "batch": 8, "runs": 1})
    rows = rows_of(finetune.run(Context(subjects, 0, store=store), config))
    kept, own = (rows[name, "fine-tuned"].score("age", "away").value for name in ("kept", "own"))
    home = rows["own", "fine-tuned"].score("age", "home").value
    assert abs(own - home) < abs(kept - home)


def test_rates_fall_from_the_last_block_to_the_stem():
    groups = tuning._rates(network(), QUICK.model_copy(update={"encoder_lr": 0.1, "layer_decay": 0.5}))
    assert [group["lr"] for group in groups] == pytest.approx([0.025, 0.05, 0.1])
    assert sum(len(group["params"]) for group in groups) == len(list(network().parameters()))
    vit = encoders.build(EncoderSpec(name="vit1d", config={"depth": 2, "embedding_dim": 64}), 0)
    assert [group["lr"] for group in tuning._rates(vit, QUICK)] == pytest.approx([3e-4] * 3)


def test_training_stops_early_and_keeps_the_best_state():
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    states = []

    def score():
        states.append(copy.deepcopy(layer.state_dict()))
        return next(losses)

    layer, entries = nn.Linear(2, 1), np.zeros(4, np.int64)
    fit = Fit(
        layer,
        torch.optim.SGD(layer.parameters(), 0.1),
        lambda epoch: iter([(torch.ones(4, 2), entries)]),
        lambda output, entries: output.square().mean(),
        score,
        torch.device("cpu"),
    )
    assert fit.run(max_epochs=9, patience=2, seed=0) == 4
    assert torch.equal(layer.weight, states[1]["weight"])
    assert not torch.equal(states[1]["weight"], states[3]["weight"])


def test_a_loss_that_is_no_number_ends_with_the_remedy(store):
    tuner = Tuner(network(), material_of(store), QUICK.model_copy(update={"lr": 1e30, "encoder_lr": 1e30}))
    with pytest.raises(SpecError, match=r"no number in every epoch, expected numbers\. Lower lr and encoder_lr"):
        tuner.whole(0)


def test_what_has_no_weights_is_frozen_only_and_embeddings_alone_are_no_start(store):
    class Lengths(nn.Module):
        num_features = 8

        def __init__(self):
            super().__init__()
            self.unit = nn.Parameter(torch.ones(1), requires_grad=False)

        def forward_features(self, x):
            return x.square()

        def forward_head(self, x, pre_logits=False):
            return x.mean(-1)

    plain = Lengths()
    plain.spec = InputSpec(length=LENGTH)
    context = Context((subject(store, "measured", plain), subject(store, "z", network())), 0, store=store)
    result = finetune.run(context, QUICK.model_copy(update={"runs": 1}))
    assert [row.name for row in result.rows] == ["measured, frozen", "z, frozen", "z, fine-tuned"]
    assert finetune.headline(result)["measured"]["fine-tuned: sex AUROC elsewhere"] is None
    for incomplete in (replace(context, store=None), Context((subject(store, "bare"),), 0, store=store)):
        with pytest.raises(Unanswerable, match="found embeddings alone, expected their store and weights"):
            finetune.run(incomplete, QUICK)


def test_only_labels_that_are_there_are_learned(store):
    columns = dict(store.index.columns)
    columns["age"] = np.full_like(columns["age"], np.nan)
    columns["sex"] = columns["sex"].copy()
    columns["sex"][::7] = -1
    nameless = replace(store, index=CohortIndex(columns, store.index.cohorts))
    result = finetune.run(Context((subject(nameless, "z", network()),), 0, store=nameless), QUICK)
    assert list(result.train_records) == ["sex"]
    assert {score.task for row in result.rows for score in row.scores} == {"sex"}
    columns["sex"] = np.full_like(columns["sex"], -1)
    unlabelled = replace(store, index=CohortIndex(columns, store.index.cohorts))
    with pytest.raises(Unanswerable, match="found ages or sexes of fewer than 2"):
        finetune.run(Context((subject(unlabelled, "z", network()),), 0, store=unlabelled), QUICK)
