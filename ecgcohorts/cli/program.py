"""The `ecgcohorts` program: commands collected from their files, help, and one line instead of a traceback.

Built on click and not on Typer: what click raises for wrong use is public and carries the facts that our own wording
needs, and the options of an evaluation, which are made from its configuration, are plain objects there.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from click.shell_completion import get_completion_class, shell_complete

import ecgcohorts
from ecgcohorts import plugins
from ecgcohorts.cli._job_log import LOG, _JobLog
from ecgcohorts.cli._memory import _complaint_about_memory
from ecgcohorts.cli._strangers import _shown_safely
from ecgcohorts.cli.console import EXIT_CODES, EXIT_REJECTED, EXIT_STOPPED, EXIT_WRONG, Answer, fail, show
from ecgcohorts.cli.parameters import FILE, Argument, OneOf
from ecgcohorts.errors import ContradictoryPatients, EcgError, NothingMatched, did_you_mean, needs_extra, require

WIDEST = 120  # columns of help, ours: longer lines are hard to read
SHELLS = ("bash", "fish", "zsh")
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST}


class _Formatter(click.HelpFormatter):
    """Headings in bold, where help goes to a terminal."""

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{click.style(f'{heading}:', bold=True)}\n")


class _Context(click.Context):
    formatter_class = _Formatter


class _Base(click.Command):
    """What a command and a group of commands share: help that ends with examples, refusals that know where they arose."""

    context_class = _Context
    examples: tuple[str, ...]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            # click's parser of options raises without a context, and without it nobody knows whose option was meant.
            error.ctx = error.ctx or ctx
            raise

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "show this help"
        return option

    def write_examples(self, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            # Never wrapped: a line is there to be copied.
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(_Base):
    """A command that answers in text or, with --json, in one JSON document."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs["context_settings"] = _SETTINGS | {"allow_extra_args": True}
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help="answer in one JSON document"))
        self.params.append(_log_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        # Extra arguments are allowed above, so that the refusal is in our words. Shells complete half-typed lines, for
        # which `resilient_parsing` is set: those are never refused.
        if ctx.args and not ctx.resilient_parsing:
            raise click.UsageError(
                f"found {ctx.args[0]!r} after the last argument, expected: {_usage_of(ctx)}. "
                "An option of several values is repeated: --name A --name B.",
                ctx,
            )
        return rest

    def invoke(self, ctx: click.Context) -> None:
        program = ctx.find_root().command
        assert isinstance(program, Program)
        as_json = ctx.params.pop("as_json")
        # Here and not in the program: help of a command is given while its line is parsed, before this.
        require(program.extra, *program.packages)
        with needs_extra(program.extra):
            answer = super().invoke(ctx)
        if isinstance(answer, Answer):
            ctx.meta[LOG].result(answer.facts)
            show(answer, as_json)
            if answer.code:
                fail(str(ctx.find_root().info_name), answer.complaint, answer.code)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [(one.make_metavar(ctx), one.about) for one in self.params if isinstance(one, Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)
        self.write_examples(formatter)


def command(name: str, *examples: str, **kwargs: Any) -> Callable[[Callable[..., Answer | None]], Command]:
    """Make a command of a function that returns an Answer; its docstring is the help. Two examples are the least."""

    def made(function: Callable[..., Answer | None]) -> Command:
        result: Command = click.command(name, cls=Command, examples=examples, **kwargs)(function)
        return result

    return made


class Group(_Base, click.Group):
    """Commands below one word."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs |= {"context_settings": _SETTINGS, "subcommand_metavar": "COMMAND ...", "no_args_is_help": True}
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        known = self.list_commands(ctx)
        # click's own answer (8.4 and later) has the nearest name too, but not the names there are.
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(
                f"found unknown command {args[0]!r}, expected one of {', '.join(known)}.{did_you_mean(args[0], known)}",
                ctx,
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in self.sections(ctx):
            rows = [(name, _first_line(self.get_command(ctx, name))) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)
        self.write_examples(formatter)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield headings of the list of commands, and the names below each."""
        yield "Commands", self.list_commands(ctx)


class Program(Group):
    """A program whose commands are those of the modules of one package, a module for a family of commands.

    A family is a plug-in of kind `kind` with an integer ORDER, its place in the list. The first line of its docstring is
    the heading of its commands, which stand in the order in which they are defined.
    """

    def __init__(
        self, name: str, kind: str, help: str, examples: Sequence[str], *, extra: str, packages: Sequence[str] = ()
    ) -> None:
        """extra: brings what commands need beyond a base install; packages: those of it that every command needs."""
        super().__init__(name, help=help, examples=examples, params=[_completion_option(name), _version_option()])
        self.kind, self.extra, self.packages = kind, extra, packages

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for _, commands in _families(self.kind) for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return next((found[cmd_name] for _, found in _families(self.kind) if cmd_name in found), None)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, Sequence[str]]]:
        yield from ((title, list(commands)) for title, commands in _families(self.kind))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


