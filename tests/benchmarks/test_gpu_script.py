"""The script for the day of a GPU runs from its first line to its last where there is none."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

sys.path.append(str(Path(__file__).parent))
import bench_methods
import bench_training as bench
import gpu

from capezoo.specs.settings import changed
from capezoo.training import device
from ecgcohorts.store import open_store

SCRIPT = Path(__file__).with_name("gpu.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three hospitals, as on a GPU."""
    folder = tmp_path_factory.mktemp("hospitals")
    bench.make_store(folder, 6, ("north", "river", "coast"), 1)
    return open_store(folder / "store.zarr")


@pytest.fixture
def paper(monkeypatch):
    """A GPU of paper, with what only this script asks of one."""
    path = Path(__file__).parents[1] / "capezoo" / "paper_gpu.py"
    spec = importlib.util.spec_from_file_location("paper_gpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.PaperGpu()
    made.install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "synchronize", made._note("waits for all"))
    monkeypatch.setattr(torch.cuda, "_sleep", made._note("slowed copies"), raising=False)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", made._note("debug mode"))
    monkeypatch.setattr(device, "start", lambda spec, stall_s=0.0: PaperFabric(accelerator="cpu", devices=1))
    monkeypatch.setattr(device, "pinned", made.pinned)
    return made


class PaperFabric(Fabric):
    """Computes on the CPU and says that it is a GPU."""

    device = property(lambda self: torch.device("cuda"))

    def to_device(self, obj):
        return obj


@pytest.fixture
def setting(store, tmp_path):
    tiny = ["sampler.groups=2", "encoder.config.widths=[4, 4]", "encoder.config.embedding_dim=8", "optimiser.kind=lars"]
    cases = [replace(case, config=changed(case.config, tiny), warm=1, steps=2) for case in bench.cases(False)[:1]]
    return gpu.Setting(store, tmp_path, cases, 2)


def test_three_hospitals_make_one_store(store):
    assert store.index.cohorts == ("north", "river", "coast")


def test_what_it_measures_on_a_gpu_runs_on_one_of_paper(setting, monkeypatch, paper):
    with paper:
        found = gpu.waits(setting) | gpu.arrivals(setting) | gpu.memory(setting) | gpu.loader(setting)
    assert (found["warnings a step"], found["batches that arrived changed"], found["batches"]) == (0, 0, 2)
    assert paper.asked["slowed copies"] >= 2 * 3
    assert paper.asked["debug mode"] == 2
    assert {"ECG/s from memory", "TFLOP a step", "host, ms a step", "loader, CPU ms a batch"} <= found.keys()


def test_a_batch_that_is_used_too_early_is_noticed(setting, monkeypatch):
    real = device.Courier.arrived

    def early(self, loaded):
        return replace(real(self, loaded), signal=loaded.signal.roll(1, 0) + 1)

    monkeypatch.setattr(device.Courier, "arrived", early)
    assert gpu.arrivals(setting)["batches that arrived changed"] == 2


def test_a_part_that_fails_is_named_and_the_others_go_on(setting, tmp_path, monkeypatch, capsys):
    def broken(setting):
        raise RuntimeError("CUDA error: out of luck")

    monkeypatch.setattr(gpu, "PARTS", (gpu.wheels, broken, gpu.float32))
    monkeypatch.setattr(gpu, "set_up", lambda folder, steps: setting)
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="failed: broken"):
        gpu.main()
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert kept["broken"] == {"failed": "RuntimeError: CUDA error: out of luck"}
    assert kept["float32"]["float32, GPU - CPU"] == 0
    shown = capsys.readouterr().out
    assert "FAILED" in shown
    assert "below 1e-5" in shown


def test_every_expectation_is_of_a_part_and_the_parts_stand_in_their_order():
    assert [part.__name__ for part in gpu.PARTS] == [
        *("wheels", "waits", "float32", "arrivals", "widths", "memory", "compiled", "loader", "idle"),
        *("whole", "resume", "cape_z", "methods"),
    ]
    named = dict.fromkeys(gpu.EXPECTED, 0.5)
    lines = gpu.told({"all": named}).splitlines()
    assert len(lines) == 1 + len(gpu.EXPECTED)
    assert all(
        line.split("0.5")[1].strip() == expected
        for line, expected in zip(lines[1:], gpu.EXPECTED.values(), strict=True)
    )


def test_it_runs_through_on_a_cpu_in_two_steps(tmp_path):
    """What `make gpu` does on the day there is a GPU, with two steps of everything."""
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path), "--steps", "2"], capture_output=True, text=True, timeout=480, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    measured = {name for part in gpu.PARTS for name in found[part.__name__]}
    assert set(gpu.EXPECTED) <= measured
    assert found["resume"] == {"steps": 2, "resumed": "equal"}
    assert found["wheels"]["wheels"] == "none missing"
    assert found["arrivals"] == {"batches that arrived changed": 0, "batches": 2}
    assert found["cape_z"]["held-out loss"] > 0
    assert found["memory"]["ECG/s from memory"] > 0
    assert found["versions"]["torch"]
    assert found["methods"]["failed methods"] == "none"
    assert {"byol_small", "scaling_jepa_small"} <= found["methods"]["table"].keys()
    assert "| `scaling_jepa_small` |" in done.stdout


def test_published_methods_are_timed_once_each():
    """CAPE's three runs are one network and loss; ours are no published sizes."""
    found = bench_methods.published()
    assert len([name for name in found if name.startswith("cape_")]) == 1
    assert {"scaling_cpc", "scaling_jepa"} <= found.keys()
    assert not [name for name in found if name.endswith("_small")]
