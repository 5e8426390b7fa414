"""ISHNE: lead codes, steps of each lead, how samples are counted, context. No real file; a peer reads our files."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS, select
from ecgcohorts.readers import detect, ishne
from ecgcohorts.readers._shared.people import NO_BIRTH
from ecgcohorts.recording import Recording


class Holter:
    """Write one file and read it back."""

    def __init__(self, files: ModuleType, folder: Path) -> None:
        self.files, self.path = files, folder / "holter.ecg"

    def read(self, *what: Any, **options: Any) -> Recording:
        self.path.write_bytes(self.files.document(*what, **options))
        (recording,) = ishne.read(self.path)
        (scanned,) = ishne.scan(self.path)
        assert (scanned.n_samples, scanned.leads, scanned.notes) == (
            recording.n_samples, recording.leads, recording.notes,
        )  # fmt: skip
        return recording

    def refused(self, *what: Any, **options: Any) -> UnreadableRecording:
        with pytest.raises(UnreadableRecording) as caught:
            self.read(*what, **options)
        return caught.value


@pytest.fixture
def holter(writers: Callable[[str], ModuleType], tmp_path: Path) -> Holter:
    return Holter(writers("ishne"), tmp_path)


def test_the_checksum_is_that_of_the_catalogues(holter: Holter) -> None:
    assert holter.files.crc_of(b"123456789") == 0x29B1


def test_twelve_leads_by_their_codes(holter: Holter) -> None:
    digital = holter.files.beats(1000)
    recording = holter.read(digital[::-1], holter.files.TWELVE[::-1])
    assert detect(holter.path) == "ishne"
    np.testing.assert_allclose(select(recording.signal_mv, recording.leads, TWELVE_LEADS), digital * 5e-3, rtol=1e-12)


def test_a_step_of_its_own_for_each_lead(holter: Holter) -> None:
    digital = holter.files.known_samples(3)
    recording = holter.read(digital, ("X", "Y", 1), [1000, 2500, 9765])
    assert recording.leads == ("X", "Y", "ISHNE-1")
    np.testing.assert_array_equal(recording.digital, digital)
    np.testing.assert_allclose(recording.signal_mv, digital * [[1e-3], [2.5e-3], [9.765e-3]], rtol=1e-12)


def test_the_declared_samples_are_those_of_each_lead(holter: Holter) -> None:
    """A count over all leads, as some programs write it, looks like a file that was cut."""
    digital, leads = holter.files.known_samples(3), ("I", "II", "V5")
    assert holter.refused(digital, leads, declared=61).reason is Reason.TRUNCATED
    assert holter.refused(digital, leads, declared=180).reason is Reason.TRUNCATED
    assert holter.read(digital, leads, declared=59).notes == (ishne.TRAILING,)
    assert holter.refused(digital, leads, declared=20, rate=10).reason is Reason.HEADER


def test_a_lead_fault_is_missing(holter: Holter) -> None:
    digital = holter.files.known_samples(2)
    digital[1, 5:9] = -32768
    recording = holter.read(digital, ("I", "II"))
    assert np.flatnonzero(np.isnan(recording.signal_mv[1])).tolist() == [5, 6, 7, 8]
    assert not np.isnan(recording.signal_mv[0]).any()


def test_what_the_header_says_beside_the_signal(holter: Holter) -> None:
    recording = holter.read(holter.files.known_samples(2), ("I", "II"))
    assert (recording.patient_id, recording.sex, recording.device) == (holter.files.PID, "female", "digital")
    assert recording.acquired_at == datetime(2011, 4, 23, 13, 59, 7)
    assert recording.age_years == pytest.approx(60.0, abs=0.01)
    kept = " ".join(recording.fields.values())
    assert not any(canary in kept for canary in holter.files.CANARIES if canary != holter.files.PID)
    filler = holter.read(holter.files.known_samples(2), ("I", "II"), year_born=1700)
    assert (filler.age_years, filler.notes) == (None, (NO_BIRTH,))  # 311 years
    unknown = holter.read(holter.files.known_samples(2), ("I", "II"), sex=0, year_born=0)
    assert (unknown.sex, unknown.age_years) == (None, None)


def test_a_changed_header_is_found_by_its_crc(holter: Holter) -> None:
    data = bytearray(holter.files.document(holter.files.known_samples(2), ("I", "II")))
    data[206] ^= 1  # the step of the first lead
    holter.path.write_bytes(data)
    with pytest.raises(UnreadableRecording) as caught:
        list(ishne.read(holter.path))
    assert caught.value.reason is Reason.CHECKSUM


def test_a_day_is_refused_by_its_length(holter: Holter) -> None:
    refused = holter.refused(np.zeros((1, 15_000), int), ("I",), rate=1)
    assert refused.reason is Reason.LIMIT
    assert "4 h" in str(refused)


def test_a_peer_reads_the_same_samples(holter: Holter) -> None:
    """ecgdatakit was written from the same specification by others."""
    ecgdatakit = pytest.importorskip("ecgdatakit", reason="the peers are not installed")
    ours = holter.read(holter.files.beats(1000), holter.files.TWELVE)
    peer = ecgdatakit.FileParser().parse(holter.path)
    assert len(peer.leads) == 12
    for lead, row in zip(peer.leads, ours.signal_mv, strict=True):
        assert lead.sampling_rate == 500
        assert lead.label in ours.leads
        scale = np.abs(row).max() / np.abs(lead.samples).max()  # its unit is its own
        np.testing.assert_allclose(np.asarray(lead.samples) * scale, row, atol=1e-6)
