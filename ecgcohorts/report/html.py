"""The report of a store: facts, accounts of the ingest, table 1, ages and example ECGs."""

from pathlib import Path

import numpy as np
import pandas as pd

from ecgcohorts.index.cohort_index import SEX_CODES, UNKNOWN, CohortIndex
from ecgcohorts.report.charts import stacked_bars
from ecgcohorts.report.page import (
    Markup,
    Section,
    facts,
    figure,
    heading,
    page,
    paragraph,
    table,
    write_text,
)
from ecgcohorts.report.paper import Page
from ecgcohorts.report.table1 import TOTAL, Table1
from ecgcohorts.store.reader import AnyStore
from ecgcohorts.store.schema import Accounting

ACCOUNT = ("inputs", "stored", "duplicates", "rejected")  # the first is the sum of the others
# ECGs per cohort; each has about 50 kB.
EXAMPLES = 2
# First year of each. A store caps ages at 90, so the last decade has no end.
DECADES = (*map(str, range(0, 90, 10)), "90+")


def report(store: AnyStore, out: Path, examples: int = EXAMPLES) -> Path:
    """Write the report of a store as one HTML file and return where it is.

    examples: ECGs shown per cohort. Raises SourceError if `out` cannot be written, or lies in the store.
    """
    store.refuse_inside(out)
    sections = [
        Section("Store", _store_facts(store)),
        Section("What went in", Accounts(store).html()),
        Section("Who is in it", Table1.of(store.index).html()),
        Section("Ages", _ages_html(store.index)),
        Section("Examples", _examples_html(store, examples)),
    ]
    cohorts = f"{len(store.index.cohorts)} cohort{'s' * (len(store.index.cohorts) != 1)}"
    subtitle = f"{len(store.index):,} recordings of {store.index.n_patients:,} patients in {cohorts}"
    write_text(out, page(store.name, sections, subtitle))
    return out


class Accounts:
    """What became of every input of a store: by cohort, all runs summed, and in total.

    Cohorts of which nothing was stored are there as well.
    """

    def __init__(self, store: AnyStore) -> None:
        found = store.accounts()
        self._by_cohort = found | {TOTAL: Accounting.total(found.values())}

    @property
    def inputs(self) -> pd.DataFrame:
        """Inputs, stored, duplicates and rejected: one row per cohort, and their total."""
        rows = [
            (part.inputs, part.stored, part.duplicates, sum(part.rejected.values()))
            for part in self._by_cohort.values()
        ]
        return pd.DataFrame(rows, columns=list(ACCOUNT), index=list(self._by_cohort))

    @property
    def rejections(self) -> pd.DataFrame:
        """Refused recordings: one row per reason, one column per cohort and their total."""
        columns = {name: part.rejected for name, part in self._by_cohort.items()}
        reasons = sorted(columns[TOTAL])
        return pd.DataFrame(
            {name: [counts.get(reason, 0) for reason in reasons] for name, counts in columns.items()}, index=reasons
        )

    def html(self) -> Markup:
        """Return the accounts as a sentence that can be checked, and as tables."""
        accounts, reasons = self.inputs, self.rejections
        inputs, stored, duplicates, rejected = accounts.to_numpy()[-1].tolist()
        verdict = (
            "Every input is accounted for" if inputs == stored + duplicates + rejected else "THE ACCOUNTS DO NOT ADD UP"
        )
        sentence = (
            f"{verdict}: {inputs:,} inputs = {stored:,} stored + {duplicates:,} duplicates + {rejected:,} rejected. "
            "A duplicate is a waveform that the store holds already, whatever file or cohort it came in."
        )
        # The sentence can be checked by eye against the table below it.
        parts = paragraph(sentence) + table(accounts)
        if len(reasons):
            shown = reasons.rename(index=lambda reason: str(reason).replace("_", " ")).T  # few reasons, many cohorts
            parts += heading("Why recordings were refused") + table(shown)
        return parts


def _ages_html(index: CohortIndex) -> Markup:
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


def _store_facts(store: AnyStore) -> Markup:
    recipe, members = store.recipe, store.members
    band = "{:g}-{:g} Hz".format(*recipe.band_hz) if recipe.band_hz else "no band-pass"
    step = f"steps of {recipe.lsb_uv:g} uV"
    if recipe.unit == "none":
        step = f"numbers without a unit, in steps of {recipe.lsb_uv / 1000:g}"
    licences = {segment.cohort: segment.licence or "not stated" for segment in store.segments}
    sizes = [entry.size for member in members for entry in member.manifest.files.values()]
    versions = {f"{name} {version}" for member in members for name, version in member.manifest.versions.items()}
    return facts(
        {
            "recordings": len(store.index),
            "patients": store.index.n_patients,
            "cohorts": ", ".join(store.index.cohorts),
            "recipe": recipe.name,
            "signal": f"{', '.join(recipe.leads)}; {recipe.rate_hz:g} samples/s; {band}; "
            f"up to {recipe.strip_s:g} s; {step}",
            "window": f"{recipe.window_s:g} s = {recipe.window_samples} samples",
            "size": f"{sum(sizes) / 1e6:,.1f} MB in {len(sizes):,} files",
            **_provenance(store),
            "index fingerprint": store.index.fingerprint,
            "written with": ", ".join(sorted(versions)),
            "licences": "; ".join(f"{cohort}: {licence}" for cohort, licence in licences.items()),
        }
    )


def _provenance(store: AnyStore) -> dict[str, object]:
    """Name the snapshot that was read, or each store's if there are several."""
    if len(store.members) == 1:
        return {"generation": store.members[0].manifest.generation, "store fingerprint": store.fingerprint}
    snapshots = (f"{one.place.name}: generation {one.manifest.generation}, {one.fingerprint}" for one in store.members)
    return {"stores read as one": "; ".join(snapshots), "fingerprint of all": store.fingerprint}


def _age_counts(index: CohortIndex) -> dict[str, list[int]]:
    age, sex = index.first_known("age"), index.first_known("sex")
    counts = {}
    for name, code in (*SEX_CODES.items(), ("sex unknown", UNKNOWN)):
        chosen = age[(sex == code) & ~np.isnan(age)]
        # Ages are stored up to 90: all of 90 and more fall into the last decade.
        decades = np.minimum(chosen.astype(np.int64) // 10, len(DECADES) - 1)
        counts[name] = np.bincount(decades, minlength=len(DECADES)).tolist()
    # Both sexes always, so that colours mean the same in every chart; the unknown only where there are any.
    return {name: count for name, count in counts.items() if any(count) or name in SEX_CODES}


def _examples_html(store: AnyStore, examples: int) -> Markup:
    """Draw the first recording of evenly spaced patients."""
    # The order of patients in a store is random: nobody chose these.
    index = store.index
    if store.recipe.unit == "none":
        return paragraph("None is drawn: ECG paper shows millivolts, and these numbers have no unit.")
    parts = [
        paragraph("The first recording of evenly spaced patients of each cohort, as stored: filtered and at one rate.")
    ]
    for code, name in enumerate(index.cohorts):
        patients = np.flatnonzero(index.patient_cohort == code)
        if not len(patients) or examples < 1:
            continue
        chosen = np.unique(np.linspace(0, len(patients) - 1, num=min(examples, len(patients))).round().astype(int))
        parts.append(heading(name))
        parts += [
            figure(Page().draw_record(store, int(index.patient_ptr[patient])).to_svg()) for patient in patients[chosen]
        ]
    return Markup("").join(parts)
