"""`capezoo evaluate artefact`, which trains encoders of its own and takes no weights."""

from collections.abc import Sequence
from pathlib import Path

from ecgcohorts.cli.console import EXIT_STOPPED, Answer, fail, progress, say, table
from ecgcohorts.cli.parameters import COUNT, FOLDER, NATURAL, STORE, Name, Number, OneOf, option
from ecgcohorts.cli.program import command, command_line

_NOT_NEGATIVE = Number(float, "a number, 0 or greater", lambda value: 0 <= value < float("inf"))


def _kinds() -> Sequence[str]:
    from capezoo.evaluate.artefact.signatures import KINDS

    return KINDS


def _arms() -> Sequence[str]:
    from capezoo.evaluate.artefact.arms import ARMS

    return tuple(ARMS)


def _methods() -> Sequence[str]:
    from ecgcohorts import plugins

    return plugins.names("capezoo.objectives")


@command(
    "artefact",
    "capezoo evaluate artefact --store store.zarr --cohort ptb_xl --strength 0 --strength 200 --seed 0 --seeds 10 -o control",
    "capezoo evaluate artefact --store store.zarr --cohort ptb_xl --arm mixed --arm mixed_per_device --seed 0 --seeds 3 -o arms",
    "capezoo evaluate artefact --store store.zarr --cohort ptb_xl --method byol --seed 0 --seeds 3 -o byol",
    "capezoo evaluate artefact --store raw.zarr --cohort ptb_xl --kind quantisation --seed 0 --budget-minutes 30 -o steps",
)
@option("--store", type=STORE, multiple=True, required=True, help="store; repeat to read several as one")
@option("--cohort", type=Name("NAME"), required=True, help="the cohort whose patients are dealt to made-up devices")
@option(
    "--strength",
    type=_NOT_NEGATIVE,
    multiple=True,
    default=(0.0, 200.0),
    help="of the devices' signatures, in uV; repeat for more",
)
@option("--kind", type=Name("KIND", _kinds), default="tone", help="of signature: tone, noise, band_edge, quantisation")
@option(
    "--arm",
    "arms",
    type=Name("ARM", _arms),
    multiple=True,
    default=("mixed", "in_distribution"),
    help="how to pretrain; repeat for more",
)
@option(
    "--method",
    type=Name("METHOD", _methods),
    default="info_nce",
    help="objective to pretrain with, and a small encoder that it can use; one in a folder",
)
@option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="of the method: lr=1e-3, objective.config.momentum=0.9, encoder_name=s4, encoder.width=16",
)
@option("--positives", type=OneOf("hard", "easy"), default="hard", help="how unlike the two views of a patient are")
@option("--seed", type=NATURAL, required=True, help="first random seed, of patients, devices, weights and batches")
@option("--seeds", type=COUNT, default=10, help="how many seeds, from --seed on")
@option(
    "--recipe", type=Name("RECIPE|FILE", or_file=True), help="of the encoder's input; default: the store's, or cape-v1"
)
@option("--patients", type=COUNT, help="of the cohort, at most; default: all")
@option("--steps", type=COUNT, default=250, help="of each pretraining")
@option("--pairs", type=COUNT, default=32, help="patients in a batch")
@option(
    "--budget-minutes", type=_NOT_NEGATIVE, help="stop in time before it is used up; 0 shows what the rest would cost"
)
@option(
    "-o", "--out", type=FOLDER, required=True, help="folder of trials, results, tables and figures, to make or add to"
)
def artefact(
    *,
    store: Sequence[str],
    cohort: str,
    strength: Sequence[float],
    kind: str,
    arms: Sequence[str],
    method: str,
    changes: Sequence[str],
    positives: str,
    seed: int,
    seeds: int,
    recipe: str | None,
    patients: int | None,
    steps: int,
    pairs: int,
    budget_minutes: float | None,
    out: Path,
) -> Answer:
    """Pretrain on one cohort with made-up devices, and measure what the device alone does to answers.

    Trials that the folder has are kept, so the same command goes on after a stop, and one with more seeds adds them.
    """
    from rich.console import Group as Lines

    from capezoo.evaluate.artefact.campaign import TRIALS, Campaign, plan
    from capezoo.evaluate.artefact.methods import settings_of
    from capezoo.evaluate.artefact.outcome import in_words
    from capezoo.evaluate.artefact.page import in_short, write
    from capezoo.evaluate.artefact.rendering import Material
    from ecgcohorts.store.union import open_named

    # Names first: a mistyped one is refused before recordings are read.
    cells = plan(kind, strength, arms, positives, range(seed, seed + seeds))
    settings = settings_of(method, changes, steps=steps, pairs=pairs)
    opened = open_named(store)
    campaign = Campaign(Material.of(opened, cohort, recipe, patients=patients), cells, out, settings)
    projected_s, left = campaign.projected_s(), len(campaign.left)
    cost = f"{len(cells)} trials, {len(cells) - left} of them done: about {in_words(projected_s)} for the rest"
    say(cost)
    budget_s = float("inf") if budget_minutes is None else budget_minutes * 60
    try:
        with progress() as tell:
            campaign.run(budget_s, say, tell)
    except KeyboardInterrupt:
        kept = f"{len(cells) - len(campaign.left)} of {len(cells)} trials are kept in {out / TRIALS}"
        fail("capezoo", f"stopped. {kept}; the same command goes on from there.", EXIT_STOPPED)
    facts = {"projected_seconds": round(projected_s), "left": [cell.key for cell in campaign.left]}
    if not campaign.kept:
        return Answer({"state": "incomplete", "out": None, **facts}, cost)
    outcome = campaign.outcome(opened.fingerprint, command_line())
    where, found = write(outcome, out), in_short(outcome.findings)
    state = [f"incomplete: {len(outcome.left)} trials are left; the same command goes on"] if outcome.left else []
    # Nothing to compare where one of the two arms was not asked for.
    rows = [[str(name), *map(str, cells)] for name, cells in zip(found.index, found.to_numpy(), strict=True)]
    shown = [table(rows, ["mixed / in-distribution", *found.columns], right=range(1, 7))] if rows else []
    answer = {"state": outcome.state, "out": where, "differences": outcome.findings.differences, **facts}
    return Answer(answer, Lines(*shown, *state, str(where)))
