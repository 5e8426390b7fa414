"""What the command lines of both packages share: output, progress bars, and one line instead of a traceback."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NoReturn

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, ValidationError
from pydantic_settings import CliApp, SettingsError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ecgcohorts.errors import EcgError

EXIT_ERROR = 2
EXIT_DAMAGED = 4  # verify found problems
EXIT_STOPPED = 130  # by Ctrl-C, as shells report it


class Command(BaseModel):
    """Base of all subcommands: unknown options are refused."""

    model_config = ConfigDict(extra="forbid")


def short(letter: str, name: str) -> AliasChoices:
    """An option of two names: `-o` and `--out`."""
    return AliasChoices(letter, name)


def whole_names(words: list[str]) -> list[str]:
    """Names of files, of which pydantic-settings has cut those with a comma in two: joined where that is what exists.

    >>> whole_names(["a.zarr", "b.zarr"])
    ['a.zarr', 'b.zarr']
    """
    names = []
    while words:
        joined = (count for count in range(len(words), 1, -1) if os.path.exists(",".join(words[:count])))
        count = next(joined, 1)
        names.append(",".join(words[:count]))
        words = words[count:]
    return names


StoreNames = Annotated[list[str], AfterValidator(whole_names)]  # one store, or several to be read as one


def output() -> Console:
    """Standard output for results. Text is printed as it is: paths may hold square brackets."""
    return Console(soft_wrap=True, highlight=False, markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, told (what, done, total); silence where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def fail(program: str, message: str, code: int = EXIT_ERROR) -> NoReturn:
    """Say in one line on standard error what is wrong, and end."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def run(app: type[BaseModel], program: str, arguments: Sequence[str]) -> None:
    """Run a command line. Errors that a user can mend give one line and exit code 2, never a traceback."""
    try:
        CliApp.run(app, cli_args=list(arguments))
    except ValidationError as error:
        first = error.errors()[0]
        fail(program, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}. See --help.")
    except (EcgError, SettingsError) as error:
        fail(program, str(error))
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # disk full, no permission, a folder in a file's place
        what = error.strerror or error
        fail(program, f"{error.filename or 'a file'}: {what}. Mend it, and run the same command again.")
    except KeyboardInterrupt:
        fail(program, "stopped. The same command goes on from here.", EXIT_STOPPED)
