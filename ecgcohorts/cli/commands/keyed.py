"""With the pseudonym key.

What these commands do to a store starts from an id of the source. Ids go in and never come out: the answers hold
pseudonyms and counts.
"""

import sys
from pathlib import Path
from typing import Any

from ecgcohorts.cli.console import EXIT_NOT_FOUND, Answer, progress
from ecgcohorts.cli.parameters import COHORT, FILE, SOURCE, STORE, TEXT, Name, OneOf, argument, key, option
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SourceError, SpecError

ORDER = 5
_IN_STORE = Name("NAME")
store = argument("store", STORE, "folder of the store")
cohort = argument("cohort", _IN_STORE, "cohort of the store")
ids_file = option("--file", type=FILE, help="ids, one a line; - for standard input")


def _ids(original: str | None, file: Path | None) -> list[str]:
    """Return the ids asked for: the one of the command line, or those of a file or of standard input, one a line."""
    if (original is None) == (file is None):
        raise SpecError("found an id and --file, or neither. Give one of them; --file - reads standard input.")
    if file is None:
        return [str(original)]
    try:
        # By their own line numbers the answers name ids, so empty lines stay.
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{file}: this is not a list in UTF-8. Save it as one.") from None
    if not text.strip():
        raise SourceError(f"{file}: found no ids, expected one a line.")
    return text.splitlines()


@command(
    "id",
    "ecgcohorts id store.zarr ptb_xl --file ids.txt",
    "ecgcohorts id store.zarr ptb_xl --file - --kind patient --json",
    "ecgcohorts id store.zarr ptb_xl --file rows.txt --kind row --source ptb-xl/ -o files.csv",
    "ecgcohorts id store.zarr ours --source export/ --description ours.yaml -o all.csv",
)
@store
@cohort
@argument("original", TEXT, "id as the source has it", required=False)
@ids_file
@option(
    "--kind",
    type=OneOf("recording", "patient", "pseudonym", "row"),
    default="recording",
    help="what the ids name; a recording by its id or path",
)
@option("--source", type=SOURCE, help="the raw recordings, as for ingest: find the files, too")
@option("--description", type=COHORT, help="with --source: what they were ingested with; default: the preset COHORT")
@option("-o", "--out", type=FILE, help="with --source: CSV to write, outside of store and source; it names files")
@key
def _find(
    *, store: str, cohort: str, original: str | None, file: Path | None, kind: str, key: Path | None, **traced: Any
) -> Answer:
    """Find the recordings that an id of the source names, and their files.

    Exit code 1 if the store has none. A store has no paths: with --source, one pass over the headers there finds which
    file is which, from ids or paths to rows and pseudonyms and back, of all recordings where no id is given. An id on the
    command line ends in the shell's history and is seen by every user of the machine (`ps`): --file reads ids from a file
    or, with -, from standard input.
    """
    if any(traced.values()) or kind in ("pseudonym", "row"):
        return _traced(store, cohort, original, file, (kind, key), **traced)
    from ecgcohorts.store.reader import open_store
    from ecgcohorts.store.upkeep.lookup import find_by_id

    opened, ids = open_store(store), _ids(original, file)
    found = [(line, find_by_id(opened, cohort, one, kind, key)) for line, one in enumerate(ids, 1) if one.strip()]  # type: ignore[arg-type]
    if file is None:
        one = found[0][1]
        return Answer(one, str(one)) if one.rows else Answer(one, complaint=str(one), code=EXIT_NOT_FOUND)
    # Ids never come out: a line's number says which one is meant.
    facts = [{"line": line, "found": one} for line, one in found]
    text = "\n".join(f"line {line}: {one}" for line, one in found if one.rows or one.reason)
    missing = [str(line) for line, one in found if not one.rows]
    if not missing:
        return Answer(facts, text)
    complaint = f"{len(missing)} of {len(found)} ids have no row, in line {', '.join(missing[:20])}."
    return Answer(facts, text, complaint, EXIT_NOT_FOUND)


