"""Fine-tune an encoder on a label of a store with timm's optimiser, schedule and averaging; test it on other patients.

python examples/fine_tune.py [--store STORE] [--label sex] [--weights WEIGHTS] [--steps 120] [--seed 0]

Without --store, a small hospital is simulated; without --weights, a small encoder starts at random. `--label` is `sex`
or a label column of the store. Nothing is chosen by looking at the test patients: the averaged weights of the last step
are tested, once. Needs the extra `zoo`.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3

import capezoo
import ecgcohorts as ec
from capezoo import runs
from capezoo.evaluate.measure.statistics import Interval, auroc, patient_bootstrap
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, CohortIndex

PATIENTS = 120  # simulated
LR, LAYER_DECAY, WEIGHT_DECAY = 2e-3, 0.75, 0.05  # of the classifier; each layer below learns 0.75 times as fast
BATCH = 32
EMA_DECAY = 0.95


@dataclass(frozen=True)
class Outcome:
    """What came out, and on whom it was measured."""

    losses: list[float]  # one per step
    test: Interval  # AUROC, 95 % interval by drawing patients
    train: CohortIndex
    tested: CohortIndex


def simulated_store(folder: Path) -> Path:
    """A store of one simulated hospital."""
    from ecgcohorts.ingest import IngestOptions, ingest
    from ecgcohorts.simulate import HOSPITALS, simulate

    (folder / "key").write_text(bytes(range(32)).hex(), "ascii")  # anybody's: these patients do not exist
    simulate(folder / "raw", patients_per_cohort=PATIENTS, seed=0, hospitals=[HOSPITALS["north"]])
    source = folder / "raw" / "north"
    ingest(source, folder / "store.zarr", str(source / "cohort.yaml"), IngestOptions(key_file=folder / "key"))
    return folder / "store.zarr"


def truth(index: CohortIndex, label: str) -> NDArray[np.float32]:
    """1, 0, or NaN where unknown, for each recording."""
    if label != "sex":
        return index[LABEL + label]
    sex = index["sex"]
    return np.where(sex < 0, np.nan, sex == SEX_CODES["female"]).astype(np.float32)


def windows(store: ec.Store, index: CohortIndex, length: int, place: NDArray | float) -> torch.Tensor:
    """(recording, lead, time) in mV: from each valid strip a window; place 0 is its first possible start, 1 the last."""
    room = np.maximum(index["valid_stop"] - index["valid_start"] - length, 0)
    starts = index["valid_start"] + (room * place).astype(int)
    strips = np.nan_to_num(store.read_mv(index["row"]))
    cut = [strip[:, start : start + length] for strip, start in zip(strips, starts, strict=True)]
    return torch.from_numpy(np.stack([np.pad(one, ((0, 0), (0, length - one.shape[1]))) for one in cut]))


def fine_tune(store: ec.Store, label: str, weights: str | None, steps: int, seed: int) -> Outcome:
    """Train on 70 % of the patients whose label is known, test on the others."""
    known = store.index.take(np.flatnonzero(np.isfinite(truth(store.index, label))))
    parts = known.split_by_patient({"train": 0.7, "test": 0.3}, salt="fine-tune-v1")
    small = runs.get("smoke", seed).encoder
    random = capezoo.create_model(small.name, num_classes=1, seed=seed, config=small.config)
    model = capezoo.load(weights, num_classes=1, seed=seed) if weights else random
    model.spec.require_recipe(store.recipe)
    optimiser = create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY, layer_decay=LAYER_DECAY)
    schedule = CosineLRScheduler(optimiser, t_initial=steps, warmup_t=steps // 10, t_in_epochs=False)
    average = ModelEmaV3(model, decay=EMA_DECAY, use_warmup=True)
    generator = np.random.default_rng(seed)
    losses = []
    model.train()
    for step in range(steps):
        schedule.step_update(step)
        batch = parts["train"].take(np.sort(generator.choice(len(parts["train"]), BATCH, replace=False)))
        x = windows(store, batch, model.spec.length, generator.random(BATCH))
        loss = F.binary_cross_entropy_with_logits(model(x)[:, 0], torch.from_numpy(truth(batch, label)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(model, step)
        losses.append(loss.item())
    tested = parts["test"]
    with torch.inference_mode():
        score = average.module.eval()(windows(store, tested, model.spec.length, 0.5))[:, 0].numpy()
    answer = truth(tested, label) == 1
    return Outcome(
        losses,
        patient_bootstrap(tested["patient"], lambda drawn: auroc(answer, score, drawn), seed=seed),
        parts["train"],
        tested,
    )


def main(arguments: list[str] | None = None) -> Outcome:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="simulated if not given")
    parser.add_argument("--label", default="sex")
    parser.add_argument("--weights", help="published: encoder.tag, folder, or hf-hub:ORG/REPO@REVISION")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = ec.open(told.store or simulated_store(Path(folder)))
        outcome = fine_tune(store, told.label, told.weights, told.steps, told.seed)
    tenth = max(1, told.steps // 10)
    print(f"loss {np.mean(outcome.losses[:tenth]):.3f} at first, {np.mean(outcome.losses[-tenth:]):.3f} at last")
    print(f"{told.label}: AUROC {outcome.test.value:.3f} (95 % {outcome.test.low:.3f}-{outcome.test.high:.3f}) on "
          f"{len(outcome.tested)} recordings of {outcome.tested.n_patients} other patients")  # fmt: skip
    return outcome


if __name__ == "__main__":
    main()
