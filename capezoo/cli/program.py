"""The `capezoo` command: parse, call one function, print."""

import json
import shlex
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict
from rich.table import Table

from ecgcohorts.cli.console import EXIT_DAMAGED, Command, StoreNames, fail, output, progress, run

PROGRAM = "capezoo"
SEVERAL = ("--weights", "--study", "--run", "--set")  # options that take all words up to the next option

WEIGHTS = "encoder.tag, folder, or hf-hub:ORG/REPO@REVISION"
OFFLINE = "take Hub weights from the cache only, as with HF_HUB_OFFLINE=1"

_out = output()
_typed: list[str] = []  # the command line as given, for provenance


class Pretrain(Command):
    """Pretrain an encoder on a store. The same command continues a run that was stopped."""

    store: StoreNames = Field(description="store to train on; repeat to train on several as one")
    out: Path = Field(description="run folder to make or to continue")
    seed: int = Field(description="of everything random", ge=0)
    recipe: str | None = Field(None, description="named run: cape_x, cape_z, cape_single, or smoke, the default")
    cohort: str | None = Field(None, description="the one that cape_single trains on")
    config: Path | None = Field(None, description="YAML RunConfig, instead of a recipe")
    settings: list[str] = Field(
        [],
        validation_alias=AliasChoices("set"),
        description="changes to it, KEY=VALUE: optimiser.lr=1e-3 sampler.pairs=16",
    )

    def cli_cmd(self) -> None:
        from capezoo import distributed
        from capezoo.training.loop import pretrain
        from capezoo.training.run_folder import RunFolder
        from ecgcohorts.store import open_named

        run = pretrain(open_named(self.store), self.run_config(), self.out)
        if distributed.rank() == 0:
            self.tell(RunFolder(run))
        distributed.leave()

    def tell(self, run: Any) -> None:
        """How the run in this RunFolder ended, in a line."""
        status = run.last_status()
        told = {"loss": "loss", "val_loss": "held-out loss", "val_bound": "bound"}
        numbers = "".join(f"; {words} {status[key]:.3f}" for key, words in told.items() if key in status)
        _out.print(f"{run.path}: {status['step']} of {status['total_steps']} steps{numbers}")

    def run_config(self) -> Any:
        """The recipe or file, with what was said on the command line."""
        from capezoo import runs as recipes
        from capezoo.cli import settings
        from capezoo.training.run_folder import read_config
        from ecgcohorts.errors import SpecError

        if self.config is None:
            config = recipes.get(self.recipe or "smoke", self.seed, self.cohort)
        elif (self.recipe, self.cohort) != (None, None):
            raise SpecError("found --config and --recipe or --cohort, expected one of them.")
        else:
            config = read_config(self.config, self.seed)
        return settings.changed(config, self.settings)


class Embed(Command):
    """Embed a store: one embedding per recording, with the index columns beside them."""

    weights: CliPositionalArg[str] = Field(description=WEIGHTS)
    store: CliPositionalArg[StoreNames] = Field(description="store; several are read as one")
    out: Annotated[Path, Field(validation_alias=AliasChoices("o", "out"), description="folder to make")]
    missing_leads: Literal["refuse", "derive", "zero"] = Field(
        "refuse", description="leads the store has not: an error, derived from two limb leads, or fed as 0 mV as well"
    )
    force_recipe: bool = Field(False, description="take a store of another recipe if rate, unit and length fit")
    offline: bool = Field(False, description=OFFLINE)

    def cli_cmd(self) -> None:
        from capezoo.embedding.embed import embed_store
        from capezoo.zoo import load, locate
        from capezoo.zoo.files import CARD, read_card
        from ecgcohorts.io.durable import sha256_of
        from ecgcohorts.store import open_named

        folder, store = locate(self.weights, self.offline), open_named(self.store)
        name, card = read_card(folder).name, sha256_of(folder / CARD)
        choices = self.model_dump(include={"missing_leads", "force_recipe"})
        with progress() as tell:
            told = partial(tell, f"embed {name}")
            made = embed_store(load(folder), store, self.out, name, card, told, **choices)
        _out.print(f"{made.path}: {made.info.records} embeddings of {made.info.width} features by {name}")
        for step in made.info.adaptation.steps(made.info.input):
            _out.print(f"  {step}")


