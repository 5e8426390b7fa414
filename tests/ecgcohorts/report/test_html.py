"""The report of a store of seven recordings."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from ecgcohorts.errors import SpecError
from ecgcohorts.report.html import Accounts, _ages_html, report
from ecgcohorts.report.paper import _find_entry, plot_record

SVG = "{http://www.w3.org/2000/svg}"


def test_the_accounts_are_summed_over_runs(store):
    frame = Accounts(store).inputs
    assert frame.columns.tolist() == ["inputs", "stored", "duplicates", "rejected"]
    assert frame.loc["north"].tolist() == [9, 5, 1, 3]
    assert frame.loc["empty"].tolist() == [4, 0, 0, 4]
    assert frame.loc["total"].tolist() == [15, 7, 1, 7]
    assert "15 inputs = 7 stored + 1 duplicates + 7 rejected" in Accounts(store).html()
    assert Accounts(store).rejections.loc["too_short"].to_dict() == {"north": 2, "south": 0, "empty": 4, "total": 6}


def test_accounts_that_do_not_add_up_are_not_hidden(store):
    lost = store.segments[1].accounting.model_copy(update={"inputs": 3})
    segments = (store.segments[0], store.segments[1].model_copy(update={"accounting": lost}), store.segments[2])
    changed = replace(store, manifest=store.manifest.model_copy(update={"segments": segments}))
    assert "THE ACCOUNTS DO NOT ADD UP" in Accounts(changed).html()
    assert "THE ACCOUNTS DO NOT ADD UP" not in Accounts(store).html()


def test_the_report_holds_what_a_reader_looks_for(store, tmp_path):
    text = report(store, tmp_path / "report.html").read_text("utf-8")
    for expected in ("7 recordings of 4 patients", store.fingerprint, "cape-v1", "north: CC0", "south: not stated"):
        assert expected in text
    # one paper ECG for the one patient of south, two of north, none of the cohort without recordings
    titles = re.findall(r"<title>(\w+, row \d)</title>", text)
    assert titles == ["north, row 0", "north, row 4", "south, row 5"]
    assert text.count("<svg") == 2 + 2 * 3  # two charts of ages; a paper ECG is a picture with its grid inside
    assert re.findall(r'(?:src|href)="[^#]', text) == []


def test_the_same_store_gives_the_same_report(store, tmp_path):
    assert report(store, tmp_path / "a").read_bytes() == report(store, tmp_path / "b").read_bytes()


def test_ages_count_every_patient_once_and_cap_at_ninety(make_index):
    index = make_index(
        [
            ("south", 0, True, 39.9, "male", 0, np.nan),
            ("south", 0, True, 41.0, "male", 0, np.nan),
            ("south", 1, True, 90.0, "female", 0, np.nan),
            ("south", 2, True, 7.0, None, 0, np.nan),
            ("south", 3, True, np.nan, "male", 0, np.nan),
        ]
    )
    markup = _ages_html(index)
    tips = re.findall(r"<title>(.*?)</title>", markup)
    assert [tip for tip in tips if not tip.endswith(": 0")] == [
        "0, sex unknown: 1",
        "30, male: 1",
        "90+, female: 1",
    ]


@pytest.mark.parametrize("record", [3, "3", "04" + "00" * 15])
def test_a_record_is_found_by_row_or_by_id(store, record):
    assert _find_entry(store.index, record) == 3


@pytest.mark.parametrize(
    ("record", "message"), [("99", "no record '99'"), ("0" * 32, "no record"), ("x", "expected a row")]
)
def test_a_record_that_is_not_there_is_said_so(store, record, message):
    with pytest.raises(SpecError, match=message):
        _find_entry(store.index, record)


def test_plot_record_draws_what_is_stored(store, tmp_path):
    out = plot_record(store, 1, tmp_path / "x.svg")
    root = ET.fromstring(out.read_text("utf-8"))
    words = [text.text for text in root.findall(f"{SVG}text")]
    assert words[0] == "north, row 1"
    assert words[1].split(" \N{MIDDLE DOT} ") == ["02" + "00" * 15, "41 years", "male", "recipe cape-v1"]
    assert words[-1].endswith("0.5-100 Hz\u00a0\u00a0\u00a0\u00a0400 samples/s\u00a0\u00a0\u00a0\u00a08.0 s")
    (lead_i,) = [path for path in root.iter(f"{SVG}path") if path.get("data-lead") == "I"]
    assert lead_i.get("d").startswith("M0 -2000l")  # 2 mV above 0 at 10 mm/mV, in hundredths of a millimetre


def test_plot_record_names_the_formats_it_writes(store, tmp_path):
    with pytest.raises(SpecError, match=r"found 'x.gif', expected a name ending in .svg, .png, .pdf"):
        plot_record(store, 1, tmp_path / "x.gif")
