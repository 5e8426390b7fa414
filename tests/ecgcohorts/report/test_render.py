"""PNG and PDF of a drawing, measured in pixels and points: the millimetres of the SVG must come out."""

import re
import struct
import sys

import numpy as np
import pytest

from ecgcohorts.errors import SourceError, SpecError, install_line
from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.report.drawing import DPI, MM_PER_INCH, UNITS_PER_MM, Drawing, Line, Text
from ecgcohorts.report.paper import Layout, Page, plot_record

matplotlib = pytest.importorskip("matplotlib", reason="PNG and PDF need the extra `plot`")
PX_PER_MM = round(DPI / MM_PER_INCH)
FIT = Page()
INK_BELOW = 128  # a grey value darker than the grid


def steps_drawing(page: Page = FIT, title: str = "Title") -> Drawing:
    """All leads at 0 mV, but lead II at 1 mV from 2 s to 3 s."""
    signal = np.zeros((8, 4000))
    signal[1, 800:1200] = 1.0
    return page.draw(signal, EIGHT_LEADS, 400.0, title=title)


def png_facts(data: bytes) -> dict:
    """Chunks of a PNG by name; the width, height and pixels per metre they state."""
    place, chunks = 8, {}
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks[data[place + 4 : place + 8].decode()] = data[place + 8 : place + 8 + length]
        place += 12 + length
    size, density = struct.unpack(">II", chunks["IHDR"][:8]), struct.unpack(">IIB", chunks["pHYs"])
    return {"size": size, "per_metre": density[:2], "unit": density[2], "names": set(chunks)}


def grey(path) -> np.ndarray:
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3].mean(axis=-1) * 255)


@pytest.mark.parametrize("dpi", [DPI, 72.0, 96.0, 150.0, 300.0])
@pytest.mark.parametrize("sheet", ["fit", "a4", "letter"])
def test_a_png_has_millimetres_times_dpi_pixels(sheet, dpi, tmp_path):
    page = Page(sheet=sheet)
    steps_drawing(page).save(tmp_path / "x.png", dpi)
    facts = png_facts((tmp_path / "x.png").read_bytes())
    assert facts["size"] == tuple(round(length / MM_PER_INCH * dpi) for length in page.size_mm)
    assert (facts["per_metre"], facts["unit"]) == ((round(dpi / 0.0254),) * 2, 1)
    assert facts["names"] == {"IHDR", "pHYs", "IDAT", "IEND"}  # no program, no time, no name


def test_the_default_is_a_whole_number_of_pixels_a_millimetre(tmp_path):
    steps_drawing().save(tmp_path / "x.png")
    facts = png_facts((tmp_path / "x.png").read_bytes())
    assert facts["size"] == (275 * PX_PER_MM, 146 * PX_PER_MM)
    assert facts["per_metre"] == (PX_PER_MM * 1000,) * 2


@pytest.mark.parametrize("gain", [10.0, 5.0])
def test_pixels_of_a_millivolt_and_a_second(gain, tmp_path):
    page = Page(gain_mm_mv=gain)
    steps_drawing(page).save(tmp_path / "x.png")
    left, top = page.corner_mm
    first, last = page.x_mm(2.0) + 0.5, page.x_mm(3.0) - 0.5  # of the raised part of the rhythm strip
    baseline_px = (top + page.baseline_mm(3)) * PX_PER_MM
    rows = slice(round(baseline_px - 12 * PX_PER_MM), round(baseline_px + 2 * PX_PER_MM))
    strip = grey(tmp_path / "x.png")[rows]
    raised = strip[:, round((left + first) * PX_PER_MM) : round((left + last) * PX_PER_MM)]
    dark = np.flatnonzero((raised < INK_BELOW).all(axis=1)) + rows.start + 0.5
    assert baseline_px - dark.mean() == pytest.approx(gain * PX_PER_MM, abs=0.5)
    columns = np.flatnonzero(strip[np.rint(dark.mean() - rows.start).astype(int)] < INK_BELOW)
    columns = columns[columns > (left + page.x_mm(1.0)) * PX_PER_MM]  # right of the calibration pulse
    assert len(columns) / PX_PER_MM == pytest.approx(25.0, abs=0.4)  # one second, and the width of the line


def test_pixels_of_the_calibration_pulse_and_of_the_boxes(tmp_path):
    page = Page()
    steps_drawing(page).save(tmp_path / "x.png")
    left, top = page.corner_mm
    pixels = grey(tmp_path / "x.png")
    zone = slice(round(left * PX_PER_MM), round((left + page.pulse_zone_mm - 0.8) * PX_PER_MM))
    high = round((top + page.baseline_mm(1)) * PX_PER_MM)
    pulse = pixels[high - 11 * PX_PER_MM : high + PX_PER_MM, zone] < INK_BELOW
    ys, xs = np.flatnonzero(pulse.any(axis=1)), np.flatnonzero(pulse.any(axis=0))
    assert np.ptp(ys) / PX_PER_MM == pytest.approx(10.0, abs=0.35)  # 1 mV, and the width of the line
    assert np.ptp(xs) / PX_PER_MM == pytest.approx(5.0 + 2 * 1.0, abs=0.35)  # 0.2 s and two feet
    # Heavy lines: darkest columns between two rows of text, every 5 mm
    row = pixels[round((top + 1.0) * PX_PER_MM) + 5, round(left * PX_PER_MM) :]
    darkest = row.reshape(-1)[: 250 * PX_PER_MM].reshape(-1, 5 * PX_PER_MM).mean(axis=0).argmin()
    assert min(darkest, 5 * PX_PER_MM - darkest) <= 1


