"""Clouds whose separation is known: apart, the same, and in between against scikit-learn and sums by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, silhouette_score
from sklearn.neighbors import NearestNeighbors

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure import parts
from capezoo.evaluate.questions import Context, Subject
from capezoo.evaluate.questions._separation import Separation, balanced_sample, neighbour_purity
from capezoo.evaluate.questions.separability import Config, _between_share, _silhouette, run

QUICK = Config(max_patients=80, resamples=100)


@pytest.fixture
def separability(embedded):
    """separability(features, cohort of each record, patients, seed, config): the measures of one embedding."""

    def measure(x, names, patients, seed, config=QUICK):
        return Measures(run(Context((embedded("x", x, names, patients),), seed), config))

    return measure


class Measures:
    def __init__(self, result):
        self.result, self.patients_per_cohort, self.left_out = result, result.patients_per_cohort, result.left_out

    def value(self, name):
        return self.result.value("x", name)


def clouds(shift, sizes=(120, 90, 60), units=6, seed=0):
    """Unit Gaussians, one cohort each, `shift` apart on an axis of their own."""
    rng = np.random.default_rng(seed)
    names = np.repeat(["a", "b", "c"], sizes)
    x = rng.normal(size=(len(names), units))
    for axis, name in enumerate("abc"):
        x[names == name, axis] += shift
    return x.astype(np.float32), names, np.arange(len(names))


def test_clouds_far_apart_are_told_apart_and_equal_clouds_are_not(separability):
    apart = separability(*clouds(60.0), seed=1)
    assert apart.value("knn_purity") > 0.99
    assert apart.value("probe_auc") == 1.0
    assert apart.value("silhouette") > 0.3
    same = separability(*clouds(0.0), seed=1)
    assert same.value("knn_purity") == pytest.approx(1 / 3, abs=0.06)
    assert same.value("probe_auc") == pytest.approx(0.5, abs=0.12)
    assert same.value("between_cohort_variance") < 0.04
    assert (apart.patients_per_cohort, apart.left_out) == (60, ())
    assert type(same.result).model_validate_json(same.result.model_dump_json()) == same.result


def test_between_share_is_the_textbook_ratio():
    x, names, _ = clouds(2.0)
    label = np.searchsorted(["a", "b", "c"], names)
    centre = x.mean(axis=0)
    between = sum((names == n).sum() * ((x[names == n].mean(axis=0) - centre) ** 2).sum() for n in "abc")
    weights = np.ones((1, len(x)))
    assert _between_share(x, label, weights)[0] == pytest.approx(between / ((x - centre) ** 2).sum(), rel=1e-5)
    twice = np.random.default_rng(0).integers(0, 3, (4, len(x))).astype(float)
    repeated = [
        _between_share(np.repeat(x, w.astype(int), 0), np.repeat(label, w.astype(int)), np.ones((1, int(w.sum()))))[0]
        for w in twice
    ]
    np.testing.assert_allclose(_between_share(x, label, twice), repeated, rtol=1e-5)
    assert _between_share(np.ones((5, 2)), np.array([0, 0, 1, 1, 1]), np.ones((1, 5)))[0] == 0


def test_purity_does_not_count_the_record_itself():
    x = np.array([[0.0], [0.1], [5.0], [5.1]])
    assert neighbour_purity(x, np.array([0, 1, 0, 1]), 1)(np.ones((1, 4))).tolist() == [0.0]
    assert neighbour_purity(x, np.array([0, 0, 1, 1]), 1)(np.ones((1, 4))).tolist() == [1.0]
    # Without the second record, the first one's nearest is the third, of another cohort.
    assert neighbour_purity(x, np.array([0, 0, 1, 1]), 1)(np.array([[1.0, 0, 1, 1]])).tolist() == [pytest.approx(2 / 3)]


def test_purity_and_silhouette_of_a_half_are_those_of_its_records_alone():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], 30)
    z = (rng.normal(size=(90, 4)) + label[:, None]).astype(np.float32)
    halves = np.stack([rng.permutation(90) < 45 for _ in range(3)]).astype(float)
    halves[2, label == 2] = 0
    halves[2, 89] = 1  # alone in its cohort
    kept = [np.flatnonzero(half) for half in halves]
    near = [NearestNeighbors(n_neighbors=5).fit(z[at]).kneighbors(return_distance=False) for at in kept]
    purity = [(label[at][found] == label[at][:, None]).mean() for at, found in zip(kept, near, strict=True)]
    np.testing.assert_allclose(neighbour_purity(z, label, 5)(halves), purity, rtol=1e-12)
    outline = [silhouette_score(z[at], label[at]) for at in kept]
    np.testing.assert_allclose(_silhouette(z, label)(halves), outline, rtol=1e-4)


def test_sample_is_one_record_per_patient_and_balanced():
    names = np.repeat(["a", "b", "tiny"], [300, 80, 5])
    patients = np.repeat(np.arange(77), 5)  # five records each: 60, 16, 1 patients
    chosen, kept, left_out = balanced_sample(names, patients, 3, fewest=10, most=1000)
    assert kept.tolist() == ["a", "b"]
    assert left_out == ("tiny",)
    assert len(set(patients[chosen].tolist())) == len(chosen) == 32
    assert (names[chosen] == "a").sum() == 16
    again = balanced_sample(names, patients, 4, fewest=10, most=1000)[0]
    assert chosen.tolist() != again.tolist()


def test_records_of_one_patient_do_not_make_a_cohort_pure(separability):
    """Ten nearly equal records of each patient, cohorts without any difference: purity stays at chance."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(120, 4)), 10, axis=0) + rng.normal(scale=1e-3, size=(1200, 4))
    names = np.repeat(["a", "b"], 600)
    found = separability(x.astype(np.float32), names, np.repeat(np.arange(120), 10), seed=0)
    assert found.value("knn_purity") == pytest.approx(0.5, abs=0.08)


