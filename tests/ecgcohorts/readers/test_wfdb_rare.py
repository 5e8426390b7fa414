"""Records that go through the `wfdb` package: segments, rates, skew, and every check around it."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.wfdb import package as _wfdb_package
from ecgcohorts.readers.wfdb import reader as wfdb

RNG_SEED = 8


def segment(
    files: ModuleType, folder: Path, name: str, leads: tuple[str, ...], count: int, gain: str = "200(5)/mV"
) -> np.ndarray:
    """Write one segment; returns (lead, time) integers."""
    digital = np.random.default_rng(len(name) + count).integers(-900, 900, (len(leads), count))
    channels = [files.Channel(row, lead, f"{name}.dat", gain=gain) for row, lead in zip(digital, leads, strict=True)]
    files.write_record(folder, channels, f"{name} {len(leads)} 500 {count}", name=name)
    return digital


def master(folder: Path, *lines: str, n_signals: int = 2) -> Path:
    total = sum(int(line.split()[1]) for line in lines)
    path = folder / "m.hea"
    path.write_text("\n".join([f"m/{len(lines)} {n_signals} 500 {total}", *lines, "# Age: 50"]) + "\n")
    return path


def refused(path: Path) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        list(wfdb.read(path))
    return caught.value


def test_segments_of_one_layout_are_one_recording(wfdb_files: ModuleType, tmp_path: Path) -> None:
    first = segment(wfdb_files, tmp_path, "a", ("I", "II"), 30)
    second = segment(wfdb_files, tmp_path, "b", ("I", "II"), 20, gain="1000(-7)/mV")
    (found,) = wfdb.read(master(tmp_path, "a 30", "b 20"))
    expected = np.concatenate([(first - 5) / 200, (second + 7) / 1000], axis=1)
    np.testing.assert_allclose(found.analog_mv, expected, rtol=1e-12)
    assert (found.leads, found.rate_hz, found.n_samples) == (("I", "II"), 500.0, 50)
    assert found.fields == {"Age": "50"}
    assert _wfdb_package.SEVERAL_SEGMENTS in found.notes
    (scanned,) = wfdb.scan(tmp_path / "m.hea")
    assert (scanned.leads, scanned.n_samples, scanned.analog_mv.shape) == (("I", "II"), 50, (2, 0))


def test_segments_of_one_layout_may_have_gaps_and_come_in_any_voltage(wfdb_files: ModuleType, tmp_path: Path) -> None:
    """The `wfdb` package knows gaps in variable layouts only, and one unit for all segments."""
    first = segment(wfdb_files, tmp_path, "a", ("I", "II"), 30)
    second = segment(wfdb_files, tmp_path, "b", ("I", "II"), 20, gain="0.2(5)/uV")
    (found,) = wfdb.read(master(tmp_path, "a 30", "~ 10", "b 20"))
    expected = np.concatenate([(first - 5) / 200, np.full((2, 10), np.nan), (second - 5) / 200], axis=1)
    np.testing.assert_allclose(found.analog_mv, expected, rtol=1e-12)


def test_segments_equal_what_the_package_reads(wfdb_files: ModuleType, package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "lay.hea").write_text("lay 2 500 0\n~ 0 200/mV 0 0 0 0 0 I\n~ 0 200/mV 0 0 0 0 0 II\n")
    segment(wfdb_files, tmp_path, "a", ("II",), 30)
    segment(wfdb_files, tmp_path, "b", ("II", "I"), 20, gain="1000(-7)/mV")
    (found,) = wfdb.read(master(tmp_path, "lay 0", "a 30", "~ 10", "b 20"))
    theirs = package.rdrecord(str(tmp_path / "m"), physical=True)
    assert found.leads == tuple(theirs.sig_name)
    np.testing.assert_allclose(found.analog_mv, theirs.p_signal.T, rtol=1e-12)


def test_segments_of_variable_layout_are_matched_by_name_and_may_have_gaps(
    wfdb_files: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "lay.hea").write_text("lay 2 500 0\n~ 0 200/mV 0 0 0 0 0 I\n~ 0 200/mV 0 0 0 0 0 II\n")
    first = segment(wfdb_files, tmp_path, "a", ("II",), 30)
    second = segment(wfdb_files, tmp_path, "b", ("II", "I"), 20)
    (found,) = wfdb.read(master(tmp_path, "lay 0", "a 30", "~ 10", "b 20"))
    expected = np.full((2, 60), np.nan)
    expected[1, :30] = (first[0] - 5) / 200
    expected[:, 40:] = (second[::-1] - 5) / 200
    np.testing.assert_allclose(found.analog_mv, expected, rtol=1e-12)
    assert refused(tmp_path / "lay.hea").reason is Reason.UNSUPPORTED  # a layout is no record


def test_microvolts_of_segments_become_millivolts(wfdb_files: ModuleType, tmp_path: Path) -> None:
    digital = segment(wfdb_files, tmp_path, "a", ("I", "II"), 30, gain="0.2(5)/uV")
    (found,) = wfdb.read(master(tmp_path, "a 30"))
    np.testing.assert_allclose(found.analog_mv, (digital - 5) / 200, rtol=1e-12)


@pytest.mark.parametrize("bit", [0, 9, 300])
def test_a_damaged_segment_fails_its_checksum(bit: int, wfdb_files: ModuleType, tmp_path: Path) -> None:
    segment(wfdb_files, tmp_path, "a", ("I", "II"), 30)
    segment(wfdb_files, tmp_path, "b", ("I", "II"), 30)
    data = bytearray((tmp_path / "b.dat").read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    (tmp_path / "b.dat").write_bytes(data)
    assert refused(master(tmp_path, "a 30", "b 30")).reason is Reason.CHECKSUM


def test_flac_segments_are_verified_too(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    samples = (np.arange(600).reshape(2, 300) * 37 % 1000).astype(np.int16)
    soundfile.write(tmp_path / "a.dat", samples.T, 96000, "PCM_16", format="FLAC")
    lines = [
        f"a.dat 516 200/mV 16 0 {row[0]} {int(row.sum(dtype=np.int16))} 0 {lead}"
        for row, lead in zip(samples, ("I", "II"), strict=True)
    ]
    (tmp_path / "a.hea").write_text("\n".join(["a 2 500 300", *lines]) + "\n")
    (found,) = wfdb.read(master(tmp_path, "a 300", "a 300"))
    np.testing.assert_allclose(found.analog_mv, np.tile(samples / 200, 2), rtol=1e-12)
    samples[1, 7] += 1
    soundfile.write(tmp_path / "a.dat", samples.T, 96000, "PCM_16", format="FLAC")
    assert refused(master(tmp_path, "a 300", "a 300")).reason is Reason.CHECKSUM


def test_segments_that_do_not_fit_are_refused(wfdb_files: ModuleType, tmp_path: Path) -> None:
    segment(wfdb_files, tmp_path, "a", ("I", "II"), 30)
    segment(wfdb_files, tmp_path, "c", ("I", "V1"), 30)
    segment(wfdb_files, tmp_path, "u", ("I", "II"), 30, gain="200/bpm")
    assert refused(master(tmp_path, "a 29")).reason is Reason.HEADER
    assert refused(master(tmp_path, "a 30", "gone 30")).reason is Reason.MISSING_FILE
    assert refused(master(tmp_path, "a 30", "c 30")).reason is Reason.UNSUPPORTED
    assert refused(master(tmp_path, "a 30", "u 30")).reason is Reason.UNIT
    assert refused(master(tmp_path, "~ 30")).reason is Reason.EMPTY
    assert refused(master(tmp_path, "a 30", n_signals=3)).reason is Reason.UNSUPPORTED
    (tmp_path / "a.dat").write_bytes(b"\0" * 40)
    assert refused(master(tmp_path, "a 30")).reason is Reason.TRUNCATED
    (tmp_path / "n.hea").write_text("n/1 2 500 30\na 30\n")
    assert refused(master(tmp_path, "n 30")).reason is Reason.UNSUPPORTED


def test_a_master_that_names_itself_is_refused(tmp_path: Path) -> None:
    assert refused(master(tmp_path, "m 30")).reason is Reason.UNSUPPORTED


def test_null_segments_are_not_paid_for_in_memory(wfdb_files: ModuleType, tmp_path: Path) -> None:
    segment(wfdb_files, tmp_path, "a", ("I", "II"), 30)
    path = master(tmp_path, "a 30", "~ 7000000", n_signals=60)
    assert refused(path).reason is Reason.LIMIT  # 4 h of 60 signals, declared in 30 bytes
    assert refused(master(tmp_path, "a 30", "~ 17000000")).reason is Reason.LIMIT


def test_frames_are_verified_and_measured_before_the_package_sees_them(wfdb_files: ModuleType, tmp_path: Path) -> None:
    channel = wfdb_files.Channel(np.arange(40), "II", per_frame=4)
    path = wfdb_files.write_record(tmp_path, [channel], "r 1 125 10")
    data = (tmp_path / "r.dat").read_bytes()
    for length in (0, 1, len(data) - 1):
        (tmp_path / "r.dat").write_bytes(data[:length])
        assert refused(path).reason is Reason.TRUNCATED
    (tmp_path / "r.dat").write_bytes(b"\1" + data[1:])
    assert refused(path).reason is Reason.CHECKSUM
    huge = replace(channel, per_frame=999_999, samples=np.arange(10), extra={})
    (tmp_path / "r.hea").write_text(f"r 1 125 1000\n{huge.line()}\n")
    assert refused(path).reason is Reason.LIMIT
    (tmp_path / "r.hea").write_text(f"r 1 125\n{channel.line()}\n")
    assert refused(path).reason is Reason.UNSUPPORTED  # no length declared


def test_leads_at_several_rates_are_refused(wfdb_files: ModuleType, tmp_path: Path) -> None:
    channels = [wfdb_files.Channel(np.arange(40), "II", per_frame=4), wfdb_files.Channel(np.arange(10), "V1")]
    path = wfdb_files.write_record(tmp_path, channels, "r 2 125 10")
    assert refused(path).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("fmt", [9, 17, 500, 999])
def test_a_format_nobody_defined_is_refused(fmt: int, tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(bytes(100))
    (tmp_path / "r.hea").write_text(f"r 1 500 10\nr.dat {fmt} 200 12 0 0 0 0 I\n")
    assert refused(tmp_path / "r.hea").reason is Reason.UNSUPPORTED


def test_what_is_no_flac_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    (tmp_path / "r.hea").write_text("r 1 500 10\nr.dat 516 200 12 0 0 0 0 I\n")
    for data in (b"fLaC" + bytes(60), b"RIFF" + bytes(60), b"x"):
        (tmp_path / "r.dat").write_bytes(data)
        assert refused(tmp_path / "r.hea").reason is Reason.UNSUPPORTED
    (tmp_path / "r.dat").write_bytes(b"")
    assert refused(tmp_path / "r.hea").reason is Reason.TRUNCATED
    (tmp_path / "r.dat").write_bytes(b"fLaC" + bytes(60))
    (tmp_path / "r.hea").write_text("r 5 5000 7000000\n" + "r.dat 516 200 12 0 0 0 0 I\n" * 5)
    assert refused(tmp_path / "r.hea").reason is Reason.LIMIT


@pytest.mark.shared
def test_a_flipped_flac_sample_fails_its_checksum(shared: Path, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for path in (shared / "wfdb_samples").glob("flacformats.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    samples, rate = soundfile.read(tmp_path / "flacformats.d1", dtype="int16")
    samples[100] += 1
    soundfile.write(tmp_path / "flacformats.d1", samples, rate, "PCM_16", format="FLAC")
    assert refused(tmp_path / "flacformats.hea").reason is Reason.CHECKSUM


ODD_DATES = ["2006", "2020-05-12", "10:00:00 12.05.2020", "12-May-2020 10:00:00", "10:00:00 31/02/2020"]


@pytest.mark.parametrize("date", ODD_DATES)
@pytest.mark.parametrize("kind", ["skew", "rates", "format 8", "flac"])
def test_a_rare_record_is_not_refused_for_its_date_either(
    kind: str, date: str, wfdb_files: ModuleType, tmp_path: Path
) -> None:
    """The same record with and without the date gives the same samples."""
    make = wfdb_files.Channel
    rng = np.random.default_rng(RNG_SEED)
    samples = np.cumsum(rng.integers(-9, 10, (2, 40)), axis=1).astype(np.int16)
    if kind == "flac":
        soundfile = pytest.importorskip("soundfile")
        channels = [make(row, lead, fmt=516) for row, lead in zip(samples, ("I", "II"), strict=True)]
    elif kind == "rates":
        channels = [make(samples[0], "I", per_frame=2), make(samples[1, :20], "RESP")]
    else:
        fmt = 8 if kind == "format 8" else 16
        channels = [make(row, lead, fmt=fmt, skew=3) for row, lead in zip(samples, ("I", "II"), strict=True)]
    found = []
    for text in ("", date):
        line = f"r {len(channels)} 500 {20 if kind == 'rates' else 40} {text}".rstrip()
        if kind == "flac":
            path = tmp_path / "r.hea"
            soundfile.write(tmp_path / "r.dat", samples.T, 96000, "PCM_16", format="FLAC")
            path.write_text("\n".join([line, *(channel.line() for channel in channels)]) + "\n")
        else:
            path = wfdb_files.write_record(tmp_path, channels, line)
        found.append(next(wfdb.read(path)))
    plain, dated = found
    assert np.array_equal(plain.digital, dated.digital)
    assert (plain.missing is None) == (dated.missing is None)
    assert plain.rate_hz == dated.rate_hz
    assert (dated.acquired_at is None) == (date != ODD_DATES[3])
    assert len(dated.notes) == len(plain.notes) + 1
    if kind == "flac":
        samples[1, 7] += 1
        soundfile.write(tmp_path / "r.dat", samples.T, 96000, "PCM_16", format="FLAC")
    else:
        damaged = bytearray((tmp_path / "r.dat").read_bytes())
        damaged[len(damaged) // 2] ^= 4
        (tmp_path / "r.dat").write_bytes(damaged)
    error = refused(path)
    assert error.reason is Reason.CHECKSUM
    assert error.where == str(path)  # of the record, not of a copy


def test_the_copy_of_a_record_with_quirks_leaves_out_what_follows_its_samples(
    wfdb_files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wfdb_files.write_record(tmp_path, [wfdb_files.Channel(np.arange(40), skew=1)], "r 1 500 40 2006")
    with (tmp_path / "r.dat").open("ab") as file:
        file.truncate(1 << 26)
    sizes = []
    copy = _wfdb_package._plain_copy
    monkeypatch.setattr(
        _wfdb_package,
        "_plain_copy",
        lambda *given: [out := copy(*given), sizes.append((out.parent / "f0.dat").stat().st_size)][0],
    )
    (found,) = wfdb.read(path)
    assert found.digital[0, :39].tolist() == list(range(1, 40))
    assert sizes[0] < 1 << 21


def test_segments_without_a_unit(wfdb_files: ModuleType, tmp_path: Path) -> None:
    first = segment(wfdb_files, tmp_path, "a", ("I", "II"), 30, gain="10(0)/NU")
    second = segment(wfdb_files, tmp_path, "b", ("I", "II"), 20, gain="20(0)/NU")
    (found,) = wfdb.read(master(tmp_path, "a 30", "b 20"))
    assert found.unit == "none"
    np.testing.assert_allclose(found.analog_mv, np.concatenate([first / 10, second / 20], axis=1))
    segment(wfdb_files, tmp_path, "b", ("I", "II"), 20)
    assert refused(master(tmp_path, "a 30", "b 20")).reason is Reason.UNSUPPORTED
