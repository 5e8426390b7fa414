"""Arguments and options: what they are called in help, what they accept, and how shells complete them.

The types of click are not used: their refusals are worded by click, and these say what was found and what was expected.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from ecgcohorts import plugins
from ecgcohorts.errors import did_you_mean


class Number(click.ParamType):
    """A number in a range; whole numbers only, if `kind` is int."""

    def __init__(self, kind: type[int] | type[float], expected: str, fits: Callable[[float], bool]) -> None:
        self.kind, self.expected, self.fits = kind, expected, fits
        self.name = "N" if kind is int else "X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self.kind(value)
        except ValueError:
            number = None
        if number is None or not self.fits(number):
            _refuse(value, self.expected, param, ctx)
        return number


# The comparisons are false for NaN, which `float` accepts as text.
COUNT = Number(int, "a whole number greater than 0", lambda value: value > 0)
NATURAL = Number(int, "a whole number, 0 or greater", lambda value: value >= 0)
INTEGER = Number(int, "a whole number", lambda value: True)
POSITIVE = Number(float, "a number greater than 0", lambda value: 0 < value < float("inf"))
FRACTION = Number(float, "a number from 0 to 1", lambda value: 0 <= value <= 1)
REAL = Number(float, "a number", lambda value: value == value)


class OneOf(click.ParamType):
    """One of a few words. Help shows all of them, or `metavar` where they are many."""

    def __init__(self, *words: str, metavar: str = "") -> None:
        self.words = words
        self.name = metavar or "|".join(words)

    # click asks a type for its own form of words in help; otherwise it would write the name in capitals.
    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.words:
            expected = f"one of {', '.join(map(repr, self.words))}"
            _refuse(value, expected, param, ctx, did_you_mean(str(value), self.words))
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class Name(click.ParamType):
    """A name that the library looks up, and refuses with the names there are; or the path of a file, where it takes one.

    known: returns the names, for completion only.
    """

    def __init__(self, metavar: str, known: Callable[[], Iterable[str]] = tuple, or_file: bool = False) -> None:
        self.name, self.known, self.or_file = metavar, known, or_file

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # Names first: files would drown them, and whoever wants a file has typed the beginning of its path.
        found = [CompletionItem(name) for name in self.known() if name.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if self.or_file else [])


class Place(click.ParamType):
    """A path, as a Path; a file or folder that may as well be a URL stays text. Whether it exists, the library says."""

    def __init__(self, metavar: str, is_folder: bool = False, or_url: bool = False) -> None:
        self.name, self.is_folder, self.or_url = metavar, is_folder, or_url

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        if not str(value):
            _refuse(value, "a path", param, ctx)
        # Path("s3://bucket/x") would make s3:/bucket/x of a URL.
        return str(value) if self.or_url else Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir" if self.is_folder else "file")]


# Metavars are nouns a reader knows from the documents, not types: STORE and FILE, not PATH; N, not INTEGER.
TEXT = Name("TEXT")
FILE = Place("FILE")
FOLDER = Place("FOLDER", is_folder=True)
STORE = Place("STORE", is_folder=True, or_url=True)
SOURCE = Place("SOURCE", or_url=True)
COHORT = Name("NAME|FILE", lambda: plugins.names("ecgcohorts.cohorts.presets"), or_file=True)


def _refuse(
    value: Any, expected: str, param: click.Parameter | None, ctx: click.Context | None, remedy: str = ""
) -> NoReturn:
    raise click.BadParameter(f"found {str(value)!r}, expected {expected}.{remedy}", ctx, param)


class Argument(click.Argument):
    """An argument with a line about it in help: before 8.5, click has these for options only."""

    def __init__(self, *args: Any, about: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.about = about


def argument(name: str, type: click.ParamType, about: str, **kwargs: Any) -> Callable[[Any], Any]:
    """Declare an argument; several values with nargs=-1."""
    return click.argument(name, type=type, about=about, cls=Argument, **kwargs)


def option(*names: str, type: click.ParamType | None = None, help: str, **kwargs: Any) -> Callable[[Any], Any]:
    """Declare an option. Its default is shown in help; a flag has no type."""
    if type is not None and kwargs.get("default") is not None:
        # A default of None has no word; such an option says in its help what happens without it.
        kwargs.setdefault("show_default", True)
    return click.option(*names, type=type, help=help, **kwargs)


key = option("--key", type=FILE, help="pseudonym key file; default: one in your configuration folder")
stores = argument("store", STORE, "store; several are read as one", nargs=-1, required=True)
also = option("--also", type=STORE, multiple=True, help="another store to read as one with the first; repeat for more")
within = option("--within", type=Name("SPLIT=PART"), help="only the recordings of that part of a split")
