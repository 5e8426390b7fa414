"""Drawings in millimetres, written as SVG, or as PNG and PDF by matplotlib.

One user unit of the SVG is one millimetre; lines are written in whole hundredths of a millimetre. A PNG has 12 pixels a
millimetre by default: every box of the grid has the same whole number of pixels, and PNG states resolution in pixels a
metre, so 12,000 is exact where 300 dpi is not. Source of the 72 points an inch: PDF 32000-1:2008, 8.3.2.3.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError, install_line
from ecgcohorts.report.page import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

UNITS_PER_MM = 100
_INK, PAPER = "#111111", "#fffafa"
# Our default: clear space around a label that lines may cross.
_HALO_MM = 0.9
_SVG_FONT = "Arial, Liberation Sans, Helvetica, sans-serif"

MM_PER_INCH, _POINTS_PER_INCH = 25.4, 72
DPI = 12 * MM_PER_INCH
# Our default: 25 is a thumbnail, 1200 takes about 400 MB of memory.
_DPI_LIMITS = (25.0, 1200.0)
_SUFFIXES = (".svg", ".png", ".pdf")
# Shipped with matplotlib: the same letters on every machine.
_MATPLOTLIB_FONT = "DejaVu Sans"
# Leave out what matplotlib writes about itself and the time: equal drawings give equal files.
_NO_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, eq=False)
class Line:
    """Strokes of one colour and width."""

    runs: Sequence[NDArray[np.floating]]  # (point, [x, y]) each, in mm from `origin_mm`; two points or more
    width_mm: float
    colour: str = _INK
    origin_mm: tuple[float, float] = (0.0, 0.0)
    mark: tuple[str, str] | None = None  # name and value of a data attribute: what the line is


@dataclass(frozen=True)
class Text:
    """One line of text that starts at `x_mm` and stands on `y_mm`. Any text: writers escape it."""

    x_mm: float
    y_mm: float
    text: str
    size_mm: float
    bold: bool = False
    halo: bool = False


@dataclass(frozen=True, eq=False)
class Drawing:
    """A sheet, y downwards. Shapes in `framed` are measured from the frame's upper left corner and cut at its edges."""

    size_mm: tuple[float, float]
    frame_mm: tuple[float, float, float, float]  # x, y, width, height
    framed: Sequence[Line | Text]
    around: Sequence[Line | Text] = field(default=())
    title: str = ""

    def to_svg(self) -> str:
        """Return SVG: small text that every browser shows at its true size."""
        width, height = map(_number, self.size_mm)
        x, y, wide, high = map(_number, self.frame_mm)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
            f'viewBox="0 0 {width} {height}" font-family="{_SVG_FONT}" role="img">',
            f"<title>{_plain(self.title) or 'ECG'}</title>",
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
            *map(_shape, self.around),
            f'<svg x="{x}" y="{y}" width="{wide}" height="{high}" fill="none" stroke-linejoin="round" stroke-linecap="round">',
            *map(_shape, self.framed),
            "</svg>\n</svg>\n",
        ]
        return "\n".join(parts)

    @staticmethod
    def check_output(out: Path, dpi: float) -> None:
        """Raise SpecError for a suffix or resolution that `save` does not make."""
        if out.suffix.lower() not in _SUFFIXES:
            raise SpecError(f"found {out.name!r}, expected a name ending in {', '.join(_SUFFIXES)}.")
        if not _DPI_LIMITS[0] <= dpi <= _DPI_LIMITS[1]:
            raise SpecError(f"found {dpi:g} dpi, expected {_DPI_LIMITS[0]:g} to {_DPI_LIMITS[1]:g}.")

    def save(self, out: Path, dpi: float = DPI) -> None:
        """Write the drawing as .svg, .png or .pdf.

        dpi: pixels an inch of a PNG, rounded to whole pixels a side; nothing else depends on it.
        Raises SpecError for another suffix or without matplotlib, SourceError if `out` cannot be written.
        """
        self.check_output(out, dpi)
        suffix = out.suffix.lower()
        write_bytes(out, self.to_svg().encode() if suffix == ".svg" else _painted(self, suffix[1:], dpi))


def _painted(drawing: Drawing, kind: str, dpi: float) -> bytes:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise SpecError(
            f"found no matplotlib, which .{kind} needs. Write .svg, or run: {install_line('plot')}"
        ) from None
    size_in = np.array(drawing.size_mm) / MM_PER_INCH
    if kind == "png":
        # matplotlib cuts off the fraction of a pixel, also that of rounding: stay just above whole ones.
        size_in = (np.rint(size_in * dpi) + 1e-3) / dpi
    data = BytesIO()
    with matplotlib.rc_context():
        # A style in the user's matplotlibrc must not change the millimetres.
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.family"] = _MATPLOTLIB_FONT
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: text that can be searched
        matplotlib.rcParams["path.simplify"] = False
        figure = Figure(figsize=(float(size_in[0]), float(size_in[1])), dpi=dpi, facecolor=PAPER)
        _paint(figure, drawing)
        figure.savefig(data, format=kind, dpi=dpi, facecolor=PAPER, metadata=_NO_METADATA[kind])
    return data.getvalue()


