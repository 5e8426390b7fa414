"""Every command of both programs: help, examples, refusals, exit codes, JSON. Collected from the programs.

A new command is tested here without another line.
"""

import ast
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import click
import pytest

import capezoo.cli.program
import ecgcohorts
import ecgcohorts.cli.program
from ecgcohorts import plugins
from ecgcohorts.cli._job_log import LOG
from ecgcohorts.cli.console import EXIT_CODES
from ecgcohorts.cli.parameters import Number, OneOf, Place
from ecgcohorts.cli.program import Command, Group, Program
from ecgcohorts.errors import install_line

ROOT = Path(__file__).resolve().parents[1]
MAINS = {"ecgcohorts": ecgcohorts.cli.program.main, "capezoo": capezoo.cli.program.main}
PROGRAMS = {"ecgcohorts": ecgcohorts.cli.program.ECGCOHORTS, "capezoo": capezoo.cli.program.CAPEZOO}
HEAVY = {"torch", "timm", "pandas", "scipy", "zarr", "numpy", "pyarrow", "wfdb", "h5py"}
HELP_SECONDS = 0.5
# What click and pydantic say, and we do not. `Usage:` heads help, and is no word for a refusal.
FOREIGN = re.compile(
    r"Usage:|Try '|Error:|unexpected extra|No such (option|command)|Missing |Invalid value|does not take|requires an argument"
    r"|is not a valid|Aborted|Traceback|[Ff]ield required|validation error|pydantic"
)
WRITTEN = ("out", "to", "target", "work")  # parameters that name what a command makes


class Found(NamedTuple):
    words: tuple[str, ...]  # program and command
    command: click.Command
    ctx: click.Context

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def arguments(self) -> list[str]:
        return list(self.words[1:])


def walk(words: tuple[str, ...], command: click.Command, parent: click.Context | None = None) -> Iterator[Found]:
    ctx = click.Context(command, info_name=words[-1], parent=parent)
    yield Found(words, command, ctx)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from walk((*words, name), below, ctx)


ALL = [found for name, program in PROGRAMS.items() for found in walk((name,), program)]
COMMANDS = [found for found in ALL if not isinstance(found.command, click.Group)]
EXAMPLES = [(found, example) for found in ALL for example in found.command.examples]
every = pytest.mark.parametrize("found", ALL, ids=lambda found: found.name)
every_command = pytest.mark.parametrize("found", COMMANDS, ids=lambda found: found.name)


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """run("ecgcohorts", "info", ...), in an empty folder, with no network, key or cache of the person who tests."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
        "XDG_CONFIG_HOME": "c",
        "CAPEZOO_CACHE": "none",
    }.items():
        monkeypatch.setenv(name, value)

    def call(program: str, *arguments: str) -> Result:
        try:
            MAINS[program](arguments)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return call


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 2, nothing on standard output, one line of ours on standard error."""
    assert (result.code, result.out) == (2, ""), result
    (line,) = result.err.splitlines()
    assert not FOREIGN.search(line), line
    for word in words:
        assert word in line


def parsed(words: list[str]) -> Found:
    """The command that a typed line leads to. Raises click's errors for what it does not accept."""
    command: click.Command = PROGRAMS[words[0]]
    ctx = click.Context(command, info_name=words[0])
    ctx.meta[LOG] = Mock()  # no example writes a log here
    place = 1
    while isinstance(command, click.Group):
        below = command.get_command(ctx, words[place]) if place < len(words) else None
        if below is None:
            break
        command, place = below, place + 1
        ctx = click.Context(command, info_name=words[place - 1], parent=ctx)
    with contextlib.suppress(click.exceptions.Exit):  # an example that asks for help
        command.make_context(words[place - 1], words[place:], parent=ctx.parent)
    return Found(tuple(words[:place]), command, ctx)


def long_options(found: Found) -> list[str]:
    return [name for param in found.command.params for name in param.opts if name.startswith("--")]


