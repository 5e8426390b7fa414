"""Decoding WFDB records: oracles, checks, sentinels, units, several files, MATLAB files."""

from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.wfdb import header as wh
from ecgcohorts.readers.wfdb import reader as wfdb
from ecgcohorts.readers.wfdb import signal
from ecgcohorts.recording import Recording

FORMATS = (8, 16, 24, 32, 61, 80, 160, 212, 310, 311)
# First four samples of each signal of `binformats`, published with the format tables.
FIRST_FOUR = {
    8: (-2047, -1920, -1793, -1666),
    16: (-32766, -32242, -31718, -31194),
    61: (-32765, -32241, -31717, -31193),
    80: (-124, -110, -96, -82),
    160: (-32763, -32239, -31715, -31191),
    212: (-2042, -1758, -1474, -1190),
    310: (-505, -158, 189, -487),
    311: (-504, -157, 190, -486),
    24: (-8388599, -8322795, -8256991, -8191187),
    32: (-2147483638, -2130640619, -2113797600, -2096954581),
}


def read(path: Path) -> Recording:
    (recording,) = wfdb.read(path)
    return recording


def refused(path: Path) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        read(path)
    assert caught.value.where
    return caught.value


@pytest.mark.shared
def test_the_ten_integer_formats_start_as_published(shared: Path) -> None:
    recording = read(shared / "wfdb_samples" / "binformats.hea")
    assert recording.n_samples == 499
    for place, fmt in enumerate((8, 16, 61, 80, 160, 212, 310, 311, 24, 32)):
        assert tuple(recording.digital[place, :4]) == FIRST_FOUR[fmt]
    assert recording.notes == ()  # every checksum was there, so every one was verified


@pytest.mark.shared
def test_the_flac_formats_go_through_the_package_and_verify(shared: Path) -> None:
    pytest.importorskip("soundfile")
    recording = read(shared / "wfdb_samples" / "flacformats.hea")
    assert recording.digital[:, 0].tolist() == [-127, -32766, -8388605]
    assert recording.notes == ("read through the wfdb package",)


@pytest.mark.shared
def test_ptb_diagnostic_has_two_signal_files_and_lower_case_names(shared: Path) -> None:
    recording = read(shared / "ptb_diagnostic" / "s0010_re.hea")
    assert recording.leads == (*map(str.lower, TWELVE_LEADS), "vx", "vy", "vz")
    assert recording.digital.shape == (15, 38400)
    assert recording.digital[:, 0].tolist() == [
        -489,
        -458,
        31,
        474,
        -260,
        -214,
        -88,
        -241,
        -112,
        212,
        393,
        390,
        -3,
        120,
        -18,
    ]
    assert recording.signal_mv[0, 0] == -489 / 2000
    assert recording.fields["age"] == "81"


@pytest.mark.shared
def test_a_challenge_record_with_mat_in_its_name(shared: Path) -> None:
    path = shared / "cinc2021" / "G12EC" / "E00015.hea"
    recording = read(path)
    assert path.read_text().startswith("E00015.mat ")
    assert recording.recording_id == "E00015"
    assert recording.acquired_at == datetime(2020, 5, 5, 14, 50, 55)
    assert set(recording.notes) == {wh.MAT_NAME, wh.MONTH_NAME_DATE}
    assert recording.digital.shape == (12, 5000)


@pytest.mark.shared
def test_mimic_keeps_its_own_lead_order_and_gain(shared: Path) -> None:
    path = shared / "mimic_iv_ecg" / "p10019777" / "s49865286" / "49865286.hea"
    recording = read(path)
    assert recording.leads[3:6] == ("aVR", "aVF", "aVL")
    assert set(recording.gain_per_mv) == {200.0}
    assert recording.fields == {"subject_id": "10019777"}
    assert recording.acquired_at == datetime(2187, 2, 10, 15, 46)
    assert (recording.patient_id, recording.age_years, recording.sex) == (None, None, None)  # cohort rules' business


@pytest.mark.shared
def test_one_recording_in_two_cohorts_has_one_digest(shared: Path) -> None:
    ours = read(shared / "ptb_xl" / "records500" / "00000" / "00001_hr.hea")
    theirs = read(shared / "cinc2021" / "PTB-XL" / "HR00001.hea")
    assert np.array_equal(ours.digital, theirs.digital)
    assert ours.waveform_digest == theirs.waveform_digest
    halved = read(shared / "cinc2021" / "PTB" / "S0001.hea")
    full = read(shared / "ptb_diagnostic" / "s0010_re.hea")
    assert np.abs(halved.digital - full.digital[:12] / 2).max() <= 0.5
    assert halved.waveform_digest != full.waveform_digest  # a known limit


