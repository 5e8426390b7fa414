"""HL7 aECG: rhythm not beat, units per lead, time sequences, subjects, and every trap of the format."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS, select
from ecgcohorts.readers import hl7_aecg
from ecgcohorts.recording import Recording


class Aecg:
    """Write one document and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "a.xml"

    def read(self, text: str, encoding: str = "utf-8") -> Recording:
        self.path.write_bytes(text.encode(encoding))
        (recording,) = hl7_aecg.read(self.path)
        (scanned,) = hl7_aecg.scan(self.path)
        assert (scanned.n_samples, scanned.leads) == (recording.n_samples, recording.leads)
        assert recording.digital.shape == (len(recording.leads), recording.n_samples)
        return recording

    def of(self, *sequences: str, **options: str) -> Recording:
        """The recording of these sequences; time is absolute where none is among them."""
        timed = any("GLIST_" in sequence for sequence in sequences)
        parts = sequences if timed else (self.files.absolute(), *sequences)
        return self.read(self.files.document(self.files.series_xml(self.files.sequence_set(*parts)), **options))

    def lead(self, *values: int, name: str = "MDC_ECG_LEAD_I", **options: object) -> str:
        return self.files.lead_xml(name, values or (1, 2, 3), **options)

    def refused(self, text: str) -> UnreadableRecording:
        self.path.write_text(text)
        with pytest.raises(UnreadableRecording) as caught:
            list(hl7_aecg.read(self.path))
        return caught.value

    def set_refused(self, *sequences: str) -> UnreadableRecording:
        return self.refused(self.files.document(self.files.series_xml(self.files.sequence_set(*sequences))))


@pytest.fixture
def aecg(writers: Callable[[str], ModuleType], tmp_path: Path) -> Aecg:
    return Aecg(writers("hl7_aecg"), tmp_path)


def test_twelve_leads_are_selected_by_name(aecg: Aecg) -> None:
    path, (known,) = aecg.files.write(aecg.path.parent, seconds=2.0)
    (recording,) = hl7_aecg.read(path)
    picked = select(recording.signal_mv, recording.leads, TWELVE_LEADS)
    np.testing.assert_allclose(picked[0], known["signal_mv"][0])
    np.testing.assert_allclose(picked[2], known["signal_mv"][8])  # III stands after V6 in this writer's order
    assert recording.digital.dtype == np.int32


@pytest.mark.parametrize("place", ["inside", "before", "after"])
def test_trap_representative_beats_are_never_read(place: str, aecg: Aecg) -> None:
    files = aecg.files
    leads = "".join(aecg.lead(1, 2, 3, name=name) for name in files.LEADS)
    rhythm = files.series_xml(files.sequence_set(files.absolute(), leads), beat=files.beat_xml())
    beat = files.series_xml(
        files.sequence_set(files.relative(), *[aecg.lead(*[9999] * 12)]), code="REPRESENTATIVE_BEAT"
    )
    series = {"inside": [rhythm], "before": [beat, rhythm], "after": [rhythm, beat]}[place]
    recording = aecg.read(files.document(*series))
    assert recording.digital.shape == (12, 3)
    assert not (recording.digital == files.NEVER_READ).any()


def test_only_derived_series_is_no_ecg(aecg: Aecg) -> None:
    files = aecg.files
    beat = files.series_xml(files.sequence_set(files.relative(), aecg.lead()), code="REPRESENTATIVE_BEAT")
    assert aecg.refused(files.document(beat)).reason is Reason.EMPTY
    assert aecg.refused(files.document()).reason is Reason.EMPTY


