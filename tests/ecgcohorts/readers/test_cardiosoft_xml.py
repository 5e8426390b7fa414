"""CardioSoft: resting strips, full disclosure in blocks, names by number, what must never be read. No real file."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS, canonical, select
from ecgcohorts.readers import cardiosoft_xml
from ecgcohorts.readers._shared.people import AGES_DIFFER, NO_BIRTH
from ecgcohorts.recording import Recording


class CardioSoft:
    """Write one document and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "c.xml"

    def read(self, *parts: str, **options: str) -> Recording:
        self.path.write_bytes(self.files.document(*parts, **options).encode("iso-8859-1"))
        (recording,) = cardiosoft_xml.read(self.path)
        (scanned,) = cardiosoft_xml.scan(self.path)
        assert (scanned.n_samples, scanned.leads, scanned.notes) == (
            recording.n_samples, recording.leads, recording.notes,
        )  # fmt: skip
        return recording

    def refused(self, *parts: str, **options: str) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(*parts, **options)
        return caught.value


@pytest.fixture
def soft(writers: Callable[[str], ModuleType], tmp_path: Path) -> CardioSoft:
    return CardioSoft(writers("cardiosoft_xml"), tmp_path)


def test_a_resting_strip_of_twelve_leads(soft: CardioSoft) -> None:
    digital = soft.files.beats(1000)
    recording = soft.read(soft.files.resting_xml(digital))
    assert (recording.leads, recording.rate_hz) == (soft.files.LEADS, 500.0)
    np.testing.assert_array_equal(recording.digital, digital)
    np.testing.assert_allclose(recording.signal_mv, digital * 5e-3, rtol=1e-12)
    assert select(recording.signal_mv, recording.leads, TWELVE_LEADS).shape == (12, 1000)  # AVR and aVL alike


@pytest.mark.parametrize("median_first", [True, False])
def test_trap_median_samples_are_never_read(median_first: bool, soft: CardioSoft) -> None:
    parts = [soft.files.median_xml(), soft.files.resting_xml(soft.files.known_samples(12))]
    recording = soft.read(*(parts if median_first else parts[::-1]))
    assert recording.digital.shape == (12, 60)
    assert not (recording.digital == soft.files.NEVER_READ).any()
    assert soft.refused(soft.files.median_xml()).reason is Reason.EMPTY


@pytest.mark.parametrize("text", ["1,2,3", "\n1,\t2,\n\t\t3", "1, 2, 3,", "1,2,3,\n\t", "1\n2\n3", "+1,2,3"])
def test_commas_tabs_and_newlines_part_samples(text: str, soft: CardioSoft) -> None:
    strip = soft.files.resting_xml(np.zeros((1, 3), int), ["I"]).replace(soft.files.listed([0, 0, 0]), text)
    assert soft.read(strip).digital.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2", Reason.TRUNCATED),
        ("1,2,3,4", Reason.TRUNCATED),
        ("", Reason.TRUNCATED),
        ("1,,3", Reason.TRUNCATED),
        ("1,,2,3", Reason.HEADER),
        ("1,2,x", Reason.HEADER),
        ("1,2.5,3", Reason.HEADER),
        ("1,2,99999999999", Reason.HEADER),
        ("1,2,-", Reason.HEADER),
        ("1;2;3", Reason.TRUNCATED),
    ],
)
def test_lists_that_are_not_what_was_declared(text: str, reason: Reason, soft: CardioSoft) -> None:
    strip = soft.files.resting_xml(np.zeros((1, 3), int), ["I"]).replace(soft.files.listed([0, 0, 0]), text)
    assert soft.refused(strip).reason is reason


