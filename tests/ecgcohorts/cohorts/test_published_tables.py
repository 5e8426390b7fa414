"""Tables and cells as archives publish them: other separators, gzip, workbooks, second keys, text around a value."""

import gzip
import math
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ecgcohorts.cohorts import files as cohort_files
from ecgcohorts.cohorts.spec import CohortSpec, Description
from ecgcohorts.errors import SourceError
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.recording import Origin, Recording

BASE = {"name": "mine", "title": "Mine", "licence": "none", "citation": "none", "mains_hz": 50}


def scan(path: Path) -> Iterator[Recording]:
    """A reader of text: each line is an entry, a bar, and header texts `key=value`, parted by bars."""
    for line in path.read_text().splitlines():
        entry, *fields = line.split("|")
        yield Recording(
            recording_id=path.stem,
            leads=TWELVE_LEADS,
            rate_hz=500,
            digital=np.zeros((12, 0), np.int32),
            gain_per_mv=np.full(12, 1000.0),
            baseline=np.zeros(12),
            n_samples=5000,
            source=Origin("fake", path, entry),
            fields=dict(field.split("=", 1) for field in fields),
        )


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_files, "open_reader", lambda name, arrays: types.SimpleNamespace(scan=scan))


def spec_of(**layout: object) -> CohortSpec:
    layout = {"reader": "wfdb", "files": {"include": ["*.ecg"]}} | layout
    return CohortSpec.model_validate(BASE | {"layouts": [layout]})


def described(folder: Path, **layout: object) -> dict[str, Description]:
    spec = spec_of(**layout)
    tables = spec.load_tables(folder)
    return {item.location: spec.describe(tables, item) for item in spec.sources(folder)}


@pytest.fixture
def one(tmp_path: Path) -> Callable[..., Description]:
    """Describe one recording, `r1.ecg`, whose header texts are given."""

    def make(header: str = "", **layout: object) -> Description:
        (tmp_path / "r1.ecg").write_text("|" + header if header else "|x=")
        return described(tmp_path, **layout)["r1.ecg"]

    return make


# --- a value inside a text


@pytest.mark.parametrize(
    ("text", "years"), [("572d", 572 / 365.25), ("7", math.nan), ("d", math.nan), ("9y", math.nan)]
)
def test_a_pattern_takes_a_number_out_of_a_text(one: Callable[..., Description], text: str, years: float) -> None:
    found = one(f"Age={text}", age={"header": "Age", "pattern": r"^(\d+)d$"}, age_unit="days")
    assert found.age_years == pytest.approx(years, nan_ok=True)


