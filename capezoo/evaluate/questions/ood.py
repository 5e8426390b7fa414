"""Out of distribution: heads for age and sex trained on one cohort's embeddings, tested on every cohort.

Protocol of CAPE's second experiment (arXiv 2509.10369): encoder frozen, one cohort split by patient, several heads per
task that differ in initial weights and order only, the same test records for all weights. Beyond it: a guarded scaler
beside the plain one, intervals that draw patients, the error of a constant answer, and the health of the features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.embed import Embeddings
from capezoo.evaluate.contamination import seen_in_tests
from capezoo.evaluate.measure import heads
from capezoo.evaluate.measure.scalers import SCALERS, ScalerName, fit_scaler, health
from capezoo.evaluate.measure.statistics import (
    Interval,
    Weights,
    auroc,
    delong_test,
    one_per_patient,
    patient_bootstrap,
    standard_error,
    t_interval,
    weighted_mean,
    wilcoxon_p,
)
from capezoo.evaluate.results import (
    Comparison,
    OodConfig,
    OodResult,
    Provenance,
    Score,
    Task,
    TestSet,
    WeightsResult,
    known,
)
from capezoo.specs import derive_seed
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import SEX_CODES, CohortIndex

AGE_CAP = 90.0  # ages from here on are stored as 90; CAPE leaves them out of age metrics as well
AGE_SHIFT, AGE_RANGE = 7.0, 100.0  # the age head answers (age - 7) / 100; CAPE's public code
TASKS: tuple[Task, ...] = ("age", "sex")
_HEADS: dict[Task, heads.HeadConfig] = {"age": heads.AGE, "sex": heads.SEX}
FEWEST = 2  # labelled records of each kind below which nothing is trained or scored


@dataclass(frozen=True, eq=False)
class Candidate:
    """Embeddings of one set of weights, and the (record, 16) waveform digests it was pretrained on, if known."""

    embeddings: Embeddings
    trained_on: NDArray[np.uint8] | None = None

    @property
    def name(self) -> str:
        return self.embeddings.info.name


@dataclass(frozen=True, eq=False)
class Split:
    """Entries of the index: parts of the training cohort, and test entries of every cohort."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    tests: dict[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Exam:
    """One task in one cohort: the test records whose truth is known. Axis `record` below means these."""

    task: Task
    cohort: str
    entries: NDArray[np.int64]
    truth: NDArray[np.float64]  # years, or 1 for female
    patients: NDArray[np.int64]
    seed: int
    resamples: int

    def metric(self, answer: NDArray[np.float64]) -> Callable[[Weights], NDArray[np.float64]]:
        """Error in years or AUROC of one (record,) answer, as a statistic over (resample, record) weights."""
        if self.task == "age":
            return weighted_mean(np.abs(answer - self.truth))
        return lambda weights: auroc(self.truth == 1, answer, weights)

    def per_run(self, answers: NDArray[np.float64]) -> list[float]:
        """The metric of each of (run, record) answers."""
        one = np.ones((1, len(self.truth)))
        return [float(self.metric(answer)(one)[0]) for answer in answers]

    def interval(self, statistic: Callable[[Weights], NDArray[np.float64]]) -> Interval:
        """With patients drawn anew: the same draws for all weights and scalers."""
        return patient_bootstrap(self.patients, statistic, self.resamples, derive_seed(self.seed, "boot", self.cohort))


# (task, cohort, scaler) -> (run, record) answers: years for age, probability of female for sex
Answers = dict[tuple[Task, str, ScalerName], NDArray[np.float64]]


def evaluate_ood(
    candidates: Sequence[Candidate],
    config: OodConfig,
    source: Provenance,
    progress: Callable[[int, int], None] | None = None,
) -> OodResult:
    """Train heads on `config.train_cohort` for every candidate and test them on all cohorts.

    Candidates must be embeddings of one store. Raises SpecError for an unknown cohort, for unequal candidates, and if
    the training cohort has labels for neither task.
    """
    _require_comparable(candidates)
    index = candidates[0].embeddings.index
    split = split_records(index, config)
    tasks = [task for task in TASKS if _trainable(index, split, task) and _exams(index, split, task, config)]
    if not tasks:
        raise SpecError(
            f"cohort {config.train_cohort!r}: found ages or sexes of fewer than {FEWEST} training or validation "
            "records, expected more. Train on another cohort."
        )
    exams = [exam for task in tasks for exam in _exams(index, split, task, config)]
    answers: list[Answers] = []
    results: list[WeightsResult] = []
    for candidate in candidates:
        features = candidate.embeddings.embedding
        answers.append({})
        epochs: dict[str, tuple[int, ...]] = {}
        for task in tasks:
            mine = [exam for exam in exams if exam.task == task]
            answers[-1] |= _answers(features, index, split, mine, config, epochs)
            if progress:
                progress(len(results) * len(tasks) + tasks.index(task) + 1, len(candidates) * len(tasks))
        scores = tuple(_score(exam, scaler, answers[-1]) for scaler in SCALERS for exam in exams)
        results.append(_result(candidate, split, scores, epochs))
    pairs = combinations(zip(candidates, answers, strict=True), 2)
    return OodResult(
        config=config,
        provenance=source,
        train_records={task: int(targets(index, split.train, task)[1].sum()) for task in tasks},
        tests=tuple(_test_set(index, split, name) for name in split.tests),
        weights=tuple(results),
        comparisons=tuple(
            _compare(exam, scaler, (a.name, a_answers), (b.name, b_answers))
            for (a, a_answers), (b, b_answers) in pairs
            for scaler in SCALERS
            for exam in exams
        ),
    )