@pytest.mark.parametrize("unit", ["mVperLsb", "uV", "", "nVperLsb"])
def test_another_unit_is_refused(unit: str, soft: CardioSoft) -> None:
    digital = soft.files.known_samples()
    assert soft.refused(soft.files.resting_xml(digital, ["I", "II"], unit=unit)).reason is Reason.UNIT
    flat = soft.files.in_blocks(soft.files.known_samples(3, 40), 20)
    assert soft.refused(soft.files.disclosure_xml(flat, rate="20", unit=unit)).reason is Reason.UNIT


@pytest.mark.parametrize("resolution", ["", "0", "1e-30"])
def test_no_resolution_is_no_voltage(resolution: str, soft: CardioSoft) -> None:
    strip = soft.files.resting_xml(soft.files.known_samples(), ["I", "II"], resolution=resolution)
    assert soft.refused(strip).reason is Reason.UNIT


def test_declared_numbers_are_compared(soft: CardioSoft) -> None:
    digital, leads = soft.files.known_samples(), ["I", "II"]
    assert soft.refused(soft.files.resting_xml(digital, leads, n_leads=3)).reason is Reason.HEADER
    assert soft.refused(soft.files.resting_xml(digital, leads, count=61)).reason is Reason.TRUNCATED
    assert soft.refused(soft.files.resting_xml(digital, leads, count=10**12)).reason is Reason.LIMIT
    total = "<ChannelSampleCountTotal>60</ChannelSampleCountTotal>"
    assert soft.refused(soft.files.resting_xml(digital, leads).replace(total, "")).reason is Reason.HEADER
    assert soft.refused(soft.files.resting_xml(digital, ["I", ""])).reason is Reason.HEADER


@pytest.mark.parametrize("rate", ["", "0", "-500", "fast", "1e9"])
def test_no_usable_rate(rate: str, soft: CardioSoft) -> None:
    assert (
        soft.refused(soft.files.resting_xml(soft.files.known_samples(), ["I", "II"], rate=rate)).reason is Reason.HEADER
    )


def test_a_rate_in_another_unit_is_refused(soft: CardioSoft) -> None:
    strip = soft.files.resting_xml(soft.files.known_samples(), ["I", "II"]).replace('units="Hz"', 'units="kHz"')
    assert soft.refused(strip).reason is Reason.HEADER


@pytest.mark.parametrize("rate", [500, 100])
def test_trap_full_disclosure_lies_in_blocks_of_one_second(rate: int, soft: CardioSoft) -> None:
    """A second of the first lead, of the second, of the third, then the next second; leads 2 and 3 are II and III."""
    digital = soft.files.beats(4 * rate, rate)[:3]
    flat = soft.files.in_blocks(digital, rate)
    assert flat[rate : rate + 3].tolist() == digital[1, :3].tolist()
    recording = soft.read(soft.files.segments_xml(), soft.files.disclosure_xml(flat, rate=str(rate)))
    assert recording.leads == ("I", "II", "III")
    assert (recording.rate_hz, recording.n_samples) == (rate, 4 * rate)
    np.testing.assert_array_equal(recording.digital, digital)
    assert not (recording.digital == soft.files.NEVER_READ).any()
    assert recording.digital.flags.c_contiguous


def test_trap_full_disclosure_sample_by_sample_is_refused(soft: CardioSoft) -> None:
    """The manual's order, which no reader of real files found in them."""
    digital = soft.files.beats(2000)[:3] + np.array([[0], [60], [-80]])
    error = soft.refused(soft.files.disclosure_xml(digital.T.ravel()))
    assert (error.reason, error.found) == (Reason.UNSUPPORTED, "full disclosure sample by sample")
    soft.read(soft.files.disclosure_xml(soft.files.in_blocks(digital, 500)))


@pytest.mark.parametrize("cut", [1, 3, 500, 1499])
def test_full_disclosure_comes_in_whole_seconds(cut: int, soft: CardioSoft) -> None:
    flat = soft.files.in_blocks(soft.files.beats(1000)[:3], 500)
    assert soft.refused(soft.files.disclosure_xml(flat[:-cut])).reason is Reason.TRUNCATED


