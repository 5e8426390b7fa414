"""Maps and charts: the right points at the right places, text escaped, well-formed SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from capezoo.evaluate.page.figures import LAYERS, lines, scatter, ticks
from capezoo.evaluate.questions.map import EmbeddingMap, embedding_map

DOT = re.compile(r"M([\d.-]+) ([\d.-]+)h0")


def dots(svg):
    return np.array([[float(x), float(y)] for x, y in DOT.findall(svg.split("<rect")[1])])


def test_scatter_draws_every_point_once_to_one_scale():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
    svg = scatter("a", points, np.array([0, 1, 1]), ["north", "south"])
    found = dots(svg)
    assert len(found) == 3 + 2  # and two in the legend
    origin, right, up = found[0], *found[1:3]
    assert right[0] - origin[0] == pytest.approx(360)
    assert origin[1] - up[1] == pytest.approx(180)  # y grows upwards
    assert (origin[1] + up[1]) / 2 == pytest.approx(24 + 190)  # in the middle of the square
    ElementTree.fromstring(svg)


def test_many_names_and_layers_are_all_drawn():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 11, 300)
    svg = scatter("a", rng.normal(size=(300, 2)), codes, [f"cohort {i}" for i in range(11)])
    assert len(dots(svg)) == 300 + 11
    assert "square" in svg  # the ninth cohort has the first one's colour
    assert svg.count("<path") <= 11 * LAYERS + 11


def test_text_is_escaped():
    evil = "<script>alert('x')</script> & \"b\""
    for svg in (
        scatter(evil, np.zeros((1, 2)), np.zeros(1, int), [evil]),
        lines(evil, {evil: (np.arange(3.0), np.arange(3.0))}, evil, evil),
    ):
        assert "<script" not in svg
        ElementTree.fromstring(svg)


def test_lines_break_at_nan():
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    svg = lines("loss", {"a": (np.arange(5.0), y), "b": (np.arange(2.0), np.array([5.0, 6.0]))}, "step", "loss")
    paths = re.findall(r'<path d="([^"]*)" style="fill:none;stroke:var\(--c\d,#[0-9a-f]+\);stroke-width:2;', svg)
    assert [path.count("M") for path in paths] == [2, 1]
    assert [path.count("L") for path in paths] == [2, 1]
    ElementTree.fromstring(svg)


def test_lines_without_numbers_are_still_a_picture():
    ElementTree.fromstring(lines("loss", {"a": (np.arange(2.0), np.full(2, np.nan))}, "step", "loss"))
    ElementTree.fromstring(lines("loss", {}, "step", "loss"))
    ElementTree.fromstring(scatter("none", np.zeros((0, 2)), np.zeros(0, int), []))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2.9, 4.1), (-3, 7), (5, 5), (0, 0), (1e-7, 3e-7), (0, 478_400)])
def test_ticks_enclose_and_are_few(low, high):
    found = ticks(low, high)
    assert found[0] <= low + 1e-9 * abs(low)
    assert found[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def clouds(n, seed=0):
    rng = np.random.default_rng(seed)
    cohort = np.repeat(["b", "a"], n)
    x = rng.normal(size=(2 * n, 5)).astype(np.float32)
    x[cohort == "a"] += 4
    return x, cohort.tolist(), np.arange(2 * n) * 3


def test_a_map_keeps_clouds_apart_and_comes_back_from_json():
    x, cohort, rows = clouds(120)
    found = embedding_map("x", x, cohort, rows, seed=1, max_records=60)
    assert (found.method, found.cohorts, len(found.points)) == ("t-SNE", ("a", "b"), 120)
    assert [cohort[row // 3] for row in found.rows] == [found.cohorts[code] for code in found.cohort]
    points, codes = np.array(found.points), np.array(found.cohort)
    nearest = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(120)
    assert (codes[nearest.argmin(axis=1)] == codes).mean() > 0.95
    assert EmbeddingMap.model_validate_json(found.model_dump_json()) == found
    assert embedding_map("x", x, cohort, rows, seed=1, max_records=60) == found
    assert embedding_map("x", x, cohort, rows, seed=2, max_records=60).rows != found.rows


def test_few_records_get_principal_components():
    x, cohort, rows = clouds(10)
    found = embedding_map("x", x, cohort, rows, seed=0)
    assert found.method == "PCA"
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    variance = np.linalg.eigvalsh(np.cov(z.T, ddof=0))[::-1]
    np.testing.assert_allclose(np.array(found.points).var(axis=0), variance[:2], rtol=1e-3)
    assert "principal components" in found.svg()


def test_a_map_of_constant_features_is_a_point():
    found = embedding_map("x", np.ones((200, 3), np.float32), ["a"] * 200, np.arange(200), seed=0)
    assert set(found.points) == {(0.0, 0.0)}
    ElementTree.fromstring(found.svg())
