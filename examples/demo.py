"""The effect, on simulated patients: what batches of several devices teach an encoder, beside batches of one device each.

Run it with `make demo`, or `python examples/demo.py FOLDER [--seed 0] [--control-seeds 10]`. First the whole path in small:
raw files of three hospitals, one store, two encoders, weights, an evaluation out of distribution. Then the artefact control,
which shows the effect. Every step is a command that you can type yourself, in FOLDER; the script only calls them.
"""

import argparse
import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import capezoo.cli.program
import ecgcohorts.cli.program
from capezoo.evaluate.artefact.outcome import Outcome
from capezoo.evaluate.artefact.page import in_short

HOSPITALS = ("north", "river", "coast")  # WFDB, GE MUSE XML, CODE-style HDF5
SAMPLERS = {"cape-x": "patient_pairs", "cape-z": "in_distribution"}  # cohorts mixed in a batch; one cohort a batch
HEAD_LR = 1e-3  # the published 1e-4 is for heads trained on tens of thousands of recordings
STRENGTH_UV = 200  # of the devices' signatures, chosen from the sweep over strengths in docs/results.md
CONTROL_PATIENTS = 400  # a quarter of two thirds of them, some 65, teach the heads of a device


def commands(
    patients: int, seed: int, steps: int, pairs: int, control_seeds: int, questions: str = "ood"
) -> Iterator[str]:
    """The commands of the demo, in order. `&` and `wait` as in a shell: two processes share the seeds of the control."""
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
        yield f"capezoo publish runs/{name} weights/{name} --name {name} --digests plain --store store.zarr"
        yield f"capezoo verify weights/{name}"
        yield f"capezoo embed weights/{name} store.zarr -o embeddings/{name}.zarr"
    weights = " ".join(f"--weights weights/{name}" for name in SAMPLERS)
    settings = {
        "ood": f"--lr {HEAD_LR:g}",
        "all": f"--set ood.lr={HEAD_LR:g} --set age_bins.lr={HEAD_LR:g} --set age_bins.runs=3",
    }
    yield (
        f"capezoo evaluate {questions} {weights} --weights random --store store.zarr --train-cohort north "
        f"--seed {seed} {settings[questions]} --allow-seen -o study"  # one store for all: pretraining has seen the tests
    )
    control = ""
    if control_seeds:
        yield from control_commands(seed, control_seeds)
        control = "--study control "
    runs = " ".join(f"--run-folder runs/{name}" for name in SAMPLERS)
    yield f"capezoo report -o report.html {control}--study study {runs} --store store.zarr"


def control_commands(seed: int, seeds: int) -> Iterator[str]:
    """The artefact control: one hospital, so that nothing but the made-up devices tells its patients apart."""
    yield f"ecgcohorts simulate people --patients {CONTROL_PATIENTS} --seed {seed} --hospital north"
    yield "ecgcohorts ingest people/north people.zarr --cohort people/north/cohort.yaml --key demo.key"
    control = (
        f"capezoo evaluate artefact --store people.zarr --cohort north --strength 0 --strength {STRENGTH_UV} -o control"
    )
    half = seeds // 2
    if half:
        yield f"{control} --seed {seed + seeds - half} --seeds {half} &"
    yield f"{control} --seed {seed} --seeds {seeds - half}"
    if half:
        yield "wait"
        yield f"{control} --seed {seed} --seeds {seeds}"


def run(command: str, behind: list[subprocess.Popen[bytes]]) -> None:
    """Say a command, run it in this process (torch is loaded once), and stop the demo if it fails. behind: run beside it."""
    print(f"\n$ {command}", flush=True)
    if command == "wait":
        if any(process.wait() for process in behind):
            sys.exit("The command with & failed; see its message above.")
        return
    program, *arguments = shlex.split(command.removesuffix("&"))
    if command.endswith("&"):
        # Its answer is part of the answer of the command after `wait`.
        behind.append(subprocess.Popen([sys.executable, "-m", f"{program}.cli", *arguments], stdout=subprocess.DEVNULL))
        return
    {"ecgcohorts": ecgcohorts.cli.program.main, "capezoo": capezoo.cli.program.main}[program](arguments)


def last_lines(folder: Path) -> str:
    """The numbers that matter, from the control's own file."""
    rows = in_short(Outcome.read(folder / "control").findings)
    lines = ["Made-up devices, the same hearts: with mixed batches / with in-distribution batches"]
    for condition, cells in rows.iterrows():
        lines.append(f"  {condition}")
        lines += [f"    {name}: {value}" for name, value in zip(rows.columns, cells, strict=True)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=60, help="per hospital")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=32, help="patients in a batch")
    parser.add_argument("--control-seeds", type=int, default=10, help="of the artefact control; 0 leaves it out")
    parser.add_argument("--questions", choices=("ood", "all"), default="ood", help="about the two encoders")
    options = parser.parse_args()
    if options.folder.exists() and any(options.folder.iterdir()):
        sys.exit(f"{options.folder} is not empty. Remove it (make clean), or name another folder.")
    options.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    behind: list[subprocess.Popen[bytes]] = []
    with contextlib.chdir(options.folder):
        Path("demo.key").touch(0o600)  # as keys are kept
        Path("demo.key").write_text("de" * 32 + "\n")  # a known one, so that everybody's demo store is the same
        try:
            sizes = options.patients, options.seed, options.steps, options.pairs, options.control_seeds
            for command in commands(*sizes, options.questions):
                run(command, behind)
        finally:
            # A demo that fails or is stopped leaves nobody computing.
            for process in behind:
                process.terminate()
    if options.control_seeds:
        print(f"\n{last_lines(options.folder)}")
    print(f"Report: {options.folder / 'report.html'}  ({time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    main()