@pytest.mark.parametrize(("declared", "fits"), [("3000", True), ("1000", True), ("0", True), ("2999", False)])
def test_a_declared_total_inside_the_list_is_compared(declared: str, fits: bool, soft: CardioSoft) -> None:
    """Whether it counts all leads or one is not known; its digits are no samples."""
    digital = soft.files.beats(1000)[:3]
    inside = f"<SampleCountTotal>{declared}</SampleCountTotal>"
    part = soft.files.disclosure_xml(soft.files.in_blocks(digital, 500), inside=inside)
    if fits:
        np.testing.assert_array_equal(soft.read(part).digital, digital)
    else:
        assert soft.refused(part).reason is Reason.TRUNCATED


def test_full_disclosure_of_odd_headers(soft: CardioSoft) -> None:
    flat = soft.files.in_blocks(soft.files.beats(1000)[:3], 500)
    assert soft.refused(soft.files.disclosure_xml(flat, channels="2")).reason is Reason.HEADER
    assert soft.refused(soft.files.disclosure_xml(flat, leads="I,,3")).reason is Reason.HEADER
    assert soft.refused(soft.files.disclosure_xml(flat, leads="")).reason is Reason.HEADER
    assert soft.refused(soft.files.disclosure_xml(flat, rate="500.5")).reason is Reason.TRUNCATED
    assert soft.refused(soft.files.disclosure_xml([])).reason is Reason.EMPTY
    one = soft.read(soft.files.disclosure_xml([1, 2, 3, 4, 5, 6], rate="1"))  # blocks of one sample are both orders
    assert one.digital.tolist() == [[1, 4], [2, 5], [3, 6]]


def test_the_resting_strip_comes_first_and_segments_alone_are_refused(soft: CardioSoft) -> None:
    digital = soft.files.known_samples(12)
    flat = soft.files.in_blocks(soft.files.beats(1000)[:3], 500)
    assert soft.read(soft.files.resting_xml(digital), soft.files.disclosure_xml(flat)).digital.shape == (12, 60)
    assert soft.refused(soft.files.segments_xml()).found == "a stress test of segments only"
    twice = soft.refused(soft.files.resting_xml(digital), soft.files.resting_xml(digital))
    assert twice.reason is Reason.UNSUPPORTED
    assert soft.refused(soft.files.disclosure_xml(flat), soft.files.disclosure_xml(flat)).reason is Reason.UNSUPPORTED
    assert soft.refused().reason is Reason.EMPTY


def test_numbers_and_case_of_lead_names(soft: CardioSoft) -> None:
    names = ["1", "2", "3", "AVR", "avl", "aVF", " V1 ", "v2"]
    recording = soft.read(soft.files.resting_xml(soft.files.known_samples(8), names))
    assert recording.leads == ("I", "II", "III", "AVR", "avl", "aVF", "V1", "v2")
    assert [canonical(name) for name in recording.leads] == list(TWELVE_LEADS[:8])


def test_patient_test_device_and_filters(soft: CardioSoft) -> None:
    path, _ = soft.files.write(soft.path.parent)
    (recording,) = cardiosoft_xml.read(path)
    assert (recording.patient_id, recording.age_years, recording.sex) == (soft.files.PID, 94.0, "female")
    assert recording.acquired_at == datetime(2010, 3, 31, 14, 5, 59)
    assert (recording.device, recording.site, recording.mains_hz) == ("CardioSoft", "12", 50.0)
    assert recording.notes == ("high-pass 0.08 Hz", "low-pass 150 Hz", "AC filter 50 Hz")
    assert recording.fields["BirthDate"] == "1916-2-29"
    assert recording.fields["HeightUnits"] == "cm"
    kept = " ".join([*recording.fields.values(), *recording.notes])
    assert [canary for canary in soft.files.CANARIES[1:] if canary in kept] == []


