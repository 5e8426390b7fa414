"""What is worth knowing on the day a GPU can be had, in one call of under eight minutes: results.json.

    make gpu                       # or, where ecgcohorts[zoo] is installed: python tests/benchmarks/gpu.py OUT
    python tests/benchmarks/gpu.py OUT --steps 2      # the same path on a CPU, with small networks: it proves nothing

Wheels it needs on a bare machine: torch built for its CUDA, timm, lightning-fabric, scikit-learn, zarr, numcodecs, pandas,
pyarrow, pydantic, scipy (what `pip install -e '.[zoo]'` brings). Nothing is downloaded: the store is simulated.

speed: ECGs a second of `cape_resnet` in bfloat16, from the store and from one batch in the GPU's memory.
resume: losses of a run that was stopped half way and called again, beside those of an undisturbed one; on a GPU the order
of sums may differ, so the largest difference is told and not judged.
cape_z: held-out loss of a small CAPE-Z at its start and end, the untrained loss, rank, seconds.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parent))
import bench_training as bench
import results

from capezoo import runs
from capezoo.cli.settings import changed
from capezoo.specs import RunConfig
from capezoo.training import loop as train
from ecgcohorts.store import AnyStore

LIMIT_S = 8 * 60
RESUMED, CAPE_Z = 40, 600  # steps


class _Stopped(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


def speed(store: AnyStore, folder: Path, steps: int | None) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    found = {}
    for case in bench.cases(on_gpu)[: 1 if steps else None]:
        if steps:
            case = bench.Case(case.name, case.config, 1, steps)
        run, loaded = bench.set_up(store, case, folder / "speed")
        memory = bench.from_memory(run, loaded, case)
        found[case.name] = {"store": bench.from_store(store, case, folder / "speed"), "memory": memory}
    return found


def resume(store: AnyStore, folder: Path, steps: int) -> dict[str, Any]:
    """Train twice, the second time stopped half way and called again, and compare the losses."""
    config = changed(_small(steps), [f"checkpoint_every={max(1, steps // 4)}", "probes.patients=0"])
    whole: list[float] = []
    train.pretrain(store, config, folder / "whole", progress=lambda report: whole.append(report.loss))
    stopped: dict[int, float] = {}

    def tell(report: train.Report) -> None:
        stopped[report.step] = report.loss
        if report.step == max(1, steps // 2) and len(stopped) == report.step:
            raise _Stopped

    try:
        train.pretrain(store, config, folder / "stopped", progress=tell)
    except _Stopped:
        train.pretrain(store, config, folder / "stopped", progress=lambda r: stopped.update({r.step: r.loss}))
    differences = [abs(whole[step - 1] - stopped[step]) for step in range(1, steps + 1)]
    return {"steps": steps, "equal": max(differences) == 0, "largest_difference": max(differences)}


def cape_z(store: AnyStore, folder: Path, steps: int) -> dict[str, Any]:
    seen: list[train.Report] = []
    begun = time.perf_counter()
    train.pretrain(store, _small(steps), folder / "cape_z", progress=seen.append)
    measured = [report for report in seen if report.held_out]
    first, last = measured[0].held_out, measured[-1].held_out
    assert first is not None
    assert last is not None
    return {
        "steps": steps,
        "seconds": time.perf_counter() - begun,
        "held_out": {"step": measured[0].step, "loss": first.loss},
        "held_out_end": {"step": measured[-1].step, "loss": last.loss, "untrained": last.untrained},
        "effective_rank": last.effective_rank,
    }


def _small(steps: int) -> RunConfig:
    half = ["compute.precision=bf16-mixed"] if torch.cuda.is_available() else []
    often = [f"max_steps={steps}", f"held_out.every_steps={max(1, steps // 6)}", "curves=false"]
    return changed(runs.get("smoke", seed=0), [*half, *often, "sampler.small_groups=drop", "held_out.fraction=0.2"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the store, the runs and results.json")
    parser.add_argument("--steps", type=int, help="so many steps of everything: a test of the script itself")
    options = parser.parse_args()
    begun, on_gpu, steps = time.perf_counter(), torch.cuda.is_available(), options.steps
    options.out.mkdir(parents=True, exist_ok=True)
    some = (700, ("north", "river", "coast"), 8) if on_gpu else (90, ("north",), 1)
    store = bench.make_store(options.out, *some)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "machine": results.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
        "store": {"fingerprint": store.fingerprint, "records": len(store.index)},
    }
    for name, part in (
        ("resume", lambda: resume(store, options.out, steps or RESUMED)),
        ("cape_z", lambda: cape_z(store, options.out, steps or CAPE_Z)),
        ("speed", lambda: speed(store, options.out, steps)),
    ):
        found[name] = part()
        found["seconds"] = time.perf_counter() - begun
        # After every part: what was measured is kept if the machine is taken away.
        (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if found["seconds"] > LIMIT_S:
        sys.exit(f"took {found['seconds']:.0f} s, expected at most {LIMIT_S}")


if __name__ == "__main__":
    main()
