"""Look into a store, or several as one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgcohorts.cli.console import Answer, progress
from ecgcohorts.cli.parameters import (
    FILE,
    FRACTION,
    POSITIVE,
    STORE,
    TEXT,
    Name,
    OneOf,
    Place,
    also,
    argument,
    option,
    stores,
    within,
)
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

ORDER = 3
# A page of ours is made anew after each ingest. Pictures name no program, so an earlier one cannot be told from another.
_MADE_BY_US = b'<meta name="generator" content="ecgcohorts">'
_force = option("--force", is_flag=True, help="replace whatever file has that name")


def _refuse_to_replace(out: Path, force: bool) -> None:
    """Refuse the name of a file that is no earlier page of ours."""
    if out.is_file() and not force and _MADE_BY_US not in out.read_bytes():
        raise SpecError(f"{out}: this file exists. Name another, or pass --force to replace it.")


@command("info", "ecgcohorts info store.zarr", "ecgcohorts info a.zarr b.zarr --json")
@stores
def _info(*, store: tuple[str, ...]) -> Answer:
    """Count what a store holds: cohorts, patients, recordings.

    Recipe, splits and the accounts of every ingest are told as well.
    """
    from ecgcohorts.store.union import open_named
    from ecgcohorts.store.upkeep.info import describe, render

    facts = describe(open_named(store))
    return Answer(facts, render(facts))


@command("table1", "ecgcohorts table1 store.zarr", "ecgcohorts table1 a.zarr b.zarr --form latex")
@stores
@option("--form", type=OneOf("text", "csv", "latex", "markdown"), default="text", help="text is for the terminal")
def _table1(*, store: tuple[str, ...], form: str) -> Answer:
    """Describe the people of each cohort, as Table 1 of a paper does.

    Patients, recordings, age, sex, devices and labels.
    """
    from ecgcohorts.report.table1 import Table1
    from ecgcohorts.store.union import open_named

    # --json has the numbers in full precision whatever the form, as CSV has.
    made = Table1.of(open_named(store).index)
    facts = {cohort: values.to_dict() for cohort, values in made.numbers.items()}
    return Answer(facts, getattr(made, form)())


@command("patients", "ecgcohorts patients store.zarr", "ecgcohorts patients a.zarr b.zarr --max-contradictions 0.05")
@stores
@option("--max-contradictions", type=FRACTION, default=0.01, help="end with exit code 3 if the share is larger")
def _patients(*, store: tuple[str, ...], max_contradictions: float) -> Answer:
    """Find out whether strangers share an id: patients whose sexes or ages contradict each other.

    Counts only. `ingest` asks the same of new recordings.
    """
    from ecgcohorts.index.contradictions import PatientCheck
    from ecgcohorts.store.union import open_named

    found = PatientCheck.of(open_named(store).index)
    found.refuse(max_contradictions, ", ".join(store))
    return Answer(found, str(found))


@command(
    "plot",
    "ecgcohorts plot store.zarr 12 -o ecg.svg",
    "ecgcohorts plot store.zarr 12 -o ecg.png --layout 6x2+1 --sheet a4",
)
@argument("store", STORE, "store")
@argument("record", TEXT, "row, or recording id")
@option("-o", "--out", type=FILE, required=True, help="picture to write: .svg, .png or .pdf")
@option("--layout", type=TEXT, default="3x4+1", help="rows x columns + rhythm strips: 3x4+1, 6x2+1, 12x1")
@option("--sheet", type=OneOf("fit", "a4", "letter"), default="fit", help="size of the page")
@option("--dpi", type=POSITIVE, default=304.8, help="of a PNG; 304.8 gives 12 pixels a millimetre")
@_force
@also
def _plot(*, store: str, record: str, out: Path, force: bool, also: tuple[str, ...], **how: Any) -> Answer:
    """Draw one recording on ECG paper in exact millimetres."""
    from ecgcohorts.report.paper import Layout, Page, plot_record
    from ecgcohorts.store.union import open_named

    _refuse_to_replace(out, force)
    page = Page(Layout.parse(how["layout"]), sheet=how["sheet"])
    plot_record(open_named([store, *also]), record, out, page, how["dpi"])
    return Answer({"out": out}, f"{out}")


@command("report", "ecgcohorts report store.zarr -o store.html", "ecgcohorts report a.zarr b.zarr -o both.html")
@stores
@option("-o", "--out", type=FILE, required=True, help="page to write, .html")
@_force
def _report(*, store: tuple[str, ...], out: Path, force: bool) -> Answer:
    """Write one self-contained HTML page about a store.

    Replaces an earlier page of its own, and no other file.
    """
    from ecgcohorts.report.html import report
    from ecgcohorts.store.union import open_named

    _refuse_to_replace(out, force)
    report(open_named(store), out)
    return Answer({"out": out}, f"{out}")


@command(
    "export",
    "ecgcohorts export store.zarr records",
    "ecgcohorts export store.zarr shards --format webdataset --split folds",
    "ecgcohorts export store.zarr hf --format huggingface --cohort code15 --within folds=train",
)
@argument("store", STORE, "store")
@argument("out", Place("OUT"), "folder to make; with --format parquet a file")
@option(
    "--format",
    type=OneOf("wfdb", "parquet", "huggingface", "webdataset"),
    default="wfdb",
    help="parquet: the index as a table; the others: signals",
)
@option("--cohort", type=Name("NAME"), multiple=True, help="only the recordings of this cohort; repeat for more")
@within
@option("--split", type=Name("NAME"), help="huggingface, webdataset: every part of this split by itself")
@also
def _export(
    *,
    store: str,
    out: Path,
    format: str,
    cohort: tuple[str, ...],
    within: str | None,
    split: str | None,
    also: tuple[str, ...],
) -> Answer:
    """Write recordings in the form that other tools read.

    WFDB records, Hugging Face or WebDataset shards; or the index alone, as a Parquet table.
    """
    from ecgcohorts import export
    from ecgcohorts.store.splits import load_split, part_of
    from ecgcohorts.store.union import open_named

    opened = open_named([store, *also])
    index = opened.index if within is None else part_of(opened, within)
    if cohort:
        index = index.where(cohort=list(cohort))
    parts = {export.WHOLE: index} if split is None else _parts(load_split(opened, split).of(index), format)
    if format == "parquet":
        count = export.export_index(opened, out, index=index)
        return Answer({"out": out, "rows": count}, f"{out}: {count:,} rows")
    with progress() as tell:

        def said(done: int, total: int) -> None:
            tell("export", done, total)

        if format == "wfdb":
            count = export.export_wfdb(opened, out, said, index=index)
        elif format == "huggingface":
            count = export.export_huggingface(opened, out, said, parts=parts)
        else:
            count = export.export_webdataset(opened, out, said, parts=parts)
    return Answer({"out": out, "records": count}, f"{out}: {count:,} records")


def _parts(parts: "dict[str, CohortIndex]", format: str) -> "dict[str, CohortIndex]":
    """Refuse parts for formats that have none."""
    if format in ("wfdb", "parquet"):
        raise SpecError(
            f"found --split with --format {format}, expected huggingface or webdataset. "
            "Export one part at a time: --within SPLIT=PART."
        )
    return parts
