"""The command line as a user meets it: what it prints, and one clear line when something is wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


def run(*arguments: object, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "200"})


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    assert result.returncode == code, result
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_ingest_info_verify(make_cohort, tmp_path):
    raw = make_cohort(patients=4)
    made = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "7 inputs = 7 stored + 0 duplicates + 0 rejected" in made.stdout
    assert made.stderr == ""  # no progress bar where there is no terminal
    facts = json.loads(run("info", "s.zarr", "--json", cwd=tmp_path).stdout)
    assert (facts["recordings"], facts["patients"], facts["recipe"]) == (7, 4, "cape-v1")
    assert "north" in run("info", "s.zarr", cwd=tmp_path).stdout
    verified = run("verify", "s.zarr", cwd=tmp_path)
    assert verified.returncode == 0
    assert "7 recordings: all as committed" in verified.stdout
    again = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path)
    assert "nothing new: 7 inputs were met before" in again.stdout


def test_many_refusals_set_the_exit_code(make_cohort, tmp_path):
    raw = make_cohort(patients=2)
    for number in range(3):
        raw.add(f"short{number}", np.ones((12, 500), np.int16))
    result = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path)
    assert "6 inputs = 3 stored + 0 duplicates + 3 rejected (3 too_short)" in result.stdout
    assert_one_line(result, "50%", "--max-reject-frac", code=3)


def test_damage_is_reported(make_cohort, tmp_path):
    raw = make_cohort(patients=2)
    run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path)
    shard = next((tmp_path / "s.zarr" / "signals").rglob("c/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    result = run("verify", "s.zarr", cwd=tmp_path)
    assert "c/0/0/0" in result.stdout
    assert_one_line(result, "1 problems", code=4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ingest", "nowhere", "s.zarr", "--cohort", "ptb_xl"), ("nowhere", "no such folder")),
        (("ingest", "empty", "s.zarr", "--cohort", "ptb_xl"), ("empty", "found 0 files")),
        (("ingest", "empty", "s.zarr", "--cohort", "bidmc"), ("bidmc", "ptb_xl", ".yaml")),
        (("ingest", "empty", "s.zarr", "--cohort", "missing.yaml"), ("missing.yaml",)),
        (
            ("ingest", "empty", "s.zarr", "--cohort", "bad_key.yaml"),
            ("bad_key.yaml", "patients", "Did you mean patient"),
        ),
        (("ingest", "empty", "s.zarr", "--cohort", "ptb_xl", "--recipe", "mine"), ("mine", "cape-v1")),
        (("ingest", "empty", "s.zarr"), ("found no --cohort, expected --cohort NAME|FILE",)),
        (("ingest", "empty", "s.zarr", "--cohort", "ptb_xl", "-j", "0"), ("greater than 0",)),
        (("verify", "nowhere"), ("nowhere", "expected a store")),
        (("info", "empty"), ("empty", "expected a store")),
        (("inspect", "nowhere"), ("nowhere",)),
        (("plot", "nowhere", "0", "-o", "x.svg"), ("nowhere", "expected a store")),
        (("--json", "verify", "nowhere"), ("found --json before the command", "ecgcohorts verify ... --json")),
        (("--cohort", "ptb_xl", "ingest", "empty", "s.zarr"), ("before the command", "ecgcohorts ingest ... --cohort")),
        (("--json",), ("found --json before the command", "ecgcohorts COMMAND ... --json")),
        (("--jsom", "verify", "nowhere"), ("found unknown option '--jsom'",)),
    ],
)
def test_wrong_input_gives_one_line_with_the_remedy(make_cohort, tmp_path, arguments, words):
    raw = make_cohort(patients=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad_key.yaml").write_text(raw.spec.read_text().replace("patient:", "patients:"))
    assert_one_line(run(*arguments, cwd=tmp_path), *words)


def test_formats_and_cohorts_are_listed():
    assert "muse_xml" in run("formats").stdout
    assert "CC BY 4.0" in run("cohorts").stdout
