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


def test_a_key_is_told_of_when_it_is_made_and_never_again(make_cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    raw = make_cohort(patients=4)
    wrong = run("ingest", tmp_path / "nowhere", "s.zarr", "--cohort", raw.spec, cwd=tmp_path)
    assert (wrong.returncode, (tmp_path / "config").exists()) == (2, False)
    first = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path)
    assert first.stderr.startswith(f"made a pseudonym key: {tmp_path / 'config' / 'ecgcohorts' / 'pseudonym.key'}. ")
    assert len(first.stderr.splitlines()) == 1
    for later in ("s.zarr", "t.zarr"):
        assert run("ingest", raw.folder, later, "--cohort", raw.spec, cwd=tmp_path).stderr == ""
    # On another machine: what is missing is said, and no key that would not fit is made.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    for command in (("ingest", raw.folder, "s.zarr", "--cohort", raw.spec), ("id", "s.zarr", "north", "p0_0")):
        refused = run(*command, cwd=tmp_path)
        assert refused.returncode == 2
        assert "found no pseudonym key" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_a_key_that_others_can_read_is_told_of_once_for_each_store(make_cohort, tmp_path):
    raw, key = make_cohort(patients=4), tmp_path / "own.key"
    key.write_text("de" * 32)
    key.chmod(0o644)
    command = ("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--key", key)
    assert f"chmod 600 {key}" in run(*command, cwd=tmp_path).stderr
    assert run(*command, cwd=tmp_path).stderr == ""


def test_published_folds_become_a_split_of_a_store_that_exists(place):
    raw, folder = place
    spec = CohortSpec.load(str(raw.spec))
    tables = spec.load_tables(raw.folder)
    described = [spec.describe(tables, item) for item in spec.sources(raw.folder)]
    patients = sorted({one.patient_id for one in described})
    fold = {patient: 1 + 9 * (number == 0) for number, patient in enumerate(patients)}  # the first is in fold 10
    lines = [f"{one.recording_id},{fold[one.patient_id]},{number % 2}" for number, one in enumerate(described)]
    (folder / "folds.csv").write_text("\n".join(["record,fold,alternate", *lines, "elsewhere,3,0"]) + "\n")
    given = ("label", "s.zarr", "folds.csv", "--cohort", described[0].cohort, "--id-column", "record")
    made = run(*given, "--column", "fold", "--column", "alternate", cwd=folder)
    assert "7 rows matched, 1 not; 7 recordings matched, 0 not" in made.stdout, made.stderr
    parts = ("--part", "train=1-8", "--part", "val=9", "--part", "test=10")
    split = run("split", "s.zarr", "folds", "--by", "label", "--label", "fold", *parts, "--json", cwd=folder)
    counts = {part["name"]: part["recordings"] for part in json.loads(split.stdout)[0]["parts"]}
    first = sum(one.patient_id == patients[0] for one in described)
    assert counts == {"train": 7 - first, "val": 0, "test": first}
    # By recording, a patient may lie on both sides: refused.
    cut = run(
        "split", "s.zarr", "cut", "--by", "label", "--label", "alternate", "--part", "a=0", "--part", "b=1", cwd=folder
    )
    assert cut.returncode == 2
    assert "patients in more than one of a, b" in cut.stderr


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
