"""Labels of one's own: tables brought together, patients kept apart, metrics as scikit-learn has them, predictors of plain numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from capezoo.embedding.tables import harmless
from capezoo.errors import Unanswerable
from capezoo.evaluate.labelled import examples, probe
from capezoo.evaluate.labelled.examples import read_labelled
from capezoo.evaluate.labelled.predictor import ABOUT, NUMBERS, Answers, Predictor
from ecgcohorts.errors import NothingMatched, SourceError, SpecError

PEOPLE = 90


@pytest.fixture(autouse=True)
def few_settings(monkeypatch):
    """What is tested is not the grid, and eight settings take three times as long as these."""
    monkeypatch.setattr(probe, "_STRENGTHS", (1e-3, 1e-1, 10.0))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Two recordings of each of 90 people. `good` shows who is ill, `bad` only who a person is; `risk` grows with age."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), 2)
    ill, age = rng.integers(0, 2, PEOPLE), rng.uniform(20, 90, PEOPLE)
    who = rng.normal(size=(PEOPLE, 6))[person]
    good = rng.normal(size=(len(person), 4)) + 1.5 * ill[person, None]
    files = [f"ward/{number:03d}.xml" for number in range(len(person))]
    for name, features in (("good", good), ("bad", who + rng.normal(0, 0.01, who.shape))):
        columns = {f"feature_{at}": features[:, at] for at in range(features.shape[1])}
        trained_on = person < 10 if name == "good" else False
        pd.DataFrame({"file": files, "entry": "", "trained_on": trained_on, **columns}).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    labels = {
        "name": [Path(file).stem for file in files],
        "person": [f"p{one}" for one in person],
        "ill": np.where(ill[person], "yes", "no"),
        "risk": age[person] / 10 + rng.normal(0, 0.1, len(person)),
        "age": age[person],
        "sex": np.where(rng.integers(0, 2, PEOPLE)[person], "Male", "female"),
        "ward": rng.choice(["a", "b", "c"], len(person)),
    }
    pd.DataFrame(labels).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def read(world: Path, target: str = "ill", tables=("good", "bad"), **how):
    how = {"key": "name", "patient": "person"} | how
    return read_labelled({name: world / f"{name}.parquet" for name in tables}, world / "labels.csv", target, **how)


def value(row: probe.Row, metric: str) -> float:
    return row.metrics[metric].value


def test_what_is_there_is_found_and_what_is_not_is_not(world):
    good, bad = probe.probe(read(world), folds=3, resamples=100)
    assert value(good, "auroc") > 0.9
    assert bad.metrics["auroc"].interval().low < 0.5 < bad.metrics["auroc"].interval().high
    assert (good.metrics["auroc"] - bad.metrics["auroc"]).interval().low > 0.2


def test_models_that_know_nothing_are_at_chance(world):
    """Over all folds at once, their area would be far below .5: the fold with more positives is answered lower."""
    data = read(world, tables=["bad"])
    nothing = examples.Labelled(**{**vars(data), "features": {"nothing": np.zeros((2 * PEOPLE, 1), np.float32)}})
    assert value(probe.probe(nothing, folds=3, resamples=10)[0], "auroc") == 0.5


def test_patients_are_never_on_both_sides(world):
    """`bad` recognises people: without their ids, the second recording of a person gives the answer away."""
    apart = value(probe.probe(read(world, tables=["bad"]), "knn", folds=3, resamples=10)[0], "auroc")
    mixed = value(probe.probe(read(world, tables=["bad"], patient=None), "knn", folds=3, resamples=10)[0], "auroc")
    assert apart < 0.65
    assert mixed > 0.9


@pytest.mark.parametrize("method", ["linear", "knn", "boosting"])
def test_every_method_answers_every_kind(world, method):
    for target, metric in (("ill", "auroc"), ("risk", "mae"), ("ward", "macro_auroc")):
        rows = probe.probe(read(world, target, ["good"], covariates=["age", "sex"]), method, folds=3, resamples=10)
        assert [row.name for row in rows] == ["good", "covariates alone"]
        assert all(np.isfinite(row.answers).all() for row in rows)
        assert np.isfinite(value(rows[0], metric))
    assert value(rows[1], "accuracy") < 0.6  # of wards, which are random


def test_covariates_count(world):
    alone = probe.probe(read(world, "risk", ["bad"], covariates=["age"]), folds=3, resamples=10)[1]
    assert value(alone, "mae") < 0.2 < value(alone, "mae_of_the_median")


def test_metrics_are_those_of_scikit_learn(world):
    data = read(world, tables=["good"])
    row = probe.probe(data, folds=3, resamples=10)[0]
    answers, truth = row.answers.round(1), data.target == 1  # with ties
    ones = np.ones((1, len(truth)))
    assert probe._average_precision(truth, answers, ones)[0] == pytest.approx(average_precision_score(truth, answers))
    folds = [test for _, test in probe._folds(data, 3, 0)]
    pairs = [truth[test].sum() * (~truth[test]).sum() for test in folds]
    areas = [roc_auc_score(truth[test], row.answers[test]) for test in folds]
    assert value(row, "auroc") == pytest.approx(np.average(areas, weights=pairs))
    weights = np.random.default_rng(1).integers(0, 3, (3, len(truth))).astype(float)
    wanted = [average_precision_score(truth, answers, sample_weight=one) for one in weights]
    np.testing.assert_allclose(probe._average_precision(truth, answers, weights), wanted)
    false, true, thresholds = roc_curve(truth, row.answers)
    assert probe._youden(truth, row.answers) == thresholds[np.argmax(true - false)]
    (right_no, wrong_yes), (wrong_no, right_yes) = row.table["confusion"]
    assert right_no + wrong_yes == (~truth).sum()
    assert row.table["sensitivity"] == pytest.approx(right_yes / (right_yes + wrong_no))
    perfect = probe._calibration(truth, truth.astype(float))
    assert perfect["expected_error"] == 0
    assert probe._calibration(truth, np.full(len(truth), 0.9))["expected_error"] > 0.1


def test_people_whom_an_encoder_knows_are_counted_and_left_out(world):
    assert read(world).trained_on == {"good": 20, "bad": 0}
    apart = read(world, unseen=True)
    assert apart.trained_on == {"good": 0, "bad": 0}
    assert len(apart.target) == 2 * (PEOPLE - 10)
    assert (apart.unlabelled, apart.unmatched) == (0, 0)


def test_files_match_by_whole_name_without_folder_or_without_suffix(world):
    labels = pd.read_csv(world / "labels.csv", dtype={"name": str})
    for short in ("ward/{}.xml", "{}.xml", "elsewhere/{}.xml", "{}"):
        labels["file"] = [short.format(name) for name in labels["name"]]
        labels.iloc[:100].to_csv(world / "short.csv", index=False)
        data = read_labelled({"good": world / "good.parquet"}, world / "short.csv", "ill")
        assert (len(data.target), data.unlabelled, data.unmatched) == (100, 2 * PEOPLE - 100, 0)
        assert [data.classes[int(one)] for one in data.target] == labels["ill"][:100].tolist()
    labels["file"] = "nowhere.xml"
    labels.to_csv(world / "short.csv", index=False)
    with pytest.raises(NothingMatched, match=r"found no file of column 'file' among 180 recordings .* --key"):
        read_labelled({"good": world / "good.parquet"}, world / "short.csv", "ill")


def test_the_positive_class_is_the_word_that_says_so():
    column = pd.Series(["Yes", "no", "no"])
    assert examples._target(column, None, "x")[1:] == ("binary", ("no", "Yes"))
    assert examples._target(pd.Series([0, 1, 1]), None, "x")[2] == ("0", "1")
    assert examples._target(pd.Series([1.0, 0.0]), None, "x")[2] == ("0", "1")
    assert examples._target(pd.Series([False, True]), None, "x")[2] == ("False", "True")
    assert examples._target(pd.Series(range(30)), None, "x")[1] == "number"
    assert examples._target(pd.Series([0.5, 1.5, 2.5]), None, "x")[1] == "number"
    assert examples._target(pd.Series([10, 9, 2]), "classes", "x")[2] == ("2", "9", "10")


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"target": "il"}, SpecError, r"found no column 'il' among name, .*Did you mean 'ill'"),
        ({"patient": "nobody"}, SpecError, "found no column 'nobody'"),
        ({"target": "ward", "kind": "number"}, SpecError, "found '.', expected numbers"),
        ({"target": "ward", "kind": "binary"}, SpecError, "found 3 values, expected 2 for binary"),
        ({"covariates": ["ward"]}, SpecError, "found texts in 'ward', expected numbers, or male and female"),
    ],
)
def test_wrong_columns(world, how, error, message):
    with pytest.raises(error, match=message):
        read(world, **how)


def test_wrong_tables(world):
    with pytest.raises(SpecError, match="found no columns file and feature_0"):
        read_labelled({"x": world / "labels.csv"}, world / "labels.csv", "ill", key="name")
    (world / "x.parquet").write_bytes(b"no table")
    with pytest.raises(SourceError, match="found no table"):
        read_labelled({"x": world / "x.parquet"}, world / "labels.csv", "ill", key="name")
    labels = pd.read_csv(world / "labels.csv", dtype={"name": str})
    pd.concat([labels, labels[:1]]).to_csv(world / "labels.csv", index=False)
    with pytest.raises(SourceError, match="found '000' in two rows"):
        read(world)


def test_too_few_of_a_class(world):
    data = read(world, tables=["good"])
    few = data.target.copy()
    few[:] = 0
    few[:4] = 1
    with pytest.raises(Unanswerable, match="found 2 patients of class 'yes', expected 5"):
        probe.probe(examples.Labelled(**{**vars(data), "target": few}))


@pytest.mark.parametrize(("target", "covariates"), [("ill", ["age"]), ("risk", []), ("ward", ["age", "sex"])])
def test_a_predictor_says_what_its_model_says(world, target, covariates):
    data = read(world, target, ["good"], covariates=covariates)
    row = probe.probe(data, folds=3, resamples=10)[0]
    made = Predictor.fit(data, row, target, "w" * 64)
    made.save(world)
    again = Predictor.read(world)
    x = np.hstack([data.features["good"], data.covariates])
    model = probe.fitted(x, data.target, data.patient, data.kind, "linear", 0)
    given = data.covariates if covariates else None
    found = again.answers(data.features["good"], given)
    wanted = probe.answer(model, x, data.kind, len(data.classes))
    np.testing.assert_allclose(found[:, 1] if data.kind == "binary" else found, wanted, rtol=1e-6, atol=1e-9)
    with pytest.raises(SpecError, match="found 3 features"):
        again.answers(data.features["good"][:, :3], given)


def test_a_predictor_from_elsewhere_is_checked(world):
    with pytest.raises(SourceError, match="found no predictor"):
        Predictor.read(world)
    data = read(world, tables=["good"])
    Predictor.fit(data, probe.probe(data, folds=3, resamples=10)[0], "ill", "w" * 64).save(world)
    whole = (world / NUMBERS).read_bytes()
    (world / NUMBERS).write_bytes(whole[:-8])
    with pytest.raises(SourceError, match="found no whole file of numbers"):
        Predictor.read(world)
    (world / NUMBERS).write_bytes(whole)
    said = json.loads((world / ABOUT).read_text())
    (world / ABOUT).write_text(json.dumps({**said, "features": 5}))
    with pytest.raises(SpecError, match="found arrays"):
        Predictor.read(world)


def test_answers_come_with_a_decision_and_take_covariates_by_file(world):
    data = read(world, tables=["good"], covariates=["age"])
    predictor = Predictor.fit(data, probe.probe(data, folds=3, resamples=10)[0], "ill", "w" * 64)
    with pytest.raises(SpecError, match="found no table of covariates, expected age"):
        Answers(predictor)
    table = pd.read_parquet(world / "good.parquet")
    features = table[[f"feature_{at}" for at in range(4)]].to_numpy(np.float32)
    found = Answers(predictor, world / "labels.csv", "name")(table[["file", "entry"]], features)
    assert list(found) == ["ill: no", "ill: yes", "ill"]
    np.testing.assert_allclose(found["ill: yes"], predictor.answers(features, data.covariates)[:, 1])
    chosen = found["ill: yes"] >= predictor.about.threshold
    assert (found["ill"] == np.where(chosen, "yes", "no")).all()


def test_the_order_of_rows_does_not_choose_the_positive_class():
    for column in (["Normal", "AF", "AF"], ["AF", "Normal", "AF"]):
        assert examples._target(pd.Series(column), None, "x")[2] == ("AF", "Normal")


def test_long_codes_are_not_rounded_into_one_class():
    codes = pd.Series([164889003.0, 164889004.0, 164889003.0])
    assert examples._target(codes, "binary", "x")[2] == ("164889003", "164889004")


def test_dates_are_no_numbers():
    days = pd.Series(pd.date_range("2020-01-01", periods=30))
    with pytest.raises(SpecError, match="found '2020-01-01 00:00:00', expected numbers"):
        examples._target(days, "number", "x")


@pytest.mark.parametrize("column", ["risk", "age"])
def test_numbers_that_no_square_could_hold(world, column):
    labels = pd.read_csv(world / "labels.csv", dtype={"name": str})
    labels.loc[3, column] = np.inf if column == "risk" else 1e300
    labels.to_csv(world / "labels.csv", index=False)
    with pytest.raises(SpecError, match=rf"column '{column}': found (inf|1e\+300), expected numbers within 1e\+12"):
        read(world, "risk", ["good"], covariates=["age"])


def test_a_label_that_fits_two_files_is_given_to_neither(world):
    table = pd.read_parquet(world / "good.parquet")
    twin = table[:1].assign(file="clinic/000.xml")
    pd.concat([table, twin]).to_parquet(world / "good.parquet")
    with pytest.raises(SourceError, match=r"found a row that fits 'ward/000.xml' and 'clinic/000.xml', expected one"):
        read(world, tables=["good"])


def test_blanks_do_not_make_two_people_of_one(world):
    clean = read(world, tables=["good"])
    labels = pd.read_csv(world / "labels.csv", dtype=str)
    labels.loc[::2, "person"] += " "
    labels.loc[::3, "name"] = " " + labels["name"]
    labels.to_csv(world / "labels.csv", index=False)
    np.testing.assert_array_equal(read(world, tables=["good"]).patient, clean.patient)


def test_a_rare_class_has_no_case_in_some_inner_folds(world):
    data = read(world, tables=["good"])
    rare = np.zeros_like(data.target)
    rare[[0, 30, 60]] = 1
    asked = examples.Labelled(**{**vars(data), "target": rare})
    assert np.isfinite(probe.probe(asked, folds=3, resamples=10)[0].answers).all()
    with pytest.raises(SpecError, match="found 1 folds, expected 2 or more"):
        probe.probe(asked, folds=1)


def test_a_covariate_of_which_nothing_is_known(world):
    labels = pd.read_csv(world / "labels.csv", dtype={"name": str}).assign(height=np.nan)
    labels.to_csv(world / "labels.csv", index=False)
    data = read(world, "risk", ["good"], covariates=["height", "age"])
    rows = probe.probe(data, folds=3, resamples=10)
    Predictor.fit(data, rows[0], "risk", "w" * 64).save(world)
    again = Predictor.read(world)
    assert np.abs(again.answers(data.features["good"], data.covariates) - data.target).mean() < 0.5


def test_covariates_of_entries_of_one_file(world):
    """The names that `probe` matched: file and entry."""
    table = pd.DataFrame({"file": "all.h5", "entry": ["0", "1", "2"]})
    pd.DataFrame({"file": ["all.h5#2", "all.h5#0"], "age": [70, 50]}).to_csv(world / "ages.csv", index=False)
    found = examples.read_covariates(world / "ages.csv", "file", ["age"]).of(table)
    np.testing.assert_array_equal(found[:, 0], [50, np.nan, 70])


def test_a_csv_of_features_gives_its_names_back(world):
    """Entries stay text beside empty ones, and a name that was made harmless to spreadsheets matches again."""
    table = pd.read_parquet(world / "good.parquet")
    table["entry"] = ["01", *table["entry"][1:]]
    table["file"] = "=" + table["file"]
    harmless(table).to_csv(world / "good.csv", index=False)
    found = examples._full_names(examples._features(world / "good.csv"))
    assert found[:2].tolist() == ["=ward/000.xml#01", "=ward/001.xml"]