class Ood(Command):
    """Train heads on one cohort, test them on all; maps and cohort separability beside it."""

    weights: list[str] = Field(
        description="published weights, in the order of the table; `random` for an untrained encoder"
    )
    store: StoreNames = Field(description="repeat to read several as one")
    train_cohort: str = Field(description="cohort whose labels the heads see")
    out: Annotated[
        Path, Field(validation_alias=AliasChoices("o", "out"), description="folder for results, maps, embeddings")
    ]
    seed: int = Field(description="of split, heads and resampling", ge=0)
    runs: int = Field(3, description="heads per task; the paper has 10", gt=0)
    lr: float = Field(1e-4, description="of the heads; the paper's. Small cohorts may need more", gt=0)
    max_epochs: int = Field(100, gt=0)
    test_records: int = Field(10_000, description="per cohort at most", gt=0)
    allow_seen: bool = Field(False, description="test on patients whom pretraining has seen, or may have")

    def cli_cmd(self) -> None:
        from capezoo.evaluate.results import headline
        from capezoo.evaluate.study import study
        from ecgcohorts.store import open_named

        questions = {"ood": self.model_dump(exclude={"weights", "store", "out", "seed"}), "separability": {}, "map": {}}
        store = open_named(self.store)
        with progress() as tell:
            made = study(self.weights, store, self.out, self.seed, questions, command=_command_line(), progress=tell)
        rows = headline(made)
        _print_table(
            ["", *next(iter(rows.values()))], [[name, *map(_short_number, row.values())] for name, row in rows.items()]
        )
        _out.print(f"{self.out / 'results.json'}")


class Evaluate(Command):
    """Measure how an encoder transfers."""

    ood: CliSubCommand[Ood]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


class Report(Command):
    """One self-contained HTML page from evaluations, training runs and a store."""

    out: Annotated[Path, Field(validation_alias=AliasChoices("o", "out"), description="file to write")]
    study: list[Path] = Field([], description="folders of `capezoo evaluate ood`")
    run: list[Path] = Field([], description="folders of `capezoo pretrain`")
    store: StoreNames = Field([], description="for cohort table and ECGs; repeat for several")
    title: str = "Do cohorts separate?"

    def cli_cmd(self) -> None:
        from capezoo.evaluate.page.report import build_report
        from ecgcohorts.store import open_named

        store = open_named(self.store) if self.store else None
        _out.print(f"{build_report(self.out, self.study, self.run, store, self.title)}")


class ListModels(Command):
    """Encoders that can be trained, weights that are here by name, and Hub weights in the cache."""

    pattern: CliPositionalArg[str] = Field("*", description="shell pattern, such as cape*")

    def cli_cmd(self) -> None:
        from capezoo.zoo import list_models, locate
        from capezoo.zoo.files import read_card
        from capezoo.zoo.hub import cached

        rows = [["encoder", name, "", ""] for name in list_models(self.pattern)]
        hub = [address for address in cached() if fnmatchcase(address, f"*{self.pattern}")]
        for name in [*list_models(self.pattern, pretrained=True), *hub]:
            card = read_card(locate(name, offline=True))
            rows.append(["weights", name, f"{card.parameters:,} parameters", card.summary])
        _print_table(["", "", "", ""], rows)


class Info(Command):
    """The card of published weights."""

    weights: CliPositionalArg[str] = Field(description=WEIGHTS)
    as_json: Annotated[bool, Field(validation_alias=AliasChoices("json"), description="for programs")] = False
    offline: bool = Field(False, description=OFFLINE)

    def cli_cmd(self) -> None:
        from capezoo.zoo import locate
        from capezoo.zoo.files import read_card
        from capezoo.zoo.publish import render

        card = read_card(locate(self.weights, self.offline))
        text = render(card, self.weights).partition("---\n# ")[2].rstrip()
        print(card.model_dump_json(indent=2) if self.as_json else text)


class Verify(Command):
    """Check files, digests, schema and golden output of published weights."""

    weights: CliPositionalArg[str] = Field(description=WEIGHTS)
    offline: bool = Field(False, description=OFFLINE)

    def cli_cmd(self) -> None:
        from capezoo.zoo import verify

        report = verify(self.weights, self.offline)
        for problem in report.problems:
            _out.print(problem)
        if not report.ok:
            fail(PROGRAM, f"{report.folder}: {len(report.problems)} problems.", EXIT_DAMAGED)
        _out.print(f"{report.folder}: {report.name}, {report.files} files as published, golden output within "
                   f"{report.golden_difference:.0e}.")  # fmt: skip


class Pull(Command):
    """Copy published weights to a folder, checked: for machines without a network, and to keep."""

    weights: CliPositionalArg[str] = Field(description=WEIGHTS)
    to: Path = Field(description="folder to make")
    offline: bool = Field(False, description=OFFLINE)

    def cli_cmd(self) -> None:
        from capezoo.zoo import pull

        _out.print(f"{pull(self.weights, self.to, self.offline)}")


