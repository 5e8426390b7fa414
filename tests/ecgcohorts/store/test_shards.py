"""The direct shard reader against zarr-python, which wrote the arrays, and against damage."""

import json
import multiprocessing
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.codecs.numcodecs import PCodec

from ecgcohorts.errors import StoreError
from ecgcohorts.io import place
from ecgcohorts.store.signals import array_metadata, chunks, shards
from ecgcohorts.store.signals.shards import ShardedArray

LEADS, TIME, SHARD = 8, 50, 16
FILL = -32768
BLOSC = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2)


def write(
    folder: Path, rows: int = 100, compressors: tuple[Any, ...] = (BLOSC, Crc32cCodec()), serializer: Any = "auto"
) -> np.ndarray:
    """Write smooth rows, row 37 and rows 64 to 79 (one whole shard) left at fill; return what zarr reads back."""
    array = zarr.create_array(
        folder,
        shape=(rows, LEADS, TIME),
        chunks=(1, LEADS, TIME),
        shards=(SHARD, LEADS, TIME),
        dtype="int16",
        fill_value=FILL,
        compressors=compressors,
        serializer=serializer,
        attributes={"lsb_uv": 1.0},
    )
    rng = np.random.default_rng(0)
    signal = np.cumsum(rng.integers(-9, 10, (rows, LEADS, TIME)), axis=2).astype(np.int16)
    signal[37] = FILL
    signal[64:80] = FILL
    for start in range(0, rows, SHARD):
        array[start : start + SHARD] = signal[start : start + SHARD]
    return zarr.open_array(folder, mode="r")[:]


def shard_path(folder: Path, number: int) -> Path:
    return folder / "c" / str(number) / "0" / "0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "signals")
    return tmp_path / "signals"


CHAINS: dict[str, Callable[[], dict[str, Any]]] = {
    "blosc": lambda: {},
    "plain": lambda: {"compressors": (Crc32cCodec(),)},
    "pcodec": lambda: {"serializer": PCodec(level=8), "compressors": (Crc32cCodec(),)},
}


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
@pytest.mark.parametrize("chain", CHAINS)
def test_equals_zarr_in_any_order_with_repeats(tmp_path, chain):
    expected = write(tmp_path / "a", **CHAINS[chain]())
    array = ShardedArray(tmp_path / "a")
    assert array.shape == expected.shape
    rng = np.random.default_rng(1)
    present = np.flatnonzero((np.arange(100) < 64) | (np.arange(100) >= 80))
    for rows in (present, present[::-1], rng.choice(present, 300), np.array([99]), np.array([], int), [3, 3, 2, 3]):
        np.testing.assert_array_equal(array.read(rows), expected[rows])


def test_windows_are_parts_of_whole_strips(folder):
    """In any order, with repeats, some at the end of a strip, some empty, some of a record never written."""
    array, rng = ShardedArray(folder), np.random.default_rng(4)
    rows = rng.integers(0, 64, 200)
    rows[:3] = 37, 37, 5
    first = rng.integers(0, TIME, 200)
    length = np.minimum(rng.integers(0, 31, 200), TIME - first)
    targets = rng.permutation(210)[:200]
    out = np.full((210, LEADS, 30), 7, np.int16)
    array.read_into(rows, out, targets, shards.Windows(first, length), threads=3)
    for row, start, n, target in zip(rows, first, length, targets, strict=True):
        np.testing.assert_array_equal(out[target, :, :n], array.read([row])[0, :, start : start + n])
        assert (out[target, :, n:] == FILL).all()
    untouched = np.setdiff1d(np.arange(210), targets)
    assert (out[untouched] == 7).all()


@pytest.mark.parametrize(
    ("first", "length"), [([-1, 0], [3, 3]), ([0, 48], [3, 3]), ([0, 0], [3, 31]), ([0, 0], [-1, 3])]
)
def test_windows_outside_the_strip_are_refused(folder, first, length):
    windows = shards.Windows(np.array(first), np.array(length))
    with pytest.raises(ValueError, match="expected parts of 0 to 50"):
        ShardedArray(folder).read_into(np.array([0, 1]), np.empty((2, LEADS, 30), np.int16), windows=windows)


