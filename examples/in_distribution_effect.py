"""Do in-distribution batches help? The demo repeated over seeds, CAPE-X and CAPE-Z paired, beside an untrained encoder.

    python examples/in_distribution_effect.py FOLDER --seeds 0 1 2 3 4

A seed draws new simulated hospitals, new initial weights, new batches and a new split. The measures were chosen before
any was looked at: three of how well cohorts separate, and the errors of age and sex heads in cohorts they have not seen.
Writes FOLDER/effect.csv and FOLDER/report.html, and prints the table. `--summary-only` reads what earlier runs left.
"""

import argparse
import contextlib
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd

import capezoo.cli.program
from capezoo.evaluate.results import Study

DEMO = Path(__file__).with_name("demo.py")


def table(folder: Path, seeds: list[int]) -> pd.DataFrame:
    """One row per seed and encoder, one column per measure."""
    rows = []
    for seed in seeds:
        study = Study.read(folder / f"seed{seed}" / "study")
        rows += [{"seed": seed, "encoder": name, **values} for name, values in study.headline().items()]
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--demo", default="", help="options passed on to the demo, in one string")
    parser.add_argument("--summary-only", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.summary_only and any(options.folder.iterdir()):
        sys.exit(
            f"{options.folder} is not empty. Remove it (make clean), or pass --summary-only to read what is there."
        )
    for seed in () if options.summary_only else options.seeds:
        command = [sys.executable, str(DEMO), str(options.folder / f"seed{seed}"), "--seed", str(seed)]
        subprocess.run([*command, *shlex.split(options.demo)], check=True)
    found = table(options.folder, options.seeds)
    found.to_csv(options.folder / "effect.csv", index=False)
    print(found.to_string(index=False, float_format="{:.3f}".format))
    wide = found.drop(columns="seed").groupby("encoder", sort=False)
    print("\nmean over seeds\n" + wide.mean().to_string(float_format="{:.3f}".format))
    pairs = found.set_index(["seed", "encoder"]).unstack("encoder")
    difference = pairs.xs("cape-z", axis=1, level="encoder") - pairs.xs("cape-x", axis=1, level="encoder")
    print("\nCAPE-Z minus CAPE-X, per seed\n" + difference.to_string(float_format="{:+.3f}".format))
    with contextlib.chdir(options.folder):
        studies = [part for seed in options.seeds for part in ("--study", f"seed{seed}/study")]
        capezoo.cli.program.main(["report", "-o", "report.html", *studies])


if __name__ == "__main__":
    main()
