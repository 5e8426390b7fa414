"""A store in formats that other tools read: WFDB records, and the index as a Parquet table.

Strips leave exactly as they are stored: the recipe's rate and leads, one step = `lsb_uv`, -32768 = no sample there.
Beside the signals go only age, sex, cohort and pseudonyms; dates, devices and sites stay behind.
"""

import csv
import math
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SourceError, StoreError
from ecgcohorts.index import SEX_CODES, CohortIndex
from ecgcohorts.store.durable import make_folder, name_aside, sync_folder
from ecgcohorts.store.reader import AnyStore

RECORDS_IN_FOLDER = 1000
READ_AT_ONCE = 256  # strips; 16 MB
RECORDS, MANIFEST = "RECORDS", "manifest.csv"
COLUMNS = ("record", "cohort", "patient", "age", "sex", "valid_start", "valid_stop")
_SEXES = {code: name for name, code in SEX_CODES.items()}


def export_wfdb(store: AnyStore, out: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Write every recording as a WFDB record of format 16, and return how many.

    OUT/<cohort>/<three digits>/<recording id>.hea and .dat, OUT/RECORDS and OUT/manifest.csv. OUT appears whole, at the
    end, or not at all. Raises SourceError if OUT exists or lies in the store, StoreError if two recordings share an id.
    """
    index = store.index
    records = _record_names(index)
    with _whole_folder(store, out) as folder, (folder / MANIFEST).open("w", newline="", encoding="utf-8") as table:
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


def export_index(store: AnyStore, out: Path) -> int:
    """Write the index as one Parquet table, a row per recording, and return how many. Raises SourceError if OUT exists."""
    _refuse(store, out)
    make_folder(out.parent)
    aside = name_aside(out)
    try:
        store.index.to_pandas().to_parquet(aside, index=False)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        _refuse(store, out)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(out.parent)
    return len(store.index)


def _record_names(index: CohortIndex) -> list[str]:
    """`cohort/folder/id` of every entry: a thousand records a folder, by their order in the cohort."""
    met: Counter[int] = Counter()
    names = []
    for code, value in zip(index["cohort"].tolist(), index["recording_id"], strict=True):
        names.append(f"{index.cohorts[code]}/{met[code] // RECORDS_IN_FOLDER:03d}/{bytes(value).hex()}")
        met[code] += 1
    if len(set(names)) < len(names):
        raise StoreError(
            "found two recordings of one id in a cohort. Ingest the cohort again, with a rule that tells them apart."
        )
    return names


def _facts(index: CohortIndex, entry: int) -> dict[str, str]:
    """What may be told about a recording: nothing else leaves the store. Unknown is empty."""
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
        warnings.simplefilter("ignore")  # deprecations inside the package say nothing about the record
        _wfdb().wrsamp(
            path.name,
            fs=store.recipe.rate_hz,
            units=["mV"] * n,
            sig_name=list(store.recipe.leads),
            d_signal=strip.T.astype(np.int64),
            fmt=["16"] * n,
            adc_gain=[1000 / store.lsb_uv] * n,
            baseline=[0] * n,
            comments=[f"{key}: {value}" for key, value in facts.items() if value],
            write_dir=str(path.parent),
        )


def _wfdb() -> Any:
    import wfdb  # here, because it takes about a second

    return wfdb


@contextmanager
def _whole_folder(store: AnyStore, out: Path) -> Iterator[Path]:
    """A folder to fill that becomes OUT in one step, if nothing went wrong."""
    _refuse(store, out)
    make_folder(out.parent)
    aside = name_aside(out)
    aside.mkdir()
    try:
        yield aside
        os.sync()  # all its files at once: one by one takes longer than writing them
        _refuse(store, out)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(out.parent)


def _refuse(store: AnyStore, out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise SourceError(f"{out}: exists already, and an export replaces nothing. Name a new one, or remove it first.")
    for member in store.members:
        if isinstance(member.path, Path) and member.path.resolve() in out.resolve().parents:
            raise SourceError(f"{out}: lies in the store {member.path}. Name a folder beside it.")