def test_several_rhythms_or_sets_or_lengths_are_not_joined(aecg: Aecg) -> None:
    files = aecg.files
    one = files.sequence_set(files.absolute(), aecg.lead())
    twice = aecg.refused(files.document(files.series_xml(one), files.series_xml(one)))
    assert (twice.reason, twice.found) == (Reason.UNSUPPORTED, "2 rhythm series among 2 series")
    sets = aecg.refused(files.document(files.series_xml(one, one)))
    assert (sets.reason, sets.found) == (
        Reason.UNSUPPORTED,
        "2 groups of leads that do not follow each other in time",
    )
    lengths = aecg.set_refused(files.absolute(), aecg.lead(1, 2), aecg.lead(1, 2, 3, name="MDC_ECG_LEAD_II"))
    assert (lengths.reason, lengths.found) == (Reason.UNSUPPORTED, "leads of unequal length")
    assert aecg.refused(files.document(files.series_xml())).reason is Reason.EMPTY


UNITS = [
    (("2.5", "uV"), ("0", "uV"), 2.5e-3, 0.0),
    (("2500", "nV"), ("0", "uV"), 2.5e-3, 0.0),
    (("0.0025", "mV"), ("0", ""), 2.5e-3, 0.0),
    (("0.0000025", "V"), ("1", "V"), 2.5e-3, 1000.0),
    (("5", "uV"), ("-250", "uV"), 5e-3, -0.25),
    (("5", "uV"), ("0.5", "mV"), 5e-3, 0.5),
    (("1", "mV"), ("7000", "nV"), 1.0, 7e-3),
    (("-4.88", "uV"), ("1", "mV"), -4.88e-3, 1.0),
]


@pytest.mark.parametrize(("scale", "origin", "step_mv", "origin_mv"), UNITS)
def test_mv_is_origin_plus_scale_times_digit(
    scale: tuple[str, str], origin: tuple[str, str], step_mv: float, origin_mv: float, aecg: Aecg
) -> None:
    recording = aecg.of(aecg.lead(-3, 0, 400, scale=scale, origin=origin))
    np.testing.assert_allclose(recording.signal_mv[0], origin_mv + step_mv * np.array([-3, 0, 400]), rtol=1e-12)
    assert recording.digital.tolist() == [[-3, 0, 400]]
    if not origin_mv:
        assert str(recording.baseline[0]) == "0.0"


def test_units_are_those_of_each_lead(aecg: Aecg) -> None:
    second = aecg.lead(2, 4, 6, name="MDC_ECG_LEAD_II", scale=("1", "mV"), origin=("1", "mV"))
    recording = aecg.of(aecg.lead(1, 2, 3), second)
    np.testing.assert_allclose(recording.signal_mv, [[2.5e-3, 5e-3, 7.5e-3], [3, 5, 7]])
    assert recording.gain_per_mv.tolist() == [400.0, 1.0]
    assert recording.baseline.tolist() == [0.0, -1.0]


@pytest.mark.parametrize("scale", [("2.5", "mmHg"), ("2.5", ""), ("0", "uV"), ("", "uV"), ("1e-80", "V")])
def test_a_lead_without_a_voltage_is_refused(scale: tuple[str, str], aecg: Aecg) -> None:
    assert aecg.set_refused(aecg.files.absolute(), aecg.lead(scale=scale)).reason is Reason.UNIT


def test_an_origin_with_an_unknown_unit_or_none_at_all_is_refused(aecg: Aecg) -> None:
    files = aecg.files
    assert aecg.set_refused(files.absolute(), aecg.lead(origin=("1", "mmHg"))).reason is Reason.UNIT
    without = aecg.lead().replace('<origin value="0" unit="uV"/>', "")
    assert aecg.set_refused(files.absolute(), without).reason is Reason.UNIT


def test_slist_int_has_no_scale_so_its_voltage_is_unknown(aecg: Aecg) -> None:
    files = aecg.files
    refused = aecg.set_refused(files.absolute(), aecg.lead(kind="SLIST_INT"))
    assert (refused.reason, refused.found) == (Reason.UNIT, "no scale or origin for lead I")
    other = aecg.lead(7, 8, 9, name="MDC_RESP_RATE", kind="SLIST_INT")
    recording = aecg.of(aecg.lead(1, 2, 3), other)
    assert recording.digital[1].tolist() == [7, 8, 9]
    assert np.isnan(recording.signal_mv[1]).all()
    assert np.isfinite(recording.signal_mv[0]).all()


