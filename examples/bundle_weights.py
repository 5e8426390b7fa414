"""Puts a run into the package as weights that load by name, if it beats its own random initialisation.

    python examples/bundle_weights.py STORE RUN PROBE.json capezoo/zoo/weights/cape_resnet.small_z --summary "..."

PROBE.json is what `examples/linear_probe.py` wrote for that store and run. The lower limits of both gains, age and sex, must
be above zero; otherwise nothing is written, and the exit code is 1. Numbers are stored in half precision. Afterwards
`python docs/_ext/model_pages.py` writes the page of bundled weights anew.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ecgcohorts as ec
from capezoo.specs import Metric
from capezoo.zoo import publish
from capezoo.zoo.publish import About, licences_of

USE = "For trying this software and as a starting point for training. Not for clinical use, and not a strong encoder."
FAILURES = (
    "Trained for minutes on a CPU with about a thousand real recordings, most of them one a patient: both views of such a "
    "patient are windows of one recording, which teaches recognising a recording as much as a person.",
    "Most of its training patients are simulated and healthy.",
    "Nothing was tested but age and sex on held-out patients of the cohorts it was trained on.",
)


def metrics(told: list[dict[str, Any]]) -> tuple[Metric, ...]:
    """Of the trained network, of the untrained one and of the gain, for the card."""
    unit = {"age": "age_mae_years", "sex": "sex_auroc"}
    words = {"trained": "", "untrained": "_of_its_random_initialisation", "gain": "_gain_over_it"}
    return tuple(
        Metric(
            name=unit[one["task"]] + words[name], cohort="held-out patients of the real cohorts", value=one[name][0],
            low=one[name][1], high=one[name][2], n=one["tested_on"],
            method=f"linear probe fitted on {one['fitted_on']} recordings of training patients, patients drawn anew; "
            "examples/linear_probe.py",
        )
        for one in told for name in words
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("store", "run", "probe", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--summary", required=True)
    parser.add_argument("--commit", help="the code that trained it; default: this checkout's")
    options = parser.parse_args()
    store, kept = ec.open(options.store), json.loads(options.probe.read_text("utf-8"))
    told = [one for one in kept["probes"] if one["run"] == options.run.name]
    if kept["store"] != store.fingerprint or {one["task"] for one in told} != {"age", "sex"}:
        sys.exit(f"{options.probe}: found no probes of {options.run.name} on this store. Run examples/linear_probe.py.")
    for one in told:
        if one["gain"][1] <= 0:
            sys.exit(
                f"{options.run.name}, {one['task']}: the gain may be nothing (from {one['gain'][1]:.3f}). Not bundled."
            )
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = options.commit or subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    about = About(
        summary=options.summary, intended_use=USE, known_failures=FAILURES, metrics=metrics(told), commit=commit,
        data_licences=licences_of(store), where=options.out.name,
    )  # fmt: skip
    print(publish(options.run, options.out, about, options.out.name, half=True, digests="plain"))


if __name__ == "__main__":
    main()
