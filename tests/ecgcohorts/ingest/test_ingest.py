"""Ingest: accounts that add up, bytes that do not depend on how it ran, and no id that leaves the input."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import KeyMismatch, LockHeld, MachineError, RecipeMismatch, SourceError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.io import durable
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.store import commit, open_store
from ecgcohorts.store.upkeep.garbage import collect_garbage


def beats(seed: int) -> np.ndarray:
    """(12, 10 s at 500 Hz) of plausible size, different for every seed."""
    coarse = np.random.default_rng(seed).integers(-900, 900, (12, 20))
    return np.repeat(coarse, 250, axis=1).astype(np.int16)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_store_holds_the_strips_of_its_recordings_exactly(make_cohort, tmp_path):
    raw = make_cohort(patients=5)
    report = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    store = ec.open(tmp_path / "s.zarr")
    assert report.total.inputs == report.total.stored == len(raw.signals) == len(store.index)
    expected = {
        recording.waveform_digest: make_strip(recording, CAPE_V1, 50).samples
        for name in raw.signals
        for recording in ec.read(raw.folder / f"{name}.hea")
    }
    for row, digest in zip(store.index["row"], store.index["waveform_digest"], strict=True):
        np.testing.assert_array_equal(store.read(row)[0], expected[digest.tobytes()])


def test_index_tells_who_is_who(make_cohort, tmp_path):
    raw = make_cohort(patients=6)
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    index = ec.open(tmp_path / "s.zarr").index
    assert index.n_patients == 6
    assert sorted(np.diff(index.patient_ptr)) == [1, 1, 2, 2, 3, 3]
    for patient in range(6):
        entries = slice(*index.patient_ptr[patient : patient + 2])
        assert len(set(index["age"][entries])) == len(set(index["sex"][entries])) == 1
        days = index["days"][entries]
        assert days[0] == 0
        assert (np.diff(days) > 300).all()
        assert np.diff(index.rows_of(patient)).tolist() == [1] * (len(days) - 1)
    assert set(index["label_af"]) == {0.0, 1.0}
    frame = index.to_pandas()
    assert set(frame["cohort"]) == {"north"}
    assert set(frame["sex"]) == {"male", "female"}


def test_every_input_is_accounted_for(make_cohort, tmp_path):
    raw = make_cohort(patients=4)
    good = len(raw.signals)
    first = next(iter(raw.signals.values()))
    raw.add("copy", first, **{"Patient ID": "another"})
    raw.add("short", first[:, :3495])
    raw.add("zero", np.zeros_like(first))
    raw.add("flipped", first)
    data = bytearray((raw.folder / "flipped.dat").read_bytes())
    data[1000] ^= 4
    (raw.folder / "flipped.dat").write_bytes(data)
    raw.add("cut", first)
    (raw.folder / "cut.dat").write_bytes((raw.folder / "cut.dat").read_bytes()[:-100])
    (raw.folder / "junk.hea").write_text("this is no header\n")
    report = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    total = report.total
    assert total.balanced()
    assert total.inputs == good + 6
    assert total.duplicates == 1
    assert total.stored == good
    assert total.rejected == {
        "bad_header": 1,
        "checksum_mismatch": 1,
        "empty_signal": 1,
        "too_short": 1,
        "truncated": 1,
    }
    store = ec.open(tmp_path / "s.zarr")
    rejects = store.rejects()
    assert len(rejects) == 6
    copied = rejects[rejects["reason"] == "duplicate"].iloc[0]
    assert copied["duplicate_of"] in set(store.index.to_pandas()["recording_id"])
    assert ec.verify(tmp_path / "s.zarr").ok  # blanked and refused rows hold no samples


def test_of_copies_one_with_a_patient_is_kept(make_cohort, tmp_path):
    raw = make_cohort(patients=6)
    # Which of two equal recordings comes first is chance, by the key: of a dozen, some copies would come first.
    for name, samples in list(raw.signals.items()):
        raw.add(f"exported-again-{name}", samples)
    report = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    assert (report.total.stored, report.total.duplicates) == (12, 12)
    index = ec.open(tmp_path / "s.zarr").index
    assert index["patient_known"].all()
    assert sorted(np.diff(index.patient_ptr)) == [1, 1, 2, 2, 3, 3]


def test_duplicates_are_found_across_cohorts(make_cohort, tmp_path):
    north, south = make_cohort("north", 3), make_cohort("south", 3, seed=1)
    name, samples = next(iter(north.signals.items()))
    south.add(name, samples, **{"Patient ID": "other"})
    ingest(north.folder, tmp_path / "s.zarr", str(north.spec))
    report = ingest(south.folder, tmp_path / "s.zarr", str(south.spec))
    assert report.total.duplicates == 1
    store = ec.open(tmp_path / "s.zarr")
    assert store.index.cohorts == ("north", "south")
    assert len(store.index) == len(north.signals) + len(south.signals) - 1
    assert ec.verify(tmp_path / "s.zarr").ok


def test_a_rerun_writes_nothing_and_a_later_one_appends(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=4), tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    before = tree(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = ingest(raw.folder, folder, str(raw.spec))
    assert not again.written
    assert again.known == len(raw.signals)
    assert tree(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times

    samples = next(iter(raw.signals.values()))
    raw.add("later", np.roll(samples, 400, axis=1), **{"Patient ID": "CANARYPAT0003"}, Date="2020-01-01T00:00:00")
    more = ingest(raw.folder, folder, str(raw.spec))
    assert more.total.stored == 1
    store = ec.open(folder)
    assert store.index.n_patients == 4
    newest = store.index["row"].max()
    patient = store.index["patient"][store.index["row"] == newest][0]
    assert len(store.index.rows_of(patient)) == 2
    assert np.isnan(store.index["days"][store.index["row"] == newest]).all()  # unknown rather than counted from itself
    assert ec.verify(folder).ok


def test_after_a_commit_only_listed_files_remain(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=4), tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    raw.add("later", np.roll(next(iter(raw.signals.values())), 400, axis=1))
    ingest(raw.folder, folder, str(raw.spec))
    store, before = ec.open(folder), open_store(folder, generation=1)
    allowed = {"CURRENT", "lock", "manifest-000002.json", *store.manifest.files}
    assert set(tree(folder)) == allowed | {"manifest-000001.json", *before.manifest.files}
    collect_garbage(folder)
    assert set(tree(folder)) == allowed


class Stop(BaseException):
    """Stands for a kill: no `except Exception` may swallow it."""


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let `steps` durable writes and deletions happen, then stop for good.

    Of the index columns only one counts: all are written by the same lines one after the other.
    """
    left = [steps]

    def counted(real):
        def call(path, *args, **kwargs):
            if "index/00" in str(path) and "/age/" not in str(path):
                return real(path, *args, **kwargs)
            if not left[0]:
                raise Stop
            left[0] -= 1
            return real(path, *args, **kwargs)

        return call

    monkeypatch.setattr(durable.os, "replace", counted(os.replace))
    monkeypatch.setattr(commit.Path, "unlink", counted(Path.unlink))


