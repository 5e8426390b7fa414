"""Every reader keeps the contract. Collected from the registry; a reader without a fixture writer fails.

A fixture writer is `tests/ecgcohorts/readers/write_<name>.py` with CANARIES and `write(folder, seconds=None)`, which
makes one file and returns its path and what must come out of it: one dict per recording of entry, leads, rate_hz and
signal_mv. tests/fuzz/victims.py says what else a writer may offer.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import victims

import ecgcohorts as ec
from ecgcohorts import plugins, readers
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.globs import any_of
from ecgcohorts.recording import Recording
from ecgcohorts.sources import open_source

NAMES = victims.NAMES
CUT_EVERYWHERE = 12_000  # bytes; a file of more is cut at RANDOM_CUTS lengths and at its ends
RANDOM_CUTS = 200

Expected = list[dict[str, Any]]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def reader(name: str) -> ModuleType:
    return plugins.load(readers.KIND, name)


@pytest.fixture
def made(name: str, tmp_path: Path) -> tuple[Path, Expected]:
    path, expected = victims.writer_of(name).write(tmp_path)
    return path, expected


def facts(recording: Recording) -> tuple[Any, ...]:
    """All of a recording that does not depend on its samples."""
    return (
        *(recording.recording_id, recording.leads, recording.rate_hz, recording.patient_id, recording.age_years),
        *(recording.sex, recording.acquired_at, recording.device, recording.site, recording.mains_hz),
        *(dict(recording.fields), recording.source),
    )


def test_a_reader_has_the_five_names_of_the_contract(reader: ModuleType) -> None:
    assert isinstance(reader.SUFFIXES, tuple)
    assert all(suffix.startswith(".") and suffix == suffix.casefold() for suffix in reader.SUFFIXES)
    assert reader.VARIANTS, "say what of the format is read, for `ecgcohorts formats`"
    assert all(isinstance(variant, str) for variant in reader.VARIANTS)
    assert callable(reader.sniff)
    assert callable(reader.read)
    assert callable(reader.scan)


def test_a_file_is_found_by_content_and_by_no_other_reader(name: str, made: tuple[Path, Expected]) -> None:
    path, _ = made
    head = path.read_bytes()[: readers.HEAD_BYTES]
    assert [other for other in NAMES if plugins.load(readers.KIND, other).sniff(head)] == [name]
    renamed = path.with_name("renamed.bin")
    renamed.write_bytes(path.read_bytes())
    assert readers.detect(renamed) == name


def test_known_samples_come_back_in_millivolts(name: str, made: tuple[Path, Expected]) -> None:
    path, expected = made
    found = ec.read(path)
    assert len(found) == len(expected)
    for recording, known in zip(found, expected, strict=True):
        assert recording.leads == tuple(known["leads"])
        assert recording.rate_hz == known["rate_hz"]
        assert recording.source is not None
        assert (recording.source.reader, recording.source.path) == (name, path)
        assert recording.source.entry == known["entry"]
        assert recording.n_samples == known["signal_mv"].shape[1]
        np.testing.assert_allclose(recording.signal_mv, known["signal_mv"], rtol=1e-12, atol=1e-12)
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in recording.fields.items())


def test_entries_choose_recordings(reader: ModuleType, made: tuple[Path, Expected]) -> None:
    path, expected = made
    for known in expected[::-1]:
        (recording,) = reader.read(path, [known["entry"]])
        assert recording.source.entry == known["entry"]
        np.testing.assert_allclose(recording.signal_mv, known["signal_mv"], rtol=1e-12, atol=1e-12)


def test_a_scan_says_the_same_without_samples(reader: ModuleType, made: tuple[Path, Expected]) -> None:
    path, _ = made
    for scanned, read in zip(reader.scan(path), reader.read(path), strict=True):
        assert facts(scanned) == facts(read)
        samples = scanned.digital if scanned.digital is not None else scanned.analog_mv
        assert samples.shape == (len(read.leads), 0)
        assert scanned.n_samples >= read.n_samples  # padding may still be counted


@pytest.mark.parametrize("samples", [True, False])
def test_a_reader_names_the_files_it_opens_beside_its_own(
    name: str, samples: bool, made: tuple[Path, Expected], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In a folder that holds only the file and what `beside` names, the reader does the same."""
    path, expected = made
    alone = tmp_path_factory.mktemp("alone")
    shutil.copy(path, alone)
    beside, reader = readers.files_beside(name, samples=samples), readers.open_reader(name)
    entries = [known["entry"] for known in expected] if any(known["entry"] for known in expected) else None
    before = None
    while before != (before := set(open_source(alone).names())):  # segments name their signals once they are there
        globs = list(beside(alone / path.name, entries if samples else None))
        for other in open_source(path.parent).names(any_of(globs)) if globs else ():
            (alone / other).parent.mkdir(exist_ok=True)
            shutil.copy(path.parent / other, alone / other)
    call = (lambda file: reader.read(file, entries)) if samples else reader.scan
    for one, other in zip(call(alone / path.name), call(path), strict=True):
        assert facts(one)[:-1] == facts(other)[:-1]
        if samples:
            np.testing.assert_array_equal(one.signal_mv, other.signal_mv)
    if not samples and name == "wfdb":
        assert list(open_source(alone).names()) == [path.name]  # headers only


