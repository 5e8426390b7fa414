"""What an evaluation writes down: numbers with their intervals, and everything needed to get them again."""

import json
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Literal, TypeVar

from capezoo.evaluate.measure.scalers import Health, ScalerName
from capezoo.evaluate.questions.separability import Separability
from capezoo.specs import Metric, Spec, parse
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import write_file

Task = Literal["age", "sex"]
METRICS: dict[Task, str] = {"age": "age_mae_years", "sex": "sex_auroc"}
_LIBRARIES = ("ecgcohorts", "numpy", "scikit-learn", "scipy", "torch")
_RESULT_LIMIT = 64 << 20  # bytes; a study of three weights and ten cohorts has about 300 kB

AnyResult = TypeVar("AnyResult", bound=Spec)


class Provenance(Spec):
    """Where numbers come from."""

    command: str
    seed: int
    store_fingerprint: str
    commit: str | None  # of a git checkout this package runs from; None for an installed one
    versions: dict[str, str]


class TestSet(Spec):
    """Records of one cohort that heads are tested on: the same for all weights and all runs."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    cohort: str
    records: int
    patients: int
    age_known: int  # and below 90
    age_90: int  # 90 or more: ages are capped there, so left out
    sex_known: int
    constant_age_mae: float | None  # error of always answering the training cohort's median age


class Score(Spec):
    """One metric of one set of weights in one cohort."""

    task: Task
    cohort: str
    scaler: ScalerName
    runs: tuple[float, ...]  # one value per head
    mean: float
    se: float | None  # standard error over runs
    runs_low: float | None  # t interval over runs
    runs_high: float | None
    averaged: float  # of the prediction averaged over runs
    low: float | None  # of `averaged`, patients drawn anew
    high: float | None
    records: int
    patients: int


class WeightsResult(Spec):
    """Everything measured on one set of weights."""

    name: str
    weights: str  # digest of all tensors
    card: str | None  # SHA-256 of card.json
    units: int
    seen: dict[str, int] | None  # cohort -> test records that pretraining had seen; None: unknown
    seen_patients: dict[str, int] | None = None  # cohort -> test patients of whom it had seen a recording in the store
    health: Health
    epochs: dict[str, tuple[int, ...]]  # "task scaler" -> epochs of each head
    scores: tuple[Score, ...]

    def score(self, task: Task, cohort: str, scaler: ScalerName) -> Score | None:
        return next((s for s in self.scores if (s.task, s.cohort, s.scaler) == (task, cohort, scaler)), None)


class Comparison(Spec):
    """Two sets of weights on the same test records: metric of `first` minus metric of `second`."""

    first: str
    second: str
    task: Task
    cohort: str
    scaler: ScalerName
    difference: float  # of the averaged predictions
    low: float | None
    high: float | None
    wilcoxon_p: float | None  # paired runs; n runs never give less than 2 / 2**n
    delong_p: float | None  # sex only, one record per patient
    delong_patients: int | None


class OodConfig(Spec):
    """`evaluate ood`: heads trained on one cohort, tested on the others."""

    train_cohort: str
    seed: int
    runs: int = 3  # CAPE: 10
    shares: tuple[float, float, float] = (0.5, 0.1, 0.4)  # train, validation, test; CAPE
    test_records: int = 10_000  # per cohort at most, at random; CAPE
    lr: float = 1e-4  # of both heads; CAPE. Small cohorts may need more
    max_epochs: int = 100  # CAPE
    resamples: int = 1000  # our default
    allow_seen: bool = False  # test patients that pretraining has seen, or may have, were accepted


class OodResult(Spec):
    """Result of `evaluate ood`."""

    config: OodConfig
    provenance: Provenance
    train_records: dict[str, int]  # task -> labelled training records
    tests: tuple[TestSet, ...]
    weights: tuple[WeightsResult, ...]
    comparisons: tuple[Comparison, ...]


class StudyResult(Spec):
    """results.json: out-of-distribution scores, and how well each embedding tells cohorts apart."""

    kind: Literal["ood"] = "ood"
    format_version: Literal[1] = 1
    ood: OodResult
    separability: dict[str, Separability]  # weights -> measures; empty if there is but one cohort of some size


def provenance(command: str, seed: int, store_fingerprint: str) -> Provenance:
    """Describe this run. Holds nothing of the machine."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            continue
    return Provenance(
        command=command, seed=seed, store_fingerprint=store_fingerprint, commit=_commit(), versions=versions
    )


def known(value: float) -> float | None:
    """None for NaN and infinities, which JSON has not."""
    return value if isfinite(value) else None


def card_metrics(result: OodResult, weights: str) -> tuple[Metric, ...]:
    """Scores of the weights with this tensor digest, guarded scaler, for their card. Raises SpecError if there are none."""
    mine = next((one for one in result.weights if one.weights == weights), None)
    if mine is None:
        names = ", ".join(f"{one.name} {one.weights[:12]}" for one in result.weights)
        raise SpecError(f"found evaluations of {names}, expected one of {weights[:12]}. Evaluate these weights first.")
    source = result.provenance
    how = f"heads trained on {result.config.train_cohort}, guarded scaler; {source.command or 'called from Python'}; " \
          f"commit {source.commit or 'unknown'}; store {source.store_fingerprint[:16]}"  # fmt: skip
    return tuple(
        Metric(name=METRICS[s.task], cohort=s.cohort, value=s.averaged, low=s.low, high=s.high, n=s.records, method=how)
        for s in mine.scores
        if s.scaler == "guarded"
    )


def file_name(name: str) -> str:
    """A name of weights as a file name: letters, digits and `_.-`, never a hidden file or another folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".") or "weights"


def write_result(path: Path, result: Spec) -> None:
    """Write a result whole, as JSON that a person can read."""
    write_file(path, (json.dumps(result.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode())


def read_result(kind: type[AnyResult], path: Path) -> AnyResult:
    """Read a result. Raises SourceError if it is missing or too large, SpecError if it is of another kind."""
    if not path.is_file() or path.stat().st_size > _RESULT_LIMIT:
        raise SourceError(f"{path}: found no result, expected a file written by `capezoo evaluate`.")
    return parse(kind, path.read_text(encoding="utf-8"), str(path))


@cache
def _commit() -> str | None:
    """Commit of the checkout this file lies in, with `-dirty` if it was changed."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
