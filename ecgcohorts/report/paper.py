"""The 12-lead ECG on paper: exact millimetres, drawn from leads as they are stored.

Small boxes 1 mm, large boxes 5 mm, 25 mm/s and 10 mm/mV unless asked otherwise, a calibration pulse of 1 mV for 0.2 s
before every row. Traces leave out samples that a straight line replaces to within `TOLERANCE_MM`.
Sources: AHA/ACCF/HRS recommendations 2007, part I (doi:10.1161/CIRCULATIONAHA.106.180200), for speed, gain and order.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, RejectedRecording, SpecError
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex
from ecgcohorts.leads import TWELVE_LEADS, canonical, positions, select
from ecgcohorts.report.drawing import DPI, Drawing, Line, Text

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

PAGE_S = 10.0  # a row of paper holds 10 s
RHYTHM_LEADS = ("II", "V1", "V5")  # drawn in full below the short columns, in this order
PULSE_MV, PULSE_S = 1.0, 0.2
SMALL_MM, LARGE_MM = 1.0, 5.0
# Room before the traces at 25 mm/s, in whole large boxes, so that seconds start on heavy lines.
PULSE_ZONE_MM = 10.0
# Our default margins: with them 3x4+1 fits A4 landscape.
SIDE_MM, HEAD_MM, FOOT_MM = 7.5, 17.0, 9.0
# Landscape. "fit" is no larger than the ECG: for screens and figures. Printed, it may be scaled to the paper.
SHEETS_MM: dict[str, tuple[float, float] | None] = {"fit": None, "a4": (297.0, 210.0), "letter": (279.4, 215.9)}
# 2 uV at 10 mm/mV; a tenth of the line's width.
TOLERANCE_MM = 0.02
LINE_MM = 0.22
GRID = ((SMALL_MM, "#f6d5d5", 0.1), (LARGE_MM, "#e8a3a3", 0.18))  # step, colour, width

_RECORDING_ID = re.compile(r"^[0-9a-f]{32}$")
_LAYOUT = re.compile(r"^(\d+)x(\d+)(?:\+([1-3]))?$")


def _whole_boxes(length_mm: float) -> float:
    return ceil(length_mm / LARGE_MM - 1e-9) * LARGE_MM


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
class _Trace:
    """One stretch of one lead on the page. Times in s from the start of what is drawn."""

    lead: str
    row: int
    start_s: float
    stop_s: float
    divided: bool  # True where another lead ends


@dataclass(frozen=True)
class Page:
    """Settings of an electrocardiograph, and the places that follow from them, in millimetres.

    sheet: one of `SHEETS_MM`. Raises SpecError for numbers not above zero and for a sheet that is unknown or too small.
    """

    layout: Layout = Layout(3, 4, 1)
    speed_mm_s: float = 25.0
    gain_mm_mv: float = 10.0
    sheet: str = "fit"

    def __post_init__(self) -> None:
        if not (self.speed_mm_s > 0 and self.gain_mm_mv > 0):
            raise SpecError(f"found {self.speed_mm_s:g} mm/s, {self.gain_mm_mv:g} mm/mV, expected numbers above zero.")
        if self.sheet not in SHEETS_MM:
            raise SpecError(f"found sheet {self.sheet!r}, expected one of {', '.join(SHEETS_MM)}.")
        needed, size = self.least_mm, self.size_mm
        if needed[0] > size[0] or needed[1] > size[1]:
            raise SpecError(
                f"found an ECG of {needed[0]:g} x {needed[1]:g} mm, expected one that fits on {self.sheet}, "
                f"{size[0]:g} x {size[1]:g} mm. Choose another layout, speed or gain, or the sheet 'fit'."
            )

    @property
    def pulse_zone_mm(self) -> float:
        return _whole_boxes(max(PULSE_ZONE_MM, PULSE_S * self.speed_mm_s + LARGE_MM))

    @property
    def grid_mm(self) -> tuple[float, float]:
        """Width and height of the grid."""
        width = self.pulse_zone_mm + _whole_boxes(PAGE_S * self.speed_mm_s)
        return width, self.layout.n_rows * self.layout.row_mm(self.gain_mm_mv)

    @property
    def least_mm(self) -> tuple[float, float]:
        """Width and height of the grid with its margins."""
        width, height = self.grid_mm
        return width + 2 * SIDE_MM, height + HEAD_MM + FOOT_MM

    @property
    def size_mm(self) -> tuple[float, float]:
        return SHEETS_MM[self.sheet] or self.least_mm

    @property
    def corner_mm(self) -> tuple[float, float]:
        """Upper left corner of the grid: in the middle of the sheet, between margins in proportion."""
        (width, height), (least_width, least_height) = self.size_mm, self.least_mm
        return (width - least_width) / 2 + SIDE_MM, (height - least_height) / 2 + HEAD_MM

    def x_mm(self, time_s: float) -> float:
        """Place of a time on the grid, from its left edge."""
        return self.pulse_zone_mm + time_s * self.speed_mm_s

    def baseline_mm(self, row: int) -> float:
        """Place of 0 mV of a row on the grid, from its upper edge; always on a heavy line."""
        row_mm = self.layout.row_mm(self.gain_mm_mv)
        return row * row_mm + _whole_boxes(row_mm / 2)

    def draw(
        self,
        signal_mv: NDArray[np.floating],
        leads: Sequence[str],
        rate_hz: float,
        *,
        title: str = "",
        notes: Sequence[str] = (),
        band_hz: tuple[float, float] | None = None,
    ) -> Drawing:
        """Return the first 10 s of an ECG as it looks on paper.

        signal_mv: (lead, time) in mV, NaN where missing, in the order of `leads` (any spelling `leads.canonical` knows).
        Missing limb leads are derived from two others; a lead that cannot be derived is labelled as missing.
        A recording shorter than 10 s has shorter columns, so that every lead shows a part of it.
        title, notes: any text. band_hz: the filter it went through, for the footer.
        Raises SpecError for a shape or rate that cannot be drawn, RejectedRecording for a lead named twice.
        """
        signal = np.asarray(signal_mv, np.float64)
        if signal.ndim != 2 or len(signal) != len(leads) or not signal.shape[1] or not rate_hz > 0:
            raise SpecError(
                f"found a signal of shape {signal.shape} at {rate_hz:g} Hz, "
                f"expected ({len(leads)} leads, at least one sample) at a rate above zero."
            )
        twelve = _twelve(signal, leads)
        length_s = signal.shape[1] / rate_hz
        traces = _traces(self.layout, min(PAGE_S, length_s))
        framed: list[Line | Text] = [*_grid(self), *(_pulse(self, row) for row in range(self.layout.n_rows))]
        # Labels lie below all traces: their halo must not hide a wave.
        for trace in traces:
            framed += _label(self, trace, trace.lead in twelve)
        framed += [_line(self, trace, twelve[trace.lead], rate_hz) for trace in traces if trace.lead in twelve]
        left, top = self.corner_mm
        around = [
            Text(left, top - 10.0, title, 4.2, bold=True),
            Text(left, top - 5.0, " \N{MIDDLE DOT} ".join(notes), 3.0),
            Text(left, top + self.grid_mm[1] + 5.5, _footer(self, length_s, rate_hz, band_hz), 2.8),
        ]
        return Drawing(self.size_mm, (left, top, *self.grid_mm), framed, [text for text in around if text.text], title)

    def draw_record(self, store: "AnyStore", entry: int) -> Drawing:
        """Return one stored recording, by its place in the index, as a paper ECG."""
        index, recipe = store.index, store.recipe
        start, stop = int(index["valid_start"][entry]), int(index["valid_stop"][entry])
        strip_mv = store.read_mv([index["row"][entry]])[0, :, start:stop]
        # Nothing of the header but these: a picture is passed around more easily than a store.
        age, sex = index["age"][entry], index["sex"][entry]
        notes = [
            bytes(index["recording_id"][entry]).hex(),
            "age not known" if np.isnan(age) else f"{age:.0f} years",
            {code: name for name, code in SEX_CODES.items()}.get(int(sex), "sex not known"),
            f"recipe {recipe.name}",
        ]
        # An offset that no high-pass has taken off would push the trace off its strip of paper.
        if recipe.band_hz is None:
            strip_mv = strip_mv - np.median(strip_mv, axis=1, keepdims=True)
            notes.append("offset taken off")
        title = f"{index.cohorts[index['cohort'][entry]]}, row {index['row'][entry]}"
        return self.draw(strip_mv, recipe.leads, recipe.rate_hz, title=title, notes=notes, band_hz=recipe.band_hz)


def plot_record(store: "AnyStore", record: int | str, out: Path, page: Page = Page(), dpi: float = DPI) -> Path:
    """Write one stored recording as a paper ECG and return where it is.

    record: store row, or recording id as 32 hexadecimal digits. out: a name ending in .svg, .png or .pdf.
    dpi: pixels an inch of a PNG. Raises SpecError for another suffix, a record that the index does not list, and for
    PNG or PDF without matplotlib; SourceError if `out` cannot be written.
    """
    Drawing.check_output(out, dpi)
    store.refuse_inside(out)
    page.draw_record(store, _find_entry(store.index, record)).save(out, dpi)
    return out


def _find_entry(index: CohortIndex, record: int | str) -> int:
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
        last = int(index["row"].max())
        raise SpecError(f"found no record {record!r} in the index, expected a row from 0 to {last}, or a recording id.")
    return int(entries[0])


def _twelve(signal_mv: NDArray[np.float64], leads: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return the standard leads that are recorded or can be derived, each (time,)."""
    # Raises for a lead named twice, which `select` below would report as missing.
    positions(leads)
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


