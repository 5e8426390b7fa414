"""The whole path on simulated hospitals: raw files, one store, two encoders, an evaluation out of distribution, a report.

Run it with `make demo`, or `python examples/demo.py FOLDER [--patients 200] [--seed 0] [--steps 200] [--pairs 64]`.
Every step is a command that you can type yourself; the script only calls them one after the other in FOLDER.
"""

import argparse
import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import capezoo.cli.program
import ecgcohorts.cli.program
from capezoo.evaluate.results import Study

HOSPITALS = ("north", "river", "coast")  # WFDB, GE MUSE XML, CODE-style HDF5
SAMPLERS = {"cape-x": "patient_pairs", "cape-z": "in_distribution"}  # cohorts mixed in a batch; one cohort a batch
HEAD_LR = 1e-3  # the published 1e-4 is for heads trained on tens of thousands of recordings


def commands(patients: int, seed: int, steps: int, pairs: int) -> Iterator[str]:
    """The commands of the demo, in order."""
    yield f"ecgcohorts simulate raw --patients {patients} --seed {seed}"
    yield "ecgcohorts inspect raw/river"
    for hospital in HOSPITALS:
        yield f"ecgcohorts ingest raw/{hospital} store.zarr --cohort raw/{hospital}/cohort.yaml --key demo.key"
    yield "ecgcohorts verify store.zarr"
    yield "ecgcohorts table1 store.zarr"
    for name, sampler in SAMPLERS.items():
        yield (
            f"capezoo pretrain --store store.zarr --out runs/{name} --run smoke --seed {seed} "
            f"--set name={name} --set sampler.name={sampler} --set sampler.groups={pairs} --set max_steps={steps}"
        )
        yield f"capezoo publish runs/{name} weights/{name} --name {name} --store store.zarr"
        yield f"capezoo verify weights/{name}"
        yield f"capezoo embed weights/{name} store.zarr -o embeddings/{name}.zarr"
    weights = " ".join(f"--weights weights/{name}" for name in SAMPLERS)
    yield (
        f"capezoo evaluate all {weights} --weights random --store store.zarr --train-cohort north "
        f"--seed {seed} --set ood.lr={HEAD_LR:g} --allow-seen -o study"  # one store for all: pretraining has seen the tests
    )
    runs = " ".join(f"--run-folder runs/{name}" for name in SAMPLERS)
    yield f"capezoo report -o report.html --study study {runs} --store store.zarr"


def run(command: str) -> None:
    """Say a command, run it in this process (torch is loaded once), and stop the demo if it fails."""
    print(f"\n$ {command}", flush=True)
    program, *arguments = shlex.split(command)
    {"ecgcohorts": ecgcohorts.cli.program.main, "capezoo": capezoo.cli.program.main}[program](arguments)


def last_lines(folder: Path) -> str:
    """The numbers that matter, from the study's own file."""
    found = Study.read(folder / "study").answers["separability"].result
    rows = "\n".join(f"  {name:8} {found.value(name, 'probe_auc'):.3f}" for name in found.weights)
    return (
        f"AUC of a linear probe for the hospital (lower: the encoder knows less of the recorder; .5 is chance)\n{rows}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=200, help="per hospital")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=64, help="patients in a batch")
    options = parser.parse_args()
    if options.folder.exists() and any(options.folder.iterdir()):
        sys.exit(f"{options.folder} is not empty. Remove it (make clean), or name another folder.")
    options.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with contextlib.chdir(options.folder):
        Path("demo.key").write_text("de" * 32 + "\n")  # a known key, so that everybody's demo store is the same
        for command in commands(options.patients, options.seed, options.steps, options.pairs):
            run(command)
    print(f"\n{last_lines(options.folder)}")
    print(f"Report: {options.folder / 'report.html'}  ({time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    main()
