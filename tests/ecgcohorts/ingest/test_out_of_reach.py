"""A machine that does not see the source as the plan did: no recording is refused for it, none gets the facts of another."""

import errno
import os
import shutil
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.errors import MachineError, SourceError
from ecgcohorts.ingest import IngestOptions, commit_plan, encode_partition, ingest, plan_to_file

OPTIONS = IngestOptions(shard_records=3)
ERRORS = (
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.ENOTCONN,
    errno.EINTR,
    errno.EACCES,
    errno.EPERM,
    errno.ESTALE,
    errno.EIO,
)


@pytest.fixture
def planned(make_cohort, tmp_path):
    raw = make_cohort(patients=4)
    path = tmp_path / "run.plan"
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), path, OPTIONS)
    return raw, path


def emptied(folder: Path) -> Path:
    """Take everything out of a folder, as a mount point is empty where nothing is mounted."""
    aside = folder.with_name("aside")
    shutil.move(folder, aside)
    folder.mkdir()
    return aside


def encode_all(plan: Path) -> None:
    for part in range(3):
        encode_partition(plan, part)


def code_of(*words: str) -> int:
    try:
        main(words)
    except SystemExit as end:
        return int(end.code)
    return 0


def test_an_emptied_mount_point_refuses_no_recording(planned, tmp_path, capsys):
    raw, plan = planned
    aside = emptied(raw.folder)
    assert code_of("encode", str(plan), "--partition", "0") == 2
    told = capsys.readouterr().err
    assert "No such file" in told
    assert "Mount the disk again" in told
    assert "CANARY" not in told
    with pytest.raises(ec.StoreError, match="missing partitions 0-"):
        commit_plan(plan)
    raw.folder.rmdir()
    aside.rename(raw.folder)
    for part in range(3):
        assert encode_partition(plan, part)
    assert commit_plan(plan).total.stored == len(raw.signals)


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("suffix", [".hea", ".dat"])
def test_errors_of_open_end_the_run(planned, tmp_path, monkeypatch, code, suffix):
    raw, plan = planned
    real, name = os.open, f"{sorted(raw.signals)[2]}{suffix}"

    def failing(path, *args, **kwargs):
        if str(path).endswith(name):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        failed = []
        for part in range(3):
            try:
                encode_partition(plan, part)
            except MachineError as error:
                failed.append(str(error))
    assert len(failed) == 1
    assert os.strerror(errno.EACCES if code == errno.EPERM else code) in failed[0]
    assert "CANARY" not in failed[0]
    for part in range(3):
        encode_partition(plan, part)
    assert commit_plan(plan).total.stored == len(raw.signals)


def test_a_file_that_goes_while_it_is_planned_is_no_bad_recording(make_cohort, tmp_path, monkeypatch):
    raw = make_cohort(patients=4)
    from ecgcohorts.sources.loose import LooseFiles

    real = LooseFiles.names

    def listed(self, *args, **kwargs):
        for name in real(self, *args, **kwargs):
            yield name
            if "002v1" in name:
                emptied(raw.folder)

    with monkeypatch.context() as patch:
        patch.setattr(LooseFiles, "names", listed)
        with pytest.raises(MachineError, match=r"No such file.*Mount the disk again"):
            ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), OPTIONS)


def test_two_files_that_change_places_between_plan_and_encoding(planned, tmp_path):
    raw, plan = planned
    one, two = (raw.folder / f"{name}.hea" for name in sorted(raw.signals)[:2])
    other = raw.folder / "x"
    for source, target in ((one, other), (two, one), (other, two)):
        source.rename(target)
    with pytest.raises(SourceError, match=r"changed since the plan was made.*another person. Plan again"):
        encode_all(plan)


@pytest.mark.parametrize("kind", ["size", "time"])
def test_a_file_that_changes_between_plan_and_encoding(planned, kind):
    raw, plan = planned
    path = raw.folder / f"{sorted(raw.signals)[0]}.hea"
    before = path.stat()
    if kind == "size":
        path.write_text(path.read_text() + "# note\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    with pytest.raises(SourceError, match="changed since the plan was made"):
        encode_all(plan)


def test_a_file_that_changes_while_one_call_does_all(make_cohort, tmp_path, monkeypatch):
    import ecgcohorts.ingest.run as run

    raw = make_cohort(patients=4)
    real = run.EncodeTask.encode

    def changed(task):
        for path in raw.folder.glob("*.hea"):
            os.utime(path, ns=(1, 1))
        real(task)

    with monkeypatch.context() as patch:
        patch.setattr(run.EncodeTask, "encode", changed)
        with pytest.raises(SourceError, match="changed since"):
            ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), OPTIONS)
    assert ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), OPTIONS).total.stored == len(raw.signals)


def test_encode_counts_and_fails_by_its_own_share(make_cohort, tmp_path, capsys):
    raw = make_cohort(patients=4)
    first = next(iter(raw.signals))
    plan = tmp_path / "run.plan"
    data = raw.folder / f"{first}.dat"
    whole, when = data.read_bytes(), data.stat()
    # As a disk gives it that reads wrongly for a while: nothing of the file itself tells.
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    os.utime(data, ns=(when.st_atime_ns, when.st_mtime_ns))
    plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), plan, OPTIONS)
    codes = []
    for part in range(3):
        codes.append(code_of("encode", str(plan), "--partition", str(part)))
    assert sorted(codes) == [0, 0, 3]
    told = capsys.readouterr()
    bad = codes.index(3)
    size = (3, 3, 1)[bad]  # the key decides where the recording stands
    assert f"{size} recordings = {size - 1} usable + 1 refused (1 checksum_mismatch)" in told.out
    assert f"{1 / size:.0%} of the recordings were refused" in told.err
    data.write_bytes(whole)
    os.utime(data, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert code_of("encode", str(plan), "--partition", str(bad)) == 3
    assert code_of("encode", str(plan), "--partition", str(bad), "--again") == 0
    assert code_of("encode", str(plan), "--partitions", "0-2", "--json") == 0
    assert commit_plan(plan).total.stored == len(raw.signals)


def test_no_store_is_made_below_a_mount_point_without_its_mount(make_cohort, tmp_path):
    raw = make_cohort(patients=2)
    mount = tmp_path / "mount"
    (mount / "others").mkdir(parents=True)
    plans = []
    for number, store in enumerate((mount / "s.zarr", mount / "others" / "s.zarr")):
        plans.append(tmp_path / f"{number}.plan")
        plan_to_file(raw.folder, store, str(raw.spec), plans[-1], OPTIONS)
    aside = emptied(mount)
    for plan in plans:
        for step in (lambda plan=plan: encode_partition(plan, 0), lambda plan=plan: commit_plan(plan)):
            with pytest.raises(ec.StoreError, match="Mount that disk"):
                step()
    assert not any(mount.iterdir())
    mount.rmdir()
    aside.rename(mount)
    assert encode_partition(plans[0], 0)
    (mount / "s.zarr").rename(tmp_path / "gone")
    path = tmp_path / "again.plan"
    (tmp_path / "gone").rename(mount / "s.zarr")
    plan_to_file(raw.folder, mount / "s.zarr", str(raw.spec), path, OPTIONS)
    shutil.rmtree(mount / "s.zarr")
    with pytest.raises(ec.StoreError, match="Mount that disk"):
        encode_partition(path, 0)
    assert not (mount / "s.zarr").exists()
