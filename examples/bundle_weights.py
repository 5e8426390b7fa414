"""Puts a run into the package as weights that load by name, if it beats what was never trained.

    python examples/bundle_weights.py STORE RUN PROBE.json capezoo/zoo/weights/cape_resnet.small_z --summary "..."

PROBE.json is what `examples/linear_probe.py` wrote for that store and run. The run must beat its untrained network and the
simple measures: the lower limits of both gains, for age and for sex, must be above zero. Otherwise nothing is written, and
the exit code is 1. With --for-trying it is bundled all the same, for trying the software, and its card says first what it
does not beat. Numbers are stored in half precision. Afterwards `python docs/_ext/model_pages.py` writes the page of bundled
weights anew.

RUN may be weights that are bundled already: then card and README get the new metrics, and no tensor is touched.
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
from capezoo.zoo.files import CARD, README, SUMS, read_card
from capezoo.zoo.publish import About, licences_of, render
from ecgcohorts.io.durable import sha256_of

USE = "For trying this software and as a starting point for training. Not for clinical use, and not a strong encoder."
FAILURES = (
    "Trained for minutes on a CPU with about a thousand real recordings, most of them one a patient: both views of such a "
    "patient are windows of one recording, which teaches recognising a recording as much as a person.",
    "Most of its training patients are simulated and healthy.",
    "Nothing was tested but age and sex on held-out patients of the cohorts it was trained on.",
)
NAMES = {"age": "age_mae_years", "sex": "sex_auroc"}
METRICS = {
    "trained": "",
    "untrained": "_of_its_random_initialisation",
    "gain": "_gain_over_it",
    "measurements": "_of_measurements",
    "gain_over_measurements": "_gain_over_measurements",
    "trained_and_measurements": "_with_measurements",
    "gain_with_measurements": "_gain_with_measurements",
}
RULE = {"gain": "its random initialisation", "gain_over_measurements": "simple measures of the signal"}


def metrics(told: list[dict[str, Any]], store: str) -> tuple[Metric, ...]:
    """Of the trained network, of what was never trained and of the gains, for the card."""
    return tuple(
        Metric(
            name=NAMES[one["task"]] + ending, cohort="held-out patients of the real cohorts", value=one[name][0],
            low=one[name][1], high=one[name][2], n=one["tested_on"],
            method=f"linear probe fitted on {one['fitted_on']} recordings of training patients, patients drawn anew"
            + (f", {one['initialisations']} initialisations with them" if name in ("untrained", "gain") else "")
            + f"; examples/linear_probe.py, store {store[:16]}",
        )
        for one in told for name, ending in METRICS.items()
    )  # fmt: skip


def not_beaten(told: list[dict[str, Any]]) -> list[str]:
    """A sentence for each gain that may be nothing."""
    return [
        f"{NAMES[one['task']]}: the gain over {what} may be nothing ({one[name][0]:.3f}, 95 % {one[name][1]:.3f} to "
        f"{one[name][2]:.3f})."
        for one in told for name, what in RULE.items() if one[name][1] <= 0
    ]  # fmt: skip


def renew(folder: Path, changes: dict[str, Any]) -> Path:
    """Write card, README and checksums of a weight folder anew, and nothing else."""
    card = read_card(folder).model_copy(update=changes)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", "utf-8")
    (folder / README).write_text(render(card, folder.name), "utf-8")
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256_of(path)}  {path.name}\n" for path in files), "utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("store", "run", "probe", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--summary", required=True)
    parser.add_argument("--commit", help="the code that trained it; default: this checkout's")
    parser.add_argument("--for-trying", action="store_true", help="bundle it whatever it beats, and say so in its card")
    options = parser.parse_args()
    store, kept = ec.open(options.store), json.loads(options.probe.read_text("utf-8"))
    told = [one for one in kept["probes"] if one["run"] == options.run.name]
    if kept["store"] != store.fingerprint or {one["task"] for one in told} != {"age", "sex"}:
        sys.exit(f"{options.probe}: found no probes of {options.run.name} on this store. Run examples/linear_probe.py.")
    lacking = not_beaten(told)
    if lacking and not options.for_trying:
        sys.exit("\n".join([*(f"{options.run.name}, {text}" for text in lacking), "Not bundled."]))
    failures = (*(f"Bundled for trying the software only. {text}" for text in lacking), *FAILURES)
    measured = metrics(told, store.fingerprint)
    if options.out.is_dir():
        changes = {"summary": options.summary, "metrics": measured, "known_failures": failures, "intended_use": USE}
        print(renew(options.out, changes))
        return
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = options.commit or subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    about = About(
        summary=options.summary, intended_use=USE, known_failures=failures, metrics=measured, commit=commit,
        data_licences=licences_of(store), where=options.out.name,
    )  # fmt: skip
    print(publish(options.run, options.out, about, options.out.name, half=True, digests="plain"))


if __name__ == "__main__":
    main()
