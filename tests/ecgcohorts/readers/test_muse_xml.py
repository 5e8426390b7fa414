"""MUSE XML: rhythm not median, CRC per lead, units, demographics, and every variant seen in the wild."""

import zlib
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, select
from ecgcohorts.readers import muse_xml
from ecgcohorts.readers._shared.people import AGES_DIFFER, NO_BIRTH, NO_CLOCK
from ecgcohorts.recording import Recording


def read(path: Path) -> Recording:
    (recording,) = muse_xml.read(path)
    return recording


class Muse:
    """Write one document and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "m.xml"

    def write(self, text: str, encoding: str = "iso-8859-1") -> Path:
        self.path.write_bytes(text.encode(encoding))
        return self.path

    def read(self, *waveforms: str, **options: Any) -> Recording:
        return read(self.write(self.files.document(*waveforms, **options)))

    def refused(self, *waveforms: str, **options: Any) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(*waveforms, **options)
        return caught.value


@pytest.fixture
def muse(muse_files: ModuleType, tmp_path: Path) -> Muse:
    return Muse(muse_files, tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "start", "crc"), [
    ("braveheart_example1", [-20, -20, -20, -20, -18], 2448704614),
    ("braveheart_example2", [2, 2, 2, 2, 1], None),
])  # fmt: skip
def test_real_files_give_the_rhythm_and_its_crc(name: str, start: list[int], crc: int | None, shared: Path) -> None:
    recording = read(shared / "vendor" / "ge_muse_xml" / f"{name}.xml")
    assert recording.leads == ("I", "II", *(f"V{place}" for place in range(1, 7)))
    assert (recording.rate_hz, recording.digital.shape) == (500.0, (8, 5000))
    assert recording.digital[0, :5].tolist() == start
    if crc is not None:
        assert zlib.crc32(recording.digital[0].astype("<i2").tobytes()) == crc
    np.testing.assert_allclose(recording.signal_mv, recording.digital * 4.88e-3, rtol=1e-12)
    assert (recording.patient_id, recording.age_years, recording.sex, recording.acquired_at) == (None,) * 4
    assert recording.mains_hz == 60.0
    assert recording.notes == (
        "high-pass 0.16 Hz",
        "low-pass 150 Hz",
        "AC filter 60 Hz",
    )  # no note: every CRC was there


@pytest.mark.shared
def test_every_crc_of_the_real_files_is_compared(shared: Path, tmp_path: Path) -> None:
    text = (shared / "vendor" / "ge_muse_xml" / "braveheart_example1.xml").read_text("iso-8859-1")
    rhythm = text.index(">Rhythm<")
    path = tmp_path / "m.xml"
    for lead in EIGHT_LEADS:
        place = text.index("<LeadDataCRC32>", text.index(f"<LeadID>{lead}</LeadID>", rhythm)) + len("<LeadDataCRC32>")
        path.write_text(text[:place] + "1" + text[place:], "iso-8859-1")
        with pytest.raises(UnreadableRecording) as caught:
            read(path)
        assert caught.value.reason is Reason.CHECKSUM
    assert rhythm > text.index(">Median<")


def test_demographics_test_and_device(muse: Muse) -> None:
    recording = muse.read(muse.files.waveform_xml(muse.files.known_samples()))
    assert (recording.patient_id, recording.age_years, recording.sex) == ("4711", 63.0, "female")
    assert recording.acquired_at == datetime(2019, 3, 31, 14, 5, 59)
    assert (recording.device, recording.site, recording.mains_hz) == ("MAC55", "7", 60.0)
    assert recording.fields["AcquisitionDevice"] == "MAC55"
    assert recording.fields["MuseVersion"] == "9.0.7"
    assert "Canary" not in " ".join([*recording.fields.values(), repr(recording)])  # names are never read


@pytest.mark.parametrize("placeholder", ["", "0", "000000000", "XXXX", "UNKNOWN", "ANONYMOUS", "---", None])
def test_a_placeholder_is_no_patient(placeholder: str | None, muse: Muse) -> None:
    waveform = muse.files.waveform_xml(muse.files.known_samples())
    assert muse.read(waveform, patient={"PatientID": placeholder}).patient_id is None
    assert muse.read(waveform, patient={}, test={}).patient_id is None


@pytest.mark.parametrize(
    ("patient", "years"),
    [
        ({"PatientAge": "63", "AgeUnits": "YEARS"}, 63.0),
        ({"PatientAge": "18", "AgeUnits": "MONTHS"}, 1.5),
        ({"PatientAge": "2", "AgeUnits": "WEEKS"}, 14 / 365.25),
        ({"PatientAge": "3", "AgeUnits": "DAYS"}, 3 / 365.25),
        ({"PatientAge": "12", "AgeUnits": "HOURS"}, 0.5 / 365.25),
        ({"PatientAge": "63", "AgeUnits": None}, None),
        ({"PatientAge": "63", "AgeUnits": "FORTNIGHTS"}, None),
        ({"PatientAge": "631", "AgeUnits": "YEARS"}, None),
        ({"PatientAge": "63", "AgeUnits": None, "DateofBirth": "03-31-1959"}, 60.0),
        ({"PatientAge": "63", "AgeUnits": "FORTNIGHTS", "DateofBirth": "03-31-1959"}, 60.0),
        ({"PatientAge": "631", "AgeUnits": "YEARS", "DateofBirth": "03-31-1959"}, 60.0),
        ({"PatientAge": "119", "AgeUnits": "YEARS", "DateofBirth": "01-01-1900"}, None),
        ({"PatientAge": "63", "AgeUnits": "YEARS", "DateofBirth": "01-01-1900"}, 63.0),
        ({"DateofBirth": "01-01-1900"}, None),
        ({"DateofBirth": "03-31-1959"}, 60.0),
        ({"DateofBirth": "04/01/1959"}, 59.996),
        ({"DateofBirth": "13-13-1959"}, None),
        ({"DateofBirth": "01-01-2030"}, None),
        ({}, None),
    ],
)
def test_ages_come_with_their_unit_or_from_two_dates(
    patient: dict[str, str | None], years: float | None, muse: Muse
) -> None:
    recording = muse.read(muse.files.waveform_xml(muse.files.known_samples()), patient={"PatientID": "1", **patient})
    assert recording.age_years == (None if years is None else pytest.approx(years, abs=2e-3))


@pytest.mark.parametrize(
    ("text", "sex"), [("MALE", "male"), ("Female", "female"), ("F", "female"), ("UNKNOWN", None), ("", None)]
)
def test_sex(text: str, sex: str | None, muse: Muse) -> None:
    recording = muse.read(muse.files.waveform_xml(muse.files.known_samples()), patient={"Gender": text})
    assert recording.sex == sex


@pytest.mark.parametrize(
    ("date", "time", "moment"),
    [
        ("03-31-2019", "14:05:59", datetime(2019, 3, 31, 14, 5, 59)),
        ("03/31/2019", "", datetime(2019, 3, 31)),
        ("31-03-2019", "14:05:59", None),
        ("03-31-2019", "25:00:00", None),
        ("", "14:05:59", None),
    ],
)
def test_acquisition_date_is_month_first(date: str, time: str, moment: datetime | None, muse: Muse) -> None:
    test = {"AcquisitionDate": date, "AcquisitionTime": time}
    assert muse.read(muse.files.waveform_xml(muse.files.known_samples()), test=test).acquired_at == moment


@pytest.mark.parametrize("order", [1, -1])
def test_the_median_is_never_read_wherever_it_stands(order: int, muse: Muse) -> None:
    samples = muse.files.known_samples()
    waveforms = [muse.files.median_xml(), muse.files.waveform_xml(samples)][::order]
    assert np.array_equal(muse.read(*waveforms).digital, samples)
    assert muse.refused(muse.files.median_xml()).reason is Reason.EMPTY
    assert muse.refused().reason is Reason.EMPTY
    assert muse.refused(*[muse.files.waveform_xml(samples)] * 2).reason is Reason.UNSUPPORTED


def test_a_missing_type_is_inferred_from_the_length_and_noted(muse: Muse) -> None:
    samples = muse.files.known_samples()
    median = muse.files.waveform_xml(np.full((8, 600), 9999), None)
    rhythm = muse.files.waveform_xml(samples, None)
    recording = muse.read(median, rhythm)
    assert np.array_equal(recording.digital, samples)
    assert muse_xml.UNTYPED in recording.notes
    assert muse.refused(median).reason is Reason.EMPTY
    assert muse.refused(rhythm, rhythm).reason is Reason.EMPTY  # which of the two nobody knows
    assert np.array_equal(muse.read(muse.files.median_xml(), rhythm).digital, samples)
    assert muse_xml.UNTYPED not in muse.read(median, muse.files.waveform_xml(samples)).notes


@pytest.mark.parametrize("leads", [
    ("II", "I", "V6", "V5", "V4", "V3", "V2", "V1"),
    (*EIGHT_LEADS, "V3R", "V4R", "V7"),
    TWELVE_LEADS,
])  # fmt: skip
def test_any_number_and_order_of_leads(leads: tuple[str, ...], muse: Muse) -> None:
    samples = muse.files.known_samples(len(leads))
    recording = muse.read(muse.files.waveform_xml(samples, leads=leads))
    assert recording.leads == leads
    eight = select(recording.signal_mv, recording.leads)
    np.testing.assert_allclose(eight, samples[[leads.index(lead) for lead in EIGHT_LEADS]] * 4.88e-3, rtol=1e-12)


@pytest.mark.parametrize(("base", "exponent", "rate_hz"), [
    ("250", "0", 250.0), ("5", "2", 500.0), ("5000", "-1", 500.0), ("500", None, 500.0), ("500.0", "", 500.0)
])  # fmt: skip
def test_rates(base: str, exponent: str | None, rate_hz: float, muse: Muse) -> None:
    waveform = muse.files.waveform_xml(muse.files.known_samples(n_samples=2500), rate=base, SampleExponent=exponent)
    assert muse.read(waveform).rate_hz == rate_hz


@pytest.mark.parametrize(
    ("base", "exponent"),
    [(None, "0"), ("0", "0"), ("-5", "2"), ("x", "0"), ("500", "99"), ("500", "0.5"), ("nan", "0")],
)
def test_rates_that_are_none(base: str | None, exponent: str, muse: Muse) -> None:
    waveform = muse.files.waveform_xml(muse.files.known_samples(), SampleBase=base, SampleExponent=exponent)
    assert muse.refused(waveform).reason is Reason.HEADER


@pytest.mark.parametrize(("per_bit", "unit", "mv_per_bit"), [
    ("4.88", "MICROVOLTS", 4.88e-3),
    ("4,88", "MICROVOLTS", 4.88e-3),
    ("5", "microvolts", 5e-3),
    ("-10", "MICROVOLTS", -1e-2),
    ("0.00488", "MILLIVOLTS", 4.88e-3),
    ("4.88e-6", "VOLTS", 4.88e-3),
])  # fmt: skip
def test_amplitudes(per_bit: str, unit: str, mv_per_bit: float, muse: Muse) -> None:
    samples = muse.files.known_samples()
    lead = {"LeadAmplitudeUnitsPerBit": per_bit, "LeadAmplitudeUnits": unit}
    recording = muse.read(muse.files.waveform_xml(samples, lead=lead))
    np.testing.assert_allclose(recording.signal_mv, samples * mv_per_bit, rtol=1e-12)


@pytest.mark.parametrize(("per_bit", "unit", "reason"), [
    (None, "MICROVOLTS", Reason.UNIT),
    ("0", "MICROVOLTS", Reason.UNIT),
    ("4.88", None, Reason.UNIT),
    ("4.88", "PARSECS", Reason.UNIT),
    ("1e-99", "MICROVOLTS", Reason.UNIT),
    ("4.8.8", "MICROVOLTS", Reason.HEADER),
    ("inf", "MICROVOLTS", Reason.HEADER),
])  # fmt: skip
def test_amplitudes_that_are_none(per_bit: str | None, unit: str | None, reason: Reason, muse: Muse) -> None:
    lead = {"LeadAmplitudeUnitsPerBit": per_bit, "LeadAmplitudeUnits": unit}
    error = muse.refused(muse.files.waveform_xml(muse.files.known_samples(), lead=lead))
    assert error.reason is reason
    with pytest.raises(UnreadableRecording):
        list(muse_xml.scan(muse.path))


def test_the_first_sample_baseline_is_added_and_a_lead_in_is_missing(muse: Muse) -> None:
    samples = muse.files.known_samples()
    recording = muse.read(
        muse.files.waveform_xml(samples, lead={"FirstSampleBaseline": "50", "LeadOffsetFirstSample": "3"})
    )
    assert np.array_equal(recording.digital, samples)
    np.testing.assert_allclose(recording.signal_mv[:, 3:], (samples[:, 3:] + 50) * 4.88e-3, rtol=1e-12)
    assert np.isnan(recording.signal_mv[:, :3]).all()
    assert muse_xml.LEAD_IN in recording.notes


def test_the_least_integer_is_missing(muse: Muse) -> None:
    samples = muse.files.known_samples()
    samples[2, 7] = -32768
    recording = muse.read(muse.files.waveform_xml(samples))
    assert recording.missing.sum() == 1
    assert np.isnan(recording.signal_mv[2, 7])


def test_bytes_are_little_endian_on_any_machine(muse: Muse) -> None:
    samples = np.full((8, 1250), 0x0102)
    assert muse.read(muse.files.waveform_xml(samples)).digital[0, 0] == 0x0102


def test_a_missing_crc_is_noted_and_a_wrong_one_refused(muse: Muse) -> None:
    samples = muse.files.known_samples()
    recording = muse.read(muse.files.waveform_xml(samples, lead={"LeadDataCRC32": None}))
    assert muse_xml.NO_CRC in recording.notes
    assert muse.refused(muse.files.waveform_xml(samples, lead={"LeadDataCRC32": "12345"})).reason is Reason.CHECKSUM
    crc = zlib.crc32(np.zeros(1250, "<i2").tobytes())
    signed = crc - (1 << 32)
    recording = muse.read(muse.files.waveform_xml(np.zeros((8, 1250), int), lead={"LeadDataCRC32": str(signed)}))
    assert muse_xml.NO_CRC not in recording.notes


@pytest.mark.parametrize(
    ("lead", "reason"),
    [
        ({"WaveFormData": ""}, Reason.EMPTY),
        ({"WaveFormData": None}, Reason.EMPTY),
        ({"WaveFormData": "AAA!AAA"}, Reason.HEADER),
        ({"WaveFormData": "AAAA==AA"}, Reason.HEADER),
        ({"WaveFormData": "ÄÖÜ"}, Reason.HEADER),
        ({"WaveFormData": "AAAA", "LeadDataCRC32": None}, Reason.TRUNCATED),
        ({"LeadSampleCountTotal": "1251"}, Reason.TRUNCATED),
        ({"LeadByteCountTotal": "1251"}, Reason.TRUNCATED),
        ({"LeadSampleCountTotal": "-1"}, Reason.EMPTY),
        ({"LeadSampleCountTotal": "1e9"}, Reason.LIMIT),
        ({"LeadSampleCountTotal": "12.5"}, Reason.HEADER),
        ({"LeadSampleSize": "4"}, Reason.UNSUPPORTED),
        ({"LeadOffsetFirstSample": "-1"}, Reason.HEADER),
    ],
)
def test_leads_that_contradict_themselves(lead: dict[str, str | None], reason: Reason, muse: Muse) -> None:
    assert muse.refused(muse.files.waveform_xml(muse.files.known_samples(), lead=lead)).reason is reason


def test_counts_may_be_left_out(muse: Muse) -> None:
    samples = muse.files.known_samples(n_samples=1249)
    left_out = dict.fromkeys(["LeadSampleCountTotal", "LeadByteCountTotal", "LeadSampleSize", "LeadTimeOffset"])
    recording = muse.read(muse.files.waveform_xml(samples, lead=left_out))
    assert np.array_equal(recording.digital, samples)
    (scanned,) = muse_xml.scan(muse.path)
    assert scanned.n_samples == 1249


def test_leads_that_contradict_each_other(muse: Muse) -> None:
    files, samples = muse.files, muse.files.known_samples()
    whole = files.waveform_xml(samples)
    short = files.lead_xml("V7", samples[0, :-1])
    late = files.lead_xml("V7", samples[0], LeadTimeOffset="2500")
    for odd in (short, late):
        assert muse.refused(whole.replace("</Waveform>", f"{odd}</Waveform>")).reason is Reason.UNSUPPORTED
    assert muse.refused(files.waveform_xml(samples, SampleType="OTHER")).reason is Reason.UNSUPPORTED
    assert muse.refused(files.waveform_xml(samples[:0], leads=())).reason is Reason.EMPTY
    many = files.waveform_xml(np.ones((65, 1250)), leads=[f"L{place}" for place in range(65)])
    assert muse.refused(many).reason is Reason.LIMIT
    assert muse_xml.LEAD_COUNT in muse.read(files.waveform_xml(samples, NumberofLeads="12")).notes


def test_filters_pace_spikes_and_lead_off_are_noted(muse: Muse) -> None:
    waveform = muse.files.waveform_xml(muse.files.known_samples(), HighPassFilter="56", lead={"LeadOff": "TRUE"})
    more = "<ACFilter>60</ACFilter><PaceSpikes><Spike>120</Spike><Spike>700 900</Spike></PaceSpikes></Waveform>"
    recording = muse.read(waveform.replace("</Waveform>", more))
    assert {"high-pass 0.56 Hz", "low-pass 150 Hz", "AC filter 60 Hz", "pace spikes: 3", "lead off: 8"} <= set(
        recording.notes
    )
    assert recording.fields["PaceSpikes"] == "120 700 900"
    assert recording.fields["ACFilter"] == "60 60"
    assert recording.mains_hz == 60.0
    for text, mains_hz in (("NONE", None), ("50", 50.0), ("", None)):
        assert muse.read(muse.files.waveform_xml(muse.files.known_samples(), ACFilter=text)).mains_hz == mains_hz


def test_a_scan_decodes_no_payload(muse: Muse) -> None:
    text = muse.files.document(muse.files.waveform_xml(muse.files.known_samples(), lead={"WaveFormData": "!!!"}))
    (scanned,) = muse_xml.scan(muse.write(text))
    assert scanned.n_samples == 1250
    assert scanned.patient_id == "4711"


@pytest.mark.parametrize(("declared", "codec"), [
    ("UTF-8", "utf-8"), ("ISO-8859-1", "latin-1"), ("iso-8859-15", "iso-8859-15"), ("windows-1252", "cp1252"),
    ("cp949", "cp949"), ("UTF-16", "utf-16"), ("US-ASCII", "ascii"),
])  # fmt: skip
def test_encodings(declared: str, codec: str, muse: Muse) -> None:
    site = {"cp949": "서울", "ascii": "Ostrava"}.get(codec, "Kraków" if codec == "utf-8" else "Zürich")
    declaration = f'<?xml version="1.0" encoding="{declared}"?>'
    samples = muse.files.known_samples()
    text = muse.files.document(muse.files.waveform_xml(samples), test={"SiteName": site}, declaration=declaration)
    path = muse.write(text, codec)
    assert muse_xml.sniff(path.read_bytes()[:4096])
    recording = read(path)
    assert recording.site == site
    assert np.array_equal(recording.digital, samples)


def test_dates_that_contradict_each_other_are_told(muse: Muse) -> None:
    waveform = muse.files.waveform_xml(muse.files.known_samples())
    patient = {"PatientID": "1", "PatientAge": "30", "AgeUnits": "YEARS"}
    found = muse.read(waveform, patient={**patient, "DateofBirth": "03-31-1959"})
    assert (found.age_years, AGES_DIFFER in found.notes) == (30.0, True)
    found = muse.read(waveform, patient={**patient, "DateofBirth": "01-01-1900"})
    assert (found.age_years, NO_BIRTH in found.notes) == (30.0, True)


@pytest.mark.parametrize(("time", "hour", "told"), [("11:18", 11, False), ("", 0, False), ("11.18 am", 0, True)])
def test_a_time_of_day_that_is_not_understood_is_told(time: str, hour: int, told: bool, muse: Muse) -> None:
    test = {"AcquisitionDate": "03-31-2019", "AcquisitionTime": time}
    found = muse.read(muse.files.waveform_xml(muse.files.known_samples()), test=test)
    assert found.acquired_at is not None
    assert (found.acquired_at.day, found.acquired_at.hour, NO_CLOCK in found.notes) == (31, hour, told)