@pytest.mark.shared
def test_the_altered_code_record_is_read_as_it_is(shared: Path) -> None:
    recording = read(shared / "code15" / "9190_all_data_is_zero.hea")
    assert recording.rate_hz == 800
    assert not recording.signal_mv.any()  # digital 1 with baseline 1


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_last_groups_may_be_short(fmt: int, count: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    """Odd 212 ends after 2 of 3 bytes; 310 and 311 after 2, 3 or 4 of 4."""
    samples = np.random.default_rng(count).integers(-60, 60, count)
    recording = read(wfdb_files.write_record(tmp_path, [wfdb_files.Channel(samples, fmt=fmt)]))
    assert recording.digital.tolist() == [samples.tolist()]


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt != 8])
def test_the_least_value_of_a_format_is_missing(fmt: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    least = -(1 << (wfdb_files.BITS[fmt] - 1))
    samples = np.array([[least, least + 1, 0, -least - 1], [1, 2, least, 3]])
    channels = [wfdb_files.Channel(row, name, fmt=fmt) for row, name in zip(samples, ("I", "II"), strict=True)]
    recording = read(wfdb_files.write_record(tmp_path, channels))
    assert recording.digital.tolist() == samples.tolist()
    assert recording.missing.tolist() == (samples == least).tolist()
    assert np.isnan(recording.signal_mv).tolist() == (samples == least).tolist()


def test_format_8_has_no_missing_value(wfdb_files: ModuleType, tmp_path: Path) -> None:
    samples = np.array([0, -128, -128])
    recording = read(wfdb_files.write_record(tmp_path, [wfdb_files.Channel(samples, fmt=8)]))
    assert recording.missing is None
    assert recording.digital.tolist() == [[0, -128, -128]]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_flipped_bit_is_found_or_harmless(fmt: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    """Every single bit. Formats 24 and 32 sum only their low 16 bits, format 8 may cancel: there, no promise."""
    samples = np.random.default_rng(1).integers(-60, 60, (2, 5))
    channels = [wfdb_files.Channel(row, name, fmt=fmt) for row, name in zip(samples, ("I", "II"), strict=True)]
    path = wfdb_files.write_record(tmp_path, channels)
    data = (tmp_path / "r.dat").read_bytes()
    found = harmless = silent = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        (tmp_path / "r.dat").write_bytes(flipped)
        try:
            same = np.array_equal(read(path).digital, samples)
        except UnreadableRecording as error:
            found += error.reason is Reason.CHECKSUM
        else:
            harmless, silent = harmless + same, silent + (not same)
    if fmt in (8, 24, 32):
        assert found >= 4 * len(data)
    else:
        # Filler: bit 0 of each 310 word, two top bits of each 311 word, and what a last group of one leaves over.
        assert (silent, harmless) == (0, {310: 7 + 5, 311: 6 + 6}.get(fmt, 0))
        assert found + harmless == 8 * len(data)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_signal_file_cut_at_any_byte_is_truncated(fmt: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    samples = np.random.default_rng(2).integers(-60, 60, (2, 7))
    channels = [wfdb_files.Channel(row, name, fmt=fmt) for row, name in zip(samples, ("I", "II"), strict=True)]
    path = wfdb_files.write_record(tmp_path, channels)
    data = (tmp_path / "r.dat").read_bytes()
    for length in range(len(data)):
        (tmp_path / "r.dat").write_bytes(data[:length])
        assert refused(path).reason is Reason.TRUNCATED


def test_a_header_cut_at_any_byte_is_refused_or_loses_comments_only(wfdb_files: ModuleType, tmp_path: Path) -> None:
    path, expected = wfdb_files.write(tmp_path)
    data = path.read_bytes()
    signals_end = data.index(b"\n#") + 1
    for length in range(signals_end):
        path.write_bytes(data[:length])
        assert refused(path).reason in (Reason.HEADER, Reason.TRUNCATED)
    for length in range(signals_end, len(data)):
        path.write_bytes(data[:length])
        recording = read(path)
        assert recording.leads == expected[0]["leads"]
        assert recording.fields.get("Age", "94") == "94"


def test_extra_bytes_after_the_declared_samples_are_left_alone(wfdb_files: ModuleType, tmp_path: Path) -> None:
    path = wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(9))])
    with (tmp_path / "r.dat").open("ab") as file:
        file.write(b"junk")
    assert read(path).digital.tolist() == [list(range(9))]


