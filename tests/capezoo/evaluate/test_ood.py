"""The out-of-distribution protocol on embeddings whose transfer is known in advance."""

import dataclasses

import numpy as np
import pytest

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.tasks import Exam, targets
from capezoo.evaluate.questions import Context, Subject, ood
from capezoo.evaluate.questions._wording import _in_papers_way
from capezoo.evaluate.results import Answer, EvaluatedWeights, Provenance, Study
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.report.page import NOTHING

CONFIG = ood.Config(train_cohort="north", runs=3, lr=3e-3, max_epochs=25, resamples=200)
SEED = 5


def ask(*subjects, config=CONFIG):
    return ood.run(Context(subjects, SEED), config)


@pytest.fixture(scope="module")
def result(make_embeddings):
    """Z: cohorts alike. X: the units that carry age and sex stand elsewhere in other cohorts."""
    told = []
    z, x = make_embeddings("z"), make_embeddings("x", shift=6.0)
    digests = z.index["waveform_digest"][z.index["cohort"] == 1]
    found = ood.run(Context((Subject(x), Subject(z, digests)), SEED, lambda *step: told.append(step)), CONFIG)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return found


def score(result, name, task, cohort, scaler="plain"):
    return next(w for w in result.weights if w.name == name).score(task, cohort, scaler)


def test_both_work_at_home_and_only_one_abroad(result):
    for name in ("x", "z"):
        assert score(result, name, "sex", "north").averaged > 0.9
        assert score(result, name, "age", "north").averaged < 11
    for cohort in ("south", "west"):
        assert score(result, "z", "age", cohort).averaged < 11
        assert score(result, "x", "age", cohort).averaged > 20
        assert score(result, "z", "sex", cohort).averaged > 0.9
        assert score(result, "x", "sex", cohort).averaged < 0.8


def test_intervals_enclose_and_runs_differ(result):
    for weights in result.weights:
        assert len(weights.scores) == 2 * 2 * 3
        for one in weights.scores:
            assert len(one.runs) == 3
            assert one.low < one.averaged < one.high
            assert one.runs_low <= one.mean <= one.runs_high
            assert one.mean == pytest.approx(np.mean(one.runs))
            assert one.patients < one.records
    assert len(set(score(result, "z", "age", "south").runs)) == 3


def test_comparisons_are_first_minus_second(result):
    row = next(c for c in result.comparisons if (c.task, c.cohort, c.scaler) == ("age", "south", "plain"))
    assert (row.first, row.second) == ("x", "z")
    ours = score(result, "x", "age", "south").averaged - score(result, "z", "age", "south").averaged
    assert row.difference == pytest.approx(ours)
    assert 0 < row.low < row.difference < row.high
    assert row.wilcoxon_p == 0.25  # three runs can say no more
    assert row.delong_p is None
    sex = next(c for c in result.comparisons if (c.task, c.cohort, c.scaler) == ("sex", "south", "plain"))
    assert sex.high < 0
    assert sex.delong_p < 1e-4
    assert sex.delong_patients <= 240
    assert len(result.comparisons) == 2 * 2 * 3


def test_test_sets_count_everything(result):
    south = next(t for t in result.tests if t.cohort == "south")
    assert south.records == 300
    assert south.patients == 240
    assert south.age_90 > 0
    assert south.age_known + south.age_90 < south.records  # the rest is unknown
    assert south.sex_known < south.records
    assert 14 < south.constant_age_mae < 20  # uniform ages between 20 and 85
    home = next(t for t in result.tests if t.cohort == "north")
    assert 60 < home.records < 180  # two fifths of 300


def test_records_seen_in_pretraining_are_counted(result):
    x, z = result.weights
    assert x.seen is None
    assert z.seen == {"north": 0, "south": 300, "west": 0}


@pytest.fixture
def study(result):
    """The result as part of a study of two sets of weights with one digest."""
    weights = tuple(EvaluatedWeights(name=one.name, weights="0" * 64, card=None) for one in result.weights)
    answer = Answer(config=CONFIG, result=result, provenance=Provenance.now("test"))
    return Study(seed=SEED, store_fingerprint="f" * 64, weights=weights, answers={"ood": answer})


