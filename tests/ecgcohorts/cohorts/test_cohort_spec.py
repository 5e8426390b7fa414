"""A cohort file of one's own: every mistake is one clear line, every rule finds what it names."""

import math
import types
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from ecgcohorts.cohorts import files as cohort_files
from ecgcohorts.cohorts import tables as cohort_tables
from ecgcohorts.cohorts.spec import CohortSpec, Description, SourceItem
from ecgcohorts.errors import Reason, RejectedRecording, SourceError, SpecError, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.recording import Origin, Recording

EXAMPLE = Path(__file__).parent / "example.yaml"
SMALL = {
    "name": "mine",
    "title": "Mine",
    "licence": "none",
    "citation": "none",
    "mains_hz": 50,
    "layouts": [{"reader": "wfdb", "files": {"include": ["**/*.ecg"]}}],
}


def recording(path: Path, entry: str = "", **facts: object) -> Recording:
    digital = np.zeros((12, 0), np.int32)
    base = Recording(
        recording_id=path.stem,
        leads=TWELVE_LEADS,
        rate_hz=500,
        digital=digital,
        gain_per_mv=np.full(12, 1000.0),
        baseline=np.zeros(12),
        n_samples=5000,
        source=Origin("fake", path, entry),
    )
    return replace(base, **facts)  # type: ignore[arg-type]


def scan(path: Path) -> Iterator[Recording]:
    """A reader of text: each line is an entry and its header fields; `bad` cannot be read, `odd` raises anything."""
    for line in path.read_text().splitlines():
        entry, _, rest = line.partition("|")
        if entry == "bad":
            raise UnreadableRecording(Reason.HEADER, "bad", "good", "", str(path))
        if entry == "odd":
            raise ZeroDivisionError
        yield recording(path, entry, fields=dict(pair.split("=") for pair in rest.split(",") if pair))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_files, "open_reader", lambda name, arrays: types.SimpleNamespace(scan=scan))


def spec_of(**changes: object) -> CohortSpec:
    layout = SMALL["layouts"][0] | changes  # type: ignore[index,operator]
    return CohortSpec.model_validate(SMALL | {"layouts": [layout]})


def written(folder: Path, content: object) -> str:
    path = folder / "cohort.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


# --- the file


def test_the_example_goes_to_yaml_and_json_and_back(tmp_path: Path) -> None:
    spec = CohortSpec.load(str(EXAMPLE))
    assert spec.layouts[0].sex_codes == {"0": "male", "1": "female"}
    assert spec.layouts[0].labels["af"].codes == ("164889003", "AFIB")
    assert CohortSpec.load(written(tmp_path, spec.to_yaml())) == spec
    assert CohortSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_example_shows_every_key() -> None:
    shown = yaml.safe_load(EXAMPLE.read_text())
    assert set(shown) == set(CohortSpec.model_fields)
    assert set(shown["layouts"][0]) == set(type(CohortSpec.load(str(EXAMPLE)).layouts[0]).model_fields)


def test_the_schema_lets_a_single_place_stand_without_a_list() -> None:
    age = CohortSpec.model_json_schema()["$defs"]["Layout"]["properties"]["age"]
    assert {"$ref": "#/$defs/Where"} in age["anyOf"]


