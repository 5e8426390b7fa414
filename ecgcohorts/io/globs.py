"""Globs over whole posix paths: the one place that says what `*`, `?` and `**/` mean."""

import re
from collections.abc import Iterable
from functools import lru_cache

_STARS = re.compile(r"\*+")


def glob_pattern(glob: str) -> str:
    """A glob as a regular expression over a whole path: `*` and `?` stay inside a folder, `**/` is any folders or none.

    >>> fits("a/b/1.hea", ["**/*.hea"]), fits("a/1.hea", ["*.hea"]), fits("a[1].hea", ["a[1].*"])
    (True, False, True)
    """
    *folders, name = glob.split("/")
    return "".join("(?:.*/)?" if part == "**" else f"{_part(part)}/" for part in folders) + _part(name)


def _part(part: str) -> str:
    """What stands between two slashes. Texts between two stars are taken where they first come, for good (`(?>...)`): a
    glob of a hundred stars must not be tried in all the ways there are."""
    first, *others = (
        "".join("[^/]" if letter == "?" else re.escape(letter) for letter in text) for text in _STARS.split(part)
    )
    if not others:
        return first
    anything = ".*" if "**" in part else "[^/]*"
    *middle, last = others
    return first + "".join(f"(?>{anything}?{text})" for text in middle) + anything + last


def any_of(globs: Iterable[str], below: str = "") -> re.Pattern[str]:
    """What matches (`fullmatch`) a path that one of the globs fits. below: a folder they start from, with its slash."""
    return _compiled(tuple(globs), below)


@lru_cache(maxsize=256)
def _compiled(globs: tuple[str, ...], below: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(below)}(?:{'|'.join(map(glob_pattern, globs))})", re.DOTALL)


def fits(path: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs fits a path."""
    return any_of(globs).fullmatch(path) is not None
