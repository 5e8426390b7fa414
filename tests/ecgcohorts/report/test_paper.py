"""The paper ECG, measured with a ruler: every length is read back from the SVG in millimetres."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

from ecgcohorts.errors import RejectedRecording, SpecError
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS
from ecgcohorts.report.drawing import UNITS_PER_MM
from ecgcohorts.report.paper import TOLERANCE_MM, Layout, Page, _simplify

RATE_HZ = 400.0
SVG = "{http://www.w3.org/2000/svg}"
HALF_UNIT_MM = 0.5 / UNITS_PER_MM


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def paper_svg(signal_mv, leads, rate_hz, *, layout="3x4+1", speed=25.0, gain=10.0, sheet="fit", **texts) -> str:
    page = Page(Layout.parse(layout), speed, gain, sheet)
    return page.draw(signal_mv, leads, rate_hz, **texts).to_svg()


def noise_mv(leads: int = 8, seconds: float = 10.0) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.3, (leads, round(seconds * RATE_HZ)))


def marked(svg: str, kind: str, name: str | None = None) -> list[ET.Element]:
    paths = [path for path in parse(svg).iter(f"{SVG}path") if path.get(f"data-{kind}")]
    return [path for path in paths if name in (None, path.get(f"data-{kind}"))]


def points_mm(path: ET.Element) -> list[np.ndarray]:
    """Points of a path in mm on the grid: one array (point, [x, y]) per stretch without gaps."""
    place, scale = re.fullmatch(r"(?:translate\((.+)\) )?scale\((.+)\)", path.get("transform")).groups()
    assert float(scale) == 1 / UNITS_PER_MM
    origin = np.array((place or "0 0").split(), float)
    stretches = []
    for text in path.get("d").split("M")[1:]:
        numbers = np.array(re.findall(r"-?\d+", text), float).reshape(-1, 2)
        stretches.append(np.cumsum(numbers, axis=0) / UNITS_PER_MM + origin)
    return stretches


def lines(svg: str, lead: str, rhythm: bool = False) -> list[np.ndarray]:
    return points_mm(marked(svg, "lead", lead)[-1 if rhythm else 0])


def baseline_mm(svg: str, lead: str, rhythm: bool = False) -> float:
    path = marked(svg, "lead", lead)[-1 if rhythm else 0]
    return float(re.match(r"translate\(\S+ (\S+)\)", path.get("transform"))[1])


def drawn_mv(svg: str, lead: str, times_s: np.ndarray, *, speed: float = 25.0, gain: float = 10.0, zone: float = 10.0):
    """Voltage that the full-length trace of a lead shows at some times."""
    (points,) = lines(svg, lead, rhythm=True)
    y = np.interp(zone + times_s * speed, points[:, 0], points[:, 1])
    return (baseline_mm(svg, lead, rhythm=True) - y) / gain


@pytest.mark.parametrize(
    ("sheet", "size"), [("fit", (275.0, 146.0)), ("a4", (297.0, 210.0)), ("letter", (279.4, 215.9))]
)
def test_a_unit_is_a_millimetre_and_a_sheet_has_its_size(sheet, size):
    root = parse(paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, sheet=sheet))
    assert (root.get("width"), root.get("height")) == tuple(f"{length:g}mm" for length in size)
    assert root.get("viewBox") == "0 0 {:g} {:g}".format(*size)
    background = root.find(f"{SVG}rect")
    assert (float(background.get("width")), float(background.get("height"))) == size


@pytest.mark.parametrize("sheet", ["fit", "a4", "letter"])
@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "3x4+3", "6x2", "6x2+1", "12x1"])
def test_every_layout_lies_within_its_sheet_with_its_true_size(layout, sheet):
    root = parse(paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, layout=layout, sheet=sheet))
    grid = root.find(f"{SVG}svg")
    x, y, wide, high = (float(grid.get(name)) for name in ("x", "y", "width", "height"))
    width, height = map(float, root.get("viewBox").split()[2:])
    assert wide == 10 + 10 * 25
    assert high % 5 == 0
    assert x == pytest.approx(width - wide - x)  # in the middle
    assert x >= 7.5
    lowest = max(float(text.get("y")) for text in root.findall(f"{SVG}text"))
    assert y + high < lowest < height - 3


def test_what_does_not_fit_a_sheet_is_said_so():
    with pytest.raises(SpecError, match=r"found an ECG of 530 x 146 mm, expected one that fits on a4, 297 x 210 mm"):
        Page(speed_mm_s=50.0, sheet="a4")
    with pytest.raises(SpecError, match="found sheet 'a5', expected one of fit, a4, letter"):
        Page(sheet="a5")


@pytest.mark.parametrize(("step", "attribute"), [(1.0, "1"), (5.0, "5")])
def test_boxes_are_one_and_five_millimetres(step, attribute):
    svg = paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ)
    inner = parse(svg).find(f"{SVG}svg")
    width, height = float(inner.get("width")), float(inner.get("height"))
    (grid,) = marked(svg, "grid", attribute)
    strokes = points_mm(grid)
    columns = [stroke[0, 0] for stroke in strokes if stroke.tolist() == [[stroke[0, 0], 0], [stroke[0, 0], height]]]
    rows = [stroke[0, 1] for stroke in strokes if stroke.tolist() == [[0, stroke[0, 1]], [width, stroke[0, 1]]]]
    assert columns == list(np.arange(0, width + step / 2, step))
    assert rows == list(np.arange(0, height + step / 2, step))
    assert len(strokes) == len(columns) + len(rows)


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (50.0, 20.0), (12.5, 5.0)])
def test_one_second_and_one_millivolt_have_their_length(speed, gain):
    signal = np.zeros((8, 4000))
    signal[1, 800:] = 1.0  # lead II steps from 0 to 1 mV at 2 s
    signal[1, 1200:] = 0.0  # and back at 3 s
    svg = paper_svg(signal, EIGHT_LEADS, RATE_HZ, speed=speed, gain=gain)
    (points,) = lines(svg, "II", rhythm=True)
    top = points[points[:, 1] < points[0, 1] - gain / 2]
    assert points[0, 1] - top[:, 1].min() == pytest.approx(gain, abs=HALF_UNIT_MM)
    assert top[:, 0].max() - top[:, 0].min() == pytest.approx((1 - 1 / RATE_HZ) * speed, abs=2 * HALF_UNIT_MM)
    assert np.ptp(points[:, 0]) == pytest.approx((10 - 1 / RATE_HZ) * speed, abs=2 * HALF_UNIT_MM)


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (50.0, 20.0)])
def test_every_row_starts_with_a_pulse_of_one_millivolt_for_a_fifth_of_a_second(speed, gain):
    svg = paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, layout="3x4+2", speed=speed, gain=gain)
    pulses = marked(svg, "pulse")
    assert len(pulses) == 5
    for pulse, lead in zip(pulses, ("I", "II", "III"), strict=False):
        (points,) = points_mm(pulse)
        foot, rise, top, fall, end = np.diff(points, axis=0).tolist()
        assert (rise, top, fall) == ([0, -gain], [0.2 * speed, 0], [0, gain])
        assert foot == end == [1, 0]
        assert points[0, 1] == baseline_mm(svg, lead)
        assert points[-1, 0] < lines(svg, lead)[0][0, 0]  # ends before the trace begins


def test_baselines_stand_on_heavy_lines():
    for layout in ("3x4+1", "3x4+3", "6x2", "12x1", "4x3"):
        svg = paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, layout=layout)
        assert {baseline_mm(svg, lead) % 5 for lead in TWELVE_LEADS} == {0.0}


def test_limb_leads_are_derived_from_two():
    signal = noise_mv()
    svg = paper_svg(signal, EIGHT_LEADS, RATE_HZ, layout="12x1")
    times = np.arange(4000) / RATE_HZ
    one, two = signal[0], signal[1]
    # drawn to the tolerance of the simplification, plus rounding
    allowed = (TOLERANCE_MM + 2 * HALF_UNIT_MM) / 10 + 1e-9
    by_hand = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2, "V6": signal[7]}
    for lead, expected_mv in by_hand.items():
        # A point moved by rounding in x changes steep noise by slope times half a unit.
        slope = np.abs(np.gradient(expected_mv, times * 25)).max()
        assert np.abs(drawn_mv(svg, lead, times) - expected_mv).max() < allowed + slope * 2 * HALF_UNIT_MM


def test_columns_follow_each_other_in_time():
    signal = np.tile(np.arange(4000) / 4000.0, (8, 1))  # each sample's voltage tells its time
    signal[1] = 2 * signal[0]  # so that III = I
    svg = paper_svg(signal, EIGHT_LEADS, RATE_HZ)
    for column, lead in enumerate(("I", "aVR", "V1", "V4")):
        (points,) = lines(svg, lead)
        assert points[0, 0] == pytest.approx(10 + column * 62.5, abs=HALF_UNIT_MM)
        assert points[-1, 0] == pytest.approx(10 + min((column + 1) * 62.5, 250 - 1 / 16), abs=HALF_UNIT_MM)
    (last,) = lines(svg, "V4")
    assert (baseline_mm(svg, "V4") - last[-1, 1]) / 10 == pytest.approx(3999 / 4000, abs=HALF_UNIT_MM / 10 + 1e-9)


def test_a_short_recording_shows_a_part_of_every_lead():
    svg = paper_svg(noise_mv(seconds=7.3), EIGHT_LEADS, RATE_HZ)
    for lead in TWELVE_LEADS:
        (points,) = lines(svg, lead)
        assert np.ptp(points[:, 0]) == pytest.approx(7.3 / 4 * 25, abs=0.1)


def test_a_long_recording_says_what_part_is_shown():
    svg = paper_svg(noise_mv(seconds=31.0), EIGHT_LEADS, RATE_HZ)
    (points,) = lines(svg, "II", rhythm=True)
    assert points[-1, 0] == pytest.approx(10 + 250)
    assert "first 10 s of 31.0 s" in svg


def test_missing_samples_leave_a_gap_and_a_lone_sample_a_dot():
    signal = noise_mv()
    signal[1, 1000:1200] = np.nan
    signal[1, 1100] = 0.25
    before, dot, after = lines(paper_svg(signal, EIGHT_LEADS, RATE_HZ), "II", rhythm=True)
    assert before[-1, 0] == pytest.approx(10 + 999 / 16, abs=HALF_UNIT_MM)
    assert np.ptp(dot, axis=0).tolist() == [0.0, 0.0]
    assert after[0, 0] == pytest.approx(10 + 1200 / 16, abs=HALF_UNIT_MM)


def test_a_lead_that_is_not_there_is_said_to_be_missing():
    svg = paper_svg(noise_mv(2), ["I", "V1"], RATE_HZ)
    assert "aVF missing" in svg
    assert "V1 missing" not in svg
    assert len(lines(svg, "V1")) == 1


def test_texts_are_escaped_and_the_footer_states_the_scale():
    evil = '</title><script>alert("1")</script>&'
    svg = paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, title=evil, notes=[evil], band_hz=(0.5, 100.0))
    root = parse(svg)  # well-formed
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert root.find(f"{SVG}title").text == evil
    words = [text.text for text in root.findall(f"{SVG}text")]
    assert words[:2] == [evil, evil]
    assert words[-1].replace("\u00a0", " ").split("    ") == [
        "25 mm/s",
        "10 mm/mV",
        "0.5-100 Hz",
        "400 samples/s",
        "10.0 s",
    ]


def test_control_characters_of_a_header_do_not_break_the_picture():
    root = parse(paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, title="a\x00b\x1bc"))
    assert root.find(f"{SVG}title").text == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_the_same_input_gives_the_same_picture_and_a_small_one():
    first = paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ)
    assert first == paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ)
    assert len(first) < 8 * 20_000  # white noise at 400 Hz is the worst case: every sample is kept


def test_simplify_keeps_every_point_within_the_tolerance():
    x = np.arange(5000.0)
    y = np.cumsum(np.random.default_rng(1).normal(size=5000))
    kept = _simplify(x, y, 0.7)
    assert len(kept) < 4000
    assert np.abs(np.interp(x, x[kept], y[kept]) - y).max() <= 0.7
    assert _simplify(x, 3 * x, 0.01).tolist() == [0, 4999]
    assert all(a < b for a, b in pairwise(kept))


@pytest.mark.parametrize("layout", ["3x3", "x", "3x4+9", "3x4+", "0x12"])
def test_a_layout_that_is_no_twelve_leads_is_refused(layout):
    with pytest.raises(SpecError, match=r"rows x columns = 12"):
        paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, layout=layout)


def test_what_cannot_be_drawn_is_refused():
    for refused in ({"gain": 0.0}, {"speed": float("nan")}):
        with pytest.raises(SpecError, match="above zero"):
            paper_svg(noise_mv(), EIGHT_LEADS, RATE_HZ, **refused)
    with pytest.raises(SpecError, match="above zero"):
        paper_svg(noise_mv(), EIGHT_LEADS, 0.0)
    with pytest.raises(SpecError, match="at least one sample"):
        paper_svg(np.zeros((8, 0)), EIGHT_LEADS, RATE_HZ)
    with pytest.raises(SpecError, match="0 standard leads among 2"):
        paper_svg(noise_mv(2), ["resp", "pleth"], RATE_HZ)
    with pytest.raises(RejectedRecording, match="lead I twice"):
        paper_svg(noise_mv(2), ["I", "DI"], RATE_HZ)
