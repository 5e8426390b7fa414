"""Schiller SEMA: the rhythm and never the averages, steps of any voltage, context, and the one real file."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS, select
from ecgcohorts.readers import detect, schiller_xml
from ecgcohorts.readers._shared.people import NO_BIRTH
from ecgcohorts.recording import Recording


class Sema:
    """Write one document and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "s.xml"

    def read(self, *waves: str, **options: object) -> Recording:
        self.path.write_text(self.files.document(*waves, **options), "utf-8")
        (recording,) = schiller_xml.read(self.path)
        (scanned,) = schiller_xml.scan(self.path)
        assert (scanned.n_samples, scanned.leads, scanned.notes) == (
            recording.n_samples, recording.leads, recording.notes,
        )  # fmt: skip
        return recording

    def refused(self, *waves: str, **options: object) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(*waves, **options)
        return caught.value


@pytest.fixture
def sema(writers: Callable[[str], ModuleType], tmp_path: Path) -> Sema:
    return Sema(writers("schiller_xml"), tmp_path)


@pytest.mark.parametrize("averages_first", [True, False])
def test_trap_averages_are_never_read(averages_first: bool, sema: Sema) -> None:
    digital = sema.files.known_samples()
    parts = [sema.files.averages_xml(), sema.files.rhythm_xml(digital)]
    recording = sema.read(*(parts if averages_first else parts[::-1]))
    np.testing.assert_array_equal(recording.digital, digital)
    assert sema.refused(sema.files.averages_xml()).reason is Reason.EMPTY


def test_the_twelve_leads_are_found_by_name(sema: Sema) -> None:
    digital = sema.files.beats(1000)
    recording = sema.read(sema.files.rhythm_xml(digital[::-1], sema.files.LEADS[::-1]))
    np.testing.assert_array_equal(select(recording.signal_mv, recording.leads, TWELVE_LEADS), digital / 1000)


@pytest.mark.parametrize(
    ("step", "unit", "mv"), [("1.0", "UV", 1e-3), ("2.5", "uV", 2.5e-3), ("0.005", "MV", 5e-3), ("5", "NV", 5e-6)]
)
def test_steps_of_any_voltage(step: str, unit: str, mv: float, sema: Sema) -> None:
    digital = sema.files.known_samples(2)
    recording = sema.read(sema.files.rhythm_xml(digital, ("I", "II"), step=step, unit=unit))
    np.testing.assert_allclose(recording.signal_mv, digital * mv, rtol=1e-12)


def test_what_the_file_says_beside_the_signal(sema: Sema) -> None:
    recording = sema.read(sema.files.rhythm_xml(sema.files.known_samples()))
    assert recording.patient_id == sema.files.PID
    assert recording.sex == "female"
    assert recording.acquired_at == datetime(2006, 5, 2, 14, 6, 10)
    assert recording.age_years == pytest.approx(60.0, abs=0.01)
    assert (recording.device, recording.site, recording.mains_hz) == ("AT-110", "002", 50.0)
    assert recording.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz", "AC filter 50 Hz")
    kept = " ".join(recording.fields.values())
    assert not any(canary in kept for canary in sema.files.CANARIES if canary != sema.files.PID)


def test_absent_sections_cost_their_facts_only(sema: Sema) -> None:
    recording = sema.read(sema.files.rhythm_xml(sema.files.known_samples()), patient="", exam="", filters=())
    assert (recording.patient_id, recording.sex, recording.age_years, recording.acquired_at) == (None,) * 4
    assert recording.notes == ()
    assert recording.n_samples == 60


@pytest.mark.parametrize("born", ["", "unknown", "19461332", "1946"])
def test_a_birth_date_that_is_none_gives_no_age(born: str, sema: Sema) -> None:
    patient = sema.files.PATIENT.replace("19460502", born)
    assert sema.read(sema.files.rhythm_xml(sema.files.known_samples()), patient=patient).age_years is None