def test_a_recording_says_which_other_files_it_is_read_from(
    name: str, reader: ModuleType, made: tuple[Path, Expected]
) -> None:
    """So that a change of one is noticed by whoever knows the recording."""
    path, _ = made
    beside = readers.files_beside(name)
    for recording in reader.scan(path):
        assert recording.source is not None
        named = any_of(recording.source.beside)
        entry = recording.source.entry
        files = [str(one.relative_to(path.parent)) for one in path.parent.rglob("*") if one.is_file()]
        opened = [one for one in files if any_of(beside(path, [entry])).fullmatch(one)]
        assert all(named.fullmatch(one) for one in opened)


@pytest.mark.parametrize("how", ["missing", "folder", "link", "loop", "pipe", "empty"])
def test_what_is_no_regular_file_is_refused_at_once(
    how: str, reader: ModuleType, made: tuple[Path, Expected], tmp_path: Path
) -> None:
    path = tmp_path / f"odd{made[0].suffix}"
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(made[0])
    elif how == "loop":
        path.symlink_to(path)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "empty":
        path.touch()
    reasons = {"missing": {Reason.MISSING_FILE}, "empty": set(Reason)}.get(how, {Reason.PATH})
    for call in (reader.read, reader.scan):
        with pytest.raises(UnreadableRecording) as caught:
            list(call(path))
        assert caught.value.reason in reasons
        assert str(path) in str(caught.value)
    with pytest.raises(UnreadableRecording):
        ec.read(path)


def lengths_to_cut(size: int, everywhere: bool) -> Iterator[int]:
    if everywhere:
        yield from range(size)
        return
    ends = {*range(min(size, 40)), *range(max(0, size - 40), size)}
    yield from sorted(ends | set(np.random.default_rng(9).integers(0, size, RANDOM_CUTS).tolist()))


def same_signal(found: Recording, whole: Recording) -> bool:
    return (
        (found.leads, found.rate_hz, found.source) == (whole.leads, whole.rate_hz, whole.source)
        and found.signal_mv.shape == whole.signal_mv.shape
        and bool((found.signal_mv == whole.signal_mv)[~np.isnan(whole.signal_mv)].all())
    )


def test_a_file_cut_anywhere_is_refused_or_whole(name: str, reader: ModuleType, tmp_path: Path) -> None:
    """Never a partial ECG: every file of every small fixture, each at every length where it is short."""
    refused = tried = 0
    for fixture in victims.fixtures(name, tmp_path / "small"):
        whole = list(reader.read(fixture.path))
        for file in fixture.files:
            data = file.read_bytes()
            for length in lengths_to_cut(len(data), fixture.name == "plain" and len(data) <= CUT_EVERYWHERE):
                file.write_bytes(data[:length])
                tried += 1
                try:
                    found = list(reader.read(fixture.path))
                except UnreadableRecording:
                    refused += 1
                    continue
                assert len(found) == len(whole), f"{fixture.name}, {file.name} cut to {length} bytes: {len(found)}"
                assert all(map(same_signal, found, whole)), f"{fixture.name}, {file.name} cut to {length} bytes"
            file.write_bytes(data)
    assert refused > tried / 3  # what may go unnoticed is comments, and what lies beside the signal


def test_a_writer_names_the_texts_that_identify_its_patient(name: str) -> None:
    canaries = victims.writer_of(name).CANARIES
    assert canaries
    assert len(set(canaries)) == len(canaries)
    assert all(len(canary) >= 8 for canary in canaries)
