"""Heads in every cohort, on embeddings of which it is known in which cohorts they tell the sex."""

import numpy as np
import pytest

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure import tasks
from capezoo.evaluate.measure.tasks import Exam, head_parameters, searched
from capezoo.evaluate.questions import Context, Subject, grid, ood
from capezoo.evaluate.questions.grid import Config

SEED = 5
# 300 records a cohort: a third of them to test on.
CONFIG = Config(
    train_records=150, validation_records=50, test_records=100, runs=4, lr=3e-3, max_epochs=14, resamples=100
)


@pytest.fixture(scope="module")
def result(make_embeddings):
    """X tells the sex in the first cohort only, Z in all."""
    x, z = make_embeddings("x", shift=6.0), make_embeddings("z")
    seen = z.index["waveform_digest"][z.index["cohort"] == 1]
    return grid.run(Context((Subject(x), Subject(z, seen)), SEED), CONFIG)


def of(result, name):
    return next(one for one in result.weights if one.name == name)


def test_records_are_divided_by_patient_and_drawn_in_each_cohort(make_embeddings):
    index = make_embeddings("z").index
    parts = Config(train_records=60, validation_records=30, test_records=30).parts(index, SEED)
    patients = [set(index["patient"][at].tolist()) for at in (parts.train, parts.validation, *parts.tests.values())]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert np.bincount(index["cohort"][parts.train]).tolist() == [60, 60, 60]
    assert np.bincount(index["cohort"][parts.validation]).tolist() == [30, 30, 30]
    assert {name: len(at) for name, at in parts.tests.items()} == dict.fromkeys(index.cohorts, 30)
    again = Config(train_records=60, validation_records=30, test_records=30).parts(index, SEED + 1)
    assert again.train.tolist() != parts.train.tolist()


def test_the_published_sizes_divide_a_small_cohort_in_their_proportion(make_embeddings):
    index = make_embeddings("z", patients=700).index
    parts = Config().parts(index, SEED)
    whole = len(index) / 3
    for name, at in parts.tests.items():
        mine = parts.of(index, name)
        assert len(mine.train) / whole == pytest.approx(10 / 14, abs=0.05)
        assert len(mine.validation) / whole == pytest.approx(2 / 14, abs=0.05)
        assert len(at) / whole == pytest.approx(2 / 14, abs=0.05)
        assert set(mine.tests) == {name}
    # Whoever is tested here is tested by the other experiment of this seed as well.
    home = ood.Config(train_cohort="north").parts(index, SEED)
    assert set(parts.tests["north"]) <= set(home.tests["north"])


def test_heads_have_the_published_numbers_of_parameters():
    assert head_parameters("age", 256, None) == ((256, 128), 98_817)
    assert head_parameters("sex", 256, None) == ((256, 256), 131_841)
    assert head_parameters("age", 256, (32, 64)) == ((32, 64), 257 * 32 + 33 * 64 + 65)


def test_scores_say_where_the_sex_can_be_told(result):
    x, z = of(result, "x"), of(result, "z")
    assert x.score("sex", "north").mean > 0.9
    for cohort in ("south", "west"):
        assert x.score("sex", cohort).mean < 0.65
        assert z.score("sex", cohort).mean > 0.9
        assert z.score("age", cohort).mean < 11
    for home in result.homes:
        assert home.train_records <= 150
        assert home.test_patients <= home.test_records <= 100
        assert home.constant == 0.5 if home.task == "sex" else 13 < home.constant < 20


def test_values_are_means_of_runs_and_of_cohorts(result):
    for one in result.weights:
        for task in ("age", "sex"):
            scores = [one.score(task, name) for name in ("north", "south", "west")]
            for score in scores:
                assert len(score.runs) == 4
                assert score.mean == pytest.approx(np.mean(score.runs))
                assert score.low < score.mean < score.high
                assert score.runs_low < score.mean < score.runs_high
            mean = one.score(task, "")
            assert mean.mean == pytest.approx(np.mean([score.mean for score in scores]))
            assert mean.runs == pytest.approx(np.mean([score.runs for score in scores], axis=0))
            # Cohorts are drawn each for itself, so the mean over three is more certain than one of them.
            assert mean.high - mean.low < max(score.high - score.low for score in scores)
    assert grid.headline(result)["z"] == {
        "age error at home, years": of(result, "z").score("age", "").mean,
        "sex AUROC at home": of(result, "z").score("sex", "").mean,
    }