@every
def test_help_describes_itself_and_shows_two_examples(found: Found, run: Callable[..., Result]) -> None:
    result = run(*found.words, "--help")
    assert (result.code, result.err) == (0, "")
    assert run(*found.words, "-h").out == result.out
    assert not re.search(r"INTEGER|FLOAT|\bPATH\b|<\w+>|RANGE", result.out)  # types of a programmer
    for param in found.command.params:
        told = getattr(param, "about", None) or getattr(param, "help", None)
        assert told, f"{param.name} says nothing about itself"
        assert param.name != "json" or "--json" in result.out
    text = result.out.partition("\nExamples:\n")[2]
    examples = [line.strip() for line in text.partition("\n\n")[0].splitlines()]
    assert len(examples) >= 2
    for example in examples:
        assert parsed(shlex.split(example)).words[: len(found.words)] == found.words, example


@every
def test_the_list_describes_every_command(found: Found, run: Callable[..., Result]) -> None:
    if not isinstance(found.command, Group):
        return
    listed = " ".join(run(*found.words, "--help").out.split())
    for name in found.command.list_commands(found.ctx):
        below = found.command.get_command(found.ctx, name)
        first = (below.help or "").strip().splitlines()[0]
        assert re.fullmatch(r"[A-Z].*[.]", first), f"{name}: {first!r}"
        assert f"{name} {first}" in listed


@every
def test_an_unknown_option_is_answered_with_the_nearest(found: Found, run: Callable[..., Result]) -> None:
    option = max(long_options(found) or ["--help"], key=len)
    assert_refused(run(*found.words, f"{option}x"), f"{option}x", f"Did you mean '{option}'", f"{found.name} --help")


@every
def test_a_mistyped_command_is_answered_with_the_nearest(found: Found, run: Callable[..., Result]) -> None:
    if not isinstance(found.command, Group):
        return
    for name in found.command.list_commands(found.ctx):
        assert_refused(run(*found.words, f"{name}x"), f"{name}x", "Did you mean")
    bare = run(*found.words)
    assert (bare.code, bare.out) == (2, "")
    assert "Examples:" in bare.err


@every_command
def test_what_is_missing_or_too_much_is_named(found: Found, run: Callable[..., Result]) -> None:
    needed = [param for param in found.command.params if param.required]
    if needed:
        assert_refused(run(*found.words), "found no ", "expected")
    example = shlex.split(next(one for one in found.command.examples if "|" not in one))
    takes_many = any(param.nargs == -1 for param in found.command.params)
    surplus = ["surplus"] * (1 + sum(not param.required for param in found.command.params if param.nargs == 1))
    if not takes_many:
        assert_refused(run(*example, *surplus), "'surplus' after the last argument", found.name)


@every_command
def test_wrong_values_of_options_are_refused_by_name(found: Found, run: Callable[..., Result]) -> None:
    for param in found.command.params:
        if not isinstance(param, click.Option):
            continue
        name = max(param.opts, key=len)
        if param.is_flag:
            assert_refused(run(*found.words, f"{name}=1"), f"found a value for {name}")
        else:
            assert_refused(run(*found.words, name), f"found {name} without a value, expected {name} ")
        if isinstance(param.type, Number | OneOf):
            example = shlex.split(found.command.examples[0])
            words = ["nonsense"] * param.nargs
            assert_refused(run(*example, name, *words), f"{name}: found 'nonsense', expected")


@every_command
def test_parameters_are_those_of_the_function(found: Found) -> None:
    """click passes parameters by name: a wrong one shows when the command is run, and not before."""
    code = found.command.callback.__code__
    names = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    given = {param.name for param in found.command.params if param.expose_value} - {"as_json"}
    takes_any = bool(code.co_flags & 0x08)
    assert names <= given | ({"options", "settings", "rule"} if takes_any else set())
    assert takes_any or given == names


