"""Maps: clouds stay apart, the same seed draws the same picture, and a map comes back from JSON."""

from xml.etree import ElementTree

import numpy as np
import pytest

from capezoo.evaluate.questions import Context
from capezoo.evaluate.questions.map import Config, Result, figures, run


@pytest.fixture
def embedding_map(embedded):
    """embedding_map(features, cohort of each record, rows, seed, max_records)."""

    def draw(x, cohort, rows, seed, max_records=500):
        made = embedded("x", x, np.asarray(cohort), np.arange(len(x)), rows)
        return run(Context((made,), seed), Config(max_records=max_records))

    return draw


def clouds(n, seed=0):
    rng = np.random.default_rng(seed)
    cohort = np.repeat(["b", "a"], n)
    x = rng.normal(size=(2 * n, 5)).astype(np.float32)
    x[cohort == "a"] += 4
    return x, cohort.tolist(), np.arange(2 * n) * 3


def test_a_map_keeps_clouds_apart_and_comes_back_from_json(embedding_map):
    x, cohort, rows = clouds(120)
    found = embedding_map(x, cohort, rows, seed=1, max_records=60)
    assert (found.maps[0].method, found.cohorts, len(found.maps[0].points)) == ("t-SNE", ("a", "b"), 120)
    assert [cohort[row // 3] for row in found.rows] == [found.cohorts[code] for code in found.cohort]
    points, codes = np.array(found.maps[0].points), np.array(found.cohort)
    nearest = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(120)
    assert (codes[nearest.argmin(axis=1)] == codes).mean() > 0.95
    assert Result.model_validate_json(found.model_dump_json()) == found
    assert embedding_map(x, cohort, rows, seed=1, max_records=60) == found
    assert embedding_map(x, cohort, rows, seed=2, max_records=60).rows != found.rows


def test_few_records_get_principal_components(embedding_map):
    x, cohort, rows = clouds(10)
    found = embedding_map(x, cohort, rows, seed=0)
    assert found.maps[0].method == "PCA"
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    variance = np.linalg.eigvalsh(np.cov(z.T, ddof=0))[::-1]
    np.testing.assert_allclose(np.array(found.maps[0].points).var(axis=0), variance[:2], rtol=1e-3)
    assert "principal components" in figures(found)[0].svg


def test_a_map_of_constant_features_is_a_point(embedding_map):
    found = embedding_map(np.ones((200, 3), np.float32), ["a"] * 200, np.arange(200), seed=0)
    assert set(found.maps[0].points) == {(0.0, 0.0)}
    ElementTree.fromstring(figures(found)[0].svg)
