"""The container of SCP files: checksums, pointers, truncation, mutation; and the tags of section 1."""

import struct
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._shared.people import AGES_DIFFER
from ecgcohorts.readers.scp import reader as scp
from ecgcohorts.readers.scp import sniff
from ecgcohorts.readers.scp.tags import NOT_UNDERSTOOD, WRONG_LENGTHS
from ecgcohorts.recording import Recording

FIRST_POINTER = 22  # bytes before it: length and CRC of the file, header of section 0


@pytest.fixture(scope="session")
def make(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("scp")


@pytest.fixture(scope="session")
def data(make: ModuleType) -> bytes:
    return make.Ecg(make.Signal(make.known_samples(3)), make.LEADS[:3]).data()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ecg.scp"


def refused(path: Path, data: bytes) -> Reason:
    """Why `read` refuses it; `scan`, which reads no samples, must agree here."""
    path.write_bytes(data)
    reasons = []
    for call in (scp.read, scp.scan):
        with pytest.raises(UnreadableRecording) as caught:
            list(call(path))
        reasons.append(caught.value.reason)
    assert reasons[0] is reasons[1]
    return reasons[0]


def pointed(data: bytes, section: int) -> tuple[int, int, int]:
    """Where the pointer to a section stands; length and index that it holds."""
    at = FIRST_POINTER + 10 * section
    number, size, index = struct.unpack_from("<HII", data, at)
    assert number == section
    return at, size, index


# Checksums


def test_every_checksum_is_verified(data: bytes, make: ModuleType, path: Path) -> None:
    assert refused(path, bytes([data[0] ^ 1]) + data[1:]) is Reason.CHECKSUM
    for section in (0, 1, 2, 3, 6, 8):
        changed = bytearray(data)
        changed[pointed(data, section)[2] - 1] ^= 0x40
        assert refused(path, make.crc(bytes(changed[2:])) + bytes(changed[2:])) is Reason.CHECKSUM


def test_every_flipped_bit_is_found(data: bytes, path: Path) -> None:
    bits = np.random.default_rng(10).choice(8 * len(data), 300, replace=False)
    for bit in bits.tolist():
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refused(path, bytes(changed))


def test_a_file_cut_at_any_byte_is_refused(data: bytes, path: Path) -> None:
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableRecording):
            list(scp.read(path))


# Pointers


@pytest.mark.parametrize("section", [1, 6])
@pytest.mark.parametrize("kind", ["beyond", "empty", "headless", "itself", "zero", "overlap", "other", "longer"])
def test_pointers_that_lead_astray_are_refused(
    section: int, kind: str, data: bytes, make: ModuleType, path: Path
) -> None:
    at, size, index = pointed(data, section)
    _, other_size, other = pointed(data, 3)
    size, index = {
        "beyond": (size, len(data)),
        "empty": (0, index),
        "headless": (15, index),
        "itself": (size, 7),
        "zero": (size, 0),
        "overlap": (size, other + other_size - 16),
        "other": (other_size, other),
        "longer": (size + 1, index),
    }[kind]
    changed = bytearray(data)
    changed[at + 2 : at + 10] = struct.pack("<II", size, index)
    assert refused(path, make.mend(bytes(changed))) is Reason.HEADER


def test_a_section_of_length_zero_in_its_own_header_is_refused(data: bytes, make: ModuleType, path: Path) -> None:
    changed = bytearray(data)
    index = pointed(data, 6)[2]
    changed[index + 3 : index + 7] = bytes(4)
    assert refused(path, make.mend(bytes(changed))) is Reason.HEADER


def test_a_section_twice_is_refused(data: bytes, make: ModuleType, path: Path) -> None:
    changed = bytearray(data)
    at = pointed(data, 8)[0]
    changed[at : at + 2] = struct.pack("<H", 6)
    assert refused(path, make.mend(bytes(changed))) is Reason.HEADER


def test_positions_counted_from_zero_are_refused(data: bytes, make: ModuleType, path: Path) -> None:
    changed = bytearray(data)
    for section in range(9):
        at, size, index = pointed(data, section)
        changed[at + 6 : at + 10] = struct.pack("<I", index - 1 if size else 0)
    assert sniff(bytes(changed))
    assert refused(path, make.mend(bytes(changed))) is Reason.HEADER


@pytest.mark.parametrize("content", [b"", b"\0" * 400, b"SCPECG" * 60, b"hello " * 100])
def test_what_is_no_scp_file_is_refused(content: bytes, path: Path) -> None:
    assert refused(path, content) is Reason.FORMAT


