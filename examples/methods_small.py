"""Each method at its small size on one's own stores: trained once a seed, then a frozen linear probe against no training.

    python examples/methods_small.py OUT --store plain-240.zarr --store cape.zarr --run scaling_jepa_small --run byol_small
    python examples/methods_small.py OUT --store plain-240.zarr --run scaling_jepa_small --seed 0 --seed 1 --seed 2 \\
        --variant moving --variant frozen objective.config.teacher=frozen

A run takes the store of its recipe, and keeps a quarter of the patients out. A variant is a name and changes to every run. The
probe is that of linear_probe.py: age, sex, and the mean AUROC of PTB-XL's five superclasses, fitted on the patients trained on,
tested on those kept out, beside five untrained networks with BatchNorm statistics of the training patients. Intervals draw
patients anew, and with them seeds and initialisations. OUT holds the runs, `results.json`, `table.md`, and `curves.svg`: the
loss over its own mean of the first tenth of the steps, since losses of two methods share no scale. What is there is not done again.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from linear_probe import answers, known, untrained
from numpy.typing import NDArray

import capezoo
import ecgcohorts as ec
from capezoo import pretrain, runs
from capezoo.embedding.adapt import window_starts
from capezoo.evaluate.measure.statistics import Statistic, Weights, auroc, patient_bootstrap, weighted_mean
from capezoo.specs import RunConfig, fingerprint
from capezoo.specs.settings import changed
from capezoo.training.checkpoint import trained
from capezoo.training.data import TrainingData, fitted
from capezoo.zoo.forward import estimate_batch_norm
from capezoo.zoo.forward import features as features_of
from ecgcohorts.report.charts import lines, on_its_own

# A tenth, the default, is 50 recordings of PTB-XL here: intervals of .3 for five classes.
KEPT_OUT = "held_out.fraction=0.25"
SUPERCLASSES = ("norm", "mi", "sttc", "cd", "hyp")
TASKS = {"age": "age error, years", "sex": "sex AUROC", "superclass": "superclass AUROC"}
FEWEST = 20  # recordings tested on, below which a task is left out
NORMS_FROM = 512  # recordings that tell an untrained network's BatchNorm statistics
SMOOTHED = 10  # rows of metrics.csv, of a curve


@dataclass(frozen=True)
class Case:
    """One run with one variant, for some seeds."""

    run: str
    variant: str
    changes: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.run} {self.variant}".strip()

    def config(self, seed: int) -> RunConfig:
        return changed(runs.get(self.run, seed), [KEPT_OUT, *self.changes])

    def folder(self, out: Path, seed: int) -> Path:
        return out / f"{self.name.replace(' ', '-')}-{seed}"


class Probed:
    """The patients of one run as probes see them. Runs on one store that draw alike share one, and the untrained networks."""

    def __init__(self, store: ec.Store, config: RunConfig) -> None:
        self.store, self.config = store, config
        self.data = TrainingData.prepare(store, config)
        index = store.index
        long_enough = index["valid_stop"] - index["valid_start"] >= config.input.length
        self.place = {row: k for k, row in enumerate(index["row"].tolist()) if long_enough[k]}

    @cached_property
    def never_trained(self) -> list[NDArray]:
        signals = np.array([self.place[row] for row in self.data.train["row"].tolist() if row in self.place])
        if len(self.place) == len(self.store.index):
            made = untrained(self.config, self.store, signals)
        else:
            made = untrained(self.config, self.store, None)
            chosen = signals[np.linspace(0, len(signals) - 1, min(len(signals), NORMS_FROM)).astype(int)]
            for one in made:
                estimate_batch_norm(one, [middles(one, self.store, chosen)])
        return [embedded(one, self.store) for one in made]

    def truths(self, task: str) -> Iterator[tuple[str, tuple, tuple]]:
        """Kind, training and test part (places, truth, patients) of each question of a task."""
        held_out = self.data.held_out
        assert held_out is not None, "the run held nobody out"
        for label in SUPERCLASSES if task == "superclass" else (None,):
            parts = []
            for index in (self.data.train, held_out):
                if label is None:
                    rows, truth, patients = known(index, task, list(index.cohorts))
                elif f"label_{label}" in index.columns:
                    there = np.isfinite(index[f"label_{label}"])
                    rows, truth, patients = (index[name][there] for name in ("row", f"label_{label}", "patient"))
                else:
                    return
                here = np.array([row in self.place for row in rows.tolist()], bool)
                places = np.array([self.place[row] for row in rows[here].tolist()], int)
                parts.append((places, truth[here], patients[here]))
            if len(parts[1][0]) >= FEWEST:
                yield "age" if task == "age" else "sex", parts[0], parts[1]

    def measured(self, task: str, each: Sequence[NDArray]) -> tuple[NDArray, list[Statistic]] | None:
        """Patients tested, and the measure of every network: an error, or an AUROC, or the mean of several."""
        # One test set for all networks, so that a gain is of the same patients.
        questions = list(self.truths(task))
        if not questions:
            return None
        found: list[Statistic] = []
        for x in each:
            parts: list[Statistic] = []
            for kind, (here, y, patients), (there, y_test, _) in questions:
                said = answers(kind, x[here], y, patients, x[there])
                error = task == "age"
                parts.append(weighted_mean(np.abs(said - y_test)) if error else partial(auroc, y_test == 1, said))
            found.append(partial(_mean, parts))
        return questions[0][2][2], found


def embedded(model: Any, store: ec.Store) -> NDArray[np.float32]:
    """Features of the middle windows of a store; NaN for recordings that are shorter, which no probe asks."""
    lengths = store.index["valid_stop"] - store.index["valid_start"]
    there = np.flatnonzero(lengths >= model.spec.length)
    if len(there) == len(lengths):
        return capezoo.embed(model, store)
    found = np.full((len(lengths), model.num_features), np.nan, np.float32)
    found[there] = features_of(model, middles(model, store, there))
    return found


def middles(model: Any, store: ec.Store, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Middle windows of recordings that are long enough, scaled."""
    index, length = store.index, model.spec.length
    starts = window_starts(index["valid_start"][places], index["valid_stop"][places], length)
    strips = store.read(index["row"][places])
    windows = np.stack([strip[:, first : first + length] for strip, first in zip(strips, starts, strict=True)])
    return np.asarray(model.spec.scaled(torch.from_numpy(windows), store.lsb_uv))


