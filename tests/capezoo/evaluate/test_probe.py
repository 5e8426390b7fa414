"""Linear probes: metrics against scikit-learn, kinds of targets, what is left out and named, and what cannot be asked."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score, r2_score, roc_auc_score

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Parts
from capezoo.evaluate.questions import Context, Subject
from capezoo.evaluate.questions._probing import _sit
from capezoo.evaluate.questions._sets import SETS
from capezoo.evaluate.questions._targets import Target, TargetExam, _statistics
from capezoo.evaluate.questions.probe import Config, run, tables
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.page import table


def labelled(make_embeddings, **labels):
    """A subject whose index has these labels: name -> function of (index, features)."""
    made = make_embeddings("z", patients=120)
    columns = dict(made.index.columns)
    for name, of in labels.items():
        columns[f"label_{name}"] = np.asarray(of(made.index, made.embedding), np.float32)
    return Subject(replace(made, index=CohortIndex(columns, made.index.cohorts)))


def signal(unit, cut=0.0):
    """A label that one unit of the features tells."""
    return lambda index, x: (x[:, unit] > cut).astype(float)


def only(cohort, of):
    """The same, unknown in other cohorts."""
    return lambda index, x: np.where(index["cohort"] == cohort, of(index, x), np.nan)


def answered(subject, *targets, **settings):
    values = {
        "resamples": 100,
        "max_epochs": 40,
        "lr": 0.1,
        "demographic_lr": 0.1,
        "shares": (0.5, 0.2, 0.3),
    } | settings
    return run(Context((subject,), seed=1), Config(train_cohort="north", target=targets, allow_seen=True, **values))


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 4)) < (0.4, 0.2, 0.1, 0.3)).astype(float)
    return truth, np.clip(0.5 * truth + 0.7 * rng.random((200, 4)), 0, 1)


def test_metrics_of_several_labels_are_scikit_learn_s_for_every_draw(answers):
    truth, answer = answers
    weights = np.random.default_rng(1).integers(0, 3, (5, 200)).astype(float)
    found = {name: of(weights) for name, of in _statistics("labels", truth, answer).items()}
    for draw, weight in enumerate(weights.astype(int)):
        t, a = np.repeat(truth, weight, axis=0), np.repeat(answer, weight, axis=0)
        expected = {
            "macro AUROC": roc_auc_score(t, a, average="macro"),
            "micro AUROC": roc_auc_score(t, a, average="micro"),
            "macro F1": f1_score(t, a > 0.5, average="macro"),
        }
        assert {name: values[draw] for name, values in found.items()} == pytest.approx(expected)


def test_metrics_of_classes_and_numbers_are_scikit_learn_s(answers):
    rng = np.random.default_rng(2)
    kind = rng.integers(0, 4, 200)
    answer = rng.dirichlet(np.ones(4), 200)
    one = np.ones((1, 200))
    found = _statistics("classes", np.eye(4)[kind], answer)
    assert found["macro F1"](one)[0] == pytest.approx(f1_score(kind, answer.argmax(axis=1), average="macro"))
    assert found["macro AUROC"](one)[0] == pytest.approx(roc_auc_score(kind, answer, multi_class="ovr"))
    years = rng.uniform(20, 90, 200)
    guess = years + rng.normal(0, 9, 200)
    found = _statistics("number", years[:, None], guess[:, None])
    assert found["R2"](one)[0] == pytest.approx(r2_score(years, guess))
    assert found["MAE"](one)[0] == pytest.approx(np.abs(years - guess).mean())


def test_one_rule_for_a_class_that_a_part_or_a_draw_lacks(answers):
    truth, answer = answers
    weights = np.ones((2, 200))
    weights[1, truth[:, 2] == 1] = 0
    macro = _statistics("labels", truth, answer)["macro AUROC"](weights)
    rest = [0, 1, 3]
    kept = truth[:, 2] == 0
    assert macro[1] == pytest.approx(roc_auc_score(truth[kept][:, rest], answer[kept][:, rest], average="macro"))
    absent = np.where(np.arange(4) == 2, 0.0, truth)
    assert _statistics("labels", absent, answer)["macro AUROC"](weights[:1])[0] == pytest.approx(
        roc_auc_score(truth[:, rest], answer[:, rest], average="macro")
    )


def test_a_class_that_a_cohort_lacks_can_be_the_wrong_answer():
    truth = np.eye(3)[np.arange(40) % 2]
    answer = np.where(np.arange(40)[:, None] < 30, truth * 0.4, 0.1) + np.array([0.1, 0.1, 0.2])
    target, entries = Target("grade", "classes", ("0", "1", "2"), truth), np.arange(40)
    exam = TargetExam(target, "north", entries, target.scored(entries), entries, 0, 10)
    assert exam.outputs.tolist() == [True, True, False]
    found = {name: exam.alone(one) for name, one in exam.statistics(answer).items()}
    expected = f1_score(truth.argmax(axis=1), answer.argmax(axis=1), labels=[0, 1], average="macro")
    assert found["macro F1"] == pytest.approx(expected)


def test_kinds_are_told_by_the_values_and_by_the_word_after_the_equals_sign(make_embeddings):
    subject = labelled(
        make_embeddings,
        flag=signal(2),
        grade=lambda index, x: np.digitize(x[:, 3], (-0.5, 0.5)),
        lvef=lambda index, x: 50 + 10 * x[:, 4],
    )
    index, part = subject.embeddings.index, np.arange(100)
    kinds = {
        name: Target.find(index, name, part, part) for name in ("flag", "grade", "grade=number", "lvef", "flag+sex")
    }
    assert {name: one.kind for name, one in kinds.items()} == {
        "flag": "labels", "grade": "classes", "grade=number": "number", "lvef": "number", "flag+sex": "labels",
    }  # fmt: skip
    assert kinds["grade"].outputs == ("0", "1", "2")
    assert np.nansum(kinds["grade"].truth, axis=1).tolist() == [1.0] * len(index)
    with pytest.raises(SpecError, match=r"grade\+flag.*expected labels. Ask for each alone"):
        Target.find(index, "grade+flag", part, part)


def test_a_few_whole_years_are_a_number(make_embeddings):
    subject = labelled(make_embeddings, years=lambda index, x: np.rint(index["age"]))
    index = subject.embeddings.index
    part = np.flatnonzero(np.isfinite(index["age"]))[:12]
    whole = CohortIndex(dict(index.columns) | {"age": np.rint(index["age"])}, index.cohorts)
    assert Target.find(whole, "years", part, part).kind == "classes"
    assert Target.find(whole, "age", part, part).kind == "number"


def test_sexes_are_balanced_over_the_training_part_whatever_the_validation_part_has(make_embeddings):
    subject = labelled(make_embeddings)
    index = subject.embeddings.index
    women, men = (np.flatnonzero(index["sex"] == code) for code in (1, 0))
    train = np.r_[women[:30], men[:10]]
    target = Target.find(index, "sex", train, women[30:40])
    np.testing.assert_allclose(target.weights(train, train), np.repeat([2 / 3, 2.0], [30, 10]))
    np.testing.assert_allclose(target.weights(women[30:40], train), 2 / 3)
    assert Target.find(index, "sex=classes", train, train).weights(train, train) is None
    # Everyone in the validation part is a woman: nothing to divide by.
    config = Config(train_cohort="north", max_epochs=2)
    made = subject.features
    parts = Parts(train, women[30:40], {})
    assert _sit(made, target, [], parts, config, seed=0)[1]["plain"] == (2,)


def test_probes_find_what_the_units_tell_and_only_that(make_embeddings):
    subject = labelled(
        make_embeddings,
        told=signal(2),
        too=signal(3, 0.5),
        grade=lambda index, x: x[:, 5:8].argmax(axis=1),
        lvef=lambda index, x: 50 + 10 * x[:, 4],
        noise=lambda index, x: np.random.default_rng(9).integers(0, 2, len(x)),
    )
    found = answered(subject, "told+too", "grade", "lvef", "noise", "age")
    main = {(s.target, s.cohort): s.metrics for s in found.scores if s.scaler == "guarded"}
    assert main["told+too", "north"]["macro AUROC"].value > 0.93
    assert main["told+too", "south"]["macro AUROC"].value > 0.93
    assert main["grade", "north"]["macro AUROC"].value > 0.8
    assert main["lvef", "north"]["R2"].value > 0.8
    assert main["noise", "north"]["AUROC"].low < 0.5 < main["noise", "north"]["AUROC"].high
    assert main["age", "west"]["MAE"].value < 12
    for test in found.tests:
        value = main[test.target, test.cohort]
        metric = next(iter(value))
        assert test.records >= test.patients > 0
        if test.target == "age":
            assert test.constant["MAE"] > value[metric].value
        elif "AUROC" in metric:
            assert test.constant[metric] == 0.5
    assert set(next(s for s in found.scores if s.target == "told+too").classes) == {"told", "too"}


def test_labels_that_a_part_lacks_are_named_and_cost_no_record(make_embeddings):
    subject = labelled(
        make_embeddings,
        here=signal(2),
        too=signal(3),
        never=lambda index, x: np.zeros(len(x)),
        foreign=only(1, signal(4)),
        home=only(0, signal(5)),
    )
    found = answered(subject, "here+too+never+home", "foreign", "here")
    asked, alone = found.targets
    assert (asked.outputs, asked.left_out) == (("here", "too", "home"), ("never",))
    absent = {(test.target, test.cohort): test.absent for test in found.tests}
    assert absent["here+too+never+home", "north"] == ()
    assert absent["here+too+never+home", "south"] == ("home",)
    records = {test.cohort: test.records for test in found.tests if test.target == "here"}
    assert {test.cohort: test.records for test in found.tests if test.target == asked.name} == records
    assert list(found.left_out) == ["foreign"]
    assert "expected 2 records in each" in found.left_out["foreign"]
    text = " ".join(str(table(one.rows, one.caption)) for one in tables(found))
    assert "Left out, as no training record has it or all have: never." in text
    assert "constant answer" in text
    assert alone.name == "here"
    assert "LVEF_low" in [
        one.title for one in tables(answered(labelled(make_embeddings, LVEF_low=signal(2)), "LVEF_low"))
    ]


def test_what_cannot_be_asked_is_refused_in_one_line(make_embeddings):
    subject = labelled(make_embeddings, af=signal(2), foreign=only(1, signal(4)))
    for target, kind, words in (
        ("afib", SpecError, r"found no label 'afib', expected one of age, sex, .*Did you mean 'af'"),
        ("af=binary", SpecError, r"found kind 'binary', expected one of number, labels, classes"),
        (
            "superclass",
            Unanswerable,
            r"superclass: found no label 'norm', expected 5 labels as cohort presets name them",
        ),
        ("challenge_24", Unanswerable, r"challenge_24: found no label 'avb1', expected 24 labels"),
        ("foreign", Unanswerable, r"foreign: found too few known values"),
    ):
        with pytest.raises(kind, match=words) as error:
            answered(subject, target)
        assert "\n" not in str(error.value)


@pytest.mark.shared
def test_classes_of_ptb_xl_are_those_of_its_own_table(shared):
    labels = CohortSpec.load("ptb_xl").layouts[0].labels
    with (shared / "ptb_xl" / "scp_statements.csv").open(newline="") as file:
        heads, *rows = csv.reader(file)
    for name, column, count in (("superclass", "diagnostic_class", 5), ("subclass", "diagnostic_subclass", 23)):
        published: dict[str, set[str]] = {}
        for row in rows:
            if row[heads.index(column)]:
                published.setdefault(row[heads.index(column)], set()).add(row[0])
        assert {title: set(labels[label].codes) for title, label in SETS[name].items()} == published
        assert len(published) == count


@pytest.mark.shared
def test_statements_of_ptb_xl_are_those_of_its_own_table(shared):
    labels = CohortSpec.load("ptb_xl").layouts[0].labels
    with (shared / "ptb_xl" / "scp_statements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, column, count in (
        ("scp_all", "", 71),
        ("scp_diagnostic", "diagnostic", 44),
        ("scp_form", "form", 19),
        ("scp_rhythm", "rhythm", 12),
    ):
        published = {row[""] for row in rows if not column or row[column] == "1.0"}
        assert set(SETS[name]) == published
        assert len(published) == count
        assert {title: labels[label].codes for title, label in SETS[name].items()} == {one: (one,) for one in published}


@pytest.mark.shared
def test_the_24_classes_are_the_scored_codes_of_2020_with_their_merges(shared):
    labels = CohortSpec.load("cinc2021").layouts[0].labels
    with (shared / "metadata/antonior92-dx/dx_mapping_scored.csv").open(newline="") as file:
        published = {row["SNOMED CT Code"]: row["Abbreviation"] for row in csv.DictReader(file)}
    assert len(published) == 27
    assert len(SETS["challenge_24"]) == 24
    found = {code: title for title, label in SETS["challenge_24"].items() for code in labels[label].codes}
    assert {code: title for code, title in found.items() if code in published} == {
        code: next(title for title in SETS["challenge_24"] if name in title.split("/"))
        for code, name in published.items()
    }
    # Beside the scored codes a column has the words of the first headers, and LBBB the complete one of 2021.
    assert {code for code in found if code.isdigit()} - set(published) == {"733534002"}


def test_sets_ask_for_labels_that_presets_have():
    presets = {name: set(CohortSpec.load(name).label_names) for name in ("ptb_xl", "cinc2021", "chapman_ningbo", "sph")}
    presets |= {name: set(CohortSpec.load(name).label_names) for name in ("code15", "code_test")}
    have = {name: {one for one, labels in presets.items() if set(of.values()) <= labels} for name, of in SETS.items()}
    of_the_challenge = {"cinc2021", "chapman_ningbo"}
    assert have == {
        **{
            name: {"ptb_xl"}
            for name in ("superclass", "subclass", "scp_all", "scp_diagnostic", "scp_form", "scp_rhythm")
        },
        "code_six": set(presets),
        "cpsc_nine": of_the_challenge,
        "challenge_24": of_the_challenge,
        "aha": {"sph"},
    }
    assert {name: len(of) for name, of in SETS.items()} == {
        **{"superclass": 5, "subclass": 23, "scp_all": 71, "scp_diagnostic": 44, "scp_form": 19, "scp_rhythm": 12},
        **{"code_six": 6, "cpsc_nine": 9, "challenge_24": 24, "aha": 44},
    }
    assert all(len(set(of.values())) == len(of) for of in SETS.values())