WRONG = [
    ({"namee": "x"}, "namee", "Did you mean name?"),
    ({"mains_hz": 55}, "mains_hz", "expected 50, 60, auto or null"),
    ({"mains_hz": "fifty"}, "mains_hz", "expected 50, 60, auto or null"),
    ({"sentinel": "gap"}, "sentinel", "'missing' or 'clipping'"),
    ({"name": "My Cohort"}, "name", "pattern"),
    ({"expected_gain_per_mv": -1}, "expected_gain_per_mv", "greater than 0"),
    ({"layouts": []}, "layouts", "at least 1"),
    ({"cohorts": [{"name": "a", "path": "(", "mains_hz": 50}]}, "cohorts.0.path", "not a regular expression"),
    ({"cohorts": [{"name": "a", "path": "a"}]}, "cohorts.0.mains_hz", "Add it"),
    ({"cohorts": [{"name": "a", "path": "a", "mains_hz": 50, "unlabelled": ["x"]}]}, "unlabelled x", "names of labels"),
]
ARRAYS = {"kind": "npy", "rate_hz": 500, "unit": "mV", "leads": ["I"], "axes": "lead_time"}
WRONG_LAYOUT = [
    ({"patient": {"reader": True, "usual_fillers": False}}, "patient.0", "name the header or column"),
    ({"age": {"header": "Age", "usual_fillers": False}}, "usual_fillers outside of patient", "remove it there"),
    ({"patient": {"hedder": "x"}}, "patient.0.hedder", "Did you mean header?"),
    ({"patient": {"header": "x", "constant": "y"}}, "patient.0", "header and constant"),
    ({"patient": [{}]}, "patient.0", "give one"),
    ({"patient": {"path": "abc"}}, "patient.0.path", "group"),
    ({"patient": {"column": "x"}}, "layouts.0", "column x and 0 tables"),
    ({"patient": {"header": "x", "table": "t"}}, "patient.0", "table without column"),
    ({"age_unit": "jahre"}, "age_unit", "'years', 'months', 'weeks' or 'days'"),
    ({"sex_codes": {"0": "man"}}, "sex_codes.0", "'male' or 'female'"),
    ({"tables": [{"file": "a.csv"}]}, "tables.0", "key column"),
    ({"tables": [{"file": "a.csv", "key": "k"}, {"file": "b.csv", "key": "k"}]}, "layouts.0", "two tables of one name"),
    (
        {"tables": [{"file": "a.csv", "key": "k"}], "age": {"column": "x", "table": "t"}},
        "layouts.0",
        "found table t, expected one of table",
    ),
    ({"tables": [{"file": "a.txt", "key": "k", "listed": "1"}]}, "tables.0", "exactly one of a key column"),
    (
        {"tables": [{"file": "a.txt", "listed": "1"}], "age": {"column": "x"}},
        "layouts.0",
        "found column x of the list table, which has only listed",
    ),
    ({"labels": {"af": {"find": {"reader": True}}}}, "labels.af", "header, column, path or constant"),
    (
        {"labels": {"af": {"find": {"header": "Dx"}, "codes": ["1"], "values": {"a": 1}}}},
        "labels.af",
        "codes and values",
    ),
    ({"labels": {"AF": {"find": {"header": "Dx"}}}}, "labels.AF", "pattern"),
    ({"reader": "arrays", "arrays": ARRAYS | {"rate": 500}}, "arrays.rate", "Did you mean rate_hz?"),
    ({"reader": "wfbd"}, "wfbd", "expected one of"),
]


@pytest.mark.parametrize(
    ("content", "place", "remedy"),
    [(SMALL | wrong, place, remedy) for wrong, place, remedy in WRONG]
    + [
        (SMALL | {"layouts": [SMALL["layouts"][0] | wrong]}, place, remedy)  # type: ignore[index,operator]
        for wrong, place, remedy in WRONG_LAYOUT
    ]
    + [
        ({key: value for key, value in SMALL.items() if key != "licence"}, "licence", "Add it"),
        ("a: [1", "cohort.yaml", "not YAML"),
        ("just text", "cohort.yaml", "expected"),
        ("", "cohort.yaml", "expected"),
        ("!!python/object/apply:os.getcwd []", "cohort.yaml", "not YAML"),
        ("# " + "x" * 2**20, "cohort.yaml", "a few kB"),
    ],
)
def test_a_mistake_in_a_cohort_file_is_one_line_with_its_place_and_remedy(
    content: object, place: str, remedy: str, tmp_path: Path
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SpecError) as caught:
        CohortSpec.load(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert place in message
    assert remedy in message
    assert "\n" not in message
    assert len(message) < 500 + len(path)


def test_an_unknown_cohort_and_a_missing_file_are_told_apart() -> None:
    with pytest.raises(SpecError, match=r"found no cohort 'ptbxl', expected one of .*cinc2021, .*ptb_xl"):
        CohortSpec.load("ptbxl")
    with pytest.raises(SpecError, match=r"no_such\.yaml: the cohort file cannot be read \(No such file or directory\)"):
        CohortSpec.load("no_such.yaml")


# --- the folder


def test_sources_are_sorted_scanned_and_never_stopped_by_a_bad_file(tmp_path: Path, fake: None) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name, text in {"b/2.ecg": "x|", "a.ecg": "2|\n1|", "b/1.ecg": "1|\nbad|", "c.ecg": "odd|"}.items():
        (tmp_path / name).write_text(text)
    for name in ("b/notes.txt", ".hidden/3.ecg", ".4.ecg"):
        (tmp_path / name).write_text("x|")
    items = spec_of().sources(tmp_path)
    assert [item.location for item in items] == ["a.ecg#2", "a.ecg#1", "b/1.ecg#1", "b/1.ecg", "b/2.ecg#x", "c.ecg"]
    assert [item.error.reason if item.error else None for item in items] == [
        *[None] * 3,
        Reason.HEADER,
        None,
        Reason.UNEXPECTED,
    ]
    assert [item.header is None for item in items] == [item.error is not None for item in items]
    assert [item.location for item in spec_of().sources(tmp_path, limit=2)] == ["a.ecg#2", "a.ecg#1"]
    excluding = spec_of(files={"include": ["**/*.ecg"], "exclude": ["b/**"]})
    assert {item.path for item in excluding.sources(tmp_path)} == {"a.ecg", "c.ecg"}


def test_a_wrong_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="found no such folder or file, expected the recordings"):
        spec_of().sources(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match=r"found 1 files, but none like \*\*/\*\.ecg"):
        spec_of().sources(tmp_path)
    with pytest.raises(SourceError, match="none like"):
        spec_of().load_tables(tmp_path)


