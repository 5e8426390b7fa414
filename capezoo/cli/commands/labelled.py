"""From labels of one's own to a tested answer, and to answers for new files."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capezoo.cli.parameters import WEIGHTS, device, offline
from ecgcohorts.cli.console import EXIT_REJECTED, Answer, progress, table
from ecgcohorts.cli.parameters import COUNT, FILE, FOLDER, FRACTION, INTEGER, SOURCE, TEXT, OneOf, argument, option
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from capezoo.evaluate.labelled.examples import Labelled
    from capezoo.evaluate.labelled.probe import Row

ORDER = 2
# Of the JSON beside a table, ours has a few kB.
_MOST_BYTES = 16 << 20


@command(
    "probe",
    "capezoo probe features.parquet --labels labels.csv --target af --patient patient_id",
    "capezoo probe a.parquet b.parquet --labels labels.csv --target age --method boosting --json",
    "capezoo probe features.parquet --labels labels.csv --target af --publish af_model --weights weights/z",
)
@argument("features", FILE, "tables that `capezoo embed` wrote, of one set of recordings", nargs=-1, required=True)
@option("--labels", type=FILE, required=True, help="table (.csv, .tsv, .parquet) with a row for each file")
@option("--target", type=TEXT, required=True, help="its column to be answered")
@option("--key", type=TEXT, default="file", help="its column of files; folders and suffix may be left out")
@option(
    "--patient", type=TEXT, help="its column of patient ids; without one, every recording counts as a person of its own"
)
@option(
    "--with",
    "covariates",
    type=TEXT,
    multiple=True,
    help="a column to add to the features, such as age; repeat for more",
)
@option("--unseen", is_flag=True, help="leave out everybody of whom a recording is known to have trained an encoder")
@option("--kind", type=OneOf("binary", "classes", "number"), help="what the target is; default: told from its values")
@option("--method", type=OneOf("linear", "knn", "boosting"), default="linear", help="model of scikit-learn")
@option("--folds", type=COUNT, default=5, help="of patients, for cross-validation")
@option("--seed", type=INTEGER, default=0, help="of folds, models and intervals")
@option("-o", "--out", type=FILE, help="CSV of the answers in cross-validation, recording by recording")
@option("--publish", type=FOLDER, help="folder to make: the linear model on all recordings, for `capezoo predict`")
@option("--weights", type=WEIGHTS, help="with --publish: the weights that the features are of")
@offline
def _probe(
    *, features: Sequence[Path], labels: Path, target: str, out: Path | None, publish: Path | None, weights: str | None,
    offline: bool, **how: Any,
) -> Answer:  # fmt: skip
    """Answer a question of your own from frozen features, tested on patients that no model has seen.

    Several tables are compared on the recordings that all of them have. Each fold is answered by a model of the other folds,
    whose setting was chosen on these alone. Intervals draw patients.
    """
    from capezoo.evaluate.labelled.examples import read_labelled
    from capezoo.evaluate.labelled.probe import probe

    if publish is not None and (how["method"] != "linear" or len(features) > 1 or weights is None):
        raise SpecError(
            "found --publish, expected one table of features, the method linear, and --weights. Give these."
        )
    names = _names(features)
    asked = {name: how[name] for name in ("key", "patient", "covariates", "kind", "unseen")}
    data = read_labelled(dict(zip(names, features, strict=True)), labels, target, **asked)
    rows = probe(data, how["method"], folds=how["folds"], seed=how["seed"])
    if out is not None:
        _write_answers(out, data, rows)
    made = None
    if publish is not None:
        assert weights is not None
        made = _published(publish, weights, offline, features[0], (data, rows[0], target, how["seed"]))
    return Answer(_facts(data, rows, made), _in_words(data, rows, target, made))


def _names(features: Sequence[Path]) -> list[str]:
    """Return names for tables: their own, with the folder where these are alike."""
    short = [path.stem for path in features]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, features, strict=True)]


def _write_answers(out: Path, data: "Labelled", rows: "Sequence[Row]") -> None:
    import pandas as pd

    from capezoo.embedding.tables import harmless
    from ecgcohorts.io.durable import write_file

    columns: dict[str, Any] = {"file": data.file, "truth": [_said(data, value) for value in data.target]}
    for row in rows:
        if data.kind == "classes":
            columns |= {f"{row.name}: {name}": row.answers[:, at] for at, name in enumerate(data.classes)}
        else:
            columns[row.name] = row.answers
    write_file(out, harmless(pd.DataFrame(columns)).to_csv(index=False).encode())


def _said(data: "Labelled", value: float) -> str | float:
    return data.classes[int(value)] if data.classes else value


def _published(
    publish: Path, weights: str, offline: bool, features: Path, fitted_on: "tuple[Labelled, Row, str, int]"
) -> Path:
    """Make the folder of a predictor: the encoder, then the model; whole or not at all.

    Raises SpecError if the features are of other weights, SourceError if nothing says of which they are.
    """
    from capezoo.embedding.folder import weights_digest
    from capezoo.evaluate.labelled.predictor import ENCODER, Predictor
    from capezoo.specs.base import read_json
    from capezoo.zoo.create import load
    from capezoo.zoo.listing import pull
    from ecgcohorts.errors import SourceError, UnreadableRecording
    from ecgcohorts.io.regular import read_bounded

    if publish.exists():
        raise SpecError(f"{publish}: found something there, expected a new folder. Name another, or remove it.")
    beside = features.with_suffix(".json")
    try:
        said = read_json(read_bounded(beside, _MOST_BYTES), str(beside))
    except UnreadableRecording as error:
        raise SourceError(
            f"{beside}: found {error.found}, expected what `capezoo embed` wrote beside the table. Embed the files again."
        ) from None
    aside = publish.with_name(f".{publish.name}.part")
    # Of a run that was killed.
    shutil.rmtree(aside, ignore_errors=True)
    try:
        pull(weights, aside / ENCODER, offline)
        digest = weights_digest(load(aside / ENCODER))
        if said.get("weights") != digest:
            raise SpecError(
                f"{features}: found features of other weights than {weights}. Name those that made the table."
            )
        data, row, target, seed = fitted_on
        Predictor.fit(data, row, target, digest, seed).save(aside)
        aside.rename(publish)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return publish


def _facts(data: "Labelled", rows: "Sequence[Row]", made: Path | None) -> dict[str, Any]:
    def of(row: "Row") -> dict[str, Any]:
        metrics = {name: [found.value, *found.interval().limits] for name, found in row.metrics.items()}
        return {"name": row.name, "metrics": metrics, "settings": row.settings, **row.table}

    return {
        "kind": data.kind,
        "classes": data.classes,
        "recordings": len(data.target),
        "patients": len(set(data.patient.tolist())) if data.has_patients else None,
        "unlabelled": data.unlabelled,
        "trained_on": data.trained_on,
        "labelled_without_features": data.unmatched,
        "rows": [of(row) for row in rows],
        "published": made,
    }


def _in_words(data: "Labelled", rows: "Sequence[Row]", target: str, made: Path | None) -> Any:
    from rich.console import Group
    from rich.text import Text

    people = (
        f"{len(set(data.patient.tolist())):,} patients" if data.has_patients else "each taken for a person of its own"
    )
    counts = Counter(data.target.tolist())
    what = ", ".join(f"{counts[at]:,} {name}" for at, name in enumerate(data.classes))
    lines = [f"{target} ({data.kind}): {len(data.target):,} recordings, {people}{f': {what}' if what else ''}"]
    if data.unlabelled or data.unmatched:
        lines.append(f"left out: {data.unlabelled:,} without a label, {data.unmatched:,} labels without features")
    lines += [
        f"{name}: {count:,} of these recordings trained its encoder, so this is no test on strangers; leave them out: --unseen"
        for name, count in data.trained_on.items()
        if count
    ]
    head = ["", *rows[0].metrics]
    body = [[row.name, *(_number(found) for found in row.metrics.values())] for row in rows]
    first = rows[0]
    # Paired: the same patients are drawn for both.
    for row in rows[1:]:
        gains = {name: first.metrics[name] - row.metrics[name] for name in row.metrics}
        body.append([f"{first.name} - {row.name}", *(_number(gain, signed=True) for gain in gains.values())])
    parts: list[Any] = [Text("\n".join(lines)), table(body, head, right=tuple(range(1, len(head))))]
    if first.table:
        decided = first.table
        parts.append(
            Text(
                f"{data.classes[1]} from {decided['threshold']:.3f} up (chosen in the other folds): sensitivity {decided['sensitivity']:.3f}, "
                f"specificity {decided['specificity']:.3f}; probabilities off by {decided['calibration']['expected_error']:.3f} "
                "on average"
            )
        )
    if made is not None:
        parts.append(
            Text(f"{made}: fitted on all of them. Answer for new files: capezoo predict {made} FILES -o answers.csv")
        )
    return Group(*parts)


def _number(found: Any, signed: bool = False) -> str:
    interval = found.interval()
    return f"{interval.value:{'+' if signed else ''}.3f} ({interval.low:{'+' if signed else ''}.3f} to {interval.high:{'+' if signed else ''}.3f})"


@command(
    "predict",
    "capezoo predict af_model recordings/ -o answers.csv",
    "capezoo predict age_model recordings/ -o answers.parquet --covariates people.csv -j 2",
)
@argument("predictor", FOLDER, "folder that `capezoo probe --publish` made")
@argument("source", SOURCE, "files, folders, archives or buckets of raw ECGs", nargs=-1, required=True)
@option("-o", "--out", type=FILE, required=True, help="table to write: .csv or .parquet")
@option("--covariates", type=FILE, help="table of the further columns that the model takes, with a row for each file")
@option("--key", type=TEXT, default="file", help="its column of files")
@option(
    "--missing-leads",
    type=OneOf("refuse", "derive", "zero"),
    default="refuse",
    help="leads that a recording has not: an error, derived from two limb leads, or fed as 0 mV as well",
)
@option("-j", "--workers", type=COUNT, default=1, help="processes that read and filter")
@option("--max-reject-frac", type=FRACTION, default=0.1, help="end with exit code 3 if a larger share was refused")
@device
def _predict(
    *, predictor: Path, source: Sequence[str], out: Path, covariates: Path | None, key: str, max_reject_frac: float,
    **how: Any,
) -> Answer:  # fmt: skip
    """Answer for raw files what a published model was fitted to answer.

    Files that cannot be used are listed beside the table with the reason.
    """
    from capezoo.embedding.files import embed_files
    from capezoo.evaluate.labelled.predictor import ENCODER, Answers, Predictor
    from capezoo.zoo.create import load

    if out.suffix not in (".csv", ".parquet"):
        raise SpecError(f"{out}: found suffix {out.suffix!r}, expected .csv or .parquet.")
    model, encoder = Predictor.read(predictor), load(predictor / ENCODER)
    model.require(encoder)
    answers = Answers(model, covariates, key)
    with progress() as tell:
        done = embed_files(encoder, source, out, name=model.about.target, progress=tell, instead=answers, **how)
    refused = f"; refused: {done.refused:,}, each with its reason in {done.refused_list}" if done.refused else ""
    filled = (
        f"; without {' or '.join(model.about.covariates)} in {covariates}, answered with the median: {answers.unknown:,}"
        if answers.unknown
        else ""
    )
    facts = {"out": out, "records": done.records, "refused": done.refused, "reasons": done.reasons}
    facts["covariates_unknown"] = answers.unknown
    answer = Answer(facts, f"{out}: {model.about.target} for {done.records:,} recordings{filled}{refused}")
    if done.refused_fraction <= max_reject_frac:
        return answer
    complaint = (
        f"{done.refused_fraction:.0%} of the recordings were refused, more than --max-reject-frac {max_reject_frac:g}."
    )
    return Answer(answer.facts, answer.text, complaint, EXIT_REJECTED)