def test_without_the_symbol_numcodecs_decodes(folder, monkeypatch):
    expected = ShardedArray(folder).read(np.arange(40))
    monkeypatch.setattr(chunks, "_decompress", chunks._by_numcodecs)
    np.testing.assert_array_equal(ShardedArray(folder).read(np.arange(40)), expected)


def test_this_machine_decodes_by_address():
    """If a new numcodecs hides the symbol, reading is slower and nobody would notice."""
    if sys.platform != "linux":
        pytest.skip("looked at on Linux only")
    assert chunks._decompress is not chunks._by_numcodecs


def test_a_record_never_written_reads_as_fill(folder):
    assert (ShardedArray(folder).read([36, 37, 38])[1] == FILL).all()


def test_whole_shard_missing_is_an_error_not_fill(folder):
    """zarr reads it as fill: a deleted file would train as silence."""
    assert not shard_path(folder, 4).exists()
    with pytest.raises(StoreError, match=r"c/4/0/0: found no readable shard .* again"):
        ShardedArray(folder).read([1, 70])


def counted_reads(monkeypatch) -> list[int]:
    """The size of every read from here on, without questions whether something is in memory."""
    real, asked = os.preadv, []

    def preadv(fd: int, buffers: Any, at: int, *flags: int) -> int:
        if not flags:
            asked.append(sum(len(buffer) for buffer in buffers))
        return real(fd, buffers, at, *flags)

    monkeypatch.setattr(os, "preadv", preadv)
    return asked


def test_random_records_read_only_their_own_bytes(folder, monkeypatch):
    """A large merging gap once read 13.6 times the bytes needed."""
    asked = counted_reads(monkeypatch)
    array = ShardedArray(folder)
    rows = np.random.default_rng(2).permutation(64)[:20]
    array.read(rows)
    asked.clear()
    array.read(rows)
    needed = int(array._places[rows, 1][array._places[rows, 1] != shards.ABSENT].sum())
    assert sum(asked) <= 1.1 * needed


def test_neighbouring_records_come_in_one_read_from_a_disk(folder, monkeypatch):
    monkeypatch.setattr(place.Folder, "in_memory", lambda *_: False)
    array = ShardedArray(folder)
    array.read([0, 40])
    asked = counted_reads(monkeypatch)
    array.read([5, 3, 40, 41])  # two pairs, one with a gap of a record inside
    assert len(asked) == 2


def test_what_is_in_memory_is_read_without_the_gaps(folder, monkeypatch):
    array = ShardedArray(folder)
    array.read([0, 40])
    monkeypatch.setattr(place.Folder, "in_memory", lambda *_: True)
    asked = counted_reads(monkeypatch)
    found = array.read([5, 3, 40, 41])
    assert len(asked) == 3
    assert sum(asked) == array._places[[3, 5, 40, 41], 1].sum()
    np.testing.assert_array_equal(found, zarr.open_array(folder, mode="r")[:][[5, 3, 40, 41]])


def test_a_page_just_written_is_in_memory(folder):
    files = place.Folder(folder)
    if place.NOWAIT is None or not files.in_memory("c/0/0/0", 0):
        pytest.skip("this system or file system cannot tell what is in memory")
    assert not files.in_memory("c/0/0/0", 1 << 40)  # past the end


def test_every_single_bit_flip_is_detected(folder):
    """300 flips anywhere in a shard: data or index, the read of all its records raises; none returns."""
    path = shard_path(folder, 0)
    intact = path.read_bytes()
    rng = np.random.default_rng(3)
    undetected = []
    for bit in rng.choice(len(intact) * 8, 300, replace=False).tolist():
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            ShardedArray(folder, threads=1).read(np.arange(SHARD))
            undetected.append(bit)
        except StoreError as error:
            assert str(path) in str(error)  # noqa: PT017 - which flip got through matters more
    assert undetected == []


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_shard_names_itself(folder, keep):
    path = shard_path(folder, 1)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"c/1/0/0: found .* expected .* Restore"):
        ShardedArray(folder).read([20])


def test_a_shard_cut_after_its_index_was_read(folder):
    array = ShardedArray(folder)
    array.read([16])
    os.truncate(shard_path(folder, 1), 10)
    with pytest.raises(StoreError, match="found 0 bytes at"):
        array.read([30])


