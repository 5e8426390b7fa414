"""plan, encode and commit as a user of a cluster meets them."""

import json
import os
import subprocess
import sys

import pytest

from ecgcohorts.cli.program import main


def run(*arguments: object, cwd=None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "200"})


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    assert result.returncode == code, result
    [line] = result.stderr.strip().splitlines()
    for word in words:
        assert word in line


def test_plan_encode_commit(make_cohort, tmp_path):
    raw = make_cohort(patients=4)
    planned = run("plan", raw.folder, "s.zarr", "--cohort", raw.spec, "-o", "run.plan", "--shard", 4, cwd=tmp_path)
    assert planned.stdout == "run.plan: 7 recordings in 2 partitions, 0 to 1; 0 are known already\n", planned.stderr
    assert_one_line(run("encode", "run.plan", "--partition", 2, cwd=tmp_path), "found partition 2", "this plan has 2")
    assert run("encode", "run.plan", "--partition", 1, cwd=tmp_path).stdout == (
        "run.plan: partition 1 encoded: 3 recordings = 3 usable + 0 refused\n"
    )
    assert_one_line(run("commit", "run.plan", cwd=tmp_path), "missing partitions 0 of 2")
    run("encode", "run.plan", "--partition", 0, cwd=tmp_path)
    assert "was encoded already" in run("encode", tmp_path / "run.plan", "--partition", 0, cwd="/").stdout
    done = run("commit", "run.plan", cwd=tmp_path)
    assert "7 inputs = 7 stored + 0 duplicates + 0 rejected" in done.stdout, done.stderr
    assert run("commit", "run.plan", cwd=tmp_path).stdout == "run.plan: committed already. Nothing written.\n"
    assert run("verify", "s.zarr", cwd=tmp_path).returncode == 0
    again = run("plan", raw.folder, "s.zarr", "--cohort", raw.spec, "-o", "run.plan", cwd=tmp_path)
    assert_one_line(again, "nothing new: all 7 inputs were met before")


def test_several_partitions_in_one_call(make_cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def here(*words: object) -> str:
        main([*map(str, words)])
        return capsys.readouterr().out

    raw = make_cohort(patients=5)
    here("plan", raw.folder, "s.zarr", "--cohort", raw.spec, "-o", "run.plan", "--shard", 2)
    here("encode", "run.plan", "--partition", 1)
    first = here("encode", "run.plan", "--partitions", "0-2")
    assert (
        first == "run.plan: partitions 0 to 2: 2 encoded, 1 were encoded already: 6 recordings = 6 usable + 0 refused\n"
    )
    # The last task of a job array with even strides asks for more than there is.
    last = here("encode", "run.plan", "--partitions", "3-63", "--json")
    facts = {"plan": "run.plan", "partitions": [3, 4], "written": [3, 4]}
    account = {"inputs": 3, "stored": 3, "duplicates": 0, "rejected": {}}
    assert json.loads(last) == {**facts, "account": account}
    wrong = {word: ("such as 0-63", repr(word)) for word in ("3", "2-1", "-1", "a-b", "1-2-3", "1,2")}
    for word, told in {**wrong, "5-6": ("found partition 5, expected 0 to 4",)}.items():
        with pytest.raises(SystemExit) as end:
            here("encode", "run.plan", f"--partitions={word}")
        assert end.value.code == 2
        complaint = capsys.readouterr().err
        assert all(words in complaint for words in told)
    for both in ([], ["--partition", 1, "--partitions", "0-1"]):
        with pytest.raises(SystemExit):
            here("encode", "run.plan", *both)
        assert "expected one of them" in capsys.readouterr().err
    assert "9 inputs = 9 stored" in here("commit", "run.plan")


def test_a_scheduler_that_is_not_there_is_told(make_cohort, tmp_path):
    pytest.importorskip("distributed")
    raw = make_cohort(patients=2)
    result = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--scheduler", "nonsense://x", cwd=tmp_path)
    assert result.returncode == 2
    assert "found no Dask scheduler at nonsense://x" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*.plan"))
