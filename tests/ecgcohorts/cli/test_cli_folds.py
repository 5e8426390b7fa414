"""`ecgcohorts folds` as a user meets it: published folds become a split, and a split leaves with the ids of the source."""

import csv
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.index import splits
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.folds import Folds
from ecgcohorts.ingest.run import IngestOptions

# A patient of the cohorts below has 1 to 3 recordings, CANARYREC003v0 ...; a part of each of the ten patients.
PART = {patient: "train" if patient < 8 else ("val", "test")[patient - 8] for patient in range(10)}


def patient_of(record: str) -> int:
    return int(record[9:12])


@pytest.fixture
def north(make_cohort: Callable[..., Any], tmp_path: Path) -> Any:
    """Ten patients of `north` in a.zarr, beside five of `south`."""
    raw, other = make_cohort("north", 10), make_cohort("south", 5, seed=1)
    ingest(raw.folder, tmp_path / "a.zarr", str(raw.spec))
    ingest(other.folder, tmp_path / "a.zarr", str(other.spec))
    return raw


@pytest.fixture
def run(north: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(text: str) -> tuple[int, str, str]:
        try:
            cli.main(["folds", *text.split()])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capsys.readouterr()
        return code, told.out, (told.err.splitlines() or [""])[-1]

    return call


def table(path: Path, rows: list[tuple[object, ...]], columns: tuple[str, ...] = ("ecg", "fold")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def parts_of(store: Path, name: str, raw: Any) -> dict[str, str]:
    """Part of each recording of the source, found by its pseudonym."""
    held = ec.open(store)
    key = held.load_key(None)
    split = ec.load_split(held, name)
    by_id = {one.tobytes(): split.parts[code] for one, code in zip(split.recording_id, split.codes, strict=True)}
    found = {}
    for name_of in raw.signals:
        for spelling in (name_of, f"{name_of}.hea"):
            part = by_id.get(key.pseudonym("north", "recording", spelling))
            if part is not None:
                found[name_of] = part
    return found


@pytest.mark.parametrize("column", ["fold", "strat_fold"])
def test_ten_published_folds_become_three_parts(column: str, run: Any, north: Any, tmp_path: Path) -> None:
    rows = [(record, patient_of(record) + 1.0) for record in north.signals]
    table(tmp_path / "f.csv", [*rows, ("unknown", 3)], ("ecg", column))
    code, out, _ = run("a.zarr f.csv --cohort north")
    assert code == 0
    assert (
        "split folds: recordings by part: train 15, val 3, test 1; 1 rows of the table match no recording, by the column ecg"
        in out
    )
    assert parts_of(tmp_path / "a.zarr", "folds", north) == {one: PART[patient_of(one)] for one in north.signals}
    # Of south, nothing was said.
    store = ec.open(tmp_path / "a.zarr")
    assert (ec.load_split(store, "folds").column(store.index.where(cohort="south")) == -1).all()
    before = store.fingerprint
    assert run("a.zarr f.csv --cohort north")[0] == 0  # again: nothing changes
    assert ec.open(tmp_path / "a.zarr").fingerprint == before


def test_a_table_as_published_names_recordings_by_a_number_and_by_paths(run: Any, north: Any, tmp_path: Path) -> None:
    """As ptbxl_database.csv does: the first column is a number of the table's own, and files stand behind the folds."""
    rows = [
        (
            number,
            patient_of(record),
            1 + patient_of(record),
            f"records100/{record}_lr",
            f"records500/{number}/{record}.hea",
        )
        for number, record in enumerate(north.signals)
    ]
    columns = ("number", "person", "strat_fold", "low", "high")
    table(tmp_path / "f.csv", rows, columns)
    code, out, error = run("a.zarr f.csv --cohort north")
    assert (code, error) == (0, "")
    assert "0 rows of the table match no recording, by the column high" in out
    assert parts_of(tmp_path / "a.zarr", "folds", north) == {one: PART[patient_of(one)] for one in north.signals}


def test_numbers_that_are_recordings_by_chance_are_no_ids(make_cohort, tmp_path, monkeypatch, capsys):
    """Ids of this source are numbers, as are a counter and another table's own ids; none of them is taken unasked."""
    raw = make_cohort("numbers", 4)
    for number, name in enumerate(sorted(raw.signals)):
        for path in raw.folder.glob(f"{name}.*"):
            text = path.read_bytes().replace(name.encode(), str(100 + number).encode())
            (raw.folder / f"{100 + number}{path.suffix}").write_bytes(text)
            path.unlink()
    ingest(raw.folder, tmp_path / "n.zarr", str(raw.spec))
    monkeypatch.chdir(tmp_path)

    def call(text: str) -> tuple[int, str]:
        try:
            cli.main(["folds", *text.split()])
            return 0, capsys.readouterr().out
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().err

    counted = [(f"S{row}", row, "train") for row in range(100, 140)]
    table(tmp_path / "f.csv", counted, ("study", "row", "part"))
    code, told = call("n.zarr f.csv --cohort numbers")
    assert code == 3
    assert "found no recording of 'numbers' in study" in told
    # Asked for, it is taken.
    code, told = call("n.zarr f.csv --cohort numbers --id-column row")
    assert code == 0
    assert "by the column row" in told
    # The first column wins, though a counter matches more of the table.
    few = [(100, 101, "train"), (900, 102, "test"), (901, 103, "test")]
    table(tmp_path / "g.csv", few, ("record", "image", "part"))
    code, told = call("n.zarr g.csv --cohort numbers --split few")
    assert code == 0
    assert "2 rows of the table match no recording, by the column record" in told
    # An id in two rows is refused, and not passed over for a column that happens to fit.
    table(tmp_path / "h.csv", [(100, 101, "train"), (100, 102, "test")], ("record", "image", "part"))
    code, told = call("n.zarr h.csv --cohort numbers --split twice")
    assert code == 2
    assert "one id stands in two rows" in told


def test_two_paths_of_one_recording_are_refused(run: Any, north: Any, tmp_path: Path) -> None:
    record = next(iter(north.signals))
    rows = [(f"a/{record}.hea", 1), (f"b/{record}.hea", 9), ("a/strange.hea", 1), ("b/strange.hea", 9)]
    table(tmp_path / "f.csv", rows)
    code, _, error = run("a.zarr f.csv --cohort north")
    assert code == 2
    assert "one id stands in two rows of the table, the second time in row 2" in error
    table(tmp_path / "f.csv", rows[1:])  # what the store does not know may be there twice
    assert run("a.zarr f.csv --cohort north")[0] == 0


def test_names_of_parts_stay(run: Any, north: Any, tmp_path: Path) -> None:
    table(tmp_path / "f.csv", [(r, ("fit", "tune", "judge")[patient_of(r) % 3]) for r in north.signals], ("id", "part"))
    code, out, _ = run(f"a.zarr f.csv --cohort {north.spec} --split three-parts")
    assert code == 0
    assert set(ec.load_split(ec.open(tmp_path / "a.zarr"), "three-parts").parts) == {"fit", "tune", "judge"}
    assert parts_of(tmp_path / "a.zarr", "three-parts", north)["CANARYREC001v0"] == "tune"
    assert "CANARY" not in out


def test_a_split_leaves_with_the_ids_of_the_source_and_comes_back(run: Any, north: Any, tmp_path: Path) -> None:
    store = ec.open(tmp_path / "a.zarr")
    split = splits.by_patient(store.index, {"train": 0.5, "val": 0.2, "test": 0.3}, "mine")
    ec.save_split(tmp_path / "a.zarr", split)
    out_file = tmp_path / "parts.csv"
    arguments = f"--cohort {north.spec} --split mine --source {north.folder} -o {out_file}"
    code, out, _ = run(f"a.zarr {arguments}")
    assert code == 0
    assert "CANARY" not in out
    assert stat.S_IMODE(out_file.stat().st_mode) == 0o600
    rows = list(csv.reader(out_file.read_text().splitlines()))
    assert rows[0] == ["record", "part"]
    assert {tuple(row) for row in rows[1:]} == set(parts_of(tmp_path / "a.zarr", "mine", north).items())
    assert len(rows) == 1 + len(north.signals)
    # Another store of the same source, made with another key, takes it.
    key = tmp_path / "other.key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    ingest(north.folder, tmp_path / "b.zarr", str(north.spec), IngestOptions(key_file=key))
    code, out, error = run(f"b.zarr {out_file} --cohort north --split mine --key {key}")
    assert (code, error) == (0, "")
    one, other = ec.open(tmp_path / "a.zarr"), ec.open(tmp_path / "b.zarr")
    # Under some keys, none of ten patients is in the smallest part, which a table then does not name.
    sides = [{s.parts[c]: int((s.codes == c).sum()) for c in sorted(set(s.codes.tolist()))} for s in (
        ec.load_split(one, "mine").on(one.index.where(cohort="north")), ec.load_split(other, "mine"),
    )]  # fmt: skip
    assert sides[0] == sides[1]
    # Writing over the own table is allowed, over another file is not.
    assert run(f"a.zarr {arguments}")[0] == 0
    out_file.write_text("mine\n")
    assert "another file of this name" in run(f"a.zarr {arguments}")[2]


def test_a_split_that_is_not_there_writes_no_table(run: Any, north: Any, tmp_path: Path) -> None:
    code, _, error = run(f"a.zarr --cohort {north.spec} --split none --source {north.folder} -o x.csv --json")
    assert code == 2
    assert "found no split 'none'" in error
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (("ecg", "x"), [("a", 1)], "found 0 of the columns fold, strat_fold, part, split"),
        (("ecg", "fold", "part"), [("a", 1, 2)], "found 2 of the columns"),
        (("fold", "x"), [(1, 2)], "found 0 of the columns"),
        (("ecg", "fold"), [("a", 0), ("b", 19)], "folds other than 1 to 10"),
        (("ecg", "fold"), [("a", "train"), ("b", 3)], "expected numbers 1 to 10 or names of parts"),
        (("ecg", "fold"), [("a", "../x")], "expected numbers 1 to 10 or names of parts"),
        (("ecg", "fold"), [("CANARYREC9", 3)], "found no recording of"),
    ],
)
def test_tables_that_are_no_folds_are_refused(
    columns: tuple[str, ...], rows: list[tuple[object, ...]], message: str, run: Any, tmp_path: Path
) -> None:
    table(tmp_path / "f.csv", rows, columns)
    before = ec.open(tmp_path / "a.zarr").fingerprint
    code, _, error = run("a.zarr f.csv --cohort north")
    assert code in (2, 3)
    assert message in error
    assert "CANARY" not in error
    assert ec.open(tmp_path / "a.zarr").fingerprint == before


