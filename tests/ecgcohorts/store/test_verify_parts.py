"""`verify` in several processes, and in parts for several machines: together they say what one call says."""

import json
import multiprocessing
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.ingest import IngestOptions, ingest


@pytest.fixture
def store(make_cohort, tmp_path, monkeypatch) -> Path:
    """13 recordings in 7 shards; verified in blocks of two rows."""
    monkeypatch.setattr("ecgcohorts.store.upkeep.verify._ROWS_AT_ONCE", 2)
    raw = make_cohort(patients=7)
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(shard_records=2))
    return tmp_path / "s.zarr"


def harm(store: Path) -> None:
    """Flip a bit in two shards, and add what does not belong there."""
    for path in sorted(store.glob("signals/**/c/*/0/0"))[1:4:2]:
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    (store / "notes.txt").touch()


@pytest.mark.parametrize("is_harmed", [False, True])
def test_processes_and_parts_find_what_one_call_finds(store, is_harmed):
    if is_harmed:
        harm(store)
    whole = ec.verify(store)
    assert len(whole.problems) == (3 if is_harmed else 0)
    assert ec.verify(store, workers=2) == whole
    for of in (2, 3, 50):
        parts = [ec.verify(store, part=(number, of)) for number in range(of)]
        found = {one for part in parts for one in part.problems}
        # A part that has no damaged file itself goes on to the rows, and so names what is damaged a second time.
        assert found >= set(whole.problems)
        assert bool(found) is is_harmed
        for count in ("files", "bytes", "recordings", "empty_rows"):
            assert sum(getattr(part, count) for part in parts) == getattr(whole, count)


def test_every_row_belongs_to_one_part(store, monkeypatch):
    monkeypatch.setattr(
        "ecgcohorts.store.upkeep.verify._Checks.rows", lambda self, rows: [f"row {row}" for row in rows]
    )
    whole = [f"row {row}" for row in range(13)]
    assert list(ec.verify(store).problems) == whole
    parts = [ec.verify(store, part=(number, 3)).problems for number in range(3)]
    assert sorted(one for part in parts for one in part) == sorted(whole)
    assert all(parts)


def test_a_process_that_is_killed_is_one_line(store):
    def kill(done: int, total: int) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(ec.EcgError, match=r"killed by the system.*fewer: -j"):
        ec.verify(store, workers=2, progress=kill)


def test_the_command(store, capsys):
    main(["verify", str(store), "-j", "2"])
    assert "13 recordings: all as committed" in capsys.readouterr().out
    found = []
    for number in range(2):
        main(["verify", str(store), "--partition", f"{number}/2", "--json"])
        found.append(json.loads(capsys.readouterr().out)["recordings"])
    assert (min(found) > 0, sum(found)) == (True, 13)
    harm(store)
    with pytest.raises(SystemExit) as end:
        main(["verify", str(store), "--partition", "0/1"])
    assert end.value.code == 4
    for wrong in ("2/2", "0/0", "1", "-1/2", "a/b"):
        with pytest.raises(SystemExit) as end:
            main(["verify", str(store), f"--partition={wrong}"])
        assert end.value.code == 2
        assert "such as 0/16" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["verify", str(store), "--partition", "0/2", "--against", "raw", "--cohort", "ptb_xl"])
    assert "Leave out --partition" in capsys.readouterr().err
