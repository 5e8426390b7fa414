"""The commands for whoever holds the key, as typed in a terminal: ids go in, pseudonyms and counts come out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from ecgcohorts.cohorts.spec import CohortSpec


def run(*arguments: object, cwd: Path, stdin: IO[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "300"}, stdin=stdin
    )


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


def test_many_ids_come_from_a_file_or_standard_input(place):
    """An id on a command line ends in the shell's history and in the list of processes."""
    raw, folder = place
    spec = CohortSpec.load(str(raw.spec))
    tables = spec.load_tables(raw.folder)
    described = [spec.describe(tables, item) for item in spec.sources(raw.folder)]
    cohort, ids = described[0].cohort, [one.recording_id for one in described]
    (folder / "ids.txt").write_text("\n".join([*ids, "", "nobody"]))
    found = run("id", "s.zarr", cohort, "--file", "ids.txt", "--json", cwd=folder)
    assert found.returncode == 1
    assert f"1 of {len(ids) + 1} ids have no row, in line {len(ids) + 2}." in found.stderr
    lines = json.loads(found.stdout)
    assert [len(one["found"]["rows"]) for one in lines] == [1] * len(ids) + [0]
    assert not any(one in found.stdout + found.stderr for one in ids)
    with (folder / "ids.txt").open() as stdin:
        again = run("id", "s.zarr", cohort, "--file", "-", "--json", cwd=folder, stdin=stdin)
    assert json.loads(again.stdout) == lines

    patients = sorted({str(one.patient_id) for one in described})
    (folder / "gone.txt").write_text(f"{patients[0]}\nnobody\n{patients[1]}\n")
    removed = run("remove", "s.zarr", cohort, "--file", "gone.txt", "--json", cwd=folder)
    assert removed.returncode == 1
    assert "1 ids name no patient of the cohort, the first in line 2; the others were removed" in removed.stderr
    assert [one["line"] for one in json.loads(removed.stdout)] == [1, 3]
    assert not any(one in removed.stdout + removed.stderr for one in patients)
    kept = sum(one.patient_id not in patients[:2] for one in described)
    assert json.loads(run("info", "s.zarr", "--json", cwd=folder).stdout)["recordings"] == kept
    for wrong in ([], ["one", "--file", "ids.txt"]):
        assert run("id", "s.zarr", cohort, *wrong, cwd=folder).returncode == 2