def _paint(figure: "Figure", drawing: Drawing) -> None:
    from matplotlib.patches import Rectangle

    (width, height), (left, top, wide, high) = drawing.size_mm, drawing.frame_mm
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set(xlim=(0.0, width), ylim=(height, 0.0))
    frame = Rectangle((left, top), wide, high, transform=axes.transData)
    for shape in drawing.around:
        _add(axes, shape, (0.0, 0.0), None)
    for order, shape in enumerate(drawing.framed, 1):
        _add(axes, shape, (left, top), frame, order)


def _add(
    axes: "Axes", shape: Line | Text, corner_mm: tuple[float, float], frame: "Rectangle | None", order: int = 0
) -> None:
    """Put a shape on the sheet. order: later shapes lie above earlier ones."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    if isinstance(shape, Line):
        moved = np.add(shape.origin_mm, corner_mm)
        lines = LineCollection(
            [_drawable(run) + moved for run in shape.runs],
            colors=shape.colour,
            linewidths=_points(shape.width_mm),
            zorder=order,
        )
        lines.set(capstyle="round", joinstyle="round", snap=False)
        axes.add_collection(lines, autolim=False)
        if frame:
            lines.set_clip_path(frame)
        return
    words = axes.text(
        shape.x_mm + corner_mm[0],
        shape.y_mm + corner_mm[1],
        _shown(shape.text),
        fontsize=_points(shape.size_mm),
        fontweight="bold" if shape.bold else "normal",
        color=_INK,
        va="baseline",
        parse_math=False,
        clip_on=True,
        zorder=order,
    )
    if shape.halo:
        words.set_path_effects([withStroke(linewidth=_points(_HALO_MM), foreground=PAPER)])
    if frame:
        words.set_clip_path(frame)


def _drawable(run_mm: NDArray[np.floating]) -> NDArray[np.floating]:
    """Make a line of no length a micrometre long."""
    # matplotlib draws no round caps on a line of no length, so a single sample would not show.
    lone = len(run_mm) == 2 and not np.diff(run_mm, axis=0).any()
    return np.add(run_mm, [[0.0, 0.0], [0.001, 0.0]]) if lone else run_mm


def _points(length_mm: float) -> float:
    return length_mm / MM_PER_INCH * _POINTS_PER_INCH


def _shown(text: str) -> str:
    """Replace control characters, which no XML may hold, and keep wide gaps as no-break spaces."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).replace("    ", "\N{NO-BREAK SPACE}" * 4)


def _plain(text: str) -> str:
    """Escape text for XML."""
    return escape(_shown(text))


def _number(value: float) -> str:
    """Write a length in millimetres with no more digits than a micrometre needs."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _shape(shape: Line | Text) -> str:
    return _path(shape) if isinstance(shape, Line) else _words(shape)


def _path(line: Line) -> str:
    x, y = map(_number, line.origin_mm)
    place = f"translate({x} {y}) " if line.origin_mm != (0.0, 0.0) else ""
    mark = f'data-{line.mark[0]}="{escape(line.mark[1])}" ' if line.mark else ""
    return (
        f'<path {mark}transform="{place}scale({1 / UNITS_PER_MM})" stroke="{line.colour}" '
        f'stroke-width="{_number(line.width_mm * UNITS_PER_MM)}" d="{"".join(map(_run, line.runs))}"/>'
    )


def _run(run_mm: NDArray[np.floating]) -> str:
    # Round places, not steps: errors would add up along the line.
    points = np.rint(run_mm * UNITS_PER_MM).astype(np.int64)
    steps = np.diff(points, axis=0).tolist()
    return f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{dx} {dy}".replace(" -", "-") for dx, dy in steps)


def _words(text: Text) -> str:
    weight = "bold" if text.bold else "normal"
    edge = f'paint-order="stroke" stroke="{PAPER}" stroke-width="{_HALO_MM}"' if text.halo else 'stroke="none"'
    return (
        f'<text x="{_number(text.x_mm)}" y="{_number(text.y_mm)}" font-size="{_number(text.size_mm)}" '
        f'font-weight="{weight}" {edge} fill="{_INK}">{_plain(text.text)}</text>'
    )
