"""Leave one cohort out, and growing shares of patients, in made-up worlds where what pretraining is worth is known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from capezoo.errors import Unanswerable
from capezoo.evaluate.questions import Context, Subject, lodo, scaling
from capezoo.evaluate.questions._everywhere import _percent_better
from capezoo.specs import HeldOutSpec, RunConfig
from capezoo.specs.card import CohortUse, Training
from ecgcohorts.errors import SpecError
from ecgcohorts.index.rules import IdentityMap, Nested, People

RUN = RunConfig(name="r", seed=0)
SETTINGS = {"target": ("sex",), "demographic_lr": 0.05, "max_epochs": 60, "resamples": 200}
SETTINGS |= {"train_records": 200, "validation_records": 60, "test_records": 200}
SEED = 5
SHARES = (5.0, 25.0, 50.0, 75.0, 100.0)


@pytest.fixture
def subject(make_embeddings) -> Callable[..., Subject]:
    """subject(name, strength of each entry's sex in the features, run, entries trained on)."""
    whole = make_embeddings("z", patients=240)
    index = whole.index

    def made(name, strength, run=RUN, met=None, noise=1):
        x = np.random.default_rng(noise).normal(size=(len(index), 8))
        x[:, 0] += np.asarray(strength) * (index["sex"] == 1)
        info = whole.info.model_copy(update={"name": name, "width": 8})
        embeddings = replace(whole, info=info, embedding=x.astype(np.float32))
        if met is None:
            return Subject(embeddings, index["waveform_digest"][:0])
        uses = [CohortUse(name=c, patients=1, records=int((met & (index["cohort"] == k)).sum()))
                for k, c in enumerate(index.cohorts)]  # fmt: skip
        training = Training(run=run, cohorts=tuple(uses), store_fingerprint="f" * 64, steps=10)
        return Subject(embeddings, index["waveform_digest"][met], training=training)

    made.index = index
    # Everybody who is not tested: pretraining may know them.
    parts = lodo.Config(**SETTINGS).parts(index, SEED)
    tested = np.isin(index["patient"], index["patient"][np.concatenate(list(parts.tests.values()))])
    made.free = ~tested
    return made


def without(subject, cohort):
    index = subject.index
    run = RUN.model_copy(update={"cohorts": tuple(name for name in index.cohorts if name != cohort)})
    return {"run": run, "met": subject.free & (index["cohort"] != index.cohorts.index(cohort))}


def gains(result):
    return {(one.cohort, one.metric): one for one in result.gains}


def test_a_cohort_whose_signal_only_its_own_patients_teach_gains_and_the_others_do_not(subject):
    west = subject.index["cohort"] == 2
    world = [
        subject("all", 2.0, met=subject.free),
        # Without west, the encoder does not know how sex shows there; without north, it does.
        subject("all-without-west", np.where(west, 0.0, 2.0), **without(subject, "west"), noise=2),
        subject("all-without-north", 2.0, **without(subject, "north"), noise=3),
        subject("random", 0.2, noise=4),
    ]
    found = lodo.run(Context(tuple(world), SEED), lodo.Config(**SETTINGS))
    by = gains(found)
    assert {key[0] for key in by} == {"west", "north", ""}
    assert (by["west", "AUROC"].having, by["west", "AUROC"].without) == ("all", "all-without-west")
    assert by["west", "AUROC"].percent_low > 30
    assert by["west", "AUROC"].q < 1e-4
    assert by["north", "AUROC"].percent_low < 0 < by["north", "AUROC"].percent_high
    assert by["north", "AUROC"].p > 0.01
    one = by["west", "F1"]
    assert one.percent == pytest.approx(100 * (one.value_having - one.value_without) / one.value_without)
    assert one.value_having == found.number("all", "west", "sex", "F1").value
    # The mean over the cohorts left out: of the means, each cohort counting alike.
    means = [np.mean([by[c, "AUROC"].value_having for c in ("north", "west")]),
             np.mean([by[c, "AUROC"].value_without for c in ("north", "west")])]  # fmt: skip
    assert by["", "AUROC"].percent == pytest.approx(100 * (means[0] - means[1]) / means[1])
    assert found.not_left_out == ("south",)
    assert lodo.headline(found)["all"]["sex, AUROC: gain of the cohort, %"] == by["", "AUROC"].percent
    assert lodo.headline(found)["random"]["sex, AUROC: gain of the cohort, %"] is None
    [over] = lodo.over_seeds([found, found])
    assert over.rows.loc["Sex: AUROC, all, west", "each seed"].count("+") == 2
    texts = " ".join(str(one.rows.columns.tolist()) + one.caption for one in lodo.tables(found))
    assert "published gain, %" in texts
    assert "No pair of weights differs by south" in texts


@pytest.mark.slow
def test_where_nothing_is_there_to_gain_intervals_hold_0_as_often_as_they_say(subject):
    """Sixty worlds in which the cohort's own patients are worth nothing: 95 % intervals miss 0 in few of them."""
    missed = 0
    for world in range(60):
        pair = (
            subject("all", 1.0, met=subject.free, noise=100 + 2 * world),
            subject("all-without-west", 1.0, **without(subject, "west"), noise=101 + 2 * world),
        )
        found = lodo.run(Context(pair, SEED), lodo.Config(**SETTINGS | {"resamples": 100}))
        one = gains(found)["west", "AUROC"]
        missed += not one.percent_low <= 0 <= one.percent_high
    # Of 60 with probability .05 each, more than 7 are seen once in 60 times.
    assert missed <= 7


def test_pairs_are_those_of_facts_and_not_of_names(subject):
    index, north = subject.index, without(subject, "north")
    base = subject("a", 1.0, met=subject.free)

    def refused(*others):
        with pytest.raises(Unanswerable, match=r"no two weights .* `leave_out: each`"):
            lodo.run(Context((base, *others), SEED), lodo.Config(**SETTINGS))

    # Another objective, seed or batch; some patients of the cohort known after all; others known in part; nobody knows.
    refused(subject("a-without-north", 1.0, run=north["run"].model_copy(update={"seed": 1}), met=north["met"]))
    some = north["met"] | (subject.free & (np.arange(len(index)) < 20))
    refused(subject("a-without-north", 1.0, run=north["run"], met=some))
    refused(subject("a-without-north", 1.0, run=north["run"], met=north["met"] & (np.arange(len(index)) % 3 > 0)))
    refused(subject("a-without-north", 1.0))
    # Steps may differ: equal epochs are a fair comparison as well.
    longer = north["run"].model_copy(update={"epochs": 7, "max_steps": 3})
    found = lodo.run(Context((base, subject("b", 1.0, run=longer, met=north["met"])), SEED), lodo.Config(**SETTINGS))
    assert [one.without for one in found.gains if one.cohort == "north"] == ["b", "b"]


def shares(subject, strengths, noise=10):
    """Weights trained on nested shares of the free patients, whose features tell the sex as strongly as said."""
    index = subject.index
    people = People.of(index, IdentityMap.of(()))
    for number, (percent, strength) in enumerate(zip(SHARES, strengths, strict=True)):
        chosen = (
            Nested(percent=(percent,), seed="s").codes(index, people) == 0
            if percent < 100
            else np.ones(len(index), bool)
        )
        run = RUN.model_copy(update={"held_out": HeldOutSpec(train_percent=percent)})
        yield subject(f"a-{percent:g}pct", strength, run=run, met=subject.free & chosen, noise=noise + number)


def test_a_curve_rises_to_its_known_end(subject):
    """The signal grows up to half of the patients and not beyond: the curve saturates there, and is flat from there on."""
    world = [*shares(subject, (0.2, 1.0, 2.5, 2.5, 2.5)), subject("random", 0.1, noise=3)]
    found = scaling.run(Context(tuple(world), SEED), scaling.Config(**SETTINGS, tolerance=4))
    [(name, points)] = found.curves.items()
    assert name == "a"
    assert [point.percent for point in points] == list(SHARES)
    assert [point.patients for point in points] == sorted({point.patients for point in points})
    ends = {(one.cohort, one.metric): one for one in found.ends}
    assert (ends["", "AUROC"].saturates_at, ends["", "AUROC"].flat_from) == (50, 50)
    steps = {(one.smaller, one.larger): one for one in found.gains if (one.cohort, one.metric) == ("", "AUROC")}
    assert len(steps) == 10
    assert steps[5, 100].low > 20
    assert steps[75, 100].low < 0 < steps[75, 100].high
    assert scaling.headline(found)["a-100pct"]["sex, AUROC: saturates at, % of patients"] == 50
    rows = scaling.tables(found)[0].rows
    assert rows.index.tolist() == [*(f"a, {share:g} %" for share in SHARES), "random"]
    first, last = scaling.over_seeds([found, found])
    assert last.rows.loc["Sex: AUROC, a", "saturates at"] == "50 %, 50 %"
    assert len(first.rows) == 2 * len(SHARES)


def test_a_curve_that_still_rises_has_no_end_and_a_flat_one_is_flat_at_once(subject):
    rising = scaling.run(Context(tuple(shares(subject, (0.2, 0.7, 1.2, 1.8, 3.0))), SEED), scaling.Config(**SETTINGS))
    assert {one.saturates_at for one in rising.ends if (one.cohort, one.metric) == ("", "AUROC")} == {None}
    flat = scaling.run(Context(tuple(shares(subject, (4.0,) * 5)), SEED), scaling.Config(**SETTINGS, tolerance=5))
    assert {one.flat_from for one in flat.ends if (one.cohort, one.metric) == ("", "AUROC")} == {5}


def test_shares_that_do_not_contain_each_other_are_no_curve(subject):
    members = list(shares(subject, (1.0,) * 5))
    strangers = replace(members[0], trained_on=subject.index["waveform_digest"][subject.free][-40:])
    with pytest.raises(
        SpecError, match=r"a-5pct and a-25pct: found \d+ recordings of 5 % .* expected shares that contain"
    ):
        scaling.run(Context((strangers, *members[1:]), SEED), scaling.Config(**SETTINGS))
    with pytest.raises(Unanswerable, match=r"no two weights .* `percent:"):
        scaling.run(Context((members[0], subject("random", 0.1)), SEED), scaling.Config(**SETTINGS))


def test_an_error_gains_by_getting_less(make_embeddings):
    from capezoo.evaluate.measure.statistics import Bootstrap

    one, other = (Bootstrap(np.array([value]), np.full((1, 3), value), 0) for value in (8.0, 10.0))
    assert _percent_better(one, other, "MAE").value == pytest.approx(20)
    assert _percent_better(one, other, "AUROC").value == pytest.approx(-20)
