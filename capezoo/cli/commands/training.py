"""From a store to weights."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capezoo.cli.parameters import WEIGHTS_OUT
from ecgcohorts.cli.console import Answer, progress
from ecgcohorts.cli.parameters import FOLDER, NATURAL, REAL, STORE, TEXT, Name, argument, option
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SpecError

ORDER = 1


@command(
    "pretrain",
    "capezoo pretrain --store store.zarr --out runs/z --seed 0",
    "capezoo pretrain --store a.zarr --store b.zarr --out runs/x --seed 0 --run cape_x --set optimiser.lr=1e-3",
    "capezoo pretrain --store store.zarr --out runs/mine --seed 0 --run mine.yaml --set 'encoder.config.widths=[8, 16]'",
)
@option("--store", type=STORE, multiple=True, required=True, help="store to train on; repeat to read several as one")
@option("-o", "--out", type=FOLDER, required=True, help="run folder to make or to continue")
@option("--seed", type=NATURAL, required=True, help="random seed: of weights, batches and views")
@option(
    "--run",
    type=Name("NAME|FILE", lambda: _runs(), or_file=True),
    default="smoke",
    help="named run, or your own in YAML",
)
@option("--cohort", type=Name("NAME"), help="the cohort that a run of one cohort trains on")
@option(
    "--set",
    "settings",
    type=Name("KEY=VALUE"),
    multiple=True,
    help='change the run: optimiser.lr=1e-3, \'cohorts=["ptb_xl", "code15"]\'; VALUE is JSON or a word; repeat for more',
)
@option(
    "--stall-after",
    "stall_s",
    type=REAL,
    default=600.0,
    show_default=True,
    help="of several processes: seconds without a step after which the run ends and names the one that stands still",
)
def _pretrain(
    *,
    store: Sequence[str],
    out: Path,
    seed: int,
    run: str,
    cohort: str | None,
    settings: Sequence[str],
    stall_s: float,
) -> Answer | None:
    """Pretrain an encoder on a store, or continue a stopped run.

    A run that was stopped is continued by the same command.
    """
    from capezoo import distributed
    from capezoo.training.loop import pretrain
    from capezoo.training.run_folder import RunFolder
    from ecgcohorts.store.union import open_named

    stores, config = open_named(store), _config(run, seed, cohort, settings)
    if sys.stderr.isatty():
        folder = RunFolder(pretrain(stores, config, out, stall_s=stall_s))  # draws a bar with loss and speed
    else:
        with progress() as tell:
            made = pretrain(
                stores, config, out, stall_s=stall_s, progress=lambda now: tell("pretrain", now.step, now.total_steps)
            )
        folder = RunFolder(made)
    # Of several processes one speaks: a launcher shows the output of all.
    answer = _told(folder) if distributed.rank() == 0 else None
    distributed.leave()
    return answer


@command("status", "capezoo status runs/z", "capezoo status runs/z --json")
@argument("run_folder", FOLDER, "folder of `capezoo pretrain`")
def _status(*, run_folder: Path) -> Answer:
    """Say how far a run is, and whether it still runs.

    running, done, collapsed (all recordings have the same features), diverged (the loss is no number), stalled (a process
    of several stands still), interrupted, failed, or died (its process ended without a word).
    """
    from capezoo.training.run_folder import RunFolder

    return _told(RunFolder(run_folder))


def _runs() -> Sequence[str]:
    from capezoo import runs

    return runs.names()


def _config(run: str, seed: int, cohort: str | None, settings: Sequence[str]) -> Any:
    """Return the named run or that of a file, with the changes of the command line."""
    from capezoo import runs
    from capezoo.specs import settings as typed

    # Told apart by suffix, as cohorts and recipes are: a file of a run's name in the folder changes nothing.
    if not run.endswith((".yaml", ".yml")):
        return typed.changed(runs.get(run, seed, cohort), settings)
    if cohort is not None:
        raise SpecError(f"--cohort does not go with a run from a file. Write it as --set cohorts=[{cohort}].")
    return typed.changed(runs.load(Path(run), seed), settings)


def _told(run: Any) -> Answer:
    """Say how the run in this RunFolder ended."""
    status = run.last_status()
    told = {"loss": "loss", "val_loss": "held-out loss", "val_untrained": "untrained"}
    numbers = "".join(f"; {words} {status[key]:.3f}" for key, words in told.items() if key in status)
    state = {"done": "", "collapsed": " collapsed: all recordings have the same features;"}.get(
        status["state"], f" {status['state']};"
    )
    why = f". {status['reason']}" if "reason" in status else ""
    text = f"{run.path}:{state} {status['step']} of {status['total_steps']} steps{numbers}{why}"
    return Answer({"run_folder": run.path, "status": status}, text)


@command(
    "publish",
    'capezoo publish runs/z weights/z --digests plain --store store.zarr --summary "What it is, in a sentence."',
    "capezoo publish runs/z hf-hub:ORG/NAME --digests digests.key --half --study study",
)
@argument("run_folder", FOLDER, "folder of `capezoo pretrain`")
@argument("target", WEIGHTS_OUT, "folder to make, or hf-hub:ORG/NAME (needs a login: hf auth login)")
@option(
    "--digests",
    type=Name("KIND|KEYFILE", lambda: ("plain", "none"), or_file=True),
    required=True,
    help="of training recordings: plain (everybody who holds a recording can look it up), none, or a key file that you keep",
)
@option("--name", type=TEXT, help="name of the weights; default: of the run")
@option("--half", is_flag=True, help="store numbers in half precision, if embeddings stay the same")
@option("--force", is_flag=True, help="publish a run that collapsed, or gives NaN; its card will say so")
@option("--version", type=TEXT, default="1", help="version of the weights")
@option("--summary", type=TEXT, default="", help="one sentence for the card")
@option(
    "--store",
    type=STORE,
    multiple=True,
    help="store it was trained on, for the licences of its cohorts; repeat for more",
)
@option(
    "--study",
    type=FOLDER,
    multiple=True,
    help="folder of `capezoo evaluate` of these weights, for the card's metrics; repeat for more",
)
def _publish(
    *,
    run_folder: Path,
    target: str,
    digests: str,
    name: str | None,
    half: bool,
    force: bool,
    version: str,
    summary: str,
    store: Sequence[str],
    study: Sequence[Path],
) -> Answer:
    """Publish the newest checkpoint of a run as weights.

    A folder with card, golden output and checksums, or a repository of the Hugging Face Hub.
    """
    from capezoo.zoo.hub import HUB
    from capezoo.zoo.publish import About, licences_of, publish, publish_to_hub
    from ecgcohorts.store.union import open_named

    licences = licences_of(open_named(store), run_folder) if store else None
    metrics = tuple(metric for folder in study for metric in _measured(run_folder, half, folder))
    about = About(version=version, summary=summary, metrics=metrics, data_licences=licences)
    chosen: Any = digests if digests in ("plain", "none") else Path(digests)
    put = publish_to_hub if target.startswith(HUB) else publish
    made = str(put(run_folder, target, about, name, half, digests=chosen, force=force))
    return Answer({"weights": made, "metrics": len(metrics)}, made)


def _measured(run_folder: Path, half: bool, study: Path) -> Sequence[Any]:
    """Return the metrics of this run's weights in an evaluation."""
    from capezoo.embedding.folder import weights_digest
    from capezoo.evaluate.results import Study
    from capezoo.training.checkpoint import trained
    from capezoo.zoo.publish import halved

    model = trained(run_folder)[0]
    # An evaluation names weights by their digest, and half precision changes it.
    digest = weights_digest(halved(model) if half else model)
    return Study.read(study).card_metrics(digest)
