"""Table 1 of a paper: who is in each cohort, laid out as Tables 1 and 2 of CAPE are (arXiv:2509.10369).

Rows are characteristics, columns are cohorts and their total. A patient's age and sex are those of the first recording
that knows them. Recordings without a patient id in the source count as patients of their own; the table says how many
there are. The sampling rates and lengths of raw recordings are not in the table, because no index keeps them.

The package tableone does not serve: its tables have one unit (here patients and recordings), one spread per row and
missing values for all cohorts together only, and it is too slow for millions of recordings. The tests compare the
numbers that both can count.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, UNKNOWN, CohortIndex
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.report.page import NOTHING, Markup, cell
from ecgcohorts.report.page import table as html_table

TOTAL = "total"
# Sites and devices that a paper names, our default; `numbers` have them all.
SHOWN = 8
INDENT = "  "  # of a row that belongs to the heading above it
# Ends of rows. A label's name has no comma, so that they cannot be mistaken for a label.
UNKNOWN_ROW, KNOWN, MEAN = ", unknown", ", known", ", mean"
_HEADING = 20  # characters of a line of a heading in text, about what the widest cells take; our default
LEAST_SHARE = 0.0005  # below it, "<0.1%"
# What stands in the cells; said once, below the table.
CAPTION = (
    "Age and sex per patient, at the first recording that knows them; sites, devices, flags and labels per recording, "
    "shares of a label among the recordings that have it. Rates and lengths of the raw recordings are not in an index."
)
MARKDOWN = {"&": "&amp;", "<": "&lt;", **{sign: f"\\{sign}" for sign in "\\|_*`[]~"}}
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{EN DASH}": "--",
}


@dataclass(frozen=True, eq=False)
class Table1:
    """The people of an index by cohort: `numbers` for programs, and what a paper prints of them in several forms.

    numbers: one row per measure, one column per cohort with recordings, and their total. Ages in years; "age sd" divides
    by n - 1, "age IQR" is the width between the quartiles as in CAPE. `site ...`, `device ...` and `flag ...` count
    recordings; `label ...` counts those that carry the label, `label ..., known` those that are known to carry it or
    not. A label that is no yes or no has its mean instead, as `label ..., mean`. NaN where there is nothing to measure.
    """

    numbers: pd.DataFrame

    @classmethod
    def of(cls, index: CohortIndex) -> Self:
        """Count the recordings and patients of an index."""
        present = [name for code, name in enumerate(index.cohorts) if np.any(index["cohort"] == code)]
        parts = {name: index.where(cohort=name) for name in present} | {TOTAL: index}
        yes_or_no = {name: bool(np.isin(_known(index[LABEL + name]), (0, 1)).all()) for name in index.labels}
        measured = {name: _people(part) | _recordings(part) | _labels(part, yes_or_no) for name, part in parts.items()}
        return cls(pd.DataFrame(measured))

    def readable(self) -> pd.DataFrame:
        """Return the rows as a paper prints them: counts with their share, ages with their spread.

        Headings have empty cells, the rows below them begin with `INDENT`. Sites and devices beyond the commonest are
        summed up; flags and labels that no recording carries are left out.
        """
        numbers = self.numbers
        rows = {
            "patients": _counts(numbers, "patients"),
            "  with two or more recordings": _counts(numbers, "patients with >= 2 recordings", "patients"),
            "  without an id in the source": _counts(numbers, "patients without id", "patients"),
            "recordings": _counts(numbers, "recordings"),
            "  per patient, mean": _decimals(numbers, "recordings per patient, mean", 2),
            "  per patient, median": _decimals(numbers, "recordings per patient, median"),
            "  per patient, most": _counts(numbers, "recordings per patient, most"),
        }
        groups = {
            "age in years": _ages(numbers),
            "sex": {name: _counts(numbers, name, "patients") for name in SEX_CODES}
            | {"unknown": _counts(numbers, "sex unknown", "patients")},
            "site": _commonest(numbers, "site"),
            "device": _commonest(numbers, "device"),
            "quality flag": {
                name.removeprefix("flag "): _counts(numbers, name, "recordings")
                for name in _rows_of(numbers, "flag ")
                if numbers.loc[name].any()
            },
            "label": _label_rows(numbers),
        }
        labelled = list(rows.items())
        for heading, members in groups.items():
            if members:
                labelled.append((heading, [""] * len(numbers.columns)))
                labelled += [(INDENT + " ".join(name.split()), cells) for name, cells in members.items()]
        names, cells = zip(*labelled, strict=True)
        return pd.DataFrame(list(cells), index=list(names), columns=list(numbers.columns))

    def text(self) -> str:
        """Return the table as aligned plain text, one line per row."""
        shown = self.readable()
        headings = [_folded(name) for name in shown.columns]
        most = max(map(len, headings), default=1)
        heads = [["", *line] for line in zip(*([""] * (most - len(one)) + one for one in headings), strict=True)]
        lines = [*heads, *([name, *row] for name, row in zip(shown.index, shown.to_numpy(), strict=True))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
            ).rstrip()  # numbers to the right
            for line in lines
        ]
        return "\n".join([*text, "", CAPTION])

    def html(self) -> Markup:
        """Return the table as markup for a `Section`."""
        return html_table(self.readable(), CAPTION)

    def markdown(self) -> str:
        """Return the table as a table of GitHub's Markdown."""
        shown = self.readable()
        lines = [["", *map(_markdown, shown.columns)], [":---", *["---:"] * len(shown.columns)]]
        for name, row in zip(shown.index, shown.to_numpy(), strict=True):
            indent = "&emsp;" if name.startswith(INDENT) else ""
            lines.append([indent + _markdown(name.strip()), *map(_markdown, row)])
        text = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([*text, "", CAPTION, ""])

    def latex(self) -> str:
        """Return the table as a LaTeX `tabular`; the document needs `\\usepackage{booktabs}`."""
        shown = self.readable()
        lines = [" & ".join(["", *map(_latex, shown.columns)]) + r" \\", r"\midrule"]
        for name, row in zip(shown.index, shown.to_numpy(), strict=True):
            indent = r"\quad " if name.startswith(INDENT) else ""
            lines.append(" & ".join([indent + _latex(name.strip()), *map(_latex, row)]) + r" \\")
        head = rf"\begin{{tabular}}{{l{'r' * len(shown.columns)}}}"
        return "\n".join([f"% {CAPTION}", head, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""])

    def csv(self) -> str:
        """Return the table as CSV for programs: every measure, in full precision, empty where there is none."""
        text: str = self.numbers.to_csv(index_label="measure", lineterminator="\n")
        return text