def test_a_filler_as_birth_date_is_told(sema: Sema) -> None:
    patient = sema.files.PATIENT.replace("19460502", "19000101")
    recording = sema.read(sema.files.rhythm_xml(sema.files.known_samples()), patient=patient)
    assert (recording.age_years, NO_BIRTH in recording.notes) == (None, True)


def test_a_bad_byte_beside_the_samples_costs_a_note(sema: Sema) -> None:
    good = sema.read(sema.files.rhythm_xml(sema.files.known_samples()))
    sema.path.write_bytes(sema.path.read_bytes().replace(b"Schiller walnut", b"Schiller wal\xfcnut"))
    (found,) = schiller_xml.read(sema.path)
    np.testing.assert_array_equal(found.digital, good.digital)
    assert len(found.notes) == len(good.notes) + 1


def test_filters_that_were_on(sema: Sema) -> None:
    filters = [("MAINS", "-"), ("SMOOTHING", "ON"), ("BASELINE_STABILIZER", "ON"), ("LOWPASS_CUTOFF_FREQ", "OFF")]
    recording = sema.read(sema.files.rhythm_xml(sema.files.known_samples()), filters=filters)
    assert recording.notes == ("smoothing filter", "baseline filter")
    assert recording.mains_hz is None


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "1,,3", "1,2,x", "1,2.5,3", "", "1,2,99999999999"])
def test_lists_that_are_not_three_integers_are_refused(text: str, sema: Sema) -> None:
    refused = sema.refused(sema.files.waves_xml(sema.files.channel_xml("I", text, 3)))
    assert refused.reason in (Reason.TRUNCATED, Reason.HEADER)


@pytest.mark.parametrize("root", ["SchillerEDI", "com.xiriuz.sema.xml.schillerEDI.SchillerEDI"])
def test_the_root_tells_the_format(root: str, sema: Sema) -> None:
    sema.read(sema.files.rhythm_xml(sema.files.known_samples()), root=root)
    assert detect(sema.path) == "schiller_xml"
    assert sema.refused(root="NotSchillerEDI").reason is Reason.FORMAT


@pytest.mark.shared
def test_the_real_file(shared: Path) -> None:
    """Its integers by another way, and what physiology says of them: Einthoven, Goldberger, the stated heart rate."""
    path = shared / "vendor" / "schiller_sema" / "cvrg_schiller.xml"
    (found,) = schiller_xml.read(path)
    assert (found.leads[:4], found.rate_hz, found.digital.shape) == (("I", "II", "III", "AVR"), 500.0, (12, 4998))
    assert (found.sex, found.age_years, found.device, found.site) == ("male", None, "AT-110", "002")
    assert found.acquired_at == datetime(2006, 5, 2, 14, 6, 10)
    assert found.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz")
    text = path.read_text("utf-8-sig")
    for lead, row in zip(found.leads, found.digital, strict=True):
        at = text.index(f"<name>{lead}</name>", text.index("ECG_RHYTHMS"))
        start = text.index("<data>", at) + len("<data>")
        assert text[start : text.index("</data>", at)].split(",") == [str(sample) for sample in row]
    one, two, three, right, left, foot = found.digital[:6]
    np.testing.assert_array_equal(two, one + three)
    for augmented, twice in ((right, -(one + two)), (left, one - three), (foot, two + three)):
        assert np.abs(2 * augmented - twice).max() <= 1  # halves of a step
    np.testing.assert_allclose(found.signal_mv, found.digital / 1000)
    stated = ElementTree.fromstring(text).findall(".//annotation_global")
    assert {each.findtext("name"): each.findtext("value") for each in stated}["HR"] == "59"
    steep = np.abs(np.diff(found.signal_mv[:, :-10], axis=1)).sum(axis=0)  # the last samples are damaged in all leads
    peaks = np.flatnonzero(np.diff(np.concatenate([[-300], np.flatnonzero(steep > 0.4 * steep.max())])) > 200)
    assert 9 <= len(peaks) <= 11  # 59 a minute in ten seconds
