"""People who are found or not, as made: against scikit-learn, sums by hand, exact chance, and whom pretraining has seen."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.scalers import fit_scaler
from capezoo.evaluate.questions import Context, Subject
from capezoo.evaluate.questions.identity import Config, _by_chance, card_metrics, headline, run, tables
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex

QUICK = Config(resamples=200)
NOTHING_SEEN = np.zeros((0, 16), np.uint8)


def people(signal: float, count: int = 40, records: int = 3, units: int = 8, seed: int = 0):
    """A unit Gaussian for each person, times `signal`, and noise for each recording: features, patients."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(count), records)
    return signal * rng.normal(size=(count, units))[patients] + rng.normal(size=(len(patients), units)), patients


@pytest.fixture
def subject(embedded):
    """subject(features, patients, name="x", trained_on=nothing, **columns): one embedding of one cohort, ids known."""

    def make(x, patients, name="x", trained_on=NOTHING_SEEN, **columns):
        made = embedded(name, x, np.full(len(x), "a"), patients)
        n = len(x)
        digests = np.random.default_rng(9).integers(0, 256, (n, 16)).astype("u1")
        changed = {"patient_known": np.ones(n, bool), "waveform_digest": digests, **columns}
        index = CohortIndex({**made.embeddings.index.columns, **changed}, ("a",))
        return Subject(replace(made.embeddings, index=index), trained_on)

    return make


def value(result, measure, when="any", name="x"):
    return result.score(name, "a", when, measure).value


def test_measures_are_those_of_all_pairs(subject):
    x, patients = people(1.5)
    result = run(Context((subject(x, patients),), 1), QUICK)
    z = fit_scaler(x.astype("f4"), "guarded")(x.astype("f4")).astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similar = z @ z.T
    first, second = np.nonzero(~np.eye(len(x), dtype=bool))
    same, score = patients[first] == patients[second], similar[first, second]
    ranks = []
    for one in range(len(x)):
        order = [other for other in np.argsort(-similar[one]) if other != one]
        ranks.append(1 + next(place for place, other in enumerate(order) if patients[other] == patients[one]))
    accepted, right, _ = roc_curve(same, score)
    assert value(result, "rank1") == pytest.approx(np.mean(np.array(ranks) == 1))
    assert value(result, "reciprocal_rank") == pytest.approx(np.mean(1 / np.array(ranks)))
    assert value(result, "auroc") == pytest.approx(roc_auc_score(same, score), abs=1e-3)
    crossing = np.abs(accepted + right - 1).argmin()
    assert value(result, "equal_error") == pytest.approx((accepted[crossing] + 1 - right[crossing]) / 2, abs=5e-3)
    assert 0.3 < value(result, "rank1") < 0.95
    assert result.searches[0].people == 40
    low, high = (getattr(result.score("x", "a", "any", "rank1"), end) for end in ("low", "high"))
    assert low < value(result, "rank1") < high


def test_everybody_is_found_by_a_clear_embedding_and_nobody_by_noise(subject):
    clear = run(Context((subject(*people(100.0)),), 1), QUICK)
    assert (value(clear, "rank1"), value(clear, "auroc"), value(clear, "equal_error")) == pytest.approx((1, 1, 0))
    noise = run(Context((subject(*people(0.0, count=200, records=2)),), 1), QUICK)
    chance = noise.searches[0].chance
    assert chance["rank1"] == pytest.approx(1 / 399)
    assert value(noise, "rank1") == pytest.approx(chance["rank1"], abs=0.02)
    assert value(noise, "reciprocal_rank") == pytest.approx(chance["reciprocal_rank"], abs=0.02)
    assert value(noise, "auroc") == pytest.approx(0.5, abs=0.06)
    assert value(noise, "equal_error") == pytest.approx(0.5, abs=0.06)


def test_a_collapsed_embedding_finds_nobody(subject):
    _, patients = people(0.0, count=200, records=2)
    result = run(Context((subject(np.ones((400, 8)), patients),), 1), QUICK)
    assert value(result, "rank1") < 0.03
    assert (value(result, "auroc"), value(result, "equal_error")) == pytest.approx((0.5, 0.5), abs=0.01)


def test_chance_is_the_mean_over_all_orders():
    for right, strangers in ((1, 4), (2, 3), (3, 1)):
        orders = set(permutations([True] * right + [False] * strangers))
        ranks = np.array([order.index(True) + 1 for order in orders])
        assert _by_chance(right, strangers) == pytest.approx(((ranks == 1).mean(), (1 / ranks).mean()))


