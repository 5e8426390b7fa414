"""Stores whose checksums are all right and whose names, numbers or links are not: refused when they are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.errors import EcgError, SourceError, SpecError, StoreError
from ecgcohorts.export.wfdb import export_wfdb
from ecgcohorts.index import splits
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.ingest.plan import PlannedCohort
from ecgcohorts.io.durable import make_folder
from ecgcohorts.report.html import report
from ecgcohorts.store import load_split, open_stores, save_split
from ecgcohorts.store.columns import write_column
from ecgcohorts.store.commit import changing, writer_lock
from ecgcohorts.store.remote.copy import copy_store

NAMES = (
    "../../payload.txt", "/tmp/payload.txt", "..", "signals/../../x", "signals/north/../x", "./zarr.json", "zarr.json/", "",
    "signals//zarr.json", "payload.txt", "CURRENT", "lock", "manifest-000001.json", ".staging/x", "signals\\north", "C:/x",
    "s3://other/x", "zarr.json\0", "zarr.json\n", "index/000003/age/c/0/../../../x", "splits/../x/000001/zarr.json",
    "splits/a/000001/part/c/0.part", "\x1b[2Jzarr.json",
)  # fmt: skip


def _segment(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["segments"][0]


FIELDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "cohort up": lambda m: m.update(cohorts=["../../x", "coast"]),
    "cohort at the root": lambda m: m.update(cohorts=["/x", "coast"]),
    "cohort dot": lambda m: m.update(cohorts=[".", "coast"]),
    "cohort of control characters": lambda m: m.update(cohorts=["\x1b[2J", "coast"]),
    "cohort of a segment": lambda m: _segment(m).update(cohort="../../x"),
    "name of a segment": lambda m: _segment(m).update(name="../000001"),
    "column": lambda m: m.update(index_columns=[*m["index_columns"], "../../x"]),
    "number of the snapshot": lambda m: m.update(generation=-3),
    "another number": lambda m: m.update(generation=4),
    "huge number": lambda m: m.update(generation=10**9),
    "snapshot before": lambda m: m.update(earlier=[{"manifest": "../manifest-000001.json", "sha256": "0" * 64}]),
    "snapshot after": lambda m: m.update(earlier=[{"manifest": "manifest-000009.json", "sha256": "0" * 64}]),
    "rows": lambda m: _segment(m).update(rows=2**62),
    "a row too many": lambda m: _segment(m).update(rows=5),
    "rows of a shard": lambda m: _segment(m).update(shard_records=2**40),
    "small shards": lambda m: _segment(m).update(shard_records=1, rows=2**40),
    "first row": lambda m: _segment(m).update(first_row=2**40),
    "size": lambda m: m["files"]["zarr.json"].update(size=2**60),
    "no shard": lambda m: m["files"].pop("signals/north/000001/c/0/0/0"),
}


def _refused(store: str | Path, message: str | None = None) -> None:
    """No function and no command takes the store, and each says so in one line that a terminal can show."""
    for use in (ec.open, ec.verify, lambda one: open_stores([one])):
        with pytest.raises(StoreError, match=message) as caught:
            use(store)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_no_store_is_refused(hostile, tmp_path, name):
    hostile.manifest["files"][name] = {"size": 0, "sha256": "0" * 64}
    (tmp_path / "payload.txt").write_bytes(b"")
    _refused(hostile.seal(), "manifest is damaged at files")
    target = tmp_path / "b" / "c" / "copy.zarr"
    with pytest.raises(StoreError):
        copy_store(hostile.folder, target)
    assert not target.parent.parent.exists()


@pytest.mark.parametrize("field", FIELDS)
def test_names_and_numbers_are_not_believed(hostile, field):
    FIELDS[field](hostile.manifest)
    _refused(hostile.seal())


@pytest.mark.parametrize("field", ["cohort up", "rows", "a row too many"])
def test_those_of_a_bucket_neither(hostile, as_bucket, field):
    FIELDS[field](hostile.manifest)
    url = as_bucket(hostile.seal())
    _refused(url)
    with pytest.raises(StoreError):
        copy_store(url, hostile.folder.parent / "copy.zarr")


def test_a_whole_bucket_opens(hostile, as_bucket):
    assert len(ec.open(as_bucket(hostile.seal())).index) == len(ec.open(hostile.folder).index)


def test_a_name_that_leads_out_of_a_bucket_is_refused(hostile, as_bucket):
    hostile.manifest["files"]["../other/x"] = {"size": 0, "sha256": "0" * 64}
    _refused(as_bucket(hostile.seal()), "damaged at files")


def test_one_of_several_stores_is_enough(hostile, tmp_path):
    shutil.copytree(hostile.folder, tmp_path / "good.zarr")
    FIELDS["cohort up"](hostile.manifest)
    with pytest.raises(StoreError, match="damaged at cohorts"):
        open_stores([tmp_path / "good.zarr", hostile.seal()])


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("row", 2**40), ("row", -1), ("cohort", 7), ("site", 99), ("device", -2), ("sex", 5), ("valid_stop", 10**6),
        ("valid_start", -1), ("patient", 2**50),
    ],
)  # fmt: skip
def test_an_index_of_impossible_values_is_refused(hostile, tmp_path, column, values):
    good = ec.open(hostile.folder).index[column]
    bad = good.copy()
    bad[-1] = values
    write_column(tmp_path / "column", bad)
    for path in (tmp_path / "column").rglob("*"):
        if path.is_file():
            name = path.relative_to(tmp_path / "column").as_posix()
            hostile.put(f"index/000003/{column}/{name}", path.read_bytes())
    _refused(hostile.seal(), f"{column}: found values that no row of the store has")


LINKS = ("zarr.json", "CURRENT", "signals/north/000001/c/0/0/0", "rejects-000003.parquet", "manifest-000003.json")


@pytest.mark.parametrize("name", [*LINKS, "signals", "signals/north/000001/c", "index/000003/age"])
def test_a_link_to_the_same_bytes_is_refused(hostile, tmp_path, name):
    path, aside = hostile.folder / name, tmp_path / "aside"
    path.rename(aside)
    path.symlink_to(aside)
    with pytest.raises(EcgError):
        ec.open(hostile.folder)
    with pytest.raises(EcgError):
        copy_store(hostile.folder, tmp_path / "copy.zarr")
    with pytest.raises(StoreError), changing(hostile.folder):
        pass


@pytest.mark.parametrize("name", [".staging", "splits", "signals/later", "index/000009"])
def test_no_writer_follows_a_link(hostile, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (hostile.folder / name).symlink_to(outside)
    ec.open(hostile.folder)  # what the snapshot names is whole
    split = splits.by_patient(ec.open(hostile.folder).index, {"train": 0.5, "test": 0.5}, "a")
    with pytest.raises(StoreError, match="found a link, which no store holds"):
        save_split(hostile.folder, split)
    good = tmp_path / "good.zarr"
    shutil.copytree(hostile.folder, good, symlinks=True)
    (good / name).unlink()
    with pytest.raises(StoreError, match="found a link"):
        copy_store(good, hostile.folder)
    assert not list(outside.iterdir())


def test_the_lock_makes_no_file_elsewhere(hostile, tmp_path):
    (hostile.folder / "lock").unlink()
    (hostile.folder / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(EcgError), writer_lock(hostile.folder):
        pass
    with pytest.raises(StoreError, match="found a link"), changing(hostile.folder):
        pass
    assert not (tmp_path / "made").exists()


def test_a_store_reached_by_a_link_opens(hostile, tmp_path):
    (tmp_path / "by_link").symlink_to(hostile.folder)
    assert ec.verify(tmp_path / "by_link").ok


@pytest.mark.parametrize("part", ["../../x", "/x", ".", "", "a/b", "a\\b", "\x1b[2J", "a\n", "x" * 101])
def test_a_part_is_no_path(hostile, part):
    index = ec.open(hostile.folder).index
    with pytest.raises(SpecError, match="without a slash or a leading dot") as caught:
        splits.by_patient(index, {part: 0.5, "test": 0.5}, "a")
    assert str(caught.value).isprintable()
    with pytest.raises(SpecError, match="without a slash"):
        splits.leave_cohort_out(index, "coast", "a", {"train": 1.0}) and splits.make_split(
            index, "a", {"kind": "cohort", "cohort": "coast", "fractions": {"train": 1.0}, "seed": "", "left_out": part}
        )


@pytest.mark.parametrize("change", ["part", "name", "nested"])
def test_a_split_from_elsewhere_is_checked(hostile, change):
    save_split(hostile.folder, splits.by_patient(ec.open(hostile.folder).index, {"train": 0.5, "test": 0.5}, "a"))
    again = type(hostile)(hostile.folder)
    name = next(one for one in again.manifest["files"] if one.startswith("splits/a/0") and one.count("/") == 3)
    group = json.loads((hostile.folder / name).read_bytes())
    definition = group["attributes"]["split"]
    if change == "part":
        definition["rule"]["fractions"] = {"../../x": 0.5, "test": 0.5}
    elif change == "name":
        definition["name"] = "b"
    else:
        group["attributes"]["split"] = json.loads("[" * 900 + "]" * 900)
    again.put(name, json.dumps(group).encode())
    store = ec.open(again.seal())
    with pytest.raises(StoreError, match="Restore it from a copy"):
        load_split(store, "a")


@pytest.mark.parametrize("name", ["../../x", "/x", ".", "North", "", "x" * 65])
def test_a_cohort_of_a_plan_is_no_path(name):
    with pytest.raises(ValueError, match="name"):
        PlannedCohort(name=name, rows=1, refused=0)


@pytest.mark.parametrize("name", ["../../x", "/x", "a\\b", ".x", ""])
def test_exports_check_the_names_they_are_given(hostile, tmp_path, name):
    store = ec.open(hostile.folder)
    index = CohortIndex(store.index.columns, (name, "coast"), store.index.sites, store.index.devices)
    out = tmp_path / "deep" / "er" / "out"
    make_folder(out.parent)
    for export in (lambda: export_wfdb(store, out, index=index), lambda: _webdataset(store, out, {name: store.index})):
        with pytest.raises(StoreError, match="whose file would lie elsewhere"):
            export()
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["er"]


def _webdataset(store: ec.Store, out: Path, parts: dict[str, CohortIndex]) -> int:
    from ecgcohorts.export.webdataset import export_webdataset

    return export_webdataset(store, out, parts=parts)


def test_no_report_is_written_into_a_store(hostile, tmp_path, capsys):
    store = ec.open(hostile.folder)
    (tmp_path / "elsewhere").symlink_to(hostile.folder)
    for out in (hostile.folder / "CURRENT", tmp_path / "elsewhere" / "report.html"):
        with pytest.raises(SourceError, match="lies in the store"):
            report(store, out)
    with pytest.raises(SystemExit) as ended:
        main(["plot", str(hostile.folder), str(store.index["row"][0]), "--out", str(hostile.folder / "x.svg")])
    assert ended.value.code == 2
    assert "lies in the store" in capsys.readouterr().err
    assert ec.verify(hostile.folder).ok


def test_export_refuses_as_the_command_does(hostile, tmp_path, capsys):
    FIELDS["cohort up"](hostile.manifest)
    out = str(tmp_path / "o" / "out")
    for command, *options in (("export", out), ("info",), ("verify",), ("report", "--out", out)):
        with pytest.raises(SystemExit) as ended:
            main([command, str(hostile.seal()), *options])
        assert ended.value.code == 2
        text = capsys.readouterr().err
        assert "damaged at cohorts" in text
        assert len(text.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
