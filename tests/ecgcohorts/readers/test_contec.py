"""Contec ECG90A: eight leads around 2048, electrodes that are off, a header without mark, and the one real file."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS, select
from ecgcohorts.readers import contec, detect
from ecgcohorts.recording import Recording


@pytest.fixture
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("contec")


def read(path: Path, data: bytes) -> Recording:
    path.write_bytes(data)
    (recording,) = contec.read(path)
    (scanned,) = contec.scan(path)
    assert (scanned.n_samples, scanned.leads) == (recording.n_samples, recording.leads)
    return recording


def refused(path: Path, data: bytes) -> Reason:
    with pytest.raises(UnreadableRecording) as caught:
        read(path, data)
    return caught.value.reason


def test_limb_leads_follow_from_the_two_that_are_stored(files: ModuleType, tmp_path: Path) -> None:
    raw = files.known_samples()
    recording = read(tmp_path / "0000001.ECG", files.document(raw))
    assert detect(tmp_path / "0000001.ECG") == "contec"
    np.testing.assert_array_equal(recording.digital, raw)
    twelve = select(recording.signal_mv, recording.leads, TWELVE_LEADS)
    two, three = (raw[:2] - 2048) * 5e-3
    np.testing.assert_allclose(twelve[0], two - three, atol=1e-12)
    np.testing.assert_allclose(twelve[1], two, atol=1e-12)


def test_an_electrode_that_is_off_leaves_a_gap(files: ModuleType, tmp_path: Path) -> None:
    raw = files.known_samples()
    raw[4, 10:20] = files.OFF
    recording = read(tmp_path / "a.ECG", files.document(raw))
    assert np.flatnonzero(np.isnan(recording.signal_mv[4])).tolist() == list(range(10, 20))
    assert recording.notes == ()
    raw[4] = files.OFF
    assert read(tmp_path / "a.ECG", files.document(raw)).notes == ("leads off throughout: V3",)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, ("male", 54.0, datetime(2020, 11, 15, 12, 59, 50))),
        ({"sex": 0, "age": 0}, ("female", None, datetime(2020, 11, 15, 12, 59, 50))),
        ({"sex": 255, "age": 200}, (None, None, datetime(2020, 11, 15, 12, 59, 50))),
        ({"time": b"0000-00-00 00:00:00"}, ("male", 54.0, None)),
    ],
)
def test_what_the_header_says(
    how: dict[str, Any], expected: tuple[Any, ...], files: ModuleType, tmp_path: Path
) -> None:
    recording = read(tmp_path / "a.ECG", files.document(files.known_samples(), **how))
    assert (recording.sex, recording.age_years, recording.acquired_at) == expected
    assert recording.patient_id is None  # the number counts recordings, and the name is never read
    assert files.NAME not in " ".join(recording.fields.values())


@pytest.mark.parametrize("case", [b"", b"1", b"0000037", b"A-17"])
def test_a_number_of_any_length_starts_a_file(case: bytes, files: ModuleType, tmp_path: Path) -> None:
    assert read(tmp_path / "a.ECG", files.document(files.known_samples(), case=case)).n_samples == 40


def test_other_starts_are_not_taken(files: ModuleType) -> None:
    data = files.document(files.known_samples())
    assert contec.sniff(data)
    for changed in (data[1:], b"\xff" + data[1:], data[:8] + b"x" + data[9:], data[:30] + b"x" + data[31:], data[:25]):
        assert not contec.sniff(changed)


def test_a_file_without_its_zeros_was_cut(files: ModuleType, tmp_path: Path) -> None:
    data = files.document(files.known_samples())
    assert refused(tmp_path / "a.ECG", data[:-1]) is Reason.TRUNCATED
    assert refused(tmp_path / "a.ECG", data[:-37]) is Reason.TRUNCATED
    assert refused(tmp_path / "a.ECG", data[:-16]) is Reason.TRUNCATED


@pytest.mark.shared
def test_the_real_file(shared: Path) -> None:
    """Its integers by another way, electrodes as its author says, beats and mains as he says."""
    path = shared / "vendor" / "contec" / "0000037.ECG"
    (found,) = contec.read(path)
    assert (found.leads, found.rate_hz, found.digital.shape) == (contec.LEADS, 800.0, (8, 8375))
    assert (found.sex, found.age_years, found.patient_id) == ("male", 54.0, None)
    assert found.acquired_at == datetime(2020, 11, 15, 12, 59, 50)
    assert found.notes == ("leads off throughout: V1, V2, V3, V4, V5, V6",)  # chest electrodes were not connected
    data = path.read_bytes()
    for lead in range(8):
        stored = [data[43 + 2 * lead + at] + 256 * data[44 + 2 * lead + at] for at in range(0, 16 * 8375, 16)]
        assert found.digital[lead].tolist() == stored
    assert found.signal_mv[:2, 0].tolist() == [(2030 - 2048) / 200, (2051 - 2048) / 200]
    assert np.isnan(found.signal_mv[2:]).all()
    three = found.signal_mv[1] - np.median(found.signal_mv[1])
    assert 0.5 < np.abs(three).max() < 3.0  # mV: a QRS complex
    hertz = np.fft.rfftfreq(8375, 1 / 800)
    spectrum = np.abs(np.fft.rfft(found.signal_mv[0] - found.signal_mv[0].mean())) * (hertz > 30)
    assert hertz[spectrum.argmax()] == pytest.approx(50, abs=0.1)  # Italian mains: the rate is 800 Hz
    peaks = np.flatnonzero(np.abs(three) > 0.6 * np.abs(three).max())
    beats = peaks[np.diff(peaks, prepend=-800) > 300]
    assert len(beats) == 8
    assert 60 * 800 / np.median(np.diff(beats)) == pytest.approx(57, abs=1)