def test_a_copy_of_the_same_day_does_not_count_on_another_day(subject):
    """Two of a person's three recordings are of one day and equal; the third, of another day, is noise."""
    x, patients = people(0.0, count=100)
    x[1::3] = x[::3]
    days = np.tile([0.0, 0.5, 40.0], 100).astype("f4")
    result = run(Context((subject(x, patients, days=days),), 1), QUICK)
    assert value(result, "rank1") == pytest.approx(2 / 3, abs=0.02)
    assert value(result, "rank1", "another day") < 0.06
    assert {search.when: search.queries for search in result.searches} == {"any": 300, "another day": 300}
    assert "a day or more" in tables(result)[1].caption
    near = run(Context((subject(x, patients, days=days),), 1), QUICK.model_copy(update={"min_gap_days": 41.0}))
    assert [search.when for search in near.searches] == ["any"]
    unknown = run(Context((subject(x, patients, days=np.full(300, np.nan, "f4")),), 1), QUICK)
    assert headline(unknown)["x"]["person found on another day"] is None


def test_a_person_counts_once_however_often_recorded(subject):
    x, patients = people(100.0, count=10, records=2)
    # One more person, with eighteen recordings of noise that find nobody.
    x = np.concatenate([x, np.random.default_rng(1).normal(size=(18, 8)) * 100])
    patients = np.concatenate([patients, np.full(18, 10)])
    result = run(Context((subject(x, patients),), 1), QUICK)
    assert value(result, "rank1") > 10 / 11 - 1e-9
    assert result.searches[0].queries == 38
    few = run(Context((subject(x, patients),), 1), QUICK.model_copy(update={"max_records": 2, "max_patients": 6}))
    assert (few.searches[0].queries, few.searches[0].people) == (12, 6)


def test_people_whom_pretraining_has_seen_are_left_out(subject):
    x, patients = people(1.0)
    digests = subject(x, patients).embeddings.index["waveform_digest"]
    # One recording of each of the first ten is enough.
    trained = subject(x, patients, trained_on=digests[patients < 10][::3])
    both = (trained, subject(x, patients, "y"))
    result = run(Context(both, 1), QUICK)
    assert (result.seen, result.searches[0].people, result.searches[0].among_people) == (10, 30, 30)
    assert "10 people seen" in tables(result)[-1].caption
    assert run(Context(both, 1), QUICK.model_copy(update={"allow_seen": True})).searches[0].people == 40
    unknown = subject(x, patients, trained_on=None)
    with pytest.raises(SpecError, match="x: found no list of its training recordings, expected one"):
        run(Context((unknown,), 1), QUICK)
    assert run(Context((unknown,), 1), QUICK.model_copy(update={"allow_seen": True})).searches


def test_without_enough_people_or_ids_there_is_no_answer(subject):
    x, patients = people(1.0)
    with pytest.raises(Unanswerable, match="two recordings: none; expected 5 in one cohort at least"):
        run(Context((subject(x, patients, patient_known=np.zeros(120, bool)),), 1), QUICK)
    with pytest.raises(Unanswerable, match="two recordings: a 40; expected 41"):
        run(Context((subject(x, patients),), 1), QUICK.model_copy(update={"min_patients": 41}))


def test_differences_are_paired_by_person(subject):
    x, patients = people(0.8)
    better = x + people(0.8)[0]
    twin = (subject(x, patients), subject(x, patients, "y"), subject(better * 3, patients, "z"))
    result = run(Context(twin, 1), QUICK)
    found = {(one.first, one.second): one for one in result.differences if one.measure == "rank1"}
    assert set(found) == {("x", "y"), ("x", "z"), ("y", "z")}
    assert (found["x", "y"].value, found["x", "y"].low, found["x", "y"].high) == (0, 0, 0)
    assert value(result, "rank1") - value(result, "rank1", name="z") == pytest.approx(found["x", "z"].value)
    assert [metric.name for metric in card_metrics(result, "x")] == ["person_found"]


def test_a_number_of_several_initialisations_is_their_mean(subject):
    x, patients = people(1.5)
    one, two = subject(x, patients), subject(people(0.5)[0], patients)
    trained = subject(people(1.5, seed=3)[0], patients, "y")
    both = run(Context((replace(one, others=(two.embeddings,)), trained), 1), QUICK)
    alone = [run(Context((each, trained), 1), QUICK) for each in (one, two)]
    for measure in ("rank1", "auroc", "equal_error"):
        assert value(both, measure) == pytest.approx(np.mean([value(each, measure) for each in alone]))
        found = [next(d.value for d in each.differences if d.measure == measure) for each in (both, *alone)]
        assert found[0] == pytest.approx(np.mean(found[1:]))
    width = [score.high - score.low for score in (each.score("x", "a", "any", "rank1") for each in (both, alone[0]))]
    assert width[0] > width[1]


@pytest.mark.slow
def test_intervals_hold_the_mean_of_many_crowds(subject):
    """Of 60 crowds about 95 % of intervals hold the mean over 200 other crowds, of the area and of the share found first."""
    config = Config(resamples=2)
    others = [run(Context((subject(*people(1.0, 60, 2, seed=s)),), s), config) for s in range(1000, 1200)]
    for measure in ("rank1", "auroc"):
        truth, held = np.mean([value(one, measure) for one in others]), 0
        for seed in range(60):
            score = run(Context((subject(*people(1.0, 60, 2, seed=seed)),), seed), QUICK).score(
                "x", "a", "any", measure
            )
            held += score.low <= truth <= score.high
        assert 51 <= held <= 60, measure
