"""Is a run worth more than no training? A frozen linear probe for age and sex, tested on patients never trained on.

    python examples/linear_probe.py STORE RUN [RUN ...] [--cohorts ptb_xl code15 ...] [-o probe.json]

RUN: folder of a run, or published weights, whose card says how they were trained. The probe (ridge or logistic regression
on standardised features, its penalty chosen among patients) is fitted on the patients a run trained on and tested on those
it held out. Beside each run stand its network untrained (five initialisations, with BatchNorm statistics of the patients
that the probe is fitted on), the same as made, 19 simple measures a lead, and these with the features of the run. Gains: of
the run over the untrained and over the measures, and of both together over the measures alone. 95 % intervals draw patients
anew, and initialisations with them. Prints a table, and writes it if asked to.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

import capezoo
import ecgcohorts as ec
from capezoo import adaptation, encoders
from capezoo.embedding.from_store import estimate_norms
from capezoo.evaluate.measure.measurements import Measurements
from capezoo.evaluate.measure.statistics import Interval, Statistic, Weights, auroc, patient_bootstrap, weighted_mean
from capezoo.specs import RunConfig, derive_seed
from capezoo.training.checkpoint import trained
from capezoo.training.data import TrainingData
from capezoo.zoo.create import load
from capezoo.zoo.files import read_card
from capezoo.zoo.listing import locate
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex

PENALTIES = np.logspace(0, 5, 11)  # of the ridge; their inverses for the logistic regression
FOLDS = 5
INITIALISATIONS = 5
ROWS = ("trained", "untrained", "untrained_raw", "measurements", "trained_and_measurements")
# Title -> what is compared with what.
GAINS = {
    "gain": ("trained", "untrained"),
    "gain_over_measurements": ("trained", "measurements"),
    "gain_with_measurements": ("trained_and_measurements", "measurements"),
}


def run_or_weights(name: str) -> tuple[nn.Module, RunConfig]:
    """A trained encoder and how it was trained: from the folder of a run, or from published weights."""
    if (Path(name) / "config.yaml").is_file():
        model, config, _ = trained(Path(name))
        model.spec = config.input  # type: ignore[assignment]
        return model, config
    folder = locate(name)
    training = read_card(folder).training
    if training is None:
        sys.exit(f"{name}: found weights that do not say how they were trained, expected those of a run.")
    return load(folder), training.run


def untrained(config: RunConfig, store: ec.Store, fitted_on: NDArray[np.int64] | None) -> list[nn.Module]:
    """The network with the weights that the run began with, and with four others.

    fitted_on: entries of the index whose signals tell the BatchNorm statistics; None leaves them at 0 and 1, as made.
    """
    made = []
    for k in range(INITIALISATIONS):
        model = encoders.build(config.encoder, derive_seed(config.seed, "encoder", *([k] if k else []))).eval()
        model.spec = config.input  # type: ignore[assignment]
        made.append(model if fitted_on is None else estimate_norms(model, store, adaptation(model, store), fitted_on))
    return made


def known(index: CohortIndex, task: str, cohorts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray]:
    """Rows with a label in some cohorts, their labels and patients."""
    if task == "age":
        label = index["age"].astype(float)
        there = np.isfinite(label) & (label < AGE_CAP_YEARS)
    else:
        label = (index["sex"] == SEX_CODES["male"]).astype(float)
        there = np.isin(index["sex"], [SEX_CODES["male"], SEX_CODES["female"]])
    there &= np.isin(np.array(index.cohorts)[index["cohort"]], cohorts)
    return index["row"][there], label[there], index["patient"][there]


def answers(task: str, x: NDArray, y: NDArray, patients: NDArray, x_test: NDArray) -> NDArray[np.float64]:
    """Of a probe fitted on x and y."""
    scaler = StandardScaler().fit(x)
    folds = list(GroupKFold(FOLDS).split(x, y, patients))
    if task == "age":
        probe = RidgeCV(alphas=PENALTIES, cv=folds, scoring="neg_mean_absolute_error").fit(scaler.transform(x), y)
        return np.asarray(probe.predict(scaler.transform(x_test)))
    sex = LogisticRegressionCV(
        Cs=1 / PENALTIES, cv=folds, scoring="roc_auc", l1_ratios=(0,), use_legacy_attributes=False, max_iter=2000
    ).fit(scaler.transform(x), y)
    return np.asarray(sex.decision_function(scaler.transform(x_test)))


def gain(better: float, first: Statistic, second: Statistic, weights: Weights) -> NDArray[np.float64]:
    """How much better the first is than the second. better: the sign of what is good."""
    return better * (first(weights) - second(weights))


def compare(task: str, given: dict[str, list[NDArray]], y: NDArray, patients: NDArray) -> dict[str, Interval]:
    """The error in years or the AUROC of each row of answers, and gains: how much better the one is than the other.

    given: row -> answers of each initialisation, which is one for what has none.
    """
    if task == "age":
        metric = {name: [weighted_mean(np.abs(answer - y)) for answer in each] for name, each in given.items()}
        better = -1.0
    else:
        metric = {name: [partial(auroc, y == 1, answer) for answer in each] for name, each in given.items()}
        better = 1.0
    found = {name: patient_bootstrap(patients, statistics) for name, statistics in metric.items()}
    for title, (first, second) in GAINS.items():
        pairs = [(metric[first][0], other) for other in metric[second]]
        found[title] = patient_bootstrap(patients, [partial(gain, better, *pair) for pair in pairs])
    return found


def probe(store: ec.Store, run: str, cohorts: list[str]) -> list[dict[str, Any]]:
    """One entry a task: how many recordings and patients, and intervals of all rows and gains."""
    model, config = run_or_weights(run)
    data = TrainingData.prepare(store, config)
    assert data.held_out is not None, "the run held nobody out"
    place = {row: number for number, row in enumerate(store.index["row"].tolist())}
    in_cohorts = np.isin(np.array(data.train.cohorts)[data.train["cohort"]], cohorts)
    # Labelled or not: only their signals are looked at.
    signals = np.array([place[row] for row in data.train["row"][in_cohorts].tolist()])
    models = {
        "trained": [model],
        "untrained": untrained(config, store, signals),
        "untrained_raw": untrained(config, store, None),
        "measurements": [Measurements(config.input.model_copy(update={"normalisation": "none"}))],
    }
    of = {name: [capezoo.embed(one, store) for one in each] for name, each in models.items()}
    of["trained_and_measurements"] = [np.concatenate([of["trained"][0], of["measurements"][0]], axis=1)]
    told = []
    for task in ("age", "sex"):
        rows, y, patients = known(data.train, task, cohorts)
        test_rows, y_test, test_patients = known(data.held_out, task, cohorts)
        here, there = ([place[row] for row in part.tolist()] for part in (rows, test_rows))
        given = {name: [answers(task, x[here], y, patients, x[there]) for x in each] for name, each in of.items()}
        found = compare(task, given, y_test, test_patients)
        told.append({
            "run": Path(run).name, "task": task, "fitted_on": len(rows), "tested_on": len(test_rows),
            "test_patients": len(np.unique(test_patients)), "initialisations": INITIALISATIONS,
            **{name: [one.value, one.low, one.high] for name, one in found.items()},
        })  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--cohorts", nargs="+", help="default: all")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    store = ec.open(options.store)
    told = [one for run in options.runs for one in probe(store, run, options.cohorts or list(store.index.cohorts))]
    for one in told:
        print(f"{one['run']}, {one['task']}, {one['tested_on']} recordings of {one['test_patients']} patients")
        for name in (*ROWS, *GAINS):
            print(f"  {name:25} {one[name][0]:7.3f}  ({one[name][1]:.3f} to {one[name][2]:.3f})")
    if options.out:
        options.out.write_text(json.dumps({"store": store.fingerprint, "probes": told}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