@pytest.mark.parametrize(("found", "example"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_examples_in_an_empty_folder(found: Found, example: str, run: Callable[..., Result]) -> None:
    """A command that finds nothing to read says so in one line; the others answer in one JSON document."""
    words = shlex.split(example)
    asked = parsed(words)
    if isinstance(asked.command, click.Group) or "--help" in words or "://" in example:
        return  # nothing to run, or nothing that a machine without a network can
    result = run(*words, *([] if "--json" in words else ["--json"]))
    reads = [
        param
        for param in asked.command.params
        if isinstance(param.type, Place) and param.name not in WRITTEN and param.required
    ]
    if reads:
        assert_refused(result)
    elif result.code == 0:
        json.loads(result.out, parse_constant=pytest.fail)  # NaN is no JSON
        assert result.err == ""
    else:
        assert_refused(result)


@every_command
def test_every_command_answers_in_json(found: Found) -> None:
    assert isinstance(found.command, Command)
    assert "--json" in long_options(found)


@every_command
def test_every_command_keeps_a_log(found: Found, run: Callable[..., Result]) -> None:
    """Also where its line is refused, after the log was named."""
    required = [param for param in found.command.params if param.required]
    result = run(*found.words, "--log-json", "log.jsonl")
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert (lines[0]["event"], lines[-1]["event"], lines[-1]["exit_code"]) == ("start", "end", result.code)
    assert {line["command"] for line in lines} == {found.name}
    assert result.code == 2 or not required


@pytest.mark.parametrize("program", PROGRAMS)
def test_families_print_nothing_themselves(program: str) -> None:
    """What a command returns is printed once, as text or as JSON: so nothing else gets onto standard output."""
    kind = PROGRAMS[program].kind
    for name in plugins.names(kind):
        tree = ast.parse(Path(plugins.load(kind, name).__file__).read_text("utf-8"))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not {one for one in called if re.search(r"(^|\.)(print|echo|secho|write|Console)$", one)}, name


@pytest.mark.parametrize("program", PROGRAMS)
def test_version_and_exit_codes(program: str, run: Callable[..., Result]) -> None:
    assert run(program, "--version") == (0, f"{program} {ecgcohorts.__version__}\n", "")
    shown = " ".join(run(program, "--help").out.split())
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in shown
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE)


def completed(program: str, typed: str, environment: dict[str, str]) -> list[str]:
    """What a shell is told for the last word of a line."""
    words = environment | {
        f"_{program.upper()}_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split(" ")) - 1),
    }
    command = [sys.executable, "-m", f"{program}.cli"]
    done = subprocess.run(command, env=words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("program", "typed", "expected"),
    [
        ("ecgcohorts", "ecgcohorts ins", ["inspect"]),
        ("ecgcohorts", "ecgcohorts ingest --max", ["--max-contradictions", "--max-reject-frac"]),
        ("ecgcohorts", "ecgcohorts ingest a b --cohort ptb_x", ["ptb_xl"]),
        ("ecgcohorts", "ecgcohorts ingest a b --recipe cape-v", ["cape-v1"]),
        ("ecgcohorts", "ecgcohorts ingest a b --codec l", ["lz4"]),
        ("capezoo", "capezoo pretrain --run cape_", ["cape_single", "cape_x", "cape_z"]),
        ("capezoo", "capezoo info cape_resnet.small_", ["cape_resnet.small_z"]),
        ("capezoo", "capezoo evaluate oo", ["ood"]),
    ],
)
def test_shells_complete_commands_options_and_names(program: str, typed: str, expected: list[str]) -> None:
    assert completed(program, typed, dict(os.environ)) == expected


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_completion_is_printed_for_each_shell(program: str, shell: str, run: Callable[..., Result]) -> None:
    result = run(program, "--completion", shell)
    assert (result.code, result.err) == (0, "")
    assert f"_{program.upper()}_COMPLETE={shell}_complete" in result.out


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_fast_and_light(program: str) -> None:
    script = (
        "import sys, time\n"
        f"from {program}.cli.program import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(time.process_time(), *sys.modules, file=sys.stderr)"  # of the processor: others may be busy with it too
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        for _ in range(3)
    ]
    _, *modules = runs[0].stderr.split()
    assert not HEAVY & set(modules)
    assert min(float(one.stderr.split()[0]) for one in runs) < HELP_SECONDS


def without(program: str, packages: tuple[str, ...], lines: list[list[str]], folder: Path) -> list[Result]:
    """What command lines answer in an installation that lacks some packages; all in one process, in an empty folder."""
    script = f"""
import contextlib, io, json, sys
sys.modules |= dict.fromkeys({packages!r})
from {program}.cli.program import main
answers = []
for line in {lines!r}:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(line)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    answers.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return [Result(*answer) for answer in json.loads(done.stdout)]


BASE = {
    "ecgcohorts": ("pyarrow", "scipy", "h5py", "pydicom", "wfdb"),
    "capezoo": ("torch", "timm", "safetensors", "huggingface_hub", "lightning_fabric", "sklearn"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_base_install_answers_every_command(program: str, tmp_path: Path) -> None:
    """Help, version and completion work; what cannot be done is refused in one line. capezoo names torch in all of them."""
    helps = [[*found.arguments, "--help"] for found in ALL if found.words[0] == program]
    helps += [["--version"], ["--completion", "zsh"]]
    examples = [shlex.split(found.command.examples[0])[1:] for found in COMMANDS if found.words[0] == program]
    examples = [line for line in examples if "://" not in " ".join(line)]  # no network is asked here
    answers = without(program, BASE[program], helps + examples, tmp_path)
    for line, answer in zip(helps, answers, strict=False):
        assert (answer.code, answer.err) == (0, ""), line
    for line, answer in zip(examples, answers[len(helps) :], strict=True):
        if program == "capezoo":
            assert_refused(answer, f"torch is not installed. Run: {install_line('zoo')}")
        elif answer.code:
            assert_refused(answer)
        else:
            assert answer.err == "", line


def command_lines() -> Iterator[tuple[str, str]]:
    """(place, command line) of every command of ours in a block of README and docs; those of shell scripts left out."""
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = re.sub(r"\\\n>?\s*", " ", document.read_text("utf-8"))
        for match in re.finditer(r"^(?:> )?(?:\$ )?(?:.*; do |.*&& )?((?:ecgcohorts|capezoo) .*)$", text, re.MULTILINE):
            line = match[1].partition(" #")[0].partition("; done")[0]
            if re.match(r"\w+ [a-z]", line) and not re.search(r"\.\.\.|\$\(|: |\*\*", line):
                yield document.name, re.sub(r"\$(\{[^}]*\}|\w+)", "1", line)


@pytest.mark.parametrize(("document", "line"), sorted(set(command_lines())))
def test_commands_of_the_documents_are_accepted(document: str, line: str) -> None:
    parsed(shlex.split(line))


def test_the_documents_were_searched() -> None:
    assert len(list(command_lines())) > 60


def test_a_program_of_another_package_is_walked_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding a command touches one file: a new family is found by its place alone."""
    package = tmp_path / "strange_commands"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "greet.py").write_text(
        '"""Greetings."""\n'
        "from ecgcohorts.cli.console import Answer\n"
        "from ecgcohorts.cli.program import command\n"
        "ORDER = 1\n"
        '@command("hello", "x hello", "x hello --json")\n'
        "def hello():\n"
        '    """Greet."""\n'
        '    return Answer({"greeting": "hello"}, "hello")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = [
        found.name
        for found in walk(("x",), Program("x", "strange_commands", "X.", ("x hello", "x hello --json"), extra="x"))
    ]
    assert names == ["x", "x hello"]
