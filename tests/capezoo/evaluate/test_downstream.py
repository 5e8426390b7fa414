"""Downstream tasks: what each mode trains, crops and segments, limits chosen on validation, and which cohorts are asked."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from capezoo import encoders
from capezoo.cli.commands.evaluate import _options_of
from capezoo.embedding.folder import without_embeddings
from capezoo.errors import Unanswerable
from capezoo.evaluate.measure import learning
from capezoo.evaluate.measure.learning import Attention, Learner, Lesson
from capezoo.evaluate.measure.training import Scaled, Windows
from capezoo.evaluate.questions import Context, Subject, downstream
from capezoo.evaluate.questions._targets import _statistics, limits_of
from capezoo.evaluate.questions.downstream import Config
from capezoo.evaluate.results import EvaluatedWeights
from capezoo.evaluate.rows import Embedder, Row
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe

LENGTH, UNITS = 64, 8
EVERYONE = np.arange(120)
QUICK = Config(
    **{"epochs": 2, "head_epochs": 3, "crops": 1, "resamples": 20, "min_patients": 2, "batch": 16},
    **{"train_records": 50, "validation_records": 25, "test_records": 25},
)


@dataclass(frozen=True, eq=False)
class Strips:
    index: CohortIndex
    signals: np.ndarray
    recipe: Recipe = CAPE_V1
    path: str = "memory"
    fingerprint: str = "f" * 64

    def read(self, rows):
        return self.signals[rows]

    def refuse_removed(self):
        pass


@pytest.fixture(scope="module")
def store():
    """Two cohorts of 60 people: V1 is positive in those with AF, noise in V2 large in those with RBBB, known at home only."""
    rng = np.random.default_rng(0)
    n = len(EVERYONE)
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: rng.integers(0, 256, (n, 16)).astype("u1") for name in BYTE_COLUMNS}
    away = EVERYONE >= 60
    columns |= {"row": EVERYONE, "patient": EVERYONE, "cohort": away.astype("i4")}
    columns |= {"age": rng.uniform(20, 85, n).astype("f4"), "valid_stop": np.full(n, 3 * LENGTH + 10, "i4")}
    af, rbbb = (rng.integers(0, 2, n).astype("f4") for _ in range(2))
    columns |= {"label_af": af, "label_rbbb": np.where(away, np.nan, rbbb).astype("f4")}
    signals = rng.normal(0, 50, (n, 8, 3 * LENGTH + 10))
    signals[:, 2] += 400 * (2 * af - 1)[:, None]
    signals[:, 3] *= 1 + 4 * rbbb[:, None]
    signals[away] *= 2
    return Strips(CohortIndex(columns, ("home", "away")), np.rint(signals).astype("i2"))


def network(seed=0, **config):
    values = {"widths": [4, 6], "embedding_dim": UNITS, "stem_stride": 4, "kernel": 8}
    model = encoders.build(EncoderSpec(config=values | config), seed)
    model.spec = InputSpec(length=LENGTH)
    return model.eval()


class Sums(nn.Module):
    """Like measurements: features without tokens, and nothing to train."""

    num_features = 8

    def __init__(self, trained=False):
        super().__init__()
        self.unit, self.spec = nn.Parameter(torch.ones(1), requires_grad=trained), InputSpec(length=LENGTH)

    def forward_features(self, x):
        return x.square().mean(-1)

    def forward_head(self, x, pre_logits=False):
        return x


def subject(store, name, *models, card="0" * 64, **how):
    return Subject(without_embeddings(models[0], store, name, card), models=models, **how)


def asked(store, *subjects, **settings):
    return downstream.run(Context(subjects, 1, store=store), QUICK.model_copy(update=settings))


def learner(store, mode="linear", encoder=None, config=QUICK, **how):
    encoder = encoder or network()
    return Learner(encoder, Windows(store, InputSpec.of_model(encoder)), config, mode, **how)


def lesson(store, kind="labels", columns=("label_af",)):
    truth = np.column_stack([store.index[name] for name in columns]).astype(float)
    return Lesson(kind, truth, EVERYONE[:80:2], EVERYONE[1:60:2])


def test_losses_are_means_over_what_is_known():
    nan = np.nan
    output = torch.tensor([[0.3, -1.0], [2.0, 0.5], [0.1, 0.2]])
    labels = Lesson("labels", np.array([[1, nan], [0, 1], [nan, nan]]), EVERYONE[:3], EVERYONE[:3])
    each = [np.log1p(np.exp(-0.3)), np.log1p(np.exp(2.0)), np.log1p(np.exp(-0.5))]
    assert float(labels.loss(output, EVERYONE[:3])) == pytest.approx(np.mean(each))
    assert labels.entries.tolist() == [0, 1]
    number = Lesson("number", np.array([[10.0], [30.0], [nan]]), EVERYONE[:3], EVERYONE[:3])
    assert float(number.loss(output[:, :1], EVERYONE[:3])) == pytest.approx((abs(0.3 + 1) + abs(2.0 - 1)) / 2)
    np.testing.assert_allclose(number.said(output[:, :1])[:, 0], [23, 40, 21])
    assert number.score(np.array([[15.0], [30.0], [0.0]])) == pytest.approx(5 / 10 / 2)
    classes = Lesson("classes", np.array([[1.0, 0.0], [0.0, 1.0], [nan, nan]]), EVERYONE[:3], EVERYONE[:3])
    chance = np.exp(output.numpy()) / np.exp(output.numpy()).sum(axis=1, keepdims=True)
    assert float(classes.loss(output, EVERYONE[:3])) == pytest.approx(-np.log([chance[0, 0], chance[1, 1]]).mean())


def test_an_epoch_is_judged_by_scikit_learn_s_macro_auroc_over_classes_that_have_both():
    rng = np.random.default_rng(0)
    truth = (rng.random((220, 71)) < rng.uniform(0.002, 0.3, 71)).astype(float)
    answers = 0.3 * truth + rng.random((220, 71))
    scored = truth.any(axis=0) & ~truth.all(axis=0)
    assert 40 < scored.sum() < 71
    expected = roc_auc_score(truth[:, scored], answers[:, scored], average="macro")
    part = np.arange(220)
    assert -Lesson("labels", truth, part, part).score(answers) == pytest.approx(expected)
    assert _statistics("labels", truth, answers)["macro AUROC"](np.ones((1, 220)))[0] == pytest.approx(expected)
    assert np.isnan(Lesson("labels", np.zeros((220, 71)), part, part).score(answers))
    assert np.isnan(Lesson("labels", truth, part, part).score(answers * np.nan))


def test_limits_give_the_best_f1_of_the_validation_part():
    rng = np.random.default_rng(1)
    truth = (rng.random((60, 3)) < (0.5, 0.1, 0)).astype(float)
    answer = np.round(0.3 * truth + rng.random((60, 3)), 1) / 1.3
    limits = limits_of(truth, answer)
    assert limits[2] == 0.5
    for place in (0, 1):
        best = max(f1_score(truth[:, place], answer[:, place] > cut) for cut in np.r_[-1, np.unique(answer[:, place])])
        assert f1_score(truth[:, place], answer[:, place] > limits[place]) == pytest.approx(best)
    missing = np.where(np.arange(60)[:, None] < 30, truth, np.nan)
    np.testing.assert_array_equal(limits_of(missing, answer), limits_of(truth[:30], answer[:30]))


def test_attention_is_torch_s_with_one_query_and_has_the_parameters_of_the_study():
    torch.manual_seed(0)
    x = torch.randn(5, 12, 7)
    pool = Attention(Scaled(np.random.default_rng(0).normal(size=(50, 12)).astype("f4")), 12, 3, heads=16)
    assert pool.heads == 4  # the most that divide 12 and 16
    tokens = pool.scaled(x.transpose(1, 2))
    weights = torch.cat([torch.eye(12), pool.key.weight, pool.value.weight])
    found, _ = nn.functional.multi_head_attention_forward(
        pool.query.expand(1, 5, 12), *[tokens.transpose(0, 1)] * 2, 12, 4, weights, None, None, None, False, 0.0,
        pool.mix.weight, None,
    )  # fmt: skip
    torch.testing.assert_close(pool(x), pool.answer(found[0]))
    # 3,756,032 with the causal S4 encoder of 2,932,736: the published count for 71 classes.
    head = Attention(Scaled(np.ones((2, 512), "f4")), 512, 71, 16)
    assert sum(p.numel() for p in head.parameters()) == 3_756_032 - 2_932_736


def test_segments_do_not_overlap_and_one_alone_is_the_central_window(store):
    windows, entries = Windows(store, InputSpec(length=LENGTH)), np.array([3, 70])
    blocks = list(windows.segments(entries))
    assert [at.tolist() for _, at in blocks] == [[3, 70]] * 3
    whole = np.concatenate([x for x, _ in blocks], axis=2)
    np.testing.assert_allclose(whole, store.signals[entries, :, 5 : 5 + 3 * LENGTH] / 1000, atol=1e-6)
    long = Windows(store, InputSpec(length=2 * LENGTH))
    [(one, at)] = long.segments(entries)
    np.testing.assert_array_equal(one, next(long.at([entries])))
    assert at.tolist() == [3, 70]


@pytest.mark.parametrize(("how", "join"), [("mean", np.mean), ("max", np.max), ("min", np.min)])
def test_scores_of_segments_become_one(store, how, join):
    one = learner(store, config=QUICK.model_copy(update={"segments": how}))
    taught = one.taught(lesson(store), 0)
    parts = []
    for x, _ in one._windows.segments(np.array([4, 90])):
        features = torch.from_numpy(next(one._computed([x])))
        parts.append(taught.answers.args[0](features).sigmoid().detach().numpy())
    np.testing.assert_allclose(taught.answers(np.array([90, 4]))[:, 0], join(parts, axis=0)[::-1, 0], rtol=1e-5)


def test_stem_blocks_and_head_have_rates_of_their_own(store):
    alike = dict.fromkeys(("head", "units", "stem"), 1e-3)
    for scratch, expected in ((False, {"head": 1e-3, "units": 1e-4, "stem": 1e-5}), (True, alike)):
        one = learner(store, "fine_tuned", scratch=scratch)
        network = one._network(lesson(store))
        names = {id(p): name.removeprefix("encoder.") for name, p in network.named_parameters()}
        groups = one._rates(network)
        found = {names[id(p)].split(".")[0].split("_")[0]: group["lr"] for group in groups for p in group["params"]}
        assert found == pytest.approx(expected)
        assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.parametrize("mode", ["linear", "frozen", "fine_tuned"])
def test_a_mode_trains_what_it_says_and_the_encoder_given_stays(store, mode):
    encoder = network()
    before = copy.deepcopy(encoder.state_dict())
    taught = learner(store, mode, encoder).taught(lesson(store, columns=("label_af", "label_rbbb")), 0)
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    own = taught.answers.args[0]
    assert hasattr(own, "encoder") is (mode == "fine_tuned")
    if mode == "fine_tuned":
        moved = {key for key, value in own.encoder.named_parameters() if not torch.equal(before[key], value)}
        assert moved == {key for key, _ in encoder.named_parameters()}
    assert taught.validation.shape == (30, 2)


def test_what_does_not_fit_the_memory_is_computed_anew_with_the_same_answers(store, monkeypatch):
    config = QUICK.model_copy(update={"crops": 2})
    kept = learner(store, "frozen", config=config).taught(lesson(store), 0)
    monkeypatch.setattr(learning, "_HELD_BYTES", 0)
    anew = learner(store, "frozen", config=config).taught(lesson(store), 0)
    np.testing.assert_allclose(anew.validation, kept.validation, rtol=1e-4)


def test_cohorts_that_have_the_labels_are_asked_and_heads_find_what_is_there(store):
    settings = {"task": ("af+rbbb", "age", "aha"), "head_epochs": 20, "lr": 3e-2, "mode": ("linear", "frozen")}
    measured = subject(store, "measurements", Sums(), card=None)
    result = asked(store, subject(store, "z", network()), measured, **settings)
    found = {(one.task, one.cohort): one for one in result.tasks}
    assert list(found) == [
        ("af+rbbb", "home"),
        ("af+rbbb", "away"),
        ("age", "home"),
        ("age", "away"),
        ("cohort", "every cohort"),
    ]
    assert found["af+rbbb", "away"].left_out == ("rbbb",)
    assert list(result.left_out) == ["aha"]
    by = {(s.weights, s.mode, s.task, s.cohort): s.metrics for s in result.scores}
    assert by["z", "linear", "af+rbbb", "home"]["macro AUROC"].value > 0.8
    assert by["z", "frozen", "af+rbbb", "away"]["AUROC"].value > 0.8
    assert by["measurements", "linear", "cohort", "every cohort"]["macro AUROC"].value > 0.9
    assert not any(name == "measurements" and mode == "frozen" for name, mode, *_ in by)
    assert [one.title for one in downstream.figures(result)] == ["af+rbbb", "age", "cohort"]
    shown = {one.title: one for one in downstream.tables(result)}
    rows = shown["Af+rbbb"].rows
    metrics = ("macro AUROC", "macro F1")
    assert list(rows.columns) == [f"{mode}: {metric}" for mode in settings["mode"] for metric in metrics]
    assert list(rows.index) == [
        *("home: z", "home: measurements", "away: z", "away: measurements"),
        *("the cohort, from z, macro AUROC", "the cohort, from measurements, macro AUROC"),
    ]
    assert "home: median, always" in shown["Age"].rows.index
    records = shown["records, and classes in a mean"].rows
    assert records["classes in the mean"].to_dict() == {
        **{"af+rbbb, home": "2 of 2", "af+rbbb, away": "1 of 2", "cohort, every cohort": "2 of 2"},
        **{"age, home": "1 of 1", "age, away": "1 of 1"},
    }
    assert records.loc["af+rbbb, away", "others"] == "rbbb"
    assert shown["left out"].rows.loc["aha", "why"].startswith("aha: found no label 'normal_ecg'")


def test_rows_pair_and_untrained_networks_are_several_frozen_and_one_from_scratch(store):
    one, rates = network(), []
    same = [subject(store, name, copy.deepcopy(one)) for name in ("a", "b")]
    several = subject(store, "random", network(1), network(2), card=None, estimated=True)
    given = Learner._rates

    def noted(self, made):
        rates.append([group["lr"] for group in given(self, made)])
        return given(self, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_rates", noted)
        result = asked(store, *same, several, task=("af",), cohort=("home",), mode=("linear", "fine_tuned"))
    networks = {(s.weights, s.mode): s.networks for s in result.scores}
    assert networks == {
        **{(name, mode): 1 for name in ("a", "b") for mode in ("linear", "fine_tuned")},
        ("random", "linear"): 2,
        ("random", "fine_tuned"): 1,
    }
    assert [min(one) for one in rates] == pytest.approx([1e-3, 1e-5] * 2 + [1e-3] * 3)
    alike = [d.difference for d in result.differences if (d.first, d.second) == ("a", "b")]
    assert [(d.value, d.low, d.high) for d in alike] == [(0.0, 0.0, 0.0)] * 2
    assert result.tasks[-1].task == "af"  # one cohort has none to be told from


def test_encoders_trained_as_a_whole_are_not_asked_for_the_cohort(store):
    steps = []
    context = Context((subject(store, "z", network()),), 1, lambda *step: steps.append(step), store)
    result = downstream.run(context, QUICK.model_copy(update={"task": ("af",), "mode": ("fine_tuned",), "epochs": 1}))
    assert [(one.task, one.cohort) for one in result.tasks] == [("af", "home"), ("af", "away")]
    assert steps == [(1, 2), (2, 2)]
    assert len(downstream.figures(result)) == 1


def test_what_cannot_be_asked_is_refused_before_anything_is_trained(store):
    ready = subject(store, "z", network())
    for settings, kind, words in (
        ({"cohort": ("hone",)}, SpecError, r"found no cohort 'hone', expected one of home, away\. Did you mean 'home'"),
        ({"task": ("aha", "cpsc_nine")}, Unanswerable, r"aha: found no label .* cpsc_nine: found no label"),
        ({"task": ("age",), "min_patients": 500}, Unanswerable, r"home: found \d+ test patients, expected 500\. Lower"),
    ):
        with pytest.raises(kind, match=words):
            asked(store, ready, **settings)
    with pytest.raises(SpecError, match=r"sums: found features without tokens, expected .* --mode linear"):
        asked(store, subject(store, "sums", Sums(trained=True)), task=("age",))
    with pytest.raises(Unanswerable, match=r"found neither tokens nor weights to train .* --mode linear"):
        asked(store, subject(store, "measurements", Sums()), task=("age",), mode=("frozen", "fine_tuned"))
    with pytest.raises(SpecError, match="found no label 'afib'"):
        Config(task=("superclass", "afib")).require(store.index)
    bare = replace(Context((ready,), 1, store=store), subjects=(replace(ready, models=()),))
    with pytest.raises(Unanswerable, match="found embeddings alone, expected their store and weights"):
        downstream.run(bare, QUICK)


def test_modes_are_words_that_the_command_line_repeats():
    options = {one.name: one for one in _options_of(Config)}
    assert options["mode"].multiple
    assert options["mode"].type.words == ("linear", "frozen", "fine_tuned")
    assert options["cohort"].multiple


def test_a_question_of_models_alone_embeds_nothing(store, tmp_path):
    nothing = np.zeros((0, 16), np.uint8)
    row = Row(EvaluatedWeights(name="z", weights="0" * 64, card="1" * 64), (network(), network(1)), nothing)
    [made] = Embedder(store, tmp_path, None, None).subjects([row], EVERYONE, downstream.EMBEDS)
    assert (made.name, len(made.models), made.features.shape) == ("z", 2, (120, 0))
    assert made.embeddings.info.card == "1" * 64
    assert list(Path(tmp_path).iterdir()) == []
