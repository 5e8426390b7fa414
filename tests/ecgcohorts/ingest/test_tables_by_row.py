"""Tables that go by row have as many rows as their file has recordings; otherwise every fact may be a neighbour's."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import SourceError
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.run import IngestOptions


def exams(folder: Path, tracings: int, rows: int) -> Path:
    folder.mkdir()
    time = np.arange(4096)[:, None] / 400
    beats = np.stack([np.sin(2 * np.pi * (1 + 0.1 * exam) * time + np.arange(12)) for exam in range(tracings)])
    with h5py.File(folder / "exams.hdf5", "w") as file:
        file["tracings"] = beats.astype(np.float32)
    table = "".join(f"{900 + row},{40 + row},True,False,False,1.0,50.0\n" for row in range(rows))
    (folder / "exams.csv").write_text("exam_id,age,is_male,normal_ecg,death,timey,nn_predicted_age\n" + table)
    return folder


@pytest.mark.parametrize(("tracings", "rows"), [(5, 4), (4, 5), (2, 0)])
def test_a_table_of_another_length_is_refused(tmp_path: Path, tracings: int, rows: int) -> None:
    with pytest.raises(SourceError, match=f"found {tracings} recordings, and {rows} rows for them in exams.csv"):
        ingest(exams(tmp_path / "raw", tracings, rows), tmp_path / "s.zarr", "sami_trop")
    assert not (tmp_path / "s.zarr" / "CURRENT").exists()


def test_a_table_of_the_same_length_is_taken_in_its_order(tmp_path: Path) -> None:
    ingest(exams(tmp_path / "raw", 3, 3), tmp_path / "s.zarr", "sami_trop")
    assert sorted(ec.open(tmp_path / "s.zarr").index["age"].tolist()) == [40, 41, 42]


def test_a_trial_of_some_recordings_needs_no_whole_table(tmp_path: Path) -> None:
    report = ingest(exams(tmp_path / "raw", 5, 5), tmp_path / "s.zarr", "sami_trop", IngestOptions(limit=2))
    assert report.total.stored == 2
