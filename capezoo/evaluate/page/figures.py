"""Small charts as SVG text in the colours of the report page, readable on their own as well."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

# The page's own colours, with its light values for a picture that stands alone.
COLOURS = tuple(
    f"var(--c{place},{hexadecimal})"
    for place, hexadecimal in enumerate(
        ("#1f6f8b", "#c8553d", "#6a994e", "#7b4fa3", "#b8860b", "#46627f", "#a33b6f", "#2f8f83"), start=1
    )
)
INK, FAINT, RULE = "var(--ink,#1c2430)", "var(--faint,#5b6675)", "var(--rule,#d9dee5)"
WIDTH, HEIGHT = 420, 260  # px, of a line chart
MAP_SIDE = 380  # px, of the square a map is drawn in
LETTER = 6.2  # px; our default: mean width of a letter at 11 px
LAYERS = 8  # our default: a map is drawn in so many rounds of all cohorts, so that none lies on top


def scatter(title: str, points: NDArray[np.float64], codes: NDArray[np.int64], names: Sequence[str]) -> str:
    """Dots of one colour per name on one scale for both axes. points: (point, 2); codes: place in `names`.

    After eight names colours come again, with squares for dots.
    """
    spread = np.ptp(points, axis=0) if len(points) else np.zeros(2)
    middle = points.min(axis=0) + spread / 2 if len(points) else np.zeros(2)
    scale = (MAP_SIDE - 20) / max(float(spread.max()), 1e-9)
    top, centre = 24, MAP_SIDE / 2
    pieces = [_text(10, 15, title, weight="600")]
    for layer in range(LAYERS):
        for code in range(len(names)):
            mine = np.flatnonzero(codes == code)[layer::LAYERS]
            if len(mine):
                xy = (points[mine] - middle) * (scale, -scale) + (
                    centre,
                    top + centre,
                )  # y of a picture grows downwards
                dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in xy)
                pieces.append(f'<path d="{dots}" {_dot(code)}/>')
    frame = f'<rect x="0.5" y="{top}" width="{MAP_SIDE - 1}" height="{MAP_SIDE}" style="fill:none;stroke:{RULE}"/>'
    legend, height = _legend(names, top + MAP_SIDE + 16, MAP_SIDE, dots=True)
    return _svg(MAP_SIDE, height, [frame, *pieces, *legend], title)


def lines(title: str, series: Mapping[str, tuple[NDArray, NDArray]], x_label: str, y_label: str) -> str:
    """Lines over common axes. series: name -> (x, y); a line breaks where y is NaN."""
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in series.values()]
    all_x = np.concatenate([np.zeros(1), *(x for x, _ in finite)])
    all_y = np.concatenate([y for _, y in finite]) if any(len(y) for _, y in finite) else np.array([0.0, 1.0])
    x_ticks, y_ticks = ticks(0.0, float(all_x.max())), ticks(float(all_y.min()), float(all_y.max()))
    left, right, top, bottom = 46, WIDTH - 10, 44, HEIGHT - 40

    def px(x: float) -> float:
        return left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left)

    def py(y: float) -> float:
        return bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    pieces = [_text(10, 15, title, weight="600"), _text(10, 34, y_label, colour=FAINT)]
    for tick in y_ticks:
        pieces.append(f'<path d="M{left} {py(tick):.1f}H{right}" style="stroke:{RULE}"/>')
        pieces.append(_text(left - 5, py(tick) + 3.5, f"{tick:g}", anchor="end"))
    pieces += [_text(px(tick), bottom + 14, f"{tick:g}", anchor="middle") for tick in x_ticks]
    pieces.append(_text(right, bottom + 30, x_label, anchor="end", colour=FAINT))
    for code, (x, y) in enumerate(series.values()):
        thick = 2 if np.isfinite(y).sum() > 1 else 6  # one number is a dot
        style = f"fill:none;stroke:{COLOURS[code % len(COLOURS)]};stroke-width:{thick};stroke-linecap:round"
        pieces.append(f'<path d="{_polyline(x, y, px, py)}" style="{style}"{_dashes(code)}/>')
    legend, height = _legend(list(series), HEIGHT + 2, WIDTH, dots=False)
    return _svg(WIDTH, height, [*pieces, *legend], title)


def ticks(low: float, high: float, at_most: int = 6) -> list[float]:
    """Round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 500.0), ticks(2.9, 4.1)
    ([0.0, 100.0, 200.0, 300.0, 400.0, 500.0], [2.5, 3.0, 3.5, 4.0, 4.5])
    """
    span = high - low if high > low else max(abs(high), 1.0)
    power = 10.0 ** floor(log10(span / (at_most - 1)))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * (at_most - 1) >= span * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _polyline(x: NDArray, y: NDArray, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    """Path data; a new piece begins after every NaN. The first point of a piece is a dot, so that one alone shows."""
    path: list[str] = []
    pen = "M"
    for at, value in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(value):
            path.append(f"{pen}{px(at):.1f} {py(value):.1f}" + ("h0" if pen == "M" else ""))
            pen = "L"
        else:
            pen = "M"
    return "".join(path)


def _legend(names: Sequence[str], y: float, width: float, dots: bool) -> tuple[list[str], float]:
    """Marks and names, in as many rows as they need; and the height of the picture with them."""
    pieces, x = [], 10.0
    for code, name in enumerate(names):
        needed = LETTER * len(name) + 28
        if x > 10 and x + needed > width:
            x, y = 10.0, y + 16
        shape = _dot(code, 9) if dots else f'style="fill:none;stroke:{COLOURS[code % len(COLOURS)]};stroke-width:2"'
        mark = f"M{x + 5:.1f} {y - 3.5:.1f}h0" if dots else f"M{x:.1f} {y - 3.5:.1f}h12"
        pieces.append(f'<path d="{mark}" {shape}{"" if dots else _dashes(code)}/>')
        pieces.append(_text(x + 16, y, name))
        x += needed
    return pieces, y + 8


def _dot(code: int, size: float = 3.4) -> str:
    cap = "round" if code < len(COLOURS) else "square"
    style = (
        f"fill:none;stroke:{COLOURS[code % len(COLOURS)]};stroke-width:{size};stroke-linecap:{cap};stroke-opacity:.75"
    )
    return f'style="{style}"'


def _dashes(code: int) -> str:
    return "" if code < len(COLOURS) else ' stroke-dasharray="5 3"'


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "400", colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" font-weight="{weight}" '
        f'font-family="system-ui, sans-serif" style="fill:{colour}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, pieces: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(pieces)}</svg>'
    )