def _traces(layout: Layout, shown_s: float) -> list[_Trace]:
    column_s = shown_s / layout.columns
    traces = []
    for place, lead in enumerate(TWELVE_LEADS):
        column, row = divmod(place, layout.rows)
        traces.append(_Trace(lead, row, column * column_s, (column + 1) * column_s, divided=column > 0))
    for place, lead in enumerate(RHYTHM_LEADS[: layout.rhythm]):
        traces.append(_Trace(lead, layout.rows + place, 0.0, shown_s, divided=False))
    return traces


def _line(page: Page, trace: _Trace, signal_mv: NDArray[np.float64], rate_hz: float) -> Line:
    """Return a trace in millimetres from the start of the paper and from 0 mV, one run per stretch without gaps."""
    first, last = ceil(trace.start_s * rate_hz - 1e-9), ceil(trace.stop_s * rate_hz - 1e-9)
    samples = np.arange(first, min(last + 1, len(signal_mv)))  # one more, so that columns meet
    # y of a drawing grows downwards.
    y = -signal_mv[samples] * page.gain_mm_mv
    x = samples / rate_hz * page.speed_mm_s
    present = np.flatnonzero(np.isfinite(y))
    runs = np.split(present, np.flatnonzero(np.diff(present) > 1) + 1) if len(present) else []
    origin = (page.x_mm(0.0), page.baseline_mm(trace.row))
    return Line([_simple(x[run], y[run]) for run in runs], LINE_MM, origin_mm=origin, mark=("lead", trace.lead))


