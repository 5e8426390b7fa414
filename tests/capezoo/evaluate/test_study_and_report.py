"""Weights and a store in, results, maps and one HTML page out; also where pieces are missing."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from capezoo.evaluate.page import tables
from capezoo.evaluate.page.report import build_report, headline
from capezoo.evaluate.questions.map import EmbeddingMap
from capezoo.evaluate.results import OodConfig, StudyResult, file_name, read_result
from capezoo.evaluate.study import contenders, ood_study
from capezoo.zoo import publish
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.store import open_store

CONFIG = OodConfig(train_cohort="north", seed=1, runs=2, lr=3e-3, max_epochs=5, resamples=50, allow_seen=True)


@pytest.fixture(scope="module")
def study(simulated, run_folder, tmp_path_factory):
    """Two sets of weights of one name in different folders, and the untrained encoder."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("a", "b"):
        publish(run_folder, folder / name)
    told = []
    store = open_store(simulated / "store.zarr")
    weights = [str(folder / "a"), "random", str(folder / "b")]
    result = ood_study(weights, store, folder / "out", CONFIG, "capezoo evaluate ood <x>", lambda *a: told.append(a))
    assert ("heads", 6, 6) in told
    assert ("maps", 3, 3) in told
    return folder, result


def test_everything_is_written(study, simulated):
    folder, result = study
    assert read_result(StudyResult, folder / "out" / "results.json") == result
    names = [weights.name for weights in result.ood.weights]
    assert names == ["tiny_x (a)", "random", "tiny_x (b)"]
    for name in names:
        drawn = read_result(EmbeddingMap, folder / "out" / "maps" / f"{file_name(name)}.json")
        assert drawn.cohorts == ("north", "river")
        assert set(drawn.rows) == set(open_store(simulated / "store.zarr").index["row"].tolist())
        assert (folder / "out" / "maps" / f"{file_name(name)}.svg").read_text() == drawn.svg()
    assert set(result.separability) == set(names)
    assert result.separability["random"].patients_per_cohort == 36


def test_equal_weights_give_equal_numbers_and_p_of_one(study):
    _, result = study
    a, random, b = result.ood.weights
    assert a.scores == b.scores
    assert a.weights == b.weights != random.weights
    assert a.scores != random.scores
    same = [c for c in result.ood.comparisons if (c.first, c.second) == ("tiny_x (a)", "tiny_x (b)")]
    assert {(c.difference, c.low, c.high, c.wilcoxon_p) for c in same} == {(0.0, 0.0, 0.0, 1.0)}
    assert {c.delong_p for c in same if c.task == "sex"} <= {1.0, None}


def test_records_seen_in_pretraining(study):
    _, result = study
    a, random, _ = result.ood.weights
    assert set(random.seen.values()) == set(random.seen_patients.values()) == {0}
    tested = {test.cohort: test.records for test in result.ood.tests}
    assert all(0 < a.seen_patients[name] <= a.seen[name] <= tested[name] for name in tested)
    assert result.ood.config.allow_seen
    assert tables.health(result.ood).loc["random", "test patients seen in pretraining"].startswith("0 of ")


def test_a_second_study_reads_the_embeddings_and_damaged_ones_are_made_again(study, simulated, tmp_path):
    folder, _ = study
    store = open_store(simulated / "store.zarr")
    config = CONFIG.model_copy(update={"runs": 1, "max_epochs": 1})
    embedded = []
    for damage in (False, False, True):
        chunk = tmp_path / "out" / "embeddings" / "tiny_x" / "embedding" / "c" / "0" / "0"
        if damage:
            chunk.write_bytes(chunk.read_bytes()[:-1])
        told = set()
        ood_study([str(folder / "a")], store, tmp_path / "out", config, progress=lambda what, *_, to=told: to.add(what))
        embedded.append("embed tiny_x" in told)
    assert embedded == [True, False, True]


def test_the_untrained_encoder_has_the_architecture_of_the_weights_beside_it(study):
    folder, _ = study
    assert contenders([str(folder / "a"), "random"], seed=0)[1].model.num_features == 12
    assert contenders(["random"], seed=0)[0].model.num_features == 256


def test_an_unknown_cohort_is_refused_before_the_long_part(simulated, tmp_path):
    store = open_store(simulated / "store.zarr")
    with pytest.raises(SpecError, match="found no cohort 'mars', expected one of north, river"):
        ood_study(["random"], store, tmp_path / "out", CONFIG.model_copy(update={"train_cohort": "mars"}))
    assert not (tmp_path / "out").exists()


def test_contenders_of_one_name_are_told_apart(study):
    folder, _ = study
    found = contenders([str(folder / "b"), str(folder / "a"), "random"], seed=0)
    assert [one.name for one in found] == ["tiny_x (b)", "tiny_x (a)", "random"]
    assert found[0].card == found[1].card
    assert found[2].card is None


