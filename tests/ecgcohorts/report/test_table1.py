"""Table 1 of seven recordings, counted by hand."""

import numpy as np
import pytest

from ecgcohorts.quality import Flag
from ecgcohorts.report.table1 import first_known, readable, table1, table1_html, table1_text

NAN = np.nan
EXPECTED = {
    "patients": (3, 1, 4),
    "patients with >= 2 recordings": (1, 1, 2),
    "patients without id": (1, 0, 1),
    "recordings": (5, 2, 7),
    "recordings per patient": (5 / 3, 2, 7 / 4),
    "recordings per patient, most": (3, 2, 3),
    "age mean": (50, 80, 57.5),  # of 40, 60, 50 and 80: the first known age of each patient
    "age IQR": (10, 0, 65 - 47.5),
    "age q1": (45, 80, 47.5),
    "age q3": (55, 80, 65),
    "age unknown": (0, 0, 0),
    "male": (1, 0, 1),
    "female": (2, 1, 3),
    "sex unknown": (0, 0, 0),
    "flag clipped": (2 / 5, 0, 2 / 7),
    "flag mains_50": (1 / 5, 0, 1 / 7),
    "flag paced": (0, 0, 0),
    "label af": (1 / 4, NAN, 1 / 4),
}


@pytest.mark.parametrize("measure", EXPECTED)
def test_numbers_equal_those_counted_by_hand(measure, make_index):
    frame = table1(make_index())
    assert list(frame.columns) == ["north", "south", "total"]  # a cohort without recordings has no column
    np.testing.assert_allclose(frame.loc[measure].to_numpy(), EXPECTED[measure], rtol=1e-6)


def test_every_flag_has_a_row_under_its_name(make_index):
    frame = table1(make_index())
    assert [name for name in frame.index if name.startswith("flag ")] == [f"flag {flag.name.lower()}" for flag in Flag]


def test_first_known_value_in_time_order(make_index, recordings):
    index = make_index([("south", 0, True, NAN, None, 0, NAN), *[(c, p + 1, *rest) for c, p, *rest in recordings]])
    np.testing.assert_array_equal(first_known(index, "age"), np.float32([NAN, 40, 60, 50, 80]))
    assert first_known(index, "sex").tolist() == [-1, 0, 1, 1, 1]
    frame = table1(index)
    assert frame.loc["age unknown"].tolist() == [0, 1, 1]
    assert frame.loc["sex unknown"].tolist() == [0, 1, 1]


def test_a_label_that_is_no_yes_or_no_has_its_mean(make_index, recordings):
    folds = [(*rest, fold) for (*rest, _), fold in zip(recordings, (1, 2, 3, 10, NAN, 4, NAN), strict=True)]
    frame = table1(make_index(folds))
    assert frame.loc["label af mean"].tolist() == [4.0, 4.0, 4.0]
    assert "label af" not in frame.index
    assert readable(frame).loc["label af mean"].tolist() == ["4.0", "4.0", "4.0"]


def test_a_label_nobody_has_is_left_out_for_readers(make_index, recordings):
    frame = table1(make_index([(*rest, NAN) for *rest, _ in recordings]))
    assert np.isnan(frame.loc["label af"]).all()
    assert "label af" not in readable(frame).index


def test_readable_cells(make_index):
    shown = readable(table1(make_index()))
    assert shown.loc["female"].tolist() == ["2 (67%)", "1 (100%)", "3 (75%)"]
    assert shown.loc["age, mean / IQR"].tolist() == ["50.0 / 10.0", "80.0 / 0.0", "57.5 / 17.5"]
    assert shown.loc["flag clipped"].tolist() == ["40.0%", "0.0%", "28.6%"]
    assert shown.loc["label af"].tolist() == ["25.0%", "\N{EN DASH}", "25.0%"]
    assert "flag paced" not in shown.index  # no recording carries it


def test_text_is_aligned(make_index):
    lines = table1_text(table1(make_index())).splitlines()
    assert lines[0].split() == ["north", "south", "total"]
    ends = [len(line) for line in lines[: lines.index("")]]
    assert len(set(ends)) == 1
    assert next(line for line in lines if line.startswith("recordings")).split() == ["recordings", "5", "2", "7"]


def test_html_escapes_names_from_outside(make_index, recordings):
    index = make_index(cohorts=("<b>north</b>", "south", "empty"), recordings=[("<b>north</b>", *recordings[0][1:])])
    markup = table1_html(table1(index))
    assert "<b>" not in markup
    assert "&lt;b&gt;north&lt;/b&gt;" in markup


def test_an_empty_index_is_a_table_of_zeros(make_index):
    frame = table1(make_index([]))
    assert list(frame.columns) == ["total"]
    assert frame.loc["recordings", "total"] == 0
    assert np.isnan(frame.loc["age mean", "total"])
    assert readable(frame).loc["patients", "total"] == "0"