@pytest.mark.parametrize("record_line", ["r 2 500", "r 2 500 0", "r 2"])
def test_an_undeclared_length_comes_from_the_file_unverified(
    record_line: str, wfdb_files: ModuleType, tmp_path: Path
) -> None:
    channels = [wfdb_files.Channel(np.arange(9), name, tail="16 0 0 999 0") for name in ("I", "II")]
    path = wfdb_files.write_record(tmp_path, channels, record_line)
    recording = read(path)
    assert recording.digital.shape == (2, 9)
    assert recording.notes == (wfdb.NO_CHECKSUM,)
    (scanned,) = wfdb.scan(path)
    assert scanned.n_samples == 0
    data = (tmp_path / "r.dat").read_bytes()
    for length in (len(data) - 1, len(data) - 2, 1):  # ends inside a frame
        (tmp_path / "r.dat").write_bytes(data[:length])
        assert refused(path).reason is Reason.TRUNCATED
    (tmp_path / "r.dat").write_bytes(b"")
    assert refused(path).reason is Reason.EMPTY


@pytest.mark.parametrize("sign", [0, 65536])
def test_checksums_are_signed_or_unsigned(sign: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    samples = np.array([-5, -10, 3])
    path = wfdb_files.write_record(tmp_path, [wfdb_files.Channel(samples, tail=f"16 0 -5 {-12 + sign} 0")])
    assert read(path).digital.tolist() == [[-5, -10, 3]]


@pytest.mark.parametrize(("tail", "what"), [("16 0 -5 -13 0", "checksum"), ("16 0 -4 -12 0", "first sample")])
def test_a_wrong_sum_or_first_value_is_refused(tail: str, what: str, wfdb_files: ModuleType, tmp_path: Path) -> None:
    error = refused(wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.array([-5, -10, 3]), tail=tail)]))
    assert error.reason is Reason.CHECKSUM
    assert what in str(error)


def test_signals_of_several_files_and_formats_are_one_recording(wfdb_files: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    channels = [
        wfdb_files.Channel(rng.integers(-200, 200, 11), f"s{place}", f"r.d{fmt}", fmt, offset=place)
        for place, fmt in enumerate((16, 212, 310, 24))
    ]
    recording = read(wfdb_files.write_record(tmp_path, channels))
    assert recording.digital.tolist() == [channel.samples.tolist() for channel in channels]


def test_files_of_unequal_length_are_refused(wfdb_files: ModuleType, tmp_path: Path) -> None:
    channels = [wfdb_files.Channel(np.arange(9), "I", "a.dat"), wfdb_files.Channel(np.arange(8), "II", "b.dat")]
    assert refused(wfdb_files.write_record(tmp_path, channels, "r 2 500")).reason is Reason.TRUNCATED
    assert refused(wfdb_files.write_record(tmp_path, channels)).reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("unit", "per_mv"), [("mV", 200.0), ("mv", 200.0), ("MV", 200.0), ("uV", 2e5), ("µV", 2e5), ("nV", 2e8), ("V", 0.2)]
)
def test_units_of_voltage(unit: str, per_mv: float, wfdb_files: ModuleType, tmp_path: Path) -> None:
    path = wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(9), gain=f"200(1)/{unit}")])
    recording = read(path)
    assert recording.gain_per_mv.tolist() == pytest.approx([per_mv])
    np.testing.assert_allclose(recording.signal_mv[0], (np.arange(9) - 1) / per_mv)


@pytest.mark.parametrize("gain", ["1e300/mV", "1e-300/mV", "1e14/uV", "-1e-10/mV"])
def test_a_gain_no_device_has_is_refused(gain: str, wfdb_files: ModuleType, tmp_path: Path) -> None:
    assert (
        refused(wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(9), gain=gain)])).reason is Reason.UNIT
    )


def test_an_unknown_unit_is_refused_on_a_lead_and_kept_on_anything_else(wfdb_files: ModuleType, tmp_path: Path) -> None:
    odd = wfdb_files.Channel(np.arange(9), "RESP", gain="10/l/min")
    lead = wfdb_files.Channel(np.arange(9), "II")
    recording = read(wfdb_files.write_record(tmp_path, [odd, lead]))
    assert recording.leads == ("RESP", "II")
    assert recording.digital.tolist() == [list(range(9))] * 2
    assert np.isnan(recording.signal_mv[0]).all()
    assert np.isfinite(recording.signal_mv[1]).all()
    path = wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(9), "ii", gain="10/mmHg")])
    assert refused(path).reason is Reason.UNIT
    with pytest.raises(UnreadableRecording):
        list(wfdb.scan(path))


