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
from capezoo.zoo import publish, verify
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
    both = np.concatenate([noise, knowing], axis=1)
    features = {"trained": [knowing], "untrained": [noise, *rng.normal(size=(4, 300, 8))], "measurements": [noise],
                "trained_and_measurements": [both]}  # fmt: skip
    given = {
        name: [example.answers(task, x[fit], y[fit], patients[fit], x[test]) for x in each]
        for name, each in features.items()
    }
    found = example.compare(task, given, y[test], patients[test])
    assert {name for name, one in found.items() if one.low > 0} >= set(example.GAINS)
    assert found["gain"].value == pytest.approx(abs(found["trained"].value - found["untrained"].value))
    alone = [example.compare(task, given | {"untrained": [one]}, y[test], patients[test]) for one in given["untrained"]]
    assert found["untrained"].value == pytest.approx(np.mean([one["untrained"].value for one in alone]))
    assert found["gain"].value == pytest.approx(np.mean([one["gain"].value for one in alone]))


def test_from_a_store_and_a_run_to_a_table(made):
    folder, lines = made
    assert [line.split(",")[:2] for line in lines if line[0] != " "] == [["run", " age"], ["run", " sex"]]
    assert len(lines) == 2 * (1 + 5 + 3)
    kept, store = json.loads((folder / "p.json").read_text()), ec.open(folder / "s.zarr")
    assert kept["store"] == store.fingerprint
    for one in kept["probes"]:
        assert one["fitted_on"] + one["tested_on"] <= len(store.index)
        for name in ("gain", "gain_over_measurements", "gain_with_measurements"):
            assert one[name][1] <= one[name][0] <= one[name][2]
        assert one["untrained"] != one["untrained_raw"]


def test_published_weights_are_probed_as_their_run_is(example, made, tmp_path):
    folder, _ = made
    weights = publish(folder / "run", tmp_path / "w", digests="plain")
    store = ec.open(folder / "s.zarr")
    (of_run, _), (of_weights, config) = (example.run_or_weights(str(one)) for one in (folder / "run", weights))
    assert config.seed == 0
    np.testing.assert_allclose(capezoo.embed(of_run, store), capezoo.embed(of_weights, store), rtol=1e-4, atol=1e-6)


def test_untrained_networks_begin_as_the_run_did(example, made):
    folder, _ = made
    store, config = ec.open(folder / "s.zarr"), example.run_or_weights(str(folder / "run"))[1]
    raw, fair = (example.untrained(config, store, entries) for entries in (None, np.arange(20)))
    assert len(raw) == len(fair) == 5
    for one, other in zip(raw, fair, strict=True):
        changed = {name for name, tensor in one.state_dict().items() if not tensor.equal(other.state_dict()[name])}
        assert changed
        assert all("running_" in name or "num_batches" in name for name in changed)
    assert not raw[0].stem.weight.equal(raw[1].stem.weight)


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """bundle(): the run of two steps, whose probes are those of a good one, but for what `lacking` gained nothing over."""
    folder, _ = made
    out = tmp_path / "cape_resnet.tried"

    def call(*more: str, lacking: str = "", run: str = "run"):
        kept = json.loads((folder / "p.json").read_text())
        for one in kept["probes"]:
            one |= {"gain": [0.1, 0.05, 0.2], "gain_over_measurements": [0.1, 0.01, 0.2]}
        if lacking:
            kept["probes"][1][lacking][1] = -0.01
        (tmp_path / "p.json").write_text(json.dumps(kept))
        given = [folder / "s.zarr", folder / run, tmp_path / "p.json", out, "--summary", "Tried.", "--commit", "abc"]
        monkeypatch.setattr(sys, "argv", ["bundle_weights.py", *map(str, given), *more])
        module_of("bundle_weights").main()
        return read_card(out)

    return call, out


