"""`--update`: afterwards a store is what a first ingest of the source would make, and what was removed stays out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.ingest import IngestOptions, commit_plan, encode_partition, ingest, plan_to_file
from ecgcohorts.ingest._changes import _Changes
from ecgcohorts.io import durable
from ecgcohorts.store import commit

OPTIONS = IngestOptions(shard_records=4)
UPDATE = IngestOptions(shard_records=4, update=True)


def test_what_no_first_run_knew_is_taken_over(source, tmp_path):
    """A corrected column: everybody had been one person."""
    store, wrong, right = tmp_path / "s.zarr", source.spec(patient="ward"), source.spec()
    ingest(source.folder, store, str(wrong), OPTIONS)
    assert ec.open(store).index.n_patients == 1
    with pytest.raises(ec.SpecError, match=r"facts of 9 recordings changed \(patient 9\), 1 refused.*--update"):
        ingest(source.folder, store, str(right), OPTIONS)
    report = ingest(source.folder, store, str(right), UPDATE)
    assert report.written
    assert report.changes.recordings == 9
    assert report.total.balanced()
    assert ec.open(store).index.n_patients == 5
    assert {one.spec_sha256 for one in ec.open(store).segments} == {ec.CohortSpec.load(str(right)).sha256}
    source.assert_is_fresh(store, right)


def test_a_corrected_dataset(source, tmp_path):
    store, wrong, right = tmp_path / "s.zarr", source.spec(dataset="ecgg"), source.spec()
    assert ingest(source.folder, store, str(wrong), OPTIONS).total.stored == 0
    with pytest.raises(ec.SpecError, match=r"11 refused ones could be read again.*--update"):
        ingest(source.folder, store, str(right), OPTIONS)
    assert ingest(source.folder, store, str(right), UPDATE).total.stored == 9
    source.assert_is_fresh(store, right)


@pytest.mark.parametrize("change", ["mains", "label"])
def test_another_description_of_signals_or_labels(source, tmp_path, change):
    store, right = tmp_path / "s.zarr", source.spec(**{change: 60 if change == "mains" else "flutter"})
    ingest(source.folder, store, str(source.spec()), OPTIONS)
    report = ingest(source.folder, store, str(right), UPDATE)
    assert report.written
    assert bool(report.lost) == (change == "label")  # its old name is gone
    source.assert_is_fresh(store, right)


def test_a_corrected_table(source, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    rows = source.rows
    rows["CANARYe1"] |= {"person": "CANARYP7"}
    rows["CANARYe3"] |= {"age": "77", "sex": "F"}
    rows["CANARYe4"] |= {"date": "2019-01-01 08:00:00", "device": "new"}
    rows["CANARYe5"] |= {"af": "0", "site": ""}
    source.save()
    before = source.essence(store)
    report = ingest(source.folder, store, str(spec), OPTIONS)
    assert not report.written
    assert report.changes.recordings == 4
    assert report.changes.facts == {"af": 1, "age": 1, "date": 1, "device": 1, "patient": 1, "sex": 1, "site": 1}
    assert source.essence(store) == before
    assert ingest(source.folder, store, str(spec), UPDATE).written
    source.assert_is_fresh(store, spec)
    again = ingest(source.folder, store, str(spec), UPDATE)
    assert not again.written
    assert not again.changes


def test_new_recordings_come_in_although_others_are_behind(source, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    source.rows["CANARYe3"] |= {"age": "77"}
    source.add("CANARYlate", 50, person="CANARYP1", date="2021-01-01 00:00:00")
    report = ingest(source.folder, store, str(spec), OPTIONS)
    assert report.total.stored == 1
    assert report.changes.facts == {"age": 1}
    # What an earlier run could not know, the days of a later recording, is no change of facts.
    source.rows["CANARYe3"] |= {"age": "40"}
    ingest(source.folder, store, str(spec), UPDATE)
    source.assert_is_fresh(store, spec)


def test_a_refused_file_that_was_mended(source, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    assert ingest(source.folder, store, str(spec), OPTIONS).total.rejected == {"too_short": 1}
    source.record("CANARYshort", 99)
    assert ingest(source.folder, store, str(spec), UPDATE).total.rejected == {}
    assert len(ec.open(store).index) == 10
    source.assert_is_fresh(store, spec)


def test_a_file_of_other_content(source, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    source.record("CANARYe0", 70)  # of which there was a copy: that becomes an original
    assert ingest(source.folder, store, str(spec), UPDATE).total.duplicates == 0
    source.assert_is_fresh(store, spec)


def test_two_workers_and_three_steps_make_the_same(source, tmp_path):
    stores = [tmp_path / f"{name}.zarr" for name in ("one", "two", "steps")]
    wrong, right = source.spec(patient="ward"), source.spec()
    for store in stores:
        ingest(source.folder, store, str(wrong), OPTIONS)
    ingest(source.folder, stores[0], str(right), UPDATE)
    ingest(source.folder, stores[1], str(right), IngestOptions(shard_records=4, update=True, workers=2))
    plan = tmp_path / "run.plan"
    header = plan_to_file(source.folder, stores[2], str(right), plan, UPDATE)
    assert len(header.partitions) == 3
    for part in (2, 0, 1):
        assert encode_partition(plan, part)
    assert commit_plan(plan).written
    assert not commit_plan(plan).written
    assert source.essence(stores[0]) == source.essence(stores[1]) == source.essence(stores[2])


def test_a_plan_of_facts_that_were_overtaken_is_refused(source, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    source.rows["CANARYe3"] |= {"age": "77"}
    source.save()
    plan = tmp_path / "run.plan"
    for part in plan_to_file(source.folder, store, str(spec), plan, UPDATE).partitions:
        encode_partition(plan, part.number)
    source.rows["CANARYe3"] |= {"age": "78"}
    source.save()
    ingest(source.folder, store, str(spec), UPDATE)
    with pytest.raises(ec.StoreError, match="another writer was faster"):
        commit_plan(plan)


def code_of(*words: str) -> int:
    try:
        main(words)
    except SystemExit as end:
        return int(end.code)
    return 0


class Stop(BaseException):
    """Stands for a kill."""


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    left = [steps]

    def counted(real: Callable) -> Callable:
        def call(path, *args, **kwargs):
            if "index/00" in str(path) and "/age/" not in str(path):
                return real(path, *args, **kwargs)
            if not left[0]:
                raise Stop
            left[0] -= 1
            return real(path, *args, **kwargs)

        return call

    patch.setattr(durable.os, "replace", counted(durable.os.replace))
    patch.setattr(commit.Path, "unlink", counted(Path.unlink))


def test_killed_at_any_step_the_store_is_the_old_or_the_new_and_the_same_command_finishes(source, tmp_path):
    first, wrong, right = tmp_path / "first.zarr", source.spec(patient="ward"), source.spec()
    ingest(source.folder, first, str(wrong), OPTIONS)
    old, whole = ec.open(first).fingerprint, shutil.copytree(first, tmp_path / "whole.zarr")
    ingest(source.folder, whole, str(right), UPDATE)
    new = ec.open(whole).fingerprint
    for steps in range(0, 200, 3):  # every step is tried by the soak
        store = shutil.copytree(first, tmp_path / "s.zarr")
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, steps)
            try:
                ingest(source.folder, store, str(right), UPDATE)
                break
            except Stop:
                pass
        assert ec.open(store).fingerprint in (old, new)
        ingest(source.folder, store, str(right), UPDATE)
        assert ec.open(store).fingerprint == new
        assert ec.verify(store).ok
        shutil.rmtree(store)
    assert steps > 20


def test_commands_say_what_is_behind_and_end_with_3(source, tmp_path, capsys):
    store, spec = tmp_path / "s.zarr", source.spec()
    words = [str(source.folder), str(store), "--cohort", str(spec), "--shard", "4"]
    assert code_of("ingest", *words) == 0
    source.rows["CANARYe3"] |= {"age": "77"}
    source.save()
    capsys.readouterr()
    for command in (["ingest", *words], ["ingest", *words, "--dry-run"]):
        assert code_of(*command) == 3
        told = capsys.readouterr().err
        assert "facts of 1 recording changed (age 1)" in told
        assert "--update" in told
    assert code_of("ingest", *words, "--update", "--dry-run") == 0
    assert "would take over: facts of 1 recording changed (age 1)" in capsys.readouterr().out
    assert code_of("ingest", *words, "--update") == 0
    assert code_of("ingest", *words) == 0
    assert code_of("ingest", *words, "--update") == 0
    assert "nothing changed" in capsys.readouterr().out
    assert code_of("ingest", *words, "--update", "--limit", "3") == 2


def test_no_identifier_enters_the_store(source, tmp_path):
    store = tmp_path / "s.zarr"
    ingest(source.folder, store, str(source.spec(patient="ward")), OPTIONS)
    ingest(source.folder, store, str(source.spec()), UPDATE)
    for path in store.rglob("*"):
        assert "CANARY" not in path.name
        assert not path.is_file() or b"CANARY" not in path.read_bytes()


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pseudonyms of the recordings whose signal is decoded from here on."""
    import ecgcohorts.ingest.encode as encode

    names, real = [], encode._encode_row

    def noted(task, row, *rest):
        names.append(task.names[row])
        return real(task, row, *rest)

    monkeypatch.setattr(encode, "_encode_row", noted)
    return names


