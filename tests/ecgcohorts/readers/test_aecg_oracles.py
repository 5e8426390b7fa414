"""Real annotated ECGs: checksums of the samples, and ecgdatakit as second opinion on every file."""

import warnings
import zlib
from datetime import datetime
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, positions
from ecgcohorts.readers import hl7_aecg
from ecgcohorts.recording import Recording

pytestmark = pytest.mark.shared

MEDIAN_CRC = "f8a05350"  # of the beat inside the Mortara example, 8 leads of 599 samples
MORTARA = (5000, 500.0, 2.5, "dd78f13f", "06c754d3", [-2, -2, -2, -2, -3])
# name -> samples, rate, uV a step, CRC-32 of I II V1-V6 and of all twelve as int16, start of lead I
ORACLES = {
    "mortara_Example_aECG": MORTARA,
    "fda_subject1_0": MORTARA,
    "fda_subject1_1": MORTARA,
    "fda_subject2_0": MORTARA,
    "calecg_hl7aecg-Example2": (10000, 1000.0, 2.5, "164fd12b", "f03a6835", [65, 67, 70, 68, 67]),
    "liryc_hl7aecg_example": (1000, 100.0, 5.0, "19f75015", "27c63a7d", [-42, -40, -38, -41, -39]),
    "philips_ad4d3d80-d165_1-04_converted": (5500, 500.0, 5.0, "13e0f29d", "7982869d", [10, 9, 9, 9, 10]),
}
SHORTEST = ("", "_effectiveTime_high", "_effectiveTime_interval", "_effectiveTime_low", "_nouuid")


def read(shared: Path, name: str) -> Recording:
    (recording,) = hl7_aecg.read(shared / "vendor" / "hl7_aecg" / f"{name}.xml")
    return recording


def crc(recording: Recording, names: tuple[str, ...]) -> str:
    places = positions(recording.leads)
    digital = recording.digital[[places[name] for name in names]]
    return f"{zlib.crc32(np.ascontiguousarray(digital, '<i2').tobytes()):08x}"


@pytest.mark.parametrize("name", ORACLES)
def test_samples_of_real_files(name: str, shared: Path) -> None:
    n_samples, rate_hz, step_uv, eight, twelve, start = ORACLES[name]
    recording = read(shared, name)
    assert recording.digital.shape == (12, n_samples)
    assert recording.rate_hz == rate_hz
    assert (crc(recording, EIGHT_LEADS), crc(recording, TWELVE_LEADS)) == (eight, twelve)
    assert recording.digital[positions(recording.leads)["I"], :5].tolist() == start
    np.testing.assert_allclose(recording.signal_mv, recording.digital * step_uv / 1000, rtol=1e-12)
    assert MEDIAN_CRC not in (eight, crc(recording, EIGHT_LEADS))


def test_the_median_beat_is_in_the_file_and_not_in_the_recording(shared: Path) -> None:
    """Read on purpose, the derived series has the checksum that must never appear."""
    text = (shared / "vendor" / "hl7_aecg" / "mortara_Example_aECG.xml").read_text()
    derived = text[text.index("<derivedSeries") :]
    beat = []
    for lead in EIGHT_LEADS:
        block = derived[derived.index(f'"MDC_ECG_LEAD_{lead}"') :]
        beat.append([int(word) for word in block[block.index("<digits>") + 8 : block.index("</digits>")].split()])
    assert np.shape(beat) == (8, 599)
    assert f"{zlib.crc32(np.array(beat, '<i2').tobytes()):08x}" == MEDIAN_CRC
    assert crc(read(shared, "mortara_Example_aECG"), EIGHT_LEADS) != MEDIAN_CRC


def test_a_conversion_from_philips_is_near_its_source(shared: Path) -> None:
    """Approximate: the converter changed samples by up to 2 steps."""
    recording = read(shared, "philips_ad4d3d80-d165_1-04_converted")
    places = positions(recording.leads)
    at_2750 = [int(recording.digital[places[name], 2750]) for name in TWELVE_LEADS]
    np.testing.assert_allclose(at_2750, [31, 45, 14, -38, 8, 30, -73, 320, -1634, 195, 24, 54], atol=2)


@pytest.mark.parametrize("name", SHORTEST)
def test_the_shortest_files_are_read_as_they_are(name: str, shared: Path) -> None:
    """One lead of 13 samples: no ECG anyone can use, but well written. Recipes refuse it, for its length and leads."""
    recording = read(shared, f"minimum_aecg{name}")
    assert recording.leads == ("MDC_ECG_LEAD_II",)
    assert recording.digital.tolist() == [[-2, -2, -2, -2, -3, -4, -3, -5, -5, -4, -6, -9, -9]]
    assert (recording.patient_id, recording.sex) == ("2.16.840.1.113883.3.456/SBJ-123", None)
    assert recording.acquired_at == datetime(2002, 11, 22, 9, 10)


def test_a_file_without_series_is_refused(shared: Path) -> None:
    with pytest.raises(UnreadableRecording) as caught:
        read(shared, "empty")
    assert caught.value.reason is Reason.EMPTY


def test_context_of_real_files(shared: Path) -> None:
    mortara = read(shared, "mortara_Example_aECG")
    assert mortara.patient_id == "2.16.840.1.113883.3.400/SBJ-123"
    assert (mortara.sex, mortara.device, mortara.site) == ("male", "ELI250", "TS-035-03")
    assert mortara.age_years == pytest.approx(49.54, abs=0.01)  # reported: 46, so one of the two is made up
    assert mortara.notes == ("low-pass 150 Hz", "AC filter 60 Hz", "age by birth date differs from reported age")
    calecg = read(shared, "calecg_hl7aecg-Example2")
    assert (calecg.patient_id, calecg.sex) == ("PROT-123456/106_ABC", None)
    assert calecg.acquired_at == datetime(2004, 1, 15, 11, 20, 4)  # of the series: its time counts from zero
    liryc = read(shared, "liryc_hl7aecg_example")
    assert (liryc.patient_id, liryc.age_years, liryc.sex) == ("25060897140", None, None)
    assert liryc.notes == ("high-pass 0.56 Hz", "low-pass 35 Hz", "AC filter 50 Hz")


def test_the_same_waveform_of_two_subjects_has_one_digest(shared: Path) -> None:
    recordings = [read(shared, name) for name in ("fda_subject1_0", "fda_subject2_0", "mortara_Example_aECG")]
    assert len({recording.waveform_digest for recording in recordings}) == 1
    assert len({recording.patient_id for recording in recordings}) == 3


@pytest.mark.parametrize("name", [*ORACLES, *(f"minimum_aecg{tail}" for tail in SHORTEST)])
def test_ecgdatakit_reads_the_same(name: str, shared: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = import_module("ecgdatakit.parsing.parsers.hl7_aecg").HL7aECGParser()
        peer = parser.parse(shared / "vendor" / "hl7_aecg" / f"{name}.xml")
    recording = read(shared, name)
    ours, theirs = positions(recording.leads), positions([lead.label for lead in peer.leads])
    assert set(ours) == set(theirs)
    for lead, place in ours.items():
        other = peer.leads[theirs[lead]]
        np.testing.assert_array_equal(other.samples, recording.digital[place])
        assert other.sampling_rate == recording.rate_hz
        assert other.resolution * recording.gain_per_mv[place] == pytest.approx(1000.0)
        assert (other.offset, other.resolution_unit) == (recording.baseline[place], "uV")