def split_records(index: CohortIndex, config: OodConfig) -> Split:
    """Split the training cohort by patient, and draw the test entries of every cohort; depends on seed and index only."""
    names = ("train", "validation", "test")
    home = index.where(cohort=config.train_cohort)
    parts = home.split_by_patient(dict(zip(names, config.shares, strict=True)), f"ood-{config.seed}")
    place = {name: np.flatnonzero(np.isin(index["row"], part["row"])) for name, part in parts.items()}
    tests = {}
    for code, name in enumerate(index.cohorts):
        entries = place["test"] if name == config.train_cohort else np.flatnonzero(index["cohort"] == code)
        if len(entries) > config.test_records:
            generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "ood-test", name)))
            entries = np.sort(generator.choice(entries, config.test_records, replace=False))
        if len(entries):
            tests[name] = entries
    return Split(place["train"], place["validation"], tests)


def targets(
    index: CohortIndex, entries: NDArray[np.int64], task: Task
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Truth of some entries (years, or 1 for female) and whether it is known; ages from 90 on count as unknown."""
    if task == "age":
        age = index["age"][entries].astype(np.float64)
        return age, np.isfinite(age) & (age < AGE_CAP)
    sex = index["sex"][entries]
    return (sex == SEX_CODES["female"]).astype(np.float64), np.isin(sex, list(SEX_CODES.values()))


def _trainable(index: CohortIndex, split: Split, task: Task) -> bool:
    """Enough labels to train on; for sex, both sexes."""
    for entries in (split.train, split.validation):
        truth, is_known = targets(index, entries, task)
        if is_known.sum() < FEWEST or (task == "sex" and len(np.unique(truth[is_known])) < 2):
            return False
    return True


def _exams(index: CohortIndex, split: Split, task: Task, config: OodConfig) -> list[Exam]:
    """One exam per cohort with enough labels."""
    found = []
    for cohort, entries in split.tests.items():
        truth, is_known = targets(index, entries, task)
        if _scorable(truth[is_known], task):
            at = entries[is_known]
            patients = index["patient"][at]
            found.append(Exam(task, cohort, at, truth[is_known], patients, config.seed, config.resamples))
    return found


def _scorable(truth: NDArray[np.float64], task: Task) -> bool:
    if task == "age":
        return len(truth) >= FEWEST
    return bool(min((truth == 1).sum(), (truth == 0).sum()) >= FEWEST)


def _answers(
    features: NDArray[np.float32],
    index: CohortIndex,
    split: Split,
    exams: Sequence[Exam],
    config: OodConfig,
    epochs: dict[str, tuple[int, ...]],
) -> Answers:
    """Train the heads of one task with both scalers, and let them sit its exams. Fills `epochs`."""
    task = exams[0].task
    (train_x, train_y), (val_x, val_y) = (
        _known(features, index, part, task) for part in (split.train, split.validation)
    )
    scalers = {name: fit_scaler(train_x, name) for name in SCALERS}
    inputs = {name: (scaler(train_x), scaler(val_x)) for name, scaler in scalers.items()}
    # Heads of one run draw alike, so equal inputs give equal heads: train them once.
    same = all(np.array_equal(a, b) for a, b in zip(inputs["plain"], inputs["guarded"], strict=True))
    used = SCALERS[:1] if same else SCALERS
    trained = heads.train_heads(
        _examples([inputs[name][0] for name in used], train_y, train_y, task),
        _examples([inputs[name][1] for name in used], val_y, train_y, task),
        _HEADS[task].model_copy(update={"lr": config.lr, "max_epochs": config.max_epochs}),
        [derive_seed(config.seed, "ood-head", task, run) for run in range(config.runs)],
    )
    answers: Answers = {}
    for place, name in enumerate(SCALERS):
        group = 0 if same else place
        epochs[f"{task} {name}"] = tuple(trained.epochs[group].tolist())
        for exam in exams:
            found = trained.predict(scalers[name](features[exam.entries]), group)
            answers[task, exam.cohort, name] = found * AGE_RANGE + AGE_SHIFT if task == "age" else found
    return answers


def _known(
    features: NDArray[np.float32], index: CohortIndex, entries: NDArray[np.int64], task: Task
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    truth, is_known = targets(index, entries, task)
    return features[entries[is_known]], truth[is_known]


def _examples(
    inputs: list[NDArray[np.float32]], truth: NDArray[np.float64], train: NDArray[np.float64], task: Task
) -> heads.Examples:
    """What a head is taught: age as a share of its range; sex with weights n / (2 n_class) of the training part."""
    if task == "age":
        return heads.examples(inputs, (truth - AGE_SHIFT) / AGE_RANGE)
    share = train.mean()
    return heads.examples(inputs, truth, np.where(truth == 1, 0.5 / share, 0.5 / (1 - share)))


def _score(exam: Exam, scaler: ScalerName, answers: Answers) -> Score:
    found = answers[exam.task, exam.cohort, scaler]
    runs = exam.per_run(found)
    over_runs, interval = t_interval(runs), exam.interval(exam.metric(found.mean(axis=0)))
    return Score(
        task=exam.task,
        cohort=exam.cohort,
        scaler=scaler,
        runs=tuple(runs),
        mean=over_runs.value,
        se=known(standard_error(runs)),
        runs_low=known(over_runs.low),
        runs_high=known(over_runs.high),
        averaged=interval.value,
        low=known(interval.low),
        high=known(interval.high),
        records=len(exam.truth),
        patients=len(np.unique(exam.patients)),
    )


def _compare(exam: Exam, scaler: ScalerName, first: tuple[str, Answers], second: tuple[str, Answers]) -> Comparison:
    """Two candidates on the same records: runs paired by seed, answers paired by record."""
    a, b = (answers[exam.task, exam.cohort, scaler] for _, answers in (first, second))
    of_a, of_b = exam.metric(a.mean(axis=0)), exam.metric(b.mean(axis=0))
    interval = exam.interval(lambda weights: of_a(weights) - of_b(weights))
    single = one_per_patient(exam.patients, derive_seed(exam.seed, "delong", exam.cohort))
    delong = None
    if exam.task == "sex" and _scorable(exam.truth[single], "sex"):
        delong = delong_test(exam.truth[single] == 1, a.mean(axis=0)[single], b.mean(axis=0)[single])
    return Comparison(
        first=first[0],
        second=second[0],
        task=exam.task,
        cohort=exam.cohort,
        scaler=scaler,
        difference=interval.value,
        low=known(interval.low),
        high=known(interval.high),
        wilcoxon_p=wilcoxon_p(exam.per_run(a), exam.per_run(b)) if len(a) > 1 else None,
        delong_p=known(delong.p) if delong else None,
        delong_patients=len(single) if delong else None,
    )


def _result(
    candidate: Candidate, split: Split, scores: tuple[Score, ...], epochs: dict[str, tuple[int, ...]]
) -> WeightsResult:
    made = candidate.embeddings
    features = made.embedding
    records, patients = seen_in_tests(made.index, split.tests, candidate.trained_on) or (None, None)
    return WeightsResult(
        name=candidate.name,
        weights=made.info.weights,
        card=made.info.card,
        units=features.shape[1],
        seen=records,
        seen_patients=patients,
        health=health(features[split.train], {name: features[at] for name, at in split.tests.items()}),
        epochs=epochs,
        scores=scores,
    )


def _test_set(index: CohortIndex, split: Split, cohort: str) -> TestSet:
    entries = split.tests[cohort]
    age, has_age = targets(index, entries, "age")
    train_age, trained = targets(index, split.train, "age")
    constant = None
    if has_age.any() and trained.any():
        constant = float(np.abs(age[has_age] - np.median(train_age[trained])).mean())
    return TestSet(
        cohort=cohort,
        records=len(entries),
        patients=len(np.unique(index["patient"][entries])),
        age_known=int(has_age.sum()),
        age_90=int((age >= AGE_CAP).sum()),
        sex_known=int(targets(index, entries, "sex")[1].sum()),
        constant_age_mae=constant,
    )


def _require_comparable(candidates: Sequence[Candidate]) -> None:
    if not candidates:
        raise SpecError("found no weights, expected one set at least.")
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise SpecError(f"found weights named {', '.join(names)}, expected different names.")
    first = candidates[0].embeddings
    for other in (candidate.embeddings for candidate in candidates[1:]):
        same = other.info.store_fingerprint == first.info.store_fingerprint
        if not same or not np.array_equal(other.index["row"], first.index["row"]):
            raise SpecError(
                f"found embeddings of two stores ({first.info.name}: {first.info.store_fingerprint[:12]}, "
                f"{other.info.name}: {other.info.store_fingerprint[:12]}), expected one. Embed the same store again."
            )
