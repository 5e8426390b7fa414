"""MFER: byte orders, types, blocks, what is left out and what is refused, and the one real file beside a peer."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import detect, mfer
from ecgcohorts.readers._shared.people import AGES_DIFFER
from ecgcohorts.recording import Recording


class Monitor:
    """Write one file and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "monitor.mwf"

    def read(self, channels: list[Any], **options: Any) -> Recording:
        self.path.write_bytes(self.files.document(channels, **options))
        (recording,) = mfer.read(self.path)
        (scanned,) = mfer.scan(self.path)
        assert (scanned.n_samples, scanned.leads, scanned.notes) == (
            recording.n_samples, recording.leads, recording.notes,
        )  # fmt: skip
        return recording

    def channels(self, digital: Any, leads: Any = ("I", "II"), **how: Any) -> list[Any]:
        return [self.files.Channel(lead, row, **how) for lead, row in zip(leads, digital, strict=True)]

    def refused(self, channels: list[Any], **options: Any) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(channels, **options)
        return caught.value


@pytest.fixture
def monitor(writers: Callable[[str], ModuleType], tmp_path: Path) -> Monitor:
    return Monitor(writers("mfer"), tmp_path)


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize(
    ("kind", "low", "high"), [(0, -9000, 9000), (1, 0, 60_000), (2, -(10**6), 10**6), (3, 0, 200), (5, -99, 99)]
)
def test_every_integer_type_in_either_byte_order(
    little: bool, kind: int, low: int, high: int, monitor: Monitor
) -> None:
    digital = np.random.default_rng(1).integers(low, high, (2, 60))
    recording = monitor.read(monitor.channels(digital, kind=kind), little=little)
    assert detect(monitor.path) == "mfer"
    np.testing.assert_array_equal(recording.digital, digital)
    assert recording.acquired_at == datetime(2011, 4, 23, 13, 59, 7)


@pytest.mark.parametrize("block", [1, 3, 20, 60])
def test_blocks_of_any_length(block: int, monitor: Monitor) -> None:
    digital = monitor.files.known_samples(8)
    recording = monitor.read(monitor.channels(digital, monitor.files.EIGHT, block=block))
    assert recording.leads == monitor.files.EIGHT
    np.testing.assert_array_equal(recording.digital, digital)


@pytest.mark.parametrize(
    ("interval", "rate_hz"), [((1, -3, 2), 500.0), ((1, -6, 1250), 800.0), ((0, 0, 360), 360.0), ((0, 2, 5), 500.0)]
)
def test_intervals_in_seconds_or_hertz(interval: tuple[int, int, int], rate_hz: float, monitor: Monitor) -> None:
    assert monitor.read(monitor.channels(monitor.files.known_samples(), interval=interval)).rate_hz == rate_hz


@pytest.mark.parametrize(("step", "mv"), [((0, -6, 2), 2e-3), ((0, -9, 1250), 1.25e-3), ((0, -5, 1), 1e-2)])
def test_steps_in_volts(step: tuple[int, int, int], mv: float, monitor: Monitor) -> None:
    digital = monitor.files.known_samples()
    recording = monitor.read(monitor.channels(digital, step=step))
    np.testing.assert_allclose(recording.signal_mv, digital * mv, rtol=1e-12)


def test_other_signals_are_left_out_and_named(monitor: Monitor) -> None:
    files = monitor.files
    leads = monitor.channels(files.known_samples())
    slow = files.Channel(files.CODES["pressure"], np.arange(30), 10, step=(1, -3, 125), interval=(1, -3, 4))
    voltage = files.Channel(49000, np.arange(30), 10, interval=(1, -3, 4))
    recording = monitor.read([slow, leads[0], voltage, leads[1]])
    assert recording.leads == ("I", "II")
    assert recording.notes == (mfer.OTHER_RATES, mfer.NO_VOLTAGE)
    np.testing.assert_array_equal(recording.digital, files.known_samples())


def test_the_null_value_is_missing(monitor: Monitor) -> None:
    digital = monitor.files.known_samples()
    digital[1, 7:9] = -32768
    recording = monitor.read(monitor.channels(digital, null=-32768))
    assert np.flatnonzero(np.isnan(recording.signal_mv[1])).tolist() == [7, 8]
    assert monitor.read(monitor.channels(digital)).missing is None  # the file names no such value


def test_attributes_for_all_channels_hold_where_a_channel_has_none(monitor: Monitor) -> None:
    files, digital = monitor.files, monitor.files.known_samples()
    common = files.tag(0x0B, files.Coder().scaled(1, -3, 4)) + files.tag(0x0C, files.Coder().scaled(0, -6, 10))
    recording = monitor.read(monitor.channels(digital, step=None, interval=None), before=common)
    assert recording.rate_hz == 250.0
    np.testing.assert_allclose(recording.signal_mv, digital * 1e-2, rtol=1e-12)


