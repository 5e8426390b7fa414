"""WFDB headers that name what they should not, or declare what is not there: refused in under a second."""

import os
import resource
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io import regular
from ecgcohorts.readers.wfdb import reader as wfdb

RECORD = "r 1 500 9\n{file} {cluster} 1000/mV 16 0 0 36 0 I\n"


def refused(path: Path) -> UnreadableRecording:
    start = time.perf_counter()
    with pytest.raises(UnreadableRecording) as caught:
        list(wfdb.read(path))
    assert time.perf_counter() - start < 1
    return caught.value


@pytest.fixture
def record(wfdb_files: ModuleType, tmp_path: Path) -> Path:
    return wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(9))])


@pytest.mark.parametrize("kind", ["link out", "link inside", "loop", "dangling", "pipe", "folder"])
def test_a_signal_file_that_is_no_regular_file_is_refused(
    kind: str, record: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = record.with_name("r.dat")
    content = data.read_bytes()
    data.unlink()
    if kind == "link out":
        secret = tmp_path_factory.mktemp("outside") / "secret"
        secret.write_bytes(content)
        data.symlink_to(secret)
    elif kind == "link inside":
        data.with_name("other.dat").write_bytes(content)
        data.symlink_to("other.dat")
    elif kind == "pipe":
        os.mkfifo(data)
    elif kind == "folder":
        data.mkdir()
    else:
        data.symlink_to(data if kind == "loop" else "nowhere")
    assert refused(record).reason is Reason.PATH


def test_a_device_is_refused() -> None:
    with pytest.raises(UnreadableRecording) as caught:
        regular.read_bounded(Path("/dev/zero"), 10)
    assert caught.value.reason is Reason.PATH


def test_a_folder_that_is_a_link_may_be_read_through(record: Path, tmp_path: Path) -> None:
    """Only the last part of a path must be no link: data sets are often mounted by one."""
    (tmp_path / "door").symlink_to(record.parent)
    (recording,) = wfdb.read(tmp_path / "door" / "r.hea")
    assert recording.n_samples == 9


@pytest.mark.parametrize("cluster", ["16+100", "16+999999999999999", "212+17", "16x1+18"])
def test_an_offset_beyond_the_end_is_truncation(cluster: str, record: Path) -> None:
    record.write_text(RECORD.format(file="r.dat", cluster=cluster))
    assert refused(record).reason is Reason.TRUNCATED


@pytest.mark.parametrize("n_samples", [10, 1000, 7_000_000])
def test_declared_samples_that_are_not_there_cost_no_memory(n_samples: int, record: Path) -> None:
    record.write_text(f"r 9 500 {n_samples}\n" + "r.dat 32 1000/mV 16 0 0 36 0 I\n" * 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(record).reason is Reason.TRUNCATED
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; 250 MB were declared


def test_a_sparse_file_of_the_declared_size_stays_within_the_limit(record: Path) -> None:
    """Length declared and bytes there, as holes: only the sample limit is left to refuse it."""
    record.write_text("r 20 1000 14000000\n" + "r.dat 16 1000/mV 16 0 0 0 0 I\n" * 20)
    with record.with_name("r.dat").open("wb") as file:
        file.truncate(20 * 2 * 14_000_000)
    assert refused(record).reason is Reason.LIMIT
    record.write_text("r 20 1000\n" + "r.dat 16 1000/mV 16 0 0 0 0 I\n" * 20)
    assert refused(record).reason is Reason.LIMIT


def test_a_header_of_more_than_a_mebibyte_is_refused(record: Path) -> None:
    with record.open("a") as file:
        file.write("# " + "x" * (1 << 20) + "\n")
    assert refused(record).reason is Reason.LIMIT


def test_a_header_full_of_lines_or_of_one_is_fast(record: Path) -> None:
    record.write_text("r 1 500 9\n" + "r.dat 16 1 1 1 1 1 1 1\n" * 40_000)
    assert refused(record).reason is Reason.HEADER
    for text in ("1" * 1_000_000, "r " + "9" * 1_000_000, "r 1 " + "1e" * 400_000, "r 1 1 1 " + "1:" * 400_000):
        record.write_text(text + "\n")
        assert refused(record).reason in (Reason.HEADER, Reason.LIMIT)
    record.write_text("r 1 500 9\nr.dat 16 1000/mV 16 0 0 36 0 I\n#" + "<a" * 400_000 + "\n#" + "a:" * 50_000 + "\n")
    assert next(wfdb.read(record)).n_samples == 9


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_rights_is_refused(record: Path) -> None:
    record.with_name("r.dat").chmod(0)
    assert refused(record).reason is Reason.PATH


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux lists descriptors there")
def test_no_descriptor_is_left_open(record: Path, tmp_path: Path) -> None:
    record.with_name("r.dat").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        refused(record)
        (tmp_path / "folder").mkdir(exist_ok=True)
        refused(tmp_path / "folder")
    assert len(os.listdir("/proc/self/fd")) == before
