"""A cohort preset is one file and its fixture: both are put into a copy of the tree, and nothing else is edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300
NAME = "acme_ward"
PRESET = '''
"""Acme ward: ECGs of one ward. The patient stands in a table beside the records."""

from ecgcohorts.cohorts.schema import Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

SPEC = CohortSpec(
    name="acme_ward",
    title="Acme ward, imagined",
    licence="CC0 1.0",
    citation="https://example.org",
    mains_hz=50,
    layouts=(
        Layout(
            reader="wfdb",
            files=Files(include=("records/*.hea",)),
            tables=(Table(file="ward.csv", key="record"),),
            recording=(Where(path=r"([^/]+)\\.hea$"),),
            patient=(Where(column="patient"),),
            labels={"af": Label(find=(Where(header="Dx"),), codes=("AF",))},
        ),
    ),
)
'''
FIXTURE = '''
"""Two records of one patient."""


def write(root, write_record):
    (root / "ward.csv").write_text("record,patient\\nr1,p7\\nr2,p7\\n")
    for name, codes in (("r1", "AF,RBBB"), ("r2", "RBBB")):
        write_record(root / "records", name, 500, 5000, [f"Dx: {codes}"])
    return {root: {name: {"patient_id": "p7", "labels": {"af": af}} for name, af in (("r1", 1), ("r2", 0))}}
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the contract tests, with the two files."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in ("ecgcohorts", "tests/contracts", "tests/fuzz"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / file, tree / file)
    (tree / "ecgcohorts" / "cohorts" / "presets" / f"{NAME}.py").write_text(PRESET.lstrip())
    (tree / "tests" / "contracts" / "cohorts" / f"{NAME}.py").write_text(FIXTURE.lstrip())
    return tree


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=tree, env=surroundings, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_the_command_line_knows_the_cohort(tree: Path) -> None:
    listed = run(tree, "-m", "ecgcohorts.cli", "cohorts")
    assert NAME in listed.stdout, listed.stdout + listed.stderr


def test_the_contract_is_tested_and_asks_for_a_fixture(tree: Path) -> None:
    """One process for both: a preset with its fixture passes, a second one without fails."""
    bare = tree / "ecgcohorts" / "cohorts" / "presets" / "acme_bare.py"
    bare.write_text(PRESET.lstrip().replace(NAME, "acme_bare"))
    tests = ("-p", "no:cacheprovider", "tests/contracts/test_cohorts.py", "-k", "acme_ward or acme_bare")
    tested = run(tree, "-m", "pytest", "-q", "-n0", *tests)
    assert tested.returncode == 1
    assert "1 failed, 7 passed" in tested.stdout, tested.stdout + tested.stderr
    assert "the preset acme_bare brings no fixture: write acme_bare.py" in tested.stdout
