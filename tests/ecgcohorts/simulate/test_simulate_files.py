"""The simulated files: what was recorded is what the readers read, and the same call writes the same bytes."""

import csv
import hashlib
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, select
from ecgcohorts.plugins import load
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers import detect, read
from ecgcohorts.simulate import HOSPITALS, SimulationReport, draw_exams, plan, simulate, simulate_recordings
from ecgcohorts.simulate.exams import Exam, Visit

PATIENTS, SEED = 5, 7


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "raw"
    simulate(out, patients_per_cohort=PATIENTS, seed=SEED)
    return out


@pytest.fixture(scope="module")
def exams() -> dict[str, dict[str, Exam]]:
    """Exams by hospital and recording id, in memory."""
    return {
        name: {exam.visit.recording_id: exam for exam in draw_exams(plan(hospital, PATIENTS, SEED), SEED)}
        for name, hospital in HOSPITALS.items()
    }


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_call_writes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", patients_per_cohort=dict.fromkeys(HOSPITALS, PATIENTS), seed=SEED)
    simulate(tmp_path / "other", patients_per_cohort=PATIENTS, seed=SEED + 1)
    assert digests(tmp_path / "again") == digests(written)
    same = digests(tmp_path / "other").items() & digests(written).items()
    assert {Path(name).name for name, _ in same} <= {"cohort.yaml"}


def test_a_person_does_not_depend_on_who_else_is_simulated(exams: dict[str, dict[str, Exam]]) -> None:
    more = plan(HOSPITALS["river"], PATIENTS + 3, SEED)
    last = [visit for visit in more if visit.patient_number == PATIENTS - 1]
    for exam in draw_exams(last, SEED):
        np.testing.assert_array_equal(exam.digital, exams["river"][exam.visit.recording_id].digital)


@pytest.mark.parametrize("name", ["north", "river"])
def test_readers_return_the_very_integers(written: Path, exams: dict[str, dict[str, Exam]], name: str) -> None:
    seen = set()
    spec = CohortSpec.load(str(written / name / "cohort.yaml"))
    tables = spec.load_tables(written / name)
    for item in spec.sources(written / name):
        (recording,) = read(written / name / item.path)
        described = spec.describe(tables, item)
        exam = exams[name][described.recording_id]
        device, visit = exam.visit.hospital.device, exam.visit
        assert recording.digital is not None
        assert recording.gain_per_mv is not None
        places = [recording.leads.index(lead) for lead in EIGHT_LEADS]
        np.testing.assert_array_equal(recording.digital[places], exam.digital)
        np.testing.assert_allclose(recording.gain_per_mv, device.gain_per_mv, rtol=1e-12)
        assert recording.rate_hz == device.rate_hz
        assert recording.missing is None or not recording.missing.any()
        assert spec.apply_rules(described.cohort, recording).n_samples == exam.digital.shape[1]
        assert (described.patient_id, described.sex) == (visit.patient_id, visit.sex)
        assert described.age_years == int(visit.age_years)
        assert (described.acquired_at, described.device, described.site) == (visit.acquired_at, device.name, name)
        assert described.mains_hz == device.mains_hz
        seen.add(described.recording_id)
    assert seen == set(exams[name])


@pytest.mark.parametrize("spec_name", ["its own", "code15"])
def test_the_hdf5_reader_returns_the_float32_that_were_written(
    written: Path, exams: dict[str, dict[str, Exam]], spec_name: str
) -> None:
    """The folder also passes for CODE-15 % itself: the preset reads it."""
    folder = written / "coast"
    spec: CohortSpec = CohortSpec.load(str(folder / "cohort.yaml") if spec_name == "its own" else spec_name)
    tables = spec.load_tables(folder)
    items = {item.entry: item for item in spec.sources(folder)}
    assert set(items) == set(exams["coast"])
    for recording in read(folder / "exams_part0.hdf5"):
        assert recording.source is not None
        exam = exams["coast"][recording.source.entry]
        truth_mv = select(exam.digital * (exam.visit.hospital.device.step_uv / 1000), EIGHT_LEADS, TWELVE_LEADS)
        rows = truth_mv.astype(np.float32)
        alive = np.flatnonzero(rows.any(axis=0))
        np.testing.assert_array_equal(recording.signal_mv, rows[:, alive[0] : alive[-1] + 1])
        described = spec.describe(tables, items[recording.source.entry])
        visit = exam.visit
        assert (described.patient_id, described.sex) == (visit.patient_id, visit.sex)
        assert described.age_years == int(visit.age_years)
        assert described.labels["avb1"] == (exam.truth["pr_ms"] > 200)


def test_formats_are_found_by_content(written: Path) -> None:
    assert detect(next((written / "north").rglob("*.hea"))) == "wfdb"
    assert detect(next((written / "river").rglob("*.xml"))) == "muse_xml"
    assert detect(written / "coast" / "exams_part0.hdf5") == "code_hdf5"


def test_derived_leads_of_wfdb_are_exact(written: Path) -> None:
    (recording,) = read(next((written / "north").rglob("*.hea")))
    assert recording.digital is not None
    one, two, three, right, left, foot = recording.digital[:6]
    np.testing.assert_array_equal(three, two - one)
    for derived, double in ((right, -(one + two)), (left, one - three), (foot, two + three)):
        assert np.abs(2 * derived - double).max() <= 1


