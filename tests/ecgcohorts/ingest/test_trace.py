"""Whoever holds store, files and key finds the file of any row, and the row of any file."""

import csv
import io
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import KeyMismatch, SpecError
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.trace import TraceReport


@pytest.fixture
def place(make_cohort: Callable[..., Any], tmp_path: Path) -> Any:
    """A store `s.zarr` of 12 recordings of 6 patients: one was refused, and one came later."""
    raw = make_cohort(patients=6)
    (raw.folder / "ward").mkdir()
    for path in sorted(raw.folder.glob("CANARYREC005*")):
        path.rename(raw.folder / "ward" / path.name)
    raw.names = sorted(raw.signals)
    cut = raw.folder / f"{raw.names[0]}.dat"
    cut.write_bytes(cut.read_bytes()[:-40])
    later = [path.rename(tmp_path / path.name) for path in raw.folder.glob(f"{raw.names[1]}.*")]
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    for path in later:
        path.rename(raw.folder / path.name)
    raw.store = tmp_path / "s.zarr"
    # The key of the test decides the order, and so which row stays empty for the refused recording.
    raw.rows = ec.open(raw.store).index["row"].tolist()
    return raw


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(place: Any, out: Path, kind: Any = None, ids: Any = ()) -> TraceReport:
    asked = None if kind is None else (kind, [str(one) for one in ids])
    return TraceReport.save((place.store, place.folder), str(place.spec), "north", out, asked)


