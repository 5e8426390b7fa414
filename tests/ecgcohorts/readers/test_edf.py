"""EDF, EDF+ and BDF: fields, calibration, choice of signals, continuity, and what stands around them."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import positions
from ecgcohorts.readers._shared.people import NO_CLOCK
from ecgcohorts.readers.edf import reader as edf
from ecgcohorts.recording import Recording

Read = Callable[..., Recording]
Refused = Callable[..., Reason]

FULL_24 = {"digital": ("-8388608", "8388607"), "physical": ("-8388608", "8388607"), "dimension": "nV"}


@pytest.fixture(scope="session")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("edf")


@pytest.fixture
def read(files: ModuleType, tmp_path: Path) -> Read:
    """`read(signals, ...)` writes a file of these signals and reads it."""

    def call(signals: Any, **how: Any) -> Recording:
        path = tmp_path / "x.edf"
        path.write_bytes(signals if isinstance(signals, bytes) else files.document(signals, **how))
        (recording,) = edf.read(path)
        (scanned,) = edf.scan(path)
        assert (scanned.leads, scanned.n_samples) == (recording.leads, recording.n_samples)
        return recording

    return call


@pytest.fixture
def refused(read: Read) -> Refused:
    """`refused(signals, ...)` writes such a file and says why it is refused."""

    def call(signals: Any, **how: Any) -> Reason:
        with pytest.raises(UnreadableRecording) as caught:
            read(signals, **how)
        return caught.value.reason

    return call


@pytest.fixture
def leads(files: ModuleType) -> list[Any]:
    """Twelve leads of one second at 500 Hz, 0.1 uV a step."""
    return files.leads_of(files.known_samples())


def test_plain_edf(files: ModuleType, read: Read, leads: list[Any]) -> None:
    found = read(leads)
    np.testing.assert_array_equal(found.digital, np.stack([lead.samples for lead in leads]))
    np.testing.assert_allclose(found.signal_mv, np.stack([files.physical(lead) for lead in leads]) / 1000, atol=1e-12)
    assert (found.leads, found.rate_hz, found.missing) == (files.TWELVE, 500.0, None)
    assert found.baseline is not None
    assert found.baseline.tolist() == [0.0] * 12  # exactly, although 65535 / 6553.5 is no float
    assert found.acquired_at == datetime(2002, 3, 2, 14, 5, 59)
    assert found.mains_hz == 50.0
    assert found.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz", "AC filter 50 Hz")


def test_edf_plus_without_its_annotations(files: ModuleType, read: Read, leads: list[Any]) -> None:
    """The annotation signal stands first, in the middle, or twice, and has another length than the others."""
    notes = files.Annotations([place * 0.1 for place in range(10)], per_record=17)
    for signals in ([notes, *leads], [*leads[:5], notes, *leads[5:], notes]):
        found = read(signals, kind="EDF+C")
        np.testing.assert_array_equal(found.digital, np.stack([lead.samples for lead in leads]))
        assert found.leads == files.TWELVE


@pytest.mark.parametrize("kind", ["", "BDF+C"])
def test_bdf_has_24_bits(kind: str, files: ModuleType, read: Read) -> None:
    samples = files.known_samples(limit=1 << 23)
    samples[0, :3] = (1 << 23) - 1, -(1 << 23), -1
    signals = files.leads_of(samples, **FULL_24)
    if kind:
        signals.append(files.Annotations([place * 0.1 for place in range(10)], label="BDF Annotations"))
    found = read(signals, kind=kind, bdf=True)
    np.testing.assert_array_equal(found.digital, samples)
    np.testing.assert_allclose(found.signal_mv, samples * 1e-6, rtol=1e-12, atol=1e-15)


class TestFields:
    @pytest.mark.parametrize("name", ["header_bytes", "n_records", "record_s", "n_signals"])
    @pytest.mark.parametrize("value", ["", "abc", "1 2", "0x1", "1,5", "nan", "\xb2", "1\0"])
    def test_numbers_are_matched_from_end_to_end(
        self, name: str, value: str, refused: Refused, leads: list[Any]
    ) -> None:
        assert refused(leads, **{name: value}) == Reason.HEADER

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"n_records": "-1"}, Reason.UNSUPPORTED),  # its writer is not done
            ({"n_records": "-2"}, Reason.EMPTY),
            ({"n_records": "0"}, Reason.EMPTY),
            ({"n_records": "11"}, Reason.TRUNCATED),
            ({"n_records": "99999999"}, Reason.TRUNCATED),
            ({"record_s": "0"}, Reason.HEADER),
            ({"record_s": "-1"}, Reason.HEADER),
            ({"record_s": "1e-9"}, Reason.HEADER),
            ({"header_bytes": "3072"}, Reason.HEADER),
            ({"n_signals": "0"}, Reason.LIMIT),
            ({"n_signals": "9999"}, Reason.LIMIT),
            ({"version": "1"}, Reason.FORMAT),
        ],
    )
    def test_what_no_whole_file_says(
        self, changes: dict[str, str], reason: Reason, refused: Refused, leads: list[Any]
    ) -> None:
        assert refused(leads, **changes) == reason

    @pytest.mark.parametrize("count", [0, -5])
    def test_a_signal_without_samples(self, count: int, files: ModuleType, refused: Refused) -> None:
        data = files.document(files.leads_of(files.known_samples(1), ["I"]))
        at = 256 + 216  # samples per record of the only signal
        assert refused(data[:at] + str(count).ljust(8).encode() + data[at + 8 :]) == Reason.HEADER

    def test_a_longer_file_is_noted(self, files: ModuleType, read: Read, leads: list[Any]) -> None:
        found = read(files.document(leads) + b"more")
        np.testing.assert_array_equal(found.digital, np.stack([lead.samples for lead in leads]))
        assert edf.TRAILING in found.notes


class TestCalibration:
    @pytest.mark.parametrize(
        ("unit", "in_mv"), [("uV", 1e-3), ("\xb5V", 1e-3), (b"\xc2\xb5V", 1e-3), ("mV", 1.0), ("V", 1e3), ("nV", 1e-6)]
    )
    def test_units(self, unit: str | bytes, in_mv: float, files: ModuleType, read: Read) -> None:
        signals = files.leads_of(
            files.known_samples(2), dimension=unit, physical=("-2", "3"), digital=("-9000", "9000")
        )
        expected = np.stack([files.physical(signal) for signal in signals]) * in_mv
        np.testing.assert_allclose(read(signals).signal_mv, expected, rtol=1e-10, atol=1e-10 * in_mv)

    def test_an_offset_and_a_turned_scale(self, files: ModuleType, read: Read) -> None:
        """Physical limits in falling order are legal: the signal is upside down."""
        signals = files.leads_of(files.known_samples(2), physical=("5000.5", "-1000"), digital=("-10000", "12000"))
        found = read(signals)
        expected_mv = np.stack([files.physical(signal) for signal in signals]) / 1000
        np.testing.assert_allclose(found.signal_mv, expected_mv, atol=1e-11)
        assert found.gain_per_mv is not None
        assert (found.gain_per_mv < 0).all()

    @pytest.mark.parametrize(
        "limits",
        [
            {"physical": ("5", "5")},
            {"physical": ("-0.0", "0")},
            {"physical": ("abc", "5")},
            {"physical": ("-1e400", "1")},
            {"digital": ("5", "5")},
            {"digital": ("100", "-100")},
            {"digital": ("-32769", "32767")},
            {"digital": ("-5.5", "32767")},
        ],
    )
    def test_limits_that_give_no_gain(self, limits: dict[str, Any], files: ModuleType, refused: Refused) -> None:
        assert refused(files.leads_of(files.known_samples(2), **limits)) == Reason.HEADER

    @pytest.mark.parametrize(
        ("limits", "unit"),
        [
            (("-3276,8", "3276,7"), "uV"),
            (("-3,2768", "3,2767"), "mV"),
            (("-,5", "5,"), "mV"),
            (("-0,005", "0,005"), "V"),
            (("-5,000", "5,0000"), "mV"),
            (("-32,768", "32,76"), "mV"),
        ],
    )
    @pytest.mark.parametrize("record_s", ["0.1", "0,1", ",1"])
    def test_decimal_commas(
        self, limits: tuple[str, str], unit: str, record_s: str, files: ModuleType, read: Read
    ) -> None:
        samples = files.known_samples(2)
        points = (limits[0].replace(",", "."), limits[1].replace(",", "."))
        known = read(files.leads_of(samples, physical=points, dimension=unit))
        signals = files.leads_of(samples, physical=limits, dimension=unit, prefilter="HP:0,05Hz LP:150,0Hz N:50Hz")
        found = read(signals, record_s=record_s)
        np.testing.assert_array_equal(found.signal_mv, known.signal_mv)
        assert (found.rate_hz, set(found.notes) - set(known.notes)) == (500.0, {edf.COMMAS})

    @pytest.mark.parametrize(
        "limits",
        [
            {"physical": ("-32,768", "32,767")},  # thousands, or not
            {"physical": ("-32768", "32,767")},
            {"physical": ("-3,276.8", "3,276.7")},
            {"physical": ("-3276,8", "3276.7")},
            {"physical": ("-1,5,0", "1,5")},
            {"digital": ("-32,768", "32,767")},
        ],
    )
    def test_a_comma_that_may_mean_thousands_is_refused_by_name(
        self, limits: dict[str, Any], files: ModuleType, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.edf"
        path.write_bytes(files.document(files.leads_of(files.known_samples(2), **limits)))
        with pytest.raises(UnreadableRecording) as caught:
            list(edf.read(path))
        assert caught.value.reason is Reason.HEADER
        assert "comma" in caught.value.found

    @pytest.mark.parametrize("unit", ["", "mmHg", "Boolean"])
    def test_a_lead_in_no_voltage_is_refused(self, unit: str, files: ModuleType, refused: Refused) -> None:
        assert refused(files.leads_of(files.known_samples(), dimension=unit)) == Reason.UNIT

    def test_samples_beyond_their_limits_are_kept_and_noted(self, files: ModuleType, read: Read) -> None:
        signals = files.leads_of(files.known_samples(), digital=("-8000", "8000"))
        found = read(signals)
        np.testing.assert_array_equal(found.digital, np.stack([signal.samples for signal in signals]))
        assert edf.OUT_OF_RANGE in found.notes


class TestSignals:
    @pytest.mark.parametrize(("label", "lead"), [("ECG I", "I"), ("EKG V1", "V1"), ("I", "I"), ("ECG aVR", "aVR")])
    def test_labels(self, label: str, lead: str, files: ModuleType, read: Read) -> None:
        found = read([files.Signal(label, files.known_samples(1)[0]), files.Signal("x", files.known_samples(1)[0])])
        assert found.leads == (label, "x")
        assert list(positions(found.leads)) == [lead]

    def test_signals_of_other_rates_are_left_out(self, files: ModuleType, read: Read, leads: list[Any]) -> None:
        slow = files.Signal("EEG Fpz", files.known_samples(1, 100)[0], per_record=10)
        fast = files.Signal("EMG", files.known_samples(1, 2000)[0], per_record=200)
        found = read([slow, *leads[:4], fast, *leads[4:]])
        assert found.leads == files.TWELVE
        np.testing.assert_array_equal(found.digital, np.stack([lead.samples for lead in leads]))
        assert edf.OTHER_RATES in found.notes

    def test_voltages_at_the_rate_of_the_leads_are_kept_others_are_not(
        self, files: ModuleType, read: Read, leads: list[Any]
    ) -> None:
        eeg = files.Signal("EEG Cz", files.known_samples(1)[0])
        # Its limits give no gain, but nobody asks for one.
        status = files.Signal("Status", files.known_samples(1)[0], dimension="Boolean", physical=("0", "0"))
        found = read([status, *leads, eeg])
        assert found.leads == (*files.TWELVE, "EEG Cz")
        assert edf.NO_VOLTAGE in found.notes

    def test_electrodes_of_an_eeg_are_no_leads(self, files: ModuleType, read: Read, leads: list[Any]) -> None:
        slow = [files.Signal(label, leads[0].samples[::2], per_record=25) for label in ("C3", "C4")]
        found = read([*slow, *leads[:2]])
        assert (found.leads, found.rate_hz) == (files.TWELVE[:2], 500.0)

    def test_without_leads_the_fastest_voltages_are_read(self, files: ModuleType, read: Read) -> None:
        fast = files.Signal("MLII", files.known_samples(1, 2000)[0], per_record=200)
        slow = files.Signal("EEG", files.known_samples(1)[0])
        assert read([fast, slow]).leads == ("MLII",)

    def test_leads_at_two_rates_are_refused(self, files: ModuleType, refused: Refused) -> None:
        fast = files.Signal("I", files.known_samples(1, 1000)[0], per_record=100)
        assert refused([fast, files.Signal("II", files.known_samples(1)[0])]) == Reason.UNSUPPORTED

    def test_no_voltage_and_too_many(self, files: ModuleType, refused: Refused) -> None:
        pulse = files.Signal("pulse", files.known_samples(1)[0], dimension="bpm")
        assert refused([pulse]) == Reason.EMPTY
        eeg = [files.Signal(f"EEG {place}", files.known_samples(1)[0]) for place in range(65)]
        assert refused(eeg) == Reason.LIMIT


class TestTime:
    def test_rates_are_exact(self, files: ModuleType, read: Read) -> None:
        signals = files.leads_of(files.known_samples(2, 360), per_record=36)
        assert read(signals, record_s="0.1").rate_hz == 360.0
        assert read(signals, record_s=".3").rate_hz == 120.0

    @pytest.mark.parametrize(
        ("onsets", "contiguous"), [("0 .1 .2", True), ("5.25 5.35 5.45", True), ("0 .1 .3", False)]
    )
    def test_a_discontinuous_file_is_read_only_without_gaps(
        self, onsets: str, contiguous: bool, files: ModuleType, read: Read, refused: Refused
    ) -> None:
        samples = files.known_samples(2, 150)
        signals = [*files.leads_of(samples), files.Annotations([float(onset) for onset in onsets.split()])]
        if contiguous:
            found = read(signals, kind="EDF+D")
            np.testing.assert_array_equal(found.digital, samples)
            assert edf.CONTIGUOUS in found.notes
        else:
            assert refused(signals, kind="EDF+D") == Reason.UNSUPPORTED

    def test_a_discontinuous_file_needs_its_onsets(self, files: ModuleType, refused: Refused) -> None:
        leads = files.leads_of(files.known_samples(2, 150))
        assert refused(leads, kind="EDF+D") == Reason.UNSUPPORTED
        assert refused([*leads, files.Annotations([0, None, 0.2])], kind="EDF+D") == Reason.HEADER

    def test_zeros_that_fill_the_last_record_are_missing(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        samples[:, -20:] = 0
        samples[3, -21] = 9
        found = read(files.leads_of(samples))
        np.testing.assert_array_equal(found.digital, samples)
        assert found.missing is not None
        assert found.missing[:, -20:].all()
        assert not found.missing[:, :-20].any()
        assert edf.PADDED in found.notes

    def test_other_zeros_are_voltages(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        samples[:, -9:] = 0
        samples[0, -10] = 9
        assert read(files.leads_of(samples)).missing is None
        samples[:2, -40:] = 0
        samples[2:, -40:] = 1
        assert read(files.leads_of(samples)).missing is None
        assert read(files.leads_of(samples[:1], ["I"])).missing is None  # nobody can tell for a single lead

    @pytest.mark.parametrize(
        ("date", "year"), [("02.03.85", 1985), ("02.03.99", 1999), ("02.03.00", 2000), ("02.03.84", 2084)]
    )
    def test_two_digits_of_a_year(self, date: str, year: int, read: Read, leads: list[Any]) -> None:
        assert read(leads, start_date=date).acquired_at == datetime(year, 3, 2, 14, 5, 59)

    @pytest.mark.parametrize("time", ["14:05:59", "14.05.59", "14:05.59"])
    def test_a_time_with_points_or_colons(self, time: str, read: Read, leads: list[Any]) -> None:
        found = read(leads, start_time=time)
        assert found.acquired_at == datetime(2002, 3, 2, 14, 5, 59)
        assert NO_CLOCK not in found.notes

    @pytest.mark.parametrize("time", ["2 pm", "", "14-05-59", "1:2:3"])
    def test_a_time_that_is_not_understood_is_told(self, time: str, read: Read, leads: list[Any]) -> None:
        found = read(leads, start_time=time)
        assert found.acquired_at == datetime(2002, 3, 2)
        assert NO_CLOCK in found.notes
        assert NO_CLOCK not in read(leads, start_time=time, start_date="01.01.85").notes

    @pytest.mark.parametrize("date", ["01.01.85", "", "32.13.99", "xx.xx.xx"])
    def test_a_removed_date_is_none(self, date: str, read: Read, leads: list[Any]) -> None:
        assert read(leads, start_date=date).acquired_at is None

    def test_the_recording_field_of_edf_plus_dates_it(self, files: ModuleType, read: Read, leads: list[Any]) -> None:
        found = read(leads, kind="EDF+C", start_date="02.03.yy")
        assert found.acquired_at == datetime(2002, 3, 2, 14, 5, 59)
        found = read(leads, kind="EDF+C", start_date="01.01.85", recording="Startdate X X X X")
        assert found.acquired_at is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject, files: ModuleType, read: Read) -> None:
    """Any signals, rates and ranges, 16 or 24 bits, annotations anywhere: integers and millivolts come back."""
    bdf = data.draw(st.booleans())
    bound = 1 << (23 if bdf else 15)
    n_signals, n_records, per_record = (data.draw(st.integers(1, most)) for most in (12, 4, 25))
    duration = data.draw(st.integers(1, 25))
    least = data.draw(st.integers(-bound, bound - 2))
    most = data.draw(st.integers(least + 1, bound - 1))
    low = data.draw(st.integers(-99_999, 99_999))
    high = data.draw(st.integers(-99_999, 99_999).filter(lambda value: value != low))
    signals: list[Any] = [
        files.Signal(
            label,
            np.array(
                data.draw(
                    st.lists(st.integers(least, most), min_size=n_records * per_record, max_size=n_records * per_record)
                )
            ),
            per_record,
            "uV",
            (f"{low / 100:.2f}", f"{high / 100:.2f}"),
            (str(least), str(most)),
        )
        for label in data.draw(st.permutations(files.TWELVE))[:n_signals]
    ]
    written = list(signals)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, n_signals))
        label = "BDF Annotations" if bdf else "EDF Annotations"
        written.insert(place, files.Annotations([record * duration / 1000 for record in range(n_records)], 40, label))
    found = read(written, bdf=bdf, record_s=f"{duration / 1000:g}", kind="" if len(written) == n_signals else "EDF+C")
    np.testing.assert_array_equal(found.digital, np.stack([signal.samples for signal in signals]))
    measured = np.ones(found.signal_mv.shape, bool) if found.missing is None else ~found.missing
    expected_mv = np.stack([files.physical(signal) for signal in signals]) / 1000
    np.testing.assert_allclose(found.signal_mv[measured], expected_mv[measured], rtol=1e-9, atol=1e-9)
    assert found.leads == tuple(signal.label for signal in signals)
    assert found.rate_hz == per_record * 1000 / duration
