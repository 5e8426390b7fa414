"""Charts as SVG text in the colours of `page`: bars, lines, intervals and dots, for light and dark screens and print.

Every colour names its light value as well, so that a picture saved on its own looks the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

import numpy as np
from numpy.typing import NDArray

# The colours that the style of `page` defines, with its light values behind the comma.
_COLOURS = tuple(
    f"var(--c{place},{light})"
    for place, light in enumerate(
        ("#1f6f8b", "#c8553d", "#6a994e", "#7b4fa3", "#b8860b", "#46627f", "#a33b6f", "#2f8f83"), start=1
    )
)
# Our default, from low to high: neither so dark nor so light that a step is lost on one of the two backgrounds.
_RAMP = ("#4a63b5", "#2f8aa8", "#2f9c86", "#7aa63c", "#c79a2b", "#d0603c")
_INK, _FAINT, _RULE = "var(--ink,#1c2430)", "var(--faint,#5b6675)", "var(--rule,#d9dee5)"
# For a picture of its own on a dark screen; those of the page's style, which it does not see.
_AT_NIGHT = (
    "<style>@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--faint:#9aa6b5;--rule:#343d49;"
    "--c1:#62b6d4;--c2:#f08a70;--c3:#9ccb7c;--c4:#bb95e0;--c5:#e0b84a;--c6:#8fb0d2;--c7:#e585b4;--c8:#66cbbd}}</style>"
)
_BARS, _LINES = (360, 190), (420, 250)  # px, width and height without the legend
_MAP_SIDE = 380  # px, of the square a map is drawn in
# Our default, in px: the mean width of a letter at 11 px. The page has no script to measure text, so legends are laid out by it.
_LETTER = 6.2
# Our default: a map is drawn in so many rounds of all names, so that the last name does not cover the others.
_LAYERS = 8

Limits = tuple[float | None, float, float | None]  # low, value, high


def on_its_own(svg: str) -> str:
    """Return a chart for a file: outside a page it follows the screen by itself, light or dark."""
    head, rest = svg.split(">", 1)
    return f"{head}>{_AT_NIGHT}{rest}"


def stacked_bars(title: str, bins: Sequence[str], parts: Mapping[str, Sequence[int]], axis: str = "") -> str:
    """Return a bar for each bin, made of one piece per part, with a legend.

    parts: name -> counts, one per bin. All texts are escaped. Raises ValueError if a part has another length.
    """
    if any(len(counts) != len(bins) for counts in parts.values()):
        raise ValueError(
            f"found {[len(counts) for counts in parts.values()]} counts, expected {len(bins)} for each part"
        )
    # The axis must hold the whole bar, not its largest piece.
    totals = [sum(counts[place] for counts in parts.values()) for place in range(len(bins))]
    left, right, top, bottom = 48, _BARS[0] - 8, 26, _BARS[1] - 28
    # Counts of patients: half a patient is no tick.
    y_ticks, pieces = _rules(_ticks(0, max(totals, default=0) or 1, 5, least_step=1), (left, right, top, bottom))
    scale, wide = (bottom - top) / y_ticks[-1], (right - left) / max(len(bins), 1)
    for place, name in enumerate(bins):
        y, x = float(bottom), left + place * wide
        for colour, (part, counts) in zip(_COLOURS, parts.items(), strict=False):
            length = counts[place] * scale
            y -= length
            tip = f"<title>{escape(f'{name}, {part}: {counts[place]:,}')}</title>"
            box = f'x="{x + 1:.1f}" y="{y:.2f}" width="{wide - 2:.1f}" height="{length:.2f}"'
            pieces.append(f'<rect {box} style="fill:{colour}">{tip}</rect>')
        pieces.append(_text(x + wide / 2, bottom + 13, name, anchor="middle"))
    pieces.append(_text(right, bottom + 27, axis, anchor="end", colour=_FAINT))
    return _svg(title, _BARS, pieces, _legend(list(parts), _BARS))


def lines(
    title: str,
    series: Mapping[str, tuple[NDArray, NDArray]],
    x_label: str,
    y_label: str = "",
    *,
    dashed: Collection[str] = (),
    log: bool = False,
) -> str:
    """Return lines over common axes. series: name -> (x, y); a line breaks where y is NaN.

    dashed: names of series that belong to the one before: they have its colour, and no entry in the legend. log: powers of ten on the y axis, where
    a line also breaks at what is not above 0.
    """
    if log:
        series = {name: (x, np.log10(np.where(y > 0, y, np.nan))) for name, (x, y) in series.items()}
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in series.values()]
    all_x = np.concatenate([np.zeros(1), *(x for x, _ in finite)])
    all_y = np.concatenate([y for _, y in finite]) if any(len(y) for _, y in finite) else np.array([0.0, 1.0])
    x_ticks = _ticks(0.0, float(all_x.max()))
    left, right, top, bottom = 46, _LINES[0] - 10, 44, _LINES[1] - 30
    at = _ticks(float(all_y.min()), float(all_y.max()), least_step=float(log))
    y_ticks, rules = _rules(at, (left, right, top, bottom), _power_of_ten if log else _plain_number)

    def px(x: float) -> float:
        return left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left)

    def py(y: float) -> float:
        return bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    pieces = [_text(10, 34, y_label, colour=_FAINT), *rules]
    pieces += [_text(px(tick), bottom + 14, f"{tick:g}", anchor="middle") for tick in x_ticks]
    pieces.append(_text(right, bottom + 30, x_label, anchor="end", colour=_FAINT))
    code = -1
    for name, (x, y) in series.items():
        is_dashed = name in dashed
        code += not is_dashed
        # A line of one point is no line: draw it as a dot.
        thick = 2 if np.isfinite(y).sum() > 1 else 6
        pieces.append(f'<path d="{_polyline(x, y, px, py)}" {_stroke(max(code, 0), thick)}{_dashes(code, is_dashed)}/>')
    names = [name for name in series if name not in dashed]
    marks = [_stroke(code, 2) + _dashes(code) for code in range(len(names))]
    return _svg(title, _LINES, pieces, _legend(names, _LINES, marks))


def dots(
    title: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[Sequence[float]]],
    x_label: str,
    y_label: str = "",
    *,
    log_from: float = 0.0,
    reference: tuple[str, float] | None = None,
    hollow: Mapping[str, Sequence[Collection[int]]] | None = None,
) -> str:
    """Return a dot for every value and a bar for their mean: a column per name and, within it, a strip per series.

    series: name -> values for each of `names`, none where there are none. hollow: name -> places, for each of `names`, of
    values that are drawn as rings and are no part of the mean. log_from: the y axis is linear up to it and has
    a power of ten a step above; values may then not be negative. reference: name and value of a dashed line.
    """

    # Values from 0 to thousands: a linear axis shows the largest alone, and a logarithmic one has no 0.
    def scaled(y: float) -> float:
        return y if not log_from else 1 + log10(y / log_from) if y > log_from else y / log_from

    def shown(tick: float) -> str:
        return f"{log_from * 10 ** (tick - 1):g}" if log_from and tick else _plain_number(tick)

    left, right, top, bottom = 46, _LINES[0] - 10, 44, _LINES[1] - 30
    known = [scaled(value) for columns in series.values() for column in columns for value in column]
    known += [scaled(reference[1])] if reference else []
    # A whole step is a power of ten; half of one has no round number.
    at = _ticks(min(known, default=0.0), max(known, default=1.0), least_step=float(log_from > 0))
    y_ticks, pieces = _rules(at, (left, right, top, bottom), shown)
    column, strip = (right - left) / max(len(names), 1), (right - left) / max(len(names), 1) * 0.8 / max(len(series), 1)

    def py(value: float) -> float:
        return bottom - (scaled(value) - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    # Beside the label: text at the line itself would lie among the dots.
    told = "; ".join(filter(None, (y_label, f"dashed: {reference[0]}" if reference else "")))
    pieces.insert(0, _text(10, 34, told, colour=_FAINT))
    pieces.append(_text(right, bottom + 30, x_label, anchor="end", colour=_FAINT))
    for place, name in enumerate(names):
        pieces.append(_text(left + (place + 0.5) * column, bottom + 14, name, anchor="middle"))
        for code, (label, columns) in enumerate(series.items()):
            middle = left + (place + 0.5) * column + (code - (len(series) - 1) / 2) * strip
            rings = hollow[label][place] if hollow else ()
            meant = [value for order, value in enumerate(columns[place]) if order not in rings]
            tips = [f"{label}, {name}: {value:.3g}" for value in columns[place]]
            mean = py(float(np.mean(meant))) if meant else None
            pieces += _strip((middle, strip), list(map(py, columns[place])), tips, mean, rings, code)
    if reference:
        pieces.append(
            f'<path d="M{left} {py(reference[1]):.1f}H{right}" style="stroke:{_FAINT};stroke-dasharray:2 4"/>'
        )
    return _svg(title, _LINES, pieces, _legend(list(series), _LINES))


def _strip(
    at: tuple[float, float],
    y: Sequence[float],
    tips: Sequence[str],
    mean: float | None,
    rings: Collection[int],
    code: int,
) -> list[str]:
    """Return the dots of one series in one column, rings for some of them, and a bar. at: middle and width, in px."""
    middle, width = at
    # Side by side in the order given, so that a value has its place in every column, and equal ones show.
    step, pieces = min(3.0, width * 0.8 / max(len(y), 1)), []
    for order, one in enumerate(y):
        x, tip = middle + (order - (len(y) - 1) / 2) * step, f"<title>{escape(tips[order])}</title>"
        if order in rings:
            pieces.append(f'<circle cx="{x:.1f}" cy="{one:.1f}" r="2" {_stroke(code, 1)}>{tip}</circle>')
        else:
            pieces.append(f'<path d="M{x:.1f} {one:.1f}h0" {_dot(code, 5)}>{tip}</path>')
    if mean is not None:
        half = min(width / 2, 16.0)
        pieces.append(f'<path d="M{middle - half:.1f} {mean:.1f}h{2 * half:.1f}" {_stroke(code, 1.5, "butt")}/>')
    return pieces


def intervals(title: str, names: Sequence[str], series: Mapping[str, Sequence[Limits | None]], axis: str) -> str:
    """Return values with their intervals as dots on bars, one row per name and, within it, one line per series.

    series: name -> (low, value, high) for each of `names`, None where there is none; a value without limits has no bar.
    """
    # Names stand left of the axis, so the longest decides where it begins.
    left, right, top = round(18 + _LETTER * max(map(len, names), default=0)), _LINES[0] - 14, 26
    # px between two series of a row, and between two rows.
    pitch, gap = 11, 9
    known = [number for row in series.values() for cell in row if cell for number in cell if number is not None]
    x_ticks = _ticks(min(known, default=0.0), max(known, default=1.0))
    bottom = top + len(names) * (pitch * len(series) + gap)

    def px(x: float) -> float:
        return left + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left)

    pieces = [f'<path d="M{px(tick):.1f} {top}V{bottom}" style="stroke:{_RULE}"/>' for tick in x_ticks]
    pieces += [_text(px(tick), bottom + 14, f"{tick:g}", anchor="middle") for tick in x_ticks]
    pieces.append(_text(right, bottom + 30, axis, anchor="end", colour=_FAINT))
    for place, name in enumerate(names):
        y = top + place * (pitch * len(series) + gap) + gap / 2 + pitch / 2
        pieces.append(_text(left - 8, y + pitch * (len(series) - 1) / 2 + 4, name, anchor="end"))
        for code, row in enumerate(series.values()):
            if cell := row[place]:
                low, value, high = cell
                at = y + pitch * code
                if low is not None and high is not None:
                    pieces.append(f'<path d="M{px(low):.1f} {at:.1f}H{px(high):.1f}" {_stroke(code, 2)}/>')
                tip = f"<title>{escape(f'{list(series)[code]}, {name}: {value:.3g}')}</title>"
                pieces.append(f'<path d="M{px(value):.1f} {at:.1f}h0" {_dot(code, 7)}>{tip}</path>')
    return _svg(title, (_LINES[0], bottom + 32), pieces, _legend(list(series), (_LINES[0], bottom + 32)))


def columns(title: str, names: Sequence[str], series: Mapping[str, Sequence[Limits | None]], axis: str) -> str:
    """Return values with their intervals upright: a column per name and, within it, one line per series.

    The same as `intervals`, for pictures that are read from column to column. Raises ValueError if a series has another
    length than `names`.
    """
    if any(len(row) != len(names) for row in series.values()):
        raise ValueError(f"found {[len(row) for row in series.values()]} values, expected {len(names)} for each series")
    longest = _LETTER * max(map(len, names), default=0)
    # px between two series of a column; columns share what the width leaves.
    pitch, top, bottom = 9, 44, 250
    wide = max(pitch * len(series) + 14.0, (_LINES[0] - 60) / max(len(names), 1))
    # Names that do not fit below their column lean, and the first of them needs room to its left.
    leans = longest > wide - 6
    left = round(max(46, 0.87 * longest - wide / 2 + 8)) if leans else 46
    right = left + round(wide * len(names))
    known = [number for row in series.values() for cell in row if cell for number in cell if number is not None]
    y_ticks, rules = _rules(_ticks(min(known, default=0.0), max(known, default=1.0)), (left, right, top, bottom))

    def py(y: float) -> float:
        return bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    pieces = [_text(10, 34, axis, colour=_FAINT), *rules]
    for place, name in enumerate(names):
        middle = left + (place + 0.5) * wide
        label = _text(middle, bottom + 16, name, anchor="end" if leans else "middle")
        pieces.append(f'<g transform="rotate(-30 {middle:.1f} {bottom + 12})">{label}</g>' if leans else label)
        for code, (whose, row) in enumerate(series.items()):
            if cell := row[place]:
                low, value, high = cell
                x = middle + (code - (len(series) - 1) / 2) * pitch
                if low is not None and high is not None:
                    pieces.append(f'<path d="M{x:.1f} {py(low):.1f}V{py(high):.1f}" {_stroke(code, 2)}/>')
                tip = f"<title>{escape(f'{whose}, {name}: {value:.3g}')}</title>"
                pieces.append(f'<path d="M{x:.1f} {py(value):.1f}h0" {_dot(code, 7)}>{tip}</path>')
    size = (max(_LINES[0], right + 10), bottom + round(24 + (0.5 * longest if leans else 0)))
    return _svg(title, size, pieces, _legend(list(series), size))


def scatter(
    title: str, points: NDArray[np.float64], codes: NDArray[np.int64], names: Sequence[str], *, ordered: bool = False
) -> str:
    """Return dots of one colour per name on one scale for both axes. points: (point, 2).

    codes: place in `names`; a point of another code is not drawn. After eight names colours come again, with squares for dots.
    ordered: the names are steps of one quantity, and their colours a ramp.
    """
    marks = [_on_ramp(code, len(names), 3.4) if ordered else _dot(code) for code in range(len(names))]
    # One scale for both axes: distances in a map must not depend on the direction.
    spread = np.ptp(points, axis=0) if len(points) else np.zeros(2)
    middle = points.min(axis=0) + spread / 2 if len(points) else np.zeros(2)
    scale = (_MAP_SIDE - 20) / max(float(spread.max()), 1e-9)
    top, centre = 24, _MAP_SIDE / 2
    pieces = [
        f'<rect x="0.5" y="{top}" width="{_MAP_SIDE - 1}" height="{_MAP_SIDE}" style="fill:none;stroke:{_RULE}"/>'
    ]
    for layer in range(_LAYERS):
        for code in range(len(names)):
            mine = np.flatnonzero(codes == code)[layer::_LAYERS]
            if len(mine):
                # y of a picture grows downwards, y of a map upwards.
                xy = (points[mine] - middle) * (scale, -scale) + (centre, top + centre)
                pieces.append(f'<path d="{"".join(f"M{x:.1f} {y:.1f}h0" for x, y in xy)}" {marks[code]}/>')
    size = (_MAP_SIDE, top + _MAP_SIDE)
    strokes = [_on_ramp(code, len(names), 3) for code in range(len(names))] if ordered else None
    return _svg(title, size, pieces, _legend(names, size, strokes))


def _ticks(low: float, high: float, at_most: int = 6, least_step: float = 0.0) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, in steps of 1, 2 or 5 times a power of ten.

    >>> _ticks(0.0, 500.0), _ticks(2.9, 4.1)
    ([0.0, 100.0, 200.0, 300.0, 400.0, 500.0], [2.5, 3.0, 3.5, 4.0, 4.5])
    """
    span = high - low if high > low else max(abs(high), 1.0)
    power = 10.0 ** floor(log10(span / (at_most - 1)))
    # The tolerance absorbs rounding: a span of 0.1 + 0.2 fits the ticks of 0.3.
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * (at_most - 1) >= span * (1 - 1e-9))
    step = max(step, least_step)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _plain_number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _power_of_ten(value: float) -> str:
    return f"{10**value:g}"


