"""A drafted cohort file loads, says what was found, marks what was guessed, and tells nobody who was recorded."""

import csv
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import victims
import yaml

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest.draft import Draft, _own_folders, draft
from ecgcohorts.ingest.table_columns import Columns, Key
from ecgcohorts.simulate import simulate
from ecgcohorts.store import open_store


def comments(made: Draft) -> dict[str, str]:
    """Comment of each line, by the key the line begins with."""
    lines = [line.strip().removeprefix("- ") for line in made.text.splitlines()]
    return {line.partition(":")[0]: line.partition("  # ")[2] for line in lines if not line.startswith("#")}


def loaded(made: Draft, folder: Path) -> CohortSpec:
    made.save(folder / "drafted.yaml")
    return CohortSpec.load(str(folder / "drafted.yaml"))


def write_csv(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """north: WFDB, river: MUSE XML, coast: HDF5 and a table; the descriptions beside them taken away."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, patients_per_cohort=6, seed=1)
    for path in folder.glob("*/cohort.yaml"):
        path.unlink()
    return folder


@pytest.mark.parametrize(("name", "reader"), [("north", "wfdb"), ("river", "muse_xml"), ("coast", "code_hdf5")])
def test_a_draft_is_ingested_as_it_is(name: str, reader: str, hospitals: Path, tmp_path: Path) -> None:
    table = hospitals / "coast" / "exams.csv" if name == "coast" else None
    made = draft(hospitals / name, table)
    assert made.reader == reader
    spec = loaded(made, tmp_path)
    assert spec.mains_hz is None
    assert "unknown" in comments(made)["mains_hz"]
    report = ingest(hospitals / name, tmp_path / "s.zarr", str(tmp_path / "drafted.yaml"), IngestOptions())
    assert report.total.stored == report.total.inputs > 6
    index = open_store(tmp_path / "s.zarr").index
    assert index.n_patients == 6
    assert index["patient_known"].all()
    assert np.isfinite(index["age"]).all()
    assert set(index["sex"]) == {0, 1}


def test_a_table_beside_wfdb_records_says_who_they_are(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    raw = make_cohort(patients=4)
    names = sorted(raw.signals)
    for path in raw.folder.glob("*.hea"):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("#")))
    rows = [
        {
            "Record": name,
            "Subject ID": f"CANARYTAB{place // 2:02d}",
            "Gender": "FM"[place % 2],
            "Age (years)": 61 + place,
            "Recording date": f"0{1 + place}.02.2019 10:11",
            "ECG machine": "CANARYDEVICE",
            "Report": "CANARYREPORT",
        }
        for place, name in enumerate(names)
    ]
    made = draft(raw.folder, write_csv(raw.folder / "meta.csv", *rows))
    assert "CANARYTAB" not in made.text
    assert "CANARYDEVICE" not in made.text
    spec = loaded(made, tmp_path)
    layout = spec.layouts[0]
    assert (layout.tables[0].file, layout.tables[0].key, layout.tables[0].match) == ("meta.csv", "Record", "path")
    assert layout.time_format == "%d.%m.%Y %H:%M"
    found = [spec.describe(spec.load_tables(raw.folder), item) for item in spec.sources(raw.folder)]
    assert [each.patient_id for each in found] == [row["Subject ID"] for row in rows]
    assert [each.age_years for each in found] == [row["Age (years)"] for row in rows]
    assert [each.sex for each in found] == [{"F": "female", "M": "male"}[row["Gender"]] for row in rows]
    assert [each.acquired_at.day for each in found] == list(range(1, 1 + len(rows)))
    assert {each.device for each in found} == {"CANARYDEVICE"}
    marks = comments(made)
    assert all(marks[key].startswith("guess") for key in ("patient", "age", "sex", "acquired_at", "time_format"))
    assert marks["site"].startswith("unknown")


def test_header_texts_are_used_where_the_reader_knows_nothing(make_cohort: Callable[..., object]) -> None:
    raw = make_cohort(patients=3)
    made = draft(raw.folder)
    layout = CohortSpec.model_validate(yaml.safe_load(made.text)).layouts[0]
    assert layout.patient[0].header == "Patient ID"
    assert (layout.age[0].header, layout.sex[0].header, layout.acquired_at[0].header) == ("Age", "Sex", "Date")
    assert "CANARY" not in made.text


def test_numbered_records_of_a_numbered_table(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    raw = make_cohort(patients=0)
    for number in (7, 8, 9):
        raw.add(f"{number:05d}_hr", np.ones((12, 4000), np.int16))
    rows = [{"age": 40, "ecg_id": number, "patient_id": f"{number // 2}.0", "sex": number % 2} for number in range(30)]
    made = draft(raw.folder, write_csv(tmp_path / "table.csv", *rows))
    (table,) = CohortSpec.model_validate(yaml.safe_load(made.text)).layouts[0].tables
    assert (table.key, table.pattern, table.file) == ("ecg_id", "([0-9]+)[^/]*$", "table.csv")
    assert "copy it into SRC" in made.text
    assert "found 0, 1" in comments(made)["sex_codes"]  # only a person knows which is which


def test_a_table_of_other_recordings_is_left_out(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    raw = make_cohort(patients=3)
    rows = [{"record": f"other{number}", "patient": number} for number in range(9)]
    made = draft(raw.folder, write_csv(tmp_path / "meta.csv", *rows))
    assert made.left_out == ("meta.csv: none of its columns names the recordings",)
    assert not CohortSpec.model_validate(yaml.safe_load(made.text)).layouts[0].tables


def test_the_commonest_format_is_described_and_the_others_named(make_cohort: Callable[..., object]) -> None:
    raw = make_cohort(patients=3)
    for number in range(2):
        np.save(raw.folder / f"{number}.npy", np.ones((5000, 12)))
    (raw.folder / "broken.hea").write_text("broken 12 500\n")
    made = draft(raw.folder)
    assert (made.reader, made.n_files) == ("wfdb", len(raw.signals))
    assert made.left_out == (
        "2 files, undescribed array: NumPy",
        "1 file, unknown or unreadable: named like wfdb",
    )
    assert all(f"# left out: {what}" in made.text for what in made.left_out)
    layout = CohortSpec.model_validate(yaml.safe_load(made.text)).layouts[0]
    assert layout.files.exclude == ("broken.hea",)  # the same suffix, other content


def test_any_format_of_a_mixed_folder_is_described_on_request(hospitals: Path, tmp_path: Path) -> None:
    commonest = draft(hospitals)
    assert {commonest.reader, *commonest.others} == {"wfdb", "muse_xml", "code_hdf5"}
    made = draft(hospitals, reader="code_hdf5")
    assert (made.reader, made.n_files, set(made.others)) == ("code_hdf5", 1, {"wfdb", "muse_xml"})
    spec = loaded(made, tmp_path)
    assert spec.name.endswith("_code_hdf5")  # so that drafts of several formats can go into one store
    assert {item.path for item in spec.find(hospitals).scan()} == {"coast/exams_part0.hdf5"}
    with pytest.raises(SourceError, match=r"found no recordings of the format 'scp', expected one of .*code_hdf5"):
        draft(hospitals, reader="scp")


def test_folders_of_one_format_are_named_in_place_of_the_files_of_others() -> None:
    assert _own_folders(["a/1.edf", "a/b/2.EDF"], ["c/x.edf"]) == ["a/**/*.EDF", "a/**/*.edf"]
    assert _own_folders(["a/1.edf", "c/d/3.edf"], ["c/x.edf"]) == ["a/**/*.edf", "c/d/**/*.edf"]
    assert _own_folders(["a/1.edf", "c/3.edf"], ["c/x.edf"]) == []  # one folder holds both
    assert _own_folders(["1.edf"], ["c/x.edf"]) == []
    assert _own_folders(["e*/4.edf"], ["c/x.edf"]) == []  # would fit eg/5.edf as well


def test_a_draft_of_a_mixed_folder_finds_its_own_files_only(hospitals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(hospitals / "river", folder / "muse" / "river")
    (folder / "philips").mkdir()
    for number in range(30):  # more than a draft excludes by name
        (folder / "philips" / f"{number}.xml").write_text("<restingecgdata><x/></restingecgdata>")
    made = draft(folder, reader="muse_xml")
    spec = loaded(made, tmp_path)
    assert spec.layouts[0].files.include == ("muse/**/*.xml",)
    assert len(list(spec.find(folder).scan())) == made.n_files
    assert "unknown" not in comments(made)["files"]


def test_bare_numbers_beside_recordings_are_described_on_request(make_cohort: Callable[..., object]) -> None:
    raw = make_cohort(patients=3)
    np.save(raw.folder / "a.npy", np.ones((5000, 12)))
    assert (draft(raw.folder).reader, draft(raw.folder, reader="arrays").reader) == ("wfdb", "arrays")
    with pytest.raises(SourceError, match="expected one of wfdb, arrays"):
        draft(raw.folder, reader="edf")


ARRAYS = [
    ("a.csv", "time,I,II\n" + "0.1,0.2,0.3\n" * 500, {"leads": ["I", "II"], "columns": [1, 2], "skip_lines": 1}),
    ("a.txt.gz", "1;2,5;3\n" * 500, {"separator": ";", "decimal": ",", "axes": "time_lead", "columns": None}),
    ("a.npy", np.ones((12, 5000)), {"kind": "npy", "axes": "lead_time"}),
    ("a.npy", np.ones((100, 1, 500, 12), "i1"), {"kind": "npy", "axes": "record_one_time_lead"}),
    ("a.npy", np.ones((100, 8, 500), "i1"), {"kind": "npy", "axes": "record_lead_time"}),
    ("a.h5", np.ones((12, 50)), {"kind": "hdf5", "name": ["FILL_IN"], "axes": "FILL_IN"}),
]


@pytest.mark.parametrize(("name", "content", "expected"), ARRAYS, ids=[case[0] for case in ARRAYS])
def test_bare_numbers_stay_refused_until_somebody_fills_them_in(
    name: str, content: object, expected: dict[str, object], tmp_path: Path
) -> None:
    source = tmp_path / "arrays"
    source.mkdir()
    if name.endswith(".gz"):
        (source / name).write_bytes(gzip.compress(str(content).encode()))
    elif name.endswith(".npy"):
        np.save(source / name, content)
    elif name.endswith(".h5"):
        import h5py

        with h5py.File(source / name, "w") as file:
            file["ecg"] = content
    else:
        (source / name).write_text(str(content))
    made = draft(source)
    block = yaml.safe_load(made.text)["layouts"][0]["arrays"]
    assert {key: block[key] for key in expected} == expected
    assert block["rate_hz"] == block["unit"] == "FILL_IN"
    with pytest.raises(SpecError, match="FILL_IN"):
        loaded(made, tmp_path)
    for key, value in (("rate_hz", 500), ("unit", "mV"), ("axes", "time_lead"), ("leads", ["I", "II", "III"])):
        with pytest.raises(SpecError):  # any one gap that is left is enough
            partly_filled(made, key, tmp_path)
        made = Draft(made.text.replace(f"{key}: FILL_IN", f"{key}: {value}"), "arrays", 1, 0, 0)
    made = Draft(made.text.replace("name: [FILL_IN]", "name: ecg"), "arrays", 1, 0, 0)
    assert loaded(made, tmp_path / "filled").layouts[0].arrays.rate_hz == 500


def partly_filled(made: Draft, key: str, folder: Path) -> None:
    if f"{key}: FILL_IN" not in made.text:
        raise SpecError("nothing to fill in here")
    (folder / "partly.yaml").write_text(made.text)
    CohortSpec.load(str(folder / "partly.yaml"))


def test_a_manifest_of_arrays_is_described_like_any_file(tmp_path: Path) -> None:
    source = tmp_path / "arrays"
    source.mkdir()
    np.save(source / "a.npy", np.ones((5000, 1)))
    lines = [
        "ecg_arrays: 1",
        "kind: npy",
        "rate_hz: 500",
        "unit: mV",
        "leads: [I]",
        "axes: time_lead",
        "files: [a.npy]",
    ]
    (source / "manifest.yaml").write_text("\n".join(lines) + "\n")
    layout = loaded(draft(source), source).layouts[0]
    assert (layout.reader, layout.arrays, layout.files.include) == ("arrays", None, ("manifest.yaml",))


def test_a_file_that_is_there_is_kept(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    made = draft(make_cohort(patients=1).folder)
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    with pytest.raises(SpecError, match="--force"):
        made.save(out)
    assert out.read_text() == "mine"
    made.save(out, force=True)
    assert out.read_text() == made.text
    with pytest.raises(SpecError, match=r"expected \.yaml"):
        made.save(tmp_path / "mine.txt")


def test_nothing_to_describe(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("Only a note.")
    with pytest.raises(SourceError, match="none of its 1 files is a recording"):
        draft(tmp_path / "notes")
    with pytest.raises(SourceError, match="no archive"):
        draft(tmp_path / "notes" / "a.txt")
    with pytest.raises(SourceError, match="no file"):
        draft(make_cohort(patients=1).folder, tmp_path / "nowhere.csv")


@pytest.mark.parametrize("content", [b"a;b\n1;2\n", b"\xff\xfe\x00", b'a,"b\n1,2\n', b""])
def test_a_table_that_is_none(content: bytes, make_cohort: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_bytes(content)
    with pytest.raises(SourceError, match="CSV"):
        draft(make_cohort(patients=1).folder, tmp_path / "meta.csv")


def test_a_broken_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "1.hea").write_text("1 1 500 4\n1.dat 16 x/mV\n")
    with pytest.raises(SourceError, match="files can be read"):
        draft(tmp_path)


def test_columns_are_found_by_name_and_kept_if_their_values_make_sense() -> None:
    values = {
        "PATIENT-ID": ["1"],
        "age": ["young", "old"],
        "Age_in_months": ["480", ""],
        "sex": [f"free text {number}" for number in range(9)],
        "date": ["soon"],
        "device": [""],
    }
    assert Columns.guess(values).by_role == {"patient": "PATIENT-ID", "age": "Age_in_months"}


def test_codes_that_the_reader_knows_are_filled_in(tmp_path: Path) -> None:
    """MFER says 1 and 2, and 0 or 3 now and then: a person is asked about these alone."""
    writer = victims.writer_of("mfer")
    for number, code in enumerate((1, 2, 3, 0, 2)):
        channels = [
            writer.Channel(lead, row) for lead, row in zip(writer.EIGHT, writer.beats(5000) + number, strict=True)
        ]
        people = (str(1001 + number).encode(), b"", writer.PEOPLE[2], bytes([code]))
        (tmp_path / f"{number}.mwf").write_bytes(writer.document(channels, people=people))
    made = draft(tmp_path)
    layout = yaml.safe_load(made.text)["layouts"][0]
    assert layout["sex_codes"] == {"1": "male", "2": "female"}
    assert comments(made)["sex_codes"].startswith("unknown: found 0, 3; fill in")


@pytest.mark.parametrize(
    ("column", "values", "known", "unknown"),
    [
        ("sex", ["M", "f", "Male", "", "NaN"], {}, []),
        ("sex", ["0", "1.0", "1"], {}, ["0", "1"]),
        ("is_male", ["True", "False"], {"true": "male", "false": "female"}, []),
        ("is_female", ["1", "0"], {"1": "female", "0": "male"}, []),
        ("Geschlecht", ["männlich", "weiblich", "d"], {"männlich": "male", "weiblich": "female"}, ["d"]),
        ("sex", ["a person's name", "m"], {}, []),  # no code: never shown
        ("sex", [f"P{number}" for number in range(9)], {}, []),
    ],
)
def test_sex_codes(column: str, values: list[str], known: dict[str, str], unknown: list[str]) -> None:
    assert Columns({"sex": column}, {column: values}).sex_codes() == (known, unknown)


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["2019-03-31T14:05:59", "2019-03-31", ""], [""]),
        (["31.12.2019 14:05", "01.02.2018 00:00"], ["%d.%m.%Y %H:%M"]),
        (["01/02/2019", "03/04/2019"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["13/02/2019", "03/04/2019"], ["%d/%m/%Y"]),
        (["yesterday"], []),
    ],
)
def test_time_formats(values: list[str], formats: list[str]) -> None:
    assert Columns({"acquired_at": "at"}, {"at": values}).time_formats() == formats


def test_days_and_months_that_cannot_be_told_apart_stay_open(
    make_cohort: Callable[..., object], tmp_path: Path
) -> None:
    raw = make_cohort(patients=2)
    rows = [{"record": name, "date": f"0{place + 1}/02/2019"} for place, name in enumerate(sorted(raw.signals))]
    made = draft(raw.folder, write_csv(tmp_path / "meta.csv", *rows))
    assert comments(made)["time_format"] == "unknown: fill in one of '%d/%m/%Y', '%m/%d/%Y'"
    assert CohortSpec.model_validate(yaml.safe_load(made.text)).layouts[0].time_format is None


def test_a_key_names_each_recording_once(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    raw = make_cohort(patients=4)
    names = sorted(raw.signals)
    items = CohortSpec.load(str(raw.spec)).sources(raw.folder)
    rows = [
        {"group": names[0], "record": f"{name}.hea", "some": name if place else "x"} for place, name in enumerate(names)
    ]
    key = Key.find(write_csv(tmp_path / "meta.csv", *rows), items)
    assert key is not None
    assert (key.column, key.matched) == ("record", len(names))
    without = Key.find(write_csv(tmp_path / "other.csv", *[{"group": names[0], "n": 1} for _ in names]), items)
    assert without is None


def test_odd_names_of_columns_and_folders(make_cohort: Callable[..., object], tmp_path: Path) -> None:
    raw = make_cohort(patients=2)
    folder = raw.folder.rename(tmp_path / "Ärzte: # 1 'north'")
    rows = [{"record: #1 {x}": name, "patient [id]": "a", "sex": "f"} for name in sorted(raw.signals)]
    spec = loaded(draft(folder, write_csv(folder / "meta #1.csv", *rows)), tmp_path)
    assert spec.name == "rzte_1_north"
    assert spec.layouts[0].tables[0].key == "record: #1 {x}"


@pytest.mark.shared
def test_a_published_cohort(shared: Path, tmp_path: Path) -> None:
    made = draft(shared / "ptb_xl", shared / "ptb_xl" / "ptbxl_database.csv")
    spec = loaded(made, tmp_path)
    assert spec.layouts[0].tables[0].key == "ecg_id"
    assert comments(made)["{file"].endswith("its rows name 200 of 200 recordings looked at")
    with (shared / "ptb_xl" / "ptbxl_database.csv").open(encoding="utf-8") as file:
        reports = [row["report"] for row in csv.DictReader(file)]
    assert not [report for report in reports if len(report) > 8 and report in made.text]


def test_recordings_are_described_however_many_tables_of_numbers_lie_beside_them(
    make_cohort: Callable[..., object],
) -> None:
    raw = make_cohort(patients=2)
    for number in range(9):
        (raw.folder / f"trend{number}.csv").write_text("".join(f"{row},{60 + row},97\n" for row in range(40)))
    made = draft(raw.folder)
    assert (made.reader, made.n_files) == ("wfdb", 3)
    assert any("9 files" in what for what in made.left_out)