def test_sections_may_come_in_any_order(make: ModuleType, path: Path) -> None:
    samples = make.known_samples()
    path.write_bytes(make.Ecg(make.Signal(samples)).data([8, 6, 2, 1, 3]))
    (found,) = scp.read(path)
    np.testing.assert_array_equal(found.digital, samples)


# Mutation, with checksums made right again: without that, nothing but the checksums would be tested.


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three edits. Numbers of two or four bytes are put to extremes as often as bits are flipped."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(6, len(out) - 4))
        kind = rng.integers(0, 5)
        if kind == 0:
            out[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            out[place] = int(rng.integers(0, 256))
        elif kind == 2:
            out[place : place + 2] = struct.pack("<H", int(rng.choice([0, 1, 0x7FFF, 0xFFFF])))
        elif kind == 3:
            out[place : place + 4] = struct.pack("<I", int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF])))
        else:
            del out[place : place + int(rng.integers(1, 9))]
    return bytes(out)


@pytest.mark.parametrize("kind", ["plain", "beats", "tables"])
def test_mutants_with_right_checksums_are_read_or_refused(kind: str, make: ModuleType, path: Path) -> None:
    leads = make.LEADS[:2]
    ecg = make.Ecg(make.Signal(make.known_samples(2)), leads, tags=b"")
    if kind == "beats":
        beats = make.beat_bytes(40, 8, [make.Beat(5, 10, 20), make.Beat(30, 35, 45)])
        reference = make.Signal(make.known_samples(2, 20), nv=1000)
        ecg = make.Ecg(ecg.rhythm, leads, tags=b"", reference=reference, beats=beats)
    elif kind == "tables":
        first = [make.Code("0"), make.Code("10", appended=17), make.Code("11", switch=2)]
        second = [make.Code("1", appended=16), make.Code("0" * 18, 3)]
        ecg = make.Ecg(ecg.rhythm, leads, [first, second], lambda place: 1 + place // 40, tags=b"")
    data, rng, outcome = ecg.data(), np.random.default_rng(2024), Counter()
    for _ in range(700):
        path.write_bytes(make.mend(mutate(data, rng)))
        start = time.perf_counter()
        try:
            (found,) = scp.read(path)
            outcome["read"] += 1
            assert found.digital.shape == (len(found.leads), found.n_samples)
        except UnreadableRecording as error:
            outcome[error.reason] += 1
        assert time.perf_counter() - start < 1
    assert outcome["read"] > 50
    assert len(outcome) > 4


# Section 1


def about(make: ModuleType, path: Path, tags: bytes) -> Recording:
    """What a file with this section 1 says; its samples must not depend on it."""
    samples = make.known_samples(3)
    path.write_bytes(make.Ecg(make.Signal(samples), make.LEADS[:3], tags=tags).data())
    (found,) = scp.read(path)
    np.testing.assert_array_equal(found.digital, samples)
    return found


def test_what_section_1_says(make: ModuleType, path: Path) -> None:
    found = about(make, path, make.tag_bytes(make.tags()))
    assert (found.patient_id, found.age_years, found.sex) == ("PIDcanary7731", 63.0, "female")
    assert found.acquired_at == datetime(2019, 3, 31, 14, 5, 59)
    assert (found.device, found.site, found.mains_hz) == ("CART01", "71", 50.0)
    assert found.notes == ("high-pass 0.05 Hz", "low-pass 150 Hz", "AC filter 50 Hz")
    assert found.fields["DateOfBirth"] == "1956 2 29"
    kept = "".join(found.fields.values())
    assert [canary for canary in make.CANARIES if canary in kept] == ["PIDcanary7731"]


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ((63, 1), 63.0),
        ((18, 2), 1.5),
        ((10, 3), 70 / 365.25),
        ((30, 4), 30 / 365.25),
        ((48, 5), 2 / 365.25),
        ((0, 0), 63.0828),  # from the date of birth
        ((0, 1), 63.0828),  # 0 is written where no age is known
        ((7, 0), 63.0828),  # an age without a unit is not guessed
        ((200, 1), 63.0828),
    ],
)
def test_ages_have_a_unit(age: tuple[int, int], years: float, make: ModuleType, path: Path) -> None:
    found = about(make, path, make.tag_bytes(make.tags(t4=struct.pack("<HB", *age))))
    assert found.age_years == pytest.approx(years, abs=1e-3)


def test_dates_that_contradict_each_other_are_told(make: ModuleType, path: Path) -> None:
    found = about(make, path, make.tag_bytes(make.tags(t4=struct.pack("<HB", 30, 1))))
    assert (found.age_years, AGES_DIFFER in found.notes) == (30.0, True)