def test_the_median_beat_comes_before_the_rhythm(written: Path) -> None:
    text = next((written / "river").rglob("*.xml")).read_text("iso-8859-1")
    assert re.findall("<WaveformType>(.*)</WaveformType>", text) == ["Median", "Rhythm"]
    assert text.count("<LeadSampleCountTotal>300<") == text.count("<LeadSampleCountTotal>2500<") == 8


def test_code_tracings_are_padded_at_both_ends(written: Path) -> None:
    with h5py.File(written / "coast" / "exams_part0.hdf5") as file:
        tracings, ids = file["tracings"][:], file["exam_id"][:]
    with (written / "coast" / "exams.csv").open() as table:
        rows = [int(row["exam_id"]) for row in csv.DictReader(table)]
    assert tracings.dtype == np.float32
    assert tracings.shape[1:] == (4096, 12)
    alive = tracings.any(axis=2)
    starts, lengths = alive.argmax(axis=1), alive.sum(axis=1)
    assert set(lengths) <= set(range(2930, 2935)) | set(range(3996, 4001))
    assert np.abs(starts + lengths / 2 - 2048).max() < 4
    assert sorted(rows) == sorted(ids)
    assert rows != ids.tolist()  # a join by row would be wrong


def test_every_recording_passes_the_recipe_and_equals_the_one_in_memory(written: Path) -> None:
    for recording in simulate_recordings(patients_per_cohort=PATIENTS, seed=SEED):
        strip = make_strip(recording, mains_hz=recording.mains_hz, with_quality=False)
        assert strip.valid_stop >= 2800
    paths = [*written.rglob("*.hea"), *written.rglob("*.xml")]
    from_files = {one.waveform_digest for path in paths for one in load("ecgcohorts.readers", detect(path)).read(path)}
    in_memory = [
        one.waveform_digest
        for one in simulate_recordings(patients_per_cohort=PATIENTS, seed=SEED)
        if one.site in ("north", "river")
    ]
    assert len(set(in_memory)) == len(in_memory)
    assert set(in_memory) == from_files


def test_the_truth_is_written_for_every_recording(written: Path, exams: dict[str, dict[str, Exam]]) -> None:
    with (written / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, exams.values()))
    for row in rows:
        exam = exams[row["cohort"]][row["recording_id"]]
        assert float(row["qrs_ms"]) == pytest.approx(exam.truth["qrs_ms"], rel=1e-5)
        assert float(row["device_gain"]) == pytest.approx(exam.visit.hospital.device.gain, rel=0.06)


def test_plans_hold_singles_repeats_and_the_mix_of_the_hospital() -> None:
    for hospital in HOSPITALS.values():
        visits = plan(hospital, 1500, 0)
        per_patient = Counter(visit.patient_id for visit in visits)
        assert len(per_patient) == 1500
        assert set(per_patient.values()) == {1, 2, 3, 4, 5}
        assert 0.17 < np.mean([count == 1 for count in per_patient.values()]) < 0.26
        first = [visit for visit in visits if visit.visit_number == 0]
        assert np.mean([visit.sex == "male" for visit in first]) == pytest.approx(hospital.male_share, abs=0.05)
        assert np.mean([visit.age_years for visit in first]) == pytest.approx(hospital.age_mean, abs=3.0)
        assert all(18 <= visit.age_years <= 90 for visit in visits)
        assert len({visit.recording_id for visit in visits}) == len(visits)
        assert _in_time_order(visits)
    shares = Counter(visit.duration_s for visit in plan(HOSPITALS["coast"], 500, 0))
    assert shares[2934 / 400] / shares.total() == pytest.approx(0.55, abs=0.06)


def _in_time_order(visits: list[Visit]) -> bool:
    return all(
        a.acquired_at < b.acquired_at and a.age_years <= b.age_years
        for a, b in pairwise(visits)
        if a.patient_id == b.patient_id
    )


def test_hospitals_number_their_patients_alike() -> None:
    """Equal numbers in two hospitals are two people: what pools cohorts must not merge them."""
    ids = [{visit.patient_id for visit in plan(hospital, 3, 0)} for hospital in HOSPITALS.values()]
    assert ids[0] == ids[1] == ids[2]


def test_progress_and_report_count_alike(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = simulate(
        tmp_path / "few",
        patients_per_cohort={"river": 2},
        seed=0,
        hospitals=[HOSPITALS["river"]],
        progress=lambda done, total: calls.append((done, total)),
    )
    count = len(list((tmp_path / "few" / "river").rglob("*.xml")))
    assert calls == [(done, count) for done in range(1, count + 1)]
    assert report == SimulationReport(tmp_path / "few", {"river": (2, count)})
    assert str(report) == f"{tmp_path / 'few'}: river: 2 patients, {count} recordings"


def test_what_cannot_be_simulated_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("keep me")
    with pytest.raises(SourceError, match="exists and is not an empty folder"):
        simulate(tmp_path / "used", patients_per_cohort=1, seed=0)
    for patients, seed in ((0, 0), (1, -1), ({"north": 3}, 0), ({"north": 1, "river": 1, "hill": 1}, 0)):
        with pytest.raises(SpecError, match="expected"):
            simulate(tmp_path / "new", patients_per_cohort=patients, seed=seed)
    with pytest.raises(ValueError, match="expected an age between"):
        replace(HOSPITALS["north"], age_mean=12)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["notes.txt"]