def _simple(x_mm: NDArray[np.float64], y_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = _simplify(x_mm, y_mm, TOLERANCE_MM)
    if len(kept) == 1:
        # A lone sample is a line of no length: its round caps make a dot.
        kept = np.repeat(kept, 2)
    return np.stack([x_mm[kept], y_mm[kept]], axis=1)


def _simplify(x: NDArray[np.float64], y: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
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


def _grid(page: Page) -> list[Line]:
    width, height = page.grid_mm
    lines = []
    for step, colour, stroke in GRID:
        columns = [np.array([[x, 0.0], [x, height]]) for x in np.arange(0.0, width + step / 2, step)]
        rows = [np.array([[0.0, y], [width, y]]) for y in np.arange(0.0, height + step / 2, step)]
        lines.append(Line([*columns, *rows], stroke, colour, mark=("grid", f"{step:g}")))
    return lines


def _pulse(page: Page, row: int) -> Line:
    """Draw 1 mV for 0.2 s with a millimetre of baseline on both sides; it ends 1 mm before the traces."""
    up, wide = PULSE_MV * page.gain_mm_mv, PULSE_S * page.speed_mm_s
    x = np.cumsum([0.0, SMALL_MM, 0.0, wide, 0.0, SMALL_MM])
    y = np.array([0.0, 0.0, -up, -up, 0.0, 0.0])
    origin = (page.pulse_zone_mm - wide - 3 * SMALL_MM, page.baseline_mm(row))
    return Line([np.stack([x, y], axis=1)], LINE_MM, origin_mm=origin, mark=("pulse", str(row)))


def _label(page: Page, trace: _Trace, recorded: bool) -> list[Line | Text]:
    name = trace.lead if recorded else f"{trace.lead} missing"
    x, y = page.x_mm(trace.start_s), trace.row * page.layout.row_mm(page.gain_mm_mv)
    # Rows of a single column are low: the name stands beside the line, below the pulse.
    if page.layout.columns == 1:
        return [Text(1.0, page.baseline_mm(trace.row) + 4.0, name, 3.0, bold=True, halo=True)]
    words = Text(x + 1.0, y + 4.5, name, 3.4, bold=True, halo=True)
    return [Line([np.array([[x, y + 1.5], [x, y + 5.0]])], 0.3), words] if trace.divided else [words]


def _footer(page: Page, length_s: float, rate_hz: float, band_hz: tuple[float, float] | None) -> str:
    band = f"{band_hz[0]:g}-{band_hz[1]:g} Hz" if band_hz else "bandwidth not stated"
    shown = f"first {PAGE_S:g} s of {length_s:.1f} s" if length_s > PAGE_S else f"{length_s:.1f} s"
    facts = (f"{page.speed_mm_s:g} mm/s", f"{page.gain_mm_mv:g} mm/mV", band, f"{rate_hz:g} samples/s", shown)
    return "    ".join(facts)
