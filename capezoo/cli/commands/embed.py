"""From stores or raw files to embeddings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capezoo.cli.parameters import device, offline, unchecked, weights
from ecgcohorts.cli.console import EXIT_REJECTED, Answer, progress
from ecgcohorts.cli.parameters import COUNT, FILE, FRACTION, POSITIVE, SOURCE, TEXT, OneOf, argument, option
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from capezoo.embedding.files import FilesEmbedded
    from ecgcohorts.readers.arrays.description import ArrayDescription

ORDER = 2
_MAINS = {"auto": "auto", "50": 50.0, "60": 60.0, "none": None}
# Kinds of refusals and adaptations; our default.
_SHOWN = 5


@command(
    "embed",
    "capezoo embed weights/z recordings/ -o features.parquet -j 2",
    "capezoo embed cape_resnet.small_z a.xml b.dcm -o features.csv --missing-leads derive",
    'capezoo embed weights/z x.npy --rate-hz 500 --leads "I II V1 V2 V3 V4 V5 V6" --unit mV -o features.npz',
    "capezoo embed weights/z store.zarr -o embeddings",
)
@weights
@argument("source", SOURCE, "files, folders, archives or buckets of raw ECGs, or stores", nargs=-1, required=True)
@option(
    "-o", "--out", type=FILE, required=True, help="table to write (.parquet, .csv, .npz, .zarr); of stores, or a folder"
)
@option(
    "--missing-leads",
    type=OneOf("refuse", "derive", "zero"),
    default="refuse",
    help="leads that a recording has not: an error, derived from two limb leads, or fed as 0 mV as well",
)
@option("--force-recipe", is_flag=True, help="stores: take one of another recipe if rate, unit and length fit")
@option(
    "--batch-norm",
    type=OneOf("running", "per_cohort"),
    default="running",
    help="stores: statistics of BatchNorm, kept in training, or estimated on each cohort's own recordings, without labels",
)
@option("--mains", type=OneOf(*_MAINS), default="auto", help="raw files: notch in Hz; auto asks each signal")
@option("--rate-hz", type=POSITIVE, help=".npy files (record, lead, time): samples per second")
@option("--leads", type=TEXT, help=".npy files: names in the order of the array, such as 'I II V1'")
@option("--unit", type=OneOf("V", "mV", "uV", "none"), help=".npy files: unit of the numbers")
@option(
    "--with-header", is_flag=True, help="raw files: also patient id, age, sex, time and device, as the file has them"
)
@option("-j", "--workers", type=COUNT, default=1, help="raw files: processes that read and filter")
@option(
    "--max-reject-frac",
    type=FRACTION,
    default=0.1,
    help="raw files: end with exit code 3 if a larger share was refused",
)
@device
@unchecked
@offline
def _embed(
    *, weights: str, source: Sequence[str], out: Path, missing_leads: str, device: str, unchecked: bool, offline: bool,
    **how: Any,
) -> Answer | None:  # fmt: skip
    """Embed raw files, as they lie in folders, or every recording of a store.

    Raw files of any format give a table with a row for each recording. Those that cannot be read or are refused are listed
    beside it, with the reason, and stop nothing. The index columns of a store stand beside its embeddings. Stopped, the
    same command goes on where it was. For stores, processes of torchrun share the work.
    """
    from capezoo.zoo.create import load
    from capezoo.zoo.digests import plain_digests
    from capezoo.zoo.files import CARD, read_card
    from capezoo.zoo.listing import locate
    from ecgcohorts.io.durable import sha256_of

    folder = locate(weights, offline)
    made_by = {"name": read_card(folder).name, "card": sha256_of(folder / CARD)}
    stores = [_is_store(one) for one in source]
    if any(stores) and not all(stores):
        raise SpecError("found stores and raw files, expected one or the other. Embed them with two commands.")
    _refuse_unused(how, for_stores=all(stores))
    model = load(folder, check=not unchecked)
    both = {"missing_leads": missing_leads, "device": device}
    if all(stores):
        return _embed_stores(model, source, out, made_by | both, how)
    return _embed_files(model, source, out, made_by | both | {"trained_on": plain_digests(folder)}, how)


def _is_store(source: str) -> bool:
    """Whether a source is a store: by its name, so that a damaged one is not taken for a folder of raw files, or by what it holds."""
    from ecgcohorts.io.buckets import is_url
    from ecgcohorts.io.place import place_at
    from ecgcohorts.store.schema import CURRENT

    if source.rstrip("/").endswith(".zarr"):
        return True
    return (is_url(source) or Path(source).is_dir()) and bool(place_at(source).sizes([CURRENT]))


def _refuse_unused(how: dict[str, Any], for_stores: bool) -> None:
    """Raise SpecError for options of the other kind of source, which would change nothing."""
    defaults = {"mains": "auto", "rate_hz": None, "leads": None, "unit": None, "with_header": False, "workers": 1}
    others = defaults if for_stores else {"force_recipe": False, "batch_norm": "running"}
    unused = [f"--{name.replace('_', '-')}" for name, default in others.items() if how[name] != default]
    if unused:
        kind = "stores" if for_stores else "raw files"
        raise SpecError(
            f"found {', '.join(unused)} with {kind}, expected none: it changes nothing there. Leave it out."
        )


def _embed_stores(
    model: "nn.Module", source: Sequence[str], out: Path, made_by: dict[str, Any], how: dict[str, Any]
) -> Answer | None:
    from capezoo import distributed
    from capezoo.embedding.folder import write_embeddings
    from capezoo.embedding.store_table import write_store_table
    from ecgcohorts.store.union import open_named

    opened, name = open_named(source), made_by["name"]
    embed = write_embeddings if out.suffix in ("", ".zarr") else write_store_table
    with progress() as tell:
        info = embed(
            model,
            opened,
            out,
            progress=partial(tell, f"embed {name}"),
            force_recipe=how["force_recipe"],
            batch_norm=how["batch_norm"],
            **made_by,
        )
    # Of several processes one speaks: a launcher shows the output of all.
    speaks = distributed.rank() == 0
    distributed.leave()
    if not speaks:
        return None
    steps = list(info.adaptation.steps(info.input))
    text = f"{out}: {info.records} embeddings of {info.width} features by {name}"
    text += f" ({info.origin})" if info.origin else ""
    facts = {"out": out, "records": info.records, "width": info.width, "name": name, "adapted": steps}
    return Answer(facts, "\n  ".join([text, *steps]))


def _embed_files(
    model: "nn.Module", source: Sequence[str], out: Path, made_by: dict[str, Any], how: dict[str, Any]
) -> Answer:
    from capezoo.embedding.files import embed_files

    with progress() as tell:
        done = embed_files(
            model,
            source,
            out,
            mains_hz=_MAINS[how["mains"]],  # type: ignore[arg-type]
            arrays=_arrays(how),
            with_header=how["with_header"],
            workers=how["workers"],
            progress=tell,
            **made_by,
        )
    answer = Answer(done, _in_words(done, made_by["name"]))
    if done.refused_fraction <= how["max_reject_frac"]:
        return answer
    complaint = (
        f"{done.refused_fraction:.0%} of the recordings were refused, more than --max-reject-frac "
        f"{how['max_reject_frac']:g}. See why: {done.refused_list}."
    )
    return replace(answer, complaint=complaint, code=EXIT_REJECTED)


def _arrays(how: dict[str, Any]) -> "ArrayDescription | None":
    """Return the description of bare arrays that the options give. Raises SpecError for half of one."""
    from capezoo.specs.base import parse
    from ecgcohorts.readers.arrays.description import ArrayDescription

    given = {name: how[name] for name in ("rate_hz", "leads", "unit")}
    if not any(value is not None for value in given.values()):
        return None
    absent = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if absent:
        raise SpecError(f"found arrays without {', '.join(absent)}, expected rate, leads and unit. Give all three.")
    leads = given["leads"].replace(",", " ").split()
    return parse(
        ArrayDescription, {"kind": "npy", "axes": "record_lead_time", **given, "leads": leads}, "the options of arrays"
    )


def _in_words(done: "FilesEmbedded", name: str) -> str:
    lines = [f"{done.table}: {done.records:,} embeddings of {done.width} features by {name}"]
    lines += [f"  {count:,}: {what}" for what, count in Counter(done.adapted).most_common(_SHOWN)]
    if done.trained_on:
        lines.append(f"{done.trained_on:,} of them trained these weights: column trained_on")
    if done.refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(done.reasons).most_common(_SHOWN))
        lines.append(f"refused: {done.refused:,} ({reasons}); each with its reason in {done.refused_list}")
    if done.others:
        others = ", ".join(f"{count:,} {what}" for what, count in Counter(done.others).most_common(_SHOWN))
        lines.append(f"no recordings: {others}")
    return "\n".join(lines)
