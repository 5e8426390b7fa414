"""SCP-ECG files in every variant come back exactly; what is out of line is refused by name."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ecgcohorts as ec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.scp import reader as scp
from ecgcohorts.readers.scp import sniff
from ecgcohorts.readers.scp.sections import (
    FROM_ZERO,
    LONG_LEADS,
    MORE_LEADS,
    NOT_DECLARED_SIMULTANEOUS,
    TRAILING,
)
from ecgcohorts.recording import Recording


@pytest.fixture(scope="session")
def make(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("scp")


def one(path: Path, data: bytes) -> Recording:
    path.write_bytes(data)
    (recording,) = scp.read(path)
    return recording


def refused(path: Path, data: bytes) -> UnreadableRecording:
    """The error of `read`; `scan` finds it too, unless it lies in the samples."""
    path.write_bytes(data)
    with pytest.raises(UnreadableRecording) as caught:
        list(scp.read(path))
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ecg.scp"


def own_tables(make: ModuleType) -> list[list[Any]]:
    """Two tables that switch to each other: the first knows small values only, the second large ones only."""
    small = [make.Code("0"), make.Code("100", 1), make.Code("101", -1), make.Code("110", switch=2)]
    return [[*small, make.Code("111", appended=17)], [make.Code("1", appended=16), make.Code("0001", switch=1)]]


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("kind", ["none", "default", "own"])
@pytest.mark.parametrize("pad", [1, 2, 4])
def test_every_encoding_comes_back_exactly(order: int, kind: str, pad: int, make: ModuleType, path: Path) -> None:
    tables = {"none": None, "default": [make.DEFAULT], "own": own_tables(make)}[kind]
    samples = make.known_samples()
    wanted = (lambda place: 1 + place // 7 % 2) if kind == "own" else None
    found = one(path, make.Ecg(make.Signal(samples, order, pad=pad), tables=tables, wanted=wanted).data())
    np.testing.assert_array_equal(found.digital, samples)
    assert found.digital.dtype == np.int32
    assert found.gain_per_mv.tolist() == [400.0] * 12
    assert found.baseline.tolist() == [0.0] * 12
    assert found.missing is None
    assert found.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz", "AC filter 50 Hz")


def test_section_2_may_say_that_there_is_no_table(make: ModuleType, path: Path) -> None:
    samples = make.known_samples()
    ecg = make.Ecg(make.Signal(samples, 1), tables=None, others={2: bytes(2)})
    np.testing.assert_array_equal(one(path, ecg.data()).digital, samples)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_encode_then_decode_is_the_identity(data: st.DataObject, make: ModuleType, tmp_path_factory: Any) -> None:
    leads = data.draw(st.permutations(make.LEADS))[: data.draw(st.integers(1, 12))]
    n_samples = data.draw(st.integers(1, 40))
    scale = data.draw(st.sampled_from([2, 300, 32767]))
    rows = st.lists(st.integers(-scale, scale), min_size=n_samples, max_size=n_samples)
    samples = np.array([data.draw(rows) for _ in leads])
    nv, interval = data.draw(st.sampled_from([1, 1000, 2441, 65535])), data.draw(st.sampled_from([1000, 2000, 4000]))
    signal = make.Signal(samples, data.draw(st.integers(0, 2)), nv, interval)
    ecg = make.Ecg(signal, leads, data.draw(st.sampled_from([None, [make.DEFAULT]])))
    found = one(tmp_path_factory.mktemp("scp") / "ecg.scp", ecg.data(data.draw(st.permutations(list(ecg.bodies())))))
    np.testing.assert_array_equal(found.digital, samples)
    assert found.leads == tuple(leads)
    assert found.rate_hz == 1e6 / interval
    np.testing.assert_allclose(found.signal_mv, samples * (nv * 1e-6), rtol=1e-12)


def test_differences_are_summed_in_the_16_bits_they_were_formed_in(make: ModuleType, path: Path) -> None:
    samples = np.array([[-32768, 32767, -32768, 32767, 0]] * 12)
    for order in (1, 2):
        np.testing.assert_array_equal(one(path, make.Ecg(make.Signal(samples, order)).data()).digital, samples)


def test_other_lead_numbers_keep_their_number(make: ModuleType, path: Path) -> None:
    numbers = {3: make.lead_bytes([2, 9, 65, 131], 60)}
    ecg = make.Ecg(make.Signal(make.known_samples(4)), make.LEADS[:4], others=numbers)
    assert one(path, ecg.data()).leads == ("II", "V7", "-aVR", "SCP-131")


# Reference beats: trap 3 of all formats, the beat taken for the rhythm.


def beaten(make: ModuleType, nv: int = 20000, beat_nv: int = 5000) -> tuple[Any, Any, list[Any]]:
    """Residual, reference beat of 60 ms, and five beats: three of type 0, one of another type, one not subtracted."""
    beats = [make.Beat(20, 30, 45, protected=(22, 40)), make.Beat(60, 70, 80, kind=1), make.Beat(110, 118, 120)]
    beats += [make.Beat(131, 140, 155), make.Beat(160, 170, 0)]
    rhythm = make.Signal(make.known_samples(n_samples=200), 2, nv)
    return rhythm, make.Signal(make.known_samples(n_samples=30, seed=8), 2, beat_nv), beats


@pytest.mark.parametrize(("nv", "beat_nv", "step"), [(20000, 5000, 5000), (2500, 2500, 2500), (2500, 3000, 500)])
@pytest.mark.parametrize("tables", [True, False])
def test_reference_beats_are_added_back_in_exact_integers(
    nv: int, beat_nv: int, step: int, tables: bool, make: ModuleType, path: Path
) -> None:
    rhythm, reference, beats = beaten(make, nv, beat_nv)
    positions = make.beat_bytes(60, 12, beats)
    ecg = make.Ecg(rhythm, tables=[make.DEFAULT] if tables else None, reference=reference, beats=positions)
    found = one(path, ecg.data())
    np.testing.assert_array_equal(found.digital * step, make.added_nv(rhythm, reference, 12, beats))
    assert found.gain_per_mv.tolist() == [1e6 / step] * 12
    assert scp.BEAT_CUT not in found.notes
    (scanned,) = scp.scan(path)
    assert scanned.gain_per_mv.tolist() == found.gain_per_mv.tolist()


def test_beats_that_reach_beyond_are_cut_and_noted(make: ModuleType, path: Path) -> None:
    rhythm, reference, _ = beaten(make)
    beats = [make.Beat(1, 5, 20), make.Beat(185, 190, 220)]
    ecg = make.Ecg(rhythm, reference=reference, beats=make.beat_bytes(60, 12, beats))
    found = one(path, ecg.data())
    np.testing.assert_array_equal(found.digital * 5000, make.added_nv(rhythm, reference, 12, beats))
    assert scp.BEAT_CUT in found.notes


def test_a_reference_beat_that_was_not_subtracted_is_ignored(make: ModuleType, path: Path) -> None:
    rhythm, reference, beats = beaten(make)
    others = {4: make.beat_bytes(60, 12, beats), 5: reference.section([make.DEFAULT])}
    np.testing.assert_array_equal(one(path, make.Ecg(rhythm, others=others).data()).digital, rhythm.samples)


@pytest.mark.parametrize("absent", [4, 5])
def test_a_subtracted_beat_must_be_stored(absent: int, make: ModuleType, path: Path) -> None:
    rhythm, reference, beats = beaten(make)
    ecg = make.Ecg(rhythm, reference=reference, beats=make.beat_bytes(60, 12, beats), others={absent: None})
    assert "sections 4 and 5" in refused(path, ecg.data()).expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reference": {"interval_us": 1000}}, Reason.UNSUPPORTED),
        ({"start": 11}, Reason.UNSUPPORTED),
        ({"fiducial": 12, "length": 0}, Reason.HEADER),
        ({"backwards": True}, Reason.HEADER),
        ({"many": 300}, Reason.LIMIT),
        ({"count": 9}, Reason.HEADER),
        ({"length": 64}, Reason.TRUNCATED),
    ],
)
def test_reference_beats_out_of_line(change: dict[str, Any], reason: Reason, make: ModuleType, path: Path) -> None:
    rhythm, reference, beats = beaten(make)
    beats = [make.Beat(45, 30, 20)] if "backwards" in change else beats * change.get("many", 1)
    positions = make.beat_bytes(change.get("length", 60), 12, beats)
    if "count" in change:
        positions = positions[:4] + struct.pack("<H", change["count"]) + positions[6:50]
    reference = replace(reference, **change.get("reference", {}))
    ecg = make.Ecg(rhythm, reference=reference, beats=positions, start=change.get("start", 1))
    assert refused(path, ecg.data()).reason is reason


def test_a_file_without_rhythm_is_empty(make: ModuleType, path: Path) -> None:
    rhythm, reference, beats = beaten(make)
    ecg = make.Ecg(rhythm, reference=reference, beats=make.beat_bytes(60, 12, beats), others={6: None})
    assert refused(path, ecg.data()).reason is Reason.EMPTY


def test_bimodal_compression_has_its_own_reason(make: ModuleType, path: Path) -> None:
    data = make.Ecg(make.Signal(make.known_samples(), bimodal=1)).data()
    assert refused(path, data).reason is Reason.BIMODAL
    with pytest.raises(UnreadableRecording):
        list(scp.scan(path))


# Leads


@pytest.mark.parametrize(
    ("leads", "reason"),
    [
        ({"flags": 0b00011000}, Reason.UNSUPPORTED),  # three at a time
        ({"n_samples": 59}, Reason.HEADER),  # one sample is no padding
        ({"n_samples": 61}, Reason.TRUNCATED),
        ({"n_samples": 1 << 31}, Reason.LIMIT),
        ({"n_samples": 0}, Reason.HEADER),
        ({"start": 0}, Reason.HEADER),
        ({"count": 13}, Reason.HEADER),
        ({"count": 0}, Reason.HEADER),
        ({"ids": [1] * 65}, Reason.LIMIT),
        ({"ids": [1] * 65, "count": 12}, Reason.LIMIT),
    ],
)
def test_lead_definitions_out_of_line(leads: dict[str, Any], reason: Reason, make: ModuleType, path: Path) -> None:
    numbers = {"ids": [make.IDS[lead] for lead in make.LEADS], "n_samples": 60} | leads
    others = {3: make.lead_bytes(**numbers)}
    ecg = make.Ecg(make.Signal(make.known_samples(), 0), tables=None, others=others)
    assert refused(path, ecg.data()).reason is reason


@pytest.mark.parametrize("tables", [None, "default"])
def test_samples_counted_from_zero_to_their_number(tables: str | None, make: ModuleType, path: Path) -> None:
    """As in files of several writers; with Huffman codes nothing tells which number is meant."""
    samples = make.known_samples(3, 60)
    others = {3: make.lead_bytes([1, 2, 3], 61, start=0)}  # 0 to 60
    ecg = make.Ecg(make.Signal(samples, 0), make.LEADS[:3], tables and [make.DEFAULT], others=others)
    if tables:
        assert refused(path, ecg.data()).reason is Reason.HEADER
        return
    found = one(path, ecg.data())
    assert (found.n_samples, FROM_ZERO in found.notes) == (60, True)
    np.testing.assert_array_equal(found.digital, samples)


def test_a_lead_of_more_bytes_than_its_length_field_can_hold(make: ModuleType, path: Path) -> None:
    """50 s at 800 Hz are 80,000 bytes a lead: written as 80,000 modulo 65,536, with all samples behind."""
    samples = make.known_samples(2, 40_000)
    ecg = make.Ecg(make.Signal(samples[:, :10], 0), make.LEADS[:2], None)
    head = struct.pack("<HHBBHH", 5000, 1250, 0, 0, *[80_000 % 65_536] * 2)
    wrapped = replace(ecg, others={3: make.lead_bytes([1, 2], 40_000), 6: head + samples.astype("<i2").tobytes()})
    found = one(path, wrapped.data())
    assert (found.rate_hz, LONG_LEADS in found.notes) == (800.0, True)
    np.testing.assert_array_equal(found.digital, samples)
    (scanned,) = scp.scan(path)
    assert (scanned.n_samples, scanned.notes) == (40_000, found.notes)


@pytest.mark.parametrize(("stored", "bytes_each"), [(32_767, 65_534), (40_000, 14_466), (39_999, 80_000 % 65_536)])
def test_a_long_lead_that_lost_samples_is_refused(stored: int, bytes_each: int, make: ModuleType, path: Path) -> None:
    """Other writers cut a lead at 65,534 bytes and announce all of it: half an ECG, never read as a whole one."""
    ecg = make.Ecg(make.Signal(make.known_samples(2, 10), 0), make.LEADS[:2], None)
    head = struct.pack("<HHBBHH", 5000, 1250, 0, 0, bytes_each, bytes_each)
    samples = make.known_samples(2, stored).astype("<i2").tobytes()
    cut = replace(ecg, others={3: make.lead_bytes([1, 2], 40_000), 6: head + samples})
    assert refused(path, cut.data()).reason in (Reason.TRUNCATED, Reason.HEADER)


def test_leads_one_after_the_other_are_refused(make: ModuleType, path: Path) -> None:
    entries = [struct.pack("<IIB", 1 + 60 * (place // 6), 60 + 60 * (place // 6), place + 1) for place in range(12)]
    error = refused(
        path, make.Ecg(make.Signal(make.known_samples()), others={3: b"\x0c\x64" + b"".join(entries)}).data()
    )
    assert error.reason is Reason.UNSUPPORTED
    assert error.expected == "simultaneous leads"


def test_the_size_of_section_3_counts_where_it_holds_more_leads(make: ModuleType, path: Path) -> None:
    samples = make.known_samples()
    numbers = [make.IDS[lead] for lead in make.LEADS]
    found = one(path, make.Ecg(make.Signal(samples), others={3: make.lead_bytes(numbers, 60, count=8)}).data())
    assert MORE_LEADS in found.notes
    np.testing.assert_array_equal(found.digital, samples)
    padded = make.lead_bytes(numbers, 60) + bytes(20)
    assert MORE_LEADS not in one(path, make.Ecg(make.Signal(samples), others={3: padded}).data()).notes


def test_leads_that_nobody_called_simultaneous_are_noted(make: ModuleType, path: Path) -> None:
    found = one(path, make.Ecg(make.Signal(make.known_samples()), flags=0).data())
    assert NOT_DECLARED_SIMULTANEOUS in found.notes
    assert (
        NOT_DECLARED_SIMULTANEOUS
        not in one(path, make.Ecg(make.Signal(make.known_samples()), flags=12 << 3).data()).notes
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nv": 0}, Reason.UNIT),
        ({"interval_us": 0}, Reason.RATE),
        ({"interval_us": 1}, Reason.HEADER),
        ({"order": 3}, Reason.UNSUPPORTED),
        ({"pad": 64}, Reason.HEADER),
    ],
)
def test_rhythm_headers_out_of_line(change: dict[str, int], reason: Reason, make: ModuleType, path: Path) -> None:
    data = make.Ecg(make.Signal(make.known_samples(), **change)).data()
    assert refused(path, data).reason is reason


def test_bytes_that_belong_to_no_lead_are_refused(make: ModuleType, path: Path) -> None:
    ecg = make.Ecg(make.Signal(make.known_samples()))
    assert refused(path, replace(ecg, others={6: ecg.bodies()[6] + bytes(4)}).data()).reason is Reason.HEADER
    assert refused(path, replace(ecg, others={6: ecg.bodies()[6][:-4]}).data()).reason is Reason.HEADER
    assert refused(path, replace(ecg, others={6: b"\0" * 8}).data()).reason is Reason.HEADER


def test_what_follows_the_declared_end_is_noted(make: ModuleType, path: Path) -> None:
    ecg = make.Ecg(make.Signal(make.known_samples()))
    found = one(path, make.file_bytes(ecg.bodies(), tail=bytes(40)))
    assert found.notes[0] == TRAILING
    np.testing.assert_array_equal(found.digital, ecg.rhythm.samples)


def test_sections_of_makers_are_skipped(make: ModuleType, path: Path) -> None:
    bodies = make.Ecg(make.Signal(make.known_samples())).bodies() | {200: b"\xde\xad" * 9}
    data = bytearray(make.file_bytes(bodies))
    data[data.index(b"\xde\xad") - 14] ^= 0xFF  # the header of that section, which need not be a header
    data[:2] = make.crc(bytes(data[2:]))
    assert one(path, bytes(data)).n_samples == 60


def test_the_format_is_found_by_its_structure(make: ModuleType, path: Path, shared: Path) -> None:
    data = make.Ecg(make.Signal(make.known_samples())).data()
    path.write_bytes(data.replace(b"SCPECG", b"\x11\0\xff\0\0\7"))  # what old carts write there
    head = path.read_bytes()[:4096]
    assert sniff(head)
    assert not sniff(head[:31])
    assert not sniff(bytes(4096))
    vendor = [file for file in (shared / "vendor").rglob("*") if file.is_file()]
    assert {file.parent.name for file in vendor if sniff(file.read_bytes()[:4096])} == {
        *("scp_ecg", "healforce", "contec")
    }
    path.write_bytes(data)
    assert ec.read(path)[0].source.reader == "scp"
