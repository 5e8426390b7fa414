"""Docstrings are plain text for people at a terminal; this makes them safe for reStructuredText.

Paragraphs stay paragraphs, with marks such as `*` taken literally. Whatever is laid out by hand (trees, indented blocks)
is shown as it stands.
"""

import re
from itertools import groupby

from pydantic import BaseModel
from sphinx.application import Sphinx

MARKS = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")
LONGEST_DEFAULT = 60
CODE = re.compile(r"(`[^`]+`)")
ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?(?:numpy|typing)\.(\w+)\]\]")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}


def shorten(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Signatures as they are written: NDArray by its element type, `...` for a default made by a factory."""
    if signature is None:
        return None
    arguments = ARRAY.sub(r"NDArray[\1]", signature).replace("<factory>", "...")
    return arguments, ARRAY.sub(r"NDArray[\1]", returns) if returns else returns


def rewrite(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Replace the lines of a docstring by reStructuredText that shows the same text; specs list their fields."""
    out: list[str] = []
    for is_text, group in groupby(lines, key=lambda line: bool(line.strip())):
        out += paragraph(list(group)) if is_text else [""]
    if isinstance(obj, type) and issubclass(obj, BaseModel):
        out += ["", *fields(obj), ""]
    lines[:] = out


def fields(model: type[BaseModel]) -> list[str]:
    """A list of the fields of a spec: name, default, and what its description says."""
    lines = []
    for name, info in model.model_fields.items():
        default = (
            "" if info.is_required() else f" = ``{info.get_default(call_default_factory=True, validated_data={})!r}``"
        )
        if len(default) > LONGEST_DEFAULT:
            default = " = ..."
        lines.append(f"- ``{name}``{default}{': ' + literally(info.description) if info.description else ''}")
    return lines


def paragraph(lines: list[str]) -> list[str]:
    """One paragraph, as text or as a literal block."""
    if lines[0].startswith(">>> "):
        return lines
    by_hand = any(line.startswith((" ", "\t")) or "──" in line for line in lines)
    if by_hand or re.match(r"\S+ {2,}\S", lines[0]):
        return ["::", "", *("    " + line for line in lines), ""]
    return [literally(line) for line in lines]


def literally(line: str) -> str:
    """Text with every mark of reStructuredText taken as it is, except `code`."""
    return "".join(part if part.startswith("`") else MARKS.sub(r"\\\1", part) for part in CODE.split(line))