def test_a_pattern_of_a_cell_is_a_place_of_its_own(one: Callable[..., Description], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("record,sex\nr1,'Female'\n")
    sex = [{"column": "sex", "pattern": "^(male|female)$"}, {"column": "sex", "pattern": "'(.+)'"}]
    assert one(tables=[{"file": "t.csv", "key": "record"}], sex=sex).sex == "female"


def test_a_pattern_without_a_group_or_a_text_is_refused() -> None:
    with pytest.raises(ValidationError, match="without a group"):
        spec_of(age={"header": "Age", "pattern": "x"})
    with pytest.raises(ValidationError, match="pattern without header or column"):
        spec_of(age={"path": "(x)", "pattern": "(x)"})


# --- lists


@pytest.mark.parametrize(
    ("text", "options", "present"),
    [
        ("Sinus\nLVH\n", {"separator": "\n", "codes": ["LVH"]}, 1),
        ("Sinus\nLVH, mild\n", {"separator": "\n", "codes": ["LVH"]}, 0),  # a comma within a statement is no separator
        ("SB T wave", {"separator": " ", "codes": ["SB"]}, 1),
        ("'A22';'C21+346'", {"codes": ["C21"]}, 1),
        ("I48.0;E11", {"codes": ["I48"]}, 0),
        ("I48.0;E11", {"codes": ["I48"], "prefix": True}, 1),
        ("E11;JI48", {"codes": ["I48"], "prefix": True}, 0),
        ("", {"codes": ["I48"], "prefix": True}, math.nan),
        ("29999", {"missing": ["29999", "-32768"]}, math.nan),
        ("-32768.0", {"missing": ["29999", "-32768.0"]}, math.nan),
        ("120", {"missing": ["29999"]}, 120),
        ("missing", {"values": {"low": 0, "missing": 1}, "missing": ["missing"]}, math.nan),
    ],
)
def test_lists_of_any_form(tmp_path: Path, text: str, options: dict[str, object], present: float) -> None:
    (tmp_path / "r1.ecg").write_text("|")
    (tmp_path / "t.csv").write_text(f'record,dx\nr1,"{text}"\n')
    label = {"find": {"column": "dx"}} | options
    found = described(tmp_path, tables=[{"file": "t.csv", "key": "record"}], labels={"dx": label})["r1.ecg"]
    assert found.labels["dx"] == pytest.approx(present, nan_ok=True)


def test_an_empty_list_is_unknown_where_the_description_says_so(one: Callable[..., Description]) -> None:
    empty = {"find": {"header": "icd"}, "codes": ["I48"]}
    assert one("icd=[]", labels={"af": empty}).labels["af"] == 0
    coded = {"find": {"header": "icd", "pattern": r"^\[(.+)\]$"}, "codes": ["I48"], "prefix": True}
    assert math.isnan(one("icd=[]", labels={"af": coded}).labels["af"])
    assert one("icd=['E11', 'I4891']", labels={"af": coded}).labels["af"] == 1
    assert one("icd=['E11']", labels={"af": coded}).labels["af"] == 0


@pytest.mark.parametrize(("value", "flag"), [("0.55", 0), ("", math.nan), ("nan", math.nan), ("unknown", math.nan)])
def test_a_flag_is_unknown_where_nobody_measured(one: Callable[..., Description], value: str, flag: float) -> None:
    label = {"find": {"header": "low_ef"}, "measured": {"header": "ef"}}
    assert one(f"low_ef=0|ef={value}", labels={"low_ef": label}).labels["low_ef"] == pytest.approx(flag, nan_ok=True)


def test_separator_and_prefix_need_codes() -> None:
    for option in ({"prefix": True}, {"separator": " "}):
        with pytest.raises(ValidationError, match="without codes"):
            spec_of(labels={"x": {"find": {"header": "dx"}} | option})


# --- forms of tables


def workbook(path: Path, sheets: dict[str, list[list[object]]]) -> None:
    book = pytest.importorskip("openpyxl", reason="openpyxl is not installed").Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


@pytest.mark.parametrize("form", ["semicolon", "bar", "tab", "gzip", "workbook", "second sheet"])
def test_every_form_of_a_table_gives_the_same_facts(tmp_path: Path, form: str) -> None:
    rows = [["record", "who", "age", "at"], ["r1", "P7", "41", "2020-02-03 04:05:06"], ["r2", "", "", ""]]
    table: dict[str, object] = {"file": "t.csv", "key": "record"}
    if form in ("semicolon", "bar", "tab"):
        separator = {"semicolon": ";", "bar": "|", "tab": "tab"}[form]
        text = "\n".join({"tab": "\t"}.get(separator, separator).join(row) for row in rows)
        (tmp_path / "t.csv").write_text(text)
        table["separator"] = separator
    elif form == "gzip":
        table["file"] = "t.csv.gz"
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress("\n".join(",".join(row) for row in rows).encode()))
    else:
        table["file"] = "t.xlsx"
        cells: list[list[object]] = [[*rows[0]], ["r1", "P7", 41, datetime(2020, 2, 3, 4, 5, 6)], ["r2"]]
        workbook(tmp_path / "t.xlsx", {"people": cells} if form == "workbook" else {"notes": [["x"]], "people": cells})
        table |= {"sheet": "people"} if form == "second sheet" else {}
    for name in ("r1", "r2"):
        (tmp_path / f"{name}.ecg").write_text("|")
    rules = {name: {"column": column} for name, column in (("patient", "who"), ("age", "age"), ("acquired_at", "at"))}
    found = described(tmp_path, tables=[table], **rules)
    assert found["r1.ecg"].patient_id == "P7"
    assert found["r1.ecg"].age_years == 41
    assert found["r1.ecg"].acquired_at == datetime(2020, 2, 3, 4, 5, 6)
    assert found["r2.ecg"].patient_id is None
    assert math.isnan(found["r2.ecg"].age_years)


