"""DICOM waveforms: every encoding, the choice of the group, units, padding, leads, and what stands around them."""

import logging
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
from ecgcohorts.readers._shared.people import AGES_DIFFER
from ecgcohorts.readers.dicom import channels as _dicom_channels
from ecgcohorts.readers.dicom import reader as dicom
from ecgcohorts.recording import Recording

SENSITIVITY, UNITS, CORRECTION, BASELINE = 0x003A0210, 0x003A0211, 0x003A0212, 0x003A0213
SOURCE, LABEL, PADDING, DATA = 0x003A0208, 0x003A0203, 0x5400100A, 0x54001010

Read = Callable[..., Recording]
Refused = Callable[..., Reason]


@pytest.fixture(scope="session")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("dicom")


@pytest.fixture
def read(files: ModuleType, tmp_path: Path) -> Read:
    """`read(group, ...)` writes a file of these groups and reads it."""

    def call(*groups: Any, **how: Any) -> Recording:
        path = tmp_path / "x.dcm"
        path.write_bytes(files.document(groups, **how))
        (recording,) = dicom.read(path)
        (scanned,) = dicom.scan(path)
        assert (scanned.leads, scanned.n_samples) == (recording.leads, recording.n_samples)
        return recording

    return call


@pytest.fixture
def refused(read: Read) -> Refused:
    """`refused(group, ...)` writes such a file and says why it is refused."""

    def call(*groups: Any, **how: Any) -> Reason:
        with pytest.raises(UnreadableRecording) as caught:
            read(*groups, **how)
        return caught.value.reason

    return call


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", ["IMPLICIT", "EXPLICIT", "BIG_ENDIAN"])
def test_three_transfer_syntaxes_say_the_same(syntax: str, undefined: bool, files: ModuleType, read: Read) -> None:
    samples = files.known_samples()
    found = read(
        files.median(), files.Group(samples), encoding=files.Encoding(getattr(files, syntax), undefined=undefined)
    )
    np.testing.assert_array_equal(found.digital, samples)
    np.testing.assert_allclose(found.signal_mv, samples * 2.5e-3, rtol=1e-14)
    assert (found.leads, found.rate_hz, found.missing) == (files.TWELVE, 500.0, None)
    assert (found.patient_id, found.age_years, found.sex) == (files.PATIENT_ID, 63.0, "female")
    assert (found.acquired_at, found.device, found.site) == (datetime(2019, 3, 31, 14, 5, 59), "Cart 9", None)
    assert found.mains_hz == 50.0
    assert found.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz", "AC filter 50 Hz")


