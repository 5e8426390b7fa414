"""Every block of docs/frameworks.md runs on two ranks, is stopped in the middle of an epoch, and resumes there.

A block is run behind the first one of the page, which makes data, sampler and `check`. `check` asserts that the rows of each
training step are the planned ones; here it is asserted that the ranks then name the same cohorts in the same order.
Frameworks missing in this environment are skipped: `make test-frameworks` has them all.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "frameworks.md"
SECONDS = 300
SECTION = re.compile(r"^## (?P<title>.+?)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^rank (\d) of 2: (\d+) steps of (.+)$", re.MULTILINE)
# What the ranks print goes to files: in one pipe their lines would mix.
TORCHRUN = [*["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--redirects=1", "--log-dir=logs"]]
ALONE: list[str] = []  # starts its ranks itself, or stands for one after the other

BLOCKS = {found["title"]: BLOCK.findall(found["text"]) for found in SECTION.finditer(PAGE.read_text("utf-8"))}
DATA, TORCH = "The data of all examples", "What PyTorch examples share"
RECIPES = "In three ECG projects"  # run by tests/test_readme.py
ROWS = {  # heading: packages, how it is started
    "PyTorch": (("torch",), TORCHRUN),
    "Lightning": (("torch", "lightning"), TORCHRUN),
    "accelerate": (("torch", "accelerate"), TORCHRUN),
    "Hugging Face Trainer": (("torch", "accelerate", "transformers"), TORCHRUN),
    "torchdata": (("torch", "torchdata"), TORCHRUN),
    "MONAI": (("torch", "monai", "ignite"), TORCHRUN),
    "pytorch-metric-learning": (("torch", "pytorch_metric_learning"), TORCHRUN),
    "Ray Train": (("torch", "ray"), ALONE),
    "Composer": (("torch", "composer"), TORCHRUN),
    "Recordings in a store": (("torch",), TORCHRUN),
    "Keras": (("keras",), ALONE),
    "tf.data": (("tensorflow",), ALONE),
    "Grain and JAX": (("grain", "jax"), ALONE),
}


def test_every_section_with_a_block_is_run():
    assert set(ROWS) == {title for title, blocks in BLOCKS.items() if blocks} - {DATA, TORCH, RECIPES}


@pytest.mark.slow
@pytest.mark.parametrize("title", ROWS)
def test_one_cohort_per_step_on_every_rank_and_exact_resume(title, tmp_path):
    packages, launcher = ROWS[title]
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make test-frameworks")
    script = tmp_path / "block.py"
    script.write_text(
        "\n\n".join([*BLOCKS[DATA], *(BLOCKS[TORCH] if "torch" in packages else []), *BLOCKS[title]]), "utf-8"
    )
    surroundings = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    surroundings["NODE_RANK"] = "0"  # Composer asks for it; its own launcher sets it
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    printed = "\n".join([done.stdout, *(path.read_text("utf-8") for path in tmp_path.rglob("logs/**/stdout.log"))])
    said = {rank: (int(steps), cohorts.split()) for rank, steps, cohorts in SAID.findall(printed)}
    assert set(said) == {"0", "1"}, printed
    assert said["0"] == said["1"]
    steps, cohorts = said["0"]
    assert steps == len(cohorts) > 20  # an epoch has twenty
    assert set(cohorts) == {"north", "river"}