@pytest.mark.parametrize("damage", ["cut", "bits", "no gzip", "no workbook", "no sheet", "a workbook without sheets"])
def test_a_damaged_table_is_one_line(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(b"record,age\n" + b"".join(b"r%d,5\n" % row for row in range(500)))
    name, content = "t.csv.gz", packed[:-20]
    if damage == "bits":
        content = packed[:40] + bytes([packed[40] ^ 0x55]) + packed[41:]
    elif damage == "no gzip":
        content = b"record,age\nr1,5\n"
    elif "workbook" in damage:
        name, content = "t.xlsx", b"PK\x05\x06" + bytes(18) if "without" in damage else b"record,age\n"
    (tmp_path / name).write_bytes(content)
    table: dict[str, object] = {"file": name, "key": "record"}
    if damage == "no sheet":
        table = {"file": "s.xlsx", "key": "record", "sheet": "people"}
        workbook(tmp_path / "s.xlsx", {"persons": [["record"]]})
    (tmp_path / "r1.ecg").write_text("|")
    with pytest.raises(SourceError) as caught:
        described(tmp_path, tables=[table], age={"column": "age"})
    assert "\n" not in str(caught.value)
    assert str(table["file"]) in str(caught.value)


def test_a_workbook_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecgcohorts.cohorts import tables as cohort_tables

    workbook(tmp_path / "t.xlsx", {"a": [["record", "age"], ["r1", 5]]})
    (tmp_path / "r1.ecg").write_text("|")
    monkeypatch.setattr(cohort_tables, "MAX_WORKBOOK_BYTES", 1000)
    with pytest.raises(SourceError, match="too many for a workbook"):
        described(tmp_path, tables=[{"file": "t.xlsx", "key": "record"}], age={"column": "age"})


def test_a_column_may_be_missing_from_another_release(one: Callable[..., Description], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("record,Sex\nr1,F\n")
    table = {"file": "t.csv", "key": "record"}
    sex = [{"column": "SexDSC", "optional": True}, {"column": "Sex", "optional": True}]
    assert one(tables=[table], sex=sex).sex == "female"
    with pytest.raises(SourceError, match="no column SexDSC"):
        one(tables=[table], sex=[{"column": "SexDSC"}, *sex])
    with pytest.raises(ValidationError, match="optional without column"):
        spec_of(sex={"header": "Sex", "optional": True})


# --- numbers of rows


@pytest.mark.parametrize(("rows", "fits"), [(2, True), (1, False), (3, False)])
def test_a_stated_number_of_rows_is_demanded(tmp_path: Path, rows: int, fits: bool) -> None:
    (tmp_path / "r1.ecg").write_text("|")
    (tmp_path / "t.csv").write_text("record,age\nr1,5\n\nr2,6\n")
    tables = [{"file": "t.csv", "key": "record", "rows": rows}]
    if fits:
        assert described(tmp_path, tables=tables, age={"column": "age"})["r1.ecg"].age_years == 5
    else:
        with pytest.raises(SourceError, match=f"found 2 rows, expected {rows}"):
            described(tmp_path, tables=tables, age={"column": "age"})


def test_a_list_has_a_number_of_rows_too(tmp_path: Path) -> None:
    (tmp_path / "r1.ecg").write_text("|")
    (tmp_path / "bad.txt").write_text("r1\nr1\n\n")
    label = {"bad": {"find": {"column": "listed"}}}
    assert described(tmp_path, tables=[{"file": "bad.txt", "listed": "1", "rows": 2}], labels=label)
    with pytest.raises(SourceError, match="found 2 rows, expected 1"):
        described(tmp_path, tables=[{"file": "bad.txt", "listed": "1", "rows": 1}], labels=label)


# --- keys


VISITS = "record,person\nr1,007\nr2,8\nr3,9\n"
PERSONS = "id,sex\n7,m\n8.0,f\n"


def test_a_second_table_is_joined_over_the_first(tmp_path: Path) -> None:
    for name in ("r1", "r2", "r3", "r4"):
        (tmp_path / f"{name}.ecg").write_text("|")
    (tmp_path / "v.csv").write_text(VISITS)
    (tmp_path / "p.csv").write_text(PERSONS)
    by = {"column": "person", "table": "visits"}
    tables = [
        {"name": "visits", "file": "v.csv", "key": "record"},
        {"name": "persons", "file": "p.csv", "key": "id", "by": by},
    ]
    found = described(tmp_path, tables=tables, sex={"column": "sex", "table": "persons"}, patient=by)
    assert [one.sex for one in found.values()] == ["male", "female", None, None]
    assert [one.patient_id for one in found.values()] == ["007", "8", "9", None]


def test_a_table_is_joined_over_a_header(one: Callable[..., Description], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(PERSONS)
    tables = [{"file": "p.csv", "key": "id", "by": {"header": "Subject"}}]
    assert one("Subject=08", tables=tables, sex={"column": "sex"}).sex == "female"
    assert one("Subject=", tables=tables, sex={"column": "sex"}).sex is None


def test_a_table_is_joined_over_one_before_it_only(tmp_path: Path) -> None:
    by = {"column": "person", "table": "visits"}
    persons = {"name": "persons", "file": "p.csv", "key": "id", "by": by}
    visits = {"name": "visits", "file": "v.csv", "key": "record"}
    for tables in ([persons, visits], [persons]):
        with pytest.raises(ValidationError, match="expected one before it"):
            spec_of(tables=tables)
    with pytest.raises(ValidationError, match="one way to find the key"):
        spec_of(tables=[visits, persons | {"match": "path"}])
    with pytest.raises(ValidationError, match="to find the key in"):
        spec_of(tables=[persons | {"by": {"reader": True}}])


def test_an_optional_table_that_is_missing_takes_the_one_behind_it_along(tmp_path: Path) -> None:
    (tmp_path / "r1.ecg").write_text("|")
    (tmp_path / "p.csv").write_text(PERSONS)
    tables = [
        {"name": "visits", "file": "v.csv", "key": "record", "required": False},
        {"name": "persons", "file": "p.csv", "key": "id", "by": {"column": "person", "table": "visits"}},
    ]
    assert described(tmp_path, tables=tables, sex={"column": "sex", "table": "persons"})["r1.ecg"].sex is None


def test_a_key_is_taken_out_of_its_cell(tmp_path: Path) -> None:
    (tmp_path / "r1.ecg").write_text("|")
    (tmp_path / "t.csv").write_text('file,age\n"./S0001/r1.hea\n",5\n./S0001/r2.jpg,6\n')
    tables = [{"file": "t.csv", "key": "file", "key_pattern": r"([^/]+)\.hea\s*$"}]
    assert described(tmp_path, tables=tables, age={"column": "age"})["r1.ecg"].age_years == 5


def test_rows_of_one_key_are_merged_where_the_description_says_so(tmp_path: Path) -> None:
    (tmp_path / "r1.ecg").write_text("|")
    (tmp_path / "t.csv").write_text("record,age,par\nr1,5,QT\nr2,9,QT\nr1,5,RR\n")
    table = {"file": "t.csv", "key": "record"}
    rules = {"age": {"column": "age"}, "device": {"column": "par"}}
    with pytest.raises(SourceError, match="stands in two rows"):
        described(tmp_path, tables=[table], **rules)
    found = described(tmp_path, tables=[table | {"repeated": True, "rows": 3}], **rules)["r1.ecg"]
    assert found.age_years == 5
    assert found.device is None  # QT or RR: nobody can say


# --- rows of several files in one table


def grouped(folder: Path, rows: str, **files: str) -> dict[str, Description]:
    """Describe the entries of files `<part>_waves.ecg`, whose rows stand in one table by the column `split`."""
    (folder / "t.csv").write_text("split,age\n" + rows)
    for part, entries in files.items():
        (folder / f"{part}_waves.ecg").write_text("".join(f"{entry}|x=\n" for entry in entries))
    table = {"file": "t.csv", "match": "row", "group": "split", "pattern": r"(\w+)_waves"}
    spec = spec_of(tables=[table], age={"column": "age"})
    tables = spec.load_tables(folder)
    items = spec.sources(folder)
    tables.check_rows(Counter(item.path for item in items))
    return {item.location: spec.describe(tables, item) for item in items}


def test_each_file_has_the_rows_of_its_group_in_their_order(tmp_path: Path) -> None:
    found = grouped(tmp_path, "train,1\ntest,20\ntrain,2\ntest,30\ntrain,3\n", train="012", test="01")
    ages = {name: about.age_years for name, about in found.items()}
    assert [ages[f"train_waves.ecg#{row}"] for row in range(3)] == [1, 2, 3]
    assert [ages[f"test_waves.ecg#{row}"] for row in range(2)] == [20, 30]


@pytest.mark.parametrize("files", [{"train": "01", "test": "01"}, {"train": "012", "test": "0"}, {"val": "0"}])
def test_a_group_of_another_length_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="goes by row"):
        grouped(tmp_path, "train,1\ntest,20\ntrain,2\ntest,30\ntrain,3\n", **files)


def test_a_group_needs_rows_and_a_pattern() -> None:
    for table in ({"key": "k", "group": "g", "pattern": "(x)"}, {"match": "row", "group": "g"}):
        with pytest.raises(ValidationError, match="group without match: row"):
            spec_of(tables=[{"file": "t.csv"} | table])


# --- ages that are computed


@pytest.mark.parametrize(
    ("age", "then", "now", "years"),
    [
        ("52", "2180", "2184-06-01", 56),
        ("52", "2180", "2179-06-01", 51),
        ("91", "2180", "2184-06-01", 90),
        ("91", "2180", "2170-06-01", math.nan),  # 91 stands for any age over 89
        ("88", "2180", "2184-06-01", 90),
        ("3", "2180", "2170-06-01", math.nan),
        ("0", "1950-07-02", "2000-07-02", 50),
        ("0", "1950-07-02", "2000-01-01", 49.5),
        ("52", "", "2184-06-01", math.nan),
        ("52", "2180", "", math.nan),
    ],
)
def test_an_age_of_another_moment_is_brought_to_the_recording(
    one: Callable[..., Description], age: str, then: str, now: str, years: float
) -> None:
    rules = {"age": {"header": "age"}, "age_at": {"header": "then"}, "acquired_at": {"header": "now"}}
    found = one(f"age={age}|then={then}|now={now}", **rules)
    assert found.age_years == pytest.approx(years, abs=0.01, nan_ok=True)


@pytest.mark.parametrize(("born", "years"), [("02.07.1950", 50), ("02.07.2001", math.nan), ("1950-07-02", math.nan)])
def test_a_date_of_birth_in_the_form_of_the_cohort(one: Callable[..., Description], born: str, years: float) -> None:
    rules = {"age": {"constant": "0"}, "age_at": {"header": "born"}, "acquired_at": {"header": "now"}}
    found = one(f"born={born}|now=02.07.2000", time_format="%d.%m.%Y", **rules)
    assert found.age_years == pytest.approx(years, abs=0.01, nan_ok=True)


# --- fillers in files of many recordings


def test_entries_that_are_no_recordings_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "r1.ecg").write_text("7|x=\n0|x=\n")
    assert list(described(tmp_path)) == ["r1.ecg#7", "r1.ecg#0"]
    assert list(described(tmp_path, files={"include": ["*.ecg"], "exclude_entries": ["0"]})) == ["r1.ecg#7"]


def test_a_recording_keeps_its_facts_beside_new_rules(one: Callable[..., Description]) -> None:
    """Nothing of the above changes what a rule without these keys finds."""
    found = one("Age=41|Sex=F", age={"header": "Age"}, sex={"header": "Sex"})
    assert replace(found, recording_id="") == replace(found, recording_id="", age_years=41.0, sex="female")