@pytest.mark.parametrize(
    ("sheet", "points"), [("fit", (779.5276, 413.8583)), ("a4", (841.8898, 595.2756)), ("letter", (792.0, 612.0))]
)
def test_a_pdf_has_the_size_of_its_sheet_in_points(sheet, points, tmp_path):
    steps_drawing(Page(sheet=sheet)).save(tmp_path / "x.pdf")
    data = (tmp_path / "x.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ ?0 0 (\S+) (\S+) ?\]", data)
    assert tuple(map(float, box.groups())) == pytest.approx(points, abs=1e-3)
    assert not re.search(rb"CreationDate|Producer|Matplotlib", data)
    assert data.count(b"/FontFile2") >= 1  # letters as TrueType, not as pictures of letters


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_equal_drawings_give_equal_files_whatever_the_users_style(suffix, tmp_path):
    steps_drawing().save(tmp_path / f"a{suffix}")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": True, "savefig.dpi": 10}):
        steps_drawing().save(tmp_path / f"b{suffix}")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_any_title_is_text(tmp_path):
    for place, title in enumerate(("$\\frac{1}{0}$ 100 % <b> & _^", "a\x00b\nc", "x" * 500)):
        steps_drawing(title=title).save(tmp_path / f"{place}.png", 50)
        assert png_facts((tmp_path / f"{place}.png").read_bytes())["size"] == (541, 287)


def test_what_leaves_the_grid_is_cut_off(tmp_path):
    """A trace of 50 mV must not run over the title, in no format."""
    wild = [Line([np.array([[5.0, -100.0], [5.0, 100.0]])], 1.0), Text(-8.0, 5.0, "outside", 3.0)]
    drawing = Drawing((30.0, 30.0), (10.0, 10.0, 10.0, 10.0), wild)
    drawing.save(tmp_path / "x.png")
    dark = np.argwhere(grey(tmp_path / "x.png") < INK_BELOW) / PX_PER_MM
    assert dark[:, 0].min() == pytest.approx(10.0, abs=0.1)
    assert dark[:, 0].max() == pytest.approx(20.0, abs=0.1)
    assert dark[:, 1].min() >= 10.0
    assert '<svg x="10" y="10" width="10" height="10"' in drawing.to_svg()  # an inner picture hides what leaves it


def test_a_lone_sample_is_a_dot(tmp_path):
    signal = np.full((1, 4000), np.nan)
    signal[0, 2000] = 0.0
    page = Page(Layout(12, 1))
    page.draw(signal, ["V1"], 400.0).save(tmp_path / "x.png")
    left, top = page.corner_mm
    y, x = (round((top + page.baseline_mm(6)) * PX_PER_MM), round((left + page.x_mm(5.0)) * PX_PER_MM))
    around = grey(tmp_path / "x.png")[y - 3 : y + 3, x - 3 : x + 3]
    assert around.min() < INK_BELOW
    assert f"M{125 * UNITS_PER_MM} 0l0 0" in page.draw(signal, ["V1"], 400.0).to_svg().replace("-0", "0")


@pytest.mark.parametrize("dpi", [0, -1, 24, 1201, float("nan")])
def test_a_resolution_that_nobody_means_is_refused(dpi, tmp_path):
    with pytest.raises(SpecError, match=r"dpi, expected 25 to 1200"):
        steps_drawing().save(tmp_path / "x.png", dpi)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SourceError, match="cannot be written"):
        steps_drawing().save(tmp_path / "nowhere" / "x.png", 50)


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_without_matplotlib_the_error_names_the_extra(suffix, store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SpecError, match=re.escape(install_line("plot"))):
        plot_record(store, 1, tmp_path / f"x{suffix}")
    assert plot_record(store, 1, tmp_path / "x.svg").stat().st_size > 10_000


@pytest.mark.parametrize("suffix", [".png", ".PDF"])
def test_plot_record_writes_the_sheet_that_was_asked_for(suffix, store, tmp_path):
    out = plot_record(store, 1, tmp_path / f"x{suffix}", Page(Layout.parse("6x2+1"), sheet="a4"), dpi=100.0)
    head = out.read_bytes()
    if suffix == ".png":
        assert png_facts(head)["size"] == (round(297 / 25.4 * 100), round(210 / 25.4 * 100))
    else:
        assert head.startswith(b"%PDF-")
