"""Lines and texts in millimetres, and how they become SVG text. `render` makes PNG and PDF of the same drawing.

One user unit of the SVG is one millimetre. Lines are written in whole hundredths of a millimetre.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

UNITS_PER_MM = 100
INK, PAPER = "#111111", "#fffafa"
HALO_MM = 0.9  # our default: clear space around a label that lines may cross
FONT = "Arial, Liberation Sans, Helvetica, sans-serif"

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, eq=False)
class Line:
    """Strokes of one colour and width."""

    runs: Sequence[NDArray[np.floating]]  # (point, [x, y]) each, in mm from `origin_mm`; two points or more
    width_mm: float
    colour: str = INK
    origin_mm: tuple[float, float] = (0.0, 0.0)
    mark: tuple[str, str] | None = None  # name and value of a data attribute: what the line is


@dataclass(frozen=True)
class Text:
    """One line of text from `x_mm` to the right, standing on `y_mm`. Any text; writers escape it."""

    x_mm: float
    y_mm: float
    text: str
    size_mm: float
    bold: bool = False
    halo: bool = False


@dataclass(frozen=True, eq=False)
class Drawing:
    """A sheet, y downwards. What is `framed` is measured from the frame's upper left corner and cut off at its edges."""

    size_mm: tuple[float, float]
    frame_mm: tuple[float, float, float, float]  # x, y, width, height
    framed: Sequence[Line | Text]
    around: Sequence[Line | Text] = field(default=())
    title: str = ""


def to_svg(drawing: Drawing) -> str:
    """Return the drawing as SVG: small text that every browser shows at its true size."""
    width, height = map(number, drawing.size_mm)
    x, y, wide, high = map(number, drawing.frame_mm)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" '
        f'viewBox="0 0 {width} {height}" font-family="{FONT}" role="img">',
        f"<title>{plain(drawing.title) or 'ECG'}</title>",
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *map(_shape, drawing.around),
        f'<svg x="{x}" y="{y}" width="{wide}" height="{high}" fill="none" stroke-linejoin="round" stroke-linecap="round">',
        *map(_shape, drawing.framed),
        "</svg>\n</svg>\n",
    ]
    return "\n".join(parts)


def shown(text: str) -> str:
    """Text without the control characters that no XML may hold, wide gaps kept as no-break spaces."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).replace("    ", "\N{NO-BREAK SPACE}" * 4)


def plain(text: str) -> str:
    """Text as XML allows it."""
    return escape(shown(text))


def number(value: float) -> str:
    """A length in millimetres with no more digits than a micrometre needs."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _shape(shape: Line | Text) -> str:
    return _path(shape) if isinstance(shape, Line) else _words(shape)


def _path(line: Line) -> str:
    x, y = map(number, line.origin_mm)
    place = f"translate({x} {y}) " if line.origin_mm != (0.0, 0.0) else ""
    mark = f'data-{line.mark[0]}="{escape(line.mark[1])}" ' if line.mark else ""
    return (
        f'<path {mark}transform="{place}scale({1 / UNITS_PER_MM})" stroke="{line.colour}" '
        f'stroke-width="{number(line.width_mm * UNITS_PER_MM)}" d="{"".join(map(_run, line.runs))}"/>'
    )


def _run(run_mm: NDArray[np.floating]) -> str:
    # Round places, not steps: errors would add up along the line.
    points = np.rint(run_mm * UNITS_PER_MM).astype(np.int64)
    steps = np.diff(points, axis=0).tolist()
    return f"M{points[0, 0]} {points[0, 1]}l" + " ".join(f"{dx} {dy}".replace(" -", "-") for dx, dy in steps)


def _words(text: Text) -> str:
    weight = "bold" if text.bold else "normal"
    edge = f'paint-order="stroke" stroke="{PAPER}" stroke-width="{HALO_MM}"' if text.halo else 'stroke="none"'
    return (
        f'<text x="{number(text.x_mm)}" y="{number(text.y_mm)}" font-size="{number(text.size_mm)}" '
        f'font-weight="{weight}" {edge} fill="{INK}">{plain(text.text)}</text>'
    )
