"""Does a run beat its own random initialisation? A frozen linear probe for age and sex, tested on patients never trained on.

    python examples/linear_probe.py STORE RUN [RUN ...] [--cohorts ptb_xl code15 ...] [-o probe.json]

The probe (ridge or logistic regression on standardised features, its penalty chosen among patients) is fitted on the
patients a run trained on and tested on those it held out. Beside each run stand the same network with the weights it began
with, and the difference of the two; 95 % intervals draw patients anew. Prints a table, and writes it if asked to.
"""

import argparse
import json
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
from capezoo import encoders
from capezoo.evaluate.measure.statistics import Interval, auroc, patient_bootstrap, weighted_mean
from capezoo.specs import RunConfig, derive_seed
from capezoo.training.checkpoint import trained
from capezoo.training.data import TrainingData
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex

PENALTIES = np.logspace(0, 5, 11)  # of the ridge; their inverses for the logistic regression
FOLDS = 5
AGE_CAP = 90.0  # ages from here on are stored as 90


def untrained(config: RunConfig) -> nn.Module:
    """The network with the weights that the run began with."""
    return encoders.build(config.encoder, derive_seed(config.seed, "encoder")).eval()


def features(model: nn.Module, config: RunConfig, store: ec.Store) -> NDArray[np.float32]:
    """(record, unit), in the order of the index."""
    model.spec = config.input  # type: ignore[assignment]
    return capezoo.embed(model, store)


def known(index: CohortIndex, task: str, cohorts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray]:
    """Rows with a label in some cohorts, their labels and patients."""
    if task == "age":
        label = index["age"].astype(float)
        there = np.isfinite(label) & (label < AGE_CAP)
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


def compare(task: str, given: dict[str, NDArray], y: NDArray, patients: NDArray) -> dict[str, Interval]:
    """Of each set of answers the error in years or the AUROC, and `gain`: how much better the first is than the second."""
    if task == "age":
        metric = {name: weighted_mean(np.abs(answer - y)) for name, answer in given.items()}
        better = -1.0
    else:
        metric = {name: (lambda w, answer=answer: auroc(y == 1, answer, w)) for name, answer in given.items()}
        better = 1.0
    first, second = metric.values()
    found = {name: patient_bootstrap(patients, statistic) for name, statistic in metric.items()}
    return found | {"gain": patient_bootstrap(patients, lambda w: better * (first(w) - second(w)))}


def probe(store: ec.Store, run: Path, cohorts: list[str]) -> list[dict[str, Any]]:
    """One entry a task: how many recordings and patients, and intervals of the trained, the untrained and the gain."""
    model, config, _ = trained(run)
    data = TrainingData.prepare(store, config)
    assert data.held_out is not None, "the run held nobody out"
    place = {row: number for number, row in enumerate(store.index["row"].tolist())}
    of = {"trained": features(model, config, store), "untrained": features(untrained(config), config, store)}
    told = []
    for task in ("age", "sex"):
        rows, y, patients = known(data.train, task, cohorts)
        test_rows, y_test, test_patients = known(data.held_out, task, cohorts)
        here, there = ([place[row] for row in part.tolist()] for part in (rows, test_rows))
        given = {name: answers(task, x[here], y, patients, x[there]) for name, x in of.items()}
        found = compare(task, given, y_test, test_patients)
        told.append({
            "run": run.name, "task": task, "fitted_on": len(rows), "tested_on": len(test_rows),
            "test_patients": len(np.unique(test_patients)),
            **{name: [one.value, one.low, one.high] for name, one in found.items()},
        })  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--cohorts", nargs="+", help="default: all")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    store = ec.open(options.store)
    told = [one for run in options.runs for one in probe(store, run, options.cohorts or list(store.index.cohorts))]
    for one in told:
        words = [
            f"{name} {one[name][0]:.3f} ({one[name][1]:.3f} to {one[name][2]:.3f})"
            for name in ("trained", "untrained", "gain")
        ]
        print(
            f"{one['run']}, {one['task']}, {one['tested_on']} recordings of {one['test_patients']} patients: {'; '.join(words)}"
        )
    if options.out:
        options.out.write_text(json.dumps({"store": store.fingerprint, "probes": told}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
