"""What became of tables and cells is told: a description that does not fit its tables shows before anything is encoded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import ecgcohorts as ec
from ecgcohorts.errors import NothingMatched, SourceError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest.run import commit_plan, encode_partition, plan_to_file

Make = Callable[..., Path]
KEYS = {"key": "record", "match": "stem"}


@pytest.fixture
def described(make_cohort: Callable[..., Any], tmp_path: Path) -> Make:
    """described(table, ...) -> a description of 7 recordings, CANARYREC000v0 to CANARYREC003v0, with t.csv beside them."""
    raw = make_cohort(patients=4)

    def make(text: str, table: dict[str, Any] | None = None, **rules: Any) -> Path:
        (raw.folder / "t.csv").write_text(text)
        layout = {
            "reader": "wfdb",
            "files": {"include": ["**/*.hea"]},
            "tables": [{"file": "t.csv", **KEYS, **(table or {})}],
            "patient": {"header": "Patient ID"},
            **rules,
        }
        spec = {"name": "told", "title": "t", "licence": "x", "citation": "x", "mains_hz": 50, "layouts": [layout]}
        path = tmp_path / "told.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    return make


@pytest.fixture
def source(make_cohort: Callable[..., Any], tmp_path: Path) -> Path:
    return tmp_path / "raw_north"


SOME = "record,sex\nCANARYREC000v0,weiblich\nCANARYREC001v0,9\nCANARYREC001v1,f\nelsewhere,m\n"


def test_rows_and_recordings_are_counted(
    described: Make, source: Path, tmp_path: Path, outcome: Callable[..., Any]
) -> None:
    spec = described(SOME, sex={"column": "sex"})
    expected = {
        "table": "table", "file": "t.csv", "found": True, "rows_matched": 3, "rows_unmatched": 1,
        "recordings_matched": 3, "recordings_unmatched": 4, "listed": False, "way": "key or match: stem", "similar": "",
    }  # fmt: skip
    for more in (["--dry-run"], [], []):  # a trial, the run, a run that finds nothing new
        code, out, _ = outcome("ingest", source, tmp_path / "s.zarr", "--cohort", spec, "--json", *more)
        facts = json.loads(out)
        assert (code, facts["tables"]) == (0, [expected])
        assert facts["not_understood"] == [
            {"fact": "sex", "where": "t.csv, column sex", "count": 2, "example": "weiblich"}
        ]
    _, out, _ = outcome("ingest", source, tmp_path / "s.zarr", "--cohort", spec, "--dry-run")
    assert out.splitlines()[0] == ("t.csv: 3 rows matched, 1 without recording; 3 recordings matched, 4 without row")
    assert "t.csv, column sex: 2 texts not understood as sex, for example 'weiblich'. Name each" in out


def test_three_steps_tell_it_as_well(described: Make, source: Path, tmp_path: Path) -> None:
    spec, plan = described(SOME, sex={"column": "sex"}), tmp_path / "run.plan"
    header = plan_to_file(source, tmp_path / "s.zarr", str(spec), plan)
    assert encode_partition(plan, 0)
    report = commit_plan(plan)
    assert report.tables == header.tables
    assert [(one.fact, one.count) for one in report.not_understood] == [("sex", 2)]


@pytest.mark.parametrize("table", [{}, {"match": "path"}, {"required": False}, {"match": "stem", "pattern": "(x)"}])
def test_a_table_that_matches_nothing_is_refused(
    described: Make, source: Path, tmp_path: Path, table: dict[str, Any], outcome: Callable[..., Any]
) -> None:
    spec = described("record,sex\nrecord_1,f\nrecord_2,m\n", table, sex={"column": "sex"})
    with pytest.raises(NothingMatched, match="found none of 7 recordings in its 2 rows"):
        ingest(source, tmp_path / "s.zarr", str(spec))
    assert not (tmp_path / "s.zarr" / "CURRENT").exists()
    code, out, err = outcome("ingest", source, tmp_path / "s.zarr", "--cohort", spec)
    assert (code, out) == (3, "")
    code, out, err = outcome("ingest", source, tmp_path / "s.zarr", "--cohort", spec, "--dry-run")
    assert code == 3
    assert "0 rows matched, 2 without recording; 0 recordings matched, 7 without row" in out
    assert "take the table out of it" in err
    with pytest.raises(NothingMatched):
        plan_to_file(source, tmp_path / "s.zarr", str(spec), tmp_path / "run.plan")


def test_a_trial_may_miss_one_of_several_tables_and_a_list_may_name_nobody(
    described: Make, source: Path, tmp_path: Path
) -> None:
    """The first recordings of a trial may all be of one part; but no recording of any table is a wrong key."""
    both = [
        {"file": "t.csv", "name": "a", **KEYS},
        {"file": "u.csv", "name": "b", **KEYS},
        {"file": "bad.txt", "name": "bad", "listed": "1"},
    ]
    spec = described(SOME, tables=both, sex=[{"column": "sex", "table": "a"}, {"column": "sex", "table": "b"}])
    (source / "u.csv").write_text("record,sex\nCANARYREC003v0,f\n")
    (source / "bad.txt").write_text("nobody\n")
    report = ingest(source, tmp_path / "s.zarr", str(spec), IngestOptions(limit=2))
    assert [table.recordings_matched for table in report.tables] == [2, 0, 0]
    assert ingest(source, tmp_path / "s.zarr", str(spec)).total.stored == 5
    (source / "u.csv").write_text("record,sex\nnobody,f\n")
    with pytest.raises(NothingMatched, match=r"u\.csv"):
        ingest(source, tmp_path / "t.zarr", str(spec))


def test_a_wrong_file_name_of_an_optional_table_is_told(described: Make, source: Path, tmp_path: Path) -> None:
    spec = described(SOME, {"file": "tt.csv", "required": False}, sex={"column": "sex"})
    report = ingest(source, tmp_path / "s.zarr", str(spec))
    assert [str(table) for table in report.tables] == ["tt.csv: this optional table is not there. Did you mean t.csv?"]
    assert report.total.stored == 7


@pytest.mark.parametrize(
    ("fact", "text", "rules"),
    [
        ("age", "1956-03-12", {}),
        ("age", "70 years", {}),
        ("age", "-3", {}),
        ("age", "300", {}),
        ("sex", "weiblich", {}),
        ("sex", "9", {}),
        ("acquired_at", "12.03.2019", {}),
        ("score", "1,5", {"labels": {"score": {"find": {"column": "x"}}}}),
        ("score", "maybe", {"labels": {"score": {"find": {"column": "x"}, "values": {"no": 0}}}}),
    ],
)
def test_cells_that_do_not_parse_are_told(
    described: Make, source: Path, tmp_path: Path, fact: str, text: str, rules: dict[str, Any]
) -> None:
    rules = rules or {fact: {"column": "x"}}
    spec = described(f'record,x\nCANARYREC000v0,"{text}"\nCANARYREC001v0,nan\nCANARYREC001v1,\n', **rules)
    report = ingest(source, tmp_path / "s.zarr", str(spec))
    (cell,) = report.not_understood
    assert (cell.fact, cell.count, cell.example, cell.where) == (fact, 1, text, "t.csv, column x")
    assert report.total.stored == 7


def test_values_that_mean_something_or_nothing_are_not_told(described: Make, source: Path, tmp_path: Path) -> None:
    text = "record,age,sex,score\nCANARYREC000v0,41,F,29999\nCANARYREC001v0,300,x,yes\nCANARYREC001v1,NaN,Unknown,\n"
    spec = described(
        text,
        age={"column": "age"},
        age_codes={"300": 90},
        sex=[{"column": "sex"}, {"header": "Sex"}],
        sex_codes={"x": "male"},
        labels={"score": {"find": {"column": "score"}, "missing": ["29999"]}},
    )
    assert ingest(source, tmp_path / "s.zarr", str(spec)).not_understood == ()


def test_headers_are_told_and_long_texts_are_cut(described: Make, source: Path, tmp_path: Path) -> None:
    spec = described(SOME, sex={"header": "Patient ID"}, age={"column": "sex"})
    found = {one.where: one for one in ingest(source, tmp_path / "s.zarr", str(spec)).not_understood}
    assert found["header Patient ID"].count == 7
    assert found["t.csv, column sex"].count == 2  # 9 is an age
    assert all(len(one.example) <= 24 for one in found.values())


def test_another_separator_is_named(described: Make, source: Path, tmp_path: Path) -> None:
    spec = described(SOME.replace(",", ";"), sex={"column": "sex"})
    with pytest.raises(SourceError, match=r"parted by ';', expected ','\. State separator: ';'"):
        ingest(source, tmp_path / "s.zarr", str(spec))
    spec = described(SOME.replace(",", ";"), {"separator": ";"}, sex={"column": "sex"})
    report = ingest(source, tmp_path / "s.zarr", str(spec))
    assert report.tables[0].rows_matched == 3
    assert len(ec.open(tmp_path / "s.zarr").index) == 7
