"""The 12-lead ECG on paper: exact millimetres, as SVG text of a few tens of kilobytes.

One user unit of the picture is one millimetre: small boxes 1 mm, large boxes 5 mm, 25 mm/s and 10 mm/mV unless asked
otherwise, a calibration pulse of 1 mV for 0.2 s before every row. Traces are drawn in whole hundredths of a
millimetre and leave out samples that a straight line replaces to within `TOLERANCE_MM`.
Sources: AHA/ACCF/HRS recommendations 2007, part I (doi:10.1161/CIRCULATIONAHA.106.180200), for speed, gain and order.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, RejectedRecording, SpecError
from ecgcohorts.index import SEX_CODES, CohortIndex
from ecgcohorts.leads import TWELVE_LEADS, canonical, positions, select
from ecgcohorts.report.page import write_text

if TYPE_CHECKING:
    from ecgcohorts.store import Store

PAGE_S = 10.0  # a row of paper holds 10 s
RHYTHM_LEADS = ("II", "V1", "V5")  # drawn in full below the short columns, in this order
PULSE_MV, PULSE_S = 1.0, 0.2
SMALL_MM, LARGE_MM = 1.0, 5.0
PULSE_ZONE_MM = 10.0  # room before the traces at 25 mm/s; whole large boxes
SIDE_MM, HEAD_MM, FOOT_MM = 7.5, 17.0, 9.0  # our default margins: 3x4+1 fits A4 landscape
TOLERANCE_MM = 0.02  # 2 uV at 10 mm/mV; a tenth of the line's width
UNITS_PER_MM = 100  # traces are written in hundredths of a millimetre
LINE_MM = 0.22
INK, PAPER, GRID_SMALL, GRID_LARGE = "#111111", "#fffafa", "#f6d5d5", "#e8a3a3"
FONT = "Arial, Liberation Sans, Helvetica, sans-serif"

_RECORDING_ID = re.compile(r"^[0-9a-f]{32}$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LAYOUT = re.compile(r"^(\d+)x(\d+)(?:\+([1-3]))?$")


@dataclass(frozen=True)
class Layout:
    """Rows of short columns, filled column by column, and full-length rhythm rows below. `3x4+1`, `6x2`, `12x1` ..."""

    rows: int
    columns: int
    rhythm: int = 0

    @classmethod
    def parse(cls, text: str) -> "Layout":
        """Read `ROWSxCOLUMNS[+RHYTHM]`. Raises SpecError unless rows times columns is twelve."""
        match = _LAYOUT.match(text)
        if match is None or int(match[1]) * int(match[2]) != len(TWELVE_LEADS):
            raise SpecError(f"found layout {text!r}, expected rows x columns = 12 such as 3x4+1, 6x2 or 12x1.")
        return cls(int(match[1]), int(match[2]), int(match[3] or 0))

    @property
    def n_rows(self) -> int:
        return self.rows + self.rhythm

    def row_mm(self, gain_mm_mv: float) -> float:
        """Height of a row in whole large boxes, so that twelve rows still fit a page at 10 mm/mV."""
        at_ten = 30.0 if self.n_rows <= 5 else 25.0 if self.n_rows <= 6 else 20.0 if self.n_rows <= 8 else 15.0
        return _whole_boxes(at_ten * max(gain_mm_mv, 5.0) / 10)


@dataclass(frozen=True)
class Trace:
    """One stretch of one lead on the page. Times in s from the start of what is drawn."""

    lead: str
    row: int
    start_s: float
    stop_s: float
    divided: bool  # True where another lead ends


@dataclass(frozen=True)
class Page:
    """Geometry in millimetres: what is where for a layout, a speed and a gain."""

    layout: Layout
    speed_mm_s: float
    gain_mm_mv: float

    @property
    def pulse_zone_mm(self) -> float:
        return _whole_boxes(max(PULSE_ZONE_MM, PULSE_S * self.speed_mm_s + LARGE_MM))

    @property
    def grid_mm(self) -> tuple[float, float]:
        """Width and height of the grid."""
        width = self.pulse_zone_mm + _whole_boxes(PAGE_S * self.speed_mm_s)
        return width, self.layout.n_rows * self.layout.row_mm(self.gain_mm_mv)

    @property
    def size_mm(self) -> tuple[float, float]:
        width, height = self.grid_mm
        return width + 2 * SIDE_MM, height + HEAD_MM + FOOT_MM

    def x_mm(self, time_s: float) -> float:
        """Place of a time on the grid, from its left edge."""
        return self.pulse_zone_mm + time_s * self.speed_mm_s

    def baseline_mm(self, row: int) -> float:
        """Place of 0 mV of a row on the grid, from its upper edge; always on a heavy line."""
        row_mm = self.layout.row_mm(self.gain_mm_mv)
        return row * row_mm + _whole_boxes(row_mm / 2)


# Many parameters because they are what is set on the front of an electrocardiograph; all but the signal have a default.
def paper_svg(
    signal_mv: NDArray[np.floating],
    leads: Sequence[str],
    rate_hz: float,
    *,
    layout: str = "3x4+1",
    speed_mm_s: float = 25.0,
    gain_mm_mv: float = 10.0,
    title: str = "",
    notes: Sequence[str] = (),
    band_hz: tuple[float, float] | None = None,
) -> str:
    """Return the first 10 s of an ECG as it looks on paper, in SVG.

    signal_mv: (lead, time) in mV, NaN where missing, in the order of `leads` (any spelling `leads.canonical` knows).
    Limb leads that are not there are derived from two others; what cannot be derived is said to be not recorded.
    A recording shorter than 10 s has shorter columns, so that every lead shows a part of it.
    title, notes: any text; escaped. band_hz: the filter it went through, for the footer.
    Raises SpecError for a layout, speed, gain or shape that cannot be drawn, RejectedRecording for a lead named twice.
    """
    if speed_mm_s <= 0 or gain_mm_mv <= 0 or rate_hz <= 0:
        raise SpecError(
            f"found {speed_mm_s:g} mm/s, {gain_mm_mv:g} mm/mV, {rate_hz:g} Hz, expected numbers above zero."
        )
    signal = np.asarray(signal_mv, np.float64)
    if signal.ndim != 2 or len(signal) != len(leads) or not signal.shape[1]:
        raise SpecError(f"found a signal of shape {signal.shape}, expected ({len(leads)} leads, at least one sample).")
    page = Page(Layout.parse(layout), float(speed_mm_s), float(gain_mm_mv))
    shown_s = min(PAGE_S, signal.shape[1] / rate_hz)
    twelve = _twelve(signal, leads)
    parts = [_open_svg(page), _head(page, title, notes), _grid(page)]
    parts += [_pulse(page, row) for row in range(page.layout.n_rows)]
    traces = _traces(page.layout, shown_s)
    parts += [
        _label(page, trace, trace.lead in twelve) for trace in traces
    ]  # below the lines, which they must not hide
    parts += [_line(page, trace, twelve[trace.lead], rate_hz) for trace in traces if trace.lead in twelve]
    footer = _footer_text(page, signal.shape[1] / rate_hz, rate_hz, band_hz)
    return "\n".join([*parts, "</g></svg>", _text(SIDE_MM, page.size_mm[1] - 3.5, footer, 2.8), "</svg>\n"])


def plot_record(store: "Store", record: int | str, out: Path, layout: str = "3x4+1") -> Path:
    """Write one stored recording as a paper ECG and return where it is.

    record: store row, or recording id as 32 hexadecimal digits. out: a name ending in .svg.
    Raises SpecError for another suffix or a record that the index does not list, SourceError if `out` cannot be written.
    """
    if out.suffix.lower() != ".svg":
        raise SpecError(
            f"found {out.name!r}, expected a name ending in .svg. Any browser or rsvg-convert makes a PNG or PDF of it."
        )
    write_text(out, record_svg(store, find_entry(store.index, record), layout))
    return out


def find_entry(index: CohortIndex, record: int | str) -> int:
    """Return the place in the index of a store row or of a recording id. Raises SpecError if there is none."""
    text = str(record).strip().lower()
    if _RECORDING_ID.match(text):
        wanted = np.frombuffer(bytes.fromhex(text), np.uint8)
        entries = np.flatnonzero((index["recording_id"] == wanted).all(axis=1))
    elif text.isdecimal():
        entries = np.flatnonzero(index["row"] == int(text))
    else:
        raise SpecError(f"found record {record!r}, expected a row number or a recording id of 32 hexadecimal digits.")
    if not len(entries):
        raise SpecError(f"found no record {record!r} in the index, expected one listed by `ecgcohorts info --json`.")
    return int(entries[0])


def record_svg(store: "Store", entry: int, layout: str = "3x4+1") -> str:
    """Return one stored recording, by its place in the index, as a paper ECG."""
    index, recipe = store.index, store.recipe
    start, stop = int(index["valid_start"][entry]), int(index["valid_stop"][entry])
    strip_mv = store.read_mv([index["row"][entry]])[0, :, start:stop]
    age, sex = index["age"][entry], index["sex"][entry]
    notes = [
        bytes(index["recording_id"][entry]).hex(),
        "age not known" if np.isnan(age) else f"{age:.0f} years",
        {code: name for name, code in SEX_CODES.items()}.get(int(sex), "sex not known"),
        f"recipe {recipe.name}",
    ]
    title = f"{index.cohorts[index['cohort'][entry]]}, row {index['row'][entry]}"
    return paper_svg(
        strip_mv, recipe.leads, recipe.rate_hz, layout=layout, title=title, notes=notes, band_hz=recipe.band_hz
    )


def _twelve(signal_mv: NDArray[np.float64], leads: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The standard leads there are or that can be derived, each (time,)."""
    positions(leads)  # a lead named twice is an error, not a lead that is missing
    found = {}
    for lead in TWELVE_LEADS:
        try:
            found[lead] = select(signal_mv, leads, [lead])[0]
        except RejectedRecording as problem:
            if problem.reason is not Reason.LEADS:
                raise
    if not found:
        known = [name for name in leads if canonical(name)]
        raise SpecError(
            f"found {len(known)} standard leads among {len(leads)} signals, expected at least one of twelve."
        )
    return found