def test_sequences_of_other_types_are_refused(aecg: Aecg) -> None:
    files = aecg.files
    assert aecg.set_refused(files.absolute(), aecg.lead(kind="GLIST_PQ")).reason is Reason.UNSUPPORTED
    assert aecg.set_refused(files.absolute(), aecg.lead(name="")).reason is Reason.UNSUPPORTED
    bare = files.sequence("MDC_ECG_LEAD_I", "")
    assert aecg.set_refused(files.absolute(), bare).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("increment", "unit", "rate_hz"),
    [
        ("0.002", "s", 500.0),
        ("0.0010000", "s", 1000.0),
        ("0.01", "s", 100.0),
        ("0,004", "s", 250.0),
        ("2", "ms", 500.0),
        ("1000", "us", 1000.0),
        ("2000", "µs", 500.0),
        ("2E-3", "s", 500.0),
    ],
)
def test_the_rate_is_one_over_the_increment(increment: str, unit: str, rate_hz: float, aecg: Aecg) -> None:
    for time in (aecg.files.absolute(increment=increment, unit=unit), aecg.files.relative(increment, unit)):
        assert aecg.of(time, aecg.lead()).rate_hz == rate_hz


@pytest.mark.parametrize(
    ("increment", "unit"),
    [("0", "s"), ("-0.002", "s"), ("", "s"), ("0.002", ""), ("2", "min"), ("nan", "s"), ("1e-9", "s"), ("99", "s")],
)
def test_an_increment_that_is_none(increment: str, unit: str, aecg: Aecg) -> None:
    assert aecg.set_refused(aecg.files.relative(increment, unit), aecg.lead()).reason is Reason.HEADER


def test_two_times_must_agree_and_one_must_be_there(aecg: Aecg) -> None:
    files = aecg.files
    assert aecg.of(files.relative("2", "ms"), files.absolute(), aecg.lead()).acquired_at is not None
    refused = aecg.set_refused(files.relative("0.001"), files.absolute(), aecg.lead())
    assert refused.found == "2 sampling rates"
    assert aecg.set_refused(aecg.lead()).found == "0 sampling rates"
    assert aecg.set_refused(files.absolute()).reason is Reason.EMPTY


@pytest.mark.parametrize("digits", ["1 2 x", "1 2 3.5", "1,2", "1 - 2", "5 -", "2147483648", "1e3", "&#233;"])
def test_junk_among_the_digits_is_refused(digits: str, aecg: Aecg) -> None:
    lead = aecg.files.lead_xml("MDC_ECG_LEAD_I", digits)
    assert aecg.set_refused(aecg.files.absolute(), lead).reason is Reason.HEADER


def test_an_element_among_the_digits_is_refused(aecg: Aecg) -> None:
    """Its tail would be lost: a shorter ECG."""
    lead = aecg.files.lead_xml("MDC_ECG_LEAD_I", "1 2 <b/>3 4")
    assert aecg.set_refused(aecg.files.absolute(), lead).found == "elements among the samples"
    assert aecg.of(aecg.files.lead_xml("MDC_ECG_LEAD_I", "1 2 <!-- 9 -->3 4")).digital.tolist() == [[1, 2, 3, 4]]


def test_no_digits_are_no_samples(aecg: Aecg) -> None:
    lead = aecg.files.lead_xml("MDC_ECG_LEAD_I", " \n ")
    assert aecg.set_refused(aecg.files.absolute(), lead).reason is Reason.EMPTY