def test_signals_are_decoded_only_where_a_file_or_its_reading_changed(source, tmp_path, monkeypatch):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    names = decoded(monkeypatch)
    source.rows["CANARYe3"] |= {"age": "77", "person": "CANARYP8"}
    source.save()
    ingest(source.folder, store, str(spec), UPDATE)
    refused = set(ec.open(store).rejects()["recording_id"])
    assert len(refused) == 2
    assert set(names) == refused  # these are read again, and nothing else
    source.assert_is_fresh(store, spec)
    names.clear()
    source.record("CANARYe5", 77)
    assert ingest(source.folder, store, str(spec), OPTIONS).changes.files == 1
    assert not names
    ingest(source.folder, store, str(spec), UPDATE)
    assert len(set(names) - refused) == 1
    source.assert_is_fresh(store, spec)
    names.clear()
    ingest(source.folder, store, str(source.spec(mains=60)), UPDATE)
    assert len(names) == 11
    source.assert_is_fresh(store, source.spec(mains=60))


def test_mended_and_replaced_files_are_told_before_an_update(source, tmp_path, capsys):
    store, spec = tmp_path / "s.zarr", source.spec()
    words = ["ingest", str(source.folder), str(store), "--cohort", str(spec), "--shard", "4"]
    (source.folder / "CANARYjunk.h5").write_bytes(b"CANARY")
    assert code_of(*words) in (0, 3)
    assert code_of(*words) == 0
    source.record("CANARYe5", 77)
    source.record("CANARYshort", 99)
    source.record("CANARYjunk", 98)
    source.add("CANARYjunk", 98)
    capsys.readouterr()
    assert code_of(*words) == 3
    told = capsys.readouterr().err
    assert "the files of 1 recording were replaced" in told
    assert "the files of 2 refused ones were replaced" in told
    assert code_of(*words, "--update") == 0
    source.assert_is_fresh(store, spec)


