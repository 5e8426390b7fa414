"""Reading stays cheap. Processor time, best of many runs, against twice the design limit: others use the machine too."""

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers import code_hdf5, muse_xml
from ecgcohorts.readers.wfdb import reader as wfdb


def best_ms(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times) * 1000


def test_a_wfdb_record_of_ten_seconds(wfdb_files: ModuleType, tmp_path: Path) -> None:
    """12 x 5000 samples of format 16, header parsed and checksums verified: limit 0.3 ms."""
    digital = np.random.default_rng(0).integers(-900, 900, (12, 5000))
    channels = [wfdb_files.Channel(row, lead) for row, lead in zip(digital, TWELVE_LEADS, strict=True)]
    path = wfdb_files.write_record(tmp_path, channels, comments=["Age: 63", "Sex: F", "Dx: 1,2"])
    assert best_ms(lambda: list(wfdb.read(path)), 200) < 2 * 0.3


def test_a_muse_file_of_ten_seconds(muse_files: ModuleType, tmp_path: Path) -> None:
    """Median and rhythm of 8 leads: limit 5 ms."""
    path = tmp_path / "m.xml"
    path.write_text(
        muse_files.document(muse_files.median_xml(), muse_files.waveform_xml(muse_files.known_samples(8, 5000)))
    )
    assert best_ms(lambda: list(muse_xml.read(path)), 40) < 2 * 5


def test_one_exam_of_many(hdf5_files: ModuleType, tmp_path: Path) -> None:
    """One exam by its id, its file opened and checked anew: limit 5 ms (our default), whatever the number of ids."""
    path = hdf5_files.write_exams(tmp_path / "x.h5", np.ones((20_000, 8, 12), "f4"), range(20_000))
    list(code_hdf5.read(path, ["5"]))
    assert best_ms(lambda: list(code_hdf5.read(path, ["19999"])), 40) < 2 * 5
