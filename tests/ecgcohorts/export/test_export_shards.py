"""Hugging Face and WebDataset folders, read with pyarrow, tarfile and their own libraries: every sample as stored."""

import contextlib
import gc
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import SpecError
from ecgcohorts.export import common, export_huggingface, export_webdataset, huggingface, webdataset
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.store import Store, open_store, save_split

BOTH = (export_huggingface, export_webdataset)
FACTS = ("cohort", "patient_id", "age", "sex", "valid_start", "valid_stop", "quality", "label_af")
NEEDS = "{} is not installed: make test-peers"


@pytest.fixture
def store(make_cohort: Callable[..., object], tmp_path: Path) -> Store:
    """Two cohorts with a split; one recording is short, so that its strip ends in missing samples, one has no label."""
    for seed, name in enumerate(("north", "south")):
        raw = make_cohort(name, patients=5, seed=seed)
        first = sorted(raw.signals)[0]
        raw.add(first, raw.signals[first][:, :3900], **{"Patient ID": "CANARYSHORT", "Sex": "F"})
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions())
    index = open_store(tmp_path / "s.zarr").index
    save_split(tmp_path / "s.zarr", splits.by_patient(index, {"train": 0.6, "test": 0.4}, "halves"))
    return open_store(tmp_path / "s.zarr")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three strips a Parquet file and a tar, read two and three at a time."""
    strip = 2 * 8 * 4000
    monkeypatch.setattr(common, "READ_AT_ONCE", 3)
    monkeypatch.setattr(huggingface, "READ_AT_ONCE", 3)
    monkeypatch.setattr(huggingface, "FILE_BYTES", 4 * strip)
    monkeypatch.setattr(webdataset, "SHARD_BYTES", 3 * (strip + 6 * 512) + tarfile.RECORDSIZE)


def from_parquet(path: Path) -> dict[str, tuple[np.ndarray, dict[str, object]]]:
    """recording id -> strip and the rest, by pyarrow alone."""
    table = pq.read_table(path)
    signal = table["signal"].combine_chunks()
    assert signal.type == pa.list_(pa.list_(pa.int16(), 4000), 8)
    strips = signal.flatten().flatten().to_numpy().reshape(-1, 8, 4000)
    assert json.loads(table.schema.metadata[b"ecgcohorts"])["lsb_uv"] == 1
    rows = table.drop_columns("signal").to_pylist()
    return {row["recording_id"]: (strip, row) for strip, row in zip(strips, rows, strict=True)}


def from_tar(path: Path) -> dict[str, tuple[np.ndarray, dict[str, object]]]:
    """The same of a shard, by tarfile alone."""
    found = {}
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        for array, row in zip(members[::2], members[1::2], strict=True):
            strip = np.load(io.BytesIO(tar.extractfile(array).read()), allow_pickle=False)
            values = json.loads(tar.extractfile(row).read())
            key = f"{values['cohort']}/{values['recording_id']}"
            assert (array.name, row.name) == (f"{key}.npy", f"{key}.json")
            found[values["recording_id"]] = strip, values
    return found


def shards_of(write: Callable[..., int], out: Path) -> list[Path]:
    return sorted((out / "data").iterdir()) if write is export_huggingface else sorted(out.glob("*.tar"))


def read_back(write: Callable[..., int], out: Path) -> list[dict[str, tuple[np.ndarray, dict[str, object]]]]:
    return [(from_parquet if write is export_huggingface else from_tar)(path) for path in shards_of(write, out)]


def as_expected(store: Store, found: dict[str, tuple[np.ndarray, dict[str, object]]], index: object = None) -> None:
    """Every strip sample by sample, every value, nothing more and nothing less, in the order of the index."""
    index = store.index if index is None else index
    frame = index.to_pandas()
    assert list(found) == frame["recording_id"].tolist()
    for (strip, values), (_, row) in zip(found.values(), frame.iterrows(), strict=True):
        np.testing.assert_array_equal(strip, store.read(row["row"])[0])
        for name in FACTS:
            assert values[name] == row[name] or (values[name] is None and pd.isna(row[name])), name
        assert set(values) - {"recording_id", "lsb_uv", "rate_hz", "leads"} == set(FACTS)


@pytest.mark.parametrize("write", BOTH)
def test_every_recording_reads_back_as_stored(store: Store, tmp_path: Path, small_shards: None, write) -> None:
    told: list[tuple[int, int]] = []
    assert write(store, tmp_path / "out", lambda *numbers: told.append(numbers)) == len(store.index) == 18
    assert [done for done, _ in told] == [3, 6, 9, 12, 15, 18]
    assert {total for _, total in told} == {18}
    shards = read_back(write, tmp_path / "out")
    assert [len(shard) for shard in shards] == [3] * 6
    as_expected(store, {key: value for shard in shards for key, value in shard.items()})
    assert sum((strip == -32768).any() for shard in shards for strip, _ in shard.values()) == 2  # the short ones
    facts = json.loads((tmp_path / "out" / "signals.json").read_text())
    assert (facts["lsb_uv"], facts["rate_hz"], facts["missing"]) == (store.lsb_uv, 400.0, -32768)
    assert facts["leads"] == list(store.recipe.leads)
    assert facts["store"] == store.fingerprint


@pytest.mark.parametrize("write", BOTH)
def test_the_same_store_gives_the_same_bytes(store: Store, tmp_path: Path, small_shards: None, write) -> None:
    contents = []
    for name in ("one", "two"):
        write(store, tmp_path / name)
        folder = tmp_path / name
        contents.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert contents[0] == contents[1]
    assert b"CANARY" not in b"".join(str(path).encode() + data for path, data in contents[0].items())
    assert str(tmp_path).encode() not in b"".join(contents[0].values())


@pytest.mark.parametrize("write", BOTH)
def test_parts_are_written_by_themselves(store: Store, tmp_path: Path, write) -> None:
    parts = ec.load_split(store, "halves").of(store.index)
    assert write(store, tmp_path / "out", parts=parts) == len(store.index)
    names = [path.name for path in shards_of(write, tmp_path / "out")]
    shards = dict(zip(names, read_back(write, tmp_path / "out"), strict=True))
    assert len(shards) == 2
    for name, index in parts.items():
        (found,) = (shard for file, shard in shards.items() if file.startswith(f"{name}-00000"))
        as_expected(store, found, index)


@pytest.mark.parametrize("write", BOTH)
def test_what_cannot_be_told_is_refused(store: Store, tmp_path: Path, write) -> None:
    nobody = store.index.take(np.zeros(len(store.index), bool))
    with pytest.raises(SpecError, match="no recordings in test"):
        write(store, tmp_path / "out", parts={"train": store.index, "test": nobody})
    if write is export_huggingface:
        with pytest.raises(SpecError, match="found a part 'hold-out'"):
            write(store, tmp_path / "out", parts={"hold-out": store.index})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("write", BOTH)
def test_an_export_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path, small_shards: None, write) -> None:
    def stop(done: int, total: int) -> None:
        if done > 6:
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        write(store, tmp_path / "out", stop)
    assert sorted(tmp_path.iterdir()) == before
    assert write(store, tmp_path / "out") == len(store.index)


@pytest.mark.parametrize("bytes_more", [0, 1])
def test_shards_fill_up_to_their_bound_and_no_further(store: Store, tmp_path: Path, monkeypatch, bytes_more) -> None:
    """Four samples take a shard's whole bound; a bound of one byte less holds three."""
    export_webdataset(store, tmp_path / "whole", parts={"four": store.index.take(np.arange(4))})
    with tarfile.open(tmp_path / "whole" / "four-000000.tar") as tar:
        last = tar.getmembers()[-1]
    four = last.offset_data + 512 * -(-last.size // 512)
    monkeypatch.setattr(webdataset, "SHARD_BYTES", four + tarfile.RECORDSIZE - bytes_more)
    export_webdataset(store, tmp_path / "out", parts={"four": store.index.take(np.arange(4))})
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(sizes) == 1 + bytes_more
    assert max(sizes) <= webdataset.SHARD_BYTES


def test_a_sample_larger_than_a_shard_has_one_of_its_own(store: Store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(webdataset, "SHARD_BYTES", 1)
    export_webdataset(store, tmp_path / "out")
    assert [len(shard) for shard in read_back(export_webdataset, tmp_path / "out")] == [1] * len(store.index)


# --- on the command line ---


@pytest.fixture
def run(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[str], str]:
    """run("--format wfdb") is `ecgcohorts export s.zarr out --format wfdb`: what it prints, or its last line of errors."""
    monkeypatch.chdir(store.path.parent)

    def call(words: str) -> str:
        with contextlib.suppress(SystemExit):
            cli.main(["export", "s.zarr", "out", *words.split()])
        told = capsys.readouterr()
        return told.out or told.err.splitlines()[-1]

    return call


@pytest.mark.parametrize("form", ["wfdb", "parquet", "huggingface", "webdataset"])
def test_some_recordings_only(store: Store, run: Callable[[str], str], form: str) -> None:
    # The key decides which half a patient is in, and south has few.
    train = ec.load_split(store, "halves").of(store.index)["train"]
    cohort = next(name for name in ("south", "north") if len(train.where(cohort=name)))
    index = train.where(cohort=cohort)
    said = run(f"--format {form} --cohort {cohort} --within halves=train")
    assert said == f"out: {len(index)} {'rows' if form == 'parquet' else 'records'}\n"
    ids = index.to_pandas()["recording_id"].tolist()
    out = store.path.parent / "out"
    if form == "wfdb":
        assert [line.split("/")[-1] for line in (out / "RECORDS").read_text().split()] == ids
    elif form == "parquet":
        assert pd.read_parquet(out)["recording_id"].tolist() == ids
    else:
        write = export_huggingface if form == "huggingface" else export_webdataset
        (found,) = read_back(write, out)
        as_expected(store, found, index)


def test_a_split_on_the_command_line(store: Store, run: Callable[[str], str]) -> None:
    assert run("--format webdataset --split halves") == "out: 18 records\n"
    names = [path.name for path in shards_of(export_webdataset, store.path.parent / "out")]
    assert names == ["test-000000.tar", "train-000000.tar"]


def test_what_is_not_there_is_one_line(run: Callable[[str], str]) -> None:
    for words, told in (
        ("--split halves", "found --split with --format wfdb, expected huggingface or webdataset"),
        ("--format parquet --split halves", "found --split with --format parquet"),
        ("--format webdataset --split thirds", "found no split 'thirds'"),
        ("--within halves=val", "found no part 'val' in split 'halves'"),
        ("--cohort east", "found no cohort 'east'"),
        ("--format edf", "expected one of 'wfdb', 'parquet', 'huggingface', 'webdataset'"),
    ):
        assert told in run(words)
        assert not Path("out").exists()


# --- with the libraries they are for ---


def test_hugging_face_datasets(store: Store, tmp_path: Path, small_shards: None, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason=NEEDS.format("datasets"))
    parts = ec.load_split(store, "halves").of(store.index)
    export_huggingface(store, tmp_path / "out", parts=parts)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    streamed = datasets.load_dataset(str(tmp_path / "out"), streaming=True)
    assert set(loaded) == set(streamed) == set(parts)
    for name, index in parts.items():
        rows = loaded[name].with_format("numpy", dtype=np.int16, columns=["signal"], output_all_columns=True)
        as_expected(store, {row["recording_id"]: (row.pop("signal"), row) for row in rows}, index)
        again = streamed[name].with_format("numpy")
        np.testing.assert_array_equal([row["signal"] for row in again], store.read(index["row"]))
    assert loaded["train"].features["signal"].length == 8  # a fixed shape, not lists of any length
    assert loaded["train"].features["signal"].feature.length == 4000
    assert loaded["train"].features["signal"].feature.feature == datasets.Value("int16")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "1 microvolts" in card
    assert "I, II, V1" in card


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves its files to the garbage collector
def test_webdataset_itself(store: Store, tmp_path: Path, small_shards: None) -> None:
    package = pytest.importorskip("webdataset", reason=NEEDS.format("webdataset"))
    export_webdataset(store, tmp_path / "out")
    shards = [str(path) for path in shards_of(export_webdataset, tmp_path / "out")]
    assert shards == [str(tmp_path / "out" / f"recordings-{number:06d}.tar") for number in range(6)]
    samples = list(package.WebDataset(shards, shardshuffle=False).decode())
    gc.collect()
    assert len(samples) == len(store.index)
    as_expected(store, {sample["json"]["recording_id"]: (sample["npy"], sample["json"]) for sample in samples})