def _mean(parts: Sequence[Statistic], weights: Weights) -> NDArray[np.float64]:
    return np.mean([part(weights) for part in parts], axis=0)


def _gain(better: float, first: Statistic, second: Statistic, weights: Weights) -> NDArray[np.float64]:
    return better * (first(weights) - second(weights))


def trained_on(store: ec.Store, case: Case, seed: int, out: Path) -> tuple[Any, RunConfig]:
    """Train what is not trained yet, and return encoder and config."""
    folder, config = case.folder(out, seed), fitted(case.config(seed), store.recipe)
    pretrain(store, config, folder)
    model, config, _ = trained(folder)
    model.spec = config.input  # type: ignore[assignment]
    return model, config


def outcome(store: ec.Store, case: Case, out: Path, shared: dict[str, Probed]) -> dict[str, Any]:
    """All numbers of a case, from its file if there is one."""
    kept = case.folder(out, case.seeds[0]).with_suffix(f".{len(case.seeds)}.json")
    asked = fingerprint({"store": store.fingerprint, "runs": [case.config(seed).fingerprint for seed in case.seeds]})
    if kept.exists() and (told := json.loads(kept.read_text("utf-8")))["asked"] == asked:
        return dict(told)
    made = [trained_on(store, case, seed, out) for seed in case.seeds]
    config = made[0][1]
    # Untrained networks depend on no objective: five for each architecture, and not for each method.
    alike = fingerprint({"store": store.fingerprint, "encoder": config.encoder.model_dump(mode="json"),
                         "input": config.input.model_dump(mode="json"), "cohorts": config.cohorts,
                         "seed": config.seed, "sampler": config.sampler.model_dump(mode="json")})  # fmt: skip
    probed = shared.setdefault(alike, Probed(store, config))
    features = [embedded(model, store) for model, _ in made]
    tasks = {}
    for task in TASKS:
        ours, others = probed.measured(task, features), probed.measured(task, probed.never_trained)
        if ours is None or others is None:
            continue
        patients, better = ours[0], -1.0 if task == "age" else 1.0
        # Of several seeds these are drawn anew, else the initialisations.
        apart = [partial(_mean, others[1])] if len(case.seeds) > 1 else others[1]
        gains: list[Statistic] = [partial(_gain, better, one, other) for one in ours[1] for other in apart]
        rows: dict[str, list[Statistic]] = {"trained": ours[1], "untrained": others[1], "gain": gains}
        found = {name: patient_bootstrap(patients, statistics) for name, statistics in rows.items()}
        each = [float(one(np.ones((1, len(patients))))[0]) for one in ours[1]]
        tasks[task] = {"recordings": len(patients), "each": each} | {
            name: [one.value, one.low, one.high] for name, one in found.items()
        }
    told = {"asked": asked, "name": case.name, "run": case.run, "variant": case.variant, "seeds": case.seeds,
            "store": store.fingerprint, "recipe": store.recipe.name, "objective": config.objective.name,
            "encoder": config.encoder.name, "parameters": sum(one.numel() for one in made[0][0].parameters()),
            "runs": [_followed(case.folder(out, seed)) for seed in case.seeds], "tasks": tasks}  # fmt: skip
    kept.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return told


