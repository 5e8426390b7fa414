"""Table 1 of seven recordings, counted by hand."""

import io
import re
import warnings

import numpy as np
import pandas as pd
import pytest

from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.report.page import NOTHING
from ecgcohorts.report.table1 import Table1, _counts

NAN = np.nan
EXPECTED = {
    "patients": (3, 1, 4),
    "patients with >= 2 recordings": (1, 1, 2),
    "patients without id": (1, 0, 1),
    "recordings": (5, 2, 7),
    "recordings per patient, mean": (5 / 3, 2, 7 / 4),
    "recordings per patient, median": (1, 2, 1.5),
    "recordings per patient, most": (3, 2, 3),
    "age mean": (50, 80, 57.5),  # of 40, 60, 50 and 80: the first known age of each patient
    "age sd": (10, NAN, np.sqrt((17.5**2 + 2.5**2 + 7.5**2 + 22.5**2) / 3)),  # one patient has no spread
    "age median": (50, 80, 55),
    "age IQR": (10, 0, 65 - 47.5),
    "age q1": (45, 80, 47.5),
    "age q3": (55, 80, 65),
    "age unknown": (0, 0, 0),
    "male": (1, 0, 1),
    "female": (2, 1, 3),
    "sex unknown": (0, 0, 0),
    "site ward": (5, 0, 5),
    "site clinic": (0, 2, 2),
    "site, unknown": (0, 0, 0),
    "device cart": (5, 0, 5),
    "device, unknown": (0, 2, 2),
    "flag clipped": (2, 0, 2),
    "flag mains_50": (1, 0, 1),
    "flag paced": (0, 0, 0),
    "label af": (1, 0, 1),
    "label af, known": (4, 0, 4),
}


@pytest.mark.parametrize("measure", EXPECTED)
def test_numbers_equal_those_counted_by_hand(measure, make_index):
    frame = Table1.of(make_index()).numbers
    assert list(frame.columns) == ["north", "south", "total"]  # a cohort without recordings has no column
    np.testing.assert_allclose(frame.loc[measure].to_numpy(), EXPECTED[measure], rtol=1e-6)


def test_every_flag_has_a_row_under_its_name(make_index):
    frame = Table1.of(make_index()).numbers
    assert [name for name in frame.index if name.startswith("flag ")] == [f"flag {flag.name.lower()}" for flag in Flag]


def test_first_known_value_in_time_order(make_index, recordings):
    index = make_index([("south", 0, True, NAN, None, 0, NAN), *[(c, p + 1, *rest) for c, p, *rest in recordings]])
    np.testing.assert_array_equal(index.first_known("age"), np.float32([NAN, 40, 60, 50, 80]))
    assert index.first_known("sex").tolist() == [-1, 0, 1, 1, 1]
    frame = Table1.of(index).numbers
    assert frame.loc["age unknown"].tolist() == [0, 1, 1]
    assert frame.loc["sex unknown"].tolist() == [0, 1, 1]


def cells(shown: pd.DataFrame, name: str, heading: str = "") -> list[str]:
    """Cells of the first row of a name, or of the first below a heading."""
    names = list(shown.index)
    start = names.index(heading) if heading else 0
    return shown.iloc[names.index(f"  {name}" if heading else name, start)].tolist()


def test_a_label_that_is_no_yes_or_no_has_its_mean(make_index, recordings):
    folds = [(*rest, fold) for (*rest, _), fold in zip(recordings, (1, 2, 3, 10, NAN, 4, NAN), strict=True)]
    made = Table1.of(make_index(folds))
    frame = made.numbers
    assert frame.loc["label af, mean"].tolist() == [4.0, 4.0, 4.0]
    assert "label af" not in frame.index
    shown = made.readable()
    assert cells(shown, "af, mean", "label") == ["4.0", "4.0", "4.0"]
    assert cells(shown, "af, known", "label") == ["4 (80.0%)", "1 (50.0%)", "5 (71.4%)"]


def test_a_label_nobody_has_is_left_out_for_readers(make_index, recordings):
    made = Table1.of(make_index([(*rest, NAN) for *rest, _ in recordings]))
    frame = made.numbers
    assert frame.loc["label af, known"].tolist() == [0, 0, 0]
    assert "label" not in made.readable().index


