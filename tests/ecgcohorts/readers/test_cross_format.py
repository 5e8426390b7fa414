"""One recording in several formats or cohorts is one recording: pairs of real files, and files made from real samples."""

from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, positions
from ecgcohorts.recording import Recording

pytestmark = pytest.mark.shared


def read(path: Path) -> Recording:
    (recording,) = ec.read(path)
    return recording


def in_order(recording: Recording, wanted: tuple[str, ...]) -> np.ndarray:
    """(lead, time) native integers of the wanted leads."""
    places = positions(recording.leads)
    assert recording.digital is not None
    return recording.digital[[places[lead] for lead in wanted]]


def test_ptb_xl_in_its_own_release_and_in_the_challenge(shared: Path) -> None:
    original = read(shared / "ptb_xl" / "records500" / "00000" / "00001_hr.hea")
    challenge = read(shared / "cinc2021" / "PTB-XL" / "HR00001.hea")
    assert original.digital.shape == (12, 5000)
    assert np.array_equal(in_order(original, TWELVE_LEADS), in_order(challenge, TWELVE_LEADS))
    assert original.waveform_digest == challenge.waveform_digest


def test_ptb_and_its_halved_copy_in_the_challenge(shared: Path) -> None:
    """Integers divided by two, within half a step; a digest of native integers does not see that pair."""
    original = read(shared / "ptb_diagnostic" / "s0010_re.hea")
    challenge = read(shared / "cinc2021" / "PTB" / "S0001.hea")
    whole, half = in_order(original, TWELVE_LEADS), in_order(challenge, TWELVE_LEADS)
    assert whole.shape == half.shape == (12, 38400)
    assert np.abs(half - whole / 2).max() <= 0.5
    assert original.waveform_digest != challenge.waveform_digest


def test_the_mortara_example_as_scp_and_as_aecg(shared: Path) -> None:
    scp = read(shared / "vendor" / "scp_ecg" / "mortara_eli250_Example.scp")
    aecg = read(shared / "vendor" / "hl7_aecg" / "mortara_Example_aECG.xml")
    assert in_order(scp, TWELVE_LEADS).shape == (12, 5000)
    assert np.array_equal(in_order(scp, TWELVE_LEADS), in_order(aecg, TWELVE_LEADS))
    np.testing.assert_allclose(scp.signal_mv[0], aecg.signal_mv[0], rtol=1e-12)
    assert scp.waveform_digest == aecg.waveform_digest


def test_a_philips_recording_and_its_aecg_conversion(shared: Path) -> None:
    """The conversion differs by up to two steps, so it is an approximate witness only, and has the calibration second."""
    philips = read(shared / "vendor" / "philips_sierra_xml" / "1_04_ad4d3d80-d165_orig.xml")
    aecg = read(shared / "vendor" / "hl7_aecg" / "philips_ad4d3d80-d165_1-04_converted.xml")
    ours, theirs = in_order(philips, TWELVE_LEADS), in_order(aecg, TWELVE_LEADS)
    assert (ours.shape, theirs.shape) == ((12, 5000), (12, 5500))
    assert np.abs(ours[:, 2750] - theirs[:, 2750]).max() == 2


@pytest.mark.parametrize("n_exams", [20])
def test_code_as_wfdb_and_as_hdf5_give_one_digest(n_exams: int, shared: Path, tmp_path: Path) -> None:
    """Real CODE recordings, written back into the HDF5 layout they came from: float32 mV, zeros on both sides."""
    import h5py

    originals: list[Recording] = []
    for path in sorted((shared / "code15").rglob("*.hea")):
        recording = read(path)
        if recording.digital.any() and len(originals) < n_exams and path.stem.isdecimal():
            originals.append(recording)
    tracings = np.zeros((n_exams, 4096, 12), np.float32)
    for row, recording in enumerate(originals):
        samples = recording.signal_mv[[positions(recording.leads)[lead] for lead in TWELVE_LEADS]].T
        start = (4096 - len(samples)) // 2
        tracings[row, start : start + len(samples)] = samples
    path = tmp_path / "exams_part0.hdf5"
    with h5py.File(path, "w") as file:
        file["tracings"], file["exam_id"] = tracings, np.array([int(r.recording_id) for r in originals])
    found = {recording.recording_id: recording for recording in ec.read(path)}
    assert len(found) == n_exams
    for recording in originals:
        assert found[recording.recording_id].waveform_digest == recording.waveform_digest
        assert set(EIGHT_LEADS) <= set(positions(recording.leads))