class Page(HTMLParser):
    """Tags, link targets and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.targets, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("href", "src", "xlink:href", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_is_one_file_that_loads_nothing(study, simulated, run_folder, tmp_path):
    folder, _ = study
    out = build_report(
        tmp_path / "r.html", [folder / "out"], [run_folder], open_store(simulated / "store.zarr"), "X <b>& Z</b>"
    )
    text = out.read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(target.startswith("#") for target in page.targets)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert "X &lt;b&gt;&amp; Z&lt;/b&gt;" in text
    words = "".join(page.words)
    for heading in ("In short", "Cohorts", "ECGs", "Training", "Maps", "Out of distribution", "come from"):
        assert heading in words
    assert "held-out" in words.lower()
    assert page.tags.count("svg") >= 2 + 1 + 1  # two ECGs, losses, maps
    assert "north (trained here)" in words


@pytest.mark.parametrize("pieces", ["nothing", "study", "run", "store"])
def test_the_report_works_with_what_there_is(study, simulated, run_folder, tmp_path, pieces):
    folder, _ = study
    arguments = {
        "nothing": {},
        "study": {"studies": [folder / "out"]},
        "run": {"runs": [run_folder]},
        "store": {"store": open_store(simulated / "store.zarr")},
    }[pieces]
    text = build_report(tmp_path / "r.html", **arguments).read_text()
    assert ("Out of distribution" in text) == (pieces == "study")
    assert ("Training" in text) == (pieces == "run")
    assert ("ECGs</h2>" in text) == (pieces == "store")


def test_folders_that_are_something_else_are_refused(tmp_path, run_folder):
    with pytest.raises(SourceError, match=r"results.json: found no result"):
        build_report(tmp_path / "r.html", studies=[run_folder])
    with pytest.raises(SourceError, match=r"found no metrics.csv"):
        build_report(tmp_path / "r.html", runs=[tmp_path])
    with pytest.raises(SourceError, match="cannot be written"):
        build_report(tmp_path / "no" / "such" / "r.html")


def shifted(result, by, seed):
    """The study with the second weights' numbers worse by `by`."""
    scores = tuple(
        s.model_copy(update={"averaged": s.averaged + (by if s.task == "age" else 0)})
        for s in result.ood.weights[1].scores
    )
    second = result.ood.weights[1].model_copy(update={"scores": scores})
    ood = result.ood.model_copy(
        update={
            "weights": (result.ood.weights[0], second, *result.ood.weights[2:]),
            "config": result.ood.config.model_copy(update={"seed": seed}),
        }
    )
    return result.model_copy(update={"ood": ood})


def test_several_studies_are_paired(study):
    _, result = study
    a = result.ood.weights[0]
    equal = shifted(result, 0.0, 1)
    base = tables.mean_elsewhere(result.ood, a, "age", "guarded")
    other = tables.mean_elsewhere(result.ood, result.ood.weights[1], "age", "guarded")
    table = tables.over_seeds([equal, shifted(result, 1000.0, 2), shifted(result, -1000.0, 3)])
    row = table.loc["age error elsewhere, years, guarded"]
    assert row["second lower in"] == f"{1 + (base > other)} of 3"
    assert float(row["mean difference"]) == pytest.approx(base - other, rel=0.02, abs=0.02)
    assert "kNN purity" in table.index


def test_tables_say_what_results_hold(study):
    _, result = study
    table = tables.scores(result.ood, "age")
    assert list(table.columns) == ["north (trained here)", "river", "mean of the others with 20 patients or more"]
    first = result.ood.weights[0].score("age", "river", "guarded")
    assert table.loc["tiny_x (a), guarded", "river"].startswith(f"{first.averaged:.2f} ({first.low:.2f} to")
    assert "median age, always" in table.index
    assert tables.separability(result).index[-1] == "chance"
    short = headline(result)
    assert short["random"]["age error elsewhere, years"] == pytest.approx(
        result.ood.weights[1].score("age", "river", "guarded").averaged
    )
    assert np.isfinite(list(short["random"].values())).all()
    assert tables.comparisons(result.ood, "sex").shape[0] == 3 * 2 * 2
    assert tables.runs(result.ood, "age").shape == (6, 2)


def test_tiny_cohorts_do_not_count_in_the_mean(study):
    _, result = study
    weights = result.ood.weights[0]
    scores = tuple(s.model_copy(update={"patients": 19}) if s.cohort == "river" else s for s in weights.scores)
    tiny = weights.model_copy(update={"scores": scores})
    assert tables.mean_elsewhere(result.ood, weights, "age", "plain") is not None
    assert tables.mean_elsewhere(result.ood, tiny, "age", "plain") is None


@pytest.mark.parametrize(
    ("name", "expected"), [("a b/c", "a_b_c"), ("../x", "_x"), ("...", "weights"), ("cape_z.v1", "cape_z.v1")]
)
def test_names_become_harmless_file_names(name, expected):
    assert file_name(name) == expected
