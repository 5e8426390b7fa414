"""Whoever holds the raw files learns which were refused, and why; nobody else does."""

import csv
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgcohorts.cli.program import main
from ecgcohorts.errors import KeyMismatch, SourceError, SpecError
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.against import verify_against
from ecgcohorts.ingest.refused import RefusedReport


@pytest.fixture
def raw(make_cohort: Callable[..., Any]) -> Any:
    """Seven recordings: one cut, one without signals, one a copy of another."""
    made = make_cohort(patients=4)
    names = sorted(path.stem for path in made.folder.glob("*.hea"))
    signals = made.folder / f"{names[0]}.dat"
    signals.write_bytes(signals.read_bytes()[:-100])
    (made.folder / f"{names[1]}.dat").unlink()
    shutil.copy(made.folder / f"{names[2]}.dat", made.folder / f"{names[3]}.dat")
    header = (made.folder / f"{names[2]}.hea").read_text().replace(names[2], names[3])
    (made.folder / f"{names[3]}.hea").write_text(header)
    made.names = names
    return made


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_refusal_leads_to_its_file(raw: Any, tmp_path: Path) -> None:
    out = tmp_path / "refused.csv"
    report = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    assert sum(report.total.rejected.values()) + report.total.duplicates == 3
    made = RefusedReport.save(tmp_path / "s.zarr", raw.folder, str(raw.spec), out)
    assert (made.refused, made.elsewhere) == (3, 0)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    rows = {row["path"]: row for row in rows_of(out)}
    cut, gone = rows[f"{raw.names[0]}.hea"], rows[f"{raw.names[1]}.hea"]
    assert (cut["reason"], gone["reason"]) == ("truncated", "missing_file")
    assert all(row["found"] and row["what_to_do"] for row in rows.values())
    copy = next(row for row in rows.values() if row["reason"] == "duplicate")
    assert {copy["path"], copy["found"].removeprefix("the samples of ")} == {f"{raw.names[at]}.hea" for at in (2, 3)}


def test_nothing_of_it_enters_the_store(raw: Any, tmp_path: Path) -> None:
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    before = {path: path.read_bytes() for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()}
    RefusedReport.save(tmp_path / "s.zarr", raw.folder, str(raw.spec), tmp_path / "refused.csv")
    assert {path: path.read_bytes() for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()} == before


def test_a_mended_file_is_said_to_be_so_and_others_to_be_elsewhere(raw: Any, tmp_path: Path) -> None:
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    shutil.copy(raw.folder / f"{raw.names[4]}.dat", raw.folder / f"{raw.names[1]}.dat")
    header = (raw.folder / f"{raw.names[4]}.hea").read_text().replace(raw.names[4], raw.names[1])
    (raw.folder / f"{raw.names[1]}.hea").write_text(header)
    (raw.folder / f"{raw.names[0]}.hea").unlink()
    made = RefusedReport.save(tmp_path / "s.zarr", raw.folder, str(raw.spec), tmp_path / "r.csv")
    assert made.elsewhere == 1
    assert [row["found"] for row in rows_of(tmp_path / "r.csv") if row["path"] == f"{raw.names[1]}.hea"] == [
        "nothing wrong now"
    ]


def test_what_a_recipe_refuses_is_not_to_be_fetched_again(raw: Any, tmp_path: Path) -> None:
    """The file is whole: another copy of it would be refused as well."""
    name = raw.names[5]
    raw.add(name, raw.signals[name][:, :1000], **{"Patient ID": "CANARYPAT9"})
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    RefusedReport.save(tmp_path / "s.zarr", raw.folder, str(raw.spec), tmp_path / "r.csv")
    rows = {row["path"]: row for row in rows_of(tmp_path / "r.csv")}
    assert rows[f"{name}.hea"]["reason"] == "too_short"
    assert "Fetch" not in rows[f"{name}.hea"]["what_to_do"]
    assert "Fetch" in rows[f"{raw.names[0]}.hea"]["what_to_do"]


def test_a_record_without_header_gives_its_id_to_nobody(raw: Any, tmp_path: Path) -> None:
    """Ingest keeps the first readable recording of an id: the store, the table and this look-up have to agree."""
    (raw.folder / "t.csv").write_text("file,id\n" + "".join(f"{name},{name[:-2]}\n" for name in raw.names))
    spec = raw.spec.read_text().replace(
        "    patient:", "    tables: [{file: t.csv, key: file}]\n    recording: {column: id}\n    patient:"
    )
    raw.spec.write_text(spec)
    first, second = raw.names[1], raw.names[2]
    assert first[:-2] == second[:-2]
    (raw.folder / f"{first}.hea").write_text("no header\n")
    report = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    made = RefusedReport.save(tmp_path / "s.zarr", raw.folder, str(raw.spec), tmp_path / "r.csv")
    reasons = {row["path"]: row["reason"] for row in rows_of(tmp_path / "r.csv")}
    assert reasons[f"{first}.hea"] == "bad_header"
    assert made.elsewhere == 0
    assert report.total.stored >= 1
    assert verify_against(tmp_path / "s.zarr", raw.folder, str(raw.spec)).ok


def test_it_is_written_only_where_it_may_stand(raw: Any, tmp_path: Path) -> None:
    store, spec = tmp_path / "s.zarr", str(raw.spec)
    ingest(raw.folder, store, spec)
    for inside in (store / "r.csv", raw.folder / "r.csv"):
        with pytest.raises(SpecError, match="is inside"):
            RefusedReport.save(store, raw.folder, spec, inside)
        assert not inside.exists()
    with pytest.raises(SourceError, match="no folder"):
        RefusedReport.save(store, raw.folder, spec, tmp_path / "none" / "r.csv")
    other = tmp_path / "thesis.csv"
    other.write_text("path,grade\n")
    with pytest.raises(SpecError, match="another file of this name"):
        RefusedReport.save(store, raw.folder, spec, other)
    assert other.read_text() == "path,grade\n"
    key = tmp_path / "other.key"
    key.write_text("ab" * 32)
    with pytest.raises(KeyMismatch):
        RefusedReport.save(store, raw.folder, spec, tmp_path / "r.csv", key)


def test_from_the_command_line(raw: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = tmp_path / "s.zarr", tmp_path / "r.csv"
    request = [str(raw.folder), str(store), "--cohort", str(raw.spec), "--rejects", str(out), "--max-reject-frac", "1"]
    with pytest.raises(SystemExit) as end:
        main(["ingest", *request, "--dry-run"])
    assert end.value.code == 2
    capsys.readouterr()
    main(["ingest", *request])
    told = capsys.readouterr().out
    assert "3 refused recordings, with their paths" in told
    assert "CANARY" not in told
    first = out.read_bytes()
    main(["ingest", *request, "--json"])  # nothing new: the table is made all the same
    assert json.loads(capsys.readouterr().out)["rejects"] == {"out": str(out), "refused": 3, "elsewhere": 0}
    assert out.read_bytes() == first
    main(["rejects", str(store), str(raw.folder), "--cohort", str(raw.spec), "-o", str(out)])
    assert out.read_bytes() == first