# Cached: click asks for the list of commands and for each of them several times in one call.
@cache
def _families(kind: str) -> tuple[tuple[str, Mapping[str, click.Command]], ...]:
    """Heading and commands, by name, of all families of a kind."""
    modules: list[Any] = [plugins.load(kind, name) for name in plugins.names(kind)]
    return tuple((_heading(module), _commands(module)) for module in sorted(modules, key=lambda module: module.ORDER))


def _heading(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n")[0].rstrip(".")


def _commands(module: ModuleType) -> dict[str, click.Command]:
    return {str(found.name): found for found in vars(module).values() if isinstance(found, click.Command)}


def _first_line(found: click.Command | None) -> str:
    return (found.help or "").strip().partition("\n")[0] if found else ""


def _log_option() -> click.Option:
    def begin(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.meta[LOG].open(value, ctx.command_path, ecgcohorts.__version__)

    # Eager: a line whose other values are refused is logged as well.
    return click.Option(
        ["--log-json"],
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=begin,
        help="append what happens to a file, a line of JSON each, for schedulers; names no recording or patient",
    )


def _version_option() -> click.Option:
    def tell(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            print(f"{ctx.info_name} {ecgcohorts.__version__}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=tell, help="print the version"
    )


def _completion_option(program: str) -> click.Option:
    def tell(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value and not ctx.resilient_parsing:
            shell = get_completion_class(value)
            assert shell is not None
            print(shell(ctx.command, {}, program, _completion_variable(program)).source())
            ctx.exit()

    return click.Option(
        ["--completion"],
        type=OneOf(*SHELLS),
        is_eager=True,
        expose_value=False,
        callback=tell,
        help=f'make Tab complete words: put eval "$({program} --completion bash)" into ~/.bashrc',
    )


def _completion_variable(name: str) -> str:
    return f"_{name.upper()}_COMPLETE"


def run(program: Program, arguments: Sequence[str]) -> None:
    """Run a command line. Errors that a user can mend give one line and an exit code, never a traceback."""
    log = _JobLog()
    try:
        with _shown_safely():
            _run(program, arguments, log)
    except SystemExit as stop:
        # Raised while the error is being handled, if there is one.
        log.end(int(stop.code or 0), stop.__context__)
        raise
    except BaseException as error:
        log.end(1, error)  # a defect of ours: Python prints its trace and ends with this code
        raise
    log.end(0, None)


def _run(program: Program, arguments: Sequence[str], log: _JobLog) -> None:
    name = str(program.name)
    if complaint := _complaint_about_memory():
        fail(name, complaint)
    asked = os.environ.get(_completion_variable(name))
    if asked:
        raise SystemExit(shell_complete(program, {}, name, _completion_variable(name), asked))
    # Not `program.main`: that turns Ctrl-C into an exception without a word of what to do, and prints refusals itself.
    try:
        with program.make_context(name, list(arguments), obj=tuple(arguments)) as ctx:
            ctx.meta[LOG] = log
            program.invoke(ctx)
    # Raised by --help and --version.
    except click.exceptions.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        raise SystemExit(EXIT_WRONG) from None
    except click.UsageError as error:
        fail(name, _reworded(error))
    except (ContradictoryPatients, NothingMatched) as error:
        fail(name, str(error), EXIT_REJECTED)
    except EcgError as error:
        fail(name, str(error))
    # The reader of our output, such as `head`, has seen enough. What is still buffered goes nowhere, or Python complains
    # when it closes the stream at the end.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Disk full, no permission, a folder in a file's place.
    except OSError as error:
        what = error.strerror or error
        fail(name, f"{error.filename or 'a file'}: {what}. Put that right, then run the same command again.")
    except (MemoryError, ImportError) as error:
        # How the system tells that a library finds no room.
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        fail(name, "memory ran out. Allow more (ulimit -v), or use fewer processes; then run the same command again.")
    except KeyboardInterrupt:
        fail(name, "stopped. The same command goes on from here.", EXIT_STOPPED)


def command_line() -> str:
    """Return the command that is running as it was typed, for the provenance of what it writes."""
    root = click.get_current_context().find_root()
    return shlex.join([str(root.info_name), *root.obj])


def _reworded(error: click.UsageError) -> str:
    """Say in our words what click refuses: what was found, what is expected, what to do."""
    ctx, param = error.ctx, getattr(error, "param", None)
    if ctx is None:
        return error.message
    see = f"See {ctx.command_path} --help."
    if isinstance(error, click.NoSuchOption) and (command := _meant_by(ctx, error.option_name)):
        where = f"{ctx.command_path} {command} ... {error.option_name}"
        return f"found {error.option_name} before the command, expected it behind: {where}"
    if isinstance(error, click.NoSuchOption):
        known = [name for param in ctx.command.get_params(ctx) for name in (*param.opts, *param.secondary_opts)]
        return f"found unknown option {error.option_name!r}.{did_you_mean(error.option_name, known)} {see}"
    if isinstance(error, click.MissingParameter) and isinstance(param, click.Option):
        return f"found no {_name_of(param)}, expected {_name_of(param)} {param.make_metavar(ctx)}. {see}"
    if isinstance(error, click.MissingParameter) and param is not None:
        return f"found no {_name_of(param)}, expected: {_usage_of(ctx)}. {see}"
    if isinstance(error, click.BadParameter) and param is not None:
        return f"{_name_of(param)}: {error.message}"
    if isinstance(error, click.BadOptionUsage):
        option = next(
            one for one in ctx.command.get_params(ctx) if error.option_name in (*one.opts, *one.secondary_opts)
        )
        if isinstance(option, click.Option) and option.is_flag:
            return f"found a value for {error.option_name}, which takes none. {see}"
        return (
            f"found {error.option_name} without a value, expected {error.option_name} {option.make_metavar(ctx)}. {see}"
        )
    return error.message


def _meant_by(ctx: click.Context, option: str) -> str:
    """Return the command whose option stands before it in the line; "" if there is none."""
    group, line = ctx.command, ctx.find_root().obj
    if not isinstance(group, click.Group) or ctx.parent is not None:
        return ""
    found = next(((word, one) for word in line if (one := group.get_command(ctx, word)) is not None), None)
    if found is not None and any(option in param.opts for param in found[1].get_params(ctx)):
        return found[0]
    # Every command has it, so it is never a slip of the pen.
    return "COMMAND" if option == "--json" else ""


def _name_of(param: click.Parameter) -> str:
    return max(param.opts, key=len) if isinstance(param, click.Option) else str(param.human_readable_name)


def _usage_of(ctx: click.Context) -> str:
    """Return how a command is called: `ecgcohorts inspect [OPTIONS] SOURCE`."""
    return " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])


ECGCOHORTS = Program(
    "ecgcohorts",
    "ecgcohorts.cli.commands",
    "ECG cohorts of any origin as one Zarr store.",
    ("ecgcohorts ingest ptb-xl/ store.zarr --cohort ptb_xl", "ecgcohorts info store.zarr"),
    extra="ingest",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script."""
    run(ECGCOHORTS, sys.argv[1:] if arguments is None else arguments)