def test_readable_cells(make_index):
    shown = Table1.of(make_index()).readable()
    assert cells(shown, "patients") == ["3", "1", "4"]
    assert cells(shown, "per patient, median", "recordings") == ["1.0", "2.0", "1.5"]
    assert cells(shown, "mean ± sd", "age in years") == ["50.0 ± 10.0", f"80.0 ± {NOTHING}", "57.5 ± 17.1"]
    assert cells(shown, "median [quartiles]", "age in years") == [
        "50.0 [45.0, 55.0]",
        "80.0 [80.0, 80.0]",
        "55.0 [47.5, 65.0]",
    ]
    assert cells(shown, "interquartile range", "age in years") == ["10.0", "0.0", "17.5"]
    assert cells(shown, "sex") == ["", "", ""]
    assert cells(shown, "female", "sex") == ["2 (66.7%)", "1 (100.0%)", "3 (75.0%)"]
    assert cells(shown, "ward", "site") == ["5 (100.0%)", "0", "5 (71.4%)"]
    assert cells(shown, "unknown", "device") == ["0", "2 (100.0%)", "2 (28.6%)"]
    assert cells(shown, "clipped", "quality flag") == ["2 (40.0%)", "0", "2 (28.6%)"]
    assert cells(shown, "af", "label") == ["1 (25.0%)", NOTHING, "1 (25.0%)"]
    assert "  paced" not in shown.index  # no recording carries it


@pytest.mark.parametrize(("count", "shown"), [(0, "0"), (1, "1 (<0.1%)"), (20, "20 (0.1%)"), (9999, "9,999 (50.0%)")])
def test_a_small_share_is_not_shown_as_none(count, shown):
    numbers = pd.DataFrame({"total": [20_000.0, count]}, index=["recordings", "flag paced"])
    assert _counts(numbers, "flag paced", "recordings") == [shown]


def test_many_sites_are_summed_up_for_readers_only(make_index):
    """12 sites with 1 to 12 recordings; one name is that of a row, one has a line break."""
    names = ("unknown", "a\nb", *(f"site {place}" for place in range(3, 13)))
    rows = [("north", patient, True, 50.0, "male", 0, NAN) for patient in range(78)]
    index = make_index(rows)
    columns = dict(index.columns) | {"site": np.repeat(np.arange(12), np.arange(1, 13)).astype(np.int32)}
    made = Table1.of(CohortIndex(columns, index.cohorts, names, index.devices))
    frame = made.numbers
    assert [frame.loc[f"site {name}", "total"] for name in names] == list(range(1, 13))
    assert frame.loc["site, unknown", "total"] == 0
    shown = made.readable()
    start = list(shown.index).index("site")
    assert list(shown.index[start + 1 : start + 10]) == [
        *(f"  site {place}" for place in range(12, 4, -1)),
        "  4 others",
    ]
    assert cells(shown, "4 others", "site")[-1] == "10 (12.8%)"


