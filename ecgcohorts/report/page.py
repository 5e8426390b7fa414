"""Self-contained HTML pages without script, fonts or pictures from elsewhere. They can be mailed and printed.

Text from files, stores and people is escaped. Only the functions here and the SVG writers of this package make markup;
they mark it with `Markup`, so that a plain string never becomes a tag.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isnan
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ecgcohorts.errors import SourceError

# Shown where a number is unknown.
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Section:
    """One heading of a page. A plain string given as `html` is shown as text; wrap markup of your own in `Markup`."""

    title: str
    html: str


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """Return the whole page, readable on light and dark screens and on paper.

    Charts can use the style's colours: `var(--c1)` to `var(--c8)`, `var(--ink)`, `var(--faint)`, `var(--rule)`.
    """
    return _template().render(title=title, sections=sections, subtitle=subtitle)


def paragraph(text: str) -> Markup:
    """Return a paragraph of plain text."""
    return Markup("<p>{}</p>\n").format(text)


def heading(text: str) -> Markup:
    """Return a heading inside a section."""
    return Markup("<h3>{}</h3>\n").format(text)


def facts(values: Mapping[str, object]) -> Markup:
    """Return names and values side by side."""
    pairs = [Markup("<dt>{}</dt><dd>{}</dd>\n").format(name, cell(value)) for name, value in values.items()]
    return Markup("<dl>\n{}</dl>\n").format(_join(pairs))


def figure(svg: str, caption: str = "") -> Markup:
    """Return a figure around an SVG picture.

    svg: markup written by this package's own writers, which escape every text they are given.
    """
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>\n").format(Markup(svg), caption)


def table(frame: pd.DataFrame, caption: str = "") -> Markup:
    """Return a table with the frame's index as first column: text to the left, numbers to the right.

    A row whose cells are all empty text is a heading of the rows below it.
    """
    names = [frame.index.name or "", *frame.columns]
    # Long names of columns break after an underscore; without this they push a table off the page.
    breaks = Markup("_<wbr>")
    head = _join([Markup("<th>{}</th>").format(breaks.join(str(name).split("_"))) for name in names])
    body = _join([_row(name, list(row)) for name, row in zip(frame.index, frame.itertuples(index=False), strict=True)])
    top = Markup("<caption><span>{}</span></caption>").format(caption) if caption else Markup("")
    shell = Markup('<div class="scroll"><table>{}<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n')
    return shell.format(top, head, body)


def cell(value: object) -> str:
    """Return a value as a person reads it: 12,345; 0.1235; a dash for unknown; text as it is.

    >>> cell(12345), cell(0.123456), cell(float("nan"))
    ('12,345', '0.1235', '–')
    """
    if isinstance(value, str):
        return value
    # Before integers: True is one of them.
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        number = float(value)
        return NOTHING if isnan(number) else f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
    return NOTHING if value is None or value is pd.NA else str(value)


def write_text(out: Path, text: str) -> None:
    """Write a text file. Raises SourceError, with the reason in one line, if that fails."""
    write_bytes(out, text.encode())


def write_bytes(out: Path, data: bytes) -> None:
    """Write a file of bytes. Raises SourceError as `write_text` does."""
    try:
        out.write_bytes(data)
    except OSError as error:
        raise SourceError(
            f"{out}: cannot be written ({error.strerror}). Name a file in a folder that exists."
        ) from None


def _row(name: object, values: Sequence[object]) -> Markup:
    cells = [
        Markup('<td class="text">{}</td>' if _is_words(value) else "<td>{}</td>").format(cell(value))
        for value in values
    ]
    is_heading = all(isinstance(value, str) and not value for value in values)
    start = Markup('<tr class="group">' if is_heading else "<tr>")
    return start + Markup("<th>{}</th>{}</tr>\n").format(name, _join(cells))


def _join(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)


def _is_words(value: object) -> bool:
    """Tell text from a formatted number such as `1,234 (51%)`."""
    return isinstance(value, str) and not value[:1].isdigit() and value[:1] not in f"-+.<{NOTHING}"


@cache
def _template() -> Template:
    source = files("ecgcohorts.report").joinpath("page.html.jinja").read_text("utf-8")
    # Names of cohorts and labels come from files of strangers: escape whatever is not `Markup`.
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