def test_two_cohorts_use_the_binary_area(separability):
    x, names, patients = clouds(1.5, sizes=(100, 100, 0))
    found = separability(x, names, patients, seed=0, config=Config(resamples=50))
    direct = roc_auc_score(names == "b", x[:, 1] - x[:, 0])  # the best linear score there is
    assert found.value("probe_auc") == pytest.approx(direct, abs=0.05)


def test_one_cohort_is_refused(separability):
    x, names, patients = clouds(0.0, sizes=(50, 20, 5))
    with pytest.raises(Unanswerable, match="found patients: a 50, b 20, c 5; expected 30 in two cohorts"):
        separability(x, names, patients, seed=0)


def test_cohorts_need_a_patient_in_each_fold(separability):
    x, names, patients = clouds(0.0, sizes=(20, 20, 3))
    assert separability(x, names, patients, seed=0, config=Config(resamples=20, min_patients=2)).left_out == ("c",)
    with pytest.raises(Unanswerable, match="found patients: a 20, b 20, c 3; expected 25 in two cohorts"):
        separability(x, names, patients, seed=0, config=Config(resamples=20, min_patients=2, folds=25))
    few = np.flatnonzero(names == "c")[:3].tolist() + np.flatnonzero(names == "b")[:3].tolist()
    told = {"seed": 0, "neighbours": 2, "fewest": 1, "most": 9}
    assert Separation.of(x[few].astype("f4"), names[few], patients[few], **told) is None


def test_a_collapsed_embedding_tells_nothing(separability):
    names = np.repeat(["a", "b"], 40)
    found = separability(np.ones((80, 5), np.float32), names, np.arange(80), seed=0)
    assert found.value("probe_auc") == 0.5
    assert found.value("between_cohort_variance") == 0
    assert found.value("silhouette") == 0


def test_several_networks_have_their_mean_and_intervals_that_know_of_their_spread(embedded):
    _, names, patients = clouds(0.0)
    made = [embedded("x", clouds(shift)[0], names, patients) for shift in (0.2, 1.0, 2.0)]
    row = Subject(made[0].embeddings, None, tuple(one.embeddings for one in made[1:]))
    found = run(Context((row,), 1), QUICK).weights["x"]
    alone = [run(Context((one,), 1), QUICK).weights["x"] for one in made]
    for k, metric in enumerate(found):
        assert metric.value == pytest.approx(np.mean([one[k].value for one in alone]))
        assert metric.high - metric.low > max(one[k].high - one[k].low for one in alone)
        assert "3 initialisations" in metric.method
        assert "initialisations" not in alone[0][k].method


def test_with_a_split_only_its_part_test_is_looked_at(embedded, monkeypatch):
    """Cohorts stand apart for those in training and not for those held out."""
    x, names, patients = clouds(0.0, sizes=(120, 120, 120))
    trained = patients % 3 == 0
    for axis, name in enumerate("abc"):
        x[trained & (names == name), axis] += 60
    split = SimpleNamespace(
        parts=("train", "test"), names=lambda index: np.where(index["patient"] % 3 == 0, "train", "test")
    )
    monkeypatch.setattr(parts, "load_split", lambda store, name: split)
    context = Context((embedded("x", x, names, patients),), 1, store=object())
    whole, held_out = (run(context, QUICK.model_copy(update={"split": name})) for name in ("", "s"))
    assert whole.value("x", "probe_auc") > 0.6
    assert held_out.patients_per_cohort == 80
    assert held_out.value("x", "probe_auc") == pytest.approx(0.5, abs=0.12)
