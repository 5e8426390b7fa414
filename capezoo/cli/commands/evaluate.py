"""Evaluations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from capezoo.cli.commands import _artefact
from capezoo.cli.parameters import WEIGHTS, device, digest_key, unchecked
from ecgcohorts import plugins
from ecgcohorts.cli.console import Answer, progress, say, table
from ecgcohorts.cli.parameters import FILE, FOLDER, INTEGER, NATURAL, REAL, STORE, TEXT, Name, Number, OneOf, option
from ecgcohorts.cli.program import Command, Group, command, command_line
from ecgcohorts.errors import SpecError, did_you_mean

ORDER = 3
_KIND = "capezoo.evaluate.questions"
_NOT_NEGATIVE = Number(float, "a number, 0 or greater", lambda value: 0 <= value < float("inf"))
_ALL, _STUDY, _ARTEFACT = "all", "study", "artefact"


class _Questions(Group):
    """A command for each question, with an option for each field of its Config; for all, a plan, the artefact control."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*plugins.names(_KIND), _ALL, _STUDY, _ARTEFACT]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        others = {_ALL: _asking_all, _STUDY: _carrying_out, _ARTEFACT: lambda: _artefact.artefact}
        if cmd_name in others:
            return others[cmd_name]()
        return _asking(cmd_name) if cmd_name in plugins.names(_KIND) else None


evaluate = _Questions(
    "evaluate",
    help="Measure how an encoder transfers.",
    examples=(
        "capezoo evaluate all --weights w/x --weights random --store store.zarr --train-cohort ptb_xl --seed 0 -o study",
        "capezoo evaluate ood --help",
    ),
)