def test_a_fallback_layout_is_used_only_where_no_other_finds_files(tmp_path: Path) -> None:
    layouts = [
        {"name": "copy", "reader": "wfdb", "files": {"include": ["**/*.txt"]}, "fallback": True},
        {"name": "original", "reader": "wfdb", "files": {"include": ["**/*.ecg"]}},
    ]
    spec = CohortSpec.model_validate(SMALL | {"layouts": layouts})
    (tmp_path / "a.txt").write_text("x")
    assert spec.load_tables(tmp_path).layout.name == "copy"
    (tmp_path / "a.ecg").write_text("x")
    assert spec.load_tables(tmp_path).layout.name == "original"


def test_files_of_two_layouts_in_one_folder_are_refused(tmp_path: Path) -> None:
    layouts = [
        {"name": kind, "reader": "wfdb", "files": {"include": [f"**/*.{kind}"]}} for kind in ("one", "two", "three")
    ]
    spec = CohortSpec.model_validate(SMALL | {"layouts": layouts})
    (tmp_path / "a.two").write_text("x")
    assert spec.load_tables(tmp_path).layout.name == "two"
    (tmp_path / "a.three").write_text("x")
    message = r"layouts two and three, expected files of one\..* --cohort NAME#two .* or name the folder of one"
    with pytest.raises(SourceError, match=message):
        spec.load_tables(tmp_path)


# --- the tables

TABLE = {"file": "t.csv", "key": "id"}
BY_TABLE = {"tables": [TABLE], "patient": {"column": "person"}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "There is no t.csv in"),
        ("id,other\n1,2\n", "there is no column person"),
        ("person\n1\n", "there is no column id"),
        ("id,person\n1,2\n1.0,3\n", "one id stands in two rows, again in row 2"),
        ("id,person\n1,2\n3\n", "found 1 cells in row 2, expected 2"),
        ('id,person\n1,"a\n', "not a CSV"),
        (b"id,person\n1,\xff\n", "not a CSV in UTF-8"),
        ("", "there is no column"),
    ],
)
def test_a_wrong_table_is_said_so(text: str | bytes | None, found: str, tmp_path: Path) -> None:
    (tmp_path / "a.ecg").write_text("")
    if text is not None:
        (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SourceError, match=found):
        spec_of(**BY_TABLE).load_tables(tmp_path)


def test_an_optional_table_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.ecg").write_text("")
    spec = spec_of(tables=[TABLE | {"required": False}], patient=[{"column": "person"}, {"constant": "p9"}])
    tables = spec.load_tables(tmp_path)
    assert tables.loaded == {}
    assert spec.describe(tables, SourceItem("a.ecg")).patient_id == "p9"


