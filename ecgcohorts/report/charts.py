"""Small charts as inline SVG in the colours of `page`: they follow light and dark screens and print."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

COLOURS = tuple(f"var(--c{place})" for place in range(1, 9))  # defined by the style of `page`
WIDTH, HEIGHT = 360, 200  # px
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 26, 38


def stacked_bars(title: str, bins: Sequence[str], parts: Mapping[str, Sequence[int]], axis: str = "") -> str:
    """Return a bar for each bin, made of one piece per part, with a legend.

    parts: name -> counts, one per bin. All texts are escaped. Raises ValueError if a part has another length.
    """
    if any(len(counts) != len(bins) for counts in parts.values()):
        raise ValueError(
            f"found {[len(counts) for counts in parts.values()]} counts, expected {len(bins)} for each part"
        )
    totals = [sum(counts[place] for counts in parts.values()) for place in range(len(bins))]
    ticks = nice_ticks(max(totals, default=0))
    high, wide = HEIGHT - _TOP - _BOTTOM, (WIDTH - _LEFT - _RIGHT) / max(len(bins), 1)
    scale = high / ticks[-1]
    pieces = [_text(_LEFT, 14, title, anchor="start", weight="600")]
    for tick in ticks:
        y = _TOP + high - tick * scale
        pieces.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" style="stroke:var(--rule)"/>')
        pieces.append(_text(_LEFT - 5, y + 3.5, f"{tick:,}", anchor="end"))
    for place, name in enumerate(bins):
        top = float(_TOP + high)
        x = _LEFT + place * wide
        for colour, (part, counts) in zip(COLOURS, parts.items(), strict=False):
            length = counts[place] * scale
            top -= length
            tip = f"<title>{escape(f'{name}, {part}: {counts[place]:,}')}</title>"
            box = f'x="{x + 1:.1f}" y="{top:.2f}" width="{wide - 2:.1f}" height="{length:.2f}"'
            pieces.append(f'<rect {box} style="fill:{colour}">{tip}</rect>')
        pieces.append(_text(x + wide / 2, HEIGHT - _BOTTOM + 13, name))
    pieces.append(_text(_LEFT, HEIGHT - 6, axis, anchor="start"))
    pieces += _legend(list(parts))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">{"".join(pieces)}</svg>'


def nice_ticks(top: float, at_most: int = 5) -> list[int]:
    """Return whole numbers from 0 to at least `top` in steps of 1, 2 or 5 times a power of ten.

    >>> nice_ticks(37), nice_ticks(1), nice_ticks(0)
    ([0, 10, 20, 30, 40], [0, 1], [0, 1])
    """
    needed = max(top, 1) / (at_most - 1)
    power = 10 ** floor(log10(needed))
    step = max(1, round(next(factor for factor in (1, 2, 5, 10) if factor * power >= needed) * power))
    return [step * place for place in range(ceil(max(top, 1) / step) + 1)]


def _legend(names: Sequence[str]) -> list[str]:
    pieces, x = [], float(WIDTH - _RIGHT)
    for colour, name in reversed(list(zip(COLOURS, names, strict=False))):
        x -= 6.2 * len(name) + 24  # our default: mean width of a letter at 11 px
        pieces.append(f'<rect x="{x:.1f}" y="{HEIGHT - 15}" width="9" height="9" style="fill:{colour}"/>')
        pieces.append(_text(x + 13, HEIGHT - 6, name, anchor="start"))
    return pieces


def _text(x: float, y: float, text: str, anchor: str = "middle", weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" font-weight="{weight}" '
        f'style="fill:var(--ink)">{escape(text)}</text>'
    )
