"""Charts: the right points at the right places, text escaped, well-formed SVG."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ecgcohorts.report import charts
from ecgcohorts.report.charts import _LAYERS, _ticks, columns, intervals, lines, scatter, stacked_bars

SVG = "{http://www.w3.org/2000/svg}"
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
    assert svg.count("<path") <= 11 * _LAYERS + 11


def test_text_is_escaped():
    evil = "<script>alert('x')</script> & \"b\""
    for svg in (
        scatter(evil, np.zeros((1, 2)), np.zeros(1, int), [evil]),
        lines(evil, {evil: (np.arange(3.0), np.arange(3.0))}, evil, evil),
        stacked_bars(evil, [evil], {evil: [1]}, evil),
        intervals(evil, [evil], {evil: [(0.0, 1.0, 2.0)]}, evil),
        charts.dots(evil, [evil], {evil: [[1.0]]}, evil, evil, reference=(evil, 0.0)),
        columns(evil, [evil], {evil: [(0.0, 1.0, 2.0)]}, evil),
    ):
        assert "<script" not in svg
        ElementTree.fromstring(svg)


def test_lines_break_at_nan():
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    svg = lines("loss", {"a": (np.arange(5.0), y), "b": (np.arange(2.0), np.array([5.0, 6.0]))}, "step", "loss")
    paths = re.findall(r'<path d="([^"]*)" style="fill:none;stroke:var\(--c\d,#[0-9a-f]+\);stroke-width:2;', svg)
    assert [path.count("M") for path in paths] == [2, 1, 1, 1]  # two lines, and their marks in the legend
    assert [path.count("L") for path in paths] == [2, 1, 0, 0]
    ElementTree.fromstring(svg)


def test_lines_without_numbers_are_still_a_picture():
    ElementTree.fromstring(lines("loss", {"a": (np.arange(2.0), np.full(2, np.nan))}, "step", "loss"))
    ElementTree.fromstring(lines("loss", {}, "step", "loss"))
    ElementTree.fromstring(scatter("none", np.zeros((0, 2)), np.zeros(0, int), []))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2.9, 4.1), (-3, 7), (5, 5), (0, 0), (1e-7, 3e-7), (0, 478_400)])
def test_ticks_enclose_and_are_few(low, high):
    found = _ticks(low, high)
    assert found[0] <= low + 1e-9 * abs(low)
    assert found[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_bars_are_as_high_as_their_counts():
    svg = stacked_bars("<title>", ["a", "b"], {"x": [10, 0], "y": [30, 20]}, "n & m")
    root = ElementTree.fromstring(svg)
    heights = {rect[0].text: float(rect.get("height")) for rect in root.iter(f"{SVG}rect") if len(rect)}
    assert heights["a, x: 10"] == pytest.approx(heights["b, y: 20"] / 2, abs=0.01)
    assert heights["a, y: 30"] == pytest.approx(heights["b, y: 20"] * 1.5, abs=0.01)
    assert heights["b, x: 0"] == 0
    bottoms = [float(r.get("y")) + float(r.get("height")) for r in root.iter(f"{SVG}rect") if len(r)]
    assert max(bottoms) < float(root.get("viewBox").split()[3])
    assert next(text.text for text in root.iter(f"{SVG}text")) == "<title>"
    with pytest.raises(ValueError, match="expected 2 for each part"):
        stacked_bars("", ["a", "b"], {"x": [1]})


@pytest.mark.parametrize("top", [0, 1, 3, 4, 5, 9, 99, 100, 101, 12_345, 5_203_352])
def test_ticks_reach_the_top_in_few_round_steps(top):
    found = _ticks(0, top or 1, at_most=5, least_step=1)
    assert found[0] == 0
    assert found[-1] >= top
    assert 2 <= len(found) <= 5
    assert len(set(np.diff(found))) == 1
    assert f"{found[1]:.0f}".rstrip("0") in ("1", "2", "5")


def colours(svg):
    return re.findall(r'<path d="M[^"]*" style="fill:none;stroke:var\((--c\d),[^>]*?(dasharray|>)', svg)


def test_a_dashed_line_has_the_colour_of_the_one_before_it():
    y = np.arange(1.0, 3.0)
    svg = lines("a", {"one": (y, y), "chance": (y, y), "two": (y, y)}, "step", dashed=["chance"])
    drawn = [("--c1", ">"), ("--c1", "dasharray"), ("--c2", ">")]
    assert colours(svg) == [*drawn, ("--c1", ">"), ("--c2", ">")]  # and the marks of two in the legend
    assert "chance" not in svg


def test_a_logarithmic_axis_has_powers_of_ten_and_no_place_for_zero():
    svg = lines("a", {"one": (np.arange(4.0), np.array([1e-4, 0.0, 1e-2, 1.0]))}, "step", log=True)
    words = [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert [word for word in words if word in ("0.0001", "0.001", "0.01", "0.1", "1")][:5] == [
        "0.0001", "0.001", "0.01", "0.1", "1",
    ]  # fmt: skip
    path = re.search(r'<path d="([^"]*)" style="fill:none;stroke:var\(--c1', svg)[1]
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    assert path.count("M") == 2
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)


def test_intervals_reach_from_low_to_high_and_values_without_limits_are_dots():
    svg = intervals(
        "a", ["north", "south"], {"x": [(1.0, 2.0, 4.0), (None, 3.0, None)], "y": [None, (0.0, 1.0, 2.0)]}, "u"
    )
    bars = [tuple(map(float, bar)) for bar in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", svg)]
    dots = [(float(x), float(y)) for x, y in re.findall(r'd="M([\d.]+) ([\d.]+)h0"[^>]*><title>', svg)]
    assert (len(bars), len(dots)) == (2, 3)
    (low, high), (x, _) = bars[0], dots[0]
    assert (x - low) / (high - low) == pytest.approx(1 / 3, abs=0.01)
    assert dots[1][1] > dots[0][1]  # south stands below north
    tips = [title.text for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert tips == ["x, north: 2", "x, south: 3", "y, south: 1"]
    ElementTree.fromstring(intervals("none", [], {}, ""))


def heights(svg, series=1):
    """y of the dots of a series, and of its bars of means, from the picture."""
    at = [float(y) for y in re.findall(rf'M[\d.]+ ([\d.]+)h0" style="[^"]*--c{series},[^"]*width:5;', svg)]
    means = [float(y) for y in re.findall(rf'M[\d.]+ ([\d.]+)h[\d.]+" style="[^"]*--c{series},[^"]*width:1.5;', svg)]
    return at, means


def test_every_value_is_a_dot_and_their_mean_a_bar():
    svg = charts.dots("auc", ["0", "200"], {"x": [[0.5, 0.6, 0.7], [1.0]], "z": [[], [0.5, 0.5]]}, "uV")
    at, means = heights(svg)
    assert len(at) == 4
    assert at[0] - at[1] == pytest.approx(at[1] - at[2], abs=0.11)  # a linear axis, to a tenth of a px
    assert means == pytest.approx([at[1], at[3]], abs=0.11)
    at, means = heights(svg, 2)
    assert (len(at), len(means)) == (2, 1)
    assert "<title>x, 0: 0.6</title>" in svg
    ElementTree.fromstring(svg)


def test_an_axis_that_is_logarithmic_from_a_value_on_still_has_zero():
    svg = charts.dots("years", ["200"], {"x": [[0.0, 0.05, 0.1, 1.0, 10.0, 100.0]]}, "uV", log_from=0.1)
    at, _ = heights(svg)
    steps = -np.diff(at)
    assert steps == pytest.approx([steps[0], steps[0], *[2 * steps[0]] * 3], abs=0.11)
    assert [tick for tick in ("0", "0.1", "1", "10", "100") if f">{tick}</text>" not in svg] == []


def test_a_reference_lies_within_the_axis_even_where_no_dot_is_near():
    svg = charts.dots("auc", ["0"], {"x": [[0.9, 0.95]]}, "uV", reference=("chance", 0.5))
    (y,) = re.findall(r'M46 ([\d.]+)H410" style="[^"]*dasharray', svg)
    assert 44 <= float(y) <= 220
    assert "dashed: chance</text>" in svg
    ElementTree.fromstring(charts.dots("none", [], {}, "uV"))


def test_hollow_values_are_drawn_and_are_no_part_of_the_mean():
    svg = charts.dots("years", ["200"], {"x": [[1.0, 2.0, 9.0]]}, "uV", hollow={"x": [{2}]})
    at, means = heights(svg)
    assert len(at) == 2
    assert means == pytest.approx([np.mean(at)], abs=0.11)
    assert svg.count("<circle") == 1
    assert "<title>x, 200: 9</title>" in svg


def test_columns_are_intervals_upright():
    svg = columns(
        "a", ["north", "south"], {"x": [(1.0, 2.0, 4.0), (None, 3.0, None)], "y": [None, (0.0, 1.0, 2.0)]}, "u"
    )
    bars = [tuple(map(float, bar)) for bar in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", svg)]
    dots = [(float(x), float(y)) for x, y in re.findall(r'd="M([\d.]+) ([\d.]+)h0"[^>]*><title>', svg)]
    assert (len(bars), len(dots)) == (2, 3)
    (low, high), (_, y) = bars[0], dots[0]
    assert low > high  # upwards
    assert (low - y) / (low - high) == pytest.approx(1 / 3, abs=0.01)
    assert dots[1][0] > dots[0][0] + 50  # south stands right of north
    assert 0 < dots[2][0] - dots[1][0] < 20  # and y beside x
    tips = [title.text for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert tips == ["x, north: 2", "x, south: 3", "y, south: 1"]
    ElementTree.fromstring(columns("none", [], {}, ""))
    with pytest.raises(ValueError, match=r"found \[1\] values, expected 2 for each series"):
        columns("a", ["north", "south"], {"x": [None]}, "u")


def test_long_names_below_columns_lean_and_stay_in_the_picture():
    svg = columns("a", ["a very long name of a cohort, longer than its column"] * 6, {"x": [(1.0, 2.0, 4.0)] * 6}, "u")
    width, height = (float(n) for n in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    turned = [(float(x), float(y)) for x, y in re.findall(r"rotate\(-30 ([\d.]+) ([\d.]+)\)", svg)]
    length = 6.2 * 50
    assert len(turned) == 6
    assert min(x for x, _ in turned) - 0.87 * length > 0
    assert max(y for _, y in turned) + 0.5 * length < height
    assert max(x for x, _ in turned) < width


def test_a_picture_of_its_own_has_the_page_s_colours_at_night():
    """The page's dark colours, under the names that charts use; what is drawn stays the same."""
    inside = charts.lines("t", {"a": (np.arange(3.0), np.arange(3.0))}, "x")
    alone = charts.on_its_own(inside)
    style = re.search(r"<style>.*?</style>", alone)[0]
    assert alone.replace(style, "") == inside
    ElementTree.fromstring(alone)
    page = (Path(charts.__file__).parent / "page.html.jinja").read_text()
    dark = page[page.index("prefers-color-scheme: dark") :]
    for name, colour in re.findall(r"(--\w+):(#\w+)", style):
        assert f"{name}: {colour};" in dark
    assert {"--ink", "--faint", "--rule"} <= set(re.findall(r"--\w+", inside)) <= set(re.findall(r"--\w+", style))
