"""Export every recording as a WFDB record of format 16, in a folder laid out like those of PhysioNet."""

import csv
import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import needs_extra
from ecgcohorts.export.common import READ_AT_ONCE, Progress, refuse_twins, whole_folder
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex
from ecgcohorts.store.reader import AnyStore

RECORDS_IN_FOLDER = 1000
RECORDS, MANIFEST = "RECORDS", "manifest.csv"
COLUMNS = ("record", "cohort", "patient", "age", "sex", "valid_start", "valid_stop")
_SEXES = {code: name for name, code in SEX_CODES.items()}


def export_wfdb(
    store: AnyStore, out: Path, progress: Progress | None = None, *, index: CohortIndex | None = None
) -> int:
    """Write every recording of an index, by default the store's. Return the number of recordings.

    Files: OUT/<cohort>/<three digits>/<recording id>.hea and .dat, OUT/RECORDS and OUT/manifest.csv. OUT appears whole, at
    the end, or not at all. Raises SourceError if OUT exists or lies in the store, StoreError if two recordings of a
    cohort share an id.
    """
    index = store.index if index is None else index
    refuse_twins(index)
    records = _record_names(index)
    with whole_folder(store, out) as folder, (folder / MANIFEST).open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        for first in range(0, len(index), READ_AT_ONCE):
            entries = range(first, min(first + READ_AT_ONCE, len(index)))
            strips = store.read(index["row"][entries.start : entries.stop])
            for entry, strip in zip(entries, strips, strict=True):
                facts = _facts(index, entry)
                _write_record(store, folder / records[entry], strip, facts)
                valid = (index["valid_start"][entry], index["valid_stop"][entry])
                writer.writerow([records[entry], *facts.values(), *valid])
            if progress is not None:
                progress(entries.stop, len(index))
        (folder / RECORDS).write_text("".join(f"{record}\n" for record in records), encoding="ascii")
    return len(index)


def _record_names(index: CohortIndex) -> list[str]:
    """Return `cohort/folder/id` of every entry, with a thousand records in a folder, in the order of the cohort."""
    # Many file systems are slow with a hundred thousand files in one folder.
    met: Counter[int] = Counter()
    names = []
    for code, value in zip(index["cohort"].tolist(), index["recording_id"], strict=True):
        names.append(f"{index.cohorts[code]}/{met[code] // RECORDS_IN_FOLDER:03d}/{bytes(value).hex()}")
        met[code] += 1
    return names


def _facts(index: CohortIndex, entry: int) -> dict[str, str]:
    """Return the facts about a recording that may leave a store, "" if unknown."""
    age = float(index["age"][entry])
    return {
        "cohort": index.cohorts[index["cohort"][entry]],
        "patient": bytes(index["patient_id"][entry]).hex(),
        "age": "" if math.isnan(age) else f"{age:g}",
        "sex": _SEXES.get(int(index["sex"][entry]), ""),
    }


def _write_record(store: AnyStore, path: Path, strip: NDArray[np.int16], facts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(strip)
    with warnings.catch_warnings():
        # Deprecations inside the package say nothing about the record.
        warnings.simplefilter("ignore")
        _wfdb().wrsamp(
            path.name,
            fs=store.recipe.rate_hz,
            units=["mV" if store.recipe.unit == "mV" else "NU"] * n,  # NU: WFDB's word for no unit
            sig_name=list(store.recipe.leads),
            d_signal=strip.T.astype(np.int64),
            fmt=["16"] * n,
            adc_gain=[1000 / store.recipe.lsb_uv] * n,
            baseline=[0] * n,
            comments=[f"{key}: {value}" for key, value in facts.items() if value],
            write_dir=str(path.parent),
        )


def _wfdb() -> Any:
    # Here, because it takes about a second.
    with needs_extra("ingest"):
        import wfdb

    return wfdb