def _traces(layout: Layout, shown_s: float) -> list[Trace]:
    column_s = shown_s / layout.columns
    traces = []
    for place, lead in enumerate(TWELVE_LEADS):
        column, row = divmod(place, layout.rows)
        traces.append(Trace(lead, row, column * column_s, (column + 1) * column_s, divided=column > 0))
    for place, lead in enumerate(RHYTHM_LEADS[: layout.rhythm]):
        traces.append(Trace(lead, layout.rows + place, 0.0, shown_s, divided=False))
    return traces


def _line(page: Page, trace: Trace, signal_mv: NDArray[np.float64], rate_hz: float) -> str:
    """One path per stretch without gaps, in hundredths of a millimetre relative to the point before."""
    first, last = ceil(trace.start_s * rate_hz - 1e-9), ceil(trace.stop_s * rate_hz - 1e-9)
    samples = np.arange(first, min(last + 1, len(signal_mv)))  # one more, so that columns meet
    y = -signal_mv[samples] * page.gain_mm_mv
    x = samples / rate_hz * page.speed_mm_s
    present = np.flatnonzero(np.isfinite(y))
    runs = np.split(present, np.flatnonzero(np.diff(present) > 1) + 1) if len(present) else []
    path = "".join(_run(x[run], y[run]) for run in runs)
    place = f"translate({_n(page.x_mm(0.0))} {_n(page.baseline_mm(trace.row))}) scale({1 / UNITS_PER_MM})"
    return f'<path data-lead="{trace.lead}" transform="{place}" stroke-width="{LINE_MM * UNITS_PER_MM:g}" d="{path}"/>'


