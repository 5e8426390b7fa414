"""One HTML page of a whole experiment: who, what the ECGs look like, how training went, what the embeddings know.

Every piece may be missing: the page shows what there is. It is one file, without script or anything from elsewhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capezoo.evaluate.page import tables
from capezoo.evaluate.page.figures import lines
from capezoo.evaluate.questions.map import EmbeddingMap
from capezoo.evaluate.results import StudyResult, Task, file_name, read_result
from ecgcohorts.errors import SourceError
from ecgcohorts.report.page import Markup, Section, facts, figure, heading, page, paragraph, table, write_text

if TYPE_CHECKING:
    from ecgcohorts.store import AnyStore

EXAMPLES = 1  # ECGs per cohort; about 50 kB each
TASKS: tuple[Task, ...] = ("age", "sex")


def build_report(
    out: str | Path,
    studies: Sequence[str | Path] = (),
    runs: Sequence[str | Path] = (),
    store: "AnyStore | None" = None,
    title: str = "Do cohorts separate?",
) -> Path:
    """Write the report and return where it is.

    studies: folders written by `capezoo evaluate ood`; several of them (one per seed) are also compared pairwise.
    runs: folders of pretraining runs, for their loss curves. store: for cohort table and example ECGs.
    Raises SourceError if a folder named is not what it should be, or `out` cannot be written.
    """
    results = [read_result(StudyResult, Path(folder) / "results.json") for folder in studies]
    sections = [Section("In short", _in_short(results))]
    if store is not None:
        sections += [Section("Cohorts", _cohorts(store)), Section("ECGs", _examples(store))]
    if runs:
        sections.append(Section("Training", _training([Path(run) for run in runs])))
    if results:
        sections.append(Section("Maps", _maps(results[0], Path(studies[0]))))
        sections.append(Section("Do cohorts separate?", _separation(results)))
        sections.append(Section("Out of distribution", _transfer(results)))
        sections.append(Section("Where the numbers come from", _sources(results)))
    write_text(Path(out), page(title, sections, f"{len(results)} evaluations, {len(runs)} training runs"))
    return Path(out)


def headline(study: StudyResult) -> dict[str, dict[str, float | None]]:
    """The numbers that matter: weights -> separability and error away from the training cohort, guarded scaler."""
    found: dict[str, dict[str, float | None]] = {}
    for weights in study.ood.weights:
        measured = study.separability.get(weights.name)
        row: dict[str, float | None] = {}
        for key, name in tables.SEPARABILITY.items():
            row[name] = measured.value(key) if measured else None
        for task, name in tables.ELSEWHERE.items():
            row[name] = tables.mean_elsewhere(study.ood, weights, task, "guarded")
        found[weights.name] = row
    return found


def _in_short(results: Sequence[StudyResult]) -> Markup:
    if not results:
        return paragraph("No evaluation was given: this page shows the data and the training only.")
    first = results[0]
    text = (
        f"Heads for age and sex were trained on {first.ood.config.train_cohort} and tested on every cohort. Cohorts that "
        "an embedding cannot tell apart have a purity and a probe AUC near chance; heads then have a chance to work "
        f"elsewhere. Means over the other cohorts with {tables.FEWEST_IN_MEAN} patients or more, guarded scaler:"
    )
    parts = paragraph(text) + table(pd.DataFrame.from_dict(headline(first), orient="index"))
    if len(results) > 1:
        names = " and ".join(weights.name for weights in first.ood.weights[:2])
        parts += heading(f"{names}, paired over {len(results)} evaluations")
        parts += table(tables.over_seeds(results), "values in the order of the evaluations")
    return parts


def _cohorts(store: "AnyStore") -> Markup:
    from ecgcohorts.report.html import accounting_html
    from ecgcohorts.report.table1 import table1, table1_html

    return table1_html(table1(store.index)) + accounting_html(store)


def _examples(store: "AnyStore") -> Markup:
    from ecgcohorts.report.paper import record_svg

    parts = [paragraph("The first recording of the first patient of each cohort, in the random order of the store.")]
    for code in range(len(store.index.cohorts)):
        patients = np.flatnonzero(store.index.patient_cohort == code)[:EXAMPLES]
        parts += [figure(record_svg(store, int(store.index.patient_ptr[patient]))) for patient in patients]
    return Markup("").join(parts)


def _training(runs: Sequence[Path]) -> Markup:
    """Loss curves of each run: training, held out, and the loss of an encoder that knows nothing."""
    text = (
        "Loss in nats. Held-out batches are of one cohort each; at the bound, ln(2N-1), two ECGs of a patient are "
        "no more alike than two ECGs of different patients."
    )
    parts = []
    for run in runs:
        rows = _metrics(run)
        series = {
            name: (rows["step"].to_numpy(float), rows[column].to_numpy(float))
            for column, name in (("loss", "training"), ("val_loss", "held out"), ("val_bound", "bound"))
            if column in rows
        }
        known = {name: (x[np.isfinite(y)], y[np.isfinite(y)]) for name, (x, y) in series.items()}
        parts.append(figure(lines(run.name, known, "step", "loss, nats"), _last_words(known)))
        per_cohort = {
            column.removeprefix("val_loss_"): _known(rows, column)
            for column in map(str, rows.columns)
            if column.startswith("val_loss_")
        }
        if per_cohort:
            parts.append(figure(lines(f"{run.name}, held out by cohort", per_cohort, "step", "loss, nats")))
    return paragraph(text) + Markup('<div class="grid">{}</div>').format(Markup("").join(parts))


def _metrics(run: Path) -> pd.DataFrame:
    path = run / "metrics.csv"
    if not path.is_file():
        raise SourceError(f"{run}: found no metrics.csv, expected the folder of a run. Give the --out of a run.")
    rows = pd.read_csv(path)
    if "step" not in rows:
        raise SourceError(f"{path}: found no column 'step', expected the metrics of a run.")
    return rows.apply(pd.to_numeric, errors="coerce")


def _known(rows: pd.DataFrame, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    some = rows[rows[column].notna()]
    return some["step"].to_numpy(float), some[column].to_numpy(float)


def _last_words(series: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> str:
    return ", ".join(f"{name} {y[-1]:.3f}" for name, (_, y) in series.items() if len(y)) + " at the end."


def _maps(study: StudyResult, folder: Path) -> Markup:
    """The maps of the first evaluation, in the order of its weights."""
    text = "A map is an illustration: distances and areas in it mean little. The numbers are below."
    paths = [folder / "maps" / f"{file_name(weights.name)}.json" for weights in study.ood.weights]
    figures = [figure(read_result(EmbeddingMap, path).svg()) for path in paths if path.is_file()]
    grid = Markup('<div class="grid">{}</div>').format(Markup("").join(figures))
    return paragraph(text) + (grid if figures else paragraph("No maps were drawn."))


def _separation(results: Sequence[StudyResult]) -> Markup:
    parts = []
    for study in results:
        if not study.separability:
            parts.append(paragraph("Fewer than two cohorts have enough patients to be told apart."))
            continue
        one = next(iter(study.separability.values()))
        caption = (
            f"seed {study.ood.config.seed}; {one.patients_per_cohort} patients of each of {', '.join(one.cohorts)}, one "
            f"record each; 95 % intervals" + (f"; too small: {', '.join(one.left_out)}" if one.left_out else "")
        )
        parts.append(table(tables.separability(study), caption))
    return Markup("").join(parts)


def _transfer(results: Sequence[StudyResult]) -> Markup:
    parts = []
    for study in results:
        result = study.ood
        counts = " and ".join(f"{count:,} records with {task}" for task, count in result.train_records.items())
        parts.append(
            paragraph(
                f"Seed {result.config.seed}. Trained on {result.config.train_cohort}: {counts}; "
                f"{result.config.runs} heads per task, learning rate {result.config.lr:g}. Plain: z-score by the training "
                "cohort. Guarded: small deviations are floored, values cut at ten deviations. Value of the prediction "
                "averaged over heads; 95 % intervals draw patients anew."
            )
        )
        for task in (task for task in TASKS if task in result.train_records):
            parts += [heading(tables.TITLES[task]), table(tables.scores(result, task))]
            parts.append(_folded("mean over heads ± standard error", tables.runs(result, task)))
            compared = tables.comparisons(result, task)
            if len(compared):
                parts.append(_folded("paired differences", compared))
        parts += [heading("Features"), table(tables.health(result), "units on the training part of the cohort")]
        parts.append(_folded("test records", tables.tested_records(result)))
    return Markup("").join(parts)


def _folded(title: str, rows: pd.DataFrame) -> Markup:
    """A table that opens on a click; printed closed."""
    return Markup("<details><summary>{}</summary>{}</details>\n").format(title, table(rows))


def _sources(results: Sequence[StudyResult]) -> Markup:
    parts = []
    for study in results:
        source = study.ood.provenance
        values: dict[str, object] = {
            "command": source.command or "called from Python",
            "seed": str(source.seed),
            "store": source.store_fingerprint,
            "commit": source.commit or "not from a checkout",
            "versions": ", ".join(f"{name} {version}" for name, version in sorted(source.versions.items())),
        }
        values |= {f"weights {weights.name}": weights.weights for weights in study.ood.weights}
        parts.append(facts(values))
    return Markup("<hr>").join(parts)