def test_without_its_memory_an_update_decodes_all(source, tmp_path, monkeypatch):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    memory = tmp_path / "s.zarr.seen"
    assert memory.stat().st_mode & 0o777 == 0o600
    assert b"CANARY" not in memory.read_bytes()
    source.record("CANARYe5", 77)
    memory.write_bytes(memory.read_bytes()[:-40])  # damaged
    assert not ingest(source.folder, store, str(spec), OPTIONS).changes
    names = decoded(monkeypatch)
    ingest(source.folder, store, str(spec), UPDATE)
    assert len(names) == 11
    source.assert_is_fresh(store, spec)


def test_a_memory_of_a_later_store_is_not_believed(source, tmp_path):
    """The store came back from a backup, the memory did not: by it, the replaced file is stored already."""
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    backup = shutil.copytree(store, tmp_path / "backup.zarr")
    source.record("CANARYe5", 77)
    ingest(source.folder, store, str(spec), UPDATE)
    shutil.rmtree(store)
    backup.rename(store)
    assert ingest(source.folder, store, str(spec), OPTIONS).changes.files == 1
    ingest(source.folder, store, str(spec), UPDATE)
    source.assert_is_fresh(store, spec)


def test_changes_are_said_without_those_that_there_are_none_of():
    assert (
        str(_Changes(files=1, refused=2))
        == "the files of 1 recording were replaced, 2 refused ones could be read again"
    )
    assert str(_Changes(recordings=2, facts={"age": 2})) == "facts of 2 recordings changed (age 2)"
    assert str(_Changes()) == "facts of 0 recordings changed"
