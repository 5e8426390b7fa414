"""Philips XML: every variant of header and payload, the calibration second, residual leads, and what must be refused."""

import tempfile
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers._shared.people import AGES_DIFFER, NO_BIRTH, NO_CLOCK
from ecgcohorts.readers.philips_xml import reader as philips_xml
from ecgcohorts.recording import Recording


def read(path: Path) -> Recording:
    (recording,) = philips_xml.read(path)
    return recording


class Philips:
    """Write one document and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "p.xml"
        self.samples = files.known_samples()

    def read(self, leads: np.ndarray | None = None, *version: str, **options: Any) -> Recording:
        leads = self.samples if leads is None else leads
        return read(self.files.save(self.path, self.files.document(leads, *version, **options)))

    def refused(self, leads: np.ndarray | None = None, *version: str, **options: Any) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(leads, *version, **options)
        return caught.value


@pytest.fixture
def files(writers: Any) -> ModuleType:
    return writers("philips_xml")


@pytest.fixture
def philips(files: ModuleType, tmp_path: Path) -> Philips:
    return Philips(files, tmp_path)


# Documents.


@pytest.mark.parametrize("version", ["1.03", "1.04", "1.04.01", "1.04.02"])
@pytest.mark.parametrize(("encoding", "compressed"), [("Base64", True), ("Base64", False), ("Plain", False)])
@pytest.mark.parametrize("namespace", [True, False])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_every_variant(
    version: str, encoding: str, compressed: bool, namespace: bool, codec: str, files: ModuleType, tmp_path: Path
) -> None:
    samples = files.known_samples()
    text = files.document(samples, version, encoding=encoding, compressed=compressed, namespace=namespace)
    path = files.save(tmp_path / "p.xml", text, codec)
    recording = read(path)
    assert philips_xml.sniff(path.read_bytes()[:4096])
    assert np.array_equal(recording.digital, samples)
    assert (recording.leads, recording.rate_hz) == (TWELVE_LEADS, 500.0)
    assert (philips_xml.NO_LABELS in recording.notes) == (version == "1.03")
    np.testing.assert_allclose(recording.signal_mv, samples * 5e-3, rtol=1e-12)
    (scanned,) = philips_xml.scan(path)
    assert (scanned.n_samples, scanned.digital.shape) == (60, (12, 0))


def test_a_prefix_instead_of_a_default_namespace(philips: Philips) -> None:
    text = philips.files.document(philips.samples, namespace=False)
    prefixed = text.replace("</", "\0").replace("<", "<p:").replace("\0", "</p:")
    prefixed = prefixed.replace("<p:restingecgdata", f'<p:restingecgdata xmlns:p="{philips.files.NAMESPACE}"')
    assert np.array_equal(read(philips.files.save(philips.path, prefixed)).digital, philips.samples)


@pytest.mark.parametrize(
    ("version", "kind"),
    [("1.05", "SierraECG"), ("1.03", "MortaraECG"), ("1.3", "SierraECG"), ("", "PhilipsECG"), ("1.04", ""), ("1.04.03", "PhilipsECG")],
)  # fmt: skip
def test_other_documents_are_refused(version: str, kind: str, philips: Philips) -> None:
    assert philips.refused(None, version, kind=kind).reason is Reason.UNSUPPORTED


def test_another_root_is_another_format(philips: Philips) -> None:
    text = philips.files.document(philips.samples).replace("restingecgdata", "stressecgdata")
    path = philips.files.save(philips.path, text)
    assert not philips_xml.sniff(path.read_bytes())
    with pytest.raises(UnreadableRecording) as caught:
        read(path)
    assert caught.value.reason is Reason.FORMAT


def test_representative_beats_are_never_the_rhythm(philips: Philips) -> None:
    text = philips.files.document(philips.samples)
    start, stop = text.index("<parsedwaveforms"), text.index("<repbeats")
    only_beats = text[:start] + text[stop:]
    before = text[:start] + philips.files.MEDIAN + text[start:stop] + "</waveforms></restingecgdata>"
    with pytest.raises(UnreadableRecording) as caught:
        read(philips.files.save(philips.path, only_beats))
    assert caught.value.reason is Reason.EMPTY
    assert np.array_equal(read(philips.files.save(philips.path, before)).digital, philips.samples)
    twice = text[:stop] + text[start:stop] + text[stop:]
    with pytest.raises(UnreadableRecording) as caught:
        read(philips.files.save(philips.path, twice))
    assert caught.value.reason is Reason.UNSUPPORTED


# Leads, units, rates.


def test_more_than_twelve_leads(philips: Philips) -> None:
    leads = np.vstack([philips.samples, philips.files.known_samples(4, 60, 9)])
    labels = f"{' '.join(TWELVE_LEADS)} V3R V4R V7 V8"
    recording = philips.read(leads, parsed={"leadlabels": labels})
    assert recording.leads == (*TWELVE_LEADS, "V3R", "V4R", "V7", "V8")
    assert np.array_equal(recording.digital, leads)


def test_old_names_of_the_chest_leads(philips: Philips) -> None:
    labels = "I II III aVR aVL aVF C1 C2 C3 C4 C5 C6"
    assert philips.read(parsed={"leadlabels": labels}).leads == TWELVE_LEADS


@pytest.mark.parametrize("kind", ["STD-12", "10-WIRE"])
def test_leads_without_names_stand_in_the_standard_order(kind: str, philips: Philips) -> None:
    recording = philips.read(parsed={"leadlabels": None}, signal={"acquisitiontype": kind})
    assert recording.leads == TWELVE_LEADS
    assert philips_xml.NO_LABELS in recording.notes


@pytest.mark.parametrize(
    ("parsed", "signal", "reason"),
    [
        ({"leadlabels": None}, {"acquisitiontype": "STD-16"}, Reason.LEADS),
        ({"leadlabels": None}, {"acquisitiontype": None}, Reason.LEADS),
        ({"leadlabels": None}, {"numberchannelsallocated": "16"}, Reason.LEADS),
        ({"leadlabels": None, "numberofleads": "8"}, {}, Reason.LEADS),
        ({"leadlabels": "I II III"}, {}, Reason.HEADER),
        ({"leadlabels": "I II III aVL aVR aVF V1 V2 V3 V4 V5 V6"}, {}, Reason.UNSUPPORTED),
        ({"leadlabels": "I II III -aVR aVL aVF V1 V2 V3 V4 V5 V6"}, {}, Reason.UNSUPPORTED),
        ({"leadlabels": "I II V1 V2 V3 V4 V5 V6", "numberofleads": "8"}, {}, Reason.UNSUPPORTED),
        ({"leadlabels": "I " * 65, "numberofleads": None}, {}, Reason.LIMIT),
        ({"numberofleads": "twelve"}, {}, Reason.HEADER),
    ],
)
def test_leads_that_cannot_be_told(
    parsed: dict[str, str | None], signal: dict[str, str | None], reason: Reason, philips: Philips
) -> None:
    assert philips.refused(parsed=parsed, signal=signal).reason is reason


@pytest.mark.parametrize(("uv", "per_mv"), [("5", 200.0), ("2.5", 400.0), ("1", 1000.0), ("2,5", 400.0)])
def test_resolution_is_microvolts_per_step(uv: str, per_mv: float, philips: Philips) -> None:
    recording = philips.read(parsed={"resolution": uv}, signal={"resolution": uv})
    assert recording.gain_per_mv.tolist() == [per_mv] * 12
    old = philips.read(None, "1.03", signal={"signalresolution": uv})
    assert old.gain_per_mv.tolist() == [per_mv] * 12


def test_what_the_waveform_says_goes_before_what_the_machine_measured(philips: Philips) -> None:
    recording = philips.read(rate_hz=250, signal={"samplingrate": "500", "resolution": "1"})
    assert (recording.rate_hz, recording.gain_per_mv[0]) == (250.0, 200.0)
    assert philips_xml.RESCALED in recording.notes
    assert philips_xml.RESCALED not in philips.read().notes
    recording = philips.read(parsed={"samplespersecond": None, "resolution": None})
    assert (recording.rate_hz, recording.gain_per_mv[0]) == (500.0, 200.0)


@pytest.mark.parametrize("value", [None, "", "0", "-5", "five"])
def test_no_resolution_no_recording(value: str | None, philips: Philips) -> None:
    error = philips.refused(parsed={"resolution": value}, signal={"resolution": None})
    assert error.reason is (Reason.HEADER if value == "five" else Reason.UNIT)


def test_an_offset_is_the_baseline_of_uncompressed_leads(philips: Philips) -> None:
    recording = philips.read(parsed={"signaloffset": "100"}, compressed=False)
    assert recording.baseline.tolist() == [100.0] * 12
    np.testing.assert_allclose(recording.signal_mv, (philips.samples - 100) * 5e-3, rtol=1e-12, atol=1e-15)
    assert philips.refused(parsed={"signaloffset": "100"}).reason is Reason.UNSUPPORTED
    assert philips.read(None, "1.03", signal={"signaloffset": "7"}, compressed=False).baseline[0] == 7.0


# The calibration second.


@pytest.mark.parametrize(("rate_hz", "uv"), [(500, "5"), (250, "5"), (1000, "5")])
def test_the_calibration_second_is_cut(rate_hz: int, uv: str, philips: Philips) -> None:
    ecg = philips.files.beats(10 * rate_hz, rate_hz)
    recording = philips.read(philips.files.calibrated(ecg, rate_hz), rate_hz=rate_hz)
    assert np.array_equal(recording.digital, ecg)
    assert recording.duration_s == 10.0
    assert philips_xml.CUT in recording.notes
    (scanned,) = philips_xml.scan(philips.path)
    assert scanned.n_samples == 11 * rate_hz


def test_zeros_may_begin_earlier_as_in_1_03(philips: Philips) -> None:
    leads = philips.files.calibrated(philips.files.beats(5000), 500)
    leads[:, 5264:5350] = 0
    assert philips.read(leads, "1.03").n_samples == 5000


def test_a_lead_that_is_off_does_not_hide_the_pulse(philips: Philips) -> None:
    leads = philips.files.calibrated(philips.files.beats(5000), 500)
    leads[8, 5000:] = leads[8, 5000]
    assert philips.read(leads).n_samples == 5000
    leads[:, 5000:] = 0
    assert philips.read(leads).n_samples == 5500


@pytest.mark.parametrize("what", ["no pulse", "another height", "one lead without", "a late beat", "no zeros after", "two pulses", "short"])  # fmt: skip
def test_only_a_pulse_is_cut(what: str, philips: Philips) -> None:
    leads = philips.files.calibrated(philips.files.beats(5000), 500)
    if what == "no pulse":
        leads = philips.files.beats(5500)
    elif what == "another height":
        leads[leads == philips.files.PULSE_STEPS] = 199
    elif what == "one lead without":
        leads[3, 5300:] = philips.files.known_samples(1, 200)
    elif what == "a late beat":
        leads[:, 5470] = 90
    elif what == "no zeros after":
        leads[:, 5350:] = philips.files.PULSE_STEPS
    elif what == "two pulses":
        leads[:, 5380:5400] = 0
    elif what == "short":
        leads[:, 5350:5440] = 0
    recording = philips.read(leads)
    assert np.array_equal(recording.digital, leads)
    assert philips_xml.NO_PULSE in recording.notes
    assert philips_xml.CUT not in recording.notes


# What stands around the signal.


def test_patient_device_and_place(philips: Philips) -> None:
    recording = philips.read()
    assert (recording.patient_id, recording.sex) == ("4711", "female")
    assert recording.acquired_at == datetime(2020, 5, 18, 15, 48, 11)
    assert recording.age_years == pytest.approx(69.377, abs=1e-3)
    assert (recording.device, recording.site, recording.mains_hz) == ("PageWriter TC", "1", 60.0)
    assert recording.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz")  # not the filters of the print, not acsetting
    assert recording.fields["detaildescription"] == "Philips:860315:A.07"
    assert philips.read(None, "1.03").notes[-2:] == ("high-pass 0.05 Hz", "low-pass 150 Hz")


@pytest.mark.parametrize("identity", ["XXXX", "xxxxxx", "---", "", "0", None, "UNKNOWN"])
def test_a_placeholder_is_no_patient(identity: str | None, philips: Philips) -> None:
    blank = dict.fromkeys(["institutionid", "institutionname", "facilityid"], identity)
    recording = philips.read(patient={"patientid": identity, "sex": identity}, acquirer=blank)
    assert (recording.patient_id, recording.sex, recording.site) == (None, None, None)


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("<age defaultage='50'></age>", None),
        ("<age defaultage='50'><years>63</years></age>", 63.0),
        ("<age><months>18</months></age>", 1.5),
        ("<age><weeks>2</weeks></age>", 14 / 365.25),
        ("<age><days>3</days></age>", 3 / 365.25),
        ("<age><hours>12</hours></age>", 0.5 / 365.25),
        ("<age><years>199</years></age>", None),
        ("<age><years>---</years></age>", None),
        ("<age defaultage='50'><dateofbirth>1960-05-18</dateofbirth></age>", 21915 / 365.25),
        ("<age defaultage='50'><dateofbirth>XXXX-XX-XX</dateofbirth></age>", None),
        ("<age defaultage='50'><dateofbirth>2031-01-01</dateofbirth></age>", None),
        ("<age defaultage='50'><dateofbirth/></age>", None),
        ("", None),
    ],
)
def test_the_default_age_is_no_age(age: str, years: float | None, philips: Philips) -> None:
    assert philips.read(age=age).age_years == (None if years is None else pytest.approx(years))


@pytest.mark.parametrize(
    ("acquisition", "moment"),
    [
        ("date='2020-02-29' time='00:00:59'", datetime(2020, 2, 29, 0, 0, 59)),
        ("date='2020-02-29' time='10:11:12.345'", datetime(2020, 2, 29, 10, 11, 12)),
        ("date='2020-02-29' time='XX:XX'", datetime(2020, 2, 29)),
        ("date='2021-02-29' time='00:00:59'", None),
        ("date='XXXX' time='10:11:12'", None),
        ("", None),
    ],
)
def test_the_moment_of_acquisition(acquisition: str, moment: datetime | None, philips: Philips) -> None:
    recording = philips.read(acquisition=acquisition)
    assert recording.acquired_at == moment
    assert (NO_CLOCK in recording.notes) == ("XX:XX" in acquisition)


def test_filters_and_channels_are_noted(philips: Philips) -> None:
    parsed = {"hipass": "0.5", "lowpass": "40", "notchfiltered": "True", "notchfilterfreqs": "50 100"}
    more = {"artfiltered": "True", "upsampled": "True", "waveformmodified": "False"}
    recording = philips.read(parsed=parsed | more, signal={"acsetting": "50", "numberchannelsvalid": "10"})
    assert set(recording.notes) == {
        *("high-pass 0.5 Hz", "low-pass 40 Hz", "AC filter 50 and 100 Hz", "artifact filter"),
        *("upsampled since acquisition", "valid channels: 10 of 12"),
    }
    assert recording.mains_hz == 50.0
    assert philips.read(signal={"acsetting": "Unknown"}).mains_hz is None
    assert "AC filter" in philips.read(parsed={"notchfiltered": "True", "notchfilterfreqs": "x"}).notes


def test_names_are_never_read(files: ModuleType, tmp_path: Path) -> None:
    path, _ = files.write(tmp_path)
    recording = read(path)
    # The ids and the date of birth that cohort rules may use, and nothing else.
    kept = [canary for canary in files.CANARIES if canary in " ".join(recording.fields.values())]
    assert kept == [files.CANARIES[0], files.CANARIES[1], files.CANARIES[2], files.CANARIES[6]]
    assert not [canary for canary in files.CANARIES[1:] if canary in repr(recording)]


# What must be refused.


@pytest.mark.parametrize(
    ("parsed", "reason"),
    [
        ({"durationperchannel": None}, Reason.HEADER),
        ({"durationperchannel": "119"}, Reason.HEADER),  # 59.5 samples
        ({"durationperchannel": "118"}, Reason.TRUNCATED),
        ({"durationperchannel": "122"}, Reason.TRUNCATED),
        ({"durationperchannel": "0"}, Reason.EMPTY),
        ({"durationperchannel": "-120"}, Reason.EMPTY),
        ({"durationperchannel": "5e9"}, Reason.LIMIT),
        ({"durationperchannel": "900000"}, Reason.LIMIT),
        ({"samplespersecond": "0"}, Reason.HEADER),
        ({"samplespersecond": "XXXX"}, Reason.HEADER),
        ({"dataencoding": "Hex"}, Reason.UNSUPPORTED),
        ({"dataencoding": None}, Reason.UNSUPPORTED),
        ({"dataencoding": "Plain"}, Reason.UNSUPPORTED),  # plain text cannot be compressed
        ({"compression": "Huffman"}, Reason.UNSUPPORTED),
        ({"compression": None}, Reason.TRUNCATED),
        ({"bitspersample": "14"}, Reason.UNSUPPORTED),
        ({"signalsigned": "False"}, Reason.UNSUPPORTED),
    ],
)
def test_headers_that_do_not_fit(parsed: dict[str, str | None], reason: Reason, philips: Philips) -> None:
    assert philips.refused(parsed=parsed).reason is reason


def test_a_cleared_flag_means_no_compression_whatever_the_method_says(philips: Philips) -> None:
    """Tools that expand XLI write so: flag False, method still XLI."""
    recording = philips.read(None, "1.03", encoding="Plain", parsed={"compressmethod": "XLI"})
    assert np.array_equal(recording.digital, philips.samples)
    assert philips.refused(None, "1.03", parsed={"compressmethod": None}).reason is Reason.UNSUPPORTED
    assert philips.refused(None, "1.03", parsed={"compressflag": "Maybe"}).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.EMPTY),
        (" \n", Reason.EMPTY),
        ("AAA!AAAA", Reason.HEADER),
        ("AAAAA", Reason.HEADER),
        ("ÄÖÜ=", Reason.HEADER),
        ("AAAA", Reason.TRUNCATED),
    ],
)
def test_payloads_that_are_no_chunks(text: str, reason: Reason, philips: Philips) -> None:
    assert philips.refused(text=text).reason is reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text + " 1", Reason.TRUNCATED),
        (lambda text: text.rsplit(None, 1)[0], Reason.TRUNCATED),
        (lambda text: text + ".5", Reason.HEADER),
        (lambda text: text.replace(" ", ",", 1), Reason.HEADER),
        (lambda text: "٣" + text[1:], Reason.HEADER),
        (lambda text: "1_0 " + text.split(None, 1)[1], Reason.HEADER),
        (lambda text: "32768 " + text.split(None, 1)[1], Reason.HEADER),
        (lambda text: "-32769 " + text.split(None, 1)[1], Reason.HEADER),
        (lambda text: "123456 " + text.split(None, 1)[1], Reason.HEADER),
    ],
)
def test_plain_numbers_that_are_not_as_declared(change: Any, reason: Reason, philips: Philips) -> None:
    text = change(philips.files.payload(philips.samples, "Plain", False))
    assert philips.refused(encoding="Plain", text=text).reason is reason


def test_plain_numbers_in_any_layout(philips: Philips) -> None:
    text = "\n\t ".join(f"{value:+d}" for value in philips.samples.ravel())
    assert np.array_equal(philips.read(encoding="Plain", text=f"\n {text} \n").digital, philips.samples)


def test_a_utf16_file_cut_anywhere_is_refused(files: ModuleType, tmp_path: Path) -> None:
    samples = files.known_samples(12, 20)
    path = files.save(tmp_path / "p.xml", files.document(samples, "1.04.01"), "utf-16")
    data = path.read_bytes()
    for length in range(0, len(data) - 4, 7):  # the last four bytes are the end of the line behind the root
        path.write_bytes(data[:length])
        for call in (philips_xml.read, philips_xml.scan):
            with pytest.raises(UnreadableRecording):
                list(call(path))


def test_a_scan_decodes_no_payload(philips: Philips) -> None:
    philips.files.save(philips.path, philips.files.document(philips.samples, text="!!!"))
    (scanned,) = philips_xml.scan(philips.path)
    assert (scanned.n_samples, scanned.patient_id) == (60, "4711")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_leads_come_back(writers: Any, data: st.DataObject) -> None:
    files = writers("philips_xml")
    n_samples, seed = data.draw(st.integers(1, 400)), data.draw(st.integers(0, 999))
    size = data.draw(st.sampled_from([1, 2, 30, 900, 32768]))
    extra = data.draw(st.integers(0, 4))
    samples = files.known_samples(12 + extra, n_samples, seed, size)
    if data.draw(st.booleans()):
        samples[:, n_samples // 2 :] = samples[:, :1]  # long runs: strings that end in themselves
    version = "1.04" if extra else data.draw(st.sampled_from(philips_xml.VERSIONS))
    encoding = data.draw(st.sampled_from(["Base64", "Plain"]))
    compressed = encoding == "Base64" and data.draw(st.booleans())
    labels = {"leadlabels": " ".join([*TWELVE_LEADS, "V3R", "V4R", "V7", "V8"][: 12 + extra])} if extra else {}
    text = files.document(samples, version, encoding=encoding, compressed=compressed, parsed=labels)
    with tempfile.TemporaryDirectory() as folder:
        path = files.save(Path(folder) / "p.xml", text, data.draw(st.sampled_from(["utf-8", "utf-16"])))
        assert np.array_equal(read(path).digital, samples)


@pytest.mark.parametrize(("born", "note"), [("1960-05-18", AGES_DIFFER), ("1900-01-01", NO_BIRTH)])
def test_dates_that_contradict_each_other_are_told(born: str, note: str, philips: Philips) -> None:
    found = philips.read(age=f"<age><years>30</years><dateofbirth>{born}</dateofbirth></age>")
    assert (found.age_years, note in found.notes) == (30.0, True)
