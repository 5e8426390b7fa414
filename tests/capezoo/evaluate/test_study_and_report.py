"""Weights and a store in, results, maps and one HTML page out; also where pieces are missing."""

import re
from copy import deepcopy
from hashlib import sha256
from html.parser import HTMLParser
from shutil import copytree

import numpy as np
import pytest

import capezoo
from capezoo.embedding.folder import open_embeddings, weights_digest
from capezoo.embedding.from_store import estimate_norms
from capezoo.errors import Unanswerable
from capezoo.evaluate.page.report import _over_studies, build_report
from capezoo.evaluate.questions import map as maps
from capezoo.evaluate.questions import ood, separability
from capezoo.evaluate.results import Study, file_name
from capezoo.evaluate.rows import never_trained
from capezoo.evaluate.study import study as ask
from capezoo.zoo import publish
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.store import open_store

OOD = {"train_cohort": "north", "runs": 2, "lr": 3e-3, "max_epochs": 5, "resamples": 50, "allow_seen": True}
ALL = {"ood": OOD, "separability": {}, "map": {}}
QUICK = OOD | {"runs": 1, "max_epochs": 1}


@pytest.fixture(scope="module")
def study(simulated, run_folder, tmp_path_factory):
    """Two sets of weights of one name in different folders, and the untrained encoder; every question."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("a", "b"):
        publish(run_folder, folder / name, digests="plain")
    told = []
    store = open_store(simulated / "store.zarr")
    weights = [str(folder / "a"), "random", str(folder / "b")]
    command = "capezoo evaluate all <x>"
    result = ask(weights, store, folder / "out", 1, ALL, command=command, progress=lambda *a: told.append(a))
    assert ("ood", 6, 6) in told
    assert ("map", 3, 3) in told
    return folder, result


@pytest.fixture
def scored(study):
    return study[1].answers["ood"].result


def test_everything_is_written(study, simulated):
    folder, result = study
    assert Study.read(folder / "out") == result
    names = [weights.name for weights in result.weights]
    assert names == ["tiny_x (a)", "random", "tiny_x (b)"]
    drawn = result.answers["map"].result
    assert drawn.cohorts == ("north", "river")
    assert set(drawn.rows) == set(open_store(simulated / "store.zarr").index["row"].tolist())
    figures = {file_name(figure.title): figure.svg for figure in maps.figures(drawn)}
    assert {file_name(f"{name}, t-SNE, cohort") for name in names} <= set(figures)
    written = {path.stem: path.read_text() for path in (folder / "out" / "figures" / "map").glob("*.svg")}
    assert written == figures
    assert set(result.answers["separability"].result.weights) == set(names)
    assert result.answers["separability"].result.patients_per_cohort == 36
    assert result.left_out == {}


def test_equal_weights_give_equal_numbers_and_p_of_one(study, scored):
    a, random, b = scored.weights
    assert a.scores == b.scores
    assert a.scores != random.scores
    digests = [one.weights for one in study[1].weights]
    assert digests[0] == digests[2] != digests[1]
    same = [c for c in scored.comparisons if (c.first, c.second) == ("tiny_x (a)", "tiny_x (b)")]
    assert {(c.difference, c.low, c.high, c.wilcoxon_p) for c in same} == {(0.0, 0.0, 0.0, 1.0)}
    assert {c.delong_p for c in same if c.task == "sex"} <= {1.0, None}


def test_records_seen_in_pretraining(study, scored):
    a, random, _ = scored.weights
    assert set(random.seen.values()) == set(random.seen_patients.values()) == {0}
    tested = {test.cohort: test.records for test in scored.tests}
    assert all(0 < a.seen_patients[name] <= a.seen[name] <= tested[name] for name in tested)
    assert study[1].answers["ood"].config.allow_seen
    health = next(table.rows for table in ood.tables(scored) if table.title == "Features")
    assert health.loc["random", "test patients seen in pretraining"].startswith("0 of ")


def test_a_second_study_reads_the_embeddings_and_damaged_ones_are_made_again(study, simulated, tmp_path):
    folder, _ = study
    store = open_store(simulated / "store.zarr")
    embedded = []
    for damage in (False, False, True):
        chunk = tmp_path / "out" / "embeddings" / "tiny_x" / "embedding" / "c" / "0" / "0"
        if damage:
            chunk.write_bytes(chunk.read_bytes()[:-1])
        told = set()
        tell = lambda what, *_, to=told: to.add(what)  # noqa: E731
        ask([str(folder / "a")], store, tmp_path / "out", 1, {"ood": QUICK}, progress=tell)
        embedded.append("embed tiny_x" in told)
    assert embedded == [True, False, True]


def test_a_study_embeds_on_the_device_that_is_named_and_in_one_process(
    study, simulated, tmp_path, monkeypatch, paper_gpu
):
    asked = [str(study[0] / "a")], open_store(simulated / "store.zarr"), tmp_path / "s", 0, {"separability": {}}
    paper_gpu.install(monkeypatch)
    with paper_gpu:
        ask(*asked, device="cuda")
    assert open_embeddings(tmp_path / "s" / "embeddings" / "tiny_x").info.device == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match=r"found 2 processes of torchrun, expected one. Embed with them first"):
        ask(*asked)


def test_a_folder_gathers_answers_to_the_same_weights_store_and_seed(study, simulated, tmp_path):
    folder, _ = study
    store = open_store(simulated / "store.zarr")
    first = ask([str(folder / "a")], store, tmp_path / "out", 1, {"separability": {"resamples": 10}}, command="one")
    both = ask([str(folder / "a")], store, tmp_path / "out", 1, {"ood": QUICK}, command="two")
    assert list(both.answers) == ["ood", "separability"]
    assert both.answers["separability"] == first.answers["separability"]
    assert [answer.provenance.command for answer in both.answers.values()] == ["two", "one"]
    again = ask([str(folder / "a")], store, tmp_path / "out", 1, {"separability": {"resamples": 20}})
    assert again.answers["separability"].config.resamples == 20
    assert again.answers["ood"] == both.answers["ood"]
    assert Study.read(tmp_path / "out") == again
    with pytest.raises(
        SpecError,
        match=r"results.json: found a study of another seed and other weights \(tiny_x; asked for random\). Name another",
    ):
        ask(["random"], store, tmp_path / "out", 2, {"map": {}})
    assert Study.read(tmp_path / "out") == again


def test_a_study_with_rows_of_another_version_says_which(simulated, tmp_path):
    """What an update of the program has changed is no fault of who goes on with an old study."""
    store, few = open_store(simulated / "store.zarr"), {"map": {"max_records": 5}}
    made = ask(["measurements"], store, tmp_path, 1, few)
    old = made.weights[0].model_copy(update={"weights": "0" * 64})
    made.model_copy(update={"weights": (old,)}).write(tmp_path)
    with pytest.raises(SpecError, match=r"other weights \(measurements, as another version of capezoo makes it\)"):
        ask(["measurements"], store, tmp_path, 1, few)
    with pytest.raises(SpecError, match=r"found a study of another seed\. Name another folder"):
        ask(["measurements"], store, tmp_path, 2, few)


def test_two_processes_may_ask_in_one_folder(simulated, tmp_path, monkeypatch):
    """The answer of the one that was quicker stays."""
    store, real = open_store(simulated / "store.zarr"), separability.run

    def slow(*asked):
        ask(["measurements"], store, tmp_path, 1, {"map": {"max_records": 5}})
        return real(*asked)

    monkeypatch.setattr(separability, "run", slow)
    found = ask(["measurements"], store, tmp_path, 1, {"separability": {"resamples": 10}})
    assert list(found.answers) == ["map", "separability"]
    assert Study.read(tmp_path) == found


def test_what_a_store_cannot_answer_is_left_out_among_others_and_refused_alone(simulated, tmp_path):
    store = open_store(simulated / "store.zarr")
    few = {"separability": {"min_patients": 40}}
    with pytest.raises(Unanswerable, match="expected 40 in two cohorts"):
        ask(["measurements"], store, tmp_path / "alone", 1, few)
    result = ask(["measurements"], store, tmp_path / "out", 1, few | {"map": {"max_records": 20}})
    assert list(result.answers) == ["map"]
    assert "expected 40 in two cohorts" in result.left_out["separability"]
    assert Study.read(tmp_path / "out") == result
    text = build_report(tmp_path / "r.html", [tmp_path / "out"]).read_text()
    assert "Seed 1: left out. found patients: north 36, river 36" in text


def test_the_untrained_encoders_have_the_architecture_of_the_weights_beside_them(study):
    folder, result = study
    assert result.answers["ood"].result.weights[1].units == 12
    rows = [never_trained(name, [], 1) for name in ("random", "random-raw")]
    beside = never_trained("random", [folder / "a", folder / "b"], 1)
    assert [len(row.models) for row in (*rows, beside)] == [5, 5, 5]
    assert [row.models[0].num_features for row in (*rows, beside)] == [256, 256, 12]
    assert len({weights_digest(model) for model in rows[0].models}) == 5
    assert [weights_digest(model) for model in rows[0].models] == [weights_digest(model) for model in rows[1].models]
    assert len({row.evaluated.weights for row in (*rows, beside)}) == 3


def test_untrained_rows_know_the_signals_of_the_training_patients_and_no_others(study, simulated):
    """The statistics are those of the question's training part; without a home, of everyone."""
    folder, result = study
    store = open_store(simulated / "store.zarr")
    made = folder / "out" / "embeddings"
    names = sorted(path.name for path in made.iterdir() if path.name.startswith("random"))
    assert len(names) == len({name.split("-")[1] for name in names}) * 2 == 10
    row = never_trained("random", [folder / "a"], 1)
    parts = result.answers["ood"].config.parts(store.index, 1, store)
    for entries in (parts.train, np.arange(len(store.index))):
        model = deepcopy(row.models[3])
        estimate_norms(model, store, capezoo.adaptation(model, store), entries)
        key = sha256(store.index["row"][entries].astype("<i8").tobytes()).hexdigest()[:16]
        found = open_embeddings(made / f"random-3-{key}")
        np.testing.assert_allclose(capezoo.embed(model, store), found.embedding, rtol=1e-4, atol=1e-6)
        assert found.info.origin.startswith(f"untrained {weights_digest(row.models[3])[:16]}, BatchNorm statistics")
    raw = capezoo.embed(row.models[3], store)
    assert np.abs(raw - found.embedding).max() > 0.1 * np.abs(found.embedding).max()


