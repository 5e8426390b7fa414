"""ECGs a second and memory of every method at its published size, fed from memory: one table, in one call.

    python tests/benchmarks/bench_methods.py                          # on a GPU, at the published batches, in bfloat16
    python tests/benchmarks/bench_methods.py --groups 4 --steps 2     # on a CPU, a process each; float32
    python tests/benchmarks/bench_methods.py --run 'scaling_*_small'  # other runs

Runs that differ in their batches' cohorts alone are timed once. A step is forward, backward, optimiser and what moves
after it. A CPU's speed is that of its time, all threads together, so that a busy machine does not change it. Memory: the most
that the GPU had allocated, or the whole process on a CPU.
"""

import argparse
import json
import resource
import sys
import time
from fnmatch import fnmatch
from multiprocessing import get_context
from typing import Any

import torch

from capezoo import runs
from capezoo.specs import RunConfig
from capezoo.specs.settings import changed
from capezoo.training import loop as train
from capezoo.training.optimiser import Optimiser
from ecgcohorts.errors import EcgError, SpecError

WARM, STEPS = 3, 20
HEAD = "| run | parameters | windows a step | ECG/s | memory, GB |\n|---|---|---|---|---|"
Found = dict[str, Any]


def published(pattern: str = "*") -> dict[str, RunConfig]:
    """Runs at their published size, one of those that differ in cohorts or batches of them alone; or those of a pattern."""
    found: dict[str, RunConfig] = {}
    seen = set[str]()
    for name in runs.names():
        ours = name == "smoke" or name.endswith("_small")
        if not fnmatch(name, pattern) or (pattern == "*" and ours):
            continue
        try:
            config = runs.get(name, seed=0)
        # Of one cohort that is to be named: as large as its study's others.
        except SpecError:
            continue
        alike = config.model_dump_json(include={"encoder", "objective", "input", "optimiser"})
        if alike not in seen:
            seen.add(alike)
            found[name] = config
    return found


def timed(config: RunConfig, on: torch.device, warm: int, steps: int) -> Found:
    """Train on one random batch, and tell speed and memory."""
    sampler, of = config.sampler, config.input
    trainee = train._Trainee(config).to(on).train()
    rates = Optimiser(trainee.named_parameters(), config.optimiser, on)
    shape = (sampler.groups, sampler.views, len(of.leads), of.length)
    fields = {
        "signal": torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(on),
        "valid": torch.full(shape[:2], of.length, device=on),
        "group": torch.arange(sampler.groups, device=on),
        "cohort": None,
        "total_steps": warm + steps,
    }
    clock = time.perf_counter if on.type == "cuda" else time.process_time
    # Random numbers and not a store: what is timed is the method, and its labels are none.
    begun = clock()
    for step in range(warm + steps):
        if step == warm:
            _wait(on)
            begun = clock()
        rates.at_step(rates.torch.param_groups, step, warm + steps)
        generator = torch.Generator().manual_seed(step)
        with torch.autocast(on.type, torch.bfloat16, enabled=on.type == "cuda"):
            loss, _ = trainee(**fields, step=step, generator=generator)
        loss.backward()
        rates.torch.step()
        rates.torch.zero_grad(set_to_none=True)
        trainee.objective.after_step(trainee.encoder, step, warm + steps)
    _wait(on)
    windows = sampler.groups * sampler.views
    return {
        "parameters": sum(one.numel() for one in trainee.encoder.parameters()),
        "windows": windows,
        "ecg_per_s": windows * steps / (clock() - begun),
        "memory_gb": _memory_gb(on),
        "loss": float(loss.detach()),
    }


def _wait(on: torch.device) -> None:
    if on.type == "cuda":
        torch.cuda.synchronize()


def _memory_gb(on: torch.device) -> float:
    if on.type == "cuda":
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most / 1e9
    # Linux counts in kilobytes. The most since the process began: hence a process for each run.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measured(configs: dict[str, RunConfig], steps: int | None = None, alone: bool = True) -> dict[str, Found]:
    """Time all runs; one that fails is named, and the others go on. alone: each in a process of its own."""
    on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    warm, steps = (1, steps) if steps else (WARM, STEPS)
    found: dict[str, Found] = {}
    for name, config in configs.items():
        try:
            if alone and on.type == "cpu":
                with get_context("spawn").Pool(1) as pool:
                    found[name] = pool.apply(timed, (config, on, warm, steps))
            else:
                found[name] = timed(config, on, warm, steps)
        # Of any kind: memory above all.
        except (RuntimeError, EcgError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        sys.stderr.write(f"{name}: {found[name]}\n")
    return found


def table(found: dict[str, Found]) -> str:
    rows = [
        f"| `{name}` | failed: {one['failed']} | | | |"
        if "failed" in one
        else f"| `{name}` | {one['parameters']:,} | {one['windows']} | {one['ecg_per_s']:.3g} | {one['memory_gb']:.1f} |"
        for name, one in found.items()
    ]
    return "\n".join([HEAD, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="*", help="names of runs, such as 'scaling_*'; default: all published ones")
    parser.add_argument("--groups", type=int, help="patients or recordings in a batch; default: as published")
    parser.add_argument("--steps", type=int, help=f"timed steps, after one; default: {STEPS} after {WARM}")
    parser.add_argument("--json", help="file for all numbers")
    options = parser.parse_args()
    few = [f"sampler.groups={options.groups}"] if options.groups else []
    found = measured(
        {name: changed(config, few) for name, config in published(options.run).items()}, options.steps or None
    )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
