"""A look at a folder: what is counted, that it is spread over the folder, and that nothing is written."""

from pathlib import Path

import numpy as np
import pytest

from ecgcohorts.errors import SourceError
from ecgcohorts.ingest.inspect import inspect, render

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def write(folder: Path, name: str, rate: int = 500, n: int = 5000, gain: int = 1000, comments: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    samples = (np.arange(n)[:, None] % 97 + np.arange(12)).astype("<i2")
    (folder / f"{name}.dat").write_bytes(samples.tobytes())
    checksums = samples.sum(axis=0, dtype=np.int16)
    lines = [
        f"{name}.dat 16 {gain}/mV 16 0 {first} {checksum} 0 {lead}"
        for lead, first, checksum in zip(LEADS, samples[0], checksums, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join([f"{name} 12 {rate} {n}", *lines, comments]) + "\n")


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def printed(found: object) -> str:
    from rich.console import Console

    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(render(found))  # type: ignore[arg-type]
    return capture.get()


def test_a_mixed_folder_is_counted_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a", "1", comments="# Age: 63\n# Patient: CANARY")
    write(tmp_path / "a", "2", rate=400, n=2934)
    write(tmp_path / "b", "3", gain=200)
    write(tmp_path / "b", "4")
    (tmp_path / "b" / "4.dat").write_bytes(b"\0" * 24)  # truncated: only decoding shows it
    (tmp_path / "b" / "5.hea").write_text("5 12 500\nno signal line\n")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "LICENSE").write_text("x")
    before = snapshot(tmp_path)
    found = inspect(tmp_path)
    assert snapshot(tmp_path) == before
    assert found.suffixes == {".hea": 5, ".dat": 4, ".txt": 1, "none": 1}
    assert (found.n_candidates, found.n_files, found.n_recordings) == (5, 5, 3)
    assert found.formats == {"wfdb": 3}
    assert found.rates_hz == {500: 2, 400: 1}
    assert found.leads == {" ".join(LEADS): 3}
    assert found.units == {"1000 steps per mV": 2, "200 steps per mV": 1}
    assert found.lengths_s == (2934 / 400, 10, 10)
    assert found.missing["patient id"] == found.missing["time"] == 3
    assert found.header_keys == {"Age": 1, "Patient": 1}
    assert found.unreadable == {"truncated": 1, "bad_header": 1}
    text = printed(found)
    for part in ("3 recordings read, 2 unreadable", "400 Hz", "200 steps per mV", "7.335 s", "truncated", "b/4.hea"):
        assert part in text
    assert "CANARY" not in text


def test_a_sample_is_spread_over_the_whole_folder(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"p{number // 5}", f"{number:02d}", rate=100 * (1 + number // 5), n=1000)
    found = inspect(tmp_path, sample=4)
    assert (found.n_candidates, found.n_files, found.n_recordings) == (20, 4, 4)
    assert found.rates_hz == {100: 1, 200: 1, 300: 1, 400: 1}


def test_one_file_of_many_recordings_gives_a_sample(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "exams.hdf5", "w") as file:
        file["exam_id"] = np.arange(100, 130)
        file["tracings"] = np.ones((30, 4096, 12), np.float32)
    write(tmp_path, "1")
    found = inspect(tmp_path / "exams.hdf5", sample=7)
    assert found.formats == {"code_hdf5": 7}
    assert found.units == {"mV, floating point": 7}
    both = inspect(tmp_path, sample=8)
    assert both.formats == {"code_hdf5": 7, "wfdb": 1}


def test_many_lengths_are_told_as_a_range(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path, str(number), n=4000 + number)
    assert "8.000 to 8.016 s, median 8.008 s" in printed(inspect(tmp_path))


def test_formats_are_told_by_content_where_no_suffix_is_known(tmp_path: Path) -> None:
    write(tmp_path, "1")
    (tmp_path / "1.hea").rename(tmp_path / "1.header")
    (tmp_path / "noise.bin").write_bytes(b"\1\2\3")
    found = inspect(tmp_path)
    assert found.formats == {"wfdb": 1}
    assert found.unreadable == {"unknown_format": 2}  # the samples and the noise


@pytest.mark.parametrize("make", ["nothing", "empty"])
def test_no_file_is_an_error_with_its_remedy(make: str, tmp_path: Path) -> None:
    if make == "empty":
        (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="Check the path"):
        inspect(tmp_path / "folder")


@pytest.mark.shared
def test_real_folders(shared: Path) -> None:
    code = inspect(shared / "code15", sample=31)
    assert (code.n_candidates, code.n_files, code.n_recordings) == (310, 31, 31)
    assert code.rates_hz == {400: 31}
    assert code.header_keys["Patient ID"] == 31
    georgia = inspect(shared / "cinc2021" / "G12EC", sample=74)
    assert georgia.n_recordings == 74
    assert not georgia.unreadable  # with `.mat` in 14 record names, and all their checksums hold
    assert georgia.units == {"1000 steps per mV": 71, "4880 steps per mV": 3}
    text = printed(inspect(shared / "mimic_iv_ecg"))
    assert "subject_id" in text
    assert "10012343" not in text.replace("p10012343", "")
