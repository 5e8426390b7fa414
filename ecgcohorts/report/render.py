"""A drawing as PNG or PDF, painted by matplotlib: the same millimetres as its SVG.

12 pixels a millimetre by default: every box of the grid has the same whole number of pixels, and PNG states resolution
in pixels a metre, so 12,000 is exact where 300 dpi is not. Source of the 72 points an inch: PDF 32000-1:2008, 8.3.2.3.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError, install_line
from ecgcohorts.report.drawing import HALO_MM, INK, PAPER, Drawing, Line, Text, shown, to_svg
from ecgcohorts.report.page import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

MM_PER_INCH, POINTS_PER_INCH = 25.4, 72
DPI = 12 * MM_PER_INCH
DPI_LIMITS = (25.0, 1200.0)  # our default: 25 is a thumbnail, 1200 about 400 MB of memory
SUFFIXES = (".svg", ".png", ".pdf")
FONT = "DejaVu Sans"  # shipped with matplotlib: the same letters on every machine
# What matplotlib would write about itself and the time: equal drawings give equal files.
NO_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def check_picture(out: Path, dpi: float) -> None:
    """Raise SpecError for a suffix or resolution that `save` does not make."""
    if out.suffix.lower() not in SUFFIXES:
        raise SpecError(f"found {out.name!r}, expected a name ending in {', '.join(SUFFIXES)}.")
    if not DPI_LIMITS[0] <= dpi <= DPI_LIMITS[1]:
        raise SpecError(f"found {dpi:g} dpi, expected {DPI_LIMITS[0]:g} to {DPI_LIMITS[1]:g}.")


def save(drawing: Drawing, out: Path, dpi: float = DPI) -> None:
    """Write a drawing as .svg, .png or .pdf.

    dpi: pixels an inch of a PNG, rounded to whole pixels a side; nothing else depends on it.
    Raises SpecError for another suffix or without matplotlib, SourceError if `out` cannot be written.
    """
    check_picture(out, dpi)
    suffix = out.suffix.lower()
    write_bytes(out, to_svg(drawing).encode() if suffix == ".svg" else _painted(drawing, suffix[1:], dpi))


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
        size_in = (np.rint(size_in * dpi) + 1e-3) / dpi  # matplotlib cuts off the fraction of a pixel
    data = BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # nobody's own style
        matplotlib.rcParams["font.family"] = FONT
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: text that can be searched
        matplotlib.rcParams["path.simplify"] = False
        figure = Figure(figsize=(float(size_in[0]), float(size_in[1])), dpi=dpi, facecolor=PAPER)
        _paint(figure, drawing)
        figure.savefig(data, format=kind, dpi=dpi, facecolor=PAPER, metadata=NO_METADATA[kind])
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
        shown(shape.text),
        fontsize=_points(shape.size_mm),
        fontweight="bold" if shape.bold else "normal",
        color=INK,
        va="baseline",
        parse_math=False,
        clip_on=True,
        zorder=order,
    )
    if shape.halo:
        words.set_path_effects([withStroke(linewidth=_points(HALO_MM), foreground=PAPER)])
    if frame:
        words.set_clip_path(frame)


def _drawable(run_mm: NDArray[np.floating]) -> NDArray[np.floating]:
    """A run that ends where it began, made a micrometre long: matplotlib draws no round caps on a line of no length."""
    lone = len(run_mm) == 2 and not np.diff(run_mm, axis=0).any()
    return np.add(run_mm, [[0.0, 0.0], [0.001, 0.0]]) if lone else run_mm


def _points(length_mm: float) -> float:
    return length_mm / MM_PER_INCH * POINTS_PER_INCH
