"""`inspect`, `draft`, `export` and `formats` as a user meets them in a terminal."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ecgcohorts import plugins, readers
from ecgcohorts.cli.program import main


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command line in this process: starting another one takes seconds."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr())

    return call


def shown_at(columns: int, *arguments: object) -> str:
    """What a terminal of that width shows."""
    command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": str(columns)}, timeout=120
    ).stdout


def assert_one_line(result: Result, *words: str) -> None:
    assert result.returncode == 2, result
    (line,) = result.stderr.strip().splitlines()
    assert all(word in line for word in words), line


def test_from_a_folder_to_a_store_and_back(make_cohort: Callable[..., object], run: Run, tmp_path: Path) -> None:
    raw = make_cohort(patients=4)
    seen = run("inspect", raw.folder, "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    facts = json.loads(seen.stdout)
    assert facts["files"] == 14 == sum(each["files"] for each in facts["classes"])
    assert "500 Hz" in run("inspect", raw.folder).stdout

    drafted = run("draft", raw.folder, "-o", "cohort.yaml")
    assert (drafted.returncode, drafted.stderr) == (0, "")
    assert "7 wfdb files" in drafted.stdout
    assert "ecgcohorts ingest" in drafted.stdout
    made = run("ingest", raw.folder, "s.zarr", "--cohort", "cohort.yaml")
    assert "7 inputs = 7 stored" in made.stdout, made

    exported = run("export", "s.zarr", "out")
    assert (exported.returncode, exported.stderr, exported.stdout) == (0, "", "out: 7 records\n")
    assert len((tmp_path / "out" / "RECORDS").read_text().split()) == 7
    table = run("export", "s.zarr", "index.parquet", "--format", "parquet")
    assert table.stdout == "index.parquet: 7 rows\n"
    assert "CANARYPAT" not in seen.stdout + drafted.stdout + (tmp_path / "cohort.yaml").read_text()

    assert_one_line(run("export", "s.zarr", "out"), "out: exists already")
    assert_one_line(run("draft", raw.folder, "-o", "cohort.yaml"), "cohort.yaml", "--force")
    assert run("draft", raw.folder, "-o", "cohort.yaml", "--force").returncode == 0


def test_what_a_draft_leaves_out_is_said(make_cohort: Callable[..., object], run: Run, tmp_path: Path) -> None:
    raw = make_cohort(patients=1)
    (raw.folder / "empty.hea").touch()
    (tmp_path / "meta.csv").write_text("record,age\nother,40\n")
    drafted = run("draft", raw.folder, "meta.csv", "-o", "cohort.yaml")
    assert "left out: meta.csv: none of its columns names the recordings" in drafted.stdout
    assert "left out: 1 file, unknown or unreadable: empty file" in drafted.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "empty"), ("empty", "Check the path")),
        (("inspect", "empty", "--sample", "0"), ("sample", "greater than 0")),
        (("draft", "empty"), ("found no --out, expected --out FILE",)),
        (("draft", "empty", "-o", "x.yaml"), ("empty", "Check the path")),
        (("draft", "nowhere", "-o", "x.yaml"), ("nowhere", "Check the path")),
        (("draft", "empty", "-o", "x.txt"), ("x.txt", "expected .yaml")),
        (("draft", "numbers", "nowhere.csv", "-o", "x.yaml"), ("nowhere.csv", "expected a CSV")),
        (("ingest", "numbers", "s.zarr", "--cohort", "numbers.yaml"), ("numbers.yaml", "rate_hz", "FILL_IN")),
        (("export", "nowhere", "out"), ("nowhere", "expected a store")),
        (("export", "empty", "out", "--format", "edf"), ("format", "'webdataset'")),
    ],
)
def test_wrong_input_gives_one_line(
    arguments: tuple[str, ...], words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "1.csv").write_text("1,2,3\n" * 400)
    if "numbers.yaml" in arguments:
        assert run("draft", "numbers", "-o", "numbers.yaml").returncode == 0
    assert_one_line(run(*arguments), *words)
    assert not (tmp_path / "x.yaml").exists()


@pytest.mark.parametrize("columns", [80, 200])
def test_formats_say_what_they_read(columns: int) -> None:
    shown = shown_at(columns, "formats")
    assert max(map(len, shown.splitlines())) <= columns
    flat = " ".join(shown.split())
    for name in plugins.names(readers.KIND):
        module = plugins.load(readers.KIND, name)
        assert any(line.startswith(name) for line in shown.splitlines())
        if columns == 200:
            assert all(f"- {variant}" in flat for variant in module.VARIANTS)
            assert module.__doc__.splitlines()[0] in flat


@pytest.mark.parametrize("columns", [80, 200])
def test_inspect_keeps_to_the_width_of_the_terminal(columns: int, make_cohort: Callable[..., object]) -> None:
    raw = make_cohort(patients=2)
    (raw.folder / ("long" * 40)).write_bytes(b"\1\2\3")
    shown = shown_at(columns, "inspect", raw.folder)
    assert max(map(len, shown.splitlines()[1:])) <= columns  # the first line names the folder
    assert "I II III aVR" in " ".join(shown.split())