@pytest.mark.parametrize(
    ("lacking", "what"), [("gain", "its random initialisation"), ("gain_over_measurements", "simple measures")]
)
def test_what_may_have_gained_nothing_is_not_bundled_but_for_trying(bundle, lacking, what):
    call, out = bundle
    with pytest.raises(SystemExit, match=f"run, sex_auroc: the gain over {what} .*may be nothing"):
        call(lacking=lacking)
    assert not out.exists()
    card = call("--for-trying", lacking=lacking)
    assert card.known_failures[0].startswith("Bundled for trying the software only. sex_auroc: the gain over")


def test_what_surely_gained_is_bundled_and_its_metrics_can_be_written_anew(bundle):
    call, out = bundle
    card = call()
    assert verify(out).ok
    names = {metric.name for metric in card.metrics}
    assert names >= {"age_mae_years", "sex_auroc_gain_over_it", "age_mae_years_of_measurements"}
    assert card.training.commit == "abc"
    assert capezoo.load(out).num_features == 64
    assert not any("trying the software only" in text for text in card.known_failures)
    again = call("--for-trying", lacking="gain")
    assert verify(out).ok
    assert (again.sha256, again.half_cosine, again.training) == (card.sha256, card.half_cosine, card.training)
    assert "for trying the software only" in (out / "README.md").read_text()


def called(name: str, *arguments: object) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_methods_are_trained_and_probed_once_and_told_in_one_table(made, tmp_path):
    store, out = made[0] / "s.zarr", tmp_path / "methods"
    few = ("--set", "max_steps=2", "--set", "sampler.groups=8", "--set", "curves=false")
    two = ("--variant", "fast", "--variant", "slow", "objective.config.momentum=0.999")
    asked = (out, "--store", store, "--run", "byol_small", "--seed", 0, "--seed", 1, *few, *two)
    done = called("methods_small", *asked)
    assert done.returncode == 0, done.stderr
    rows = (out / "table.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| byol_small fast", "| byol_small slow"]
    assert (out / "curves.svg").read_text().startswith("<svg")
    told = json.loads((out / "results.json").read_text())
    assert set(told[0]["tasks"]) == {"age", "sex"}  # no PTB-XL, no superclasses
    assert len(told[0]["tasks"]["age"]["each"]) == 2
    assert told[0]["tasks"]["age"]["untrained"] == told[1]["tasks"]["age"]["untrained"]
    value, gain = (told[0]["tasks"]["age"][name][0] for name in ("untrained", "gain"))
    assert gain == pytest.approx(value - np.mean(told[0]["tasks"]["age"]["each"]))
    trained = [path.stat().st_mtime_ns for path in sorted(out.glob("*/metrics.csv"))]
    assert called("methods_small", *asked).returncode == 0
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*/metrics.csv"))] == trained
    assert json.loads((out / "results.json").read_text()) == told
    wrong = called("methods_small", out, "--store", store, "--run", "scaling_jepa_small")
    assert "expected one of recipe plain-240. Add --store." in wrong.stderr


@pytest.mark.slow
def test_the_control_of_several_methods_makes_one_table(made, tmp_path):
    store, out = made[0] / "s.zarr", tmp_path / "control"
    asked = ("--method", "byol", "--method", "cpc", "--seed", 1, "--seeds", 1, "--set", "steps=2", "--set", "pairs=4")
    done = called("methods_on_the_control", store, "north", out, *asked)
    assert done.returncode == 0, done.stderr
    rows = (out / "table.md").read_text().splitlines()
    assert len(rows) == 2 + 2 * 3
    assert [row.split(" | ")[0] for row in rows[2::3]] == ["| byol, cape_resnet", "| cpc, s4"]
    assert " of 1 |" in rows[2]
    assert "of a probe for the device" in (out / "device.svg").read_text()
    assert "1/3 tone-200uv-mixed-hard-seed1" in done.stderr
    assert called("methods_on_the_control", store, "north", out, *asked).stdout == done.stdout
