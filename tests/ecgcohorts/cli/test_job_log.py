"""`--log-json FILE`: what a scheduler reads of a command, and what it must not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgcohorts.cli.program import main
from ecgcohorts.ingest import ingest
from ecgcohorts.privacy import pseudonyms

Logged = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """logged("info", ...) -> the lines that the command adds to its log, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    before = [0]

    def call(*arguments: object, code: int = 0) -> list[dict[str, Any]]:
        found = 0
        try:
            main([*map(str, arguments), "--log-json", "log.jsonl"])
        except SystemExit as end:
            found = int(end.code or 0)
        assert found == code
        lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()][before[0] :]
        before[0] += len(lines)
        return lines

    return call


def test_a_run_from_its_start_to_its_exit_code(make_cohort, logged, capsys):
    raw = make_cohort(patients=4)
    lines = logged("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--shard", 2)
    assert [line["event"] for line in lines] == ["start", "progress", "progress", "result", "end"]
    first, last, result, end = lines[1:]
    assert {(line["command"], line["pid"]) for line in lines} == {("ecgcohorts ingest", os.getpid())}
    assert (first["step"], first["done"], first["total"]) == ("encode", 0, 7)
    assert (last["done"], last["total"]) == (7, 7)
    assert (result["written"], result["to_decode"], result["total"]["stored"]) == (True, 7, 7)
    assert end["exit_code"] == 0
    assert 0 < end["seconds"] < 60
    assert "error" not in end
    assert "7 inputs = 7 stored" in capsys.readouterr().out


def test_errors_give_their_class_and_exit_code_and_nothing_of_the_input(make_cohort, logged):
    raw = make_cohort(patients=2)
    assert [line.get("error") for line in logged("info", "none.zarr", code=2)] == [None, "StoreError"]
    # The message of this one names the file, for whoever holds it.
    (raw.folder / "CANARYREC000v0.dat").unlink()
    stopped = logged("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--on-error", "raise", code=2)
    assert (stopped[-1]["exit_code"], stopped[-1]["error"]) == (2, "UnreadableRecording")
    refused = logged("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--shard", "many", code=2)
    assert [line["event"] for line in refused] == ["start", "end"]
    assert logged("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, code=3)[-1]["exit_code"] == 3
    assert "CANARY" not in Path("log.jsonl").read_text()


def test_no_id_and_no_path_of_the_input_is_logged(make_cohort, logged):
    raw = make_cohort(patients=4)
    logged("ingest", raw.folder, "s.zarr", "--cohort", raw.spec)
    logged("inspect", raw.folder)
    logged("draft", raw.folder, "-o", "cohort.yaml")
    found = logged("id", "s.zarr", "north", "CANARYPAT0001", "--kind", "patient")
    assert [line["event"] for line in found] == ["start", "result", "end"]
    logged("rejects", "s.zarr", raw.folder, "--cohort", raw.spec, "-o", "refused.csv")
    logged("remove", "s.zarr", "north", "CANARYPAT0001")
    logged("verify", "s.zarr", "--against", raw.folder, "--cohort", raw.spec)
    text = Path("log.jsonl").read_text()
    assert "CANARY" not in text
    assert str(raw.folder) not in text
    assert raw.folder.name not in text


def test_warnings_are_logged_and_still_printed(make_cohort, logged, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    raw = make_cohort(patients=2)
    lines = logged("ingest", raw.folder, "s.zarr", "--cohort", raw.spec)
    [warning] = [line["message"] for line in lines if line["event"] == "warning"]
    assert "pseudonym key" in warning
    pseudonyms.log.warning("recording %s", "ab" * 16)  # the command has ended
    assert not [line for line in logged("info", "s.zarr") if line["event"] == "warning"]


def test_what_is_printed_is_the_same_with_a_log(make_cohort, tmp_path):
    raw = make_cohort(patients=2)
    told = []
    for more in ([], ["--log-json", "log.jsonl"]):
        words = ["ingest", raw.folder, f"{len(more)}.zarr", "--cohort", raw.spec, *more]
        surroundings = os.environ | {"XDG_CONFIG_HOME": str(tmp_path / f"key{len(more)}")}
        command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, words)]
        told.append(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=surroundings).stderr)
    assert told[0]
    assert told[0].replace("key0", "") == told[1].replace("key2", "")


def test_a_log_that_cannot_be_written_is_refused(logged, tmp_path, capsys):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        logged("recipes", code=2)
    assert "log.jsonl: Is a directory" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_log_ends_the_log_only(capsys, caplog):
    main(["recipes", "--log-json", "/dev/full"])
    assert "cape-v1" in capsys.readouterr().out
    assert caplog.messages == ["the log of --log-json ends here: No space left on device"]


def test_capezoo_has_one_too(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from capezoo.cli.program import main as capezoo

    monkeypatch.chdir(tmp_path)
    capezoo(["list", "--log-json", "log.jsonl"])
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["command"]) for line in lines][-1] == ("end", "capezoo list")


def test_pretraining_tells_its_steps(tmp_path, monkeypatch, make_cohort):
    pytest.importorskip("torch")
    from capezoo.cli.program import main as capezoo

    monkeypatch.chdir(tmp_path)
    raw = make_cohort(patients=12)
    ingest(raw.folder, "s.zarr", str(raw.spec))
    settings = ["max_steps=3", "sampler.groups=2", 'sampler.singles="self"', "checkpoint_every=1"]
    words = [word for one in settings for word in ("--set", one)]
    capezoo(["pretrain", "--store", "s.zarr", "--out", "run", "--seed", "0", *words, "--log-json", "log.jsonl"])
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    steps = [(line["step"], line["done"], line["total"]) for line in lines if line["event"] == "progress"]
    assert steps[-1] == ("pretrain", 3, 3)
    assert lines[-1]["exit_code"] == 0