def test_results_come_back_from_json(study, tmp_path):
    study.write(tmp_path)
    assert Study.read(tmp_path) == study
    with pytest.raises(SourceError, match="found no result"):
        Study.read(tmp_path / "other")


def test_scores_become_metrics_of_a_card(study, result):
    metrics = study.card_metrics("0" * 64)  # of the first weights with this digest
    assert len(metrics) == 2 * 6
    first = metrics[0]
    guarded = score(result, "x", "age", "north", "guarded")
    assert (first.name, first.cohort, first.value, first.n) == (
        "age_mae_years",
        "north",
        guarded.averaged,
        guarded.records,
    )
    assert "heads trained on north" in first.method
    assert "predictions of 3 heads averaged" in first.method
    second = metrics[1]
    assert (second.name, second.cohort, second.value) == ("age_mae_years_mean_of_runs", "north", guarded.mean)
    assert (second.low, second.high) == (guarded.runs_low, guarded.runs_high)
    assert "mean of 3 heads, t interval over heads" in second.method
    assert "; test; commit" in first.method
    with pytest.raises(SpecError, match="found evaluations of x 000000000000, z 000000000000, expected one of 111"):
        study.card_metrics("1" * 64)


def test_the_same_seed_gives_the_same_numbers_alone_or_beside_others(result, make_embeddings):
    alone = ask(Subject(make_embeddings("z")))
    with_x = next(w for w in result.weights if w.name == "z")
    for one, other in zip(alone.weights[0].scores, with_x.scores, strict=True):
        assert one.averaged == pytest.approx(other.averaged, rel=1e-6)


def test_split_is_by_patient_and_tests_are_bounded(make_embeddings):
    index = make_embeddings("z").index
    split = CONFIG.model_copy(update={"test_records": 50}).parts(index, SEED)
    patients = [set(index["patient"][part].tolist()) for part in (split.train, split.validation, split.tests["north"])]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert {name: len(at) for name, at in split.tests.items()} == {"north": 50, "south": 50, "west": 50}
    assert (index["cohort"][split.train] == 0).all()
    assert 0.4 < len(split.train) / 300 < 0.6
    again = CONFIG.parts(index, SEED + 1)
    assert again.train.tolist() != split.train.tolist()


def test_ages_from_90_on_and_unknown_sexes_are_left_out(make_embeddings):
    index = make_embeddings("z").index
    entries = np.arange(len(index))
    age, known = targets(index, entries, "age")
    assert (age[known] < 90).all()
    assert not np.isnan(age[known]).any()
    sex, known = targets(index, entries, "sex")
    assert known.sum() == (index["sex"] >= 0).sum()
    assert sex[index["sex"] == 1].all()


def test_a_near_dead_unit_ruins_the_plain_scaler_only(make_embeddings):
    """A unit that trembles at home and works abroad: the guarded scaler keeps the transfer, and health says why."""
    made = make_embeddings("z")
    x = made.embedding.copy()
    home = made.index["cohort"] == 0
    x[:, 5] = np.where(home, 1e-6 * x[:, 5], 8.0)
    found = ask(Subject(dataclasses.replace(made, embedding=x)))
    weights = found.weights[0]
    assert (weights.health.dead, weights.health.near_dead) == (0, 1)
    assert weights.health.largest_z["south"] > 1e5
    assert weights.health.largest_z["north"] < 10
    guarded, plain = (score(found, "z", "age", "south", scaler).averaged for scaler in ("guarded", "plain"))
    assert guarded < 15
    assert plain > guarded + 4


def test_a_dead_unit_changes_nothing(make_embeddings):
    made = make_embeddings("z")
    wider = np.concatenate([made.embedding, np.full((len(made.index), 2), 0.3, np.float32)], axis=1)
    found = ask(Subject(dataclasses.replace(made, embedding=wider)))
    assert found.weights[0].health.dead == 2
    assert score(found, "z", "sex", "south").averaged > 0.9


def test_error_is_the_mean_over_patients_records_by_hand():
    truth, patients = np.array([30.0, 40.0, 50.0]), np.array([1, 1, 2])
    exam = Exam("age", "north", np.arange(3), truth, patients, seed=0, resamples=100)
    assert exam.per_run(np.array([[31.0, 38.0, 50.0], [30.0, 40.0, 56.0]])) == [1.0, 2.0]