@pytest.mark.parametrize("pid", ["", "0", "000000", "XXXX", "UNKNOWN"])
def test_a_placeholder_is_no_patient(pid: str, soft: CardioSoft) -> None:
    strip = soft.files.resting_xml(soft.files.known_samples(), ["I", "II"])
    assert soft.read(strip, patient=f"<PatientInfo><PID>{pid}</PID></PatientInfo>").patient_id is None
    bare = soft.read(strip, patient="", observed="", filters="")
    assert (bare.patient_id, bare.age_years, bare.sex, bare.acquired_at, bare.mains_hz) == (None,) * 5
    assert bare.notes == ()


@pytest.mark.parametrize(
    ("age", "born", "years"),
    [
        ('<Age units="years">60</Age>', "", 60.0),
        ('<Age units="months">18</Age>', "", 1.5),
        ("<Age>60</Age>", "", None),  # without a unit nothing is guessed
        ("<Age>60</Age>", "<Year>1950</Year><Month>3</Month><Day>31</Day>", 60.0),
        ('<Age units="years">old</Age>', "<Year>1950</Year><Month>3</Month><Day>31</Day>", 60.0),
        ("", "<Year>1950</Year><Month>3</Month>", None),
        ("", "<Year>1950</Year><Month>13</Month><Day>1</Day>", None),
    ],
)
def test_ages(age: str, born: str, years: float | None, soft: CardioSoft) -> None:
    patient = f"<PatientInfo>{age}<BirthDateTime>{born}</BirthDateTime></PatientInfo>"
    recording = soft.read(soft.files.resting_xml(soft.files.known_samples(), ["I", "II"]), patient=patient)
    assert recording.age_years == (None if years is None else pytest.approx(years, abs=2e-3))


def test_the_first_element_decides(soft: CardioSoft) -> None:
    soft.path.write_text("<Cardiology/>")
    with pytest.raises(UnreadableRecording) as caught:
        list(cardiosoft_xml.read(soft.path))
    assert caught.value.reason is Reason.FORMAT
    assert not cardiosoft_xml.sniff(b"<Cardiology/>")
    assert cardiosoft_xml.sniff(b"\xef\xbb\xbf<CardiologyXML>")


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(
    data: st.DataObject, writers: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    soft = CardioSoft(writers("cardiosoft_xml"), tmp_path_factory.mktemp("roundtrip", numbered=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bound = data.draw(st.sampled_from([3, 1000, 2**31 - 1]))
    if data.draw(st.booleans()):
        digital = rng.integers(
            -bound - 1, bound, (data.draw(st.integers(1, 12)), data.draw(st.integers(1, 40))), endpoint=True
        )
        recording = soft.read(soft.files.resting_xml(digital, soft.files.LEADS[: len(digital)]))
    else:
        rate, seconds = data.draw(st.integers(20, 60)), data.draw(st.integers(1, 4))
        digital = rng.integers(-bound - 1, bound, (3, rate * seconds), endpoint=True)
        recording = soft.read(soft.files.disclosure_xml(soft.files.in_blocks(digital, rate), rate=str(rate)))
    np.testing.assert_array_equal(recording.digital, digital)
    np.testing.assert_allclose(recording.signal_mv, digital * 5e-3, rtol=1e-12)


@pytest.mark.parametrize(("year", "day", "note"), [("1950", "31", AGES_DIFFER), ("1899", "31", NO_BIRTH)])
def test_dates_that_contradict_each_other_are_told(year: str, day: str, note: str, soft: CardioSoft) -> None:
    born = f"<BirthDateTime><Year>{year}</Year><Month>12</Month><Day>{day}</Day></BirthDateTime>"
    patient = f'<PatientInfo><Age units="years">30</Age>{born}</PatientInfo>'
    found = soft.read(soft.files.resting_xml(soft.files.known_samples(), ["I", "II"]), patient=patient)
    assert (found.age_years, note in found.notes) == (30.0, True)
