"""The report of a store: what it is, what went in and what was refused, who is in it, and what the ECGs look like."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ecgcohorts.index import SEX_CODES, UNKNOWN, CohortIndex
from ecgcohorts.report.charts import stacked_bars
from ecgcohorts.report.page import (
    Markup,
    Section,
    cell,
    facts,
    figure,
    heading,
    page,
    paragraph,
    table,
    write_text,
)
from ecgcohorts.report.paper import record_svg
from ecgcohorts.report.table1 import TOTAL, first_known, table1, table1_html
from ecgcohorts.store import Store

ACCOUNT = ("inputs", "stored", "duplicates", "rejected")  # the first is the sum of the others
EXAMPLES = 2  # per cohort; about 50 kB each
DECADES = (*map(str, range(0, 90, 10)), "90+")  # first year of each; ages are capped at 90 in a store

__all__ = [
    "Markup",
    "Section",
    "cell",
    "facts",
    "figure",
    "heading",
    "page",
    "paragraph",
    "report",
    "table",
    "write_text",
]


def report(store: Store, out: Path, examples: int = EXAMPLES) -> Path:
    """Write the report of a store as one HTML file and return where it is.

    examples: ECGs shown per cohort. Raises SourceError if `out` cannot be written.
    """
    sections = [
        Section("Store", _store_facts(store)),
        Section("What went in", accounting_html(store)),
        Section("Who is in it", table1_html(table1(store.index))),
        Section("Ages", ages_html(store.index)),
        Section("Examples", _examples_html(store, examples)),
    ]
    cohorts = f"{len(store.index.cohorts)} cohort{'s' * (len(store.index.cohorts) != 1)}"
    subtitle = f"{len(store.index):,} recordings of {store.index.n_patients:,} patients in {cohorts}"
    write_text(out, page(store.name, sections, subtitle))
    return out


def accounting(store: Store) -> pd.DataFrame:
    """Return inputs, stored, duplicates and rejected: one row per cohort, all runs summed, and their total."""
    rows = {name: Counter({"inputs": 0}) for name in (*_cohorts_met(store), TOTAL)}
    for segment in store.segments:
        part = segment.accounting
        counts = {"inputs": part.inputs, "stored": part.stored, "duplicates": part.duplicates}
        for name in (segment.cohort, TOTAL):
            rows[name].update(counts | {"rejected": sum(part.rejected.values())})
    return pd.DataFrame({column: [row[column] for row in rows.values()] for column in ACCOUNT}, index=list(rows))


def rejections(store: Store) -> pd.DataFrame:
    """Return how many recordings were refused for which reason: one row per reason, one column per cohort and their total."""
    columns = {name: Counter[str]() for name in (*_cohorts_met(store), TOTAL)}
    for segment in store.segments:
        for name in (segment.cohort, TOTAL):
            columns[name].update(segment.accounting.rejected)
    reasons = sorted(columns[TOTAL])
    return pd.DataFrame(
        {name: [counts[reason] for reason in reasons] for name, counts in columns.items()}, index=reasons
    )


def accounting_html(store: Store) -> Markup:
    """Return the accounts as a sentence that can be checked, and as tables."""
    accounts, reasons = accounting(store), rejections(store)
    inputs, stored, duplicates, rejected = accounts.to_numpy()[-1].tolist()
    verdict = (
        "Every input is accounted for" if inputs == stored + duplicates + rejected else "THE ACCOUNTS DO NOT ADD UP"
    )
    sentence = (
        f"{verdict}: {inputs:,} inputs = {stored:,} stored + {duplicates:,} duplicates + {rejected:,} rejected. "
        "A duplicate is a waveform that the store holds already, whatever file or cohort it came in."
    )
    parts = paragraph(sentence) + table(accounts)
    if len(reasons):
        shown = reasons.rename(index=lambda reason: str(reason).replace("_", " ")).T  # few reasons, many cohorts
        parts += heading("Why recordings were refused") + table(shown)
    return parts


def ages_html(index: CohortIndex) -> Markup:
    """Return one chart of ages by decade and sex for each cohort with ages; every patient counts once."""
    charts = []
    without = []
    for name in index.cohorts:
        counts = _age_counts(index.where(cohort=name))
        if any(map(any, counts.values())):
            charts.append(figure(stacked_bars(name, DECADES, counts, "age in years, by decade")))
        else:
            without.append(name)
    text = "Patients by age at their first recording with a known age; patients of unknown age are not drawn."
    if without:
        text += f" No ages are known in {', '.join(without)}."
    return paragraph(text) + Markup('<div class="grid">{}</div>').format(Markup("").join(charts))


def _cohorts_met(store: Store) -> list[str]:
    """Cohorts in the order in which they came, with those of which nothing was stored."""
    return list(dict.fromkeys(segment.cohort for segment in store.segments))


def _store_facts(store: Store) -> Markup:
    recipe, manifest = store.recipe, store.manifest
    licences = {segment.cohort: segment.licence or "not stated" for segment in store.segments}
    size_mb = sum(entry.size for entry in manifest.files.values()) / 1e6
    return facts(
        {
            "recordings": len(store.index),
            "patients": store.index.n_patients,
            "cohorts": ", ".join(store.index.cohorts),
            "recipe": recipe.name,
            "signal": f"{', '.join(recipe.leads)}; {recipe.rate_hz:g} samples/s; {recipe.band_hz[0]:g}-{recipe.band_hz[1]:g} Hz; "
            f"up to {recipe.strip_s:g} s; steps of {recipe.lsb_uv:g} uV",
            "window": f"{recipe.window_s:g} s = {recipe.window_samples} samples",
            "size": f"{size_mb:,.1f} MB in {len(manifest.files):,} files",
            "generation": manifest.generation,
            "store fingerprint": store.fingerprint,
            "index fingerprint": store.index.fingerprint,
            "written with": ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())),
            "licences": "; ".join(f"{cohort}: {licence}" for cohort, licence in licences.items()),
        }
    )


def _age_counts(index: CohortIndex) -> dict[str, list[int]]:
    age, sex = first_known(index, "age"), first_known(index, "sex")
    counts = {}
    for name, code in (*SEX_CODES.items(), ("sex unknown", UNKNOWN)):
        chosen = age[(sex == code) & ~np.isnan(age)]
        decades = np.minimum(chosen.astype(np.int64) // 10, len(DECADES) - 1)
        counts[name] = np.bincount(decades, minlength=len(DECADES)).tolist()
    return {name: count for name, count in counts.items() if any(count) or name in SEX_CODES}


def _examples_html(store: Store, examples: int) -> Markup:
    """The first recording of evenly spaced patients: their order in a store is random, so nobody chose these."""
    index = store.index
    parts = [
        paragraph("The first recording of evenly spaced patients of each cohort, as stored: filtered and at one rate.")
    ]
    for code, name in enumerate(index.cohorts):
        patients = np.flatnonzero(index.patient_cohort == code)
        if not len(patients) or examples < 1:
            continue
        chosen = np.unique(np.linspace(0, len(patients) - 1, num=min(examples, len(patients))).round().astype(int))
        parts.append(heading(name))
        parts += [figure(record_svg(store, int(index.patient_ptr[patient]))) for patient in patients[chosen]]
    return Markup("").join(parts)
