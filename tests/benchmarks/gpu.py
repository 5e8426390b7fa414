"""What is worth knowing on the day a GPU can be had, in one call of under eight minutes: measured beside expected.

    make gpu                       # or, where the packages are installed: python tests/benchmarks/gpu.py OUT
    python tests/benchmarks/gpu.py OUT --steps 2      # the same path on a CPU, with small networks: it proves nothing

A machine with torch, numpy, pandas, pyarrow, scipy, scikit-learn, timm and safetensors needs a few small wheels more, ours
among them: `make gpu-wheels` fetches them for its Python. There: pip install --no-index --no-deps --target SITE WHEELS/*.whl

The parts stand in the order of what would spoil those after them. OUT/results.json is written anew after each; one that
fails is named in it, and the others go on. Expected figures are for one H200 and 1,024 ECGs a step, from 7.8 TFLOP and 31 GB
of traffic a step: 35 % of the matrix ceiling as it is, 50 % compiled.
"""

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent))
import bench_methods
import bench_training as bench
import results
import wheels as needed

import capezoo
from capezoo import runs
from capezoo.devices import _Arriving
from capezoo.encoders._conv import SameConv
from capezoo.specs import RunConfig
from capezoo.specs.settings import changed
from capezoo.training import device
from capezoo.training import loop as train
from capezoo.zoo.forward import features
from ecgcohorts.loading.loader import Loader
from ecgcohorts.store import AnyStore

LIMIT_S = 8 * 60
RESUMED, CAPE_Z, WHOLE = 40, 600, 500  # steps
WIDTHS = (192, 196, 200)  # 196 is the published one, and no multiple of 8
EXPECTED = {
    "wheels": "none missing",
    "warnings a step": "at most 1",
    "float32, GPU - CPU": "below 1e-5",
    "batches that arrived changed": "0",
    "192, 196, 200 channels, ms": "196 slowest: pad inside if 200 is faster",
    "ECG/s from memory": "28000",
    "ECG/s from memory, compiled": "41000",
    "TFLOP a step": "7.8",
    "host, ms a step": "6 to 8",
    "loader, CPU ms a batch": "71",
    "GPU idle": "below 5%",
    "ECG/s of the run": "0.95 of that from memory",
    "share of pauses": "below 5%",
    "resumed": "equal, or within rounding",
    "held-out loss": "below the untrained one",
    "failed methods": "none",
}
Found = dict[str, Any]