def test_simple_measures_and_raw_networks_are_rows_like_others(study, simulated, tmp_path):
    folder, _ = study
    asked = [str(folder / "a"), "random-raw", "measurements"], open_store(simulated / "store.zarr"), tmp_path / "s", 1
    found = ask(*asked, {"ood": QUICK, "separability": {"resamples": 10}, "map": {"max_records": 5}})
    names = [one.name for one in found.weights]
    assert names == ["tiny_x", "random-raw", "measurements"]
    ood_rows = {row.name: row for row in found.answers["ood"].result.weights}
    assert (ood_rows["measurements"].units, ood_rows["measurements"].health.dead) == (8 * 19, 0)
    assert set(ood_rows["measurements"].seen.values()) == {0}
    assert len(ood_rows["random-raw"].scores[0].initialisations) == 5
    assert list(found.answers["separability"].result.weights) == names
    assert [one.name for one in found.answers["map"].result.maps] == names
    metrics = {metric.name for metric in found.card_metrics(found.weights[0].weights)}
    assert {"age_mae_years", "age_mae_years_mean_of_runs", "age_mae_years_of_measurements"} <= metrics
    told = set()
    ask(*asked, {"ood": QUICK | {"max_epochs": 2}}, progress=lambda what, *_: told.add(what))
    assert told == {"ood"}  # nothing is embedded again