def _folded(name: str) -> list[str]:
    """Return a heading in lines of at most _HEADING characters, cut behind an underscore or a space where there is one."""
    lines = [""]
    for part in re.findall(rf"[^_ ]{{1,{_HEADING - 1}}}[_ ]?|[_ ]", name):
        if lines[-1] and len(lines[-1] + part) > _HEADING:
            lines.append("")
        lines[-1] += part
    return lines


def _people(part: CohortIndex) -> dict[str, float]:
    n_recordings = np.diff(part.patient_ptr)
    age, sex = part.first_known("age"), part.first_known("sex")
    known = _known(age).astype(np.float64)
    quartiles = np.percentile(known, [25, 50, 75]) if len(known) else np.full(3, np.nan)
    measures = {
        "patients": part.n_patients,
        "patients with >= 2 recordings": np.sum(n_recordings >= 2),
        "patients without id": np.sum(~part["patient_known"][part.patient_ptr[:-1]]),
        "recordings": len(part),
        "recordings per patient, mean": _mean(n_recordings),
        "recordings per patient, median": np.median(n_recordings) if len(n_recordings) else np.nan,
        "recordings per patient, most": n_recordings.max(initial=0),
        "age mean": _mean(known),
        "age sd": known.std(ddof=1) if len(known) > 1 else np.nan,
        "age median": quartiles[1],
        "age q1": quartiles[0],
        "age q3": quartiles[2],
        "age IQR": quartiles[2] - quartiles[0],
        "age unknown": np.sum(np.isnan(age)),
        **{name: np.sum(sex == code) for name, code in SEX_CODES.items()},
        "sex unknown": np.sum(sex == UNKNOWN),
    }
    return {name: float(value) for name, value in measures.items()}


def _recordings(part: CohortIndex) -> dict[str, float]:
    counts: dict[str, float] = {}
    for kind, names in (("site", part.sites), ("device", part.devices)):
        # The unknown, code -1, come first.
        codes = np.bincount(part[kind] - UNKNOWN, minlength=len(names) + 1)
        counts |= {f"{kind} {name}": float(count) for name, count in zip(names, codes[1:], strict=True)}
        counts[f"{kind}{UNKNOWN_ROW}"] = float(codes[0])
    for name, flag in Flag.__members__.items():
        counts[f"flag {name.lower()}"] = float(np.count_nonzero(part["quality"] & flag.value))
    return counts