def _followed(folder: Path) -> dict[str, Any]:
    """What metrics.csv says of a run."""
    rows = pd.read_csv(folder / "metrics.csv")
    measured = rows[rows["val_loss"].notna()]
    return {
        "steps": int(rows["step"].iloc[-1]),
        # The median: pauses for probes fall between two rows.
        "ecg_per_s": float(rows["ecg_per_s"].median()),
        "step": rows["step"].tolist(),
        "loss": rows["loss"].tolist(),
        "held_out": [float(measured["val_loss"].iloc[place]) for place in (0, -1)],
        "effective_rank": float(measured["effective_rank"].iloc[-1]),
    }


def table(told: Sequence[dict[str, Any]]) -> str:
    """The numbers of all cases as Markdown."""
    head = ["run", "ECG/s", "held-out loss, first and last", "effective rank"]
    head += [text for name in TASKS.values() for text in (name, "gain over untrained")]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in told:
        each = one["runs"]
        cells = [one["name"], f"{np.median([run['ecg_per_s'] for run in each]):.0f}"]
        cells.append(", ".join(f"{np.mean([run['held_out'][k] for run in each]):.3g}" for k in (0, 1)))
        cells.append(f"{np.mean([run['effective_rank'] for run in each]):.1f}")
        for task in TASKS:
            digits = 2 if task == "age" else 3
            found = one["tasks"].get(task)
            cells += [_limits(found[name], digits) if found else "-" for name in ("trained", "gain")]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _limits(interval: Sequence[float], digits: int) -> str:
    value, low, high = (f"{one:.{digits}f}" for one in interval)
    return f"{value} ({low} to {high})"


def curves(told: Sequence[dict[str, Any]]) -> str:
    """The losses of the first seeds, each over its mean of the first tenth of the steps."""
    series = {}
    for one in told:
        run = one["runs"][0]
        loss = pd.Series(run["loss"])
        start = float(loss[: max(1, len(loss) // 10)].mean())
        smooth = loss.rolling(SMOOTHED, min_periods=1).mean()
        series[one["name"]] = (np.array(run["step"]) / run["steps"], (smooth / start).to_numpy())
    return on_its_own(lines("Loss over that of the first tenth", series, "share of the steps", log=True))


def cases(options: argparse.Namespace) -> list[Case]:
    variants = [(one[0], tuple(one[1:])) for one in options.variant or [[""]]]
    seeds = tuple(options.seed or [0])
    return [Case(run, name, (*options.set, *changes), seeds) for run in options.run for name, changes in variants]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", type=Path, action="append", required=True, help="one a recipe")
    parser.add_argument("--run", action="append", required=True, help="a named run; repeat for more")
    parser.add_argument("--seed", type=int, action="append", help="default: 0")
    parser.add_argument("--variant", nargs="+", action="append", help="a name, then KEY=VALUE as often as needed")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for all runs")
    options = parser.parse_args()
    stores = {store.recipe.name: store for store in map(ec.open, options.store)}
    options.out.mkdir(parents=True, exist_ok=True)
    told: list[dict[str, Any]] = []
    shared: dict[str, Probed] = {}
    for case in cases(options):
        wanted = case.config(case.seeds[0]).input.recipe
        if wanted not in stores:
            sys.exit(f"{case.run}: found stores of {', '.join(stores)}, expected one of recipe {wanted}. Add --store.")
        told.append(outcome(stores[wanted], case, options.out, shared))
        (options.out / "results.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
        (options.out / "table.md").write_text(table(told), "utf-8")
        (options.out / "curves.svg").write_text(curves(told), "utf-8")
        print(table(told[-1:]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