@pytest.mark.parametrize("question", [{"ood": {"train_cohort": "north"}}, {"grid": {}}])
def test_patients_that_pretraining_has_seen_are_refused_before_the_long_part(question, study, simulated, tmp_path):
    folder, _ = study
    with pytest.raises(
        SpecError, match=r"tiny_x: found test patients it was pretrained on \(\d+ of north, \d+ of river;"
    ):
        ask([str(folder / "a")], open_store(simulated / "store.zarr"), tmp_path / "out", 1, question)
    assert not (tmp_path / "out").exists()


def test_an_unknown_cohort_is_refused_before_the_long_part(simulated, tmp_path):
    store = open_store(simulated / "store.zarr")
    with pytest.raises(SpecError, match="found no cohort 'mars', expected one of north, river"):
        ask(["random"], store, tmp_path / "out", 1, {"ood": OOD | {"train_cohort": "mars"}})
    with pytest.raises(SpecError, match="question ood: found unknown key 'colour', expected one of train_cohort, "):
        ask(["random"], store, tmp_path / "out", 1, {"ood": OOD | {"colour": 1}})
    with pytest.raises(SpecError, match=r"found no question 'why', expected one of .*map, ood, "):
        ask(["random"], store, tmp_path / "out", 1, {"why": {}})
    assert not (tmp_path / "out").exists()