def test_resuming_keeps_finished_shards(make_cohort, tmp_path, monkeypatch):
    raw, folder = make_cohort(patients=6), tmp_path / "s.zarr"
    options = IngestOptions(shard_records=3)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 6)  # two shards, the notes of where they are removed, and their results
        with pytest.raises(Stop):
            ingest(raw.folder, folder, str(raw.spec), options)
    kept = {path.stat().st_ino for path in (folder / ".staging").rglob("*.shard")}
    assert len(kept) == 2
    ingest(raw.folder, folder, str(raw.spec), options)
    assert kept < {path.stat().st_ino for path in (folder / "signals").rglob("0") if path.is_file()}


def test_no_identifier_leaves_the_input(make_cohort, tmp_path, capfd):
    raw, folder = make_cohort(patients=4), tmp_path / "s.zarr"
    raw.add("CANARYBAD", next(iter(raw.signals.values()))[:, :100], **{"Patient ID": "CANARYPAT9"})
    (raw.folder / "CANARYJUNK.hea").write_text("CANARY\n")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stop):
            ingest(raw.folder, folder, str(raw.spec), IngestOptions(shard_records=4))
    assert_no_canary(folder)  # nor in what an interrupted run leaves
    ingest(raw.folder, folder, str(raw.spec), IngestOptions(shard_records=4))
    assert_no_canary(folder)
    captured = capfd.readouterr()
    assert "CANARY" not in captured.out + captured.err
    with pytest.raises(ec.EcgError) as caught:
        ingest(raw.folder, tmp_path / "t.zarr", str(raw.spec), IngestOptions(on_error="raise"))
    assert "CANARY" not in str(caught.value)