def test_all_of_a_source_and_what_became_of_it(place: Any, tmp_path: Path) -> None:
    report = save(place, tmp_path / "all.csv")
    assert (report.asked, report.recordings, report.missing) == (0, 12, ())
    assert stat.S_IMODE((tmp_path / "all.csv").stat().st_mode) == 0o600
    rows = {Path(row["path"]).stem: row for row in rows_of(tmp_path / "all.csv")}
    assert set(rows) == set(place.names)
    assert (rows[place.names[0]]["status"], rows[place.names[0]]["row"]) == ("truncated", "")
    assert rows[place.names[1]]["status"] == "in the source, never ingested"
    store = ec.open(place.store)
    for name in place.names[2:]:
        row = int(rows[name]["row"])
        entry = int(np.flatnonzero(store.index["row"] == row)[0])
        assert store.index["recording_id"][entry].tobytes().hex() == rows[name]["recording_id"]
        assert store.index["patient_id"][entry].tobytes().hex() == rows[name]["patient_id"]
        # The row holds this very file: its lead II, which the recipe keeps, filtered.
        strip, raw = store.read_mv([row])[0][1], place.signals[name][1] / 1000
        middle = strip[len(strip) // 4 : -len(strip) // 4]
        resampled = np.interp(np.arange(len(strip)) / store.recipe.rate_hz, np.arange(len(raw)) / 500, raw)
        assert np.corrcoef(middle, resampled[len(strip) // 4 : -len(strip) // 4])[0, 1] > 0.9


def test_rows_and_pseudonyms_lead_to_files_and_back(place: Any, tmp_path: Path) -> None:
    save(place, tmp_path / "all.csv")
    known = [row for row in rows_of(tmp_path / "all.csv") if row["status"] == "stored"]
    out = tmp_path / "some.csv"
    facts = ("path", "entry", "row", "recording_id", "patient_id", "status")
    for kind, column in (("row", "row"), ("pseudonym", "recording_id"), ("recording", "path")):
        chosen = known[3:0:-1]
        report = save(place, out, kind, [row[column] for row in chosen])
        assert (report.asked, report.recordings, report.missing) == (3, 3, ())
        found = rows_of(out)
        assert [int(row["line"]) for row in found] == [1, 2, 3]
        assert [[row[fact] for fact in facts] for row in found] == [[row[fact] for fact in facts] for row in chosen]
    patient = known[-1]["patient_id"]
    mine = [row["path"] for row in known if row["patient_id"] == patient]
    assert save(place, out, "pseudonym", [patient]).recordings == len(mine) > 1
    assert [row["path"] for row in rows_of(out)] == mine
    save(place, out, "patient", ["CANARYPAT0005"])
    assert [row["path"] for row in rows_of(out)] == mine


def test_a_file_may_be_named_in_every_usual_way(place: Any, tmp_path: Path) -> None:
    name, out = place.names[-1], tmp_path / "f.csv"
    ways = [
        *(f"ward/{name}.hea", f"./ward/{name}.hea", f"ward/{name}.dat", f"ward/{name}", f" ward/{name}.hea "),
        *(place.folder / "ward" / f"{name}.hea",),
    ]
    report = save(place, out, "recording", ways)
    assert (report.asked, report.recordings, report.missing) == (6, 6, ())
    assert {row["path"] for row in rows_of(out)} == {f"ward/{name}.hea"}
    assert save(place, out, "recording", ["", f"{name}.hea", "ward/nobody", "12"]).missing == (2, 3, 4)
    assert [row["status"] for row in rows_of(out)] == ["not found"] * 3
    assert save(place, out, "row", ["9999", "-1", "x", place.rows[0]]).missing == (1, 2, 3)


def test_an_id_with_a_dot_is_no_file_of_another_record(make_cohort: Callable[..., Any], tmp_path: Path) -> None:
    raw = make_cohort(patients=2)
    names = sorted(raw.signals)
    dotted = {names[0]: "12", names[1]: "12.34", names[2]: "13.5"}
    for path in list(raw.folder.iterdir()):
        path.rename(path.with_name(f"{dotted[path.stem]}{path.suffix}"))
    for path in raw.folder.glob("*.hea"):
        path.write_text(
            path.read_text().replace(next(a for a, b in dotted.items() if f"{b}.hea" == path.name), path.stem)
        )
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    out = tmp_path / "t.csv"
    asked = ("recording", ["12.34", "12", "13.5", "12.dat", "13", "13.4"])
    report = TraceReport.save((tmp_path / "s.zarr", raw.folder), str(raw.spec), "north", out, asked)  # type: ignore[arg-type]
    paths = ["12.34.hea", "12.hea", "13.5.hea", "12.hea", "", ""]
    assert [row["path"] for row in rows_of(out)] == paths
    assert report.missing == (5, 6)


def test_an_archive_and_files_of_many_recordings(place: Any, tmp_path: Path) -> None:
    import h5py

    archive = Path(shutil.make_archive(str(tmp_path / "raw"), "zip", place.folder))
    save(place, tmp_path / "a.csv")
    TraceReport.save((place.store, archive), str(place.spec), "north", tmp_path / "b.csv", None)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    (tmp_path / "h5").mkdir()
    with h5py.File(tmp_path / "h5" / "exams.hdf5", "w") as file:
        file["exam_id"] = np.arange(100, 105)
        noise = np.random.default_rng(0).normal(0, 0.2, (5, 4096, 12))
        file["tracings"] = noise.astype(np.float32)
    spec = tmp_path / "h.yaml"
    text = place.spec.read_text().replace("north", "exams").replace("wfdb", "code_hdf5").replace("*.hea", "*.hdf5")
    spec.write_text(text.split("    patient:")[0])
    ingest(tmp_path / "h5", tmp_path / "h.zarr", str(spec))
    places = (tmp_path / "h.zarr", tmp_path / "h5")
    report = TraceReport.save(places, str(spec), "exams", tmp_path / "h.csv", ("recording", ["exams.hdf5#103"]))
    assert (report.recordings, report.missing) == (1, ())
    [row] = rows_of(tmp_path / "h.csv")
    assert (row["path"], row["entry"], row["status"]) == ("exams.hdf5", "103", "stored")
    report = TraceReport.save(places, str(spec), "exams", tmp_path / "h.csv", ("recording", ["exams.hdf5"]))
    assert report.recordings == 5


def test_it_is_written_only_where_it_may_stand(place: Any, tmp_path: Path) -> None:
    for inside in (place.store / "t.csv", place.folder / "t.csv"):
        with pytest.raises(SpecError, match="is inside"):
            save(place, inside)
    (tmp_path / "thesis.csv").write_text("path,grade\n")
    with pytest.raises(SpecError, match="another file of this name"):
        save(place, tmp_path / "thesis.csv")
    with pytest.raises(SpecError, match="cohort"):
        TraceReport.save((place.store, place.folder), str(place.spec), "south", tmp_path / "t.csv", None)
    (tmp_path / "other.key").write_text("ab" * 32)
    with pytest.raises(KeyMismatch):
        TraceReport.save(
            (place.store, place.folder), str(place.spec), "north", tmp_path / "t.csv", None, tmp_path / "other.key"
        )
    assert not (tmp_path / "t.csv").exists()


def test_what_a_killed_writer_left_goes_with_the_next_table(place: Any, tmp_path: Path) -> None:
    """It names files as the table does."""
    left = tmp_path / "t.csv.0123abcd.part"
    left.write_text("line,asked,path")
    TraceReport.save((place.store, place.folder), str(place.spec), "north", tmp_path / "t.csv", None, None)
    assert (tmp_path / "t.csv").exists()
    assert not left.exists()


def test_from_the_command_line(
    place: Any, tmp_path: Path, outcome: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("id", place.store, "north")
    with_source = ("--source", place.folder, "--description", place.spec, "-o", tmp_path / "t.csv")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{place.rows[0]}\n\n{place.rows[5]}\n900\n"))
    code, out, err = outcome(*given, "--file", "-", "--kind", "row", *with_source)
    assert (code, out) == (1, f"{tmp_path / 't.csv'}: 2 of 3 ids, with the paths of 2 files\n")
    assert "1 of 3 ids lead to no recording of the source, in line 4." in err
    assert "CANARY" not in out + err
    code, out, _ = outcome(*given, *with_source, "--json")
    assert code == 0
    assert json.loads(out)["recordings"] == 12
    code, out, _ = outcome(*given, place.names[5], *with_source)
    assert code == 0
    assert rows_of(tmp_path / "t.csv")[0]["path"] == f"{place.names[5]}.hea"
    for wrong in ((*given, "0", "--kind", "row"), (*given, "x", "--source", place.folder)):
        code, _, err = outcome(*wrong)
        assert code == 2
        assert "a store holds no paths" in err