def test_numbers_equal_those_of_tableone():
    """An independent program on the same patients: mean, sd, median, quartiles, counts and shares per cohort."""
    tableone = pytest.importorskip("tableone", reason="an oracle for the tests only")
    rng = np.random.default_rng(4)
    n_patients = 400
    patient = np.repeat(np.arange(n_patients), rng.geometric(0.4, n_patients))
    n = len(patient)
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"patient": patient, "row": np.arange(n), "patient_known": np.ones(n, bool)}
    columns["cohort"] = (patient >= 150).astype(np.int32)
    columns["age"] = np.where(rng.random(n) < 0.2, NAN, rng.normal(50, 15, n)).astype(np.float32)
    columns["sex"] = rng.integers(0, 2, n).astype(np.int8)
    index = CohortIndex(columns, ("a", "b"), ("ward",), ("cart",))
    people = pd.DataFrame(
        {
            "cohort": np.array(["a", "b"])[index.patient_cohort],
            "age": index.first_known("age").astype(np.float64),
            "median_age": index.first_known("age").astype(np.float64),
            "sex": np.array(["male", "female"])[index.first_known("sex")],
            "recordings": np.diff(index.patient_ptr),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about how tableone uses it
        theirs = tableone.TableOne(
            people,
            columns=["age", "median_age", "sex", "recordings"],
            categorical=["sex"],
            nonnormal=["median_age"],
            groupby="cohort",
            decimals={"age": 4, "median_age": 4, "recordings": 4, "sex": 1},
        ).tableone
    ours = Table1.of(index).numbers.rename(columns={"total": "Overall"})
    for cohort in ("a", "b", "Overall"):
        theirs_of = {name: str(value) for name, value in theirs.xs(cohort, axis=1, level=1).iloc[:, 0].items()}
        numbers = {name: list(map(float, re.findall(r"[\d.]+", value))) for name, value in theirs_of.items()}
        mine = ours[cohort]
        assert numbers["age, mean (SD)", ""] == pytest.approx(mine[["age mean", "age sd"]].tolist(), abs=1e-4)
        assert numbers["median_age, median [Q1,Q3]", ""] == pytest.approx(
            mine[["age median", "age q1", "age q3"]].tolist(), abs=1e-4
        )
        assert numbers["recordings, mean (SD)", ""][0] == pytest.approx(mine["recordings per patient, mean"], abs=1e-4)
        for sex in ("male", "female"):
            assert numbers["sex, n (%)", sex] == [mine[sex], round(100 * mine[sex] / mine["patients"], 1)]


def test_text_is_aligned(make_index):
    lines = Table1.of(make_index()).text().splitlines()
    assert lines[0].split() == ["north", "south", "total"]
    full = [
        line
        for line in lines[: lines.index("")]
        if line.split()[-1] not in ("years", "sex", "site", "device", "flag", "label")
    ]
    assert len({len(line) for line in full}) == 1
    assert next(line for line in lines if line.startswith("recordings")).split() == ["recordings", "5", "2", "7"]
    assert "Rates and lengths of the raw recordings are not in an index." in lines[-1]


def test_text_folds_a_long_name_behind_underscores_and_keeps_its_columns(make_index):
    long = "regional_hospital_of_the_north_resting_ecgs_2016_to_2024"
    index = make_index()
    whole = Table1.of(index)
    named = Table1.of(CohortIndex(dict(index.columns), (long, "south", "empty"), index.sites, index.devices))
    lines = named.text().splitlines()
    heads = ["regional_hospital_", "of_the_north_", "resting_ecgs_2016_", "to_2024"]
    assert [line.split()[0] for line in lines[:4]] == heads
    assert lines[3].split() == ["to_2024", "south", "total"]
    short = whole.text().splitlines()
    assert [line.split() for line in lines[4:]] == [line.split() for line in short[1:]]
    # The cells have up to 17 characters, a line of a heading up to 20.
    assert max(map(len, lines[: lines.index("")])) <= max(map(len, short[: short.index("")])) + 20 - 17


EVIL = "<b>a|b_c & d\\e</b>$~^#{%}"


def evil_table(make_index, recordings) -> Table1:
    index = make_index(recordings=[("north", *recordings[0][1:])])
    return Table1.of(CohortIndex(index.columns, (EVIL, "south"), (EVIL, "x"), (EVIL,)))


def test_html_escapes_names_from_outside(make_index, recordings):
    markup = evil_table(make_index, recordings).html()
    assert "<b>" not in markup
    assert markup.count("&lt;b&gt;a|b") == 3  # cohort, site, device


def test_markdown_has_one_cell_per_column_whatever_the_names(make_index, recordings):
    lines = evil_table(make_index, recordings).markdown().splitlines()
    table = lines[: lines.index("")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {4}
    assert table[1] == "| :--- | ---: | ---: |"
    assert "<b>" not in "".join(table)
    plain = Table1.of(make_index()).markdown()
    assert "| &emsp;female | 2 (66.7%) | 1 (100.0%) | 3 (75.0%) |" in plain.splitlines()


def test_latex_has_one_cell_per_column_and_no_bare_sign(make_index, recordings):
    lines = evil_table(make_index, recordings).latex().splitlines()
    assert lines[1:3] == [r"\begin{tabular}{lrr}", r"\toprule"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    rows = [line for line in lines[3:-2] if line != r"\midrule"]
    for row in rows:
        assert row.endswith(r" \\")
        bare = re.sub(r"\$\\pm\$|\\text\w+\{\}|\\[&%$#_{}\\]", "", row)
        assert bare.count("&") == 2
        assert not set(bare) & set("%$#_{}~^<>")
    plain = Table1.of(make_index()).latex().splitlines()
    assert r"\quad female & 2 (66.7\%) & 1 (100.0\%) & 3 (75.0\%) \\" in plain
    assert r"\quad mean $\pm$ sd & 50.0 $\pm$ 10.0 & 80.0 $\pm$ -- & 57.5 $\pm$ 17.1 \\" in plain


def test_csv_holds_every_number_exactly(make_index):
    made = Table1.of(make_index())
    frame = made.numbers
    back = pd.read_csv(io.StringIO(made.csv()), index_col="measure")
    pd.testing.assert_frame_equal(back, frame, check_names=False, check_exact=True)


def test_an_empty_index_is_a_table_of_zeros(make_index):
    made = Table1.of(make_index([]))
    frame = made.numbers
    assert list(frame.columns) == ["total"]
    assert frame.loc["recordings", "total"] == 0
    assert np.isnan(frame.loc["age mean", "total"])
    assert cells(made.readable(), "patients") == ["0"]
    for write in (made.text, made.html, made.markdown, made.latex, made.csv):
        assert "patients" in write()
