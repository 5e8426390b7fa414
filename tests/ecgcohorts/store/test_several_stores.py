"""What is made of several stores is what is made of one store that holds the same cohorts."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import SourceError
from ecgcohorts.export import export_index, export_wfdb
from ecgcohorts.ingest import ingest
from ecgcohorts.report.html import Accounts, report
from ecgcohorts.report.paper import plot_record
from ecgcohorts.report.table1 import Table1
from ecgcohorts.store.upkeep.info import describe


@pytest.fixture
def folders(make_cohort, tmp_path) -> tuple[Path, Path, Path]:
    """North in `a`, west in `b`, both in `one`. A waveform of north is in west too, and each refuses a recording."""
    north, west = make_cohort("north", 4), make_cohort("west", 3, seed=2)
    west.add("copy", next(iter(north.signals.values())), **{"Patient ID": "CANARYPAT0900"}, Age="50", Sex="Male")
    for raw in (north, west):
        raw.add("short", np.ones((12, 500), np.int16))
    for raw, stores in ((north, "a one"), (west, "b one")):
        for store in stores.split():
            ingest(raw.folder, tmp_path / f"{store}.zarr", str(raw.spec))
    return tmp_path / "a.zarr", tmp_path / "b.zarr", tmp_path / "one.zarr"


def by_recording(frame: pd.DataFrame) -> pd.DataFrame:
    """In one order, without what is numbered through a store."""
    return frame.drop(columns=["row", "patient"]).sort_values("recording_id", ignore_index=True)


def test_tables_and_accounts_are_those_of_one_store(folders):
    a, b, single = folders
    both, one = ec.open([a, b]), ec.open(single)
    assert len(both.index) == len(one.index) == 7 + 6
    pd.testing.assert_frame_equal(Table1.of(both.index).numbers, Table1.of(one.index).numbers)
    pd.testing.assert_frame_equal(by_recording(both.index.to_pandas()), by_recording(one.index.to_pandas()))
    pd.testing.assert_frame_equal(Accounts(both).inputs, Accounts(one).inputs)
    pd.testing.assert_frame_equal(Accounts(both).rejections, Accounts(one).rejections)
    assert Accounts(both).inputs.loc["west"].tolist() == [8, 6, 1, 1]
    assert Accounts(both).inputs.loc["total", "inputs"] == 16
    both, one = describe(both), describe(one)
    assert both["cohorts"] == one["cohorts"]
    assert [entry["fingerprint"] for entry in both["stores"]] == [ec.open(folder).fingerprint for folder in folders[:2]]
    assert both["bytes"] == sum(describe(ec.open(folder))["bytes"] for folder in folders[:2])


def test_the_report_names_every_snapshot(folders, tmp_path):
    both = ec.open(folders[:2])
    text = report(both, tmp_path / "both.html").read_text("utf-8")
    for folder in folders[:2]:
        assert f"{folder.name}: generation 1, {ec.open(folder).fingerprint}" in text
    assert both.fingerprint in text
    assert "16 inputs = 13 stored + 1 duplicates + 2 rejected" in text
    titles = set(re.findall(r"<title>(\w+), row \d+</title>", text))
    assert titles == {"north", "west"}
    assert str(tmp_path) not in text


def test_a_record_of_the_second_store_is_drawn(folders, tmp_path):
    both, b = ec.open(folders[:2]), ec.open(folders[1])
    row = int(both.index.where(cohort="west")["row"][0])
    identity = both.index["recording_id"][both.index["row"] == row][0].tobytes().hex()
    whole = plot_record(both, row, tmp_path / "both.svg").read_text("utf-8")
    assert plot_record(both, identity, tmp_path / "again.svg").read_text("utf-8") == whole
    alone = plot_record(b, identity, tmp_path / "b.svg").read_text("utf-8")
    assert whole.replace(f"row {row}", f"row {row - ec.open(folders[0]).n_rows}") == alone


def test_exports_are_those_of_one_store(folders, tmp_path):
    both, one = ec.open(folders[:2]), ec.open(folders[2])
    assert export_wfdb(both, tmp_path / "both") == export_wfdb(one, tmp_path / "one") == 13

    def told(folder: Path) -> list[list[str]]:
        with (folder / "manifest.csv").open(newline="") as file:
            return sorted(csv.reader(file))

    assert told(tmp_path / "both") == told(tmp_path / "one")
    signals = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.dat")}
    assert len(signals) == 13
    assert {path.name: path.read_bytes() for path in (tmp_path / "both").rglob("*.dat")} == signals
    assert export_index(both, tmp_path / "both.parquet") == 13
    frames = [pd.read_parquet(tmp_path / "both.parquet"), one.index.to_pandas()]
    pd.testing.assert_frame_equal(*map(by_recording, frames))


def test_an_export_into_any_of_the_stores_is_refused(folders):
    both = ec.open(folders[:2])
    for folder in folders[:2]:
        for export in (export_wfdb, export_index):
            with pytest.raises(SourceError, match=rf"lies in the store .*{folder.name}"):
                export(both, folder / "out")
        assert not (folder / "out").exists()


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """run("table1", ...) -> what it prints, in the folder of the stores."""
    monkeypatch.chdir(folders[0].parent)

    def call(*arguments: str) -> str:
        cli.main(arguments)
        return capsys.readouterr().out

    return call


def test_commands_take_several_stores(run, folders):
    assert run("table1", "a.zarr", "b.zarr", "--form", "csv") == run("table1", "one.zarr", "--form", "csv")
    assert json.loads(run("info", "a.zarr", "b.zarr", "--json"))["recordings"] == 13
    shown = run("info", "a.zarr", "b.zarr")
    assert shown.startswith("a.zarr + b.zarr: 13 recordings of 7 patients")
    assert ec.open(folders[1]).fingerprint[:16] in shown
    assert run("report", "a.zarr", "b.zarr", "-o", "both.html") == "both.html\n"
    row = str(ec.open(folders[:2]).index["row"][-1])
    assert run("plot", "a.zarr", row, "--also", "b.zarr", "-o", "both.svg") == "both.svg\n"
    assert run("export", "a.zarr", "both", "--also", "b.zarr") == "both: 13 records\n"
    assert run("export", "a.zarr", "both.parquet", "--format=parquet", "--also=b.zarr") == "both.parquet: 13 rows\n"


def test_a_comma_does_not_cut_a_name(run, folders):
    shutil.copytree(folders[0], "a, or b.zarr")
    shutil.copytree(folders[1], "x,y,z.zarr")
    assert json.loads(run("info", "x,y,z.zarr", "--json"))["path"] == "x,y,z.zarr"
    shown = json.loads(run("info", "a.zarr", "x,y,z.zarr", "--json"))
    assert [store["path"] for store in shown["stores"]] == ["a.zarr", "x,y,z.zarr"]


def test_wrong_input_gives_one_line(run, capsys):
    for text, words in (
        ("table1", "STORE"),
        ("export a.zarr", "OUT"),
        ("table1 a.zarr nothing.zarr", "nothing.zarr: found no such folder"),
        ("info a.zarr ./a.zarr", "a second time"),
        ("export a.zarr b.zarr/out --also b.zarr", "lies in the store b.zarr"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*text.split())
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err.splitlines()[-1], text