def _study(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """Add what every question is asked with."""
    for declare in reversed(
        (
            option(
                "--weights",
                type=WEIGHTS,
                multiple=True,
                required=True,
                help="weights, in the order of the tables; `random` for untrained encoders, `measurements` for simple measures "
                "of the signals, `random-raw` for encoders without BatchNorm statistics; repeat for more",
            ),
            option("--store", type=STORE, multiple=True, required=True, help="store; repeat to read several as one"),
            option("-o", "--out", type=FOLDER, required=True, help="folder of the study, to make or to add to"),
            option("--seed", type=NATURAL, required=True, help="random seed of splits, heads and resampling"),
            option(
                "--batch-norm",
                type=OneOf("running", "per_cohort", "both"),
                default="running",
                show_default=True,
                help="statistics of BatchNorm: kept in training, estimated on each cohort's own recordings, or a row of each",
            ),
            device,
            unchecked,
            digest_key,
        )
    ):
        function = declare(function)
    return function


def _asking(name: str) -> Command:
    from capezoo.evaluate.questions import about

    module: Any = plugins.load(_KIND, name)

    @command(name, *module.EXAMPLES)
    @_study
    def ask(
        *,
        weights: Sequence[str],
        store: Sequence[str],
        out: Path,
        seed: int,
        batch_norm: str,
        device: str,
        unchecked: bool,
        digest_key: Path | None,
        **config: Any,
    ) -> Answer:
        how = {"check": not unchecked, "digest_key": digest_key, "device": device, "batch_norm": batch_norm}
        return _answered(weights, store, out, seed, {name: config}, how)

    # The function has no docstring of its own: the question's module says what it asks.
    ask.help = about(name)[1]
    # Before --json, which is the last of all.
    ask.params[-1:-1] = _options_of(module.Config)
    return ask


def _options_of(config: Any) -> Iterator[click.Option]:
    """Yield an option for each field of a spec that a word, a number, or several of one kind can set."""
    for name, field in config.model_fields.items():
        kind = field.annotation
        settings: dict[str, Any] = {"help": field.description, "required": field.is_required()}
        if not field.is_required():
            settings |= {"default": field.default, "show_default": kind is not bool}
        flag = "--" + name.replace("_", "-")
        # A flag that is on by default needs a way to turn it off.
        if kind is bool:
            yield click.Option([f"{flag}/--no-{flag[2:]}" if field.default else flag], is_flag=True, **settings)
        elif get_origin(kind) is Literal:
            yield click.Option([flag], type=OneOf(*get_args(kind)), **settings)
        elif get_origin(kind) is tuple and set(_bare(kind)) == {float}:
            places = len(_bare(kind))
            yield click.Option([flag], type=REAL, nargs=places, metavar=" ".join("X" * places), **settings)
        elif kind in (int, float, str):
            yield click.Option([flag], type={int: INTEGER, float: REAL, str: Name("NAME")}[kind], **settings)
        elif get_origin(kind) is tuple and (word := get_args(kind)[0]) and (word is str or get_origin(word) is Literal):
            of = Name("NAME") if word is str else OneOf(*get_args(word))
            yield click.Option([flag], type=of, multiple=True, **settings | {"show_default": False})


def _bare(kind: Any) -> list[Any]:
    """Return the kinds of a tuple's values, without the bounds that pydantic checks."""
    return [one.__origin__ if get_origin(one) is Annotated else one for one in get_args(kind)]


def _asking_all() -> Command:
    @command(
        _ALL,
        "capezoo evaluate all --weights w/x --weights random --store store.zarr --train-cohort ptb_xl --seed 0 -o study",
        "capezoo evaluate all --weights w --store a.zarr --store b.zarr --train-cohort north --seed 0 --set ood.lr=1e-3 -o s",
    )
    @_study
    @option("--train-cohort", type=Name("NAME"), required=True, help="cohort that questions with a home are trained on")
    @option("--split", type=Name("NAME"), default="", help="split kept in the store, with parts train, val and test")
    @option("--allow-seen", is_flag=True, help="accept test patients whom pretraining has seen, or may have seen")
    @option(
        "--set",
        "settings",
        type=Name("QUESTION.KEY=VALUE"),
        multiple=True,
        help="change a question: ood.runs=10; VALUE is JSON or a word; repeat for more",
    )
    def ask(
        *,
        weights: Sequence[str],
        store: Sequence[str],
        out: Path,
        seed: int,
        batch_norm: str,
        device: str,
        unchecked: bool,
        digest_key: Path | None,
        train_cohort: str,
        split: str,
        allow_seen: bool,
        settings: Sequence[str],
    ) -> Answer:
        """Ask all questions but those that train encoders; those that the store cannot answer are named."""
        # What most questions share has an option; the rest is set by name, since two questions may have a key in common.
        shared = {"train_cohort": train_cohort, "split": split, "allow_seen": allow_seen}
        questions: dict[str, dict[str, Any]] = {}
        for name in plugins.names(_KIND):
            if getattr(plugins.load(_KIND, name), "ON_REQUEST", False):
                continue
            fields = plugins.load(_KIND, name).Config.model_fields
            questions[name] = {key: value for key, value in shared.items() if key in fields}
        for setting in settings:
            _set(questions, setting)
        how = {"check": not unchecked, "digest_key": digest_key, "device": device, "batch_norm": batch_norm}
        return _answered(weights, store, out, seed, questions, how)

    return ask


def _carrying_out() -> Command:
    @command(
        _STUDY,
        "capezoo evaluate study --plan study.yaml -o study --dry-run",
        "capezoo evaluate study --plan study.yaml -o study",
    )
    @option("--plan", "plan_file", type=FILE, required=True, help="stores, encoders and questions, in YAML")
    @option("-o", "--out", type=FOLDER, required=True, help="folder to make, or to go on in")
    @option("--dry-run", is_flag=True, help="check everything, and list the commands that the plan stands for")
    @option(
        "--budget-minutes",
        type=_NOT_NEGATIVE,
        help="stop in time before it is used up; 0 shows what the trainings that are left would take",
    )
    def carry_out(*, plan_file: Path, out: Path, dry_run: bool, budget_minutes: float | None) -> Answer:
        """Train, publish and evaluate as one file says.

        A plan that was stopped goes on with the same command. The folder then holds one report, all results, and the
        command behind each.
        """
        from capezoo.evaluate import plan

        if dry_run:
            steps = list(plan.steps_of(plan.Plan.read(plan_file), plan_file.parent, out))
            lines = [step.command for step in steps]
            return Answer({"commands": lines, "done": [step.is_done() for step in steps]}, "\n".join(lines))
        budget_s = float("inf") if budget_minutes is None else budget_minutes * 60
        with progress() as tell:
            made = plan.carry_out(plan_file, out, tell, budget_s, say)
        if "headline" not in made:
            return Answer({"report": None, "results": None, **made}, "nothing was run")
        rows = [[f"{made['seconds'].get(line, 0.0):.1f} s", line] for line in made["commands"]]
        report, results = out / "report.html", out / "results.json"
        left = [f"{len(made['left'])} commands are left; the same command goes on"] if made["left"] else []
        return Answer(
            {"report": report, "results": results, **made}, _lines(table(rows, right=(0,)), *left, str(report))
        )

    return carry_out


def _lines(*parts: Any) -> Any:
    from rich.console import Group as Lines

    return Lines(*parts)


def _set(questions: dict[str, dict[str, Any]], setting: str) -> None:
    from capezoo.specs.settings import value_of

    path, equals, text = setting.partition("=")
    name, dot, key = path.partition(".")
    if not (equals and dot and key):
        raise SpecError(f"--set: found {setting!r}, expected QUESTION.KEY=VALUE, such as ood.lr=1e-3.")
    if name not in questions:
        known = ", ".join(questions)
        raise SpecError(f"--set: found no question {name!r}, expected one of {known}.{did_you_mean(name, questions)}")
    questions[name][key] = value_of(text)


def _answered(
    weights: Sequence[str],
    store: Sequence[str],
    out: Path,
    seed: int,
    questions: Mapping[str, Mapping[str, Any]],
    how: Mapping[str, Any],
) -> Answer:
    """Ask, and show the numbers that matter. how: what else `study` is told."""
    from capezoo.evaluate.study import study
    from ecgcohorts.store.union import open_named

    with progress() as tell:
        made = study(weights, open_named(store), out, seed, questions, command=command_line(), progress=tell, **how)
    rows = made.headline()
    # A line a measure: there are more of them than weights, and a terminal is not wide.
    measures = dict.fromkeys(key for row in rows.values() for key in row)
    numbers = [[measure, *(_short(row.get(measure)) for row in rows.values())] for measure in measures]
    shown = [table(numbers, ["", *rows], right=range(1, 1 + len(rows)))] if numbers else []
    lines = [f"{name}: {why}" for name, why in made.left_out.items()]
    results = out / "results.json"
    return Answer(
        {"results": results, "headline": rows, "left_out": made.left_out}, _lines(*shown, *lines, str(results))
    )


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@command(
    "report",
    "capezoo report -o report.html --study study --run-folder runs/z --store store.zarr",
    "capezoo report -o report.html --study seed-0 --study seed-1",
)
@option("-o", "--out", type=FILE, required=True, help="page to write, .html")
@option("--study", type=FOLDER, multiple=True, help="folder of `capezoo evaluate`; repeat for more")
@option("--run-folder", type=FOLDER, multiple=True, help="folder of `capezoo pretrain`; repeat for more")
@option("--store", type=STORE, multiple=True, help="store, for cohort table and ECGs; repeat to read several as one")
@option("--title", type=TEXT, default="Do cohorts separate?", help="title of the page")
def _report(
    *, out: Path, study: Sequence[Path], run_folder: Sequence[Path], store: Sequence[str], title: str
) -> Answer:
    """Write one HTML page from evaluations, runs and a store."""
    from capezoo.evaluate.page.report import build_report
    from ecgcohorts.store.union import open_named

    if not study and not run_folder and not store:
        raise SpecError("found nothing to report, expected --study, --run-folder or --store. Give one or more of them.")
    made = build_report(out, study, run_folder, open_named(store) if store else None, title)
    return Answer({"out": made}, f"{made}")
