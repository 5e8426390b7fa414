"""Table 1 of a paper: who is in each cohort. Demographics are per patient, as in table 1 of CAPE.

A patient's age and sex are those of the first recording that knows them. Recordings without a patient id in the
source count as patients of their own; the table says how many there are.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.index import LABEL, SEX_CODES, UNKNOWN, CohortIndex
from ecgcohorts.quality import Flag
from ecgcohorts.report.page import NOTHING, Markup, cell
from ecgcohorts.report.page import table as html_table

TOTAL = "total"
# What stands in the cells of a group of rows; said once, above the table.
CAPTION = "Ages and sexes per patient, at the first recording that knows them; flags and labels per recording."


def table1(index: CohortIndex) -> pd.DataFrame:
    """Return numbers only: one row per measure, one column per cohort with recordings, and their total.

    Ages in years, "age IQR" is the width between the quartiles as in CAPE. Shares are 0 to 1: of all patients for
    sex, of all recordings for `flag ...`, of the recordings that have the label for `label ...`. A label that is
    no yes or no has its mean instead, as `label ... mean`. NaN where there is nothing to count.
    """
    present = [name for code, name in enumerate(index.cohorts) if np.any(index["cohort"] == code)]
    parts = {name: index.where(cohort=name) for name in present} | {TOTAL: index}
    yes_or_no = {name: bool(np.isin(_known(index[LABEL + name]), (0, 1)).all()) for name in index.labels}
    return pd.DataFrame({name: _measures(part) | _labels(part, yes_or_no) for name, part in parts.items()})


def table1_text(numbers: pd.DataFrame) -> str:
    """Return what `table1` counted as aligned plain text, one line per row."""
    shown = readable(numbers)
    lines = [["", *shown.columns], *([name, *row] for name, row in zip(shown.index, shown.to_numpy(), strict=True))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()  # numbers to the right
        for line in lines
    ]
    return "\n".join([*text, "", CAPTION])


def table1_html(numbers: pd.DataFrame) -> Markup:
    """Return what `table1` counted as markup for a `Section`."""
    return html_table(readable(numbers), CAPTION)


def readable(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `table1` as a paper prints them: counts with their share, ages with their spread.

    Flags and labels that no recording carries are left out.
    """
    rows = {
        "patients": _counts(numbers, "patients"),
        "  with two or more recordings": _counts(numbers, "patients with >= 2 recordings", "patients"),
        "  without an id in the source": _counts(numbers, "patients without id", "patients"),
        "recordings": _counts(numbers, "recordings"),
        "  per patient": _decimals(numbers, "recordings per patient", 2),
        "  most of one patient": _counts(numbers, "recordings per patient, most"),
        "age, mean / IQR": [
            f"{mean} / {spread}" if mean != NOTHING else NOTHING
            for mean, spread in zip(_decimals(numbers, "age mean"), _decimals(numbers, "age IQR"), strict=True)
        ],
        "age unknown": _counts(numbers, "age unknown", "patients"),
    }
    rows |= {name: _counts(numbers, name, "patients") for name in ("male", "female", "sex unknown")}
    for name in map(str, numbers.index):
        values = numbers.loc[name].to_numpy(np.float64)
        if name.startswith("flag ") and (values > 0).any():
            rows[name] = _percent(values)
        if name.startswith("label ") and not np.isnan(values).all():
            rows[name] = _decimals(numbers, name) if name.endswith(" mean") else _percent(values)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(numbers.columns))


def _measures(part: CohortIndex) -> dict[str, float]:
    n_recordings = np.diff(part.patient_ptr)
    age, sex = first_known(part, "age"), first_known(part, "sex")
    known_age = _known(age)
    quartiles = np.percentile(known_age, [25, 75]) if len(known_age) else np.full(2, np.nan)
    measures = {
        "patients": part.n_patients,
        "patients with >= 2 recordings": np.sum(n_recordings >= 2),
        "patients without id": np.sum(~part["patient_known"][part.patient_ptr[:-1]]),
        "recordings": len(part),
        "recordings per patient": _mean(n_recordings),
        "recordings per patient, most": n_recordings.max(initial=0),
        "age mean": _mean(known_age),
        "age IQR": quartiles[1] - quartiles[0],
        "age q1": quartiles[0],
        "age q3": quartiles[1],
        "age unknown": np.sum(np.isnan(age)),
        **{name: np.sum(sex == code) for name, code in SEX_CODES.items()},
        "sex unknown": np.sum(sex == UNKNOWN),
    }
    for name, flag in Flag.__members__.items():
        measures[f"flag {name.lower()}"] = _mean((part["quality"] & flag.value) != 0)
    return {name: float(value) for name, value in measures.items()}


def _labels(part: CohortIndex, yes_or_no: Mapping[str, bool]) -> dict[str, float]:
    means = {name: _mean(_known(part[LABEL + name])) for name in yes_or_no}
    return {f"label {name}" if yes_or_no[name] else f"label {name} mean": mean for name, mean in means.items()}


def first_known(index: CohortIndex, column: str) -> NDArray:
    """Return (patients,) the first value of a column that is not unknown, in time order; unknown if there is none."""
    values = index[column]
    if not len(values):
        return values
    unknown = np.isnan(values) if values.dtype.kind == "f" else values == UNKNOWN
    places = np.where(unknown, len(values), np.arange(len(values)))
    first = np.minimum.reduceat(places, index.patient_ptr[:-1])
    none = first == len(values)
    return np.where(none, values.dtype.type(np.nan if values.dtype.kind == "f" else UNKNOWN), values[first - none])


def _known(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values[~np.isnan(values)]


def _mean(values: NDArray) -> float:
    """Mean of numbers, or the share of True; NaN of nothing."""
    return float(values.mean(dtype=np.float64)) if len(values) else np.nan


def _counts(numbers: pd.DataFrame, name: str, whole: str | None = None) -> list[str]:
    counts = numbers.loc[name].to_numpy(np.float64)
    texts = [cell(int(count)) for count in counts]
    if whole is None:
        return texts
    wholes = numbers.loc[whole].to_numpy(np.float64)
    return [
        f"{text} ({count / total:.0%})" if total else text
        for text, count, total in zip(texts, counts, wholes, strict=True)
    ]


def _decimals(numbers: pd.DataFrame, name: str, digits: int = 1) -> list[str]:
    return [NOTHING if np.isnan(value) else f"{value:.{digits}f}" for value in numbers.loc[name].to_numpy(np.float64)]


def _percent(shares: NDArray[np.float64]) -> list[str]:
    return [NOTHING if np.isnan(share) else f"{share:.1%}" for share in shares]
