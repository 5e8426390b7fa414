"""`--json`: one document on standard output, nothing else there, and the facts that the text tells too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgcohorts.cli.program import main

Ask = Callable[..., Any]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """ask("info", ...) -> the document, or None, for a command that ends with exit code `code`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, code: int = 0) -> Any:
        found = 0
        try:
            main([*map(str, arguments), "--json"])
        except SystemExit as end:
            found = int(end.code or 0)
        told = capsys.readouterr()
        assert (found, len(told.err.splitlines())) == (code, 1 if code else 0), told.err
        return json.loads(told.out, parse_constant=pytest.fail) if told.out else None

    return call


def test_ingest_and_look(make_cohort: Callable[..., Any], ask: Ask) -> None:
    raw = make_cohort(patients=4)
    request = (raw.folder, "s.zarr", "--cohort", raw.spec)
    planned = ask("ingest", *request, "--dry-run")
    assert (planned["written"], planned["to_decode"], planned["known"]) == (False, 7, 0)
    made = ask("ingest", *request)
    assert made["total"] == {"inputs": 7, "stored": 7, "duplicates": 0, "rejected": {}}
    assert (made["written"], made["cohorts"]["north"]["stored"], made["store"]) == (True, 7, "s.zarr")
    info = ask("info", "s.zarr")
    assert info["fingerprint"] == made["fingerprint"]
    again = ask("ingest", *request)
    assert (again["written"], again["known"]) == (False, 7)
    assert ask("table1", "s.zarr")["total"]["recordings"] == 7
    assert ask("export", "s.zarr", "out") == {"out": "out", "records": 7}
    assert ask("export", "s.zarr", "t.parquet", "--format", "parquet") == {"out": "t.parquet", "rows": 7}
    assert ask("plot", "s.zarr", 0, "-o", "x.svg") == {"out": "x.svg"}
    assert ask("report", "s.zarr", "-o", "x.html") == {"out": "x.html"}
    drafted = ask("draft", raw.folder, "-o", "cohort.yaml")
    assert (drafted["reader"], drafted["files"]) == ("wfdb", 7)


def test_three_steps(make_cohort: Callable[..., Any], ask: Ask) -> None:
    raw = make_cohort(patients=4)
    planned = ask("plan", raw.folder, "s.zarr", "--cohort", raw.spec, "-o", "run.plan")
    assert planned == {
        "out": "run.plan",
        "recordings": 7,
        "partitions": 1,
        "known": 0,
        "changes": None,
        **{key: [] for key in ("tables", "not_understood")},
    }
    assert ask("encode", "run.plan", "--partition", 0)["written"]
    assert not ask("encode", "run.plan", "--partition", 0)["written"]
    assert ask("commit", "run.plan")["total"]["stored"] == 7
    assert not ask("commit", "run.plan")["written"]


def test_verify_tells_damage(make_cohort: Callable[..., Any], ask: Ask, tmp_path: Path) -> None:
    raw = make_cohort(patients=2)
    ask("ingest", raw.folder, "s.zarr", "--cohort", raw.spec)
    whole = ask("verify", "s.zarr", "--against", raw.folder, "--cohort", raw.spec)
    assert (whole["ok"], whole["problems"], whole["against"]["compared"]) == (True, [], whole["recordings"])
    shard = next((tmp_path / "s.zarr" / "signals").rglob("c/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    broken = ask("verify", "s.zarr", code=4)
    assert (broken["ok"], len(broken["problems"])) == (False, 1)


def test_refusals_set_the_exit_code_and_are_told(make_cohort: Callable[..., Any], ask: Ask) -> None:
    import numpy as np

    raw = make_cohort(patients=1)
    raw.add("short", np.ones((12, 500), np.int16))
    made = ask("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--max-reject-frac", 0.1, code=3)
    assert made["total"]["rejected"] == {"too_short": 1}
    assert made["reject_fraction"] == pytest.approx(1 / made["total"]["inputs"])


def test_splits_and_upkeep(make_cohort: Callable[..., Any], ask: Ask) -> None:
    raw = make_cohort(patients=6)
    ask("ingest", raw.folder, "s.zarr", "--cohort", raw.spec)
    assert ask("split", "s.zarr") == []
    (made,) = ask("split", "s.zarr", "study", "--by", "patient", "--part", "train=0.5", "--part", "test=0.5")
    assert [made] == ask("split", "s.zarr")
    assert [part["name"] for part in made["parts"]] == ["train", "test"]
    assert ask("gc", "s.zarr")["files"] > 0
    assert ask("copy", "s.zarr", "t.zarr")["written"]
    assert not ask("copy", "s.zarr", "t.zarr")["written"]
    assert not ask("compact", "s.zarr")["written"]


def test_with_the_key(make_cohort: Callable[..., Any], ask: Ask, tmp_path: Path) -> None:
    from ecgcohorts.cohorts.spec import CohortSpec

    raw = make_cohort(patients=2)
    ask("ingest", raw.folder, "s.zarr", "--cohort", raw.spec)
    spec = CohortSpec.load(str(raw.spec))
    item = spec.describe(spec.load_tables(raw.folder), next(iter(spec.sources(raw.folder))))
    assert len(ask("id", "s.zarr", "north", item.recording_id)["rows"]) == 1
    assert ask("id", "s.zarr", "north", "nobody", code=1)["rows"] == []
    given = ("--cohort", "north", "--id-column", "id", "--kind", "patient", "--column", "LVEF=lvef")
    (tmp_path / "none.csv").write_text("id,LVEF\nnobody,50\n")
    assert ask("label", "s.zarr", "none.csv", *given, code=3) is None
    (tmp_path / "ef.csv").write_text(f"id,LVEF\n{item.patient_id},50\n")
    assert ask("label", "s.zarr", "ef.csv", *given, "--replace")["rows_matched"] == 1
    removed = ask("remove", "s.zarr", "north", item.patient_id)
    assert removed["written"]
    assert item.patient_id not in json.dumps(removed)


def test_raw_recordings(ask: Ask) -> None:
    made = ask("simulate", "raw", "--patients", 2)
    assert {name: patients for name, (patients, _) in made["counts"].items()} == {"north": 2, "river": 2, "coast": 2}
    assert list(ask("simulate", "one", "--patients", 2, "--hospital", "river")["counts"]) == ["river"]
    whole, alone = (
        {path.name: path.read_bytes() for path in Path(out, "river").rglob("*.*")} for out in ("raw", "one")
    )
    assert alone == whole
    assert ask("inspect", "raw/north")["formats"].keys() == {"wfdb"}
    assert {"wfdb", "muse_xml"} <= {one["format"] for one in ask("formats")}
    assert all(one.keys() >= {"cohort", "title", "licence"} for one in ask("cohorts"))
    recipe = next(one for one in ask("recipes") if one["recipe"] == "cape-v1")
    assert (len(recipe["leads"]), recipe["rate_hz"]) == (8, 400)