def test_contenders_of_one_name_are_told_apart(study, simulated, run_folder, tmp_path):
    folder, _ = study
    store = open_store(simulated / "store.zarr")
    weights = [str(folder / "b"), str(folder / "a"), "random"]
    found = ask(weights, store, tmp_path / "out", 1, {"map": {"max_records": 5}}).weights
    assert [one.name for one in found] == ["tiny_x (b)", "tiny_x (a)", "random"]
    assert found[0].card == found[1].card
    assert found[2].card is None
    with pytest.raises(SpecError, match="found random more than once, expected each once"):
        ask(["random", "random"], store, tmp_path / "twice", 1, {"map": {}})
    with pytest.raises(SpecError, match=r"found these weights more than once"):
        ask([weights[0], weights[0] + "/"], store, tmp_path / "twice", 1, {"map": {}})
    # As a plan of two seeds leaves them; and one whose name makes the same file name as another's.
    copied = [copytree(weights[1], tmp_path / name / "a") for name in ("seed-0", "seed-1")]
    few = {"map": {"max_records": 5}, "separability": {"resamples": 10}}
    found = ask([*map(str, copied), "random-raw"], store, tmp_path / "seeds", 1, few)
    assert [one.name for one in found.weights] == ["tiny_x (seed-0/a)", "tiny_x (seed-1/a)", "random-raw"]
    publish(run_folder, tmp_path / "c", name="tiny_x (seed-0_a)", digests="plain")
    found = ask([*map(str, copied), str(tmp_path / "c")], store, tmp_path / "files", 1, few)
    assert [one.name for one in found.answers["map"].result.maps] == [one.name for one in found.weights]
    assert len(list((tmp_path / "files" / "embeddings").iterdir())) == 3


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
    answer = result.answers["ood"]
    first, second, *others = answer.result.weights
    scores = tuple(
        s.model_copy(update={"averaged": s.averaged + (by if s.task == "age" else 0)}) for s in second.scores
    )
    weights = (first, second.model_copy(update={"scores": scores}), *others)
    changed = answer.model_copy(update={"result": answer.result.model_copy(update={"weights": weights})})
    return result.model_copy(update={"seed": seed, "answers": result.answers | {"ood": changed}})


def test_several_studies_are_paired(study, scored):
    _, result = study
    base, other = (row["age error elsewhere, years, guarded"] for row in list(ood.paired(scored).values())[:2])
    table = _over_studies([shifted(result, 0.0, 1), shifted(result, 1000.0, 2), shifted(result, -1000.0, 3)])
    row = table.loc["age error elsewhere, years, guarded"]
    assert row["second lower in"] == f"{1 + (base > other)} of 3"
    assert float(row["mean difference"]) == pytest.approx(base - other, rel=0.02, abs=0.02)
    assert "age error elsewhere, years, plain" in table.index
    assert "kNN purity" in table.index


def test_studies_are_paired_by_the_names_of_their_rows(study):
    """Rows in another order are the same rows; a study without one of the two says nothing of their difference."""
    _, result = study

    def called(*names):
        rows = [result.weights[0].model_copy(update={"name": name}) for name in names]
        found = {name: (metric,) for name, metric in zip(names, numbers(names), strict=True)}
        answer = result.answers["separability"]
        changed = answer.model_copy(update={"result": answer.result.model_copy(update={"weights": found})})
        return result.model_copy(update={"weights": tuple(rows), "answers": {"separability": changed}})

    def numbers(names):
        metrics = next(iter(result.answers["separability"].result.weights.values()))
        for name in names:
            value = {"x": 0.1, "z": 0.2, "random": 0.9}.get(name[0] if name != "random" else name)
            yield next(one for one in metrics if one.name == "knn_purity").model_copy(update={"value": value})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separability, "_TITLES", {"knn_purity": "kNN purity"})
        x_z = called("x", "z")
        for other, first in (
            (called("z", "x"), "0.1, 0.1"),
            (called("random", "z", "x"), "0.1, 0.1"),
            (called("z", "random"), "0.1"),
            (called("x", "random"), "0.1"),
            (called("x", "random", "z"), "0.1, 0.1"),
            (called("x-seed-1", "z-seed-1"), "0.1, 0.1"),
        ):
            assert _over_studies([x_z, other]).loc["kNN purity", "first"] == first


