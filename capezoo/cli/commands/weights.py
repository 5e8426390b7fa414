"""Published weights."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from capezoo.cli.parameters import DEVICE, digest_key, offline, unchecked, weights
from ecgcohorts import plugins
from ecgcohorts.cli.console import EXIT_DAMAGED, EXIT_NOT_FOUND, Answer, table
from ecgcohorts.cli.parameters import FILE, FOLDER, Name, argument, option, stores
from ecgcohorts.cli.program import command
from ecgcohorts.errors import EcgError, SpecError

if TYPE_CHECKING:
    from capezoo.specs import WeightCard

ORDER = 2
_IMPORTERS = "capezoo.zoo.importers"


@command("list", "capezoo list", 'capezoo list "cape*" --json')
@argument("pattern", Name("PATTERN"), "shell pattern, such as cape*; default: all", required=False)
def _list(*, pattern: str | None) -> Answer:
    """List encoders, and the weights that are here.

    Encoders can be trained; weights are here by name or in the cache of the Hub. Exit code 1 if none matches the pattern.
    """
    from capezoo.zoo.files import read_card
    from capezoo.zoo.hub import cached
    from capezoo.zoo.listing import list_models, locate

    asked = pattern or "*"
    encoders = list_models(asked)
    hub = [address for address in cached() if fnmatchcase(address, f"*{asked}")]
    here = [*list_models(asked, pretrained=True), *hub]
    cards: dict[str, WeightCard] = {}
    damaged: dict[str, str] = {}
    for name in here:
        # One folder that somebody broke must not hide the others.
        try:
            # Offline: a list must not fetch what it lists.
            cards[name] = read_card(locate(name, offline=True))
        except (EcgError, OSError) as error:
            damaged[name] = str(error)
    facts = {
        "encoders": encoders,
        "weights": [{"name": n, "parameters": card.parameters, "summary": card.summary} for n, card in cards.items()],
        "damaged": damaged,
    }
    # One table for both kinds, so that `capezoo list | grep NAME` finds an encoder and its weights.
    rows = [["encoder", name, "", ""] for name in encoders]
    rows += [["weights", name, f"{card.parameters:,} parameters", card.summary] for name, card in cards.items()]
    rows += [["damaged", name, "", why] for name, why in damaged.items()]
    if rows:
        return Answer(facts, table(rows))
    return Answer(facts, complaint=f"no encoder and no weights match {asked!r}. See capezoo list.", code=EXIT_NOT_FOUND)


@command("info", "capezoo info cape_resnet.small_z", "capezoo info weights/z --json")
@weights
@offline
def _info(*, weights: str, offline: bool) -> Answer:
    """Show the card of weights.

    What they take, what they were trained on, and how they were measured.
    """
    from capezoo.zoo.files import read_card
    from capezoo.zoo.hub import address_of
    from capezoo.zoo.listing import locate
    from capezoo.zoo.publish import render

    folder = locate(weights, offline)
    card = read_card(folder)
    # By its commit, so that the example in it means the same next year.
    return Answer(card, render(card, address_of(folder) or weights).partition("---\n# ")[2].rstrip())


@command("verify", "capezoo verify cape_resnet.small_z", "capezoo verify hf-hub:ORG/REPO@main --json")
@weights
@option(
    "--device",
    type=DEVICE,
    default="cpu",
    show_default=True,
    help="what must give the golden output: auto, cpu, cuda:N",
)
@offline
def _verify(*, weights: str, device: str, offline: bool) -> Answer:
    """Check files, digests, schema and golden output of weights.

    Exit code 4 if there is damage.
    """
    from capezoo.zoo.verify import verify

    report = verify(weights, offline, device=device)
    if not report.ok:
        complaint = f"{report.folder}: {len(report.problems)} problems."
        return Answer(report, "\n".join(report.problems), complaint, EXIT_DAMAGED)
    text = (
        f"{report.folder}: {report.name}, {report.files} files as published, golden output within "
        f"{report.golden_difference:.0e}."
    )
    return Answer(report, text)


@command("pull", "capezoo pull hf-hub:ORG/REPO@main --to weights/z", "capezoo pull cape_resnet.small_z --to w --json")
@weights
@option("--to", type=FOLDER, required=True, help="folder to make")
@offline
def _pull(*, weights: str, to: Path, offline: bool) -> Answer:
    """Copy weights to a folder, checked.

    For machines without a network, and to keep.
    """
    from capezoo.zoo.listing import pull

    made = pull(weights, to, offline)
    return Answer({"folder": made}, f"{made}")


@command(
    "import", "capezoo import", "capezoo import ecgfounder", "capezoo import ecgfounder 12_lead.pth weights/founder"
)
@argument(
    "model", Name("MODEL", lambda: plugins.names(_IMPORTERS)), "public encoder; default: list them", required=False
)
@argument("file", FILE, "its weights; default: say where to get them", required=False)
@argument("out", FOLDER, "folder to make", required=False)
@option(
    "--against",
    type=FILE,
    help=".npz of the public program: `signal` as its network was fed, and the `features` that must come out",
)
def _import(*, model: str | None, file: Path | None, out: Path | None, against: Path | None) -> Answer:
    """Turn the weights of a public encoder into weights like any other.

    The file is one that others published: nothing in it is run. Licence, input and known faults go into the card.
    """
    from capezoo.zoo.importers import import_weights, public_model

    if model is None:
        known = {name: public_model(name) for name in plugins.names(_IMPORTERS)}
        facts = [
            {"name": name, "title": one.title, "licence": one.licence, "where": one.where}
            for name, one in known.items()
        ]
        return Answer(facts, table([[name, one.title, one.licence, one.source] for name, one in known.items()]))
    public = public_model(model)
    if file is None:
        known_of = {"name": model, "title": public.title, "licence": public.licence, "where": public.where}
        lines = [f"{public.title}: {public.source}. Licence: {public.licence}.", public.where, *public.known_failures]
        return Answer(known_of, "\n".join([*lines, f"Then: capezoo import {model} FILE OUT"]))
    if out is None:
        raise SpecError(f"found no folder to make, expected one: capezoo import {model} {file} OUT.")
    made = import_weights(model, file, out, against)
    lines = [f"{made}: {public.title}, {public.source}. Licence: {public.licence}.", *public.known_failures]
    return Answer({"out": made, "licence": public.licence}, "\n  ".join(lines))


@command(
    "overlap", "capezoo overlap weights/z store.zarr", "capezoo overlap weights/z store.zarr --split study-1 --json"
)
@weights
@stores
@option("--split", type=Name("NAME"), help="split kept in the store: count its parts apart")
@digest_key
@offline
def _overlap(
    *, weights: str, store: Sequence[str], split: str | None, digest_key: Path | None, offline: bool
) -> Answer:
    """Count the recordings of a store that weights were trained on.

    Compared by waveform.
    """
    from rich.console import Group

    from capezoo.zoo.overlap import overlap
    from ecgcohorts.store.union import open_named

    found = overlap(weights, open_named(store), split, offline, digest_key=digest_key)
    rows = [
        [f"{g.cohort} {g.part or ''}", *(f"{n:,}" for n in (g.records, g.seen_records, g.patients, g.seen_patients))]
        for g in found.groups
    ]
    counts = table(rows, ("", "recordings", "trained on", "patients", "trained on"), right=(1, 2, 3, 4))
    text = (
        f"{found.name} {found.version}: trained on {found.training_records:,} recordings, {found.seen_records:,} of "
        "them here."
    )
    return Answer(found, Group(counts, text))


@command("onnx", "capezoo onnx weights/z -o model.onnx", "capezoo onnx weights/z -o z.onnx --json")
@weights
@option("-o", "--out", type=FILE, required=True, help="file to write")
@unchecked
def _onnx(*, weights: str, out: Path, unchecked: bool) -> Answer:
    """Write weights as an ONNX file that says what to feed it.

    Only if onnxruntime computes the same.
    """
    from capezoo.interop.onnx import export_onnx
    from capezoo.zoo.create import load

    made = export_onnx(load(weights, check=not unchecked), out)
    return Answer({"out": made}, f"{made}")
