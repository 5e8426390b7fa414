"""AliveCor's JSON: the raw signal and never the enhanced one, its step in nV, and what is refused."""

import json
import warnings
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import alivecor_json, detect
from ecgcohorts.recording import Recording


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("alivecor_json")


def save(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "ecg.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def one(folder: Path, content: dict[str, Any]) -> Recording:
    (recording,) = ec.read(save(folder, content))
    return recording


def refused(folder: Path, content: dict[str, Any]) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        ec.read(save(folder, content))
    return caught.value


def test_a_step_is_so_many_nanovolts(files: ModuleType, tmp_path: Path) -> None:
    recording = one(tmp_path, files.recording(files.block({"leadI": [2000, -4]}, amplitudeResolution=500)))
    assert recording.digital.tolist() == [[2000, -4]]
    np.testing.assert_allclose(recording.signal_mv, [[1.0, -0.002]], rtol=1e-12)


def test_context(files: ModuleType, tmp_path: Path) -> None:
    recording = one(tmp_path, files.recording(files.block({"leadI": [1, 2]})))
    assert (recording.patient_id, recording.device, recording.mains_hz) == (files.ID, "triangle", 60.0)
    assert recording.acquired_at == datetime(2019, 2, 20, 17, 43, 5)
    assert recording.fields == {"ID": "rec-1", "Determination": "normal", "HeartRate": "65"}
    assert (recording.age_years, recording.sex) == (None, None)
    recording = one(tmp_path, files.recording(files.block({"leadI": [1, 2]}), patientID="0000", recordedAt="yesterday"))
    assert (recording.patient_id, recording.acquired_at) == (None, None)


def test_the_enhanced_signal_only_where_there_is_no_other(files: ModuleType, tmp_path: Path) -> None:
    recording = one(tmp_path, files.recording(None))
    assert recording.digital.tolist() == [[9, 9]]
    assert alivecor_json.ENHANCED in recording.notes
    assert alivecor_json.ENHANCED not in one(tmp_path, files.recording(files.block({"leadI": [1]}))).notes


def test_null_is_missing_and_decimals_stay(files: ModuleType, tmp_path: Path) -> None:
    recording = one(tmp_path, files.recording(files.block({"leadI": [10, None, 30]})))
    assert recording.missing.tolist() == [[False, True, False]]
    np.testing.assert_allclose(recording.signal_mv, [[0.005, np.nan, 0.015]])
    recording = one(tmp_path, files.recording(files.block({"leadI": [1.5, None, 3], "leadII": [0, 0, 1]})))
    np.testing.assert_allclose(recording.signal_mv * 2000, [[1.5, np.nan, 3], [0, 0, 1]])


def test_six_leads_in_any_order(files: ModuleType, tmp_path: Path) -> None:
    samples = {key: [place, 0] for place, key in enumerate(reversed(files.SIX))}
    recording = one(tmp_path, files.recording(files.block(samples)))
    names = [ec.leads.canonical(lead) for lead in recording.leads]
    assert names == ["aVF", "aVL", "aVR", "III", "II", "I"]
    assert recording.digital[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_duration_that_differs_is_noted(files: ModuleType, tmp_path: Path) -> None:
    samples = files.block({"leadI": [1] * 900})
    assert alivecor_json.DURATION_DIFFERS not in one(tmp_path, files.recording(samples, duration=3000)).notes
    assert alivecor_json.DURATION_DIFFERS in one(tmp_path, files.recording(samples, duration=30_000)).notes


@pytest.mark.parametrize(("samples", "changes", "reason"), [
    ({"leadI": [1, 2]}, {"frequency": None}, Reason.HEADER), ({"leadI": [1, 2]}, {"frequency": 0}, Reason.HEADER),
    ({"leadI": [1, 2]}, {"amplitudeResolution": None}, Reason.UNIT), ({"leadI": [1, 2]}, {"amplitudeResolution": 0}, Reason.UNIT),
    ({"leadI": [1, 2]}, {"amplitudeResolution": -5}, Reason.UNIT), ({"leadI": [1, 2]}, {"numLeads": 2}, Reason.HEADER),
    ({"leadI": [1, 2], "leadII": [1]}, {}, Reason.TRUNCATED), ({"leadI": []}, {}, Reason.EMPTY), ({}, {}, Reason.EMPTY),
    ({"leadI": [1, "2"]}, {}, Reason.HEADER), ({"leadI": [1, True]}, {}, Reason.HEADER), ({"leadI": [False, False]}, {}, Reason.HEADER), ({"leadI": [1, [2]]}, {}, Reason.HEADER),
    ({"leadI": [1, 2147483648]}, {}, Reason.UNSUPPORTED), ({"leadI": [1, 10**30]}, {}, Reason.UNSUPPORTED),
    ({"leadI": [1], "I": [2]}, {}, Reason.DUPLICATE_LEAD), ({"leadI": [1, 2]}, {"samples": [1, 2]}, Reason.HEADER),
    ({"leadI": [1, 2]}, {"samples": {"leadI": "1 2"}}, Reason.HEADER),
])  # fmt: skip
def test_signals_that_are_refused(
    samples: dict[str, Any], changes: dict[str, Any], reason: Reason, files: ModuleType, tmp_path: Path
) -> None:
    assert refused(tmp_path, files.recording(files.block(samples, **changes))).reason is reason


def test_twelve_leads_without_a_step_are_refused(files: ModuleType, tmp_path: Path) -> None:
    content = files.recording(None, data=None, data12L={"samples": {"leadI": [1]}})
    assert refused(tmp_path, content).reason is Reason.UNSUPPORTED


def test_ecgdatakit_reads_the_same(files: ModuleType, tmp_path: Path) -> None:
    path, _ = files.write(tmp_path, seconds=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = import_module("ecgdatakit.parsing.parsers.alivecor_kardia").AliveCorKardiaParser().parse(path)
    (recording,) = ec.read(path)
    others = {ec.leads.canonical(lead.label): lead for lead in peer.leads}
    assert len(others) == 12
    for place, name in enumerate(recording.leads):
        other = others[ec.leads.canonical(name)]
        np.testing.assert_array_equal(other.samples, recording.digital[place])
        assert other.sampling_rate == recording.rate_hz
        assert other.resolution * recording.gain_per_mv[place] == pytest.approx(1000.0)  # uV


def test_other_json_is_of_no_known_format(tmp_path: Path) -> None:
    for content in ({"recordedAt": "2019"}, {"resourceType": "Patient", "recordedAt": 1, "leadI": 2}, {"a": 1}):
        with pytest.raises(UnreadableRecording) as caught:
            detect(save(tmp_path, content))
        assert caught.value.reason is Reason.FORMAT