@pytest.mark.parametrize(
    "uid",
    ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.3"],
    ids=["deflated", "JPEG", "RLE", "unknown"],
)
def test_other_transfer_syntaxes_are_refused_before_the_data_set_is_looked_at(
    uid: str, files: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(files.meta(uid) + b"\xff" * 1000)
    with pytest.raises(UnreadableRecording, match="transfer syntax") as caught:
        list(dicom.read(path))
    assert caught.value.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(("bits", "kind"), [(8, "SB"), (8, "UB"), (16, "SS"), (16, "US"), (32, "SL")])
def test_samples_of_8_16_and_32_bits(bits: int, kind: str, files: ModuleType, read: Read) -> None:
    unsigned = kind.startswith("U")
    low, high = (1, (1 << bits) - 1) if unsigned else (1 - (1 << bits - 1), (1 << bits - 1) - 1)
    samples = np.random.default_rng(1).integers(low, high, (3, 101), endpoint=True)
    samples[0, :2] = low, high
    found = read(files.Group(samples, ("I", "II", "V1"), bits=bits, kind=kind, channel={0x003A021A: ("US", bits)}))
    np.testing.assert_array_equal(found.digital, samples)


@pytest.mark.parametrize(("bits", "kind"), [(8, "MB"), (8, "AB"), (32, "UL"), (16, "XX"), (64, "SV")])
def test_other_samples_are_refused(bits: int, kind: str, files: ModuleType, refused: Refused) -> None:
    assert refused(files.Group(files.known_samples(limit=100), bits=bits, kind=kind)) == Reason.UNSUPPORTED


@pytest.mark.parametrize(("bits", "kind"), [(8, "SB"), (32, "SL")])
def test_big_endian_words_of_another_size_than_the_samples_are_refused(
    bits: int, kind: str, files: ModuleType, refused: Refused
) -> None:
    group = files.Group(files.known_samples(limit=100), bits=bits, kind=kind)
    assert refused(group, encoding=files.Encoding(files.BIG_ENDIAN)) == Reason.UNSUPPORTED


def test_samples_beyond_the_stored_bits_are_refused(files: ModuleType, read: Read, refused: Refused) -> None:
    """12 bits without extended sign: -1 comes as 4095, a wrong ECG that looks like clipping."""
    twelve_bits = {0x003A021A: ("US", 12)}
    samples = files.known_samples(limit=2048)
    np.testing.assert_array_equal(read(files.Group(samples, channel=twelve_bits)).digital, samples)
    assert refused(files.Group(samples & 0xFFF, channel=twelve_bits)) == Reason.HEADER
    assert refused(files.Group(samples, channel={0x003A021A: ("US", 0)})) == Reason.HEADER


class TestGroups:
    def test_a_derived_group_is_never_read(self, files: ModuleType, read: Read, refused: Refused) -> None:
        samples = files.known_samples()
        long_beat = files.Group(files.known_samples(n_samples=9000), label="RHYTHM", originality="DERIVED")
        np.testing.assert_array_equal(read(long_beat, files.Group(samples)).digital, samples)
        assert refused(long_beat) == Reason.EMPTY
        assert refused(files.Group(samples, label="Median beat")) == Reason.EMPTY

    def test_the_label_may_be_absent(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        np.testing.assert_array_equal(read(files.Group(samples, label=None)).digital, samples)

    def test_rhythm_goes_before_longer_and_longer_before_shorter(self, files: ModuleType, read: Read) -> None:
        short, long, longest = (files.known_samples(n_samples=count) for count in (100, 200, 300))
        found = read(files.Group(short), files.Group(long), files.Group(longest, label="STRESS"))
        np.testing.assert_array_equal(found.digital, long)
        assert dicom.OTHER_GROUPS in found.notes

    def test_two_equally_good_groups_are_refused(self, files: ModuleType, refused: Refused) -> None:
        assert refused(files.Group(files.known_samples()), files.Group(files.known_samples())) == Reason.UNSUPPORTED

    @pytest.mark.parametrize("with_strip", [False, True], ids=["4x3", "4x3 and a strip"])
    def test_leads_spread_over_groups_are_refused(self, with_strip: bool, files: ModuleType, refused: Refused) -> None:
        """A print of 4 x 2.5 s: every group holds three leads, recorded one after the other."""
        groups = [files.Group(files.known_samples(3, 1250), files.TWELVE[at : at + 3]) for at in range(0, 12, 3)]
        if with_strip:
            groups.append(files.Group(files.known_samples(1, 5000), ("II",)))
        assert refused(*groups) == Reason.UNSUPPORTED

    def test_a_long_strip_of_one_lead_gives_way_to_twelve(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples(n_samples=500)
        found = read(files.Group(files.known_samples(1, 5000), ("II",)), files.Group(samples, label=None))
        np.testing.assert_array_equal(found.digital, samples)

    def test_pressures_in_a_group_of_their_own_are_left_out(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        pressure = files.Group(files.known_samples(2, 9000), ("AO", "LV"), channel={SOURCE: None, LABEL: ("SH", "P")})
        np.testing.assert_array_equal(read(pressure, files.Group(samples)).digital, samples)

    def test_no_waveform_is_refused(self, refused: Refused) -> None:
        assert refused() == Reason.EMPTY


class TestUnits:
    def test_every_channel_has_its_own(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples(4)
        scales = [("1.25", "uV", "2"), ("0.00122", "mV", "1"), (".000002", "V", "1"), ("4880", "nV", "1")]
        changes = {
            place: {
                SENSITIVITY: ("DS", size),
                CORRECTION: ("DS", factor),
                UNITS: files.code(unit, "UCUM", "any"),
            }
            for place, (size, unit, factor) in enumerate(scales)
        }
        found = read(files.Group(samples, files.TWELVE[:4], per_channel=changes))
        expected_mv = samples * np.array([2.5e-3, 1.22e-3, 2e-3, 4.88e-3])[:, None]
        np.testing.assert_allclose(found.signal_mv, expected_mv, rtol=1e-13)

    def test_the_baseline_is_an_offset_in_the_unit(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        found = read(files.Group(samples, channel={BASELINE: ("DS", "-100")}))
        assert found.baseline is not None
        assert set(found.baseline) == {40.0}
        np.testing.assert_allclose(found.signal_mv, (samples * 2.5 - 100) / 1000, rtol=1e-12, atol=1e-12)
        found = read(files.Group(samples, channel={BASELINE: None}))
        np.testing.assert_allclose(found.signal_mv, samples * 2.5e-3, rtol=1e-13)
        assert _dicom_channels.NO_BASELINE in found.notes

    @pytest.mark.parametrize("tag", [SENSITIVITY, CORRECTION, UNITS])
    def test_a_lead_without_scale_is_refused_another_signal_is_kept(
        self, tag: int, files: ModuleType, read: Read, refused: Refused
    ) -> None:
        assert refused(files.Group(files.known_samples(), channel={tag: None})) == Reason.UNIT
        samples = files.known_samples(3)
        pressure = {SOURCE: files.code("109016", "DCM", "Aortic pressure"), tag: None}
        found = read(files.Group(samples, ("I", "II", "P"), per_channel={2: pressure}))
        assert found.leads == ("I", "II", "Aortic pressure")
        assert np.isnan(found.signal_mv[2]).all()
        np.testing.assert_array_equal(found.digital, samples)

    def test_a_pressure_in_its_unit_has_no_gain(self, files: ModuleType, read: Read) -> None:
        pressure = {SOURCE: files.code("109016", "DCM", "Aortic pressure"), UNITS: files.code("mm[Hg]", "UCUM", "x")}
        found = read(files.Group(files.known_samples(2), ("I", "P"), per_channel={1: pressure}))
        assert found.gain_per_mv is not None
        assert np.isnan(found.gain_per_mv).tolist() == [False, True]

    @pytest.mark.parametrize("size", ["0", "1e-99", "1e99", "-0.0", "nan", "1\\2", "1,5"])
    def test_no_possible_gain(self, size: str, files: ModuleType, refused: Refused) -> None:
        reason = refused(files.Group(files.known_samples(), channel={SENSITIVITY: ("DS", size)}))
        assert reason in (Reason.UNIT, Reason.HEADER)

    def test_an_unknown_unit_on_a_lead_is_refused(self, files: ModuleType, refused: Refused) -> None:
        channel = {UNITS: files.code("mm[Hg]", "UCUM", "millimetre")}
        assert refused(files.Group(files.known_samples(), channel=channel)) == Reason.UNIT


class TestPadding:
    def test_the_least_value_is_missing_wherever_it_stands(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        samples[3, 100:120] = -32768
        found = read(files.Group(samples, group={PADDING: ("OW", b"\x00\x80")}))
        np.testing.assert_array_equal(found.missing, samples == -32768)
        assert np.isnan(found.signal_mv[3, 100:120]).all()
        assert dicom.PADDED in found.notes
        assert read(files.Group(samples)).missing is None  # not declared, so it is a voltage

    def test_zero_is_a_voltage_except_in_a_run_at_the_end_of_all_channels(self, files: ModuleType, read: Read) -> None:
        """Some carts declare 0x0000: as missing it would erase every real zero."""
        zero = {PADDING: ("OW", b"\0\0")}
        samples = files.known_samples(limit=3)
        samples[:, -1] = 1
        assert read(files.Group(samples, group=zero)).missing is None
        samples[:, -30:] = 0
        samples[2, -31] = 7
        found = read(files.Group(samples, group=zero))
        assert found.missing is not None
        assert found.missing[:, -30:].all()
        assert not found.missing[:, :-30].any()

    def test_a_few_zeros_at_the_end_are_no_padding(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        samples[:, -5:] = 0
        samples[:, -6] = 1
        assert read(files.Group(samples, group={PADDING: ("OW", b"\0\0")})).missing is None

    def test_big_endian_padding(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples()
        samples[:, 5] = -32768
        group = files.Group(samples, group={PADDING: ("OW", b"\x80\x00")})
        found = read(group, encoding=files.Encoding(files.BIG_ENDIAN))
        np.testing.assert_array_equal(found.missing, samples == -32768)


class TestSizes:
    def test_a_declared_billion_fails_at_once(self, files: ModuleType, refused: Refused) -> None:
        assert refused(files.Group(files.known_samples(), group={0x003A0010: ("UL", 10**9)})) == Reason.LIMIT

    def test_fewer_and_more_bytes_than_declared(self, files: ModuleType, refused: Refused) -> None:
        samples = files.known_samples()
        assert refused(files.Group(samples, group={0x003A0010: ("UL", 401)})) == Reason.TRUNCATED
        assert refused(files.Group(samples, group={0x003A0010: ("UL", 399)})) == Reason.HEADER
        assert refused(files.Group(samples, group={DATA: None})) == Reason.TRUNCATED

    def test_an_odd_number_of_bytes_is_padded_by_one(self, files: ModuleType, read: Read) -> None:
        samples = files.known_samples(1, 33, limit=100)
        group = files.Group(samples, ("II",), bits=8, kind="SB", channel={0x003A021A: ("US", 8)})
        np.testing.assert_array_equal(read(group).digital, samples)

    @pytest.mark.parametrize("tag", [0x003A0005, 0x003A0010, 0x003A001A, 0x003A0200])
    def test_nothing_of_the_shape_may_be_absent(self, tag: int, files: ModuleType, refused: Refused) -> None:
        assert refused(files.Group(files.known_samples(), group={tag: None})) == Reason.HEADER

    def test_channels_and_their_definitions_must_be_as_many(self, files: ModuleType, refused: Refused) -> None:
        assert refused(files.Group(files.known_samples(), group={0x003A0005: ("US", 8)})) == Reason.HEADER

    @pytest.mark.parametrize("rate", ["0", "-500", "1e9", "abc"])
    def test_a_rate_that_is_none(self, rate: str, files: ModuleType, refused: Refused) -> None:
        assert refused(files.Group(files.known_samples(), rate=rate)) == Reason.HEADER


@pytest.mark.parametrize(("tag", "much", "little"), [(0x003A0214, "0.001", "0.0001"), (0x003A0215, "0.5", "0.1")])
def test_skewed_channels(tag: int, much: str, little: str, files: ModuleType, read: Read, refused: Refused) -> None:
    samples = files.known_samples()
    assert refused(files.Group(samples, per_channel={1: {tag: ("DS", much)}})) == Reason.UNSUPPORTED
    assert dicom.SKEWED in read(files.Group(samples, per_channel={1: {tag: ("DS", little)}})).notes
    assert dicom.SKEWED not in read(files.Group(samples, channel={tag: ("DS", much)})).notes


def test_a_delayed_group_and_channel_statuses_are_noted(files: ModuleType, read: Read) -> None:
    status = {0x003A0205: ("CS", "DISCONNECTED\\QUESTIONABLE")}
    group = files.Group(files.known_samples(), group={0x00181068: ("DS", "250")}, per_channel={4: status})
    found = read(group)
    assert dicom.GROUP_DELAYED in found.notes
    assert {"channel status disconnected: 1", "channel status questionable: 1"} <= set(found.notes)


def test_structures_that_never_end_or_repeat_are_refused(files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    encoding = files.Encoding(undefined=True)
    whole = files.document([files.Group(files.known_samples(2, 40), ("I", "II"))], encoding)
    path.write_bytes(whole[:-8])  # the end of the waveform sequence
    with pytest.raises(UnreadableRecording) as caught:
        list(dicom.read(path))
    assert caught.value.reason == Reason.TRUNCATED
    repeated = encoding.element(0x00100020, "LO", "other")
    path.write_bytes(files.meta(files.EXPLICIT) + repeated * 2 + whole[len(files.meta(files.EXPLICIT)) :])
    with pytest.raises(UnreadableRecording) as caught:
        list(dicom.read(path))
    assert caught.value.reason == Reason.HEADER


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject, files: ModuleType, read: Read) -> None:
    """Any encoding, size, channels, rate and scale: the integers and the millivolts come back."""
    syntax = data.draw(st.sampled_from([files.IMPLICIT, files.EXPLICIT, files.BIG_ENDIAN]))
    sizes = [(16, "SS"), (16, "US")] if syntax == files.BIG_ENDIAN else list(dicom.DTYPES)
    bits, kind = data.draw(st.sampled_from(sizes))
    n_channels, n_samples = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 60))
    least = 0 if kind.startswith("U") else -(1 << bits - 1)
    value = st.integers(least, least + (1 << bits) - 1)
    row = st.lists(value, min_size=n_samples, max_size=n_samples)
    samples = np.array(data.draw(st.lists(row, min_size=n_channels, max_size=n_channels)))
    size = data.draw(st.integers(1, 99_999))
    offset = data.draw(st.integers(-999, 999))
    rate = data.draw(st.integers(50, 2000))
    channel = {SENSITIVITY: ("DS", f"{size}e-3"), BASELINE: ("DS", str(offset)), 0x003A021A: ("US", bits)}
    leads = data.draw(st.permutations(files.TWELVE))[:n_channels]
    found = read(
        files.Group(samples, leads, str(rate), bits=bits, kind=kind, channel=channel),
        encoding=files.Encoding(syntax, undefined=data.draw(st.booleans())),
    )
    np.testing.assert_array_equal(found.digital, samples)
    expected_mv = (samples * (size / 1000) + offset) / 1000
    np.testing.assert_allclose(found.signal_mv, expected_mv, rtol=1e-12, atol=1e-12 * max(1, abs(offset)))
    assert (found.leads, found.rate_hz) == (tuple(leads), float(rate))


def test_nothing_is_logged_or_warned_about(files: ModuleType, read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Malformed identifiers and dates are common, and pydicom would repeat them."""
    malformed = {0x00080016: ("UI", "1.2.kanari.3"), 0x00100030: ("DA", "kanarien"), 0x00101010: ("AS", "63")}
    with caplog.at_level(logging.DEBUG):
        found = read(files.Group(files.known_samples()), patient={**files.PATIENT, **malformed})
    assert (found.age_years, found.patient_id) == (None, files.PATIENT_ID)
    assert caplog.text == ""


LEAD_CODES = [
    (("5.6.3-9-62", "SCPECG", "Lead aVR"), "aVR"),
    (("5.6.3-9-3", "SCPECG", ""), "V1"),
    (("5.6.3-9-1", "SCPECG", "Lead I (Einthoven)"), "I"),
    (("5.6.3-9-65", "SCPECG", ""), "SCP lead 65"),  # aVR upside down
    (("5.6.3-9-16", "SCPECG", "Lead X"), "SCP lead 16"),
    (("2:64", "MDC", "Lead aVF"), "aVF"),
    (("2:2", "MDC", "Lead II"), "II"),
    (("MDC_ECG_LEAD_AVL", "MDC", "anything"), "MDC_ECG_LEAD_AVL"),
    (("X-1", "99LOCAL", "Lead aVR (Goldberger)"), "Lead aVR"),
    (("X-2", "99LOCAL", "Aortic pressure"), "Aortic pressure"),
]


@pytest.mark.parametrize(("code", "name"), LEAD_CODES, ids=[code[0] for code, _ in LEAD_CODES])
def test_leads_by_code_or_meaning(code: tuple[str, str, str], name: str, files: ModuleType, read: Read) -> None:
    group = files.Group(files.known_samples(1), ("I",), channel={SOURCE: files.code(*code)})
    assert read(group).leads == (name,)


def test_a_label_names_the_lead_where_nothing_is_coded(files: ModuleType, read: Read) -> None:
    group = files.Group(files.known_samples(2), ("I", "II"), channel={SOURCE: None})
    assert read(group).leads == ("channel 0", "channel 1")
    group = files.Group(files.known_samples(1), ("I",), channel={SOURCE: None, LABEL: ("SH", "ECG V4")})
    assert read(group).leads == ("ECG V4",)


@pytest.mark.parametrize("number", [61, 16])
def test_a_code_and_a_meaning_of_two_leads_are_refused(number: int, files: ModuleType, refused: Refused) -> None:
    channel = {SOURCE: files.code(f"5.6.3-9-{number}", "SCPECG", "Lead aVR")}
    assert refused(files.Group(files.known_samples(1), ("I",), channel=channel)) == Reason.HEADER


class TestContext:
    @pytest.mark.parametrize(
        ("age", "years"), [("063Y", 63.0), ("006M", 0.5), ("010D", 10 / 365.25), ("", 63.08), (None, 63.08)]
    )
    def test_age(self, age: str | None, years: float, files: ModuleType, read: Read) -> None:
        """Stated with its unit, else from the dates of birth and recording."""
        patient = {**files.PATIENT, 0x00101010: None if age is None else ("AS", age)}
        assert read(files.Group(files.known_samples()), patient=patient).age_years == pytest.approx(years, abs=5e-3)

    def test_dates_that_contradict_each_other_are_told(self, files: ModuleType, read: Read) -> None:
        patient = {**files.PATIENT, 0x00101010: ("AS", "030Y")}
        found = read(files.Group(files.known_samples()), patient=patient)
        assert (found.age_years, AGES_DIFFER in found.notes) == (30.0, True)

    @pytest.mark.parametrize("value", ["", "0000", "XXXX", "ANONYMOUS", "UNKNOWN"])
    def test_a_placeholder_is_no_patient(self, value: str, files: ModuleType, read: Read) -> None:
        patient = {**files.PATIENT, 0x00100020: ("LO", value)}
        assert read(files.Group(files.known_samples()), patient=patient).patient_id is None

    def test_nothing_is_known_of_a_bare_file(self, files: ModuleType, read: Read) -> None:
        found = read(files.Group(files.known_samples()), patient={})
        nothing = (found.patient_id, found.age_years, found.sex, found.acquired_at, found.device, found.site)
        assert nothing == (None,) * 6
        assert found.fields == {}

    def test_a_site_is_coded_and_an_institution_name_is_none(self, files: ModuleType, read: Read) -> None:
        patient = {**files.PATIENT, 0x00080082: files.code("SITE-12", "99LOCAL", files.INSTITUTION)}
        assert read(files.Group(files.known_samples()), patient=patient).site == "SITE-12"

    def test_an_id_in_another_character_set(self, files: ModuleType, read: Read) -> None:
        patient = {**files.PATIENT, 0x00080005: ("CS", "ISO_IR 192"), 0x00100020: ("LO", "Å-Ωß7".encode())}
        assert read(files.Group(files.known_samples()), patient=patient).patient_id == "Å-Ωß7"

    def test_the_study_dates_a_recording_without_time(self, files: ModuleType, read: Read) -> None:
        patient = {**files.PATIENT, 0x0008002A: None}
        found = read(files.Group(files.known_samples()), patient=patient)
        assert found.acquired_at == datetime(2019, 3, 31, 14, 5)

    def test_a_notch_of_zero_is_off(self, files: ModuleType, read: Read) -> None:
        found = read(files.Group(files.known_samples(), channel={0x003A0222: ("DS", "0"), 0x003A0220: None}))
        assert found.mains_hz is None
        assert found.notes == ("low-pass 150 Hz",)

    def test_an_attribute_of_a_megabyte_is_refused(self, files: ModuleType, refused: Refused) -> None:
        patient = {**files.PATIENT, 0x00100020: ("UN", b"7" * (1 << 20))}
        assert refused(files.Group(files.known_samples()), patient=patient) == Reason.LIMIT

    def test_identity_is_in_no_note_lead_or_message(self, files: ModuleType, read: Read, tmp_path: Path) -> None:
        found = read(files.median(), files.Group(files.known_samples()))
        kept = {**found.fields, "PatientID": ""}
        shown = repr((found.leads, found.notes, found.device, found.site, kept))
        assert not [text for text in files.CANARIES if text in shown]
        whole = files.document([files.Group(files.known_samples(1, 20), ("I",))])
        path = tmp_path / "cut.dcm"
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length] + whole[length + 1 :])
            with pytest.raises(UnreadableRecording) as caught:
                list(dicom.read(path))
            assert not [text for text in files.CANARIES if text in str(caught.value)]