def test_a_sex_with_one_patient_has_an_area_and_no_interval():
    truth, answer = np.array([1, 1, 0, 0, 0.0]), np.array([0.9, 0.3, 0.4, 0.2, 0.1])
    area = Exam("sex", "x", np.arange(5), truth, np.array([0, 0, 1, 2, 3]), seed=1, resamples=50)
    found = area.interval([area.metric(answer)])
    assert found.value == pytest.approx(5 / 6)
    assert found.limits == (None, None)
    two = dataclasses.replace(area, patients=np.array([0, 4, 1, 2, 3]))
    assert None not in two.interval([two.metric(answer)]).limits


def test_a_cohort_without_labels_is_tested_for_nothing(make_embeddings):
    made = make_embeddings("z")
    columns = dict(made.index.columns)
    west = columns["cohort"] == 2
    columns["age"] = np.where(west, np.nan, columns["age"]).astype("f4")
    columns["sex"] = np.where(west, 1, columns["sex"]).astype("i1")  # one sex only
    index = dataclasses.replace(made.index, columns=columns)
    found = ask(Subject(dataclasses.replace(made, index=index)))
    assert {s.cohort for s in found.weights[0].scores} == {"north", "south"}
    west_set = next(t for t in found.tests if t.cohort == "west")
    assert (west_set.age_known, west_set.constant_age_mae) == (0, None)


def test_what_cannot_be_evaluated_is_refused(make_embeddings):
    z = make_embeddings("z")
    with pytest.raises(SpecError, match="found no cohort 'east', expected one of north"):
        ask(Subject(z), config=CONFIG.model_copy(update={"train_cohort": "east"}))
    with pytest.raises(SpecError, match="found weights named z, z, expected different names"):
        ask(Subject(z), Subject(z))
    other = make_embeddings("x", store_fingerprint="e" * 64)
    with pytest.raises(SpecError, match=r"found embeddings of two stores \(z: ffffffffffff, x: eeeeeeeeeeee\)"):
        ask(Subject(z), Subject(other))
    with pytest.raises(SpecError, match="found no weights"):
        ask()
    columns = dict(z.index.columns) | {
        "age": np.full(len(z.index), np.nan, "f4"),
        "sex": np.full(len(z.index), -1, "i1"),
    }
    blank = dataclasses.replace(z, index=dataclasses.replace(z.index, columns=columns))
    with pytest.raises(Unanswerable, match="cohort 'north': found ages or sexes of fewer than 2"):
        ask(Subject(blank))


def test_provenance_names_versions_and_no_machine():
    found = Provenance.now("capezoo evaluate ood")
    assert found.versions["numpy"] == np.__version__
    assert found.commit is None or 7 <= len(found.commit.removesuffix("-dirty")) <= 40


def test_a_collapsed_embedding_gives_chance(make_embeddings):
    made = make_embeddings("z")
    flat = dataclasses.replace(made, embedding=np.ones_like(made.embedding))
    found = ask(Subject(flat), config=CONFIG.model_copy(update={"max_epochs": 2}))
    assert found.weights[0].health.dead == 12
    assert score(found, "z", "sex", "south").averaged == 0.5


@pytest.fixture(scope="module")
def several(make_embeddings):
    """Three untrained networks as one row, each with features of its own, beside the first of them and a trained one."""
    drawn = [make_embeddings("random", seed=seed) for seed in (11, 12, 13)]
    blunt = [
        dataclasses.replace(made, embedding=made.embedding * np.r_[keep, keep, np.ones(10)].astype(np.float32))
        for made, keep in zip(drawn, (0.2, 0.4, 1.0), strict=True)
    ]
    one = dataclasses.replace(blunt[0], info=blunt[0].info.model_copy(update={"name": "one"}))
    row = Subject(blunt[0], np.zeros((0, 16), np.uint8), tuple(blunt[1:]))
    return blunt, ask(Subject(make_embeddings("z")), row, Subject(one))


