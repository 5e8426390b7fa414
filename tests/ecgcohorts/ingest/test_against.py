"""A store compared with its raw files: what differs is found, by pseudonym, and what is equal is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import KeyMismatch, SourceError, SpecError
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.ingest import IngestOptions, against, ingest
from ecgcohorts.ingest.against import verify_against
from ecgcohorts.privacy.pseudonyms import load_key


def pseudonym(name: str) -> str:
    return load_key().pseudonym("north", "recording", name).hex()


def only_problem(report: against._AgainstReport) -> str:
    [problem] = report.problems
    assert "CANARY" not in problem
    assert not report.ok
    return problem


@pytest.fixture
def raw(make_cohort):
    return make_cohort("north", 4)


@pytest.fixture
def folder(raw, tmp_path) -> Path:
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec), IngestOptions(shard_records=3))
    return tmp_path / "s.zarr"


def test_an_untouched_source_agrees(raw, folder):
    seen: list[tuple[int, int]] = []
    report = verify_against(folder, raw.folder, str(raw.spec), progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.compared == len(raw.signals) == len(ec.open(folder).index)
    assert report.cohorts == ("north",)
    assert not report.problems
    assert seen[-1] == (len(raw.signals), len(raw.signals))


def test_several_processes_find_what_one_finds(make_cohort, tmp_path):
    """In the same order; more blocks than processes, and one with a header that is refused now."""
    raw, store = make_cohort("north", 70), tmp_path / "s.zarr"
    ingest(raw.folder, store, str(raw.spec), IngestOptions(shard_records=64, quality=False))
    assert len(raw.signals) > 2 * 64
    for number, name in enumerate(sorted(raw.signals)):
        if number % 9 == 0:
            data = bytearray((raw.folder / f"{name}.dat").read_bytes())
            data[5000] ^= 8
            (raw.folder / f"{name}.dat").write_bytes(data)
        if number % 40 == 1:
            (raw.folder / f"{name}.hea").write_text("CANARY no header\n")
    one = verify_against(store, raw.folder, str(raw.spec))
    assert one.differing == 16 + 4 - 1  # the 82nd is both
    seen: list[int] = []
    two = verify_against(store, raw.folder, str(raw.spec), workers=2, progress=lambda done, total: seen.append(done))
    assert two == one
    assert seen == list(range(1, len(raw.signals) + 1))


@pytest.mark.parametrize("sample", [0, 2500, 4999])
def test_a_changed_raw_sample_is_found(raw, folder, sample):
    name, samples = next(iter(raw.signals.items()))
    text = (raw.folder / f"{name}.hea").read_text()
    changed = samples.copy()
    changed[1, sample] += 300
    from_header = [line.split(": ", 1) for line in text.splitlines() if line.startswith("# ")]
    raw.add(name, changed, **{key.removeprefix("# "): value for key, value in from_header})
    problem = only_problem(verify_against(folder, raw.folder, str(raw.spec)))
    assert problem.startswith(f"recording {pseudonym(name)}: ")
    assert "waveform digest differs" in problem
    if 1000 < sample < 4000:  # the strip is cut from the middle
        assert "samples differ, the first is sample" in problem


def test_a_flipped_bit_that_the_reader_refuses_is_found(raw, folder):
    name = next(iter(raw.signals))
    path = raw.folder / f"{name}.dat"
    data = bytearray(path.read_bytes())
    data[5000] ^= 8
    path.write_bytes(data)
    problem = only_problem(verify_against(folder, raw.folder, str(raw.spec)))
    assert problem == f"recording {pseudonym(name)}: stored, but refused now (checksum_mismatch)"
    (raw.folder / f"{name}.hea").write_text("CANARY no header\n")
    assert "its header is refused now (bad_header)" in only_problem(verify_against(folder, raw.folder, str(raw.spec)))


def test_a_changed_store_is_found(raw, folder, monkeypatch):
    """The other side: what is stored, rather than the source, is another value."""
    store = ec.open(folder)
    columns = {name: column.copy() for name, column in store.index.columns.items()}
    columns["valid_stop"][2] -= 1
    columns["age"][3] += 1
    columns["sex"][4] = 1 - columns["sex"][4]
    columns["patient_id"][5] ^= 1
    changed = replace(store, index=CohortIndex(columns, store.index.cohorts))
    monkeypatch.setattr(against, "open_store", lambda path: changed)
    report = verify_against(folder, raw.folder, str(raw.spec))
    names = [one.tobytes().hex() for one in store.index["recording_id"]]
    start, stop = store.index["valid_start"][2], store.index["valid_stop"][2]
    assert sorted(report.problems) == sorted(
        [
            f"recording {names[2]}: valid range {start}-{stop - 1} stored, {start}-{stop} decoded",
            f"recording {names[3]}: age differs",
            f"recording {names[4]}: sex differs",
            f"recording {names[5]}: patient differs",
        ]
    )
    assert report.differing == 4


def test_what_is_gone_and_what_was_never_ingested_is_told(raw, folder):
    name, samples = next(iter(raw.signals.items()))
    for suffix in (".hea", ".dat"):
        (raw.folder / f"{name}{suffix}").unlink()
    raw.add("CANARYNEW", np.roll(samples, 400, axis=1), **{"Patient ID": "CANARYPAT9999"})
    report = verify_against(folder, raw.folder, str(raw.spec))
    assert (report.differing, report.gone, report.unknown) == (0, 1, 1)
    assert report.problems == (
        f"recording {pseudonym('CANARYNEW')}: in the source, but neither stored nor refused: ingest it",
        f"recording {pseudonym(name)}: stored, but no longer in the source",
    )
    assert not report.ok


def test_what_was_refused_is_told_by_reason(raw, tmp_path):
    samples = next(iter(raw.signals.values()))
    raw.add("CANARYCOPY", samples, **{"Patient ID": "another"})
    raw.add("CANARYSHORT", samples[:, :3495])
    (raw.folder / "CANARYJUNK.hea").write_text("this is no header\n")
    folder = tmp_path / "s.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    report = verify_against(folder, raw.folder, str(raw.spec))
    assert report.ok
    assert report.refused == {"bad_header": 1, "duplicate": 1, "too_short": 1}


def test_an_id_that_comes_twice_is_no_problem(raw, tmp_path, make_cohort):
    two = make_cohort("twice", 0)
    two.spec.write_text(two.spec.read_text() + "    recording: {header: Study}\n")
    for place, samples in enumerate(list(raw.signals.values())[:3]):
        two.add(f"r{place}", samples, **{"Patient ID": str(place + 1)}, Study=("CANARYONE", "CANARYONE", "two")[place])
    ingest(two.folder, tmp_path / "t.zarr", str(two.spec))
    report = verify_against(tmp_path / "t.zarr", two.folder, str(two.spec))
    assert report.ok
    assert report.refused == {"recording_id_twice": 1}
    assert report.compared == 2


def test_recordings_without_patient_agree(make_cohort, tmp_path, raw):
    alone = make_cohort("alone", 0)
    for place, samples in enumerate(list(raw.signals.values())[:2]):
        alone.add(f"r{place}", samples, **{"Patient ID": "UNKNOWN"})
    ingest(alone.folder, tmp_path / "t.zarr", str(alone.spec))
    assert verify_against(tmp_path / "t.zarr", alone.folder, str(alone.spec)).ok


def test_only_the_cohorts_of_the_description_are_compared(raw, folder, make_cohort):
    south = make_cohort("south", 2, seed=1)
    ingest(south.folder, folder, str(south.spec))
    report = verify_against(folder, south.folder, str(south.spec))
    assert report.ok
    assert report.cohorts == ("south",)
    assert report.compared == len(south.signals)


def test_millions_of_problems_keep_the_first(raw, folder, monkeypatch):
    monkeypatch.setattr(against, "PROBLEMS_KEPT", 2)
    for path in sorted(raw.folder.glob("*.dat")):
        path.write_bytes(path.read_bytes()[:-4])
    report = verify_against(folder, raw.folder, str(raw.spec))
    assert report.differing == len(raw.signals)
    assert len(report.problems) == 2


def test_a_defect_of_a_reader_is_told_and_ends_nothing(raw, folder, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("CANARY")

    monkeypatch.setattr("ecgcohorts.preprocess.strip.make_strip", broken)
    report = verify_against(folder, raw.folder, str(raw.spec))
    assert report.differing == report.compared == len(raw.signals)
    assert all(one.endswith("stored, but not readable now (ZeroDivisionError)") for one in report.problems)


def test_another_key_description_or_folder_is_refused(raw, folder, make_cohort, tmp_path):
    other_key = tmp_path / "other.key"
    other_key.write_text("ab" * 32)
    with pytest.raises(KeyMismatch, match="--key FILE"):
        verify_against(folder, raw.folder, str(raw.spec), other_key)
    with pytest.raises(SpecError, match=r"the store has no cohort of 'south'\. It has north"):
        verify_against(folder, raw.folder, str(make_cohort("south", 1).spec))
    raw.spec.write_text(raw.spec.read_text().replace("mains_hz: 50", "mains_hz: 60"))
    with pytest.raises(SpecError, match="cohort 'north' was made with another description"):
        verify_against(folder, raw.folder, str(raw.spec))


def test_a_source_that_is_not_there_is_said(raw, folder, tmp_path):
    with pytest.raises(SourceError, match="found no such folder"):
        verify_against(folder, tmp_path / "nowhere", str(raw.spec))