def _traced(
    store: str,
    cohort: str,
    original: str | None,
    file: Path | None,
    kind_and_key: tuple[Any, Path | None],
    *,
    source: str | None,
    description: str | None,
    out: Path | None,
) -> Answer:
    """Find the files of recordings, or the recordings of files."""
    from ecgcohorts.ingest.trace import TraceReport

    if source is None or out is None:
        raise SpecError(
            "found one of --source, --description and --out, or rows or pseudonyms without them, expected --source and "
            "--out: a store holds no paths, and files are named in a table that only you may read."
        )
    kind, key = kind_and_key
    asked = None if original is None and file is None else (kind, _ids(original, file))
    report = TraceReport.save((store, source), description or cohort, cohort, out, asked, key)
    if not report.missing:
        return Answer(report, str(report))
    lines = ", ".join(map(str, report.missing[:20])) + (" ..." if len(report.missing) > 20 else "")
    complaint = f"{len(report.missing)} of {report.asked} ids lead to no recording of the source, in line {lines}."
    return Answer(report, str(report), complaint, EXIT_NOT_FOUND)


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
    "folds",
    "ecgcohorts folds store.zarr folds.csv --cohort ptb_xl",
    "ecgcohorts folds store.zarr --split study-1 --source ptb-xl/ --cohort ptb_xl -o study-1.csv",
)
@store
@argument(
    "csv",
    FILE,
    "table to take: ids or paths of recordings, and a column fold, strat_fold, part or split",
    required=False,
)
@option("--cohort", type=COHORT, required=True, help="cohort of the store; for --source, its description")
@option("--split", type=_IN_STORE, default="folds", help="name of the split")
@option("--id-column", type=TEXT, help="column with ids or paths of recordings; default: the first that names some")
@option("--source", type=SOURCE, help="the raw recordings: write the split with their ids instead")
@option("-o", "--out", type=FILE, help="with --source: CSV to write, outside of store and source; it names recordings")
@option("--replace", is_flag=True, help="overwrite the split of that name")
@key
def _folds(
    *,
    store: str,
    csv: Path | None,
    cohort: str,
    split: str,
    id_column: str | None,
    source: str | None,
    out: Path | None,
    replace: bool,
    key: Path | None,
) -> Answer:
    """Take published folds as a split, by the ids of the source, or write a split with these ids.

    Folds 1 to 8 become train, 9 val and 10 test; names of parts stay. What is written names recordings, so only you may read
    it, and `folds` takes it into any store of the same source.
    """
    from ecgcohorts.ingest.folds import Folds

    if (csv is None) == (source is None) or (source is None) != (out is None):
        raise SpecError("found neither or both of a table to take and --source with --out, expected one of the two.")
    if source is not None and out is not None:
        report = Folds.save((store, source), cohort, split, out, key)
    else:
        assert csv is not None
        report = Folds.take(store, csv, cohort, split, key, id_column=id_column, replace=replace)
    return Answer(report, f"split {split}: {report}")


@command(
    "remove",
    "ecgcohorts remove store.zarr ptb_xl --file withdrawn.txt",
    "ecgcohorts remove store.zarr ptb_xl 15709 --key demo.key --json",
)
@store
@cohort
@argument("original", TEXT, "id of the patient as the source has it", required=False)
@ids_file
@key
def _remove(*, store: str, cohort: str, original: str | None, file: Path | None, key: Path | None) -> Answer:
    """Remove a patient for good, as when consent is withdrawn.

    From signals, index and splits, and from later ingests. An id on the command line ends in the shell's history and is
    seen by every user of the machine (`ps`): --file reads ids from a file or, with -, from standard input.
    """
    from ecgcohorts.store.upkeep.remove import remove_patient

    ids = _ids(original, file)
    if file is None:
        report = remove_patient(store, cohort, ids[0], key)
        return Answer(report, _removal(report))
    facts, lines, failed = [], [], []
    for line, one in enumerate(ids, 1):
        if not one.strip():
            continue
        try:
            report = remove_patient(store, cohort, one, key)
        # An id that is not there must not keep those after it in the store.
        except SpecError as error:
            failed.append(line)
            lines.append(f"line {line}: {error}")
            continue
        facts.append({"line": line, "removed": report})
        lines.append(f"line {line}: {_removal(report)}")
    if not failed:
        return Answer(facts, "\n".join(lines))
    complaint = (
        f"{len(failed)} ids name no patient of the cohort, the first in line {failed[0]}; the others were removed."
    )
    return Answer(facts, "\n".join(lines), complaint, EXIT_NOT_FOUND)


def _removal(report: Any) -> str:
    if not report.written:
        return "removed before. Nothing written."
    return (
        f"patient {report.patient}: {report.recordings} recordings removed, {report.shards} shards and "
        f"{report.splits} splits rewritten; {report.copies} refused copies under other ids"
    )


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
    you may read it. docs/troubleshooting.md says what usually causes each reason.
    """
    from ecgcohorts.ingest.refused import RefusedReport

    report = RefusedReport.save(store, source, cohort, out, key)
    return Answer(report, str(report))