@pytest.mark.parametrize(
    ("head", "moment"),
    [
        ("20190331140559.250", datetime(2019, 3, 31, 14, 5, 59, 250_000)),
        ("20190331140559", datetime(2019, 3, 31, 14, 5, 59)),
        ("20190331140559.123456789", datetime(2019, 3, 31, 14, 5, 59, 123_456)),
        ("201903311405", datetime(2019, 3, 31, 14, 5)),
        ("20190331", datetime(2019, 3, 31)),
        ("20190331140559+0200", datetime(2019, 3, 31, 14, 5, 59)),  # the clock on the wall, as other formats have it
        ("20190331140559.5-05:00", datetime(2019, 3, 31, 14, 5, 59, 500_000)),
        ("20190331140559Z", datetime(2019, 3, 31, 14, 5, 59)),
        ("2019", None),
        ("20191331", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_the_start_is_the_wall_clock_of_the_first_sample(head: str, moment: datetime | None, aecg: Aecg) -> None:
    assert aecg.of(aecg.files.absolute(head), aecg.lead()).acquired_at == moment


def test_without_absolute_time_the_effective_time_says_when(aecg: Aecg) -> None:
    files = aecg.files

    def when(series: str = "", whole: str = "", time: str = "") -> datetime | None:
        inner = files.sequence_set(time or files.relative(), aecg.lead())
        return aecg.read(files.document(files.series_xml(inner, effective=series), effective=whole)).acquired_at

    low, center = '<low value="20040115112004.000"/><high value="20040115112014"/>', '<center value="20050101"/>'
    assert when(series=low, whole=center) == datetime(2004, 1, 15, 11, 20, 4)
    assert when(whole=center) == datetime(2005, 1, 1)
    assert when(whole='<high value="20040115112014"/>') is None  # the end is not the start
    assert when(series=low, time=files.absolute("20190331")) == datetime(2019, 3, 31)
    assert when() is None


def subject(root: str = "", extension: str = "") -> str:
    return f'<id root="{root}" extension="{extension}"/>'


@pytest.mark.parametrize(
    ("subject_id", "trial_id", "own", "patient_id"),
    [
        (subject("1.2.3", "S-1"), subject("9.9", "T"), "", "1.2.3/S-1"),
        (subject("", "S-1"), subject("9.9", "T"), "", "T/S-1"),
        (subject("", "S-1"), "", "", "S-1"),
        (subject("1.2.3", ""), subject("9.9", "T"), "", None),  # the scope alone, shared by all subjects
        (subject("1.2.3", "000"), subject("9.9", "T"), "", None),
        (subject("1.2.3", "UNKNOWN"), "", "", None),
        ("<id/>", "", "", None),
        ("", subject("9.9", "T"), "4711", "4711"),
        ("", "", "XXXX", None),
        (subject("1.2.3", "S-1"), "", "4711", "1.2.3/S-1"),
    ],
)
def test_a_subject_is_an_id_within_its_scope(
    subject_id: str, trial_id: str, own: str, patient_id: str | None, aecg: Aecg
) -> None:
    options = {"subject_id": subject_id, "trial_id": trial_id, "person": f"<PatientID>{own}</PatientID>"}
    assert aecg.of(aecg.lead(), **options).patient_id == patient_id


@pytest.mark.parametrize(("code", "sex"), [("M", "male"), ("F", "female"), ("UN", None), (None, None)])
def test_sex_is_a_code(code: str | None, sex: str | None, aecg: Aecg) -> None:
    attribute = "" if code is None else f' code="{code}"'
    person = f"<administrativeGenderCode{attribute}/>"
    assert aecg.of(aecg.lead(), person=person).sex == sex


@pytest.mark.parametrize(
    ("born", "age", "years", "differs"),
    [
        ("19590331", None, 60.0, False),
        ("19590331120000", ("60", "a"), 60.0, False),
        ("19590331", ("46", "a"), 60.0, True),
        ("", ("46", "a"), 46.0, False),
        ("1959", ("46", "a"), 46.0, False),
        ("", ("18", "mo"), 1.5, False),
        ("", ("46", ""), None, False),
        ("", ("", "a"), None, False),
        ("", ("forty", "a"), None, False),
        ("20300101", None, None, False),
    ],
)
def test_age_by_birth_date_else_as_reported(
    born: str, age: tuple[str, str] | None, years: float | None, differs: bool, aecg: Aecg
) -> None:
    recording = aecg.of(aecg.lead(), person=f'<birthTime value="{born}"/>', age=age)
    assert recording.age_years == (None if years is None else pytest.approx(years, abs=2e-3))
    assert ("age by birth date differs from reported age" in recording.notes) == differs


def test_device_site_filters_and_fields(aecg: Aecg) -> None:
    path, _ = aecg.files.write(aecg.path.parent)
    (recording,) = hl7_aecg.read(path)
    assert (recording.device, recording.site, recording.mains_hz) == ("ELI250", "TS-035-03", 60.0)
    assert recording.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz", "AC filter 60 Hz")
    assert recording.fields["TimepointCode"] == "VISIT_3"
    assert recording.fields["LOW_PASS_FILTER"] == "150"
    bare = aecg.of(aecg.lead()).fields
    assert "ReportedAge" not in bare


@pytest.mark.parametrize(("value", "unit"), [("fast", "Hz"), ("150", "kHz"), ("", "Hz"), ("1e400", "Hz")])
def test_filters_that_are_no_frequencies_are_left_out(value: str, unit: str, aecg: Aecg) -> None:
    files = aecg.files
    text = files.document(files.series_xml(files.sequence_set(files.absolute(), aecg.lead())))
    text = text.replace(files.FILTERS, files.filter_xml("LOW_PASS", "CUTOFF_FREQ", value, unit))
    assert aecg.read(text).notes == ()


def test_only_the_allowed_header_text_is_kept(aecg: Aecg) -> None:
    path, _ = aecg.files.write(aecg.path.parent)
    (recording,) = hl7_aecg.read(path)
    kept = " ".join([*recording.fields.values(), *recording.notes, recording.device, recording.site])
    allowed = {aecg.files.SUBJECT, aecg.files.BORN}
    assert [canary for canary in aecg.files.CANARIES if canary in kept and canary not in allowed] == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_declaration_may_be_missing_and_comments_may_come_first(encoding: str, aecg: Aecg) -> None:
    files = aecg.files
    text = files.document(files.rhythm_xml(files.known_samples()[:1], files.LEADS[:1]), declaration="<!-- a > b -->\n")
    recording = aecg.read(text, encoding)
    assert recording.digital[0].tolist() == files.known_samples()[0].tolist()
    assert hl7_aecg.sniff(aecg.path.read_bytes()[:4096])
    assert hl7_aecg.sniff(b"<!-- x --><hl7:AnnotatedECG xmlns:hl7='urn:hl7-org:v3'>")
    assert not hl7_aecg.sniff(b"<restingecgdata>")


def test_another_root_is_refused_by_name(aecg: Aecg) -> None:
    assert aecg.refused("<RestingECG/>").reason is Reason.FORMAT


def test_errors_show_numbers_but_no_header_text(aecg: Aecg) -> None:
    files = aecg.files
    error = aecg.refused(files.document(files.series_xml(files.sequence_set(files.relative("2 ms"), aecg.lead()))))
    assert "'2 ms'" in str(error)
    assert not any(canary in str(error) for canary in files.CANARIES)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(
    data: st.DataObject, writers: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    aecg = Aecg(writers("hl7_aecg"), tmp_path_factory.mktemp("roundtrip", numbered=True))
    n_leads, n_samples = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 40))
    bound = data.draw(st.sampled_from([3, 1000, 2**31 - 1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    digital = rng.integers(-bound - 1, bound, (n_leads, n_samples), endpoint=True)
    unit, per_mv = data.draw(st.sampled_from([("nV", 1e6), ("uV", 1e3), ("mV", 1.0)]))
    scale, origin = data.draw(st.sampled_from(["1", "2.5", "4.88"])), data.draw(st.sampled_from(["0", "-12.5"]))
    leads = [
        aecg.files.lead_xml(name, row, (scale, unit), (origin, unit))
        for name, row in zip(aecg.files.LEADS, digital, strict=False)
    ]
    recording = aecg.of(aecg.files.absolute(), *leads)
    np.testing.assert_array_equal(recording.digital, digital)
    np.testing.assert_allclose(
        recording.signal_mv, (float(origin) + float(scale) * digital) / per_mv, rtol=1e-9, atol=1e-9
    )