def test_tests_say_which_weights_differ_and_where(result):
    found = {one.cohort: one for one in result.comparisons if one.task == "sex"}
    assert list(found) == ["north", "south", "west", ""]
    for cohort in ("south", "west", ""):
        one = found[cohort]
        assert (one.first, one.second, one.cliffs_delta) == ("x", "z", -1.0)
        assert one.low < one.difference < one.high < 0
        assert one.p < 1e-4
        assert one.runs_p == pytest.approx(2 / 70)  # four runs against four can say no more
        ours = of(result, "x").score("sex", cohort).mean - of(result, "z").score("sex", cohort).mean
        assert one.difference == pytest.approx(ours)
    for one in result.comparisons:
        assert one.q >= one.p
        assert one.runs_q >= one.runs_p
    several = {one.cohort: one for one in result.several if one.task == "sex"}
    assert several["south"].p < 0.05
    assert several["south"].q >= several["south"].p
    # Complete separation of two groups of four: H is 16 / 3, of n - 1 = 7.
    assert several["south"].epsilon_squared == pytest.approx(16 / 3 / 7)


def test_the_search_takes_the_shape_with_the_least_validation_loss(make_embeddings, monkeypatch):
    monkeypatch.setattr(tasks, "WIDTHS", (2, 24))
    made = make_embeddings("z")
    parts = CONFIG.parts(made.index, SEED).of(made.index, "north")
    exam = next(one for one in Exam.find(made.index, parts, SEED, 10) if one.task == "age")
    how = {"lr": 3e-3, "max_epochs": 6, "scaler": "plain"}
    chosen = searched(made.embedding, made.index, parts, exam, **how)
    train, validation, _ = tasks._taught(made.embedding, made.index, parts, "age", ["plain"])
    seeds = [tasks.derive_seed(SEED, "ood-head", "age", 0)]
    config = tasks.heads.AGE.model_copy(update={"lr": 3e-3, "max_epochs": 6})
    losses = {
        (a, b): config.model_copy(update={"hidden": (a, b)}).train(train, validation, seeds).best_loss[0, 0]
        for a in (2, 24)
        for b in (2, 24)
    }
    assert losses[chosen] == min(losses.values()) < max(losses.values())
    searching = CONFIG.model_copy(update={"search": True, "runs": 2, "max_epochs": 6})
    found = grid.run(Context((Subject(made),), SEED), searching)
    assert found.weights[0].cells[0].hidden == chosen
    assert found.weights[0].cells[0].parameters == head_parameters("age", 12, chosen)[1]


def test_one_set_of_weights_is_compared_with_nothing(make_embeddings):
    quick = CONFIG.model_copy(update={"runs": 1, "max_epochs": 2, "scaler": "guarded"})
    found = grid.run(Context((Subject(make_embeddings("z")),), SEED), quick)
    assert (found.several, found.comparisons) == ((), ())
    assert found.weights[0].score("age", "north").runs_low is None
    assert found.weights[0].seen_patients is None
    assert [one.title for one in grid.tables(found)] == [*(grid._HEADINGS.values()), "heads", "records"]


def test_what_pretraining_has_seen_is_counted_by_cohort(result):
    assert of(result, "x").seen_patients is None
    tested = {home.cohort: home.test_patients for home in result.homes if home.task == "sex"}
    seen = of(result, "z").seen_patients
    assert (seen["north"], seen["west"]) == (0, 0)
    assert seen["south"] >= tested["south"] > 0  # some have no known sex
    records = next(table.rows for table in grid.tables(result) if table.title == "records")
    assert records.loc["south, age", "test patients that z has seen"] == seen["south"]


def test_cohorts_without_patients_enough_are_named_and_none_at_all_is_refused(make_embeddings):
    context = Context((Subject(make_embeddings("z")),), SEED)
    quick = CONFIG.model_copy(update={"runs": 1, "max_epochs": 1})
    sizes = {(home.task, home.cohort): home.test_patients for home in grid.run(context, quick).homes}
    fewest = max(sizes.values())
    found = grid.run(context, quick.model_copy(update={"min_patients": fewest}))
    assert {(home.task, home.cohort) for home in found.homes} == {key for key, size in sizes.items() if size == fewest}
    assert set(found.left_out) == {"north", "south", "west"} - {home.cohort for home in found.homes}
    assert f"Too few labelled test patients: {', '.join(found.left_out)}." in grid.tables(found)[0].caption
    with pytest.raises(Unanswerable, match=f"found no cohort with {fewest + 1} labelled test patients"):
        grid.run(context, quick.model_copy(update={"min_patients": fewest + 1}))
