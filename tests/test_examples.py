"""The examples of docs/samplers.md run as they stand, from an empty folder, and do what their first lines say.

Those for JAX and TensorFlow run in `make test-frameworks`, which has both.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SECONDS = 120  # to give up; each takes less than 30 alone on a core


def run(example: str, folder: Path, *needed: str) -> list[str]:
    """The lines an example prints, started in a folder."""
    for package in needed:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make test, or make test-frameworks")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    surroundings = os.environ | {"PYTHONPATH": path, "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{example}.py")],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def losses(lines: list[str]) -> list[float]:
    return [float(found[1]) for line in lines if (found := re.search(r"(?:loss|:) (\d+\.\d+)", line))]


def falls(values: list[float]) -> bool:
    """Is the mean of the last third below that of the first by a fifth?"""
    third = len(values) // 3
    return np.mean(values[-third:]) < 0.8 * np.mean(values[:third])


@pytest.fixture(scope="session")
def in_numpy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder that was empty before the first example ran in it, and what that printed."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, run("batches_in_numpy", folder)


@pytest.fixture
def folder(in_numpy: tuple[Path, list[str]], tmp_path: Path) -> Path:
    shutil.copytree(in_numpy[0] / "store.zarr", tmp_path / "store.zarr")
    return tmp_path


@pytest.fixture
def sampler(folder: Path):
    """What the examples make of their store."""
    return lambda pairs: ec.InDistributionBatchSampler(ec.open(folder / "store.zarr").index, pairs=pairs, seed=0)


def test_numpy(in_numpy, sampler):
    plans = [sampler(8).plan(0, step) for step in range(len(sampler(8)))]
    assert [line.split(" ", 1)[0] for line in in_numpy[1]] == [plan.cohort for plan in plans]
    assert {plan.cohort for plan in plans} == {"north", "river"}
    assert all("(8, 2, 8, 2800)" in line for line in in_numpy[1])
    assert all(0.05 < float(line.split()[-2]) < 1 for line in in_numpy[1])  # mV, as ECGs have


def test_simclr_with_the_loss_of_lightly(folder, sampler):
    lines = run("simclr_with_lightly", folder, "torch", "lightly")
    plans = [sampler(8).plan(epoch, step) for epoch in range(10) for step in range(len(sampler(8)))]
    assert [line.split(":")[0] for line in lines] == [f"epoch {plan.epoch}, all of {plan.cohort}" for plan in plans]
    assert np.mean(losses(lines)[-6:]) < 0.92 * np.log(15)  # which is the loss of guessing


def test_lightning_resumes_in_the_middle_of_an_epoch(folder, sampler):
    lines = run("lightning_trainer", folder, "torch", "lightning")
    steps = len(sampler(4))
    assert 6 % steps  # the first run stops here
    plans = [sampler(4).plan(*divmod(number, steps)) for number in range(12)]
    expected = [f"epoch {plan.epoch} step {plan.step}, {plan.cohort}" for plan in plans]
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == expected


def test_a_projects_own_hdf5(tmp_path):
    lines = run("your_own_hdf5", tmp_path, "h5py")
    assert {line.split()[0] for line in lines} == {"clinic", "field"}
    for line in lines:
        assert "(64, 12, 500)" in line
        first, again, second, _, third, _ = patients = [int(number) for number in re.findall(r"\d+", line)[-6:]]
        assert first == again
        assert len({first, second, third}) == 3
        assert {patient % 2 for patient in patients} == {int(line.startswith("field"))}
    text = (EXAMPLES / "your_own_hdf5.py").read_text()
    assert len(text.split("# the three lines\n")[1].split("for rows in")[0].splitlines()) == 2  # the loop is the third


def test_jax_through_grain(folder):
    assert falls(losses(run("batches_in_jax", folder, "grain", "jax")))


def test_tensorflow(folder):
    assert falls(losses(run("batches_in_tensorflow", folder, "tensorflow")))


def test_every_example_is_shown_where_it_is_explained():
    pages = "".join(path.read_text("utf-8") for path in [*(ROOT / "docs").glob("*.md"), ROOT / "Makefile"])
    for path in EXAMPLES.glob("*.py"):
        assert f"examples/{path.name}" in pages, f"{path.name} is on no page"
