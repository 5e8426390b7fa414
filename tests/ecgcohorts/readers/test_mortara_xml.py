"""Mortara ELI XML: channels not typical cycles, one unit per lead, no offset. No real file at hand."""

import warnings
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS, positions, select
from ecgcohorts.readers import mortara_xml
from ecgcohorts.readers._shared.people import AGES_DIFFER, NO_BIRTH
from ecgcohorts.recording import Recording


class Mortara:
    """Write one document and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "m.xml"

    def read(self, *parts: str, **options: object) -> Recording:
        self.path.write_text(self.files.document(*parts, **options), "utf-8")
        (recording,) = mortara_xml.read(self.path)
        return recording

    def channel(self, **changes: str | None) -> str:
        return self.files.channel_xml("I", self.files.known_samples()[0], **changes)

    def refused(self, *parts: str) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(*parts)
        return caught.value


@pytest.fixture
def mortara(writers: Callable[[str], ModuleType], tmp_path: Path) -> Mortara:
    return Mortara(writers("mortara_xml"), tmp_path)


def test_twelve_leads_in_units_per_mv(mortara: Mortara) -> None:
    path, (known,) = mortara.files.write(mortara.path.parent, seconds=2.0)
    (recording,) = mortara_xml.read(path)
    np.testing.assert_allclose(select(recording.signal_mv, recording.leads, TWELVE_LEADS), known["signal_mv"])
    assert recording.gain_per_mv.tolist() == [400.0] * 12
    assert (recording.rate_hz, recording.n_samples, recording.missing) == (500.0, 1000, None)


def test_units_are_those_of_each_lead(mortara: Mortara) -> None:
    second = mortara.files.channel_xml("II", mortara.files.known_samples()[1], UNITS_PER_MV="1000.0")
    recording = mortara.read(mortara.channel(), second)
    digital = mortara.files.known_samples()
    np.testing.assert_allclose(recording.signal_mv, digital / np.array([[400], [1000]]))


def test_trap_typical_cycles_are_never_read(mortara: Mortara) -> None:
    cycle = mortara.files.cycle_xml()
    for parts in ((cycle, mortara.channel()), (mortara.channel(), cycle)):
        recording = mortara.read(*parts)
        assert recording.digital.tolist() == mortara.files.known_samples()[:1].tolist()
    assert mortara.refused(cycle).reason is Reason.EMPTY


@pytest.mark.parametrize("offset", ["1", "-200", "0.5"])
def test_trap_an_offset_is_refused(offset: str, mortara: Mortara) -> None:
    """Readers disagree on its meaning."""
    assert mortara.refused(mortara.channel(OFFSET=offset)).reason is Reason.UNSUPPORTED
    for none in ("0", "0.0", "", None):
        assert mortara.read(mortara.channel(OFFSET=none)).baseline.tolist() == [0.0]


@pytest.mark.parametrize("change", [{"BITS": "24"}, {"FORMAT": "UNSIGNED"}, {"ENCODING": "HEX"}, {"BITS": None}])
def test_samples_of_another_kind_are_refused(change: dict[str, str | None], mortara: Mortara) -> None:
    assert mortara.refused(mortara.channel(**change)).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"UNITS_PER_MV": None}, Reason.UNIT),
        ({"UNITS_PER_MV": "0"}, Reason.UNIT),
        ({"UNITS_PER_MV": "-400"}, Reason.UNIT),
        ({"UNITS_PER_MV": "1e30"}, Reason.UNIT),
        ({"UNITS_PER_MV": "many"}, Reason.HEADER),
        ({"SAMPLE_FREQ": None}, Reason.HEADER),
        ({"SAMPLE_FREQ": "0"}, Reason.HEADER),
        ({"SAMPLE_FREQ": "-500"}, Reason.HEADER),
        ({"NAME": ""}, Reason.HEADER),
        ({"DURATION": None}, Reason.HEADER),
        ({"DURATION": "59"}, Reason.TRUNCATED),
        ({"DURATION": "61"}, Reason.TRUNCATED),
        ({"DURATION": "120"}, Reason.TRUNCATED),  # milliseconds at 500 Hz, which ecgdatakit would take
        ({"DURATION": "0"}, Reason.EMPTY),
        ({"DURATION": "-1"}, Reason.EMPTY),
        ({"DURATION": "1000000000000"}, Reason.LIMIT),
        ({"DATA": "AAA"}, Reason.HEADER),
        ({"DATA": "A?AA"}, Reason.HEADER),
        ({"DATA": None}, Reason.TRUNCATED),
    ],
)
def test_channels_that_are_not_whole(change: dict[str, str | None], reason: Reason, mortara: Mortara) -> None:
    assert mortara.refused(mortara.channel(**change)).reason is reason


def test_leads_of_unequal_rate_or_length_are_refused(mortara: Mortara) -> None:
    samples = mortara.files.known_samples()[1]
    rate = mortara.files.channel_xml("II", samples, SAMPLE_FREQ="1000")
    assert mortara.refused(mortara.channel(), rate).found == "leads of different sampling rates"
    length = mortara.files.channel_xml("II", samples[:-1])
    assert mortara.refused(mortara.channel(), length).found == "leads of unequal length"


def test_the_least_value_is_missing(mortara: Mortara) -> None:
    samples = np.array([1, -32768, 32767])
    recording = mortara.read(mortara.files.channel_xml("I", samples))
    assert recording.missing.tolist() == [[False, True, False]]
    assert np.isnan(recording.signal_mv[0, 1])


def test_patient_time_and_device(mortara: Mortara) -> None:
    path, _ = mortara.files.write(mortara.path.parent)
    (recording,) = mortara_xml.read(path)
    assert (recording.patient_id, recording.age_years, recording.sex) == (mortara.files.ID, 94.0, "female")
    assert recording.acquired_at == datetime(2010, 3, 31, 14, 5, 59)
    assert (recording.device, recording.site, recording.mains_hz) == ("ELI 280", None, None)
    kept = " ".join(recording.fields.values())
    allowed = {mortara.files.ID, mortara.files.BORN}
    assert [canary for canary in mortara.files.CANARIES if canary in kept and canary not in allowed] == []


@pytest.mark.parametrize("patient_id", ["", "0", "000000", "XXXX", "UNKNOWN", None])
def test_a_placeholder_is_no_patient(patient_id: str | None, mortara: Mortara) -> None:
    recording = mortara.read(mortara.channel(), subject={"ID": patient_id}, ecg={}, source={})
    assert (recording.patient_id, recording.sex, recording.acquired_at, recording.age_years) == (None,) * 4


@pytest.mark.parametrize(
    ("changes", "born", "years"),
    [
        ({"AGE": "60", "AGE_UNITS": "Y"}, None, 60.0),
        ({"AGE": "18", "AGE_UNITS": "MONTHS"}, None, 1.5),
        ({"AGE": "60", "AGE_UNITS": None}, None, None),
        ({"AGE": "60", "AGE_UNITS": None}, "19500331", 60.0),
        ({"AGE": None}, "19501331", None),
        ({"AGE": None}, "1950-03-31", None),
        ({"AGE": "sixty"}, "19500331", 60.0),
        ({"AGE": None, "ACQUISITION_TIME": "yesterday"}, "19500331", None),
    ],
)
def test_ages(changes: dict[str, str | None], born: str | None, years: float | None, mortara: Mortara) -> None:
    recording = mortara.read(mortara.channel(), ecg=mortara.files.ECG | changes, subject={"DOB": born})
    assert recording.age_years == (None if years is None else pytest.approx(years, abs=2e-3))


def test_the_root_and_something_of_mortaras_decide(mortara: Mortara) -> None:
    path, _ = mortara.files.write(mortara.path.parent)
    text = path.read_text()
    assert mortara_xml.sniff(text.encode()[:4096])
    assert mortara_xml.sniff(text.replace("UTF-8", "UTF-16").encode("utf-16")[:4096])
    assert not mortara_xml.sniff(b"<ECG><Waveform/></ECG>")
    assert not mortara_xml.sniff(b"<RestingECG ACQUISITION_TIME=''>")
    path.write_text("<ECGS/>")
    with pytest.raises(UnreadableRecording) as caught:
        list(mortara_xml.read(path))
    assert caught.value.reason is Reason.FORMAT


def peer_record(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("ecgdatakit.parsing.parsers.mortara_el250").MortaraEL250Parser().parse(path)


def test_ecgdatakit_reads_the_same(mortara: Mortara) -> None:
    path, (known,) = mortara.files.write(mortara.path.parent, seconds=2.0)
    peer = peer_record(path)
    (recording,) = mortara_xml.read(path)
    places = positions([lead.label for lead in peer.leads])
    for place, name in enumerate(known["leads"]):
        other = peer.leads[places[name]]
        np.testing.assert_array_equal(other.samples, recording.digital[place])
        assert other.sampling_rate == recording.rate_hz
        assert other.resolution * recording.gain_per_mv[place] == pytest.approx(1000.0)


def test_ecgdatakit_takes_offsets_and_durations_in_ms(mortara: Mortara) -> None:
    """It reads both: an offset with a warning and left out, a length that fits samples or milliseconds."""
    for change in ({"OFFSET": "7"}, {"DURATION": "120"}):
        mortara.refused(mortara.channel(**change))
        assert peer_record(mortara.path).leads[0].samples.tolist() == mortara.files.known_samples()[0].tolist()


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(
    data: st.DataObject, writers: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mortara = Mortara(writers("mortara_xml"), tmp_path_factory.mktemp("roundtrip", numbered=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bound = data.draw(st.sampled_from([3, 1000, 2**15 - 1]))
    shape = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 70))
    digital = rng.integers(-bound, bound, shape, endpoint=True)
    per_mv = data.draw(st.sampled_from(["400", "200", "1000", "204.8"]))
    channels = [
        mortara.files.channel_xml(name, row, UNITS_PER_MV=per_mv)
        for name, row in zip(mortara.files.LEADS, digital, strict=False)
    ]
    recording = mortara.read(*channels)
    np.testing.assert_array_equal(recording.digital, digital)
    np.testing.assert_allclose(recording.signal_mv, digital / float(per_mv), rtol=1e-12)


@pytest.mark.parametrize(("born", "note"), [("19500331", AGES_DIFFER), ("19000101", NO_BIRTH)])
def test_dates_that_contradict_each_other_are_told(born: str, note: str, mortara: Mortara) -> None:
    ecg = mortara.files.ECG | {"AGE": "30", "AGE_UNITS": "Y"}
    found = mortara.read(mortara.channel(), ecg=ecg, subject={"DOB": born})
    assert (found.age_years, found.notes) == (30.0, (note,))
