"""Strangers under one id, as a user meets them: told by a dry run, refused by ingest, found in an existing store."""

import json
import os
import re
import subprocess
import sys

import yaml


def run(*arguments: object, cwd) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecgcohorts.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "200"})


def strangers(raw) -> None:
    """Take the ward for the patient: six people become two."""
    headers = sorted(raw.folder.rglob("*.hea"))
    for number, path in enumerate(headers):
        text = path.read_text("utf-8")
        path.write_text(text + f"#Ward: w{number % 2}\n", "utf-8")
    spec = yaml.safe_load(raw.spec.read_text())
    spec["layouts"][0]["patient"] = {"header": "Ward"}
    raw.spec.write_text(yaml.safe_dump(spec))


def test_strangers_under_one_id_are_refused_unless_told_otherwise(make_cohort, tmp_path):
    raw = make_cohort(patients=6)
    strangers(raw)
    for step in (["ingest"], ["ingest", "--dry-run"], ["plan", "-o", tmp_path / "run.plan"]):
        refused = run(step[0], raw.folder, "s.zarr", "--cohort", raw.spec, *step[1:], cwd=tmp_path)
        assert refused.returncode == 3, refused
        [line] = refused.stderr.strip().splitlines()
        assert "found 2 of 2 patient ids" in line
        assert "--max-contradictions" in line
        assert "Largest patients: 6 recordings on" in line
        assert not (tmp_path / "s.zarr").exists() or not (tmp_path / "s.zarr" / "CURRENT").exists()
        assert not (tmp_path / "run.plan").exists()
    taken = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--max-contradictions", 1, cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert "2 ids with two or more recordings, 2 of them" in taken.stdout
    found = run("patients", "s.zarr", cwd=tmp_path)
    assert found.returncode == 3
    assert "found 2 of 2 patient ids" in found.stderr
    assert run("patients", "s.zarr", "--max-contradictions", 1, cwd=tmp_path).returncode == 0


def test_the_description_may_allow_more_and_stays_the_same_to_a_store(make_cohort, tmp_path):
    raw = make_cohort(patients=6)
    strangers(raw)
    spec = yaml.safe_load(raw.spec.read_text())
    raw.spec.write_text(yaml.safe_dump(spec | {"max_contradictions": 1}))
    assert run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--limit", 8, cwd=tmp_path).returncode == 0
    raw.spec.write_text(yaml.safe_dump(spec))
    more = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--max-contradictions", 1, cwd=tmp_path)
    assert more.returncode == 0, more.stderr


def test_true_patients_are_counted_without_their_ids(make_cohort, tmp_path):
    raw = make_cohort(patients=6)
    dry = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--dry-run", "--json", cwd=tmp_path)
    counts = json.loads(dry.stdout)["patients"]
    assert (counts["repeated"], counts["contradicting"]) == (4, 0)
    assert counts["largest"][0]["recordings"] == 3
    assert run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, cwd=tmp_path).returncode == 0
    assert json.loads(run("patients", "s.zarr", "--json", cwd=tmp_path).stdout) == counts


def test_one_id_for_many_is_refused_and_one_age_a_patient_is_told(make_cohort, tmp_path):
    raw = make_cohort(patients=6)
    headers = sorted(raw.folder.rglob("*.hea"))
    texts = {path: path.read_text("utf-8") for path in headers}
    for path, text in texts.items():  # one filler for all
        path.write_text(re.sub("# Patient ID: .*", "# Patient ID: Klinik Nord", text), "utf-8")
    for more in (["--dry-run"], []):
        refused = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, *more, cwd=tmp_path)
        assert refused.returncode == 3, refused
        assert "found an id with 12 recordings, of which " in refused.stderr
        assert "list it under fillers" in refused.stderr
        assert "Klinik" not in refused.stdout + refused.stderr
    taken = run("ingest", raw.folder, "s.zarr", "--cohort", raw.spec, "--max-contradictions", 1, cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert "strangers: an id with 12 recordings" in taken.stdout
    assert run("patients", "s.zarr", cwd=tmp_path).returncode == 3
    for path, text in texts.items():  # every recording with the age of the person today, over twelve years
        path.write_text(
            re.sub(r"# Date: 20(1[0-3])", lambda found: f"# Date: 20{(int(found[1]) - 10) * 6 + 5:02d}", text)
        )
    told = run("ingest", raw.folder, "t.zarr", "--cohort", raw.spec, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "ages: 4 of 4 patients are of one age in recordings years apart" in told.stdout
    assert run("patients", "t.zarr", cwd=tmp_path).returncode == 0
