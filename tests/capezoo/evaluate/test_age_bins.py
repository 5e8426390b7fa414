"""Errors by decade: against sums written out, standardised to common ages, and unlike the paper's bins."""

from dataclasses import replace

import numpy as np
import pytest

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.tasks import Exam
from capezoo.evaluate.questions import Context, Subject
from capezoo.evaluate.questions.age_bins import Config, _score, _standard, _test_set, figures, run, tables
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.page import table


def exam(age, patients=None, cohort="north"):
    age = np.asarray(age, float)
    whose = np.arange(len(age)) if patients is None else np.asarray(patients)
    return Exam("age", cohort, np.arange(len(age)), age, whose, seed=0, resamples=200)


def test_each_decade_has_its_own_error_and_the_oldest_are_apart():
    rng = np.random.default_rng(0)
    age = np.r_[rng.uniform(20, 90, 300), 9.99, 10, 89.99, 90, 90]
    answers = age + rng.normal(0, 8, (4, len(age)))
    answers[:, -2:] = 60
    found = _score("x", exam(age), "guarded", [answers], None)
    error = np.abs(answers - age)
    for k, value in enumerate(found.bins[:-1]):
        mine = (age >= 10 * k) & (age < 10 * k + 10)
        assert (value is None) == (not mine.any())
        if value is not None:
            # All runs pooled, as in the paper: not the error of their mean.
            assert value.value == pytest.approx(error[:, mine].mean())
            assert (value.low is None) == (mine.sum() < 5)
            assert value.low is None or value.low < value.value < value.high
    assert found.bins[9].value == pytest.approx(30)
    assert found.all.value == pytest.approx(error[:, :-2].mean())
    made = _test_set(exam(age), 50.0, None)
    assert (made.records[0], made.records[1], made.records[9]) == (1, 1, 2)
    assert made.constant[9] == pytest.approx(40)


def test_a_patient_with_many_records_counts_once_and_widens_the_interval():
    age = np.full(60, 45.0)
    answers = (age + np.tile([2.0, 12.0], 30))[None]
    alone = _score("x", exam(age), "plain", [answers], None)
    # Six patients with ten records each, whose errors are alike.
    grouped = _score("x", exam(age, np.repeat(np.arange(6), 10)), "plain", [np.sort(answers, axis=1)], None)
    assert alone.bins[4].value == grouped.bins[4].value == pytest.approx(7)
    assert _test_set(exam(age, np.repeat(np.arange(6), 10)), 50.0, None).patients[4] == 6
    assert grouped.bins[4].high - grouped.bins[4].low > 2 * (alone.bins[4].high - alone.bins[4].low)


def test_cohorts_of_other_ages_and_equal_errors_by_age_have_one_standardised_error():
    """The paper's remark on its youngest and oldest cohorts: half of a difference may be their ages."""
    young, old = np.repeat([25, 45, 65, 85], [60, 30, 10, 10]), np.repeat([25, 45, 65, 85], [10, 10, 30, 60])
    counts = {name: np.bincount(np.array(ages) // 10, minlength=9) for name, ages in (("a", young), ("b", old))}
    common = _standard(counts, "")
    assert common.decades == (20, 40, 60, 80)
    assert common.shares == pytest.approx(((60 + 10) / 220, 40 / 220, 40 / 220, 70 / 220))
    found = [_score("x", exam(ages), "plain", [(ages + ages / 5)[None]], common) for ages in (young, old)]
    assert found[0].all.value < 0.6 * found[1].all.value
    assert found[0].standardised.value == pytest.approx(found[1].standardised.value)
    assert found[0].standardised.value == pytest.approx(np.dot(common.shares, (5, 9, 13, 17)))
    assert _standard(counts, "a").shares == pytest.approx((60 / 110, 30 / 110, 10 / 110, 10 / 110))
    # A decade that one cohort lacks is no part of the standard, and without any there is none.
    lacking = counts | {"b": counts["b"] * (np.arange(9) != 2)}
    assert _standard(lacking, "").decades == (40, 60, 80)
    assert _standard({"a": np.eye(9, dtype=int)[2] * 9, "b": np.eye(9, dtype=int)[3] * 9}, "") is None
    with pytest.raises(Unanswerable, match="standard 'c': found too few test patients"):
        _standard(counts, "c")


def paper_bins(age, answers):
    """The paper's bins: how many depends on the smallest *answer*, and their edges on the extremes of the ages."""
    count = int(np.ceil((age.max() - answers.min()) / 10))
    edges = np.linspace(age.min(), age.max(), count + 1)
    place = np.clip(np.digitize(age, edges) - 1, 0, count - 1)
    error = np.abs(answers - age)
    return edges, [error[:, place == k].mean() for k in range(count) if (place == k).any()]


def test_one_wild_answer_moves_every_bin_of_the_paper_and_one_of_ours():
    rng = np.random.default_rng(1)
    age = rng.uniform(18, 89, 400)
    answers = np.clip(age + rng.normal(0, 8, (2, 400)), 18, 89)
    wild = answers.copy()
    first = int(np.argmin(np.abs(age - 55)))
    wild[0, first] = -60.0
    (edges, before), (moved, after) = paper_bins(age, answers), paper_bins(age, wild)
    assert np.diff(edges)[0] == pytest.approx(np.ptp(age) / 8)  # near ten years, and no decades
    assert len(after) == len(before) + 7
    assert np.diff(moved)[0] < 5
    ours, ours_wild = (_score("x", exam(age), "plain", [one], None).bins for one in (answers, wild))
    differing = [k for k in range(10) if ours[k] is not None and ours[k].value != ours_wild[k].value]
    assert differing == [5]


def test_a_run_from_end_to_end(make_embeddings):
    subjects = tuple(Subject(make_embeddings(name, shift)) for name, shift in (("z", 0.0), ("x", 2.0)))
    steps = []
    config = Config(train_cohort="north", runs=2, lr=1e-2, max_epochs=30, resamples=50, allow_seen=True)
    found = run(Context(subjects, 3, lambda *step: steps.append(step)), config)
    assert steps == [(1, 2), (2, 2)]
    assert found.compared == ("north", "south", "west")
    assert sum(found.standard.shares) == pytest.approx(1)
    for cohort in ("south", "west"):
        z, x = (found.score(name, cohort, "guarded").standardised for name in ("z", "x"))
        assert z.high < x.low  # the shifted encoder's heads do not transfer
    index = subjects[0].embeddings.index
    for one in found.ages:
        age = index.first_known("age")[index.patient_cohort == index.cohort_code(one.cohort)]
        assert sum(one.counts) == (age < 90).sum()
        assert (one.from_90, one.unknown) == ((age == 90).sum(), np.isnan(age).sum())
    text = " ".join(str(table(one.rows, one.caption)) for one in tables(found))
    assert "from 90, distance to 90" in text
    assert [one.title for one in figures(found)] == ["ages", "z", "x"]


def test_what_cannot_be_asked_is_refused(make_embeddings):
    made = make_embeddings("z", patients=40)
    columns = dict(made.index.columns) | {"age": np.full(len(made.index), np.nan, np.float32)}
    subject = Subject(replace(made, index=CohortIndex(columns, made.index.cohorts)))
    with pytest.raises(Unanswerable, match="cohort 'north': found ages of fewer than 2 training or validation records"):
        run(Context((subject,), 0), Config(train_cohort="north"))
    with pytest.raises(SpecError, match=r"found no cohort 'soth', expected one of north, south, west. Did you mean"):
        Config(train_cohort="north", standard="soth").require(made.index)
