"""The commands for whoever holds the key, as typed in a terminal: ids go in, pseudonyms and counts come out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgcohorts.cohorts.spec import CohortSpec


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "300"})


@pytest.fixture
def place(make_cohort, tmp_path):
    """A store `s.zarr` of 4 patients with 7 recordings, and the raw cohort."""
    raw = make_cohort(patients=4)
    assert run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path).returncode == 0
    return raw, tmp_path


def test_find_label_and_remove_a_patient(place):
    raw, folder = place
    spec = CohortSpec.load(str(raw.spec))
    tables = spec.load_tables(raw.folder)
    described = [spec.describe(tables, item) for item in spec.sources(raw.folder)]
    patient = described[0].patient_id
    recordings = [one.recording_id for one in described if one.patient_id == patient]
    cohort = described[0].cohort

    found = run("id", "s.zarr", cohort, recordings[0], cwd=folder)
    assert found.returncode == 0, found.stderr
    assert recordings[0] not in found.stdout
    assert run("id", "s.zarr", cohort, "nobody", cwd=folder).returncode == 1

    (folder / "ef.csv").write_text(f"patient,LVEF\n{patient},55\nnobody,60\n")
    given = ("--cohort", cohort, "--id-column", "patient", "--kind", "patient", "--column", "LVEF=lvef")
    labelled = run("label", "s.zarr", "ef.csv", *given, cwd=folder)
    assert labelled.returncode == 0, labelled.stderr
    assert f"1 rows matched, 1 not; {len(recordings)} recordings matched" in labelled.stdout
    assert run("label", "s.zarr", "ef.csv", *given, cwd=folder).stdout == labelled.stdout  # the same changes nothing
    (folder / "ef.csv").write_text(f"patient,LVEF\n{patient},56\n")
    again = run("label", "s.zarr", "ef.csv", *given, cwd=folder)
    assert again.returncode == 2
    assert "replace it: --replace" in again.stderr

    removed = run("remove", "s.zarr", cohort, patient, cwd=folder)
    assert removed.returncode == 0, removed.stderr
    assert f"{len(recordings)} recordings removed" in removed.stdout
    assert patient not in removed.stdout
    assert "removed before" in run("remove", "s.zarr", cohort, patient, cwd=folder).stdout
    assert run("verify", "s.zarr", cwd=folder).returncode == 0


def test_a_store_is_compared_with_its_source(place):
    raw, folder = place
    same = run("verify", "s.zarr", "--against", raw.folder, "--cohort", raw.spec, cwd=folder)
    assert same.returncode == 0, same.stderr
    assert "7 recordings equal their source" in same.stdout
    half = run("verify", "s.zarr", "--against", raw.folder, cwd=folder)
    assert half.returncode == 2
    assert len(half.stderr.strip().splitlines()) == 1