def test_tables_say_what_results_hold(study, scored):
    _, result = study
    shown = {table.title: table.rows for table in ood.tables(scored)}
    table = shown["Age: mean absolute error in years"]
    assert list(table.columns) == ["north (trained here)", "river", "mean of the others with 20 patients or more"]
    first = scored.weights[0].score("age", "river", "guarded")
    assert table.loc["tiny_x (a), guarded", "river"].startswith(f"{first.averaged:.2f} ({first.low:.2f} to")
    assert "median age, always" in table.index
    assert separability.tables(result.answers["separability"].result)[0].rows.index[-1] == "chance"
    short = result.headline()
    assert short["random"]["age error elsewhere, years"] == pytest.approx(
        scored.weights[1].score("age", "river", "guarded").averaged
    )
    assert np.isfinite(list(short["random"].values())).all()
    shapes = [table.rows.shape for table in ood.tables(scored)]
    # Of age: scores, over the heads in the paper's notation and plain, compared.
    assert [shapes[0], *shapes[2:4]] == [(7, 3), (6, 2), (3 * 2 * 2, shapes[3][1])]
    assert [shapes[4], *shapes[6:8]] == [(6, 3), (6, 2), (3 * 2 * 2, shapes[7][1])]


def test_tiny_cohorts_do_not_count_in_the_mean(scored):
    weights = scored.weights[0]
    scores = tuple(s.model_copy(update={"patients": 19}) if s.cohort == "river" else s for s in weights.scores)
    tiny = weights.model_copy(update={"scores": scores})
    small = scored.model_copy(update={"weights": (tiny,)})
    assert ood.paired(scored)[weights.name]["age error elsewhere, years, plain"] is not None
    assert ood.paired(small)[weights.name]["age error elsewhere, years, plain"] is None


@pytest.mark.parametrize(
    ("name", "expected"), [("a b/c", "a_b_c"), ("../x", "_x"), ("...", "weights"), ("cape_z.v1", "cape_z.v1")]
)
def test_names_become_harmless_file_names(name, expected):
    assert file_name(name) == expected


def test_weights_can_have_a_row_with_each_cohorts_own_batch_norm_statistics(study, simulated):
    folder, before = study
    store, weights = open_store(simulated / "store.zarr"), [str(folder / "a"), "random"]
    made = ask(weights, store, folder / "both", 1, {"ood": QUICK}, batch_norm="both")
    names = ["tiny_x", "tiny_x, BatchNorm per cohort", "random", "random, BatchNorm per cohort"]
    assert [one.name for one in made.weights] == names
    assert [one.batch_norm for one in made.weights] == ["running", "per_cohort"] * 2
    kept, own = (open_embeddings(folder / "both" / "embeddings" / file_name(name)) for name in names[:2])
    earlier = open_embeddings(folder / "out" / "embeddings" / "tiny_x_a_")
    np.testing.assert_array_equal(kept.embedding, earlier.embedding)
    assert np.abs(own.embedding - kept.embedding).max() > 0.01
    assert (own.info.weights, own.info.batch_norm) == (kept.info.weights, "per_cohort")
    # A card says what weights do as they are published.
    assert {metric.name for metric in made.card_metrics(before.weights[0].weights)} >= {"age_mae_years"}
    alone = ask(weights[:1], store, folder / "own", 1, {"ood": QUICK}, batch_norm="per_cohort")
    assert [one.name for one in alone.weights] == names[1:2]
    with pytest.raises(SpecError, match="expected one of"):
        alone.card_metrics(before.weights[0].weights)
