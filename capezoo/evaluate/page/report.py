"""One HTML page of a whole experiment: who, what the ECGs look like, how training went, what each question found.

Every piece may be missing: the page shows what there is. It is one file, without script or anything from elsewhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capezoo.evaluate.artefact.outcome import Outcome
from capezoo.evaluate.artefact.page import sections as control_sections
from capezoo.evaluate.questions import KIND, about
from capezoo.evaluate.results import Study
from capezoo.evaluate.rows import NEVER_TRAINED
from capezoo.training.curves import Table, panels, read
from ecgcohorts import plugins
from ecgcohorts.errors import SourceError
from ecgcohorts.report.charts import lines
from ecgcohorts.report.page import Markup, Section, facts, figure, heading, page, paragraph, table, write_text

if TYPE_CHECKING:
    from ecgcohorts.store.union import AnyStore

# ECGs per cohort; each has about 50 kB.
_EXAMPLES = 1
# The panels of curves that come first show losses: their last values are worth a caption.
_LOSSES = 2


def build_report(
    out: str | Path,
    studies: Sequence[str | Path] = (),
    runs: Sequence[str | Path] = (),
    store: "AnyStore | None" = None,
    title: str = "Do cohorts separate?",
) -> Path:
    """Write the report and return where it is.

    studies: folders written by `capezoo evaluate`; several of them (one per seed) are also compared pairwise. Those of
    artefact controls are shown before all else.
    runs: folders of pretraining runs, for their curves. store: for cohort table and example ECGs.
    Raises SourceError if a folder named is not what it should be, or `out` cannot be written.
    """
    folders = [Path(folder) for folder in studies]
    controls = [Outcome.read(folder) for folder in folders if Outcome.is_in(folder)]
    results = [Study.read(folder) for folder in folders if not Outcome.is_in(folder)]
    sections = [section for control in controls for section in control_sections(control)]
    if results or not controls:
        sections.append(Section("In short", _in_short(results)))
    if store is not None:
        sections += [Section("Cohorts", _cohorts(store)), Section("ECGs", _examples(store))]
    if runs:
        sections.append(Section("Training", _training([Path(run) for run in runs])))
    # Questions in the order in which the studies first name them; each has one section for all studies.
    for name in dict.fromkeys(name for study in results for name in (*study.answers, *study.left_out)):
        sections.append(Section(about(name)[0], _answers(name, results)))
    if results:
        sections.append(Section("Where the numbers come from", _sources(results)))
    write_text(Path(out), page(title, sections, f"evaluations: {len(folders)}, training runs: {len(runs)}"))
    return Path(out)


def _over_studies(studies: Sequence[Study]) -> pd.DataFrame:
    """Compare the first with the second set of weights of the first study, paired by study: one row per measure."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for study, names in _comparable(studies):
        first, second = map(study.headline(over_studies=True).__getitem__, names)
        for measure, a in first.items():
            b = second.get(measure)
            # A study that lacks a measure for one of the two says nothing about their difference.
            if a is not None and b is not None:
                pairs.setdefault(measure, []).append((a, b))
    rows = {}
    for measure, whole in pairs.items():
        differences = [a - b for a, b in whole]
        rows[measure] = {
            "first": ", ".join(f"{a:.3g}" for a, _ in whole),
            "second": ", ".join(f"{b:.3g}" for _, b in whole),
            "mean difference": f"{np.mean(differences):+.3g}",
            "second lower in": f"{sum(d > 0 for d in differences)} of {len(whole)}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _comparable(studies: Sequence[Study]) -> list[tuple[Study, tuple[str, str]]]:
    """Return the studies with the first two weights of the first study among them, and what these are called there."""
    first, second = (one.name for one in studies[0].weights[:2])
    found = []
    for study in studies:
        names = [one.name for one in study.weights]
        if {first, second} <= set(names):
            found.append((study, (first, second)))
            continue
        # Weights may be named for their seed, and then their places tell which they are. One that plays the other part
        # here, or was never trained, is none of them.
        not_it, pairs = {first, second, *NEVER_TRAINED}, list(zip((first, second), names, strict=False))
        if len(pairs) == 2 and all(a == b or (a not in NEVER_TRAINED and b not in not_it) for a, b in pairs):
            found.append((study, (names[0], names[1])))
    return found


def _in_short(studies: Sequence[Study]) -> Markup:
    if not studies:
        return paragraph("No evaluation was given.")
    parts = facts(dict(map(about, studies[0].answers)))
    numbers = pd.DataFrame(studies[0].headline())
    if numbers.size:
        parts += table(numbers)
    paired = _comparable(studies) if len(studies[0].weights) > 1 else []
    if len(paired) > 1:
        called = {names for _, names in paired}
        names = " and ".join(called.pop()) if len(called) == 1 else "First and second weights"
        parts += heading(f"{names}, paired over {len(paired)} evaluations")
        parts += table(_over_studies(studies), "values in the order of the evaluations")
    return parts


def _cohorts(store: "AnyStore") -> Markup:
    # Imported here: a report of evaluations alone needs none of it.
    from ecgcohorts.report.html import Accounts
    from ecgcohorts.report.table1 import Table1

    return Table1.of(store.index).html() + Accounts(store).html()


def _examples(store: "AnyStore") -> Markup:
    from ecgcohorts.report.paper import Page

    parts = [paragraph("The first recording of the first patient of each cohort, in the random order of the store.")]
    for code in range(len(store.index.cohorts)):
        patients = np.flatnonzero(store.index.patient_cohort == code)[:_EXAMPLES]
        parts += [
            figure(Page().draw_record(store, int(store.index.patient_ptr[patient])).to_svg()) for patient in patients
        ]
    return Markup("").join(parts)


def _training(runs: Sequence[Path]) -> Markup:
    """The curves of each run: the panels of its curves.png, as SVG."""
    text = (
        "Loss in nats. Held-out batches are of one cohort each. A dashed loss is that of an untrained encoder; for a "
        "contrastive method ln(2N-1), where two ECGs of a patient are no more alike than those of different patients."
    )
    parts = [paragraph(text)]
    for run in runs:
        drawn = [panel for panel in panels(_metrics(run)) if panel.curves]
        pictures = [lines(one.title, one.curves, "step", dashed=one.dashed, log=one.log) for one in drawn]
        ends = ["; ".join(f"{label} {y[-1]:.3f}" for label, (_, y) in one.curves.items()) for one in drawn[:_LOSSES]]
        captions = [f"At the end: {end}." for end in ends] + [""] * len(pictures[_LOSSES:])
        parts += [heading(run.name), _grid([figure(*pair) for pair in zip(pictures, captions, strict=True)])]
    return Markup("").join(parts)


def _metrics(run: Path) -> Table:
    path = run / "metrics.csv"
    if not path.is_file():
        raise SourceError(f"{run}: found no metrics.csv, expected the folder of a run. Give the --out of a run.")
    try:
        table = read(path)
    except ValueError as error:
        raise SourceError(f"{path}: found {error}, expected the metrics of a run.") from None
    if "step" not in table:
        raise SourceError(f"{path}: found no column 'step', expected the metrics of a run.")
    return table


def _answers(name: str, studies: Sequence[Study]) -> Markup:
    """What one question found in every study: settings, figures, tables."""
    module: Any = plugins.load(KIND, name)
    parts = [paragraph(about(name)[1])]
    for study in studies:
        if name in study.left_out:
            parts.append(paragraph(f"Seed {study.seed}: left out. {study.left_out[name]}"))
        if name not in study.answers:
            continue
        answer = study.answers[name]
        settings = ", ".join(f"{key} = {value}" for key, value in answer.config.model_dump(mode="json").items())
        parts.append(paragraph(f"Seed {study.seed}; {settings}."))
        parts.append(_grid([figure(one.svg, one.caption) for one in module.figures(answer.result)]))
        # Folded tables are for a reader who doubts a number; printed, they stay closed.
        for one in module.tables(answer.result):
            rows = table(one.rows, one.caption)
            folded = Markup("<details><summary>{}</summary>{}</details>\n").format(one.title, rows)
            parts.append(folded if one.folded else heading(one.title) + rows)
    results = [study.answers[name].result for study in studies if name in study.answers]
    over_seeds = getattr(module, "over_seeds", None)
    # Seeds that trained encoders of their own tell what patients drawn anew cannot.
    for one in over_seeds(results) if over_seeds and len(results) > 1 else ():
        parts.append(heading(one.title) + table(one.rows, one.caption))
    return Markup("").join(parts)


def _grid(figures: Sequence[Markup]) -> Markup:
    return Markup('<div class="grid">{}</div>').format(Markup("").join(figures))


def _sources(studies: Sequence[Study]) -> Markup:
    parts = []
    for study in studies:
        values: dict[str, object] = {"seed": str(study.seed), "store": study.store_fingerprint}
        values |= {f"weights {one.name}": one.weights for one in study.weights}
        for name, answer in study.answers.items():
            source = answer.provenance
            values[name] = source.command or "called from Python"
            values[f"{name}: commit"] = source.commit or "not from a checkout"
            versions = (f"{package} {version}" for package, version in sorted(source.versions.items()))
            values[f"{name}: versions"] = ", ".join(versions)
        parts.append(facts(values))
    return Markup("<hr>").join(parts)
