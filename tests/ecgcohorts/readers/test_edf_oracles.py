"""EDF against pyedflib, in both directions: it reads what the fixture writer writes, and we read what it writes."""

import time
from collections.abc import Callable
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgcohorts.readers.edf import reader as edf
from ecgcohorts.recording import Recording

DECODE_MS = 1.0  # our default: pyedflib takes as long


@pytest.fixture(scope="session")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("edf")


@pytest.fixture(scope="session")
def pyedflib() -> ModuleType:
    return import_module("pyedflib")


def read(path: Path) -> Recording:
    (recording,) = edf.read(path)
    return recording


def theirs_of(path: Path, pyedflib: ModuleType, digital: bool = True) -> NDArray[np.floating]:
    with pyedflib.EdfReader(str(path)) as file:
        return np.stack([file.readSignal(place, digital=digital) for place in range(file.signals_in_file)])


@pytest.mark.parametrize("kind", ["EDF", "EDF+C", "BDF", "BDF+C"])
@pytest.mark.parametrize("record_s", ["0.1", "1", "5"])
def test_pyedflib_reads_the_same(
    kind: str, record_s: str, files: ModuleType, pyedflib: ModuleType, tmp_path: Path
) -> None:
    bdf = kind.startswith("BDF")
    limits = {"physical": ("-8388608", "8388607"), "digital": ("-8388608", "8388607"), "dimension": "nV"} if bdf else {}
    per_record = round(500 * float(record_s))
    samples = files.known_samples(12, 5000, limit=(1 << 23) - 1 if bdf else 9000)
    signals: list[Any] = files.leads_of(samples, per_record=per_record, **limits)
    if "+" in kind:
        onsets = [place * float(record_s) for place in range(5000 // per_record)]
        signals.append(files.Annotations(onsets, 60, f"{kind[:3]} Annotations"))
    path = tmp_path / ("x.bdf" if bdf else "x.edf")
    path.write_bytes(files.document(signals, record_s, kind if "+" in kind else "", bdf))
    found = read(path)
    np.testing.assert_array_equal(found.digital, samples)
    np.testing.assert_array_equal(theirs_of(path, pyedflib), samples)
    unit_in_mv = 1e-6 if bdf else 1e-3
    np.testing.assert_allclose(theirs_of(path, pyedflib, digital=False) * unit_in_mv, found.signal_mv, atol=1e-9)
    with pyedflib.EdfReader(str(path)) as file:
        assert tuple(file.getSignalLabels()) == found.leads
        assert set(file.getSampleFrequencies()) == {found.rate_hz}
        assert file.getStartdatetime() == found.acquired_at
        if "+" in kind:
            assert (file.getPatientCode(), file.getSex()) == (found.patient_id, "Female")


@pytest.mark.parametrize("kind", ["EDF", "EDFPLUS", "BDF", "BDFPLUS"])
def test_we_read_what_pyedflib_writes(kind: str, pyedflib: ModuleType, files: ModuleType, tmp_path: Path) -> None:
    bdf = kind.startswith("BDF")
    bound = 1 << (23 if bdf else 15)
    samples = files.known_samples(12, 5000, limit=bound - 1).astype(np.int32)
    path = tmp_path / ("x.bdf" if bdf else "x.edf")
    writer = pyedflib.EdfWriter(str(path), 12, getattr(pyedflib, f"FILETYPE_{kind}"))
    head = {"dimension": "uV", "sample_frequency": 500, "physical_max": 5000.0, "physical_min": -5000.0}
    head |= {"digital_max": bound - 1, "digital_min": -bound, "prefilter": "HP:0.05Hz LP:150Hz", "transducer": ""}
    writer.setSignalHeaders([head | {"label": f"ECG {lead}"} for lead in files.TWELVE])
    writer.setStartdatetime(datetime(2011, 12, 13, 14, 15, 16))
    if "PLUS" in kind:
        writer.setPatientCode("P-0042")
        writer.setPatientName("Somebody_Else")
        writer.setSex(0)
        writer.setBirthdate(date(1951, 5, 2))
    writer.writeSamples(list(samples), digital=True)
    writer.close()

    found = read(path)
    np.testing.assert_array_equal(found.digital, samples)
    np.testing.assert_array_equal(theirs_of(path, pyedflib), samples)
    np.testing.assert_allclose(theirs_of(path, pyedflib, digital=False) / 1000, found.signal_mv, atol=1e-9)
    assert found.leads == tuple(f"ECG {lead}" for lead in files.TWELVE)
    assert (found.rate_hz, found.acquired_at) == (500.0, datetime(2011, 12, 13, 14, 15, 16))
    if "PLUS" in kind:
        assert (found.patient_id, found.sex) == ("P-0042", "female")
        assert found.age_years == pytest.approx(60.6, abs=0.05)
        assert "Somebody" not in repr(dict(found.fields))
    else:
        assert (found.patient_id, found.sex, found.age_years) == (None, None, None)


def test_what_we_read_and_pyedflib_does_not(files: ModuleType, pyedflib: ModuleType, tmp_path: Path) -> None:
    """Two disagreements: a micro sign outside ASCII, and EDF+D even where its records follow each other."""
    path, samples = tmp_path / "x.edf", files.known_samples(12, 500)
    onsets = files.Annotations([place * 0.1 for place in range(10)])
    for data in (
        files.document(files.leads_of(samples, dimension="\xb5V")),
        files.document([*files.leads_of(samples), onsets], kind="EDF+D"),
    ):
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path).digital, samples)
        with pytest.raises(OSError, match=r"not EDF|discontinuous"):
            theirs_of(path, pyedflib)


def test_bytes_after_the_last_record_are_ignored_by_both(
    files: ModuleType, pyedflib: ModuleType, tmp_path: Path
) -> None:
    path, samples = tmp_path / "x.edf", files.known_samples(12, 500)
    path.write_bytes(files.document(files.leads_of(samples)) + bytes(999))
    np.testing.assert_array_equal(theirs_of(path, pyedflib), read(path).digital)
    assert edf.PADDED not in read(path).notes


def best_ms(call: Callable[[], Any], runs: int = 60) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1000  # the least disturbed run of a busy machine


def test_reading_takes_less_than_pyedflib(files: ModuleType, pyedflib: ModuleType, tmp_path: Path) -> None:
    """12 leads of 10 s, opened and read whole: five times faster than its `highlevel.read_edf`, and near its bare C."""
    path, samples = tmp_path / "x.edf", files.known_samples(12, 5000)
    signals = [*files.leads_of(samples, per_record=500), files.Annotations(range(10))]
    path.write_bytes(files.document(signals, "1", "EDF+C"))
    highlevel = import_module("pyedflib.highlevel")
    ours = best_ms(lambda: read(path))
    assert ours < 2 * DECODE_MS
    assert ours < 1.5 * best_ms(lambda: theirs_of(path, pyedflib))  # measured: 0.7
    assert 5 * ours < best_ms(lambda: highlevel.read_edf(str(path), digital=True))  # measured: 8
