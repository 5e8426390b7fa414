"""Globs over whole posix paths. What `*`, `?` and `**/` mean is decided here alone."""

import re
from collections.abc import Iterable
from functools import lru_cache

_STARS = re.compile(r"\*+")


def _pattern(glob: str) -> str:
    """Write a glob as a regular expression over a whole path."""
    *folders, name = glob.split("/")
    return "".join("(?:.*/)?" if part == "**" else f"{_part(part)}/" for part in folders) + _part(name)


def _part(part: str) -> str:
    """Write one part of a glob, between two slashes, as a regular expression."""
    # Atomic groups `(?>...)` take the text between two stars where it first comes, for good: a hostile glob of a hundred
    # stars would otherwise be tried in all the ways there are. Nothing is lost by it, since another star follows.
    first, *others = (
        "".join("[^/]" if letter == "?" else re.escape(letter) for letter in text) for text in _STARS.split(part)
    )
    if not others:
        return first
    anything = ".*" if "**" in part else "[^/]*"
    *middle, last = others
    return first + "".join(f"(?>{anything}?{text})" for text in middle) + anything + last


def any_of(globs: Iterable[str], below: str = "") -> re.Pattern[str]:
    """Compile globs into one pattern for `fullmatch`. below: a folder that the globs start from, with its slash."""
    return _compiled(tuple(globs), below)


# Kept, because a few globs are asked of every path of a cohort.
@lru_cache(maxsize=256)
def _compiled(globs: tuple[str, ...], below: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(below)}(?:{'|'.join(map(_pattern, globs))})", re.DOTALL)


def fits(path: str, globs: Iterable[str]) -> bool:
    """Say whether one of the globs fits a path: `*` and `?` stay inside a folder, `**/` is any folders or none.

    >>> fits("a/b/1.hea", ["**/*.hea"]), fits("a/1.hea", ["*.hea"]), fits("a[1].hea", ["a[1].*"])
    (True, False, True)
    """
    return any_of(globs).fullmatch(path) is not None