def test_an_index_pointing_outside_is_refused_even_with_a_good_checksum(folder):
    path = shard_path(folder, 0)
    data = bytearray(path.read_bytes())
    at = len(data) - (16 * SHARD + 4)
    data[at : at + 8] = (2**63).to_bytes(8, "little")
    data[-4:] = shards.google_crc32c.value(bytes(data[at:-4])).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(StoreError, match="pointing outside"):
        ShardedArray(folder).read([0])


def test_a_frame_of_another_size_is_refused_even_with_a_good_checksum(folder):
    """The C decoder believes the frame's own sizes."""
    array = ShardedArray(folder)
    array.read([0])
    offset, size = (int(x) for x in array._places[0])
    path = shard_path(folder, 0)
    data = bytearray(path.read_bytes())
    data[offset + 4 : offset + 8] = (1 << 20).to_bytes(4, "little")
    data[offset + size - 4 : offset + size] = shards.google_crc32c.value(
        bytes(data[offset : offset + size - 4])
    ).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(StoreError, match="record 0 in another encoding"):
        ShardedArray(folder).read([0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data_type": "float32"}, "data_type"),
        ({"zarr_format": 2}, "zarr_format"),
        ({"shape": [10**12, LEADS, TIME]}, "shape"),
        ({"shape": [100, LEADS, TIME + 1]}, "inner chunks"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 30, LEADS, TIME]}}}, "shards of"),
        ({"fill_value": 70000}, "fill_value"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}, "codecs.0"),
        ({"surprise": 1}, "surprise"),
        ({"node_type": None}, "node_type"),
    ],
)
def test_another_layout_is_refused_by_name(folder, change, named):
    path = folder / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=named):
        ShardedArray(folder)


@pytest.mark.parametrize("compressors", [(BLOSC,), (ZstdCodec(), Crc32cCodec()), (Crc32cCodec(), BLOSC)])
def test_codecs_without_checksum_or_unknown_are_refused(tmp_path, compressors):
    write(tmp_path / "a", compressors=compressors)
    with pytest.raises(StoreError, match="codecs"):
        ShardedArray(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", "{", "\0", '{"zarr_format": 3}', "x" * (array_metadata.METADATA_LIMIT + 1)])
def test_broken_metadata_is_a_store_error(folder, text):
    (folder / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"zarr\.json"):
        ShardedArray(folder)


def test_no_array_there(tmp_path):
    with pytest.raises(StoreError, match="no readable array"):
        ShardedArray(tmp_path)


@pytest.mark.parametrize("rows", [[-1], [100], [0, 10**9]])
def test_rows_outside_raise(folder, rows):
    with pytest.raises(IndexError, match="expected 0 to 99"):
        ShardedArray(folder).read(rows)


def test_a_wrong_buffer_is_refused(folder):
    array = ShardedArray(folder)
    for out in (
        np.empty((2, LEADS, TIME), np.int32),
        np.empty((2, LEADS, TIME), ">i2"),
        np.empty((3, LEADS, TIME), np.int16),
        np.empty((4, LEADS, TIME), np.int16)[::2],
    ):
        with pytest.raises(ValueError, match="expected C-contiguous"):
            array.read_into(np.array([0, 1]), out)
    with pytest.raises(TypeError):
        array.read(np.array([0.5]))


def test_threads_share_one_reader_with_more_shards_than_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "_open_files_limit", lambda: 2)
    monkeypatch.setattr(place._OpenFile, "all_open", set())
    expected = write(tmp_path / "a", rows=64)
    array = ShardedArray(tmp_path / "a")

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            rows = rng.integers(0, 64, 30)
            np.testing.assert_array_equal(array.read(rows), expected[rows])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert len(array.place._open) <= 2


def _row_sum(array: ShardedArray) -> int:
    return int(array.read([5]).astype(np.int64).sum())


def test_pickles_and_works_in_a_spawned_process(folder):
    array = ShardedArray(folder)
    expected = _row_sum(array)
    assert _row_sum(pickle.loads(pickle.dumps(array))) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_row_sum, (array,)) == expected


def test_closes_its_files(folder):
    """Open descriptors return to what they were once the reader is gone."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts open files in /proc/self/fd, which this system lacks")
    before = len(os.listdir("/proc/self/fd"))
    array = ShardedArray(folder)
    array.read([0, 20, 40])
    assert len(os.listdir("/proc/self/fd")) == before + 3
    del array
    assert len(os.listdir("/proc/self/fd")) == before
    shutil.rmtree(folder)
