"""Adding a thing is adding one file: each kind is added to a copy of the tree, used by its commands, and held to its contract.

The files are in tests/adding, at the place each has in the tree; the reader, its writer and one objective are those of
docs/adding_a_format.md and docs/adding_a_method.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300
# Kind: the files that are added, of which those below tests/ are its fixture. Nothing else is written.
ADDED = {
    "raw format": ("ecgcohorts/readers/acme.py", "tests/ecgcohorts/readers/write_acme.py"),
    "cohort preset": ("ecgcohorts/cohorts/presets/acme_hospital.py", "tests/contracts/cohorts/acme_hospital.py"),
    "recipe": ("ecgcohorts/preprocess/recipes/plain_125.py",),
    "encoder": ("capezoo/encoders/patches.py",),
    "objective": ("capezoo/objectives/simsiam.py",),
    "objective with a teacher": ("capezoo/objectives/slow_copy.py",),
    "objective on tokens": ("capezoo/objectives/next_token.py",),
    "view": ("capezoo/views/flip.py",),
    "named run": ("capezoo/runs/added.py",),
    "question": ("capezoo/evaluate/questions/spread.py",),
    "command": ("ecgcohorts/cli/commands/count.py",),
}
OF_PAGES = {"acme.py": "adding_a_format.md", "write_acme.py": "adding_a_format.md", "simsiam.py": "adding_a_method.md"}
# Tests collected from the registries, of the names that were added.
CONTRACTS = ("tests/contracts", "tests/test_commands.py")
WORDS = "acme or patches or simsiam or slow_copy or next_token or flip or added or spread or count or plain-125"

USE = """
import json, pathlib, sys
import numpy as np
import write_acme
from capezoo.cli.program import main as capezoo
from ecgcohorts.cli.program import main as ecgcohorts

def make(folder):
    '''24 patients of two recordings; as files of Acme carts, which differ in patient, age and a little noise.'''
    folder.mkdir()
    path, _ = write_acme.write(folder, 8.0)
    intact = path.read_bytes()
    path.unlink()
    head = 27 + 12 * 4
    for number in range(48):
        data = bytearray(intact)
        data[15:27] = f"KANARI-{number // 2:04}".encode().ljust(12)
        samples = np.frombuffer(data, "<i2", offset=head, count=12 * 4000)
        noise = np.random.default_rng(number).integers(-9, 9, len(samples))
        data[head:-4] = (samples + noise).astype("<i2").tobytes()
        (folder / f"r{number}_{30 + number}.acme").write_bytes(write_acme.mend(bytes(data)))

if __name__ == "__main__":
    make(pathlib.Path("raw"))
    ecgcohorts("ingest raw store.zarr --cohort acme_hospital --recipe plain-125 --key key".split())
    for run in ("added_slow_copy", "added_next_token"):
        capezoo(f"pretrain --store store.zarr --out {run} --seed 0 --run {run}".split())
    method = ("objective.name=simsiam", 'objective.config={"width": 16, "bottleneck": 8}', "name=added_simsiam")
    settings = [part for setting in method for part in ("--set", setting)]
    capezoo(["pretrain", *"--store store.zarr --out added_simsiam --seed 0 --run added_slow_copy".split(), *settings])
    capezoo("publish added_slow_copy weights --store store.zarr --digests plain".split())
    capezoo("evaluate spread --weights weights --store store.zarr --seed 0 -o study".split())
    ecgcohorts("count store.zarr --json".split())
"""


def text_of(file: str) -> str:
    """What is added at a place of the tree."""
    name = Path(file).name
    if name in OF_PAGES:
        page = (ROOT / "docs" / OF_PAGES[name]).read_text("utf-8")
        (code,) = re.findall(rf"^```python\n# {name}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        return code
    return (ROOT / "tests" / "adding" / file).read_text("utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their tests, with every file of ADDED."""
    copy = tmp_path_factory.mktemp("copy") / "tree"
    leave = shutil.ignore_patterns("__pycache__", "adding", "benchmarks", "golden", "images", "_build")
    for name in ("ecgcohorts", "capezoo", "docs", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=leave)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for file in (file for files in ADDED.values() for file in files):
        assert not (copy / file).exists(), f"{file} would be a change, not an addition"
        (copy / file).write_text(text_of(file), "utf-8")
    return copy


def run(tree: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "tests" / "ecgcohorts" / "readers")]),
        "XDG_CONFIG_HOME": str(cwd / "config"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def used(tree: Path) -> tuple[Path, str]:
    """The folder in which the commands ran, and what they printed."""
    place = tree.parent / "used"
    place.mkdir()
    (place / "use.py").write_text(USE)
    (place / "key").write_text("ab" * 32)
    (place / "key").chmod(0o600)
    done = run(tree, place, "use.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_each_kind_is_one_file_and_a_fixture() -> None:
    for kind, files in ADDED.items():
        own = [file for file in files if not file.startswith("tests/")]
        assert len(own) == 1, kind
        assert len(files) == (2 if kind in ("raw format", "cohort preset") else 1), kind
    adding = ROOT / "tests" / "adding"
    there = {path.relative_to(adding).as_posix() for path in adding.rglob("*.py")}
    assert there <= {file for files in ADDED.values() for file in files}


def test_a_format_a_preset_and_a_recipe_make_a_store(used: tuple[Path, str]) -> None:
    place, printed = used
    assert "acme_hospital: 48 inputs = 48 stored + 0 duplicates + 0 rejected" in printed
    manifest = read_json(next((place / "store.zarr").glob("manifest-*.json")))
    assert manifest["recipe"]["name"] == "plain-125"


@pytest.mark.parametrize("name", ["added_slow_copy", "added_next_token", "added_simsiam"])
def test_encoder_objectives_and_view_make_a_run(name: str, used: tuple[Path, str]) -> None:
    place, _ = used
    config = yaml.safe_load((place / name / "config.yaml").read_text("utf-8"))
    assert config["encoder"]["name"] == "patches"
    assert config["objective"]["name"] == name.removeprefix("added_")
    assert [view["name"] for view in config["views"]] == ["flip"]
    lines = (place / name / "metrics.csv").read_text().splitlines()
    assert len(lines) == 5  # the names of the columns, and four steps
    assert ("cosine" in lines[0].split(",")) == (name == "added_next_token")


def test_a_question_is_answered_and_a_command_counts(used: tuple[Path, str]) -> None:
    place, printed = used
    (spread,) = read_json(place / "study" / "results.json")["answers"]["spread"]["result"]["spread"].values()
    assert spread["acme_hospital"] > 0
    assert json.loads(printed[printed.rindex("{") :]) == {"recordings": 48}


def test_all_of_them_keep_their_contracts(tree: Path) -> None:
    done = run(tree, tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *CONTRACTS, "-k", WORDS)
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 50
