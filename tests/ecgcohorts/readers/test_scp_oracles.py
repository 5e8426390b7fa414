"""SCP files against real recordings, the same ECG in another format, and ecgdatakit."""

import time
import warnings
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgcohorts.errors import UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.scp import reader as scp
from ecgcohorts.readers.scp import sniff
from ecgcohorts.readers.scp.healforce import SLICE
from ecgcohorts.readers.scp.sections import FROM_ZERO
from ecgcohorts.recording import Recording

V3 = "{urn:hl7-org:v3}"
IN_FILE = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "aVR", "aVL", "aVF")


@pytest.fixture(scope="session")
def make(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("scp")


@pytest.fixture(scope="session")
def mortara(shared: Path) -> Path:
    return shared / "vendor" / "scp_ecg" / "mortara_eli250_Example.scp"


def peer(path: Path) -> Any:
    """ecgdatakit's reading, without its warnings; it does not refuse a wrong checksum."""
    parser = pytest.importorskip("ecgdatakit.parsing.parsers.scp_ecg").SCPECGParser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parser.parse(path)


def peer_samples(record: Any) -> NDArray[np.int64]:
    return np.stack([lead.samples for lead in record.leads]).astype(np.int64)


def aecg_digits(path: Path) -> dict[str, NDArray[np.int64]]:
    """Digits of the rhythm's own sequences, by lead; the median beat lies deeper and is not looked at."""
    (series,) = ElementTree.parse(path).getroot().findall(f"{V3}component/{V3}series")
    found = {}
    for sequence in series.findall(f"{V3}component/{V3}sequenceSet/{V3}component/{V3}sequence"):
        code, digits = sequence.find(f"{V3}code"), sequence.find(f"{V3}value/{V3}digits")
        assert code is not None
        if digits is not None:
            found[code.attrib["code"].removeprefix("MDC_ECG_LEAD_").upper()] = np.array(
                (digits.text or "").split(), int
            )
    return found


def read_one(path: Path) -> Recording:
    (recording,) = scp.read(path)
    return recording


def test_the_mortara_example(mortara: Path) -> None:
    found = read_one(mortara)
    assert (found.leads, found.rate_hz, found.digital.shape) == (IN_FILE, 500.0, (12, 5000))
    assert found.gain_per_mv.tolist() == [400.0] * 12
    assert found.digital[:2, :5].tolist() == [[-2, -2, -2, -2, -3], [-7] * 5]
    samples = found.digital.astype("<i2")
    assert zlib.crc32(samples[:8].tobytes()) == 0xDD78F13F
    assert zlib.crc32(samples[[IN_FILE.index(lead) for lead in TWELVE_LEADS]].tobytes()) == 0x06C754D3
    assert (found.patient_id, found.sex, found.device, found.mains_hz) == ("SBJ-123", "male", "ELI250", None)
    assert found.age_years == pytest.approx(49.54, abs=0.01)
    assert found.notes == ()


def test_the_mortara_example_equals_its_aecg(mortara: Path, shared: Path) -> None:
    digits = aecg_digits(shared / "vendor" / "hl7_aecg" / "mortara_Example_aECG.xml")
    found = read_one(mortara)
    assert set(digits) == {lead.upper() for lead in found.leads}
    for lead, row in zip(found.leads, found.digital, strict=True):
        np.testing.assert_array_equal(row, digits[lead.upper()])


def test_a_file_that_counts_samples_from_zero(shared: Path) -> None:
    """Eight leads of 10,000 plain samples, declared as 0 to 10,000; its checksums hold."""
    path = shared / "vendor" / "contec" / "demo.scp"
    found = read_one(path)
    assert (found.rate_hz, found.digital.shape, found.sex) == (1000.0, (8, 10_000), "male")
    assert found.age_years == pytest.approx(47.0, abs=0.01)
    assert FROM_ZERO in found.notes
    stored = np.frombuffer(path.read_bytes()[-160_000:], "<i2").reshape(8, 10_000)
    np.testing.assert_array_equal(found.digital, stored)
    np.testing.assert_allclose(found.signal_mv, stored * 183e-6)  # 183 nV a step
    steep = np.abs(np.diff(found.signal_mv[1, :-1]))
    beats = np.flatnonzero(steep > 0.5 * steep.max())
    assert 40 < 60_000 / np.median(np.diff(beats)[np.diff(beats) > 200]) < 130


@pytest.mark.parametrize(
    ("number", "began"), [(62, datetime(2019, 8, 8, 0, 35, 40)), (63, datetime(2019, 8, 8, 0, 36, 10))]
)
def test_the_healforce_files_are_slices_of_one_recording(number: int, began: datetime, shared: Path) -> None:
    """Their CRC holds; their samples bit by bit; I, II and III by Einthoven's law; one slice follows the other."""
    path = shared / "vendor" / "scp_ecg" / f"healforce_{number}.SCP"
    data = path.read_bytes()
    assert sniff(data[:4096])
    found = read_one(path)
    assert (found.leads, found.rate_hz, found.digital.shape) == (("I", "II", "III"), 150.0, (3, 4500))
    assert (found.acquired_at, found.patient_id) == (began, None)  # 00000 is no id
    assert SLICE in found.notes
    values = []
    for at in range(512, 512 + 20_250, 6):
        bits = [format(data[at + k] | data[at + k + 1] << 8, "016b") for k in (0, 2, 4)]
        values += [int(word[6:], 2) - 512 for word in bits]
        values.append(int("".join(word[2:6] for word in bits)[2:], 2) - 512)
    np.testing.assert_array_equal(found.digital, np.array(values).reshape(4500, 3).T)
    one, two, three = found.digital
    assert np.abs(two - one - three).mean() < 2.5  # of a range of 1024
    assert 0.8 < np.abs(found.signal_mv).max() < 2.0
    marked = [at // 6 * 4 + k for at in range(0, 20_250, 6) for k in range(3) if data[512 + at + 2 * k + 1] & 0x80]
    beats = np.unique(np.array(marked) // 3)  # which the device marked
    steady = np.diff(beats)[np.diff(beats) > 30]
    assert 50 < 60 * 150 / np.median(steady) < 80


def test_every_flipped_bit_of_a_real_file_is_found(mortara: Path, tmp_path: Path) -> None:
    data, path = mortara.read_bytes(), tmp_path / "flipped.scp"
    for bit in np.random.default_rng(1).choice(8 * len(data), 300, replace=False).tolist():
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(UnreadableRecording):
            list(scp.read(path))


def test_a_real_file_cut_anywhere_is_refused(mortara: Path, tmp_path: Path) -> None:
    data, path = mortara.read_bytes(), tmp_path / "cut.scp"
    for length in np.random.default_rng(2).choice(len(data), 1000, replace=False).tolist():
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableRecording):
            list(scp.read(path))


# ecgdatakit, where both read a file


def test_ecgdatakit_reads_the_mortara_example_alike(mortara: Path) -> None:
    found, other = read_one(mortara), peer(mortara)
    assert tuple(lead.label for lead in other.leads) == found.leads
    np.testing.assert_array_equal(peer_samples(other), found.digital)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("kind", ["none", "default", "own"])
def test_ecgdatakit_reads_generated_files_alike(order: int, kind: str, make: ModuleType, tmp_path: Path) -> None:
    first = [make.Code("0"), make.Code("10", appended=16), make.Code("11", switch=2)]
    own = [first, [make.Code("1", appended=16), make.Code("01", switch=1)]]
    tables = {"none": None, "default": [make.DEFAULT], "own": own}[kind]
    samples = make.known_samples()
    wanted = (lambda place: 1 + place // 9 % 2) if kind == "own" else None
    path = tmp_path / "ecg.scp"
    ecg = make.Ecg(make.Signal(samples, order), tables=tables, wanted=wanted)
    path.write_bytes(ecg.data(list(ecg.bodies())[::-1]))
    found, other = read_one(path), peer(path)
    np.testing.assert_array_equal(peer_samples(other), found.digital)
    assert tuple(lead.label for lead in other.leads) == found.leads
    assert other.recording.acquisition.signal.sampling_rate == found.rate_hz
    assert other.patient.patient_id == found.patient_id
    assert other.recording.date == found.acquired_at.replace(tzinfo=other.recording.date.tzinfo)


@pytest.mark.parametrize(("nv", "beat_nv"), [(20000, 5000), (2500, 3000)])
def test_ecgdatakit_adds_reference_beats_alike(nv: int, beat_nv: int, make: ModuleType, tmp_path: Path) -> None:
    rhythm = make.Signal(make.known_samples(n_samples=300), nv=nv)
    reference = make.Signal(make.known_samples(n_samples=50, seed=2), nv=beat_nv)
    beats = [make.Beat(3, 20, 40), make.Beat(90, 100, 120, kind=1), make.Beat(190, 210, 230), make.Beat(270, 290, 300)]
    path = tmp_path / "ecg.scp"
    path.write_bytes(make.Ecg(rhythm, reference=reference, beats=make.beat_bytes(100, 20, beats)).data())
    np.testing.assert_array_equal(peer_samples(peer(path)), read_one(path).digital)


def test_where_ecgdatakit_reads_otherwise(make: ModuleType, tmp_path: Path) -> None:
    """It reads on after a wrong checksum, and past samples that section 3 does not announce."""
    path = tmp_path / "ecg.scp"
    samples = make.known_samples()
    data = bytearray(make.Ecg(make.Signal(samples, 0), tables=None).data())
    data[-1] ^= 1
    path.write_bytes(data)
    np.testing.assert_array_equal(peer_samples(peer(path)), samples)
    with pytest.raises(UnreadableRecording):
        read_one(path)
    numbers = make.lead_bytes([make.IDS[lead] for lead in make.LEADS], 40)
    path.write_bytes(make.Ecg(make.Signal(samples), others={3: numbers}).data())
    np.testing.assert_array_equal(peer_samples(peer(path)), samples[:, :40])
    with pytest.raises(UnreadableRecording):
        read_one(path)
    # It calls "no tables" in section 2 an error, and does not look for leads beyond the number announced.
    path.write_bytes(make.Ecg(make.Signal(samples), tables=None, others={2: bytes(2)}).data())
    np.testing.assert_array_equal(read_one(path).digital, samples)
    with pytest.raises(Exception, match="no Huffman table"):
        peer(path)


def best_s(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_decoding_is_fast(mortara: Path) -> None:
    """Ten seconds of twelve leads: a fifth of ecgdatakit's time at most, in one run on whatever machine this is."""
    assert best_s(lambda: read_one(mortara), 40) < best_s(lambda: peer(mortara), 4) / 5
