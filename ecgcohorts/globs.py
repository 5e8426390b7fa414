"""Globs over whole posix paths: the one place that says what `*`, `?` and `**/` mean."""

import re
from collections.abc import Iterable
from functools import lru_cache

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob_pattern(glob: str) -> str:
    """A glob as a regular expression over a whole path: `*` and `?` stay inside a folder, `**/` is any folders or none.

    >>> fits("a/b/1.hea", ["**/*.hea"]), fits("a/1.hea", ["*.hea"]), fits("a[1].hea", ["a[1].*"])
    (True, False, True)
    """
    return "".join(_MEANING.get(token) or re.escape(token) for token in _TOKEN.findall(glob))


def any_of(globs: Iterable[str], below: str = "") -> re.Pattern[str]:
    """What matches (`fullmatch`) a path that one of the globs fits. below: a folder they start from, with its slash."""
    return _compiled(tuple(globs), below)


@lru_cache(maxsize=256)
def _compiled(globs: tuple[str, ...], below: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(below)}(?:{'|'.join(map(glob_pattern, globs))})", re.DOTALL)


def fits(path: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs fits a path."""
    return any_of(globs).fullmatch(path) is not None
