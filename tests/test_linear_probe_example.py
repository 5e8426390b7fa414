"""examples/linear_probe.py: from a store and a run to a table, in which the better features win."""

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from capezoo import recipes, settings
from capezoo.train import pretrain
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import HOSPITALS, simulate

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "linear_probe.py"


@pytest.fixture(scope="module")
def example():
    spec = spec_from_file_location("linear_probe", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", ["age", "sex"])
def test_features_that_know_win_over_noise(example, task):
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(150), 2)
    y = rng.uniform(20, 80, 300) if task == "age" else rng.integers(0, 2, 300).astype(float)
    noise = rng.normal(size=(300, 8))
    knowing = noise.copy()
    knowing[:, 0] += 3 * (y - y.mean()) / y.std()
    fit, test = patients < 100, patients >= 100
    given = {
        name: example.answers(task, x[fit], y[fit], patients[fit], x[test])
        for name, x in (("trained", knowing), ("untrained", noise))
    }
    found = example.compare(task, given, y[test], patients[test])
    assert found["gain"].low > 0
    assert found["gain"].value == pytest.approx(abs(found["trained"].value - found["untrained"].value))


def test_from_a_store_and_a_run_to_a_table(tmp_path):
    simulate(tmp_path / "raw", patients_per_cohort=60, seed=0, hospitals=[HOSPITALS["north"]])
    key = tmp_path / "key"
    key.write_text("de" * 32)
    ingest(
        tmp_path / "raw" / "north", tmp_path / "s.zarr", str(tmp_path / "raw/north/cohort.yaml"),
        IngestOptions(key_file=key, quality=False),
    )  # fmt: skip
    store = ec.open(tmp_path / "s.zarr")
    wanted = ["max_steps=2", "sampler.pairs=8", "held_out.fraction=0.4"]
    pretrain(store, settings.changed(recipes.smoke(seed=0), wanted), tmp_path / "run", progress=lambda report: None)
    done = subprocess.run(
        [
            sys.executable,
            str(EXAMPLE),
            str(tmp_path / "s.zarr"),
            str(tmp_path / "run"),
            "-o",
            str(tmp_path / "out.json"),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(",")[:2] for line in lines] == [["run", " age"], ["run", " sex"]]
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["store"] == store.fingerprint
    for one in kept["probes"]:
        assert one["fitted_on"] + one["tested_on"] <= len(store.index)
        assert one["gain"][1] <= one["gain"][0] <= one["gain"][2]
