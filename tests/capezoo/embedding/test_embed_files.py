"""Raw files of any format to one table: the numbers of a store, bad files listed, killed runs resumed, nobody named."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import capezoo
import ecgcohorts as ec
from capezoo import encoders
from capezoo.embedding import files, listing
from capezoo.embedding.tables import as_given
from capezoo.specs import EncoderSpec, InputSpec
from ecgcohorts.errors import MachineError, RejectedRecording, SourceError, SpecError, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Recording

TINY = EncoderSpec(name="cape_resnet", config={"widths": [4, 4], "embedding_dim": 6, "kernel": 8})
FEATURES = [f"feature_{number}" for number in range(6)]


@pytest.fixture(scope="module")
def model():
    encoder = encoders.build(TINY, seed=0)
    encoder.spec = InputSpec()
    return encoder


@pytest.fixture
def raw(simulated: Path, tmp_path: Path) -> Path:
    """A folder of raw files of two formats, with a table beside them, as a hospital has it."""
    folder = tmp_path / "raw"
    for hospital, number in (("north", 40), ("river", 12)):
        (folder / hospital).mkdir(parents=True)
        for file in sorted((simulated / "raw" / hospital).rglob("*.*"))[:number]:
            shutil.copy(file, folder / hospital / file.name)
    return folder


def features_of(table: Path) -> np.ndarray:
    return pd.read_parquet(table)[FEATURES].to_numpy(np.float32)


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.round(5).T)]


def test_the_numbers_are_those_of_the_store(model, simulated, tmp_path):
    """The same strips as ingest makes, told the same mains."""
    done = capezoo.embed_files(model, simulated / "raw" / "north", tmp_path / "x.parquet", mains_hz=50.0)
    store = ec.open(simulated / "store.zarr")
    here = np.flatnonzero(store.index["cohort"] == store.index.cohorts.index("north"))
    wanted = capezoo.embed(model, store)[here]
    found = pd.read_parquet(done.table)
    assert done.records == len(found)
    unique = np.unique(found[FEATURES].to_numpy(np.float32).round(5), axis=0)
    # A store keeps copies once; a table has a row for every file.
    assert len(unique) == len(wanted)
    np.testing.assert_allclose(unique, np.unique(wanted.round(5), axis=0), atol=2e-5)
    assert set(found["rate_hz"]) == {500.0}
    assert found["file"].is_unique or found[["file", "entry"]].drop_duplicates().shape[0] == len(found)


def test_bad_files_are_listed_and_stop_nothing(model, raw, tmp_path):
    good = files.embed_files(model, raw, tmp_path / "good.parquet")
    (raw / "broken.scp").write_bytes(b"\x00\x01not an ECG" * 9)
    (raw / "half.xml").write_bytes(b'<?xml version="1.0"?><RestingECG><Patient')
    (raw / "notes.txt").write_text("a letter")
    done = files.embed_files(model, raw, tmp_path / "all.parquet")
    assert done.records == good.records
    refused = pd.read_csv(done.refused_list)
    assert {Path(file).name for file in refused["file"]} >= {"broken.scp", "half.xml"}
    assert refused["found"].str.len().min() > 0
    assert refused["what_to_do"].notna().all()
    assert done.refused == len(refused) == sum(done.reasons.values())
    assert any("text" in what for what in done.others)
    np.testing.assert_array_equal(features_of(done.table), features_of(good.table))


def test_a_killed_run_goes_on(model, raw, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "TOGETHER", 8)
    whole = files.embed_files(model, raw, tmp_path / "whole.parquet", workers=2)
    asked = []

    def dies_at(limit):
        def computed(*arguments):
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(len(arguments[1]))
            return real(*arguments)

        return computed

    real = files.features
    monkeypatch.setattr(files, "features", dies_at(2))
    with pytest.raises(KeyboardInterrupt):
        files.embed_files(model, raw, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()
    kept = sorted((tmp_path / ".x.parquet.part" / "parts").iterdir())
    assert len(kept) == 2
    # A damaged portion is made again.
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    monkeypatch.setattr(files, "features", dies_at(-1))
    asked.clear()
    done = files.embed_files(model, raw, tmp_path / "x.parquet")
    assert sum(asked) < done.records
    assert len(asked) == -(-done.records // 8) - 1
    assert done.table.read_bytes() == whole.table.read_bytes()
    assert not (tmp_path / ".x.parquet.part").exists()


def test_what_another_run_left_is_not_mixed_in(model, raw, tmp_path, monkeypatch, caplog):
    finish = files._finished
    monkeypatch.setattr(files, "_finished", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.embed_files(model, raw / "river", tmp_path / "x.parquet", mains_hz=None)
    monkeypatch.setattr(files, "_finished", finish)
    done = files.embed_files(model, raw / "river", tmp_path / "x.parquet", mains_hz=50.0)
    assert "dropped what was left of another table" in caplog.text
    fresh = files.embed_files(model, raw / "river", tmp_path / "y.parquet", mains_hz=50.0)
    np.testing.assert_array_equal(features_of(done.table), features_of(fresh.table))


def test_a_replaced_signal_beside_an_unchanged_header_is_noticed(raw):
    with ExitStack() as held:
        found = listing.listing([raw / "north"], held)
        before = files._digest(found)
        signal = next((raw / "north").rglob("*.dat"))
        signal.write_bytes(signal.read_bytes()[:-2] + b"\x01\x01\x01")
        assert files._digest(found) != before


def test_all_tables_hold_the_same(model, raw, tmp_path):
    import zarr

    tables = {suffix: files.embed_files(model, raw / "river", tmp_path / f"x{suffix}").table
              for suffix in (".parquet", ".csv", ".npz", ".zarr")}  # fmt: skip
    parquet, csv = pd.read_parquet(tables[".parquet"]), pd.read_csv(tables[".csv"], keep_default_na=False)
    np.testing.assert_array_equal(csv[FEATURES].to_numpy(np.float32), parquet[FEATURES])
    assert csv["file"].tolist() == parquet["file"].tolist()
    for arrays in (np.load(tables[".npz"]), zarr.open_group(tables[".zarr"], mode="r")):
        np.testing.assert_array_equal(arrays["features"][:], parquet[FEATURES])
        assert list(arrays["file"][:]) == parquet["file"].tolist()


def test_nobody_is_named_unless_asked(model, raw, tmp_path):
    plain = files.embed_files(model, raw / "river", tmp_path / "x.parquet")
    named = files.embed_files(model, raw / "river", tmp_path / "named.parquet", with_header=True)
    columns = {"patient_id", "age_years", "sex", "acquired_at", "device"}
    assert not columns & set(pd.read_parquet(plain.table))
    ids = pd.read_parquet(named.table)["patient_id"].dropna()
    assert len(ids) > 0
    written = plain.table.read_bytes() + plain.table.with_suffix(".json").read_bytes()
    assert not any(one.encode() in written for one in ids if len(one) > 5)


def test_archives_and_lists_of_files_give_the_same(model, raw, tmp_path):
    folder = files.embed_files(model, raw / "river", tmp_path / "folder.parquet")
    with zipfile.ZipFile(tmp_path / "river.zip", "w") as archive:
        for path in sorted((raw / "river").iterdir()):
            archive.write(path, path.name)
    zipped = files.embed_files(model, tmp_path / "river.zip", tmp_path / "zip.parquet")
    np.testing.assert_array_equal(in_order(features_of(zipped.table)), in_order(features_of(folder.table)))
    assert pd.read_parquet(zipped.table)["file"].str.startswith(f"{tmp_path / 'river.zip'}#").all()
    named = pd.read_parquet(folder.table)["file"].unique().tolist()
    listed = files.embed_files(model, named, tmp_path / "listed.parquet")
    np.testing.assert_array_equal(features_of(listed.table), features_of(folder.table))


def test_bare_arrays_as_described(model, signals, tmp_path):
    x = np.stack(signals)
    np.save(tmp_path / "x.npy", x)
    how = ArrayDescription(kind="npy", rate_hz=500, unit="mV", leads=TWELVE_LEADS, axes="record_lead_time")
    done = files.embed_files(model, tmp_path / "x.npy", tmp_path / "x.parquet", arrays=how)
    np.testing.assert_array_equal(
        features_of(done.table), capezoo.embed(model, x, rate_hz=500, leads=list(TWELVE_LEADS), unit="mV")
    )
    assert pd.read_parquet(done.table)["entry"].tolist() == ["0", "1", "2", "3", "4"]
    with pytest.raises(SourceError, match=r"found no recording \(1 undescribed array: NumPy\), expected ECG files"):
        files.embed_files(model, tmp_path / "x.npy", tmp_path / "y.parquet")


@pytest.mark.parametrize(
    ("out", "message"),
    [("x.xlsx", r"found suffix '.xlsx', expected one of .parquet"), ("there.csv", "found something there")],
)
def test_a_table_of_another_kind_is_refused_before_anything_is_read(model, tmp_path, out, message):
    (tmp_path / "there.csv").touch()
    with pytest.raises(SpecError, match=message):
        files.embed_files(model, tmp_path / "nowhere", tmp_path / out)
    with pytest.raises(SourceError, match="found no such folder or file"):
        files.embed_files(model, tmp_path / "nowhere", tmp_path / "x.csv")


def test_a_process_that_dies_is_said(model, raw, tmp_path, monkeypatch):
    def died(self, tasks, encode):
        raise files.WorkerDied(next(iter(tasks)), "was killed by the system, most likely for lack of memory")
        yield

    monkeypatch.setattr(files.InProcess, "run", died)
    with pytest.raises(MachineError, match=r"a process that read files from .*river.* was killed by the system"):
        files.embed_files(model, raw / "river", tmp_path / "x.csv")


def test_the_record_of_how_it_was_made(model, raw, tmp_path):
    done = files.embed_files(model, raw / "river", tmp_path / "x.csv", name="mine", card="c" * 64)
    said = json.loads((tmp_path / "x.json").read_text())
    assert said["name"] == "mine"
    assert said["input"]["recipe"] == "cape-v1"
    assert said["records"] == done.records == sum(said["adapted"].values())


def test_processes_that_decode_load_no_torch():
    code = "import sys, capezoo.embedding.decoding; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_recordings_and_tensors_in_python(model, signals, raw):
    path = next(path for path in sorted((raw / "river").iterdir()) if path.suffix not in (".csv", ".yaml", ".dat"))
    one = capezoo.embed(model, path)
    assert one.shape == (1, 6)
    np.testing.assert_array_equal(capezoo.embed(model, ec.read(path)), one)
    np.testing.assert_array_equal(capezoo.embed(model, ec.read(path)[0]), one)
    given = {"rate_hz": 500, "leads": list(TWELVE_LEADS), "unit": "mV"}
    wanted = capezoo.embed(model, np.stack(signals), **given)
    np.testing.assert_array_equal(capezoo.embed(model, torch.from_numpy(np.stack(signals)), **given), wanted)
    # Of several lengths: a list, where an array would need one.
    shorter = [signals[0], signals[1][:, :4500]]
    np.testing.assert_allclose(capezoo.embed(model, shorter, **given)[0], wanted[0], rtol=1e-5, atol=1e-6)


def test_errors_of_single_recordings_may_become_rows_of_nan(model, signals, tmp_path):
    flat = Recording("secret", TWELVE_LEADS, 500.0, analog_mv=np.zeros((12, 5000)))
    good = Recording("secret", TWELVE_LEADS, 500.0, analog_mv=signals[0])
    with pytest.raises(RejectedRecording, match="record 1: found nothing but 0 mV") as caught:
        capezoo.embed(model, [good, flat])
    assert "secret" not in str(caught.value)
    lead_one = Recording("one", ("I",), 500.0, analog_mv=signals[0][:1])
    (tmp_path / "bad.xml").write_text("<x/>")
    found = capezoo.embed(model, [good, flat, tmp_path / "bad.xml", lead_one, good], on_error="nan")
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, True, False]
    np.testing.assert_array_equal(found[0], found[4])
    with pytest.raises(UnreadableRecording, match=r"bad\.xml: found a file that fits no reader"):
        capezoo.embed(model, tmp_path / "bad.xml")
    with pytest.raises(SpecError, match="beside a recording, expected none"):
        capezoo.embed(model, good, rate_hz=500)


def a_file_of(raw: Path) -> Path:
    return next(path for path in sorted((raw / "river").iterdir()) if path.suffix not in (".csv", ".yaml", ".dat"))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".zarr"])
def test_a_table_without_rows_has_its_columns(model, tmp_path, suffix):
    """All was refused: the command must end with its list of reasons, not with an error of the disk."""
    import zarr

    np.save(tmp_path / "flat.npy", np.zeros((2, 12, 5000)))
    how = ArrayDescription(kind="npy", rate_hz=500, unit="mV", leads=TWELVE_LEADS, axes="record_lead_time")
    done = files.embed_files(model, tmp_path / "flat.npy", tmp_path / f"x{suffix}", arrays=how)
    assert (done.records, done.refused) == (0, 2)
    if suffix in (".parquet", ".csv"):
        found = {".parquet": pd.read_parquet, ".csv": pd.read_csv}[suffix](done.table)
        assert list(found)[-6:] == FEATURES
        assert len(found) == 0
    else:
        arrays = np.load(done.table) if suffix == ".npz" else zarr.open_group(done.table, mode="r")
        assert arrays["features"].shape == (0, 6)


def test_names_of_any_bytes(model, raw, tmp_path):
    """Old Windows exports have names that are no UTF-8; no table can hold these, and one must not stop the others."""
    strange = tmp_path / "strange"
    strange.mkdir()
    file = a_file_of(raw)
    for name in (b"caf\xe9", "größe, 心".encode(), b"two\nlines"):
        shutil.copy(file, Path(os.fsdecode(os.fsencode(strange) + b"/" + name + file.suffix.encode())))
    (strange / os.fsdecode(b"bad\xff.scp")).write_bytes(b"\x00\x01not an ECG" * 9)
    done = files.embed_files(model, strange, tmp_path / "x.csv")
    names = {name.removeprefix(f"{strange}/") for name in pd.read_csv(done.table)["file"]}
    assert names == {f"{name}{file.suffix}" for name in ("caf\\xe9", "größe, 心", "two\nlines")}
    assert pd.read_csv(done.refused_list)["file"].tolist() == [f"{strange}/bad\\xff.scp"]


def test_sources_that_overlap_give_a_row_for_each_file(model, raw, tmp_path):
    whole = files.embed_files(model, raw / "river", tmp_path / "whole.csv")
    (tmp_path / "link").symlink_to(raw / "river")
    again = [raw / "river", a_file_of(raw), tmp_path / "link", raw / "north" / ".." / "river"]
    assert files.embed_files(model, again, tmp_path / "again.csv").records == whole.records


@pytest.mark.parametrize("changed", ["unit", "archive"])
def test_portions_of_changed_input_are_not_taken(model, signals, tmp_path, monkeypatch, changed):
    """What an earlier run left must be of the same archive and the same description of arrays."""
    x = np.stack(signals[:2])
    how = ArrayDescription(kind="npy", rate_hz=500, unit="mV", leads=TWELVE_LEADS, axes="record_lead_time")

    def put(signals, name):
        np.save(tmp_path / "x.npy", signals)
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("README.txt", "an archive of arrays alone would be one of NumPy")
            archive.write(tmp_path / "x.npy", "x.npy")
        return files.embed_files(model, tmp_path / "x.zip", tmp_path / name, arrays=how)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_finished", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put(x, "x.parquet")
    if changed == "unit":
        how = how.model_copy(update={"unit": "uV"})
        x = x * 500
    else:
        x = x[:, ::-1]
    found = features_of(put(x, "x.parquet").table)
    np.testing.assert_array_equal(found, features_of(put(x, "fresh.parquet").table))


def test_what_stands_beside_a_table_is_replaced_only_if_it_is_ours(model, raw, tmp_path):
    file = a_file_of(raw)
    (tmp_path / "x.json").write_text('{"labels": "of years"}')
    with pytest.raises(SpecError, match=r"x\.json: found a file that would be replaced"):
        files.embed_files(model, file, tmp_path / "x.csv")
    assert (tmp_path / "x.json").read_text() == '{"labels": "of years"}'
    (tmp_path / "bad.scp").write_bytes(b"\x00\x01not an ECG" * 9)
    done = files.embed_files(model, [file, tmp_path / "bad.scp"], tmp_path / "y.csv")
    done.table.unlink()
    files.embed_files(model, file, tmp_path / "y.csv")
    assert not done.refused_list.exists()


def test_no_cell_of_a_csv_is_a_formula(model, raw, tmp_path, monkeypatch):
    """A spreadsheet runs what begins with one of these signs, and names of files come from elsewhere."""
    monkeypatch.chdir(tmp_path)
    file = a_file_of(raw)
    names = [f"{start}cmd|x{file.suffix}" for start in "=@+-"]
    for name in names:
        shutil.copy(file, name)
    Path("=bad.scp").write_bytes(b"\x00\x01not an ECG" * 9)
    done = files.embed_files(model, [*names, "=bad.scp"], "x.csv")
    found = pd.read_csv(done.table)["file"]
    assert found.tolist() == [f"'{name}" for name in names]
    assert pd.read_csv(done.refused_list)["file"].tolist() == ["'=bad.scp"]
    assert as_given(found).tolist() == names
    assert as_given(pd.Series(["'quoted'", "-5"])).tolist() == ["'quoted'", "-5"]