def test_matlab_preambles_are_compared_with_the_header(wfdb_files: ModuleType, tmp_path: Path) -> None:
    samples = np.arange(24, dtype=np.int16).reshape(2, 12)
    assert read(wfdb_files.write_mat(tmp_path, samples)).digital.tolist() == samples.tolist()
    good = np.array([30, 2, 12, 0, 4], "<i4")
    for place, value in ((0, 20), (0, 0), (1, 3), (2, 11), (3, 1), (4, 5)):
        bad = good.copy()
        bad[place] = value
        path = wfdb_files.write_mat(tmp_path, samples, preamble=bad.tobytes() + b"val\0")
        assert refused(path).reason is Reason.HEADER
    assert (
        refused(wfdb_files.write_mat(tmp_path, samples, preamble=b"MATLAB 5.0 MAT-file, xyz")).reason is Reason.HEADER
    )


def test_a_missing_signal_file_is_named(wfdb_files: ModuleType, tmp_path: Path) -> None:
    path = wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(9))])
    (tmp_path / "r.dat").unlink()
    error = refused(path)
    assert error.reason is Reason.MISSING_FILE
    assert "r.dat" in str(error)
    assert next(wfdb.scan(path)).n_samples == 9  # a scan reads the header alone


@pytest.mark.parametrize("fmt", [80, 212, 310, 311])
def test_no_sample_of_16_bits_as_first_value_of_fewer_bits(fmt: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    samples = np.array([5, -7, 100, 3, 2, -1])
    total = wfdb_files.checksum(samples)
    make = wfdb_files.Channel
    path = wfdb_files.write_record(tmp_path, [make(samples, fmt=fmt, tail=f"12 0 -32768 {total} 0")])
    found = read(path)
    assert found.digital.tolist() == [samples.tolist()]
    assert found.notes == (signal.UNFIT_FIRST,)
    for first, sum_ in ((-32768, total + 1), (-32767, total), (32767, total), (6, total)):
        path = wfdb_files.write_record(tmp_path, [make(samples, fmt=fmt, tail=f"12 0 {first} {sum_} 0")])
        assert refused(path).reason is Reason.CHECKSUM


@pytest.mark.parametrize("fmt", [16, 24, 32, 61, 160])
def test_a_first_value_that_the_format_can_hold_is_compared(fmt: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    samples = np.array([5, -7, 100])
    channel = wfdb_files.Channel(samples, fmt=fmt, tail=f"12 0 -32768 {wfdb_files.checksum(samples)} 0")
    assert refused(wfdb_files.write_record(tmp_path, [channel])).reason is Reason.CHECKSUM


@pytest.mark.parametrize("text", ["2006", "2020-05-12 10:00:00"])
def test_a_record_is_not_refused_for_its_date(text: str, wfdb_files: ModuleType, tmp_path: Path) -> None:
    found = read(wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(10))], f"r 1 500 10 {text}"))
    assert (found.n_samples, found.acquired_at) == (10, None)
    assert wh.UNREAD_DATE in found.notes


@pytest.mark.parametrize("unit", ["NU", "nu"])
def test_leads_without_a_unit_are_numbers_and_no_voltages(unit: str, wfdb_files: ModuleType, tmp_path: Path) -> None:
    """wfdb-python writes NU for "no unit"; a record of it serves recipes that take numbers, and no others."""
    make = wfdb_files.Channel
    channels = [make(np.arange(10), lead, gain=f"500(2)/{unit}") for lead in ("I", "II")]
    found = read(wfdb_files.write_record(tmp_path, [*channels, make(np.arange(10), "RESP", gain="1/bpm")]))
    assert found.unit == "none"
    np.testing.assert_allclose(found.signal_mv[:2], np.tile((np.arange(10) - 2) / 500, (2, 1)))
    assert np.isnan(found.gain_per_mv[2])
    (scanned,) = wfdb.scan(tmp_path / "r.hea")
    assert scanned.unit == "none"


def test_leads_without_a_unit_beside_voltages_are_refused(wfdb_files: ModuleType, tmp_path: Path) -> None:
    make = wfdb_files.Channel
    path = wfdb_files.write_record(tmp_path, [make(np.arange(10), "I"), make(np.arange(10), "II", gain="500/NU")])
    assert refused(path).reason is Reason.UNIT
    # Beside the leads, such a signal is one that is no voltage.
    path = wfdb_files.write_record(tmp_path, [make(np.arange(10), "I"), make(np.arange(10), "flag", gain="1/NU")])
    found = read(path)
    assert found.unit == "mV"
    assert np.isnan(found.gain_per_mv[1])