def assert_no_canary(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert "CANARY" not in path.name
        if path.is_file():
            assert b"CANARY" not in path.read_bytes(), path


def test_records_without_patient_id_are_patients_of_their_own(make_cohort, tmp_path):
    raw = make_cohort(patients=0)
    raw.folder.mkdir()
    for number in range(3):
        raw.add(f"r{number}", beats(number), **{"Patient ID": ("UNKNOWN", "0000", "")[number]})
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    index = ec.open(tmp_path / "s.zarr").index
    assert index.n_patients == 3
    assert not index["patient_known"].any()


def test_dry_run_writes_nothing(make_cohort, tmp_path):
    raw = make_cohort(patients=4)
    report = ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(dry_run=True))
    assert report.plan_rows == len(raw.signals)
    assert not (tmp_path / "s.zarr").exists()


def test_another_recipe_key_or_writer_is_refused(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=2), tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    other_key = tmp_path / "other.key"
    other_key.write_text("ab" * 32)
    with pytest.raises(KeyMismatch, match=r"another pseudonym key.*--key"):
        ingest(raw.folder, folder, str(raw.spec), IngestOptions(key_file=other_key))
    with pytest.raises(RecipeMismatch, match=r"recipe cape-v1, expected plain-100.*--recipe cape-v1"):
        ingest(raw.folder, folder, str(raw.spec), IngestOptions(recipe="plain-100"))


def test_one_writer_at_a_time(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=2), tmp_path / "s.zarr"
    code = (
        "import sys, time; from pathlib import Path; from ecgcohorts.store.commit import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockHeld, match="another process is writing"):
            ingest(raw.folder, folder, str(raw.spec))
        holder.kill()
    assert ingest(raw.folder, folder, str(raw.spec)).written  # the lock of a dead process holds nobody up


@pytest.mark.parametrize("content", ["notes.txt", "sub/photo.jpg"])
def test_a_folder_that_is_no_store_is_left_alone(make_cohort, tmp_path, content):
    raw, folder = make_cohort(patients=2), tmp_path / "mine"
    (folder / content).parent.mkdir(parents=True)
    (folder / content).write_text("dear to me")
    with pytest.raises(ec.StoreError, match="which no store holds"):
        ingest(raw.folder, folder, str(raw.spec))
    assert (folder / content).read_text() == "dear to me"


def test_nothing_to_read_is_said(make_cohort, tmp_path):
    raw = make_cohort(patients=2)
    with pytest.raises(SourceError, match="no such folder"):
        ingest(tmp_path / "nowhere", tmp_path / "s.zarr", str(raw.spec))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError):
        ingest(tmp_path / "empty", tmp_path / "s.zarr", str(raw.spec))
    assert not (tmp_path / "s.zarr" / "CURRENT").exists()


def test_the_input_is_never_touched_wherever_the_store_is_named(make_cohort, tmp_path):
    raw = make_cohort(patients=2)
    before = tree(raw.folder)
    for folder in (raw.folder, raw.folder / "s.zarr", tmp_path):
        with pytest.raises(ec.StoreError, match="Name two folders apart"):
            ingest(raw.folder, folder, str(raw.spec))
        assert tree(raw.folder) == before