def _labels(part: CohortIndex, yes_or_no: Mapping[str, bool]) -> dict[str, float]:
    measures = {}
    for name, is_flag in yes_or_no.items():
        known = _known(part[LABEL + name])
        measures[f"label {name}" if is_flag else f"label {name}{MEAN}"] = (
            float(np.count_nonzero(known)) if is_flag else _mean(known)
        )
        measures[f"label {name}{KNOWN}"] = float(len(known))
    return measures


def _known(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values[~np.isnan(values)]


def _mean(values: NDArray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else np.nan


def _ages(numbers: pd.DataFrame) -> dict[str, list[str]]:
    texts = {name: _decimals(numbers, f"age {name}") for name in ("mean", "sd", "median", "q1", "q3", "IQR")}
    known = [mean != NOTHING for mean in texts["mean"]]

    def joined(pattern: str, *names: str) -> list[str]:
        cells = zip(known, *(texts[name] for name in names), strict=True)
        return [pattern.format(*values) if is_known else NOTHING for is_known, *values in cells]

    return {
        "mean \N{PLUS-MINUS SIGN} sd": joined("{} \N{PLUS-MINUS SIGN} {}", "mean", "sd"),
        "median [quartiles]": joined("{} [{}, {}]", "median", "q1", "q3"),
        "interquartile range": texts["IQR"],
        "unknown": _counts(numbers, "age unknown", "patients"),
    }


def _commonest(numbers: pd.DataFrame, kind: str) -> dict[str, list[str]]:
    """Return rows for the sites or devices with most recordings, for all others together, and for the unknown."""
    unknown = kind + UNKNOWN_ROW
    prefix = f"{kind} "
    order = numbers.loc[_rows_of(numbers, prefix), TOTAL]
    order = order[order > 0].sort_values(ascending=False, kind="stable")
    if not len(order):
        return {}
    rows = {str(name).removeprefix(prefix): _counts(numbers, str(name), "recordings") for name in order.index[:SHOWN]}
    if len(others := order.index[SHOWN:]):
        summed = pd.concat([numbers, numbers.loc[others].sum().to_frame("others").T])
        rows[f"{len(others):,} others"] = _counts(summed, "others", "recordings")
    if numbers.loc[unknown, TOTAL]:
        rows["unknown"] = _counts(numbers, unknown, "recordings")
    return rows


def _label_rows(numbers: pd.DataFrame) -> dict[str, list[str]]:
    """Return rows for the labels, and for how many are known where a cohort has a label for some recordings only."""
    rows = {}
    for known in _rows_of(numbers, "label "):
        name = known.removesuffix(KNOWN)
        if name == known or not numbers.loc[known].any():
            continue
        short = name.removeprefix("label ")
        if name + MEAN in numbers.index:
            rows[short + MEAN] = _decimals(numbers, name + MEAN)
        else:
            rows[short] = _counts(numbers, name, known)
        # A cohort in which nobody or everybody has the label needs no second row to say so.
        partly = (numbers.loc[known] > 0) & (numbers.loc[known] < numbers.loc["recordings"])
        if partly.drop(TOTAL).any():
            rows[short + KNOWN] = _counts(numbers, known, "recordings")
    return rows


def _rows_of(numbers: pd.DataFrame, prefix: str) -> list[str]:
    return [name for name in map(str, numbers.index) if name.startswith(prefix)]


def _counts(numbers: pd.DataFrame, name: str, whole: str | None = None) -> list[str]:
    counts = numbers.loc[name].to_numpy(np.float64)
    if whole is None:
        return [cell(int(count)) for count in counts]
    wholes = numbers.loc[whole].to_numpy(np.float64)
    return [_share(int(count), total) if total else NOTHING for count, total in zip(counts, wholes, strict=True)]


def _share(count: int, whole: float) -> str:
    if not count:
        return "0"
    return f"{count:,} (<0.1%)" if count / whole < LEAST_SHARE else f"{count:,} ({count / whole:.1%})"


def _decimals(numbers: pd.DataFrame, name: str, digits: int = 1) -> list[str]:
    return [NOTHING if np.isnan(value) else f"{value:.{digits}f}" for value in numbers.loc[name].to_numpy(np.float64)]


def _markdown(text: str) -> str:
    return "".join(MARKDOWN.get(sign, sign) for sign in text)


def _latex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)
