"""Linear probes as questions share them: their settings, their training, and which of the targets asked for can be answered."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Parts
from capezoo.evaluate.measure.scalers import SCALERS, Features, ScalerName, fit_scaler
from capezoo.evaluate.questions._sets import SETS
from capezoo.evaluate.questions._targets import Kind, Target, TargetExam
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.index.cohort_index import CohortIndex

if TYPE_CHECKING:
    from capezoo.evaluate.measure.heads import Examples, HeadConfig

# (cohort, scaler) -> (initialisation, run, record, output); trained weights have one initialisation
_Answers = dict[tuple[str, ScalerName], NDArray[np.float64]]
_LOSSES: dict[Kind, Literal["linear", "bce", "softmax"]] = {"number": "linear", "labels": "bce", "classes": "softmax"}
# What may be asked for, in the help of every question that trains probes.
_WHAT = (
    "age, sex, a label (NAME, or NAME=number, =labels, =classes), labels answered by one probe (NAME+NAME), or a set of "
    f"labels ({', '.join(SETS)}); repeat for more"
)


class Probing(Spec):
    """Settings of every question that trains linear probes: its `Config` inherits them."""

    target: tuple[str, ...] = Field(
        (),
        description=f"{_WHAT}; default: age, sex, superclass, subclass",
    )
    runs: int = Field(1, gt=0, description="probes per target, whose answers are averaged; CAPE has 1")
    lr: float = Field(1e-4, gt=0, description="learning rate for labels; CAPE's. Small cohorts need more")
    demographic_lr: float = Field(5e-3, gt=0, description="learning rate for age and sex; CAPE's")
    max_epochs: int = Field(300, gt=0, description="at most, for age and sex at most 100; CAPE")
    resamples: int = Field(1000, gt=0, description="draws of patients for each interval; our default")

    def require(self, index: CohortIndex) -> None:
        """Raise SpecError for a target that this store does not know."""
        for name in self.target:
            Target.require(index, name)


def _trainable(index: CohortIndex, asked: Sequence[str], parts: Parts) -> tuple[list[Target], dict[str, str]]:
    """Return the targets that have labels enough to train on, and why the others have not."""
    targets, left_out = [], {}
    for name in dict.fromkeys(asked):
        try:
            targets.append(Target.find(index, name, parts.train, parts.validation))
        except Unanswerable as error:
            left_out[name] = str(error)
    return targets, left_out


def _settings(target: Target, config: Probing) -> "HeadConfig":
    from capezoo.evaluate.measure.heads import HeadConfig

    linear = HeadConfig(hidden=(), outputs=len(target.outputs), loss=_LOSSES[target.kind], dropout=0.0)
    # Age and sex: CAPE's public code. So are epochs, factor and patience of diagnoses, which other labels share.
    if target.name in ("age", "sex"):
        return linear.model_copy(update={"lr": config.demographic_lr, "max_epochs": min(100, config.max_epochs)})
    changed = {"lr": config.lr, "max_epochs": config.max_epochs, "plateau_factor": 0.5, "plateau_patience": 5}
    return linear.model_copy(update=changed)


def _sit(
    features: Features,
    target: Target,
    exams: Sequence[TargetExam],
    parts: Parts,
    config: Probing,
    seed: int,
    *,
    names: Sequence[ScalerName] = SCALERS,
) -> tuple[_Answers, dict[str, tuple[int, ...]]]:
    """Train with each scaler: (cohort, scaler) -> (run, record, output) answers, and scaler -> epochs of each run."""
    train, validation = (part[target.known(part)] for part in (parts.train, parts.validation))
    scalers = {name: fit_scaler(features[train], name) for name in names}
    # CAPE answers years as they are. Numbers of any unit need a common scale, or the rate would have to fit the unit.
    is_number = target.kind == "number"
    shift = float(target.truth[train].mean()) if is_number else 0.0
    scale = (float(target.truth[train].std()) or 1.0) if is_number else 1.0
    trained = _settings(target, config).train(
        _examples([scalers[name](features[train]) for name in names], target, train, train, (shift, scale)),
        _examples([scalers[name](features[validation]) for name in names], target, validation, train, (shift, scale)),
        # Neither weights nor scaler are in the key: run r draws alike for all of them, so that runs pair.
        [derive_seed(seed, "probe", target.name, run) for run in range(config.runs)],
    )
    answers = {}
    for group, name in enumerate(names):
        for exam in exams:
            found = trained.predict(scalers[name](features[exam.entries]), group) * scale + shift
            answers[exam.cohort, name] = found.reshape(config.runs, len(exam.entries), -1)
    return answers, {name: tuple(trained.epochs[group].tolist()) for group, name in enumerate(names)}


def _examples(
    inputs: list[Features], target: Target, entries: NDArray[np.int64], train: NDArray[np.int64], scale: Sequence[float]
) -> "Examples":
    from capezoo.evaluate.measure.heads import Examples

    truth = (target.truth[entries] - scale[0]) / scale[1]
    return Examples.of(inputs, truth[:, 0] if truth.shape[1] == 1 else truth, target.weights(entries, train))