def test_files_put_into_a_store_stop_the_next_run_and_stay(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=2), tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    (folder / "report.html").write_text("mine")
    with pytest.raises(ec.StoreError, match=r"found 'report.html'.*Move it away"):
        ingest(raw.folder, folder, str(raw.spec))
    assert (folder / "report.html").read_text() == "mine"


def test_a_half_written_shard_of_an_interrupted_run_is_done_again(make_cohort, tmp_path):
    raw, folder, whole = make_cohort(patients=6), tmp_path / "s.zarr", tmp_path / "whole.zarr"
    options = IngestOptions(shard_records=3)
    ingest(raw.folder, whole, str(raw.spec), options)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stop):
            ingest(raw.folder, folder, str(raw.spec), options)
    [shard] = (folder / ".staging").rglob("north-0.shard")
    shard.write_bytes(shard.read_bytes()[:-50])
    ingest(raw.folder, folder, str(raw.spec), options)
    assert tree(folder) == tree(whole)


def test_other_content_never_resumes_on_shards_of_the_first(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=6), tmp_path / "s.zarr"
    options = IngestOptions(shard_records=3)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stop):
            ingest(raw.folder, folder, str(raw.spec), options)
    for name, samples in list(raw.signals.items()):
        raw.add(name, np.roll(samples, 100, axis=1), **{"Patient ID": name[9:12]})
    ingest(raw.folder, folder, str(raw.spec), options)
    expected = {ec.read(raw.folder / f"{name}.hea")[0].waveform_digest for name in raw.signals}
    assert {row.tobytes() for row in ec.open(folder).index["waveform_digest"]} == expected


def test_all_refused_then_some_stored(make_cohort, tmp_path):
    raw, south, folder = make_cohort(patients=0), make_cohort("south", 2), tmp_path / "s.zarr"
    raw.add("short", np.ones((12, 500), np.int16))
    assert ingest(raw.folder, folder, str(raw.spec)).total.rejected == {"too_short": 1}
    ingest(south.folder, folder, str(south.spec))
    index = ec.open(folder).index
    assert index.cohorts == ("north", "south")
    assert len(index.where(cohort="north")) == 0
    assert ec.verify(folder).ok


def test_another_description_of_a_known_name_is_refused(make_cohort, tmp_path):
    raw, folder = make_cohort(patients=2), tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    raw.add("later", np.roll(next(iter(raw.signals.values())), 400, axis=1))
    raw.spec.write_text(raw.spec.read_text().replace("mains_hz: 50", "mains_hz: 60"))
    with pytest.raises(ec.SpecError, match="cohort 'north': the store's cohort of this name has another description"):
        ingest(raw.folder, folder, str(raw.spec))


def test_a_corrected_description_is_no_silent_nothing_new(make_cohort, tmp_path):
    """It would change nothing in the store, and whoever corrected it would believe that it had."""
    raw = make_cohort(patients=4)
    assert ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec)).written
    assert not ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec)).written
    corrected = raw.spec.with_name("corrected.yaml")
    corrected.write_text(raw.spec.read_text().replace("mains_hz: 50", "mains_hz: 60"))
    assert corrected.read_text() != raw.spec.read_text()
    with pytest.raises(ec.SpecError, match=r"has another description.*take all of this over: --update"):
        ingest(raw.folder, tmp_path / "s.zarr", str(corrected))


def test_a_failing_disk_stops_the_run_instead_of_refusing_recordings(make_cohort, tmp_path, monkeypatch):
    raw, folder = make_cohort(patients=2), tmp_path / "s.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("ecgcohorts.ingest.encode.make_strip", raising(OSError(5, "Input/output error")))
        with pytest.raises(MachineError, match=r"Input/output error.*run the same command again"):
            ingest(raw.folder, folder, str(raw.spec))
    assert ingest(raw.folder, folder, str(raw.spec)).total.stored == len(raw.signals)


def raising(error: Exception):
    def call(*args: object, **kwargs: object) -> None:
        raise error

    return call