def test_a_row_of_several_networks_has_their_mean_and_a_wider_interval(several, make_embeddings):
    blunt, found = several
    row = score(found, "random", "age", "south", "guarded")
    alone = [score(ask(Subject(made)), "random", "age", "south", "guarded") for made in blunt]
    assert row.initialisations == pytest.approx([one.averaged for one in alone])
    assert row.averaged == pytest.approx(np.mean(row.initialisations))
    assert row.runs == pytest.approx(np.mean([one.runs for one in alone], axis=0))
    assert row.mean == pytest.approx(np.mean(row.runs))
    assert row.high - row.low > max(one.high - one.low for one in alone)
    # Three networks that differ tell their mean less surely than heads of one tell theirs.
    assert row.runs_high - row.runs_low > max(one.runs_high - one.runs_low for one in alone)
    assert score(found, "one", "age", "south", "guarded").initialisations == ()
    assert found.weights[1].epochs["age plain"] == sum((ask_epochs(made) for made in blunt), ())


def ask_epochs(made):
    return ask(Subject(made)).weights[0].epochs["age plain"]


def test_comparisons_draw_networks_as_well_as_patients(several):
    _, found = several
    row = {
        (c.first, c.second): c for c in found.comparisons if (c.task, c.cohort, c.scaler) == ("age", "south", "plain")
    }
    z, random = (score(found, name, "age", "south").averaged for name in ("z", "random"))
    assert row["z", "random"].difference == pytest.approx(z - random)
    assert row["z", "random"].low < z - random < row["z", "random"].high
    assert row["z", "random"].wilcoxon_p == 0.25
    sex = [c for c in found.comparisons if (c.task, c.cohort, c.scaler) == ("sex", "south", "plain")]
    assert [c.delong_p is None for c in sex] == [True, False, True]  # z and random, z and one, random and one


def test_a_card_has_the_rows_that_were_never_trained(several):
    _, found = several
    metrics = {(one.name, one.cohort): one for one in ood.card_metrics(found, "z")}
    beside = metrics["sex_auroc_of_random", "west"]
    random = score(found, "random", "sex", "west", "guarded")
    assert (beside.value, beside.low, beside.high) == (random.averaged, random.low, random.high)
    assert len(metrics) == 3 * 6
    assert "t interval over initialisations" in ood.card_metrics(found, "random")[1].method


def test_networks_of_another_store_are_refused(make_embeddings):
    z, other = make_embeddings("z"), make_embeddings("z", store_fingerprint="e" * 64)
    with pytest.raises(SpecError, match="found embeddings of two stores"):
        ask(Subject(z, None, (other,)))


# CAPE's Table 3: mean, standard error (None: the table says only that it is large) and what the paper prints.
TABLE_3 = {
    ("age", "x"): ["7.880(028)", "24.232(*)", "14.326(*)", "5.786(018)", "7.786(019)", "12.002"],
    ("age", "z"): ["7.833(031)", "7.962(031)", "7.378(020)", "5.875(017)", "7.681(017)", "7.346"],
    ("sex", "x"): ["0.939(06)", "0.600(*)", "0.659(*)", "0.974(04)", "0.937(05)", "0.822"],
    ("sex", "z"): ["0.937(08)", "0.935(08)", "0.942(07)", "0.977(03)", "0.947(06)", "0.948"],
}
P_AGE = {"bidmc": 0.003906, "code": 0.001953, "shzs": 0.001953, "ukb": 0.001953, "ptb_xl": 0.009766}


def published(task, name):
    """The numbers of a row of Table 3, as heads would have left them."""
    scores = []
    for cohort, text in zip(P_AGE, TABLE_3[task, name], strict=False):
        mean, error = text.rstrip(")").split("(")
        se = 2.4 if error == "*" else float(error) / (1000 if task == "age" else 10_000)
        scores.append(
            ood._Score(task=task, cohort=cohort, scaler="plain", runs=(float(mean),), mean=float(mean), se=se, runs_low=None,
                       runs_high=None, averaged=float(mean), low=None, high=None, records=10_000, patients=9_000)
        )  # fmt: skip
    return scores