def test_folds_that_part_a_patient_are_refused(run: Any, north: Any, tmp_path: Path) -> None:
    table(tmp_path / "f.csv", [(record, 1 + 9 * (number % 2)) for number, record in enumerate(north.signals)])
    code, _, error = run("a.zarr f.csv --cohort north")
    assert code == 2
    assert "patients in more than one of train, val, test" in error
    assert ec.open(tmp_path / "a.zarr").manifest.files
    assert "folds" not in [
        name.split("/")[1] for name in ec.open(tmp_path / "a.zarr").manifest.files if "splits/" in name
    ]


@pytest.mark.parametrize("cohort", ["nroth", "ptb_xl"])
def test_a_cohort_that_the_store_does_not_have(cohort: str, run: Any, tmp_path: Path) -> None:
    table(tmp_path / "f.csv", [("a", 1)])
    code, _, error = run(f"a.zarr f.csv --cohort {cohort}")
    assert code == 2
    assert f"no cohort {cohort!r}" in error
    assert "north" in error
    assert "sami_trop" not in error


def test_one_direction_at_a_time(run: Any, north: Any) -> None:
    for text in ("", "f.csv --source x", f"--source {north.folder}", "f.csv -o x.csv"):
        code, _, error = run(f"a.zarr {text} --cohort north")
        assert code == 2
        assert "expected one of the two" in error


def test_folds_of_a_collection_go_to_all_its_cohorts(make_cohort: Callable[..., Any], tmp_path: Path) -> None:
    raw = make_cohort("both", 6)
    content = raw.spec.read_text() + (
        "cohorts:\n  - {name: few, path: 'REC00[01]', mains_hz: 50}\n  - {name: more, path: 'REC', mains_hz: 50}\n"
    )
    raw.spec.write_text(content)
    ingest(raw.folder, tmp_path / "c.zarr", str(raw.spec))
    rows = [(record, "a" if patient_of(record) % 2 else "b") for record in raw.signals]
    found = Folds.take(tmp_path / "c.zarr", table(tmp_path / "f.csv", rows), str(raw.spec), "ab")
    assert sum(found.parts.values()) == len(raw.signals)
    assert found.unmatched == 0
    store = ec.open(tmp_path / "c.zarr")
    assert set(store.index.cohorts) == {"few", "more"}
    assert np.isfinite(store.index["label_ab"]).all()
