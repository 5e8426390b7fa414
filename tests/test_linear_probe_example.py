"""examples/linear_probe.py: from a store and a run to a table, in which the better features win; and what is made of it."""

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import capezoo
import ecgcohorts as ec
from capezoo import runs
from capezoo.specs import settings
from capezoo.training.loop import pretrain
from capezoo.zoo import verify
from capezoo.zoo.files import read_card
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import HOSPITALS, simulate

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "linear_probe.py"


def module_of(name: str):
    spec = spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return module_of("linear_probe")


@pytest.fixture(scope="module")
def made(example, tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder with a store, a run of two steps and its probes, and the lines that the example printed."""
    folder = tmp_path_factory.mktemp("probe")
    simulate(folder / "raw", patients_per_cohort=60, seed=0, hospitals=[HOSPITALS["north"]])
    (folder / "key").write_text("de" * 32)
    options = IngestOptions(key_file=folder / "key", quality=False)
    ingest(folder / "raw" / "north", folder / "s.zarr", str(folder / "raw/north/cohort.yaml"), options)
    wanted = ["max_steps=2", "sampler.groups=8", "held_out.fraction=0.4"]
    config = settings.changed(runs.get("smoke", seed=0), wanted)
    pretrain(ec.open(folder / "s.zarr"), config, folder / "run", progress=lambda report: None)
    done = subprocess.run(
        [
            sys.executable,
            str(EXAMPLE),
            *(str(folder / name) for name in ("s.zarr", "run")),
            "-o",
            str(folder / "p.json"),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines()


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


def test_from_a_store_and_a_run_to_a_table(made):
    folder, lines = made
    assert [line.split(",")[:2] for line in lines] == [["run", " age"], ["run", " sex"]]
    kept, store = json.loads((folder / "p.json").read_text()), ec.open(folder / "s.zarr")
    assert kept["store"] == store.fingerprint
    for one in kept["probes"]:
        assert one["fitted_on"] + one["tested_on"] <= len(store.index)
        assert one["gain"][1] <= one["gain"][0] <= one["gain"][2]


@pytest.mark.parametrize("low", [-0.01, 0.01])
def test_only_what_surely_gained_is_bundled(made, low, tmp_path, monkeypatch):
    folder, _ = made
    kept = json.loads((folder / "p.json").read_text())
    for one in kept["probes"]:
        one["gain"] = [0.1, 0.05, 0.2]
    kept["probes"][1]["gain"][1] = low
    (tmp_path / "p.json").write_text(json.dumps(kept))
    out = tmp_path / "cape_resnet.tried"
    given = [folder / "s.zarr", folder / "run", tmp_path / "p.json", out, "--summary", "Tried.", "--commit", "abc"]
    monkeypatch.setattr(sys, "argv", ["bundle_weights.py", *map(str, given)])
    if low <= 0:
        with pytest.raises(SystemExit, match="sex: the gain may be nothing"):
            module_of("bundle_weights").main()
        assert not out.exists()
        return
    module_of("bundle_weights").main()
    assert verify(out).ok
    card = read_card(out)
    assert {metric.name for metric in card.metrics} >= {"age_mae_years", "sex_auroc_gain_over_it"}
    assert card.training.commit == "abc"
    assert capezoo.load(out).num_features == 64
