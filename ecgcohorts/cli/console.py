"""What commands print: one answer on standard output, progress and complaints on standard error."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ecgcohorts.cli._job_log import LOG
from ecgcohorts.cli._strangers import _visible

if TYPE_CHECKING:
    from rich.progress import TaskID

EXIT_NOT_FOUND = 1  # a look-up that finds nothing
EXIT_WRONG = 2
EXIT_REJECTED = 3  # more was refused than --max-reject-frac allows, nothing matched, or strangers share ids
EXIT_DAMAGED = 4
EXIT_STOPPED = 130  # by Ctrl-C, as shells report it

# Scripts branch on these numbers: they are never given another meaning. Help quotes this table, docs/cli.md has it too.
EXIT_CODES = {
    0: "done",
    EXIT_NOT_FOUND: "a look-up found nothing",
    EXIT_WRONG: "wrong use or wrong input; nothing is half done",
    EXIT_REJECTED: "more was refused than --max-reject-frac allows, nothing matched, or patients contradict themselves",
    EXIT_DAMAGED: "damage was found",
    EXIT_STOPPED: "stopped with Ctrl-C; the same command goes on from there",
}
_NAME_WIDTH = 24  # our default; names of formats, presets and recipes have up to 15 characters


@dataclass(frozen=True)
class Answer:
    """What a command found out or did, for programs and for people."""

    facts: Any  # what --json prints: reports (dataclasses, pydantic models), values of JSON, paths, numbers of numpy
    text: Any = ""  # what a person reads: text, or anything that rich prints
    complaint: str = ""  # a line for standard error, where `code` is not 0
    code: int = 0


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer in one of its two forms."""
    if as_json:
        # NaN is no JSON; jq and JavaScript refuse the whole document for it.
        print(json.dumps(_plain(answer.facts), indent=2, allow_nan=False))
    elif isinstance(answer.text, str):
        if answer.text:
            print(_visible(answer.text))
    else:
        from rich.console import Console
        from rich.segment import Segment, Segments

        # In a pipe nobody sees a width: a row stays one line, so that grep and awk find it whole.
        is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
        console = Console(highlight=False, markup=False, width=None if is_narrow else 1000)
        # After rich has laid the page out: its own codes stand in the style of a segment, those of others in the text.
        pieces = [Segment(_visible(one.text), one.style, one.control) for one in console.render(answer.text)]
        console.print(Segments(pieces))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, None for numbers that are not finite. Raises TypeError for anything else."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    # A measure that could not be taken is NaN here and null in JSON.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    # Not `asdict`: it copies deeply, and does not know numbers of numpy or models below.
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if hasattr(value, "item"):  # a scalar of numpy
        return _plain(value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"found a {type(value).__name__}, expected a value of JSON")


def table(rows: Sequence[Sequence[str]], columns: Sequence[str] = (), right: Sequence[int] = ()) -> Any:
    """Return rows as a table without lines. right: columns of numbers, by place. Long text folds, names last of all."""
    # rich takes 0.1 s to import: help and errors do without it.
    from rich.table import Table

    made = Table(box=None, pad_edge=False, show_header=bool(columns))
    for place in range(len(columns or rows[0])):
        made.add_column(
            columns[place] if columns else "",
            justify="right" if place in right else "left",
            # A longer name would take the room of all other columns, down to a letter each.
            no_wrap=place == 0 and all(len(row[0]) <= _NAME_WIDTH for row in rows),
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    return made


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on standard error, told (what, done, total); nothing where that is no terminal.

    The log of the command, if it has one, is told the same.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # Standard output belongs to the answer, which may go into a file or a pipe.
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # The bar vanishes when it is full: what stays on the screen is the answer.
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}
        log = click.get_current_context().meta[LOG]

        def tell(what: str, done: int, total: int) -> None:
            log.progress(what, done, total)
            if what not in tasks:
                tasks[what] = bar.add_task(_visible(what))
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def say(text: str) -> None:
    """Print a line on standard error while a command runs, such as what it will cost."""
    click.echo(_visible(text), err=True)


def fail(program: str, message: str, code: int = EXIT_WRONG) -> NoReturn:
    """Say in one line on standard error what is wrong, and end."""
    # One line whatever the message holds, so that logs of a thousand jobs can be searched by line. Names in a store, a
    # header or an archive are others' text, which may hold codes that a terminal obeys.
    shown = "".join(one if one.isprintable() else "?" for one in " ".join(message.split()))
    print(f"{program}: {shown}", file=sys.stderr)
    raise SystemExit(code)