def test_the_papers_table_3_is_printed_as_in_the_paper(result):
    weights = [result.weights[0].model_copy(update={"name": name, "scores": (*published("age", name), *published("sex", name))})
               for name in ("x", "z")]  # fmt: skip
    compared = [
        ood._Comparison(first="x", second="z", task=task, cohort=cohort, scaler="plain", difference=1.0, low=None, high=None,
                        wilcoxon_p=p, delong_p=1e-9 if task == "sex" else None, delong_patients=9_000)
        for task in ("age", "sex") for cohort, p in P_AGE.items()
    ]  # fmt: skip
    made = result.model_copy(
        update={"train_cohort": "bidmc", "weights": tuple(weights), "comparisons": tuple(compared), "tests": ()}
    )
    for task in ("age", "sex"):
        table = ood._table_3(made, task)
        assert list(table.columns) == [*P_AGE, "mean"]
        for name in ("x", "z"):
            assert table.loc[f"{name}, plain"].tolist() == TABLE_3[task, name]
        published_p = ["0.0039", "0.0020", "0.0020", "0.0020", "0.0098", NOTHING]
        assert table.loc["p, Wilcoxon: x against z, plain"].tolist() == published_p
    assert table.loc["p, DeLong: x against z, plain"].tolist() == [*["< 0.0001"] * 5, NOTHING]


@pytest.mark.parametrize(
    ("mean", "se", "task", "text"),
    [
        (24.62347, 2.4215, "age", "24.623(*)"),  # the recorded runs of the public repository
        (7.52036, 0.0099, "age", "7.520(010)"),
        (0.60179, 0.0152, "sex", "0.602(*)"),
        (0.946729, 0.0001, "sex", "0.947(01)"),
        (12.0, 0.9994, "age", "12.000(999)"),
        (12.0, 0.9996, "age", "12.000(*)"),  # rounds to 1.000, which three digits cannot say
        (0.9, 0.00994, "sex", "0.900(99)"),
        (0.9, 0.00996, "sex", "0.900(*)"),
        (0.9, 0.0, "sex", "0.900(00)"),
        (0.9, None, "sex", "0.900"),
    ],
)
def test_the_papers_notation(mean, se, task, text):
    assert _in_papers_way(mean, se, task) == text


def test_every_comparison_has_p_of_patients_and_of_heads_with_their_q(result):
    for row in result.comparisons:
        assert row.q >= row.p
        assert row.wilcoxon_q >= row.wilcoxon_p
        assert row.rank_biserial in (-1.0, 1.0) or abs(row.rank_biserial) < 1
        if row.task == "sex":
            assert row.delong_q >= row.delong_p
            assert len(row.delong_runs) == 3
            assert min(row.delong_runs) <= 1
        else:
            assert (row.delong_p, row.delong_q, row.delong_runs) == (None, None, ())
    south = next(c for c in result.comparisons if (c.task, c.cohort, c.scaler) == ("age", "south", "plain"))
    assert south.rank_biserial == 1.0
    assert south.p < 1e-4
    # Six comparisons with one scaler; the least p of six is multiplied by six at most.
    plain = [c for c in result.comparisons if c.scaler == "plain"]
    assert len(plain) == 6
    assert min(c.q for c in plain) <= 6 * min(c.p for c in plain)


def test_one_protocol_is_the_papers_by_default():
    config = ood.Config(train_cohort="north")
    assert (config.runs, config.shares, config.test_records, config.lr) == (10, (0.5, 0.1, 0.4), 10_000, 1e-4)


def test_two_patients_have_no_p(make_embeddings):
    """Two people on whom the heads err alike: the bootstrap sees no spread, and would be certain."""
    made = make_embeddings("z")
    west = np.unique(made.index["patient"][made.index["cohort"] == 2])[:2]
    kept = np.flatnonzero((made.index["cohort"] != 2) | np.isin(made.index["patient"], west))
    subjects = [
        Subject(dataclasses.replace(one, index=one.index.take(kept), embedding=one.embedding[kept]))
        for one in (made, make_embeddings("x", seed=3))
    ]
    found = ask(*subjects, config=CONFIG.model_copy(update={"max_epochs": 3, "resamples": 50}))
    for row in found.comparisons:
        few = row.cohort == "west"
        assert (row.p is None) == (row.q is None) == few
        assert row.wilcoxon_p is not None
        if row.task == "sex":
            assert (row.delong_p is None) == (row.delong_runs == ()) == few
