"""A killed process leaves what it has encoded: the next one goes on there, and the bytes are those of one that was not killed."""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.ingest import _pace, commit_plan, encode, encode_partition, ingest, plan_to_file

SHORT = "short"  # a recording that the recipe refuses


@pytest.fixture
def raw(make_cohort):
    import numpy as np

    made = make_cohort(patients=5)
    made.add(SHORT, np.ones((12, 500), np.int16))
    return made


@pytest.fixture(autouse=True)
def kept_after_every_row(monkeypatch):
    monkeypatch.setattr(encode, "_KEEP_SECONDS", 0.0)


@pytest.fixture
def counted(monkeypatch):
    """Rows that were encoded in this process, in their order."""
    rows, real = [], encode._encode_row
    monkeypatch.setattr(encode, "_encode_row", lambda task, row, *rest: rows.append(row) or real(task, row, *rest))
    return rows


def killed_at(monkeypatch, row: int, call) -> None:
    """Run `call` in a forked process that is killed before it encodes this row."""
    child = os.fork()
    if child == 0:
        real = encode._encode_row

        def encode_row(task, at, *rest):
            if at == row:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(task, at, *rest)

        encode._encode_row = encode_row
        try:
            call()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def files_of(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name not in ("lock",)
    }


def test_a_killed_ingest_goes_on_within_a_shard(raw, tmp_path, monkeypatch, counted):
    spec, n = str(raw.spec), len(raw.signals)
    ingest(raw.folder, tmp_path / "whole.zarr", spec)
    assert counted == list(range(n))
    store = tmp_path / "s.zarr"
    for row in (0, 1, n // 2, n - 1):
        killed_at(monkeypatch, row, lambda: ingest(raw.folder, store, spec))
        counted.clear()
    assert ingest(raw.folder, store, spec).total.rejected == {"too_short": 1}
    assert counted == [n - 1]
    assert files_of(store) == files_of(tmp_path / "whole.zarr")


def test_an_error_keeps_what_was_encoded(raw, tmp_path, monkeypatch, counted):
    spec, store, real = str(raw.spec), tmp_path / "s.zarr", encode._encode_row

    def stopped(task, row, *rest):
        if row == 3:
            raise KeyboardInterrupt
        return real(task, row, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(encode, "_encode_row", stopped)
        with pytest.raises(KeyboardInterrupt):
            ingest(raw.folder, store, spec)
    counted.clear()
    ingest(raw.folder, store, spec)
    assert counted[0] == 3
    assert not [path for path in store.rglob("*") if path.suffix in (".begun", ".rows", ".part")]


@pytest.mark.parametrize("kind", ["begun", "rows"])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "flipped"])
def test_a_damaged_beginning_is_encoded_anew(raw, tmp_path, monkeypatch, counted, kind, harm):
    spec, store = str(raw.spec), tmp_path / "s.zarr"
    ingest(raw.folder, tmp_path / "whole.zarr", spec)
    killed_at(monkeypatch, 3, lambda: ingest(raw.folder, store, spec))
    (path,) = store.rglob(f"*.{kind}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": bytes(data[: len(data) // 3]), "flipped": bytes(data)}[harm])
    counted.clear()
    ingest(raw.folder, store, spec)
    assert counted[0] == 0
    assert files_of(store) == files_of(tmp_path / "whole.zarr")


def test_two_jobs_of_one_partition_do_no_harm(raw, tmp_path, monkeypatch, counted):
    plan, spec = tmp_path / "run.plan", str(raw.spec)
    ingest(raw.folder, tmp_path / "whole.zarr", spec)
    plan_to_file(raw.folder, tmp_path / "s.zarr", spec, plan)
    killed_at(monkeypatch, 3, lambda: encode_partition(plan, 0))
    (begun,) = (tmp_path / "s.zarr").rglob("*.begun")
    counted.clear()
    # Another job is at it: this one leaves its beginning alone and encodes all by itself.
    with begun.open("rb") as held:
        before = begun.read_bytes()
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert encode_partition(plan, 0)
        assert begun.read_bytes() == before
    assert counted[0] == 0
    commit_plan(plan)
    assert files_of(tmp_path / "s.zarr") == files_of(tmp_path / "whole.zarr")


def test_again_takes_over_nothing(raw, tmp_path, monkeypatch, counted):
    plan = tmp_path / "run.plan"
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), plan)
    killed_at(monkeypatch, 3, lambda: encode_partition(plan, 0))
    counted.clear()
    assert encode_partition(plan, 0, again=True)
    assert counted[0] == 0


def test_a_file_that_changed_in_between_ends_the_run(raw, tmp_path, monkeypatch):
    plan = tmp_path / "run.plan"
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), plan)
    killed_at(monkeypatch, 3, lambda: encode_partition(plan, 0))
    for path in raw.folder.rglob("*.hea"):
        os.utime(path, (1, 1))
    with pytest.raises(ec.EcgError, match="has changed since the plan"):
        encode_partition(plan, 0)


def test_progress_counts_recordings_within_a_shard(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(_pace, "_LOOK_SECONDS", 0.001)
    real = encode._encode_row
    monkeypatch.setattr(encode, "_encode_row", lambda *of: time.sleep(0.03) or real(*of))
    told: list[int] = []
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), progress=lambda what, done, total: told.append(done))
    n = len(raw.signals)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, n)
    assert len(set(told)) > n // 2


def test_progress_does_not_count_what_a_killed_process_noted(raw, tmp_path, monkeypatch):
    plan, store = tmp_path / "run.plan", tmp_path / "s.zarr"
    plan_to_file(raw.folder, store, str(raw.spec), plan)
    monkeypatch.setattr(encode, "_KEEP_SECONDS", 1e9)  # nothing of it is kept
    killed_at(monkeypatch, 5, lambda: encode_partition(plan, 0))
    assert list((store / ".staging").rglob("*.on"))
    told: list[int] = []
    ingest(raw.folder, store, str(raw.spec), progress=lambda what, done, total: told.append(done))
    assert (told[0], told[-1]) == (0, len(raw.signals))


def test_locks_that_hold_within_a_node_only_cost_work_and_no_byte(raw, tmp_path, monkeypatch):
    """Two nodes encode one partition at once, and neither sees the other's lock (NFS with local_lock, Lustre with localflock)."""
    plans = [tmp_path / "whole.plan", tmp_path / "run.plan"]
    for name, plan in zip(("whole.zarr", "s.zarr"), plans, strict=True):
        plan_to_file(raw.folder, tmp_path / name, str(raw.spec), plan)
    encode_partition(plans[0], 0)
    commit_plan(plans[0])
    real, other = encode._encode_row, []

    def encode_row(task, row, *rest):
        if row == 4 and not other:
            other.append(os.fork())
            if not other[0]:
                try:
                    encode_partition(plans[1], 0)
                finally:
                    os._exit(0)
            time.sleep(0.2)
        return real(task, row, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *of: None)
        patch.setattr(encode, "_encode_row", encode_row)
        with contextlib.suppress(ec.EcgError, OSError):  # the other may have taken the file away
            encode_partition(plans[1], 0)
        os.waitpid(other[0], 0)
    # Submitted again, as after any failure: what the two have written together is no whole shard, and is not taken for one.
    encode_partition(plans[1], 0)
    commit_plan(plans[1])
    whole, found = (files_of(tmp_path / name) for name in ("whole.zarr", "s.zarr"))
    assert found == whole
    assert ec.verify(tmp_path / "s.zarr").ok
