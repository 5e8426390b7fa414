"""Maps in the colours of any column, with projected cohorts and the numbers beside them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from capezoo.evaluate.questions import Context, Subject
from capezoo.evaluate.questions._colours import columns_of
from capezoo.evaluate.questions.map import Config, Result, figures, run, tables
from ecgcohorts import errors
from ecgcohorts.errors import MissingExtra, SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.page import table

TWO = {"max_records": 60, "perplexity": 10, "max_patients": 60, "min_patients": 20}


@pytest.fixture
def subject(make_embeddings):
    """Three cohorts without a difference; device and half of the units go together; a label of halves, and one of whole numbers."""
    made = make_embeddings("z", patients=80)
    n = len(made.index)
    rng = np.random.default_rng(4)
    device = rng.integers(-1, 2, n)
    x = made.embedding.copy()
    x[:, 6:] += 6 * (device[:, None] == 1)
    columns = dict(made.index.columns) | {
        "device": device.astype("i4"),
        "site": np.full(n, -1, "i4"),
        "label_af": rng.integers(0, 2, n).astype("f4"),
        "label_lvef": (50 + 10 * x[:, 3]).astype("f4"),
    }
    index = CohortIndex(columns, made.index.cohorts, (), ("cart", "watch"))
    return Subject(replace(made, index=index, embedding=x))


def drawn(subject, **settings):
    return run(Context((subject,), seed=2), Config(**TWO | settings))


def places(found):
    return dict(zip(found.rows, found.maps[0].points, strict=True))


def test_numbers_tell_the_column_that_the_embedding_knows(subject):
    found = drawn(subject)
    assert [one.name for one in found.columns] == ["cohort", "device", "sex", "age"]  # nobody has a site
    numbers = {one.name: one.numbers["z"] for one in found.columns if "z" in one.numbers}
    assert numbers["device"].values == ("cart", "watch")
    assert numbers["device"].probe_auc > 0.98
    assert numbers["device"].neighbours > 0.8
    assert 0.35 < numbers["cohort"].probe_auc < 0.65
    assert abs(numbers["cohort"].neighbours - 1 / 3) < 0.1
    assert numbers["cohort"].silhouette < 0.02 < numbers["device"].silhouette
    assert Result.model_validate_json(found.model_dump_json()) == found
    text = " ".join(str(table(one.rows, one.caption)) for one in tables(found))
    assert "Not drawn where the value is unknown: device: " in text
    pictures = figures(found)
    assert [one.title for one in pictures] == [f"z, t-SNE, {name}" for name in ("cohort", "device", "sex", "age")]
    assert f"probe AUC {numbers['device'].probe_auc:.3f}" in pictures[1].caption
    # A dot for every record whose device is known.
    assert pictures[1].svg.count("h0") == sum(code >= 0 for code in found.columns[1].codes) + 2


def test_a_projected_cohort_does_not_bend_the_map_and_lands_among_its_like(subject):
    found = drawn(subject, fit=("north", "south"), column=("device",))
    assert found.projected == ("west",)
    # The map of the other two is the same with and without it.
    alone = places(drawn(subject, fit=("north", "south"), cohort=("north", "south"), column=("device",)))
    assert len(alone) == 120
    assert alone == {row: point for row, point in places(found).items() if row in alone}
    points, codes = np.array(found.maps[0].points), np.array(found.columns[0].codes)
    is_west = np.array(found.cohort) == found.cohorts.index("west")
    fitted, guests = np.flatnonzero(~is_west & (codes >= 0)), np.flatnonzero(is_west & (codes >= 0))
    nearest = fitted[np.linalg.norm(points[guests][:, None] - points[fitted][None], axis=-1).argmin(axis=1)]
    assert (codes[nearest] == codes[guests]).mean() > 0.9
    shown = figures(drawn(subject, fit=("north", "south"), column=("cohort",)))[0].svg
    assert "west (projected)" in shown
    assert "north (projected)" not in shown


def test_few_records_are_projected_on_the_axes_of_the_others(subject):
    found = drawn(subject, fit=("north",), max_records=20, column=("cohort",))
    assert found.maps[0].method == "PCA"
    at = np.searchsorted(subject.embeddings.index["row"], found.rows)
    fitted = np.array(found.cohort) == 0
    x = subject.features[at].astype(float)
    z = (x - x[fitted].mean(axis=0)) / x[fitted].std(axis=0)
    _, _, axes = np.linalg.svd(z[fitted], full_matrices=False)
    points = np.array(found.maps[0].points)
    np.testing.assert_allclose(np.abs(points), np.abs(z @ axes[:2].T), atol=2e-3)


def test_measures_of_quality_are_taken_from_the_store(subject):
    index = subject.embeddings.index
    slack = np.where(index["cohort"] == 0, np.float32(0.1675), np.float32(1.5))
    store = SimpleNamespace(index=CohortIndex(dict(index.columns) | {"q_edge_slack_s": slack}, index.cohorts))
    config = Config(max_records=20, column=("q_edge_slack_s",))
    with pytest.raises(SpecError, match="found no column 'q_edge_slack_s'"):
        run(Context((subject,), 0), config)
    column = run(Context((subject,), 0, store=store), config).columns[0]
    assert column.values == ("0.1675", "1.5")
    assert [column.codes.count(code) for code in (-1, 0, 1)] == [0, 20, 40]


def test_values_numbers_and_bands(subject):
    index, every = subject.embeddings.index, np.arange(len(subject.embeddings.index))
    af, lvef, age, sex = columns_of(index, every, ["af", "label_lvef", "age", "sex"])
    assert (af.values, af.ordered) == (("0", "1"), False)
    assert lvef.ordered
    assert len(lvef.values) == 5
    counts = np.bincount(lvef.codes)
    assert counts.max() - counts.min() <= 2
    assert all(np.diff([index["label_lvef"][lvef.codes == k].mean() for k in range(5)]) > 0)
    # CODE-15's two kinds of recorders and a few records between: no band may hold both.
    two = np.r_[np.full(170, 0.1675), np.linspace(0.2, 1.3, 8), np.full(len(every) - 178, 1.5)]
    slack = columns_of(CohortIndex(dict(index.columns) | {"label_slack": two}, index.cohorts), every, ["slack"])[0]
    assert slack.values == ("0.168", "0.2 to 1.5")
    assert np.bincount(slack.codes).tolist() == [170, len(every) - 170]
    # Five of twelve at one value: the second fifth ends between it and the next.
    few = np.r_[np.zeros(5), np.arange(1.0, 8.0)]
    shared = columns_of(CohortIndex(dict(index.columns) | {"label_few": np.resize(few, len(every))}, index.cohorts),
                        every[:12], ["few"])[0]  # fmt: skip
    assert shared.values == ("0", "1 to 3", "4 to 5", "6 to 7")
    assert np.bincount(shared.codes).tolist() == [5, 3, 2, 2]
    years = index["age"]
    assert age.values == ("0 to 19", "20 to 39", "40 to 59", "60 to 79", "from 80")
    assert (age.codes == 4).sum() == (years >= 80).sum()
    assert (age.codes == -1).sum() == np.isnan(years).sum() > 0
    assert (sex.texts == "female").sum() == (index["sex"] == 1).sum()
    many = CohortIndex(
        dict(index.columns) | {"device": (every % 20).astype("i4")},
        index.cohorts,
        (),
        tuple(f"d{k:02}" for k in range(20)),
    )
    device = columns_of(many, every, ["device"])[0]
    assert len(device.values) == 12
    assert device.values[-1] == "others"
    assert (device.codes == 11).sum() > (device.codes == 0).sum()


def test_what_the_store_does_not_know_is_refused_before_embedding(subject, monkeypatch):
    index = subject.embeddings.index
    for settings, words in (
        ({"column": ("devise",)}, r"found no column 'devise', expected one of cohort, device, .*Did you mean 'device'"),
        ({"cohort": ("est",)}, "found no cohort 'est', expected one of north, south, west"),
        ({"fit": ("west",), "cohort": ("north",)}, "found --fit west, expected cohorts that are drawn: north"),
    ):
        with pytest.raises(SpecError, match=words):
            Config(**settings).require(index)
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"umap is not installed. Run: pip install .*\[umap\]"):
        Config(method="umap").require(index)
    Config(method="tsne").require(index)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_umap_keeps_its_seed_and_its_map_beside_guests(subject):
    """Slow: UMAP compiles itself on first use."""
    settings = {"method": "both", "fit": ("north", "south"), "column": ("device",)}
    found = drawn(subject, **settings)
    assert [one.method for one in found.maps] == ["t-SNE", "UMAP"]
    assert drawn(subject, **settings) == found
    alone = drawn(subject, cohort=("north", "south"), **settings)
    whole = dict(zip(found.rows, found.maps[1].points, strict=True))
    assert all(whole[row] == point for row, point in zip(alone.rows, alone.maps[1].points, strict=True))
    points, codes = np.array(found.maps[1].points), np.array(found.columns[0].codes)
    known = np.flatnonzero(codes >= 0)
    distance = np.linalg.norm(points[known][:, None] - points[known][None], axis=-1) + 1e9 * np.eye(len(known))
    assert (codes[known][distance.argmin(axis=1)] == codes[known]).mean() > 0.9