class _Stopped(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


@dataclass(frozen=True)
class Setting:
    """What the parts measure, and where they may write."""

    store: AnyStore
    folder: Path
    cases: list[bench.Case]
    steps: int | None  # so many steps of everything: a test of this script

    @property
    def on_gpu(self) -> bool:
        return torch.cuda.is_available()

    @contextmanager
    def run(self, place: int = 0) -> Iterator[tuple[train._Run, device._Loaded]]:
        case = self.cases[place]
        with device._computing(case.config.compute, torch.device("cuda" if self.on_gpu else "cpu")):
            yield bench.set_up(self.store, case, self.folder / f"case{place}")


def wheels(setting: Setting) -> Found:
    there: dict[str, str | None] = {}
    for name in (*needed.THERE, *needed.SMALL):
        try:
            there[name] = version(name)
        except PackageNotFoundError:
            there[name] = None
    missing = [name for name, number in there.items() if number is None]
    return {"wheels": ", ".join(missing) + " missing" if missing else "none missing", "versions": there}


def waits(setting: Setting) -> Found:
    """Count what makes the host wait in a step, by torch's debug mode."""
    steps = setting.steps or 5
    with setting.run() as (run, _), closing(run.data.batches(run.courier.memory)) as batches:
        feed = device.Feed(batches, run.courier, run.data.sampler.state_dict)
        _train(run, feed, range(2))
        if setting.on_gpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                _train(run, feed, range(2, 2 + steps))
        finally:
            if setting.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    said = sorted({str(one.message).splitlines()[0] for one in caught})
    return {"warnings a step": len(caught) / steps, "said": said}


def float32(setting: Setting) -> Found:
    """Features of windows in float32, here and on the CPU."""
    model = capezoo.create_model("cape_resnet")
    windows = np.random.default_rng(0).normal(0, 0.3, (8, 8, model.spec.length)).astype(np.float32)
    here, there = (features(model, windows, name) for name in ("auto", "cpu"))
    return {"float32, GPU - CPU": float(np.abs(here - there).max() / np.abs(there).max())}


def arrivals(setting: Setting) -> Found:
    """Sum each batch on the device while its copies are slow: one used too early has another sum."""
    wrong, steps = 0, setting.steps or 20
    with setting.run() as (run, _), closing(run.data.batches(run.courier.memory)) as batches:
        copy = run.courier._copy

        def slowed(tensor: torch.Tensor) -> torch.Tensor:
            torch.cuda._sleep(20_000_000)  # cycles: some 10 ms
            return copy(tensor)

        if setting.on_gpu:
            run.courier._copy = slowed  # type: ignore[method-assign]
        for step in range(steps):
            batch = next(batches)
            expected = int(batch.signal.sum(dtype=np.int64)), int(batch.plan.patients.sum())
            loaded = run.courier.arrived(run.courier.send(batch, "views", step))
            wrong += (int(loaded.signal.sum(dtype=torch.int64)), int(loaded.group.sum())) != expected
    return {"batches that arrived changed": wrong, "batches": steps}


def widths(setting: Setting) -> Found:
    """Time the layers that touch the middle width, forward and backward: 44 % of the network's work."""
    on = torch.device("cuda" if setting.on_gpu else "cpu")
    batch, dtype = (1024, torch.bfloat16) if setting.on_gpu else (2, torch.float32)
    found = {}
    for width in WIDTHS:
        layers = (
            (128, width, 1, 700),
            (width, width, 4, 700),
            (width, 256, 1, 175),
        )  # channels, filters, stride, samples
        found[width] = sum(_layer_ms(*layer, batch, on, dtype) for layer in layers)
    return {"192, 196, 200 channels, ms": " ".join(f"{ms:.2f}" for ms in found.values())}


# Many parameters because four are a layer, and three what it is timed on.
def _layer_ms(
    channels: int, filters: int, stride: int, samples: int, batch: int, on: torch.device, dtype: torch.dtype
) -> float:
    layer = SameConv(channels, filters, 16, stride, bias=False).to(on, dtype)
    signal = torch.ones(batch, channels, 1, samples, device=on, dtype=dtype)
    x = signal.contiguous(memory_format=torch.channels_last).requires_grad_()
    return 1e3 * bench.best_seconds(lambda: layer(x).sum().backward(), on, 6)


def memory(setting: Setting) -> Found:
    """Speed on one batch that is on the device, the work of a step, and the time the host takes to launch it."""
    case = setting.cases[0]
    with setting.run() as (run, loaded):
        rate = bench.from_memory(run, loaded, case)
        gflop = bench.gflop_per_ecg(run, loaded, case)
        spent = []
        for step in range(4):
            begun = time.perf_counter()
            train._step(run, step, loaded)
            spent.append(1e3 * (time.perf_counter() - begun))
            if setting.on_gpu:
                torch.cuda.synchronize()
    return {"ECG/s from memory": round(rate), "TFLOP a step": gflop * case.batch / 1e3, "host, ms a step": min(spent)}


def compiled(setting: Setting) -> Found:
    with setting.run(-1) as (run, loaded):
        return {"ECG/s from memory, compiled": round(bench.from_memory(run, loaded, setting.cases[-1]))}


def loader(setting: Setting) -> Found:
    """ECGs a second of the loader alone, by its threads, and what a batch costs of all cores."""
    case, steps, found = setting.cases[0], setting.steps or 20, {}
    data = train.TrainingData.prepare(setting.store, case.config)
    for threads in (1, 2, 4, 8):
        with closing(
            Loader(setting.store, data.sampler, case.config.input.length, threads=threads).endless()
        ) as batches:
            next(batches)
            begun, cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                next(batches)
            found[threads] = case.batch * steps / (time.perf_counter() - begun)
            cpu_ms = 1e3 * (time.process_time() - cpu) / steps
    return {
        "loader, CPU ms a batch": cpu_ms,
        "ECG/s by threads": {str(key): round(rate) for key, rate in found.items()},
    }


def idle(setting: Setting) -> Found:
    with setting.run() as (run, _):
        share = bench.idle_share(run)
        parts = bench.stages(run, setting.cases[0])
    return {"GPU idle": "no GPU" if share is None else f"{share:.1%}", "ms a step": parts}


def whole(setting: Setting) -> Found:
    """Train as a recipe does: held-out patients, probes, curves, checkpoints. Both speeds, and what lies between them."""
    steps = setting.steps or WHOLE
    often = [
        f"max_steps={steps}",
        "held_out.fraction=0.1",
        "probes.patients=250",
        "curves=true",
        "checkpoint_every=250",
    ]
    config = changed(setting.cases[0].config, [*often, f"held_out.every_steps={min(250, steps)}", "log_every=10"])
    seen: list[train.Report] = []
    ends: list[float] = []

    def tell(report: train.Report) -> None:
        seen.append(report)
        ends.append(time.perf_counter())

    train.pretrain(setting.store, config, setting.folder / "whole", progress=tell)
    wall = seen[-1].wall_ecg_per_s
    warm = min(20, steps - 1)
    # Of steps alone: the median, since a pause falls between two of them.
    alone = config.sampler.groups * config.sampler.views / float(np.median(np.diff(ends[warm - 1 :] or ends)))
    # Of a few steps, each with a pause behind it, no step stands alone.
    share = f"{1 - wall / alone:.1%}" if steps > config.held_out.every_steps else "not measured: too few steps"
    return {"ECG/s of the run": round(alone), "with pauses": round(wall), "share of pauses": share}


def resume(setting: Setting) -> Found:
    """Train twice, the second time stopped half way and called again, and compare the losses."""
    steps = setting.steps or RESUMED
    config = changed(_small(steps, setting), [f"checkpoint_every={max(1, steps // 4)}", "probes.patients=0"])
    undisturbed: list[float] = []
    store, folder = setting.store, setting.folder
    train.pretrain(store, config, folder / "undisturbed", progress=lambda report: undisturbed.append(report.loss))
    stopped: dict[int, float] = {}

    def tell(report: train.Report) -> None:
        stopped[report.step] = report.loss
        if report.step == max(1, steps // 2) and len(stopped) == report.step:
            raise _Stopped

    try:
        train.pretrain(store, config, folder / "stopped", progress=tell)
    except _Stopped:
        train.pretrain(store, config, folder / "stopped", progress=lambda r: stopped.update({r.step: r.loss}))
    largest = max(abs(undisturbed[step - 1] - stopped[step]) for step in range(1, steps + 1))
    # On a GPU the order of sums may differ: told, and not judged.
    return {"resumed": "equal" if largest == 0 else f"within {largest:.2e}", "steps": steps}


def cape_z(setting: Setting) -> Found:
    """Train a small CAPE-Z and see whether it learns."""
    seen: list[train.Report] = []
    steps, begun = setting.steps or CAPE_Z, time.perf_counter()
    train.pretrain(setting.store, _small(steps, setting), setting.folder / "cape_z", progress=seen.append)
    last = [report.held_out for report in seen if report.held_out][-1]
    assert last is not None
    known = {"untrained": last.untrained, "effective_rank": last.effective_rank}
    return {"held-out loss": last.loss, **known, "seconds": time.perf_counter() - begun}


def methods(setting: Setting) -> Found:
    """ECGs a second and memory of every method at its published size."""
    few = ["sampler.groups=4"] if setting.steps else []
    configs = bench_methods.published("*_small" if setting.steps else "*")
    made = {name: changed(config, few) for name, config in configs.items()}
    found = bench_methods.measured(made, setting.steps, alone=False)
    failed = [name for name, one in found.items() if "failed" in one]
    return {"failed methods": ", ".join(failed) or "none", "table": found}


PARTS: tuple[Callable[[Setting], Found], ...] = (
    wheels, waits, float32, arrivals, widths, memory, compiled, loader, idle, whole, resume, cape_z,
    methods,
)  # fmt: skip


def _train(run: train._Run, feed: device.Feed, steps: range) -> None:
    """Make steps as the training loop makes them, numbers one late."""
    unread: list[tuple[_Arriving, int, device._Loaded]] = []
    for step in steps:
        loaded = feed.take(step)
        unread.append((_Arriving(train._step(run, step, loaded), run.fabric.device), step, loaded))
        feed.fetch(step + 1)
        if len(unread) > 1:
            train._require_finite(*unread.pop(0))
    train._require_finite(*unread.pop(0))


def _small(steps: int, setting: Setting) -> RunConfig:
    half = ["compute.precision=bf16-mixed"] if setting.on_gpu else []
    few = ["sampler.groups=4"] if setting.steps else []
    often = [f"max_steps={steps}", f"held_out.every_steps={max(1, steps // 6)}", "curves=false"]
    return changed(
        runs.get("smoke", seed=0), [*half, *few, *often, "sampler.small_groups=drop", "held_out.fraction=0.2"]
    )


def set_up(folder: Path, steps: int | None) -> Setting:
    """Make the store of three hospitals, and choose what is measured."""
    on_gpu = torch.cuda.is_available()
    patients = 24 if steps else 700 if on_gpu else 90
    store = bench.make_store(folder, patients, ("north", "river", "coast"), 8 if on_gpu else 1)
    cases = bench.cases(on_gpu)
    if steps:
        cases = [
            replace(case, config=changed(case.config, ["sampler.groups=4"]), warm=1, steps=steps) for case in cases
        ]
    return Setting(store, folder, cases if on_gpu else [cases[0]], steps)


def told(found: dict[str, Found]) -> str:
    """Return measured beside expected, a line each."""
    lines = [f"{'what':<32}{'measured':<32}expected"]
    for part, numbers in found.items():
        if "failed" in numbers:
            lines.append(f"{part:<32}{'FAILED':<32}{numbers['failed']}")
        for name in (name for name in numbers if name in EXPECTED):
            value = numbers[name]
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"{name:<32}{shown:<32}{EXPECTED[name]}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the store, the runs and results.json")
    parser.add_argument("--steps", type=int, help="so many steps of everything: a test of the script itself")
    options = parser.parse_args()
    begun = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    setting = set_up(options.out, options.steps)
    about: Found = {
        "device": torch.cuda.get_device_name() if setting.on_gpu else "cpu",
        "machine": results.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        "store": {"fingerprint": setting.store.fingerprint, "records": len(setting.store.index)},
    }
    found: dict[str, Found] = {}
    for part in PARTS:
        try:
            found[part.__name__] = part(setting)
        # Of any kind: the machine is lent for minutes, and the parts behind this one are still worth having.
        except Exception as error:
            found[part.__name__] = {"failed": f"{type(error).__name__}: {error}"}
        about["seconds"] = time.perf_counter() - begun
        (options.out / "results.json").write_text(json.dumps(about | found, indent=1) + "\n", "utf-8")
        sys.stdout.write(f"{about['seconds']:6.0f} s  {part.__name__}\n")
        sys.stdout.flush()
    sys.stdout.write(told(found) + "\n")
    if "table" in found.get("methods", {}):
        sys.stdout.write(bench_methods.table(found["methods"]["table"]) + "\n")
    failed = [name for name, numbers in found.items() if "failed" in numbers]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    if about["seconds"] > LIMIT_S:
        sys.exit(f"took {about['seconds']:.0f} s, expected at most {LIMIT_S}")


if __name__ == "__main__":
    main()