def test_what_is_absent_is_unknown(make: ModuleType, path: Path) -> None:
    for tags in (b"\xff\0\0", b"", make.tag_bytes([(2, b""), (8, b""), (25, b""), (14, b"x")])):
        found = about(make, path, tags)
        known = (found.patient_id, found.age_years, found.sex, found.acquired_at, found.device, found.mains_hz)
        assert known == (None,) * 6
        assert found.notes == ()


@pytest.mark.parametrize("text", [b"", b"\0\0\0", b"0000\0", b"XXXX", b"  \0", b"Anonymous", b"00000\0junk"])
def test_a_placeholder_is_no_patient_id(text: bytes, make: ModuleType, path: Path) -> None:
    assert about(make, path, make.tag_bytes(make.tags(t2=text))).patient_id is None


@pytest.mark.parametrize(("language", "wide"), [(0, "utf-16-le"), (7, "utf-16-le"), (0, "ascii"), (0x37, "ascii")])
def test_an_id_of_two_byte_letters_is_not_cut_to_one(language: int, wide: str, make: ModuleType, path: Path) -> None:
    tags = make.tags(t2="A4711\0".encode(wide), t14=make.device(language=language))
    assert about(make, path, make.tag_bytes(tags)).patient_id == "A4711"


def test_two_patient_ids_are_none(make: ModuleType, path: Path) -> None:
    tags = make.tags()
    assert about(make, path, make.tag_bytes([*tags, (2, b"4712\0")])).patient_id is None
    assert about(make, path, make.tag_bytes([*tags, tags[2]])).patient_id == "PIDcanary7731"


def test_wrong_tag_lengths_are_tolerated_where_the_known_sizes_lead_to_the_end(make: ModuleType, path: Path) -> None:
    tags = bytearray(make.tag_bytes(make.tags()))
    sex = tags.index(b"\x08\x01\x00\x02")
    tags[sex + 1 : sex + 3] = struct.pack("<H", 9000)
    found = about(make, path, bytes(tags))
    assert WRONG_LENGTHS in found.notes
    assert (found.sex, found.patient_id, found.device) == ("female", "PIDcanary7731", "CART01")


def test_tags_that_lead_nowhere_leave_everything_unknown(make: ModuleType, path: Path) -> None:
    tags = bytearray(make.tag_bytes(make.tags()))
    tags[1:3] = struct.pack("<H", 9000)  # the last name, which has no fixed size
    found = about(make, path, bytes(tags))
    assert found.notes == (NOT_UNDERSTOOD,)
    assert (found.patient_id, found.sex, found.fields) == (None, None, {})


@pytest.mark.parametrize(
    ("tags", "mains_hz", "notes"),
    [
        ({"t29": b"\x01", "t14": None}, 60.0, ("AC filter 60 Hz",)),
        ({"t29": b"\x03", "t14": None}, None, ("AC filter 60 Hz", "AC filter 50 Hz")),
        ({"t29": b"\x0c", "t14": None}, None, ("artefact filter", "baseline filter")),
        ({"t29": b"", "mains": 2}, 60.0, ()),
        ({"t29": b"\x01", "mains": 1}, 50.0, ("AC filter 60 Hz",)),
    ],
)
def test_mains_and_filters(
    tags: dict[str, bytes], mains_hz: float | None, notes: tuple[str, ...], make: ModuleType, path: Path
) -> None:
    if "mains" in tags:
        tags = {"t29": tags["t29"], "t14": make.device(mains=tags["mains"])}
    found = about(make, path, make.tag_bytes(make.tags(t27=None, t28=b"\0\0", **tags)))
    assert (found.mains_hz, found.notes) == (mains_hz, notes)


def test_a_baseline_filter_counted_otherwise_is_left_out(make: ModuleType, path: Path) -> None:
    """Burdick carts write 0.05 Hz as 500."""
    found = about(make, path, make.tag_bytes(make.tags(t27=struct.pack("<H", 500))))
    assert found.notes == ("low-pass 150 Hz", "AC filter 50 Hz")


def test_impossible_dates_are_unknown(make: ModuleType, path: Path) -> None:
    found = about(make, path, make.tag_bytes(make.tags(t4=None, t25=struct.pack("<HBB", 2019, 2, 30))))
    assert (found.acquired_at, found.age_years) == (None, None)
    found = about(make, path, make.tag_bytes(make.tags(t26=None)))
    assert found.acquired_at == datetime(2019, 3, 31)
