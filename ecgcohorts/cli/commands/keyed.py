"""With the pseudonym key.

What these commands do to a store starts from an id of the source. Ids go in and never come out: the answers hold
pseudonyms and counts.
"""

from pathlib import Path

from ecgcohorts.cli.console import EXIT_NOT_FOUND, Answer, progress
from ecgcohorts.cli.parameters import COHORT, FILE, SOURCE, STORE, TEXT, Name, OneOf, argument, key, option
from ecgcohorts.cli.program import command

ORDER = 5
_IN_STORE = Name("NAME")
store = argument("store", STORE, "folder of the store")
cohort = argument("cohort", _IN_STORE, "cohort of the store")


@command(
    "id",
    "ecgcohorts id store.zarr ptb_xl records500/00000/00001_hr",
    "ecgcohorts id store.zarr ptb_xl 15709 --kind patient --json",
)
@store
@cohort
@argument("original", TEXT, "id as the source has it")
@option("--kind", type=OneOf("recording", "patient"), default="recording", help="what the id names")
@key
def _find(*, store: str, cohort: str, original: str, kind: str, key: Path | None) -> Answer:
    """Find the recordings that an id of the source names.

    Exit code 1 if the store has none.
    """
    from ecgcohorts.store.reader import open_store
    from ecgcohorts.store.upkeep.lookup import find_by_id

    found = find_by_id(open_store(store), cohort, original, kind, key)  # type: ignore[arg-type]
    if found.rows:
        return Answer(found, str(found))
    return Answer(found, complaint=str(found), code=EXIT_NOT_FOUND)


@command(
    "label",
    "ecgcohorts label store.zarr ef.csv --cohort ptb_xl --id-column record --column LVEF",
    "ecgcohorts label store.zarr ef.csv --cohort ptb_xl --id-column patient --kind patient --column LVEF=lvef",
)
@store
@argument("csv", FILE, "table in UTF-8 with a header line")
@option("--cohort", type=_IN_STORE, required=True, help="cohort of the store")
@option("--id-column", type=TEXT, required=True, help="column with the ids")
@option("--kind", type=OneOf("recording", "patient"), default="recording", help="what the ids name")
@option(
    "--column",
    type=Name("COLUMN[=LABEL]"),
    multiple=True,
    required=True,
    help="column of numbers to add, and the label's name; repeat for more",
)
@option("--replace", is_flag=True, help="overwrite labels that are there already")
@key
def _label(
    *,
    store: str,
    csv: Path,
    cohort: str,
    id_column: str,
    kind: str,
    column: tuple[str, ...],
    replace: bool,
    key: Path | None,
) -> Answer:
    """Add number columns of a CSV to the index, joined by id.

    Exit code 3, and nothing written, if no row of the table matched.
    """
    from ecgcohorts.store.upkeep.labels import add_labels

    # `LVEF=lvef` renames; a column alone keeps its name.
    columns = {name: label or name for name, _, label in (text.partition("=") for text in column)}
    report = add_labels(
        store,
        csv,
        cohort,
        key,
        id_column=id_column,
        kind=kind,  # type: ignore[arg-type]
        columns=columns,
        replace=replace,
    )
    known = ", ".join(f"{label} {count}" for label, count in report.known.items())
    text = (
        f"{report.rows_matched} rows matched, {report.rows_unmatched} not; {report.recordings_matched} recordings "
        f"matched, {report.recordings_unmatched} not; known: {known}; fingerprint {report.fingerprint[:16]}"
    )
    return Answer(report, text)


@command(
    "remove",
    "ecgcohorts remove store.zarr ptb_xl 15709",
    "ecgcohorts remove store.zarr ptb_xl 15709 --key demo.key --json",
)
@store
@cohort
@argument("original", TEXT, "id of the patient as the source has it")
@key
def _remove(*, store: str, cohort: str, original: str, key: Path | None) -> Answer:
    """Remove a patient for good, as when consent is withdrawn.

    From signals, index and splits, and from later ingests.
    """
    from ecgcohorts.store.upkeep.remove import remove_patient

    report = remove_patient(store, cohort, original, key)
    if not report.written:
        return Answer(report, "removed before. Nothing written.")
    text = (
        f"patient {report.patient}: {report.recordings} recordings removed, {report.shards} shards and "
        f"{report.splits} splits rewritten; {report.copies} refused copies under other ids"
    )
    return Answer(report, text)


@command("compact", "ecgcohorts compact store.zarr", "ecgcohorts compact store.zarr --cohort ptb_xl")
@store
@option("--cohort", type=_IN_STORE, help="only this cohort; default: all")
@key
def _compact(*, store: str, cohort: str | None, key: Path | None) -> Answer:
    """Bring the recordings of each patient together again.

    After several ingests they lie apart, which costs time in training. Row numbers change, in the index and in all kept splits.
    """
    from ecgcohorts.store.upkeep.compact import compact

    with progress() as tell:
        report = compact(store, cohort, key, lambda done, total: tell("compact", done, total))
    if not report.written:
        return Answer(report, "nothing to do: one segment a cohort, no empty rows. Nothing written.")
    text = (
        f"{', '.join(report.cohorts)}: {report.recordings} recordings of {report.segments} segments in "
        f"{len(report.cohorts)}, {report.empty_rows} empty rows left out; fingerprint {report.fingerprint[:16]}\n"
        f"The snapshot before stays readable, and takes room, until: ecgcohorts gc {store}"
    )
    return Answer(report, text)


@command(
    "rejects",
    "ecgcohorts rejects store.zarr ptb-xl/ --cohort ptb_xl -o refused.csv",
    "ecgcohorts rejects store.zarr export.zip --cohort mine.yaml -o refused.csv --json",
)
@store
@argument("source", SOURCE, "the raw recordings, as for ingest")
@option("--cohort", type=COHORT, required=True, help="what they were ingested with")
@option("-o", "--out", type=FILE, required=True, help="CSV to write, outside of store and source; it names files")
@key
def _rejects(*, store: str, source: str, cohort: str, out: Path, key: Path | None) -> Answer:
    """Write which files were refused, what was found in each, and what to do.

    Reads the refused files again. A store holds only a pseudonym and a code of each; this file has their paths, and only
    you may read it.
    """
    from ecgcohorts.ingest.refused import write_refused

    report = write_refused(store, source, cohort, out, key)
    return Answer(report, str(report))