class Overlap(Command):
    """Say which recordings and patients of a store weights were trained on, by waveform."""

    weights: CliPositionalArg[str] = Field(description=WEIGHTS)
    store: CliPositionalArg[StoreNames] = Field(description="store; several are read as one")
    split: str | None = Field(None, description="split kept in the store: count its parts apart")
    as_json: Annotated[bool, Field(validation_alias=AliasChoices("json"), description="for programs")] = False
    offline: bool = Field(False, description=OFFLINE)

    def cli_cmd(self) -> None:
        from capezoo.zoo import overlap
        from ecgcohorts.store import open_named

        found = overlap(self.weights, open_named(self.store), self.split, self.offline)
        if self.as_json:
            print(found.model_dump_json(indent=2))
            return
        rows = [[f"{g.cohort} {g.part or ''}", *(f"{n:,}" for n in (g.records, g.seen_records, g.patients, g.seen_patients))]
                for g in found.groups]  # fmt: skip
        _print_table(["", "recordings", "trained on", "patients", "trained on"], rows)
        _out.print(f"{found.name} {found.version}: trained on {found.training_records:,} recordings, "
                   f"{found.seen_records:,} of them here.")  # fmt: skip


class Publish(Command):
    """Write the newest checkpoint of a run as a weight folder with card, golden output and checksums."""

    run_folder: CliPositionalArg[Path] = Field(description="folder of `capezoo pretrain`")
    target: CliPositionalArg[str] = Field(
        description="folder to make, or hf-hub:ORG/NAME (needs a login: hf auth login)"
    )
    name: str | None = Field(None, description="of the weights; default: of the run")
    half: bool = Field(False, description="store numbers in half precision, if embeddings stay the same")
    version: str = "1"
    summary: str = Field("", description="one sentence for the card")
    store: StoreNames = Field(
        [], description="store it was trained on, for the licences of its cohorts; repeat for several"
    )
    study: list[Path] = Field(
        [], description="folder of `capezoo evaluate ood` of these weights, for the card's metrics"
    )

    def cli_cmd(self) -> None:
        from capezoo.zoo import publish, publish_to_hub
        from capezoo.zoo.hub import HUB
        from capezoo.zoo.publish import About, licences_of
        from ecgcohorts.store import open_named

        licences = licences_of(open_named(self.store)) if self.store else None
        metrics = tuple(metric for folder in self.study for metric in self.measured(folder))
        about = About(version=self.version, summary=self.summary, metrics=metrics, data_licences=licences)
        put = publish_to_hub if self.target.startswith(HUB) else publish
        _out.print(f"{put(self.run_folder, self.target, about, self.name, self.half)}")

    def measured(self, folder: Path) -> Sequence[Any]:
        """The metrics of this run's weights in an evaluation."""
        from capezoo.embedding.embed import weights_digest
        from capezoo.evaluate.results import card_metrics, read_study
        from capezoo.training.loop import trained
        from capezoo.zoo.publish import halved

        model = trained(self.run_folder)[0]
        digest = weights_digest(halved(model) if self.half else model)
        return card_metrics(read_study(folder), digest)


class Onnx(Command):
    """Write published weights as an ONNX file that says what to feed it, if onnxruntime computes the same."""

    weights: CliPositionalArg[str] = Field(description=WEIGHTS)
    out: Annotated[Path, Field(validation_alias=AliasChoices("o", "out"), description="file to write")]

    def cli_cmd(self) -> None:
        from capezoo.interop.onnx import export_onnx
        from capezoo.zoo import load

        _out.print(f"{export_onnx(load(self.weights), self.out)}")


class Capezoo(
    BaseSettings,
    cli_parse_args=False,
    cli_prog_name="capezoo",
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_exit_on_error=True,
    cli_avoid_json=True,
):
    """Encoders for ECGs: pretrain, publish, embed, evaluate."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix="CAPEZOO_CLI_")

    pretrain: CliSubCommand[Pretrain]
    embed: CliSubCommand[Embed]
    evaluate: CliSubCommand[Evaluate]
    report: CliSubCommand[Report]
    list: CliSubCommand[ListModels]
    info: CliSubCommand[Info]
    verify: CliSubCommand[Verify]
    pull: CliSubCommand[Pull]
    publish: CliSubCommand[Publish]
    overlap: CliSubCommand[Overlap]
    onnx: CliSubCommand[Onnx]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    _typed[:] = sys.argv[1:] if arguments is None else arguments
    run(Capezoo, PROGRAM, gather(_typed))


def gather(arguments: Sequence[str]) -> list[str]:
    """Make one JSON value of the words after each option in SEVERAL, so that `--weights A B` works, commas included.

    >>> gather(["evaluate", "--weights", "a", "b,c", "--seed", "1"])
    ['evaluate', '--weights', '["a", "b,c"]', '--seed', '1']
    """
    found: list[str] = []
    words: list[str] | None = None
    for word in arguments:
        if words is not None and not word.startswith("-"):
            words.append(word)
            continue
        if words is not None:
            found.append(json.dumps(words))
            words = None
        found.append(word)
        if word in SEVERAL:
            words = []
    return found if words is None else [*found, json.dumps(words)]


def _command_line() -> str:
    return shlex.join([PROGRAM, *_typed])


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if not place or not column else "right")
    for row in rows:
        table.add_row(*row)
    _out.print(table)


def _short_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
