"""The report and the paper ECG in a real browser: nothing in red, nothing asked of anybody, everything to be seen."""

import io

import numpy as np
import pytest

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.report.html import report
from ecgcohorts.report.page import Markup, Section, page, write_text
from ecgcohorts.report.paper import plot_record

GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) of 0 to 255."""
    image = pytest.importorskip("PIL.Image", reason="reads screenshots")
    return np.asarray(image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens_in_silence_and_asks_nobody(browser, store, tmp_path, scheme, width):
    out = report(store, tmp_path / "report.html")
    browser.open(out, scheme, width)
    assert browser.requests() == [out.as_uri()]
    assert browser.complaints() == []
    height = browser.value("document.documentElement.scrollHeight")
    assert height > 2000
    assert browser.value("document.documentElement.scrollWidth") == width  # wide tables scroll, the page does not
    assert browser.value("getComputedStyle(document.body).backgroundColor") == GROUND[scheme]
    shot = pixels(browser.screenshot())
    assert shot.shape == (height, width, 3)
    # Every part of the page shows something: no stretch of a window's height is of a few colours.
    colours = shot.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    assert all(len(np.unique(colours[top : top + 900])) > 20 for top in range(0, height - 900, 900))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, store, tmp_path, scheme):
    """Contrast of at least 4.5 to 1 for every text outside pictures: WCAG 2.2, success criterion 1.4.3."""
    browser.open(report(store, tmp_path / "report.html"), scheme)
    colours = browser.value(
        "[...new Set([...document.querySelectorAll('h1, h2, h3, p, a, dt, dd, th, td, caption span, figcaption, footer')]"
        ".map(element => getComputedStyle(element).color))]"
    )
    assert len(colours) >= 3
    for colour in colours:
        assert contrast(colour, GROUND[scheme]) >= 4.5, colour


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`."""
    parts = np.array(colour.removeprefix("rgb(").removesuffix(")").split(","), float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_page_forbids_scripts_and_requests(browser, tmp_path):
    """What the silence above is worth: markup that gets in after all can neither run nor load."""
    attack = (
        "<script>document.title = 'run'</script><img src='https://example.invalid/x.png'>"
        "<img src=x onerror=\"document.title = 'run'\"><link rel=stylesheet href='https://example.invalid/x.css'>"
    )
    out = tmp_path / "attacked.html"
    write_text(out, page("Title", [Section("One", Markup(attack))]))
    browser.open(out, "light")
    assert browser.value("document.title") == "Title"
    assert sorted({*browser.requests()} - {*browser.forbidden()}) == [out.as_uri()]
    assert len(browser.forbidden()) == 3
    assert len(browser.complaints()) >= 4  # the browser says what it forbade, so complaints are really heard


def test_a_paper_ecg_has_its_millimetres_on_the_screen(browser, store, tmp_path):
    """CSS: 96 pixels an inch. 275 x 146 mm, and the frame of the grid where the paper has it."""
    out = plot_record(store, 1, tmp_path / "x.svg")
    browser.open(out, "light")
    assert browser.complaints() == []
    per_mm = 96 / 25.4
    box = browser.value("[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().toJSON())")
    assert (box[0]["width"], box[0]["height"]) == pytest.approx((275 * per_mm, 146 * per_mm), abs=0.05)
    inner = browser.value("(m => [m.a, m.d, m.e, m.f])(document.querySelector('svg svg').getScreenCTM())")
    assert inner == pytest.approx(
        [per_mm, per_mm, 7.5 * per_mm, 17 * per_mm], abs=1 / 32
    )  # a browser counts in 64ths of a pixel
    pulse = browser.value("document.querySelector('[data-pulse]').getBBox().height / 100")
    assert pulse == pytest.approx(10.0)
    labels = browser.value("[...document.querySelectorAll('svg svg text')].map(e => e.textContent)")
    assert sorted(labels) == sorted([*TWELVE_LEADS, "II"])