@pytest.mark.parametrize(
    ("match", "key", "item"),
    [
        ({"match": "stem"}, "007", SourceItem("a/7.ecg")),
        ({"match": "stem"}, "x.1.ecg", SourceItem("a/x.1.ecg")),
        ({"match": "path"}, "a/7", SourceItem("a/7.ecg")),
        ({"match": "path"}, "a/7.ecg", SourceItem("a/7.ecg")),
        ({"match": "entry"}, "7.0", SourceItem("a.ecg", "7")),
        ({"pattern": r"rec0*(\d+)"}, "7", SourceItem("a/rec0007.ecg")),
    ],
)
def test_a_row_is_found_by_its_key(match: dict[str, str], key: str, item: SourceItem, tmp_path: Path) -> None:
    (tmp_path / "a.ecg").write_text("")
    (tmp_path / "t.csv").write_text(f"\ufeffid,person\nother,1\n\n{key},42.0\n")
    spec = spec_of(**BY_TABLE | {"tables": [TABLE | match]})
    tables = spec.load_tables(tmp_path)
    assert spec.describe(tables, item).patient_id == "42"
    assert spec.describe(tables, SourceItem("b/none.ecg", "none")).patient_id is None


def test_rows_may_count_by_order(tmp_path: Path) -> None:
    (tmp_path / "a.ecg").write_text("")
    (tmp_path / "t.csv").write_text("person\np0\np1\np2\n")
    spec = spec_of(**BY_TABLE | {"tables": [{"file": "t.csv", "match": "row"}]})
    tables = spec.load_tables(tmp_path)
    found = [spec.describe(tables, SourceItem("a.ecg", entry)).patient_id for entry in ("2", "0", "3")]
    assert found == ["p2", "p0", None]


def test_a_bare_list_says_one_thing_about_every_name_on_it(tmp_path: Path) -> None:
    (tmp_path / "a.ecg").write_text("")
    (tmp_path / "good.txt").write_text("\ufeff007\nb\n\nb\n")
    (tmp_path / "bad.txt").write_text("c")
    lists = [{"name": name, "file": f"{name}.txt", "listed": text} for name, text in (("good", "1"), ("bad", "0"))]
    find = [{"column": "listed", "table": name} for name in ("good", "bad")]
    spec = spec_of(tables=lists, labels={"good": {"find": find}})
    tables = spec.load_tables(tmp_path)
    found = [spec.describe(tables, SourceItem(f"{name}.ecg")).labels["good"] for name in ("7", "b", "c", "d")]
    assert found == pytest.approx([1, 1, 0, math.nan], nan_ok=True)
    (tmp_path / "bad.txt").write_bytes(b"\xff\n")
    with pytest.raises(SourceError, match="not a list in UTF-8"):
        spec.load_tables(tmp_path)
    (tmp_path / "bad.txt").unlink()
    with pytest.raises(SourceError, match=r"There is no bad\.txt"):
        spec.load_tables(tmp_path)


# --- the rules


def test_the_first_place_that_means_something_wins(tmp_path: Path, fake: None) -> None:
    (tmp_path / "a.ecg").write_text("1|Age=NaN,years=41,PID=000,sex=?,Sex=f,when=bad")
    (tmp_path / "t.csv").write_text("id,age,pid,sex\na,,, \n")
    spec = spec_of(
        tables=[TABLE],
        age=[{"column": "age"}, {"header": "AGE"}, {"header": "Years"}, {"constant": "7"}],
        patient=[{"column": "pid"}, {"header": "pid"}, {"path": "(a)[.]ecg"}],
        sex=[{"column": "sex"}, {"header": "Sex"}],
        acquired_at=[{"header": "when"}, {"constant": "2001-02-03"}],
        site=[{"header": "nothing"}, {"constant": " North  wing "}],
    )
    (item,) = spec.sources(tmp_path)
    found = spec.describe(spec.load_tables(tmp_path), item)
    assert (found.age_years, found.patient_id, found.sex) == (41, "a", "female")
    assert found.acquired_at == datetime(2001, 2, 3)
    assert found.site == "North wing"
    assert found.device is None
    assert found.recording_id == "a#1"  # no rule: the path and the entry


def test_without_rules_the_reader_is_believed_but_for_placeholders_and_impossible_ages() -> None:
    spec = spec_of(age_unit="months", age_codes={"35": 1})  # of the texts in files, not of what the reader understood
    tables = cohort_tables.Tables(spec.layouts[0], {})
    when = datetime(2020, 1, 1)
    header = recording(
        Path("a.ecg"), patient_id="p1", age_years=35.0, sex="male", acquired_at=when, device="MAC", site="A"
    )
    found = spec.describe(tables, SourceItem("a.ecg", "", header))
    known = (found.patient_id, found.age_years, found.sex, found.acquired_at, found.device, found.site)
    assert known == ("p1", 35.0, "male", when, "MAC", "A")
    odd = spec.describe(tables, SourceItem("a.ecg", "", replace(header, patient_id="XXXX", age_years=-4.0)))
    assert odd.patient_id is None
    assert math.isnan(odd.age_years)