def _rules(
    at: list[float], box: tuple[int, int, int, int], shown: Callable[[float], str] = _plain_number
) -> tuple[list[float], list[str]]:
    """Return the ticks of the y axis, and a rule with its number for each. box: left, right, top, bottom in px."""
    left, right, top, bottom = box
    pieces = []
    for tick in at:
        y = bottom - (tick - at[0]) / (at[-1] - at[0]) * (bottom - top)
        pieces.append(f'<path d="M{left} {y:.1f}H{right}" style="stroke:{_RULE}"/>')
        pieces.append(_text(left - 5, y + 3.5, shown(tick), anchor="end"))
    return at, pieces


def _polyline(x: NDArray, y: NDArray, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    """Return path data. A new piece begins after every NaN, with a dot, so that a point on its own shows."""
    path: list[str] = []
    pen = "M"
    for at, value in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(value):
            path.append(f"{pen}{px(at):.1f} {py(value):.1f}" + ("h0" if pen == "M" else ""))
            pen = "L"
        else:
            pen = "M"
    return "".join(path)


def _legend(
    names: Sequence[str], size: tuple[int, int], strokes: Sequence[str] | None = None
) -> tuple[list[str], float]:
    """Return marks and names below a picture, in as many rows as they need, and the height of the whole.

    strokes: style of a short line for each name; without them a dot in each name's colour.
    """
    pieces, x, y = [], 10.0, size[1] + 16.0
    for code, name in enumerate(names):
        needed = _LETTER * len(name) + 28
        if x > 10 and x + needed > size[0]:
            x, y = 10.0, y + 16
        mark = f"M{x:.1f} {y - 3.5:.1f}h12" if strokes else f"M{x + 5:.1f} {y - 3.5:.1f}h0"
        pieces.append(f'<path d="{mark}" {strokes[code] if strokes else _dot(code, 9)}/>')
        pieces.append(_text(x + 16, y, name))
        x += needed
    return pieces, y + 8


def _stroke(code: int, width: float, cap: str = "round") -> str:
    colour = _COLOURS[code % len(_COLOURS)]
    return f'style="fill:none;stroke:{colour};stroke-width:{width};stroke-linecap:{cap}"'


def _dot(code: int, size: float = 3.4) -> str:
    # A line of no length with a round cap is a dot: thousands of them fit in one path.
    return _stroke(code, size, "round" if code < len(_COLOURS) else "square") + ' stroke-opacity=".75"'


def _on_ramp(code: int, steps: int, width: float) -> str:
    colour = _RAMP[round(code / max(steps - 1, 1) * (len(_RAMP) - 1))]
    return f'style="fill:none;stroke:{colour};stroke-width:{width};stroke-linecap:round" stroke-opacity=".75"'


def _dashes(code: int, is_dashed: bool = False) -> str:
    # Short dashes where a line is meant to be dashed, long ones where the colours come again.
    return ' stroke-dasharray="2 4"' if is_dashed else "" if code < len(_COLOURS) else ' stroke-dasharray="7 3"'


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "400", colour: str = _INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" font-weight="{weight}" '
        f'font-family="system-ui, sans-serif" style="fill:{colour}">{escape(text)}</text>'
    )


def _svg(title: str, size: tuple[int, int], pieces: Sequence[str], legend: tuple[list[str], float]) -> str:
    width, height = size[0], legend[1]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(title)}">{_text(10, 15, title, weight="600")}{"".join(pieces)}{"".join(legend[0])}</svg>'
    )