def _run(x_mm: NDArray[np.float64], y_mm: NDArray[np.float64]) -> str:
    kept = simplify(x_mm, y_mm, TOLERANCE_MM)
    # Round places, not steps: errors would add up along the trace.
    points = np.rint(np.stack([x_mm[kept], y_mm[kept]], axis=1) * UNITS_PER_MM).astype(np.int64)
    steps = (
        np.diff(points, axis=0) if len(points) > 1 else np.zeros((1, 2), np.int64)
    )  # a lone sample: the line's round cap
    return f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{dx} {dy}".replace(" -", "-") for dx, dy in steps.tolist())


def simplify(x: NDArray[np.float64], y: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
    """Return the places of the points to keep so that straight lines miss no left-out point by more than `tolerance`.

    x, y: (point,), x rising. The distance is measured along y. Source: Ramer 1972, doi:10.1016/S0146-664X(72)80017-0.
    """
    keep = np.zeros(len(x), bool)
    keep[[0, -1]] = True
    stack = [(0, len(x) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        inside = slice(first + 1, last)
        slope = (y[last] - y[first]) / (x[last] - x[first])
        distance = np.abs(y[inside] - y[first] - slope * (x[inside] - x[first]))
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return np.flatnonzero(keep)


def _open_svg(page: Page) -> str:
    width, height = page.size_mm
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}mm" height="{_n(height)}mm" '
        f'viewBox="0 0 {_n(width)} {_n(height)}" font-family="{FONT}" fill="{INK}" role="img">\n'
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="{PAPER}"/>'
    )


def _head(page: Page, title: str, notes: Sequence[str]) -> str:
    lines = [f"<title>{_plain(title) or 'ECG'}</title>", _text(SIDE_MM, 7.0, title, 4.2, weight="bold")]
    lines += [_text(SIDE_MM, 12.0, " \N{MIDDLE DOT} ".join(notes), 3.0)] if notes else []
    return "\n".join(lines)


def _grid(page: Page) -> str:
    """Opens the inner picture, which cuts off what leaves the grid, and draws the boxes."""
    width, height = page.grid_mm
    size = f'width="{_n(width)}" height="{_n(height)}"'
    lines = [f'<svg x="{SIDE_MM}" y="{HEAD_MM}" {size} fill="none" stroke-linejoin="round" stroke-linecap="round">']
    for step, colour, stroke in ((SMALL_MM, GRID_SMALL, 0.1), (LARGE_MM, GRID_LARGE, 0.18)):
        columns = "".join(f"M{_n(x)} 0v{_n(height)}" for x in np.arange(0.0, width + step / 2, step))
        rows = "".join(f"M0 {_n(y)}h{_n(width)}" for y in np.arange(0.0, height + step / 2, step))
        lines.append(f'<path data-grid="{step:g}" stroke="{colour}" stroke-width="{stroke}" d="{columns}{rows}"/>')
    return "\n".join([*lines, f'<g stroke="{INK}">'])


def _pulse(page: Page, row: int) -> str:
    """1 mV for 0.2 s, with a millimetre of baseline on both sides, ending 1 mm before the traces."""
    up, wide = PULSE_MV * page.gain_mm_mv, PULSE_S * page.speed_mm_s
    left = page.pulse_zone_mm - wide - 3 * SMALL_MM
    return (
        f'<path data-pulse="{row}" stroke-width="{LINE_MM}" '
        f'd="M{_n(left)} {_n(page.baseline_mm(row))}h1v{_n(-up)}h{_n(wide)}v{_n(up)}h1"/>'
    )


def _label(page: Page, trace: Trace, recorded: bool) -> str:
    name = trace.lead if recorded else f"{trace.lead} not recorded"
    x, y = page.x_mm(trace.start_s), trace.row * page.layout.row_mm(page.gain_mm_mv)
    if page.layout.columns == 1:  # rows are low: beside the line, below the pulse
        return _text(1.0, page.baseline_mm(trace.row) + 4.0, name, 3.0, weight="bold", halo=True)
    tick = f'<path stroke-width="0.3" d="M{_n(x)} {_n(y + 1.5)}v3.5"/>' if trace.divided else ""
    return tick + _text(x + 1.0, y + 4.5, name, 3.4, weight="bold", halo=True)


def _footer_text(page: Page, length_s: float, rate_hz: float, band_hz: tuple[float, float] | None) -> str:
    band = f"{band_hz[0]:g}-{band_hz[1]:g} Hz" if band_hz else "bandwidth not stated"
    shown = f"first {PAGE_S:g} s of {length_s:.1f} s" if length_s > PAGE_S else f"{length_s:.1f} s"
    facts = (f"{page.speed_mm_s:g} mm/s", f"{page.gain_mm_mv:g} mm/mV", band, f"{rate_hz:g} samples/s", shown)
    return "    ".join(facts)


def _text(x: float, y: float, text: str, size: float, weight: str = "normal", halo: bool = False) -> str:
    # White space is kept by no-break spaces, which every renderer honours.
    shown = _plain(text).replace("    ", "\u00a0" * 4)
    edge = f'paint-order="stroke" stroke="{PAPER}" stroke-width="0.9" ' if halo else 'stroke="none" '
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" font-weight="{weight}" {edge}fill="{INK}">{shown}</text>'


def _plain(text: str) -> str:
    """Text as XML allows it: escaped, and without the control characters that no XML may hold."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def _whole_boxes(length_mm: float) -> float:
    return ceil(length_mm / LARGE_MM - 1e-9) * LARGE_MM


def _n(number: float) -> str:
    """A coordinate in millimetres with no more digits than a micrometre needs."""
    return f"{number:.3f}".rstrip("0").rstrip(".")