def test_an_empty_rule_means_never_known() -> None:
    spec = spec_of(patient=[], age=[], sex=[], acquired_at=[], device=[], site=[])
    header = recording(Path("a.ecg"), patient_id="p", age_years=3.0, sex="male", acquired_at=datetime(2020, 1, 1))
    found = spec.describe(cohort_tables.Tables(spec.layouts[0], {}), SourceItem("a.ecg", "", header))
    assert (found.patient_id, found.sex, found.acquired_at) == (None, None, None)
    assert math.isnan(found.age_years)


def test_an_unreadable_header_is_described_as_far_as_possible() -> None:
    spec = spec_of(patient={"path": "^(.*)/"}, labels={"af": {"find": {"header": "Dx"}, "codes": ["1"]}})
    found = spec.describe(cohort_tables.Tables(spec.layouts[0], {}), SourceItem("p7/a.ecg"))
    assert found.patient_id == "p7"
    assert math.isnan(found.labels["af"])


def test_ids_do_not_show_when_a_description_is_printed() -> None:
    assert "CANARY" not in repr(Description("c", "CANARY-P", "CANARY-R"))


def test_recordings_are_routed_by_path_and_unlabelled_is_unknown() -> None:
    spec = CohortSpec.load(str(EXAMPLE))
    tables = cohort_tables.Tables(spec.layouts[0], {})
    header = recording(Path("x"), fields={"Dx": "164889003"})
    north, south, other = (
        spec.describe(tables, SourceItem(f"{place}/a.hea", "", header)) for place in ("north", "south", "west")
    )
    assert [found.cohort for found in (north, south, other)] == ["example_north", "example_south", "example_hospital"]
    assert [found.mains_hz for found in (north, south, other)] == [50, "auto", 50]
    assert north.labels["af"] == 1
    assert math.isnan(south.labels["af"])
    assert (north.site, north.device) == ("north", "MAC 5500")


# --- what the cohort says about the samples


def test_minus_32768_is_missing_or_clipped_as_the_cohort_says() -> None:
    spec = CohortSpec.load(str(EXAMPLE))
    digital = np.array([[0, -32768, 5, 7]] * 12, np.int32)
    missing = (digital == -32768) | (digital == 7)  # 7 stands for a gap of another kind
    read = recording(Path("a"), digital=digital, missing=missing)
    north = spec.apply_rules("example_north", read)
    south = spec.apply_rules("example_south", read)
    assert north is read
    assert np.isnan(north.signal_mv[0]).tolist() == [False, True, False, True]
    assert south.signal_mv[0, 1] == pytest.approx(-32.768)
    assert np.isnan(south.signal_mv[0]).tolist() == [False, False, False, True]
    assert "clipped_at_minimum" in south.notes
    whole = replace(read, missing=digital == 7)
    assert spec.apply_rules("example_south", whole) is whole


def test_another_gain_than_expected_is_refused_and_never_rescaled() -> None:
    spec = CohortSpec.load(str(EXAMPLE))
    what = "example_north"
    gains = np.full(12, 1000.0)
    gains[3] = 4880
    with pytest.raises(RejectedRecording, match="found gain 4880 per mV in lead aVR, expected 1000") as caught:
        spec.apply_rules(what, recording(Path("a"), gain_per_mv=gains))
    assert caught.value.reason == Reason.GAIN
    named = ("I", "II", "III", "Resp", *TWELVE_LEADS[4:])
    with_breath = recording(Path("a"), gain_per_mv=gains, leads=named)
    assert spec.apply_rules(what, with_breath) is with_breath
    any_gain = spec.model_copy(update={"expected_gain_per_mv": None})
    read = recording(Path("a"), gain_per_mv=gains)
    assert any_gain.apply_rules(what, read) is read


def test_a_cohort_the_spec_does_not_have_is_an_error() -> None:
    with pytest.raises(SpecError, match="found no cohort 'other', expected one of example_north"):
        CohortSpec.load(str(EXAMPLE)).apply_rules("other", recording(Path("a")))
