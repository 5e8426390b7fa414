"""Philips XML against published values of real files, and against the libraries that read it."""

import json
import time
import warnings
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS
from ecgcohorts.readers.philips_xml import reader as philips_xml
from ecgcohorts.recording import Recording

FOLDER = Path("vendor/philips_sierra_xml")
# CRC-32 of int16 little-endian, lead by lead, first 10 s: of I II V1-V6, and of all twelve.
CRC = {
    "1_03_129DYPRG.XML": (0xFD68EE3A, 0x77C862F6),
    "1_03_repbeats_example.xml": (0xFD68EE3A, 0x77C862F6),
    "1_04_01_2020-5-18_15-48-11.xml": (0xB873C03C, 0x38B86E17),
    "1_04_3191723_ZZDEMOPTONLY_orig.xml": (0xA9A881F0, 0xEFA8BA71),
    "1_04_3191723_ZZDEMOPTONLY_js-variant.xml": (0xA9A881F0, 0xEFA8BA71),
    "1_04_ad4d3d80-d165_orig.xml": (0x2F170026, 0x6A475AD8),
}
EIGHT = [TWELVE_LEADS.index(lead) for lead in EIGHT_LEADS]


def read(path: Path) -> Recording:
    (recording,) = philips_xml.read(path)
    return recording


def peer(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name)
        return import_module(name)


def by_sierraecg(path: Path) -> np.ndarray:
    """(lead, time) with the calibration second, which the library keeps."""
    return np.stack([lead.samples for lead in peer("sierraecg").read_file(str(path)).leads])


def by_ecgdatakit(path: Path) -> np.ndarray:
    """(lead, time) with the calibration second, which the library keeps."""
    parser = peer("ecgdatakit").FileParser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.stack([np.asarray(lead.samples) for lead in parser.parse(path, auto_scale=False).leads])


def crc(samples: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(samples, "<i2").tobytes())


@pytest.mark.shared
@pytest.mark.parametrize("name", list(CRC))
def test_real_files_have_the_published_crc(name: str, shared: Path) -> None:
    recording = read(shared / FOLDER / name)
    assert recording.leads == TWELVE_LEADS
    assert recording.digital.shape == (12, 5000)
    assert (crc(recording.digital[EIGHT]), crc(recording.digital)) == CRC[name]
    assert (recording.rate_hz, set(recording.gain_per_mv), set(recording.baseline)) == (500.0, {200.0}, {0.0})
    assert philips_xml.CUT in recording.notes


@pytest.mark.shared
def test_samples_published_by_other_readers_and_files_to_be_refused(shared: Path) -> None:
    oracle = json.loads((shared / "oracles" / "oracles.json").read_text())["philips_sierra_expected_midpoints"]
    assert len(oracle["files"]) == 4
    for name, known in oracle["files"].items():
        recording = read(shared / name)
        assert list(recording.leads) == oracle["leads"]
        assert recording.digital[:, oracle["index"]].tolist() == known["mid"]
        assert recording.fields["documenttype"] == known["doc_type"]
        assert recording.fields["documentversion"] == known["doc_ver"]
    assert len(oracle["must_reject"]) == 2
    for name in oracle["must_reject"]:
        for call in (philips_xml.read, philips_xml.scan):
            with pytest.raises(UnreadableRecording) as caught:
                list(call(shared / name))
            assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.shared
def test_context_of_real_files(shared: Path) -> None:
    old, new, demo = (read(shared / FOLDER / list(CRC)[place]) for place in (0, 2, 3))
    assert (old.age_years, old.sex, old.device, old.mains_hz) == (50.0, "male", "HeartstartMRx", None)
    assert (new.patient_id, new.sex, new.mains_hz, new.device) == (None, None, 60.0, "PageWriter TC")
    assert new.age_years == pytest.approx(69.4, abs=0.05)  # from the date of birth; the default age says 50
    assert demo.age_years == pytest.approx(60.05, abs=0.05)
    for recording in (old, new, demo):
        assert recording.notes[-2:] == ("high-pass 0.05 Hz", "low-pass 150 Hz")


@pytest.mark.shared
@pytest.mark.parametrize("name", list(CRC))
@pytest.mark.parametrize("other", [by_sierraecg, by_ecgdatakit])
def test_other_libraries_give_the_same_ten_seconds(
    name: str, other: Callable[[Path], np.ndarray], shared: Path
) -> None:
    """And after them the second that is cut here: zeros, 1 mV from 5350 to 5449, zeros."""
    theirs = other(shared / FOLDER / name)
    assert theirs.shape == (12, 5500)
    assert np.array_equal(theirs[:, :5000], read(shared / FOLDER / name).digital)
    assert (theirs[:, 5300:5350] == 0).all()
    assert (theirs[:, 5350:5450] == 200).all()
    assert (theirs[:, 5450:] == 0).all()


@pytest.fixture
def files(writers: Any) -> ModuleType:
    return writers("philips_xml")


@pytest.mark.parametrize("version", ["1.03", "1.04", "1.04.01", "1.04.02"])
def test_other_libraries_read_the_fixtures(version: str, files: ModuleType, tmp_path: Path) -> None:
    """The encoder of the tests is right in the eyes of two decoders that share nothing with it."""
    samples = files.calibrated(files.beats(1000), 500)
    path = files.save(tmp_path / "p.xml", files.document(samples, version), "utf-16")
    assert np.array_equal(by_sierraecg(path), samples)
    assert np.array_equal(by_ecgdatakit(path), samples)
    assert np.array_equal(read(path).digital, samples[:, :1000])


def test_other_libraries_and_values_that_wrap(files: ModuleType, tmp_path: Path) -> None:
    """Disagreement: sums beyond 16 bits. sierraecg fails on them, ecgdatakit does not wrap all of them back."""
    samples = files.known_samples(12, 100, 3, 32767)
    path = files.save(tmp_path / "p.xml", files.document(samples))
    assert np.array_equal(read(path).digital, samples)
    with pytest.raises(OverflowError):
        by_sierraecg(path)
    theirs = by_ecgdatakit(path).astype(np.int64)
    assert np.abs(theirs).max() > 32768
    assert np.array_equal(theirs[EIGHT].astype(np.int16), samples[EIGHT])


def test_other_libraries_and_uncompressed_samples(files: ModuleType, tmp_path: Path) -> None:
    """Disagreement: sierraecg refuses plain text, and fails on uncompressed base64. ecgdatakit reads both as here."""
    samples = files.known_samples(12, 100)
    for options, error in (({"encoding": "Plain"}, RuntimeError), ({"compressed": False}, ValueError)):
        path = files.save(tmp_path / "p.xml", files.document(samples, **options))
        assert np.array_equal(read(path).digital, samples)
        assert np.array_equal(by_ecgdatakit(path), samples)
        with pytest.raises(error):
            by_sierraecg(path)


def ms_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


@pytest.mark.shared
def test_ten_times_faster_than_sierraecg(shared: Path) -> None:
    """The best of several readings in turn, so that a busy machine slows both."""
    path = shared / FOLDER / "1_03_129DYPRG.XML"
    by_sierraecg(path)
    times = [(ms_of(lambda: by_sierraecg(path)), min(ms_of(lambda: read(path)) for _ in range(5))) for _ in range(4)]
    theirs, ours = (min(column) for column in zip(*times, strict=True))
    assert theirs > 10 * ours