def test_trap_dominant_beats_are_never_read(monitor: Monitor) -> None:
    files = monitor.files
    beat = files.frame(monitor.channels(np.full((2, 20), 999)), files.Coder())
    around = {"before": files.tag(0x08, b"\x09") + beat + files.tag(0x08, b"\x01")}
    recording = monitor.read(monitor.channels(files.known_samples()), **around)
    assert recording.notes == (mfer.BEATS_LEFT_OUT,)
    np.testing.assert_array_equal(recording.digital, files.known_samples())


def test_what_the_file_says_beside_the_signal(monitor: Monitor) -> None:
    recording = monitor.read(monitor.channels(monitor.files.known_samples()))
    assert (recording.patient_id, recording.sex, recording.age_years) == (monitor.files.PID, "female", 60.0)
    assert recording.device == "CNS6000"
    kept = " ".join(recording.fields.values())
    assert not any(canary in kept for canary in monitor.files.CANARIES if canary != monitor.files.PID)


@pytest.mark.parametrize(
    ("age", "years"),
    [
        (bytes([45, 0, 0]), 45.0),
        (bytes([0xFF, 0xFF, 0xFF]) + (1951).to_bytes(2, "little") + bytes([4, 23]), 60.0),
        (b"\xff" * 7, None),
        (bytes(7), None),
        (b"", None),
    ],
)
def test_an_age_or_a_birth_date_or_neither(age: bytes, years: float | None, monitor: Monitor) -> None:
    people = (b"\0" * 17, b"", age, b"\0")
    recording = monitor.read(monitor.channels(monitor.files.known_samples()), people=people)
    assert recording.age_years == pytest.approx(years, abs=0.01)
    assert (recording.patient_id, recording.sex) == (None, None)


def test_an_age_that_contradicts_the_birth_date_is_told(monitor: Monitor) -> None:
    people = (b"X", b"", bytes([30, 0, 0]) + (1951).to_bytes(2, "little") + bytes([4, 23]), b"\1")
    recording = monitor.read(monitor.channels(monitor.files.known_samples()), people=people)
    assert (recording.age_years, AGES_DIFFER in recording.notes) == (30.0, True)


def test_sequences_that_do_not_fill_the_frame_are_refused(monitor: Monitor) -> None:
    channels = monitor.channels(monitor.files.known_samples())
    assert monitor.refused(channels, sequences=4).reason is Reason.TRUNCATED
    assert monitor.refused(channels, sequences=2).reason is Reason.HEADER


def test_leads_at_two_rates_are_refused(monitor: Monitor) -> None:
    files = monitor.files
    channels = [files.Channel("I", np.arange(60)), files.Channel("II", np.arange(30), 10, interval=(1, -3, 4))]
    assert monitor.refused(channels).reason is Reason.UNSUPPORTED


@pytest.mark.shared
def test_the_real_file_of_a_monitor(shared: Path) -> None:
    """Its samples by another way, the peer's, and a plausible heart rate: twelve minutes of II and V5."""
    path = shared / "vendor" / "mfer" / "monk_test-file.MWF"
    (found,) = mfer.read(path)
    assert (found.leads, found.rate_hz, found.digital.shape) == (("II", "V5"), 250.0, (2, 180_000))
    # The file holds 12345, which somebody typed in place of an id.
    assert (found.device, found.patient_id, found.sex, found.age_years) == ("CNS6000", None, None, None)
    assert found.acquired_at == datetime(2019, 6, 19, 13, 20)
    assert found.notes == (mfer.NO_VOLTAGE,)
    words = np.frombuffer(path.read_bytes()[400:-1], "<i2").reshape(12, 67_500)  # 12 sequences of 135,000 bytes
    np.testing.assert_array_equal(found.digital[0], words[:, :15_000].ravel())
    np.testing.assert_array_equal(found.digital[1], words[:, 15_000:30_000].ravel())
    np.testing.assert_array_equal(np.isnan(found.signal_mv), found.digital == -32768)
    np.testing.assert_allclose(found.signal_mv[0, :3], [0.036, 0.030, 0.016], atol=1e-12)
    alive = np.nan_to_num(found.signal_mv[0, : 60 * 250])
    centred = alive - alive.mean()
    echoes = np.correlate(centred, centred[: 50 * 250], "valid")[: 2 * 250]
    beat_s = (100 + int(np.argmax(echoes[100:]))) / 250  # the next beat looks like this one
    assert 40 < 60 / beat_s < 130


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")
def test_a_peer_reads_the_same_of_the_real_file(shared: Path) -> None:
    ecgdatakit = pytest.importorskip("ecgdatakit", reason="the peers are not installed")
    path = shared / "vendor" / "mfer" / "monk_test-file.MWF"
    (found,) = mfer.read(path)
    peer = {lead.label: lead for lead in ecgdatakit.FileParser().parse(path).leads}
    for name, row in zip(found.leads, found.signal_mv, strict=True):
        assert peer[name].sampling_rate == found.rate_hz
        np.testing.assert_allclose(peer[name].samples, row, atol=1e-9)
